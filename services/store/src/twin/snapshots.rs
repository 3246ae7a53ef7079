//! Snapshots: `snapshots.rs`, statement by statement.

use super::database::{FullMutation, Key, Moment, Part};
use super::merge::Merge;
use super::removal::limit;
use super::transaction::{Transaction, View};
use super::{Store, seconds};
use crate::{Conflict, Error, OpenSnapshot, Parts, SnapshotRow, Sweep};
use catalog::claims::Revision;

/// For how long a processor takes a snapshot that it sweeps.
const LEASE: Moment = 10_000_000;
/// For how long one that is over is remembered.
const WEEK: Moment = 7 * 86_400_000_000;

type Named = (String, String);

/// What was counted of a snapshot.
struct Counted {
    parts: i64,
    refused: i64,
    highest: Option<Revision>,
    noted_at: Option<Moment>,
}

impl FullMutation {
    fn new(begun: Revision, now: Moment) -> FullMutation {
        FullMutation {
            state: "open".to_owned(),
            reason: None,
            begun,
            ended: None,
            count: None,
            swept_at: None,
            swept_through: 0,
            withdrawn: 0,
            taken_until: Moment::MIN,
            began_at: now,
            closed_at: None,
        }
    }

    fn is_unswept(&self) -> bool {
        matches!(self.state.as_str(), "open" | "sweeping")
    }
}

impl View<'_> {
    fn snapshot(&self, named: &Named) -> Option<&FullMutation> {
        self.database.snapshots.get(self.tid, named)
    }

    fn parts_of(&self, named: &Named) -> impl Iterator<Item = (&(String, String, Revision), &Part)> {
        let (first, last) = ((named.0.clone(), named.1.clone(), Revision::MIN), (named.0.clone(), named.1.clone()));
        self.database.parts.range(self.tid, first..=(last.0, last.1, Revision::MAX))
    }

    fn counted(&self, named: &Named) -> Counted {
        let parts: Vec<&Part> = self.parts_of(named).map(|(_, part)| part).collect();
        Counted {
            parts: parts.iter().map(|part| part.parts).sum(),
            refused: parts.iter().filter(|part| part.refused).map(|part| part.parts).sum(),
            highest: parts.iter().map(|part| part.highest).max(),
            noted_at: parts.iter().map(|part| part.noted_at).max(),
        }
    }

    /// `read_open_snapshots.sql`
    fn open_snapshots(&self) -> Vec<OpenSnapshot> {
        let (floor, now) = (self.floor().revision, self.began());
        let open = |(named, row): (&Named, &FullMutation)| {
            let counted = self.counted(named);
            let last = row.ended.max(counted.highest);
            let idle_since = counted.noted_at.map_or(row.began_at, |noted_at| noted_at.max(row.began_at));
            OpenSnapshot {
                provider: named.0.clone(),
                snapshot: named.1.clone(),
                state: row.state.clone(),
                begun: row.begun,
                count: row.count,
                parts: counted.parts,
                refused: counted.refused,
                last,
                settled: last.is_some_and(|last| last <= floor),
                idle: seconds(now - idle_since),
            }
        };
        let unswept = self.database.snapshots.all(self.tid).filter(|(_, row)| row.is_unswept());
        let mut found: Vec<OpenSnapshot> = unswept.map(open).collect();
        found.sort_by_key(|open| open.begun);
        found
    }

    /// `read_conflicts.sql`
    fn conflicts(&self, after: &(i64, String)) -> Vec<Conflict> {
        let (claims, tid) = (&self.database.claims, self.tid);
        let conflict = |((id, source), claim): (&(i64, String), &super::database::ClaimOf)| {
            let entity = self.database.entities.get(tid, id)?;
            let winner = entity.winner.clone().filter(|winner| winner != source && claim.present)?;
            let shown = claims.get(tid, &(*id, winner.clone()))?;
            (shown.key.is_some() && shown.key != claim.key).then(|| Conflict {
                entity_id: *id,
                entity_ref: entity.entity_ref.clone(),
                shown: (winner, shown.key.clone(), shown.newest),
                loses: (source.clone(), claim.key.clone(), claim.newest),
            })
        };
        let after = (std::ops::Bound::Excluded(after.clone()), std::ops::Bound::Unbounded);
        claims.range(tid, after).filter_map(conflict).collect()
    }
}

impl Transaction {
    /// `note_parts.sql`
    async fn note_parts(&mut self, parts: &[Parts], refused: bool) -> Result<(), Error> {
        let floor = self.view().floor().revision;
        let counted: Vec<&Parts> = parts.iter().filter(|parts| !refused || parts.first > floor).collect();
        let named = |parts: &Parts| (parts.provider.clone(), parts.snapshot.clone());
        let mut begun: Vec<(Named, Revision)> = {
            let view = self.view();
            let is_known =
                |parts: &&&Parts| view.snapshot(&named(parts)).is_some_and(|known| known.begun <= parts.first);
            counted.iter().filter(|parts| !is_known(parts)).map(|parts| (named(parts), parts.first)).collect()
        };
        // The lowest of each: sorted, it comes first.
        begun.sort_unstable();
        begun.dedup_by(|later, first| later.0 == first.0);
        for (named, first) in begun {
            self.lock(Key::Snapshot(named.0.clone(), named.1.clone())).await?;
            let mut view = self.view();
            let row = view.snapshot(&named).cloned().unwrap_or_else(|| FullMutation::new(first, view.began()));
            let row = FullMutation { begun: row.begun.min(first), ..row };
            view.database.snapshots.put(view.tid, named, Some(row));
        }
        for parts in counted {
            let key = (parts.provider.clone(), parts.snapshot.clone(), parts.first);
            if self.view().database.parts.get(self.tid, &key).is_some() {
                continue;
            }
            self.lock(Key::Part(key.0.clone(), key.1.clone(), key.2)).await?;
            let mut view = self.view();
            if view.database.parts.get(view.tid, &key).is_none() {
                let part = Part { highest: parts.highest, parts: parts.count, refused, noted_at: view.began() };
                view.database.parts.put(view.tid, key, Some(part));
            }
        }
        Ok(())
    }
}

impl Merge {
    pub async fn note_parts(&mut self, parts: &[Parts]) -> Result<(), Error> {
        if parts.is_empty() {
            return Ok(());
        }
        self.transaction.enter("merge.note_parts").await?;
        self.transaction.note_parts(parts, false).await?;
        self.transaction.leave().await
    }

    pub async fn advance_sweep(&mut self, sweep: &Sweep, through: i64, withdrawn: i64) -> Result<(), Error> {
        self.transaction.enter("merge.advance_sweep").await?;
        let named = (sweep.provider.clone(), sweep.snapshot.clone());
        self.transaction.lock(Key::Snapshot(named.0.clone(), named.1.clone())).await?;
        {
            let mut view = self.transaction.view();
            let taken_until = view.began() + LEASE;
            view.database.snapshots.change(view.tid, &named, |row| {
                row.swept_through = row.swept_through.max(through);
                row.withdrawn += withdrawn;
                row.taken_until = taken_until;
            });
        }
        self.transaction.leave().await
    }
}

impl Store {
    pub async fn note_refused(&self, parts: &[Parts]) -> Result<(), Error> {
        let mut transaction = self.statement("note_refused").await?;
        transaction.note_parts(parts, true).await?;
        transaction.finish().await
    }

    pub async fn end_snapshot(
        &self,
        (provider, snapshot): (&str, &str),
        revision: Revision,
        count: i64,
    ) -> Result<bool, Error> {
        let mut transaction = self.statement("end_snapshot").await?;
        let named = (provider.to_owned(), snapshot.to_owned());
        let mut ended = None;
        let is_above = revision > transaction.view().floor().revision;
        if is_above {
            transaction.lock(Key::Snapshot(named.0.clone(), named.1.clone())).await?;
            let mut view = transaction.view();
            let new = FullMutation::new(revision, view.began());
            let mut row = view.snapshot(&named).cloned().unwrap_or(new);
            if row.ended.is_none() {
                if row.state == "open" {
                    row.begun = row.begun.min(revision);
                }
                (row.count, row.ended) = (Some(count), Some(revision));
            }
            ended = row.ended;
            view.database.snapshots.put(view.tid, named, Some(row));
        }
        transaction.finish().await?;
        Ok(ended.is_none_or(|ended| ended == revision))
    }

    pub async fn open_snapshots(&self, at_most: i64) -> Result<Vec<OpenSnapshot>, Error> {
        self.alone("open_snapshots", |view| view.open_snapshots().into_iter().take(limit(at_most)).collect()).await
    }

    pub async fn count_sweep(&self, provider: &str, begun: Revision) -> Result<(i64, i64), Error> {
        let source = crate::snapshots::source_of(provider);
        self.alone("count_sweep", |view| {
            let claims = view.database.claims.all(view.tid);
            let of_source = claims.filter(|(key, claim)| key.1 == source && claim.present);
            of_source.fold((0, 0), |(swept, left), (_, claim)| match claim.newest < begun {
                true => (swept + 1, left),
                false => (swept, left + 1),
            })
        })
        .await
    }

    /// `close_snapshot.sql`
    pub async fn move_snapshot(
        &self,
        (provider, snapshot): (&str, &str),
        from: &[&str],
        (state, reason): (&str, Option<&str>),
        swept_at: Option<Revision>,
    ) -> Result<bool, Error> {
        let mut transaction = self.statement("move_snapshot").await?;
        let named = (provider.to_owned(), snapshot.to_owned());
        let is_from = |view: &View<'_>| view.snapshot(&named).is_some_and(|row| from.contains(&row.state.as_str()));
        let mut is_moved = is_from(&transaction.view());
        if is_moved {
            transaction.lock(Key::Snapshot(named.0.clone(), named.1.clone())).await?;
            let mut view = transaction.view();
            is_moved = is_from(&view);
            if is_moved {
                let closed_at = (!matches!(state, "open" | "sweeping")).then(|| view.began());
                view.database.snapshots.change(view.tid, &named, |row| {
                    row.state = state.to_owned();
                    row.reason = reason.map(str::to_owned);
                    row.swept_at = swept_at.or(row.swept_at);
                    row.closed_at = closed_at;
                });
            }
        }
        transaction.finish().await?;
        Ok(is_moved)
    }

    pub async fn take_sweep(&self) -> Result<Option<Sweep>, Error> {
        self.alone("take_sweep", |mut view| {
            let now = view.began();
            let sweeping = view.database.snapshots.all(view.tid);
            let free = sweeping.filter(|(_, row)| row.state == "sweeping" && row.taken_until < now);
            let mut free: Vec<(Revision, Named)> = free.map(|(named, row)| (row.begun, named.clone())).collect();
            free.sort_unstable();
            for (begun, named) in free {
                let key = Key::Snapshot(named.0.clone(), named.1.clone());
                if !view.database.try_lock(view.tid, &key) {
                    continue;
                }
                view.database.snapshots.change(view.tid, &named, |row| row.taken_until = now + LEASE);
                let row = view.snapshot(&named)?;
                let (ended, through) = (row.swept_at?, row.swept_through);
                return Some(Sweep { provider: named.0, snapshot: named.1, begun, ended, through });
            }
            None
        })
        .await
    }

    pub async fn sweep_page(&self, sweep: &Sweep, after: i64, at_most: i64) -> Result<Vec<(i64, String)>, Error> {
        let source = crate::snapshots::source_of(&sweep.provider);
        self.alone("sweep_page", |view| {
            let claims = view.database.claims.range(view.tid, (after + 1, String::new())..);
            let of_source = claims.filter(|(key, _)| key.1 == source);
            let left_out = of_source
                .filter(|(_, claim)| (claim.present && claim.newest < sweep.begun) || claim.newest > sweep.ended);
            let named = left_out.filter_map(|(key, _)| Some((key.0, view.ref_of(key.0)?.clone())));
            named.take(limit(at_most)).collect()
        })
        .await
    }

    pub async fn forget_snapshots(&self) -> Result<(), Error> {
        let mut transaction = self.statement("forget_snapshots").await?;
        let over: Vec<Named> = {
            let view = transaction.view();
            let before = view.began() - WEEK;
            let is_over = |row: &FullMutation| {
                matches!(row.state.as_str(), "done" | "discarded" | "timed_out")
                    && row.closed_at.is_some_and(|closed_at| closed_at < before)
            };
            view.database.snapshots.all(view.tid).filter(|(_, row)| is_over(row)).map(|(key, _)| key.clone()).collect()
        };
        for named in over {
            transaction.lock(Key::Snapshot(named.0.clone(), named.1.clone())).await?;
            let mut view = transaction.view();
            let parts: Vec<_> = view.parts_of(&named).map(|(key, _)| key.clone()).collect();
            for part in parts {
                view.database.parts.put(view.tid, part, None);
            }
            view.database.snapshots.put(view.tid, named, None);
        }
        transaction.finish().await
    }

    pub async fn snapshot_rows(&self, at_most: i64) -> Result<Vec<SnapshotRow>, Error> {
        self.alone("snapshot_rows", |view| {
            let now = view.began();
            let mut rows: Vec<(&Named, &FullMutation)> = view.database.snapshots.all(view.tid).collect();
            let is_over = |row: &FullMutation| !row.is_unswept() && row.state != "held";
            rows.sort_by_key(|(_, row)| (is_over(row), std::cmp::Reverse(row.began_at)));
            let row = |(named, row): (&Named, &FullMutation)| SnapshotRow {
                provider: named.0.clone(),
                snapshot: named.1.clone(),
                state: row.state.clone(),
                reason: row.reason.clone(),
                begun: row.begun,
                count: row.count,
                parts: view.counted(named).parts,
                withdrawn: row.withdrawn,
                age: seconds(now - row.began_at),
            };
            rows.into_iter().take(limit(at_most)).map(row).collect()
        })
        .await
    }

    pub async fn conflicts(&self, (entity_id, source): (i64, &str), at_most: i64) -> Result<Vec<Conflict>, Error> {
        let after = (entity_id, source.to_owned());
        self.alone("conflicts", |view| view.conflicts(&after).into_iter().take(limit(at_most)).collect()).await
    }
}
