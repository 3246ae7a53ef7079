//! What an operator asks to see.

use crate::Error;
use crate::connect::Store;

/// How much there is.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Entities that are present.
    pub entities: i64,
    /// Of these, entities whose newest content failed.
    pub failed: i64,
    /// Rows in the outbox.
    pub outbox: i64,
    /// Claims that are due to be read, or are being read.
    pub reads: i64,
    /// Removals on their way.
    pub removals: i64,
    /// Entities that nothing emits any more.
    pub orphans: i64,
}

/// An entity whose newest content failed.
#[derive(Clone, Debug)]
pub struct FailedEntity {
    /// Its ref.
    pub entity_ref: String,
    /// The source of the claim.
    pub source: String,
    /// Whether an earlier, good version is shown.
    pub shown: bool,
    /// The error, as a status item.
    pub error: String,
}

/// A periodic task.
#[derive(Clone, Debug)]
pub struct TaskRow {
    /// Its name.
    pub name: String,
    /// The host that runs it; none: nobody does.
    pub holder: Option<String>,
    /// How often it ran.
    pub runs: i64,
    /// Seconds since its last run.
    pub seconds_ago: Option<f64>,
    /// How its last run failed.
    pub last_error: Option<String>,
}

impl Store {
    /// How much there is.
    pub async fn counts(&self) -> Result<Counts, Error> {
        let (entities, failed, outbox, reads, removals, orphans) =
            sqlx::query_as(include_str!("sql/read_counts.sql")).fetch_one(&self.pool).await?;
        Ok(Counts { entities, failed, outbox, reads, removals, orphans })
    }

    /// Entities whose newest content failed, from a ref on, in ref order.
    pub async fn failed_entities(&self, after: &str, at_most: i64) -> Result<Vec<FailedEntity>, Error> {
        let rows: Vec<(String, String, bool, String)> =
            sqlx::query_as(include_str!("sql/read_failed.sql")).bind(after).bind(at_most).fetch_all(&self.pool).await?;
        Ok(rows
            .into_iter()
            .map(|(entity_ref, source, shown, error)| FailedEntity { entity_ref, source, shown, error })
            .collect())
    }

    /// The periodic tasks.
    pub async fn task_rows(&self) -> Result<Vec<TaskRow>, Error> {
        type Row = (String, Option<String>, i64, Option<f64>, Option<String>);
        let rows: Vec<Row> = sqlx::query_as(include_str!("sql/read_tasks.sql")).fetch_all(&self.pool).await?;
        let row = |(name, holder, runs, seconds_ago, last_error): Row| TaskRow {
            name,
            holder,
            runs,
            seconds_ago,
            last_error,
        };
        Ok(rows.into_iter().map(row).collect())
    }
}
