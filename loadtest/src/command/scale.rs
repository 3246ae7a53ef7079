//! `loadtest scale`: what more workers bring.

use crate::Error;
use crate::generate::Catalog;
use crate::installation::{Installation, Started};
use crate::plot::{Axis, Line, Plot, Plots, Scale as On};
use crate::report::Report;
use crate::settle::{FLIGHTS, import};
use std::time::Duration;

/// What to import, and by how many.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Scale {
    #[command(flatten)]
    catalog: Catalog,
    /// Numbers of processors, and of stitchers, each tried with an installation of its own
    #[arg(long, value_name = "COUNT,…", default_value = "1,2,3,4", value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: Vec<u8>,
    /// Seconds to wait until all is readable, each time
    #[arg(long, value_name = "SECONDS", default_value = "600")]
    limit: u64,
    #[command(flatten)]
    plots: Plots,
    #[command(flatten)]
    started: Started,
}

impl Scale {
    /// Imports the same catalog once for each number of workers.
    pub async fn run(&self) -> Result<Report, Error> {
        let mut report = Report::new(format!("scale: {} imported by each number of workers", self.catalog));
        let mut rates = Vec::new();
        for workers in &self.workers {
            let count = usize::from(*workers);
            let installation = Installation::start(&self.started, count, count).await?;
            let imported = import(&installation, &self.catalog, FLIGHTS, Duration::from_secs(self.limit)).await?;
            let rate = self.catalog.entities as f64 / imported.readable.as_secs_f64();
            report.figure(format!("entities_per_second_with_{workers}"), rate, "1/s");
            rates.push((f64::from(*workers), rate));
            installation.stop().await?;
        }
        self.plots.draw(
            "scale",
            &Plot {
                title: format!("{} imported", self.catalog),
                x: Axis { label: "processors, and as many stitchers", scale: On::Linear },
                y: Axis { label: "entities a second", scale: On::Linear },
                lines: vec![Line { name: "publish to readable".to_owned(), points: rates }],
            },
        )?;
        report.note(
            "so many processors and so many stitchers; broker, database and this program share the machine with them",
        );
        Ok(report)
    }
}
