//! `loadtest chaos`: everything that can go wrong goes wrong, by a seed, while providers go on; then it is judged.

mod faults;
mod judge;
mod oracle;
mod provider;
mod proxy;
mod recovery;
mod site;
mod watcher;

use crate::Error;
use crate::installation::Started;
use crate::metrics;
use crate::random::Random;
use crate::report::Report;
use faults::{Done, Tormentor};
use provider::{Providers, Tally};
pub(crate) use recovery::Recovery;
use site::Site;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use watcher::Seen;

/// How long, and by which seed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Chaos {
    /// For how many minutes faults happen
    #[arg(long, value_name = "COUNT", default_value = "5")]
    minutes: f64,
    /// Which faults, when, and what the providers do
    #[arg(long, default_value = "1")]
    seed: u64,
    #[command(flatten)]
    started: Started,
}

/// What came of it.
struct Outcome {
    done: Done,
    tally: Tally,
    violations: Vec<String>,
    entities: usize,
    seconds_to_rest: f64,
    counted: Report,
}

impl Chaos {
    /// For so many minutes, by this seed.
    pub fn new(minutes: f64, seed: u64, started: Started) -> Chaos {
        Chaos { minutes, seed, started }
    }

    /// What was violated.
    pub async fn violations(&self) -> Result<Vec<String>, Error> {
        Ok(self.suffer().await?.violations)
    }

    /// Torments an installation, and tells what happened.
    pub async fn run(&self) -> Result<Report, Error> {
        eprintln!("seed {}", self.seed);
        let outcome = self.suffer().await?;
        let mut report = self.report(outcome.counted, &outcome.done, outcome.tally, &outcome.violations);
        report.figure("entities", outcome.entities as f64, "");
        report.figure("seconds_to_rest", outcome.seconds_to_rest, "s");
        Ok(report)
    }

    /// Starts an installation, torments it, lets it come to rest, and judges.
    async fn suffer(&self) -> Result<Outcome, Error> {
        let mut site = Site::start(&self.started).await?;
        let providers = Providers::new(site.bus.clone(), self.seed);
        let working = tokio::spawn(providers.clone().work(self.seed));
        let first_reader = |site: &Site| site.readers().first().cloned().unwrap_or_default();
        let (address, reader) = watch::channel(first_reader(&site));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let watching = tokio::spawn(watcher::run(reader, Arc::clone(&seen)));
        let until = Instant::now() + Duration::from_secs_f64(self.minutes * 60.0);
        let random = Random::new(self.seed);
        let mut tormentor = Tormentor { site: &mut site, providers: &providers, random, done: Done::default() };
        tormentor.torment(until, &address).await?;
        let done = tormentor.done;
        providers.end();
        let worked = working.await.map_err(std::io::Error::other);
        worked.map_err(Error::io("wait for", std::path::Path::new("the providers")))?;
        if providers.has_uncertain() {
            providers.resynchronize().await;
        }
        let rest = judge::rest(&mut site).await?;
        let mut violations = done.violations.clone();
        violations.extend(rest.as_ref().err().map(|what| format!("it did not come to rest: {what}")));
        address.send_replace(first_reader(&site));
        let accepted = providers.accepted();
        violations.extend(judge::judge(&site, &accepted, &seen).await?);
        watching.abort();
        let title = format!("chaos: {} minutes of faults while providers go on (seed {})", self.minutes, self.seed);
        let mut counted = Report::new(title);
        count(&mut counted, &site, &seen).await;
        site.stop().await?;
        let (tally, entities) = (providers.tally(), oracle::evaluate(&accepted).len());
        Ok(Outcome { done, tally, violations, entities, seconds_to_rest: rest.unwrap_or(f64::NAN), counted })
    }

    fn report(&self, mut report: Report, done: &Done, tally: Tally, violations: &[String]) -> Report {
        report.table(&["fault", "times"], done.rows());
        report.figure("kills", done.kills as f64, "");
        report.figure("events_accepted", tally.accepted as f64, "");
        report.figure("events_repeated_under_another_id", tally.repeated as f64, "");
        report.figure("events_that_overtook_others", tally.overtaken as f64, "");
        report.figure("snapshots_ended", tally.snapshots as f64, "");
        report.figure("publishes_repeated_under_their_id", tally.same_id as f64, "");
        report.figure("publishes_retried_under_their_id", tally.retried as f64, "");
        report.figure("publishes_given_up", tally.given_up as f64, "");
        report.figure("poison_events", tally.poison as f64, "");
        report.figure("times_events_were_forgotten", done.forgotten as f64, "");
        if done.without_disks {
            report.note("no disk was filled: that needs Linux and root");
        }
        for violation in violations {
            report.note(violation.clone());
        }
        report.equal("violations", 0.0, violations.len() as f64);
        report
    }
}

/// What the processes say of themselves now; those that were killed are not heard.
async fn count(report: &mut Report, site: &Site, seen: &Mutex<Seen>) {
    let mut sum = metrics::Metrics::default();
    for address in site.metrics() {
        if let Ok(found) = metrics::fetch(&address).await {
            sum.add(found);
        }
    }
    let counters = [
        ("messages_redelivered", "callboard_messages_redelivered"),
        ("acks_unconfirmed", "callboard_acks_unconfirmed"),
        ("entities_mended", "callboard_entities_mended"),
        ("gaps_reported", "callboard_stream_gaps"),
    ];
    for (figure, counter) in counters {
        report.figure(format!("{figure}_by_survivors"), sum.sum(counter, &[]), "");
    }
    let seen = watcher::lock(seen);
    report.figure("watch_events", seen.events as f64, "");
    report.figure("watches_resumed", seen.resumed as f64, "");
    report.figure("watches_begun_anew", seen.anew as f64, "");
}
