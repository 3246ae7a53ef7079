//! Claims that need outside reads: taken from the database as they come due, read without any transaction open, and their outcome committed.
//!
//! The row in the database is the truth; a message in the reads stream, or a word from this process's own batches, is a hint that some row is due. A row whose
//! hint was lost is found within [`PERIOD`]. A reader that dies leaves a lease that runs out; one that comes back after that writes nothing.

use crate::Processor;
use crate::emission::{self, Settled};
use crate::evaluate::{Due, Evaluation};
use bus::{Backoff, Failure, Item, Lane, Names, Outcome, Record, Stop, Worker};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use store::{DueRead, ReadDone};
use tokio::task::JoinSet;

/// How often it is looked for due claims without a hint.
const PERIOD: Duration = Duration::from_secs(1);
/// How long after its time a read keeps its row to itself.
const LEASE_MARGIN: Duration = Duration::from_secs(30);
/// The first pause after a failed read; doubled with each one in a row, up to the interval of scheduled reads.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// The lane of claims that nobody asked for.
const SCHEDULED: &str = "scheduled";

/// What becomes of an entity that its last parent does not emit any more (Backstage's `orphanStrategy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrphanStrategy {
    /// It goes when the grace period is over.
    Delete,
    /// It stays, marked as an orphan.
    Keep,
}

/// What is read outside, and what comes of it.
#[derive(Clone, Debug)]
pub struct ReadsConfig {
    /// Claims that are read at once.
    pub at_once: usize,
    /// How long after a read it is time for the next, a tenth more or less.
    pub interval: Duration,
    /// Scheduled reads begun in a second, at most.
    pub scheduled_per_second: u32,
    /// What becomes of orphans.
    pub orphans: OrphanStrategy,
    /// How long an orphan stays before it goes.
    pub orphan_grace: Duration,
}

impl Default for ReadsConfig {
    fn default() -> Self {
        ReadsConfig {
            at_once: 16,
            interval: Duration::from_secs(150),
            scheduled_per_second: 20,
            orphans: OrphanStrategy::Delete,
            orphan_grace: Duration::from_secs(30),
        }
    }
}

/// Says that claims are due, to this process and to the others. What fails here is no loss: the rows are found.
pub(crate) async fn hint(processor: &Processor, lane: &str) {
    processor.reads_are_due.notify_one();
    let record = Record::new(processor.bus.names().read(lane), b"{}".to_vec());
    if let Err(error) = bus::publish(&processor.bus, &record).await {
        tracing::debug!(%error, "a hint of due reads is not published; they are found without");
    }
}

/// Reads what is due until the stop signal, then gives back what is not done.
pub(crate) async fn run(processor: &Arc<Processor>, stop: &Stop) {
    let names = processor.bus.names();
    let lane = Lane {
        name: "reads",
        stream: names.reads_stream(),
        durable: Names::LOCATION_READER,
        messages: 1000,
        bytes: 1 << 20,
    };
    let hints = Arc::new(Hints(Arc::clone(processor)));
    let worker = Worker::new(&processor.bus, hints, vec![lane], processor.config.streams.ack_wait, stop);
    tokio::join!(worker.run(1), read_due(processor, stop));
}

/// Takes hints from the reads stream; all that they say is that there is something to look for.
struct Hints(Arc<Processor>);

impl bus::Handler for Hints {
    fn stage(&self) -> &'static str {
        "location-reader"
    }

    async fn may_fetch(&self, _lane: &Lane) -> bool {
        self.0.is_attached()
    }

    async fn handle(&self, _lane: &Lane, items: &[Item]) -> Result<Vec<Outcome>, Failure> {
        self.0.reads_are_due.notify_one();
        Ok(items.iter().map(|_| Outcome::Done).collect())
    }
}

type Key = (i64, String, i64);

async fn read_due(processor: &Arc<Processor>, stop: &Stop) {
    let mut running: JoinSet<Key> = JoinSet::new();
    let mut held: HashMap<Key, ()> = HashMap::new();
    let mut allowance = Allowance::new(processor.config.reads.scheduled_per_second);
    let mut backoff = Backoff::new(PERIOD, Duration::from_secs(10));
    while !stop.is_stopped() {
        let free = processor.config.reads.at_once.saturating_sub(running.len());
        let pause = match take(processor, free, &mut allowance).await {
            Ok(taken) => {
                backoff.reset();
                for due in taken {
                    let key = (due.entity_id, due.source.clone(), due.lease);
                    held.insert(key.clone(), ());
                    let processor = Arc::clone(processor);
                    running.spawn(async move {
                        read_one(&processor, due).await;
                        key
                    });
                }
                PERIOD
            }
            Err(error) => {
                tracing::debug!(%error, "due reads cannot be taken; trying until they can");
                backoff.pause()
            }
        };
        tokio::select! {
            biased;
            () = stop.stopped() => {}
            Some(done) = running.join_next() => match done {
                Ok(key) => drop(held.remove(&key)),
                Err(error) => tracing::error!(%error, "a read was lost; its lease runs out"),
            },
            () = processor.reads_are_due.notified(), if free > 0 => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    running.shutdown().await;
    let held: Vec<Key> = held.into_keys().collect();
    if !held.is_empty()
        && let Err(error) = processor.store.release_reads(&held).await
    {
        tracing::debug!(%error, "reads are not given back; others take them when the leases are over");
    }
}

/// Fresh ones first, then those of the bulk lane, then scheduled ones as far as they are allowed.
async fn take(processor: &Processor, free: usize, allowance: &mut Allowance) -> Result<Vec<DueRead>, store::Error> {
    let lease = processor.pipeline.limits.timeout + LEASE_MARGIN;
    let mut taken = Vec::new();
    for lane in ["fresh", "bulk", SCHEDULED] {
        let mut wanted = free - taken.len();
        if lane == SCHEDULED {
            wanted = wanted.min(allowance.left());
        }
        if wanted == 0 {
            continue;
        }
        let wanted = i64::try_from(wanted).unwrap_or(i64::MAX);
        let found = processor.store.take_reads(lane, wanted, lease).await?;
        if lane == SCHEDULED {
            allowance.used += found.len();
        }
        processor.metrics.read_taken(lane, &found);
        taken.extend(found);
    }
    Ok(taken)
}

/// How many scheduled reads may begin in this second.
struct Allowance {
    per_second: usize,
    used: usize,
    since: tokio::time::Instant,
}

impl Allowance {
    fn new(per_second: u32) -> Self {
        Allowance { per_second: per_second as usize, used: 0, since: tokio::time::Instant::now() }
    }

    fn left(&mut self) -> usize {
        if self.since.elapsed() >= Duration::from_secs(1) {
            *self = Allowance { since: tokio::time::Instant::now(), used: 0, ..*self };
        }
        self.per_second - self.used.min(self.per_second)
    }
}

/// Reads one claim, and commits what comes of it.
async fn read_one(processor: &Processor, due: DueRead) {
    let provider = due.source.strip_prefix("provider:").unwrap_or_default();
    let subject = processor.bus.names().event(provider, "");
    let asked = Due {
        source: &due.source,
        raw: &due.raw,
        provider_subject: subject.trim_end_matches('.'),
        notes: due.notes.as_deref(),
    };
    let evaluation = processor.pipeline.evaluate(&asked).await;
    match settle(processor, &due, evaluation).await {
        Ok(Settled::Done) => {}
        Ok(Settled::Outdated) => {
            tracing::debug!(
                entity.r#ref = due.entity_ref,
                "what was read is of an older claim, or another has read it"
            );
            release(processor, &due).await;
        }
        Err(error) => {
            tracing::warn!(entity.r#ref = due.entity_ref, %error, "what was read cannot be stored; it is read again");
            release(processor, &due).await;
        }
    }
}

/// What became due anew while it was read is not left until the lease runs out. Does nothing where another holds it.
async fn release(processor: &Processor, due: &DueRead) {
    match processor.store.release_reads(&[(due.entity_id, due.source.clone(), due.lease)]).await {
        Ok(()) => processor.reads_are_due.notify_one(),
        Err(error) => tracing::debug!(%error, "an outdated read is not given back; its lease runs out"),
    }
}

/// Commits what an evaluation gave.
pub(crate) async fn settle(
    processor: &Processor,
    due: &DueRead,
    evaluation: Evaluation,
) -> Result<Settled, store::Error> {
    let config = &processor.config.reads;
    let done = |failures: i32, notes: Option<String>, soon: bool| {
        let again_after = again_after(config, if soon { failures.max(1) } else { failures }, random_of(due));
        ReadDone { failures, notes, again_after }
    };
    let failed_again = due.failures.saturating_add(1);
    let unchanged = match evaluation {
        Evaluation::Changed(evaluated) => {
            let failures = if evaluated.outcome.is_ok() { 0 } else { failed_again };
            let done = done(failures, Some(evaluated.notes.clone()), evaluated.retry_soon);
            return emission::settle(processor, due, *evaluated, &done).await;
        }
        Evaluation::Unchanged { notes, retry_soon } => {
            done(if due.failures == 0 { 0 } else { failed_again }, Some(notes), retry_soon)
        }
        Evaluation::Later(why) => {
            tracing::debug!(entity.r#ref = due.entity_ref, why, "it cannot be read now");
            done(failed_again, due.notes.clone(), true)
        }
    };
    processor.store.finish_unchanged_read(due, &unchanged).await.map(|()| Settled::Done)
}

/// Scheduled reads are spread; failed ones come again soon at first.
fn again_after(config: &ReadsConfig, failures: i32, random: f64) -> Duration {
    let doublings = u32::try_from(failures).unwrap_or(0).saturating_sub(1).min(16);
    let pause = match failures {
        0 => config.interval,
        _ => (FIRST_RETRY * 2_u32.pow(doublings)).min(config.interval.max(FIRST_RETRY)),
    };
    pause.mul_f64(0.9 + 0.2 * random)
}

/// From 0 to 1, another one for each claim and each of its reads: no source of chance is needed to spread them.
fn random_of(due: &DueRead) -> f64 {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    hasher.hash_one((due.entity_id, &due.source, due.lease)) as f64 / u64::MAX as f64
}

/// Reads all that is due now, one after the other; gives how many there were.
#[cfg(test)]
pub(crate) async fn read_all(processor: &Processor) -> Result<usize, store::Error> {
    let mut allowance = Allowance::new(0);
    let taken = take(processor, 1000, &mut allowance).await?;
    let count = taken.len();
    for due in taken {
        read_one(processor, due).await;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses() {
        let config = ReadsConfig::default();
        for (failures, random, seconds) in [
            (0, 0.0, 135.0),
            (0, 1.0, 165.0),
            (1, 0.5, 5.0),
            (2, 0.5, 10.0),
            (5, 0.5, 80.0),
            (6, 0.5, 150.0),
            (999, 0.5, 150.0),
        ] {
            let pause = again_after(&config, failures, random).as_secs_f64();
            assert!((pause - seconds).abs() < 0.001, "{failures} failures, {random}: {pause}");
        }
    }

    #[test]
    fn scheduled_reads_have_an_allowance() {
        let mut allowance = Allowance::new(3);
        assert_eq!(allowance.left(), 3);
        allowance.used += 3;
        assert_eq!(allowance.left(), 0);
        allowance.since -= Duration::from_secs(1);
        assert_eq!(allowance.left(), 3);
    }
}
