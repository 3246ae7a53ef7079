//! Why the program ends without success, and with which exit code.

use std::io::{self, Write};
use std::process::ExitCode;

/// What ends the program early.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something given is wrong: a flag, an address, a value. Says what to do. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Something failed that may work another time. Exit code 1.
    #[error("{0}")]
    Runtime(String),
    /// The command has told already what was wrong. Exit code 1.
    #[error("")]
    Told,
    /// Whoever read the output has enough of it, as in `callboard list | head`. Exit code 0.
    #[error("")]
    ClosedPipe,
}

impl Failure {
    /// A failure at run time.
    pub fn runtime(what: impl ToString) -> Failure {
        Failure::Runtime(what.to_string())
    }

    /// A failure of what was given.
    pub fn usage(what: impl ToString) -> Failure {
        Failure::Usage(what.to_string())
    }

    /// Says it on stderr, and gives the exit code.
    pub fn tell(self) -> ExitCode {
        let code = match &self {
            Failure::ClosedPipe => return ExitCode::SUCCESS,
            Failure::Told => return ExitCode::from(1),
            Failure::Usage(_) => 2,
            Failure::Runtime(_) => 1,
        };
        tell(&format!("callboard: {self}"));
        ExitCode::from(code)
    }
}

/// Writes a line to stderr. Nothing can be done where even that fails.
pub fn tell(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}

/// Only writing to stdout gives a bare error of the system here.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ClosedPipe,
            _ => Failure::Runtime(format!("cannot write the output: {error}")),
        }
    }
}

impl From<bus::Error> for Failure {
    fn from(error: bus::Error) -> Failure {
        match error {
            bus::Error::Unusable(what) => Failure::Usage(what),
            other => Failure::Runtime(other.to_string()),
        }
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Failure {
        match error {
            store::Error::Unusable(what) => Failure::Usage(what),
            other => Failure::Runtime(other.to_string()),
        }
    }
}

impl From<servers::Error> for Failure {
    fn from(error: servers::Error) -> Failure {
        match error.exit_code() {
            2 => Failure::Usage(error.to_string()),
            _ => Failure::Runtime(error.to_string()),
        }
    }
}
