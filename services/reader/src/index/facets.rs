//! How often each value of a key occurs in a segment, and the sum over all segments.

use std::collections::BTreeMap;

use hashbrown::HashTable;

use super::{dictionary::spread, doc_set::DocSet, segment::Segment};

/// The values of one facet, as far as they are counted.
#[derive(Debug, Default)]
pub struct Facet {
    table: HashTable<Counted>,
    bytes: usize,
}

#[derive(Debug)]
struct Counted {
    value: Box<str>,
    hash: u32,
    count: u64,
}

impl Facet {
    /// Adds what a segment has: of all its documents, or of some.
    pub fn add(&mut self, segment: &Segment, key: &str, docs: Option<&DocSet>) {
        segment.column(key).count(docs, |value, hash, count| {
            let found = self.table.find_mut(spread(hash), |known| known.hash == hash && &*known.value == value);
            match found {
                Some(known) => known.count += u64::from(count),
                None => {
                    self.bytes += value.len();
                    let new = Counted { value: value.into(), hash, count: count.into() };
                    self.table.insert_unique(spread(hash), new, |known| spread(known.hash));
                }
            }
        });
    }

    /// How many values there are, and their bytes together.
    pub fn size(&self) -> (usize, usize) {
        (self.table.len(), self.bytes)
    }

    /// Each value, as it is written in the entities, and how many have it; sorted by value.
    pub fn into_counts(self) -> BTreeMap<Box<str>, u64> {
        self.table.into_iter().map(|counted| (counted.value, counted.count)).collect()
    }
}
