//! The catalog in memory: the newest version of each entity, by ref, by uid and in the index.
//!
//! Messages may be applied, and calls answered, by any number of threads. Refs are spread over shards and entities over segments of the index, each under a lock of
//! its own that is held for what is bounded by it, never across an await. A change holds its ref's shard and then its segment, so that nobody sees the one
//! without the other.

mod find;
mod put;
mod shard;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
};

use bus::EntityMessage;
use catalog::{search::FlatRows, tree::Object};

pub use self::shard::Place;
use self::shard::{Held, Shard, Totals};
pub use crate::stored::Stored;
use crate::{
    gone::Gone,
    index::{Dictionary, Rows, SEGMENT_DOCS, Segment, ref_hash},
    stored::Packer,
};

/// Refs are spread over so many locks.
const SHARDS: usize = 64;

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

    /// Takes many entities that are not known into a segment of their own, at most as many as it holds; their rows are numbers of the dictionary.
    pub(crate) fn restore(&self, dictionary: Dictionary, entities: Vec<(Arc<Stored>, Rows)>) {
        let placed: Vec<Arc<Stored>> =
            entities.iter().take(self.segment_docs).map(|(stored, _)| stored.clone()).collect();
        let segment = Segment::restore(self.segment_docs, dictionary, entities);
        let number = {
            let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
            segments.push(Arc::new(RwLock::new(segment)));
            segments.len() - 1
        };
        lock(&self.open).push(number);
        let named_in = self.replay.load(Relaxed);
        for (doc, stored) in placed.into_iter().enumerate() {
            let place = Place::new(number, doc as u16);
            if !stored.is_packed() {
                lock(&self.unpacked).push_back(place);
            }
            self.totals().count(&stored, true);
            let hash = ref_hash(stored.entity_ref());
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

    /// Drops what the running replay has not named; gives how many that were.
    ///
    /// A dropped entity may come back with the version that was shown (the truth publishes it again as it was), but
    /// with none before it.
    pub(crate) fn end_replay(&self) -> usize {
        let replay = self.replay.load(Relaxed);
        let mut dropped = 0;
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let unnamed = shard.by_ref.iter().filter(|held| held.named_in < replay).map(|held| held.stored.clone());
            let unnamed: Vec<Arc<Stored>> = unnamed.collect();
            for stored in &unnamed {
                self.put(&mut shard, stored.entity_ref(), stored.version().saturating_sub(1), None);
            }
            dropped += unnamed.len();
        }
        dropped
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

    fn read_entity(&self, body: &[u8], version: i64, revision: i64) -> Result<(Stored, FlatRows), String> {
        // Looked at once whether it is UTF-8, and not text by text.
        let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
        let entity: Object<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let rows = FlatRows::of(&entity);
        let stored = self.packer.store(&entity, version, revision).map_err(|error| error.to_string())?;
        Ok((stored, rows))
    }

    pub(crate) fn segment(&self, number: usize) -> Arc<RwLock<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)[number].clone()
    }

    fn shard(&self, entity_ref: &str) -> (&RwLock<Shard>, u64) {
        let hash = ref_hash(entity_ref);
        (self.shard_of(hash), hash)
    }

    fn shard_of(&self, hash: u64) -> &RwLock<Shard> {
        &self.shards[hash as usize % SHARDS]
    }

    fn write(&self, entity_ref: &str) -> RwLockWriteGuard<'_, Shard> {
        self.shard(entity_ref).0.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn totals(&self) -> MutexGuard<'_, Totals> {
        lock(&self.totals)
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
