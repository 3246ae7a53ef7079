//! What a segment builds when it is first asked for and keeps up to date from then on: columns for facets, orders for pages, words for full text.
//!
//! A view is built by a call that holds the segment for reading (some tens of milliseconds for a full segment, once). What changes is changed in it under the
//! segment's write lock; documents that are new it only notes, and takes them in, all at once, when it is asked next: while many come, nothing is moved for each
//! of them. Of each sort the least recently used goes when there are too many.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    column::Column,
    doc_set::DocSet,
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
    /// A document is new: every view will take it in.
    pub fn add(&mut self, doc: u16) {
        self.columns.add(doc);
        self.orders.add(doc);
        self.tokens.add(doc);
        self.refs.add(doc);
    }

    /// A document is gone, and was taken out of every view that knew it.
    pub fn forget(&mut self, doc: u16) {
        self.columns.forget(doc);
        self.orders.forget(doc);
        self.tokens.forget(doc);
        self.refs.forget(doc);
    }
}

/// Views of one sort, the most recently used first.
#[derive(Debug)]
pub struct Cache<K, V> {
    limit: usize,
    views: Mutex<Vec<View<K, V>>>,
}

#[derive(Debug)]
struct View<K, V> {
    key: K,
    view: Arc<V>,
    /// Documents that it does not know yet.
    behind: DocSet,
}

impl<K: PartialEq, V: Clone> Cache<K, V> {
    fn new(limit: usize) -> Cache<K, V> {
        Cache { limit, views: Mutex::new(Vec::new()) }
    }

    /// The view under a key, built if it is not there; `take_in` adds documents that are new to it. The caller lets go of it before it lets go of the segment.
    pub fn get(&self, key: K, build: impl FnOnce() -> V, take_in: impl FnOnce(&mut V, &DocSet)) -> Arc<V> {
        if let Some(view) = self.touch(&key, take_in) {
            return view;
        }
        // Not under the lock: others are served meanwhile. If two build the same, the second is kept.
        let view = Arc::new(build());
        let mut views = self.lock();
        views.retain(|known| known.key != key);
        views.insert(0, View { key, view: view.clone(), behind: DocSet::default() });
        views.truncate(self.limit);
        view
    }

    /// Every view that knows a document, to be changed; nobody else has one, since the segment is held for writing.
    pub fn each(&mut self, doc: u16, mut change: impl FnMut(&K, &mut V)) {
        let views = self.views.get_mut().unwrap_or_else(PoisonError::into_inner);
        views.retain_mut(|known| match Arc::get_mut(&mut known.view) {
            Some(view) if !known.behind.contains(doc) => {
                change(&known.key, view);
                true
            }
            Some(_) => true,
            // Someone kept one against the rule: it is built anew rather than left behind.
            None => false,
        });
    }

    /// A document is new.
    fn add(&mut self, doc: u16) {
        let views = self.views.get_mut().unwrap_or_else(PoisonError::into_inner);
        views.iter_mut().for_each(|known| {
            known.behind.insert(doc);
        });
    }

    /// A document is gone.
    fn forget(&mut self, doc: u16) {
        let views = self.views.get_mut().unwrap_or_else(PoisonError::into_inner);
        views.iter_mut().for_each(|known| {
            known.behind.remove(doc);
        });
    }

    /// The view under a key, with all documents in it. Whoever wants it at the same time waits, since they would have to do the same.
    fn touch(&self, key: &K, take_in: impl FnOnce(&mut V, &DocSet)) -> Option<Arc<V>> {
        let mut views = self.lock();
        let place = views.iter().position(|known| known.key == *key)?;
        views[..=place].rotate_right(1);
        let known = &mut views[0];
        if !known.behind.is_empty() {
            // A copy of it, if another call looks at what it was.
            take_in(Arc::make_mut(&mut known.view), &std::mem::take(&mut known.behind));
        }
        Some(known.view.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<View<K, V>>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
