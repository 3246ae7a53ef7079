//! `loadtest proof compete`: many equal workers do each piece of work once, about evenly, and what comes out is what one of each makes.

use crate::Error;
use crate::generate::Catalog;
use crate::installation::{Installation, Started};
use crate::metrics::Metrics;
use crate::process::Role;
use crate::report::Report;
use crate::settle::import;
use crate::snapshot::{Sameness, Snapshot};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long the counters may take to show what the catalog shows already.
const COUNTERS_LIMIT: Duration = Duration::from_secs(10);
/// Small batches: enough of them that they can be shared out evenly.
const BATCH_EVENTS: &str = "50";
/// Differences that are named.
const NAMED: usize = 10;

/// How many compete, for what.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Compete {
    /// How many entities
    #[arg(long, value_name = "COUNT", default_value = "10000")]
    entities: usize,
    /// What they are
    #[arg(long, default_value = "1")]
    seed: u64,
    /// Processors at once
    #[arg(long, value_name = "COUNT", default_value = "3", value_parser = 1..=64)]
    processors: i64,
    /// Stitchers at once
    #[arg(long, value_name = "COUNT", default_value = "2", value_parser = 1..=64)]
    stitchers: i64,
    /// How far the load of one may be from even, in percent
    #[arg(long, value_name = "PERCENT", default_value = "20")]
    spread: f64,
    /// Seconds to wait until all is readable
    #[arg(long, value_name = "SECONDS", default_value = "600")]
    limit: u64,
    #[command(flatten)]
    started: Started,
}

impl Compete {
    /// Runs both installations, one after the other, and compares.
    pub async fn run(&self) -> Result<Report, Error> {
        let limit = Duration::from_secs(self.limit);
        let mut started = self.started.clone();
        started.settings.insert(0, ("CALLBOARD_BATCH_EVENTS".to_owned(), BATCH_EVENTS.to_owned()));
        let alone = Installation::start(&started, 1, 1).await?;
        import(&alone, &Catalog::plain(self.seed, self.entities), 1, limit).await?;
        let expected = Snapshot::take(&alone.view).await?;
        alone.stop().await?;

        let (processors, stitchers) = (self.processors as usize, self.stitchers as usize);
        let together = Installation::start(&started, processors, stitchers).await?;
        let imported = import(&together, &Catalog::plain(self.seed, self.entities), 1, limit).await?;
        let found = Snapshot::take(&together.view).await?;
        let mut report = Report::new(format!(
            "compete: {processors} processors and {stitchers} stitchers at once on {} events",
            self.entities
        ));
        report.figure("seconds_to_readable", imported.readable.as_secs_f64(), "s");
        self.count(&mut report, &together).await?;
        together.stop().await?;
        compare(&mut report, &expected, &found, Sameness::Everything);
        Ok(report)
    }

    async fn count(&self, report: &mut Report, installation: &Installation) -> Result<(), Error> {
        let counted = counted(installation).await?;
        let processed = |metrics: &Metrics| metrics.sum("catalog_processed_entities_count", &[]);
        let requested = |metrics: &Metrics| metrics.sum("catalog_stitching_requests_count", &[]);
        let of = |result| counted.all.sum("catalog_processed_entities_count", &[("result", result)]);
        let again = |stage| counted.all.sum("callboard_messages_redelivered", &[("stage", stage)]);
        report.equal(
            "events that took effect, over all processors",
            self.entities as f64,
            of("changed") + of("unchanged") + of("errors"),
        );
        report.equal("events without effect (duplicate)", 0.0, of("duplicate"));
        report.equal("events that became dead letters", 0.0, of("dead"));
        report.equal("events redelivered", 0.0, again("processor"));
        let taken = counted.all.sum("catalog_stitching_requests_count", &[]);
        report.equal("stitch requests taken for the first time", counted.requests, taken - again("stitcher"));
        report.figure("stitch_requests", counted.requests, "");
        report.figure("stitch_requests_given_back", again("stitcher"), "");
        report.figure(
            "entities_stitched",
            counted.all.sum("catalog_stitched_entities_count", &[("result", "changed")]),
            "",
        );
        report.note("a stitch request is given back when another stitcher holds one of its entities, or has stitched an expensive one a moment ago");
        self.spread(report, "processor", "events", &counted.processors, processed);
        self.spread(report, "stitcher", "stitch requests", &counted.stitchers, requested);
        Ok(())
    }

    fn spread(&self, report: &mut Report, role: &str, what: &str, workers: &[Metrics], load: impl Fn(&Metrics) -> f64) {
        let loads: Vec<f64> = workers.iter().map(load).collect();
        for (index, load) in loads.iter().enumerate() {
            report.figure(format!("{role}_{}_load", index + 1), *load, what_unit(what));
        }
        let spread = spread_percent(&loads);
        report.figure(format!("{role}_spread_percent"), spread, "%");
        report.check(
            format!("load of each {role} in {what}, from even"),
            spread <= self.spread,
            format!("at most {} %", self.spread),
            format!("{spread:.1} %"),
        );
    }
}

fn what_unit(what: &str) -> &'static str {
    if what == "events" { "events" } else { "requests" }
}

/// How far the one farthest from even is from it, in percent of even.
fn spread_percent(loads: &[f64]) -> f64 {
    let even = loads.iter().sum::<f64>() / loads.len().max(1) as f64;
    let farthest = loads.iter().map(|load| (load - even).abs()).fold(0.0, f64::max);
    if even > 0.0 { 100.0 * farthest / even } else { 0.0 }
}

/// What was counted, once no counter is behind the streams any more.
struct Counted {
    all: Metrics,
    processors: Vec<Metrics>,
    stitchers: Vec<Metrics>,
    /// Messages that the stitch stream has had.
    requests: f64,
}

async fn counted(installation: &Installation) -> Result<Counted, Error> {
    let deadline = Instant::now() + COUNTERS_LIMIT;
    loop {
        let processors = installation.metrics_of(Role::Processor).await?;
        let stitchers = installation.metrics_of(Role::Stitcher).await?;
        let mut all = Metrics::default();
        processors.iter().chain(&stitchers).for_each(|metrics| all.add(metrics.clone()));
        let stream = bus::stream_status(&installation.bus, &installation.bus.names().stitch_stream()).await?;
        let requests = stream.last_sequence as f64;
        let taken = all.sum("catalog_stitching_requests_count", &[])
            - all.sum("callboard_messages_redelivered", &[("stage", "stitcher")]);
        if taken >= requests || Instant::now() >= deadline {
            return Ok(Counted { all, processors, stitchers, requests });
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Adds the comparison of two catalogs, and the first differences.
pub(crate) fn compare(report: &mut Report, expected: &Snapshot, found: &Snapshot, sameness: Sameness) {
    let differences = expected.differences(found, sameness);
    report.equal("entities in the catalog", expected.len() as f64, found.len() as f64);
    report.equal(
        format!("entities that differ from the reference ({})", sameness.words()),
        0.0,
        differences.len() as f64,
    );
    for difference in differences.iter().take(NAMED) {
        report.note(format!("differs: {difference}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_that_of_the_one_farthest_from_even() {
        for (loads, expected) in [
            (&[][..], 0.0),
            (&[0.0, 0.0], 0.0),
            (&[10.0, 10.0], 0.0),
            (&[12.0, 9.0, 9.0], 20.0),
            (&[4.0, 13.0, 13.0], 60.0),
        ] {
            assert_eq!(spread_percent(loads), expected, "{loads:?}");
        }
    }
}
