//! Streams as they were last seen, and the offsets that turn their sequences into revisions.

use crate::{Error, Store};
use sqlx::PgConnection;

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

/// What is known of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPosition {
    /// Added to a sequence, it gives the revision.
    pub revision_offset: i64,
    /// Messages stored after this moment have that offset, earlier ones the previous.
    pub offset_since: i64,
    /// The offset before.
    pub previous_offset: i64,
    /// When the stream was made.
    pub created: i64,
    /// The highest sequence seen.
    pub last_sequence: i64,
    /// When that message was stored.
    pub last_stored: i64,
}

impl StreamPosition {
    /// The revision of a message.
    pub fn revision(&self, sequence: u64, stored: i64) -> i64 {
        let offset = if stored > self.offset_since { self.revision_offset } else { self.previous_offset };
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

    /// Records that a stream was wiped or went back from what `known` says: a new offset, above every revision known, for all that
    /// is stored from now on. With `requests_lost`, every outbox row counts as unpublished. One process does it; gives whether it
    /// was this one.
    pub async fn reset_stream(
        &self,
        name: &str,
        known: &StreamPosition,
        seen: &SeenStream,
        requests_lost: bool,
    ) -> Result<bool, Error> {
        let mut transaction = self.pool.begin().await?;
        let statement = sqlx::query(include_str!("sql/reset_stream.sql"));
        let statement = statement.bind(name).bind(known.last_sequence).bind(known.last_stored);
        let statement = statement.bind(seen.created).bind(seen.last_sequence).bind(seen.last_stored);
        let is_ours = statement.execute(&mut *transaction).await?.rows_affected() > 0;
        if is_ours && requests_lost {
            sqlx::query(include_str!("sql/unpublish.sql")).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(is_ours)
    }
}

pub(crate) async fn read_position(connection: &mut PgConnection, name: &str) -> Result<Option<StreamPosition>, Error> {
    type Row = (i64, i64, i64, i64, i64, i64);
    let row: Option<Row> =
        sqlx::query_as(include_str!("sql/read_stream.sql")).bind(name).fetch_optional(connection).await?;
    Ok(row.map(|(revision_offset, offset_since, previous_offset, created, last_sequence, last_stored)| {
        StreamPosition { revision_offset, offset_since, previous_offset, created, last_sequence, last_stored }
    }))
}
