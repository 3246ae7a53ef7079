//! `loadtest mixed`: fresh single changes beside an import, then the same catalog published again unchanged.

use super::change::rate;
use crate::Error;
use crate::generate::Catalog;
use crate::installation::Installation;
use crate::plot::{Delays, Plot, Plots};
use crate::report::Report;
use crate::settle::{FLIGHTS, import_entities};
use crate::single::{Changes, Wait};
use crate::site::{Site, queue_delays};
use serde_json::Value;
use std::time::Instant;
use tokio::sync::oneshot;

/// Entities that are there before: some of them are changed while the rest comes.
const BASE: usize = 2000;

/// What to import, and what beside it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Mixed {
    #[command(flatten)]
    catalog: Catalog,
    /// Fresh single changes a second beside the import
    #[arg(long, value_name = "PER_SECOND", default_value = "20", value_parser = rate)]
    rate: f64,
    #[command(flatten)]
    plots: Plots,
    #[command(flatten)]
    site: Site,
}

impl Mixed {
    /// Imports with changes beside, then publishes the same again.
    pub async fn run(&self) -> Result<Report, Error> {
        if self.catalog.entities <= BASE {
            return Err(Error::Usage(format!(
                "--entities: expected more than {BASE}, found {}",
                self.catalog.entities
            )));
        }
        // The scheduler's checker asks for some entities to be stitched again now and then, though nothing has changed.
        let site = self.site.with_setting("CALLBOARD_CHECK_EVERY", "1h");
        let installation = site.open().await?;
        let base = (self.catalog.generate().take(BASE), BASE);
        import_entities(&installation, base, FLIGHTS, self.site.limit()).await?;
        let title = format!("mixed: {} imported with {} changes a second beside, then again", self.catalog, self.rate);
        let mut report = Report::new(title);
        self.import_beside_changes(&mut report, &installation).await?;
        self.import_again(&mut report, &installation).await?;
        installation.stop().await?;
        Ok(report)
    }

    /// The changes are of entities that the import does not bring.
    async fn import_beside_changes(&self, report: &mut Report, installation: &Installation) -> Result<(), Error> {
        let base = self.catalog.generate().take(BASE).filter(|entity| entity["kind"] == "Component");
        let targets: Vec<Value> = base.collect();
        let changes = Changes { installation, targets: &targets, rate: self.rate, wait: Wait::Revision };
        let (ended, end) = oneshot::channel::<()>();
        let over = async {
            let _ = end.await;
        };
        let rest = self.catalog.entities - BASE;
        let import = async {
            let entities = (self.catalog.generate().skip(BASE), rest);
            let imported = import_entities(installation, entities, FLIGHTS, self.site.limit()).await;
            drop(ended);
            imported
        };
        let delays = Delays::default();
        let both = async { tokio::join!(import, changes.make(u32::MAX, over, || ())) };
        let (imported, measured) = delays.beside(&self.plots, installation, both).await;
        let (imported, measured) = (imported?, measured?);
        let title = format!("{} imported beside {} changes a second", self.catalog, self.rate);
        let over_time = delays.plot(&title, vec![measured.over_time("one change, readable")]);
        self.plots.draw(&format!("mixed-delays-{rest}"), &over_time)?;
        let quantiles = vec![measured.quantiles("one change, readable")];
        self.plots.draw(&format!("mixed-latencies-{rest}"), &Plot::of_quantiles(title, quantiles))?;
        report.figure("entities_per_second", rest as f64 / imported.readable.as_secs_f64(), "1/s");
        report.figure("changes", measured.count() as f64, "");
        measured.report(report, Wait::Revision);
        queue_delays(report, installation, Some("fresh")).await
    }

    /// The changed ones were changed by others' events: what is published again is as the import brought it, so only those differ.
    async fn import_again(&self, report: &mut Report, installation: &Installation) -> Result<(), Error> {
        report.part("again");
        let limit = self.site.limit();
        let changed = (self.catalog.generate().take(BASE), BASE);
        import_entities(installation, changed, FLIGHTS, limit).await?;
        let before = Published::of(installation).await?;
        let started = Instant::now();
        let rest = self.catalog.entities - BASE;
        let same = (self.catalog.generate().skip(BASE), rest);
        import_entities(installation, same, FLIGHTS, limit).await?;
        report.figure("entities_per_second", rest as f64 / started.elapsed().as_secs_f64(), "1/s");
        let after = Published::of(installation).await?;
        report.equal("stitch requests", 0.0, after.requests as f64 - before.requests as f64);
        if installation.has_metrics() {
            report.equal("entities stitched to something else", 0.0, after.changed - before.changed);
        }
        Ok(())
    }
}

/// What the pipeline has asked for and published so far.
struct Published {
    requests: u64,
    changed: f64,
}

impl Published {
    async fn of(installation: &Installation) -> Result<Published, Error> {
        let bus = &installation.bus;
        let requests = bus::stream_status(bus, &bus.names().stitch_stream()).await?.last_sequence;
        let changed = installation.metrics().await?.sum("catalog_stitched_entities_count", &[("result", "changed")]);
        Ok(Published { requests, changed })
    }
}
