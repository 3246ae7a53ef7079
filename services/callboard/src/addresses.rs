//! Where a running `up` is reached: a file in its data directory, by which the operator's commands find it.

use crate::failure::Failure;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where everything of a running `up` is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Its process.
    pub pid: u32,
    /// The installation's name.
    pub installation: String,
    /// The broker.
    pub nats_url: String,
    /// The database, with its password.
    pub database_url: String,
    /// `http://host:port` of the reader's gRPC.
    pub grpc_url: String,
    /// `http://host:port` of health and metrics.
    pub http_url: String,
}

/// The data directory is this process's as long as this lives; then the file goes.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    file: File,
}

/// Takes the data directory.
///
/// # Errors
/// [`Failure::Runtime`] when another `up` has it.
pub fn claim(data_dir: &Path) -> Result<Claim, Failure> {
    let path = path(data_dir);
    let cannot = |error: std::io::Error| {
        Failure::Runtime(format!("cannot write {}: {error}; --data-dir names another directory", path.display()))
    };
    fs::create_dir_all(data_dir).map_err(cannot)?;
    // Only its owner may read it: it holds the database's password.
    let file =
        File::options().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path).map_err(cannot)?;
    match file.try_lock() {
        Ok(()) => Ok(Claim { path, file }),
        Err(TryLockError::WouldBlock) => Err(Failure::Runtime(format!(
            "a callboard runs in {} already: stop it, or choose another --data-dir",
            data_dir.display()
        ))),
        Err(TryLockError::Error(error)) => Err(cannot(error)),
    }
}

impl Claim {
    /// Says where everything is.
    ///
    /// # Errors
    /// [`Failure::Runtime`] when the file cannot be written.
    pub fn write(&mut self, addresses: &Addresses) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(addresses).map_err(Failure::runtime)?;
        let mut write = || {
            self.file.set_len(0)?;
            self.file.rewind()?;
            self.file.write_all(text.as_bytes())
        };
        write().map_err(|error| Failure::Runtime(format!("cannot write {}: {error}", self.path.display())))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A file that stays is not believed, since nobody has it locked.
        drop(fs::remove_file(&self.path));
    }
}

/// Where a running `up` with this data directory is reached; none where none runs, or is not yet ready to be asked.
pub fn find(data_dir: &Path) -> Option<Addresses> {
    let mut file = File::open(path(data_dir)).ok()?;
    if let Err(TryLockError::Error(_)) | Ok(()) = file.try_lock_shared() {
        return None;
    }
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("addresses.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_only_while_it_runs() {
        let data_dir = std::env::temp_dir().join(servers::testing::fresh_name("callboard-addresses"));
        assert_eq!(find(&data_dir), None);
        let text = |text: &str| text.to_owned();
        let addresses = Addresses {
            pid: 1,
            installation: text("catalog"),
            nats_url: text("nats://a:1"),
            database_url: text("postgres://b:2/c"),
            grpc_url: text("http://d:3"),
            http_url: text("http://e:4"),
        };
        let mut claim = super::claim(&data_dir).unwrap();
        assert_eq!(find(&data_dir), None);
        claim.write(&addresses).unwrap();
        assert_eq!(find(&data_dir), Some(addresses.clone()));
        assert!(super::claim(&data_dir).unwrap_err().to_string().contains("runs in"));
        let left = fs::read(path(&data_dir)).unwrap();
        drop(claim);
        fs::write(path(&data_dir), left).unwrap();
        assert_eq!(find(&data_dir), None);
        fs::remove_dir_all(&data_dir).unwrap();
    }
}
