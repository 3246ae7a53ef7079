//! How far everything is: the floor, the watermark, and what may be forgotten.

use crate::connect::Store;
use crate::{Error, Life};
use catalog::claims::Revision;
use catalog::planted;

/// How far everything is, and whether there is something to be done about it.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Up to which revision everything is stitched and published; -1: the entity stream is being rebuilt.
    pub watermark: Revision,
    /// How often streams were found wiped or gone back: what was published into them before is not there.
    pub resets: i64,
    /// Some row of the outbox is published, and may be acknowledged.
    pub asks: bool,
}

impl Store {
    /// The recorded floor.
    pub async fn floor(&self) -> Result<Revision, Error> {
        Ok(sqlx::query_scalar(include_str!("sql/read_floor.sql")).fetch_one(&self.pool).await?)
    }

    /// Records how far the event stream is settled; the floor is never lowered. Without effect if the stream was lost since.
    pub async fn settle(&self, revision: Revision, life: Life<'_>) -> Result<(), Error> {
        let statement = sqlx::query(include_str!("sql/settle.sql")).bind(revision);
        statement.bind(life.stream).bind(life.resets).execute(&self.pool).await?;
        Ok(())
    }

    /// Raises the floor; it is never lowered.
    pub async fn raise_floor(&self, revision: Revision) -> Result<(), Error> {
        sqlx::query(include_str!("sql/raise_floor.sql")).bind(revision).execute(&self.pool).await?;
        Ok(())
    }

    /// How far everything is.
    pub async fn progress(&self) -> Result<Progress, Error> {
        let (watermark, resets, asks) =
            sqlx::query_as(include_str!("sql/read_progress.sql")).fetch_one(&self.pool).await?;
        Ok(Progress { watermark, resets, asks })
    }

    /// The watermark alone: see [`Progress`].
    pub async fn watermark(&self) -> Result<Revision, Error> {
        Ok(self.progress().await?.watermark)
    }

    /// Forgets withdrawn claims below the floor of a minute ago, some at a time; gives how many.
    pub async fn forget_claims(&self, at_most: i64) -> Result<u64, Error> {
        let forget = match planted::is("tombstone-forgotten") {
            true => include_str!("sql/forget_claims_early.sql"),
            false => include_str!("sql/forget_claims.sql"),
        };
        Ok(sqlx::query(forget).bind(at_most).execute(&self.pool).await?.rows_affected())
    }
}
