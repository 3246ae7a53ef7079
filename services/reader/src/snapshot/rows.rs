//! An entity's search rows in a frame, so that they need not be worked out anew.

use std::io;

use catalog::search::FlatRows;

use super::format::{Cursor, damaged, put_sized};

/// Adds rows.
pub(super) fn write(rows: &FlatRows, content: &mut Vec<u8>) {
    put_sized(content, rows.text().as_bytes());
    content.extend((rows.len() as u32).to_le_bytes());
    rows.ends().flatten().for_each(|end| content.extend(end.to_le_bytes()));
}

/// Takes rows off the front of a frame's content.
pub(super) fn read(cursor: &mut Cursor<'_>) -> io::Result<FlatRows> {
    let text = cursor.text()?.to_owned();
    let count = cursor.u32()?;
    let ends = (0..count).map(|_| Ok([cursor.u32()?, cursor.u32()?, cursor.u32()?]));
    let ends: Vec<[u32; 3]> = ends.collect::<io::Result<_>>()?;
    FlatRows::from_parts(text, &ends).ok_or_else(|| damaged("rows do not fit their text"))
}
