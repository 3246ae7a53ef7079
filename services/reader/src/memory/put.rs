//! Changing what is held: putting entities in, taking them out, packing those that came before there was a dictionary.

use std::sync::{Arc, PoisonError, RwLock, atomic::Ordering::Relaxed};

use catalog::search::FlatRows;

use super::{Change, Held, Memory, Place, SHARDS, Shard, lock, read, write};
use crate::{
    index::{Segment, ref_hash},
    stored::{SAMPLES, Stored},
};

/// Entities that are packed anew with each message, once there is a dictionary and as long as some are not.
const REPACK: usize = 2;

impl Memory {
    /// Shows an entity under a ref, or nothing any more.
    pub(super) fn put(
        &self,
        shard: &mut Shard,
        entity_ref: &str,
        version: i64,
        new: Option<(Stored, FlatRows)>,
    ) -> Change {
        let hash = ref_hash(entity_ref);
        let known = shard.find_mut(hash, entity_ref).map(|held| (held.stored.clone(), held.place));
        let Some((stored, rows)) = new else {
            lock(&self.gone).insert(entity_ref.into(), version);
            if let Some((before, place)) = &known {
                self.remove(*place);
                shard.remove(hash, entity_ref);
                self.totals().count(before, false);
            }
            return Change { before: known.map(|(before, _)| before), after: None };
        };
        let (stored, named_in) = (Arc::new(stored), self.replay.load(Relaxed));
        let place = match &known {
            Some((_, place)) => {
                write(&self.segment(place.segment())).put(place.doc(), stored.clone(), &rows);
                *place
            }
            None => {
                lock(&self.gone).remove(&entity_ref.into());
                self.place(&stored, &rows)
            }
        };
        let held = Held { stored: stored.clone(), place, named_in };
        match shard.find_mut(hash, entity_ref) {
            Some(before) => *before = held,
            None => shard.insert(hash, held),
        }
        let before = known.map(|(before, _)| before);
        let mut totals = self.totals();
        before.iter().for_each(|before| totals.count(before, false));
        totals.count(&stored, true);
        Change { before, after: Some(stored) }
    }

    /// Puts a new entity where there is room. Who puts others in meanwhile finds another segment.
    fn place(&self, stored: &Arc<Stored>, rows: &FlatRows) -> Place {
        loop {
            let open = lock(&self.open).pop();
            let number = open.unwrap_or_else(|| self.new_segment());
            let segment = self.segment(number);
            let mut segment = write(&segment);
            let Some(doc) = segment.reserve() else { continue };
            segment.put(doc, stored.clone(), rows);
            drop(segment);
            let place = Place::new(number, doc);
            self.reopen(number, false);
            if !stored.is_packed() {
                lock(&self.unpacked).push_back(place);
            }
            return place;
        }
    }

    fn new_segment(&self) -> usize {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        segments.push(Arc::new(RwLock::new(Segment::new(self.segment_docs))));
        segments.len() - 1
    }

    /// A segment may have room: the next entities go there, or only once there is no room elsewhere.
    fn reopen(&self, number: usize, last: bool) {
        let mut open = lock(&self.open);
        if !open.contains(&number) {
            let place = if last { 0 } else { open.len() };
            open.insert(place, number);
        }
    }

    fn remove(&self, place: Place) {
        write(&self.segment(place.segment())).remove(place.doc());
        self.reopen(place.segment(), true);
    }

    /// Begins to train the packer's dictionary once there are enough entities, and from then on packs those that came before, some at a time.
    pub(super) fn pack_some(&self) {
        if self.packer.has_dictionary() {
            for _ in 0..REPACK {
                let Some(place) = lock(&self.unpacked).pop_front() else { return };
                self.repack(place);
            }
        } else if self.len() >= SAMPLES && !self.is_training.swap(true, Relaxed) {
            let samples = self.some(SAMPLES);
            let packer = self.packer.clone();
            // A quarter of a second of work beside the calls; the thread ends with it.
            std::thread::spawn(move || packer.train(&samples));
        }
    }

    /// Some entities, whichever.
    fn some(&self, count: usize) -> Vec<Arc<Stored>> {
        let of = |shard: &RwLock<Shard>| {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            let some = shard.by_ref.iter().take(count.div_ceil(SHARDS));
            some.map(|held| held.stored.clone()).collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(of).collect()
    }

    fn repack(&self, place: Place) {
        let segment = self.segment(place.segment());
        let Some(stored) = read(&segment).stored(place.doc()).cloned() else { return };
        let Some(packed) = self.packer.repack(&stored).map(Arc::new) else { return };
        let mut shard = self.write(stored.entity_ref());
        // Unless it changed meanwhile.
        if let Some(held) = shard.find_mut(ref_hash(stored.entity_ref()), stored.entity_ref())
            && Arc::ptr_eq(&held.stored, &stored)
        {
            write(&segment).replace(place.doc(), packed.clone());
            held.stored = packed.clone();
            let mut totals = self.totals();
            totals.count(&stored, false);
            totals.count(&packed, true);
        }
    }
}
