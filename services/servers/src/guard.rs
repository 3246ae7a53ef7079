//! The guard: a small shell process that outlives a killed one and stops the servers it left.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::process::{self, Lifetime};
use crate::{Error, state};

/// The guard's name, by which a running one is recognised.
const NAME: &str = "callboard-guard";

/// What a guard does with the data directory in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Leaves it for the next start.
    #[cfg_attr(target_os = "linux", allow(dead_code))]
    Keep,
    /// Removes it.
    Remove,
}

/// Starts a guard that waits for the end of process `run`, born `born`, and then stops the servers of `data_dir`. Within a second of
/// the end it acts.
pub fn start(data_dir: &Path, run: u32, born: &str, then: Then) -> Result<(), Error> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", include_str!("guard.sh"), NAME]);
    command.arg(data_dir).args([&run.to_string(), born]);
    command.arg(match then {
        Then::Keep => "keep",
        Then::Remove => "remove",
    });
    command.current_dir("/").stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let guard = process::spawn(command, Lifetime::Detached).map_err(Error::io("run", Path::new("/bin/sh")))?;
    let file = data_dir.join("guard.pid");
    std::fs::write(&file, guard.id().to_string()).map_err(Error::io("write", &file))
}

/// Whether a guard of this directory runs.
pub fn runs(data_dir: &Path) -> bool {
    let text = std::fs::read_to_string(data_dir.join("guard.pid")).unwrap_or_default();
    let directory = state::marker(data_dir);
    let pid = text.parse();
    pid.is_ok_and(|pid| process::runs(pid, NAME) && process::runs(pid, directory.trim_end_matches('/')))
}
