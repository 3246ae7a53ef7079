//! What the broker says of a stream and of a durable consumer.

use crate::nats::Which;
use crate::{Bus, Error};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// Whether a stream went back and has grown past a message since, of which the sequence and the time (in nanoseconds since 1970; 0: unknown) are known: then what stands up to there was stored later.
/// (Where nothing of it is left, everything that was stored since is still to be told.)
///
/// # Errors
/// [`Error::Away`].
pub async fn has_grown_anew(bus: &Bus, stream: &str, (last_sequence, last_stored): (u64, u64)) -> Result<bool, Error> {
    if last_stored == 0 {
        return Ok(false);
    }
    let at = |which| bus.link.message(stream, which);
    if let Some(same) = at(Which::At(last_sequence)).await? {
        return Ok(nanoseconds(same.time.into()) != last_stored);
    }
    // It was replaced by a newer one of its subject, or never stood there. The newest that is left before it tells; it is found by halving.
    let (mut from, mut to, mut newest) = (1, last_sequence, 0);
    while from < to {
        let middle = from + (to - from) / 2;
        match at(Which::Next(middle, ">")).await?.filter(|found| found.sequence < to) {
            Some(found) => (from, newest) = (found.sequence + 1, nanoseconds(found.time.into())),
            None => to = middle,
        }
    }
    Ok(newest > last_stored)
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

/// When a durable consumer was made. One that was deleted is made anew, and delivers once more what was delivered already, as if for the first time.
///
/// # Errors
/// [`Error::Away`], also where there is no such consumer.
pub async fn made_at(bus: &Bus, stream: &str, durable: &str) -> Result<SystemTime, Error> {
    Ok(bus.link.consumer(stream, durable).await?.made)
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

/// A moment as the broker counts it: nanoseconds since 1970.
pub fn nanoseconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
