//! How far everything is: `floor.rs`, statement by statement.

use super::Store;
use super::database::{ClaimOf, Key, Moment};
use super::transaction::{Transaction, View};
use crate::{Error, Life, Progress};
use catalog::claims::Revision;
use catalog::planted;
use std::collections::BTreeSet;

const MINUTE: Moment = 60_000_000;

impl View<'_> {
    /// The lowest beginning of a snapshot that is not swept.
    pub(super) fn first_unswept(&self) -> Option<Revision> {
        let snapshots = self.database.snapshots.all(self.tid).map(|(_, snapshot)| snapshot);
        let unswept = snapshots.filter(|snapshot| matches!(snapshot.state.as_str(), "open" | "sweeping"));
        unswept.map(|snapshot| snapshot.begun).min()
    }

    /// `read_progress.sql`
    fn progress(&self) -> Progress {
        let streams = self.database.streams.all(self.tid);
        let resets = streams.map(|(_, position)| position.resets).sum();
        Progress { watermark: self.watermark(), resets, asks: !self.asks(|ask| ask.sequence.is_some()).is_empty() }
    }

    fn watermark(&self) -> Revision {
        let (database, tid) = (&self.database, self.tid);
        let floor = database.floor.get(tid, &()).map_or(0, |floor| floor.revision);
        let asked = database.outbox.all(tid).map(|(_, ask)| ask.revision - 1).min();
        let removed = database.cascade.all(tid).map(|(_, revision)| *revision - 1).min();
        let unswept = self.first_unswept().map(|begun| begun - 1);
        let is_rebuilding = database.repair.get(tid, &()).is_some_and(|repair| repair.rebuild_after.is_some());
        let below = [asked, removed, unswept, (is_rebuilding || self.has_gone_back()).then_some(-1)];
        below.into_iter().flatten().fold(floor, Revision::min)
    }
}

impl Transaction {
    /// `raise_floor.sql`
    async fn raise_floor(&mut self, revision: Revision) -> Result<(), Error> {
        let is_due = |view: &View<'_>| {
            let now = view.began();
            view.database.floor.get(view.tid, &()).is_some_and(|floor| {
                floor.revision < revision || (floor.forget_through < floor.revision && floor.noted_at < now - MINUTE)
            })
        };
        let is_changed = is_due(&self.view());
        if is_changed {
            self.lock(Key::Floor).await?;
            let mut view = self.view();
            if is_due(&view) {
                let (tid, now) = (view.tid, view.began());
                view.database.floor.change(tid, &(), |floor| {
                    if floor.noted_at < now - MINUTE {
                        floor.forget_through = floor.noted;
                        floor.noted = floor.revision;
                        floor.noted_at = now;
                    }
                    floor.revision = floor.revision.max(revision);
                });
            }
        }
        Ok(())
    }
}

impl Store {
    pub async fn floor(&self) -> Result<Revision, Error> {
        self.alone("floor", |view| view.floor().revision).await
    }

    pub async fn settle(&self, revision: Revision, life: Life<'_>) -> Result<(), Error> {
        let mut transaction = self.statement("settle").await?;
        if !transaction.holds(life).await? {
            return transaction.finish().await;
        }
        transaction.raise_floor(revision).await?;
        transaction.finish().await
    }

    pub async fn raise_floor(&self, revision: Revision) -> Result<(), Error> {
        let mut transaction = self.statement("raise_floor").await?;
        transaction.raise_floor(revision).await?;
        transaction.finish().await
    }

    pub async fn progress(&self) -> Result<Progress, Error> {
        self.alone("progress", |view| view.progress()).await
    }

    pub async fn watermark(&self) -> Result<Revision, Error> {
        Ok(self.progress().await?.watermark)
    }

    /// What another transaction has locked is left for another time.
    pub async fn forget_claims(&self, at_most: i64) -> Result<u64, Error> {
        let is_early = planted::is("tombstone-forgotten");
        self.alone("forget_claims", |mut view| {
            let forget_through = view.database.floor.get(view.tid, &()).map_or(0, |floor| floor.forget_through);
            let through = view.first_unswept().map_or(forget_through, |begun| forget_through.min(begun - 1));
            let tid = view.tid;
            let claims = view.database.claims.all(tid);
            let standing: BTreeSet<i64> = view
                .database
                .claims
                .all(tid)
                .filter(|(_, claim)| claim.present && claim.claim.newest_head().is_some())
                .map(|((entity_id, _), _)| *entity_id)
                .collect();
            let is_over = |entity_id: i64, claim: &ClaimOf| {
                claim.newest <= through && (claim.claim.is_forgettable() || !standing.contains(&entity_id))
            };
            let withdrawn = claims.filter(|(key, claim)| !claim.present && (is_early || is_over(key.0, claim)));
            let mut withdrawn: Vec<(String, (i64, String))> = withdrawn
                .filter_map(|(key, _)| Some((view.database.entities.get(tid, &key.0)?.entity_ref.clone(), key.clone())))
                .collect();
            withdrawn.sort_unstable();
            let mut count = 0;
            for (_, key) in withdrawn {
                if i64::try_from(count).unwrap_or(i64::MAX) >= at_most {
                    break;
                }
                let claim = Key::Claim(key.0, key.1.clone());
                if view.database.try_lock(tid, &Key::Entity(key.0)) && view.database.try_lock(tid, &claim) {
                    view.database.claims.put(tid, key, None);
                    count += 1;
                }
            }
            count
        })
        .await
    }
}
