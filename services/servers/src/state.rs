//! What a start leaves for the next one in the data directory: the lock, and which servers ran where.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::launch::Running;
use crate::{Error, process};

/// One server of the last start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its process.
    pub pid: u32,
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// Its version.
    pub version: String,
    /// Where it is reached, with its password.
    pub url: String,
}

impl Record {
    /// The record of a running server.
    pub fn of(running: &Running) -> Record {
        Record {
            pid: running.child.id(),
            port: running.port,
            version: running.version.to_string(),
            url: running.url.clone(),
        }
    }

    /// Whether that server still runs, with its data in this directory.
    pub fn lives(&self, data_dir: &Path) -> bool {
        process::runs(self.pid, &marker(data_dir))
    }
}

/// The servers of the last start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// PostgreSQL, if it was asked for.
    pub postgres: Option<Record>,
    /// nats-server, if it was asked for.
    pub nats: Option<Record>,
}

/// Reads the state; what is absent or unreadable is an empty one, since it only saves a port.
pub fn read(data_dir: &Path) -> State {
    let text = fs::read_to_string(path(data_dir)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Replaces the state. Only its owner may read it: it holds the database's password.
pub fn write(data_dir: &Path, state: &State) -> Result<(), Error> {
    let path = path(data_dir);
    let aside = path.with_extension("new");
    let text = serde_json::to_string_pretty(state).expect("a state has string keys only");
    let write = || {
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&aside)?.write_all(text.as_bytes())?;
        fs::rename(&aside, &path)
    };
    write().map_err(Error::io("write", &path))
}

/// What the command line of a server of this data directory holds.
pub fn marker(data_dir: &Path) -> String {
    format!("{}/", data_dir.display())
}

/// Takes the data directory for this process, as long as the file is open.
///
/// # Errors
/// [`Error::Busy`] when another process has it.
pub fn lock(data_dir: &Path) -> Result<File, Error> {
    let (path, mut file) = open_lock(data_dir)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let data_dir = data_dir.to_path_buf();
            let owner = owner(&mut file);
            return Err(Error::Busy { data_dir, owner });
        }
        Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
    }
    let pid = std::process::id().to_string();
    let mut write = || {
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(pid.as_bytes())
    };
    write().map_err(Error::io("write", &path))?;
    Ok(file)
}

fn open_lock(data_dir: &Path) -> Result<(PathBuf, File), Error> {
    let path = data_dir.join("lock");
    let mut options = File::options();
    options.create(true).truncate(false).read(true).write(true);
    let file = options.open(&path).map_err(Error::io("write", &path))?;
    Ok((path, file))
}

fn owner(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(32).read_to_string(&mut text) {
        Ok(1..) => format!("process {}", text.trim()),
        _ => "another process".to_owned(),
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("servers.json")
}
