//! Any order of arrival, with repetitions, by several processors at once, gives what one by one in order gives: on the real database.

use crate::event::{Change, Event, upsert};
use crate::{Pipeline, Processor, testing};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

const EVENTS: u64 = 1500;
const REFS: u64 = 150;

#[tokio::test(flavor = "multi_thread")]
async fn arrival_never_decides() {
    let seeds = std::env::var("CALLBOARD_TEST_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(3);
    for seed in 1..=seeds {
        println!("seed {seed}");
        check(0x5eed_0000 + seed).await;
    }
}

async fn check(seed: u64) {
    let events: Arc<Vec<Event>> =
        Arc::new(generate(&mut Random(seed), &testing::pipeline(&testing::bus("order").await)));

    let ordered = Arc::new(testing::processor("order").await);
    for batch in events.chunks(100) {
        let batch: Vec<&Event> = batch.iter().collect();
        commit(&ordered, &batch).await;
    }

    let shuffled = Arc::new(testing::processor("order").await);
    let mut arrivals: Vec<usize> = (0..events.len()).chain(0..events.len()).collect();
    let mut random = Random(seed ^ 1);
    for i in (1..arrivals.len()).rev() {
        arrivals.swap(i, random.below(i as u64 + 1) as usize);
    }
    let workers: Vec<_> = (0..3)
        .map(|worker| {
            let (processor, events) = (shuffled.clone(), events.clone());
            let mine: Vec<usize> = arrivals.iter().copied().skip(worker).step_by(3).collect();
            tokio::spawn(async move {
                let mut duplicates = 0;
                for batch in mine.chunks(17) {
                    let batch: Vec<&Event> = batch.iter().map(|index| &events[*index]).collect();
                    duplicates += commit(&processor, &batch).await;
                }
                duplicates
            })
        })
        .collect();
    let mut duplicates = 0;
    for worker in workers {
        duplicates += worker.await.expect("a worker does not panic");
    }
    let deletes_and_upserts = events.len() as u64;
    assert_eq!(duplicates, deletes_and_upserts, "each second arrival has no effect");

    let (expected, found) = (catalog_of(&ordered).await, catalog_of(&shuffled).await);
    assert_eq!(expected.len(), found.len());
    for (entity_ref, expected) in &expected {
        assert_eq!(Some(expected), found.get(entity_ref), "{entity_ref}");
    }
    assert!(expected.values().filter(|entity| entity.body.is_some()).count() > 50, "the case is not empty");
}

/// A worker's own retry, since collisions are expected: three of them lock the same refs.
pub(crate) async fn commit(processor: &Processor, batch: &[&Event]) -> u64 {
    for _ in 0..100 {
        match processor.decide_and_commit("bulk", batch).await {
            Ok((plan, _)) => return plan.duplicates,
            Err(store::Error::Collision(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("a batch collided a hundred times");
}

#[derive(Debug, PartialEq)]
pub(crate) struct Shown {
    born: Option<i64>,
    body: Option<String>,
    error: Option<String>,
    incoming: Vec<(String, String)>,
}

/// Everything that stitching would see.
pub(crate) async fn catalog_of(processor: &Processor) -> BTreeMap<String, Shown> {
    let ids: Vec<i64> = (1..20_000).collect();
    let mut stitching = processor
        .store
        .stitch(&ids.iter().map(|id| (*id, store::WHATEVER)).collect::<Vec<_>>())
        .await
        .expect("nobody else locks");
    let shown = stitching.read_shown(&ids).await.expect("the database answers");
    let mut incoming: BTreeMap<i64, Vec<(String, String)>> = BTreeMap::new();
    for row in stitching.read_incoming(&ids).await.expect("the database answers") {
        incoming.entry(row.subject_id).or_default().push((row.relation_type, row.target_ref));
    }
    let entity = |entity: store::Shown| {
        let mut incoming = incoming.remove(&entity.entity_id).unwrap_or_default();
        incoming.sort();
        let body = entity.body.map(|body| String::from_utf8(body).expect("a body is JSON"));
        (entity.entity_ref, Shown { born: entity.born, body, error: entity.error, incoming })
    };
    shown.into_iter().map(entity).collect()
}

fn generate(random: &mut Random, pipeline: &Pipeline) -> Vec<Event> {
    let limits = catalog::entity::Limits::default();
    let event = |sequence: u64, random: &mut Random| {
        let name = format!("c{}", random.below(REFS));
        let (entity_ref, change) = match random.below(10) {
            0 | 1 => (format!("component:default/{name}"), Change::Delete),
            what => {
                let mut metadata = json!({"name": name});
                if what == 2 {
                    metadata["tags"] = json!(["Not Valid"]);
                }
                let entity = json!({
                    "apiVersion": "backstage.io/v1alpha1", "kind": "Component", "metadata": metadata,
                    "spec": {
                        "type": "service", "lifecycle": "production", "owner": format!("team-{}", random.below(5)),
                        "dependsOn": [format!("component:c{}", random.below(REFS)), format!("resource:r{}", random.below(20))],
                    }
                });
                let key = [None, Some("K"), Some("L")][random.below(3) as usize];
                upsert(entity.to_string().as_bytes(), key, "t.events.p", pipeline, &limits).expect("it can be a claim")
            }
        };
        Event {
            sequence,
            stored: 1,
            emitted: None,
            entity_ref,
            source: format!("provider:p{}", random.below(3)),
            change,
        }
    };
    (1..=EVENTS).map(|sequence| event(sequence, random)).collect()
}

/// xorshift: enough for a test, and the same everywhere.
pub(crate) struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
