//! Claims that need outside reads: `reads.rs`, statement by statement.

use super::database::{Due, Key, Moment};
use super::merge::{Merge, milliseconds};
use super::transaction::{Transaction, View};
use super::{Store, micros};
use crate::{DueRead, Error, ReadDone, ReadWrite};
use catalog::claims::Revision;
use std::time::Duration;

type ReadKey = (i64, String);

impl View<'_> {
    fn due(&self, key: &ReadKey) -> Option<&Due> {
        self.database.reads.get(self.tid, key)
    }

    /// Keys of due rows that it sees, of some.
    fn due_of(&self, which: impl Fn(&ReadKey, &Due) -> bool) -> Vec<ReadKey> {
        let rows = self.database.reads.all(self.tid);
        rows.filter(|(key, due)| which(key, due)).map(|(key, _)| key.clone()).collect()
    }

    fn change_due(&mut self, key: &ReadKey, change: impl FnOnce(&mut Due)) {
        self.database.reads.change(self.tid, key, change);
    }

    /// `take_reads.sql`
    fn take_reads(&mut self, lane: &str, at_most: i64, lease: Duration) -> Vec<(ReadKey, Due, Moment)> {
        let (now, tid) = (self.now, self.tid);
        let is_free = |due: &Due| due.leased_until.is_none_or(|until| until < now);
        let mut keys = self.due_of(|_, due| due.lane == lane && due.due_at <= now && is_free(due));
        keys.sort_by_key(|key| self.due(key).map(|due| due.due_at));
        let mut taken = Vec::new();
        for key in keys {
            if i64::try_from(taken.len()).unwrap_or(i64::MAX) >= at_most {
                break;
            }
            if !self.database.try_lock(tid, &Key::Read(key.0, key.1.clone())) {
                continue;
            }
            self.change_due(&key, |due| {
                due.lease += 1;
                due.leased_until = Some(now.saturating_add(micros(lease)));
            });
            let Some(due) = self.due(&key).cloned() else { continue };
            let waited = now - due.due_at.max(due.asked_at);
            taken.push((key, due, waited));
        }
        taken
    }

    /// `read_due.sql`
    fn content_of_due(&self, key: &ReadKey, hash: &str) -> Option<(String, Vec<u8>)> {
        let claim = self.database.claims.get(self.tid, key)?;
        let is_current = claim.present && claim.hash.as_deref() == Some(hash);
        let raw = self.database.contents.get(self.tid, key).filter(|_| is_current)?.raw.clone()?;
        Some((self.database.entities.get(self.tid, &key.0)?.entity_ref.clone(), raw))
    }

    fn refresh_keys_of(&self, of: &ReadKey) -> Vec<(String, i64, String)> {
        let keys = self.database.refresh_keys.all(self.tid).map(|(key, ())| key);
        keys.filter(|key| key.1 == of.0 && key.2 == of.1).cloned().collect()
    }
}

impl Store {
    pub async fn take_reads(&self, lane: &str, at_most: i64, lease: Duration) -> Result<Vec<DueRead>, Error> {
        let taken = self.alone("take_reads", |mut view| view.take_reads(lane, at_most, lease)).await?;
        if taken.is_empty() {
            return Ok(Vec::new());
        }
        let read = |view: View<'_>| -> Vec<_> {
            taken.iter().map(|(key, due, _)| view.content_of_due(key, &due.hash)).collect()
        };
        let found = self.alone("take_reads.read_due", read).await?;
        let (mut taken_reads, mut dead) = (Vec::with_capacity(taken.len()), Vec::new());
        for ((key, due, waited), content) in taken.into_iter().zip(found) {
            let Some((entity_ref, raw)) = content else {
                dead.push((key, due.hash, due.lease));
                continue;
            };
            taken_reads.push(DueRead {
                entity_id: key.0,
                entity_ref,
                source: key.1,
                hash: due.hash,
                raw,
                asked: due.asked,
                lane: lane.to_owned(),
                lease: due.lease,
                notes: due.notes,
                failures: due.failures,
                waited: Duration::from_millis(u64::try_from(milliseconds(waited)).unwrap_or(0)),
            });
        }
        if !dead.is_empty() {
            self.drop_reads(&dead).await?;
        }
        Ok(taken_reads)
    }

    async fn drop_reads(&self, dead: &[(ReadKey, String, i64)]) -> Result<(), Error> {
        let mut transaction = self.statement("take_reads.drop_reads").await?;
        let mut refresh_keys = Vec::new();
        {
            let mut view = transaction.view();
            for (key, hash, lease) in dead {
                let is_same = view.due(key).is_some_and(|due| due.hash == *hash && due.lease == *lease);
                if is_same && view.database.try_lock(view.tid, &Key::Read(key.0, key.1.clone())) {
                    refresh_keys.extend(view.refresh_keys_of(key));
                    view.database.reads.put(view.tid, key.clone(), None);
                }
            }
        }
        transaction.drop_refresh_keys(refresh_keys).await?;
        transaction.finish().await
    }

    pub async fn finish_unchanged_read(&self, due: &DueRead, done: &ReadDone) -> Result<(), Error> {
        let mut transaction = self.statement("finish_unchanged_read").await?;
        transaction.finish_read(due, done).await?;
        transaction.finish().await
    }

    pub async fn release_reads(&self, held: &[(i64, String, i64)]) -> Result<(), Error> {
        let mut transaction = self.statement("release_reads").await?;
        let mut held: Vec<(ReadKey, i64)> =
            held.iter().map(|(id, source, lease)| ((*id, source.clone()), *lease)).collect();
        held.sort_unstable();
        held.retain({
            let view = transaction.view();
            move |(key, lease)| view.due(key).is_some_and(|due| due.lease == *lease)
        });
        for (key, lease) in held {
            transaction.lock(Key::Read(key.0, key.1.clone())).await?;
            let mut view = transaction.view();
            if view.due(&key).is_some_and(|due| due.lease == lease) {
                view.change_due(&key, |due| due.leased_until = None);
            }
        }
        transaction.finish().await
    }

    pub async fn ask_reads(&self, refs: &[String], revision: Revision, in_full: bool) -> Result<u64, Error> {
        let mut transaction = self.statement("ask_reads").await?;
        let entities: Vec<i64> = {
            let (view, mut refs) = (transaction.view(), refs.to_vec());
            refs.sort_unstable();
            refs.dedup();
            refs.iter().filter_map(|named| view.database.refs.get(view.tid, named).copied()).collect()
        };
        let which = move |key: &ReadKey| entities.contains(&key.0);
        let count = transaction.make_due(which, revision, in_full).await?;
        transaction.finish().await?;
        Ok(count)
    }

    pub async fn ask_keys(&self, keys: &[String], revision: Revision) -> Result<u64, Error> {
        let mut transaction = self.statement("ask_keys").await?;
        let named: Vec<ReadKey> = {
            let view = transaction.view();
            let all = view.database.refresh_keys.all(view.tid);
            all.filter(|(key, ())| keys.contains(&key.0)).map(|(key, ())| (key.1, key.2.clone())).collect()
        };
        let count = transaction.make_due(move |key| named.contains(key), revision, false).await?;
        transaction.finish().await?;
        Ok(count)
    }
}

impl Transaction {
    /// `ask_reads.sql` and `ask_keys.sql`: the entities are locked in ref order, then their due rows.
    async fn make_due(
        &mut self,
        which: impl Fn(&ReadKey) -> bool,
        revision: Revision,
        in_full: bool,
    ) -> Result<u64, Error> {
        let due = self.view().due_of(|key, due| which(key) && due.asked < revision);
        let mut entities: Vec<(String, i64)> = {
            let view = self.view();
            let ref_of = |id: i64| Some((view.database.entities.get(view.tid, &id)?.entity_ref.clone(), id));
            view.due_of(|key, _| which(key)).iter().filter_map(|key| ref_of(key.0)).collect()
        };
        entities.sort_unstable();
        entities.dedup();
        for (_, id) in entities {
            self.lock(Key::Entity(id)).await?;
        }
        let mut count = 0;
        for key in due {
            self.lock(Key::Read(key.0, key.1.clone())).await?;
            let mut view = self.view();
            let now = view.now;
            if view.due(&key).is_some_and(|due| due.asked < revision) {
                count += 1;
                view.change_due(&key, |due| {
                    if in_full {
                        due.notes = None;
                    }
                    due.lane = "fresh".to_owned();
                    (due.asked, due.asked_at, due.due_at) = (revision, now, now);
                });
            }
        }
        Ok(count)
    }

    /// `finish_read.sql`
    async fn finish_read(&mut self, read: &DueRead, done: &ReadDone) -> Result<(), Error> {
        let key = (read.entity_id, read.source.clone());
        if self.view().due(&key).is_none_or(|due| due.lease != read.lease) {
            return Ok(());
        }
        self.lock(Key::Read(key.0, key.1.clone())).await?;
        let mut view = self.view();
        let again_at = view.now.saturating_add(micros(done.again_after));
        if view.due(&key).is_some_and(|due| due.lease == read.lease) {
            view.change_due(&key, |due| {
                due.leased_until = None;
                if due.asked <= read.asked {
                    due.lane = "scheduled".to_owned();
                    due.due_at = again_at;
                }
                due.failures = done.failures;
                due.notes.clone_from(&done.notes);
            });
        }
        Ok(())
    }

    async fn drop_refresh_keys(&mut self, keys: Vec<(String, i64, String)>) -> Result<(), Error> {
        for key in keys {
            self.lock(Key::Refreshed(key.0.clone(), key.1, key.2.clone())).await?;
            let mut view = self.view();
            view.database.refresh_keys.put(view.tid, key, None);
        }
        Ok(())
    }
}

fn is_same(found: &Due, due: &DueRead) -> bool {
    found.lease == due.lease && found.hash == due.hash
}

impl Merge {
    pub async fn write_reads(&mut self, lane: &str, reads: &[ReadWrite]) -> Result<(), Error> {
        if reads.is_empty() {
            return Ok(());
        }
        self.transaction.enter("merge.write_reads").await?;
        let mut reads = reads.to_vec();
        reads.sort_by_key(|read| (read.entity_id, read.source.clone()));
        for read in reads {
            let key = (read.entity_id, read.source);
            self.transaction.lock(Key::Read(key.0, key.1.clone())).await?;
            let mut view = self.transaction.view();
            let now = view.now;
            let known = view.due(&key);
            let due = Due {
                hash: read.hash,
                asked: known.map_or(read.asked, |due| due.asked.max(read.asked)),
                asked_at: now,
                lane: lane.to_owned(),
                due_at: now,
                lease: known.map_or(0, |due| due.lease + 1),
                leased_until: None,
                notes: None,
                failures: 0,
            };
            view.database.reads.put(view.tid, key, Some(due));
        }
        self.transaction.leave().await
    }

    pub async fn ask_takeovers(&mut self, claims: &[(i64, String)], revision: Revision) -> Result<(), Error> {
        if claims.is_empty() {
            return Ok(());
        }
        self.transaction.enter("merge.ask_takeovers").await?;
        for key in claims {
            if self.transaction.view().due(key).is_none() {
                continue;
            }
            self.transaction.lock(Key::Read(key.0, key.1.clone())).await?;
            let mut view = self.transaction.view();
            let now = view.now;
            view.change_due(key, |due| {
                due.notes = None;
                due.lane = "fresh".to_owned();
                (due.asked, due.asked_at, due.due_at) = (due.asked.max(revision), now, now);
            });
        }
        self.transaction.leave().await
    }

    pub async fn lock_read(&mut self, due: &DueRead) -> Result<bool, Error> {
        self.transaction.enter("merge.lock_read").await?;
        let key = (due.entity_id, due.source.clone());
        let mut is_ours = self.transaction.view().due(&key).is_some_and(|found| is_same(found, due));
        if is_ours {
            self.transaction.lock(Key::Read(key.0, key.1.clone())).await?;
            is_ours = self.transaction.view().due(&key).is_some_and(|found| is_same(found, due));
        }
        self.transaction.leave().await?;
        Ok(is_ours)
    }

    pub async fn finish_read(
        &mut self,
        due: &DueRead,
        done: &ReadDone,
        refresh_keys: Option<&[String]>,
    ) -> Result<(), Error> {
        self.transaction.enter("merge.finish_read").await?;
        self.transaction.finish_read(due, done).await?;
        self.transaction.leave().await?;
        let Some(named) = refresh_keys else { return Ok(()) };
        self.transaction.enter("merge.write_refresh_keys").await?;
        let mut gone = self.transaction.view().refresh_keys_of(&(due.entity_id, due.source.clone()));
        gone.retain(|key| !named.contains(&key.0));
        self.transaction.drop_refresh_keys(gone).await?;
        let mut named = named.to_vec();
        named.sort_unstable();
        for key in named {
            let key = (key, due.entity_id, due.source.clone());
            self.transaction.lock(Key::Refreshed(key.0.clone(), key.1, key.2.clone())).await?;
            let mut view = self.transaction.view();
            view.database.refresh_keys.put(view.tid, key, Some(()));
        }
        self.transaction.leave().await
    }

    pub async fn write_emitted(&mut self, entity_id: i64, revision: Revision) -> Result<(), Error> {
        self.transaction.enter("merge.write_emitted").await?;
        self.transaction.lock(Key::Entity(entity_id)).await?;
        {
            let mut view = self.transaction.view();
            view.database.entities.change(view.tid, &entity_id, |row| row.emitted = Some(revision));
        }
        self.transaction.leave().await
    }
}
