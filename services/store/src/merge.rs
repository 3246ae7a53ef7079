//! The processor's transaction: claims are read under their entities' locks and written as they merge, with what they cause.

use crate::connect::Store;
use crate::streams::{self, StreamPosition};
use crate::{Error, Request};
use catalog::claims::{Claim, Revision};
use catalog::planted;
use sqlx::{PgConnection, Postgres, Transaction};
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
    /// The lowest end of a complete snapshot that is still to be swept, as far as that was asked; else the highest revision there can be.
    pub unswept: Revision,
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
    /// The floor, where it was read already.
    floor: Option<Floor>,
    /// Of each entity whose claims were read: the sources that had one. No other comes while the entity is locked.
    claimed: HashMap<i64, Vec<String>>,
}

/// How often a batch begins anew where connections are made anew meanwhile.
const TRIES: usize = 10;

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
        for _ in 0..TRIES {
            let (era, known) = self.known.find(named);
            let ids = self.number(era, named, known).await?;
            let mut transaction = self.pool.begin().await?;
            let rows = lock(&mut transaction, changed).await?;
            // Where a connection was made anew since, it is maybe to a database that was restored, where the numbers are others.
            if !self.known.is_era(era) {
                continue;
            }
            if rows.len() == changed.len() && rows.iter().all(|row| ids.get(&row.entity_ref) == Some(&row.id)) {
                return Ok((Merge { transaction, ids, floor: None, claimed: HashMap::new() }, rows));
            }
            self.known.forget();
        }
        Err(Error::Collision("the database's connections, or its numbers of refs, change all the time".to_owned()))
    }

    /// The numbers of all these refs, of which some are known; new ones get one.
    async fn number(
        &self,
        era: u64,
        named: &[String],
        mut ids: HashMap<String, i64>,
    ) -> Result<HashMap<String, i64>, Error> {
        let unknown: Vec<&str> = named.iter().filter(|named| !ids.contains_key(*named)).map(String::as_str).collect();
        if unknown.is_empty() {
            return Ok(ids);
        }
        let mut connection = self.pool.acquire().await?;
        let mut found = find_ids(&mut connection, &unknown).await?;
        let new: Vec<&str> = unknown.into_iter().filter(|named| !found.contains_key(*named)).collect();
        if !new.is_empty() {
            let statement = sqlx::query_as(include_str!("sql/intern.sql")).bind(&new);
            let added: Vec<(String, i64)> = statement.fetch_all(&mut *connection).await?;
            found.extend(added);
            // Somebody else was quicker with these.
            let others: Vec<&str> = new.into_iter().filter(|named| !found.contains_key(*named)).collect();
            if !others.is_empty() {
                found.extend(find_ids(&mut connection, &others).await?);
            }
        }
        self.known.keep(era, found.iter());
        ids.extend(found);
        Ok(ids)
    }
}

/// Locks the entities of these refs.
async fn lock(connection: &mut PgConnection, refs: &[String]) -> Result<Vec<EntityRow>, Error> {
    type Row = (i64, String, Option<i64>, Option<i64>, Option<String>, i64, Option<i64>, bool);
    let lock = match planted::is("lock-order") && refs.len().is_multiple_of(2) {
        true => include_str!("sql/lock_entities_backwards.sql"),
        false => include_str!("sql/lock_entities.sql"),
    };
    let rows: Vec<Row> = sqlx::query_as(lock).bind(refs).fetch_all(connection).await?;
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
    Ok(rows.into_iter().map(row).collect())
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
    /// Whether it is known that the source has had no claim on the entity.
    pub(crate) fn is_new(&self, entity_id: i64, source: &str) -> bool {
        self.claimed.get(&entity_id).is_some_and(|sources| sources.iter().all(|other| other != source))
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    /// What is known of a stream now; read after the locks, and the floor with it.
    pub async fn read_position(&mut self, stream: &str) -> Result<StreamPosition, Error> {
        let (position, floor) = streams::read_position_and_floor(self.connection(), stream).await?;
        self.floor = Some(floor);
        position.ok_or_else(|| Error::Away(format!("nothing is known of stream {stream} yet")))
    }

    /// The floor, as it stood at some moment after the locks.
    async fn read_floor(&mut self) -> Result<Floor, Error> {
        if let Some(floor) = self.floor {
            return Ok(floor);
        }
        let statement = sqlx::query_as(include_str!("sql/read_floor.sql"));
        let (revision, held): (Revision, Revision) = statement.fetch_one(self.connection()).await?;
        Ok(Floor { revision, held, unswept: Revision::MAX })
    }

    /// The floor, and all claims on the locked entities.
    pub async fn read_claims(&mut self, ids: &[i64]) -> Result<(Floor, Vec<ClaimRow>), Error> {
        let floor = self.read_floor().await?;
        let rows: Vec<(i64, String, Option<String>, String)> =
            sqlx::query_as(include_str!("sql/read_claims.sql")).bind(ids).fetch_all(self.connection()).await?;
        self.claimed.extend(ids.iter().map(|id| (*id, Vec::new())));
        for (entity_id, source, _, _) in &rows {
            self.claimed.entry(*entity_id).or_default().push(source.clone());
        }
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
