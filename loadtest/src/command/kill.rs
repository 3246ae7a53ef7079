//! `loadtest proof kill`: workers killed in the middle of their work, again and again, lose nothing and do nothing twice.

use crate::Error;
use crate::command::compete::compare;
use crate::generate::generate;
use crate::installation::{Installation, Started};
use crate::process::Role;
use crate::publish::{BATCH, Event, publish_batches};
use crate::random::Random;
use crate::report::Report;
use crate::settle::{PROVIDER, bar};
use crate::snapshot::{Sameness, Snapshot};
use std::time::{Duration, Instant};
use tokio::time::sleep;

const PROCESSORS: usize = 3;
const STITCHERS: usize = 2;
/// How long after a part of the events a worker is killed, at most, in milliseconds.
const LATEST_KILL: usize = 400;

/// How often to kill, in the middle of what.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Kill {
    /// How often a processor and a stitcher are killed
    #[arg(long, value_name = "COUNT", default_value = "10", value_parser = 1..=1000)]
    times: i64,
    /// How many entities
    #[arg(long, value_name = "COUNT", default_value = "10000")]
    entities: usize,
    /// What they are, and who is killed when
    #[arg(long, default_value = "1")]
    seed: u64,
    /// How long the broker waits for a silent worker
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    ack_wait: String,
    /// Seconds to wait until all is readable
    #[arg(long, value_name = "SECONDS", default_value = "600")]
    limit: u64,
    #[command(flatten)]
    started: Started,
}

impl Kill {
    /// Runs an undisturbed installation, then one whose workers are killed, and compares.
    pub async fn run(&self) -> Result<Report, Error> {
        eprintln!("seed {}", self.seed);
        let limit = Duration::from_secs(self.limit);
        let mut started = self.started.clone();
        started.settings.insert(0, ("CALLBOARD_ACK_WAIT".to_owned(), self.ack_wait.clone()));

        let calm = Installation::start(&started, 1, 1).await?;
        let last = publish_batches(&calm.bus, self.events().into_iter(), 1, |_| ()).await?;
        calm.view.settled(i64::try_from(last).unwrap_or(i64::MAX), limit).await?;
        let expected = Snapshot::take(&calm.view).await?;
        calm.stop().await?;

        let mut disturbed = Installation::start(&started, PROCESSORS, STITCHERS).await?;
        let disturbance = self.disturb(&mut disturbed).await?;
        let recovery = Instant::now();
        disturbed.view.settled(i64::try_from(disturbance.last).unwrap_or(i64::MAX), limit).await?;
        let mut report = Report::new(format!(
            "kill: {} events while {PROCESSORS} processors and {STITCHERS} stitchers are killed (seed {})",
            self.entities, self.seed
        ));
        report.figure("processors_killed", disturbance.kills as f64, "");
        report.figure("stitchers_killed", disturbance.kills as f64, "");
        report.figure("seconds_to_recover", recovery.elapsed().as_secs_f64(), "s");
        let found = Snapshot::take(&disturbed.view).await?;
        count(&mut report, &disturbed).await?;
        disturbed.stop().await?;
        compare(&mut report, &expected, &found, Sameness::Everything);
        Ok(report)
    }

    /// Both lanes in turns, a batch each.
    fn events(&self) -> Vec<Event> {
        let operation = |place: usize| if (place / BATCH).is_multiple_of(2) { "import" } else { "upsert" };
        generate(self.seed, self.entities)
            .enumerate()
            .map(|(place, entity)| Event::new(PROVIDER, operation(place), &entity))
            .collect()
    }

    /// Publishes the events in parts, and kills a processor and a stitcher a moment after each.
    async fn disturb(&self, installation: &mut Installation) -> Result<Disturbance, Error> {
        let mut random = Random::new(self.seed);
        let times = usize::try_from(self.times).unwrap_or(1);
        let events = self.events();
        let part = events.len().div_ceil(times + 1).max(1);
        let bar = bar("killed", times);
        let (mut last, mut kills) = (0, 0);
        for part in events.chunks(part) {
            last = publish_batches(&installation.bus, part.iter().cloned(), 1, |_| ()).await?;
            if kills == times {
                continue;
            }
            for (role, count) in [(Role::Processor, PROCESSORS), (Role::Stitcher, STITCHERS)] {
                sleep(Duration::from_millis(random.below(LATEST_KILL) as u64)).await;
                installation.replace(role, 1 + random.below(count)).await?;
            }
            kills += 1;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(Disturbance { last, kills })
    }
}

struct Disturbance {
    /// The last event's sequence.
    last: u64,
    kills: usize,
}

/// What the workers say of redelivery; of killed ones, what they said last.
pub(crate) async fn count(report: &mut Report, installation: &Installation) -> Result<(), Error> {
    let metrics = installation.metrics().await?;
    let mut redelivered = 0.0;
    for stage in ["processor", "stitcher"] {
        let count = metrics.sum("callboard_messages_redelivered", &[("stage", stage)]);
        report.figure(format!("{stage}_messages_redelivered"), count, "");
        redelivered += count;
    }
    report.figure(
        "events_without_effect",
        metrics.sum("catalog_processed_entities_count", &[("result", "duplicate")]),
        "",
    );
    report.figure(
        "stitches_without_effect",
        metrics.sum("catalog_stitched_entities_count", &[("result", "duplicate")]),
        "",
    );
    report.check(
        "messages redelivered",
        redelivered > 0.0,
        "at least 1, or nothing was disturbed",
        format!("{redelivered}"),
    );
    report.equal("events that became dead letters", 0.0, metrics.sum("callboard_messages_dead", &[]));
    Ok(())
}
