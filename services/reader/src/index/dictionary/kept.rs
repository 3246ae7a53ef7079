//! A dictionary without its documents, as a snapshot keeps it: keys, terms, spellings, hidden rows and types of relations, each in the order of their numbers.

use std::io;

use catalog::search::FlatRows;

use super::{Dictionary, HIDDEN, KeyId, NUMBER, SPELLING, TermId, term_hash};
use crate::index::{rows::Rows, texts::TextId};
use crate::snapshot::{Cursor, damaged, put_sized};

/// Before a term's value: it has one.
const VALUE: u8 = 1;

impl Dictionary {
    /// An entity's rows by their numbers, new where they have none.
    pub fn number(&mut self, rows: &FlatRows) -> Rows {
        Rows::of_sorted(&self.intern(rows))
    }

    /// About how many bytes [`Dictionary::save`] writes.
    pub fn size(&self) -> usize {
        self.key_texts.bytes() + self.values.bytes() + self.spelling_texts.bytes() + self.hidden.places() * 8
    }

    /// Writes it; nothing was removed from it.
    pub fn save(&self, content: &mut Vec<u8>) {
        let count = |content: &mut Vec<u8>, count: usize| content.extend((count as u32).to_le_bytes());
        count(content, self.keys.places());
        for (_, key) in self.keys.iter() {
            put_sized(content, self.key_texts.get(key.text).as_bytes());
        }
        count(content, self.terms.places());
        for (_, term) in self.terms.iter() {
            content.extend(term.key.to_le_bytes());
            match term.text == TextId::NONE {
                true => content.push(0),
                false => {
                    content.push(VALUE);
                    put_sized(content, self.values.get(term.text).as_bytes());
                }
            }
        }
        count(content, self.spellings.places());
        for (_, spelling) in self.spellings.iter() {
            content.extend(spelling.term.to_le_bytes());
            put_sized(content, self.spelling_texts.get(spelling.text).as_bytes());
        }
        count(content, self.hidden.places());
        for (_, hidden) in self.hidden.iter() {
            content.extend(hidden.word().to_le_bytes());
        }
        count(content, self.relation_types.iter().len());
        for (key, name) in self.relation_types.iter() {
            put_sized(content, key.as_bytes());
            put_sized(content, name.as_bytes());
        }
    }

    /// Reads what [`Dictionary::save`] wrote, under the same secret (see [`crate::index::secret`]).
    pub(crate) fn restore(cursor: &mut Cursor<'_>) -> io::Result<Dictionary> {
        let mut dictionary = Dictionary::default();
        for _ in 0..cursor.u32()? {
            dictionary.new_key(cursor.text()?);
        }
        let terms = count(cursor)?;
        dictionary.term_table.reserve(terms, |_| unreachable!("the table is empty"));
        for _ in 0..terms {
            let key = KeyId(number_below(cursor, dictionary.keys.places())?);
            let value = if cursor.bytes(1)? == [VALUE] { Some(cursor.text()?) } else { None };
            dictionary.new_term(key, value, term_hash(key, value));
        }
        for _ in 0..count(cursor)? {
            let term = TermId(number_below(cursor, dictionary.terms.places())?);
            dictionary.new_spelling(term, cursor.text()?);
        }
        let hidden = count(cursor)?;
        dictionary.hidden_table.reserve(hidden, |_| unreachable!("the table is empty"));
        for _ in 0..hidden {
            dictionary.new_hidden(cursor.i64()? as u64);
        }
        for _ in 0..count(cursor)? {
            let (key, name) = (cursor.text()?, cursor.text()?);
            dictionary.relation_types.intern(key, name);
        }
        Ok(dictionary)
    }

    /// Whether all these rows have numbers here.
    pub fn has(&self, rows: &Rows) -> bool {
        rows.iter().all(|row| {
            let places = match (row.0 & SPELLING, row.0 & HIDDEN) {
                (0, 0) => self.terms.places(),
                (0, _) => self.hidden.places(),
                _ => self.spellings.places(),
            };
            ((row.0 & NUMBER) as usize) < places
        })
    }
}

/// How many follow, each in a byte at least.
fn count(cursor: &mut Cursor<'_>) -> io::Result<usize> {
    let count = cursor.u32()? as usize;
    if count > cursor.0.len() {
        return Err(damaged("a dictionary ends early"));
    }
    Ok(count)
}

fn number_below(cursor: &mut Cursor<'_>, places: usize) -> io::Result<u32> {
    let number = cursor.u32()?;
    match (number as usize) < places {
        true => Ok(number),
        false => Err(damaged("a dictionary names what it does not have")),
    }
}
