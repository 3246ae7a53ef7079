//! Where entities are found by ref, and how many there are.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use hashbrown::HashTable;

use super::{Memory, Stored, lock};
use crate::index::{ref_hash, scatter};

#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) by_ref: HashTable<Held>,
}

#[derive(Debug)]
pub(super) struct Held {
    pub stored: Arc<Stored>,
    pub place: Place,
    pub named_in: u32,
}

/// Where an entity stands in the index: its segment and its document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u32);

#[derive(Debug, Default)]
pub(super) struct Totals {
    pub entities: usize,
    pub kinds: BTreeMap<String, u64>,
    pub body_bytes: u64,
}

impl Shard {
    /// Whether a version is newer than what was shown of this ref; notes that the running replay names it.
    pub fn is_newer(&mut self, memory: &Memory, entity_ref: &str, version: i64) -> bool {
        match self.find_mut(ref_hash(entity_ref), entity_ref) {
            Some(held) => {
                held.named_in = memory.replay.load(Relaxed);
                held.stored.version() < version
            }
            None => lock(&memory.gone).floor(entity_ref).is_none_or(|floor| floor < version),
        }
    }

    pub fn find(&self, hash: u64, entity_ref: &str) -> Option<&Held> {
        self.by_ref.find(scatter(hash), |held| held.stored.is(entity_ref))
    }

    /// The entity whose ref has this hash: no other has it.
    pub fn find_hash(&self, hash: u64) -> Option<&Held> {
        self.by_ref.find(scatter(hash), |held| ref_hash(held.stored.entity_ref()) == hash)
    }

    pub fn find_mut(&mut self, hash: u64, entity_ref: &str) -> Option<&mut Held> {
        self.by_ref.find_mut(scatter(hash), |held| held.stored.is(entity_ref))
    }

    pub fn insert(&mut self, hash: u64, held: Held) {
        self.by_ref.insert_unique(scatter(hash), held, |held| scatter(ref_hash(held.stored.entity_ref())));
    }

    pub fn remove(&mut self, hash: u64, entity_ref: &str) {
        if let Ok(entry) = self.by_ref.find_entry(scatter(hash), |held| held.stored.is(entity_ref)) {
            entry.remove();
        }
    }
}

impl Place {
    /// A document of a segment.
    pub fn new(segment: usize, doc: u16) -> Place {
        Place((segment as u32) << 16 | u32::from(doc))
    }

    /// The segment's number.
    pub fn segment(self) -> usize {
        (self.0 >> 16) as usize
    }

    /// The document in it.
    pub fn doc(self) -> u16 {
        self.0 as u16
    }
}

impl Totals {
    pub fn count(&mut self, stored: &Stored, added: bool) {
        let kind = stored.entity_ref().split(':').next().unwrap_or_default();
        let bytes = stored.held_bytes() as u64;
        if !self.kinds.contains_key(kind) {
            self.kinds.insert(kind.to_owned(), 0);
        }
        let Some(of_kind) = self.kinds.get_mut(kind) else { return };
        if added {
            *of_kind += 1;
            self.entities += 1;
            self.body_bytes += bytes;
        } else {
            *of_kind -= 1;
            self.entities -= 1;
            self.body_bytes -= bytes;
        }
    }
}
