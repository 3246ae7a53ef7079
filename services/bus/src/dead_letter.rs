//! A message that can never be handled, kept with its reason, its bytes and its headers, for an operator.

use crate::publish::{Record, publish as publish_record};
use crate::{Bus, Error, header};
use bytes::Bytes;

/// The provider's token where a subject names none.
const NO_PROVIDER: &str = "_";

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
