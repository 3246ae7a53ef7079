//! PostgreSQL: its data directory, its start, when it is ready.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::account::{self, Account};
use crate::launch::{self, Launch, Running};
use crate::process::{self, Lifetime};
use crate::servers::Options;
use crate::{Error, PostgresBinaries};

/// How long making a data directory may take, in each of its two steps.
const PREPARE_LIMIT: Duration = Duration::from_secs(120);

/// The database, and the superuser that owns it.
const NAME: &str = "callboard";

/// Starts it with its data in `data_dir`, made first if there is none, and waits until it takes connections.
pub fn start(
    options: &Options,
    data_dir: &Path,
    binaries: &PostgresBinaries,
    lifetime: Lifetime,
    last_port: Option<u16>,
) -> Result<Running, Error> {
    let data = data_dir.join("postgres");
    let account = match data.exists() {
        true => account::of_existing(&data)?,
        false => create(options, data_dir, binaries)?,
    };
    let password = read_password(data_dir)?;
    let log = data_dir.join("postgres.log");
    let command = |port| Ok(server_command(options, &data, binaries, account, port));
    let (child, port) = launch::launch(&Launch {
        server: "PostgreSQL",
        log: log.clone(),
        lifetime,
        last_port,
        command: &command,
        ready: &|pid, _| ready(data_dir, pid),
    })?;
    let url = format!("postgres://{NAME}:{password}@127.0.0.1:{port}/{NAME}?sslmode=disable");
    let version = binaries.version;
    Ok(Running { child, port, url, version, log })
}

/// What the command line of a server of this data holds, and no other program's. The guard has it too.
pub fn mark(data_dir: &Path) -> String {
    format!("-D {}/postgres -p", data_dir.display())
}

/// The major version that made the data in `data_dir`; `None` when there is none yet.
pub fn major_of_data(data_dir: &Path) -> Option<u32> {
    let text = fs::read_to_string(data_dir.join("postgres/PG_VERSION")).ok()?;
    text.trim().parse().ok()
}

/// Makes the data directory aside and renames it, so that a start that was killed leaves nothing that looks whole.
fn create(options: &Options, data_dir: &Path, binaries: &PostgresBinaries) -> Result<Account, Error> {
    let fresh = data_dir.join("postgres.new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).map_err(Error::io("remove", &fresh))?;
    }
    fs::create_dir(&fresh).map_err(Error::io("create", &fresh))?;
    let account = account::for_new(&fresh, &binaries.directory.join("postgres"))?;
    let password_file = write_password(data_dir)?;
    account.own(&password_file)?;
    initdb(options, &fresh, &password_file, (binaries, account))?;
    create_database(&fresh, binaries, account)?;
    let data = data_dir.join("postgres");
    fs::rename(&fresh, &data).map_err(Error::io("write", &data))?;
    Ok(account)
}

fn initdb(
    options: &Options,
    data: &Path,
    password_file: &Path,
    (binaries, account): (&PostgresBinaries, Account),
) -> Result<(), Error> {
    let program = binaries.directory.join("initdb");
    let mut reasons = Vec::new();
    for locale in locales(binaries.version.0) {
        let mut command = account.command(&program);
        command.arg("--pgdata").arg(data).args(*locale);
        command.args(["--encoding=UTF8", "--username", NAME]);
        // Nobody else on this machine gets in. What is thrown away spares its many clients the costly handshake.
        command.args(match options.throw_away {
            true => ["--auth=password", "--no-sync"].as_slice(),
            false => &["--auth=scram-sha-256"],
        });
        command.arg("--pwfile").arg(password_file);
        match process::run(command, "", PREPARE_LIMIT) {
            Ok(done) if done.success => return Ok(()),
            Ok(done) => reasons.push(last_lines(&done.output)),
            Err(error) => return Err(Error::io("run", &program)(error)),
        }
    }
    Err(Error::Failed {
        what: "making PostgreSQL's data directory (initdb)",
        reason: reasons.join("; then: "),
        advice: format!("see whether {} has space and is not on a network drive", data.display()),
    })
}

/// The locales to try in order: PostgreSQL's own C.UTF-8 sorts the same on every system, but is only in 17 and newer.
fn locales(major: u32) -> &'static [&'static [&'static str]] {
    const LIBC: &[&[&str]] = &[&["--locale=C.UTF-8"], &["--locale=C"]];
    const BUILTIN: &[&[&str]] = &[
        &["--locale-provider=builtin", "--locale=C.UTF-8"],
        &["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"],
        LIBC[0],
        LIBC[1],
    ];
    if major >= 17 { BUILTIN } else { LIBC }
}

/// Single-user mode needs no port and no client program.
fn create_database(data: &Path, binaries: &PostgresBinaries, account: Account) -> Result<(), Error> {
    let program = binaries.directory.join("postgres");
    let mut command = account.command(&program);
    command.arg("--single").arg("-D").arg(data).arg("postgres");
    let done = process::run(command, &format!("CREATE DATABASE {NAME};\n"), PREPARE_LIMIT)
        .map_err(Error::io("run", &program))?;
    let complained = ["ERROR:", "FATAL:", "PANIC:"].iter().any(|word| done.output.contains(word));
    if done.success && !complained {
        return Ok(());
    }
    Err(Error::Failed {
        what: "creating the database",
        reason: last_lines(&done.output),
        advice: format!("see whether {} has space", data.display()),
    })
}

fn server_command(options: &Options, data: &Path, binaries: &PostgresBinaries, account: Account, port: u16) -> Command {
    let mut command = account.command(&binaries.directory.join("postgres"));
    command.arg("-D").arg(data).args(["-p", &port.to_string()]);
    let mut set = |setting: &str| {
        command.args(["-c", setting]);
    };
    set("listen_addresses=127.0.0.1");
    // A socket's path may have no more than 107 bytes; TCP has no such trap.
    set("unix_socket_directories=");
    set(&format!("max_connections={}", options.max_connections));
    set(&format!("shared_buffers={}MB", options.shared_buffers_mib));
    // Not one of these gives up durability: a checkpoint comes by time and not by every gigabyte of log, and a page that the log repeats whole is
    // compressed there.
    for setting in ["max_wal_size=4GB", "checkpoint_timeout=15min", "wal_buffers=16MB"] {
        set(setting);
    }
    // PostgreSQL's own method costs ten times what LZ4 does.
    let lz4 = "wal_compression=lz4";
    set(if !options.throw_away && takes(lz4, data, binaries, account) { lz4 } else { "wal_compression=on" });
    if options.count_statements && has_library("pg_stat_statements", binaries) {
        set("shared_preload_libraries=pg_stat_statements");
    }
    if options.throw_away {
        set("fsync=off");
        set("full_page_writes=off");
        set("synchronous_commit=off");
    }
    command
}

/// Whether this PostgreSQL knows a setting's value: LZ4, for example, needs PostgreSQL 15 and one that was built with it.
fn takes(setting: &str, data: &Path, binaries: &PostgresBinaries, account: Account) -> bool {
    let mut command = account.command(&binaries.directory.join("postgres"));
    let name = setting.split('=').next().unwrap_or(setting);
    command.arg("-D").arg(data).args(["-c", setting, "-C", name]);
    process::run(command, "", PREPARE_LIMIT).is_ok_and(|done| done.success)
}

/// Whether a library is beside this PostgreSQL, in one of the places where packages put them; it does not start with one that is not there.
fn has_library(name: &str, binaries: &PostgresBinaries) -> bool {
    // A link to the program says nothing of where the rest is.
    let Ok(program) = fs::canonicalize(binaries.directory.join("postgres")) else { return false };
    let Some(root) = program.parent().and_then(Path::parent) else { return false };
    ["lib", "lib/postgresql"].iter().any(|place| root.join(place).join(name).with_extension("so").is_file())
}

/// The eighth line of postmaster.pid is the server's own word (`ready`); the first is its process.
fn ready(data_dir: &Path, pid: u32) -> bool {
    let Ok(text) = fs::read_to_string(data_dir.join("postgres/postmaster.pid")) else {
        return false;
    };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.first() == Some(&pid.to_string().as_str()) && lines.get(7) == Some(&"ready")
}

fn password_path(data_dir: &Path) -> PathBuf {
    data_dir.join("postgres.password")
}

fn read_password(data_dir: &Path) -> Result<String, Error> {
    let path = password_path(data_dir);
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    Ok(text.trim().to_owned())
}

fn write_password(data_dir: &Path) -> Result<PathBuf, Error> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0; 16];
    fs::File::open(source).and_then(|mut random| random.read_exact(&mut bytes)).map_err(Error::io("read", source))?;
    let password: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = password_path(data_dir);
    // An older one, with a mode and owner of its own, goes first.
    drop(fs::remove_file(&path));
    fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(password.as_bytes()))
        .map_err(Error::io("write", &path))?;
    Ok(path)
}

fn last_lines(output: &str) -> String {
    let lines: Vec<&str> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_setting_is_taken_only_with_a_value_that_it_has() {
        let directory = tempfile::tempdir().unwrap();
        // Who PostgreSQL runs as has to get here.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let cache = crate::cache_dir().unwrap();
        let binaries = crate::locate_postgres(&cache, &mut |_| {}).unwrap();
        let options = Options { throw_away: true, ..Options::new(directory.path(), &cache) };
        let account = create(&options, directory.path(), &binaries).unwrap();
        for (setting, expected) in
            [("wal_compression=on", true), ("wal_compression=of-stone", false), ("no_such_setting=on", false)]
        {
            let data = directory.path().join("postgres");
            assert_eq!(takes(setting, &data, &binaries, account), expected, "{setting}");
        }
    }
}
