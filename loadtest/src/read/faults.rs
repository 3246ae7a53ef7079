//! Watchers while broker and reader are killed and started again and again: no gap, no repeat, no step back.

use super::paced::Latencies;
use super::side::{ReadSide, channel};
use crate::Error;
use crate::generate::generate;
use crate::process::Process;
use crate::random::Random;
use crate::report::Report;
use crate::settle::bar;
use api::v1::catalog_service_client::CatalogServiceClient;
use api::v1::watch_entities_response::Event;
use api::v1::{WatchEntitiesRequest, WatchEntitiesResponse};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::Code;

/// Watchers of everything, and of one lifecycle, which the changes enter and leave.
const WATCHERS: usize = 10;
const FILTER: &str = "spec.lifecycle=production";
/// Entities that change, and changes between two faults.
const TARGETS: usize = 300;
const CHANGES: usize = 60;
/// How long the watchers may take to the last change.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the entities that change are: their newest version, and whether they are of the filter's lifecycle; none: deleted.
type Truth = BTreeMap<String, (i64, Option<bool>)>;

/// Restarts broker and reader in turns, so many times in all, while entities change.
pub(crate) async fn measure(side: &mut ReadSide, seed: u64, times: usize, report: &mut Report) -> Result<(), Error> {
    let mut reader = side.start_reader().await?;
    let address = watch::Sender::new(reader.grpc.clone());
    let clients: Vec<Watching> =
        (0..WATCHERS).map(|number| Watching::start(number % 2 == 1, address.subscribe())).collect();
    let mut author = Author::new(seed, side.entities);
    let (mut broker_recovered, mut reader_recovered) = (Latencies::new(), Latencies::new());
    let bar = bar("faults", times);
    for number in 0..times {
        author.change(side, CHANGES).await?;
        if number % 2 == 0 {
            side.restart_broker().await?;
        } else {
            reader = restart(side, reader, &address).await?;
        }
        // From the moment that broker and reader are back.
        let back = Instant::now();
        author.change(side, 1).await?;
        clients[0].heard_of(side.version).await;
        let recovered = if number % 2 == 0 { &mut broker_recovered } else { &mut reader_recovered };
        recovered.record(back.elapsed());
        author.change(side, CHANGES / 2).await?;
        bar.inc(1);
    }
    side.tell_watermark().await?;
    bar.finish_and_clear();
    let (mut gaps, mut sums) = (0, Counts::default());
    for client in clients {
        let heard = client.end(&author.truth, side.version).await;
        gaps += heard.gaps(&author.truth);
        sums.add(&heard.counts);
    }
    report.figure("watch_restarts", times as f64, "");
    for (name, recovered) in [("broker", broker_recovered), ("reader", reader_recovered)] {
        report.figure(format!("watch_after_{name}_p50_ms"), recovered.quantile_ms(0.5), "ms");
        report.figure(format!("watch_after_{name}_max_ms"), recovered.quantile_ms(1.0), "ms");
    }
    report.figure("watch_events", sums.events as f64, "");
    report.figure("watch_resumed", sums.resumed as f64, "");
    report.figure("watch_begun_anew", sums.begun_anew as f64, "");
    report.figure("watch_gaps", gaps as f64, "");
    report.figure("watch_repeats", sums.repeats as f64, "");
    report.figure("watch_backward", sums.backward as f64, "");
    report.equal("entities that a watcher has not as they are, in the end", 0.0, gaps as f64);
    report.equal("versions told twice", 0.0, sums.repeats as f64);
    report.equal("versions told after newer ones", 0.0, sums.backward as f64);
    report.check("watches resumed", sums.resumed > 0, "at least 1, or nothing was disturbed", sums.resumed.to_string());
    drop(reader);
    Ok(())
}

/// SIGKILL, and another reader elsewhere.
async fn restart(side: &ReadSide, mut reader: Process, address: &watch::Sender<String>) -> Result<Process, Error> {
    reader.kill()?;
    let reader = side.start_reader().await?;
    address.send_replace(reader.grpc.clone());
    Ok(reader)
}

/// Changes entities, as stitchers do.
struct Author {
    random: Random,
    entities: Vec<Value>,
    truth: Truth,
}

impl Author {
    fn new(seed: u64, entities: usize) -> Author {
        let components = generate(seed, entities).filter(|entity| entity["kind"] == "Component");
        Author { random: Random::new(seed), entities: components.take(TARGETS).collect(), truth: Truth::new() }
    }

    async fn change(&mut self, side: &mut ReadSide, count: usize) -> Result<(), Error> {
        for _ in 0..count {
            let mut entity = self.random.one_of(&self.entities).clone();
            let entity_ref = crate::generate::entity_ref(&entity);
            // Of what is gone already a deletion is told to nobody, and would be waited for.
            let was_there = self.truth.get(&entity_ref).is_some_and(|(_, content)| content.is_some());
            let is_there = !(was_there && self.random.percent(15));
            let is_of_filter = self.random.percent(50);
            entity["spec"]["lifecycle"] = if is_of_filter { "production" } else { "experimental" }.into();
            entity["metadata"]["description"] = format!("version {}", side.version + 1).into();
            let entity = is_there.then_some(&entity);
            let version = side.publish_patiently(&entity_ref, entity).await?;
            self.truth.insert(entity_ref, (version, is_there.then_some(is_of_filter)));
        }
        Ok(())
    }
}

/// A client that watches for ever and resumes whenever it is cut off.
struct Watching {
    is_filtered: bool,
    heard: Arc<Mutex<Heard>>,
    task: JoinHandle<()>,
}

/// What a client knows and has counted.
#[derive(Clone, Debug, Default)]
struct Heard {
    is_filtered: bool,
    token: String,
    /// The highest version told.
    newest: i64,
    /// The newest version told of each ref, and whether the entity is there.
    entities: BTreeMap<String, (i64, bool)>,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    events: usize,
    resumed: usize,
    begun_anew: usize,
    repeats: usize,
    backward: usize,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.events += other.events;
        self.resumed += other.resumed;
        self.begun_anew += other.begun_anew;
        self.repeats += other.repeats;
        self.backward += other.backward;
    }
}

impl Watching {
    fn start(is_filtered: bool, address: watch::Receiver<String>) -> Watching {
        let heard = Arc::new(Mutex::new(Heard { is_filtered, ..Heard::default() }));
        let task = tokio::spawn(watch_for_ever(heard.clone(), address));
        Watching { is_filtered, heard, task }
    }

    /// Waits until it was told of a version, or some time has passed.
    async fn heard_of(&self, version: i64) {
        let deadline = Instant::now() + PATIENCE;
        while lock(&self.heard).newest < version && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until it knows everything, or some time has passed, and gives what it has heard.
    async fn end(self, truth: &Truth, version: i64) -> Heard {
        let newest = truth.iter().max_by_key(|(_, (version, _))| *version).map(|(entity_ref, _)| entity_ref.clone());
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let heard = lock(&self.heard).clone();
            let knows_newest =
                newest.as_ref().and_then(|newest| heard.entities.get(newest)).is_some_and(|(told, _)| *told == version);
            let is_done = heard.gaps(truth) == 0 && (knows_newest || self.is_filtered);
            if is_done || tokio::time::Instant::now() > deadline {
                self.task.abort();
                return heard;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn watch_for_ever(heard: Arc<Mutex<Heard>>, address: watch::Receiver<String>) {
    loop {
        let at = address.borrow().clone();
        let ended = watch_once(&heard, &at).await;
        {
            let mut heard = lock(&heard);
            match ended {
                Some(Code::OutOfRange) => {
                    heard.counts.begun_anew += 1;
                    *heard = Heard { is_filtered: heard.is_filtered, counts: heard.counts, ..Heard::default() };
                }
                Some(Code::InvalidArgument) => heard.counts.backward += 1,
                _ => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Watches until it is cut off; gives the code with which it was, if the reader told one.
async fn watch_once(heard: &Mutex<Heard>, address: &str) -> Option<Code> {
    let mut client = CatalogServiceClient::new(channel(address).await.ok()?);
    let (resume_token, is_filtered) = {
        let heard = lock(heard);
        (heard.token.clone(), heard.is_filtered)
    };
    let is_resumed = !resume_token.is_empty();
    if !is_resumed {
        // What was told before the first bookmark of a watch that was cut off is told again.
        lock(heard).entities.clear();
    }
    let filter = if is_filtered { vec![FILTER.to_owned()] } else { Vec::new() };
    let request = WatchEntitiesRequest { filter, resume_token, ..Default::default() };
    let mut events = match client.watch_entities(request).await {
        Ok(events) => events.into_inner(),
        Err(status) => return Some(status.code()),
    };
    if is_resumed {
        lock(heard).counts.resumed += 1;
    }
    loop {
        match events.message().await {
            Ok(Some(event)) => lock(heard).hear(event),
            Ok(None) => return None,
            Err(status) => return Some(status.code()),
        }
    }
}

fn lock(heard: &Mutex<Heard>) -> std::sync::MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heard {
    fn hear(&mut self, event: WatchEntitiesResponse) {
        let version = event.version;
        self.newest = self.newest.max(version);
        let told = match event.event {
            Some(Event::Change(entity)) => Some((entity.r#ref, true)),
            Some(Event::Deletion(deletion)) => Some((deletion.r#ref, false)),
            _ => None,
        };
        if let Some((entity_ref, is_there)) = told {
            self.counts.events += 1;
            let before = self.entities.insert(entity_ref, (version, is_there));
            match before.map(|(before, _)| before.cmp(&version)) {
                Some(std::cmp::Ordering::Equal) => self.counts.repeats += 1,
                Some(std::cmp::Ordering::Greater) => self.counts.backward += 1,
                _ => {}
            }
        }
        if !event.resume_token.is_empty() {
            self.token = event.resume_token;
        }
    }

    /// Of how many of the entities that changed it does not know what is true.
    fn gaps(&self, truth: &Truth) -> usize {
        let knows = |entity_ref: &String, version: i64, is_of_filter: Option<bool>| {
            let shown = is_of_filter.is_some_and(|is_of_filter| is_of_filter || !self.is_filtered);
            match self.entities.get(entity_ref) {
                Some((told, is_there)) => *is_there == shown && (!shown || *told == version),
                None => !shown,
            }
        };
        truth.iter().filter(|(entity_ref, (version, of_filter))| !knows(entity_ref, *version, *of_filter)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(entity_ref: &str, version: i64, is_there: bool) -> WatchEntitiesResponse {
        let r#ref = entity_ref.to_owned();
        let event = match is_there {
            true => Event::Change(api::v1::Entity { r#ref, ..Default::default() }),
            false => Event::Deletion(api::v1::Deletion { r#ref }),
        };
        WatchEntitiesResponse { event: Some(event), version, ..Default::default() }
    }

    fn check(is_filtered: bool, told: &[(i64, bool)], truth: (i64, Option<bool>), expected: (usize, usize, usize)) {
        let mut heard = Heard { is_filtered, ..Heard::default() };
        told.iter().for_each(|(version, is_there)| heard.hear(event("a:b/c", *version, *is_there)));
        let gaps = heard.gaps(&Truth::from([("a:b/c".to_owned(), truth)]));
        assert_eq!((gaps, heard.counts.repeats, heard.counts.backward), expected, "{told:?} {truth:?}");
    }

    #[test]
    fn what_is_wrong_with_a_watch_is_counted() {
        check(false, &[(1, true), (2, true)], (2, Some(false)), (0, 0, 0));
        check(false, &[(1, true)], (2, Some(false)), (1, 0, 0));
        check(false, &[(1, true), (1, true)], (1, Some(true)), (0, 1, 0));
        check(false, &[(2, true), (1, true)], (2, Some(true)), (1, 0, 1));
        check(false, &[(1, true)], (2, None), (1, 0, 0));
        check(false, &[(1, true), (2, false)], (2, None), (0, 0, 0));
        check(false, &[], (2, None), (0, 0, 0));
        check(true, &[(1, true)], (2, Some(false)), (1, 0, 0));
        check(true, &[(1, true), (2, false)], (2, Some(false)), (0, 0, 0));
        check(true, &[], (2, Some(true)), (1, 0, 0));
    }
}
