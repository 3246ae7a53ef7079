//! The data of the servers: small file systems that can be full, and directories that are copied and removed.

use crate::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes of the small file system of each server, where there can be one.
pub(crate) const DISK_BYTES: u64 = 1 << 30;

/// A small file system in memory, of one server.
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// Mounts it. None: this machine does not let us.
    pub fn mount(place: &Path) -> Option<Disk> {
        std::fs::create_dir_all(place).ok()?;
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={DISK_BYTES},mode=0755"), "tmpfs"]).arg(place);
        command.output().is_ok_and(|output| output.status.success()).then(|| Disk(place.to_path_buf()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).output());
    }
}

pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

pub(crate) fn copy_all(from: &Path, to: &Path) -> Result<(), Error> {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).output().map_err(Error::io("copy", from))?;
    match copied.status.success() {
        true => Ok(()),
        false => {
            Err(Error::io("copy", from)(std::io::Error::other(String::from_utf8_lossy(&copied.stderr).into_owned())))
        }
    }
}
