//! What can end a run: whose fault it is, and what to do.

use std::path::{Path, PathBuf};

/// An error of a run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for cannot be done.
    #[error("{0}")]
    Usage(String),
    /// The broker.
    #[error(transparent)]
    Bus(#[from] bus::Error),
    /// PostgreSQL or nats-server could not be started.
    #[error(transparent)]
    Servers(#[from] servers::Error),
    /// A call to the reader failed.
    #[error("{call}: the reader answered {code}: {message}")]
    Call {
        /// The rpc.
        call: &'static str,
        /// gRPC's code.
        code: tonic::Code,
        /// What the reader said.
        message: String,
    },
    /// The reader cannot be reached.
    #[error("the reader at {address} cannot be reached: {source}. --grpc names it, for example http://127.0.0.1:7070")]
    Reader {
        /// As it was given.
        address: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// A process of the installation ended or did not become ready.
    #[error("{process} {reason}; the end of its log:\n{log}")]
    Process {
        /// Which, for example `processor-1`.
        process: String,
        /// What happened.
        reason: String,
        /// The last lines of its log.
        log: String,
    },
    /// A process's metrics cannot be read.
    #[error("metrics at {address}: {reason}")]
    Metrics {
        /// `host:port`.
        address: String,
        /// Why.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// For example `write`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Something did not happen in time.
    #[error("{what}: not within {seconds} s; {found}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// How far it was.
        found: String,
    },
    /// The run was interrupted; everything that it had started is stopped.
    #[error("interrupted; everything that was started is stopped")]
    Interrupted,
}

impl Error {
    /// For `map_err` on what reads and writes files.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { action, path, source }
    }

    /// The exit code: 2 for what was asked wrongly, 130 for an interruption, 3 otherwise. (1 is a violation: no error.)
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => 2,
            Error::Interrupted => 130,
            _ => 3,
        }
    }
}
