//! Where a command imports, and by how many workers: the options that several commands have in common.

use crate::Error;
use crate::installation::{Given, Installation, Started};
use crate::report::Report;
use std::time::Duration;

/// An installation to import into.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Site {
    /// Processors to start
    #[arg(long, value_name = "COUNT", default_value = "2", value_parser = clap::value_parser!(u8).range(1..=64))]
    processors: u8,
    /// Stitchers to start
    #[arg(long, value_name = "COUNT", default_value = "2", value_parser = clap::value_parser!(u8).range(1..=64))]
    stitchers: u8,
    /// Seconds to wait until all is readable
    #[arg(long, value_name = "SECONDS", default_value = "600")]
    limit: u64,
    #[command(flatten)]
    given: Given,
    #[command(flatten)]
    started: Started,
}

impl Site {
    /// Starts it, or connects to the one that is given.
    pub async fn open(&self) -> Result<Installation, Error> {
        Installation::open(&self.given, &self.started, self.processors.into(), self.stitchers.into()).await
    }

    /// The same, but what is started here has one setting more, unless `--set` has it.
    pub fn with_setting(&self, name: &str, value: &str) -> Site {
        let mut site = self.clone();
        site.started.settings.insert(0, (name.to_owned(), value.to_owned()));
        site
    }

    /// How long to wait until all is readable.
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.limit)
    }
}

/// Adds how long work has waited in the queue of each stage, as far as its lane is one of these (all of them together: none), and what was redelivered.
pub(crate) async fn queue_delays(
    report: &mut Report,
    installation: &Installation,
    lane: Option<&str>,
) -> Result<(), Error> {
    if !installation.has_metrics() {
        return Ok(());
    }
    let metrics = installation.metrics().await?;
    let labels: Vec<(&str, &str)> = lane.map(|lane| ("lane", lane)).into_iter().collect();
    let prefix = lane.map(|lane| format!("{lane}_")).unwrap_or_default();
    for stage in ["processing", "stitching"] {
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            let delay = metrics.quantile(&format!("catalog_{stage}_queue_delay_seconds"), &labels, quantile);
            if let Some(delay) = delay {
                report.figure(format!("{prefix}{stage}_queue_delay_{name}_seconds"), delay, "s");
            }
        }
    }
    for stage in ["processor", "stitcher"].into_iter().filter(|_| lane.is_none()) {
        let redelivered = metrics.sum("callboard_messages_redelivered", &[("stage", stage)]);
        report.figure(format!("{stage}_messages_redelivered"), redelivered, "");
    }
    Ok(())
}
