//! Claims that were processed under another pipeline, processed again from what is stored of them: a walk over all entities, a bounded step at a time.
//!
//! The pipeline of the processor that was started last, if it is another one than before, is the one by which the walk goes; so two versions that run side by
//! side do not undo each other's work. One with an older pipeline goes on taking events, and has the walk begin anew as long as it does.

use crate::event::{Change, Event, Good, Read};
use crate::{Processor, decide, refs_of};
use bus::{Backoff, Stop};
use catalog::{entity, stored};
use serde_json::{Map, Value};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use store::{ReadWrite, WalkStep, WalkedClaim};

/// Between two steps: with [`ENTITIES`] it makes at most 400 entities a second, in the whole installation.
const PAUSE: Duration = Duration::from_millis(250);
/// How often it is looked whether there is a step to take.
const PERIOD: Duration = Duration::from_secs(5);
/// How often a processor with an older pipeline asks for the walk to begin anew.
const REPEATED: Duration = Duration::from_secs(60);
/// Entities in one step.
const ENTITIES: i64 = 100;
/// How often a step that another transaction is in the way of is tried.
const ATTEMPTS: u32 = 20;

/// Records this processor's pipeline, and takes steps of the walk under it until the stop signal.
pub(crate) async fn run(processor: &Processor, stop: &Stop) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
    while let Err(error) = begin(processor).await {
        tracing::debug!(%error, "the pipeline cannot be recorded now; trying until it can");
        if stop.is_stopped() {
            return;
        }
        stop.sleep(backoff.pause()).await;
    }
    backoff.reset();
    let fingerprint = processor.pipeline.fingerprint();
    let mut repeated = Instant::now();
    while !stop.is_stopped() {
        let outcome = match repeated.elapsed() < REPEATED {
            true => turn(processor).await,
            false => {
                repeated = Instant::now();
                processor.store.repeat_walk(fingerprint).await.map(|()| false)
            }
        };
        let pause = match outcome {
            Ok(true) => PAUSE,
            Ok(false) => PERIOD,
            Err(error) => {
                tracing::debug!(%error, "the walk under the new pipeline cannot go on now; trying until it can");
                backoff.pause()
            }
        };
        stop.sleep(pause).await;
    }
    if let Err(error) = processor.store.repeat_walk(fingerprint).await {
        tracing::debug!(%error, "what was processed under an older pipeline may stay so until its next event");
    }
}

/// Records the pipeline of this processor.
pub(crate) async fn begin(processor: &Processor) -> Result<(), store::Error> {
    if processor.store.begin_walk(processor.pipeline.fingerprint()).await? {
        tracing::info!("the pipeline is another one than before: every claim is processed again, some at a time");
    }
    Ok(())
}

/// One step of the walk; false: there is none to take now.
pub(crate) async fn turn(processor: &Processor) -> Result<bool, store::Error> {
    if processor.outbox_is_full.load(Ordering::Relaxed) || !processor.is_attached() {
        return Ok(false);
    }
    let fingerprint = processor.pipeline.fingerprint();
    let Some(step) = processor.store.take_walk(fingerprint, ENTITIES).await? else { return Ok(false) };
    let again = Again::of(processor, &step);
    match again.commit_patiently(processor).await {
        Ok(()) => {}
        Err(error @ (store::Error::Away(_) | store::Error::Collision(_))) => return Err(error),
        // It would be the same the next time, and others wait behind it.
        Err(error) => tracing::error!(%error, entities = ?(step.after, step.last), "claims cannot be processed again"),
    }
    processor.store.move_walk(fingerprint, &step).await?;
    Ok(true)
}

/// What a step does.
#[derive(Default)]
struct Again {
    /// What processing gives now.
    events: Vec<Event>,
    /// Claims that are to be read outside from now on, and what they say.
    reads: Vec<(ReadWrite, Vec<u8>)>,
    /// Of these, the refs.
    refs_of_reads: Vec<String>,
    /// Entity, source, hash before, hash now.
    hashes: Vec<(i64, String, String, String)>,
}

impl Again {
    fn of(processor: &Processor, step: &WalkStep) -> Again {
        let mut again = Again::default();
        for claim in &step.claims {
            // What was read outside before is read again in full when its time comes, for its notes name the pipeline, too.
            let Some(entity) = said(claim).filter(|_| !claim.is_due) else { continue };
            let hash_now = match claim.hash.split_once('-') {
                Some((content, _)) => format!("{content}-{}", processor.pipeline.fingerprint()),
                None => continue,
            };
            let (entity_id, source, before) = (claim.entity_id, claim.source.clone(), claim.hash.clone());
            if processor.pipeline.needs_outside(&entity) {
                let raw = serde_json::to_vec(&entity).expect("a JSON tree can be written");
                again
                    .reads
                    .push((ReadWrite { entity_id, source: source.clone(), hash: hash_now.clone(), asked: 0 }, raw));
                again.refs_of_reads.push(claim.entity_ref.clone());
            } else {
                again.events.extend(event(processor, claim, entity));
            }
            again.hashes.push((entity_id, source, before, hash_now));
        }
        again
    }

    async fn commit_patiently(&self, processor: &Processor) -> Result<(), store::Error> {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        let mut attempts = 0;
        loop {
            match self.commit(processor).await {
                Err(store::Error::Collision(_)) if attempts < ATTEMPTS => {
                    attempts += 1;
                    tokio::time::sleep(backoff.pause()).await;
                }
                other => return other,
            }
        }
    }

    /// As every batch: entities locked in ref order, claims read and decided on, everything written, the outbox row last.
    async fn commit(&self, processor: &Processor) -> Result<(), store::Error> {
        if self.hashes.is_empty() {
            return Ok(());
        }
        let events: Vec<&Event> = self.events.iter().collect();
        let (mut named, mut changed) = refs_of(&events);
        for refs in [&mut named, &mut changed] {
            refs.extend(self.refs_of_reads.iter().cloned());
            refs.sort_unstable();
            refs.dedup();
        }
        let (mut merge, entities) = processor.store.merge(&named, &changed).await?;
        let claims = merge.read_claims(&entities.iter().map(|entity| entity.id).collect::<Vec<_>>()).await?;
        let position = merge.read_position(&processor.bus.names().events_stream()).await?;
        let behind_the_floor = claims.0.revision + 1;
        let mut plan = decide::decide(entities, claims, &events, &position);
        plan.lowest_revision = behind_the_floor;
        processor.write(&mut merge, "bulk", &mut plan, &events).await?;
        merge.rehash_claims(&self.hashes).await?;
        merge.begin_reads("bulk", &self.reads).await?;
        let request = merge.commit("bulk", behind_the_floor, plan.to_stitch.iter().copied().collect()).await?;
        processor.after_commit("bulk", &plan, request).await;
        Ok(())
    }
}

/// What a claim says: as it came, or as it was processed, which gives the same when it is processed again without the relations that were made of it.
fn said(claim: &WalkedClaim) -> Option<Map<String, Value>> {
    let json = if claim.is_raw { claim.content.as_slice() } else { stored::json(&claim.content) };
    let mut entity: Map<String, Value> = serde_json::from_slice(json).ok()?;
    if !claim.is_raw {
        entity.shift_remove("relations");
    }
    Some(entity)
}

/// The claim processed anew, for as long as it has the content that was looked at.
fn event(processor: &Processor, claim: &WalkedClaim, entity: Map<String, Value>) -> Option<Event> {
    let unprocessed = entity::unprocessed(entity).ok()?;
    let provider = claim.source.strip_prefix(decide::PROVIDER).unwrap_or_default();
    let subject = processor.bus.names().event(provider, "");
    let outcome = match processor.pipeline.process(unprocessed, subject.trim_end_matches('.')) {
        Ok(processed) => Ok(Good { body: stored::store(processed.entity), foreign: processed.foreign }),
        Err(error) => Err(error.to_status_item().to_string()),
    };
    let change = Change::Read(Read { hash: claim.hash.clone(), outcome });
    let (entity_ref, source) = (claim.entity_ref.clone(), claim.source.clone());
    Some(Event { sequence: 0, stored: 0, emitted: Some(0), entity_ref, source, change })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::upsert;
    use crate::{Parts, Pipeline, testing};
    use catalog::model::{BUILTIN_RELATIONS, BUILTIN_SCHEMAS, Model};
    use serde_json::json;
    use std::sync::Arc;

    const RACKS: &str = r#"[{"kinds": ["Component"], "field": "rack", "defaultKind": "Rack", "relation": "standsIn", "reverse": "holds"}]"#;
    const RACK_KIND: &str = r#"{"properties": {"kind": {"enum": ["Rack"]}, "apiVersion": {"enum": ["example.com/v1"]},
        "spec": {"required": ["room"]}}}"#;

    async fn publish(processor: &Processor, sequence: u64, entity: Value) {
        let limits = catalog::entity::Limits::default();
        let bytes = entity.to_string().into_bytes();
        let (entity_ref, change) = upsert(&bytes, None, "t.events.p", &processor.pipeline, &limits).expect("a claim");
        let source = "provider:p".to_owned();
        let event = Event { sequence, stored: 1, emitted: None, entity_ref, source, change };
        processor.decide_and_commit("fresh", &[&event]).await.expect("nobody is in the way");
    }

    fn component(spec: Value) -> Value {
        json!({"apiVersion": "backstage.io/v1alpha1", "kind": "Component", "metadata": {"name": "a"}, "spec": spec})
    }

    /// Under the built-in kinds and more of them, as after a restart with another `kinds_dir`.
    fn restart(processor: &mut Processor, more_kinds: &[(&str, &str)], relations: &str) {
        let kinds = [BUILTIN_SCHEMAS.as_slice(), more_kinds].concat();
        let model = Model::from_parts(&kinds, &[BUILTIN_RELATIONS, ("mine.json", relations)]).expect("it compiles");
        let parts = Parts { model: Arc::new(model), ..Parts::builtin() };
        processor.pipeline = Arc::new(Pipeline::new(parts, &processor.bus).expect("usable"));
    }

    /// The whole walk; gives its steps.
    async fn walk(processor: &Processor) -> usize {
        begin(processor).await.expect("the database answers");
        for steps in 0..100 {
            if !turn(processor).await.expect("the database answers") {
                return steps;
            }
        }
        panic!("it does not end");
    }

    /// Of each entity: its relations (a good one), the incoming ones, and its error.
    async fn shown(processor: &Processor) -> Value {
        let ids: Vec<i64> = (1..100).collect();
        let any: Vec<_> = ids.iter().map(|id| (*id, store::WHATEVER)).collect();
        let mut stitching = processor.store.stitch(&any).await.expect("nobody else locks");
        let mut all = json!({});
        for shown in stitching.read_shown(&ids).await.expect("the database answers") {
            let body = shown.body.map(|body| serde_json::from_slice::<Value>(stored::json(&body)).expect("JSON"));
            let own = body.map(|body| body["relations"].clone()).unwrap_or_default();
            let own: Vec<String> = own.as_array().into_iter().flatten().map(|own| own["type"].to_string()).collect();
            if shown.born.is_some() {
                all[&shown.entity_ref] = json!([own.join(" ").replace('"', ""), shown.error.is_some()]);
            }
        }
        for incoming in stitching.read_incoming(&ids).await.expect("the database answers") {
            all["incoming"][incoming.relation_type] = json!(incoming.target_ref);
        }
        all
    }

    #[tokio::test]
    async fn under_another_pipeline_every_claim_is_processed_again() {
        let mut processor = testing::processor("again").await;
        walk(&processor).await;
        let spec = json!({"type": "t", "lifecycle": "l", "owner": "o", "rack": "r"});
        publish(&processor, 1, component(spec)).await;
        publish(
            &processor,
            2,
            json!({"apiVersion": "example.com/v1", "kind": "Rack", "metadata": {"name": "r"}, "spec": {"room": 1}}),
        )
        .await;
        let before = json!({"component:default/a": ["ownedBy", false], "rack:default/r": ["", true],
            "incoming": {"ownerOf": "component:default/a"}});
        assert_eq!(shown(&processor).await, before);
        assert_eq!(walk(&processor).await, 0, "under the same pipeline nothing is done");
        // Another kind, and another relation of a kind.
        restart(&mut processor, &[("Rack.schema.json", RACK_KIND)], RACKS);
        assert!(walk(&processor).await > 0);
        let after = json!({"component:default/a": ["ownedBy standsIn", false], "rack:default/r": ["", false],
            "incoming": {"ownerOf": "component:default/a", "holds": "component:default/a"}});
        assert_eq!(shown(&processor).await, after);
        // What is invalid from now on keeps its last good version, and shows an error.
        restart(&mut processor, &[("Rack.schema.json", &RACK_KIND.replace("room", "building"))], RACKS);
        walk(&processor).await;
        assert_eq!(shown(&processor).await["rack:default/r"], json!(["", true]));
        restart(&mut processor, &[("Rack.schema.json", RACK_KIND)], "[]");
        walk(&processor).await;
        let mut back = before.clone();
        back["rack:default/r"] = json!(["", false]);
        assert_eq!(shown(&processor).await, back);
    }

    #[tokio::test]
    async fn of_two_versions_side_by_side_the_one_that_was_started_last_decides() {
        let mut processor = testing::processor("again").await;
        walk(&processor).await;
        let old = processor.pipeline.clone();
        restart(&mut processor, &[], RACKS);
        walk(&processor).await;
        let new = std::mem::replace(&mut processor.pipeline, old.clone());
        let spec = json!({"type": "t", "lifecycle": "l", "owner": "o", "rack": "r"});
        publish(&processor, 1, component(spec)).await;
        processor.store.repeat_walk(old.fingerprint()).await.expect("the database answers");
        assert!(!turn(&processor).await.expect("the database answers"), "the walk goes by the newer pipeline");
        assert_eq!(shown(&processor).await["component:default/a"][0], "ownedBy");
        processor.pipeline = new;
        while turn(&processor).await.expect("the database answers") {}
        assert_eq!(shown(&processor).await["component:default/a"][0], "ownedBy standsIn");
        processor.pipeline = old;
        walk(&processor).await;
        assert_eq!(shown(&processor).await["component:default/a"][0], "ownedBy");
    }
}
