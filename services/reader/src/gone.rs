//! What is gone: the version that each deleted ref has to exceed to be shown again.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// How many deleted refs are remembered; beyond it the lowest version is forgotten first.
///
/// They matter only while older messages of the ref may still come, which is when a stream went back and is replayed.
const LIMIT: usize = 100_000;

/// The versions of deleted refs.
#[derive(Debug, Default)]
pub struct Gone {
    floors: HashMap<Arc<str>, i64>,
    by_version: BTreeSet<(i64, Arc<str>)>,
}

impl Gone {
    /// The version that a message of this ref has to exceed; none: any version is new.
    pub fn floor(&self, entity_ref: &str) -> Option<i64> {
        self.floors.get(entity_ref).copied()
    }

    /// Remembers that a ref is gone since this version.
    pub fn insert(&mut self, entity_ref: Arc<str>, version: i64) {
        self.remove(&entity_ref);
        self.floors.insert(entity_ref.clone(), version);
        self.by_version.insert((version, entity_ref));
        if self.floors.len() > LIMIT
            && let Some((_, oldest)) = self.by_version.pop_first()
        {
            self.floors.remove(&oldest);
        }
    }

    /// Forgets a ref, because it is back.
    pub fn remove(&mut self, entity_ref: &Arc<str>) {
        if let Some(version) = self.floors.remove(entity_ref) {
            self.by_version.remove(&(version, entity_ref.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_versions_are_forgotten_first() {
        let mut gone = Gone::default();
        for version in 0..LIMIT as i64 + 10 {
            gone.insert(format!("a:b/{version}").into(), version);
        }
        assert_eq!(gone.floors.len(), LIMIT);
        assert_eq!(gone.by_version.len(), LIMIT);
        assert_eq!(gone.floor("a:b/9"), None);
        assert_eq!(gone.floor("a:b/10"), Some(10));
        gone.remove(&"a:b/10".into());
        assert_eq!(gone.by_version.len(), LIMIT - 1);
    }
}
