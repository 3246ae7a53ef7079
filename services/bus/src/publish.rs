//! Publishing so that it is known what happened: one message, many in atomic batches, and each retry under the same id.

use crate::error::from_api;
use crate::nats::{REQUEST_TIMEOUT, Unanswered};
use crate::{Bus, Error};
use async_nats::HeaderMap;
use bytes::Bytes;
use serde::Deserialize;

/// The broker's limit of messages in one atomic batch.
pub(crate) const BATCH_MESSAGES: usize = 1000;
/// Bytes of one atomic batch: more are sent as several.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// A message to be published.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where to.
    pub subject: String,
    /// Headers; [`Record::with_header`] adds to them.
    pub headers: HeaderMap,
    /// The body.
    pub payload: Bytes,
}

impl Record {
    /// A message without headers.
    pub fn new(subject: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Record { subject: subject.into(), headers: HeaderMap::new(), payload: payload.into() }
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.insert(name, value.to_string());
        self
    }

    /// Gives the message an id by which the broker knows a repeated publish for two minutes (`Nats-Msg-Id`).
    #[must_use]
    pub fn with_id(self, id: impl ToString) -> Self {
        self.with_header("Nats-Msg-Id", id)
    }

    /// Has the broker refuse the message unless this is its subject's last sequence; 0: the subject must be empty.
    #[must_use]
    pub fn expecting(self, last_subject_sequence: u64) -> Self {
        self.with_header("Nats-Expected-Last-Subject-Sequence", last_subject_sequence)
    }

    fn bytes(&self) -> usize {
        self.subject.len() + self.payload.len() + 64 * self.headers.len()
    }
}

/// What the broker said of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The sequence of the message; of a batch: of its last one.
    pub sequence: u64,
    /// The broker had a message of this id already.
    pub duplicate: bool,
}

/// Publishes one message and waits until the broker has it on disk. One try.
///
/// # Errors
/// [`Error::Away`] may mean that it was stored all the same.
pub async fn publish(bus: &Bus, record: &Record) -> Result<Published, Error> {
    let reply = request(bus, record, record.headers.clone()).await?;
    parse_ack(&reply)
}

/// Publishes many messages in order, as atomic batches of up to 1,000 messages and 8 MiB; gives the sequence of each.
/// One try a batch; what came before a failed one is stored.
///
/// # Errors
/// As [`publish`].
pub async fn publish_all(bus: &Bus, records: &[Record]) -> Result<Vec<u64>, Error> {
    let mut sequences = Vec::with_capacity(records.len());
    let mut rest = records;
    while !rest.is_empty() {
        let (batch, after) = rest.split_at(batch_length(rest));
        let last = publish_at_once(bus, batch).await?.sequence;
        sequences.extend((0..batch.len() as u64).map(|i| last + 1 + i - batch.len() as u64));
        rest = after;
    }
    Ok(sequences)
}

fn batch_length(records: &[Record]) -> usize {
    let mut bytes = 0;
    let fitting = records.iter().take(BATCH_MESSAGES).take_while(|record| {
        bytes += record.bytes();
        bytes <= BATCH_BYTES
    });
    fitting.count().max(1)
}

/// Publishes up to 1,000 messages of one stream as one atomic batch: all are stored, with sequences in a row, or none.
///
/// # Errors
/// [`Error::WrongLastSequence`] when one expectation of the batch does not hold.
pub async fn publish_at_once(bus: &Bus, records: &[Record]) -> Result<Published, Error> {
    assert!(records.len() <= BATCH_MESSAGES, "a batch holds at most {BATCH_MESSAGES} messages, not {}", records.len());
    let [first, middle @ .., last] = records else {
        return match records {
            [only] => publish(bus, only).await,
            _ => Err(Error::Unusable("an empty batch was to be published".to_owned())),
        };
    };
    let id = bus.link.token();
    let headers = |record: &Record, sequence: usize| {
        let mut headers = record.headers.clone();
        headers.insert("Nats-Batch-Id", id.as_str());
        headers.insert("Nats-Batch-Sequence", sequence.to_string());
        headers
    };
    let reply = request(bus, first, headers(first, 1)).await?;
    if !reply.is_empty() {
        return Err(parse_ack(&reply)
            .err()
            .unwrap_or_else(|| Error::Unusable("the stream takes no atomic batches".to_owned())));
    }
    for (index, record) in middle.iter().enumerate() {
        bus.link.publish(&record.subject, headers(record, index + 2), record.payload.clone()).await?;
    }
    let mut commit = headers(last, records.len());
    commit.insert("Nats-Batch-Commit", "1");
    parse_ack(&request(bus, last, commit).await?)
}

async fn request(bus: &Bus, record: &Record, headers: HeaderMap) -> Result<Bytes, Error> {
    let reply = bus.link.request(&record.subject, headers, record.payload.clone(), REQUEST_TIMEOUT).await;
    reply.map_err(|error| match error {
        Unanswered::NobodyThere => Error::Away(format!("no stream takes {}", record.subject)),
        Unanswered::TooLarge => Error::Unusable(format!(
            "a message of {} bytes for {} is over the broker's max_payload of {}",
            record.payload.len(),
            record.subject,
            bus.max_payload()
        )),
        Unanswered::Lost(what) => Error::Away(format!("{} was not confirmed: {what}", record.subject)),
    })
}

#[derive(Deserialize)]
struct Ack {
    seq: Option<u64>,
    #[serde(default)]
    duplicate: bool,
    error: Option<async_nats::jetstream::Error>,
}

fn parse_ack(reply: &[u8]) -> Result<Published, Error> {
    let ack: Ack = serde_json::from_slice(reply)
        .map_err(|error| Error::Unusable(format!("the broker's answer to a publish is no answer: {error}")))?;
    match (ack.error, ack.seq) {
        (Some(error), _) => Err(from_api(&error)),
        (None, Some(sequence)) => Ok(Published { sequence, duplicate: ack.duplicate }),
        (None, None) => Err(Error::Unusable("the broker's answer to a publish has no sequence".to_owned())),
    }
}
