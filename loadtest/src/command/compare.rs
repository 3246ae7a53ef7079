//! `loadtest compare`: Callboard and Backstage on the same machine and data, in turns, and what each figure is as a multiple of the other's.

use crate::generate::{entity_ref, generate};
use crate::installation::{Disk, Installation, Started, data_directory};
use crate::peer::Peer;
use crate::publish::{Event, publish_batches};
use crate::report::Report;
use crate::settle::{FLIGHTS, PROVIDER};
use crate::snapshot::{Sameness, Snapshot};
use crate::{Error, usage::Usage};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long a whole catalog may take.
const INGEST_LIMIT: Duration = Duration::from_secs(1800);
/// How long one change may take.
const CHANGE_LIMIT: Duration = Duration::from_secs(60);
/// Differences that are shown.
const SHOWN: usize = 20;
/// With --equal, every so many entities one is a Location, which the generator has none of.
const LOCATION_EVERY: usize = 50;

/// What to compare.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Compare {
    /// Entities of the catalog
    #[arg(long, value_name = "COUNT", default_value = "2000", value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    entities: u32,
    /// What they are
    #[arg(long, default_value = "1")]
    seed: u64,
    /// How often each is measured, in turns
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,
    /// Single changes of the idle catalog, one after the other
    #[arg(long, value_name = "COUNT", default_value = "20", value_parser = clap::value_parser!(u16).range(1..))]
    changes: u16,
    /// Seconds for which the idle catalog is watched
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    idle: u16,
    /// Measure nothing; compare the final entities instead, one by one
    #[arg(long)]
    equal: bool,
    /// Where peer.mjs and its lock file are
    #[arg(long, value_name = "DIR", default_value = "loadtest/backstage")]
    backstage: PathBuf,
    #[command(flatten)]
    started: Started,
}

const HELP: &str = "Examples:
  loadtest compare                                    speed, cost and size of both, and their ratios
  loadtest compare --entities 10000 --rounds 3 --output json
  loadtest compare --equal --entities 10000           the same input gives the same final entities (uid and etag aside)

Needs node 20 or newer and npm; Backstage's packages are installed once, by their lock file.";

/// What one round of one side gave.
#[derive(Clone, Debug, Default)]
struct Round {
    entities_per_second: f64,
    cpu_ms_per_entity: f64,
    disk_bytes_per_entity: f64,
    change_ms: Vec<f64>,
    idle_core_percent: f64,
}

/// What was used before something was done.
struct Before {
    cpu_seconds: f64,
    disk: Disk,
}

impl Compare {
    /// Measures, or compares entity by entity.
    pub async fn run(&self) -> Result<Report, Error> {
        if self.equal {
            return self.equality().await;
        }
        let data = data_directory(self.started.keep)?;
        let input = self.write_input(data.path())?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 1..=self.rounds {
            eprintln!("round {round} of {}: Callboard", self.rounds);
            ours.push(self.callboard().await?);
            eprintln!("round {round} of {}: Backstage", self.rounds);
            theirs.push(self.backstage(&data.path().join(format!("backstage-{round}")), &input).await?);
        }
        let title =
            format!("compare: {} entities of seed {}, {} rounds in turns", self.entities, self.seed, self.rounds);
        let mut report = Report::new(title);
        let (ours, theirs) = (figures(&ours), figures(&theirs));
        for (part, side) in [("callboard", &ours), ("backstage", &theirs)] {
            report.part(part);
            side.iter().for_each(|(name, value, unit)| report.figure(*name, *value, unit));
        }
        report.part("ratio");
        for ((name, ours, _), (_, theirs, _)) in ours.iter().zip(&theirs) {
            let ratio = if *name == "entities_per_second" { ours / theirs } else { theirs / ours };
            report.figure(*name, ratio, "times");
        }
        report.note("medians of the rounds. ratio: how many times as many a second, or as little of anything else. readable or stitched: with all relations. disk: without the write-ahead log");
        Ok(report)
    }

    fn entities(&self) -> impl Iterator<Item = Value> + Send + use<> {
        let locations = self.equal;
        let generated = generate(self.seed, self.entities as usize).enumerate();
        generated.map(move |(index, entity)| match locations && index % LOCATION_EVERY == 0 {
            true => placed(json!({
                "apiVersion": "backstage.io/v1alpha1", "kind": "Location",
                "metadata": { "name": format!("location-{index}"), "description": "Has no targets." }, "spec": { "type": "url" }
            })),
            false => placed(entity),
        })
    }

    fn write_input(&self, directory: &Path) -> Result<PathBuf, Error> {
        let file = directory.join("entities.ndjson");
        let text: String = self.entities().map(|entity| format!("{entity}\n")).collect();
        fs::write(&file, text).map_err(Error::io("write", &file))?;
        Ok(file)
    }

    /// The components that are changed, each with its new description.
    fn changed(&self) -> impl Iterator<Item = Value> {
        let components: Vec<Value> =
            self.entities().filter(|entity| entity["kind"] == "Component").take(usize::from(self.changes)).collect();
        (0..usize::from(self.changes)).map(move |number| {
            let mut entity = components[number % components.len()].clone();
            entity["metadata"]["description"] = format!("changed {number}").into();
            entity
        })
    }

    async fn callboard(&self) -> Result<Round, Error> {
        let installation = Installation::start(&self.started, 1, 1).await?;
        let cpu = |installation: &Installation| -> f64 {
            installation.used().iter().map(|used| used.usage.cpu_seconds).sum()
        };
        let before = Before { cpu_seconds: cpu(&installation), disk: installation.disk().unwrap_or_default() };
        let seconds = self.ingest(&installation).await?;
        let mut round = self.cost(&before, seconds, cpu(&installation), installation.disk().unwrap_or_default());
        for entity in self.changed() {
            let event = Event::new(PROVIDER, "upsert", &entity);
            let began = Instant::now();
            let sequence = bus::publish(&installation.bus, &event.record(&installation.bus)).await?.sequence;
            let revision = i64::try_from(sequence).unwrap_or(i64::MAX);
            installation.view.entity(&entity_ref(&entity), revision, CHANGE_LIMIT).await?;
            round.change_ms.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        let earlier = cpu(&installation);
        sleep(Duration::from_secs(self.idle.into())).await;
        round.idle_core_percent = self.idle_percent(cpu(&installation) - earlier);
        installation.stop().await?;
        Ok(round)
    }

    /// Publishes everything and waits until all of it is readable, with all relations; gives the seconds.
    async fn ingest(&self, installation: &Installation) -> Result<f64, Error> {
        let events = self.entities().map(|entity| Event::new(PROVIDER, "import", &entity));
        let began = Instant::now();
        let last = publish_batches(&installation.bus, events, FLIGHTS, |_| {}).await?;
        installation.view.settled(i64::try_from(last).unwrap_or(i64::MAX), INGEST_LIMIT).await?;
        Ok(began.elapsed().as_secs_f64())
    }

    async fn backstage(&self, data: &Path, input: &Path) -> Result<Round, Error> {
        fs::create_dir_all(data).map_err(Error::io("create", data))?;
        let mut peer = Peer::start(&self.backstage, data).await?;
        let cpu = |peer: &Peer| -> f64 {
            let Usage { cpu_seconds, .. } = peer.used();
            cpu_seconds
        };
        let before = Before { cpu_seconds: cpu(&peer), disk: peer.disk() };
        let seconds = peer.ingest(input).await?;
        let mut round = self.cost(&before, seconds, cpu(&peer), peer.disk());
        for entity in self.changed() {
            round.change_ms.push(peer.change(&entity).await?);
        }
        let earlier = cpu(&peer);
        sleep(Duration::from_secs(self.idle.into())).await;
        round.idle_core_percent = self.idle_percent(cpu(&peer) - earlier);
        peer.stop().await?;
        Ok(round)
    }

    fn cost(&self, before: &Before, seconds: f64, cpu_seconds: f64, disk: Disk) -> Round {
        let entities = f64::from(self.entities);
        let bytes = |disk: &Disk| (disk.database + disk.broker) as f64;
        Round {
            entities_per_second: entities / seconds,
            cpu_ms_per_entity: 1000.0 * (cpu_seconds - before.cpu_seconds) / entities,
            disk_bytes_per_entity: (bytes(&disk) - bytes(&before.disk)) / entities,
            ..Round::default()
        }
    }

    fn idle_percent(&self, cpu_seconds: f64) -> f64 {
        100.0 * cpu_seconds / f64::from(self.idle.max(1))
    }

    /// What `callboard list --output json` gives, and what Backstage makes of the same input.
    async fn equality(&self) -> Result<Report, Error> {
        let data = data_directory(self.started.keep)?;
        let input = self.write_input(data.path())?;
        let installation = Installation::start(&self.started, 1, 1).await?;
        self.ingest(&installation).await?;
        // Locations, even those without targets, are read: they come a moment later.
        installation.view.has_total(self.entities.into(), INGEST_LIMIT, |_| {}).await?;
        let ours = snapshot(&installation.ask(&["list", "--output", "json"]).await?)?;
        installation.stop().await?;
        let mut peer = Peer::start(&self.backstage, data.path()).await?;
        peer.ingest(&input).await?;
        let dump = data.path().join("final.ndjson");
        peer.dump(&dump).await?;
        peer.stop().await?;
        let theirs = snapshot(&fs::read_to_string(&dump).map_err(Error::io("read", &dump))?)?;
        let mut report = Report::new(format!(
            "compare: what callboard list gives and what Backstage makes of the same {} entities of seed {}",
            self.entities, self.seed
        ));
        let differences = theirs.differences(&ours, Sameness::ContentOnly);
        report.equal("entities in Backstage", self.entities.into(), theirs.len() as f64);
        report.equal("entities in Callboard", self.entities.into(), ours.len() as f64);
        report.equal("entities that differ (uid and etag aside)", 0.0, differences.len() as f64);
        differences.into_iter().take(SHOWN).for_each(|difference| report.note(difference));
        Ok(report)
    }
}

/// With the annotations that Backstage demands.
fn placed(mut entity: Value) -> Value {
    let location = format!(
        "url:https://git.example.com/catalog/blob/main/{}.yaml",
        entity["metadata"]["name"].as_str().unwrap_or_default()
    );
    for name in ["backstage.io/managed-by-location", "backstage.io/managed-by-origin-location"] {
        entity["metadata"]["annotations"][name] = location.clone().into();
    }
    entity
}

fn snapshot(lines: &str) -> Result<Snapshot, Error> {
    let mut snapshot = Snapshot::default();
    for line in lines.lines() {
        let entity: Value =
            serde_json::from_str(line).map_err(|error| Error::Usage(format!("an entity is no JSON: {error}")))?;
        snapshot.add(&entity_ref(&entity), crate::conformance::case::doubles(&entity));
    }
    Ok(snapshot)
}

/// The medians, with their names and units.
fn figures(rounds: &[Round]) -> Vec<(&'static str, f64, &'static str)> {
    let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value).collect());
    let changes: Vec<f64> = rounds.iter().flat_map(|round| round.change_ms.iter().copied()).collect();
    vec![
        ("entities_per_second", of(|round| round.entities_per_second), "1/s"),
        ("cpu_ms_per_entity", of(|round| round.cpu_ms_per_entity), "ms"),
        ("disk_bytes_per_entity", of(|round| round.disk_bytes_per_entity), "B"),
        ("change_p50_ms", median(changes), "ms"),
        ("idle_core_percent", of(|round| round.idle_core_percent), "%"),
    ]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_all_rounds() {
        let round = |rate: f64, change_ms: &[f64]| Round {
            entities_per_second: rate,
            change_ms: change_ms.to_vec(),
            ..Round::default()
        };
        let figures = figures(&[round(3.0, &[5.0, 1.0]), round(1.0, &[9.0]), round(2.0, &[])]);
        assert_eq!(figures[0], ("entities_per_second", 2.0, "1/s"));
        assert_eq!(figures[3], ("change_p50_ms", 5.0, "ms"));
    }

    #[test]
    fn entities_are_told_apart_by_their_content() {
        let line = |uid: &str, title: &str| {
            placed(json!({ "kind": "A", "metadata": { "namespace": "b", "name": "c", "uid": uid, "title": title } }))
                .to_string()
        };
        let differences = |one: &str, other: &str| {
            snapshot(one).unwrap().differences(&snapshot(other).unwrap(), Sameness::ContentOnly)
        };
        assert_eq!(differences(&line("1", "x"), &line("2", "x")), Vec::<String>::new());
        assert_eq!(
            differences(&line("1", "x"), &line("1", "y")),
            ["a:b/c: .metadata.title: expected \"x\", found \"y\""]
        );
    }
}
