//! How often each value of a key occurs in a segment, and the sum over all segments.

use hashbrown::HashTable;

use super::{doc_set::DocSet, segment::Segment};

/// The values of one facet, as far as they are counted.
#[derive(Debug, Default)]
pub struct Facet {
    table: HashTable<Counted>,
    bytes: usize,
}

#[derive(Debug)]
struct Counted {
    value: Box<str>,
    identity: u64,
    count: u64,
}

impl Facet {
    /// Adds what a segment has: of all its documents, or of some.
    pub fn add(&mut self, segment: &Segment, key: &str, docs: Option<&DocSet>) {
        segment.column(key).count(docs, |counted| {
            match self.table.find_mut(counted.identity, |known| known.identity == counted.identity) {
                Some(known) => known.count += u64::from(counted.count),
                None => {
                    let value: Box<str> = counted.value().into();
                    self.bytes += value.len();
                    let new = Counted { value, identity: counted.identity, count: counted.count.into() };
                    self.table.insert_unique(counted.identity, new, |known| known.identity);
                }
            }
        });
    }

    /// How many values there are, and their bytes together.
    pub fn size(&self) -> (usize, usize) {
        (self.table.len(), self.bytes)
    }

    /// Each value, as it is written in the entities, and how many have it; sorted by value.
    pub fn into_counts(self) -> Vec<(Box<str>, u64)> {
        let mut counts: Vec<(u64, Box<str>, u64)> =
            self.table.into_iter().map(|counted| (0, counted.value, counted.count)).collect();
        // Eight bytes behind what all begin with tell most values apart, without looking at their texts.
        let begin = counts.first().map(|(_, first, _)| first.clone()).unwrap_or_default();
        let alike = counts.iter().map(|(_, value, _)| common(&begin, value)).min().unwrap_or_default();
        for (order, value, _) in &mut counts {
            let mut bytes = [0; 8];
            let rest = &value.as_bytes()[alike..];
            let length = rest.len().min(8);
            bytes[..length].copy_from_slice(&rest[..length]);
            *order = u64::from_be_bytes(bytes);
        }
        counts.sort_unstable();
        counts.into_iter().map(|(_, value, count)| (value, count)).collect()
    }
}

/// How many bytes two texts have in common at their beginning.
fn common(one: &str, other: &str) -> usize {
    one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count()
}
