//! The stitcher role: takes stitch requests, builds final entities, publishes them.
//!
//! Any number of them, all equal, anywhere. Requests that wait are merged, and each ref is stitched once. A crash before the commit
//! leaves at most a published message that its stitch state does not know: the next stitcher is refused by the broker, reads that
//! message and adopts it or goes above it.

mod build;
mod metrics;
mod publish;

pub use build::{Expected, expected};

use bus::{Bus, Failure, Item, Lane, Limits, Names, Outcome, Stop, Worker};
use metrics::Metrics;
use publish::Published;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::{Request, Snapshot, StateWrite, StitchState, Stitching, Store, StreamPosition};
use tokio::time::Instant;

/// Entities stitched in one transaction: as many as an atomic batch holds.
const ENTITIES: usize = 1000;
/// How long bulk requests may wait for bulk events to be processed, so that in an import a ref is stitched about once.
const LONGEST_HOLD: Duration = Duration::from_secs(12);
/// How long bulk requests are taken after that, before they wait again.
const BETWEEN_HOLDS: Duration = Duration::from_secs(1);
/// How often it is looked whether bulk events are pending.
const HOLD_CHECK: Duration = Duration::from_millis(50);

/// How a stitcher works.
#[derive(Clone, Debug)]
pub struct Config {
    /// Batches in hand at once.
    pub loops: usize,
    /// Requests in one batch, each of up to 500 entities.
    pub batch_requests: usize,
    /// How the broker's streams are to be.
    pub streams: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Config { loops: 2, batch_requests: 20, streams: Limits::default() }
    }
}

/// Works until the stop signal, and then finishes what is in hand. Waits for the streams, which a processor makes.
pub async fn run(bus: Bus, store: Store, config: Config, stop: Stop) {
    let stitcher = Arc::new(Stitcher {
        bus: bus.clone(),
        store,
        metrics: Metrics::new(),
        hold: Mutex::default(),
        unwritten: Mutex::default(),
    });
    let lane = |name, durable| Lane {
        name,
        stream: bus.names().stitch_stream(),
        durable,
        messages: config.batch_requests,
        bytes: 16 << 20,
    };
    let lanes = vec![lane("fresh", Names::STITCHER), lane("bulk", Names::STITCHER_BULK)];
    Worker::new(&bus, stitcher, lanes, config.streams.ack_wait, &stop).run(config.loops).await;
}

struct Stitcher {
    bus: Bus,
    store: Store,
    metrics: Metrics,
    hold: Mutex<Hold>,
    /// Entities that this stitcher may have published without having written it.
    unwritten: Mutex<BTreeSet<i64>>,
}

/// Whether bulk requests wait, and since when.
#[derive(Default)]
struct Hold {
    since: Option<Instant>,
    checked: Option<(Instant, bool)>,
}

/// Which entities a batch asks for.
type Wanted = BTreeMap<i64, Ask>;

/// Why an entity is to be stitched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ask {
    /// The transactions that made it necessary; 0: stitch it whatever was stitched before.
    transactions: BTreeSet<i64>,
    /// Somebody may have published it for this request, and then died before that was written; or it is to be stitched whatever was stitched before.
    is_again: bool,
}

/// What could not be done now.
#[derive(Default)]
struct Rest {
    /// Another stitcher holds them.
    busy: BTreeSet<i64>,
    /// They were stitched a moment ago and are expensive; with the milliseconds to wait.
    too_soon: BTreeMap<i64, i64>,
}

impl bus::Handler for Stitcher {
    fn stage(&self) -> &'static str {
        "stitcher"
    }

    async fn may_fetch(&self, lane: &Lane) -> bool {
        lane.durable != Names::STITCHER_BULK || !self.should_hold().await
    }

    async fn handle(&self, lane: &Lane, items: &[Item]) -> Result<Vec<Outcome>, Failure> {
        let requests: Vec<Result<Request, String>> = items.iter().map(load).collect();
        self.metrics.taken(lane.name, requests.iter().flatten());
        let made = bus::made_at(&self.bus, &lane.stream, lane.durable);
        let (made, position) = tokio::join!(made, self.position());
        let (made, position) = (made.map_err(|error| Failure::Away(error.to_string()))?, position?);
        let came_before =
            |item: &Item| item.deliveries > 1 || item.published <= made || item.header(bus::header::AGAIN).is_some();
        let asking = items.iter().zip(&requests);
        let wanted = merge(asking.filter_map(|(item, request)| Some((came_before(item), request.as_ref().ok()?))));
        let mut rest = Rest::default();
        self.stitch_all(&wanted, &position, &mut rest).await?;
        Ok(requests.into_iter().map(|request| outcome(request, &rest)).collect())
    }
}

fn load(item: &Item) -> Result<Request, String> {
    serde_json::from_slice(item.payload()).map_err(|error| format!("no stitch request: {error}"))
}

/// What requests ask for, each with whether it came before.
fn merge<'a>(requests: impl Iterator<Item = (bool, &'a Request)>) -> Wanted {
    let mut wanted = Wanted::new();
    for (came_before, request) in requests {
        for id in &request.entity_ids {
            let ask = wanted.entry(*id).or_default();
            ask.transactions.insert(request.transaction);
            ask.is_again |= came_before || request.transaction == 0;
        }
    }
    wanted
}

impl Ask {
    /// The newest of the transactions that ask for the entity.
    fn newest(&self) -> i64 {
        let newest = self.transactions.last().filter(|_| !self.is_again);
        newest.copied().unwrap_or(store::WHATEVER)
    }

    /// Whether all that asks for it is in what was stitched.
    fn is_done(&self, seen: &Snapshot) -> bool {
        self.transactions.iter().all(|asks| *asks != 0 && seen.shows(*asks))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn outcome(request: Result<Request, String>, rest: &Rest) -> Outcome {
    let request = match request {
        Ok(request) => request,
        Err(reason) => return Outcome::Dead(reason),
    };
    if let Some(wait) = request.entity_ids.iter().filter_map(|id| rest.too_soon.get(id)).max() {
        return Outcome::Later(Duration::from_millis(u64::try_from(*wait).unwrap_or(0).min(60_000)));
    }
    match request.entity_ids.iter().any(|id| rest.busy.contains(id)) {
        true => Outcome::Later(Duration::from_millis(100)),
        false => Outcome::Done,
    }
}

impl Stitcher {
    /// What is known of the entity stream.
    async fn position(&self) -> Result<StreamPosition, Failure> {
        let entities = self.bus.names().entities_stream();
        let position = self.store.stream_position(&entities).await.map_err(verdict)?;
        position
            .ok_or_else(|| Failure::Away(format!("nothing is known of stream {entities} yet; a processor looks at it")))
    }

    /// Stitches what is free, in parts, and then what another stitcher held: mostly it has done that by then. Of more than one part it is looked
    /// first what is still to be stitched, so that each transaction, and each batch that is published, is of as many entities as it may be.
    async fn stitch_all(&self, wanted: &Wanted, position: &StreamPosition, rest: &mut Rest) -> Result<(), Failure> {
        let mut asked: Vec<(i64, i64)> = {
            let unwritten = lock(&self.unwritten);
            let newest = |(id, ask): (&i64, &Ask)| if unwritten.contains(id) { store::WHATEVER } else { ask.newest() };
            wanted.iter().map(|ask| (*ask.0, newest(ask))).collect()
        };
        if asked.len() > ENTITIES {
            let due = self.store.unstitched(&asked).await.map_err(verdict)?;
            self.metrics.stitched("duplicate", asked.len() - due.len());
            asked = due;
        }
        let mut left = Vec::new();
        for asked in asked.chunks(ENTITIES) {
            let stitching = self.store.stitch(asked).await.map_err(verdict)?;
            let locked: HashSet<i64> = stitching.states.iter().map(|state| state.entity_id).collect();
            self.stitch(stitching, position, wanted, rest).await?;
            left.extend(asked.iter().copied().filter(|(id, _)| !locked.contains(id)));
        }
        for asked in left.chunks(ENTITIES) {
            match self.store.stitch_after_others(asked).await {
                Ok(stitching) => {
                    self.metrics.stitched("duplicate", asked.len() - stitching.states.len());
                    self.stitch(stitching, position, wanted, rest).await?;
                }
                Err(store::Error::Collision(_)) => rest.busy.extend(asked.iter().map(|(id, _)| *id)),
                Err(error) => return Err(verdict(error)),
            }
        }
        Ok(())
    }

    /// One transaction, whose states are locked: read, build, publish, write, commit.
    async fn stitch(
        &self,
        mut stitching: Stitching,
        position: &StreamPosition,
        wanted: &Wanted,
        rest: &mut Rest,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        let mut due = std::mem::take(&mut stitching.states);
        let asked = due.len();
        let unwritten = lock(&self.unwritten).clone();
        let is_done =
            |state: &StitchState| state.seen.as_ref().is_some_and(|seen| wanted[&state.entity_id].is_done(seen));
        let is_doubtful = |id: &i64| wanted[id].is_again || unwritten.contains(id);
        due.retain(|state| is_doubtful(&state.entity_id) || !is_done(state));
        self.metrics.stitched("duplicate", asked - due.len());
        // Who asks for whatever was stitched before is never done with it: of several such entities there would always be one that waits.
        let may_wait = |state: &StitchState| !is_done(state) && !wanted[&state.entity_id].transactions.contains(&0);
        due.retain(|state| match state.wait_ms.filter(|_| may_wait(state)) {
            Some(wait) => {
                rest.too_soon.insert(state.entity_id, wait);
                false
            }
            None => true,
        });
        if due.is_empty() {
            return Ok(());
        }
        let built = build::build(&mut stitching, &due, self.bus.names().installation()).await.map_err(verdict)?;
        // Whatever is there of these, they are published: that shuts out what may still be on its way.
        let mut again = publish::left_by_others(&self.bus, &built, |id| wanted[id].is_again).await?;
        again.extend(unwritten);
        let (changes, unchanged) = publish::sort(built, &again, &self.metrics);
        let published: BTreeSet<i64> = changes.iter().map(publish::Change::entity_id).collect();
        match self.publish_and_commit(stitching, position, changes, unchanged).await {
            Ok(()) => lock(&self.unwritten).retain(|id| !published.contains(id)),
            Err(failure) => {
                lock(&self.unwritten).extend(published);
                return Err(failure);
            }
        }
        self.metrics.batch(started);
        Ok(())
    }

    async fn publish_and_commit(
        &self,
        mut stitching: Stitching,
        position: &StreamPosition,
        changes: Vec<publish::Change>,
        unchanged: Vec<StateWrite>,
    ) -> Result<(), Failure> {
        let states = match changes.is_empty() {
            true => unchanged,
            false => {
                let published = publish::publish(&self.bus, &mut stitching, changes, unchanged, &self.metrics).await?;
                self.note(position, &published).await?;
                published.states
            }
        };
        stitching.commit(&states).await.map_err(verdict)
    }

    /// Notes how far the entity stream goes, before it is committed that something stands there. What was stored at or below what had been
    /// stored before is in a stream that went back.
    async fn note(&self, position: &StreamPosition, published: &Published) -> Result<(), Failure> {
        let went_back = published.lowest.is_some_and(|lowest| lowest <= u64::try_from(position.published).unwrap_or(0));
        let highest = if went_back { store::GONE_BACK } else { published.highest };
        let entities = self.bus.names().entities_stream();
        let is_same = self.store.note_highest(position.life(&entities), highest).await.map_err(verdict)?;
        match is_same && !went_back {
            true => Ok(()),
            false => {
                Err(Failure::Away(format!("stream {entities} went back to an older state; a processor looks at it")))
            }
        }
    }

    /// While bulk events are pending, bulk requests wait, for some seconds at most; then they are taken for a while.
    async fn should_hold(&self) -> bool {
        let recent = {
            let hold = lock(&self.hold);
            hold.checked.filter(|(at, _)| at.elapsed() < HOLD_CHECK)
        };
        if let Some((_, held)) = recent {
            return held;
        }
        let pending = bus::unsettled(&self.bus, &self.bus.names().events_stream(), Names::PROCESSOR_BULK).await;
        let mut hold = lock(&self.hold);
        let held = match pending {
            Ok(0) | Err(_) => {
                hold.since = None;
                false
            }
            Ok(_) => {
                let held_for = hold.since.get_or_insert_with(Instant::now).elapsed();
                if held_for >= LONGEST_HOLD + BETWEEN_HOLDS {
                    hold.since = Some(Instant::now());
                }
                held_for < LONGEST_HOLD
            }
        };
        hold.checked = Some((Instant::now(), held));
        held
    }
}

/// The one verdict on each error of a batch.
fn verdict(error: store::Error) -> Failure {
    match error {
        store::Error::Away(what) => Failure::Away(what),
        store::Error::Collision(what) => Failure::Collision(what),
        other => Failure::Batch(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(transaction: i64, entity_ids: &[i64]) -> Request {
        Request { outbox: 1, transaction, asked_at_ms: 0, entity_ids: entity_ids.to_vec() }
    }

    #[test]
    fn requests_merge() {
        let requests = [request(5, &[1, 2]), request(7, &[2, 3]), request(0, &[3]), request(6, &[2])];
        let wanted = merge(requests.iter().map(|request| (request.transaction == 7, request)));
        let ask =
            |transactions: &[i64], is_again| Ask { transactions: transactions.iter().copied().collect(), is_again };
        assert_eq!(wanted, Wanted::from([(1, ask(&[5], false)), (2, ask(&[5, 6, 7], true)), (3, ask(&[0, 7], true))]));
        assert_eq!([1, 2, 3].map(|id| wanted[&id].newest()), [5, store::WHATEVER, store::WHATEVER]);
    }

    #[test]
    fn a_request_is_done_only_with_all_of_its_entities() {
        let rest = Rest { busy: [2].into(), too_soon: [(3, 40), (4, 99_000)].into() };
        for (ids, expected) in [
            (&[1][..], Outcome::Done),
            (&[1, 2], Outcome::Later(Duration::from_millis(100))),
            (&[1, 2, 3], Outcome::Later(Duration::from_millis(40))),
            (&[4, 3], Outcome::Later(Duration::from_secs(60))),
        ] {
            assert_eq!(outcome(Ok(request(1, ids)), &rest), expected, "{ids:?}");
        }
        assert_eq!(outcome(Err("why".to_owned()), &rest), Outcome::Dead("why".to_owned()));
    }
}
