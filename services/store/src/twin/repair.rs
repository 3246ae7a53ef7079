//! Repair: `repair.rs`, statement by statement.

use super::Store;
use super::database::Key;
use super::removal::limit;
use super::seconds;
use super::transaction::{Transaction, View};
use crate::repair::{ENTITIES_PER_ROW, NO_REVISION};
use crate::{Error, Gap, PublishedState, RepairState};
use catalog::claims::Revision;
use std::ops::Bound;

impl View<'_> {
    /// `read_published.sql`
    fn published(&self, after: i64, at_most: i64) -> Vec<PublishedState> {
        let states = self.database.stitched.range(self.tid, (Bound::Excluded(after), Bound::Unbounded));
        let state = |(id, state): (&i64, &super::database::Stitched)| {
            let entity = self.database.entities.get(self.tid, id)?;
            (state.version > 0 || entity.winner.is_some()).then(|| PublishedState {
                entity_id: *id,
                entity_ref: entity.entity_ref.clone(),
                version: state.version,
                hash: state.hash.clone(),
                never_stitched: state.version == 0 && state.seen.is_none(),
            })
        };
        states.filter_map(state).take(limit(at_most)).collect()
    }

    fn rebuild_after(&self) -> Option<i64> {
        self.database.repair.get(self.tid, &())?.rebuild_after
    }
}

impl Transaction {
    /// `await_stitch_states.sql`, then `forget_stitched.sql`
    async fn ask_again(&mut self, ids: &[i64], revision: Revision) -> Result<(), Error> {
        debug_assert!(ids.is_sorted(), "locks are taken in order");
        self.enter("repair.await_stitch_states").await?;
        for id in ids {
            self.lock(Key::Stitched(*id)).await?;
        }
        self.leave().await?;
        let forget = |mut view: View<'_>| {
            for id in ids {
                view.database.stitched.change(view.tid, id, |state| {
                    state.hash = (state.version > 0).then(String::new);
                    (state.seen, state.not_before) = (None, None);
                });
            }
        };
        self.run("repair.forget_stitched", forget).await?;
        self.ask_whatever(ids, revision).await
    }

    async fn ask_whatever(&mut self, ids: &[i64], revision: Revision) -> Result<(), Error> {
        for ids in ids.chunks(ENTITIES_PER_ROW) {
            self.run("repair.ask_stitching", |mut view| view.ask("bulk", revision, Some(0), ids)).await?;
        }
        Ok(())
    }

    /// Changes the one row of repair.
    pub(super) async fn change_repair(
        &mut self,
        change: impl FnOnce(&mut super::database::Repair),
    ) -> Result<(), Error> {
        self.lock(Key::Repair).await?;
        let mut view = self.view();
        view.database.repair.change(view.tid, &(), change);
        Ok(())
    }
}

impl Store {
    pub async fn begin_rebuild(&self) -> Result<(), Error> {
        let mut transaction = self.statement("begin_rebuild").await?;
        transaction.change_repair(|repair| repair.rebuild_after = Some(0)).await?;
        transaction.finish().await
    }

    pub async fn rebuild_some(&self, at_most: i64) -> Result<Option<usize>, Error> {
        let mut transaction = self.statement("rebuild_some").await?;
        if transaction.view().rebuild_after().is_none() {
            transaction.leave().await?;
            return Ok(None);
        }
        transaction.lock(Key::Repair).await?;
        let after = transaction.view().rebuild_after();
        transaction.leave().await?;
        let Some(after) = after else { return Ok(None) };
        let published = transaction.run("repair.read_published", |view| view.published(after, at_most)).await?;
        let ids: Vec<i64> = published.iter().map(|state| state.entity_id).collect();
        transaction.ask_again(&ids, 0).await?;
        transaction.enter("repair.move_rebuild").await?;
        transaction.change_repair(|repair| repair.rebuild_after = ids.last().copied()).await?;
        transaction.leave().await?;
        transaction.commit("repair.commit").await?;
        Ok(Some(ids.len()))
    }

    pub async fn published_after(&self, after: i64, at_most: i64) -> Result<Vec<PublishedState>, Error> {
        self.alone("published_after", |view| view.published(after, at_most)).await
    }

    pub async fn publish_again(&self, entity_ids: &[i64]) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        transaction.ask_again(entity_ids, NO_REVISION).await?;
        transaction.commit("repair.commit").await
    }

    pub async fn stitch_again(&self, entity_ids: &[i64]) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        transaction.ask_whatever(entity_ids, NO_REVISION).await?;
        transaction.commit("repair.commit").await
    }

    pub async fn move_check(&self, after: i64, rounds: i64, mended: i64) -> Result<(), Error> {
        let mut transaction = self.statement("move_check").await?;
        let change = |repair: &mut super::database::Repair| {
            repair.state.checked_after = after;
            repair.state.rounds += rounds;
            repair.state.mended += mended;
        };
        transaction.change_repair(change).await?;
        transaction.finish().await
    }

    pub async fn repair_state(&self) -> Result<RepairState, Error> {
        let found = self.alone("repair_state", |view| {
            let repair = view.database.repair.get(view.tid, &())?;
            Some(RepairState { is_rebuilding: repair.rebuild_after.is_some() || view.has_gone_back(), ..repair.state })
        });
        found.await?.ok_or_else(|| Error::Damaged("repair has no row".into()))
    }

    pub async fn gaps(&self, at_most: i64) -> Result<Vec<Gap>, Error> {
        self.alone("gaps", |view| {
            let gaps: Vec<_> = view.database.gaps.all(view.tid).map(|(_, gap)| gap).collect();
            let gap = |(gap, found_at): &(Gap, i64)| Gap { seconds_ago: seconds(view.now - found_at), ..gap.clone() };
            gaps.into_iter().rev().take(limit(at_most)).map(gap).collect()
        })
        .await
    }

    pub async fn newest_claim(&self, entity_ref: &str, source: &str) -> Result<Option<Revision>, Error> {
        self.alone("newest_claim", |view| {
            let id = *view.database.refs.get(view.tid, &entity_ref.to_owned())?;
            Some(view.database.claims.get(view.tid, &(id, source.to_owned()))?.newest)
        })
        .await
    }
}
