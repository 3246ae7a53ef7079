//! Many new rows at once, in PostgreSQL's binary form: without arrays to take apart, and logged a page at a time and not a row.
//!
//! The statements stand here and not in `sql`, since PostgreSQL prepares no `copy`.

use crate::Error;
use sqlx::PgConnection;

/// From how many rows on it pays: it costs a round trip more than a statement.
pub(crate) const WORTHWHILE: usize = 50;

/// What begins a copy: signature, flags, and the length of what more there would be.
const HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// Rows of claims that were not there. Called by the processor's commit; the entities are locked.
pub(crate) const CLAIMS: &str =
    "copy claims (entity_id, source, newest, present, location_key, hash, fold, released) from stdin (format binary)";
/// What processing gave for claims that were not there. Called by the processor's commit; the entities are locked.
pub(crate) const CONTENTS: &str = "copy contents (entity_id, source, body, raw, error) from stdin (format binary)";
/// What entities say of others. Called by the processor's commit; their entities are locked.
pub(crate) const RELATIONS: &str =
    "copy relations (originator_id, subject_id, type, target_ref) from stdin (format binary)";

/// Rows that are being written down.
pub(crate) struct Rows {
    columns: i16,
    bytes: Vec<u8>,
}

impl Rows {
    /// None yet, of so many columns each.
    pub fn new(columns: i16) -> Rows {
        Rows { columns, bytes: HEAD.to_vec() }
    }

    /// Begins a row; its columns follow in order.
    pub fn row(&mut self) -> &mut Self {
        self.bytes.extend(self.columns.to_be_bytes());
        self
    }

    /// A column of bytes, text or JSON.
    pub fn bytes(&mut self, value: Option<&[u8]>) -> &mut Self {
        let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap_or(i32::MAX));
        self.bytes.extend(length.to_be_bytes());
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self
    }

    /// A column of text.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(Some(value.as_bytes()))
    }

    /// A `bigint`.
    pub fn number(&mut self, value: i64) -> &mut Self {
        self.bytes(Some(&value.to_be_bytes()))
    }

    /// A boolean.
    pub fn truth(&mut self, value: bool) -> &mut Self {
        self.bytes(Some(&[u8::from(value)]))
    }

    /// Sends them.
    pub async fn copy(mut self, statement: &'static str, connection: &mut PgConnection) -> Result<(), Error> {
        const END: i16 = -1;
        self.bytes.extend(END.to_be_bytes());
        let mut copy = connection.copy_in_raw(statement).await?;
        copy.send(self.bytes).await?;
        copy.finish().await?;
        Ok(())
    }
}
