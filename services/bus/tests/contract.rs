//! What the bus promises of streams, ids, expectations, consumers and followers: the same on a real broker and on its twin.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod both;

use both::{LIMIT, both, wait_until};
use bus::twin::{Snapshot, Twin};
use bus::{
    Bus, Error, Failure, Followed, Follower, Handler, Item, Lane, Lanes, Limits, Names, Outcome, Record, Stop, Worker,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

struct Case {
    bus: Bus,
    limits: Limits,
    /// None: nats-server.
    twin: Option<Twin>,
}

impl Case {
    async fn both() -> [Case; 2] {
        let [(real, _), (imagined, twin)] = both("contract").await;
        [Case::on(real, None).await, Case::on(imagined, twin).await]
    }

    async fn on(bus: Bus, twin: Option<Twin>) -> Case {
        let limits = Limits {
            events_bytes: 1 << 20,
            stitch_bytes: 8 << 20,
            dead_letters_bytes: 8 << 20,
            ack_wait: Duration::from_secs(1),
            ..Limits::default()
        };
        let case = Case { bus, limits, twin };
        case.ensure(None).await;
        case
    }

    async fn ensure(&self, unsettled: Option<SystemTime>) {
        bus::ensure_streams(&self.bus, &self.limits).await.unwrap();
        bus::ensure_consumers(&self.bus, &self.limits, unsettled).await.unwrap();
    }

    fn event(&self, body: &str) -> Record {
        Record::new(self.bus.names().event("p1", "upsert"), body.to_owned())
    }

    fn entity(&self, name: &str, version: i64, content: Option<&str>) -> Record {
        let content = content.map(|hash| (hash, b"{}".to_vec()));
        bus::entity_record(&self.bus, &format!("component:default/{name}"), version, version, content)
    }

    fn events(&self) -> String {
        self.bus.names().events_stream()
    }

    async fn counts(&self) -> (u64, u64, u64) {
        let status = bus::consumer_status(&self.bus, &self.events(), Names::PROCESSOR).await.unwrap();
        (status.pending, status.in_flight, status.acknowledged_through)
    }

    /// Works until `done`, with a handler that says of each message what becomes of it.
    async fn work(&self, say: impl Fn(&Item) -> Outcome + Send + Sync + 'static, done: impl AsyncFn() -> bool) {
        let (stopper, stop) = bus::stop();
        let worker = self.worker(say, &stop);
        let watch = async {
            wait_until("the case's end", done).await;
            stopper.stop();
        };
        tokio::join!(worker.run(1), watch);
    }

    fn worker<S: Fn(&Item) -> Outcome + Send + Sync + 'static>(&self, say: S, stop: &Stop) -> Worker<Says<S>> {
        let lane =
            Lane { name: "fresh", stream: self.events(), durable: Names::PROCESSOR, messages: 100, bytes: 1 << 20 };
        Worker::new(&self.bus, Arc::new(Says(say)), vec![lane], self.limits.ack_wait, stop)
    }
}

struct Says<S>(S);

impl<S: Fn(&Item) -> Outcome + Send + Sync> Handler for Says<S> {
    fn stage(&self) -> &'static str {
        "processor"
    }

    async fn may_fetch(&self, _lane: &Lane) -> bool {
        true
    }

    async fn handle(&self, _lane: &Lane, items: &[Item]) -> Result<Vec<Outcome>, Failure> {
        Ok(items.iter().map(&self.0).collect())
    }
}

#[tokio::test]
async fn an_id_is_known_for_a_while() {
    for case in Case::both().await {
        let first = bus::publish(&case.bus, &case.event("a").with_id("one")).await.unwrap();
        let again = bus::publish(&case.bus, &case.event("b").with_id("one")).await.unwrap();
        assert_eq!((first.sequence, first.duplicate, again.sequence, again.duplicate), (1, false, 1, true));
        let batch = [case.event("c"), case.event("d").with_id("one")];
        let refused = bus::publish_at_once(&case.bus, &batch).await;
        assert!(matches!(refused, Err(Error::Unusable(_))), "{refused:?}");
        let twice = [case.event("c").with_id("two"), case.event("d").with_id("two")];
        assert!(bus::publish_at_once(&case.bus, &twice).await.is_err());
        assert_eq!(bus::stream_status(&case.bus, &case.events()).await.unwrap().last_sequence, 1);
    }
}

#[tokio::test]
async fn a_full_stream_refuses_and_keeps_what_it_has() {
    for case in Case::both().await {
        let big = "x".repeat(400 << 10);
        bus::publish(&case.bus, &case.event(&big)).await.unwrap();
        bus::publish(&case.bus, &case.event(&big)).await.unwrap();
        let refused = bus::publish(&case.bus, &case.event(&big)).await;
        assert!(matches!(refused, Err(Error::Full(_))), "{refused:?}");
        let small = bus::publish(&case.bus, &case.event("a")).await.unwrap();
        assert_eq!(small.sequence, 3, "what is refused takes no sequence");
        bus::purge_through(&case.bus, &case.events(), 2).await.unwrap();
        bus::publish(&case.bus, &case.event(&big)).await.unwrap();
        let status = bus::stream_status(&case.bus, &case.events()).await.unwrap();
        assert_eq!((status.messages, status.first_sequence, status.last_sequence), (2, 3, 4));
    }
}

#[tokio::test]
async fn nobody_takes_a_subject_that_no_stream_has() {
    for case in Case::both().await {
        let lost = bus::publish(&case.bus, &Record::new("elsewhere.a", "x")).await;
        assert!(matches!(&lost, Err(Error::Away(what)) if what.contains("no stream")), "{lost:?}");
        let unheard = bus::ask(&case.bus, "elsewhere.b", b"?".to_vec(), Duration::from_secs(1)).await;
        assert!(matches!(unheard, Err(Error::Away(_))));
    }
}

#[tokio::test]
async fn the_counts_of_a_consumer_follow_its_acknowledgements() {
    for case in Case::both().await {
        for body in ["a", "later", "c"] {
            bus::publish(&case.bus, &case.event(body)).await.unwrap();
        }
        assert_eq!(case.counts().await, (3, 0, 0));
        let deliveries = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&deliveries);
        let say = move |item: &Item| {
            if item.payload() == "later" && seen.fetch_add(1, Ordering::Relaxed) < 2 {
                return Outcome::Later(Duration::from_millis(400));
            }
            Outcome::Done
        };
        let halfway = Mutex::new(None);
        case.work(say, async || {
            let counts = case.counts().await;
            if counts.1 == 1 && counts.0 == 0 {
                halfway.lock().unwrap().get_or_insert(counts);
            }
            counts == (0, 0, 3)
        })
        .await;
        assert_eq!(*halfway.lock().unwrap(), Some((0, 1, 1)), "what waits keeps its place");
        assert_eq!(deliveries.load(Ordering::Relaxed), 3);
        let settled = bus::settled_through(&case.bus, &Lanes::events(case.bus.names())).await.unwrap();
        assert_eq!(settled, 3);
    }
}

#[tokio::test]
async fn silence_is_followed_by_another_delivery() {
    for case in Case::both().await {
        bus::publish(&case.bus, &case.event("a")).await.unwrap();
        {
            let (_stopper, stop) = bus::stop();
            let taken = Arc::new(AtomicUsize::new(0));
            let seen = Arc::clone(&taken);
            let worker = case.worker(
                move |_| {
                    seen.fetch_add(1, Ordering::Relaxed);
                    panic!("the worker dies with the message in its hands")
                },
                &stop,
            );
            let ran = tokio::spawn(worker.run(1)).await;
            assert!(ran.is_err() && taken.load(Ordering::Relaxed) == 1);
        }
        let begun = Instant::now();
        let deliveries = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&deliveries);
        let say = move |item: &Item| {
            seen.lock().unwrap().push(item.deliveries);
            Outcome::Done
        };
        case.work(say, async || case.counts().await == (0, 0, 1)).await;
        assert_eq!(*deliveries.lock().unwrap(), [2]);
        assert!(begun.elapsed() >= case.limits.ack_wait / 2, "not before the time is over");
    }
}

#[tokio::test]
async fn a_consumer_made_anew_begins_above_what_is_settled() {
    for case in Case::both().await {
        for body in ["a", "b", "c"] {
            bus::publish(&case.bus, &case.event(body)).await.unwrap();
        }
        bus::delete(&case.bus, &case.events(), Some(Names::PROCESSOR)).await.unwrap();
        assert!(bus::delete(&case.bus, &case.events(), Some(Names::PROCESSOR)).await.is_err());
        assert!(bus::consumer_status(&case.bus, &case.events(), Names::PROCESSOR).await.is_err());
        let (_, third) = bus::next_stored(&case.bus, &case.events(), 3).await.unwrap().unwrap();
        case.ensure(Some(third)).await;
        assert_eq!(case.counts().await, (1, 0, 2));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&seen);
        let say = move |item: &Item| {
            taken.lock().unwrap().push(item.sequence);
            Outcome::Done
        };
        case.work(say, async || case.counts().await == (0, 0, 3)).await;
        assert_eq!(*seen.lock().unwrap(), [3]);
    }
}

#[tokio::test]
async fn a_consumer_of_a_stream_that_was_replaced_meanwhile_begins_with_all_of_it() {
    for case in Case::both().await {
        for body in ["a", "b", "c"] {
            bus::publish(&case.bus, &case.event(body)).await.unwrap();
        }
        let (_, third) = bus::next_stored(&case.bus, &case.events(), 3).await.unwrap().unwrap();
        bus::delete(&case.bus, &case.events(), None).await.unwrap();
        bus::ensure_streams(&case.bus, &case.limits).await.unwrap();
        bus::publish(&case.bus, &case.event("d")).await.unwrap();
        case.ensure(Some(third)).await;
        assert_eq!(case.counts().await, (1, 0, 0));
    }
}

#[tokio::test]
async fn a_stream_knows_its_messages() {
    for case in Case::both().await {
        for body in ["a", "b", "c"] {
            bus::publish(&case.bus, &case.event(body)).await.unwrap();
        }
        let stream = case.events();
        let stored = async |sequence| bus::next_stored(&case.bus, &stream, sequence).await.unwrap().unwrap().1;
        let (first, third) = (stored(1).await, stored(3).await);
        assert!(first < third);
        let status = bus::find_stream(&case.bus, &stream).await.unwrap().unwrap();
        assert_eq!((status.last_stored, status.messages), (third, 3));
        assert!(status.created < first);
        bus::purge_through(&case.bus, &stream, 3).await.unwrap();
        assert_eq!(bus::next_stored(&case.bus, &stream, 3).await.unwrap(), None);
        let status = bus::find_stream(&case.bus, &stream).await.unwrap().unwrap();
        assert_eq!((status.messages, status.first_sequence, status.last_sequence), (0, 4, 3));
        assert_eq!(case.counts().await, (0, 0, 3), "what is purged is nobody's any more");
        bus::delete(&case.bus, &stream, None).await.unwrap();
        assert!(bus::find_stream(&case.bus, &stream).await.unwrap().is_none());
        assert!(bus::stream_status(&case.bus, &stream).await.is_err());
        case.ensure(None).await;
        assert!(bus::find_stream(&case.bus, &stream).await.unwrap().unwrap().created > status.created);
    }
}

#[tokio::test]
async fn of_each_entity_the_newest_message_stands() {
    for case in Case::both().await {
        for record in [
            case.entity("a", 1, Some("h1")),
            case.entity("b", 2, Some("h2")),
            case.entity("a", 3, Some("h3")),
            case.entity("b", 4, None),
            bus::watermark_record(&case.bus, 9),
        ] {
            bus::publish(&case.bus, &record).await.unwrap();
        }
        let mut newest = Vec::new();
        bus::newest_entities(&case.bus, |entity_ref, one| {
            newest.push((entity_ref, one.sequence, one.version, one.hash));
        })
        .await
        .unwrap();
        newest.sort();
        let expected = [("component:default/a", 3, 3, Some("h3")), ("component:default/b", 4, 4, None)];
        let expected = expected.map(|(entity_ref, sequence, version, hash)| {
            (entity_ref.to_owned(), sequence, version, hash.map(str::to_owned))
        });
        assert_eq!(newest, expected);
        let one = bus::newest_entity(&case.bus, "component:default/a").await.unwrap().unwrap();
        assert_eq!((one.sequence, one.version), (3, 3));
        assert_eq!(bus::last_entity(&case.bus, None).await.unwrap(), 5);
    }
}

#[tokio::test]
async fn a_follower_is_told_all_and_then_what_comes() {
    for case in Case::both().await {
        for (name, version) in [("a", 1), ("b", 2), ("a", 3)] {
            bus::publish(&case.bus, &case.entity(name, version, Some("h"))).await.unwrap();
        }
        let mut follower = Follower::new(&case.bus);
        assert_eq!(told(&mut follower, 4).await, ["stream", "b 2", "a 3", "caught up"]);
        bus::publish(&case.bus, &bus::watermark_record(&case.bus, 7)).await.unwrap();
        bus::publish(&case.bus, &case.entity("b", 4, None)).await.unwrap();
        assert_eq!(told(&mut follower, 2).await, ["watermark 7", "b 4 gone"]);
        assert_eq!(follower.sequence(), 5);
        bus::delete(&case.bus, &case.bus.names().entities_stream(), None).await.unwrap();
        case.ensure(None).await;
        bus::publish(&case.bus, &case.entity("c", 5, Some("h"))).await.unwrap();
        assert_eq!(told(&mut follower, 4).await, ["replaced", "stream", "c 5", "caught up"]);
    }
}

async fn told(follower: &mut Follower, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..count {
        let followed = tokio::time::timeout(LIMIT, follower.next()).await.unwrap();
        all.push(match followed {
            Followed::Stream(_) => "stream".to_owned(),
            Followed::StreamReplaced => "replaced".to_owned(),
            Followed::CaughtUp => "caught up".to_owned(),
            Followed::Watermark(revision) => format!("watermark {revision}"),
            Followed::Entity(entity) => {
                let name = entity.entity_ref.rsplit('/').next().unwrap();
                format!("{name} {}{}", entity.version, if entity.body.is_some() { "" } else { " gone" })
            }
        });
    }
    all
}

/// What only the twin can be told: to lose what it has.
#[tokio::test(start_paused = true)]
async fn a_twin_goes_back_to_what_it_was() {
    let twin = Twin::new(Arc::new(()));
    let (bus, line) = twin.connect("back").unwrap();
    let running = twin.clone();
    tokio::spawn(async move { running.run().await });
    let case = Case::on(bus, Some(twin)).await;
    let twin = case.twin.as_ref().unwrap();
    bus::publish(&case.bus, &case.event("a").with_id("one")).await.unwrap();
    let older = twin.snapshot();
    bus::publish(&case.bus, &case.event("b").with_id("two")).await.unwrap();
    let mut connections = case.bus.connections();
    connections.mark_unchanged();
    twin.restore(&older);
    assert!(connections.has_changed().unwrap(), "the connection was made anew");
    let again = bus::publish(&case.bus, &case.event("a").with_id("one")).await.unwrap();
    assert!(again.duplicate, "a stored id is known after a restart");
    let other = bus::publish(&case.bus, &case.event("c").with_id("two")).await.unwrap();
    assert_eq!((other.sequence, other.duplicate), (2, false), "what was lost is not");
    assert_eq!(twin.history().len(), 3);

    line.stall(Duration::from_secs(7));
    let begun = tokio::time::Instant::now();
    let late = bus::publish(&case.bus, &case.event("d")).await;
    assert!(matches!(late, Err(Error::Away(_))) && begun.elapsed() == Duration::from_secs(5));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(twin.messages(&case.events()).len(), 3, "it arrived all the same");

    twin.restore(&Snapshot::default());
    assert!(bus::find_stream(&case.bus, &case.events()).await.unwrap().is_none());
}
