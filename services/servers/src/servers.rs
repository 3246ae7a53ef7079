//! The servers of one data directory: started together, stopped together.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::launch::{self, Running};
use crate::nats::{self, Nats, NatsConfig};
use crate::process::{self, Lifetime, Signal};
use crate::state::{self, Record, State};
use crate::{Error, locate, postgres};

/// How long a server may take to stop before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What to start, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the data, logs and the state are; made if absent, used again if not.
    pub data_dir: PathBuf,
    /// Where fetched binaries are kept: [`crate::cache_dir`].
    pub cache_dir: PathBuf,
    /// Whether to start PostgreSQL.
    pub postgres: bool,
    /// Whether to start nats-server.
    pub nats: bool,
    /// nats-server's settings.
    pub nats_config: NatsConfig,
    /// The most connections PostgreSQL takes at once.
    pub max_connections: u32,
    /// PostgreSQL's own cache, in MiB.
    pub shared_buffers_mib: u32,
    /// PostgreSQL counts statements (`pg_stat_statements`), where it has the library.
    pub count_statements: bool,
    /// For tests: nothing is synced to disk; a power cut costs the data.
    pub throw_away: bool,
}

impl Options {
    /// Both servers, durable, with 200 connections; PostgreSQL's cache is a 16th of the machine's memory, from 128 MiB to 2 GiB.
    pub fn new(data_dir: impl Into<PathBuf>, cache_dir: impl Into<PathBuf>) -> Options {
        Options {
            data_dir: data_dir.into(),
            cache_dir: cache_dir.into(),
            postgres: true,
            nats: true,
            nats_config: NatsConfig::default(),
            max_connections: 200,
            shared_buffers_mib: (memory_mib() / 16).clamp(128, 2048),
            count_statements: false,
            throw_away: false,
        }
    }
}

/// This machine's memory, in MiB; 0 where it is not told.
fn memory_mib() -> u32 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0);
    u32::try_from(kibibytes / 1024).unwrap_or(u32::MAX)
}

/// Running servers. Dropping it stops them, as [`Servers::stop`] does; when this process is killed, they stop too.
#[derive(Debug)]
pub struct Servers {
    data_dir: PathBuf,
    nats: Option<Nats>,
    postgres: Option<Running>,
    /// Held while the servers run, so that nobody else starts servers on the same data.
    _lock: Option<File>,
}

/// Starts the servers that `options` asks for and waits until both answer: about 2 s the first time, under 1 s with data from last
/// time, then at the same ports if they are free. What a killed predecessor left running on the same data is stopped first.
/// `report` is told what takes time.
///
/// # Errors
/// [`Error::Busy`] when another process has servers on this data; otherwise what could not be found, fetched, written or started.
pub fn start(options: Options, report: &mut dyn FnMut(&str)) -> Result<Servers, Error> {
    let data_dir = prepare(&options.data_dir)?;
    let lock = state::lock(&data_dir)?;
    let mut servers = launch_all(&options, &data_dir, Until::OurEnd, report)?;
    servers._lock = Some(lock);
    // Linux ends the children of a killed process by itself.
    #[cfg(not(target_os = "linux"))]
    {
        let me = std::process::id();
        let born = process::birth(me).unwrap_or_default();
        crate::guard::start(&data_dir, me, &born, crate::guard::Then::Keep)?;
    }
    Ok(servers)
}

impl Servers {
    /// `nats://127.0.0.1:<port>`, if nats-server was asked for.
    pub fn nats_url(&self) -> Option<&str> {
        self.nats.as_ref().map(|nats| nats.running.url.as_str())
    }

    /// `http://127.0.0.1:<port>`, the broker's monitoring pages, if nats-server was asked for.
    pub fn nats_monitor_url(&self) -> Option<String> {
        let port = self.nats.as_ref()?.monitor_port;
        Some(format!("http://127.0.0.1:{port}"))
    }

    /// `postgres://callboard:<password>@127.0.0.1:<port>/callboard?sslmode=disable`, if PostgreSQL was asked for.
    pub fn database_url(&self) -> Option<&str> {
        self.postgres.as_ref().map(|postgres| postgres.url.as_str())
    }

    /// The data directory, as an absolute path.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The error of a server that ended by itself, with the end of its log; `None` while all run. Costs a system call a server.
    pub fn ended(&mut self) -> Option<Error> {
        let nats = self.nats.as_mut().map(|nats| &mut nats.running);
        let named = [("nats-server", nats), ("PostgreSQL", self.postgres.as_mut())];
        for (name, running) in named {
            let Some(running) = running else { continue };
            if let Ok(Some(status)) = running.child.try_wait() {
                return Some(launch::ended(name, running, process::describe(status)));
            }
        }
        None
    }

    /// Stops both and waits for their end; what still runs after 10 s is killed.
    pub fn stop(self) {
        drop(self);
    }

    /// The servers as the state file has them.
    pub(crate) fn state(&self) -> State {
        State {
            postgres: self.postgres.as_ref().map(Record::of),
            nats: self.nats.as_ref().map(|nats| Record::of(&nats.running)),
        }
    }

    /// Lets go of servers that are to outlive this process.
    pub(crate) fn leave(mut self) {
        self.nats = None;
        self.postgres = None;
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let nats = self.nats.as_mut().map(|nats| &mut nats.running);
        let mut each = [(nats, Signal::Terminate), (self.postgres.as_mut(), Signal::Interrupt)];
        // A failure here leaves nothing to be done: the child is not ours any more, or is gone.
        for (running, signal) in &mut each {
            if let Some(running) = running
                && let Ok(None) = running.child.try_wait()
            {
                drop(process::send(running.child.id(), *signal));
            }
        }
        for running in each.into_iter().filter_map(|(running, _)| running) {
            drop(process::finish(&mut running.child, STOP_LIMIT));
        }
    }
}

/// Until when servers run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// The end of this process, whatever way.
    OurEnd,
    /// Somebody stops them.
    Stopped,
}

impl Until {
    fn lifetime(self, signal: Signal) -> Lifetime {
        match self {
            Until::OurEnd => Lifetime::WithParent(signal),
            Until::Stopped => Lifetime::Detached,
        }
    }
}

/// Stops leftovers, finds the binaries, starts the servers and writes the state. Whoever calls it holds the directory's lock.
pub(crate) fn launch_all(
    options: &Options,
    data_dir: &Path,
    until: Until,
    report: &mut dyn FnMut(&str),
) -> Result<Servers, Error> {
    stop_leftovers(data_dir, report)?;
    let last = state::read(data_dir);
    let mut servers = Servers { data_dir: data_dir.to_path_buf(), nats: None, postgres: None, _lock: None };
    if options.nats {
        let binary = locate::locate_nats(&options.cache_dir, report)?;
        report(&format!("starting nats-server {}", binary.version));
        let lifetime = until.lifetime(Signal::Terminate);
        let port = last.nats.as_ref().map(|record| record.port);
        servers.nats = Some(nats::start(options, data_dir, &binary, lifetime, port)?);
    }
    if options.postgres {
        let major = postgres::major_of_data(data_dir);
        let binaries = locate::locate_postgres_of(major, &options.cache_dir, report)?;
        report(&format!("starting PostgreSQL {}", binaries.version));
        let lifetime = until.lifetime(Signal::Interrupt);
        let port = last.postgres.as_ref().map(|record| record.port);
        servers.postgres = Some(postgres::start(options, data_dir, &binaries, lifetime, port)?);
    }
    // A server that is not asked for this time keeps its port for the next.
    let now = servers.state();
    let state = State { postgres: now.postgres.or(last.postgres), nats: now.nats.or(last.nats) };
    state::write(data_dir, &state)?;
    Ok(servers)
}

/// Makes the data directory and gives its absolute path, which goes into command lines and configuration files.
pub(crate) fn prepare(data_dir: &Path) -> Result<PathBuf, Error> {
    fs::create_dir_all(data_dir).map_err(Error::io("create", data_dir))?;
    let path = fs::canonicalize(data_dir).map_err(Error::io("read", data_dir))?;
    match path.to_str() {
        Some(text) if !text.contains(char::is_control) => Ok(path),
        _ => Err(Error::Path { path }),
    }
}

/// Stops what runs on this data by its command line: a server that was killed, or whose starter was, may not have written its
/// process id, and the next one's would hide it. (One that is not itself yet, between fork and exec, still holds the lock.)
fn stop_leftovers(data_dir: &Path, report: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let marks = [(nats::mark(data_dir), Signal::Terminate), (postgres::mark(data_dir), Signal::Interrupt)];
    for (mark, signal) in marks {
        for pid in process::find(&mark).map_err(Error::io("look for the processes of", data_dir))? {
            report(&format!("stopping process {pid}, left over from an earlier run"));
            process::stop_stranger(pid, &mark, signal, STOP_LIMIT).map_err(Error::io("stop a process of", data_dir))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_predecessor_left_is_stopped_first() {
        let directory = tempfile::tempdir().unwrap();
        let mut options = Options::new(directory.path(), crate::cache_dir().unwrap());
        options.throw_away = true;
        options.postgres = false;
        let data_dir = prepare(directory.path()).unwrap();
        let left = launch_all(&options, &data_dir, Until::Stopped, &mut |_| ()).unwrap();
        let (pid, url) = (left.state().nats.unwrap().pid, left.nats_url().unwrap().to_owned());
        left.leave();
        fs::write(data_dir.join("nats/nats.pid"), "1").unwrap();
        let mut reported = Vec::new();
        let servers = start(options, &mut |line| reported.push(line.to_owned())).unwrap();
        assert!(!process::runs(pid, &state::marker(&data_dir)));
        assert_eq!(servers.nats_url(), Some(url.as_str()), "the port of last time");
        assert!(reported.iter().any(|line| line.contains(&pid.to_string())), "{reported:?}");
    }
}
