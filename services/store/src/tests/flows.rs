//! The rules of snapshots, due reads, removals, repair and lost streams.

use super::contract::{a_life, claim, merge_one, merge_some, on_both};
use crate::{
    Cascade, ClaimWrite, ContentWrite, DueRead, EntityWrite, Life, Merge, OpenSnapshot, Parts, ReadDone, ReadWrite,
    RelationRow, Remedy, SeenStream, StateWrite, Step, Store, WHATEVER,
};
use catalog::claims::{Claims, Head, Operation};
use std::time::Duration;

fn parts(first: i64, highest: i64, count: i64) -> Parts {
    Parts { provider: "p".into(), snapshot: "s".into(), first, highest, count }
}

async fn only_open(store: &Store) -> OpenSnapshot {
    let mut open = store.open_snapshots(9).await.unwrap();
    assert_eq!(open.len(), 1);
    open.remove(0)
}

async fn count(store: &Store, entity_ref: &str, revision: i64, parts: Parts) {
    let (mut merge, _) = merge_some(store, entity_ref, revision, claim()).await;
    merge.note_parts(&[parts]).await.unwrap();
    merge.commit("fresh", revision, Vec::new()).await.unwrap();
}

#[test]
fn a_snapshot_is_counted_once_and_holds_everything_back_until_it_is_swept() {
    on_both(async |place| {
        let (store, other) = (place.connect().await, place.connect().await);
        count(&store, "a:b/c", 12, parts(12, 14, 2)).await;
        store.note_refused(&[parts(13, 13, 1)]).await.unwrap();
        store.note_refused(&[parts(13, 13, 1)]).await.unwrap();
        count(&store, "a:b/d", 10, parts(10, 10, 1)).await;
        assert!(store.end_snapshot(("p", "s"), 20, 4).await.unwrap());
        assert!(!other.end_snapshot(("p", "s"), 21, 9).await.unwrap(), "another one has ended it");
        store.raise_floor(19).await.unwrap();
        let open = only_open(&store).await;
        assert_eq!((open.begun, open.count, open.parts, open.refused), (10, Some(4), 4, 1));
        assert_eq!((open.last, open.settled), (Some(20), false));
        store.raise_floor(20).await.unwrap();
        assert!(only_open(&store).await.settled);
        assert_eq!(store.watermark().await.unwrap(), 9, "below its beginning");
        let (mut merge, id) = merge_some(&store, "a:b/c", 25, claim()).await;
        let floor = merge.read_claims(&[id]).await.unwrap().0;
        assert_eq!((floor.revision, floor.held), (20, 9));
        drop(merge);
        assert!(store.stop_snapshot(&open, "held", "too much").await.unwrap());
        assert!(!other.begin_sweep(&open).await.unwrap(), "it is not open any more");
        assert_eq!(store.watermark().await.unwrap(), 20, "nobody waits for one that is held");
        assert!(store.end_snapshot(("p", "late"), 20, 1).await.unwrap(), "at the floor it is settled");
        assert_eq!(store.open_snapshots(9).await.unwrap().len(), 0, "and has no effect");
        let row = &store.snapshot_rows(9).await.unwrap()[0];
        assert_eq!((row.state.as_str(), row.reason.as_deref(), row.parts), ("held", Some("too much"), 4));
    });
}

#[test]
fn a_snapshot_is_swept_by_one_and_by_another_when_that_one_is_silent() {
    on_both(async |place| {
        let (store, other) = (place.connect().await, place.connect().await);
        merge_one(&store, "a:b/left", 5, claim()).await;
        count(&store, "a:b/named", 10, parts(10, 10, 1)).await;
        merge_one(&store, "a:b/later", 30, claim()).await;
        assert!(store.end_snapshot(("p", "s"), 20, 1).await.unwrap());
        assert_eq!(store.count_sweep("p", 10).await.unwrap(), (1, 2));
        assert!(store.begin_sweep(&only_open(&store).await).await.unwrap());
        let sweep = store.take_sweep().await.unwrap().expect("it is to be swept");
        assert_eq!((sweep.begun, sweep.ended, sweep.through), (10, 20, 0));
        assert!(other.take_sweep().await.unwrap().is_none(), "the first one has it");
        let page = store.sweep_page(&sweep, 0, 9).await.unwrap();
        let refs: Vec<&str> = page.iter().map(|(_, entity_ref)| entity_ref.as_str()).collect();
        assert_eq!(refs, ["a:b/left", "a:b/later"]);
        assert_eq!(store.sweep_page(&sweep, page[0].0, 9).await.unwrap().len(), 1);
        let (mut merge, _) = merge_some(&store, "a:b/left", 20, Operation::Withdrawal).await;
        merge.advance_sweep(&sweep, page[0].0, 1).await.unwrap();
        merge.commit("fresh", 20, Vec::new()).await.unwrap();
        place.pass(Duration::from_secs(5)).await;
        assert!(other.take_sweep().await.unwrap().is_none(), "each commit renews the lease");
        place.pass(Duration::from_secs(6)).await;
        let taken = other.take_sweep().await.unwrap().expect("the first one is silent");
        assert_eq!(taken.through, page[0].0);
        assert!(other.finish_sweep(&taken).await.unwrap());
        assert!(!store.finish_sweep(&sweep).await.unwrap());
        place.pass(Duration::from_secs(8 * 86_400)).await;
        assert_eq!(store.snapshot_rows(9).await.unwrap()[0].withdrawn, 1);
        store.forget_snapshots().await.unwrap();
        assert_eq!(store.snapshot_rows(9).await.unwrap().len(), 0);
    });
}

#[test]
fn what_is_withdrawn_above_an_unswept_snapshot_is_not_forgotten() {
    on_both(async |place| {
        let store = place.connect().await;
        count(&store, "a:b/c", 3, parts(3, 3, 1)).await;
        merge_one(&store, "a:b/gone", 4, Operation::Withdrawal).await;
        store.raise_floor(9).await.unwrap();
        for _ in 0..2 {
            place.pass(Duration::from_secs(120)).await;
            store.raise_floor(9).await.unwrap();
        }
        assert_eq!(store.forget_claims(9).await.unwrap(), 0);
        assert!(store.discard_snapshot("p", "s").await.unwrap());
        assert_eq!(store.forget_claims(9).await.unwrap(), 1);
    });
}

/// A claim with content that needs outside reads.
async fn make_due(store: &Store, entity_ref: &str, revision: i64, hash: &str) -> i64 {
    let (mut merge, id) = merge_some(store, entity_ref, revision, claim()).await;
    let source = "provider:p".to_owned();
    let claim = {
        let mut claims = Claims::default();
        claims.insert(&source, Head { revision, operation: claim() }, 0);
        claims.by_source.remove(&source).unwrap()
    };
    let (newest, hash) = (revision, hash.to_owned());
    let write = ClaimWrite { entity_id: id, source: source.clone(), newest, hash: Some(hash.clone()), claim };
    merge.write_claims(&[write]).await.unwrap();
    let content = |is_known| ContentWrite {
        entity_id: id,
        source: source.clone(),
        is_known,
        body: None,
        raw: Some(Some(b"raw".to_vec())),
        error: None,
    };
    merge.write_contents(&[], &[content(false)]).await.unwrap();
    merge
        .write_reads("fresh", &[ReadWrite { entity_id: id, source: source.clone(), hash, asked: revision }])
        .await
        .unwrap();
    merge.commit("fresh", revision, vec![id]).await.unwrap();
    id
}

const LEASE: Duration = Duration::from_secs(60);

async fn take(store: &Store, lane: &str) -> Option<DueRead> {
    let mut taken = store.take_reads(lane, 1, LEASE).await.unwrap();
    assert!(taken.len() < 2);
    taken.pop()
}

/// A transaction on the entity of a read.
async fn on_entity(store: &Store, due: &DueRead) -> Merge {
    let refs = [due.entity_ref.clone()];
    store.merge(&refs, &refs).await.unwrap().0
}

#[test]
fn a_due_row_is_taken_by_one_reader_and_an_outdated_one_writes_nothing() {
    on_both(async |place| {
        let (store, other) = (place.connect().await, place.connect().await);
        make_due(&store, "a:b/c", 1, "h1").await;
        let first = take(&store, "fresh").await.expect("it is due");
        assert_eq!((first.raw.as_slice(), first.asked, first.lease), (b"raw".as_slice(), 1, 1));
        assert!(take(&other, "fresh").await.is_none());
        place.pass(LEASE + Duration::from_secs(1)).await;
        let second = take(&other, "fresh").await.expect("the first reader is silent");
        assert_eq!(second.lease, 2);
        assert!(!on_entity(&store, &first).await.lock_read(&first).await.unwrap(), "it is another's");
        let done = ReadDone { failures: 0, notes: Some("etag".into()), again_after: Duration::from_secs(150) };
        store.finish_unchanged_read(&first, &done).await.unwrap();
        let mut merge = on_entity(&other, &second).await;
        assert!(merge.lock_read(&second).await.unwrap());
        merge.finish_read(&second, &done, Some(&["url:x".into(), "url:y".into()])).await.unwrap();
        merge.commit("fresh", 1, Vec::new()).await.unwrap();
        assert!(take(&store, "fresh").await.is_none() && take(&store, "scheduled").await.is_none());
        place.pass(Duration::from_secs(151)).await;
        let third = take(&store, "scheduled").await.expect("it is time again");
        assert_eq!((third.notes.as_deref(), third.failures), (Some("etag"), 0));
        store.release_reads(&[(third.entity_id, third.source.clone(), third.lease)]).await.unwrap();
        assert!(take(&store, "scheduled").await.is_some(), "given back, it is free");
    });
}

#[test]
fn a_refresh_makes_due_once_and_is_not_lost_while_it_is_read() {
    on_both(async |place| {
        let store = place.connect().await;
        let id = make_due(&store, "a:b/c", 1, "h1").await;
        let due = take(&store, "fresh").await.unwrap();
        let done = ReadDone { failures: 1, notes: Some("n".into()), again_after: Duration::from_secs(150) };
        let mut merge = on_entity(&store, &due).await;
        merge.finish_read(&due, &done, Some(&["url:x".into()])).await.unwrap();
        merge.commit("fresh", 1, Vec::new()).await.unwrap();
        assert_eq!(store.ask_keys(&["url:other".into()], 5).await.unwrap(), 0);
        assert_eq!(store.ask_keys(&["url:x".into()], 5).await.unwrap(), 1);
        assert_eq!(store.ask_keys(&["url:x".into()], 5).await.unwrap(), 0, "asked twice it is done once");
        let due = take(&store, "fresh").await.expect("asked for");
        assert_eq!((due.asked, due.failures, due.notes.as_deref()), (5, 1, Some("n")));
        let refs = ["a:b/c".to_owned(), "a:b/missing".to_owned()];
        assert_eq!(store.ask_reads(&refs, 7, true).await.unwrap(), 1);
        let done = ReadDone { failures: 0, notes: None, again_after: Duration::from_secs(150) };
        store.finish_unchanged_read(&due, &done).await.unwrap();
        let due = take(&store, "fresh").await.expect("somebody asked in between");
        assert_eq!((due.asked, due.notes), (7, None));
        let (mut merge, _) = merge_some(&store, "a:b/c", 8, claim()).await;
        merge.ask_takeovers(&[(id, "provider:p".into())], 8).await.unwrap();
        merge.commit("fresh", 8, Vec::new()).await.unwrap();
        assert_eq!(store.ask_keys(&["url:x".into()], 8).await.unwrap(), 0, "it is asked for under that one");
    });
}

#[test]
fn a_due_row_whose_claim_has_other_content_is_dropped() {
    on_both(async |place| {
        let store = place.connect().await;
        make_due(&store, "a:b/c", 1, "h1").await;
        let old = take(&store, "fresh").await.unwrap();
        make_due(&store, "a:b/c", 2, "h2").await;
        assert!(!on_entity(&store, &old).await.lock_read(&old).await.unwrap(), "of the content before");
        assert_eq!(take(&store, "fresh").await.expect("of the new one").hash, "h2");
        // This writes no hash: the claim needs no reads any more.
        merge_one(&store, "a:b/c", 3, claim()).await;
        place.pass(LEASE + Duration::from_secs(1)).await;
        assert_eq!(store.counts().await.unwrap().reads, 1);
        assert!(take(&store, "fresh").await.is_none());
        assert_eq!(store.counts().await.unwrap().reads, 0, "what is found dead goes");
    });
}

/// A claim of a parent entity.
async fn emit(store: &Store, parent: &str, child: &str, revision: i64, operation: Operation) {
    let refs = [child.to_owned()];
    let (mut merge, rows) = store.merge(&refs, &refs).await.unwrap();
    let (id, source) = (rows[0].id, format!("entity:{parent}"));
    let mut claims = Claims::default();
    for row in merge.read_claims(&[id]).await.unwrap().1 {
        claims.by_source.insert(row.source, row.claim);
    }
    claims.insert(&source, Head { revision, operation }, 0);
    let claim = claims.by_source[&source].clone();
    merge.write_claims(&[ClaimWrite { entity_id: id, source, newest: revision, hash: None, claim }]).await.unwrap();
    let winner = claims.winner().map(|(source, _)| source.to_owned());
    let entity = EntityWrite { id, born: claims.born(), settled_born: None, winner, revision, orphan: false };
    merge.write_entities(&[entity]).await.unwrap();
    merge.write_emitted(id, revision).await.unwrap();
    merge.commit("fresh", revision, Vec::new()).await.unwrap();
}

#[test]
fn what_emits_and_what_is_emitted_is_found() {
    on_both(async |place| {
        let store = place.connect().await;
        merge_one(&store, "l:b/root", 1, claim()).await;
        for (parent, child) in [("l:b/root", "l:b/mid"), ("l:b/mid", "a:b/leaf"), ("a:b/leaf", "l:b/mid")] {
            emit(&store, parent, child, 2, claim()).await;
        }
        emit(&store, "l:b/mid", "a:b/other", 3, claim()).await;
        assert_eq!(store.children("entity:l:b/mid", "", 9).await.unwrap(), ["a:b/leaf", "a:b/other"]);
        assert_eq!(store.children("entity:l:b/mid", "a:b/leaf", 9).await.unwrap(), ["a:b/other"]);
        assert_eq!(store.children("provider:p", "", 9).await.unwrap().len(), 0, "only of entities");
        let (mut merge, rows) = store.merge(&["a:b/leaf".into()], &["a:b/leaf".into()]).await.unwrap();
        assert_eq!(rows[0].emitted, Some(2));
        let ancestors = merge.ancestors(rows[0].id).await.unwrap();
        let found: Vec<_> = ancestors.iter().map(|one| (one.entity_ref.as_str(), one.has_provider)).collect();
        assert_eq!(found, [("a:b/leaf", false), ("l:b/mid", false), ("l:b/root", true)], "a circle ends");
        drop(merge);
        emit(&store, "l:b/mid", "a:b/other", 4, Operation::Release).await;
        assert_eq!(store.children("entity:l:b/mid", "", 9).await.unwrap(), ["a:b/leaf"], "let go of");
    });
}

#[test]
fn a_removal_on_its_way_holds_the_watermark_and_an_orphan_has_its_time() {
    on_both(async |place| {
        let store = place.connect().await;
        store.raise_floor(50).await.unwrap();
        let (mut merge, id) = merge_some(&store, "a:b/c", 1, claim()).await;
        merge.write_cascade(&[(id, Step::Held)], 40).await.unwrap();
        merge.write_cascade(&[(id, Step::Held), (id, Step::Children)], 30).await.unwrap();
        assert_eq!(merge.mark_orphans(&[id], true).await.unwrap(), [id]);
        assert_eq!(merge.mark_orphans(&[id], true).await.unwrap().len(), 0, "it is one");
        merge.commit("fresh", 60, Vec::new()).await.unwrap();
        assert_eq!(store.watermark().await.unwrap(), 29);
        let cascades: Vec<Cascade> = store.cascades(9).await.unwrap();
        let steps: Vec<_> = cascades.iter().map(|cascade| (cascade.step, cascade.revision)).collect();
        assert_eq!(steps, [(Step::Children, 30), (Step::Held, 30)]);
        let grace = Duration::from_secs(30);
        assert_eq!(store.overdue_orphans(grace, 9).await.unwrap().len(), 0);
        place.pass(Duration::from_secs(31)).await;
        assert_eq!(store.overdue_orphans(grace, 9).await.unwrap(), ["a:b/c"]);
        let (mut merge, _) = merge_some(&store, "a:b/c", 2, claim()).await;
        for cascade in &cascades {
            merge.drop_cascade(cascade).await.unwrap();
        }
        merge.commit("fresh", 60, Vec::new()).await.unwrap();
        assert_eq!(store.watermark().await.unwrap(), 50);
        assert_eq!(store.counts().await.unwrap().orphans, 0, "whoever claims it makes it none");
    });
}

#[test]
fn a_rebuild_asks_for_everything_and_has_no_watermark() {
    on_both(async |place| {
        let (store, other) = (place.connect().await, place.connect().await);
        let ids = [merge_one(&store, "a:b/c", 1, claim()).await, merge_one(&store, "a:b/d", 2, claim()).await]
            .map(|request| request.entity_ids[0]);
        let stitching = store.stitch(&[(ids[0], WHATEVER)]).await.unwrap();
        let state = StateWrite { entity_id: ids[0], version: 7, sequence: 3, hash: Some("h".into()), pause_ms: 9000 };
        stitching.commit(&[state]).await.unwrap();
        assert_eq!(store.rebuild_some(1).await.unwrap(), None, "none is going on");
        store.begin_rebuild().await.unwrap();
        assert_eq!(store.watermark().await.unwrap(), -1);
        let before = store.outbox_length().await.unwrap().0;
        assert_eq!(store.rebuild_some(1).await.unwrap(), Some(1));
        let held = other.stitch(&[(ids[1], WHATEVER)]).await.unwrap();
        let (asked, ()) = tokio::join!(store.rebuild_some(5), async { drop(held) });
        assert_eq!(asked.unwrap(), Some(1), "who holds a state is waited for");
        assert_eq!(store.rebuild_some(5).await.unwrap(), Some(0));
        assert!(!store.repair_state().await.unwrap().is_rebuilding);
        assert_eq!(store.outbox_length().await.unwrap().0, before + 2);
        let states = store.published_after(0, 9).await.unwrap();
        let states: Vec<_> = states.iter().map(|state| (state.version, state.hash.as_deref())).collect();
        assert_eq!(states, [(7, Some("")), (0, None)]);
        let again = store.stitch_after_others(&[(ids[0], 1)]).await.unwrap();
        assert!(again.states[0].seen.is_none() && again.states[0].wait_ms.is_none(), "as if it never was stitched");
        store.move_check(5, 1, 2).await.unwrap();
        store.move_check(6, 1, 0).await.unwrap();
        let state = store.repair_state().await.unwrap();
        assert_eq!((state.checked_after, state.rounds, state.mended), (6, 2, 2));
    });
}

#[test]
fn what_was_asked_for_again_holds_no_watermark_and_is_published_by_anyone_after_three_seconds() {
    on_both(async |place| {
        let store = place.connect().await;
        let request = merge_one(&store, "a:b/c", 1, claim()).await;
        let life = a_life(&store).await;
        store.note_published(request.outbox, 8, life).await.unwrap();
        store.delete_published(8, life).await.unwrap();
        store.raise_floor(9).await.unwrap();
        store.stitch_again(&request.entity_ids).await.unwrap();
        store.publish_again(&request.entity_ids).await.unwrap();
        assert_eq!(store.watermark().await.unwrap(), 9);
        assert_eq!(store.unpublished().await.unwrap().len(), 0);
        place.pass(Duration::from_secs(4)).await;
        let rows = store.unpublished().await.unwrap();
        assert_eq!(rows.len(), 2);
        assert!(rows.iter().all(|row| row.lane == "bulk" && row.request.transaction == 0));
        assert!(rows[0].request.outbox < rows[1].request.outbox);
        for row in &rows {
            store.note_published(row.request.outbox, 9, life).await.unwrap();
        }
        assert_eq!(store.outbox_length().await.unwrap(), (2, 0));
    });
}

#[test]
fn a_lost_stream_is_told_and_made_good() {
    on_both(async |place| {
        let store = place.connect().await;
        let seen = |created, last_sequence, last_stored| SeenStream { created, last_sequence, last_stored };
        store.note_stream("E", &seen(1, 10, 100)).await.unwrap();
        let life = |stream, resets| Life { stream, resets };
        store.note_sequence(life("E", 0), 12, 120).await.unwrap();
        store.note_sequence(life("E", 0), 11, 110).await.unwrap();
        store.note_sequence(life("E", 1), 13, 130).await.unwrap();
        store.note_sequence(life("unknown", 0), 11, 110).await.unwrap();
        assert_eq!(store.stream_position("E").await.unwrap().unwrap().last_sequence, 12, "the highest of this life");
        assert_eq!(store.stream_position("unknown").await.unwrap(), None);
        let request = merge_one(&store, "a:b/c", 1, claim()).await;
        let life = Life { stream: "E", resets: 0 };
        store.note_published(request.outbox, 8, life).await.unwrap();
        store.raise_floor(4).await.unwrap();
        for (remedy, lost) in [(Remedy::None, 8), (Remedy::PublishOutbox, 0), (Remedy::Rebuild, 0)] {
            let known = store.stream_position("E").await.unwrap().unwrap();
            assert!(store.reset_stream("E", &known, &seen(known.created + 1, 0, 0), remedy).await.unwrap());
            assert_eq!(store.gaps(9).await.unwrap()[0].lost_at_most, lost, "{remedy:?}");
        }
        let progress = store.progress().await.unwrap();
        assert_eq!((progress.resets, progress.asks), (3, false), "what was lost is published no more");
        assert_eq!(store.outbox_length().await.unwrap(), (1, 1), "every request is published again");
        assert_eq!(store.watermark().await.unwrap(), -1, "everything is");
        let position = store.stream_position("E").await.unwrap().unwrap();
        assert_eq!((position.earlier.len(), position.revision(1, 130)), (3, 13));
        store.note_stream("E", &seen(position.created, 5, 50)).await.unwrap();
        let noted = store.stream_position("E").await.unwrap().unwrap();
        assert_eq!((noted.last_sequence, noted.last_stored), (5, 50));
    });
}

#[test]
fn relations_and_contents_are_what_was_written_last() {
    on_both(async |place| {
        let store = place.connect().await;
        let (mut merge, id) = merge_some(&store, "a:b/c", 1, claim()).await;
        let row = |target: &str| RelationRow {
            subject_id: id,
            originator_id: id,
            relation_type: "ownedBy".into(),
            target_ref: target.into(),
        };
        merge.write_relations(&[], &[row("g:b/x"), row("g:b/x"), row("g:b/y")]).await.unwrap();
        merge.write_relations(&[row("g:b/x")], &[]).await.unwrap();
        assert_eq!(merge.read_relations(&[id]).await.unwrap(), [row("g:b/y")]);
        let content = |is_known, body: Option<&str>, error: Option<Option<&str>>| ContentWrite {
            entity_id: id,
            source: "provider:p".into(),
            is_known,
            body: body.map(|body| Some(body.as_bytes().to_vec())),
            raw: None,
            error: error.map(|error| error.map(str::to_owned)),
        };
        merge.write_contents(&[], &[content(true, Some("unknown"), None)]).await.unwrap();
        let key = (id, "provider:p".to_owned());
        assert!(merge.read_contents(std::slice::from_ref(&key)).await.unwrap().is_empty(), "there is none to change");
        merge.write_contents(&[], &[content(false, Some("good"), None)]).await.unwrap();
        merge.write_contents(&[], &[content(true, None, Some(Some("{}")))]).await.unwrap();
        merge.commit("fresh", 1, vec![id]).await.unwrap();
        let mut stitching = store.stitch(&[(id, WHATEVER)]).await.unwrap();
        let shown = stitching.read_shown(&[id, 999]).await.unwrap();
        assert_eq!((shown.len(), shown[0].body.as_deref()), (1, Some(b"good".as_slice())), "the other half stays");
        assert_eq!(shown[0].error.as_deref(), Some("{}"));
        assert_eq!(stitching.read_incoming(&[id]).await.unwrap().len(), 1);
        drop(stitching);
        let failed = store.failed_entities("", 9).await.unwrap();
        assert_eq!((failed.len(), failed[0].shown, failed[0].entity_ref.as_str()), (1, true, "a:b/c"));
        let (mut merge, _) = merge_some(&store, "a:b/c", 2, Operation::Withdrawal).await;
        merge.write_contents(std::slice::from_ref(&key), &[]).await.unwrap();
        merge.commit("fresh", 2, vec![id]).await.unwrap();
        assert_eq!(store.failed_entities("", 9).await.unwrap().len(), 0);
    });
}

#[test]
fn who_loses_to_another_key_is_listed() {
    on_both(async |place| {
        let store = place.connect().await;
        let keyed = |key: &str| Operation::Claim { key: Some(key.into()), good: true };
        merge_one(&store, "a:b/c", 1, keyed("k1")).await;
        emit(&store, "l:b/x", "a:b/c", 2, keyed("k2")).await;
        let found = store.conflicts((0, ""), 9).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].shown, ("provider:p".to_owned(), Some("k1".to_owned()), 1));
        assert_eq!(found[0].loses, ("entity:l:b/x".to_owned(), Some("k2".to_owned()), 2));
        let after = (found[0].entity_id, "entity:l:b/x");
        assert_eq!(store.conflicts(after, 9).await.unwrap().len(), 0);
    });
}
