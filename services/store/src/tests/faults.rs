//! The twin's own: what the simulator draws happens.

use super::contract::{claim, merge_one, merge_some};
use crate::twin::{Fault, Faults, NoFaults, Twin};
use crate::{Error, Store};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One fault, at one call.
#[derive(Debug, Default)]
struct Once(Mutex<Option<(&'static str, Fault)>>);

impl Once {
    fn next(&self, point: &'static str, fault: Fault) {
        *self.0.lock().unwrap() = Some((point, fault));
    }
}

impl Faults for Once {
    fn at(&self, point: &'static str) -> Fault {
        let mut next = self.0.lock().unwrap();
        next.take_if(|(wanted, _)| *wanted == point).map_or(Fault::None, |(_, fault)| fault)
    }
}

fn two() -> (Arc<Once>, Store, Store) {
    let (twin, faults) = (Twin::new(), Arc::new(Once::default()));
    (faults.clone(), twin.connect(faults), twin.connect(Arc::new(NoFaults)))
}

fn is_away<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Away(_)))
}

#[tokio::test(start_paused = true)]
async fn of_an_ambiguous_commit_only_the_caller_does_not_know() {
    let (faults, store, other) = two();
    let (merge, id) = merge_some(&store, "a:b/c", 1, claim()).await;
    faults.next("merge.commit", Fault::Ambiguous);
    assert!(is_away(&merge.commit("fresh", 1, vec![id]).await));
    assert_eq!(other.outbox_length().await.unwrap(), (1, 1), "it was one");
    let (merge, id) = merge_some(&store, "a:b/d", 2, claim()).await;
    faults.next("merge.commit", Fault::Lost);
    assert!(is_away(&merge.commit("fresh", 2, vec![id]).await));
    assert_eq!(other.newest_claim("a:b/d", "provider:p").await.unwrap(), None, "it was none");
    faults.next("raise_floor", Fault::Ambiguous);
    assert!(is_away(&store.raise_floor(9).await));
    assert_eq!(other.floor().await.unwrap(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_loses_its_connection_has_done_nothing() {
    for fault in [Fault::Lost, Fault::Ambiguous] {
        let (faults, store, other) = two();
        let (mut merge, id) = merge_some(&store, "a:b/c", 1, claim()).await;
        faults.next("merge.read_claims", fault);
        assert!(is_away(&merge.read_claims(&[id]).await));
        assert!(is_away(&merge.commit("fresh", 1, vec![id]).await), "nor will it");
        merge_one(&other, "a:b/c", 2, claim()).await;
        assert_eq!(other.counts().await.unwrap().outbox, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_cut_off_keeps_its_locks_for_half_a_minute() {
    let (faults, store, other) = two();
    let (merge, id) = merge_some(&store, "a:b/c", 1, claim()).await;
    faults.next("merge.commit", Fault::Cut);
    assert!(is_away(&merge.commit("fresh", 1, Vec::new()).await));
    let refs = ["a:b/c".to_owned()];
    let began = tokio::time::Instant::now();
    while let Err(error) = other.merge(&refs, &refs).await {
        assert!(matches!(error, Error::Collision(_)), "{error}");
    }
    assert_eq!(began.elapsed().as_secs(), 30);
    assert_eq!(other.newest_claim("a:b/c", "provider:p").await.unwrap(), None, "of {id} nothing was committed");
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_before_and_after() {
    let (faults, store, other) = two();
    faults.next("raise_floor", Fault::Delay(Duration::from_secs(2)));
    let (began, raise) = (tokio::time::Instant::now(), store.raise_floor(9));
    let look = async {
        for (after, floor) in [(500, 0), (1500, 9)] {
            tokio::time::sleep_until(began + Duration::from_millis(after)).await;
            assert_eq!(other.floor().await.unwrap(), floor);
        }
    };
    let (raised, ()) = tokio::join!(raise, look);
    raised.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(2));
}

/// The same calls give the same, to the microsecond: who is first decides, and nothing else.
#[test]
fn a_run_repeats() {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let twin = Twin::new();
            let stores: Vec<Store> = (0..4).map(|_| twin.connect(Arc::new(NoFaults))).collect();
            let mut tasks = tokio::task::JoinSet::new();
            for (number, store) in stores.into_iter().enumerate() {
                tasks.spawn(async move {
                    let mut told = Vec::new();
                    for turn in 0..5_i64 {
                        let entity_ref = format!("a:b/{}", (turn + i64::try_from(number).unwrap()) % 3);
                        told.push(merge_one(&store, &entity_ref, turn * 4 + 1, claim()).await);
                    }
                    (number, told)
                });
            }
            let mut told = tasks.join_all().await;
            told.sort_by_key(|(number, _)| *number);
            told
        })
    };
    assert_eq!(run(), run());
}
