//! What committed batches ask to be stitched, until the stitchers have acknowledged it.

use crate::connect::Store;
use crate::{Error, Life};
use serde::{Deserialize, Serialize};

/// One ask for stitching: the body of a stitch request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The outbox row that asks; 0: none, somebody asks by hand.
    #[serde(default)]
    pub outbox: i64,
    /// The transaction that made it necessary; 0: stitch whatever was stitched before.
    #[serde(default)]
    pub transaction: i64,
    /// When it was asked for, in milliseconds since 1970: what the queue delay is counted from.
    pub asked_at_ms: i64,
    /// The entities to be stitched.
    pub entity_ids: Vec<i64>,
}

/// An outbox row that nobody published.
#[derive(Clone, Debug)]
pub struct OutboxRow {
    /// The lane on which to ask.
    pub lane: String,
    /// What to ask.
    pub request: Request,
}

impl Store {
    /// Notes the sequence under which a row's last request stands in the stitch stream; without effect if that was lost since.
    pub async fn note_published(&self, outbox: i64, sequence: u64, life: Life<'_>) -> Result<(), Error> {
        let sequence = i64::try_from(sequence).unwrap_or(i64::MAX);
        let statement = sqlx::query(include_str!("sql/note_published.sql")).bind(outbox).bind(sequence);
        statement.bind(life.stream).bind(life.resets).execute(&self.pool).await?;
        Ok(())
    }

    /// Rows that nobody published within three seconds, a hundred at most.
    pub async fn unpublished(&self) -> Result<Vec<OutboxRow>, Error> {
        let rows: Vec<(i64, String, i64, i64, Vec<i64>, i64)> =
            sqlx::query_as(include_str!("sql/take_unpublished.sql")).fetch_all(&self.pool).await?;
        let row = |(outbox, lane, _revision, transaction, entity_ids, asked_at_ms)| OutboxRow {
            lane,
            request: Request { outbox, transaction, asked_at_ms, entity_ids },
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Drops rows whose requests are acknowledged up to this sequence of the stitch stream; gives how many: none,
    /// if that was lost since.
    pub async fn delete_published(&self, sequence: u64, life: Life<'_>) -> Result<u64, Error> {
        let sequence = i64::try_from(sequence).unwrap_or(i64::MAX);
        Ok(sqlx::query(include_str!("sql/delete_published.sql"))
            .bind(sequence)
            .bind(life.stream)
            .bind(life.resets)
            .execute(&self.pool)
            .await?
            .rows_affected())
    }

    /// Rows in the outbox, of which unpublished.
    pub async fn outbox_length(&self) -> Result<(i64, i64), Error> {
        Ok(sqlx::query_as("select count(*), count(*) filter (where sequence is null) from outbox")
            .fetch_one(&self.pool)
            .await?)
    }
}
