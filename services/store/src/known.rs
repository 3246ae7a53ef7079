//! The numbers of refs that were named lately: they never change, so they are not asked for again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Refs of one generation; there are two, and the older one is forgotten when the younger one is full: 12 MiB each at most, of ordinary refs.
const GENERATION: usize = 100_000;

/// What is known. A connection that is made anew may lead to a database that was restored, where numbers begin again; so with each, all is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    /// Counts how often all was forgotten.
    era: u64,
    young: HashMap<String, i64>,
    old: HashMap<String, i64>,
}

impl Known {
    /// The numbers that are known of these refs, and the era in which they are.
    pub fn find(&self, refs: &[String]) -> (u64, HashMap<String, i64>) {
        let mut known = self.lock();
        let mut found = HashMap::with_capacity(refs.len());
        for named in refs {
            let id = match known.young.get(named) {
                Some(id) => *id,
                None => match known.old.remove_entry(named) {
                    Some((named, id)) => {
                        known.keep(named, id);
                        id
                    }
                    None => continue,
                },
            };
            found.insert(named.clone(), id);
        }
        (known.era, found)
    }

    /// Keeps what was found in an era; another one has begun: nothing.
    pub fn keep<'a>(&self, era: u64, found: impl Iterator<Item = (&'a String, &'a i64)>) {
        let mut known = self.lock();
        if known.era == era {
            found.for_each(|(named, id)| known.keep(named.clone(), *id));
        }
    }

    /// Whether the era goes on.
    pub fn is_era(&self, era: u64) -> bool {
        self.lock().era == era
    }

    /// Forgets everything.
    pub fn forget(&self) {
        let mut known = self.lock();
        let era = known.era + 1;
        *known = Generations { era, ..Generations::default() };
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn keep(&mut self, named: String, id: i64) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(named, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(known: &Known, refs: impl IntoIterator<Item = usize>) {
        let found: HashMap<String, i64> = refs.into_iter().map(|number| (number.to_string(), number as i64)).collect();
        known.keep(known.find(&[]).0, found.iter());
    }

    fn knows(known: &Known, number: usize) -> bool {
        known.find(&[number.to_string()]).1.get(&number.to_string()) == Some(&(number as i64))
    }

    #[test]
    fn what_is_named_again_and_again_stays() {
        let known = Known::default();
        keep(&known, [1, 2]);
        for generation in 1..4 {
            keep(&known, generation * GENERATION..(generation + 1) * GENERATION);
            assert!(knows(&known, 1), "generation {generation}");
        }
        assert!(!knows(&known, 2));
        let generations = known.lock();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION);
    }

    #[test]
    fn a_new_era_knows_nothing_of_the_one_before() {
        let known = Known::default();
        keep(&known, [1]);
        let (era, found) = known.find(&["1".to_owned()]);
        known.forget();
        assert!(!known.is_era(era) && !knows(&known, 1));
        known.keep(era, found.iter());
        assert!(!knows(&known, 1), "found before");
    }
}
