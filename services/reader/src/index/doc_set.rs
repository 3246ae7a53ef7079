//! A set of documents of one segment: a sorted list while it is small, a bitmap once it is not (one container of a roaring bitmap).

use std::borrow::Cow;

/// Documents of a segment are numbered below this.
pub const SEGMENT_DOCS: usize = 1 << 16;
const WORDS: usize = SEGMENT_DOCS / 64;
/// The largest list; a bitmap takes as much memory as this many entries of a list.
const LIST_LIMIT: usize = 4096;
/// A bitmap that shrinks to this becomes a list again; lower than [`LIST_LIMIT`], so that one document more or less does not turn it over.
const LIST_AGAIN: u32 = 2048;

/// The largest set that stands in the enum itself, which it makes no larger.
const FEW: usize = 11;

/// A list that is so many times shorter than another is looked up in it.
const MUCH_SHORTER: usize = 16;

/// A set of document numbers.
#[derive(Clone, Debug)]
pub enum DocSet {
    /// Sorted, each once; how many of the places are taken.
    Few(u8, [u16; FEW]),
    /// Sorted, each once. Boxed, because there are millions of sets and few are as large.
    #[allow(clippy::box_collection, reason = "a set is eight bytes smaller so")]
    List(Box<Vec<u16>>),
    /// One bit a document, and how many are set.
    Bits(Box<[u64; WORDS]>, u32),
}

impl Default for DocSet {
    fn default() -> DocSet {
        DocSet::Few(0, [0; FEW])
    }
}

impl DocSet {
    /// An empty bitmap, to collect many documents in any order; [`DocSet::shrunk`] when it is done.
    pub fn empty_bits() -> DocSet {
        DocSet::Bits(Box::new([0; WORDS]), 0)
    }

    /// The same set, as a list if it is small.
    pub fn shrunk(self) -> DocSet {
        match self.len() <= LIST_AGAIN as usize && matches!(self, DocSet::Bits(..)) {
            true => DocSet::of_sorted(self.iter().collect()),
            false => self,
        }
    }

    /// The same set as a bitmap, to be asked often for single documents.
    pub fn to_bits(&self) -> Cow<'_, DocSet> {
        match self.list() {
            Some(list) => Cow::Owned(bits_of(list)),
            None => Cow::Borrowed(self),
        }
    }

    /// How many documents it has.
    pub fn len(&self) -> usize {
        match self {
            DocSet::Few(len, _) => usize::from(*len),
            DocSet::List(list) => list.len(),
            DocSet::Bits(_, len) => *len as usize,
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it has this one.
    pub fn contains(&self, doc: u16) -> bool {
        match self {
            DocSet::Few(len, docs) => docs[..usize::from(*len)].contains(&doc),
            DocSet::List(list) => list.binary_search(&doc).is_ok(),
            DocSet::Bits(words, _) => has(words, doc),
        }
    }

    /// Adds one; whether it was not there.
    pub fn insert(&mut self, doc: u16) -> bool {
        match self {
            DocSet::Few(len, docs) => {
                let Err(place) = docs[..usize::from(*len)].binary_search(&doc) else { return false };
                if usize::from(*len) == FEW {
                    let mut list = docs.to_vec();
                    list.insert(place, doc);
                    *self = DocSet::List(Box::new(list));
                    return true;
                }
                docs.copy_within(place..usize::from(*len), place + 1);
                docs[place] = doc;
                *len += 1;
                true
            }
            DocSet::List(list) => {
                let place = match list.last() {
                    // What is put in while a segment fills comes in order.
                    Some(last) if *last < doc => Err(list.len()),
                    _ => list.binary_search(&doc),
                };
                let Err(place) = place else { return false };
                if list.len() == LIST_LIMIT {
                    *self = bits_of(list);
                    return self.insert(doc);
                }
                // Most lists stay short: growth by doubling would waste more than it saves.
                if list.len() == list.capacity() {
                    list.reserve_exact(list.len() / 4);
                }
                list.insert(place, doc);
                true
            }
            DocSet::Bits(words, len) => {
                let is_new = set(words, doc);
                *len += u32::from(is_new);
                is_new
            }
        }
    }

    /// Takes one out; whether it was there.
    pub fn remove(&mut self, doc: u16) -> bool {
        match self {
            DocSet::Few(len, docs) => {
                let Ok(place) = docs[..usize::from(*len)].binary_search(&doc) else { return false };
                docs.copy_within(place + 1..usize::from(*len), place);
                *len -= 1;
                true
            }
            DocSet::List(list) => {
                let Ok(place) = list.binary_search(&doc) else { return false };
                list.remove(place);
                if list.len() <= FEW / 2 {
                    *self = DocSet::of_sorted(std::mem::take(list));
                }
                true
            }
            DocSet::Bits(words, len) => {
                let (word, bit) = (&mut words[usize::from(doc) / 64], 1 << (doc % 64));
                let was_there = *word & bit != 0;
                *word &= !bit;
                *len -= u32::from(was_there);
                if *len <= LIST_AGAIN {
                    *self = DocSet::of_sorted(self.iter().collect());
                }
                was_there
            }
        }
    }

    /// The documents in rising order.
    pub fn iter(&self) -> Box<dyn Iterator<Item = u16> + '_> {
        self.iter_from(0)
    }

    /// The documents from one on, in rising order.
    pub fn iter_from(&self, from: u16) -> Box<dyn Iterator<Item = u16> + '_> {
        let DocSet::Bits(words, _) = self else {
            let list = self.list().unwrap_or_default();
            return Box::new(list[list.partition_point(|doc| *doc < from)..].iter().copied());
        };
        let first = usize::from(from) / 64;
        Box::new(words.iter().enumerate().skip(first).flat_map(move |(place, word)| {
            let mut left = if place == first { *word & (u64::MAX << (from % 64)) } else { *word };
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some((place * 64) as u16 + bit as u16)
            })
        }))
    }

    /// Calls `each` with every document in rising order; quicker than [`DocSet::iter`].
    pub fn for_each(&self, mut each: impl FnMut(u16)) {
        if let Some(list) = self.list() {
            return list.iter().for_each(|doc| each(*doc));
        }
        let DocSet::Bits(words, _) = self else { return };
        for (place, word) in words.iter().enumerate() {
            let mut left = *word;
            while left != 0 {
                each((place * 64) as u16 + left.trailing_zeros() as u16);
                left &= left - 1;
            }
        }
    }

    /// What both have.
    pub fn and(&self, other: &DocSet) -> DocSet {
        match (self, other) {
            (DocSet::Bits(one, _), DocSet::Bits(two, _)) => zip(one, two, |one, two| one & two),
            (DocSet::Bits(words, _), lists) | (lists, DocSet::Bits(words, _)) => {
                keep(lists.list().unwrap_or_default(), |doc| has(words, doc))
            }
            _ => in_both(self.list().unwrap_or_default(), other.list().unwrap_or_default()),
        }
    }

    /// What this has and the other has not.
    pub fn and_not(&self, other: &DocSet) -> DocSet {
        match (self, other) {
            (DocSet::Bits(one, _), DocSet::Bits(two, _)) => zip(one, two, |one, two| one & !two),
            (lists @ (DocSet::Few(..) | DocSet::List(_)), DocSet::Bits(words, _)) => {
                keep(lists.list().unwrap_or_default(), |doc| !has(words, doc))
            }
            (lists @ (DocSet::Few(..) | DocSet::List(_)), _) => {
                keep(lists.list().unwrap_or_default(), |doc| !other.contains(doc))
            }
            _ => {
                let mut rest = self.clone();
                other.for_each(|doc| {
                    rest.remove(doc);
                });
                rest
            }
        }
    }

    /// Adds everything that the other has.
    pub fn add(&mut self, other: &DocSet) {
        if let DocSet::Bits(words, len) = self {
            match other {
                DocSet::Bits(others, _) => {
                    words.iter_mut().zip(others.iter()).for_each(|(word, other)| *word |= other);
                    *len = count(words);
                }
                others => others.list().unwrap_or_default().iter().for_each(|doc| *len += u32::from(set(words, *doc))),
            }
            return;
        }
        match (self.list(), other.list()) {
            (Some(list), Some(others)) if list.len() + others.len() <= LIST_LIMIT => {
                let mut both = [list, others].concat();
                // Two runs that are sorted already: a stable sort merges them.
                both.sort();
                both.dedup();
                *self = DocSet::of_sorted(both);
            }
            (list, _) => {
                *self = bits_of(list.unwrap_or_default());
                self.add(other);
            }
        }
    }

    /// The set of these documents, which are sorted, each once.
    pub fn of_sorted(list: Vec<u16>) -> DocSet {
        match list.len() {
            len @ 0..=FEW => {
                let mut docs = [0; FEW];
                docs[..len].copy_from_slice(&list);
                DocSet::Few(len as u8, docs)
            }
            0..=LIST_LIMIT => DocSet::List(Box::new(list)),
            _ => bits_of(&list),
        }
    }

    /// The documents, unless they are a bitmap.
    fn list(&self) -> Option<&[u16]> {
        match self {
            DocSet::Few(len, docs) => Some(&docs[..usize::from(*len)]),
            DocSet::List(list) => Some(list),
            DocSet::Bits(..) => None,
        }
    }
}

impl FromIterator<u16> for DocSet {
    fn from_iter<I: IntoIterator<Item = u16>>(docs: I) -> DocSet {
        let mut set = DocSet::default();
        docs.into_iter().for_each(|doc| {
            set.insert(doc);
        });
        set
    }
}

fn zip(one: &[u64; WORDS], two: &[u64; WORDS], word: impl Fn(u64, u64) -> u64) -> DocSet {
    let mut words = Box::new([0; WORDS]);
    words.iter_mut().zip(one.iter().zip(two)).for_each(|(to, (one, two))| *to = word(*one, *two));
    let len = count(&words);
    DocSet::Bits(words, len)
}

fn has(words: &[u64; WORDS], doc: u16) -> bool {
    words[usize::from(doc) / 64] >> (doc % 64) & 1 == 1
}

/// Sets a document's bit; whether it was not set.
fn set(words: &mut [u64; WORDS], doc: u16) -> bool {
    let (word, bit) = (&mut words[usize::from(doc) / 64], 1 << (doc % 64));
    let is_new = *word & bit == 0;
    *word |= bit;
    is_new
}

/// Those of a list that are to be kept. Nothing branches on each, since that would be guessed wrong as often as not.
fn keep(list: &[u16], is_kept: impl Fn(u16) -> bool) -> DocSet {
    let mut kept = vec![0; list.len()];
    let mut len = 0;
    for doc in list {
        kept[len] = *doc;
        len += usize::from(is_kept(*doc));
    }
    kept.truncate(len);
    DocSet::of_sorted(kept)
}

/// What two lists have: side by side, or the long one searched for what is in a much shorter one.
fn in_both(one: &[u16], other: &[u16]) -> DocSet {
    let (short, long) = if one.len() < other.len() { (one, other) } else { (other, one) };
    if short.len() * MUCH_SHORTER < long.len() {
        return keep(short, |doc| long.binary_search(&doc).is_ok());
    }
    let mut both = vec![0; short.len()];
    let (mut len, mut at, mut against) = (0, 0, 0);
    while let (Some(doc), Some(other)) = (short.get(at), long.get(against)) {
        both[len] = *doc;
        len += usize::from(doc == other);
        at += usize::from(doc <= other);
        against += usize::from(other <= doc);
    }
    both.truncate(len);
    DocSet::of_sorted(both)
}

fn count(words: &[u64; WORDS]) -> u32 {
    words.iter().map(|word| word.count_ones()).sum()
}

fn bits_of(list: &[u16]) -> DocSet {
    let mut words = Box::new([0_u64; WORDS]);
    for doc in list {
        words[usize::from(*doc) / 64] |= 1 << (doc % 64);
    }
    DocSet::Bits(words, list.len() as u32)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set_of(docs: &BTreeSet<u16>) -> DocSet {
        docs.iter().copied().collect()
    }

    fn check(set: &DocSet, expected: &BTreeSet<u16>) {
        let mut visited = Vec::new();
        set.for_each(|doc| visited.push(doc));
        assert!(visited.iter().eq(expected), "{} of {}", visited.len(), expected.len());
        assert!(set.iter().eq(expected.iter().copied()));
        assert_eq!((set.len(), set.is_empty()), (expected.len(), expected.is_empty()));
    }

    /// Small and large sets, so that lists meet bitmaps.
    fn docs() -> impl Strategy<Value = BTreeSet<u16>> {
        prop_oneof![
            prop::collection::btree_set(any::<u16>(), 0..50),
            (any::<u16>(), 1..9_u16, 0..20_000_u16)
                .prop_map(|(from, step, count)| (0..count).map(|n| from.wrapping_add(n.wrapping_mul(step))).collect()),
        ]
    }

    #[test]
    fn a_set_is_small() {
        assert_eq!(size_of::<DocSet>(), 24);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn is_a_set(one in docs(), two in docs(), from in any::<u16>()) {
            let (left, right) = (set_of(&one), set_of(&two));
            check(&left, &one);
            prop_assert!(left.iter_from(from).eq(one.range(from..).copied()));
            check(&left.and(&right), &one.intersection(&two).copied().collect());
            check(&left.and_not(&right), &one.difference(&two).copied().collect());
            let mut both = left.clone();
            both.add(&right);
            check(&both, &one.union(&two).copied().collect());
            let mut rest = both;
            for doc in &one {
                prop_assert!(rest.remove(*doc));
                prop_assert!(!rest.contains(*doc));
            }
            check(&rest, &two.difference(&one).copied().collect());
        }
    }
}
