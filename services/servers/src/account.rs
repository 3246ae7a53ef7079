//! Under which account PostgreSQL runs: it refuses root.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::{Error, process};

/// How long the trial of an account may take.
const TRIAL_LIMIT: Duration = Duration::from_secs(20);

/// The account of those who have none.
const NOBODY: u32 = 65534;

/// The account that PostgreSQL's programs run under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// Our own, an ordinary one.
    Own,
    /// We are root: another one.
    Other {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
    },
    /// We are root, and no other account can reach the files: a user namespace in which root has an ordinary number.
    Namespace,
}

impl Account {
    /// A command under this account, started in `/`, with messages in English.
    pub fn command(self, program: &Path) -> Command {
        let mut command = match self {
            Account::Namespace => {
                let mut command = Command::new("unshare");
                command.args(["--user", "--map-user=1000", "--map-group=1000", "--"]);
                command.arg(program);
                command
            }
            Account::Own | Account::Other { .. } => Command::new(program),
        };
        if let Account::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
        command.current_dir("/").env("LC_ALL", "C");
        command
    }

    /// Makes a file or directory this account's own.
    pub fn own(self, path: &Path) -> Result<(), Error> {
        let (uid, gid) = match self {
            Account::Own => return Ok(()),
            Account::Other { uid, gid } => (uid, gid),
            Account::Namespace => (0, 0),
        };
        chown(path, Some(uid), Some(gid)).map_err(Error::io("change the owner of", path))
    }
}

/// The account for data that exists: that of its owner.
pub fn of_existing(data: &Path) -> Result<Account, Error> {
    if process::effective_user() != 0 {
        return Ok(Account::Own);
    }
    let owner = fs::metadata(data).map_err(Error::io("read", data))?;
    Ok(match owner.uid() {
        0 => Account::Namespace,
        uid => Account::Other { uid, gid: owner.gid() },
    })
}

/// The account for new data in the empty directory `data`, which is made its own: as root the `postgres` user or nobody, if that
/// one can reach the directory and run `postgres`, else a user namespace.
///
/// # Errors
/// [`Error::Unreachable`] when neither can.
pub fn for_new(data: &Path, postgres: &Path) -> Result<Account, Error> {
    if process::effective_user() != 0 {
        return Ok(Account::Own);
    }
    let (uid, gid) = unprivileged();
    let mut reasons = Vec::new();
    for account in [Account::Other { uid, gid }, Account::Namespace] {
        account.own(data)?;
        match trial(account, data, postgres) {
            Ok(()) => return Ok(account),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(Error::Unreachable { uid, path: data.to_path_buf(), reason: reasons.join("; ") })
}

fn unprivileged() -> (u32, u32) {
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    parse_account(&accounts, "postgres").unwrap_or((NOBODY, NOBODY))
}

fn parse_account(passwd: &str, name: &str) -> Option<(u32, u32)> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    (uid != 0).then_some((uid, gid))
}

/// Permission bits do not tell all (access lists, security modules), so it is tried.
fn trial(account: Account, data: &Path, postgres: &Path) -> Result<(), String> {
    let mut command = account.command(Path::new("/bin/sh"));
    command.args(["-c", r#"cd "$1" && [ -w . ] && "$2" --version"#, "trial"]);
    command.arg(data).arg(postgres);
    match process::run(command, "", TRIAL_LIMIT) {
        Ok(done) if done.success => Ok(()),
        Ok(done) if done.output.trim().is_empty() => Err("it is not writable".to_owned()),
        Ok(done) => Err(done.output.trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_account;

    fn check(passwd: &str, expected: Option<(u32, u32)>) {
        assert_eq!(parse_account(passwd, "postgres"), expected, "{passwd:?}");
    }

    #[test]
    fn reads_the_account_list() {
        check("root:x:0:0::/root:/bin/sh\npostgres:x:101:104:,,,:/:/bin/sh\n", Some((101, 104)));
        check("postgres2:x:101:104::/:\n", None);
        check("postgres:x:0:0::/:\n", None);
        check("postgres:x:many:1\n", None);
        check("postgres\n", None);
        check("", None);
    }
}
