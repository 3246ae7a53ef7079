//! Full text over one field: the words of its values, each once, with the documents that have it.
//!
//! A search for letters and digits alone can match only inside a word, so the words that hold it, and their documents, are the exact answer: a word in 300,000
//! documents costs some bitmaps, not 300,000 comparisons. Numbers stand apart: nearly every entity may have its own, and a search for letters passes them over. Anything else (spaces, hyphens, wildcards) is narrowed down by its words, and the values are compared.

use hashbrown::HashTable;

use super::{
    doc_set::DocSet,
    hash::{hash_of, spread},
    postings::{Posting, Postings},
    slab::Slab,
    texts::{TextId, Texts},
};

/// The words of one field's values in one segment.
#[derive(Clone, Debug)]
pub struct Tokens {
    words: Slab<Word>,
    table: HashTable<u32>,
    /// Of the words that are no numbers, and of those that are.
    texts: [Texts; 2],
    postings: Postings,
}

#[derive(Clone, Debug, Default)]
struct Word {
    text: TextId,
    hash: u32,
    docs: Posting,
}

impl Default for Tokens {
    fn default() -> Tokens {
        Tokens {
            words: Slab::default(),
            table: HashTable::default(),
            texts: [Texts::searched_often(), Texts::searched_often()],
            postings: Postings::default(),
        }
    }
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
                self.texts[usize::from(is_number(word))].remove(text);
                if let Ok(entry) = self.table.find_entry(spread(hash), |other| *other == id) {
                    entry.remove();
                }
            }
        }
    }

    /// Adds the documents that have a word which holds this part.
    pub fn search(&self, part: &str, docs: &mut DocSet) {
        let [words, numbers] = &self.texts;
        let mut add = |word| self.postings.get(self.words[word].docs).add_to(docs);
        words.search(part, &mut add);
        if is_number(part) {
            numbers.search(part, add);
        }
    }

    fn find(&self, word: &str) -> Option<u32> {
        let hash = hash_of(word);
        let texts = &self.texts[usize::from(is_number(word))];
        let known = |id: &u32| self.words[*id].hash == hash && texts.is(self.words[*id].text, word);
        self.table.find(spread(hash), known).copied()
    }

    fn new_word(&mut self, word: &str) -> u32 {
        let hash = hash_of(word);
        let id = self.words.insert(Word { hash, ..Word::default() });
        self.words[id].text = self.texts[usize::from(is_number(word))].insert(word, id);
        self.table.insert_unique(spread(hash), id, |id| spread(self.words[*id].hash));
        id
    }
}

/// The words of a text: runs of letters and digits of any script.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty())
}

fn is_number(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit())
}
