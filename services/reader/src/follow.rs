//! From the stream into the state: one by one while little comes, worked out by several threads when much does.

use bus::{Backoff, Bus, Followed, Follower, Stop};
use futures::{FutureExt, StreamExt, stream::FuturesOrdered};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::JoinHandle,
};

use crate::{
    Config, Error, snapshot,
    state::{Ahead, State},
};

/// Messages that one thread works out at a time.
const BATCH: usize = 256;
/// Fewer messages are not worth the way to another thread.
const WORTH: usize = 32;
/// Batches that are worked out or wait for their turn, for each of the runtime's threads.
const BATCHES: usize = 2;

/// Follows until the stop; in a region, the mirror of the writing region's stream.
///
/// # Errors
/// The mirror cannot be made: another stream stands in its way.
pub(crate) async fn follow(bus: Bus, config: Config, state: State, stop: Stop) -> Result<(), Error> {
    if let Some(origin) = config.mirror_of {
        make_mirror(&bus, &origin, &stop).await?;
    }
    let mut follower = Follower::new(&bus);
    if let Some(config) = config.snapshot {
        let (file, loading) = (config.file.clone(), state.clone());
        let head = tokio::task::spawn_blocking(move || snapshot::load(&file, &loading)).await?;
        if let Some(head) = &head {
            follower = Follower::resume(&bus, head.stream, head.sequence, head.stored);
        }
        tokio::spawn(snapshot::keep(config, state.clone(), head.is_some(), stop.clone()));
    }
    let stopped = stop.stopped();
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            biased;
            () = &mut stopped => return Ok(()),
            () = take_some(&mut follower, &state) => {}
        }
    }
}

/// Waits for a broker that is away, for ever.
async fn make_mirror(bus: &Bus, origin: &str, stop: &Stop) -> Result<(), Error> {
    let mut backoff = Backoff::default();
    loop {
        match bus::ensure_mirror(bus, origin, 1).await {
            Ok(()) => return Ok(()),
            Err(error) if !error.is_away() => return Err(error.into()),
            Err(error) => tracing::debug!(%error, "the mirror is not made yet"),
        }
        if !stop.sleep(backoff.pause()).await {
            return Ok(());
        }
    }
}

/// Waits for what comes next and takes it, with what comes before that is done.
async fn take_some(follower: &mut Follower, state: &State) {
    let mut running: FuturesOrdered<JoinHandle<Batch>> = FuturesOrdered::new();
    // What is not an entity changes how those behind it are taken: they wait for it.
    let mut is_held = false;
    let most = BATCHES * Handle::current().metrics().num_workers();
    loop {
        let may_hear = !is_held && running.len() < most;
        tokio::select! {
            biased;
            Some(worked_out) = running.next(), if !running.is_empty() => {
                // A batch is lost only with the runtime.
                let batch = worked_out.unwrap_or_default();
                batch.worked_out.into_iter().for_each(|worked_out| worked_out.take(state));
                if batch.went_ahead {
                    state.end_ahead();
                }
                // Calls are answered in between.
                tokio::task::yield_now().await;
            }
            first = heard(follower), if may_hear => {
                let mut batch = vec![first];
                is_held = fill(follower, &mut batch);
                if running.is_empty() && batch.len() < WORTH {
                    return batch.into_iter().for_each(|heard| heard.take(state));
                }
                running.push_back(work_out(state.clone(), batch));
            }
        }
        if running.is_empty() {
            return;
        }
    }
}

/// Fills a batch with what is here already, up to what is not an entity; whether it ends with such.
fn fill(follower: &mut Follower, batch: &mut Vec<Heard<Followed>>) -> bool {
    while batch.len() < BATCH && batch.last().is_none_or(Heard::is_entity) {
        match heard(follower).now_or_never() {
            Some(heard) => batch.push(heard),
            None => break,
        }
    }
    !batch.last().is_none_or(Heard::is_entity)
}

/// On another thread; where the runtime has one alone, as in the simulator, on that: so nothing depends on which is quicker.
fn work_out(state: State, batch: Vec<Heard<Followed>>) -> JoinHandle<Batch> {
    let goes_ahead = state.begin_ahead();
    let work = move || {
        let prepared = batch.into_iter().map(|heard| heard.map(|followed| state.prepare(followed)));
        // First all of the one, then all of the other: each has its own memory at hand.
        let mut worked_out: Vec<Heard<Ahead>> = prepared.collect();
        if goes_ahead {
            let gone_ahead = worked_out.into_iter().map(|heard| heard.map(|ahead| state.go_ahead(ahead)));
            worked_out = gone_ahead.collect();
        }
        Batch { worked_out, went_ahead: goes_ahead }
    };
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => tokio::spawn(async move { work() }),
        _ => tokio::task::spawn_blocking(work),
    }
}

/// What was worked out by one thread.
#[derive(Default)]
struct Batch {
    worked_out: Vec<Heard<Ahead>>,
    /// Into the memory.
    went_ahead: bool,
}

/// What the follower was told, and where it was then.
struct Heard<T> {
    followed: T,
    lag: u64,
    sequence: u64,
    stored: u64,
}

async fn heard(follower: &mut Follower) -> Heard<Followed> {
    let followed = follower.next().await;
    Heard { followed, lag: follower.lag(), sequence: follower.sequence(), stored: follower.stored() }
}

impl<T> Heard<T> {
    fn map<U>(self, step: impl FnOnce(T) -> U) -> Heard<U> {
        let Heard { followed, lag, sequence, stored } = self;
        Heard { followed: step(followed), lag, sequence, stored }
    }
}

impl Heard<Followed> {
    fn is_entity(&self) -> bool {
        matches!(self.followed, Followed::Entity(_))
    }

    fn take(self, state: &State) {
        state.apply(self.followed, self.lag);
        state.reach(self.sequence, self.stored);
    }
}

impl Heard<Ahead> {
    fn take(self, state: &State) {
        state.take(self.followed, self.lag);
        state.reach(self.sequence, self.stored);
    }
}
