//! What the broker says of a stream and of a durable consumer.

use crate::nats::Which;
use crate::{Bus, Error};
use std::time::{Duration, SystemTime};

/// A stream as it is now.
#[derive(Clone, Debug)]
pub struct StreamStatus {
    /// Messages in it.
    pub messages: u64,
    /// Their bytes on disk.
    pub bytes: u64,
    /// Sequence of the first message that is kept.
    pub first_sequence: u64,
    /// Sequence of the newest message.
    pub last_sequence: u64,
    /// When the newest message was stored.
    pub last_stored: SystemTime,
    /// When the stream was made: its identity.
    pub created: SystemTime,
    /// The server that leads it, in a cluster.
    pub leader: Option<String>,
}

/// A durable consumer as it is now.
#[derive(Clone, Debug)]
pub struct ConsumerStatus {
    /// Messages that wait.
    pub pending: u64,
    /// Messages in workers' hands.
    pub in_flight: u64,
    /// Messages in workers' hands that were delivered before.
    pub redelivered: u64,
    /// Sequence up to which every message of the consumer is acknowledged.
    pub acknowledged_through: u64,
    /// How long the oldest unacknowledged message has waited since it was published.
    pub oldest: Option<Duration>,
}

/// Asks the broker's leader for a stream.
///
/// # Errors
/// [`Error::Away`], also where there is no such stream.
pub async fn stream_status(bus: &Bus, stream: &str) -> Result<StreamStatus, Error> {
    bus.link.stream(stream).await?.ok_or_else(|| Error::Away(format!("stream {stream}: stream not found")))
}

/// Asks the broker's leader for a stream that may not be there.
///
/// # Errors
/// [`Error::Away`]: then nothing is known of it.
pub async fn find_stream(bus: &Bus, stream: &str) -> Result<Option<StreamStatus>, Error> {
    bus.link.stream(stream).await
}

/// When the message of a sequence was stored; none: it is not there, or not any more.
///
/// # Errors
/// [`Error::Away`].
pub async fn stored_at(bus: &Bus, stream: &str, sequence: i64) -> Result<Option<SystemTime>, Error> {
    let message = bus.link.message(stream, Which::At(u64::try_from(sequence).unwrap_or(0))).await?;
    Ok(message.map(|message| message.time.into()))
}

/// The first message of a stream from a sequence on, as its leader has it: its sequence, and when it was stored.
///
/// # Errors
/// [`Error::Away`] when the broker does not answer.
pub async fn next_stored(bus: &Bus, stream: &str, from: u64) -> Result<Option<(u64, SystemTime)>, Error> {
    let message = bus.link.message(stream, Which::Next(from, ">")).await?;
    Ok(message.map(|message| (message.sequence, message.time.into())))
}

/// Asks the broker's leader for a durable consumer.
///
/// # Errors
/// [`Error::Away`], also where there is no such consumer.
pub async fn consumer_status(bus: &Bus, stream: &str, durable: &str) -> Result<ConsumerStatus, Error> {
    let counts = bus.link.consumer(stream, durable).await?;
    let mut status = ConsumerStatus {
        pending: counts.pending,
        in_flight: counts.in_flight,
        redelivered: counts.redelivered,
        acknowledged_through: counts.acknowledged_through,
        oldest: None,
    };
    if status.pending + status.in_flight > 0 {
        status.oldest = oldest(bus, stream, &counts.filters, status.acknowledged_through).await;
    }
    Ok(status)
}

/// Messages of a durable consumer that wait or are in workers' hands.
///
/// # Errors
/// [`Error::Away`], also where there is no such consumer.
pub async fn unsettled(bus: &Bus, stream: &str, durable: &str) -> Result<u64, Error> {
    let counts = bus.link.consumer(stream, durable).await?;
    Ok(counts.pending + counts.in_flight)
}

async fn oldest(bus: &Bus, stream: &str, filters: &[String], acknowledged: u64) -> Option<Duration> {
    let mut oldest: Option<SystemTime> = None;
    for filter in filters {
        if let Ok(Some(message)) = bus.link.message(stream, Which::Next(acknowledged + 1, filter)).await {
            let stored = SystemTime::from(message.time);
            oldest = Some(oldest.map_or(stored, |known| known.min(stored)));
        }
    }
    oldest.and_then(|stored| stored.elapsed().ok())
}
