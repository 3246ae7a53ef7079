//! The processor's transaction: claims are read under their entities' locks and written as they merge, with what they cause.

use crate::connect::Store;
use crate::streams::{self, StreamPosition};
use crate::{Error, Request};
use catalog::claims::{Claim, Revision};
use catalog::planted;
use sqlx::{Connection, PgConnection, Postgres, Transaction};
use std::collections::HashMap;

/// An entity as it was locked.
#[derive(Clone, Debug)]
pub struct EntityRow {
    /// Its number.
    pub id: i64,
    /// Its ref.
    pub entity_ref: String,
    /// Where its present incarnation began, as far as settled events tell.
    pub settled_born: Option<Revision>,
    /// Where its present incarnation began; none: not present.
    pub born: Option<Revision>,
    /// The source that is shown.
    pub winner: Option<String>,
    /// Revision of the event that last changed what is shown.
    pub revision: Revision,
    /// Revision of its last emission; none: it never emitted anything.
    pub emitted: Option<Revision>,
    /// Nothing that is reached from a provider emits it.
    pub orphan: bool,
}

/// How far the events are settled.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    /// The floor: what stands at or below it has no effect any more.
    pub revision: Revision,
    /// Up to where nothing can be withdrawn any more by a snapshot that is still to be swept.
    pub held: Revision,
}

/// A claim as it was read.
#[derive(Clone, Debug)]
pub struct ClaimRow {
    /// The entity.
    pub entity_id: i64,
    /// The source.
    pub source: String,
    /// Hash of the newest event's entity as it came.
    pub hash: Option<String>,
    /// The claim.
    pub claim: Claim,
}

/// A claim to be written.
#[derive(Clone, Debug)]
pub struct ClaimWrite {
    /// The entity.
    pub entity_id: i64,
    /// The source.
    pub source: String,
    /// Revision of the newest event.
    pub newest: Revision,
    /// Hash of the newest event's entity as it came.
    pub hash: Option<String>,
    /// The claim.
    pub claim: Claim,
}

/// What processing gave for a claim, to be written.
#[derive(Clone, Debug)]
pub struct ContentWrite {
    /// The entity.
    pub entity_id: i64,
    /// The source.
    pub source: String,
    /// Whether the claim has a row already, of which the half that is not given here stays.
    pub is_known: bool,
    /// The good content from now on, or that there is none any more.
    pub body: Option<Option<Vec<u8>>>,
    /// The newest event's content as it came, from now on, or that it is not needed.
    pub raw: Option<Option<Vec<u8>>>,
    /// Why the newest event's processing failed, as a status item, or that it did not.
    pub error: Option<Option<String>>,
}

/// Who is shown, to be written.
#[derive(Clone, Debug)]
pub struct EntityWrite {
    /// The entity.
    pub id: i64,
    /// See [`EntityRow`].
    pub born: Option<Revision>,
    /// See [`EntityRow`].
    pub settled_born: Option<Revision>,
    /// See [`EntityRow`].
    pub winner: Option<String>,
    /// See [`EntityRow`].
    pub revision: Revision,
    /// See [`EntityRow`].
    pub orphan: bool,
}

/// What an entity says of another: on the subject stands (type, target ref). In the order of their subjects, rows are written where they are read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelationRow {
    /// The entity on which it stands.
    pub subject_id: i64,
    /// The entity that says it.
    pub originator_id: i64,
    /// The relation's type.
    pub relation_type: String,
    /// The other end.
    pub target_ref: String,
}

/// The transaction of one batch. Dropped without [`Merge::commit`], it has done nothing.
pub struct Merge {
    transaction: Transaction<'static, Postgres>,
    /// The numbers of the refs that were named when it began.
    ids: HashMap<String, i64>,
}

impl Store {
    /// Begins a batch: gives every ref that will be named a number (sorted, distinct), then locks the entities to be changed.
    ///
    /// Numbers are given before the transaction begins, so that no batch waits for another's end because both name a new ref;
    /// a number that nobody uses then does no harm.
    ///
    /// # Errors
    /// As every call of [`Merge`]: see [`Error`].
    pub async fn merge(&self, named: &[String], changed: &[String]) -> Result<(Merge, Vec<EntityRow>), Error> {
        debug_assert!(named.is_sorted() && changed.is_sorted(), "locks are taken in ref order");
        let mut connection = self.pool.acquire().await?;
        let mut ids = find_ids(&mut connection, named).await?;
        let new: Vec<&str> = named.iter().filter(|named| !ids.contains_key(*named)).map(String::as_str).collect();
        if !new.is_empty() {
            ids.extend(intern(&mut connection, &new).await?);
            // Somebody else was quicker with these.
            let others: Vec<&str> = new.into_iter().filter(|named| !ids.contains_key(*named)).collect();
            if !others.is_empty() {
                ids.extend(find_ids(&mut connection, &others).await?);
            }
        }
        drop(connection);
        let mut transaction = self.pool.begin().await?;
        type Row = (i64, String, Option<i64>, Option<i64>, Option<String>, i64, Option<i64>, bool);
        let lock = match planted::is("lock-order") && changed.len().is_multiple_of(2) {
            true => include_str!("sql/lock_entities_backwards.sql"),
            false => include_str!("sql/lock_entities.sql"),
        };
        let statement = sqlx::query_as(lock);
        let rows: Vec<Row> = statement.bind(changed).fetch_all(&mut *transaction).await?;
        if rows.len() != changed.len() {
            return Err(Error::Collision(format!("{} of {} refs have a row", rows.len(), changed.len())));
        }
        let row = |(id, entity_ref, settled_born, born, winner, revision, emitted, orphan): Row| EntityRow {
            id,
            entity_ref,
            settled_born,
            born,
            winner,
            revision,
            emitted,
            orphan,
        };
        Ok((Merge { transaction, ids }, rows.into_iter().map(row).collect()))
    }
}

/// Not waiting for the disk: what builds on these rows is committed later, and with it they are on disk.
async fn intern(connection: &mut PgConnection, refs: &[&str]) -> Result<Vec<(String, i64)>, Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query("set local synchronous_commit = off").execute(&mut *transaction).await?;
    let added = sqlx::query_as(include_str!("sql/intern.sql")).bind(refs).fetch_all(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(added)
}

async fn find_ids<T>(connection: &mut PgConnection, refs: &[T]) -> Result<HashMap<String, i64>, Error>
where
    for<'q> &'q [T]: sqlx::Encode<'q, Postgres> + sqlx::Type<Postgres>,
{
    let statement = sqlx::query_as(include_str!("sql/find_ids.sql"));
    let rows: Vec<(String, i64)> = statement.bind(refs).fetch_all(connection).await?;
    Ok(rows.into_iter().collect())
}

impl Merge {
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    /// What is known of a stream now; read after the locks, like the floor.
    pub async fn read_position(&mut self, stream: &str) -> Result<StreamPosition, Error> {
        let position = streams::read_position(self.connection(), stream).await?;
        position.ok_or_else(|| Error::Away(format!("nothing is known of stream {stream} yet")))
    }

    /// The floor, and all claims on the locked entities.
    pub async fn read_claims(&mut self, ids: &[i64]) -> Result<(Floor, Vec<ClaimRow>), Error> {
        let (revision, held): (Revision, Revision) =
            sqlx::query_as(include_str!("sql/read_floor.sql")).fetch_one(self.connection()).await?;
        let floor = Floor { revision, held };
        let rows: Vec<(i64, String, Option<String>, String)> =
            sqlx::query_as(include_str!("sql/read_claims.sql")).bind(ids).fetch_all(self.connection()).await?;
        let parse = |(entity_id, source, hash, fold): (i64, String, Option<String>, String)| {
            let claim = serde_json::from_str(&fold)
                .map_err(|error| Error::Damaged(format!("claim of {source} on entity {entity_id}: {error}")))?;
            Ok(ClaimRow { entity_id, source, hash, claim })
        };
        Ok((floor, rows.into_iter().map(parse).collect::<Result<_, Error>>()?))
    }

    /// Good contents of some claims.
    pub async fn read_contents(&mut self, claims: &[(i64, String)]) -> Result<HashMap<i64, Option<Vec<u8>>>, Error> {
        let (ids, sources): (Vec<i64>, Vec<String>) = claims.iter().cloned().unzip();
        let rows: Vec<(i64, Option<Vec<u8>>)> = sqlx::query_as(include_str!("sql/read_contents.sql"))
            .bind(ids)
            .bind(sources)
            .fetch_all(self.connection())
            .await?;
        Ok(rows.into_iter().collect())
    }

    /// The numbers of refs; of those that were named when the batch began, without asking.
    pub async fn find_ids(&mut self, refs: &[String]) -> Result<&HashMap<String, i64>, Error> {
        let unknown: Vec<&str> =
            refs.iter().filter(|named| !self.ids.contains_key(*named)).map(String::as_str).collect();
        if !unknown.is_empty() {
            let found = find_ids(&mut self.transaction, &unknown).await?;
            self.ids.extend(found);
        }
        Ok(&self.ids)
    }

    /// What entities say of others until now.
    pub async fn read_relations(&mut self, originators: &[i64]) -> Result<Vec<RelationRow>, Error> {
        let rows: Vec<(i64, i64, String, String)> = sqlx::query_as(include_str!("sql/read_relations.sql"))
            .bind(originators)
            .fetch_all(self.connection())
            .await?;
        let row = |(originator_id, subject_id, relation_type, target_ref)| RelationRow {
            originator_id,
            subject_id,
            relation_type,
            target_ref,
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Takes back and adds what entities say of others.
    pub async fn write_relations(&mut self, gone: &[RelationRow], new: &[RelationRow]) -> Result<(), Error> {
        for (statement, rows) in
            [(include_str!("sql/delete_relations.sql"), gone), (include_str!("sql/insert_relations.sql"), new)]
        {
            if rows.is_empty() {
                continue;
            }
            let originators: Vec<i64> = rows.iter().map(|row| row.originator_id).collect();
            let subjects: Vec<i64> = rows.iter().map(|row| row.subject_id).collect();
            let types: Vec<&str> = rows.iter().map(|row| row.relation_type.as_str()).collect();
            let targets: Vec<&str> = rows.iter().map(|row| row.target_ref.as_str()).collect();
            sqlx::query(statement)
                .bind(originators)
                .bind(subjects)
                .bind(types)
                .bind(targets)
                .execute(self.connection())
                .await?;
        }
        Ok(())
    }

    /// Writes claims as they are folded anew.
    pub async fn write_claims(&mut self, claims: &[ClaimWrite]) -> Result<(), Error> {
        if claims.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = claims.iter().map(|claim| claim.entity_id).collect();
        let sources: Vec<&str> = claims.iter().map(|claim| claim.source.as_str()).collect();
        let newest: Vec<i64> = claims.iter().map(|claim| claim.newest).collect();
        let standings: Vec<_> = claims.iter().map(|claim| claim.claim.standing()).collect();
        let present: Vec<bool> = standings.iter().map(Option::is_some).collect();
        let released: Vec<bool> =
            standings.iter().map(|standing| standing.as_ref().is_some_and(|standing| standing.released)).collect();
        let keys: Vec<Option<String>> = standings.into_iter().map(|standing| standing?.key).collect();
        let hashes: Vec<Option<&str>> = claims.iter().map(|claim| claim.hash.as_deref()).collect();
        let folds: Vec<String> =
            claims.iter().map(|claim| serde_json::to_string(&claim.claim).expect("a claim is plain data")).collect();
        let statement = sqlx::query(include_str!("sql/write_claims.sql"));
        let statement =
            statement.bind(ids).bind(sources).bind(newest).bind(present).bind(keys).bind(hashes).bind(folds);
        statement.bind(released).execute(self.connection()).await?;
        Ok(())
    }

    /// Removes contents, then writes new ones.
    pub async fn write_contents(&mut self, gone: &[(i64, String)], new: &[ContentWrite]) -> Result<(), Error> {
        if !gone.is_empty() {
            let (ids, sources): (Vec<i64>, Vec<String>) = gone.iter().cloned().unzip();
            sqlx::query(include_str!("sql/clear_contents.sql"))
                .bind(ids)
                .bind(sources)
                .execute(self.connection())
                .await?;
        }
        let (known, new): (Vec<&ContentWrite>, Vec<&ContentWrite>) = new.iter().partition(|content| content.is_known);
        for (contents, text) in
            [(known, include_str!("sql/change_contents.sql")), (new, include_str!("sql/write_contents.sql"))]
        {
            let Some(first) = contents.first() else { continue };
            let statement = sqlx::query(text)
                .bind(contents.iter().map(|content| content.entity_id).collect::<Vec<_>>())
                .bind(contents.iter().map(|content| content.source.as_str()).collect::<Vec<_>>())
                .bind(contents.iter().map(|content| content.body.as_ref()?.as_deref()).collect::<Vec<_>>())
                .bind(contents.iter().map(|content| content.raw.as_ref()?.as_deref()).collect::<Vec<_>>())
                .bind(contents.iter().map(|content| content.error.as_ref()?.as_deref()).collect::<Vec<_>>());
            let statement = match first.is_known {
                false => statement,
                true => statement
                    .bind(contents.iter().map(|content| content.body.is_some()).collect::<Vec<_>>())
                    .bind(contents.iter().map(|content| content.raw.is_some()).collect::<Vec<_>>())
                    .bind(contents.iter().map(|content| content.error.is_some()).collect::<Vec<_>>()),
            };
            statement.execute(self.connection()).await?;
        }
        Ok(())
    }

    /// Writes who is shown.
    pub async fn write_entities(&mut self, entities: &[EntityWrite]) -> Result<(), Error> {
        if entities.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = entities.iter().map(|entity| entity.id).collect();
        let born: Vec<Option<i64>> = entities.iter().map(|entity| entity.born).collect();
        let settled: Vec<Option<i64>> = entities.iter().map(|entity| entity.settled_born).collect();
        let winners: Vec<Option<&str>> = entities.iter().map(|entity| entity.winner.as_deref()).collect();
        let revisions: Vec<i64> = entities.iter().map(|entity| entity.revision).collect();
        let orphans: Vec<bool> = entities.iter().map(|entity| entity.orphan).collect();
        let statement = sqlx::query(include_str!("sql/write_entities.sql"));
        let statement = statement.bind(ids).bind(born).bind(settled).bind(winners).bind(revisions).bind(orphans);
        statement.execute(self.connection()).await?;
        Ok(())
    }

    /// Commits; with refs to be stitched, as one outbox row, which is given back to be announced.
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
                let row: (i64, i64, i64) = sqlx::query_as(include_str!("sql/write_outbox.sql"))
                    .bind(lane)
                    .bind(revision)
                    .bind(&to_stitch)
                    .fetch_one(self.connection())
                    .await?;
                Some(Request { outbox: row.0, transaction: row.1, asked_at_ms: row.2, entity_ids: to_stitch })
            }
        };
        self.transaction.commit().await?;
        Ok(request)
    }
}
