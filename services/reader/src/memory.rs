//! The catalog in memory: the newest version of each entity, by ref and by uid.
//!
//! One task writes, any number of calls read. A lock is held for a look-up or for a bounded slice of shared handles, never
//! while an entity is parsed, matched or encoded, and never across an await.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use api::EncodedEntity;
use bus::EntityMessage;
use catalog::search::{SearchRow, search_rows};
use serde_json::{Map, Value};

use crate::gone::Gone;

/// One entity as it is held. It never changes; a newer version is another `Stored`.
#[derive(Debug)]
pub struct Stored {
    /// `kind:namespace/name`, lower-cased.
    pub entity_ref: Arc<str>,
    /// `metadata.uid`; empty where there is none.
    pub uid: Box<str>,
    /// The version of the stitched form; rises with each change.
    pub version: i64,
    /// The revision of the event that the content comes from.
    pub revision: i64,
    /// The final entity's JSON.
    pub body: Box<[u8]>,
    /// What filters look at.
    pub rows: Box<[SearchRow]>,
}

impl Stored {
    /// The entity as an answer holds it; fails only for JSON that is not let into the memory.
    pub fn encoded(&self) -> Result<EncodedEntity, api::Error> {
        Ok((&api::entity_from_json(&self.body, self.revision)?).into())
    }
}

/// What a message did to the memory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// The entity is new, changed or gone.
    Newer,
    /// A version as new or newer was known: nothing changed.
    Known,
    /// Newer, but its body cannot be served, for the reason given: the entity is not shown until a newer version comes.
    Unreadable(String),
}

/// The catalog in memory.
#[derive(Debug, Default)]
pub struct Memory {
    index: RwLock<Index>,
}

#[derive(Debug, Default)]
struct Index {
    by_ref: BTreeMap<Arc<str>, Held>,
    by_uid: HashMap<Box<str>, Arc<Stored>>,
    kinds: BTreeMap<String, u64>,
    body_bytes: u64,
    gone: Gone,
    /// Counts the replays of a replaced stream; what the running one named carries its number.
    replay: u64,
}

#[derive(Debug)]
struct Held {
    stored: Arc<Stored>,
    named_in: u64,
}

impl Memory {
    /// Takes one message of the entity stream; it counts only if its version is newer than any shown before.
    pub(crate) fn apply(&self, message: EntityMessage) -> Applied {
        let entity_ref: Arc<str> = message.entity_ref.as_str().into();
        if !self.write().is_newer(&entity_ref, message.version) {
            return Applied::Known;
        }
        let (stored, applied) = match &message.body {
            None => (None, Applied::Newer),
            Some(body) => match read_entity(&message, entity_ref.clone(), body) {
                Ok(stored) => (Some(Arc::new(stored)), Applied::Newer),
                Err(reason) => (None, Applied::Unreadable(reason)),
            },
        };
        // What was held is dropped after the lock.
        let _before = self.write().put(entity_ref, message.version, stored);
        applied
    }

    /// A replay of a replaced stream begins; everything known stays until [`Memory::end_replay`].
    pub(crate) fn begin_replay(&self) {
        self.write().replay += 1;
    }

    /// Drops what the running replay has not named, and says which entities that were.
    ///
    /// A dropped entity may come back with the version that was shown (the truth publishes it again as it was), but
    /// with none before it.
    pub(crate) fn end_replay(&self) -> Vec<Arc<Stored>> {
        let mut index = self.write();
        let replay = index.replay;
        let unnamed = index.by_ref.values().filter(|held| held.named_in < replay).map(|held| held.stored.clone());
        let unnamed: Vec<Arc<Stored>> = unnamed.collect();
        for stored in &unnamed {
            index.put(stored.entity_ref.clone(), stored.version.saturating_sub(1), None);
        }
        drop(index);
        unnamed
    }

    /// The entity with this ref (lower-cased).
    pub fn by_ref(&self, entity_ref: &str) -> Option<Arc<Stored>> {
        let index = self.read();
        Some(index.by_ref.get(entity_ref)?.stored.clone())
    }

    /// The entity with this uid.
    pub fn by_uid(&self, uid: &str) -> Option<Arc<Stored>> {
        self.read().by_uid.get(uid).cloned()
    }

    /// At most `limit` entities in the order of their refs, after `entity_ref` (empty: from the first).
    pub fn after(&self, entity_ref: &str, limit: usize) -> Vec<Arc<Stored>> {
        let range = (Bound::Excluded(entity_ref), Bound::Unbounded);
        let index = self.read();
        let held = index.by_ref.range::<str, _>(range).take(limit);
        held.map(|(_, held)| held.stored.clone()).collect()
    }

    /// How many entities there are.
    pub fn len(&self) -> usize {
        self.read().by_ref.len()
    }

    /// Whether there is no entity.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entities there are of each kind (lower-cased); a kind that has gone stays, with 0.
    pub fn kinds(&self) -> BTreeMap<String, u64> {
        self.read().kinds.clone()
    }

    /// The bytes of all entities' JSON.
    pub fn body_bytes(&self) -> u64 {
        self.read().body_bytes
    }

    // A lock is poisoned only by a panic inside the few lines that hold it; each leaves the index usable.
    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    /// Whether a version is newer than what was shown of this ref; notes that the running replay names it.
    fn is_newer(&mut self, entity_ref: &str, version: i64) -> bool {
        match self.by_ref.get_mut(entity_ref) {
            Some(held) => {
                held.named_in = self.replay;
                held.stored.version < version
            }
            None => self.gone.floor(entity_ref).is_none_or(|floor| floor < version),
        }
    }

    /// Shows `stored` under the ref, or nothing any more; gives back what was held.
    fn put(&mut self, entity_ref: Arc<str>, version: i64, stored: Option<Arc<Stored>>) -> Option<Arc<Stored>> {
        let before = self.by_ref.remove(&entity_ref).map(|held| held.stored);
        if let Some(before) = &before {
            self.count(before, false);
            if self.by_uid.get(&before.uid).is_some_and(|held| held.entity_ref == entity_ref) {
                self.by_uid.remove(&before.uid);
            }
        }
        match stored {
            Some(stored) => {
                self.count(&stored, true);
                self.gone.remove(&entity_ref);
                if !stored.uid.is_empty() {
                    self.by_uid.insert(stored.uid.clone(), stored.clone());
                }
                let named_in = self.replay;
                self.by_ref.insert(entity_ref, Held { stored, named_in });
            }
            None => self.gone.insert(entity_ref, version),
        }
        before
    }

    fn count(&mut self, stored: &Stored, added: bool) {
        let kind = stored.entity_ref.split(':').next().unwrap_or_default();
        let bytes = stored.body.len() as u64;
        let kinds = self.kinds.entry(kind.to_owned()).or_default();
        if added {
            *kinds += 1;
            self.body_bytes += bytes;
        } else {
            *kinds -= 1;
            self.body_bytes -= bytes;
        }
    }
}

fn read_entity(message: &EntityMessage, entity_ref: Arc<str>, body: &[u8]) -> Result<Stored, String> {
    let entity: Map<String, Value> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let depth = api::depth(&entity);
    if depth > api::MAX_DEPTH {
        let limit = api::MAX_DEPTH;
        return Err(format!("expected at most {limit} levels of nesting, found {depth}"));
    }
    let uid = entity.get("metadata").and_then(|metadata| metadata.get("uid"));
    Ok(Stored {
        entity_ref,
        uid: uid.and_then(Value::as_str).unwrap_or_default().into(),
        version: message.version,
        revision: message.revision,
        // Copied, because a message's body may be a part of a much larger receive buffer.
        body: body.into(),
        rows: search_rows(&entity).into(),
    })
}
