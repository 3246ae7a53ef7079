//! `loadtest limit`: what this machine could do at best with the same bytes, so that every figure stands beside what is possible.

use crate::Error;
use crate::generate::Catalog;
use crate::installation::{Installation, Started};
use crate::publish::{BATCH, Event};
use crate::report::Report;
use crate::settle::{FLIGHTS, PROVIDER};
use catalog::entity::{Limits, parse_entity};
use catalog::hash::map_hash;
use catalog::process::{Model, process};
use futures::{StreamExt, TryStreamExt};
use std::time::Instant;

/// What is measured with.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Limit {
    #[command(flatten)]
    catalog: Catalog,
    #[command(flatten)]
    started: Started,
}

impl Limit {
    /// The broker alone, then each step of the pure work on one core.
    pub async fn run(&self) -> Result<Report, Error> {
        let payloads: Vec<Vec<u8>> = self.catalog.generate().map(|entity| entity.to_string().into_bytes()).collect();
        let mut report = Report::new(format!("limit: {}, each step alone", self.catalog));
        let bytes: usize = payloads.iter().map(Vec::len).sum();
        report.figure("bytes_per_entity", bytes as f64 / payloads.len().max(1) as f64, "B");
        self.work(&mut report, &payloads)?;
        self.broker(&mut report, payloads).await?;
        report.note("published: atomic batches of 1,000, synced, four on their way, nobody reading. The rest: on one core, one after the other");
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

    async fn broker(&self, report: &mut Report, payloads: Vec<Vec<u8>>) -> Result<(), Error> {
        // The streams are made by a processor; what it takes from them is not what is measured, so it is stopped.
        let installation = Installation::start(&self.started, 1, 0).await?;
        installation.send(crate::process::Role::Processor, 1, crate::signal::Signal::Stop)?;
        let bus = &installation.bus;
        let event = |payload| Event { provider: PROVIDER, operation: "import", payload, location_key: None };
        let records: Vec<bus::Record> = payloads.into_iter().map(|payload| event(payload).record(bus)).collect();
        let started = Instant::now();
        let sent = futures::stream::iter(records.chunks(BATCH)).map(|batch| bus::publish_all(bus, batch));
        let sent: Vec<Vec<u64>> = sent.buffer_unordered(FLIGHTS).try_collect().await?;
        let count: usize = sent.iter().map(Vec::len).sum();
        report.figure("published_per_second", count as f64 / started.elapsed().as_secs_f64(), "1/s");
        installation.send(crate::process::Role::Processor, 1, crate::signal::Signal::Continue)?;
        installation.stop().await
    }
}
