//! The worker loop on a real broker and on its twin: each message to one end, whatever fails on the way.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod both;

use both::{both, wait_until};
use bus::{Bus, Failure, Handler, Item, Lane, Lanes, Limits, Names, Outcome, Record, Stop, Stopper, Worker};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// What each message says of itself decides what becomes of it.
#[derive(Default)]
struct Script {
    handled: Mutex<HashMap<String, usize>>,
    order: Mutex<Vec<String>>,
    batches: AtomicUsize,
    away: AtomicBool,
    held: AtomicBool,
}

impl Script {
    fn times(&self, body: &str) -> usize {
        self.handled.lock().unwrap().get(body).copied().unwrap_or_default()
    }
}

impl Handler for Script {
    fn stage(&self) -> &'static str {
        "processor"
    }

    async fn may_fetch(&self, _lane: &Lane) -> bool {
        !self.held.load(Ordering::Relaxed)
    }

    async fn handle(&self, _lane: &Lane, items: &[Item]) -> Result<Vec<Outcome>, Failure> {
        self.batches.fetch_add(1, Ordering::Relaxed);
        if self.away.load(Ordering::Relaxed) {
            return Err(Failure::Away("switched off".into()));
        }
        if items.iter().any(|item| item.payload().starts_with(b"poison")) {
            return Err(Failure::Batch("poison".into()));
        }
        let mut outcomes = Vec::new();
        for item in items {
            let body = String::from_utf8(item.payload().to_vec()).unwrap();
            *self.handled.lock().unwrap().entry(body.clone()).or_default() += 1;
            self.order.lock().unwrap().push(body.clone());
            outcomes.push(match body.as_str() {
                "later" if item.deliveries == 1 => Outcome::Later(Duration::from_millis(300)),
                "dead" => Outcome::Dead("it says so".into()),
                _ => Outcome::Done,
            });
        }
        Ok(outcomes)
    }
}

struct Case {
    bus: Bus,
    limits: Limits,
    stopper: Stopper,
    stop: Stop,
}

impl Case {
    /// The same case on nats-server and on the twin.
    async fn both() -> [Case; 2] {
        let [(real, _), (imagined, _)] = both("worker").await;
        [Case::on(real).await, Case::on(imagined).await]
    }

    async fn on(bus: Bus) -> Case {
        let (stopper, stop) = bus::stop();
        let limits = Limits {
            events_bytes: 8 << 20,
            stitch_bytes: 8 << 20,
            dead_letters_bytes: 8 << 20,
            ack_wait: Duration::from_secs(2),
            ..Limits::default()
        };
        bus::ensure_streams(&bus, &limits).await.unwrap();
        bus::ensure_consumers(&bus, &limits, None).await.unwrap();
        Case { bus, limits, stopper, stop }
    }

    fn lanes(&self, messages: usize) -> Vec<Lane> {
        let lane =
            |name, durable| Lane { name, stream: self.bus.names().events_stream(), durable, messages, bytes: 1 << 20 };
        vec![lane("fresh", Names::PROCESSOR), lane("bulk", Names::PROCESSOR_BULK)]
    }

    async fn publish(&self, operation: &str, bodies: impl IntoIterator<Item = String>) {
        let subject = self.bus.names().event("p1", operation);
        let records: Vec<Record> = bodies.into_iter().map(|body| Record::new(&subject, body)).collect();
        bus::publish_all(&self.bus, &records).await.unwrap();
    }

    async fn run(&self, script: &Arc<Script>, messages: usize, done: impl AsyncFn() -> bool) {
        let worker = Worker::new(&self.bus, script.clone(), self.lanes(messages), self.limits.ack_wait, &self.stop);
        let watch = async {
            wait_until("the case's end", done).await;
            self.stopper.stop();
        };
        tokio::join!(worker.run(1), watch);
    }

    async fn settled(&self) -> u64 {
        bus::settled_through(&self.bus, &Lanes::events(self.bus.names())).await.unwrap()
    }

    async fn dead(&self) -> u64 {
        bus::stream_status(&self.bus, &self.bus.names().dead_letters_stream()).await.unwrap().messages
    }
}

fn numbered(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("m{number}"))
}

#[tokio::test]
async fn a_failing_batch_is_split_until_the_guilty_message_is_alone() {
    for case in Case::both().await {
        case.publish("upsert", numbered(20).chain(["poison".into()]).chain((20..40).map(|n| format!("m{n}")))).await;
        let script = Arc::new(Script::default());
        case.run(&script, 100, async || case.settled().await == 41).await;
        assert_eq!(case.dead().await, 1);
        for number in 0..40 {
            assert_eq!(script.times(&format!("m{number}")), 1, "m{number} once");
        }
    }
}

#[tokio::test]
async fn an_outage_makes_no_dead_letter_and_outlives_ack_wait() {
    for case in Case::both().await {
        case.publish("upsert", numbered(10)).await;
        let script = Arc::new(Script::default());
        script.away.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        case.run(&script, 100, async || {
            if begun.elapsed() > case.limits.ack_wait * 3 / 2 {
                script.away.store(false, Ordering::Relaxed);
            }
            case.settled().await == 10
        })
        .await;
        assert_eq!(case.dead().await, 0);
        for number in 0..10 {
            assert_eq!(script.times(&format!("m{number}")), 1, "m{number} was kept by heartbeats");
        }
    }
}

#[tokio::test]
async fn outcomes_are_carried_out() {
    for case in Case::both().await {
        case.publish("upsert", ["later".into(), "dead".into(), "done".into()]).await;
        let script = Arc::new(Script::default());
        case.run(&script, 100, async || case.settled().await == 3).await;
        assert_eq!((script.times("later"), script.times("dead"), script.times("done")), (2, 1, 1));
        assert_eq!(case.dead().await, 1);
    }
}

/// Keeps each bulk batch in hand until it is told to go on.
struct Slow {
    bulk_in_hand: AtomicUsize,
    fresh: AtomicUsize,
    goes_on: tokio::sync::Semaphore,
}

impl Default for Slow {
    fn default() -> Self {
        Slow { bulk_in_hand: AtomicUsize::new(0), fresh: AtomicUsize::new(0), goes_on: tokio::sync::Semaphore::new(0) }
    }
}

impl Handler for Slow {
    fn stage(&self) -> &'static str {
        "processor"
    }

    async fn may_fetch(&self, _lane: &Lane) -> bool {
        true
    }

    async fn handle(&self, lane: &Lane, items: &[Item]) -> Result<Vec<Outcome>, Failure> {
        if lane.name == "fresh" {
            self.fresh.fetch_add(items.len(), Ordering::Relaxed);
        } else {
            self.bulk_in_hand.fetch_add(1, Ordering::Relaxed);
            self.goes_on.acquire().await.unwrap().forget();
            self.bulk_in_hand.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(items.iter().map(|_| Outcome::Done).collect())
    }
}

#[tokio::test]
async fn nothing_fresh_waits_for_a_bulk_batch() {
    for case in Case::both().await {
        let slow = Arc::new(Slow::default());
        let worker = Worker::new(&case.bus, slow.clone(), case.lanes(1), case.limits.ack_wait, &case.stop);
        let watch = async {
            for round in 1..=3 {
                // The loops wait for a first message; then all that take bulk have one in hand.
                case.publish("import", numbered(2)).await;
                wait_until("bulk", async || slow.bulk_in_hand.load(Ordering::Relaxed) == 2).await;
                for _ in 0..4 {
                    case.publish("upsert", numbered(1)).await;
                }
                wait_until("fresh", async || slow.fresh.load(Ordering::Relaxed) == 4 * round).await;
                assert_eq!(slow.bulk_in_hand.load(Ordering::Relaxed), 2, "bulk is still in hand");
                slow.goes_on.add_permits(2);
                wait_until("the round's end", async || case.settled().await == 6 * round as u64).await;
            }
            case.stopper.stop();
        };
        tokio::join!(worker.run(2), watch);
    }
}

#[tokio::test]
async fn competing_workers_take_each_message_once() {
    for case in Case::both().await {
        case.publish("import", numbered(300)).await;
        let (one, two) = (Arc::new(Script::default()), Arc::new(Script::default()));
        let worker = |script: &Arc<Script>| {
            Worker::new(&case.bus, script.clone(), case.lanes(7), case.limits.ack_wait, &case.stop)
        };
        let (first, second) = (worker(&one), worker(&two));
        let watch = async {
            wait_until("everything", async || case.settled().await == 300).await;
            case.stopper.stop();
        };
        tokio::join!(first.run(1), second.run(1), watch);
        for number in 0..300 {
            let body = format!("m{number}");
            assert_eq!(one.times(&body) + two.times(&body), 1, "{body}");
        }
        assert!(one.batches.load(Ordering::Relaxed) > 5 && two.batches.load(Ordering::Relaxed) > 5, "both worked");
    }
}

#[tokio::test]
async fn what_a_lost_worker_held_comes_to_another() {
    for case in Case::both().await {
        case.publish("upsert", numbered(5)).await;
        let hoarder = Arc::new(Script::default());
        hoarder.away.store(true, Ordering::Relaxed);
        {
            // Dropped in the middle of its work: no acknowledgement, no goodbye.
            let worker = Worker::new(&case.bus, hoarder.clone(), case.lanes(100), case.limits.ack_wait, &case.stop);
            tokio::select! {
                () = worker.run(1) => {}
                () = wait_until("the batch", async || hoarder.batches.load(Ordering::Relaxed) > 0) => {}
            }
        }
        let script = Arc::new(Script::default());
        case.run(&script, 100, async || case.settled().await == 5).await;
        assert_eq!(script.handled.lock().unwrap().len(), 5);
    }
}

#[tokio::test]
async fn what_is_in_hand_at_the_stop_is_given_back_at_once() {
    for case in Case::both().await {
        case.publish("upsert", numbered(5)).await;
        let script = Arc::new(Script::default());
        script.away.store(true, Ordering::Relaxed);
        case.run(&script, 100, async || script.batches.load(Ordering::Relaxed) > 0).await;
        let (_stopper, stop) = bus::stop();
        let next = Arc::new(Script::default());
        let worker = Worker::new(&case.bus, next.clone(), case.lanes(100), case.limits.ack_wait, &stop);
        let begun = Instant::now();
        tokio::select! {
            () = worker.run(1) => {}
            () = wait_until("redelivery", async || next.handled.lock().unwrap().len() == 5) => {}
        }
        assert!(begun.elapsed() < case.limits.ack_wait, "not by waiting until the broker misses us");
    }
}

#[tokio::test]
async fn a_held_lane_is_not_fetched() {
    for case in Case::both().await {
        case.publish("upsert", numbered(3)).await;
        let script = Arc::new(Script::default());
        script.held.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        case.run(&script, 100, async || {
            if begun.elapsed() > Duration::from_millis(300) {
                assert!(
                    script.held.load(Ordering::Relaxed) == script.order.lock().unwrap().is_empty()
                        || !script.held.load(Ordering::Relaxed)
                );
                script.held.store(false, Ordering::Relaxed);
            }
            case.settled().await == 3
        })
        .await;
    }
}

#[tokio::test]
async fn the_settled_mark_waits_for_every_lane_and_for_strays() {
    for case in Case::both().await {
        assert_eq!(case.settled().await, 0);
        case.publish("upsert", ["a".into()]).await;
        case.publish("teleport", ["stray".into()]).await;
        case.publish("import", ["b".into()]).await;
        assert_eq!(case.settled().await, 0, "nothing is acknowledged");
        let script = Arc::new(Script::default());
        case.run(&script, 100, async || case.settled().await == 3).await;
        assert_eq!(script.times("stray"), 0, "no consumer takes it");
        assert_eq!(bus::strays_through(&case.bus, 0, 3).await.unwrap(), 1);
        assert_eq!(bus::strays_through(&case.bus, 0, 3).await.unwrap(), 1, "again");
        assert_eq!(case.dead().await, 1, "and is written once");
    }
}

#[tokio::test]
async fn one_wrong_expectation_refuses_the_whole_batch() {
    for case in Case::both().await {
        let entity = |name: &str| {
            bus::entity_record(&case.bus, &format!("component:default/{name}"), 1, 1, Some(("h", b"{}".to_vec())))
        };
        let first = bus::publish_all(&case.bus, &[entity("a").expecting(0), entity("b").expecting(0)]).await.unwrap();
        assert_eq!(first, [1, 2]);
        let refused = bus::publish_all(&case.bus, &[entity("a").expecting(1), entity("b").expecting(1)]).await;
        assert!(matches!(refused, Err(bus::Error::WrongLastSequence(2))), "{refused:?}");
        let newest = bus::newest_entity(&case.bus, "component:default/a").await.unwrap().unwrap();
        assert_eq!(
            (newest.sequence, newest.version, newest.hash.as_deref()),
            (1, 1, Some("h")),
            "nothing of it was stored"
        );
        assert_eq!(bus::newest_entity(&case.bus, "component:default/c").await.unwrap(), None);
        let again = bus::publish_all(&case.bus, &[entity("a").expecting(1), entity("b").expecting(2)]).await.unwrap();
        assert_eq!(again, [3, 4]);
    }
}

#[tokio::test]
async fn a_stream_that_goes_before_its_consumers_stand_is_waited_for() {
    for case in Case::both().await {
        bus::delete(&case.bus, &case.bus.names().events_stream(), None).await.unwrap();
        let made = bus::ensure_consumers(&case.bus, &case.limits, None).await;
        assert!(made.as_ref().is_err_and(bus::Error::is_away), "{made:?}");
    }
}

#[tokio::test]
async fn two_that_make_a_consumer_at_once_do_not_stop_each_other() {
    for case in Case::both().await {
        let make = async |seconds| {
            let unsettled = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            bus::ensure_consumers(&case.bus, &case.limits, Some(unsettled)).await
        };
        for _ in 0..5 {
            bus::delete(&case.bus, &case.bus.names().events_stream(), Some(Names::PROCESSOR)).await.unwrap();
            let made = tokio::join!(make(1), make(2));
            for made in [made.0, made.1] {
                assert!(made.as_ref().err().is_none_or(bus::Error::is_away), "{made:?}");
            }
            make(3).await.unwrap();
        }
    }
}

#[tokio::test]
async fn drift_is_brought_back() {
    for case in Case::both().await {
        let wider = Limits { events_bytes: 4 << 20, ack_wait: Duration::from_secs(7), ..case.limits.clone() };
        for _ in 0..2 {
            bus::ensure_streams(&case.bus, &wider).await.unwrap();
            bus::ensure_consumers(&case.bus, &wider, None).await.unwrap();
        }
        case.publish("upsert", ["a".into()]).await;
        let script = Arc::new(Script::default());
        case.run(&script, 10, async || case.settled().await == 1).await;
    }
}
