//! A document's rows in about one byte each: sorted numbers, each as its distance from the one before.
//!
//! What only this document has was numbered in one go when it came, so most distances are one.

use super::dictionary::RowId;

/// The rows of one document.
#[derive(Clone, Debug, Default)]
pub struct Rows(Box<[u8]>);

impl Rows {
    /// Of sorted rows, each once.
    pub fn of_sorted(rows: &[RowId]) -> Rows {
        let mut bytes = Vec::with_capacity(rows.len() * 2);
        let mut before = 0;
        for row in rows {
            let mut distance = row.number() - before;
            before = row.number();
            while distance >= 0x80 {
                bytes.push(distance as u8 | 0x80);
                distance >>= 7;
            }
            bytes.push(distance as u8);
        }
        Rows(bytes.into())
    }

    /// As bytes: a snapshot's.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Of bytes that were a document's rows.
    pub fn of_bytes(bytes: &[u8]) -> Rows {
        Rows(bytes.into())
    }

    /// The rows, sorted.
    pub fn iter(&self) -> impl Iterator<Item = RowId> {
        let mut bytes = self.0.iter();
        let mut before = 0;
        std::iter::from_fn(move || {
            let (mut distance, mut shift) = (0, 0);
            loop {
                let byte = bytes.next()?;
                distance |= u32::from(byte & 0x7F) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            before += distance;
            Some(RowId::of_number(before))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn come_out_as_they_went_in(numbers in prop::collection::btree_set(any::<u32>(), 0..60)) {
            let rows: Vec<RowId> = numbers.into_iter().map(RowId::of_number).collect();
            prop_assert_eq!(Rows::of_sorted(&rows).iter().collect::<Vec<_>>(), rows);
        }
    }
}
