//! What the roles rely on, in PostgreSQL and in its twin: each test is run against both.

use crate::twin::{NoFaults, Twin};
use crate::{
    ClaimWrite, EntityWrite, GONE_BACK, Life, Merge, Remedy, Request, SeenStream, StateWrite, Store, StreamPosition,
    WHATEVER,
};
use catalog::claims::{Claims, Head, Operation};
use sqlx::{AssertSqlSafe, Executor, raw_sql};
use std::sync::Arc;
use std::time::Duration;

/// A database of the test's own.
pub(super) struct Place {
    installation: String,
    twin: Option<Twin>,
}

/// Every moment that a row may hold.
const MOMENTS: [(&str, &[&str]); 9] = [
    ("floor", &["noted_at"]),
    ("tasks", &["held_until", "last_run"]),
    ("snapshots", &["taken_until", "began_at", "closed_at"]),
    ("snapshot_parts", &["noted_at"]),
    ("reads", &["asked_at", "due_at", "leased_until"]),
    ("outbox", &["asked_at"]),
    ("entities", &["orphan_since"]),
    ("stitch_states", &["not_before"]),
    ("gaps", &["found_at"]),
];

impl Place {
    /// A process of its own.
    pub(super) async fn connect(&self) -> Store {
        match &self.twin {
            Some(twin) => twin.connect(Arc::new(NoFaults)),
            None => super::connect(&self.installation).await,
        }
    }

    /// Time goes by: of PostgreSQL, what it holds becomes older.
    pub(super) async fn pass(&self, time: Duration) {
        if self.twin.is_some() {
            return tokio::time::advance(time).await;
        }
        let store = self.connect().await;
        for (table, columns) in MOMENTS {
            let older = |column| format!("{column} = {column} - interval '{} milliseconds'", time.as_millis());
            let columns: Vec<String> = columns.iter().map(older).collect();
            let update = format!("update {table} set {}", columns.join(", "));
            store.pool().unwrap().execute(raw_sql(AssertSqlSafe(update))).await.unwrap();
        }
    }
}

/// Runs a test against PostgreSQL, and then against the twin, whose clock jumps from one thing that waits for it to the next.
pub(super) fn on_both(test: impl AsyncFn(Place)) {
    let installation = servers::testing::fresh_name("store");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test(Place { installation, twin: None }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async { test(Place { installation: String::new(), twin: Some(Twin::new()) }).await });
}

#[test]
fn the_floor_is_never_lowered() {
    on_both(async |place| {
        let store = place.connect().await;
        for (given, floor) in [(5, 5), (3, 5), (9, 9), (0, 9)] {
            store.raise_floor(given).await.unwrap();
            assert_eq!(store.floor().await.unwrap(), floor);
        }
    });
}

/// Merges one claim or withdrawal of one ref, and asks for its stitching.
pub(super) async fn merge_one(store: &Store, entity_ref: &str, revision: i64, operation: Operation) -> Request {
    let (merge, id) = merge_some(store, entity_ref, revision, operation).await;
    merge.commit("fresh", revision, vec![id]).await.unwrap().unwrap()
}

/// The same, without the commit.
pub(super) async fn merge_some(store: &Store, entity_ref: &str, revision: i64, operation: Operation) -> (Merge, i64) {
    merge_of(store, "provider:p", entity_ref, revision, operation).await
}

async fn merge_of(store: &Store, source: &str, entity_ref: &str, revision: i64, operation: Operation) -> (Merge, i64) {
    let refs = [entity_ref.to_owned()];
    let (mut merge, rows) = store.merge(&refs, &refs).await.unwrap();
    let id = rows[0].id;
    let mut claims = Claims::default();
    for row in merge.read_claims(&[id]).await.unwrap().1 {
        claims.by_source.insert(row.source, row.claim);
    }
    claims.insert(source, Head { revision, operation }, 0);
    let claim = claims.by_source[source].clone();
    let write = ClaimWrite { entity_id: id, source: source.into(), newest: revision, hash: None, claim };
    merge.write_claims(&[write]).await.unwrap();
    let winner = claims.winner().map(|(source, _)| source.to_owned());
    let entity = EntityWrite { id, born: claims.born(), settled_born: None, winner, revision, orphan: false };
    merge.write_entities(&[entity]).await.unwrap();
    (merge, id)
}

/// A stream for requests that was never lost.
pub(super) async fn a_life(store: &Store) -> Life<'static> {
    store.note_stream("S", &SeenStream { created: 1, last_sequence: 0, last_stored: 0 }).await.unwrap();
    Life { stream: "S", resets: 0 }
}

#[test]
fn what_was_settled_in_a_lost_stream_counts_for_nothing() {
    on_both(async |place| {
        let store = place.connect().await;
        let request = merge_one(&store, "a:b/c", 7, claim()).await;
        let lost = a_life(&store).await;
        store.note_published(request.outbox, 3, lost).await.unwrap();
        let known = store.stream_position("S").await.unwrap().unwrap();
        let anew = SeenStream { created: 2, last_sequence: 0, last_stored: 0 };
        assert!(store.reset_stream("S", &known, &anew, Remedy::PublishOutbox).await.unwrap());
        store.note_published(request.outbox, 3, lost).await.unwrap();
        assert_eq!(store.outbox_length().await.unwrap(), (1, 1), "it stands in a stream that is not there any more");
        let position = store.stream_position("S").await.unwrap().unwrap();
        let life = position.life("S");
        store.note_published(request.outbox, 3, life).await.unwrap();
        assert_eq!(store.delete_published(3, lost).await.unwrap(), 0);
        store.settle(9, lost).await.unwrap();
        assert_eq!(store.floor().await.unwrap(), 0);
        store.settle(9, life).await.unwrap();
        store.settle(8, life).await.unwrap();
        assert_eq!(store.floor().await.unwrap(), 9);
        assert_eq!(store.delete_published(3, life).await.unwrap(), 1);
    });
}

#[test]
fn a_stream_that_is_shorter_than_what_was_published_has_gone_back() {
    on_both(async |place| {
        let store = place.connect().await;
        let request = merge_one(&store, "a:b/c", 7, claim()).await;
        let life = a_life(&store).await;
        let found = |last_sequence| SeenStream { created: 1, last_sequence, last_stored: 0 };
        let known = async || store.stream_position("S").await.unwrap().unwrap();
        assert!(!known().await.is_above(&found(0)));
        store.note_published(request.outbox, 3, life).await.unwrap();
        assert!(known().await.is_above(&found(2)) && !known().await.is_above(&found(3)));
        assert!(store.note_highest(life, 5).await.unwrap());
        assert!(store.note_highest(life, 4).await.unwrap());
        assert!(known().await.is_above(&found(4)) && !known().await.is_above(&found(5)));
        store.settle(9, life).await.unwrap();
        store.delete_published(5, life).await.unwrap();
        assert_eq!(store.watermark().await.unwrap(), 9);
        assert!(store.note_highest(life, GONE_BACK).await.unwrap());
        assert!(known().await.is_above(&found(1_000_000)));
        assert_eq!(store.watermark().await.unwrap(), -1, "what it has lost is promised by nobody");
        assert!(store.reset_stream("S", &known().await, &found(4), Remedy::PublishOutbox).await.unwrap());
        assert!(!known().await.is_above(&found(4)));
        assert!(!store.note_highest(life, 9).await.unwrap(), "it was of the stream that is lost");
    });
}

pub(super) fn claim() -> Operation {
    Operation::Claim { key: None, good: true }
}

#[test]
fn the_watermark_waits_for_the_outbox() {
    on_both(async |place| {
        let store = place.connect().await;
        assert_eq!(store.watermark().await.unwrap(), 0);
        let request = merge_one(&store, "a:b/c", 7, claim()).await;
        store.raise_floor(9).await.unwrap();
        assert_eq!(store.watermark().await.unwrap(), 6, "revision 7 asks for stitching");
        assert_eq!(store.outbox_length().await.unwrap(), (1, 1));
        let life = a_life(&store).await;
        store.note_published(request.outbox, 3, life).await.unwrap();
        assert_eq!(store.delete_published(2, life).await.unwrap(), 0);
        assert_eq!(store.watermark().await.unwrap(), 6, "its request is not acknowledged");
        assert_eq!(store.delete_published(3, life).await.unwrap(), 1);
        assert_eq!(store.watermark().await.unwrap(), 9);
    });
}

#[test]
fn withdrawn_claims_are_forgotten_a_minute_below_the_floor() {
    on_both(async |place| {
        let store = place.connect().await;
        merge_one(&store, "a:b/kept", 1, claim()).await;
        merge_one(&store, "a:b/gone", 2, claim()).await;
        merge_one(&store, "a:b/gone", 3, Operation::Withdrawal).await;
        merge_one(&store, "a:b/handed-over", 3, claim()).await;
        merge_of(&store, "provider:q", "a:b/handed-over", 4, claim()).await.0.commit("fresh", 4, vec![]).await.unwrap();
        merge_one(&store, "a:b/handed-over", 5, Operation::Withdrawal).await;
        store.raise_floor(5).await.unwrap();
        assert_eq!(store.forget_claims(100).await.unwrap(), 0, "the floor has only just passed it");
        for _ in 0..2 {
            place.pass(Duration::from_secs(120)).await;
            store.raise_floor(5).await.unwrap();
        }
        assert_eq!(store.forget_claims(100).await.unwrap(), 1);
        assert_eq!(
            store.forget_claims(100).await.unwrap(),
            0,
            "what is present stays, and what tells since when it is"
        );
    });
}

#[test]
fn a_task_has_one_host_and_a_silent_one_is_replaced() {
    on_both(async |place| {
        let store = place.connect().await;
        let lease = Duration::from_secs(60);
        let take = async |host: &str, lease, ran| store.take_task("t", host, lease, ran).await.unwrap();
        assert!(take("a", lease, None).await.is_some());
        assert!(take("b", lease, None).await.is_none());
        let since = take("a", lease, Some(Err("why".into()))).await.expect("renewed");
        assert!(since.is_some_and(|since| since < Duration::from_secs(60)));
        let rows = store.task_rows().await.unwrap();
        assert_eq!(
            (rows[0].runs, rows[0].last_error.as_deref(), rows[0].holder.as_deref()),
            (1, Some("why"), Some("a"))
        );
        store.drop_tasks("b").await.unwrap();
        assert!(take("b", lease, None).await.is_none(), "only its own");
        store.drop_tasks("a").await.unwrap();
        assert!(take("b", Duration::ZERO, None).await.is_some());
        assert!(take("a", lease, None).await.is_some(), "a lease that is over is anybody's");
    });
}

#[test]
fn a_stitch_state_is_skipped_while_another_holds_it() {
    on_both(async |place| {
        let store = place.connect().await;
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
    });
}

#[test]
fn what_is_still_to_be_stitched_is_told_without_a_lock() {
    on_both(async |place| {
        let store = place.connect().await;
        let ids = [merge_one(&store, "a:b/c", 1, claim()).await, merge_one(&store, "a:b/d", 2, claim()).await]
            .map(|request| request.entity_ids[0]);
        let asked = [(ids[0], 1), (ids[1], 1), (i64::MAX, WHATEVER)];
        let stitching = store.stitch(&asked[..1]).await.unwrap();
        assert_eq!(
            store.unstitched(&asked).await.unwrap(),
            asked[..2],
            "what is held is told; what has no state is not"
        );
        let state = StateWrite { entity_id: ids[0], version: 1, sequence: 1, hash: None, pause_ms: 0 };
        stitching.commit(&[state]).await.unwrap();
        assert_eq!(store.unstitched(&asked).await.unwrap(), asked[1..2], "what was asked for before is done");
        let anew = [(ids[0], WHATEVER)];
        assert_eq!(store.unstitched(&anew).await.unwrap(), anew);
    });
}

#[test]
fn a_stitcher_waits_for_another_and_then_sees_what_it_did() {
    on_both(async |place| {
        let store = place.connect().await;
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
    });
}

#[test]
fn a_batch_that_is_dropped_has_done_nothing() {
    on_both(async |place| {
        let store = place.connect().await;
        let refs = ["a:b/c".to_owned()];
        let (merge, _) = store.merge(&refs, &refs).await.unwrap();
        drop(merge);
        let request = merge_one(&store, "a:b/c", 1, claim()).await;
        assert_eq!(request.entity_ids.len(), 1);
        assert_eq!(store.counts().await.unwrap().entities, 1);
    });
}

#[test]
fn a_stream_that_went_back_gets_revisions_above_all_known() {
    on_both(async |place| {
        let store = place.connect().await;
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
    });
}
