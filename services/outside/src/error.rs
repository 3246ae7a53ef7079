//! Why something could not be read.

/// Why something could not be read; each holds a sentence without a secret in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not there.
    #[error("NotFoundError: {0}")]
    NotFound(String),
    /// The configuration does not allow it.
    #[error("NotAllowedError: {0}")]
    NotAllowed(String),
    /// It cannot be read as it is: over a limit, of another form, refused by the server.
    #[error("Error: {0}")]
    Refused(String),
    /// The server is away or slow: the same may succeed later.
    #[error("Error: {0}")]
    Away(String),
    /// The configuration of the reader itself.
    #[error("{0}")]
    Unusable(String),
}

impl Error {
    /// The sentence alone.
    pub fn message(&self) -> &str {
        match self {
            Error::NotFound(what)
            | Error::NotAllowed(what)
            | Error::Refused(what)
            | Error::Away(what)
            | Error::Unusable(what) => what,
        }
    }
}
