//! Publishing checked entities: few as single upserts, many as imports in atomic batches; a repeated publish is one publish.

use crate::failure::Failure;
use crate::input::Checked;
use bus::{Backoff, Bus, Record, header};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Up to this many entities go one by one, on the fresh lane; more go as imports.
const SINGLE: usize = 50;
/// Entities in one atomic batch: the broker's own limit.
const BATCH: usize = 1000;
/// How long a publish is tried while the broker is away or the stream is full.
const PATIENCE: Duration = Duration::from_secs(60);

/// In whose name entities are published.
#[derive(Clone, Debug, Default)]
pub struct Publisher {
    /// The provider.
    pub provider: String,
    /// The location key of every claim, if any.
    pub location_key: Option<String>,
    /// The id of the snapshot of which each is a part.
    pub snapshot: Option<String>,
    /// The revision which each replaces.
    pub expected_revision: Option<i64>,
}

impl Publisher {
    /// What the headers of each event say.
    fn headers(&self) -> Vec<(&'static str, String)> {
        let expected = self.expected_revision.map(|revision| (header::EXPECTED_REVISION, revision.to_string()));
        let key = self.location_key.clone().map(|key| (header::LOCATION_KEY, key));
        let snapshot = self.snapshot.clone().map(|snapshot| (header::SNAPSHOT, snapshot));
        key.into_iter().chain(snapshot).chain(expected).collect()
    }
}

/// An id for a snapshot that no other one has.
pub fn snapshot_id() -> String {
    run_id()
}

/// Publishes entities; gives the sequence of each. `done` is told how many more are stored.
///
/// # Errors
/// The broker refuses, or is away for a minute. What was stored before stays, and publishing it again does no harm.
pub async fn publish(
    bus: &Bus,
    publisher: &Publisher,
    entities: &[Checked],
    done: &dyn Fn(u64),
) -> Result<Vec<u64>, Failure> {
    let operation = if entities.len() <= SINGLE { "upsert" } else { "import" };
    let subject = bus.names().event(&publisher.provider, operation);
    let payloads: Vec<&[u8]> = entities.iter().map(|entity| entity.json.as_slice()).collect();
    let batch = if entities.len() <= SINGLE { 1 } else { BATCH };
    send(bus, &subject, &publisher.headers(), &payloads, (batch, done)).await
}

/// Publishes deletions of refs, or their removals, under a subject; gives the sequence of each.
///
/// # Errors
/// As [`publish`].
pub async fn delete(bus: &Bus, subject: &str, refs: &[String]) -> Result<Vec<u64>, Failure> {
    let bodies: Vec<Vec<u8>> =
        refs.iter().map(|name| serde_json::json!({"entityRef": name}).to_string().into_bytes()).collect();
    let payloads: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
    send(bus, subject, &[], &payloads, (1, &|_| ())).await
}

/// Publishes the event that ends a snapshot of so many parts; gives its sequence.
///
/// # Errors
/// As [`publish`].
pub async fn end_snapshot(bus: &Bus, provider: &str, snapshot: &str, count: usize) -> Result<u64, Failure> {
    let subject = bus.names().event(provider, "snapshot");
    let body = serde_json::json!({"snapshot": snapshot, "count": count}).to_string().into_bytes();
    let sequences = send(bus, &subject, &[], &[&body], (1, &|_| ())).await?;
    Ok(sequences[0])
}

async fn send(
    bus: &Bus,
    subject: &str,
    headers: &[(&'static str, String)],
    payloads: &[&[u8]],
    (batch, done): (usize, &dyn Fn(u64)),
) -> Result<Vec<u64>, Failure> {
    let run = run_id();
    let mut sequences = Vec::with_capacity(payloads.len());
    for payloads in payloads.chunks(batch) {
        let begin = sequences.len();
        let record = |(index, payload): (usize, &&[u8])| {
            // Not the content's hash: the same content may be meant again, after another.
            let record = Record::new(subject, payload.to_vec()).with_id(format!("{run}-{}", begin + index));
            headers.iter().fold(record, |record, (name, value)| record.with_header(name, value))
        };
        let records: Vec<Record> = payloads.iter().enumerate().map(record).collect();
        sequences.extend(send_batch(bus, &records).await?);
        done(records.len() as u64);
    }
    Ok(sequences)
}

/// Like no other run's: the time and the process.
fn run_id() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("cli-{now:x}-{:x}", std::process::id())
}

/// After a batch without an answer nobody knows whether it was stored: one by one, the broker tells by the ids.
async fn send_batch(bus: &Bus, records: &[Record]) -> Result<Vec<u64>, Failure> {
    let begun = Instant::now();
    let mut backoff = Backoff::default();
    let mut outcome = bus::publish_all(bus, records).await;
    loop {
        match outcome {
            Ok(sequences) => return Ok(sequences),
            Err(error) if error.is_away() && begun.elapsed() < PATIENCE => tracing::debug!(%error, "publishing again"),
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(backoff.pause()).await;
        outcome = send_singly(bus, records).await;
    }
}

async fn send_singly(bus: &Bus, records: &[Record]) -> Result<Vec<u64>, bus::Error> {
    let mut sequences = Vec::with_capacity(records.len());
    for record in records {
        sequences.push(bus::publish(bus, record).await?.sequence);
    }
    Ok(sequences)
}
