//! `loadtest read`: what a reader gives, alone on its core, of a catalog of any size; and what a watch is worth while everything restarts.

use crate::Error;
use crate::generate::{Layout, ref_at};
use crate::installation::Started;
use crate::plot::{Plot, Plots};
use crate::process::Process;
use crate::random::Random;
use crate::read::paced::on_client_core;
use crate::read::side::ReadSide;
use crate::read::{faults, get, queries, streams, watchers};
use crate::report::Report;
use crate::usage;
use std::sync::Arc;
use std::time::Duration;

/// Different entities that are asked for.
const REFS: usize = 50_000;
/// The rate of the paced `GetEntity`: half of what a reader has to reach.
const GET_RATE: f64 = 15_000.0;

/// What to read.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Read {
    /// Entities of the catalog
    #[arg(long, value_name = "COUNT", default_value = "10000", value_parser = clap::value_parser!(u32).range(1000..=10_000_000))]
    entities: u32,
    /// What they are
    #[arg(long, default_value = "1")]
    seed: u64,
    /// Seconds of each measurement of a rate
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Watchers of everything
    #[arg(long, value_name = "COUNT", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=9000))]
    watchers: u32,
    /// Changes a second that they are told
    #[arg(long, value_name = "PER_SECOND", default_value = "200", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    changes: u32,
    /// Only this part of it; as often as needed
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
    /// Instead: restart broker and reader in turns, so many times in all, under watchers
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u32).range(2..=10_000))]
    faults: Option<u32>,
    #[command(flatten)]
    plots: Plots,
    #[command(flatten)]
    started: Started,
}

/// A part of what is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// GetEntity and BatchGetEntities.
    Calls,
    /// Pages, counts, facets, full text, traversal.
    Queries,
    /// The whole catalog in one stream.
    Stream,
    /// Watchers and changes.
    Watch,
    /// A start from a snapshot file.
    Snapshot,
}

impl Read {
    /// Fills an entity stream, starts a reader and measures it.
    pub async fn run(&self) -> Result<Report, Error> {
        let entities = self.entities as usize;
        let mut side = ReadSide::start(&self.started, self.seed, entities).await?;
        let mut report = Report::new(match self.faults {
            Some(times) => {
                format!("read: watchers of {entities} entities while broker and reader restart, {times} times in all")
            }
            None => format!("read: a catalog of {entities} entities, reader on one core, client and broker on another"),
        });
        match self.faults {
            Some(times) => faults::measure(&mut side, self.seed, times as usize, &mut report).await?,
            None => self.measure(&side, &mut report).await?,
        }
        report.note("the stream was written by the load test with the engine's own functions, not by stitchers");
        side.stop().await?;
        self.draw(&report)?;
        Ok(report)
    }

    /// The distributions of this run, and its figures beside those of runs with other sizes.
    fn draw(&self, report: &Report) -> Result<(), Error> {
        let (entities, curves) = (self.entities, report.curves().to_vec());
        if !curves.is_empty() {
            let plot = Plot::of_quantiles(format!("calls of a reader with {entities} entities"), curves);
            self.plots.draw(&format!("read-latencies-{entities}"), &plot)?;
        }
        for (name, end, label) in [
            ("read-latency-by-size", "_p99_ms", "milliseconds, 99th percentile"),
            ("read-seconds-by-size", "_seconds", "seconds"),
            ("read-memory-by-size", "_mib", "MiB"),
        ] {
            let values = report.figures_ending(end);
            if !values.is_empty() {
                self.plots.draw_by_size(name, entities as usize, label, &values)?;
            }
        }
        Ok(())
    }

    async fn measure(&self, side: &ReadSide, report: &mut Report) -> Result<(), Error> {
        report.figure("cold_start_seconds", side.cold_start().await?.as_secs_f64(), "s");
        let reader = side.start_reader().await?;
        side.until_quiet(&reader).await?;
        let mebibytes = |reader: &Process| usage::resident_bytes(reader.pid()).unwrap_or(0) as f64 / f64::from(1 << 20);
        let idle = mebibytes(&reader);
        if self.has(Part::Calls) {
            self.calls(side, &reader, report).await?;
        }
        let (address, refs, entities) = (reader.grpc.clone(), self.refs(), side.entities);
        if self.has(Part::Queries) {
            let part = on_client_core(move || async move {
                let mut part = Report::new("");
                queries::measure(&address, &refs, entities, &mut part).await?;
                Ok(part)
            });
            report.add(part.await?);
        }
        report.figure("reader_rss_mib", mebibytes(&reader), "MiB");
        report.figure("reader_rss_started_mib", idle, "MiB");
        let (address, pid) = (reader.grpc.clone(), reader.pid());
        if self.has(Part::Stream) {
            let part = on_client_core(move || async move {
                let mut part = Report::new("");
                streams::measure(&address, pid, entities, &mut part).await?;
                Ok(part)
            });
            report.add(part.await?);
        }
        if self.has(Part::Watch) {
            self.watch(side, &reader, report).await?;
        }
        match self.has(Part::Snapshot) {
            true => self.restart(side, reader, report).await,
            false => Ok(()),
        }
    }

    fn has(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    async fn calls(&self, side: &ReadSide, reader: &Process, report: &mut Report) -> Result<(), Error> {
        let (refs, time) = (Arc::new(self.refs()), Duration::from_secs(self.seconds));
        let (address, asked) = (reader.grpc.clone(), refs.clone());
        let found = on_client_core(move || async move { get::per_second(&address, &asked, time).await }).await?;
        report.figure("get_entity_per_second", found, "1/s");
        let (address, asked) = (reader.grpc.clone(), refs.clone());
        let latencies =
            on_client_core(move || async move { get::latencies(&address, &asked, GET_RATE, time).await }).await?;
        report.figure("get_entity_p50_ms", latencies.quantile_ms(0.5), "ms");
        report.figure("get_entity_p99_ms", latencies.quantile_ms(0.99), "ms");
        report.curve(latencies.curve("get"));
        let address = reader.grpc.clone();
        let found = on_client_core(move || async move { get::batch_per_second(&address, &refs, time).await }).await?;
        report.figure("batch_entities_per_second", found, "1/s");
        report.note(format!(
            "GetEntity: 128 calls at once on 4 connections, then {GET_RATE} a second open loop; {} entities",
            side.entities
        ));
        Ok(())
    }

    async fn watch(&self, side: &ReadSide, reader: &Process, report: &mut Report) -> Result<(), Error> {
        let plan = watchers::Plan {
            address: reader.grpc.clone(),
            watchers: self.watchers as usize,
            rate: f64::from(self.changes),
            seconds: 2 * self.seconds,
        };
        let changes = watchers::changes(side, self.seed, &plan);
        let (bus, first) = (side.bus.clone(), side.version + 1);
        let cpu = |pid: u32| usage::of_process(pid).map_or(0.0, |usage| usage.cpu_seconds);
        let before = (cpu(reader.pid()), cpu(std::process::id()));
        let found = on_client_core(move || watchers::measure(plan, bus, changes, first)).await?;
        let took = 2.0 * self.seconds as f64 + watchers::WARM_UP.as_secs_f64();
        report.figure("watch_reader_cpu_percent", 100.0 * (cpu(reader.pid()) - before.0) / took, "%");
        report.figure("watch_client_cpu_percent", 100.0 * (cpu(std::process::id()) - before.1) / took, "%");
        found.report(report);
        report.note(format!(
            "watch: {} watchers of everything on 10 connections, {} changes a second of entities of up to 8 KiB, from the moment that a publish was due; the first two seconds are not counted",
            self.watchers, self.changes
        ));
        Ok(())
    }

    /// Ends the reader, and starts one from a snapshot file.
    async fn restart(&self, side: &ReadSide, reader: Process, report: &mut Report) -> Result<(), Error> {
        reader.send(crate::signal::Signal::Terminate)?;
        reader.end().await?;
        let (reader, took) = side.start_with_snapshot().await?;
        report.figure("snapshot_start_seconds", took.as_secs_f64(), "s");
        report.note(
            "starts: until /readyz says so, on both cores, which the broker shares; the stream's pages are in memory",
        );
        reader.send(crate::signal::Signal::Terminate)?;
        reader.end().await
    }

    fn refs(&self) -> Vec<String> {
        let entities = self.entities as usize;
        let layout = Layout::new(self.seed, entities);
        let mut random = Random::new(self.seed);
        (0..REFS).map(|_| ref_at(&layout, random.below(entities))).collect()
    }
}
