//! The stitcher's transaction: stitch states locked in order, then what is committed is read, then how it was stitched is written.

use crate::Error;
use crate::connect::Store;
use catalog::claims::Revision;
use sqlx::{Postgres, Transaction};
use std::collections::HashSet;

/// In the place of a transaction that asks for an entity to be stitched: whatever was stitched before.
pub const WHATEVER: i64 = i64::MAX;

/// How an entity was last stitched.
#[derive(Clone, Debug)]
pub struct StitchState {
    /// The entity.
    pub entity_id: i64,
    /// Version of the newest message; 0: none.
    pub version: i64,
    /// Its sequence in the entity stream; 0: none.
    pub sequence: u64,
    /// Hash of what was published; none: a deletion, or nothing.
    pub hash: Option<String>,
    /// The transactions that are in what was stitched; none: it was never stitched.
    pub seen: Option<Snapshot>,
    /// Milliseconds until it may be stitched again; none: at once.
    pub wait_ms: Option<i64>,
}

/// What is shown of an entity, before it is stitched.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The entity.
    pub entity_id: i64,
    /// Its ref.
    pub entity_ref: String,
    /// Where its incarnation began; none: not present.
    pub born: Option<Revision>,
    /// Revision of the event that last changed it.
    pub revision: Revision,
    /// The winner's good content; none: nothing to show.
    pub body: Option<Vec<u8>>,
    /// Why the winner's newest content failed, as a status item.
    pub error: Option<String>,
    /// Nothing that is reached from a provider emits it.
    pub orphan: bool,
    /// Refs of the entities that emit it, sorted; none: no entity does.
    pub parents: Option<Vec<String>>,
}

/// What another entity says of a subject.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The entity on which it stands.
    pub subject_id: i64,
    /// The relation's type.
    pub relation_type: String,
    /// The other end.
    pub target_ref: String,
}

/// How an entity was stitched now.
#[derive(Clone, Debug)]
pub struct StateWrite {
    /// The entity.
    pub entity_id: i64,
    /// See [`StitchState`].
    pub version: i64,
    /// See [`StitchState`].
    pub sequence: u64,
    /// See [`StitchState`].
    pub hash: Option<String>,
    /// Milliseconds for which it is not to be stitched again.
    pub pause_ms: i64,
}

/// The transaction of one batch. Dropped without [`Stitching::commit`], it has done nothing.
pub struct Stitching {
    transaction: Transaction<'static, Postgres>,
    /// Every transaction in it is visible to what is read after the locks.
    snapshot: String,
    /// The locked states, by entity; what another stitcher holds is missing.
    pub states: Vec<StitchState>,
}

/// A snapshot of the database: which transactions it shows (PostgreSQL's `pg_snapshot`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// All below this one.
    pub(crate) xmin: i64,
    /// None from this one on.
    pub(crate) xmax: i64,
    /// And none of these.
    pub(crate) in_progress: Vec<i64>,
}

impl Snapshot {
    /// `xmin:xmax:xip_list`
    fn parse(text: &str) -> Option<Snapshot> {
        let mut parts = text.split(':');
        let (xmin, xmax, list) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
        let in_progress =
            list.split(',').filter(|xid| !xid.is_empty()).map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Snapshot { xmin, xmax, in_progress })
    }

    /// Whether it shows what a transaction has written.
    pub fn shows(&self, transaction: i64) -> bool {
        transaction < self.xmin || (transaction < self.xmax && !self.in_progress.contains(&transaction))
    }
}

/// A stitch state's columns, the snapshot at which they were read second.
type StateRow = (i64, String, i64, i64, Option<String>, Option<String>, Option<i64>);

impl Store {
    /// Locks the stitch states of a batch (sorted, distinct, each with the newest transaction that asks for it, or [`WHATEVER`]); what another
    /// stitcher holds is left out, and what was certainly stitched after that transaction.
    ///
    /// # Errors
    /// As every call of [`Stitching`]: see [`Error`].
    pub async fn stitch(&self, asked: &[(i64, i64)]) -> Result<Stitching, Error> {
        let transaction = self.pool.begin().await?;
        Stitching::lock(transaction, include_str!("sql/lock_stitch_states.sql"), asked).await
    }

    /// Those of a batch's entities that were not certainly stitched after the transaction that asks for each, in the same order; nothing is locked.
    ///
    /// # Errors
    /// [`Error::Away`].
    pub async fn unstitched(&self, asked: &[(i64, i64)]) -> Result<Vec<(i64, i64)>, Error> {
        let (ids, transactions): (Vec<i64>, Vec<i64>) = asked.iter().copied().unzip();
        let statement = sqlx::query_scalar(include_str!("sql/read_unstitched.sql"));
        let due: Vec<i64> = statement.bind(ids).bind(transactions).fetch_all(&self.pool).await?;
        let due: HashSet<i64> = due.into_iter().collect();
        Ok(asked.iter().copied().filter(|(id, _)| due.contains(id)).collect())
    }

    /// Looks at stitch states without a lock, for who writes nothing.
    ///
    /// # Errors
    /// As every call of [`Stitching`]: see [`Error`].
    pub async fn look_at_stitched(&self, entity_ids: &[i64]) -> Result<Stitching, Error> {
        let mut transaction = self.pool.begin().await?;
        let statement = sqlx::query_as(include_str!("sql/look_at_stitch_states.sql"));
        let rows: Vec<StateRow> = statement.bind(entity_ids).fetch_all(&mut *transaction).await?;
        Ok(Stitching::new(transaction, rows))
    }

    /// Locks stitch states, waiting for whoever holds them, for two seconds at most.
    ///
    /// # Errors
    /// [`Error::Collision`] when they are still held then.
    pub async fn stitch_after_others(&self, asked: &[(i64, i64)]) -> Result<Stitching, Error> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query("set local lock_timeout = '2s'").execute(&mut *transaction).await?;
        Stitching::lock(transaction, include_str!("sql/await_stitch_states.sql"), asked).await
    }
}

impl Stitching {
    async fn lock(
        mut transaction: Transaction<'static, Postgres>,
        statement: &'static str,
        asked: &[(i64, i64)],
    ) -> Result<Stitching, Error> {
        debug_assert!(asked.is_sorted(), "locks are taken in order");
        let (ids, transactions): (Vec<i64>, Vec<i64>) = asked.iter().copied().unzip();
        let rows: Vec<StateRow> =
            sqlx::query_as(statement).bind(ids).bind(transactions).fetch_all(&mut *transaction).await?;
        Ok(Stitching::new(transaction, rows))
    }

    fn new(transaction: Transaction<'static, Postgres>, rows: Vec<StateRow>) -> Stitching {
        let snapshot = rows.first().map(|row| row.1.clone()).unwrap_or_default();
        let state = |(entity_id, _, version, sequence, hash, seen, wait_ms): StateRow| StitchState {
            entity_id,
            version,
            sequence: u64::try_from(sequence).unwrap_or(0),
            hash,
            seen: seen.as_deref().and_then(Snapshot::parse),
            wait_ms: wait_ms.filter(|ms| *ms > 0),
        };
        Stitching { transaction, snapshot, states: rows.into_iter().map(state).collect() }
    }

    /// What is shown of the entities.
    pub async fn read_shown(&mut self, entity_ids: &[i64]) -> Result<Vec<Shown>, Error> {
        type Row = (i64, String, Option<i64>, i64, Option<Vec<u8>>, Option<String>, bool, Option<Vec<String>>);
        let rows: Vec<Row> = sqlx::query_as(include_str!("sql/read_entities.sql"))
            .bind(entity_ids)
            .fetch_all(&mut *self.transaction)
            .await?;
        let shown = |(entity_id, entity_ref, born, revision, body, error, orphan, parents): Row| Shown {
            entity_id,
            entity_ref,
            born,
            revision,
            body,
            error,
            orphan,
            parents,
        };
        Ok(rows.into_iter().map(shown).collect())
    }

    /// What others say of the entities.
    pub async fn read_incoming(&mut self, entity_ids: &[i64]) -> Result<Vec<Incoming>, Error> {
        let rows: Vec<(i64, String, String)> = sqlx::query_as(include_str!("sql/read_incoming.sql"))
            .bind(entity_ids)
            .fetch_all(&mut *self.transaction)
            .await?;
        let incoming = |(subject_id, relation_type, target_ref)| Incoming { subject_id, relation_type, target_ref };
        Ok(rows.into_iter().map(incoming).collect())
    }

    /// Takes new versions; they rise, and are never given back.
    pub async fn take_versions(&mut self, count: usize) -> Result<Vec<i64>, Error> {
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        Ok(sqlx::query_scalar(include_str!("sql/take_versions.sql"))
            .bind(count)
            .fetch_all(&mut *self.transaction)
            .await?)
    }

    /// Makes every version that is taken later higher than this one.
    pub async fn raise_versions(&mut self, above: i64) -> Result<(), Error> {
        sqlx::query(include_str!("sql/raise_versions.sql")).bind(above).execute(&mut *self.transaction).await?;
        Ok(())
    }

    /// Writes how the entities were stitched, and commits.
    pub async fn commit(mut self, written: &[StateWrite]) -> Result<(), Error> {
        let ids: Vec<i64> = written.iter().map(|state| state.entity_id).collect();
        let versions: Vec<i64> = written.iter().map(|state| state.version).collect();
        let sequences: Vec<i64> =
            written.iter().map(|state| i64::try_from(state.sequence).unwrap_or(i64::MAX)).collect();
        let hashes: Vec<Option<&str>> = written.iter().map(|state| state.hash.as_deref()).collect();
        let pauses: Vec<i64> = written.iter().map(|state| state.pause_ms).collect();
        let statement = sqlx::query(include_str!("sql/write_stitch_states.sql"));
        statement
            .bind(ids)
            .bind(versions)
            .bind(sequences)
            .bind(hashes)
            .bind(&self.snapshot)
            .bind(pauses)
            .execute(&mut *self.transaction)
            .await?;
        Ok(self.transaction.commit().await?)
    }
}
