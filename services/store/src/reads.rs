//! Claims that need outside reads: made due with the claim, taken under a lease, given back with what was read.

use crate::Error;
use crate::connect::Store;
use crate::merge::Merge;
use catalog::claims::Revision;
use std::collections::HashMap;
use std::time::Duration;

/// A claim whose new content needs outside reads, to be written.
#[derive(Clone, Debug)]
pub struct ReadWrite {
    /// The entity.
    pub entity_id: i64,
    /// The source.
    pub source: String,
    /// Hash of the content.
    pub hash: String,
    /// Revision of the event that asks.
    pub asked: Revision,
}

/// A claim that was taken to be read.
#[derive(Clone, Debug)]
pub struct DueRead {
    /// The entity.
    pub entity_id: i64,
    /// Its ref.
    pub entity_ref: String,
    /// The source of the claim.
    pub source: String,
    /// Hash of its content.
    pub hash: String,
    /// Its content as it came.
    pub raw: Vec<u8>,
    /// Revision of the event that asked last.
    pub asked: Revision,
    /// `fresh`, `bulk` or `scheduled`.
    pub lane: String,
    /// Which reader this is, of all that took the row.
    pub lease: i64,
    /// What the last read of this content noted.
    pub notes: Option<String>,
    /// Failed reads in a row before this one.
    pub failures: i32,
    /// How long it has waited.
    pub waited: Duration,
}

/// How a read ended, to be written.
#[derive(Clone, Debug)]
pub struct ReadDone {
    /// Failed reads in a row, this one included.
    pub failures: i32,
    /// What the next read is to know.
    pub notes: Option<String>,
    /// When it is time again, if nobody asks before.
    pub again_after: Duration,
}

impl Store {
    /// Takes due claims of a lane for as long as the lease lasts. What turns out to need no reads any more is dropped.
    pub async fn take_reads(&self, lane: &str, at_most: i64, lease: Duration) -> Result<Vec<DueRead>, Error> {
        type Taken = (i64, String, i64, String, i64, Option<String>, i32, i64);
        let taken: Vec<Taken> = sqlx::query_as(include_str!("sql/take_reads.sql"))
            .bind(lane)
            .bind(at_most)
            .bind(lease.as_secs_f64())
            .fetch_all(&self.pool)
            .await?;
        if taken.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<(i64, String, String, Vec<u8>)> = sqlx::query_as(include_str!("sql/read_due.sql"))
            .bind(taken.iter().map(|row| row.0).collect::<Vec<_>>())
            .bind(taken.iter().map(|row| row.1.as_str()).collect::<Vec<_>>())
            .bind(taken.iter().map(|row| row.3.as_str()).collect::<Vec<_>>())
            .fetch_all(&self.pool)
            .await?;
        let mut found: HashMap<(i64, String), (String, Vec<u8>)> =
            rows.into_iter().map(|(id, source, entity_ref, raw)| ((id, source), (entity_ref, raw))).collect();
        let (mut due, mut dead) = (Vec::with_capacity(taken.len()), Vec::new());
        for row in taken {
            let (entity_id, source, lease, hash, asked, notes, failures, waited_ms) = row;
            let Some((entity_ref, raw)) = found.remove(&(entity_id, source.clone())) else {
                dead.push((entity_id, source, hash, lease));
                continue;
            };
            let waited = Duration::from_millis(u64::try_from(waited_ms).unwrap_or(0));
            due.push(DueRead {
                entity_id,
                entity_ref,
                source,
                hash,
                raw,
                asked,
                lane: lane.to_owned(),
                lease,
                notes,
                failures,
                waited,
            });
        }
        self.drop_reads(&dead).await?;
        Ok(due)
    }

    async fn drop_reads(&self, dead: &[(i64, String, String, i64)]) -> Result<(), Error> {
        if dead.is_empty() {
            return Ok(());
        }
        sqlx::query(include_str!("sql/drop_reads.sql"))
            .bind(dead.iter().map(|row| row.0).collect::<Vec<_>>())
            .bind(dead.iter().map(|row| row.1.as_str()).collect::<Vec<_>>())
            .bind(dead.iter().map(|row| row.2.as_str()).collect::<Vec<_>>())
            .bind(dead.iter().map(|row| row.3).collect::<Vec<_>>())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Gives a claim back whose read has changed nothing.
    pub async fn finish_unchanged_read(&self, due: &DueRead, done: &ReadDone) -> Result<(), Error> {
        finish(due, done).execute(&self.pool).await?;
        Ok(())
    }

    /// Gives back claims that were taken and are not read now.
    pub async fn release_reads(&self, held: &[(i64, String, i64)]) -> Result<(), Error> {
        sqlx::query(include_str!("sql/release_reads.sql"))
            .bind(held.iter().map(|row| row.0).collect::<Vec<_>>())
            .bind(held.iter().map(|row| row.1.as_str()).collect::<Vec<_>>())
            .bind(held.iter().map(|row| row.2).collect::<Vec<_>>())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Makes every claim on these entities due that needs outside reads; gives how many. Asked twice under one revision, it is done once.
    /// In full: what earlier reads noted is forgotten.
    pub async fn ask_reads(&self, refs: &[String], revision: Revision, in_full: bool) -> Result<u64, Error> {
        let statement = sqlx::query(include_str!("sql/ask_reads.sql")).bind(refs).bind(revision).bind(in_full);
        Ok(statement.execute(&self.pool).await?.rows_affected())
    }

    /// Makes every claim due that was read from one of these refresh keys; gives how many.
    pub async fn ask_keys(&self, keys: &[String], revision: Revision) -> Result<u64, Error> {
        let statement = sqlx::query(include_str!("sql/ask_keys.sql")).bind(keys).bind(revision);
        Ok(statement.execute(&self.pool).await?.rows_affected())
    }
}

fn finish<'q>(
    due: &'q DueRead,
    done: &'q ReadDone,
) -> sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments> {
    sqlx::query(include_str!("sql/finish_read.sql"))
        .bind(due.entity_id)
        .bind(due.source.as_str())
        .bind(due.lease)
        .bind(due.asked)
        .bind(done.again_after.as_secs_f64())
        .bind(done.failures)
        .bind(done.notes.as_deref())
}

impl Merge {
    /// Makes claims due whose new content needs outside reads.
    pub async fn write_reads(&mut self, lane: &str, reads: &[ReadWrite]) -> Result<(), Error> {
        if reads.is_empty() {
            return Ok(());
        }
        sqlx::query(include_str!("sql/write_reads.sql"))
            .bind(reads.iter().map(|read| read.entity_id).collect::<Vec<_>>())
            .bind(reads.iter().map(|read| read.source.as_str()).collect::<Vec<_>>())
            .bind(reads.iter().map(|read| read.hash.as_str()).collect::<Vec<_>>())
            .bind(reads.iter().map(|read| read.asked).collect::<Vec<_>>())
            .bind(lane)
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Makes claims due, to be read in full, that are shown from now on and may have children to emit.
    pub async fn ask_takeovers(&mut self, claims: &[(i64, String)], revision: Revision) -> Result<(), Error> {
        if claims.is_empty() {
            return Ok(());
        }
        let (ids, sources): (Vec<i64>, Vec<String>) = claims.iter().cloned().unzip();
        sqlx::query(include_str!("sql/ask_takeovers.sql"))
            .bind(ids)
            .bind(sources)
            .bind(revision)
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Locks the due row of a read; says whether it is still this reader's, and of the same content.
    pub async fn lock_read(&mut self, due: &DueRead) -> Result<bool, Error> {
        let found: Option<i64> = sqlx::query_scalar(include_str!("sql/lock_read.sql"))
            .bind(due.entity_id)
            .bind(due.source.as_str())
            .bind(due.lease)
            .bind(due.hash.as_str())
            .fetch_optional(self.connection())
            .await?;
        Ok(found.is_some())
    }

    /// Writes how the read ended, and the refresh keys that it named, if it succeeded and gives them anew.
    pub async fn finish_read(
        &mut self,
        due: &DueRead,
        done: &ReadDone,
        refresh_keys: Option<&[String]>,
    ) -> Result<(), Error> {
        finish(due, done).execute(self.connection()).await?;
        let Some(keys) = refresh_keys else { return Ok(()) };
        for statement in [include_str!("sql/delete_refresh_keys.sql"), include_str!("sql/insert_refresh_keys.sql")] {
            let statement = sqlx::query(statement).bind(due.entity_id).bind(due.source.as_str()).bind(keys);
            statement.execute(self.connection()).await?;
        }
        Ok(())
    }

    /// Notes the revision of an entity's emission.
    pub async fn write_emitted(&mut self, entity_id: i64, revision: Revision) -> Result<(), Error> {
        let statement = sqlx::query(include_str!("sql/write_emitted.sql")).bind(entity_id).bind(revision);
        statement.execute(self.connection()).await?;
        Ok(())
    }
}
