//! Events as a provider publishes them: in order in atomic batches, or one by one.

use crate::Error;
use bus::{Bus, Published, Record};
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;
use std::time::Duration;

/// Events in one atomic batch: the broker's limit.
pub(crate) const BATCH: usize = 1000;
/// How long a full stream is waited for.
const FULL_LIMIT: Duration = Duration::from_secs(600);
/// Single publishes on their way at once.
const SINGLES: usize = 64;

/// An event to be published.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub provider: &'static str,
    pub operation: &'static str,
    pub payload: Vec<u8>,
    pub location_key: Option<String>,
}

impl Event {
    /// An event whose payload is this JSON.
    pub fn new(provider: &'static str, operation: &'static str, payload: &Value) -> Event {
        Event { provider, operation, payload: payload.to_string().into_bytes(), location_key: None }
    }

    /// The message.
    pub fn record(&self, bus: &Bus) -> Record {
        let record = Record::new(bus.names().event(self.provider, self.operation), self.payload.clone());
        match &self.location_key {
            Some(key) => record.with_header(bus::header::LOCATION_KEY, key),
            None => record,
        }
    }
}

/// Publishes events in atomic batches of 1,000, `flights` of them on their way at once: with one, in order. Waits while the stream is full.
/// `done` is told of each batch. Gives the last sequence.
///
/// # Errors
/// [`Error::Bus`]; then some batches may be stored.
pub(crate) async fn publish_batches(
    bus: &Bus,
    events: impl Iterator<Item = Event> + Send,
    flights: usize,
    done: impl Fn(usize) + Sync,
) -> Result<u64, Error> {
    let done = &done;
    let batches = Batches(events).map(|batch| async move {
        let records: Vec<Record> = batch.iter().map(|event| event.record(bus)).collect();
        let last = publish_batch(bus, &records).await?;
        done(records.len());
        Ok::<u64, Error>(last)
    });
    let sent = futures::stream::iter(batches).buffer_unordered(flights);
    sent.try_fold(0, |last, sequence| async move { Ok(last.max(sequence)) }).await
}

async fn publish_batch(bus: &Bus, records: &[Record]) -> Result<u64, Error> {
    let started = tokio::time::Instant::now();
    loop {
        match bus::publish_all(bus, records).await {
            Ok(sequences) => return Ok(sequences.last().copied().unwrap_or(0)),
            // All or nothing: what was refused can be sent again as it is.
            Err(bus::Error::Full(_)) if started.elapsed() < FULL_LIMIT => {
                tokio::time::sleep(Duration::from_millis(100)).await
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Publishes messages one by one, without waiting for each, so that they may overtake each other; gives what the broker said of each.
///
/// # Errors
/// [`Error::Bus`]; then some may be stored.
pub(crate) async fn publish_singly(bus: &Bus, records: &[Record]) -> Result<Vec<Published>, Error> {
    let sent = futures::stream::iter(records).map(|record| bus::publish(bus, record)).buffered(SINGLES);
    Ok(sent.try_collect().await?)
}

struct Batches<I>(I);

impl<I: Iterator<Item = Event>> Iterator for Batches<I> {
    type Item = Vec<Event>;

    fn next(&mut self) -> Option<Vec<Event>> {
        let batch: Vec<Event> = self.0.by_ref().take(BATCH).collect();
        (!batch.is_empty()).then_some(batch)
    }
}
