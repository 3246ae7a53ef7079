//! `loadtest soak`: changes for a long time, and whether memory, disk and delay stay as they are.

use super::change::rate;
use crate::Error;
use crate::generate::Catalog;
use crate::installation::{Installation, Started};
use crate::publish::{Event, publish_batches};
use crate::report::Report;
use crate::settle::{FLIGHTS, PROVIDER, bar, import};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

const MIB: f64 = 1024.0 * 1024.0;
/// How often changes are published and everything is looked at.
const TURN: Duration = Duration::from_secs(1);
/// Seconds to wait until the catalog, or the last change, is readable.
const LIMIT: Duration = Duration::from_secs(600);

/// How long, how fast.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Soak {
    #[command(flatten)]
    catalog: Catalog,
    /// Seconds
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = clap::value_parser!(u32).range(4..))]
    seconds: u32,
    /// Changes a second, as imports
    #[arg(long, value_name = "PER_SECOND", default_value = "1000", value_parser = rate)]
    rate: f64,
    #[command(flatten)]
    started: Started,
}

/// What was seen at one turn: each quantity by its name.
type Sample = BTreeMap<String, f64>;

impl Soak {
    /// Changes the catalog's entities in turn, and compares the second quarter of the time with the last.
    pub async fn run(&self) -> Result<Report, Error> {
        let installation = Installation::start(&self.started, 2, 2).await?;
        import(&installation, &self.catalog, FLIGHTS, LIMIT).await?;
        let title = format!("soak: {} changed at {} a second for {} s", self.catalog, self.rate, self.seconds);
        let mut report = Report::new(title);
        let samples = self.change(&installation).await?;
        let quarter = (samples.len() / 4).max(1);
        let (early, late) = (&samples[quarter..2 * quarter], &samples[samples.len() - quarter..]);
        let names = samples.last().map(|sample| sample.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
        for name in names {
            let unit = if name.ends_with("mib") { "MiB" } else { "s" };
            report.figure(format!("{name}_early"), mean(early, &name), unit);
            report.figure(format!("{name}_late"), mean(late, &name), unit);
        }
        report.note("early: the second quarter of the time; late: the last. lag: from a turn's publish until all of it could be read");
        installation.stop().await?;
        Ok(report)
    }

    async fn change(&self, installation: &Installation) -> Result<Vec<Sample>, Error> {
        let bar = bar("seconds", self.seconds as usize);
        let begin = Instant::now();
        let mut entities = self.catalog.generate().enumerate();
        let mut samples = Vec::new();
        for turn in 0..self.seconds {
            sleep_until(begin + TURN * turn).await;
            let mut events = Vec::new();
            while events.len() < self.rate as usize {
                let Some((place, mut entity)) = entities.next() else {
                    entities = self.catalog.generate().enumerate();
                    continue;
                };
                entity["metadata"]["description"] = format!("turn {turn}, place {place}").into();
                events.push(Event::new(PROVIDER, "import", &entity));
            }
            let published = Instant::now();
            let last = publish_batches(&installation.bus, events.into_iter(), FLIGHTS, |_| ()).await?;
            installation.view.settled(i64::try_from(last).unwrap_or(i64::MAX), LIMIT).await?;
            samples.push(self.sample(installation, published.elapsed()));
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(samples)
    }

    fn sample(&self, installation: &Installation, lag: Duration) -> Sample {
        let mut sample = Sample::from([("lag_seconds".to_owned(), lag.as_secs_f64())]);
        for used in installation.used() {
            sample.insert(format!("memory_{}_mib", used.name), used.usage.resident_bytes as f64 / MIB);
        }
        if let Some(disk) = installation.disk() {
            sample.insert("disk_database_mib".to_owned(), disk.database as f64 / MIB);
            sample.insert("disk_broker_mib".to_owned(), disk.broker as f64 / MIB);
        }
        sample
    }
}

fn mean(samples: &[Sample], name: &str) -> f64 {
    samples.iter().filter_map(|sample| sample.get(name)).sum::<f64>() / samples.len().max(1) as f64
}
