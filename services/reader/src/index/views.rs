//! What a segment builds when it is first asked for and keeps up to date from then on: columns for facets, orders for pages, words for full text.
//!
//! A view is built by a call that holds the segment for reading (some tens of milliseconds for a full segment, once), and changed only under the segment's write
//! lock. Of each sort the least recently used goes when there are too many.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    column::Column,
    order::{Order, TextOrder},
    tokens::Tokens,
};

/// Columns that a segment keeps: at most 256 KiB each.
const COLUMNS: usize = 32;
/// Orders that a segment keeps: at most 1 MiB each.
const ORDERS: usize = 8;
/// Full-text fields that a segment keeps: some MiB each.
const TOKENS: usize = 8;

/// The views of one segment.
#[derive(Debug)]
pub struct Views {
    /// By the key.
    pub columns: Cache<String, Column>,
    /// By the key.
    pub orders: Cache<String, TextOrder>,
    /// By the key.
    pub tokens: Cache<String, Tokens>,
    /// The order of the entities' refs.
    pub refs: Cache<(), Order>,
}

impl Default for Views {
    fn default() -> Views {
        Views {
            columns: Cache::new(COLUMNS),
            orders: Cache::new(ORDERS),
            tokens: Cache::new(TOKENS),
            refs: Cache::new(1),
        }
    }
}

impl Views {
    /// Whether there are none but the order of the refs.
    pub fn are_empty(&mut self) -> bool {
        self.columns.is_empty() && self.orders.is_empty() && self.tokens.is_empty()
    }
}

/// Views of one sort, the most recently used first.
#[derive(Debug)]
pub struct Cache<K, V> {
    limit: usize,
    views: Mutex<Vec<(K, Arc<V>)>>,
}

impl<K: PartialEq, V> Cache<K, V> {
    fn new(limit: usize) -> Cache<K, V> {
        Cache { limit, views: Mutex::new(Vec::new()) }
    }

    /// The view under a key, built if it is not there. The caller lets go of it before it lets go of the segment.
    pub fn get(&self, key: K, build: impl FnOnce() -> V) -> Arc<V> {
        if let Some(view) = self.touch(&key) {
            return view;
        }
        // Not under the lock: others are served meanwhile. If two build the same, the second is kept.
        let view = Arc::new(build());
        let mut views = self.lock();
        views.retain(|(known, _)| *known != key);
        views.insert(0, (key, view.clone()));
        views.truncate(self.limit);
        view
    }

    /// Every view, to be changed; nobody else has one, since the segment is held for writing.
    pub fn each(&mut self, mut change: impl FnMut(&K, &mut V)) {
        let views = self.views.get_mut().unwrap_or_else(PoisonError::into_inner);
        views.retain_mut(|(key, view)| match Arc::get_mut(view) {
            Some(view) => {
                change(key, view);
                true
            }
            // Someone kept one against the rule: it is built anew rather than left behind.
            None => false,
        });
    }

    fn is_empty(&mut self) -> bool {
        self.views.get_mut().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn touch(&self, key: &K) -> Option<Arc<V>> {
        let mut views = self.lock();
        let place = views.iter().position(|(known, _)| known == key)?;
        views[..=place].rotate_right(1);
        Some(views[0].1.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(K, Arc<V>)>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
