//! The dictionary of one segment: each search row (a key and a value) once, under a number, with the documents that have it.
//!
//! A *term* is a key and a lower-cased value, or a key and no value (null, or longer than 200 characters): filters ask for terms. A value that the source wrote in
//! another case is a *spelling* of its term: facets show spellings. Relations, the uid, the origin location, and rows whose value is `true` (each string in a list has
//! one, `metadata.tags.java`), are *hidden*: kept as a 64-bit hash of key and value under a key of this process, without their texts. They are half of all rows, nearly every one in one or two
//! documents, and what they say stands in the entity's other rows or in its relations. A *row* is the number of either of the three.

mod hidden;
mod kept;

use std::hash::DefaultHasher;

use catalog::search::{FlatRow, FlatRows};
use hashbrown::{HashSet, HashTable};

use self::hidden::Hidden;
use super::hash::{hash_of, hidden_hash, hidden_key, hidden_value, mix, spread};
use super::postings::{Posting, Postings, TermDocs};
use super::relations::{RELATIONS, RelationTypes, UNTOLD_WORD};
use super::slab::Slab;
use super::texts::{TextId, Texts};

/// A row with this bit is a spelling, with [`HIDDEN`] a hidden row, with neither a term.
const SPELLING: u32 = 1 << 31;
const HIDDEN: u32 = 1 << 30;
/// A hidden row that tells of relations: so the others need not be looked at.
const RELATION: u32 = 1 << 29;
const NUMBER: u32 = RELATION - 1;

/// Other keys whose values are hidden: nearly every entity has its own, and what they say is searched for by nobody or stands under another key.
const HIDDEN_KEYS: [&str; 2] = ["metadata.uid", "metadata.annotations.backstage.io/managed-by-origin-location"];
/// The value of rows that are hidden, whatever their key.
pub const TRUE: &str = "true";

/// The number of a key in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(u32);

/// The number of a term in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TermId(u32);

/// The number of a row in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId(u32);

/// The rows of a segment's documents.
#[derive(Debug, Default)]
pub struct Dictionary {
    keys: Slab<Key>,
    terms: Slab<Term>,
    spellings: Slab<Spelling>,
    hidden: Slab<Hidden>,
    relation_types: RelationTypes,
    key_table: HashTable<u32>,
    term_table: HashTable<u32>,
    spelling_table: HashTable<u32>,
    hidden_table: HashTable<u32>,
    key_texts: Texts,
    /// The lower-cased values: what a full-text search without fields looks through.
    values: Texts,
    spelling_texts: Texts,
    postings: Postings,
}

#[derive(Clone, Copy, Debug, Default)]
struct Key {
    text: TextId,
    hash: u32,
    docs: Posting,
}

#[derive(Clone, Copy, Debug, Default)]
struct Term {
    key: u32,
    text: TextId,
    hash: u32,
    docs: Posting,
}

#[derive(Clone, Copy, Debug, Default)]
struct Spelling {
    term: u32,
    text: TextId,
    hash: u32,
    docs: u32,
}

impl Dictionary {
    /// The number of a key that any document has in a row that is not hidden.
    pub fn key(&self, key: &str) -> Option<KeyId> {
        let hash = hash_of(key);
        let known = |id: &u32| self.keys[*id].hash == hash && self.key_texts.is(self.keys[*id].text, key);
        self.key_table.find(spread(hash), known).map(|id| KeyId(*id))
    }

    /// The documents that have a key: in rows that are not hidden, in hidden ones with a value, and in hidden ones of relations.
    pub fn docs_of_key(&self, key: &str) -> [TermDocs<'_>; 3] {
        let plain = self.key(key).map_or(TermDocs::None, |key| self.postings.get(self.keys[key.0].docs));
        [plain, self.hidden_docs(hidden_hash(key, Some(TRUE))), self.hidden_docs(hidden_hash(key, None))]
    }

    /// The documents that have a value (lower-cased) under a key.
    pub fn docs_of(&self, key: &str, value: &str) -> [TermDocs<'_>; 2] {
        let plain = self.key(key).and_then(|key| self.find_term(key, Some(value), term_hash(key, Some(value))));
        let plain = plain.map_or(TermDocs::None, |term| self.docs(term));
        let relation = key.starts_with(RELATIONS).then(|| self.relation_types.number(key)).flatten();
        let word = relation.map_or_else(|| hidden_hash(key, Some(value)), |number| RelationTypes::word(number, value));
        [plain, self.hidden_docs(word)]
    }

    /// The types of relations, by the numbers that rows tell.
    pub fn relation_types(&self) -> &RelationTypes {
        &self.relation_types
    }

    /// The documents that have a term.
    pub fn docs(&self, term: TermId) -> TermDocs<'_> {
        self.postings.get(self.terms[term.0].docs)
    }

    /// The row of `true` under a key, if any document has it.
    pub fn true_row(&self, key: &str) -> Option<RowId> {
        self.find_hidden(hidden_hash(key, Some(TRUE))).map(|id| RowId(id | HIDDEN))
    }

    /// The term of a row; none: it is hidden.
    pub fn term_of(&self, row: RowId) -> Option<TermId> {
        match row.0 {
            id if id & SPELLING != 0 => Some(TermId(self.spellings[id & NUMBER].term)),
            id if id & HIDDEN != 0 => None,
            id => Some(TermId(id)),
        }
    }

    /// The key of a term.
    pub fn key_of(&self, term: TermId) -> KeyId {
        KeyId(self.terms[term.0].key)
    }

    /// A term's value, lower-cased; none: it has none.
    pub fn value(&self, term: TermId) -> Option<&str> {
        let text = self.terms[term.0].text;
        (text != TextId::NONE).then(|| self.values.get(text))
    }

    /// A row's value as its source wrote it; none: it has none, or is hidden.
    pub fn original(&self, row: RowId) -> Option<&str> {
        match row.0 & SPELLING != 0 {
            true => Some(self.spelling_texts.get(self.spellings[row.0 & NUMBER].text)),
            false => self.value(self.term_of(row)?),
        }
    }

    /// Calls `each` with every term whose value holds the needle.
    pub fn search(&self, needle: &str, mut each: impl FnMut(TermId)) {
        self.values.search(needle, |term| each(TermId(term)));
    }

    /// Calls `each` with every term that has a value.
    pub fn for_each_value(&self, mut each: impl FnMut(TermId, &str)) {
        for (id, term) in self.terms.iter() {
            if !term.docs.is_empty()
                && let Some(value) = self.value(TermId(id))
            {
                each(TermId(id), value);
            }
        }
    }

    /// The numbers of an entity's rows, sorted, each once, new where they have none; [`Dictionary::add`] then says who has them.
    pub fn intern(&mut self, rows: &FlatRows) -> Vec<RowId> {
        // Of a term that stands there in several spellings the first counts, as everywhere.
        let mut numbers: Vec<(u32, u32, RowId)> = Vec::with_capacity(rows.len() + 8);
        let mut true_keys = HashSet::new();
        let mut hidden: Option<(&str, DefaultHasher, Option<u8>)> = None;
        let mut are_told = rows.tell_relations();
        for FlatRow { key, value, original, relation } in rows.iter() {
            let place = numbers.len() as u32;
            // One spelling of it is hidden, the others are not.
            if value == Some(TRUE) && !true_keys.insert(key) {
                continue;
            }
            if value.is_some() && is_hidden(key) {
                // Relations of one type stand together.
                let (_, of_key, number) = match &hidden {
                    Some(known) if known.0 == key => known,
                    _ => {
                        let of_key = hidden_key(key);
                        let row = self.intern_hidden(hidden_value(&of_key, None));
                        numbers.push((row.0, place, row));
                        let number = self.relation_types.intern(key, relation.unwrap_or_default());
                        hidden.insert((key, of_key, number))
                    }
                };
                let word = match (number, value) {
                    (Some(number), Some(target)) => RelationTypes::word(*number, target),
                    _ => hidden_value(of_key, value),
                };
                let name = number.map(|number| self.relation_types.name(number));
                are_told &= relation.is_none() || relation == name;
                let row = self.intern_hidden(word);
                numbers.push((row.0, place, row));
            } else if original == Some(TRUE) {
                let row = self.intern_hidden(hidden_hash(key, Some(TRUE)));
                numbers.push((row.0, place, row));
            } else {
                let (term, row) = self.intern_plain(key, value, original);
                numbers.push((term.0, place, row));
            }
        }
        if !are_told {
            let row = self.intern_hidden(UNTOLD_WORD);
            numbers.push((row.0, numbers.len() as u32, row));
        }
        numbers.sort_unstable();
        numbers.dedup_by_key(|(term, _, _)| *term);
        let mut rows: Vec<RowId> = numbers.into_iter().map(|(_, _, row)| row).collect();
        rows.sort_unstable();
        rows
    }

    /// A document has a row now.
    pub fn add(&mut self, row: RowId, doc: u16) {
        let Some(term) = self.term_of(row) else {
            let hidden = &mut self.hidden[row.0 & NUMBER];
            hidden.docs = self.postings.insert(hidden.docs, doc);
            return;
        };
        if row.0 & SPELLING != 0 {
            self.spellings[row.0 & NUMBER].docs += 1;
        }
        let term = &mut self.terms[term.0];
        term.docs = self.postings.insert(term.docs, doc);
        let key = &mut self.keys[term.key];
        key.docs = self.postings.insert(key.docs, doc);
    }

    /// A document has a row no more; `keeps_term`: but another spelling of its term. Whether it still has the row's key is settled by
    /// [`Dictionary::remove_key`].
    pub fn remove(&mut self, row: RowId, doc: u16, keeps_term: bool) {
        let Some(term) = self.term_of(row) else {
            return self.remove_hidden(row.0 & NUMBER, doc);
        };
        if row.0 & SPELLING != 0 {
            self.remove_spelling(row.0 & NUMBER);
        }
        if keeps_term {
            return;
        }
        let docs = self.postings.remove(self.terms[term.0].docs, doc);
        self.terms[term.0].docs = docs;
        if docs.is_empty() {
            let Term { text, hash, .. } = self.terms.remove(term.0);
            forget(&mut self.term_table, spread(hash), term.0);
            if text != TextId::NONE {
                self.values.remove(text);
            }
        }
    }

    /// A document has a key no more in rows that are not hidden.
    pub fn remove_key(&mut self, key: KeyId, doc: u16) {
        let docs = self.postings.remove(self.keys[key.0].docs, doc);
        self.keys[key.0].docs = docs;
        if docs.is_empty() {
            let Key { text, hash, .. } = self.keys.remove(key.0);
            forget(&mut self.key_table, spread(hash), key.0);
            self.key_texts.remove(text);
        }
    }

    fn intern_plain(&mut self, key: &str, value: Option<&str>, original: Option<&str>) -> (TermId, RowId) {
        let key = self.key(key).unwrap_or_else(|| self.new_key(key));
        let hash = term_hash(key, value);
        let term = self.find_term(key, value, hash).unwrap_or_else(|| self.new_term(key, value, hash));
        let row = match original.filter(|original| value != Some(original)) {
            Some(original) => self.intern_spelling(term, original),
            None => RowId(term.0),
        };
        (term, row)
    }

    fn new_key(&mut self, key: &str) -> KeyId {
        let hash = hash_of(key);
        let id = self.keys.insert(Key { hash, ..Key::default() });
        self.keys[id].text = self.key_texts.insert(key, id);
        self.key_table.insert_unique(spread(hash), id, |id| spread(self.keys[*id].hash));
        KeyId(id)
    }

    fn find_term(&self, key: KeyId, value: Option<&str>, hash: u32) -> Option<TermId> {
        let known = |id: &u32| {
            let term = &self.terms[*id];
            term.hash == hash
                && term.key == key.0
                && match value {
                    Some(value) => term.text != TextId::NONE && self.values.is(term.text, value),
                    None => term.text == TextId::NONE,
                }
        };
        self.term_table.find(spread(hash), known).map(|id| TermId(*id))
    }

    fn new_term(&mut self, key: KeyId, value: Option<&str>, hash: u32) -> TermId {
        let id = self.terms.insert(Term { key: key.0, hash, ..Term::default() });
        if let Some(value) = value {
            self.terms[id].text = self.values.insert(value, id);
        }
        self.term_table.insert_unique(spread(hash), id, |id| spread(self.terms[*id].hash));
        TermId(id)
    }

    fn intern_spelling(&mut self, term: TermId, original: &str) -> RowId {
        let hash = mix(term.0, hash_of(original));
        let known = |id: &u32| {
            let spelling = &self.spellings[*id];
            spelling.hash == hash && spelling.term == term.0 && self.spelling_texts.is(spelling.text, original)
        };
        if let Some(id) = self.spelling_table.find(spread(hash), known) {
            return RowId(id | SPELLING);
        }
        self.new_spelling(term, original)
    }

    fn new_spelling(&mut self, term: TermId, original: &str) -> RowId {
        let hash = mix(term.0, hash_of(original));
        let id = self.spellings.insert(Spelling { term: term.0, hash, ..Spelling::default() });
        self.spellings[id].text = self.spelling_texts.insert(original, id);
        self.spelling_table.insert_unique(spread(hash), id, |id| spread(self.spellings[*id].hash));
        RowId(id | SPELLING)
    }

    fn remove_spelling(&mut self, id: u32) {
        self.spellings[id].docs -= 1;
        if self.spellings[id].docs == 0 {
            let Spelling { text, hash, .. } = self.spellings.remove(id);
            forget(&mut self.spelling_table, spread(hash), id);
            self.spelling_texts.remove(text);
        }
    }
}

impl RowId {
    /// As a number, in the same order.
    pub fn number(self) -> u32 {
        self.0
    }

    /// The row of a number.
    pub fn of_number(number: u32) -> RowId {
        RowId(number)
    }
}

/// Whether the values of a key are hidden.
pub fn is_hidden(key: &str) -> bool {
    key.starts_with(RELATIONS) || HIDDEN_KEYS.contains(&key)
}

fn forget(table: &mut HashTable<u32>, hash: u64, id: u32) {
    if let Ok(entry) = table.find_entry(hash, |other| *other == id) {
        entry.remove();
    }
}

fn term_hash(key: KeyId, value: Option<&str>) -> u32 {
    mix(key.0, value.map_or(0, hash_of))
}
