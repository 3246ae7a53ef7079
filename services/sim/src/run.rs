//! One seed: an installation, a storm, calm, judgement.

use crate::providers::Provider;
use crate::site::Site;
use crate::storm::Storm;
use crate::trace::Trace;
use crate::{chance, judge, reading};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long everything may take to come to rest after the storm.
const REST_LIMIT: Duration = Duration::from_secs(400);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(250);

/// What became of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What broke; empty: all held.
    pub violations: Vec<String>,
    /// A hash over everything that happened: the same in each run of the seed.
    pub trace_hash: u64,
    /// Of how many happenings.
    pub happenings: u64,
    /// Events that the broker accepted.
    pub events: u64,
    /// Seconds that passed in it.
    pub seconds: f64,
    /// What happened, line by line, if that was asked for.
    pub trace: Vec<String>,
}

/// Runs a seed on a thread of its own, so that nothing of another one is in it.
pub fn run_seed(seed: u64, with_trace: bool) -> Outcome {
    let run = move || {
        chance::begin(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime of one thread needs nothing").block_on(simulate(seed, with_trace))
    };
    let thread = std::thread::Builder::new().name(format!("seed {seed}")).spawn(run);
    thread.expect("the system has a thread").join().unwrap_or_else(|panic| {
        let what =
            panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let violations = vec![format!("panic: {}", what.unwrap_or_default())];
        Outcome { seed, violations, trace_hash: 0, happenings: 0, events: 0, seconds: 0.0, trace: Vec::new() }
    })
}

async fn simulate(seed: u64, with_trace: bool) -> Outcome {
    let began = Instant::now();
    let trace = Arc::new(Trace::new(with_trace));
    let site = Site::new(seed, &trace);
    let broker = site.broker.clone();
    tokio::spawn(async move { broker.run().await });
    let mut storm = Storm::begin(&site);
    tokio::spawn(reading::watch(site.clone()));
    tokio::spawn(floor_rises(site.clone()));
    let providers: Vec<_> = (0..site.profile.providers)
        .map(|number| tokio::spawn(Provider::new(number, site.bus(), &site).work()))
        .collect();
    storm.rage().await;
    site.calm();
    for provider in providers {
        if let Err(error) = provider.await {
            site.violated(format!("a provider ended: {error}"));
        }
    }
    let store = site.truth();
    let bus = site.bus();
    let rested = rest(&site, &bus, &store).await;
    storm.look_for_dead().await;
    let mut violations = site.violations();
    match rested {
        Err(what) => violations.push(format!("no rest within {REST_LIMIT:?}: {what}")),
        Ok(()) => violations.extend(judge::judge(&site, &bus, &store).await),
    }
    storm.end().await;
    for late in site.violations() {
        if !violations.contains(&late) {
            violations.push(late);
        }
    }
    for kept in site.broker.history() {
        trace.note(format_args!(
            "{} {} {} {:?} {:?}",
            kept.stream,
            kept.sequence,
            kept.subject,
            kept.payload,
            versions(&kept)
        ));
    }
    let events = site.broker.history().iter().filter(|kept| kept.stream.ends_with("_EVENTS")).count() as u64;
    let (trace_hash, happenings, trace) = trace.end();
    Outcome { seed, violations, trace_hash, happenings, events, seconds: began.elapsed().as_secs_f64(), trace }
}

fn versions(kept: &bus::twin::Kept) -> Option<&str> {
    Some(kept.headers.get(bus::header::VERSION)?.as_str())
}

/// Looks for ever whether the floor falls.
async fn floor_rises(site: Arc<Site>) {
    let store = site.truth();
    let mut known = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        let Ok(floor) = store.floor().await else { continue };
        if floor < known {
            site.violated(format!("the floor fell from {known} to {floor}"));
        }
        known = floor;
    }
}

/// Waits until nothing is to be done any more, at two looks in a row.
async fn rest(site: &Site, bus: &bus::Bus, store: &store::Store) -> Result<(), String> {
    let until = Instant::now() + REST_LIMIT;
    let mut last = String::new();
    let mut calm = 0;
    while Instant::now() < until {
        match judge::unrest(site, bus, store).await {
            Ok(None) => calm += 1,
            Ok(Some(what)) | Err(what) => (calm, last) = (0, what),
        }
        if calm == 2 {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(last)
}
