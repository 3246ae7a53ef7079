//! What the broker says of a delivery, in the subject on which the message is acknowledged.

use async_nats::Message;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One delivery of a message of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// The message's sequence in its stream.
    pub sequence: u64,
    /// How often it was delivered, this time included.
    pub deliveries: i64,
    /// When it was stored.
    pub published: SystemTime,
    /// Messages that wait behind it.
    pub pending: u64,
}

impl Delivered {
    /// None: the message is not of a stream.
    pub fn of(message: &Message) -> Option<Delivered> {
        parse(message.reply.as_deref()?)
    }
}

/// `$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<consumer's sequence>.<nanoseconds>.<pending>`; the newer form has the domain and
/// the account before the stream, and may have more behind.
fn parse(reply: &str) -> Option<Delivered> {
    let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
    let counts = match tokens.len() {
        7 => &tokens[2..],
        9.. => &tokens[4..],
        _ => return None,
    };
    let [deliveries, sequence, _, nanoseconds, pending, ..] = counts else { return None };
    Some(Delivered {
        sequence: sequence.parse().ok()?,
        deliveries: deliveries.parse().ok()?,
        published: UNIX_EPOCH + Duration::from_nanos(nanoseconds.parse().ok()?),
        pending: pending.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let expected = Delivered {
            sequence: 17,
            deliveries: 2,
            published: UNIX_EPOCH + Duration::from_nanos(1_700_000_000_000_000_001),
            pending: 4,
        };
        for (reply, expected) in [
            ("$JS.ACK.CATALOG_EVENTS.processor.2.17.9.1700000000000000001.4", Some(expected)),
            ("$JS.ACK._.hash.CATALOG_EVENTS.processor.2.17.9.1700000000000000001.4.random", Some(expected)),
            ("$JS.ACK._.hash.CATALOG_EVENTS.processor.2.17.9.1700000000000000001.4", Some(expected)),
            ("$JS.ACK.CATALOG_EVENTS.processor.2.17.9.1700000000000000001", None),
            ("$JS.ACK.CATALOG_EVENTS.processor.2.x.9.1700000000000000001.4", None),
            ("_INBOX.abc", None),
        ] {
            assert_eq!(parse(reply), expected, "{reply}");
        }
    }
}
