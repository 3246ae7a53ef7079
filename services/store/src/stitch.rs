//! The stitcher's transaction: stitch states locked in order, then what is committed is read, then how it was stitched is written.

use crate::{Error, Store};
use catalog::claims::Revision;
use sqlx::{Postgres, Transaction};

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
    /// Every transaction below this one is in what was stitched.
    pub seen: i64,
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
    /// Every transaction below this one is visible to what is read after the locks.
    pub horizon: i64,
    /// The locked states, by entity; what another stitcher holds is missing.
    pub states: Vec<StitchState>,
}

impl Store {
    /// Locks the stitch states of a batch (sorted, distinct).
    ///
    /// # Errors
    /// As every call of [`Stitching`]: see [`Error`].
    pub async fn stitch(&self, entity_ids: &[i64]) -> Result<Stitching, Error> {
        debug_assert!(entity_ids.is_sorted(), "locks are taken in order");
        let mut transaction = self.pool.begin().await?;
        type Row = (i64, i64, i64, i64, Option<String>, i64, Option<i64>);
        let rows: Vec<Row> = sqlx::query_as(include_str!("sql/lock_stitch_states.sql"))
            .bind(entity_ids)
            .fetch_all(&mut *transaction)
            .await?;
        let horizon = rows.first().map_or(0, |row| row.1);
        let state = |(entity_id, _, version, sequence, hash, seen, wait_ms): Row| StitchState {
            entity_id,
            version,
            sequence: u64::try_from(sequence).unwrap_or(0),
            hash,
            seen,
            wait_ms: wait_ms.filter(|ms| *ms > 0),
        };
        Ok(Stitching { transaction, horizon, states: rows.into_iter().map(state).collect() })
    }
}

impl Stitching {
    /// What is shown of the entities.
    pub async fn read_shown(&mut self, entity_ids: &[i64]) -> Result<Vec<Shown>, Error> {
        type Row = (i64, String, Option<i64>, i64, Option<Vec<u8>>, Option<String>);
        let rows: Vec<Row> = sqlx::query_as(include_str!("sql/read_entities.sql"))
            .bind(entity_ids)
            .fetch_all(&mut *self.transaction)
            .await?;
        let shown = |(entity_id, entity_ref, born, revision, body, error)| Shown {
            entity_id,
            entity_ref,
            born,
            revision,
            body,
            error,
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
            .bind(self.horizon)
            .bind(pauses)
            .execute(&mut *self.transaction)
            .await?;
        Ok(self.transaction.commit().await?)
    }
}
