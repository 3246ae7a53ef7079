//! The documents of each term in four bytes: most terms have one document, which stands in the posting itself.

use super::doc_set::DocSet;
use super::slab::Slab;

/// With this bit: the number of a set. Without: a document.
const SET: u32 = 1 << 31;

/// The documents of a term: one, or where to find them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posting(u32);

impl Default for Posting {
    fn default() -> Posting {
        Posting::EMPTY
    }
}

impl Posting {
    /// Of no document.
    pub const EMPTY: Posting = Posting(u32::MAX);

    /// Whether there is no document.
    pub fn is_empty(self) -> bool {
        self == Posting::EMPTY
    }

    fn set(self) -> Option<u32> {
        (self.0 & SET != 0 && !self.is_empty()).then_some(self.0 & !SET)
    }

    fn one(doc: u16) -> Posting {
        Posting(u32::from(doc))
    }
}

/// The documents of a term or key.
#[derive(Clone, Copy, Debug)]
pub enum TermDocs<'a> {
    /// None, for a moment while a document is put in.
    None,
    /// One alone.
    One(u16),
    /// Several.
    Set(&'a DocSet),
}

impl TermDocs<'_> {
    /// Whether this one is among them.
    pub fn contains(self, doc: u16) -> bool {
        match self {
            TermDocs::None => false,
            TermDocs::One(one) => one == doc,
            TermDocs::Set(set) => set.contains(doc),
        }
    }

    /// Adds them all to a set.
    pub fn add_to(self, to: &mut DocSet) {
        match self {
            TermDocs::None => {}
            TermDocs::One(doc) => {
                to.insert(doc);
            }
            TermDocs::Set(set) => to.add(set),
        }
    }
}

/// The sets of the terms that have more than one document.
#[derive(Clone, Debug, Default)]
pub struct Postings(Slab<DocSet>);

impl Postings {
    /// The documents of a posting.
    pub fn get(&self, posting: Posting) -> TermDocs<'_> {
        match posting.set() {
            None if posting.is_empty() => TermDocs::None,
            Some(set) => TermDocs::Set(&self.0[set]),
            None => TermDocs::One(posting.0 as u16),
        }
    }

    /// The posting with one document more.
    pub fn insert(&mut self, posting: Posting, doc: u16) -> Posting {
        if posting.is_empty() {
            return Posting::one(doc);
        }
        match posting.set() {
            Some(set) => {
                self.0[set].insert(doc);
                posting
            }
            None if posting == Posting::one(doc) => posting,
            None => {
                let set = DocSet::from_iter([posting.0 as u16, doc]);
                Posting(self.0.insert(set) | SET)
            }
        }
    }

    /// The posting with one document less.
    pub fn remove(&mut self, posting: Posting, doc: u16) -> Posting {
        match posting.set() {
            None if posting == Posting::one(doc) => Posting::EMPTY,
            None => posting,
            Some(set) => {
                self.0[set].remove(doc);
                let left = &self.0[set];
                match left.len() {
                    1 => {
                        let doc = left.iter().next().unwrap_or_default();
                        self.0.remove(set);
                        Posting::one(doc)
                    }
                    _ => posting,
                }
            }
        }
    }
}
