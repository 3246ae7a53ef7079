//! What a broker loses is rebuilt from the truth by itself, and what stands wrongly in the entity stream is mended.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use async_nats::jetstream;
use bus::{NewestEntity, newest_entity};
use serde_json::json;
use support::{Pipeline, component, group, wait_for};

const WEB: &str = "component:default/web";
const TEAM: &str = "group:default/team-a";

async fn broker() -> jetstream::Context {
    let addresses = servers::testing::shared();
    jetstream::new(async_nats::connect(&addresses.nats_url).await.unwrap())
}

async fn with_web_and_team() -> Pipeline {
    let pipeline = Pipeline::start().await;
    pipeline.upsert("p1", &component("web", "team-a")).await;
    pipeline.upsert("p1", &group("team-a")).await;
    pipeline.upsert("p1", &component("gone", "team-a")).await;
    pipeline.settle().await;
    pipeline.delete("p1", "component:default/gone").await;
    pipeline.settle().await;
    pipeline
}

async fn newest(pipeline: &Pipeline, entity_ref: &str) -> Option<NewestEntity> {
    newest_entity(&pipeline.bus, entity_ref).await.ok().flatten()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_entity_stream_is_published_again_with_its_watermark() {
    let pipeline = with_web_and_team().await;
    let before = newest(&pipeline, WEB).await.unwrap();
    let names = pipeline.names().clone();
    broker().await.delete_stream(names.entities_stream()).await.unwrap();

    let after = wait_for("web in the new stream", async || newest(&pipeline, WEB).await).await;
    assert_eq!(after.hash, before.hash, "the truth has not changed");
    assert!(after.version > before.version, "a follower takes it for newer");
    wait_for("the team in the new stream", async || newest(&pipeline, TEAM).await).await;
    let watermark = async || {
        let stream = broker().await.get_stream(names.entities_stream()).await.ok()?;
        stream.get_last_raw_message_by_subject(&names.watermark()).await.ok()
    };
    let marked = wait_for("a watermark in the new stream", watermark).await;
    let standing = newest(&pipeline, TEAM).await.unwrap();
    assert!(marked.sequence > standing.sequence.max(after.sequence), "behind what it speaks of");
    assert!(pipeline.store.gaps(10).await.unwrap().iter().any(|gap| gap.stream == names.entities_stream()));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_had_accepted_and_lost_is_a_gap_and_work_goes_on() {
    let pipeline = with_web_and_team().await;
    let names = pipeline.names().clone();
    let jetstream = broker().await;
    for stream in [names.events_stream(), names.stitch_stream(), names.entities_stream(), names.dead_letters_stream()] {
        jetstream.delete_stream(stream).await.unwrap();
    }
    wait_for("the streams", async || bus::find_stream(&pipeline.bus, &names.events_stream()).await.ok().flatten())
        .await;
    let gap =
        async || pipeline.store.gaps(10).await.unwrap().into_iter().find(|gap| gap.stream == names.events_stream());
    let gap = wait_for("the gap", gap).await;
    assert_eq!((gap.known_sequence, gap.found_sequence, gap.lost_at_most), (4, 0, 0), "all of it was settled");

    // The first sequences of the new stream: their revisions are above every one known, so they count.
    let publish = async || {
        let event = pipeline.event("p1", "upsert", &component("web", "team-b"));
        bus::publish(&pipeline.bus, &event.with_id("once")).await.ok()
    };
    wait_for("the new stream takes events", publish).await;
    let moved = async || pipeline.entity(WEB).filter(|web| web["spec"]["owner"] == json!("team-b"));
    wait_for("the change", moved).await;
    wait_for("the team lost it", async || pipeline.entity(TEAM).filter(|team| team["relations"] == json!([]))).await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_message_in_the_entity_stream_is_found_and_mended() {
    let pipeline = with_web_and_team().await;
    let before = newest(&pipeline, WEB).await.unwrap();
    let mut headers = async_nats::HeaderMap::new();
    headers.insert(bus::header::VERSION, (before.version + 1000).to_string());
    headers.insert(bus::header::REVISION, "1");
    headers.insert(bus::header::HASH, "forged");
    let subject = pipeline.names().entity(WEB);
    broker().await.publish_with_headers(subject, headers, "{}".into()).await.unwrap().await.unwrap();

    let mended = async || newest(&pipeline, WEB).await.filter(|newest| newest.hash == before.hash);
    let after = wait_for("the truth's own message", mended).await;
    assert!(after.version > before.version + 1000, "above the forged one");
    let counted = async || Some(pipeline.store.repair_state().await.unwrap().mended).filter(|mended| *mended > 0);
    wait_for("the count", counted).await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_publishes_everything_again_and_leaves_a_deletion_deleted() {
    let pipeline = with_web_and_team().await;
    let before = newest(&pipeline, WEB).await.unwrap();
    pipeline.store.begin_rebuild().await.unwrap();
    let again = async || newest(&pipeline, WEB).await.filter(|newest| newest.version > before.version);
    assert_eq!(wait_for("another version", again).await.hash, before.hash);
    let done = async || {
        let state = pipeline.store.repair_state().await.unwrap();
        (!state.is_rebuilding && pipeline.store.counts().await.unwrap().outbox == 0).then_some(())
    };
    wait_for("the end of the rebuild", done).await;
    assert_eq!(newest(&pipeline, "component:default/gone").await.unwrap().hash, None);
    assert!(pipeline.store.watermark().await.unwrap() >= 4);
    pipeline.stop().await;
}
