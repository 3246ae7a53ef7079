//! Snapshots among other events, in any order of arrival and more than once, give what one by one in order gives: on the real database.

use crate::event::{Change, Event, upsert};
use crate::order_test::{Random, catalog_of, commit};
use crate::snapshots::{Found, SnapshotsConfig, turn};
use crate::{Pipeline, Processor, testing};
use serde_json::json;
use std::collections::HashMap;
use store::Parts;

const SEQUENCES: u64 = 240;
const REFS: u64 = 25;
/// Snapshots that overlap: of which provider, from which sequence to which, its end included.
const SPANS: [(&str, &str, u64, u64); 5] = [
    ("p0", "a", 40, 120),
    ("p0", "b", 90, 170),
    ("p1", "a", 60, 100),
    ("p1", "c", 150, 220),
    ("p2", "empty", 200, 200),
];

/// What stands at a sequence.
enum Message {
    Event(Box<Event>),
    End(&'static str, &'static str),
}

#[tokio::test(flavor = "multi_thread")]
async fn arrival_never_decides_what_is_swept() {
    for seed in 1..=4 {
        println!("seed {seed}");
        check(0x5eed_1000 + seed).await;
    }
}

async fn check(seed: u64) {
    let bus = testing::bus("sweep").await;
    let messages = generate(&mut Random(seed), &testing::pipeline(&bus));
    let ordered = processor().await;
    for index in 0..messages.len() {
        take(&ordered, &messages, &[index]).await;
        settle(&ordered, index as i64 + 1).await;
    }

    let shuffled = processor().await;
    let mut random = Random(seed ^ 7);
    let mut arrivals: Vec<usize> = (0..messages.len()).chain(0..messages.len()).collect();
    for i in (1..arrivals.len()).rev() {
        // Not too far from where they stand, so that the floor moves meanwhile.
        arrivals.swap(i, i - random.below(60.min(i as u64 + 1)) as usize);
    }
    let mut arrived = vec![false; messages.len()];
    for batch in arrivals.chunks(11) {
        take(&shuffled, &messages, batch).await;
        batch.iter().for_each(|index| arrived[*index] = true);
        if random.below(3) == 0 {
            let floor = arrived.iter().take_while(|arrived| **arrived).count();
            shuffled.store.raise_floor(floor as i64).await.expect("the database answers");
            turn(&shuffled).await.expect("the database answers");
        }
    }
    settle(&shuffled, messages.len() as i64).await;

    let rows = |rows: Vec<store::SnapshotRow>| {
        let mut rows: Vec<_> =
            rows.into_iter().map(|row| (row.provider, row.snapshot, row.state, row.begun, row.parts)).collect();
        rows.sort();
        rows
    };
    let found = rows(shuffled.store.snapshot_rows(100).await.expect("the database answers"));
    assert_eq!(rows(ordered.store.snapshot_rows(100).await.expect("the database answers")), found);
    assert!(found.iter().all(|row| row.2 == "done"), "{found:?}");
    assert_eq!(found.len(), SPANS.len());
    let (expected, found) = (catalog_of(&ordered).await, catalog_of(&shuffled).await);
    for (entity_ref, expected) in &expected {
        assert_eq!(Some(expected), found.get(entity_ref), "{entity_ref}");
    }
}

async fn processor() -> Processor {
    let mut processor = testing::processor("sweep").await;
    processor.config.snapshots = SnapshotsConfig { max_removal_percent: 100, ..SnapshotsConfig::default() };
    processor
}

/// As a batch that is delivered.
async fn take(processor: &Processor, messages: &[Message], indexes: &[usize]) {
    let events: Vec<&Event> = indexes
        .iter()
        .filter_map(|index| match &messages[*index] {
            Message::Event(event) => Some(&**event),
            Message::End(..) => None,
        })
        .collect();
    commit(processor, &events).await;
    for index in indexes {
        if let Message::End(provider, snapshot) = &messages[*index] {
            let count = messages.iter().filter(|message| is_part(message, provider, snapshot)).count() as i64;
            let ended = processor.store.end_snapshot((provider, snapshot), *index as i64 + 1, count).await;
            assert!(ended.expect("the database answers"), "{provider} {snapshot}");
        }
    }
}

fn is_part(message: &Message, provider: &str, snapshot: &str) -> bool {
    let Message::Event(event) = message else { return false };
    let of = |upsert: &crate::event::Upsert| upsert.snapshot.as_deref() == Some(snapshot);
    event.source == format!("provider:{provider}") && matches!(&event.change, Change::Upsert(upsert) if of(upsert))
}

/// The floor is there, and what it makes possible is done.
async fn settle(processor: &Processor, floor: i64) {
    processor.store.raise_floor(floor).await.expect("the database answers");
    while turn(processor).await.expect("the database answers") == Found::Swept {}
}

fn generate(random: &mut Random, pipeline: &Pipeline) -> Vec<Message> {
    let limits = catalog::entity::Limits::default();
    let ends: HashMap<u64, (&str, &str)> = SPANS.iter().map(|(p, id, _, end)| (*end, (*p, *id))).collect();
    let message = |sequence: u64, random: &mut Random| {
        if let Some((provider, snapshot)) = ends.get(&sequence) {
            return Message::End(provider, snapshot);
        }
        let (name, provider) = (format!("c{}", random.below(REFS)), ["p0", "p1", "p2"][random.below(3) as usize]);
        let mut entity_ref = format!("component:default/{name}");
        let mut change = Change::Delete;
        if random.below(8) > 0 {
            let entity = json!({
                "apiVersion": "backstage.io/v1alpha1", "kind": "Component", "metadata": {"name": name},
                "spec": {"type": "service", "lifecycle": format!("l{sequence}"), "owner": "team"}
            });
            let key = [None, Some("K"), Some("L")][random.below(3) as usize];
            (entity_ref, change) =
                upsert(entity.to_string().as_bytes(), key, "t.events.p", pipeline, &limits).expect("it can be a claim");
            let spans = SPANS.iter().filter(|(p, _, from, to)| *p == provider && (*from..*to).contains(&sequence));
            let spans: Vec<&str> = spans.map(|(_, id, ..)| *id).collect();
            if let (Change::Upsert(upsert), false) = (&mut change, spans.is_empty() || random.below(4) == 0) {
                upsert.snapshot = Some(spans[random.below(spans.len() as u64) as usize].to_owned());
            }
        }
        let source = format!("provider:{provider}");
        Message::Event(Box::new(Event { sequence, stored: 1, emitted: None, entity_ref, source, change }))
    };
    (1..=SEQUENCES).map(|sequence| message(sequence, random)).collect()
}

#[tokio::test]
async fn a_refused_part_and_a_silent_snapshot_withdraw_nothing() {
    let mut processor = testing::processor("held").await;
    let part = Parts { provider: "p".into(), snapshot: "s".into(), first: 5, highest: 5, count: 1 };
    for _ in 0..2 {
        processor.store.note_refused(std::slice::from_ref(&part)).await.expect("the database answers");
    }
    assert!(processor.store.end_snapshot(("p", "s"), 6, 1).await.expect("the database answers"));
    assert!(processor.store.end_snapshot(("p", "s"), 6, 1).await.expect("the database answers"), "delivered again");
    assert!(!processor.store.end_snapshot(("p", "s"), 9, 1).await.expect("the database answers"), "its id is used");
    let state = async |processor: &Processor| {
        turn(processor).await.expect("the database answers");
        processor.store.snapshot_rows(1).await.expect("the database answers").remove(0).state
    };
    assert_eq!(state(&processor).await, "open", "the floor has not passed it");
    assert_eq!(processor.store.watermark().await.expect("the database answers"), 0);
    processor.store.raise_floor(8).await.expect("the database answers");
    assert_eq!(processor.store.watermark().await.expect("the database answers"), 4, "the snapshot is not swept");
    assert_eq!(state(&processor).await, "held");
    assert_eq!(processor.store.watermark().await.expect("the database answers"), 8, "nobody waits for an operator");
    assert!(processor.store.approve_snapshot("p", "s").await.expect("the database answers"));
    assert_eq!(state(&processor).await, "done");
    assert!(!processor.store.discard_snapshot("p", "s").await.expect("the database answers"), "it is over");

    assert!(processor.store.end_snapshot(("p", "t"), 20, 1).await.expect("the database answers"));
    assert_eq!(state(&processor).await, "open", "its part has not come");
    processor.config.snapshots.timeout = std::time::Duration::ZERO;
    assert_eq!(state(&processor).await, "timed_out");
}
