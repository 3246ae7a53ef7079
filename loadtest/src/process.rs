//! One process of the installation: started on ports of its own, watched until it is ready, told to end.

use crate::signal::{self, Signal};
use crate::{Error, metrics};
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a process may take until it is ready.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take to end.
const END_LIMIT: Duration = Duration::from_secs(15);
/// How often another port is taken when one was lost between choosing and using it.
const ATTEMPTS: u32 = 5;
/// Lines of a log in an error.
const LOG_LINES: usize = 15;

/// What a process does: the subcommand of `callboard`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Processor,
    Stitcher,
    Scheduler,
    Reader,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Processor => "processor",
            Role::Stitcher => "stitcher",
            Role::Scheduler => "scheduler",
            Role::Reader => "reader",
        }
    }
}

/// What every process of an installation is started with.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// The `callboard` program.
    pub program: PathBuf,
    /// Where logs go.
    pub logs: PathBuf,
    /// Settings, as environment variables.
    pub environment: Vec<(String, String)>,
}

/// A process that runs. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    pub role: Role,
    /// Which of its role, from 1.
    pub number: usize,
    /// `127.0.0.1:<port>` of `/metrics`.
    pub http: String,
    /// `127.0.0.1:<port>` of gRPC; only a reader serves it.
    pub grpc: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a process; [`Process::ready`] waits for it.
    pub fn start(launch: &Launch, role: Role, number: usize) -> Result<Process, Error> {
        let log = launch.logs.join(format!("{}-{number}.log", role.name()));
        let (http, grpc) = two_addresses().map_err(Error::io("find free ports for", &log))?;
        let file = File::options().create(true).append(true).open(&log).map_err(Error::io("write", &log))?;
        let mut command = Command::new(&launch.program);
        // Settings of whoever runs this are not the installation's.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CALLBOARD_")) {
            command.env_remove(name);
        }
        command.arg(role.name()).envs(launch.environment.iter().cloned());
        command.env("CALLBOARD_HTTP_LISTEN", &http).env("CALLBOARD_GRPC_LISTEN", &grpc);
        command.stdin(Stdio::null()).stderr(file.try_clone().map_err(Error::io("write", &log))?).stdout(file);
        signal::end_with_us(&mut command);
        let child = command.spawn().map_err(Error::io("run", &launch.program))?;
        Ok(Process { role, number, http, grpc, child, log })
    }

    /// Waits until it says that it is ready; one that lost its port to another program is started again.
    ///
    /// # Errors
    /// [`Error::Process`] when it ended, or after 60 s, with the end of its log.
    pub async fn ready(&mut self, launch: &Launch) -> Result<(), Error> {
        self.ready_within(launch, READY_LIMIT).await
    }

    /// As [`Process::ready`], with another limit.
    pub async fn ready_within(&mut self, launch: &Launch, limit: Duration) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            if self.await_ready(limit).await? {
                return Ok(());
            }
            *self = Process::start(launch, self.role, self.number)?;
        }
        Err(self.error(format!("found {ATTEMPTS} free ports taken when it used them")))
    }

    /// Whether it is ready; it is not, for ever, when it ended because its port was taken.
    async fn await_ready(&mut self, limit: Duration) -> Result<bool, Error> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended()? {
                return match self.log_end().to_lowercase().contains("address already in use") {
                    true => Ok(false),
                    false => Err(self.error(format!("ended by itself: {status}"))),
                };
            }
            if matches!(metrics::get(&self.http, "/readyz").await, Ok((200, _))) {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Err(self.error(format!("was not ready after {} s", limit.as_secs())));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// `processor-1`
    pub fn name(&self) -> String {
        format!("{}-{}", self.role.name(), self.number)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its error, if it ended by itself.
    pub fn check(&mut self) -> Result<(), Error> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => Err(self.error(format!("ended by itself: {status}"))),
        }
    }

    /// SIGKILL, at once.
    pub fn kill(&mut self) -> Result<(), Error> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map(drop).map_err(Error::io("kill the process that logs to", &self.log))
    }

    /// SIGSTOP or SIGCONT.
    pub fn send(&self, signal: Signal) -> Result<(), Error> {
        signal::send(&self.child, signal).map_err(Error::io("signal the process that logs to", &self.log))
    }

    /// Waits for its end after SIGTERM; kills it after 15 s, and says so.
    pub async fn end(mut self) -> Result<(), Error> {
        let deadline = Instant::now() + END_LIMIT;
        while self.ended()?.is_none() {
            if Instant::now() >= deadline {
                self.kill()?;
                return Err(
                    self.error(format!("did not end within {} s of SIGTERM, and was killed", END_LIMIT.as_secs()))
                );
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn ended(&mut self) -> Result<Option<std::process::ExitStatus>, Error> {
        self.child.try_wait().map_err(Error::io("wait for the process that logs to", &self.log))
    }

    fn error(&self, reason: String) -> Error {
        Error::Process { process: self.name(), reason, log: self.log_end() }
    }

    fn log_end(&self) -> String {
        log_end(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended, and been waited for, already.
        drop(self.kill());
    }
}

/// Addresses of two free ports: both are held until both are found, so that they differ.
fn two_addresses() -> std::io::Result<(String, String)> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (first, second) = (listen()?, listen()?);
    Ok((first.local_addr()?.to_string(), second.local_addr()?.to_string()))
}

/// The last lines of a log.
pub(crate) fn log_end(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// The `callboard` program: the given one, else the one beside this program.
///
/// # Errors
/// [`Error::Usage`] when there is none.
pub(crate) fn find_program(given: Option<&Path>) -> Result<PathBuf, Error> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("callboard"));
    let program = given.map(Path::to_path_buf).or_else(beside).unwrap_or_default();
    match program.is_file() {
        true => Ok(program),
        false => Err(Error::Usage(format!(
            "--callboard: expected the callboard program, found nothing at {}; build it, or say where it is",
            program.display()
        ))),
    }
}
