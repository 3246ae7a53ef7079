//! The pipeline on real servers, all roles in this process: what is published over NATS comes out stitched, whatever the order.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use serde_json::json;
use support::{Pipeline, component, group, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_comes_out_stitched_with_both_ends_of_its_relations() {
    let pipeline = Pipeline::start().await;
    pipeline.upsert("p1", &component("web", "team-a")).await;
    pipeline.upsert("p1", &group("team-a")).await;
    pipeline.settle().await;
    let web = pipeline.entity("component:default/web").expect("the component is there");
    assert_eq!(web["relations"], json!([{"type": "ownedBy", "targetRef": "group:default/team-a"}]));
    assert_eq!(web["metadata"]["namespace"], "default");
    let team = pipeline.entity("group:default/team-a").expect("the group is there");
    assert_eq!(team["relations"], json!([{"type": "ownerOf", "targetRef": "component:default/web"}]));

    pipeline.upsert("p1", &component("web", "team-b")).await;
    pipeline.settle().await;
    assert_eq!(pipeline.entity("group:default/team-a").expect("still there")["relations"], json!([]));
    assert_eq!(
        pipeline.entity("component:default/web").expect("still there")["metadata"]["uid"],
        web["metadata"]["uid"],
        "an update keeps the uid"
    );

    pipeline.delete("p1", "component:default/web").await;
    pipeline.settle().await;
    assert!(pipeline.entity("component:default/web").is_none(), "deleted");
    pipeline.upsert("p1", &component("web", "team-b")).await;
    pipeline.settle().await;
    let again = pipeline.entity("component:default/web").expect("it came again");
    assert_ne!(again["metadata"]["uid"], web["metadata"]["uid"], "deleted and added again: a new uid");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_providers_of_one_ref() {
    let pipeline = Pipeline::start().await;
    pipeline.upsert_with_key("p1", &component("web", "one"), Some("K")).await;
    pipeline.upsert_with_key("p2", &component("web", "two"), Some("L")).await;
    pipeline.settle().await;
    let owner = |pipeline: &Pipeline| pipeline.entity("component:default/web").map(|web| web["spec"]["owner"].clone());
    assert_eq!(owner(&pipeline), Some(json!("one")), "who was first keeps it");
    let uid = pipeline.entity("component:default/web").expect("there")["metadata"]["uid"].clone();
    pipeline.delete("p1", "component:default/web").await;
    pipeline.settle().await;
    assert_eq!(owner(&pipeline), Some(json!("two")), "the next takes over at once");
    let web = pipeline.entity("component:default/web").expect("there");
    assert_eq!(web["metadata"]["uid"], uid, "it was never gone");
    assert_eq!(web["relations"], json!([{"type": "ownedBy", "targetRef": "group:default/two"}]));
    pipeline.upsert("p1", &group("one")).await;
    pipeline.upsert("p1", &group("two")).await;
    pipeline.settle().await;
    assert_eq!(pipeline.entity("group:default/one").expect("there")["relations"], json!([]));
    let owned = json!([{"type": "ownerOf", "targetRef": "component:default/web"}]);
    assert_eq!(pipeline.entity("group:default/two").expect("there")["relations"], owned);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_begins_to_lose_to_another_location_key_is_told_once() {
    let pipeline = Pipeline::start().await;
    let told = async || {
        let conflicts = pipeline.messages_of(&pipeline.names().conflicts_stream()).await;
        let brief = |(subject, told): (String, serde_json::Value)| {
            let provider = subject.rsplit('.').next().unwrap().to_owned();
            assert_eq!(told["entityRef"], "component:default/web");
            json!([provider, told["loses"]["source"], told["loses"]["locationKey"], told["shown"]["source"]])
        };
        conflicts.into_iter().map(brief).collect::<Vec<_>>()
    };
    pipeline.upsert_with_key("p1", &component("web", "one"), Some("K")).await;
    pipeline.upsert_with_key("p3", &component("web", "same key"), Some("K")).await;
    pipeline.settle().await;
    assert_eq!(told().await, Vec::<serde_json::Value>::new());
    // It loses, goes on losing, and loses again under another key, and after it was withdrawn.
    let loses = |key: &str| json!(["p2", "provider:p2", key, "provider:p3"]);
    pipeline.upsert_with_key("p2", &component("web", "two"), Some("L")).await;
    pipeline.upsert_with_key("p2", &component("web", "still two"), Some("L")).await;
    pipeline.settle().await;
    assert_eq!(told().await, [loses("L")]);
    pipeline.upsert_with_key("p2", &component("web", "two"), Some("M")).await;
    pipeline.settle().await;
    assert_eq!(told().await, [loses("L"), loses("M")]);
    pipeline.delete("p2", "component:default/web").await;
    pipeline.settle().await;
    pipeline.upsert_with_key("p2", &component("web", "two"), Some("M")).await;
    pipeline.settle().await;
    assert_eq!(told().await, [loses("L"), loses("M"), loses("M")]);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_a_rule_keeps_the_last_good_version_with_its_error() {
    let pipeline = Pipeline::start().await;
    pipeline.upsert("p1", &component("web", "team-a")).await;
    pipeline.settle().await;
    let mut bad = component("web", "team-b");
    bad["metadata"]["tags"] = json!(["Not Lower"]);
    pipeline.upsert("p1", &bad).await;
    pipeline
        .upsert("p1", &json!({"apiVersion": "backstage.io/v1alpha1", "kind": "Spaceship", "metadata": {"name": "x"}}))
        .await;
    pipeline.settle().await;
    let web = pipeline.entity("component:default/web").expect("the last good version stays");
    assert_eq!(web["spec"]["owner"], "team-a");
    let item = &web["status"]["items"][0];
    assert_eq!(item["type"], "backstage.io/catalog-processing");
    assert!(item["message"].as_str().is_some_and(|message| message.contains("tags.0")), "{item}");
    assert!(pipeline.entity("spaceship:default/x").is_none(), "never valid, never shown");
    let failed = pipeline.store.failed_entities("", 10).await.expect("the database answers");
    let failed: Vec<_> = failed.iter().map(|failed| (failed.entity_ref.as_str(), failed.shown)).collect();
    assert_eq!(failed, [("component:default/web", true), ("spaceship:default/x", false)]);
    pipeline.upsert("p1", &component("web", "team-c")).await;
    pipeline.settle().await;
    let web = pipeline.entity("component:default/web").expect("there");
    assert_eq!((web["spec"]["owner"].as_str(), web.get("status")), (Some("team-c"), None));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_a_claim_is_a_dead_letter_and_its_neighbours_are_applied() {
    let pipeline = Pipeline::start().await;
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let name = pipeline.names().installation().to_owned();
    let bad: Vec<(String, Vec<u8>, &str)> = vec![
        (format!("{name}.events.p1.upsert"), b"{".to_vec(), "JSON"),
        (format!("{name}.events.p1.upsert"), b"[1]".to_vec(), "object"),
        (format!("{name}.events.p1.upsert"), br#"{"kind":"Component"}"#.to_vec(), "metadata"),
        (format!("{name}.events.p1.upsert"), br#"{"metadata":{"name":"x"}}"#.to_vec(), "kind"),
        (format!("{name}.events.p1.upsert"), br#"{"kind":"A","metadata":{"name":"a\u0000b"}}"#.to_vec(), "U+0000"),
        (
            format!("{name}.events.p1.upsert"),
            format!(r#"{{"kind":"A","metadata":{{"name":"x","y":{deep}}}}}"#).into_bytes(),
            "deep",
        ),
        (format!("{name}.events.p1.upsert"), vec![b' '; 600 * 1024], "524288"),
        (format!("{name}.events.p1.delete"), b"{}".to_vec(), "entityRef"),
        (format!("{name}.events.p1.teleport"), b"{}".to_vec(), "teleport"),
        (format!("{name}.events.p1"), b"{}".to_vec(), "provider"),
        (format!("{name}.events.p1.a.b"), b"{}".to_vec(), "provider"),
    ];
    let mut records = Vec::new();
    for (index, (subject, payload, _)) in bad.iter().enumerate() {
        records.push(pipeline.event("p1", "upsert", &component(&format!("good-{index}"), "team")));
        records.push(bus::Record::new(subject, payload.clone()).with_header("X-Mine", index));
    }
    pipeline.publish(&records).await;
    pipeline.settle().await;
    let letters = pipeline.dead_letters().await;
    assert_eq!(letters.len(), bad.len(), "{letters:#?}");
    for (index, (subject, payload, word)) in bad.iter().enumerate() {
        let letter = letters
            .iter()
            .find(|letter| letter.original("X-Mine") == Some(&index.to_string()))
            .expect("one letter each");
        assert!(letter.reason.contains(word), "{subject}: {}", letter.reason);
        assert_eq!((&letter.subject, &letter.payload), (subject, payload), "the original is kept");
    }
    for index in 0..bad.len() {
        assert!(pipeline.entity(&format!("component:default/good-{index}")).is_some(), "neighbour {index}");
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_event_again_changes_nothing() {
    let pipeline = Pipeline::start().await;
    pipeline.upsert("p1", &component("web", "team-a")).await;
    pipeline.settle().await;
    let before = pipeline.messages("component:default/web");
    pipeline.upsert("p1", &component("web", "team-a")).await;
    pipeline.settle().await;
    assert_eq!(pipeline.messages("component:default/web"), before, "an unchanged entity is not published again");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stitcher_that_died_between_publish_and_commit_is_made_good() {
    let pipeline = Pipeline::start().await;
    pipeline.upsert("p1", &component("web", "team-a")).await;
    pipeline.settle().await;
    // What such a death leaves: a message in the stream that the stitch state does not know.
    let version = pipeline.version("component:default/web") + 1_000_000;
    let stray = bus::entity_record(
        &pipeline.bus,
        "component:default/web",
        version,
        1,
        Some(("no-hash-of-ours", b"{}".to_vec())),
    );
    bus::publish(&pipeline.bus, &stray).await.expect("the broker takes it");
    pipeline.upsert("p1", &component("web", "team-b")).await;
    pipeline.settle().await;
    assert_eq!(pipeline.entity("component:default/web").expect("there")["spec"]["owner"], "team-b");
    assert!(pipeline.version("component:default/web") > version, "the new version is above what stood there");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_consumer_is_made_anew_and_nothing_is_lost() {
    let pipeline = Pipeline::start().await;
    pipeline.upsert("p1", &component("before", "team")).await;
    pipeline.settle().await;
    let client = async_nats::connect(&servers::testing::shared().nats_url).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let events = jetstream.get_stream(pipeline.names().events_stream()).await.unwrap();
    events.delete_consumer(bus::Names::PROCESSOR).await.unwrap();
    let stitch = jetstream.get_stream(pipeline.names().stitch_stream()).await.unwrap();
    stitch.delete_consumer(bus::Names::STITCHER).await.unwrap();
    pipeline.upsert("p1", &component("after", "team")).await;
    pipeline.settle().await;
    assert!(pipeline.entity("component:default/after").is_some());
    assert_eq!(pipeline.messages("component:default/before"), 1, "what was settled is not done again");
    pipeline.stop().await;
}

/// The upserts of a snapshot and, if it is whole, the event that ends it.
fn snapshot(pipeline: &Pipeline, id: &str, names: &[&str], count: usize) -> Vec<bus::Record> {
    let part = |name: &&str| {
        let event = pipeline.event("p", "upsert", &component(name, "team"));
        event.with_header(bus::header::SNAPSHOT, id)
    };
    let end = pipeline.event("p", "snapshot", &json!({"snapshot": id, "count": count}));
    names.iter().map(part).chain([end]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_withdraws_what_it_leaves_out() {
    let pipeline = Pipeline::start().await;
    pipeline.publish(&snapshot(&pipeline, "1", &["a", "b", "c"], 3)).await;
    pipeline.upsert("q", &component("other", "team")).await;
    pipeline.settle().await;
    assert_eq!(pipeline.all().len(), 4);
    let uid = pipeline.entity("component:default/b").unwrap()["metadata"]["uid"].clone();

    pipeline.publish(&snapshot(&pipeline, "2", &["b", "d"], 2)).await;
    pipeline.settle().await;
    let mut refs: Vec<String> = pipeline.all().into_keys().collect();
    refs.sort();
    assert_eq!(refs, ["component:default/b", "component:default/d", "component:default/other"]);
    assert_eq!(pipeline.entity("component:default/b").unwrap()["metadata"]["uid"], uid);

    let mut refused = snapshot(&pipeline, "3", &["b"], 2);
    let nonsense = bus::Record::new(pipeline.names().event("p", "upsert"), "nonsense");
    refused.insert(0, nonsense.with_header(bus::header::SNAPSHOT, "3"));
    pipeline.publish(&refused).await;
    pipeline.settle().await;
    assert!(pipeline.entity("component:default/d").is_some(), "a snapshot with a refused part is held");
    let rows = pipeline.store.snapshot_rows(10).await.unwrap();
    let held = rows.iter().find(|row| row.snapshot == "3").unwrap();
    assert_eq!((held.state.as_str(), held.parts), ("held", 2), "{held:?}");
    assert!(pipeline.store.approve_snapshot("p", "3").await.unwrap());
    wait_for("what it left out to go", async || pipeline.entity("component:default/d").is_none().then_some(())).await;

    pipeline.publish(&snapshot(&pipeline, "4", &[], 0)).await;
    pipeline.settle().await;
    assert_eq!(pipeline.all().into_keys().collect::<Vec<_>>(), ["component:default/other"]);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expected_revision_is_refused_when_the_entity_moved_on() {
    let pipeline = Pipeline::start().await;
    let upsert = async |owner: &str, expected: i64| {
        let event = pipeline.event("p", "upsert", &component("a", owner));
        pipeline.publish(&[event.with_header(bus::header::EXPECTED_REVISION, expected)]).await;
    };
    upsert("one", 0).await;
    upsert("two", 1).await;
    upsert("three", 1).await;
    upsert("four", 0).await;
    upsert("five", 2).await;
    pipeline.settle().await;
    assert_eq!(pipeline.entity("component:default/a").unwrap()["spec"]["owner"], "five");
    let mut reasons: Vec<String> = pipeline.dead_letters().await.into_iter().map(|letter| letter.reason).collect();
    reasons.sort();
    assert_eq!(
        reasons,
        [
            "expected component:default/a at revision 0, and it has moved on to 2",
            "expected component:default/a at revision 1, and it has moved on to 2"
        ]
    );
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_names_both_sides() {
    let pipeline = Pipeline::start().await;
    pipeline.upsert_with_key("p", &component("a", "one"), Some("K")).await;
    pipeline.upsert_with_key("q", &component("a", "two"), Some("L")).await;
    pipeline.upsert_with_key("r", &component("a", "three"), None).await;
    pipeline.settle().await;
    let found = pipeline.store.conflicts((0, ""), 10).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|conflict| (conflict.shown, conflict.loses)).collect();
    let side = |source: &str, key: Option<&str>, revision| (source.to_owned(), key.map(str::to_owned), revision);
    let shown = side("provider:p", Some("K"), 1);
    assert_eq!(found, [(shown.clone(), side("provider:q", Some("L"), 2)), (shown, side("provider:r", None, 3))]);
    pipeline.delete("p", "component:default/a").await;
    pipeline.settle().await;
    assert_eq!(pipeline.entity("component:default/a").unwrap()["spec"]["owner"], "two");
    pipeline.stop().await;
}
