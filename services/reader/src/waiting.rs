//! Calls that wait for a ref to change, woken one ref at a time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// How many calls may wait at once.
pub(crate) const LIMIT: usize = 10_000;

/// The calls that wait, by ref.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    calls: Mutex<Calls>,
}

#[derive(Debug, Default)]
struct Calls {
    count: usize,
    by_ref: HashMap<String, Arc<Notify>>,
}

/// One call that waits; leaves when it is dropped.
#[derive(Debug)]
pub(crate) struct Waiter<'a> {
    waiting: &'a Waiting,
    entity_ref: &'a str,
    /// Notified with each change of the ref. Enable it before looking, so that no change falls in between.
    pub changed: Arc<Notify>,
}

impl Waiting {
    /// Begins to wait for changes of a ref; refused if [`LIMIT`] calls wait already.
    pub fn enter<'a>(&'a self, entity_ref: &'a str) -> Result<Waiter<'a>, api::Error> {
        let mut calls = self.calls();
        if calls.count >= LIMIT {
            return Err(api::Error::TooManyWaiting { limit: LIMIT });
        }
        calls.count += 1;
        let changed = calls.by_ref.entry(entity_ref.to_owned()).or_default().clone();
        Ok(Waiter { waiting: self, entity_ref, changed })
    }

    /// Wakes every call that waits for this ref.
    pub fn wake(&self, entity_ref: &str) {
        if let Some(changed) = self.calls().by_ref.get(entity_ref) {
            changed.notify_waiters();
        }
    }

    /// How many calls wait.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.calls().count
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut calls = self.waiting.calls();
        calls.count -= 1;
        // The map's handle and this one: nobody else waits for the ref.
        if Arc::strong_count(&self.changed) == 2 {
            calls.by_ref.remove(self.entity_ref);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_to_leave_takes_the_entry_along() {
        let waiting = Waiting::default();
        let first = waiting.enter("a:b/c").unwrap();
        let second = waiting.enter("a:b/c").unwrap();
        drop(first);
        assert_eq!(waiting.calls().by_ref.len(), 1);
        drop(second);
        assert_eq!(waiting.calls().by_ref.len(), 0);
        assert_eq!(waiting.calls().count, 0);
    }

    #[test]
    fn a_call_beyond_the_limit_is_refused() {
        let waiting = Waiting::default();
        let calls: Result<Vec<_>, _> = (0..LIMIT).map(|_| waiting.enter("a:b/c")).collect();
        let calls = calls.unwrap();
        assert_eq!(waiting.enter("a:b/d").unwrap_err(), api::Error::TooManyWaiting { limit: LIMIT });
        drop(calls);
        assert!(waiting.enter("a:b/d").is_ok());
    }
}
