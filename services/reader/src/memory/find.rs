//! Finding entities: by ref, by uid, and those that match.

use std::sync::{Arc, PoisonError, RwLock};

use catalog::predicate::Predicate;

use super::{Memory, Place, read};
use crate::{
    index::{Query, Segment},
    memory::Stored,
};

impl Memory {
    /// The entity with this ref (lower-cased).
    pub fn by_ref(&self, entity_ref: &str) -> Option<Arc<Stored>> {
        let (shard, hash) = self.shard(entity_ref);
        let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
        Some(shard.find(hash, entity_ref)?.stored.clone())
    }

    /// The entity whose ref has this hash, for a short look at it and where it stands.
    pub(crate) fn by_hash<T>(&self, hash: u64, look: impl FnOnce(Place, &Arc<Stored>) -> T) -> Option<T> {
        let shard = self.shard_of(hash).read().unwrap_or_else(PoisonError::into_inner);
        shard.find_hash(hash).map(|held| look(held.place, &held.stored))
    }

    /// The entity with this ref (lower-cased), if it matches.
    pub fn matching(&self, entity_ref: &str, query: &Query) -> Option<Arc<Stored>> {
        if query.is_everything() {
            return self.by_ref(entity_ref);
        }
        let (shard, hash) = self.shard(entity_ref);
        let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
        let held = shard.find(hash, entity_ref)?;
        let matches = read(&self.segment(held.place.segment())).matches(held.place.doc(), query);
        matches.then(|| held.stored.clone())
    }

    /// The entity with this uid.
    pub fn by_uid(&self, uid: &str) -> Option<Arc<Stored>> {
        let query = Query::of(Predicate::In { key: "metadata.uid".into(), values: vec![uid.to_lowercase()] });
        self.segments().iter().find_map(|segment| {
            let segment = read(segment);
            let docs = segment.matching(&query);
            let mut found = docs.iter().filter_map(|doc| segment.stored(doc));
            found.find(|stored| stored.uid() == uid).cloned()
        })
    }

    /// At most `limit` entities in the order of their refs, after `entity_ref` (empty: from the first).
    pub fn after(&self, entity_ref: &str, limit: usize) -> Vec<Arc<Stored>> {
        self.matching_after(&Query::default(), entity_ref, limit).0
    }

    /// The first of the next `limit` entities after `entity_ref`, in the order of their refs, that match; and the last ref looked at, if there may be more.
    pub fn matching_after(&self, query: &Query, entity_ref: &str, limit: usize) -> (Vec<Arc<Stored>>, Option<String>) {
        let segments = self.segments();
        // Refs are spread evenly: each segment's share is nearly all that is needed of it.
        let share = if segments.len() == 1 { limit } else { (limit / segments.len().max(1)).saturating_add(8) };
        let mut found = Vec::new();
        // Behind this ref some segment may have entities that were not looked at.
        let mut end: Option<String> = None;
        for segment in &segments {
            let segment = read(segment);
            let (matching, last) = segment.after(query, entity_ref, share);
            found.extend(matching);
            if let Some(last) = last {
                end = Some(end.map_or(last.clone(), |end| end.min(last)));
            }
        }
        found.sort_unstable_by(|one, other| one.entity_ref().cmp(other.entity_ref()));
        if let Some(end) = &end {
            found.truncate(found.partition_point(|stored| stored.entity_ref() <= end.as_str()));
        }
        if found.len() > limit {
            found.truncate(limit);
            end = found.last().map(|stored| stored.entity_ref().to_owned());
        }
        (found, end)
    }

    /// The next matching entities behind a place, at most `limit`, in the order in which they are held; and where to go on, if there may be more.
    ///
    /// An entity keeps its place as long as it exists, so whoever goes on from where he ended sees each that stands still exactly once.
    pub fn matching_from(
        &self,
        query: &Query,
        from: Place,
        limit: usize,
    ) -> (Vec<(Place, Arc<Stored>)>, Option<Place>) {
        let (number, doc) = (from.segment(), from.doc());
        let segment = match self.segments.read().unwrap_or_else(PoisonError::into_inner).get(number) {
            Some(segment) => segment.clone(),
            None => return (Vec::new(), None),
        };
        let segment = read(&segment);
        let docs = segment.matching(query);
        let mut matching =
            docs.iter_from(doc).filter_map(|doc| Some((Place::new(number, doc), segment.stored(doc)?.clone())));
        let found: Vec<(Place, Arc<Stored>)> = matching.by_ref().take(limit).collect();
        let next = match matching.next() {
            Some((next, _)) => next,
            None => Place::new(number + 1, 0),
        };
        (found, Some(next))
    }

    /// The parts of the index, for calls that go through all of it.
    pub fn segments(&self) -> Vec<Arc<RwLock<Segment>>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Builds the views that Backstage's own pages ask for, so that the first calls do not wait for them: some seconds for a million entities, in steps of tens
    /// of milliseconds.
    pub fn warm(&self) {
        for step in 0.. {
            for segment in self.segments() {
                if !read(&segment).warm(step) {
                    return;
                }
            }
            if self.segments().is_empty() {
                return;
            }
        }
    }
}
