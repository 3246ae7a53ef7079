//! `loadtest chaos`: everything that can go wrong goes wrong, by a seed, while providers go on; then it is judged.

mod cluster;
mod disk;
mod faults;
mod judge;
mod oracle;
mod provider;
mod proxy;
mod recovery;
mod side;
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
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
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
    /// Runs, each with an installation of its own and the next seed; their sum is reported
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// Runs that are under way together; each takes about a third of a core, and the disks of its servers 2 GiB of memory at most
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=16))]
    at_once: u16,
    /// The broker is a cluster of three, with three copies of each stream; its leaders are killed and stopped
    #[arg(long)]
    cluster: bool,
    #[command(flatten)]
    started: Started,
}

/// What came of it: of one run, or of several together.
#[derive(Default)]
struct Outcome {
    done: Done,
    violations: Vec<String>,
    /// Sums.
    counts: BTreeMap<&'static str, f64>,
    seconds_to_rest: f64,
    /// What was waited for last; empty: nothing.
    last: String,
}

impl Outcome {
    fn add(&mut self, other: Outcome) {
        self.done.add(other.done);
        self.violations.extend(other.violations);
        for (name, count) in other.counts {
            *self.counts.entry(name).or_default() += count;
        }
        self.seconds_to_rest = self.seconds_to_rest.max(other.seconds_to_rest);
    }
}

impl Chaos {
    /// For so many minutes, by this seed.
    pub fn new(minutes: f64, seed: u64, started: Started) -> Chaos {
        Chaos { minutes, seed, runs: 1, at_once: 1, cluster: false, started }
    }

    /// What was violated.
    pub async fn violations(&self) -> Result<Vec<String>, Error> {
        Ok(self.suffer(self.seed).await?.violations)
    }

    /// Torments an installation, or several, and tells what happened.
    pub async fn run(&self) -> Result<Report, Error> {
        let mut seeds = (0..self.runs).map(|run| self.seed + u64::from(run));
        let mut running = JoinSet::new();
        let mut all = Outcome::default();
        loop {
            while running.len() < self.at_once.into()
                && let Some(seed) = seeds.next()
            {
                let chaos = self.clone();
                // It waits for programs and copies files: on the runtime's own threads the proxies would wait with it.
                let runtime = tokio::runtime::Handle::current();
                running.spawn_blocking(move || (seed, runtime.block_on(chaos.suffer(seed))));
            }
            let Some(ended) = running.join_next().await else { break };
            let (seed, outcome) = ended.expect("a run does not panic");
            let outcome = outcome?;
            outcome.violations.iter().for_each(|violation| eprintln!("seed {seed}: violated: {violation}"));
            eprintln!(
                "seed {seed}: {} violations, at rest after {:.1} s; last waited for: {}",
                outcome.violations.len(),
                outcome.seconds_to_rest,
                outcome.last
            );
            all.add(outcome);
        }
        Ok(self.report(&all))
    }

    /// Starts an installation, torments it, lets it come to rest, and judges.
    async fn suffer(&self, seed: u64) -> Result<Outcome, Error> {
        let mut site = Site::start(&self.started, self.cluster).await?;
        let providers = Providers::new(site.bus.clone(), seed);
        let working = tokio::spawn(providers.clone().work(seed));
        let first_reader = |site: &Site| site.readers().first().cloned().unwrap_or_default();
        let (address, reader) = watch::channel(first_reader(&site));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let watching = tokio::spawn(watcher::run(reader, Arc::clone(&seen)));
        let until = Instant::now() + Duration::from_secs_f64(self.minutes * 60.0);
        let random = Random::new(seed);
        let mut tormentor = Tormentor { site: &mut site, providers: &providers, seed, random, done: Done::default() };
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
        match judge::judge(&site, &accepted, &seen).await {
            Ok(found) => violations.extend(found),
            Err(error) => violations.push(format!("it could not be judged: {error}")),
        }
        watching.abort();
        let mut counts = BTreeMap::new();
        count(&mut counts, &site, &seen).await;
        tell(&mut counts, providers.tally());
        // One that does not end on SIGTERM is a violation like any other.
        violations.extend(site.stop().await.err().map(|error| error.to_string()));
        let (seconds_to_rest, last) = rest.unwrap_or_else(|what| (f64::NAN, what));
        Ok(Outcome { done, violations, counts, seconds_to_rest, last })
    }

    fn report(&self, outcome: &Outcome) -> Report {
        let title = format!(
            "chaos: {} x {} minutes of faults while providers go on (seed {})",
            self.runs, self.minutes, self.seed
        );
        let mut report = Report::new(title);
        report.table(&["fault", "times"], outcome.done.rows());
        report.figure("hours", f64::from(self.runs) * self.minutes / 60.0, "h");
        report.figure("kills", outcome.done.kills as f64, "");
        report.figure("times_events_were_forgotten", outcome.done.forgotten as f64, "");
        for (name, count) in &outcome.counts {
            report.figure(*name, *count, "");
        }
        report.figure("seconds_to_rest_at_most", outcome.seconds_to_rest, "s");
        if outcome.done.without_disks {
            report.note("no disk was filled: that needs Linux and root");
        }
        for violation in &outcome.violations {
            report.note(violation.clone());
        }
        report.equal("violations", 0.0, outcome.violations.len() as f64);
        report
    }
}

/// What the providers did.
fn tell(counts: &mut BTreeMap<&'static str, f64>, tally: Tally) {
    let told = [
        ("events_accepted", tally.accepted),
        ("events_repeated_under_another_id", tally.repeated),
        ("events_overtaken", tally.overtaken),
        ("publishes_repeated_under_their_id", tally.same_id),
        ("publishes_retried", tally.retried),
        ("publishes_given_up", tally.given_up),
        ("poison_events", tally.poison),
        ("snapshots_ended", tally.snapshots),
    ];
    counts.extend(told.map(|(name, count)| (name, count as f64)));
}

/// What the processes say of themselves now; those that were killed are not heard.
async fn count(counts: &mut BTreeMap<&'static str, f64>, site: &Site, seen: &Mutex<Seen>) {
    let mut sum = metrics::Metrics::default();
    for address in site.metrics() {
        if let Ok(found) = metrics::fetch(&address).await {
            sum.add(found);
        }
    }
    let counters = [
        ("messages_redelivered_by_survivors", "callboard_messages_redelivered"),
        ("acks_unconfirmed_by_survivors", "callboard_acks_unconfirmed"),
        ("entities_mended_by_survivors", "callboard_entities_mended"),
        ("gaps_reported_by_survivors", "callboard_stream_gaps"),
    ];
    counts.extend(counters.map(|(name, counter)| (name, sum.sum(counter, &[]))));
    let seen = watcher::lock(seen);
    let watches = [("watch_events", seen.events), ("watches_resumed", seen.resumed), ("watches_begun_anew", seen.anew)];
    counts.extend(watches.map(|(name, count)| (name, count as f64)));
}
