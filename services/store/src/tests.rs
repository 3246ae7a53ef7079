//! The statements and transactions on a real database.

use crate::{ClaimWrite, EntityWrite, Error, Options, Remedy, SeenStream, StateWrite, Store, StreamPosition, WHATEVER};
use catalog::claims::{Claims, Head, Operation};
use sqlx::{AssertSqlSafe, Executor, raw_sql};
use std::time::Duration;

async fn fresh() -> Store {
    connect(&servers::testing::fresh_name("store")).await
}

async fn connect(installation: &str) -> Store {
    let options = Options {
        url: servers::testing::shared().database_url.clone(),
        installation: installation.to_owned(),
        connections: 4,
        name: "test".into(),
    };
    Store::connect(&options).await.unwrap()
}

#[tokio::test]
async fn every_statement_prepares() {
    let store = fresh().await;
    let mut connection = store.pool.acquire().await.unwrap();
    let mut count = 0;
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/sql")).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("-- "), "{} opens with its sentence", path.display());
        let prepare = format!("prepare statement_{count} as {text}");
        let prepared = connection.execute(raw_sql(AssertSqlSafe(prepare))).await;
        assert!(prepared.is_ok(), "{}: {prepared:?}", path.display());
        count += 1;
    }
    assert!(count > 30);
}

/// A hot statement goes by its index, whatever the size of its batch.
#[tokio::test]
async fn hot_statements_go_by_their_index() {
    let store = fresh().await;
    let mut connection = store.pool.acquire().await.unwrap();
    connection.execute("set enable_seqscan = off").await.unwrap();
    for (text, parameters, index) in [
        (include_str!("sql/lock_entities.sql"), "array['a:b/c']", "entities_ref_key"),
        (include_str!("sql/find_ids.sql"), "array['a:b/c']", "entities_ref_key"),
        (include_str!("sql/read_claims.sql"), "array[1]::bigint[]", "claims_pkey"),
        (include_str!("sql/read_relations.sql"), "array[1]::bigint[]", "relations_originator"),
        (include_str!("sql/lock_stitch_states.sql"), "array[1]::bigint[], array[1]::bigint[]", "stitch_states_pkey"),
        (include_str!("sql/read_entities.sql"), "array[1]::bigint[]", "entities_pkey"),
        (include_str!("sql/read_entities.sql"), "array[1]::bigint[]", "contents_pkey"),
        (include_str!("sql/read_entities.sql"), "array[1]::bigint[]", "claims_pkey on claims emits"),
        (include_str!("sql/read_incoming.sql"), "array[1]::bigint[]", "relations_subject"),
    ] {
        connection.execute(raw_sql(AssertSqlSafe(format!("prepare hot as {text}")))).await.unwrap();
        let explain = AssertSqlSafe(format!("explain execute hot({parameters})"));
        let plan: Vec<String> =
            sqlx::query_scalar(explain).persistent(false).fetch_all(&mut *connection).await.unwrap();
        assert!(plan.iter().any(|line| line.contains(index)), "{text}\n{}", plan.join("\n"));
        connection.execute("deallocate hot").await.unwrap();
    }
}

#[tokio::test]
async fn two_processes_start_at_once() {
    let installation = servers::testing::fresh_name("store");
    let (one, two) = tokio::join!(connect(&installation), connect(&installation));
    assert_eq!((one.floor().await.unwrap(), two.floor().await.unwrap()), (0, 0));
}

#[tokio::test]
async fn the_floor_is_never_lowered() {
    let store = fresh().await;
    for (given, floor) in [(5, 5), (3, 5), (9, 9), (0, 9)] {
        store.raise_floor(given).await.unwrap();
        assert_eq!(store.floor().await.unwrap(), floor);
    }
}

/// Merges one claim or withdrawal of one ref, and asks for its stitching.
async fn merge_one(store: &Store, entity_ref: &str, revision: i64, operation: Operation) -> crate::Request {
    let refs = [entity_ref.to_owned()];
    let (mut merge, rows) = store.merge(&refs, &refs).await.unwrap();
    let id = rows[0].id;
    let mut claims = Claims::default();
    for row in merge.read_claims(&[id]).await.unwrap().1 {
        claims.by_source.insert(row.source, row.claim);
    }
    claims.insert("provider:p", Head { revision, operation }, 0);
    let claim = claims.by_source["provider:p"].clone();
    let write = ClaimWrite { entity_id: id, source: "provider:p".into(), newest: revision, hash: None, claim };
    merge.write_claims(&[write]).await.unwrap();
    let winner = claims.winner().map(|(source, _)| source.to_owned());
    let entity = EntityWrite { id, born: claims.born(), settled_born: None, winner, revision, orphan: false };
    merge.write_entities(&[entity]).await.unwrap();
    merge.commit("fresh", revision, vec![id]).await.unwrap().unwrap()
}

fn claim() -> Operation {
    Operation::Claim { key: None, good: true }
}

#[tokio::test]
async fn the_watermark_waits_for_the_outbox() {
    let store = fresh().await;
    assert_eq!(store.watermark().await.unwrap(), 0);
    let request = merge_one(&store, "a:b/c", 7, claim()).await;
    store.raise_floor(9).await.unwrap();
    assert_eq!(store.watermark().await.unwrap(), 6, "revision 7 asks for stitching");
    assert_eq!(store.outbox_length().await.unwrap(), (1, 1));
    store.note_published(request.outbox, 3).await.unwrap();
    assert_eq!(store.delete_published(2).await.unwrap(), 0);
    assert_eq!(store.watermark().await.unwrap(), 6, "its request is not acknowledged");
    assert_eq!(store.delete_published(3).await.unwrap(), 1);
    assert_eq!(store.watermark().await.unwrap(), 9);
}

#[tokio::test]
async fn withdrawn_claims_are_forgotten_a_minute_below_the_floor() {
    let store = fresh().await;
    merge_one(&store, "a:b/kept", 1, claim()).await;
    merge_one(&store, "a:b/gone", 2, claim()).await;
    merge_one(&store, "a:b/gone", 3, Operation::Withdrawal).await;
    store.raise_floor(5).await.unwrap();
    assert_eq!(store.forget_claims(100).await.unwrap(), 0, "the floor has only just passed it");
    for _ in 0..2 {
        store.pool.execute("update floor set noted_at = now() - interval '2 minutes'").await.unwrap();
        store.raise_floor(5).await.unwrap();
    }
    assert_eq!(store.forget_claims(100).await.unwrap(), 1);
    assert_eq!(store.forget_claims(100).await.unwrap(), 0, "what is present stays");
}

#[tokio::test]
async fn a_task_has_one_host_and_a_silent_one_is_replaced() {
    let store = fresh().await;
    let lease = Duration::from_secs(60);
    let take = async |host: &str, lease, ran| store.take_task("t", host, lease, ran).await.unwrap();
    assert!(take("a", lease, None).await.is_some());
    assert!(take("b", lease, None).await.is_none());
    let since = take("a", lease, Some(Err("why".into()))).await.expect("renewed");
    assert!(since.is_some_and(|since| since < Duration::from_secs(60)));
    let rows = store.task_rows().await.unwrap();
    assert_eq!((rows[0].runs, rows[0].last_error.as_deref(), rows[0].holder.as_deref()), (1, Some("why"), Some("a")));
    store.drop_tasks("b").await.unwrap();
    assert!(take("b", lease, None).await.is_none(), "only its own");
    store.drop_tasks("a").await.unwrap();
    assert!(take("b", Duration::ZERO, None).await.is_some());
    assert!(take("a", lease, None).await.is_some(), "a lease that is over is anybody's");
}

#[tokio::test]
async fn a_stitch_state_is_skipped_while_another_holds_it() {
    let store = fresh().await;
    let id = merge_one(&store, "a:b/c", 1, claim()).await.entity_ids[0];
    let mut first = store.stitch(&[(id, WHATEVER)]).await.unwrap();
    assert_eq!(first.states.len(), 1);
    assert_eq!(store.stitch(&[(id, WHATEVER)]).await.unwrap().states.len(), 0);
    let version = first.take_versions(1).await.unwrap()[0];
    let state = StateWrite { entity_id: id, version, sequence: 4, hash: Some("h".into()), pause_ms: 5000 };
    first.commit(&[state]).await.unwrap();
    let asked_before = store.stitch(&[(id, 1)]).await.unwrap();
    assert_eq!(asked_before.states.len(), 0, "what was asked for before is done, and needs no lock");
    let mut second = store.stitch(&[(id, WHATEVER)]).await.unwrap();
    let state = &second.states[0];
    assert_eq!((state.version, state.sequence, state.hash.as_deref()), (version, 4, Some("h")));
    assert!(state.wait_ms.is_some_and(|wait| wait > 1000), "not again so soon");
    assert!(state.seen.as_ref().is_some_and(|seen| seen.shows(1) && !seen.shows(i64::MAX)));
    second.raise_versions(version + 500).await.unwrap();
    assert!(second.take_versions(1).await.unwrap()[0] > version + 500);
}

#[tokio::test]
async fn a_stitcher_waits_for_another_and_then_sees_what_it_did() {
    let store = fresh().await;
    let request = merge_one(&store, "a:b/c", 1, claim()).await;
    let id = request.entity_ids[0];
    let first = store.stitch(&[(id, WHATEVER)]).await.unwrap();
    assert!(first.states[0].seen.is_none(), "never stitched");
    let state = StateWrite { entity_id: id, version: 1, sequence: 1, hash: None, pause_ms: 0 };
    let (ids, states) = ([(id, WHATEVER)], [state]);
    let (second, first) = tokio::join!(store.stitch_after_others(&ids), first.commit(&states));
    first.unwrap();
    let seen = second.unwrap().states[0].seen.clone().expect("stitched by the first");
    assert!(seen.shows(request.transaction), "what was asked for is done");
}

#[tokio::test]
async fn a_batch_that_is_dropped_has_done_nothing() {
    let store = fresh().await;
    let refs = ["a:b/c".to_owned()];
    let (merge, _) = store.merge(&refs, &refs).await.unwrap();
    drop(merge);
    let request = merge_one(&store, "a:b/c", 1, claim()).await;
    assert_eq!(request.entity_ids.len(), 1);
    assert_eq!(store.counts().await.unwrap().entities, 1);
}

#[tokio::test]
async fn a_stream_that_went_back_gets_revisions_above_all_known() {
    let store = fresh().await;
    let seen = |created, last_sequence, last_stored| SeenStream { created, last_sequence, last_stored };
    store.note_stream("S", &seen(1, 10, 100)).await.unwrap();
    store.note_stream("S", &seen(1, 8, 80)).await.unwrap();
    let known = store.stream_position("S").await.unwrap().unwrap();
    assert_eq!((known.last_sequence, known.revision_offset), (10, 0), "it never goes back by itself");
    merge_one(&store, "a:b/c", 25, claim()).await;
    assert!(store.reset_stream("S", &known, &seen(1, 8, 80), Remedy::PublishOutbox).await.unwrap());
    assert!(
        !store.reset_stream("S", &known, &seen(1, 8, 80), Remedy::PublishOutbox).await.unwrap(),
        "one process does it"
    );
    let position: StreamPosition = store.stream_position("S").await.unwrap().unwrap();
    assert_eq!(position.revision(8, 80), 8, "what was there keeps its revision");
    assert_eq!(position.revision(9, 101), 25 + 9, "what comes is above all known");
    assert_eq!(store.unpublished().await.map(|rows| rows.len()).unwrap_or(9), 0, "not before three seconds");
}

#[tokio::test]
async fn a_wrong_address_says_what_to_do() {
    let options =
        |url: &str| Options { url: url.into(), installation: "x".into(), connections: 1, name: "test".into() };
    let error = Store::connect(&options("nonsense")).await.unwrap_err();
    assert!(matches!(&error, Error::Unusable(what) if what.contains("CALLBOARD_DATABASE_URL")), "{error}");
    let error = Store::connect(&options("postgres://x@127.0.0.1:1/x")).await.unwrap_err();
    assert!(matches!(error, Error::Away(_)), "{error}");
}
