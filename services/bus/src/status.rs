//! What the broker says of a stream and of a durable consumer.

use crate::{Bus, Error};
use async_nats::jetstream::stream::RawMessageErrorKind;
use std::time::{Duration, SystemTime};

/// The broker's error code for a stream that is not there.
pub(crate) const NO_SUCH_STREAM: u64 = 10059;

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
    let found =
        bus.jetstream.get_stream(stream).await.map_err(|error| Error::Away(format!("stream {stream}: {error}")))?;
    Ok(status(found.cached_info()))
}

fn status(info: &async_nats::jetstream::stream::Info) -> StreamStatus {
    StreamStatus {
        messages: info.state.messages,
        bytes: info.state.bytes,
        first_sequence: info.state.first_sequence,
        last_sequence: info.state.last_sequence,
        last_stored: info.state.last_timestamp.into(),
        created: info.created.into(),
    }
}

/// Asks the broker's leader for a stream that may not be there.
///
/// # Errors
/// [`Error::Away`]: then nothing is known of it.
pub async fn find_stream(bus: &Bus, stream: &str) -> Result<Option<StreamStatus>, Error> {
    use async_nats::jetstream::context::GetStreamErrorKind as Kind;
    match bus.jetstream.get_stream(stream).await {
        Ok(found) => Ok(Some(status(found.cached_info()))),
        Err(error) => match error.kind() {
            Kind::JetStream(api) if api.error_code().0 == NO_SUCH_STREAM => Ok(None),
            _ => Err(Error::Away(format!("stream {stream}: {error}"))),
        },
    }
}

/// When the message of a sequence was stored; none: it is not there, or not any more.
///
/// # Errors
/// [`Error::Away`].
pub async fn stored_at(bus: &Bus, stream: &str, sequence: i64) -> Result<Option<SystemTime>, Error> {
    let handle = bus.jetstream.get_stream_no_info(stream).await.map_err(Error::away)?;
    match handle.get_raw_message(u64::try_from(sequence).unwrap_or(0)).await {
        Ok(message) => Ok(Some(message.time.into())),
        Err(error) => match error.kind() {
            RawMessageErrorKind::NoMessageFound => Ok(None),
            RawMessageErrorKind::JetStream(api) if api.error_code().0 == NO_SUCH_STREAM || api.code() == 404 => {
                Ok(None)
            }
            RawMessageErrorKind::JetStream(api) if api.code() == 400 => Ok(None),
            _ => Err(Error::Away(format!("stream {stream}: {error}"))),
        },
    }
}

/// Asks the broker's leader for a durable consumer.
///
/// # Errors
/// [`Error::Away`], also where there is no such consumer.
pub async fn consumer_status(bus: &Bus, stream: &str, durable: &str) -> Result<ConsumerStatus, Error> {
    let handle = bus.jetstream.get_stream_no_info(stream).await.map_err(Error::away)?;
    let info = handle
        .consumer_info(durable)
        .await
        .map_err(|error| Error::Away(format!("consumer {durable} of {stream}: {error}")))?;
    let mut status = ConsumerStatus {
        pending: info.num_pending,
        in_flight: info.num_ack_pending as u64,
        redelivered: info.num_redelivered as u64,
        acknowledged_through: info.ack_floor.stream_sequence,
        oldest: None,
    };
    if status.pending + status.in_flight > 0 {
        let filters = match info.config.filter_subjects.is_empty() {
            true => vec![info.config.filter_subject.clone()],
            false => info.config.filter_subjects.clone(),
        };
        status.oldest = oldest(&handle, &filters, status.acknowledged_through).await;
    }
    Ok(status)
}

/// Messages of a durable consumer that wait or are in workers' hands.
///
/// # Errors
/// [`Error::Away`], also where there is no such consumer.
pub async fn unsettled(bus: &Bus, stream: &str, durable: &str) -> Result<u64, Error> {
    let handle = bus.jetstream.get_stream_no_info(stream).await.map_err(Error::away)?;
    let info = handle.consumer_info(durable).await.map_err(Error::away)?;
    Ok(info.num_pending + info.num_ack_pending as u64)
}

async fn oldest(
    stream: &async_nats::jetstream::stream::Stream<()>,
    filters: &[String],
    acknowledged: u64,
) -> Option<Duration> {
    let mut oldest: Option<SystemTime> = None;
    for filter in filters {
        if let Ok(message) =
            stream.raw_message_builder().sequence(acknowledged + 1).next_by_subject(filter.as_str()).send().await
        {
            let stored = SystemTime::from(message.time);
            oldest = Some(oldest.map_or(stored, |known| known.min(stored)));
        }
    }
    oldest.and_then(|stored| stored.elapsed().ok())
}
