//! Which documents of a segment match.

use std::{borrow::Cow, cmp::Reverse};

use catalog::predicate::Predicate;

use super::{
    dictionary::TermId, doc_set::DocSet, postings::TermDocs, segment::Segment, text::TextQuery, tokens::words,
};

/// So few documents are looked at, rather than searched for another word.
const FEW: usize = 32;

/// What entities are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// What must be true of an entity.
    pub predicate: Predicate,
    /// A text that one of its values must hold.
    pub text: Option<TextQuery>,
}

impl Default for Query {
    fn default() -> Query {
        Query { predicate: Predicate::everything(), text: None }
    }
}

impl Query {
    /// Every entity that a predicate matches.
    pub fn of(predicate: Predicate) -> Query {
        Query { predicate, text: None }
    }

    /// Whether every entity matches.
    pub fn is_everything(&self) -> bool {
        self.predicate.is_everything() && self.text.is_none()
    }
}

impl Segment {
    /// The documents that match.
    pub fn matching(&self, query: &Query) -> Cow<'_, DocSet> {
        let docs = self.satisfying(&query.predicate);
        match &query.text {
            Some(text) if !docs.is_empty() => Cow::Owned(self.holding(text, docs.as_ref())),
            _ => docs,
        }
    }

    /// Whether one document matches.
    pub fn matches(&self, doc: u16, query: &Query) -> bool {
        self.alive.contains(doc)
            && self.satisfies(doc, &query.predicate)
            && query.text.as_ref().is_none_or(|text| self.holds(doc, text))
    }

    fn satisfying(&self, predicate: &Predicate) -> Cow<'_, DocSet> {
        match predicate {
            Predicate::All(all) => self.satisfying_all(all),
            Predicate::Any(any) => self.union(any.iter().map(|one| self.satisfying(one))),
            Predicate::Not(inner) => Cow::Owned(self.alive.and_not(&self.satisfying(inner))),
            Predicate::Exists { key } => self.union(self.dictionary.docs_of_key(key).into_iter().map(set_of)),
            Predicate::In { key, values } => {
                let docs = values.iter().flat_map(|value| self.dictionary.docs_of(key, value));
                self.union(docs.map(set_of))
            }
            Predicate::Prefix { key, prefix } => Cow::Owned(self.with_prefix(key, prefix, &self.alive)),
        }
    }

    /// Prefixes come last: they look at each document that is left.
    fn satisfying_all(&self, all: &[Predicate]) -> Cow<'_, DocSet> {
        let is_prefix = |one: &&Predicate| matches!(one, Predicate::Prefix { .. });
        let (prefixes, rest): (Vec<&Predicate>, Vec<&Predicate>) = all.iter().partition(is_prefix);
        let mut sets: Vec<Cow<'_, DocSet>> = rest.into_iter().map(|one| self.satisfying(one)).collect();
        sets.sort_by_key(|set| set.len());
        let mut sets = sets.into_iter();
        let first = sets.next().unwrap_or(Cow::Borrowed(&self.alive));
        let docs = sets.fold(first, |docs, set| match docs.is_empty() {
            true => docs,
            false => Cow::Owned(docs.and(&set)),
        });
        prefixes.into_iter().fold(docs, |docs, one| match one {
            Predicate::Prefix { key, prefix } => Cow::Owned(self.with_prefix(key, prefix, &docs)),
            _ => docs,
        })
    }

    /// By the places of each document's smallest and largest value; only where they are on both sides are the values looked at.
    fn with_prefix(&self, key: &str, prefix: &str, among: &DocSet) -> DocSet {
        let order = self.order(key);
        let range = order.with_prefix(prefix);
        let within = |place: u32| range.contains(&(place as usize));
        let mut docs = Vec::new();
        among.for_each(|doc| {
            let Some(low) = order.place(doc, false) else { return };
            // The largest is looked up only where the smallest does not say it.
            let others = || {
                let high = order.place(doc, true).unwrap_or(low);
                let is_around = (low as usize) < range.start && range.end <= high as usize;
                within(high) || is_around && self.has_prefix(doc, key, prefix)
            };
            if within(low) || others() {
                docs.push(doc);
            }
        });
        DocSet::of_sorted(docs)
    }

    fn has_prefix(&self, doc: u16, key: &str, prefix: &str) -> bool {
        self.values(doc, key).iter().any(|value| value.lower.starts_with(prefix))
    }

    fn satisfies(&self, doc: u16, predicate: &Predicate) -> bool {
        match predicate {
            Predicate::All(all) => all.iter().all(|one| self.satisfies(doc, one)),
            Predicate::Any(any) => any.iter().any(|one| self.satisfies(doc, one)),
            Predicate::Not(inner) => !self.satisfies(doc, inner),
            Predicate::Exists { key } => self.dictionary.docs_of_key(key).iter().any(|docs| docs.contains(doc)),
            Predicate::In { key, values } => {
                let mut docs = values.iter().flat_map(|value| self.dictionary.docs_of(key, value));
                docs.any(|docs| docs.contains(doc))
            }
            Predicate::Prefix { key, prefix } => self.has_prefix(doc, key, prefix),
        }
    }

    fn union<'a>(&'a self, sets: impl Iterator<Item = Cow<'a, DocSet>>) -> Cow<'a, DocSet> {
        let mut sets = sets.filter(|set| !set.is_empty());
        let Some(first) = sets.next() else { return Cow::Owned(DocSet::default()) };
        sets.fold(first, |docs, set| {
            let mut docs = docs.into_owned();
            docs.add(&set);
            Cow::Owned(docs)
        })
    }

    /// Of these documents, those in which a value holds the text.
    fn holding(&self, text: &TextQuery, docs: &DocSet) -> DocSet {
        match text.fields().is_empty() {
            true => self.holding_anywhere(text).and(docs),
            false => self.holding_in_fields(text, docs),
        }
    }

    fn holding_in_fields(&self, text: &TextQuery, docs: &DocSet) -> DocSet {
        let mut candidates: Option<DocSet> = None;
        let mut parts: Vec<&str> = words(text.pattern()).collect();
        // Numbers are in few values, long words in fewer than short ones.
        parts.sort_by_key(|word| (!word.contains(|letter: char| letter.is_ascii_digit()), Reverse(word.len())));
        for word in parts {
            if candidates.as_ref().is_some_and(|docs| docs.len() <= FEW) {
                break;
            }
            let mut having = DocSet::empty_bits();
            for field in text.fields() {
                self.tokens(field).search(word, &mut having);
            }
            candidates = Some(candidates.as_ref().unwrap_or(docs).and(&having.shrunk()));
        }
        match candidates {
            Some(candidates) if text.is_word() => candidates,
            candidates => {
                let candidates = candidates.as_ref().unwrap_or(docs);
                candidates.iter().filter(|doc| self.holds(*doc, text)).collect()
            }
        }
    }

    fn holding_anywhere(&self, text: &TextQuery) -> DocSet {
        let mut holding = DocSet::empty_bits();
        let mut add = |term: TermId| self.dictionary.docs(term).add_to(&mut holding);
        if text.has_wildcards() {
            self.dictionary.for_each_value(|term, value| {
                if text.matches(value) {
                    add(term);
                }
            });
        } else {
            self.dictionary.search(text.pattern(), add);
        }
        holding.shrunk()
    }

    fn holds(&self, doc: u16, text: &TextQuery) -> bool {
        if text.fields().is_empty() {
            let terms = self.rows(doc).filter_map(|row| self.dictionary.term_of(row));
            return terms.filter_map(|term| self.dictionary.value(term)).any(|value| text.matches(value));
        }
        let values = text.fields().iter().flat_map(|field| self.values(doc, field));
        values.into_iter().any(|value| text.matches(&value.lower))
    }
}

fn set_of(docs: TermDocs<'_>) -> Cow<'_, DocSet> {
    match docs {
        TermDocs::None => Cow::Owned(DocSet::default()),
        TermDocs::One(doc) => Cow::Owned(DocSet::from_iter([doc])),
        TermDocs::Set(set) => Cow::Borrowed(set),
    }
}
