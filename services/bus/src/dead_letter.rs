//! A message that can never be handled, kept with its reason, its bytes and its headers, for an operator.

use crate::publish::{Record, publish as publish_record};
use crate::{Bus, Error, header};
use async_nats::jetstream::stream::RawMessageErrorKind;
use bytes::Bytes;
use std::time::SystemTime;

/// The provider's token where a subject names none.
const NO_PROVIDER: &str = "_";

/// A dead letter as it stands in its stream.
#[derive(Clone, Debug)]
pub struct StoredDeadLetter {
    /// Its sequence in the stream of dead letters.
    pub sequence: u64,
    /// When it was stored.
    pub stored: SystemTime,
    /// The stage that gave up: `processor` or `stitcher`.
    pub stage: String,
    /// The provider of the original; none: its subject names none.
    pub provider: Option<String>,
    /// Why, in one sentence.
    pub reason: String,
    /// The subject on which the original came.
    pub subject: String,
    /// The stream in which the original stood.
    pub stream: String,
    /// The original's sequence there.
    pub original_sequence: u64,
    /// The original's body.
    pub payload: Bytes,
}

/// The newest dead letters, newest first.
///
/// # Errors
/// [`Error::Away`], also where there is no such stream yet.
pub async fn newest_dead_letters(bus: &Bus, at_most: usize) -> Result<Vec<StoredDeadLetter>, Error> {
    let name = bus.names.dead_letters_stream();
    let stream =
        bus.jetstream.get_stream(&name).await.map_err(|error| Error::Away(format!("stream {name}: {error}")))?;
    let state = &stream.cached_info().state;
    let mut letters = Vec::new();
    for sequence in (state.first_sequence.max(1)..=state.last_sequence).rev() {
        if letters.len() == at_most {
            break;
        }
        match stream.get_raw_message(sequence).await {
            Ok(message) => letters.push(stored(bus, message)),
            // It went meanwhile, by age or size, and the older ones before it.
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => break,
            Err(error) => return Err(Error::Away(format!("stream {name}: {error}"))),
        }
    }
    Ok(letters)
}

fn stored(bus: &Bus, message: async_nats::jetstream::message::StreamMessage) -> StoredDeadLetter {
    let text = |name: &str| message.headers.get(name).map(|value| value.as_str().to_owned()).unwrap_or_default();
    let mut tokens = message.subject.as_str().rsplit('.').map(crate::decode_token);
    let provider = tokens.next().flatten().filter(|provider| provider != NO_PROVIDER);
    let reason = text(header::DEAD_REASON);
    let (subject, stream) = (text(header::DEAD_SUBJECT), text(header::DEAD_STREAM));
    StoredDeadLetter {
        sequence: message.sequence,
        stored: message.time.into(),
        stage: tokens.next().flatten().unwrap_or_default(),
        provider: provider.filter(|_| bus.names.parse_event(&subject).is_some()),
        reason,
        subject,
        stream,
        original_sequence: text(header::DEAD_SEQUENCE).parse().unwrap_or(0),
        payload: message.payload,
    }
}

/// A dead letter to be written.
pub(crate) struct DeadLetter<'a> {
    pub stage: &'static str,
    pub reason: &'a str,
    pub sequence: u64,
    pub message: &'a async_nats::Message,
}

/// Writes a dead letter under `catalog.dead.<stage>.<provider>`. Writing it again within two minutes changes nothing.
pub(crate) async fn publish(bus: &Bus, letter: &DeadLetter<'_>) -> Result<(), Error> {
    let record = record(bus, letter);
    match publish_record(bus, &record).await {
        // Larger than a message may be, with what we add to it: then the beginning has to do.
        Err(Error::Unusable(_)) if record.payload.len() > bus.max_payload() / 2 => {
            let cut = Record { payload: record.payload.slice(..bus.max_payload() / 2), ..record };
            publish_record(bus, &cut).await.map(drop)
        }
        outcome => outcome.map(drop),
    }
}

fn record(bus: &Bus, letter: &DeadLetter<'_>) -> Record {
    let stream = match letter.stage {
        "processor" => bus.names.events_stream(),
        _ => bus.names.stitch_stream(),
    };
    let provider = bus.names.parse_event(&letter.message.subject).map(|(provider, _)| provider);
    let subject = match &provider {
        Some(provider) => bus.names.dead_letter(letter.stage, provider),
        None => bus.names.dead_letter(letter.stage, NO_PROVIDER),
    };
    let mut record = Record::new(subject, Bytes::clone(&letter.message.payload))
        .with_id(format!("{stream}-{}", letter.sequence))
        .with_header(header::DEAD_REASON, one_line(letter.reason))
        .with_header(header::DEAD_SUBJECT, &letter.message.subject)
        .with_header(header::DEAD_STREAM, stream)
        .with_header(header::DEAD_SEQUENCE, letter.sequence);
    for (name, values) in letter.message.headers.iter().flat_map(|headers| headers.iter()) {
        for value in values {
            record.headers.append(format!("{}{name}", header::ORIGINAL_PREFIX), value.as_str());
        }
    }
    record
}

/// A header's value ends with its line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(2000).collect()
}
