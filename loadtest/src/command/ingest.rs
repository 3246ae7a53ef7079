//! `loadtest ingest`: how fast a whole catalog becomes readable, and what it costs.

use crate::Error;
use crate::database::Work;
use crate::generate::{Catalog, entity_ref};
use crate::installation::{Disk, Installation, Used};
use crate::plot::{Delays, Plots};
use crate::report::Report;
use crate::settle::{FLIGHTS, Imported, PROVIDER, import};
use crate::site::{Site, queue_delays};
use crate::usage;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

const MIB: f64 = 1024.0 * 1024.0;
/// Missing refs that are named.
const NAMED: usize = 5;

/// What to ingest, and where.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Ingest {
    #[command(flatten)]
    catalog: Catalog,
    /// Seconds afterwards for which it is looked what the idle processes use
    #[arg(long, value_name = "SECONDS", default_value = "0")]
    idle: u64,
    #[command(flatten)]
    plots: Plots,
    #[command(flatten)]
    site: Site,
}

impl Ingest {
    /// Ingests, measures, and checks that every entity can be read.
    pub async fn run(&self) -> Result<Report, Error> {
        let installation = self.site.open().await?;
        let work = work(&installation).await;
        let before = Before { used: installation.used(), disk: installation.disk(), work };
        let own = usage::of_process(std::process::id());
        let delays = Delays::default();
        let import = import(&installation, &self.catalog, FLIGHTS, self.site.limit());
        let imported = delays.beside(&self.plots, &installation, import).await?;
        let mut report = Report::new(format!("ingest: {} imported until every one could be read", self.catalog));
        self.speed(&mut report, &imported);
        self.draw(delays, &imported)?;
        self.cost(&mut report, &installation, &before);
        self.work(&mut report, &installation, &before).await;
        if let (Some(before), Some(after)) = (own, usage::of_process(std::process::id())) {
            report.figure("cpu_seconds_loadtest", after.cpu_seconds - before.cpu_seconds, "s");
        }
        self.broker(&mut report, &installation).await?;
        queue_delays(&mut report, &installation, None).await?;
        self.check_all(&mut report, &installation, &imported).await?;
        self.idle(&mut report, &installation).await;
        self.vacuum(&mut report, &installation, &before).await;
        installation.stop().await?;
        Ok(report)
    }

    fn speed(&self, report: &mut Report, imported: &Imported) {
        let readable = imported.readable.as_secs_f64();
        report.figure("entities", self.catalog.entities as f64, "");
        report.figure("entities_per_second", self.catalog.entities as f64 / readable, "1/s");
        report.figure("seconds_to_publish", imported.published.as_secs_f64(), "s");
        report.figure("seconds_to_present", imported.present.as_secs_f64(), "s");
        report.figure("seconds_to_readable", readable, "s");
        report.note("present: every ref is in the catalog; readable: with all that others say of it, and the reader says that it has everything");
    }

    fn draw(&self, delays: Delays, imported: &Imported) -> Result<(), Error> {
        let entities = self.catalog.entities;
        self.plots
            .draw(&format!("ingest-delays-{entities}"), &delays.plot(format!("import of {}", self.catalog), vec![]))?;
        let rate = entities as f64 / imported.readable.as_secs_f64();
        let values = [("publish to readable".to_owned(), rate)];
        self.plots.draw_by_size("ingest-by-size", entities, "entities a second", &values)
    }

    /// CPU time, memory and disk, of an installation of our own.
    fn cost(&self, report: &mut Report, installation: &Installation, before: &Before) {
        let entities = self.catalog.entities.max(1) as f64;
        let earlier: HashMap<&str, f64> =
            before.used.iter().map(|used| (used.name.as_str(), used.usage.cpu_seconds)).collect();
        let after = installation.used();
        let spent = |used: &Used| used.usage.cpu_seconds - earlier.get(used.name.as_str()).copied().unwrap_or(0.0);
        if !after.is_empty() {
            report.figure("cpu_ms_per_entity", 1000.0 * after.iter().map(spent).sum::<f64>() / entities, "ms");
        }
        for used in &after {
            report.figure(format!("cpu_seconds_{}", used.name), spent(used), "s");
        }
        for used in &after {
            report.figure(format!("memory_mib_{}", used.name), used.usage.memory_bytes as f64 / MIB, "MiB");
        }
        if let (Some(grown), Some(after)) = (before.grown(installation), installation.disk()) {
            let (database, broker) = (grown.database as f64, grown.broker as f64);
            report.figure("disk_bytes_per_entity", (database + broker) / entities, "B");
            report.figure("database_mib", database / MIB, "MiB");
            report.figure("database_log_mib", after.log as f64 / MIB, "MiB");
            report.figure("broker_mib", broker / MIB, "MiB");
            report.note("memory: the most that a process held at once; of postgres, what all its processes hold in the end. disk: without PostgreSQL's write-ahead log");
        }
    }

    /// What the database did, of an installation of our own.
    async fn work(&self, report: &mut Report, installation: &Installation, before: &Before) {
        let (Some(before), Some(after)) = (before.work, work(installation).await) else { return };
        let entities = self.catalog.entities.max(1) as f64;
        if let (Some(before), Some(after)) = (before.statements, after.statements) {
            report.figure("statements_per_entity", (after - before) / entities, "");
        }
        report.figure("commits_per_entity", (after.commits - before.commits) / entities, "");
    }

    /// The disk again, when the database has taken away what is dead in its tables: room that it uses again is not given back.
    async fn vacuum(&self, report: &mut Report, installation: &Installation, before: &Before) {
        let Some(database) = installation.database() else { return };
        if database.vacuum().await
            && let Some(grown) = before.grown(installation)
        {
            let bytes = (grown.database + grown.broker) as f64;
            report.figure("disk_bytes_per_entity_vacuumed", bytes / self.catalog.entities.max(1) as f64, "B");
        }
    }

    /// What the processes use while nothing happens, in hundredths of a core; the servers apart.
    async fn idle(&self, report: &mut Report, installation: &Installation) {
        if self.idle == 0 {
            return;
        }
        let is_server = |used: &Used| ["nats", "postgres"].contains(&used.name.as_str());
        let spent = || {
            let used = installation.used();
            let (servers, ours): (Vec<_>, Vec<_>) = used.into_iter().partition(is_server);
            let sum = |used: Vec<Used>| used.iter().map(|used| used.usage.cpu_seconds).sum::<f64>();
            (sum(ours), sum(servers))
        };
        let before = spent();
        tokio::time::sleep(Duration::from_secs(self.idle)).await;
        let after = spent();
        let percent = |before: f64, after: f64| 100.0 * (after - before) / self.idle as f64;
        report.figure("idle_core_percent", percent(before.0, after.0), "%");
        report.figure("idle_core_percent_servers", percent(before.1, after.1), "%");
    }

    async fn broker(&self, report: &mut Report, installation: &Installation) -> Result<(), Error> {
        let entities = bus::stream_status(&installation.bus, &installation.bus.names().entities_stream()).await?;
        report.figure("entity_stream_mib", entities.bytes as f64 / MIB, "MiB");
        // Each message is one entity stitched to something else; the watermarks among them are a few.
        let published = entities.last_sequence as f64 / self.catalog.entities.max(1) as f64;
        report.figure("entity_messages_per_entity", published, "");
        Ok(())
    }

    /// Every ref is there, and nothing that came from us is left in the dead letters.
    async fn check_all(
        &self,
        report: &mut Report,
        installation: &Installation,
        imported: &Imported,
    ) -> Result<(), Error> {
        let mut missing: HashSet<String> = self.catalog.generate().map(|entity| entity_ref(&entity)).collect();
        let mut failed = 0_usize;
        installation
            .view
            .each(|entity| {
                let ours = missing.remove(&entity.r#ref);
                failed += usize::from(ours && entity.status.is_some());
            })
            .await?;
        report.equal("refs missing", 0.0, missing.len() as f64);
        for entity_ref in missing.iter().take(NAMED) {
            report.note(format!("missing: {entity_ref}"));
        }
        report.equal("entities with a processing error", 0.0, failed as f64);
        let dead = bus::stream_status(&installation.bus, &installation.bus.names().dead_letters_stream()).await?;
        report.note(format!(
            "the last event of provider {PROVIDER} has revision {}; {} dead letters in the broker",
            imported.revision, dead.messages
        ));
        Ok(())
    }
}

/// What had been used before the first publish.
struct Before {
    used: Vec<Used>,
    disk: Option<Disk>,
    work: Option<Work>,
}

impl Before {
    /// What has come to the disk since.
    fn grown(&self, installation: &Installation) -> Option<Disk> {
        let (before, after) = (self.disk?, installation.disk()?);
        Some(Disk {
            database: after.database.saturating_sub(before.database),
            log: after.log.saturating_sub(before.log),
            broker: after.broker.saturating_sub(before.broker),
        })
    }
}

async fn work(installation: &Installation) -> Option<Work> {
    installation.database()?.work().await
}
