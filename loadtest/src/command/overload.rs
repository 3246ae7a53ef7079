//! `loadtest overload`: ten times what the installation can take, into small streams: memory stays bounded, publishers are refused with a
//! clear error, and it recovers by itself.

use crate::Error;
use crate::generate::{Catalog, entity_ref};
use crate::installation::{Installation, Started};
use crate::publish::{BATCH, Event};
use crate::report::Report;
use crate::settle::{FLIGHTS, PROVIDER, bar, import};
use bus::Record;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

const MIB: f64 = 1024.0 * 1024.0;
/// How often batches fall due.
const TURN: Duration = Duration::from_millis(50);
/// Batches on their way at once; one that is due beyond them waits for nobody and counts as held up.
const AT_ONCE: usize = 32;
/// Seconds until the catalog is readable, and until it has recovered.
const LIMIT: Duration = Duration::from_secs(600);
/// Within which a change has to be readable again after that.
const CALM_SECONDS: f64 = 1.0;

/// How much, and for how long.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Overload {
    #[command(flatten)]
    catalog: Catalog,
    /// For how long
    #[arg(long, value_name = "SECONDS", default_value = "90", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// How many times what the import of the catalog has shown that it can take
    #[arg(long, value_name = "TIMES", default_value = "10")]
    times: f64,
    /// The most that a process may hold
    #[arg(long, value_name = "MIB", default_value = "512")]
    memory_mib: f64,
    #[command(flatten)]
    started: Started,
}

/// What came of the publishes.
#[derive(Debug, Default)]
struct Tally {
    accepted: u64,
    refused: u64,
    held_up: u64,
    /// What a refused publisher is told.
    told: Option<String>,
    others: Vec<String>,
    /// Of each batch of entities, the sequence of what was accepted last, and which of its contents that is.
    last: BTreeMap<usize, (u64, usize)>,
}

impl Overload {
    /// Measures what can be taken, offers ten times as much, and judges what came of it.
    pub async fn run(&self) -> Result<Report, Error> {
        let mut started = self.started.clone();
        for (name, value) in [("CALLBOARD_EVENTS_MAX_BYTES", "32MiB"), ("CALLBOARD_STITCH_MAX_BYTES", "4MiB")] {
            if !started.settings.iter().any(|(known, _)| known == name) {
                started.settings.push((name.to_owned(), value.to_owned()));
            }
        }
        let installation = Installation::start(&started, 2, 2).await?;
        let imported = import(&installation, &self.catalog, FLIGHTS, LIMIT).await?;
        let rate = self.catalog.entities as f64 / imported.readable.as_secs_f64();
        let title =
            format!("overload: {} times what can be taken, for {} s ({})", self.times, self.seconds, self.catalog);
        let mut report = Report::new(title);
        report.figure("taken_per_second", rate, "1/s");
        report.figure("offered_per_second", rate * self.times, "1/s");
        let (tally, memory) = self.offer(&installation, rate * self.times).await?;
        let stopped = Instant::now();
        let newest = tally.last.values().map(|(sequence, _)| *sequence).max().unwrap_or(0);
        installation.view.settled(i64::try_from(newest).unwrap_or(i64::MAX), LIMIT).await?;
        report.figure("seconds_to_recover", stopped.elapsed().as_secs_f64(), "s");
        let calm = self.probe(&installation).await?;
        self.judge(&mut report, &installation, &tally, calm).await?;
        for (name, most) in &memory {
            report.figure(format!("memory_{name}_mib_at_most"), *most, "MiB");
        }
        let most = memory.iter().filter(|(name, _)| *name != "postgres").map(|(_, most)| *most).fold(0.0, f64::max);
        let (bound, found) = (format!("at most {} MiB", self.memory_mib), format!("{most:.0} MiB"));
        report.check("most memory of a process of ours, or of the broker", most <= self.memory_mib, bound, found);
        installation.stop().await?;
        Ok(report)
    }

    /// Open loop: what is due is tried once, whatever became of what was before.
    async fn offer(&self, installation: &Installation, rate: f64) -> Result<(Tally, BTreeMap<String, f64>), Error> {
        let batches = Arc::new(self.batches(installation));
        let tally = Arc::new(Mutex::new(Tally::default()));
        let (slots, mut tasks) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
        let bar = bar("seconds", self.seconds as usize);
        let (begin, mut memory, mut published) = (Instant::now(), BTreeMap::new(), 0);
        let turns = u64::from(self.seconds) * 1000 / TURN.as_millis() as u64;
        for turn in 1..=turns {
            sleep_until(begin + TURN * u32::try_from(turn).unwrap_or(u32::MAX)).await;
            let due = (rate * TURN.as_secs_f64() * turn as f64 / BATCH as f64) as usize;
            for number in published..due {
                match Arc::clone(&slots).try_acquire_owned() {
                    Ok(slot) => {
                        let (bus, batches, tally) =
                            (installation.bus.clone(), Arc::clone(&batches), Arc::clone(&tally));
                        tasks.spawn(async move {
                            publish(&bus, &batches, number, &tally).await;
                            drop(slot);
                        });
                    }
                    Err(_) => lock(&tally).held_up += BATCH as u64,
                }
            }
            published = due;
            while tasks.try_join_next().is_some() {}
            if turn % 20 == 0 {
                bar.inc(1);
                note_memory(installation, &mut memory);
            }
        }
        bar.finish_and_clear();
        while tasks.join_next().await.is_some() {}
        note_memory(installation, &mut memory);
        let tally = std::mem::take(&mut *lock(&tally));
        Ok((tally, memory))
    }

    /// Each entity with two contents, so that each publish changes it.
    fn batches(&self, installation: &Installation) -> [Vec<Vec<Record>>; 2] {
        [0, 1].map(|content| {
            let record = |mut entity: serde_json::Value| {
                entity["metadata"]["description"] = described(content).into();
                Event::new(PROVIDER, "import", &entity).record(&installation.bus)
            };
            let records: Vec<Record> = self.catalog.generate().map(record).collect();
            records.chunks(BATCH).map(<[Record]>::to_vec).collect()
        })
    }

    /// Seconds until a single change can be read.
    async fn probe(&self, installation: &Installation) -> Result<f64, Error> {
        let began = Instant::now();
        let entity = serde_json::json!({"apiVersion": "backstage.io/v1alpha1", "kind": "Group", "metadata": {"name": "probe"}, "spec": {"type": "team", "children": []}});
        let event = Event::new("probe", "upsert", &entity).record(&installation.bus);
        let sequence = bus::publish(&installation.bus, &event).await?.sequence;
        let revision = i64::try_from(sequence).unwrap_or(i64::MAX);
        installation.view.entity("group:default/probe", revision, LIMIT).await?;
        Ok(began.elapsed().as_secs_f64())
    }

    async fn judge(
        &self,
        report: &mut Report,
        installation: &Installation,
        tally: &Tally,
        calm: f64,
    ) -> Result<(), Error> {
        let mut contents = BTreeMap::new();
        let refs = self.catalog.generate().map(|entity| entity_ref(&entity)).collect::<Vec<_>>();
        for (place, entity_ref) in refs.into_iter().enumerate() {
            if let Some((_, content)) = tally.last.get(&(place / BATCH)) {
                contents.insert(entity_ref, described(*content));
            }
        }
        let mut right = 0_usize;
        installation
            .view
            .each(|entity| {
                let found = entity.metadata.as_ref().and_then(|metadata| metadata.description.as_deref());
                right += usize::from(contents.get(&entity.r#ref).is_some_and(|expected| found == Some(expected)));
            })
            .await?;
        report.figure("events_accepted", tally.accepted as f64, "");
        report.figure("events_refused", tally.refused as f64, "");
        report.figure("events_held_up", tally.held_up as f64, "");
        report.figure("change_after_that_seconds", calm, "s");
        if let Some(told) = &tally.told {
            report.note(format!("what a refused publisher is told: {told}"));
        }
        tally.others.iter().take(5).for_each(|other| report.note(other.clone()));
        report.check(
            "events refused because the stream is full",
            tally.refused > 0,
            "at least 1",
            tally.refused.to_string(),
        );
        report.equal("publishes that failed otherwise", 0.0, tally.others.len() as f64);
        report.equal("entities that are not as they were accepted last", 0.0, (contents.len() - right) as f64);
        let (expected, found) = (format!("at most {CALM_SECONDS} s"), format!("{calm:.2} s"));
        report.check("a single change after that", calm <= CALM_SECONDS, expected, found);
        Ok(())
    }
}

async fn publish(bus: &bus::Bus, batches: &[Vec<Vec<Record>>; 2], number: usize, tally: &Mutex<Tally>) {
    let parts = batches[0].len();
    let (place, content) = (number % parts, number / parts % 2);
    let records = &batches[content][place];
    let outcome = bus::publish_at_once(bus, records).await;
    let mut tally = lock(tally);
    match outcome {
        Ok(published) => {
            tally.accepted += records.len() as u64;
            let last = tally.last.entry(place).or_default();
            *last = (*last).max((published.sequence, content));
        }
        Err(error @ bus::Error::Full(_)) => {
            tally.refused += records.len() as u64;
            tally.told.get_or_insert(error.to_string());
        }
        Err(error) => tally.others.push(error.to_string()),
    }
}

fn note_memory(installation: &Installation, memory: &mut BTreeMap<String, f64>) {
    for used in installation.used() {
        let most = memory.entry(used.name).or_default();
        *most = f64::max(*most, used.usage.resident_bytes as f64 / MIB);
    }
}

fn described(content: usize) -> String {
    format!("as of content {content}")
}

fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}
