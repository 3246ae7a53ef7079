//! Hidden rows: hashes without texts, and what those of relations tell.

use super::{Dictionary, HIDDEN, NUMBER, RELATION, RowId, forget};
use crate::index::{
    hash::scatter,
    postings::{Posting, TermDocs},
    relations::Told,
};

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hidden {
    /// A row's hash or a relation's word, in two halves, so that the whole takes twelve bytes.
    word: [u32; 2],
    pub docs: Posting,
}

impl Dictionary {
    /// What a row tells of its documents' relations, if it does.
    pub fn told(&self, row: RowId) -> Option<Told> {
        let tells = row.0 & !NUMBER == HIDDEN | RELATION;
        tells.then(|| Told::of_word(self.hidden[row.0 & NUMBER].word())).flatten()
    }

    pub(super) fn find_hidden(&self, word: u64) -> Option<u32> {
        self.hidden_table.find(scatter(word), |id| self.hidden[*id].word() == word).copied()
    }

    pub(super) fn hidden_docs(&self, word: u64) -> TermDocs<'_> {
        let id = self.find_hidden(word);
        id.map_or(TermDocs::None, |id| self.postings.get(self.hidden[id].docs))
    }

    pub(super) fn intern_hidden(&mut self, word: u64) -> RowId {
        let id = self.find_hidden(word).unwrap_or_else(|| self.new_hidden(word));
        let relation = if Told::of_word(word).is_some() { RELATION } else { 0 };
        RowId(id | HIDDEN | relation)
    }

    pub(super) fn new_hidden(&mut self, word: u64) -> u32 {
        let halves = [word as u32, (word >> 32) as u32];
        let id = self.hidden.insert(Hidden { word: halves, docs: Posting::EMPTY });
        self.hidden_table.insert_unique(scatter(word), id, |id| scatter(self.hidden[*id].word()));
        id
    }

    pub(super) fn remove_hidden(&mut self, id: u32, doc: u16) {
        let docs = self.postings.remove(self.hidden[id].docs, doc);
        self.hidden[id].docs = docs;
        if docs.is_empty() {
            let hidden = self.hidden.remove(id);
            forget(&mut self.hidden_table, scatter(hidden.word()), id);
        }
    }
}

impl Hidden {
    pub fn word(&self) -> u64 {
        u64::from(self.word[0]) | u64::from(self.word[1]) << 32
    }
}
