//! `loadtest change`: how soon one change of an idle catalog can be read.

use crate::Error;
use crate::generate::Catalog;
use crate::installation::Installation;
use crate::plot::{Plot, Plots};
use crate::report::Report;
use crate::settle::{FLIGHTS, bar, import};
use crate::single::{Changes, Measured, Wait, publish_for_ever};
use crate::site::{Site, queue_delays};
use serde_json::Value;

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
    /// Changes of other entities a second beside these; 0: the catalog is idle
    #[arg(long, value_name = "PER_SECOND", default_value = "0", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    background: u32,
    /// Entities of the catalog that is imported first
    #[arg(long, value_name = "COUNT", default_value = "2000", value_parser = clap::value_parser!(u32).range(10..))]
    entities: u32,
    /// What they are
    #[arg(long, default_value = "1")]
    seed: u64,
    #[command(flatten)]
    plots: Plots,
    #[command(flatten)]
    site: Site,
}

pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.01..=100_000.0).contains(rate));
    rate.ok_or_else(|| format!("expected 0.01 to 100000 a second, found {text}"))
}

impl Change {
    /// Changes and measures; a change that is answered with other content is a violation.
    pub async fn run(&self) -> Result<Report, Error> {
        let installation = self.site.open().await?;
        import(&installation, &self.catalog(), FLIGHTS, self.site.limit()).await?;
        let mut report = Report::new(format!(
            "change: {} changes at {} a second, {} a second beside them, in a catalog of {} entities, each way of waiting",
            self.count, self.rate, self.background, self.entities
        ));
        let mut lines = Vec::new();
        for (wait, name) in [(Wait::Revision, "at_least_revision"), (Wait::Polling, "polling")] {
            let measured = self.measure(&installation, wait).await?;
            measured.report(&mut report, wait);
            lines.push(measured.quantiles(name));
        }
        let title = format!("one change, publish to readable, {} a second beside it", self.background);
        self.plots.draw(&format!("change-latencies-{}", self.background), &Plot::of_quantiles(title, lines))?;
        queue_delays(&mut report, &installation, Some("fresh")).await?;
        report.note("from the moment that a change was due, its publish included, until the reader answered it");
        installation.stop().await?;
        Ok(report)
    }

    /// Open loop: each change is due at its time, and its latency counts from there.
    async fn measure(&self, installation: &Installation, wait: Wait) -> Result<Measured, Error> {
        let components = self.catalog().generate().filter(|entity| entity["kind"] == "Component");
        let mut targets: Vec<Value> = components.take(TARGETS).collect();
        let others = targets.split_off(targets.len() / 2);
        let bar = bar("changed", self.count as usize);
        let changes = Changes { installation, targets: &targets, rate: self.rate, wait };
        let made = changes.make(self.count, std::future::pending(), || bar.inc(1));
        let measured = match self.background {
            0 => made.await,
            rate => tokio::select! {
                measured = made => measured,
                failed = publish_for_ever(installation, &others, f64::from(rate)) => Err(failed.err().unwrap_or(Error::Interrupted)),
            },
        };
        bar.finish_and_clear();
        measured
    }

    fn catalog(&self) -> Catalog {
        Catalog::plain(self.seed, self.entities as usize)
    }
}
