//! What can go wrong with the broker, sorted by what the caller should do about it.

/// An error of the broker or of what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker does not answer, or not in time: nobody's fault, try again until it does.
    #[error("the broker is away: {0}")]
    Away(String),
    /// The stream is full and keeps what it has: wait, then try again.
    #[error("the stream is full: {0}")]
    Full(String),
    /// A subject was not at the expected sequence; nothing of the batch was stored. The number is the sequence
    /// that the broker names, of a subject that it does not name.
    #[error("a subject is at sequence {0}, which was not expected")]
    WrongLastSequence(u64),
    /// The broker, or what stands in it, cannot be used as it is; says what to do.
    #[error("{0}")]
    Unusable(String),
}

impl Error {
    /// Whether waiting may help, without anything being changed.
    pub fn is_away(&self) -> bool {
        matches!(self, Error::Away(_) | Error::Full(_))
    }

    pub(crate) fn away(what: impl std::fmt::Display) -> Self {
        Error::Away(what.to_string())
    }
}

/// Sorts the broker's own error codes.
pub(crate) fn from_api(error: &async_nats::jetstream::Error) -> Error {
    let description = error.to_string();
    match error.error_code().0 {
        10071 | 10164 => Error::WrongLastSequence(named_sequence(&description)),
        10077 | 10047 | 10167 => Error::Full(description),
        // A part of an atomic batch was lost on its way, or came too late: nothing of it is stored.
        10176 => Error::Away(description),
        _ if error.code() == 503 || error.code() == 429 => Error::Away(description),
        _ => Error::Unusable(format!("the broker refused: {description}")),
    }
}

/// "wrong last sequence: 17 (…)"
fn named_sequence(description: &str) -> u64 {
    let number = description.split_once("sequence: ").map_or("", |(_, rest)| rest);
    number.split(|c: char| !c.is_ascii_digit()).next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: u64, number: u64, is_away: bool) {
        let error = serde_json::json!({"code": code, "err_code": number, "description": "what the broker says"});
        let error = serde_json::from_value(error).expect("an error as the broker sends it");
        assert_eq!(from_api(&error).is_away(), is_away, "{number}");
    }

    #[test]
    fn what_waiting_may_help() {
        for (code, number, is_away) in [
            (503, 10077, true),  // the stream is full
            (400, 10176, true),  // an atomic batch lost a part
            (429, 10210, true),  // too many batches at once
            (503, 10008, true),  // JetStream is not there now
            (400, 10071, false), // wrong last sequence
            (400, 10201, false), // an id twice in one batch
            (400, 10054, false), // a message is too large
        ] {
            check(code, number, is_away);
        }
    }
}
