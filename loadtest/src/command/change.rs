//! `loadtest change`: how soon one change of an idle catalog can be read.

use crate::Error;
use crate::generate::{entity_ref, generate};
use crate::installation::{Given, Installation, Started};
use crate::publish::Event;
use crate::report::Report;
use crate::settle::{FLIGHTS, PROVIDER, bar, import};
use futures::{StreamExt, TryStreamExt};
use hdrhistogram::Histogram;
use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Changes on their way at once; beyond it they begin late, which counts as their delay.
const IN_FLIGHT: usize = 1000;
/// How long one change may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Different entities that are changed in turn, at most.
const TARGETS: usize = 10_000;

/// What to change, and where.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Change {
    /// How many changes, each way of waiting
    #[arg(long, value_name = "COUNT", default_value = "500", value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Changes a second, begun on time whether those before are done or not
    #[arg(long, value_name = "PER_SECOND", default_value = "20", value_parser = rate)]
    rate: f64,
    /// Entities of the catalog that is imported first
    #[arg(long, value_name = "COUNT", default_value = "2000", value_parser = clap::value_parser!(u32).range(10..))]
    entities: u32,
    /// What they are
    #[arg(long, default_value = "1")]
    seed: u64,
    /// Seconds to wait until the first catalog is readable
    #[arg(long, value_name = "SECONDS", default_value = "600")]
    limit: u64,
    #[command(flatten)]
    given: Given,
    #[command(flatten)]
    started: Started,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.01..=100_000.0).contains(rate));
    rate.ok_or_else(|| format!("expected 0.01 to 100000 a second, found {text}"))
}

/// How it is known that a change can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// One call with `at_least_revision`.
    Revision,
    /// Calls without it, one after the other.
    Polling,
}

impl Change {
    /// Changes and measures; a change that is answered with other content is a violation.
    pub async fn run(&self) -> Result<Report, Error> {
        let installation = Installation::open(&self.given, &self.started, 1, 1).await?;
        import(&installation, self.seed, self.entities as usize, FLIGHTS, Duration::from_secs(self.limit)).await?;
        let mut report = Report::new(format!(
            "change: {} changes at {} a second in an idle catalog of {} entities, each way of waiting",
            self.count, self.rate, self.entities
        ));
        for wait in [Wait::Revision, Wait::Polling] {
            let measured = self.measure(&installation, wait).await?;
            measured.report(&mut report, wait)?;
        }
        report.note("from the moment that a change was due, its publish included, until the reader answered it");
        installation.stop().await?;
        Ok(report)
    }

    /// Open loop: each change is due at its time, and its latency counts from there.
    async fn measure(&self, installation: &Installation, wait: Wait) -> Result<Measured, Error> {
        let targets: Vec<Value> = generate(self.seed, self.entities as usize)
            .filter(|entity| entity["kind"] == "Component")
            .take(TARGETS)
            .collect();
        let bar = bar("changed", self.count as usize);
        let begin = Instant::now();
        let changes = (0..self.count).map(|number| {
            let due = begin + Duration::from_secs_f64(f64::from(number) / self.rate);
            let entity = targets[number as usize % targets.len()].clone();
            let change = OneChange { installation, due, number, wait };
            async move { change.run(entity).await }
        });
        let done = futures::stream::iter(changes).buffer_unordered(IN_FLIGHT).inspect(|_| bar.inc(1));
        let times: Vec<Times> = done.try_collect().await?;
        bar.finish_and_clear();
        Ok(Measured(times))
    }
}

/// One change on its way.
struct OneChange<'a> {
    installation: &'a Installation,
    due: Instant,
    number: u32,
    wait: Wait,
}

/// What one change took, from the moment that it was due.
struct Times {
    accepted: Duration,
    readable: Duration,
    /// Whether the answer had the change.
    same: bool,
}

impl OneChange<'_> {
    async fn run(&self, mut entity: Value) -> Result<Times, Error> {
        let description = format!("change {} by {:?}", self.number, self.wait);
        entity["metadata"]["description"] = description.clone().into();
        let entity_ref = entity_ref(&entity);
        let event = Event::new(PROVIDER, "upsert", &entity);
        sleep_until(self.due).await;
        let sequence = bus::publish(&self.installation.bus, &event.record(&self.installation.bus)).await?.sequence;
        let accepted = self.due.elapsed();
        let found = match self.wait {
            Wait::Revision => self.answer(&entity_ref, i64::try_from(sequence).unwrap_or(i64::MAX)).await?,
            Wait::Polling => self.poll(&entity_ref, &description).await?,
        };
        Ok(Times { accepted, readable: self.due.elapsed(), same: found.as_deref() == Some(description.as_str()) })
    }

    async fn answer(&self, entity_ref: &str, revision: i64) -> Result<Option<String>, Error> {
        let found = self.installation.view.entity(entity_ref, revision, PATIENCE).await?;
        Ok(found.and_then(|entity| entity.metadata?.description))
    }

    async fn poll(&self, entity_ref: &str, wanted: &str) -> Result<Option<String>, Error> {
        loop {
            let found = self.answer(entity_ref, 0).await?;
            if found.as_deref() == Some(wanted) || self.due.elapsed() > PATIENCE {
                return Ok(found);
            }
        }
    }
}

struct Measured(Vec<Times>);

impl Measured {
    fn report(&self, report: &mut Report, wait: Wait) -> Result<(), Error> {
        let readable = histogram(self.0.iter().map(|times| times.readable));
        let accepted = histogram(self.0.iter().map(|times| times.accepted));
        let (name, label) = match wait {
            Wait::Revision => ("change", "changes answered with another content"),
            Wait::Polling => ("change_polled", "changes never seen by polling"),
        };
        for (name, histogram) in [(name.to_owned(), readable), (format!("{name}_accepted"), accepted)] {
            report.figure(format!("{name}_p50_ms"), milliseconds(histogram.value_at_quantile(0.5)), "ms");
            report.figure(format!("{name}_p99_ms"), milliseconds(histogram.value_at_quantile(0.99)), "ms");
            report.figure(format!("{name}_max_ms"), milliseconds(histogram.max()), "ms");
        }
        let other = self.0.iter().filter(|times| !times.same).count();
        report.equal(label, 0.0, other as f64);
        Ok(())
    }
}

/// In microseconds, up to 100 s, to three digits.
fn histogram(times: impl Iterator<Item = Duration>) -> Histogram<u64> {
    let mut histogram =
        Histogram::new_with_bounds(1, 100_000_000, 3).expect("the bounds are in order and three digits are allowed");
    for time in times {
        histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }
    histogram
}

fn milliseconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_in_milliseconds() {
        let histogram = histogram((1..=100).map(Duration::from_millis));
        assert!((49.9..50.2).contains(&milliseconds(histogram.value_at_quantile(0.5))));
        assert!((99.9..100.2).contains(&milliseconds(histogram.max())));
    }
}
