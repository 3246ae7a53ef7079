//! The processor's transaction: `merge.rs`, statement by statement.

use super::Store;
use super::database::{ClaimOf, Content, Entity, Key, Moment};
use super::transaction::{Transaction, View};
use crate::{
    ClaimRow, ClaimWrite, ContentWrite, EntityRow, EntityWrite, Error, Floor, RelationRow, Request, StreamPosition,
};
use catalog::claims::Revision;
use catalog::planted;
use std::collections::HashMap;

/// See [`crate::Merge`].
#[derive(Debug)]
pub struct Merge {
    pub(super) transaction: Transaction,
    ids: HashMap<String, i64>,
}

impl Store {
    pub async fn merge(&self, named: &[String], changed: &[String]) -> Result<(Merge, Vec<EntityRow>), Error> {
        debug_assert!(named.is_sorted() && changed.is_sorted(), "locks are taken in ref order");
        let mut ids = self.alone("merge.find_ids", |view| view.find_ids(named)).await?;
        let new: Vec<&String> = named.iter().filter(|named| !ids.contains_key(*named)).collect();
        if !new.is_empty() {
            ids.extend(self.intern(&new).await?);
            let others: Vec<&String> = new.into_iter().filter(|named| !ids.contains_key(*named)).collect();
            if !others.is_empty() {
                ids.extend(self.alone("merge.find_ids", |view| view.find_ids(&others)).await?);
            }
        }
        let mut transaction = self.begin().await?;
        transaction.enter("merge.lock_entities").await?;
        let mut known: Vec<(String, i64)> = transaction.view().find_ids(changed).into_iter().collect();
        known.sort_unstable();
        if planted::is("lock-order") && changed.len().is_multiple_of(2) {
            known.reverse();
        }
        let mut rows = Vec::with_capacity(known.len());
        for (_, id) in known {
            transaction.lock(Key::Entity(id)).await?;
            rows.extend(transaction.view().entity_row(id));
        }
        transaction.leave().await?;
        if rows.len() != changed.len() {
            return Err(Error::Collision(format!("{} of {} refs have a row", rows.len(), changed.len())));
        }
        Ok((Merge { transaction, ids }, rows))
    }

    /// `intern.sql`: a number is taken for each ref, also where somebody else was quicker.
    async fn intern(&self, refs: &[&String]) -> Result<Vec<(String, i64)>, Error> {
        let mut transaction = self.statement("merge.intern").await?;
        let mut added = Vec::new();
        let mut refs = refs.to_vec();
        refs.sort_unstable();
        for named in refs {
            let id = {
                let mut view = transaction.view();
                view.database.entity_ids += 1;
                view.database.entity_ids
            };
            if transaction.view().id_of(named).is_some() {
                continue;
            }
            transaction.lock(Key::Ref(named.clone())).await?;
            let mut view = transaction.view();
            if view.id_of(named).is_none() {
                view.insert_ref(named, id);
                added.push((named.clone(), id));
            }
        }
        transaction.finish().await?;
        Ok(added)
    }
}

impl View<'_> {
    fn id_of(&self, entity_ref: &String) -> Option<i64> {
        self.database.refs.get(self.tid, entity_ref).copied()
    }

    fn find_ids<T: ToString>(&self, refs: &[T]) -> HashMap<String, i64> {
        refs.iter().map(ToString::to_string).filter_map(|named| Some((named.clone(), self.id_of(&named)?))).collect()
    }

    fn insert_ref(&mut self, entity_ref: &str, id: i64) {
        let row = Entity { entity_ref: entity_ref.to_owned(), ..Entity::default() };
        self.database.refs.put(self.tid, entity_ref.to_owned(), Some(id));
        self.database.entities.put(self.tid, id, Some(row));
        self.database.stitched.put(self.tid, id, Some(Default::default()));
    }

    fn entity_row(&self, id: i64) -> Option<EntityRow> {
        let row = self.database.entities.get(self.tid, &id)?.clone();
        Some(EntityRow {
            id,
            entity_ref: row.entity_ref,
            settled_born: row.settled_born,
            born: row.born,
            winner: row.winner,
            revision: row.revision,
            emitted: row.emitted,
            orphan: row.orphan_since.is_some(),
        })
    }

    /// `read_floor.sql`
    pub(super) fn floor(&self) -> Floor {
        let revision = self.database.floor.get(self.tid, &()).map_or(0, |floor| floor.revision);
        let held = self.first_unswept().map_or(revision, |begun| revision.min(begun - 1));
        Floor { revision, held, unswept: Revision::MAX }
    }

    fn claims_on(&self, id: i64) -> impl Iterator<Item = ClaimRow> {
        let rows = self.database.claims.range(self.tid, (id, String::new())..(id + 1, String::new()));
        rows.map(|((entity_id, source), row)| ClaimRow {
            entity_id: *entity_id,
            source: source.clone(),
            hash: row.hash.clone(),
            claim: row.claim.clone(),
        })
    }

    fn write_content(&mut self, content: &ContentWrite) {
        let (key, tid) = ((content.entity_id, content.source.clone()), self.tid);
        let known = self.database.contents.get(tid, &key).cloned();
        // What is changed has to be there.
        if content.is_known && known.is_none() {
            return;
        }
        let mut row: Content = known.filter(|_| content.is_known).unwrap_or_default();
        if let Some(body) = &content.body {
            row.body.clone_from(body);
        }
        if let Some(raw) = &content.raw {
            row.raw.clone_from(raw);
        }
        if let Some(error) = &content.error {
            row.error.clone_from(error);
        }
        self.database.contents.put(tid, key, Some(row));
    }
}

fn written(write: &ClaimWrite) -> ClaimOf {
    let standing = write.claim.standing();
    ClaimOf {
        newest: write.newest,
        present: standing.is_some(),
        released: standing.as_ref().is_some_and(|standing| standing.released),
        key: standing.and_then(|standing| standing.key),
        hash: write.hash.clone(),
        claim: write.claim.clone(),
    }
}

impl Merge {
    pub async fn read_position(&mut self, stream: &str) -> Result<StreamPosition, Error> {
        let position = self.transaction.run("merge.read_position", |view| view.position(stream)).await?;
        position.ok_or_else(|| Error::Away(format!("nothing is known of stream {stream} yet")))
    }

    pub async fn read_claims(&mut self, ids: &[i64]) -> Result<(Floor, Vec<ClaimRow>), Error> {
        let floor = self.transaction.run("merge.read_floor", |view| view.floor()).await?;
        let read = |view: View<'_>| ids.iter().flat_map(|id| view.claims_on(*id)).collect();
        Ok((floor, self.transaction.run("merge.read_claims", read).await?))
    }

    pub async fn read_contents(&mut self, claims: &[(i64, String)]) -> Result<HashMap<i64, Option<Vec<u8>>>, Error> {
        let read = |view: View<'_>| {
            let body =
                |claim: &(i64, String)| Some((claim.0, view.database.contents.get(view.tid, claim)?.body.clone()));
            claims.iter().filter_map(body).collect()
        };
        self.transaction.run("merge.read_contents", read).await
    }

    pub async fn find_ids(&mut self, refs: &[String]) -> Result<&HashMap<String, i64>, Error> {
        let unknown: Vec<&String> = refs.iter().filter(|named| !self.ids.contains_key(*named)).collect();
        if !unknown.is_empty() {
            let found = self.transaction.run("merge.find_ids", |view| view.find_ids(&unknown)).await?;
            self.ids.extend(found);
        }
        Ok(&self.ids)
    }

    pub async fn read_relations(&mut self, originators: &[i64]) -> Result<Vec<RelationRow>, Error> {
        let read = |view: View<'_>| {
            let mut found = Vec::new();
            for id in originators {
                let first = (*id, i64::MIN, String::new(), String::new());
                let end = (*id + 1, i64::MIN, String::new(), String::new());
                for ((originator_id, subject_id, relation_type, target_ref), count) in
                    view.database.relations.range(view.tid, first..end)
                {
                    let row = RelationRow {
                        subject_id: *subject_id,
                        originator_id: *originator_id,
                        relation_type: relation_type.clone(),
                        target_ref: target_ref.clone(),
                    };
                    found.extend(std::iter::repeat_n(row, *count));
                }
            }
            found
        };
        self.transaction.run("merge.read_relations", read).await
    }

    pub async fn write_relations(&mut self, gone: &[RelationRow], new: &[RelationRow]) -> Result<(), Error> {
        fn key(row: &RelationRow) -> (i64, i64, String, String) {
            (row.originator_id, row.subject_id, row.relation_type.clone(), row.target_ref.clone())
        }
        if !gone.is_empty() {
            let delete = |mut view: View<'_>| {
                for row in gone {
                    let tid = view.tid;
                    view.database.relations.put(tid, key(row), None);
                }
            };
            self.transaction.run("merge.delete_relations", delete).await?;
        }
        if !new.is_empty() {
            let insert = |mut view: View<'_>| {
                for row in new {
                    let tid = view.tid;
                    let count = view.database.relations.get(tid, &key(row)).copied().unwrap_or(0);
                    view.database.relations.put(tid, key(row), Some(count + 1));
                }
            };
            self.transaction.run("merge.insert_relations", insert).await?;
        }
        Ok(())
    }

    pub async fn write_claims(&mut self, claims: &[ClaimWrite]) -> Result<(), Error> {
        if claims.is_empty() {
            return Ok(());
        }
        self.transaction.enter("merge.write_claims").await?;
        for claim in claims {
            self.transaction.lock(Key::Claim(claim.entity_id, claim.source.clone())).await?;
            let mut view = self.transaction.view();
            let tid = view.tid;
            view.database.claims.put(tid, (claim.entity_id, claim.source.clone()), Some(written(claim)));
        }
        self.transaction.leave().await
    }

    pub async fn write_contents(&mut self, gone: &[(i64, String)], new: &[ContentWrite]) -> Result<(), Error> {
        if !gone.is_empty() {
            self.transaction.enter("merge.clear_contents").await?;
            for (id, source) in gone {
                self.transaction.lock(Key::Content(*id, source.clone())).await?;
                let mut view = self.transaction.view();
                let tid = view.tid;
                view.database.contents.put(tid, (*id, source.clone()), None);
            }
            self.transaction.leave().await?;
        }
        for (is_known, point) in [(true, "merge.change_contents"), (false, "merge.write_contents")] {
            let contents: Vec<&ContentWrite> = new.iter().filter(|content| content.is_known == is_known).collect();
            if contents.is_empty() {
                continue;
            }
            self.transaction.enter(point).await?;
            for content in contents {
                self.transaction.lock(Key::Content(content.entity_id, content.source.clone())).await?;
                self.transaction.view().write_content(content);
            }
            self.transaction.leave().await?;
        }
        Ok(())
    }

    pub async fn write_entities(&mut self, entities: &[EntityWrite]) -> Result<(), Error> {
        if entities.is_empty() {
            return Ok(());
        }
        self.transaction.enter("merge.write_entities").await?;
        for written in entities {
            self.transaction.lock(Key::Entity(written.id)).await?;
            let mut view = self.transaction.view();
            let (tid, now) = (view.tid, view.now);
            view.database.entities.change(tid, &written.id, |row| {
                row.born = written.born;
                row.settled_born = written.settled_born;
                row.winner.clone_from(&written.winner);
                row.revision = written.revision;
                row.orphan_since = written.orphan.then(|| row.orphan_since.unwrap_or(now));
            });
        }
        self.transaction.leave().await
    }

    pub async fn commit(
        mut self,
        lane: &str,
        revision: Revision,
        to_stitch: Vec<i64>,
    ) -> Result<Option<Request>, Error> {
        let is_left_out = planted::is("outbox-not-written") && revision % 8 == 0;
        let request = match to_stitch.is_empty() || is_left_out {
            true => None,
            false => {
                let write = |mut view: View<'_>| view.ask(lane, revision, None, &to_stitch);
                let (outbox, transaction, asked_at) = self.transaction.run("merge.write_outbox", write).await?;
                Some(Request { outbox, transaction, asked_at_ms: milliseconds(asked_at), entity_ids: to_stitch })
            }
        };
        self.transaction.commit("merge.commit").await?;
        Ok(request)
    }
}

/// Rounded, as PostgreSQL makes a bigint of a fraction.
pub(super) fn milliseconds(duration: Moment) -> i64 {
    (duration + 500).div_euclid(1000)
}
