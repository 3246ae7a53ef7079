//! One seed: an installation, a storm, calm, judgement.

use crate::providers::Provider;
use crate::site::Site;
use crate::storm::Storm;
use crate::trace::Trace;
use crate::{chance, judge, reading};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long everything may take to come to rest after the storm.
const REST_LIMIT: Duration = Duration::from_secs(1200);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(250);
/// How long a watcher may take to have what the reader has.
const WATCH_LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether the watermark has reached the newest event.
const PROMISE_LOOK: Duration = Duration::from_millis(20);

/// What became of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Runs in this process before it (see [`run_after`]).
    pub after: u64,
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

/// What is made once in a process is made by the first seed that needs it, and would take some of its chance. So these go before.
const FIRST: [u64; 3] = [u64::MAX, u64::MAX - 1, u64::MAX - 2];

/// Runtimes that this process has made. What tokio leaves to chance (which of several that wait for one `watch` is woken first) it takes from how many
/// there were, so that is a part of what a run is made of.
static MADE: Mutex<u64> = Mutex::new(0);

/// Runs a seed on a thread of its own, so that nothing of another one is in it.
pub fn run_seed(seed: u64, with_trace: bool) -> Outcome {
    begin();
    run_alone(seed, with_trace)
}

/// The same as it was after so many runs in another process: that of [`Outcome::after`].
pub fn run_after(seed: u64, with_trace: bool, after: u64) -> Outcome {
    begin();
    while *made() < after {
        let nothing = || alone(0, || async {});
        let thread = std::thread::Builder::new().spawn(nothing).expect("the system has a thread");
        thread.join().expect("there is nothing to panic at");
    }
    run_alone(seed, with_trace)
}

fn begin() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| FIRST.into_iter().for_each(|first| drop(run_alone(first, false))));
}

fn made() -> MutexGuard<'static, u64> {
    MADE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs something in a runtime of its own, with a seed's chance; gives how many were made before.
fn alone<F: Future>(seed: u64, what: impl FnOnce() -> F) -> (u64, F::Output) {
    chance::begin(seed);
    let mut made = made();
    let after = *made;
    *made += 1;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let outcome = runtime.expect("a runtime of one thread needs nothing").block_on(async {
        // It has its chance by now.
        drop(made);
        what().await
    });
    (after, outcome)
}

fn run_alone(seed: u64, with_trace: bool) -> Outcome {
    let run = move || {
        let (after, outcome) = alone(seed, || simulate(seed, with_trace));
        Outcome { after, ..outcome }
    };
    let thread = std::thread::Builder::new().name(format!("seed {seed}")).spawn(run);
    thread.expect("the system has a thread").join().unwrap_or_else(|panic| {
        let what =
            panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let violations = vec![format!("panic: {}", what.unwrap_or_default())];
        Outcome { seed, after: 0, violations, trace_hash: 0, happenings: 0, events: 0, seconds: 0.0, trace: Vec::new() }
    })
}

async fn simulate(seed: u64, with_trace: bool) -> Outcome {
    let began = Instant::now();
    let trace = Arc::new(Trace::new(with_trace));
    let site = Site::new(seed, &trace);
    trace.note(format_args!("{:?}", site.profile));
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
    tokio::spawn(promised(site.clone()));
    let rested = rest(&site, &bus, &store).await;
    storm.look_for_dead().await;
    let mut violations = site.violations();
    match rested {
        Err(what) => violations.push(format!("no rest within {REST_LIMIT:?}: {what}")),
        Ok(()) => {
            violations.extend(judge::judge(&site, &bus, &store).await);
            violations.extend(watched(&site).await);
        }
    }
    storm.end().await;
    for late in site.violations() {
        if !violations.contains(&late) {
            violations.push(late);
        }
    }
    for kept in site.broker.history() {
        trace.note(format_args!(
            "{} {} at {} {} {} {:?}",
            kept.stream,
            kept.sequence,
            kept.stored,
            kept.subject,
            headers(&kept),
            kept.payload
        ));
    }
    let events = site.broker.history().iter().filter(|kept| kept.stream.ends_with("_EVENTS")).count() as u64;
    let (trace_hash, happenings, trace) = trace.end();
    let seconds = began.elapsed().as_secs_f64();
    Outcome { seed, after: 0, violations, trace_hash, happenings, events, seconds, trace }
}

/// Sorted, for their own order is a hash map's.
fn headers(kept: &bus::twin::Kept) -> String {
    let named = |(name, values): (&_, &Vec<_>)| format!("{name}={values:?}");
    let mut headers: Vec<String> = kept.headers.iter().map(named).collect();
    headers.sort_unstable();
    headers.join(" ")
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

/// Keeps what a reader showed when it was first told by the watermark that the newest event is in it.
async fn promised(site: Arc<Site>) {
    let store = site.truth();
    let events = site.bus().names().events_stream();
    let Some(last) = site.broker.history().into_iter().rfind(|kept| *kept.stream == *events) else { return };
    loop {
        tokio::time::sleep(PROMISE_LOOK).await;
        let Ok(Some(position)) = store.stream_position(&events).await else { continue };
        let Some(reader) = site.newest_reader() else { continue };
        if reader.watermark().is_some_and(|watermark| watermark >= position.revision(last.sequence, last.stored)) {
            let shown = |entity_ref: String| {
                let version = reader.memory().by_ref(&entity_ref)?.version();
                Some((entity_ref, version))
            };
            return site.promise(site.all_names().into_iter().filter_map(shown).collect());
        }
    }
}

/// A watcher has the newest of everything in the end: what it takes to be there is what its reader has.
async fn watched(site: &Site) -> Option<String> {
    let until = Instant::now() + WATCH_LIMIT;
    loop {
        let shown = |entity_ref: String| {
            let version = site.newest_reader()?.memory().by_ref(&entity_ref)?.version();
            Some((entity_ref, version))
        };
        let shown: BTreeMap<String, i64> = site.all_names().into_iter().filter_map(shown).collect();
        let watched = site.watched_now();
        if shown == watched {
            return None;
        }
        if Instant::now() > until {
            return Some(format!("I5: the reader shows {shown:?}, and its watcher was told {watched:?}"));
        }
        tokio::time::sleep(LOOK).await;
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
