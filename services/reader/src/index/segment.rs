//! One part of the index: up to 65,536 documents with their rows, under one lock.
//!
//! What a call does in a segment is bounded by its size, so no lock is held for long, however many entities there are; and what is counted or collected in each
//! segment adds up to the answer, since an entity is in one segment as long as it exists.

mod values;

use std::sync::Arc;

use catalog::search::FlatRows;

pub use self::values::FieldValue;
use self::values::{Field, lowers, originals};
use super::{
    column::Column,
    dictionary::{Dictionary, KeyId, RowId, TermId},
    doc_set::{DocSet, SEGMENT_DOCS},
    evaluate::Query,
    order::{Order, TextOrder},
    relations::{RelationTypes, Told},
    rows::Rows,
    tokens::Tokens,
    views::Views,
};
use crate::stored::Stored;

/// The facets of Backstage's catalog pages.
const FACETS: [&str; 6] =
    ["kind", "spec.type", "spec.lifecycle", "metadata.tags", "metadata.namespace", "relations.ownedby"];

/// Some of the documents, and all that is known about them.
#[derive(Debug)]
pub struct Segment {
    pub(super) dictionary: Dictionary,
    pub(super) alive: DocSet,
    pub(super) views: Views,
    docs: Vec<Option<Doc>>,
    free: Vec<u16>,
    limit: usize,
}

#[derive(Debug)]
struct Doc {
    stored: Arc<Stored>,
    rows: Rows,
}

impl Segment {
    /// An empty segment for this many documents, at most [`SEGMENT_DOCS`].
    pub fn new(limit: usize) -> Segment {
        Segment {
            dictionary: Dictionary::default(),
            alive: DocSet::default(),
            views: Views::default(),
            docs: Vec::new(),
            free: Vec::new(),
            limit: limit.min(SEGMENT_DOCS),
        }
    }

    /// A segment of these entities, whose rows are numbers of the dictionary, for this many documents.
    pub(crate) fn restore(limit: usize, dictionary: Dictionary, entities: Vec<(Arc<Stored>, Rows)>) -> Segment {
        let mut segment = Segment { dictionary, ..Segment::new(limit) };
        for (stored, rows) in entities {
            let Some(doc) = segment.reserve() else { break };
            rows.iter().for_each(|row| segment.dictionary.add(row, doc));
            segment.docs[usize::from(doc)] = Some(Doc { stored, rows });
            segment.alive.insert(doc);
        }
        segment
    }

    /// A number for a new document; none: the segment is full.
    pub fn reserve(&mut self) -> Option<u16> {
        if let Some(doc) = self.free.pop() {
            return Some(doc);
        }
        let doc = self.docs.len();
        (doc < self.limit).then(|| {
            self.docs.push(None);
            doc as u16
        })
    }

    /// A document is this entity with these rows from now on, whatever it was before.
    pub fn put(&mut self, doc: u16, stored: Arc<Stored>, rows: &FlatRows) {
        let rows = self.dictionary.intern(rows);
        let before = self.docs[usize::from(doc)].take();
        if before.is_none() {
            self.views.add(doc);
        }
        self.change(doc, before, Some(Doc { stored, rows: Rows::of_sorted(&rows) }), &rows);
        self.alive.insert(doc);
    }

    /// A document is no entity any more; its number is free.
    pub fn remove(&mut self, doc: u16) {
        self.views.refs.each(doc, |(), order| {
            if let Some(place) = order.place(doc, false) {
                order.clear(doc);
                order.take(place as usize);
            }
        });
        let before = self.docs[usize::from(doc)].take();
        self.change(doc, before, None, &[]);
        self.views.forget(doc);
        self.alive.remove(doc);
        self.free.push(doc);
    }

    /// The same entity, held otherwise.
    pub fn replace(&mut self, doc: u16, stored: Arc<Stored>) {
        if let Some(held) = &mut self.docs[usize::from(doc)] {
            held.stored = stored;
        }
    }

    /// Of the next `limit` documents after a ref, in the order of their refs, those that match; and the last ref looked at, if there are more.
    pub fn after(&self, query: &Query, entity_ref: &str, limit: usize) -> (Vec<Arc<Stored>>, Option<String>) {
        let order = self.ref_order();
        let from = match self.find_ref(entity_ref) {
            Ok(place) => place + 1,
            Err(place) => place,
        };
        let all = &order.values()[from..];
        let looked_at = &all[..limit.min(all.len())];
        let docs = looked_at.iter().map(|doc| *doc as u16);
        let matching = docs.filter(|doc| query.is_everything() || self.matches(*doc, query));
        let last = looked_at.last().filter(|_| looked_at.len() < all.len());
        let last = last.and_then(|doc| self.stored(*doc as u16)).map(|stored| stored.entity_ref().to_owned());
        (matching.filter_map(|doc| self.stored(doc).cloned()).collect(), last)
    }

    /// Every document's entity.
    pub(crate) fn all(&self) -> Vec<Arc<Stored>> {
        self.docs.iter().flatten().map(|doc| doc.stored.clone()).collect()
    }

    /// A document's entity.
    pub fn stored(&self, doc: u16) -> Option<&Arc<Stored>> {
        Some(&self.docs.get(usize::from(doc))?.as_ref()?.stored)
    }

    /// A document's rows, sorted.
    pub fn rows(&self, doc: u16) -> impl Iterator<Item = RowId> {
        let held = self.docs.get(usize::from(doc)).and_then(Option::as_ref);
        held.into_iter().flat_map(|held| held.rows.iter())
    }

    /// The types of relations, by number.
    pub fn relation_types(&self) -> &RelationTypes {
        self.dictionary.relation_types()
    }

    /// Calls `each` with the number of its type and the hash of its target for every relation that a document's rows tell, in any order; false: the entity has others.
    pub fn for_each_relation(&self, doc: u16, mut each: impl FnMut(u8, u64)) -> bool {
        let mut are_told = true;
        for told in self.rows(doc).filter_map(|row| self.dictionary.told(row)) {
            match told {
                Told::Relation(number, target) => each(number, target),
                Told::Untold => are_told = false,
            }
        }
        are_told
    }

    /// A key's values by document, for facets.
    pub(super) fn column(&self, key: &str) -> Arc<Column> {
        let take_in = |column: &mut Column, docs: &DocSet| {
            self.for_each_valued(key, docs, |doc, values| column.put(doc, &originals(values)));
        };
        self.views.columns.get(key.to_owned(), || built(|column| take_in(column, &self.docs_of_key(key))), take_in)
    }

    /// A key's values in order.
    pub(super) fn order(&self, key: &str) -> Arc<TextOrder> {
        let take_in = |order: &mut TextOrder, docs: &DocSet| {
            let mut all = Vec::new();
            self.for_each_valued(key, docs, |doc, values| {
                all.extend(values.iter().map(|value| (value.lower.clone(), doc)));
            });
            order.extend(all);
        };
        self.views.orders.get(key.to_owned(), || built(|order| take_in(order, &self.docs_of_key(key))), take_in)
    }

    /// The entities' refs in order.
    pub(super) fn ref_order(&self) -> Arc<Order> {
        let take_in = |order: &mut Order, docs: &DocSet| {
            let mut refs: Vec<(&str, u16)> = Vec::with_capacity(docs.len());
            docs.for_each(|doc| refs.push((entity_ref(&self.docs, u32::from(doc)), doc)));
            refs.sort_unstable();
            order.extend(&refs, |id| entity_ref(&self.docs, id), |(_, doc)| u32::from(*doc));
        };
        self.views.refs.get((), || built(|order| take_in(order, &self.alive)), take_in)
    }

    /// The words of a key's values.
    pub(super) fn tokens(&self, key: &str) -> Arc<Tokens> {
        let take_in = |tokens: &mut Tokens, docs: &DocSet| {
            self.for_each_valued(key, docs, |doc, values| tokens.put(doc, lowers(values).into_iter()));
        };
        self.views.tokens.get(key.to_owned(), || built(|tokens| take_in(tokens, &self.docs_of_key(key))), take_in)
    }

    /// Where a ref stands in their order, or would.
    pub(super) fn find_ref(&self, asked: &str) -> Result<usize, usize> {
        self.ref_order().find(asked, |id| entity_ref(&self.docs, id))
    }

    /// A document's values under a key.
    pub(super) fn values(&self, doc: u16, key: &str) -> Vec<FieldValue<'_>> {
        let held = self.docs.get(usize::from(doc)).and_then(Option::as_ref);
        held.map_or_else(Vec::new, |held| held.values(&self.dictionary, &Field::of(&self.dictionary, key)))
    }

    /// Builds one of the views that Backstage's own pages ask for, so that no call has to; false: there are no more.
    pub fn warm(&self, step: usize) -> bool {
        match step {
            0 => drop(self.ref_order()),
            1 => drop(self.order("metadata.name")),
            2 => drop(self.tokens("metadata.name")),
            3 => drop(self.tokens("metadata.title")),
            step => match FACETS.get(step - 4) {
                Some(key) => self.prepare_facet(key),
                None => return false,
            },
        }
        true
    }

    /// Makes that a facet can be counted at once.
    pub fn prepare_facet(&self, key: &str) {
        self.column(key);
    }

    /// Every document that has a key.
    fn docs_of_key(&self, key: &str) -> DocSet {
        let mut docs = DocSet::default();
        self.dictionary.docs_of_key(key).iter().for_each(|having| having.add_to(&mut docs));
        docs
    }

    /// Calls `each` with those of these documents that have values under a key, and the values.
    fn for_each_valued<'s>(&'s self, key: &str, docs: &DocSet, mut each: impl FnMut(u16, &[FieldValue<'s>])) {
        let field = Field::of(&self.dictionary, key);
        docs.for_each(|doc| {
            let held = self.docs[usize::from(doc)].as_ref();
            let values = held.map_or_else(Vec::new, |held| held.values(&self.dictionary, &field));
            if !values.is_empty() {
                each(doc, &values);
            }
        });
    }

    /// Changes what a document is: the views first, while the dictionary still knows the old rows, and knows the new ones already.
    fn change(&mut self, doc: u16, before: Option<Doc>, after: Option<Doc>, rows: &[RowId]) {
        match before {
            // Of a document that is new the views know nothing yet.
            None => rows.iter().for_each(|row| self.dictionary.add(*row, doc)),
            Some(before) => {
                self.change_views(doc, &before, after.as_ref());
                let old: Vec<RowId> = before.rows.iter().collect();
                self.change_rows(doc, &old, rows);
            }
        }
        self.docs[usize::from(doc)] = after;
    }

    fn change_views(&mut self, doc: u16, old: &Doc, new: Option<&Doc>) {
        let dictionary = &self.dictionary;
        let values = |held: Option<&Doc>, key: &str| match held {
            Some(held) => held.values(dictionary, &Field::of(dictionary, key)),
            None => Vec::new(),
        };
        self.views.columns.each(doc, |key, column| {
            let (old, new) = (values(Some(old), key), values(new, key));
            if old != new {
                column.clear(doc);
                column.put(doc, &originals(&new));
            }
        });
        self.views.orders.each(doc, |key, order| {
            let (old, new) = (values(Some(old), key), values(new, key));
            if old != new {
                order.clear(doc, &lowers(&old));
                order.put(doc, &lowers(&new));
            }
        });
        self.views.tokens.each(doc, |key, tokens| {
            let (old, new) = (values(Some(old), key), values(new, key));
            if old != new {
                tokens.clear(doc, lowers(&old).into_iter());
                tokens.put(doc, lowers(&new).into_iter());
            }
        });
    }

    /// Changes which rows the dictionary says a document has; both are sorted.
    fn change_rows(&mut self, doc: u16, old: &[RowId], new: &[RowId]) {
        let dictionary = &mut self.dictionary;
        let gone: Vec<RowId> = old.iter().copied().filter(|row| new.binary_search(row).is_err()).collect();
        for row in new.iter().filter(|row| old.binary_search(row).is_err()) {
            dictionary.add(*row, doc);
        }
        if gone.is_empty() {
            return;
        }
        let key_of = |dictionary: &Dictionary, row: &RowId| Some(dictionary.key_of(dictionary.term_of(*row)?));
        let kept_keys: Vec<KeyId> = new.iter().filter_map(|row| key_of(dictionary, row)).collect();
        let mut gone_keys: Vec<KeyId> = gone.iter().filter_map(|row| key_of(dictionary, row)).collect();
        gone_keys.sort_unstable();
        gone_keys.dedup();
        // Another spelling of the same term keeps the term.
        let kept: Vec<TermId> = new.iter().filter_map(|row| dictionary.term_of(*row)).collect();
        for row in gone {
            let is_kept = dictionary.term_of(row).is_some_and(|term| kept.contains(&term));
            dictionary.remove(row, doc, is_kept);
        }
        for key in gone_keys.into_iter().filter(|key| !kept_keys.contains(key)) {
            dictionary.remove_key(key, doc);
        }
    }
}

fn built<V: Default>(fill: impl FnOnce(&mut V)) -> V {
    let mut view = V::default();
    fill(&mut view);
    view
}

fn entity_ref(docs: &[Option<Doc>], doc: u32) -> &str {
    docs.get(doc as usize).and_then(Option::as_ref).map_or("", |doc| doc.stored.entity_ref())
}
