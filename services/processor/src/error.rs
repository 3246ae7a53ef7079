//! What ends a processor.

/// What no waiting can mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker, or what stands in it.
    #[error(transparent)]
    Bus(#[from] bus::Error),
    /// The database, or what stands in it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The pipeline cannot be made of its parts; says why.
    #[error("{0}")]
    Pipeline(String),
}
