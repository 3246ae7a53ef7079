//! Repair: everything is published again from the truth, some at a time; what was found to differ is asked for; what was lost is told.

use crate::connect::Store;
use crate::{Error, WHATEVER};
use catalog::claims::Revision;
use sqlx::{Postgres, Transaction};

/// Entities that one request names.
pub(crate) const ENTITIES_PER_ROW: usize = 500;
/// The revision of a request that holds no watermark back.
pub(crate) const NO_REVISION: Revision = Revision::MAX;

/// An entity of which something is or should be in the entity stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedState {
    /// The entity.
    pub entity_id: i64,
    /// Its ref.
    pub entity_ref: String,
    /// Version of what was published last; 0: nothing was.
    pub version: i64,
    /// Hash of that; none: a deletion.
    pub hash: Option<String>,
    /// It is present, and no stitcher has taken it yet.
    pub never_stitched: bool,
}

/// How far repair is.
#[derive(Clone, Copy, Debug)]
pub struct RepairState {
    /// Everything is being published again, or will be: a stream is known to have gone back.
    pub is_rebuilding: bool,
    /// The checker's place in its round.
    pub checked_after: i64,
    /// Rounds of the checker over the whole catalog.
    pub rounds: i64,
    /// Entities whose newest message was not what the truth says.
    pub mended: i64,
}

/// A stream that was found wiped or gone back.
#[derive(Clone, Debug)]
pub struct Gap {
    /// The stream.
    pub stream: String,
    /// How long ago it was found.
    pub seconds_ago: f64,
    /// The last sequence that was known.
    pub known_sequence: i64,
    /// The last sequence that was found; 0: the stream was missing.
    pub found_sequence: i64,
    /// Events known to be accepted that nobody had settled; 0 where the loss is made good.
    pub lost_at_most: i64,
}

impl Store {
    /// Has every entity published again from the truth.
    pub async fn begin_rebuild(&self) -> Result<(), Error> {
        sqlx::query(include_str!("sql/begin_rebuild.sql")).execute(&self.pool).await?;
        Ok(())
    }

    /// Asks for some more entities of a rebuild to be published again; gives how many, 0 when that was all; none: no rebuild is going on.
    pub async fn rebuild_some(&self, at_most: i64) -> Result<Option<usize>, Error> {
        let mut transaction = self.pool.begin().await?;
        let statement = sqlx::query_scalar(include_str!("sql/take_rebuild.sql"));
        let Some(after) = statement.fetch_optional(&mut *transaction).await? else { return Ok(None) };
        let after: i64 = after;
        let ids: Vec<i64> =
            published(&mut transaction, after, at_most).await?.iter().map(|one| one.entity_id).collect();
        ask_again(&mut transaction, &ids, 0).await?;
        let statement = sqlx::query(include_str!("sql/move_rebuild.sql")).bind(ids.last().copied());
        statement.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(Some(ids.len()))
    }

    /// Entities of which something is or should be in the entity stream, from one on, in order.
    pub async fn published_after(&self, after: i64, at_most: i64) -> Result<Vec<PublishedState>, Error> {
        let mut transaction = self.pool.begin().await?;
        published(&mut transaction, after, at_most).await
    }

    /// Has these entities (sorted, distinct) published again, whatever their stitch states say.
    pub async fn publish_again(&self, entity_ids: &[i64]) -> Result<(), Error> {
        let mut transaction = self.pool.begin().await?;
        ask_again(&mut transaction, entity_ids, NO_REVISION).await?;
        Ok(transaction.commit().await?)
    }

    /// Has these entities stitched again from the truth; published only if something else comes of it.
    pub async fn stitch_again(&self, entity_ids: &[i64]) -> Result<(), Error> {
        let mut transaction = self.pool.begin().await?;
        ask(&mut transaction, entity_ids, NO_REVISION).await?;
        Ok(transaction.commit().await?)
    }

    /// Notes how far the checker is.
    pub async fn move_check(&self, after: i64, rounds: i64, mended: i64) -> Result<(), Error> {
        let statement = sqlx::query(include_str!("sql/move_check.sql"));
        statement.bind(after).bind(rounds).bind(mended).execute(&self.pool).await?;
        Ok(())
    }

    /// How far repair is.
    pub async fn repair_state(&self) -> Result<RepairState, Error> {
        let (is_rebuilding, checked_after, rounds, mended) =
            sqlx::query_as(include_str!("sql/read_repair.sql")).fetch_one(&self.pool).await?;
        Ok(RepairState { is_rebuilding, checked_after, rounds, mended })
    }

    /// The newest gaps, newest first.
    pub async fn gaps(&self, at_most: i64) -> Result<Vec<Gap>, Error> {
        let rows: Vec<(String, f64, i64, i64, i64)> =
            sqlx::query_as(include_str!("sql/read_gaps.sql")).bind(at_most).fetch_all(&self.pool).await?;
        let gap = |(stream, seconds_ago, known_sequence, found_sequence, lost_at_most)| Gap {
            stream,
            seconds_ago,
            known_sequence,
            found_sequence,
            lost_at_most,
        };
        Ok(rows.into_iter().map(gap).collect())
    }

    /// Revision of a source's newest event on an entity; none: nothing is known of any.
    pub async fn newest_claim(&self, entity_ref: &str, source: &str) -> Result<Option<Revision>, Error> {
        let statement = sqlx::query_scalar(include_str!("sql/read_newest_claim.sql"));
        Ok(statement.bind(entity_ref).bind(source).fetch_optional(&self.pool).await?)
    }
}

async fn published(
    transaction: &mut Transaction<'static, Postgres>,
    after: i64,
    at_most: i64,
) -> Result<Vec<PublishedState>, Error> {
    let statement = sqlx::query_as(include_str!("sql/read_published.sql"));
    let rows: Vec<(i64, String, i64, Option<String>, bool)> =
        statement.bind(after).bind(at_most).fetch_all(&mut **transaction).await?;
    let state = |(entity_id, entity_ref, version, hash, never_stitched)| PublishedState {
        entity_id,
        entity_ref,
        version,
        hash,
        never_stitched,
    };
    Ok(rows.into_iter().map(state).collect())
}

/// Locks in the stitchers' order; a stitcher that holds some is waited for.
async fn ask_again(
    transaction: &mut Transaction<'static, Postgres>,
    ids: &[i64],
    revision: Revision,
) -> Result<(), Error> {
    debug_assert!(ids.is_sorted(), "locks are taken in order");
    let asked = vec![WHATEVER; ids.len()];
    let lock = sqlx::query(include_str!("sql/await_stitch_states.sql")).bind(ids).bind(asked);
    lock.execute(&mut **transaction).await?;
    sqlx::query(include_str!("sql/forget_stitched.sql")).bind(ids).execute(&mut **transaction).await?;
    ask(transaction, ids, revision).await
}

async fn ask(transaction: &mut Transaction<'static, Postgres>, ids: &[i64], revision: Revision) -> Result<(), Error> {
    for ids in ids.chunks(ENTITIES_PER_ROW) {
        let statement = sqlx::query(include_str!("sql/ask_stitching.sql")).bind(revision).bind(ids);
        statement.bind(0_i64).execute(&mut **transaction).await?;
    }
    Ok(())
}
