//! `loadtest proof shuffle`: events that overtake each other, come twice and are redelivered give what the same events give in order and once.

use crate::Error;
use crate::command::compete::compare;
use crate::command::kill::count;
use crate::events::{Counts, sequence};
use crate::installation::{Installation, Started};
use crate::process::Role;
use crate::publish::{Event, publish_batches, publish_singly};
use crate::random::Random;
use crate::report::Report;
use crate::settle::bar;
use crate::signal::Signal;
use crate::snapshot::{Sameness, Snapshot};
use bus::{Bus, Record};
use std::time::Duration;
use tokio::time::sleep;

const PROCESSORS: usize = 3;
const STITCHERS: usize = 2;
/// Past this the broker gives a stopped worker's messages to another.
const ACK_WAIT: &str = "2s";
/// Small batches: more of them, so that more overtake each other.
const BATCH_EVENTS: &str = "20";
/// How long a processor is stopped, in milliseconds: longer than [`ACK_WAIT`].
const STOPPED: std::ops::Range<usize> = 2500..4000;
/// How long after a part of the events it is stopped, at most, in milliseconds.
const LATEST_STOP: usize = 200;

/// Which events, and how they come twice.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Shuffle {
    /// How many upserts; a fifth as many updates come between them, a tenth as many deletes, a twentieth as many re-adds
    #[arg(long, value_name = "COUNT", default_value = "10000")]
    upserts: usize,
    /// What they are, and who is stopped when
    #[arg(long, default_value = "1")]
    seed: u64,
    /// How often processors are stopped and go on
    #[arg(long, value_name = "COUNT", default_value = "8", value_parser = 1..=1000)]
    stops: i64,
    /// How each event comes twice
    #[arg(long, value_enum, default_value = "both")]
    twice: Choice,
    /// Seconds to wait until all is readable
    #[arg(long, value_name = "SECONDS", default_value = "600")]
    limit: u64,
    #[command(flatten)]
    started: Started,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Choice {
    /// Published again under the same id, which the broker drops
    SameId,
    /// Published again under another id: a second event of the same content, directly after the first
    OtherId,
    /// One after the other
    Both,
}

/// How each event comes twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Twice {
    SameId,
    OtherId,
}

impl Shuffle {
    /// Runs the reference, then each disturbed installation, and compares.
    pub async fn run(&self) -> Result<Report, Error> {
        eprintln!("seed {}", self.seed);
        let events = sequence(self.seed, Counts::of(self.upserts));
        let calm = Installation::start(&self.started, 1, 1).await?;
        let last = publish_batches(&calm.bus, events.iter().cloned(), 1, |_| ()).await?;
        self.settle(&calm, last).await?;
        let expected = Snapshot::take(&calm.view).await?;
        calm.stop().await?;

        let mut report = Report::new(format!(
            "shuffle: {} events, each twice, while processors are stopped and overtaken (seed {})",
            events.len(),
            self.seed
        ));
        let deletes = events.iter().filter(|event| event.operation == "delete").count();
        report.figure("events", events.len() as f64, "");
        report.figure("deletes", deletes as f64, "");
        for twice in [Twice::SameId, Twice::OtherId] {
            let chosen = match self.twice {
                Choice::Both => true,
                Choice::SameId => twice == Twice::SameId,
                Choice::OtherId => twice == Twice::OtherId,
            };
            if chosen {
                self.disturb(&mut report, &events, &expected, twice).await?;
            }
        }
        Ok(report)
    }

    async fn disturb(
        &self,
        report: &mut Report,
        events: &[Event],
        expected: &Snapshot,
        twice: Twice,
    ) -> Result<(), Error> {
        let mut started = self.started.clone();
        let settings = [("CALLBOARD_ACK_WAIT", ACK_WAIT), ("CALLBOARD_BATCH_EVENTS", BATCH_EVENTS)];
        started.settings.splice(0..0, settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let installation = Installation::start(&started, PROCESSORS, STITCHERS).await?;
        let published = self.publish(&installation, events, twice).await?;
        self.settle(&installation, published.last).await?;
        let found = Snapshot::take(&installation.view).await?;
        report.part(if twice == Twice::SameId { "same id" } else { "other id" });
        count(report, &installation).await?;
        match twice {
            Twice::SameId => {
                report.equal("second publishes that the broker dropped", events.len() as f64, published.dropped as f64)
            }
            Twice::OtherId => report.equal(
                "second publishes that became events",
                events.len() as f64,
                (published.last as usize).saturating_sub(events.len()) as f64,
            ),
        }
        installation.stop().await?;
        let sameness = match twice {
            // Two updates to the same content show the revision of the one that came first.
            Twice::SameId => Sameness::AllButRevision,
            Twice::OtherId => Sameness::ContentOnly,
        };
        compare(report, expected, &found, sameness);
        Ok(())
    }

    /// Publishes the events, each twice, in parts; in the middle of each part a processor is stopped, for longer than the broker waits for it.
    async fn publish(&self, installation: &Installation, events: &[Event], twice: Twice) -> Result<Sent, Error> {
        let mut random = Random::new(self.seed);
        let stops = usize::try_from(self.stops).unwrap_or(1);
        let part = events.len().div_ceil(stops).max(1);
        let bar = bar("stopped", stops);
        let mut sent = Sent { last: 0, dropped: 0 };
        for part in events.chunks(part) {
            let (first, second) = part.split_at(part.len() / 2);
            sent.publish(&installation.bus, first, twice).await?;
            sleep(Duration::from_millis(random.below(LATEST_STOP) as u64)).await;
            let victim = 1 + random.below(PROCESSORS);
            installation.send(Role::Processor, victim, Signal::Stop)?;
            let published = sent.publish(&installation.bus, second, twice).await;
            sleep(Duration::from_millis((STOPPED.start + random.below(STOPPED.len())) as u64)).await;
            installation.send(Role::Processor, victim, Signal::Continue)?;
            published?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(sent)
    }

    async fn settle(&self, installation: &Installation, last: u64) -> Result<(), Error> {
        installation.view.settled(i64::try_from(last).unwrap_or(i64::MAX), Duration::from_secs(self.limit)).await
    }
}

/// What was published so far.
struct Sent {
    /// The last event's sequence.
    last: u64,
    /// Second publishes that the broker dropped.
    dropped: usize,
}

impl Sent {
    /// Publishes each event twice; the order of events is that of the list.
    async fn publish(&mut self, bus: &Bus, events: &[Event], twice: Twice) -> Result<(), Error> {
        let begin = self.last;
        let id = |place: usize, time: &str| format!("{begin}-{place}-{time}");
        let first = events.iter().enumerate().map(|(place, event)| event.record(bus).with_id(id(place, "first")));
        match twice {
            Twice::SameId => {
                let records: Vec<Record> = first.collect();
                self.stored(bus::publish_all(bus, &records).await?)?;
                let again = publish_singly(bus, &records).await?;
                self.dropped += again.iter().filter(|published| published.duplicate).count();
            }
            Twice::OtherId => {
                let second =
                    events.iter().enumerate().map(|(place, event)| event.record(bus).with_id(id(place, "second")));
                let records: Vec<Record> = first.zip(second).flat_map(<[Record; 2]>::from).collect();
                self.stored(bus::publish_all(bus, &records).await?)?;
            }
        }
        Ok(())
    }

    /// # Errors
    /// When other events stand between ours: then the sequence is another one.
    fn stored(&mut self, sequences: Vec<u64>) -> Result<(), Error> {
        for sequence in sequences {
            if sequence != self.last + 1 {
                return Err(Error::Usage(format!(
                    "the broker stored an event at {sequence} after {}: somebody else publishes there",
                    self.last
                )));
            }
            self.last = sequence;
        }
        Ok(())
    }
}
