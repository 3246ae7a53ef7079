//! Both servers, really started: kept data, one owner a directory, and nothing left behind by whoever is killed.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use servers::{Error, Options, Servers, cache_dir, start, testing};
use support::{helper, nats_request, query, result, wait_for};

const STREAM: &str = r#"{"name":"KEPT","subjects":["kept.>"]}"#;

/// A directory that the account PostgreSQL runs as may enter.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

fn options(data_dir: &Path) -> Options {
    let mut options = Options::new(data_dir, cache_dir().unwrap());
    options.throw_away = true;
    options
}

fn started(options: Options) -> Servers {
    start(options, &mut |line| eprintln!("{line}")).unwrap()
}

/// Whether the address of a `nats://` or `postgres://` URL takes connections.
fn listens(url: &str) -> bool {
    let after = url.rsplit_once("://").unwrap().1;
    let after = after.rsplit_once('@').map_or(after, |(_, address)| address);
    TcpStream::connect(after.split('/').next().unwrap()).is_ok()
}

#[test]
fn a_second_start_has_the_data_and_the_ports_of_the_first() {
    let directory = directory();
    let first = started(options(directory.path()));
    let (nats, database) = (first.nats_url().unwrap().to_owned(), first.database_url().unwrap().to_owned());
    query(&database, "CREATE TABLE kept AS SELECT 42 AS answer").unwrap();
    let created = nats_request(&nats, "$JS.API.STREAM.CREATE.KEPT", STREAM);
    assert!(created.contains(r#""did_create":true"#), "{created}");
    first.stop();
    assert!(!listens(&nats) && !listens(&database), "stopped");

    let mut second = started(options(directory.path()));
    assert_eq!(second.nats_url(), Some(nats.as_str()));
    assert_eq!(second.database_url(), Some(database.as_str()));
    assert_eq!(query(&database, "SELECT answer FROM kept").unwrap(), "42");
    let info = nats_request(&nats, "$JS.API.STREAM.INFO.KEPT", "");
    assert!(info.contains(r#""name":"KEPT""#), "{info}");
    assert!(second.ended().is_none());
}

#[test]
fn what_is_kept_is_synced_and_guarded_by_a_password() {
    let directory = directory();
    let mut options = options(directory.path());
    options.throw_away = false;
    let servers = started(options);
    let config = fs::read_to_string(directory.path().join("nats/nats.conf")).unwrap();
    assert!(config.contains("sync_interval: always"), "{config}");
    const SCRAM: u32 = 10;
    assert_eq!(query(servers.database_url().unwrap(), "SELECT 1"), Err(SCRAM));
    for secret in ["servers.json", "postgres.password"] {
        let mode = fs::metadata(directory.path().join(secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{secret}");
    }
}

#[test]
fn a_directory_has_one_owner_and_the_second_is_told_who() {
    let directory = directory();
    let only_nats = || Options { postgres: false, ..options(directory.path()) };
    let servers = started(only_nats());
    assert_eq!(servers.database_url(), None);
    match start(only_nats(), &mut |_| ()) {
        Err(Error::Busy { owner, .. }) => {
            assert!(owner.contains(&std::process::id().to_string()), "{owner}")
        }
        other => panic!("{other:?}"),
    }
    assert!(listens(servers.nats_url().unwrap()));
    drop(servers);
    started(only_nats());
}

#[test]
fn a_server_that_ends_by_itself_is_reported() {
    let directory = directory();
    let mut servers = started(Options { postgres: false, ..options(directory.path()) });
    let pid = fs::read_to_string(directory.path().join("nats/nats.pid")).unwrap();
    assert!(Command::new("kill").arg("-KILL").arg(pid.trim()).status().unwrap().success());
    let mut error = None;
    wait_for("the end of nats-server", || {
        error = servers.ended();
        error.is_some()
    });
    let text = error.unwrap().to_string();
    assert!(text.contains("nats-server was ended by signal 9"), "{text}");
}

#[test]
fn a_killed_owner_leaves_no_servers_and_the_next_start_works() {
    let directory = directory();
    let data_dir = directory.path().to_str().unwrap();
    let mut owner = helper("helper_owner", &[("HELPER_DATA_DIR", data_dir)]);
    let urls = result(&mut owner);
    let (nats, database) = urls.split_once(' ').unwrap();
    assert!(listens(nats) && listens(database));
    owner.kill().unwrap();
    owner.wait().unwrap();
    // At once, while they are still stopping.
    let servers = started(options(directory.path()));
    assert_eq!(query(servers.database_url().unwrap(), "SELECT 1").unwrap(), "1");
    drop(servers);
    wait_for("the servers' end", || !listens(nats) && !listens(database));
}

#[test]
#[ignore = "a helper process of the test above"]
fn helper_owner() {
    let data_dir = PathBuf::from(std::env::var_os("HELPER_DATA_DIR").unwrap());
    let servers = started(options(&data_dir));
    println!("RESULT {} {}", servers.nats_url().unwrap(), servers.database_url().unwrap());
    wait_for("being killed", || false);
}

/// A test run that is a process of ours, with a temporary directory of its own.
struct FakeRun {
    temp: tempfile::TempDir,
    process: std::process::Child,
}

impl FakeRun {
    fn begin() -> FakeRun {
        let process = Command::new("sleep")
            .arg("600")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        FakeRun { temp: directory(), process }
    }

    fn test_process(&self) -> std::process::Child {
        let pid = self.process.id().to_string();
        let temp = self.temp.path().to_str().unwrap();
        helper(
            "helper_shared",
            &[
                ("CALLBOARD_TEST_RUN_PID", &pid),
                ("TMPDIR", temp),
                ("CALLBOARD_TEST_NATS_URL", ""),
                ("CALLBOARD_TEST_DATABASE_URL", ""),
            ],
        )
    }

    fn directories(&self) -> usize {
        fs::read_dir(self.temp.path()).unwrap().count()
    }

    /// Ends it by force and waits until nothing of it is left.
    fn end(&mut self, urls: &[&str]) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        wait_for("the directory's removal", || self.directories() == 0);
        assert!(!urls.iter().any(|url| listens(url)), "{urls:?}");
    }
}

impl Drop for FakeRun {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[test]
fn all_processes_and_threads_of_a_run_share_servers_and_its_end_is_theirs() {
    let mut run = FakeRun::begin();
    let mut processes = [run.test_process(), run.test_process(), run.test_process()];
    let urls: Vec<String> = processes.iter_mut().map(result).collect();
    assert_eq!(urls[0], urls[1]);
    assert_eq!(urls[0], urls[2]);
    for mut process in processes {
        assert!(process.wait().unwrap().success());
    }
    assert!(urls[0].split(' ').all(listens), "they outlive the process that started them");
    run.end(&urls[0].split(' ').collect::<Vec<_>>());
}

#[test]
fn a_starter_killed_half_way_is_followed_by_the_next() {
    let mut run = FakeRun::begin();
    let mut first = run.test_process();
    wait_for("the first to begin", || run.directories() > 0);
    first.kill().unwrap();
    first.wait().unwrap();
    let mut second = run.test_process();
    let urls = result(&mut second);
    assert!(urls.split(' ').all(listens));
    second.kill().unwrap();
    second.wait().unwrap();
    run.end(&urls.split(' ').collect::<Vec<_>>());
}

#[test]
fn a_server_is_stopped_whatever_its_pid_file_says() {
    let mut run = FakeRun::begin();
    let urls = result(&mut run.test_process());
    let data_dir = fs::read_dir(run.temp.path()).unwrap().next().unwrap().unwrap().path();
    fs::write(data_dir.join("nats/nats.pid"), "1").unwrap();
    run.end(&urls.split(' ').collect::<Vec<_>>());
}

#[test]
fn a_run_that_ends_while_its_servers_start_leaves_nothing() {
    let mut run = FakeRun::begin();
    let mut starter = run.test_process();
    wait_for("the first to begin", || run.directories() > 0);
    run.end(&[]);
    assert!(!starter.wait().unwrap().success(), "its tests cannot have servers");
    wait_for("the directory's removal", || run.directories() == 0);
}

#[test]
#[ignore = "a helper process of the tests above"]
fn helper_shared() {
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(testing::shared)).collect();
    let all: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(all.iter().all(|one| *one == all[0]));
    let testing::Addresses { nats_url, database_url } = all[0];
    assert_eq!(query(database_url, "SELECT 1").unwrap(), "1");
    println!("RESULT {nats_url} {database_url}");
}

#[test]
fn the_servers_of_this_run_answer() {
    let addresses = testing::shared();
    assert!(nats_request(&addresses.nats_url, "$JS.API.INFO", "").contains("account_info_response"));
    assert!(listens(&addresses.database_url));
}
