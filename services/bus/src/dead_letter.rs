//! A message that can never be handled, kept with its reason, its bytes and its headers, for an operator.

use crate::nats::Which;
use crate::publish::{Record, publish as publish_record};
use crate::{Bus, Error, header};
use bytes::Bytes;
use std::time::{SystemTime, UNIX_EPOCH};

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
    /// When the original was stored, in nanoseconds since 1970; none: not known.
    pub original_stored: Option<i64>,
    /// The original's headers.
    pub headers: Vec<(String, String)>,
    /// The payload is only the original's beginning.
    pub is_cut: bool,
    /// The original's body.
    pub payload: Bytes,
}

impl StoredDeadLetter {
    /// The original once more, as a new message under its subject. What made it one publish among others is not repeated.
    pub fn replay(&self) -> Record {
        let id = format!("replay-{}-{}", self.sequence, self.original_stored.unwrap_or(0));
        let mut record = Record::new(&self.subject, self.payload.clone()).with_id(id);
        for (name, value) in self.headers.iter().filter(|(name, _)| !name.starts_with("Nats-")) {
            record.headers.append(name.as_str(), value.as_str());
        }
        record
    }
}

/// The newest dead letters, newest first.
///
/// # Errors
/// As [`wanted_dead_letters`].
pub async fn newest_dead_letters(bus: &Bus, at_most: usize) -> Result<Vec<StoredDeadLetter>, Error> {
    wanted_dead_letters(bus, at_most, |_| true).await
}

/// The newest dead letters that are wanted, newest first.
///
/// # Errors
/// [`Error::Away`], also where there is no such stream yet.
pub async fn wanted_dead_letters(
    bus: &Bus,
    at_most: usize,
    is_wanted: impl Fn(&StoredDeadLetter) -> bool,
) -> Result<Vec<StoredDeadLetter>, Error> {
    let state = crate::stream_status(bus, &bus.names.dead_letters_stream()).await?;
    let mut letters = Vec::new();
    for sequence in (state.first_sequence.max(1)..=state.last_sequence).rev() {
        if letters.len() == at_most {
            break;
        }
        if let Some(letter) = dead_letter(bus, sequence).await?.filter(&is_wanted) {
            letters.push(letter);
        }
    }
    Ok(letters)
}

/// The dead letter of a sequence; none: it is not there, or not any more.
///
/// # Errors
/// [`Error::Away`].
pub async fn dead_letter(bus: &Bus, sequence: u64) -> Result<Option<StoredDeadLetter>, Error> {
    let message = bus.link.message(&bus.names.dead_letters_stream(), Which::At(sequence)).await?;
    Ok(message.map(|message| stored(bus, message)))
}

/// Removes the dead letter of a sequence.
///
/// # Errors
/// [`Error::Away`].
pub async fn drop_dead_letter(bus: &Bus, sequence: u64) -> Result<(), Error> {
    bus.link.delete_message(&bus.names.dead_letters_stream(), sequence).await
}

fn stored(bus: &Bus, message: async_nats::jetstream::message::StreamMessage) -> StoredDeadLetter {
    let text = |name: &str| message.headers.get(name).map(|value| value.as_str().to_owned()).unwrap_or_default();
    let mut tokens = message.subject.as_str().rsplit('.').map(crate::decode_token);
    let provider = tokens.next().flatten().filter(|provider| provider != NO_PROVIDER);
    let reason = text(header::DEAD_REASON);
    let (subject, stream) = (text(header::DEAD_SUBJECT), text(header::DEAD_STREAM));
    let original = |(name, values): (&async_nats::HeaderName, &Vec<async_nats::HeaderValue>)| {
        let name = AsRef::<str>::as_ref(name).strip_prefix(header::ORIGINAL_PREFIX)?.to_owned();
        Some(values.iter().map(|value| (name.clone(), value.as_str().to_owned())).collect::<Vec<_>>())
    };
    StoredDeadLetter {
        sequence: message.sequence,
        stored: message.time.into(),
        stage: tokens.next().flatten().unwrap_or_default(),
        provider: provider.filter(|_| bus.names.parse_event(&subject).is_some()),
        reason,
        subject,
        stream,
        original_sequence: text(header::DEAD_SEQUENCE).parse().unwrap_or(0),
        original_stored: text(header::DEAD_STORED).parse().ok(),
        headers: message.headers.iter().filter_map(original).flatten().collect(),
        is_cut: message.headers.get(header::DEAD_CUT).is_some(),
        payload: message.payload,
    }
}

/// A dead letter to be written.
pub(crate) struct DeadLetter<'a> {
    pub stage: &'static str,
    pub reason: &'a str,
    pub sequence: u64,
    /// When the message was stored.
    pub stored: SystemTime,
    pub message: &'a async_nats::Message,
}

/// Writes a dead letter under `catalog.dead.<stage>.<provider>`. Writing it again within two minutes changes nothing.
pub(crate) async fn publish(bus: &Bus, letter: &DeadLetter<'_>) -> Result<(), Error> {
    let record = record(bus, letter);
    match publish_record(bus, &record).await {
        // Larger than a message may be, with what we add to it: then the beginning has to do.
        Err(Error::Unusable(_)) if record.payload.len() > bus.max_payload() / 2 => {
            let cut = Record { payload: record.payload.slice(..bus.max_payload() / 2), ..record };
            publish_record(bus, &cut.with_header(header::DEAD_CUT, "true")).await.map(drop)
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
        // Two messages may have had this sequence, in a stream that was made anew.
        .with_id(format!("{stream}-{}-{}", letter.sequence, nanoseconds(letter.stored)))
        .with_header(header::DEAD_REASON, one_line(letter.reason))
        .with_header(header::DEAD_SUBJECT, &letter.message.subject)
        .with_header(header::DEAD_STREAM, stream)
        .with_header(header::DEAD_SEQUENCE, letter.sequence)
        .with_header(header::DEAD_STORED, nanoseconds(letter.stored));
    for (name, values) in letter.message.headers.iter().flat_map(|headers| headers.iter()) {
        for value in values {
            record.headers.append(format!("{}{name}", header::ORIGINAL_PREFIX), value.as_str());
        }
    }
    record
}

fn nanoseconds(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

/// A header's value ends with its line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(2000).collect()
}
