//! Full text over one field: the words of its values, each once, with the documents that have it.
//!
//! A search for letters and digits alone can match only inside a word, so the words that hold it, and their documents, are the exact answer: a word in 300,000
//! documents costs some bitmaps, not 300,000 comparisons. Anything else (spaces, hyphens, wildcards) is narrowed down by its words, and the values are compared.

use hashbrown::HashTable;

use super::{
    dictionary::{hash_of, spread},
    doc_set::DocSet,
    postings::{Posting, Postings},
    slab::Slab,
    texts::{TextId, Texts},
};

/// The words of one field's values in one segment.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    words: Slab<Word>,
    table: HashTable<u32>,
    texts: Texts,
    postings: Postings,
}

#[derive(Clone, Debug, Default)]
struct Word {
    text: TextId,
    hash: u32,
    docs: Posting,
}

impl Tokens {
    /// A document has these values; it had none.
    pub fn put<'t>(&mut self, doc: u16, values: impl Iterator<Item = &'t str>) {
        for word in values.flat_map(words) {
            let id = self.find(word).unwrap_or_else(|| self.new_word(word));
            self.words[id].docs = self.postings.insert(self.words[id].docs, doc);
        }
    }

    /// A document has these values no more, which are all that it had.
    pub fn clear<'t>(&mut self, doc: u16, values: impl Iterator<Item = &'t str>) {
        for word in values.flat_map(words) {
            // A word that stands twice in the document is gone the first time.
            let Some(id) = self.find(word) else { continue };
            let docs = self.postings.remove(self.words[id].docs, doc);
            self.words[id].docs = docs;
            if docs.is_empty() {
                let Word { text, hash, .. } = self.words.remove(id);
                self.texts.remove(text);
                if let Ok(entry) = self.table.find_entry(spread(hash), |other| *other == id) {
                    entry.remove();
                }
            }
        }
    }

    /// Adds the documents that have a word which holds this part.
    pub fn search(&self, part: &str, docs: &mut DocSet) {
        self.texts.search(part, |word| self.postings.get(self.words[word].docs).add_to(docs));
    }

    fn find(&self, word: &str) -> Option<u32> {
        let hash = hash_of(word);
        let known = |id: &u32| self.words[*id].hash == hash && self.texts.is(self.words[*id].text, word);
        self.table.find(spread(hash), known).copied()
    }

    fn new_word(&mut self, word: &str) -> u32 {
        let hash = hash_of(word);
        let id = self.words.insert(Word { hash, ..Word::default() });
        self.words[id].text = self.texts.insert(word, id);
        self.table.insert_unique(spread(hash), id, |id| spread(self.words[*id].hash));
        id
    }
}

/// The words of a text: runs of letters and digits of any script.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty())
}
