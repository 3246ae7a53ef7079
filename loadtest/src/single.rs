//! Single changes, open loop: each is due at its time whether those before are done or not, and its latency counts from there.

use crate::Error;
use crate::generate::entity_ref;
use crate::installation::Installation;
use crate::plot::Line;
use crate::publish::Event;
use crate::report::Report;
use crate::settle::PROVIDER;
use futures::{StreamExt, TryStreamExt};
use hdrhistogram::Histogram;
use serde_json::Value;
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Changes on their way at once; beyond it they begin late, which counts as their delay.
const IN_FLIGHT: usize = 1000;
/// How long one change may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How it is known that a change can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// One call with `at_least_revision`.
    Revision,
    /// Calls without it, one after the other.
    Polling,
}

/// What is changed, how often, and how it is waited for.
pub(crate) struct Changes<'a> {
    pub installation: &'a Installation,
    /// Entities that are changed in turn; at least one.
    pub targets: &'a [Value],
    /// A second.
    pub rate: f64,
    pub wait: Wait,
}

impl Changes<'_> {
    /// Makes changes until `count` of them are done, or no more are begun because `end` is over; `done` is told of each.
    ///
    /// # Errors
    /// The first change that fails.
    pub async fn make(
        &self,
        count: u32,
        end: impl Future<Output = ()> + Send,
        done: impl Fn() + Sync,
    ) -> Result<Measured, Error> {
        let begin = Instant::now();
        let changes = (0..count).map(|number| {
            let due = begin + Duration::from_secs_f64(f64::from(number) / self.rate);
            let entity = self.targets[number as usize % self.targets.len()].clone();
            let change = OneChange { installation: self.installation, begin, due, number, wait: self.wait };
            (due, change, entity)
        });
        let due = futures::stream::iter(changes).then(|(due, change, entity)| async move {
            sleep_until(due).await;
            (change, entity)
        });
        let begun = due.take_until(Box::pin(end)).map(|(change, entity)| change.run(entity));
        let made = begun.buffer_unordered(IN_FLIGHT).inspect(|_| done());
        Ok(Measured(made.try_collect().await?))
    }
}

/// Publishes changes of the targets at a rate, until it is dropped: work beside what is measured.
///
/// # Errors
/// The first change that the broker does not take.
pub(crate) async fn publish_for_ever(installation: &Installation, targets: &[Value], rate: f64) -> Result<(), Error> {
    let begin = Instant::now();
    let changes = (0_u32..).map(|number| (begin + Duration::from_secs_f64(f64::from(number) / rate), number));
    let due = futures::stream::iter(changes).then(|(due, number)| async move {
        sleep_until(due).await;
        number
    });
    let sent = due.map(|number| async move {
        let mut entity = targets[number as usize % targets.len()].clone();
        entity["metadata"]["description"] = format!("background change {number}").into();
        let record = Event::new(PROVIDER, "upsert", &entity).record(&installation.bus);
        Ok::<(), Error>(bus::publish(&installation.bus, &record).await.map(drop)?)
    });
    sent.buffer_unordered(IN_FLIGHT).try_for_each(|()| std::future::ready(Ok(()))).await
}

/// One change on its way.
struct OneChange<'a> {
    installation: &'a Installation,
    begin: Instant,
    due: Instant,
    number: u32,
    wait: Wait,
}

/// What one change took, from the moment that it was due.
struct Times {
    /// When it was due, since the first.
    due: Duration,
    accepted: Duration,
    readable: Duration,
    /// Whether the answer had the change.
    same: bool,
}

impl OneChange<'_> {
    async fn run(self, mut entity: Value) -> Result<Times, Error> {
        let description = format!("change {} by {:?}", self.number, self.wait);
        entity["metadata"]["description"] = description.clone().into();
        let entity_ref = entity_ref(&entity);
        let event = Event::new(PROVIDER, "upsert", &entity);
        let sequence = bus::publish(&self.installation.bus, &event.record(&self.installation.bus)).await?.sequence;
        let accepted = self.due.elapsed();
        let found = match self.wait {
            Wait::Revision => self.answer(&entity_ref, i64::try_from(sequence).unwrap_or(i64::MAX)).await?,
            Wait::Polling => self.poll(&entity_ref, &description).await?,
        };
        let due = self.due - self.begin;
        Ok(Times { due, accepted, readable: self.due.elapsed(), same: found.as_deref() == Some(description.as_str()) })
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

/// What changes took.
pub(crate) struct Measured(Vec<Times>);

impl Measured {
    /// How many changes there were.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// When each was due and how many seconds it took until it was readable.
    pub fn over_time(&self, name: &str) -> Line {
        let point = |times: &Times| (times.due.as_secs_f64(), times.readable.as_secs_f64());
        let mut points: Vec<(f64, f64)> = self.0.iter().map(point).collect();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        Line { name: name.to_owned(), points }
    }

    /// How long they took until they were readable.
    pub fn quantiles(&self, name: &str) -> Line {
        Line::quantiles(name, &histogram(self.0.iter().map(|times| times.readable)))
    }

    /// Adds the figures, and the check that each was answered with what it changed.
    pub fn report(&self, report: &mut Report, wait: Wait) {
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
