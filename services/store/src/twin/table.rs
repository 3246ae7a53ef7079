//! A table: committed rows, and beside each what the one transaction that holds it has made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;

/// A transaction's number inside the twin, from its beginning on; not its `xid`, which it gets with its first write.
pub(super) type Tid = u64;

#[derive(Debug)]
pub(super) struct Table<K, V> {
    rows: BTreeMap<K, Row<V>>,
    touched: BTreeMap<Tid, BTreeSet<K>>,
}

#[derive(Debug)]
struct Row<V> {
    committed: Option<V>,
    pending: Option<(Tid, Option<V>)>,
}

impl<V> Row<V> {
    fn seen_by(&self, tid: Tid) -> Option<&V> {
        match &self.pending {
            Some((writer, row)) if *writer == tid => row.as_ref(),
            _ => self.committed.as_ref(),
        }
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Table { rows: BTreeMap::new(), touched: BTreeMap::new() }
    }
}

impl<K: Ord + Clone, V> Table<K, V> {
    /// A table that holds a row from the beginning.
    pub fn with(key: K, row: V) -> Self {
        let row = Row { committed: Some(row), pending: None };
        Table { rows: BTreeMap::from([(key, row)]), touched: BTreeMap::new() }
    }

    /// A row as a transaction sees it: as it has written it, else as it is committed.
    pub fn get(&self, tid: Tid, key: &K) -> Option<&V> {
        self.rows.get(key)?.seen_by(tid)
    }

    /// All rows that a transaction sees, in order.
    pub fn all(&self, tid: Tid) -> impl Iterator<Item = (&K, &V)> {
        self.range(tid, ..)
    }

    /// Some of them.
    pub fn range(&self, tid: Tid, range: impl RangeBounds<K>) -> impl Iterator<Item = (&K, &V)> {
        self.rows.range(range).filter_map(move |(key, row)| Some((key, row.seen_by(tid)?)))
    }

    /// Writes a row, or removes it. The transaction holds its lock, or that of what it belongs to.
    pub fn put(&mut self, tid: Tid, key: K, new: Option<V>) {
        let row = self.rows.entry(key.clone()).or_insert(Row { committed: None, pending: None });
        assert!(row.pending.as_ref().is_none_or(|(writer, _)| *writer == tid), "a row is written without its lock");
        row.pending = Some((tid, new));
        self.touched.entry(tid).or_default().insert(key);
    }

    /// A transaction ends: what it wrote is committed, or forgotten.
    pub fn settle(&mut self, tid: Tid, is_committed: bool) {
        for key in self.touched.remove(&tid).unwrap_or_default() {
            let Some(row) = self.rows.get_mut(&key) else { continue };
            if let Some((_, new)) = row.pending.take().filter(|_| is_committed) {
                row.committed = new;
            }
            if row.committed.is_none() {
                self.rows.remove(&key);
            }
        }
    }
}

impl<K: Ord + Clone, V: Clone> Table<K, V> {
    /// Changes a row that is there; says whether it was.
    pub fn change(&mut self, tid: Tid, key: &K, change: impl FnOnce(&mut V)) -> bool {
        let Some(row) = self.get(tid, key) else { return false };
        let mut row = row.clone();
        change(&mut row);
        self.put(tid, key.clone(), Some(row));
        true
    }
}
