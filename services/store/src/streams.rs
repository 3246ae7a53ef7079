//! Streams as they were last seen, and the offsets that turn their sequences into revisions.

use crate::connect::Store;
use crate::{Error, Floor};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

/// In the place of the highest sequence that was published: higher than any that the stream has, so that it is looked at.
pub const GONE_BACK: u64 = i64::MAX as u64;

/// A stream as a process sees it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenStream {
    /// When it was made, by the broker's clock, in nanoseconds since 1970.
    pub created: i64,
    /// Its last sequence.
    pub last_sequence: i64,
    /// When the message of the last sequence was stored; 0: there was none.
    pub last_stored: i64,
}

/// A stream from one loss to the next: its sequences mean nothing after that.
#[derive(Clone, Copy, Debug)]
pub struct Life<'a> {
    /// The stream's name.
    pub stream: &'a str,
    /// How often it had been found wiped or gone back.
    pub resets: i64,
}

/// What is known of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPosition {
    /// Added to a sequence, it gives the revision.
    pub revision_offset: i64,
    /// Messages stored after this moment have that offset, earlier ones one of the earlier.
    pub offset_since: i64,
    /// The offsets before, oldest first, each with the moment after which it counted.
    pub earlier: Vec<(i64, i64)>,
    /// When the stream was made.
    pub created: i64,
    /// The highest sequence seen.
    pub last_sequence: i64,
    /// When that message was stored.
    pub last_stored: i64,
    /// How often it was found wiped or gone back: what was published into it before is not there.
    pub resets: i64,
    /// The highest sequence under which something was published into it since; [`GONE_BACK`]: it has gone back, and somebody has seen that.
    pub published: i64,
}

impl StreamPosition {
    /// The stream as it is known here.
    pub fn life<'a>(&self, stream: &'a str) -> Life<'a> {
        Life { stream, resets: self.resets }
    }

    /// Whether a stream that is found so was wiped or went back. (One that went back and has grown past what is known since is told by its messages.)
    pub fn is_above(&self, found: &SeenStream) -> bool {
        found.created != self.created && self.created != 0
            || found.last_sequence < self.last_sequence.max(self.published)
    }

    /// The revision of a message.
    pub fn revision(&self, sequence: u64, stored: i64) -> i64 {
        let offset = match stored > self.offset_since {
            true => Some(self.revision_offset),
            false => self.earlier.iter().rev().find(|(since, _)| stored > *since).map(|(_, offset)| *offset),
        };
        let offset = offset.or(self.earlier.first().map(|(_, offset)| *offset)).unwrap_or(self.revision_offset);
        offset.saturating_add(i64::try_from(sequence).unwrap_or(i64::MAX))
    }
}

impl Store {
    /// What is known of a stream.
    pub async fn stream_position(&self, name: &str) -> Result<Option<StreamPosition>, Error> {
        read_position(&mut *self.pool.acquire().await?, name).await
    }

    /// Notes a stream that is as it was, or longer.
    pub async fn note_stream(&self, name: &str, seen: &SeenStream) -> Result<(), Error> {
        let statement = sqlx::query(include_str!("sql/note_stream.sql"));
        statement
            .bind(name)
            .bind(seen.created)
            .bind(seen.last_sequence)
            .bind(seen.last_stored)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Notes a message of a stream before it takes effect, if none after it is noted, and if the stream was not lost since.
    pub async fn note_sequence(&self, life: Life<'_>, sequence: u64, stored: i64) -> Result<(), Error> {
        let statement = sqlx::query(include_str!("sql/note_sequence.sql")).bind(life.stream);
        let statement = statement.bind(i64::try_from(sequence).unwrap_or(i64::MAX)).bind(stored);
        let statement = statement.bind(life.resets);
        statement.execute(&self.pool).await?;
        Ok(())
    }

    /// Notes the highest sequence under which something was published into a stream; gives whether it is still the same stream. [`GONE_BACK`]: something
    /// was published at or below what had been published before.
    pub async fn note_highest(&self, life: Life<'_>, sequence: u64) -> Result<bool, Error> {
        let statement = sqlx::query(include_str!("sql/note_highest.sql")).bind(life.stream);
        let statement = statement.bind(i64::try_from(sequence).unwrap_or(i64::MAX)).bind(life.resets);
        Ok(statement.execute(&self.pool).await?.rows_affected() > 0)
    }

    /// Records that a stream was wiped or went back from what `known` says: a new offset, above every revision known, for all that
    /// is stored after that; a gap; and what is done about it. One process does it; gives whether it was this one.
    pub async fn reset_stream(
        &self,
        name: &str,
        known: &StreamPosition,
        seen: &SeenStream,
        remedy: Remedy,
    ) -> Result<bool, Error> {
        let mut transaction = self.pool.begin().await?;
        let statement = sqlx::query(include_str!("sql/reset_stream.sql"));
        let statement = statement.bind(name).bind(known.last_sequence).bind(known.last_stored);
        let statement = statement.bind(seen.created).bind(seen.last_sequence).bind(seen.last_stored);
        if statement.execute(&mut *transaction).await?.rows_affected() == 0 {
            return Ok(false);
        }
        let shrank = seen.created == known.created && seen.last_sequence < known.last_sequence;
        let statement = sqlx::query(include_str!("sql/write_gap.sql"));
        let statement = statement.bind(name).bind(known.last_sequence).bind(seen.last_sequence);
        let statement = statement.bind(if shrank { seen.last_sequence } else { 0 });
        let offset = (remedy == Remedy::None).then_some(known.revision_offset);
        statement.bind(offset).execute(&mut *transaction).await?;
        let remedy = match remedy {
            Remedy::None => None,
            Remedy::PublishOutbox => Some(include_str!("sql/unpublish.sql")),
            Remedy::Rebuild => Some(include_str!("sql/begin_rebuild.sql")),
        };
        if let Some(remedy) = remedy {
            sqlx::query(remedy).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }
}

/// What makes good what a stream lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing: what was accepted and not settled is lost, and reported.
    None,
    /// Every outbox row counts as unpublished.
    PublishOutbox,
    /// Every entity is published again from the truth.
    Rebuild,
}

pub(crate) async fn read_position(connection: &mut PgConnection, name: &str) -> Result<Option<StreamPosition>, Error> {
    let statement = sqlx::query(include_str!("sql/read_stream.sql")).bind(name);
    statement.fetch_optional(connection).await?.map(|row| position(&row)).transpose()
}

pub(crate) async fn read_position_and_floor(
    connection: &mut PgConnection,
    name: &str,
) -> Result<(Option<StreamPosition>, Floor), Error> {
    let row = sqlx::query(include_str!("sql/read_stream_and_floor.sql")).bind(name).fetch_one(connection).await?;
    let floor = Floor { revision: row.try_get(9)?, held: row.try_get(10)?, unswept: i64::MAX };
    let is_known = row.try_get::<Option<i64>, _>(0)?.is_some();
    Ok((is_known.then(|| position(&row)).transpose()?, floor))
}

fn position(row: &PgRow) -> Result<StreamPosition, Error> {
    let (since, offsets): (Vec<i64>, Vec<i64>) = (row.try_get(5)?, row.try_get(6)?);
    Ok(StreamPosition {
        revision_offset: row.try_get(0)?,
        offset_since: row.try_get(1)?,
        earlier: since.into_iter().zip(offsets).collect(),
        created: row.try_get(2)?,
        last_sequence: row.try_get(3)?,
        last_stored: row.try_get(4)?,
        resets: row.try_get(7)?,
        published: row.try_get(8)?,
    })
}
