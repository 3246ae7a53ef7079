//! What can go wrong with a local server, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a server could not be found, fetched, started or stopped; every message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no usable server on this machine and none could be fetched.
    #[error(
        "{wanted} is needed and was not found on PATH, in the usual places or in {}{found}; to fetch it failed: {tried}. \
         Type:\n  {line}\nor give the address of a running one", cache.display()
    )]
    Unavailable {
        /// The server and the versions that would do, such as `nats-server 2.12.5 or newer`.
        wanted: String,
        /// The cache directory that was looked into.
        cache: PathBuf,
        /// What was found and passed over, with the reason, ready to follow in the sentence; empty if nothing was.
        found: String,
        /// What each client answered.
        tried: String,
        /// The line that mends it.
        line: String,
    },
    /// Neither CALLBOARD_CACHE_DIR nor XDG_CACHE_HOME nor HOME says where the cache is.
    #[error("no cache directory: HOME is not set; set CALLBOARD_CACHE_DIR to a directory that callboard may write")]
    NoCacheDir,
    /// A path that is given to the servers in their configuration or command line, and cannot be.
    #[error(
        "{} cannot be a data directory: it is not UTF-8, or holds a control character; choose another path", path.display()
    )]
    Path {
        /// The path as given.
        path: PathBuf,
    },
    /// Another process serves this data directory.
    #[error(
        "{} is in use by {owner}; stop that one, or choose another data directory", data_dir.display()
    )]
    Busy {
        /// The data directory.
        data_dir: PathBuf,
        /// `process 1234`, or `another process` when it has not said yet.
        owner: String,
    },
    /// PostgreSQL refuses to run as root, and the account it would run as cannot reach what it needs.
    #[error(
        "PostgreSQL does not run as root, and neither the account with uid {uid} nor a user namespace can use {}: {reason}; \
         choose a data directory (and CALLBOARD_CACHE_DIR) below directories that every account may enter, such as \
         /var/lib/callboard, or run callboard as an ordinary user", path.display()
    )]
    Unreachable {
        /// The account that was tried.
        uid: u32,
        /// The data directory.
        path: PathBuf,
        /// What the attempts printed.
        reason: String,
    },
    /// A program that should prepare something failed or took too long.
    #[error("{what} failed: {reason}; {advice}")]
    Failed {
        /// What was being done.
        what: &'static str,
        /// What it printed or how long it took.
        reason: String,
        /// What to do.
        advice: String,
    },
    /// A server ended, or was not ready in time.
    #[error("{server} {reason}; the last lines of {}:\n{tail}", log.display())]
    NotRunning {
        /// `PostgreSQL` or `nats-server`.
        server: &'static str,
        /// How it ended, or how long was waited.
        reason: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// The operating system refused something.
    #[error("cannot {what} {}: {source}; check its permissions and the free space", path.display())]
    Io {
        /// A verb: `read`, `write`, `create`, `run`.
        what: &'static str,
        /// The file, directory or program.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// The exit code for a program that ends with this error: 2 when something must be installed first, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Unavailable { .. } => 2,
            _ => 1,
        }
    }

    /// For `map_err`: the error for what was done to which path.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { what, path, source }
    }
}
