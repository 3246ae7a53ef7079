//! How an entity, its deletion and the watermark are written into the entity stream, and read back.

use crate::delivered::Delivered;
use crate::nats::Which;
use crate::{Bus, Error, Record, header};
use bytes::Bytes;
use futures::StreamExt;
use std::time::Duration;

/// Bodies above this many bytes are compressed.
const COMPRESS_ABOVE: usize = 64 * 1024;
/// What a body may grow to when it is unpacked.
const UNPACKED_LIMIT: usize = 64 * 1024 * 1024;
/// How long a deletion stands in the stream, so that a reader that was away that long still learns of it.
const TOMBSTONE_TTL: &str = "168h";

/// The message that says how an entity is now; without a body, that it is gone.
pub fn entity_record(
    bus: &Bus,
    entity_ref: &str,
    version: i64,
    revision: i64,
    content: Option<(&str, Vec<u8>)>,
) -> Record {
    let subject = bus.names.entity(entity_ref);
    let stamp = |record: Record| record.with_header(header::VERSION, version).with_header(header::REVISION, revision);
    match content {
        None => stamp(Record::new(subject, Bytes::new())).with_header("Nats-TTL", TOMBSTONE_TTL),
        Some((hash, body)) => {
            let (body, compressed) = compress(body);
            let record = stamp(Record::new(subject, body)).with_header(header::HASH, hash);
            if compressed { record.with_header(header::ENCODING, "zstd") } else { record }
        }
    }
}

/// The revision of a watermark that promises nothing: it only marks its stream, so that the next one can name what it comes after.
pub const NO_WATERMARK: i64 = -1;

/// The message that says of an entity that it was never processed successfully, and why: without a body, so that to whoever does not ask it is not there.
pub fn unprocessed_record(
    bus: &Bus,
    entity_ref: &str,
    (version, revision): (i64, i64),
    hash: &str,
    why: &str,
) -> Record {
    Record::new(bus.names.entity(entity_ref), Bytes::new())
        .with_header(header::VERSION, version)
        .with_header(header::REVISION, revision)
        .with_header(header::HASH, hash)
        .with_header(header::UNPROCESSED, why)
}

/// The message that says up to which revision everything stands in the stream before it.
pub fn watermark_record(bus: &Bus, revision: i64) -> Record {
    Record::new(bus.names.watermark(), format!("{{\"revision\":{revision}}}"))
}

/// The sequence of the newest watermark, as the stream's leader has it; 0: there is none.
///
/// # Errors
/// [`Error::Away`].
pub async fn newest_watermark(bus: &Bus) -> Result<u64, Error> {
    let message = bus.link.message(&bus.names.entities_stream(), Which::Last(&bus.names.watermark())).await?;
    Ok(message.map_or(0, |message| message.sequence))
}

/// The newest message on an entity, as the stream's leader has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewestEntity {
    /// Its sequence.
    pub sequence: u64,
    /// Its version.
    pub version: i64,
    /// Hash of its content; none: a deletion.
    pub hash: Option<String>,
}

/// Asks for the newest message on an entity; none: there is none.
///
/// # Errors
/// [`Error::Away`].
pub async fn newest_entity(bus: &Bus, entity_ref: &str) -> Result<Option<NewestEntity>, Error> {
    let subject = bus.names.entity(entity_ref);
    let message = bus.link.message(&bus.names.entities_stream(), Which::Last(&subject)).await?;
    Ok(message.map(|message| newest(message.sequence, &message.headers)))
}

fn newest(sequence: u64, headers: &async_nats::HeaderMap) -> NewestEntity {
    let text = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
    NewestEntity {
        sequence,
        version: text(header::VERSION).and_then(|version| version.parse().ok()).unwrap_or(0),
        hash: text(header::HASH),
    }
}

/// The newest message of every entity in the stream, without its body: refs with what is known of each.
///
/// # Errors
/// [`Error::Away`], also when nothing comes for ten seconds.
pub async fn newest_entities(bus: &Bus, mut take: impl FnMut(String, NewestEntity)) -> Result<(), Error> {
    let (mut messages, waiting) = bus.link.newest(&bus.names.entities_stream(), bus.names.all_entities()).await?;
    if waiting == 0 {
        return Ok(());
    }
    loop {
        let message = tokio::time::timeout(Duration::from_secs(10), messages.next()).await;
        let message = message.map_err(|_| Error::away("the entity stream sends nothing"))?;
        let Some(message) = message.transpose()? else { return Ok(()) };
        let Some(delivered) = Delivered::of(&message) else { continue };
        let headers = message.headers.clone().unwrap_or_default();
        if let Some(entity_ref) = bus.names.parse_entity(&message.subject) {
            take(entity_ref, newest(delivered.sequence, &headers));
        }
        if delivered.pending == 0 {
            return Ok(());
        }
    }
}

fn compress(body: Vec<u8>) -> (Bytes, bool) {
    if body.len() <= COMPRESS_ABOVE {
        return (body.into(), false);
    }
    match zstd::bulk::compress(&body, 3) {
        Ok(small) => (small.into(), true),
        Err(_) => (body.into(), false),
    }
}

pub(crate) fn decompress(message: &async_nats::Message) -> Option<Bytes> {
    let encoding = message.headers.as_ref().and_then(|headers| headers.get(header::ENCODING));
    match encoding.map(|value| value.as_str()) {
        None => Some(message.payload.clone()),
        Some("zstd") => zstd::bulk::decompress(&message.payload, UNPACKED_LIMIT).ok().map(Bytes::from),
        Some(_) => None,
    }
}
