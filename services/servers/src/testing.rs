//! Servers for tests: started once by the first test that asks in a run of `cargo test` or nextest, used by all, gone when it ends.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::guard::{self, Then};
use crate::servers::{self, Options, Until};
use crate::{Error, cache_dir, process, state};

/// How long a process waits for another that starts the servers of the run; the first ever fetches them.
const START_LIMIT: Duration = Duration::from_secs(600);

/// How far up the process tree the run is looked for.
const MAX_ANCESTORS: usize = 16;

/// The most of a prefix that [`fresh_name`] keeps, in bytes, so that a name fits wherever PostgreSQL and NATS take one.
const MAX_PREFIX_BYTES: usize = 24;

/// Where the servers of this test run are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// nats-server with JetStream.
    pub nats_url: String,
    /// A PostgreSQL database whose user may do everything; at most 300 connections at once.
    pub database_url: String,
}

/// The servers of this test run, the same for all its processes and threads. Blocks for about 2 s the first time in a run.
///
/// The run is the nearest `cargo` (or `cargo-nextest`) above this process, or the process that CALLBOARD_TEST_RUN_PID names (a script
/// that calls cargo often), or else this process. When it has ended, however, the servers stop and their directory goes, within seconds.
/// Servers that CALLBOARD_TEST_NATS_URL and CALLBOARD_TEST_DATABASE_URL name are used instead.
///
/// # Panics
/// When there are no servers to be had, with the error: no test that needs them can pass.
pub fn shared() -> &'static Addresses {
    // A failure is kept too: what takes minutes to fail must not be tried again by every test.
    static SHARED: OnceLock<Result<Addresses, Error>> = OnceLock::new();
    match SHARED.get_or_init(obtain) {
        Ok(addresses) => addresses,
        Err(error) => panic!("no servers for the tests: {error}"),
    }
}

/// A name for an installation of a test's own, unlike any other: the prefix and what tells it apart, in `[a-z0-9_]`, beginning with a
/// letter, at most 63 bytes.
pub fn fresh_name(prefix: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static BEGIN: OnceLock<u128> = OnceLock::new();
    let begin = BEGIN.get_or_init(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_micros())
    });
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    format!("{}_{begin:x}_{pid:x}_{count:x}", clean(prefix))
}

fn clean(prefix: &str) -> String {
    let allowed = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9') => c,
        _ => '_',
    };
    let clean: String = prefix.chars().map(allowed).take(MAX_PREFIX_BYTES).collect();
    match clean.starts_with(|c: char| c.is_ascii_lowercase()) {
        true => clean,
        false => format!("t{clean}"),
    }
}

fn obtain() -> Result<Addresses, Error> {
    let given = |name| env::var(name).ok().filter(|url| !url.is_empty());
    let nats = given("CALLBOARD_TEST_NATS_URL");
    let database = given("CALLBOARD_TEST_DATABASE_URL");
    if let (Some(nats_url), Some(database_url)) = (&nats, &database) {
        return Ok(Addresses { nats_url: nats_url.clone(), database_url: database_url.clone() });
    }
    let ours = share(&find_run()?, &env::temp_dir())?;
    Ok(Addresses { nats_url: nats.unwrap_or(ours.nats_url), database_url: database.unwrap_or(ours.database_url) })
}

/// The process whose end is the end of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    pid: u32,
    born: String,
}

impl Run {
    fn of(pid: u32) -> Option<Run> {
        let born = process::birth(pid)?;
        Some(Run { pid, born })
    }

    fn lives(&self) -> bool {
        process::birth(self.pid).as_ref() == Some(&self.born)
    }
}

fn find_run() -> Result<Run, Error> {
    if let Ok(named) = env::var("CALLBOARD_TEST_RUN_PID") {
        return named.parse().ok().and_then(Run::of).ok_or(Error::Failed {
            what: "finding the test run",
            reason: format!("CALLBOARD_TEST_RUN_PID is {named:?}, and no such process runs"),
            advice: "set it to the id of the process that runs the tests, or not at all".to_owned(),
        });
    }
    let me = std::process::id();
    let mut pid = me;
    for _ in 0..MAX_ANCESTORS {
        let Some((parent, _)) = process::parent_and_name(pid) else {
            break;
        };
        let name = process::parent_and_name(parent).map(|(_, name)| name);
        if name.is_some_and(|name| name.starts_with("cargo"))
            && let Some(run) = Run::of(parent)
        {
            return Ok(run);
        }
        pid = parent;
    }
    let born = process::birth(me).unwrap_or_default();
    Ok(Run { pid: me, born })
}

/// Finds the servers of a run, or starts them.
fn share(run: &Run, temp_dir: &Path) -> Result<Addresses, Error> {
    let prefix = format!("callboard-tests-{}-", process::effective_user());
    let directory = own_directory(&temp_dir.join(format!("{prefix}{}-{}", run.pid, run.born)))?;
    let _lock = wait_for_lock(&directory)?;
    if let Some(addresses) = running(&directory) {
        return Ok(addresses);
    }
    sweep(temp_dir, &prefix);
    if !guard::runs(&directory) {
        guard::start(&directory, run.pid, &run.born, Then::Remove)?;
    }
    let mut options = Options::new(&directory, cache_dir()?);
    options.throw_away = true;
    options.max_connections = 300;
    // As a limit only: streams of many tests reserve what they may use.
    options.nats_config.max_store_bytes = Some(1 << 40);
    options.nats_config.max_memory_bytes = 1 << 34;
    let mut report = |line: &str| eprintln!("{line}");
    let servers = servers::launch_all(&options, &directory, Until::Stopped, &mut report);
    // The guard may have gone before these servers came.
    if !run.lives() {
        drop(servers);
        drop(fs::remove_dir_all(&directory));
        return Err(Error::Failed {
            what: "starting servers for a test run",
            reason: format!("the run, process {}, has ended", run.pid),
            advice: "start the tests again".to_owned(),
        });
    }
    let servers = servers?;
    servers.leave();
    running(&directory).ok_or_else(|| Error::Failed {
        what: "starting servers for a test run",
        reason: "they ended at once".to_owned(),
        advice: "see whether something on this machine ends processes".to_owned(),
    })
}

/// Makes the directory, or uses it if it is ours: in a temporary directory of all, another user may have put one there.
fn own_directory(path: &Path) -> Result<PathBuf, Error> {
    match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::io("create", path)(error)),
    }
    let found = fs::symlink_metadata(path).map_err(Error::io("read", path))?;
    if !found.is_dir() || found.uid() != process::effective_user() {
        let text = "it belongs to another user; remove it";
        return Err(Error::io("use", path)(std::io::Error::other(text)));
    }
    servers::prepare(path)
}

fn wait_for_lock(directory: &Path) -> Result<File, Error> {
    let mut lock = None;
    let locked = process::poll_until(START_LIMIT, || match state::lock(directory) {
        Ok(file) => {
            lock = Some(file);
            Ok(true)
        }
        Err(Error::Busy { .. }) => Ok(false),
        Err(error) => Err(error),
    })?;
    match (locked, lock) {
        (true, Some(lock)) => Ok(lock),
        _ => state::lock(directory),
    }
}

fn running(directory: &Path) -> Option<Addresses> {
    let state = state::read(directory);
    let postgres = state.postgres.filter(|record| record.lives(directory))?;
    let nats = state.nats.filter(|record| record.lives(directory))?;
    Some(Addresses { nats_url: nats.url, database_url: postgres.url })
}

/// Gives the directories of runs that have ended, whose guard was killed, a new guard, which clears them away.
fn sweep(temp_dir: &Path, prefix: &str) {
    for entry in fs::read_dir(temp_dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(prefix));
        let Some((pid, born)) = rest.and_then(|rest| rest.split_once('-')) else {
            continue;
        };
        let Ok(pid) = pid.parse() else { continue };
        let run = Run { pid, born: born.to_owned() };
        let Ok(directory) = own_directory(&entry.path()) else {
            continue;
        };
        if !run.lives() && !guard::runs(&directory) {
            // It is housekeeping: the tests can go on without.
            drop(guard::start(&directory, run.pid, &run.born, Then::Remove));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(prefix: &str, expected: &str) {
        assert_eq!(clean(prefix), expected, "{prefix:?}");
    }

    #[test]
    fn names_are_lower_case_and_begin_with_a_letter() {
        check("reader", "reader");
        check("Reader-2", "reader_2");
        check("", "t");
        check("2nd", "t2nd");
        check("_x", "t_x");
        check("größe", "gr__e");
        check("a_name_that_is_much_too_long", "a_name_that_is_much_too_");
    }

    #[test]
    fn names_are_unlike_each_other_and_short() {
        let names: std::collections::HashSet<String> = (0..100).map(|_| fresh_name(&"x".repeat(99))).collect();
        assert_eq!(names.len(), 100);
        assert!(names.iter().all(|name| name.len() <= 63), "{names:?}");
    }

    #[test]
    fn a_directory_of_somebody_else_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/tmp", &link).unwrap();
        assert!(own_directory(&link).is_err());
    }
}
