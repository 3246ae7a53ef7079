//! The catalog in memory: the newest version of each entity, by ref, by uid and in the index.
//!
//! Messages may be applied, and calls answered, by any number of threads. Refs are spread over shards and entities over segments of the index, each under a lock of
//! its own that is held for what is bounded by it, never across an await. A change holds its ref's shard and then its segment, so that nobody sees the one
//! without the other.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
};

use bus::EntityMessage;
use catalog::{predicate::Predicate, search::FlatRows};
use hashbrown::HashTable;
use serde_json::{Map, Value};

pub use crate::stored::Stored;
use crate::{
    gone::Gone,
    index::{Query, SEGMENT_DOCS, Segment},
    stored::{Packer, SAMPLES},
};

/// Refs are spread over so many locks.
const SHARDS: usize = 64;
/// Entities that are packed anew with each message, once there is a dictionary and as long as some are not.
const REPACK: usize = 2;

/// What a message did to the memory.
#[derive(Debug)]
pub enum Applied {
    /// The entity is new, changed or gone.
    Newer(Box<Change>),
    /// A version as new or newer was known: nothing changed.
    Known,
    /// Newer, but its body cannot be served, for the reason given: the entity is not shown until a newer version comes.
    Unreadable(String, Box<Change>),
}

/// What changed.
#[derive(Debug, Default)]
pub struct Change {
    /// What was shown before.
    pub before: Option<Arc<Stored>>,
    /// What is shown now; none: it is gone.
    pub after: Option<Arc<Stored>>,
}

/// A message, worked out: everything that needs no lock.
#[derive(Debug)]
pub struct Prepared {
    entity_ref: String,
    version: i64,
    /// The entity with its rows; none: it is deleted. Or why it cannot be served.
    body: Result<Option<(Stored, FlatRows)>, String>,
}

/// The catalog in memory.
#[derive(Debug)]
pub struct Memory {
    shards: Vec<RwLock<Shard>>,
    segments: RwLock<Vec<Arc<RwLock<Segment>>>>,
    /// Documents of a segment.
    segment_docs: usize,
    /// Segments that may have room.
    open: Mutex<Vec<usize>>,
    packer: Arc<Packer>,
    is_training: AtomicBool,
    /// Where entities stand that came before the dictionary.
    unpacked: Mutex<VecDeque<Place>>,
    gone: Mutex<Gone>,
    totals: Mutex<Totals>,
    /// Counts the replays of a replaced stream; what the running one named carries its number.
    replay: AtomicU32,
}

#[derive(Debug, Default)]
struct Shard {
    by_ref: HashTable<Held>,
}

#[derive(Debug)]
struct Held {
    stored: Arc<Stored>,
    place: Place,
    named_in: u32,
}

/// Where an entity stands in the index: its segment and its document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place(u32);

#[derive(Debug, Default)]
struct Totals {
    entities: usize,
    kinds: BTreeMap<String, u64>,
    body_bytes: u64,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::with_segments_of(SEGMENT_DOCS)
    }
}

impl Memory {
    /// An empty catalog whose index has segments of so many documents.
    pub(crate) fn with_segments_of(segment_docs: usize) -> Memory {
        Memory {
            segment_docs,
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            segments: RwLock::default(),
            open: Mutex::default(),
            packer: Arc::default(),
            is_training: AtomicBool::new(false),
            unpacked: Mutex::default(),
            gone: Mutex::default(),
            totals: Mutex::default(),
            replay: AtomicU32::new(0),
        }
    }

    /// Takes one message of the entity stream; it counts only if its version is newer than any shown before.
    pub fn apply(&self, message: EntityMessage) -> Applied {
        match self.is_newer(&message.entity_ref, message.version) {
            true => self.take(self.prepare(message)),
            false => Applied::Known,
        }
    }

    /// Whether a version is newer than what was shown of this ref; notes that the running replay names it.
    pub(crate) fn is_newer(&self, entity_ref: &str, version: i64) -> bool {
        self.write(entity_ref).is_newer(self, entity_ref, version)
    }

    /// Works a message out: what takes the time, for as many threads as there are.
    pub fn prepare(&self, message: EntityMessage) -> Prepared {
        let EntityMessage { entity_ref, version, revision, body, parents, .. } = message;
        let read = |body: &[u8]| self.read_entity(body, version, revision);
        let emitted = |(stored, rows): (Stored, FlatRows)| (stored.with_parents(&parents), rows);
        let body = body.map(|body| read(&body).map(emitted)).transpose();
        Prepared { entity_ref, version, body }
    }

    /// Takes a message that is worked out.
    pub fn take(&self, prepared: Prepared) -> Applied {
        let Prepared { entity_ref, version, body } = prepared;
        let mut shard = self.write(&entity_ref);
        if !shard.is_newer(self, &entity_ref, version) {
            return Applied::Known;
        }
        let (new, unreadable) = match body {
            Ok(new) => (new, None),
            Err(reason) => (None, Some(reason)),
        };
        let change = Box::new(self.put(&mut shard, &entity_ref, version, new));
        drop(shard);
        self.pack_some();
        match unreadable {
            None => Applied::Newer(change),
            Some(reason) => Applied::Unreadable(reason, change),
        }
    }

    /// What packs the entities.
    pub(crate) fn packer(&self) -> &Packer {
        &self.packer
    }

    /// Takes many entities that are not known into a segment of their own, at most as many as it holds.
    pub(crate) fn restore(&self, entities: Vec<(Stored, FlatRows)>) {
        let mut segment = Segment::new(self.segment_docs);
        let mut placed = Vec::with_capacity(entities.len());
        for (stored, rows) in entities {
            let Some(doc) = segment.reserve() else { break };
            let stored = Arc::new(stored);
            segment.put(doc, stored.clone(), &rows);
            placed.push((stored, doc));
        }
        let number = {
            let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
            segments.push(Arc::new(RwLock::new(segment)));
            segments.len() - 1
        };
        lock(&self.open).push(number);
        let named_in = self.replay.load(Relaxed);
        for (stored, doc) in placed {
            let place = Place::new(number, doc);
            if !stored.is_packed() {
                lock(&self.unpacked).push_back(place);
            }
            self.totals().count(&stored, true);
            let hash = hash(stored.entity_ref());
            let mut shard = self.write(stored.entity_ref());
            shard.insert(hash, Held { stored: stored.clone(), place, named_in });
        }
    }

    /// Forgets everything, before anything was shown.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            *shard.write().unwrap_or_else(PoisonError::into_inner) = Shard::default();
        }
        self.segments.write().unwrap_or_else(PoisonError::into_inner).clear();
        lock(&self.open).clear();
        lock(&self.unpacked).clear();
        *self.totals() = Totals::default();
    }

    /// A replay of a replaced stream begins; everything known stays until [`Memory::end_replay`].
    pub(crate) fn begin_replay(&self) {
        self.replay.fetch_add(1, Relaxed);
    }

    /// Drops what the running replay has not named, and gives back what that was.
    ///
    /// A dropped entity may come back with the version that was shown (the truth publishes it again as it was), but
    /// with none before it.
    pub(crate) fn end_replay(&self) -> Vec<Arc<Stored>> {
        let replay = self.replay.load(Relaxed);
        let mut dropped = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let unnamed = shard.by_ref.iter().filter(|held| held.named_in < replay).map(|held| held.stored.clone());
            let unnamed: Vec<Arc<Stored>> = unnamed.collect();
            for stored in &unnamed {
                self.put(&mut shard, stored.entity_ref(), stored.version().saturating_sub(1), None);
            }
            dropped.extend(unnamed);
        }
        dropped
    }

    /// The entity with this ref (lower-cased).
    pub fn by_ref(&self, entity_ref: &str) -> Option<Arc<Stored>> {
        let (shard, hash) = self.shard(entity_ref);
        let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
        Some(shard.find(hash, entity_ref)?.stored.clone())
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

    /// The parts of the index, for calls that go through all of it.
    pub fn segments(&self) -> Vec<Arc<RwLock<Segment>>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many entities there are.
    pub fn len(&self) -> usize {
        self.totals().entities
    }

    /// Whether there is no entity.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entities there are of each kind (lower-cased); a kind that has gone stays, with 0.
    pub fn kinds(&self) -> BTreeMap<String, u64> {
        self.totals().kinds.clone()
    }

    /// The bytes of all entities as they are held.
    pub fn body_bytes(&self) -> u64 {
        self.totals().body_bytes
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

    fn read_entity(&self, body: &[u8], version: i64, revision: i64) -> Result<(Stored, FlatRows), String> {
        let entity: Map<String, Value> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let rows = FlatRows::of(&entity);
        let stored = self.packer.store(&entity, version, revision).map_err(|error| error.to_string())?;
        Ok((stored, rows))
    }

    /// Shows an entity under a ref, or nothing any more.
    fn put(&self, shard: &mut Shard, entity_ref: &str, version: i64, new: Option<(Stored, FlatRows)>) -> Change {
        let hash = hash(entity_ref);
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

    /// Puts a new entity where there is room.
    fn place(&self, stored: &Arc<Stored>, rows: &FlatRows) -> Place {
        let mut open = lock(&self.open);
        loop {
            let Some(number) = open.last().copied() else {
                let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
                segments.push(Arc::new(RwLock::new(Segment::new(self.segment_docs))));
                open.push(segments.len() - 1);
                continue;
            };
            let segment = self.segment(number);
            let mut segment = write(&segment);
            if let Some(doc) = segment.reserve() {
                segment.put(doc, stored.clone(), rows);
                let place = Place::new(number, doc);
                if !stored.is_packed() {
                    lock(&self.unpacked).push_back(place);
                }
                return place;
            }
            open.pop();
        }
    }

    fn remove(&self, place: Place) {
        write(&self.segment(place.segment())).remove(place.doc());
        let mut open = lock(&self.open);
        if !open.contains(&place.segment()) {
            open.insert(0, place.segment());
        }
    }

    /// Begins to train the packer's dictionary once there are enough entities, and from then on packs those that came before, some at a time.
    fn pack_some(&self) {
        if self.packer.has_dictionary() {
            for _ in 0..REPACK {
                let Some(place) = lock(&self.unpacked).pop_front() else { return };
                self.repack(place);
            }
        } else if self.len() >= SAMPLES && !self.is_training.swap(true, Relaxed) {
            let samples = self.some(SAMPLES);
            let packer = self.packer.clone();
            // Half a second of work beside the calls; the thread ends with it.
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
        if let Some(held) = shard.find_mut(hash(stored.entity_ref()), stored.entity_ref())
            && Arc::ptr_eq(&held.stored, &stored)
        {
            write(&segment).replace(place.doc(), packed.clone());
            held.stored = packed.clone();
            let mut totals = self.totals();
            totals.count(&stored, false);
            totals.count(&packed, true);
        }
    }

    fn segment(&self, number: usize) -> Arc<RwLock<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)[number].clone()
    }

    fn shard(&self, entity_ref: &str) -> (&RwLock<Shard>, u64) {
        let hash = hash(entity_ref);
        (&self.shards[hash as usize % SHARDS], hash)
    }

    fn write(&self, entity_ref: &str) -> RwLockWriteGuard<'_, Shard> {
        self.shard(entity_ref).0.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn totals(&self) -> MutexGuard<'_, Totals> {
        lock(&self.totals)
    }
}

impl Shard {
    /// Whether a version is newer than what was shown of this ref; notes that the running replay names it.
    fn is_newer(&mut self, memory: &Memory, entity_ref: &str, version: i64) -> bool {
        match self.find_mut(hash(entity_ref), entity_ref) {
            Some(held) => {
                held.named_in = memory.replay.load(Relaxed);
                held.stored.version() < version
            }
            None => lock(&memory.gone).floor(entity_ref).is_none_or(|floor| floor < version),
        }
    }

    fn find(&self, hash: u64, entity_ref: &str) -> Option<&Held> {
        self.by_ref.find(hash, |held| held.stored.entity_ref() == entity_ref)
    }

    fn find_mut(&mut self, hash: u64, entity_ref: &str) -> Option<&mut Held> {
        self.by_ref.find_mut(hash, |held| held.stored.entity_ref() == entity_ref)
    }

    fn insert(&mut self, of: u64, held: Held) {
        self.by_ref.insert_unique(of, held, |held| hash(held.stored.entity_ref()));
    }

    fn remove(&mut self, hash: u64, entity_ref: &str) {
        if let Ok(entry) = self.by_ref.find_entry(hash, |held| held.stored.entity_ref() == entity_ref) {
            entry.remove();
        }
    }
}

impl Place {
    fn new(segment: usize, doc: u16) -> Place {
        Place((segment as u32) << 16 | u32::from(doc))
    }

    fn segment(self) -> usize {
        (self.0 >> 16) as usize
    }

    fn doc(self) -> u16 {
        self.0 as u16
    }
}

impl Totals {
    fn count(&mut self, stored: &Stored, added: bool) {
        let kind = stored.entity_ref().split(':').next().unwrap_or_default();
        let bytes = stored.held_bytes() as u64;
        let of_kind = self.kinds.entry(kind.to_owned()).or_default();
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

/// A segment, to be read. A lock is poisoned only by a bug, and the catalog's other parts go on being served.
pub(crate) fn read(segment: &RwLock<Segment>) -> RwLockReadGuard<'_, Segment> {
    segment.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(segment: &RwLock<Segment>) -> RwLockWriteGuard<'_, Segment> {
    segment.write().unwrap_or_else(PoisonError::into_inner)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hash(entity_ref: &str) -> u64 {
    static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    STATE.hash_one(entity_ref)
}
