//! nats-server: its configuration, its start, when it is ready.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::launch::{self, Launch, Running};
use crate::process::Lifetime;
use crate::{Error, NatsBinary, servers::Options};

/// How long one question for readiness may take.
const HEALTH_LIMIT: Duration = Duration::from_secs(2);

/// What of nats-server's configuration a caller chooses. The rest is fixed: 127.0.0.1 only, JetStream in the data directory, synced
/// before it acknowledges (`sync_interval: always`) unless the data is thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatsConfig {
    /// The largest message, in bytes (`max_payload`).
    pub max_payload_bytes: u32,
    /// The most that JetStream keeps on disk, in bytes (`max_file_store`); `None` leaves it to the server, which takes three quarters
    /// of the free space.
    pub max_store_bytes: Option<u64>,
    /// The most that JetStream keeps in memory, in bytes (`max_memory_store`).
    pub max_memory_bytes: u64,
}

impl Default for NatsConfig {
    /// Messages of 8 MiB, 256 MiB in memory.
    fn default() -> Self {
        NatsConfig { max_payload_bytes: 8 * 1024 * 1024, max_store_bytes: None, max_memory_bytes: 256 * 1024 * 1024 }
    }
}

/// A started nats-server.
#[derive(Debug)]
pub struct Nats {
    /// The process and its address.
    pub running: Running,
    /// The port of its monitoring pages (`/healthz`, `/jsz`, `/varz`) on 127.0.0.1.
    pub monitor_port: u16,
}

/// Starts it with its data in `data_dir` and waits until JetStream answers.
pub fn start(
    options: &Options,
    data_dir: &Path,
    binary: &NatsBinary,
    lifetime: Lifetime,
    last_port: Option<u16>,
) -> Result<Nats, Error> {
    let directory = data_dir.join("nats");
    // Not with its parents: the directory of a test run that has ended must not come back.
    if !directory.is_dir() {
        fs::create_dir(&directory).map_err(Error::io("create", &directory))?;
    }
    let config_path = directory.join("nats.conf");
    let monitor = std::cell::Cell::new(0);
    let command = |port| {
        monitor.set(launch::free_port(None).map_err(Error::io("find a port for", &directory))?);
        let text = config(options, &directory, port, monitor.get());
        fs::write(&config_path, text).map_err(Error::io("write", &config_path))?;
        let mut command = Command::new(&binary.path);
        command.arg("--config").arg(&config_path).current_dir("/");
        Ok(command)
    };
    let log = data_dir.join("nats.log");
    let (child, port) = launch::launch(&Launch {
        server: "nats-server",
        log: log.clone(),
        lifetime,
        last_port,
        command: &command,
        ready: &|_, _| healthy(monitor.get()),
    })?;
    let running = Running { child, port, url: format!("nats://127.0.0.1:{port}"), version: binary.version, log };
    let monitor_port = monitor.get();
    Ok(Nats { running, monitor_port })
}

/// What the command line of a server of this data holds, and no other program's. The guard has it too.
pub fn mark(data_dir: &Path) -> String {
    format!("--config {}/nats/nats.conf", data_dir.display())
}

fn config(options: &Options, directory: &Path, port: u16, monitor: u16) -> String {
    let NatsConfig { max_payload_bytes, max_store_bytes, max_memory_bytes } = options.nats_config;
    let max_store = max_store_bytes.map(|bytes| format!("  max_file_store: {bytes}\n"));
    let sync = match options.throw_away {
        true => "",
        // Accepted means on disk: an acknowledged message survives a power cut.
        false => "  sync_interval: always\n",
    };
    format!(
        "# Written at each start; changes here are lost.\n\
         server_name: callboard\n\
         listen: \"127.0.0.1:{port}\"\n\
         http: \"127.0.0.1:{monitor}\"\n\
         pid_file: {pid}\n\
         max_payload: {max_payload_bytes}\n\
         jetstream {{\n  store_dir: {store}\n{sync}  max_memory_store: {max_memory_bytes}\n{max_store}}}\n",
        pid = quoted(&directory.join("nats.pid")),
        store = quoted(&directory.join("store")),
        max_store = max_store.unwrap_or_default(),
    )
}

/// A path as a string of the configuration language. That it is UTF-8 without control characters was checked at the start.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn healthy(monitor: u16) -> bool {
    let ask = || {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, monitor));
        let mut stream = TcpStream::connect_timeout(&address, HEALTH_LIMIT)?;
        stream.set_read_timeout(Some(HEALTH_LIMIT))?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with(b"HTTP/1.") && answer[8..].starts_with(b" 200"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(throw_away: bool, present: &[&str], absent: &[&str]) {
        let mut options = Options::new("/data", "/cache");
        options.throw_away = throw_away;
        let text = config(&options, Path::new("/a \"b\\"), 4222, 8222);
        for part in present {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        for part in absent {
            assert!(!text.contains(part), "{part:?} is in {text}");
        }
    }

    #[test]
    fn the_configuration_says_what_was_asked() {
        let always = "sync_interval: always";
        let rest = ["127.0.0.1:4222", "max_payload: 8388608", r#""/a \"b\\/store""#];
        check(false, &[&rest[..], &[always]].concat(), &["max_file_store"]);
        check(true, &rest, &[always]);
    }
}
