//! The stitcher's transaction: `stitch.rs`, statement by statement.

use super::Store;
use super::database::{Key, Stitched};
use super::merge::milliseconds;
use super::transaction::{Transaction, View};
use crate::{Error, Incoming, Shown, Snapshot, StateWrite, StitchState};
use std::time::Duration;

/// See [`crate::Stitching`].
#[derive(Debug)]
pub struct Stitching {
    transaction: Transaction,
    snapshot: Option<Snapshot>,
    pub states: Vec<StitchState>,
}

/// What becomes of a state that another transaction holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Skipped,
    Awaited,
}

impl Store {
    pub async fn stitch(&self, asked: &[(i64, i64)]) -> Result<Stitching, Error> {
        Stitching::lock(self.begin().await?, Held::Skipped, asked).await
    }

    pub async fn unstitched(&self, asked: &[(i64, i64)]) -> Result<Vec<(i64, i64)>, Error> {
        let look = |view: View<'_>| asked.iter().copied().filter(|(id, asked)| view.is_wanted(*id, *asked)).collect();
        self.begin().await?.run("stitching.unstitched", look).await
    }

    pub async fn look_at_stitched(&self, entity_ids: &[i64]) -> Result<Stitching, Error> {
        let mut transaction = self.begin().await?;
        let mut ids = entity_ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let look = |view: View<'_>| ids.iter().filter_map(|id| view.state(*id)).collect();
        let states = transaction.run("stitching.look", look).await?;
        Ok(Stitching { transaction, snapshot: None, states })
    }

    pub async fn stitch_after_others(&self, asked: &[(i64, i64)]) -> Result<Stitching, Error> {
        let mut transaction = self.begin().await?;
        transaction.lock_timeout = Duration::from_secs(2);
        Stitching::lock(transaction, Held::Awaited, asked).await
    }
}

impl View<'_> {
    fn state(&self, id: i64) -> Option<StitchState> {
        let row = self.database.stitched.get(self.tid, &id)?;
        let wait_ms = row.not_before.map(|not_before| milliseconds(not_before - self.now));
        Some(StitchState {
            entity_id: id,
            version: row.version,
            sequence: row.sequence,
            hash: row.hash.clone(),
            seen: row.seen.clone(),
            wait_ms: wait_ms.filter(|ms| *ms > 0),
        })
    }

    /// Whether a state may not hold what a transaction has written.
    fn is_wanted(&self, id: i64, asked: i64) -> bool {
        let row = self.database.stitched.get(self.tid, &id);
        row.is_some_and(|row| row.seen.as_ref().is_none_or(|seen| seen.xmin <= asked))
    }
}

impl Stitching {
    /// `lock_stitch_states.sql` and `await_stitch_states.sql`. The snapshot is that of the statement's beginning: who was waited for may not be in it.
    async fn lock(mut transaction: Transaction, held: Held, asked: &[(i64, i64)]) -> Result<Stitching, Error> {
        debug_assert!(asked.is_sorted(), "locks are taken in order");
        transaction.enter("stitching.lock").await?;
        let snapshot = transaction.view().database.snapshot();
        let mut wanted = asked.to_vec();
        wanted.retain({
            let view = transaction.view();
            move |(id, asked)| view.is_wanted(*id, *asked)
        });
        let mut states = Vec::with_capacity(wanted.len());
        for (id, asked) in wanted {
            let key = Key::Stitched(id);
            match held {
                Held::Awaited => transaction.lock(key).await?,
                Held::Skipped => {
                    let mut view = transaction.view();
                    if !view.database.try_lock(view.tid, &key) {
                        continue;
                    }
                }
            }
            let view = transaction.view();
            states.extend(view.state(id).filter(|_| view.is_wanted(id, asked)));
        }
        transaction.leave().await?;
        let snapshot = (!states.is_empty()).then_some(snapshot);
        Ok(Stitching { transaction, snapshot, states })
    }

    pub async fn read_shown(&mut self, entity_ids: &[i64]) -> Result<Vec<Shown>, Error> {
        let read = |view: View<'_>| {
            let shown = |id: &i64| {
                let row = view.database.entities.get(view.tid, id)?;
                let winner = row.winner.clone();
                let key = winner.as_ref().and_then(|winner| view.database.claims.get(view.tid, &(*id, winner.clone())));
                let key = key.map(|claim| claim.key.clone());
                let of_entity = (*id, String::new())..(*id + 1, String::new());
                let emits = |claim: &super::database::ClaimOf| {
                    claim.present && !claim.released && key.as_ref() == Some(&claim.key)
                };
                let parents = view.database.claims.range(view.tid, of_entity).filter(|(_, claim)| emits(claim));
                let parents = parents.filter_map(|((_, source), _)| Some(source.strip_prefix("entity:")?.to_owned()));
                let parents = Some(parents.collect::<Vec<_>>()).filter(|parents| !parents.is_empty());
                let content = winner.and_then(|winner| view.database.contents.get(view.tid, &(*id, winner)));
                Some(Shown {
                    entity_id: *id,
                    entity_ref: row.entity_ref.clone(),
                    born: row.born,
                    revision: row.revision,
                    body: content.and_then(|content| content.body.clone()),
                    error: content.and_then(|content| content.error.clone()),
                    orphan: row.orphan_since.is_some(),
                    parents,
                })
            };
            entity_ids.iter().filter_map(shown).collect()
        };
        self.transaction.run("stitching.read_shown", read).await
    }

    pub async fn read_incoming(&mut self, entity_ids: &[i64]) -> Result<Vec<Incoming>, Error> {
        let read = |view: View<'_>| {
            let mut found = Vec::new();
            for ((_, subject_id, relation_type, target_ref), count) in view.database.relations.all(view.tid) {
                if entity_ids.contains(subject_id) {
                    let (relation_type, target_ref) = (relation_type.clone(), target_ref.clone());
                    let incoming = Incoming { subject_id: *subject_id, relation_type, target_ref };
                    found.extend(std::iter::repeat_n(incoming, *count));
                }
            }
            found
        };
        self.transaction.run("stitching.read_incoming", read).await
    }

    pub async fn take_versions(&mut self, count: usize) -> Result<Vec<i64>, Error> {
        let take = |mut view: View<'_>| {
            let mut next = || {
                view.database.versions += 1;
                view.database.versions
            };
            (0..count).map(|_| next()).collect()
        };
        self.transaction.run("stitching.take_versions", take).await
    }

    pub async fn raise_versions(&mut self, above: i64) -> Result<(), Error> {
        let raise = |mut view: View<'_>| view.database.versions = view.database.versions.max(above).max(1);
        self.transaction.run("stitching.raise_versions", raise).await
    }

    pub async fn commit(mut self, written: &[StateWrite]) -> Result<(), Error> {
        self.transaction.enter("stitching.write_states").await?;
        for state in written {
            self.transaction.lock(Key::Stitched(state.entity_id)).await?;
            let mut view = self.transaction.view();
            let row = Stitched {
                version: state.version,
                sequence: state.sequence,
                hash: state.hash.clone(),
                seen: self.snapshot.clone(),
                not_before: Some(view.now.saturating_add(state.pause_ms.saturating_mul(1000))),
            };
            view.database.stitched.change(view.tid, &state.entity_id, |known| *known = row);
        }
        self.transaction.leave().await?;
        self.transaction.commit("stitching.commit").await
    }
}
