//! What sees what, who waits for whom, and what becomes of it.

use super::contract::{Place, claim, merge_one, merge_some, on_both};
use crate::{EntityWrite, Error, Merge, StateWrite, WHATEVER};
use catalog::claims::Operation;
use std::time::Duration;

fn refs(named: &[&str]) -> Vec<String> {
    named.iter().map(|named| (*named).to_owned()).collect()
}

fn shown(id: i64, revision: i64) -> EntityWrite {
    EntityWrite { id, born: Some(1), settled_born: None, winner: Some("provider:p".into()), revision, orphan: false }
}

/// Two transactions, each with an entity that it has locked.
async fn two_with_one_each(place: &Place) -> [(Merge, i64); 2] {
    let (one, other) = (place.connect().await, place.connect().await);
    let named = refs(&["a:b/c", "a:b/d"]);
    let (first, rows) = one.merge(&named, &named[..1]).await.unwrap();
    let (second, others) = other.merge(&named, &named[1..]).await.unwrap();
    [(first, rows[0].id), (second, others[0].id)]
}

#[test]
fn what_is_written_is_seen_by_others_once_it_is_committed() {
    on_both(async |place| {
        let (one, other) = (place.connect().await, place.connect().await);
        let (mut merge, id) = merge_some(&one, "a:b/c", 1, claim()).await;
        assert_eq!(merge.read_claims(&[id]).await.unwrap().1.len(), 1, "the transaction itself sees it");
        assert_eq!(other.newest_claim("a:b/c", "provider:p").await.unwrap(), None);
        assert_eq!(other.counts().await.unwrap().entities, 0);
        merge.commit("fresh", 1, vec![id]).await.unwrap();
        assert_eq!(other.newest_claim("a:b/c", "provider:p").await.unwrap(), Some(1));
        assert_eq!(other.counts().await.unwrap().entities, 1);
    });
}

#[test]
fn who_waits_for_an_entity_sees_what_the_other_made_of_it() {
    on_both(async |place| {
        let (one, other) = (place.connect().await, place.connect().await);
        let (first, id) = merge_some(&one, "a:b/c", 7, claim()).await;
        let named = refs(&["a:b/c"]);
        let (second, first) = tokio::join!(other.merge(&named, &named), first.commit("fresh", 7, vec![id]));
        first.unwrap();
        let (mut merge, rows) = second.unwrap();
        assert_eq!((rows[0].revision, rows[0].winner.as_deref()), (7, Some("provider:p")));
        assert_eq!(merge.read_claims(&[id]).await.unwrap().1[0].claim.newest_head(), Some(7));
    });
}

#[test]
fn who_waits_for_a_new_ref_is_given_the_number_of_the_first() {
    on_both(async |place| {
        let (one, other) = (place.connect().await, place.connect().await);
        let named = refs(&["a:b/c", "a:b/d"]);
        let (first, second) = tokio::join!(one.merge(&named, &named[..1]), other.merge(&named, &named[1..]));
        let ((mut first, _), (mut second, _)) = (first.unwrap(), second.unwrap());
        let ids = first.find_ids(&named).await.unwrap().clone();
        assert_eq!(*second.find_ids(&named).await.unwrap(), ids);
        assert_eq!(ids.len(), 2);
    });
}

#[test]
fn of_a_deadlock_one_is_told_and_the_other_goes_on() {
    on_both(async |place| {
        let [(mut first, left), (mut second, right)] = two_with_one_each(&place).await;
        let first = async {
            let written = first.write_entities(&[shown(right, 1)]).await;
            match written {
                Ok(()) => first.commit("fresh", 1, Vec::new()).await.map(|_| ()),
                Err(error) => Err(error),
            }
        };
        let second = async {
            let written = second.write_entities(&[shown(left, 2)]).await;
            match written {
                Ok(()) => second.commit("fresh", 2, Vec::new()).await.map(|_| ()),
                Err(error) => Err(error),
            }
        };
        let outcomes = tokio::join!(tokio::time::timeout(Duration::from_secs(9), first), async {
            tokio::time::timeout(Duration::from_secs(9), second).await
        });
        let outcomes = [outcomes.0.unwrap(), outcomes.1.unwrap()];
        let collisions: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
        assert!(
            matches!(collisions[..], [Error::Collision(what)] if what.contains("deadlock detected")),
            "{outcomes:?}"
        );
    });
}

#[test]
fn a_wait_for_an_entity_ends_after_ten_seconds_and_an_idle_transaction_after_thirty() {
    on_both(async |place| {
        let (one, other) = (place.connect().await, place.connect().await);
        let named = refs(&["a:b/c"]);
        let (mut idle, _) = one.merge(&named, &named).await.unwrap();
        let began = tokio::time::Instant::now();
        let error = other.merge(&named, &named).await.map(|_| ()).unwrap_err();
        assert!(matches!(&error, Error::Collision(what) if what.contains("lock timeout")), "{error}");
        assert!((9..12).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        while let Err(error) = other.merge(&named, &named).await.map(|_| ()) {
            assert!(matches!(error, Error::Collision(_)), "{error}");
            assert!(began.elapsed() < Duration::from_secs(40));
        }
        assert!((29..33).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        let error = idle.read_claims(&[1]).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::Away(_)), "{error}");
    });
}

#[test]
fn a_stitcher_waits_for_another_for_two_seconds() {
    on_both(async |place| {
        let (one, other) = (place.connect().await, place.connect().await);
        let id = merge_one(&one, "a:b/c", 1, claim()).await.entity_ids[0];
        let held = one.stitch(&[(id, WHATEVER)]).await.unwrap();
        assert_eq!(held.states.len(), 1);
        let began = tokio::time::Instant::now();
        let error = other.stitch_after_others(&[(id, WHATEVER)]).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::Collision(_)), "{error}");
        assert!((1900..4000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
        assert_eq!(other.look_at_stitched(&[id]).await.unwrap().states.len(), 1, "who only looks waits for nobody");
    });
}

#[test]
fn a_failed_transaction_is_good_for_nothing_more() {
    on_both(async |place| {
        let [(mut first, left), (mut second, right)] = two_with_one_each(&place).await;
        let (left, right) = ([shown(left, 2)], [shown(right, 1)]);
        let waits = async {
            let error = second.write_entities(&left).await.unwrap_err();
            assert!(matches!(error, Error::Collision(_)), "{error}");
            let error = second.read_claims(&[1]).await.map(|_| ()).unwrap_err();
            assert!(matches!(error, Error::Refused(_)), "{error}");
        };
        // It waits first, so it is the first to look whether it is one.
        tokio::join!(waits, async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            // Whether it is done is known once the other is gone; it is not waited for here.
            let _ = tokio::time::timeout(Duration::from_millis(900), first.write_entities(&right)).await;
        });
    });
}

#[test]
fn versions_are_never_given_back() {
    on_both(async |place| {
        let store = place.connect().await;
        let id = merge_one(&store, "a:b/c", 1, claim()).await.entity_ids[0];
        let mut dropped = store.stitch(&[(id, WHATEVER)]).await.unwrap();
        let taken = dropped.take_versions(3).await.unwrap();
        assert!(taken.is_sorted() && taken.len() == 3);
        drop(dropped);
        let mut next = store.stitch_after_others(&[(id, WHATEVER)]).await.unwrap();
        assert!(next.take_versions(1).await.unwrap()[0] > taken[2]);
        next.raise_versions(1).await.unwrap();
        assert!(next.take_versions(1).await.unwrap()[0] > taken[2], "raised to a lower one they stay");
    });
}

/// The horizon: what was not committed when the stitcher looked is asked for anew.
#[test]
fn a_stitch_does_not_count_for_what_was_on_its_way() {
    on_both(async |place| {
        let (one, other) = (place.connect().await, place.connect().await);
        let id = merge_one(&one, "a:b/c", 1, claim()).await.entity_ids[0];
        let (late, _) = merge_some(&other, "a:b/late", 2, claim()).await;
        let stitching = one.stitch(&[(id, WHATEVER)]).await.unwrap();
        let after = merge_one(&one, "a:b/after", 3, claim()).await;
        let state = StateWrite { entity_id: id, version: 1, sequence: 1, hash: None, pause_ms: 0 };
        stitching.commit(&[state]).await.unwrap();
        let late = late.commit("fresh", 2, vec![id]).await.unwrap().unwrap();
        for transaction in [late.transaction, after.transaction] {
            let locked = one.stitch_after_others(&[(id, transaction)]).await.unwrap();
            let seen = locked.states[0].seen.clone().expect("it was stitched");
            assert!(!seen.shows(transaction), "{transaction} was not committed then");
        }
        let again = one.stitch_after_others(&[(id, WHATEVER)]).await.unwrap();
        let state = StateWrite { entity_id: id, version: 2, sequence: 2, hash: None, pause_ms: 0 };
        again.commit(&[state]).await.unwrap();
        for transaction in [late.transaction, after.transaction] {
            let locked = one.stitch(&[(id, transaction)]).await.unwrap();
            let shows = |seen: &crate::Snapshot| seen.shows(transaction);
            assert!(locked.states.iter().all(|state| state.seen.as_ref().is_some_and(shows)), "now it is in");
        }
    });
}

#[test]
fn what_is_locked_is_forgotten_another_time() {
    on_both(async |place| {
        let (one, other) = (place.connect().await, place.connect().await);
        merge_one(&one, "a:b/gone", 2, Operation::Withdrawal).await;
        one.raise_floor(5).await.unwrap();
        for _ in 0..2 {
            place.pass(Duration::from_secs(120)).await;
            one.raise_floor(5).await.unwrap();
        }
        let named = refs(&["a:b/gone"]);
        let held = other.merge(&named, &named).await.unwrap();
        assert_eq!(one.forget_claims(100).await.unwrap(), 0);
        drop(held);
        let began = tokio::time::Instant::now();
        while one.forget_claims(100).await.unwrap() == 0 {
            assert!(began.elapsed() < Duration::from_secs(5), "it was let go");
            tokio::task::yield_now().await;
        }
    });
}
