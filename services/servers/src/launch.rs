//! Starts one server on a free port and waits until it is ready.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use crate::process::{self, Lifetime};
use crate::{Error, Version};

/// How long a server may take until it is ready; after a crash it first reads its log of the last minutes.
const READY_LIMIT: Duration = Duration::from_secs(120);

/// How often another port is taken when one was lost between choosing and using it.
const PORT_ATTEMPTS: u32 = 8;

/// The most of a log that is read for a message, in bytes, and shown, in lines.
const TAIL_BYTES: u64 = 8 * 1024;
const TAIL_LINES: usize = 15;

/// A server that was started.
#[derive(Debug)]
pub struct Running {
    /// Its process.
    pub child: Child,
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// Where it is reached.
    pub url: String,
    /// Its version.
    pub version: Version,
    /// Its log file.
    pub log: PathBuf,
}

/// How to start it.
pub struct Launch<'a> {
    /// `PostgreSQL` or `nats-server`.
    pub server: &'static str,
    /// Its log file.
    pub log: PathBuf,
    /// How long it lives.
    pub lifetime: Lifetime,
    /// The port it had last time, used again if it is free, so that what holds the address goes on working.
    pub last_port: Option<u16>,
    /// The command for a port.
    pub command: &'a dyn Fn(u16) -> Result<Command, Error>,
    /// Whether the process with this id is ready at this port.
    pub ready: &'a dyn Fn(u32, u16) -> bool,
}

/// Starts it and waits until it is ready; gives its process and port.
///
/// # Errors
/// [`Error::NotRunning`] when it ends or is not ready in two minutes (then it is killed).
pub fn launch(spec: &Launch) -> Result<(Child, u16), Error> {
    let mut wanted = spec.last_port;
    for _ in 0..PORT_ATTEMPTS {
        let port = free_port(wanted.take()).map_err(Error::io("find a free port for", &spec.log))?;
        let log = process::open_log(&spec.log).map_err(Error::io("write", &spec.log))?;
        let log_start = log.metadata().map_or(0, |log| log.len());
        let mut command = (spec.command)(port)?;
        process::output_to(&mut command, log).map_err(Error::io("write", &spec.log))?;
        let mut child =
            process::spawn(command, spec.lifetime).map_err(Error::io("run the server that logs to", &spec.log))?;
        let Some(reason) = await_ready(spec, &mut child, port)? else {
            return Ok((child, port));
        };
        let tail = tail(&spec.log, log_start);
        if !tail.to_lowercase().contains("address already in use") {
            return Err(not_running(spec.server, reason, &spec.log, &tail));
        }
    }
    let reason = format!("found every one of {PORT_ATTEMPTS} free ports taken when it used it");
    Err(not_running(spec.server, reason, &spec.log, &tail(&spec.log, 0)))
}

/// The error for a server that ended by itself.
pub fn ended(server: &'static str, running: &Running, reason: String) -> Error {
    not_running(server, reason, &running.log, &tail(&running.log, 0))
}

/// A port of 127.0.0.1 that nobody uses at this moment: the wanted one, else one the system chooses.
pub fn free_port(wanted: Option<u16>) -> std::io::Result<u16> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.local_addr();
    let address = match wanted.map(bind) {
        Some(Ok(address)) => address,
        _ => bind(0)?,
    };
    Ok(address.port())
}

/// `None` when it is ready, else why it never will be.
fn await_ready(spec: &Launch, child: &mut Child, port: u16) -> Result<Option<String>, Error> {
    let mut status = None;
    let pid = child.id();
    let settled = process::poll_until(READY_LIMIT, || {
        status = child.try_wait()?;
        Ok(status.is_some() || (spec.ready)(pid, port))
    });
    let settled = settled.map_err(Error::io("wait for the server that logs to", &spec.log))?;
    if let Some(status) = status {
        return Ok(Some(process::describe(status)));
    }
    if settled {
        return Ok(None);
    }
    process::finish(child, Duration::ZERO).map_err(Error::io("stop the server of", &spec.log))?;
    Ok(Some(format!("was not ready after {} s", READY_LIMIT.as_secs())))
}

fn not_running(server: &'static str, reason: String, log: &Path, tail: &str) -> Error {
    let lines: Vec<&str> = tail.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
    let log = log.to_path_buf();
    Error::NotRunning { server, reason, log, tail }
}

/// The end of a log, as far as it was written after `start` (a byte position).
fn tail(log: &Path, start: u64) -> String {
    let read = || {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(start.max(length.saturating_sub(TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}
