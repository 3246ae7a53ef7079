//! What can go wrong with the database, sorted by what the caller should do about it.

/// An error of the database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database does not answer, or not in time: nobody's fault, try again until it does.
    #[error("the database is away: {0}")]
    Away(String),
    /// Another transaction was in the way (deadlock, lock or statement time-out): try the same again.
    #[error("another transaction was in the way: {0}")]
    Collision(String),
    /// The statement or its data cannot be worked with.
    #[error("the database refused: {0}")]
    Refused(String),
    /// What stands in the database cannot be right; says what.
    #[error("the database holds what cannot be: {0}")]
    Damaged(String),
    /// The database cannot be used as it is; says what to do.
    #[error("{0}")]
    Unusable(String),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as Sqlx;
        match &error {
            Sqlx::Io(_)
            | Sqlx::Tls(_)
            | Sqlx::PoolTimedOut
            | Sqlx::PoolClosed
            | Sqlx::WorkerCrashed
            | Sqlx::Protocol(_) => Error::Away(error.to_string()),
            Sqlx::Database(refusal) => {
                let code = refusal.code().unwrap_or_default();
                let message = format!("{} ({code})", refusal.message());
                match &*code {
                    "40001" | "40P01" | "55P03" | "57014" => Error::Collision(message),
                    // Connection lost, shutting down, too many connections, out of disk or memory, idle time-out, read only.
                    "57P01" | "57P02" | "57P03" | "25P03" | "25006" => Error::Away(message),
                    _ if code.starts_with("08") || code.starts_with("53") || code.starts_with("58") => {
                        Error::Away(message)
                    }
                    _ => Error::Refused(message),
                }
            }
            _ => Error::Refused(error.to_string()),
        }
    }
}
