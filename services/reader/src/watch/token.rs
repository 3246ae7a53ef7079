//! A resume token: a place in a stream of entities, as an opaque text that any reader of that stream understands.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::Error;

use super::{Mark, Place};
use crate::page_token::{checksum, from_hex, to_hex};

/// How long a token can be used. A deletion stands in the stream for seven days, and a reader that starts later does not learn of it.
pub(crate) const LIFETIME: Duration = Duration::from_secs(6 * 24 * 3600);

/// What a resume token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResumeToken {
    /// Where the watcher stopped.
    pub mark: Mark,
    /// Of the filter and the query that the watch began with.
    pub fingerprint: u64,
    /// When the reader was there: seconds since 1970.
    pub at: u64,
}

/// The first byte of a token: another form of it gets another number.
const FORM: u8 = 2;
/// Form, checksum, stream, sequence, its time, merged, fingerprint, time.
const LENGTH: usize = 1 + 7 * 8;

impl ResumeToken {
    /// A token for a watcher that stops now.
    pub fn new(mark: Mark, fingerprint: u64, now: SystemTime) -> ResumeToken {
        ResumeToken { mark, fingerprint, at: seconds(now) }
    }

    /// The token as text: hexadecimal digits.
    pub fn encode(&self) -> String {
        let Mark { place, merged } = self.mark;
        let numbers = [place.stream as u64, place.sequence, place.stored, merged, self.fingerprint, self.at];
        let content: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        let head = [FORM].into_iter().chain(checksum(&content).to_be_bytes());
        to_hex(head.chain(content.iter().copied()))
    }

    /// Reads a token.
    ///
    /// # Errors
    /// It is damaged, of a watch with another filter, or too old.
    pub fn decode(text: &str, fingerprint: u64, now: SystemTime) -> Result<ResumeToken, Error> {
        let damaged = || {
            let reason = "expected the resume_token of an earlier event, found something else";
            Error::invalid("resume_token", reason)
        };
        let token = from_hex(text).and_then(|bytes| ResumeToken::read(&bytes)).ok_or_else(damaged)?;
        if token.fingerprint != fingerprint {
            let reason = "it belongs to another watch: give the filter and query that it began with, or no token";
            return Err(Error::invalid("resume_token", reason));
        }
        if seconds(now).saturating_sub(token.at) > LIFETIME.as_secs() {
            return Err(Error::TooOld { reason: "it is older than six days" });
        }
        Ok(token)
    }

    fn read(bytes: &[u8]) -> Option<ResumeToken> {
        let number = |place: usize| {
            let from = 1 + place * 8;
            Some(u64::from_be_bytes(bytes.get(from..from + 8)?.try_into().ok()?))
        };
        let sound = bytes.len() == LENGTH && bytes[0] == FORM && number(0)? == checksum(&bytes[9..]);
        sound.then_some(ResumeToken {
            mark: Mark {
                place: Place { stream: number(1)? as i64, sequence: number(2)?, stored: number(3)? },
                merged: number(4)?,
            },
            fingerprint: number(5)?,
            at: number(6)?,
        })
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = UNIX_EPOCH;

    fn token() -> ResumeToken {
        ResumeToken::new(Mark { place: Place { stream: -5, sequence: 77, stored: 7 }, merged: 80 }, 9, NOW)
    }

    #[test]
    fn a_token_reads_as_it_was_written() {
        assert_eq!(ResumeToken::decode(&token().encode(), 9, NOW), Ok(token()));
        assert_eq!(ResumeToken::decode(&token().encode(), 9, NOW + LIFETIME), Ok(token()));
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let text = token().encode();
        for at in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[at] = if damaged[at] == b'0' { b'1' } else { b'0' };
            let damaged = String::from_utf8(damaged).unwrap();
            assert!(ResumeToken::decode(&damaged, 9, NOW).is_err(), "{at}");
            assert!(ResumeToken::decode(&text[..at], 9, NOW).is_err(), "{at}");
        }
        let another = ResumeToken::decode(&text, 8, NOW).unwrap_err();
        assert!(another.to_string().contains("another watch"), "{another}");
        let late = NOW + LIFETIME + Duration::from_secs(1);
        assert!(matches!(ResumeToken::decode(&text, 9, late), Err(Error::TooOld { .. })));
    }
}
