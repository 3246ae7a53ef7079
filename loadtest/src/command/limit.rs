//! `loadtest limit`: what this machine could do at best with the same bytes, so that every figure stands beside what is possible.

use crate::Error;
use crate::database::Copied;
use crate::generate::Catalog;
use crate::installation::{Installation, Started};
use crate::process::Role;
use crate::publish::{BATCH, Event};
use crate::report::Report;
use crate::settle::{FLIGHTS, PROVIDER, import};
use crate::signal::Signal;
use bus::Bus;
use catalog::entity::{Limits, parse_entity};
use catalog::hash::map_hash;
use catalog::process::{Model, process};
use futures::{StreamExt, TryStreamExt};
use std::time::{Duration, Instant};

/// How long the catalog may take until its rows are there to be copied.
const IMPORT_LIMIT: Duration = Duration::from_secs(3600);

/// What is measured with.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Limit {
    #[command(flatten)]
    catalog: Catalog,
    #[command(flatten)]
    started: Started,
}

impl Limit {
    /// Each step of the pure work on one core, then the database and the broker alone.
    pub async fn run(&self) -> Result<Report, Error> {
        let payloads: Vec<Vec<u8>> = self.catalog.generate().map(|entity| entity.to_string().into_bytes()).collect();
        let mut report = Report::new(format!("limit: {}, each step alone", self.catalog));
        let bytes: usize = payloads.iter().map(Vec::len).sum();
        report.figure("bytes_per_entity", bytes as f64 / payloads.len().max(1) as f64, "B");
        self.work(&mut report, &payloads)?;
        self.servers(&mut report, payloads).await?;
        report.note("published: atomic batches of 1,000, synced, four on their way, nobody reading. copied: what an import left in PostgreSQL, each table by one binary COPY into an empty one with the same keys, synced. The rest: on one core, one after the other");
        Ok(report)
    }

    fn work(&self, report: &mut Report, payloads: &[Vec<u8>]) -> Result<(), Error> {
        let refused = |refusal: catalog::entity::Refusal| Error::Usage(format!("a generated entity: {refusal}"));
        let mut rate = |name: &str, started: Instant| {
            report.figure(name, payloads.len() as f64 / started.elapsed().as_secs_f64(), "1/s");
        };
        let started = Instant::now();
        let limits = Limits::default();
        let parsed = payloads.iter().map(|payload| parse_entity(payload, &limits)).collect::<Result<Vec<_>, _>>();
        let parsed = parsed.map_err(refused)?;
        rate("parsed_per_second", started);
        let started = Instant::now();
        let hashes: usize = parsed.iter().map(|entity| map_hash(&entity.entity).len()).sum();
        rate("hashed_per_second", started);
        let model = Model::builtin();
        let started = Instant::now();
        let processed = parsed.iter().map(|entity| process(&model, entity, "catalog.events.loadtest"));
        let processed = processed.collect::<Result<Vec<_>, _>>();
        let processed =
            processed.map_err(|error| Error::Usage(format!("a generated entity: {}", error.to_status_item())))?;
        rate("processed_per_second", started);
        let started = Instant::now();
        let written: usize =
            processed.iter().map(|entity| serde_json::to_vec(&entity.entity).map_or(0, |bytes| bytes.len())).sum();
        rate("serialized_per_second", started);
        report.note(format!("{} bytes of hashes and {} bytes of processed entities came of it", hashes, written));
        Ok(())
    }

    /// One after the other, in one installation that does nothing else meanwhile.
    async fn servers(&self, report: &mut Report, payloads: Vec<Vec<u8>>) -> Result<(), Error> {
        let installation = Installation::start(&self.started, 1, 1).await?;
        import(&installation, &self.catalog, FLIGHTS, IMPORT_LIMIT).await?;
        self.database(report, &installation).await?;
        // What a processor takes from the streams is not what is measured, so it is stopped.
        installation.send(Role::Processor, 1, Signal::Stop)?;
        self.broker(report, &installation.bus, payloads).await?;
        installation.send(Role::Processor, 1, Signal::Continue)?;
        installation.stop().await
    }

    /// The rows that an import has left, copied.
    async fn database(&self, report: &mut Report, installation: &Installation) -> Result<(), Error> {
        let directory = crate::installation::data_directory(false)?;
        let copied = match installation.database() {
            // The other tables hold a row or two.
            Some(database) => database.copies(directory.path(), self.catalog.entities as f64 / 2.0).await,
            None => None,
        };
        let Some(copied) = copied else {
            report.note("COPY is not measured: there is no psql on this machine");
            return Ok(());
        };
        let took: f64 = copied.iter().map(|copied| copied.took.as_secs_f64()).sum();
        let rows: f64 = copied.iter().map(|copied| copied.rows).sum();
        let entities = self.catalog.entities.max(1) as f64;
        report.figure("copied_per_second", entities / took, "1/s");
        report.figure("copied_rows_per_entity", rows / entities, "");
        let row = |copied: &Copied| {
            let milliseconds = 1000.0 * copied.took.as_secs_f64();
            vec![copied.table.clone(), format!("{:.0}", copied.rows), format!("{milliseconds:.0}")]
        };
        report.table(&["copied", "rows", "ms"], copied.iter().map(row).collect());
        Ok(())
    }

    async fn broker(&self, report: &mut Report, bus: &Bus, payloads: Vec<Vec<u8>>) -> Result<(), Error> {
        let event = |payload| Event { provider: PROVIDER, operation: "import", payload, location_key: None };
        let records: Vec<bus::Record> = payloads.into_iter().map(|payload| event(payload).record(bus)).collect();
        let started = Instant::now();
        let sent = futures::stream::iter(records.chunks(BATCH)).map(|batch| bus::publish_all(bus, batch));
        let sent: Vec<Vec<u64>> = sent.buffer_unordered(FLIGHTS).try_collect().await?;
        let count: usize = sent.iter().map(Vec::len).sum();
        report.figure("published_per_second", count as f64 / started.elapsed().as_secs_f64(), "1/s");
        Ok(())
    }
}
