//! Leases on periodic tasks: one host at a time, by the database's clock.

use crate::Error;
use crate::connect::Store;
use std::time::Duration;

impl Store {
    /// Takes or renews the lease on a task; none: another living host holds it. Gives the time since the last run, if there was one.
    /// `ran` notes a run that has ended, with its error.
    pub async fn take_task(
        &self,
        name: &str,
        host: &str,
        lease: Duration,
        ran: Option<Result<(), String>>,
    ) -> Result<Option<Option<Duration>>, Error> {
        let (runs, error) = match ran {
            None => (0_i64, None),
            Some(outcome) => (1, outcome.err()),
        };
        let mut transaction = self.pool.begin().await?;
        sqlx::query("set local synchronous_commit = off").execute(&mut *transaction).await?;
        let taken: Option<Option<f64>> = sqlx::query_scalar(include_str!("sql/take_task.sql"))
            .bind(name)
            .bind(host)
            .bind(lease.as_secs_f64())
            .bind(runs)
            .bind(error)
            .fetch_optional(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(taken.map(|since| since.map(|seconds| Duration::from_secs_f64(seconds.max(0.0)))))
    }

    /// Gives every task of a host that stops to the others.
    pub async fn drop_tasks(&self, host: &str) -> Result<(), Error> {
        sqlx::query(include_str!("sql/drop_tasks.sql")).bind(host).execute(&self.pool).await?;
        Ok(())
    }
}
