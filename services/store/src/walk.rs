//! The walk over all claims under another pipeline: where it stands, whose turn it is, and what comes next.

use crate::connect::Store;
use crate::merge::Merge;
use crate::{Error, ReadWrite};

/// A claim that was processed under another pipeline.
#[derive(Clone, Debug)]
pub struct WalkedClaim {
    /// The entity.
    pub entity_id: i64,
    /// Its ref.
    pub entity_ref: String,
    /// The source.
    pub source: String,
    /// Hash of its content.
    pub hash: String,
    /// What it says.
    pub content: Vec<u8>,
    /// That is as it came; else it is what processing gave.
    pub is_raw: bool,
    /// It is to be read outside.
    pub is_due: bool,
}

/// A step of the walk.
#[derive(Clone, Debug)]
pub struct WalkStep {
    /// The entity behind which it begins.
    pub after: i64,
    /// The last entity of it; none: there is none, and the walk is over.
    pub last: Option<i64>,
    /// The claims to be processed.
    pub claims: Vec<WalkedClaim>,
}

impl Store {
    /// Records the pipeline of a processor that starts; says whether it is another one than before, under which the walk begins.
    pub async fn begin_walk(&self, fingerprint: &str) -> Result<bool, Error> {
        let begun = sqlx::query(include_str!("sql/begin_walk.sql")).bind(fingerprint).execute(&self.pool).await?;
        Ok(begun.rows_affected() > 0)
    }

    /// Has the walk begin anew if it is over and goes by another pipeline than this one.
    pub async fn repeat_walk(&self, fingerprint: &str) -> Result<(), Error> {
        sqlx::query(include_str!("sql/repeat_walk.sql")).bind(fingerprint).execute(&self.pool).await?;
        Ok(())
    }

    /// Takes the next step under a pipeline: these many entities. None: it is somebody else's turn, the walk is over, or goes on under another pipeline.
    pub async fn take_walk(&self, fingerprint: &str, entities: i64) -> Result<Option<WalkStep>, Error> {
        let taken = sqlx::query_scalar(include_str!("sql/take_walk.sql")).bind(fingerprint);
        let Some(after) = taken.fetch_optional(&self.pool).await? else { return Ok(None) };
        type Row = (i64, String, Option<String>, Option<String>, Option<Vec<u8>>, bool, bool);
        let rows: Vec<Row> = sqlx::query_as(include_str!("sql/read_walk.sql"))
            .bind(after)
            .bind(entities)
            .bind(fingerprint)
            .fetch_all(&self.pool)
            .await?;
        let last = rows.last().map(|row| row.0);
        let claim = |(entity_id, entity_ref, source, hash, content, is_raw, is_due): Row| {
            let (source, hash, content) = (source?, hash?, content?);
            Some(WalkedClaim { entity_id, entity_ref, source, hash, content, is_raw, is_due })
        };
        Ok(Some(WalkStep { after, last, claims: rows.into_iter().filter_map(claim).collect() }))
    }

    /// Ends a step.
    pub async fn move_walk(&self, fingerprint: &str, step: &WalkStep) -> Result<(), Error> {
        let moved = sqlx::query(include_str!("sql/move_walk.sql")).bind(fingerprint).bind(step.last).bind(step.after);
        moved.execute(&self.pool).await?;
        Ok(())
    }
}

impl Merge {
    /// Notes the new hashes of claims that have this one: entity, source, hash before, hash now.
    pub async fn rehash_claims(&mut self, claims: &[(i64, String, String, String)]) -> Result<(), Error> {
        sqlx::query(include_str!("sql/rehash_claims.sql"))
            .bind(claims.iter().map(|claim| claim.0).collect::<Vec<_>>())
            .bind(claims.iter().map(|claim| claim.1.as_str()).collect::<Vec<_>>())
            .bind(claims.iter().map(|claim| claim.2.as_str()).collect::<Vec<_>>())
            .bind(claims.iter().map(|claim| claim.3.as_str()).collect::<Vec<_>>())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Makes claims due that needed no outside reads until now, and keeps what they say for that.
    pub async fn begin_reads(&mut self, lane: &str, reads: &[(ReadWrite, Vec<u8>)]) -> Result<(), Error> {
        if reads.is_empty() {
            return Ok(());
        }
        sqlx::query(include_str!("sql/keep_raw.sql"))
            .bind(reads.iter().map(|(read, _)| read.entity_id).collect::<Vec<_>>())
            .bind(reads.iter().map(|(read, _)| read.source.as_str()).collect::<Vec<_>>())
            .bind(reads.iter().map(|(_, raw)| raw.as_slice()).collect::<Vec<_>>())
            .execute(self.connection())
            .await?;
        let reads: Vec<ReadWrite> = reads.iter().map(|(read, _)| read.clone()).collect();
        self.write_reads(lane, &reads).await
    }
}
