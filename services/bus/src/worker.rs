//! The one worker loop, one or more for each lane: fetch what waits up to a bound, hand it over, settle each message, drain at the end.

mod answer;

use crate::dead_letter::{self, DeadLetter};
use crate::pull::Wait;
use crate::{Backoff, Bus, Item, Stop};
use catalog::planted;
use futures::StreamExt;
use opentelemetry::metrics::Counter;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// How often it is asked whether a lane that waits may be fetched.
const HELD: Duration = Duration::from_millis(20);
/// Delivered more often, a message is handled alone, so that what kills its worker takes no neighbours along; then, one that may wait.
const SUSPICIOUS_DELIVERIES: (i64, i64) = (5, 100);
/// Delivered more often without any outcome, a message is a dead letter; then, one that may wait: half an hour, every two seconds.
const HOPELESS_DELIVERIES: (i64, i64) = (25, 1000);
/// How often a message that fails alone is tried.
const ATTEMPTS: u32 = 5;
/// How often a batch is tried again as it is, when what failed was a collision with another worker.
const COLLISIONS: u32 = 10;
/// Answers on their way at once.
const ANSWERS_IN_FLIGHT: usize = 256;

/// One durable consumer that a worker serves, and how much it takes at a time.
#[derive(Clone, Debug)]
pub struct Lane {
    /// The lane's name in logs and metrics.
    pub name: &'static str,
    /// The stream.
    pub stream: String,
    /// The durable consumer.
    pub durable: &'static str,
    /// Messages taken at a time.
    pub messages: usize,
    /// Bytes taken at a time.
    pub bytes: usize,
}

/// What becomes of a message whose handling has succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything that it causes is durable: acknowledge it.
    Done,
    /// Nothing is wrong, but it is not its time: deliver it again after this delay.
    Later(Duration),
    /// It can never be handled: a dead letter, with the reason in one sentence.
    Dead(String),
}

/// Why a batch could not be handled; nothing of it has taken effect, or all that did is idempotent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The database or the broker is away: nobody's fault. No message is taken until it is back, and this batch is tried again.
    Away(String),
    /// Another worker was in the way: try the same batch again.
    Collision(String),
    /// Something in the batch: it is split until the guilty message is alone.
    Batch(String),
}

/// What a role does with a batch.
pub trait Handler: Sync {
    /// The stage's name in dead letters and logs.
    fn stage(&self) -> &'static str;

    /// Whether the message may have to wait for others, and be told [`Outcome::Later`] again and again meanwhile.
    fn may_wait(&self, _item: &Item) -> bool {
        false
    }

    /// Whether the lane may be fetched from now; a lane that waits is asked about again within a fraction of a second.
    fn may_fetch(&self, lane: &Lane) -> impl Future<Output = bool> + Send;

    /// Handles a batch of one lane; gives one outcome a message, in order.
    fn handle(&self, lane: &Lane, items: &[Item]) -> impl Future<Output = Result<Vec<Outcome>, Failure>> + Send;
}

/// A worker: any number of them, anywhere, may serve the same lanes.
pub struct Worker<H> {
    bus: Bus,
    handler: Arc<H>,
    lanes: Vec<Lane>,
    heartbeat: Duration,
    stop: Stop,
    counters: Counters,
}

struct Counters {
    redelivered: Counter<u64>,
    dead: Counter<u64>,
    unconfirmed: Counter<u64>,
}

impl<H: Handler + Send + 'static> Worker<H> {
    /// A worker for these lanes, the first of which is the one that nobody waits long for. `ack_wait` is that of the durable consumers.
    pub fn new(bus: &Bus, handler: Arc<H>, lanes: Vec<Lane>, ack_wait: Duration, stop: &Stop) -> Self {
        let meter = opentelemetry::global::meter("callboard");
        let counters = Counters {
            redelivered: meter
                .u64_counter("callboard.messages.redelivered")
                .with_description("Messages delivered to a worker more than once")
                .build(),
            dead: meter
                .u64_counter("callboard.messages.dead")
                .with_description("Messages that became dead letters, by stage and provider")
                .build(),
            unconfirmed: meter
                .u64_counter("callboard.acks.unconfirmed")
                .with_description("Acknowledgements that the broker did not confirm; the message comes again")
                .build(),
        };
        Worker { bus: bus.clone(), handler, lanes, heartbeat: ack_wait / 3, stop: stop.clone(), counters }
    }

    /// Works until the stop signal, in so many loops side by side for each lane: while one waits for the database, another prepares. Each
    /// loop serves one lane, so that nothing waits for a batch of another; the first of several lanes has one loop, so that what comes to it
    /// while that is busy is taken together.
    ///
    /// # Panics
    /// When a loop does.
    pub async fn run(self, loops: usize) {
        let worker = Arc::new(self);
        let mut running = tokio::task::JoinSet::new();
        for lane in 0..worker.lanes.len() {
            let is_first_of_several = lane == 0 && worker.lanes.len() > 1;
            let loops = if is_first_of_several { 1 } else { loops.max(1) };
            for _ in 0..loops {
                running.spawn(Arc::clone(&worker).run_one(lane));
            }
        }
        while let Some(ended) = running.join_next().await {
            ended.expect("a worker's loop does not panic");
        }
    }

    /// One loop over one lane; what is in hand at the stop is finished, what is not begun is given back. Nothing is asked for while a
    /// batch is in hand: what came of it would wait here though others are free.
    async fn run_one(self: Arc<Self>, lane: usize) {
        let lane = &self.lanes[lane];
        let mut wait = Wait::new(&self.bus, lane);
        while !self.stop.is_stopped() {
            if !self.handler.may_fetch(lane).await {
                self.stop.sleep(HELD).await;
                continue;
            }
            let items = wait.take_waiting(lane).await;
            if !items.is_empty() {
                self.settle(lane, items).await;
                continue;
            }
            tokio::select! {
                biased;
                () = self.stop.stopped() => {}
                () = wait.first() => {}
            }
        }
        for item in wait.into_received().await {
            self.respond(&item, "-NAK").await;
        }
    }

    /// Brings each of the messages to its end.
    async fn settle(&self, lane: &Lane, items: Vec<Item>) {
        let redelivered = items.iter().filter(|item| item.deliveries > 1).count() as u64;
        if redelivered > 0 {
            self.counters.redelivered.add(redelivered, &[opentelemetry::KeyValue::new("stage", self.handler.stage())]);
        }
        let (suspicious, ordinary): (Vec<Item>, Vec<Item>) =
            items.into_iter().partition(|item| item.deliveries > self.limit(item, SUSPICIOUS_DELIVERIES));
        if !ordinary.is_empty() {
            self.handle(lane, &ordinary).await;
        }
        for item in suspicious {
            if item.deliveries > self.limit(&item, HOPELESS_DELIVERIES) {
                let reason = format!(
                    "delivered {} times without an outcome: each worker that took it was lost",
                    item.deliveries - 1
                );
                self.finish(&item, Outcome::Dead(reason)).await;
            } else {
                self.handle(lane, std::slice::from_ref(&item)).await;
            }
        }
    }

    fn limit(&self, item: &Item, (ordinary, waiting): (i64, i64)) -> i64 {
        if self.handler.may_wait(item) { waiting } else { ordinary }
    }

    /// Handles a batch; where it fails, its halves, until the guilty message is alone.
    async fn handle(&self, lane: &Lane, items: &[Item]) {
        let mut parts = vec![items];
        while let Some(part) = parts.pop() {
            let failure = match self.handle_with_patience(lane, part).await {
                Handled::Outcomes(outcomes) => {
                    self.finish_all(part, outcomes).await;
                    continue;
                }
                Handled::Stopped => {
                    parts.push(part);
                    break;
                }
                Handled::Lost => continue,
                Handled::Failed(failure) => failure,
            };
            if let [item] = part {
                self.finish(item, Outcome::Dead(format!("failed {ATTEMPTS} times, alone: {failure}"))).await;
                continue;
            }
            tracing::warn!(
                stage = self.handler.stage(),
                messages = part.len(),
                failure,
                "a batch failed; splitting it"
            );
            let (first, second) = part.split_at(part.len() / 2);
            parts.extend([second, first]);
        }
        for part in parts {
            self.give_back(part).await;
        }
    }

    /// Tries a batch: for ever while something is away, a bounded number of times otherwise.
    async fn handle_with_patience(&self, lane: &Lane, items: &[Item]) -> Handled {
        if planted::is("ack-before-commit") {
            self.acknowledge(&items.iter().collect::<Vec<_>>()).await;
        }
        let mut attempts = 0;
        let mut collisions = 0;
        let mut said_away = false;
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        loop {
            if !items.iter().all(|item| self.is_of_this_life(item)) {
                return Handled::Lost;
            }
            let outcome = self.with_heartbeat(items, self.handler.handle(lane, items)).await;
            let pause = backoff.pause();
            match outcome {
                Ok(outcomes) => {
                    if said_away {
                        tracing::info!(stage = self.handler.stage(), "work goes on");
                    }
                    return Handled::Outcomes(outcomes);
                }
                Err(Failure::Away(what)) => {
                    if !std::mem::replace(&mut said_away, true) {
                        tracing::warn!(
                            stage = self.handler.stage(),
                            what,
                            "waiting, with {} messages in hand",
                            items.len()
                        );
                    }
                }
                Err(Failure::Collision(what)) if collisions < COLLISIONS => {
                    collisions += 1;
                    tracing::debug!(stage = self.handler.stage(), what, "another worker was in the way; trying again");
                }
                Err(Failure::Collision(what) | Failure::Batch(what)) => {
                    attempts += 1;
                    if items.len() > 1 || attempts >= ATTEMPTS {
                        return Handled::Failed(what);
                    }
                }
            }
            let go_on = self.with_heartbeat(items, self.stop.sleep(pause)).await;
            if !go_on {
                return Handled::Stopped;
            }
        }
    }

    /// Awaits the work, telling the broker now and then that the messages are still in hand.
    async fn with_heartbeat<T>(&self, items: &[Item], work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = tokio::time::sleep(self.heartbeat) => {
                    for item in items {
                        self.tell(item, "+WPI").await;
                    }
                }
            }
        }
    }

    async fn finish_all(&self, items: &[Item], outcomes: Vec<Outcome>) {
        assert_eq!(items.len(), outcomes.len(), "a handler gives one outcome a message");
        let mut done = Vec::with_capacity(items.len());
        for (item, outcome) in items.iter().zip(outcomes) {
            match outcome {
                Outcome::Done => done.push(item),
                other => self.finish(item, other).await,
            }
        }
        self.acknowledge(&done).await;
    }

    async fn finish(&self, item: &Item, outcome: Outcome) {
        match outcome {
            Outcome::Done => self.respond(item, "+ACK").await,
            Outcome::Later(delay) => self.respond(item, &format!("-NAK {{\"delay\": {}}}", delay.as_nanos())).await,
            Outcome::Dead(reason) => self.bury(item, &reason).await,
        }
    }

    /// A dead letter is on disk before its message is acknowledged.
    async fn bury(&self, item: &Item, reason: &str) {
        if planted::is("poison-silent") {
            return self.respond(item, "+ACK").await;
        }
        let (stage, sequence, stored) = (self.handler.stage(), item.sequence, item.published);
        let letter = DeadLetter { stage, reason, sequence, stored, message: &item.message };
        let mut backoff = Backoff::default();
        while let Err(error) =
            self.with_heartbeat(std::slice::from_ref(item), dead_letter::publish(&self.bus, &letter)).await
        {
            tracing::warn!(message.id = item.sequence, %error, "a dead letter cannot be written; trying again");
            if !self.with_heartbeat(std::slice::from_ref(item), self.stop.sleep(backoff.pause())).await {
                return self.respond(item, "-NAK").await;
            }
        }
        let provider = self.bus.names().parse_event(item.subject()).map_or_else(String::new, |(provider, _)| provider);
        let labels = [opentelemetry::KeyValue::new("stage", stage), opentelemetry::KeyValue::new("provider", provider)];
        self.counters.dead.add(1, &labels);
        tracing::warn!(
            message.id = item.sequence,
            message.deliveries = item.deliveries,
            subject = item.subject(),
            reason,
            "dead letter"
        );
        self.respond(item, "+ACK").await;
    }

    async fn give_back(&self, items: &[Item]) {
        let endings: Vec<_> = items.iter().map(|item| self.respond(item, "-NAK")).collect();
        futures::stream::iter(endings).buffer_unordered(ANSWERS_IN_FLIGHT).collect::<()>().await;
    }
}

enum Handled {
    Outcomes(Vec<Outcome>),
    Failed(String),
    Stopped,
    /// The stream was lost since they were taken; what it has of them comes again.
    Lost,
}
