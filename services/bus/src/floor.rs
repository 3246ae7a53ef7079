//! Up to where a work stream is settled, as the broker's leader knows it, and the strays that no consumer takes.

use crate::dead_letter::{self, DeadLetter};
use crate::nats::Which;
use crate::{Bus, Error, Names, stream_status};

/// The consumers of one work stream, and the subjects that each of them takes.
#[derive(Clone, Debug)]
pub struct Lanes {
    /// The stream.
    pub stream: String,
    /// Durable consumers, each with its filters.
    pub consumers: Vec<(&'static str, Vec<String>)>,
}

impl Lanes {
    /// Both lanes of events.
    pub fn events(names: &Names) -> Lanes {
        let of = |operations: &[&str]| operations.iter().map(|operation| names.events_of(operation)).collect();
        let consumers = vec![
            (Names::PROCESSOR, of(&Names::FRESH_OPERATIONS)),
            (Names::PROCESSOR_BULK, of(&Names::BULK_OPERATIONS)),
        ];
        Lanes { stream: names.events_stream(), consumers }
    }

    /// Both lanes of stitch requests.
    pub fn stitch(names: &Names) -> Lanes {
        let consumers =
            vec![(Names::STITCHER, vec![names.stitch("fresh")]), (Names::STITCHER_BULK, vec![names.stitch("bulk")])];
        Lanes { stream: names.stitch_stream(), consumers }
    }
}

/// The highest sequence up to which every message of these lanes is acknowledged.
///
/// A consumer's own counts are brought up to date a moment after a message is stored, so "nothing pending" may be said
/// of a stream that has just grown. What lies above a consumer's acknowledged sequence is therefore asked of the store; which also tells how far the
/// other lane may be ahead of it: an event that waits for those before it waits for nothing else.
///
/// # Errors
/// [`Error::Away`] when the broker does not answer all of it.
pub async fn settled_through(bus: &Bus, lanes: &Lanes) -> Result<u64, Error> {
    let mut settled = stream_status(bus, &lanes.stream).await?.last_sequence;
    for (durable, filters) in &lanes.consumers {
        let counts = bus.link.consumer(&lanes.stream, durable).await?;
        for filter in filters {
            if let Some(next) = next_message(bus, &lanes.stream, counts.acknowledged_through + 1, filter).await? {
                settled = settled.min(next.sequence - 1);
            }
        }
    }
    Ok(settled)
}

/// An event whose subject no consumer takes: an unknown operation, or no provider.
pub type Stray = async_nats::jetstream::message::StreamMessage;

/// Turns every stray event from `after` up to `through` into a dead letter; gives how many there were.
///
/// # Errors
/// [`Error::Away`]: some may be written already, and are not written twice.
pub async fn strays_through(bus: &Bus, after: u64, through: u64) -> Result<u64, Error> {
    let stream = bus.names.events_stream();
    let mut count = 0;
    for subject in bus.link.subjects(&stream, bus.names.all_events()).await? {
        let Some(reason) = stray_reason(&bus.names, &subject) else { continue };
        let mut from = after + 1;
        while let Some(stray) =
            next_message(bus, &stream, from, &subject).await?.filter(|stray| stray.sequence <= through)
        {
            from = stray.sequence + 1;
            bury(bus, &stray, &reason).await?;
            count += 1;
        }
    }
    Ok(count)
}

fn stray_reason(names: &Names, subject: &str) -> Option<String> {
    let known = "upsert, delete, refresh, remove, import or snapshot";
    match names.parse_event(subject) {
        None => Some(format!(
            "subject {subject}: expected {}.events.<provider>.<operation>, the operation one of {known}",
            names.installation()
        )),
        Some((_, operation)) => {
            let taken = Names::FRESH_OPERATIONS.contains(&operation.as_str())
                || Names::BULK_OPERATIONS.contains(&operation.as_str());
            (!taken).then(|| format!("unknown operation \"{operation}\": expected {known}"))
        }
    }
}

async fn bury(bus: &Bus, stray: &Stray, reason: &str) -> Result<(), Error> {
    let message = async_nats::Message {
        subject: stray.subject.clone(),
        reply: None,
        payload: stray.payload.clone(),
        headers: (!stray.headers.is_empty()).then(|| stray.headers.clone()),
        status: None,
        description: None,
        length: stray.payload.len(),
    };
    tracing::warn!(message.id = stray.sequence, subject = %stray.subject, reason, "dead letter");
    let (sequence, stored) = (stray.sequence, stray.time.into());
    dead_letter::publish(bus, &DeadLetter { stage: "processor", reason, sequence, stored, message: &message }).await
}

/// The first message from a sequence on that a filter takes, as the stream's leader has it.
async fn next_message(bus: &Bus, stream: &str, from: u64, filter: &str) -> Result<Option<Stray>, Error> {
    bus.link.message(stream, Which::Next(from, filter)).await
}
