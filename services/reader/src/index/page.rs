//! A segment's share of a page: the documents that come first in an order, behind a cursor.
//!
//! Each document that matches gets one number, packed of the places of its values in each field's order and of its ref, and the smallest are kept: some
//! nanoseconds a document, whatever the filter. So a page costs at most a pass over what matches, and there is no order that is slow.

use std::{cmp::Ordering, sync::Arc};

use super::{doc_set::DocSet, evaluate::Query, order::TextOrder, segment::Segment};
use crate::stored::Stored;

/// Fields that a page may be ordered by.
pub const ORDER_FIELDS: usize = 5;
/// Bits of one field in a document's number.
const FIELD_BITS: usize = 21;
/// Where at least one of so many documents matches, a page by refs goes from ref to ref.
const COMMON: usize = 16;
/// What stands behind every value.
const MISSING: u128 = (1 << FIELD_BITS) - 1;
/// The largest place that is told from another; a key of one segment with more values than this sorts the rest by ref.
const LAST_PLACE: u128 = (MISSING - 1) / 2 - 1;

/// One field to order by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderBy {
    /// The field's key, lower-cased.
    pub field: String,
    /// Largest first.
    pub descending: bool,
}

/// Where a page ends and the next begins: by values, so it stands whatever happens to the entity that it came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// The last entity's value in each field of the order; none where it has none.
    pub values: Vec<Option<String>>,
    /// Its ref.
    pub entity_ref: String,
}

impl Cursor {
    /// Which of two comes first in an order.
    pub fn compare(&self, other: &Cursor, order: &[OrderBy]) -> Ordering {
        let values = self.values.iter().zip(&other.values).zip(order);
        let mut compared = values.map(|((one, two), by)| match (one, two) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(one), Some(two)) if by.descending => two.cmp(one),
            (Some(one), Some(two)) => one.cmp(two),
        });
        let differing = compared.find(|compared| compared.is_ne());
        differing.unwrap_or_else(|| self.entity_ref.cmp(&other.entity_ref))
    }
}

/// An entity of a page, with where it stands.
#[derive(Clone, Debug)]
pub struct Placed {
    pub cursor: Cursor,
    pub stored: Arc<Stored>,
}

impl Segment {
    /// How many documents match, and of those behind `after` the first in the order, at most `limit`, sorted.
    pub fn page(&self, query: &Query, order: &[OrderBy], after: Option<&Cursor>, limit: usize) -> (usize, Vec<Placed>) {
        let docs = self.matching(query);
        if order.is_empty() && docs.len() >= self.alive.len() / COMMON {
            return (docs.len(), self.first_by_ref(&docs, after, limit));
        }
        let fields: Vec<Field> = order.iter().take(ORDER_FIELDS).map(|by| self.field(by)).collect();
        let refs = self.ref_order();
        let floor = after.map(|after| self.floor(&fields, after));
        let number = |doc: u16| {
            let number = fields.iter().fold(0, |number, field| (number << FIELD_BITS) | field.number(doc));
            (number << FIELD_BITS) | (u128::from(refs.place(doc, false).unwrap_or_default()) * 2 + 1)
        };
        let first = smallest(&docs, floor, limit, number);
        let place = |(_, doc): (u128, u16)| {
            let stored = self.stored(doc)?.clone();
            let values = fields.iter().map(|field| field.value(doc).map(str::to_owned)).collect();
            Some(Placed { cursor: Cursor { values, entity_ref: stored.entity_ref().to_owned() }, stored })
        };
        (docs.len(), first.into_iter().filter_map(place).collect())
    }

    /// The first by their refs behind a cursor: where many match, it is not far from one to the next.
    fn first_by_ref(&self, docs: &DocSet, after: Option<&Cursor>, limit: usize) -> Vec<Placed> {
        let order = self.ref_order();
        let from = match after.map(|after| self.find_ref(&after.entity_ref)) {
            None => 0,
            Some(Ok(place)) => place + 1,
            Some(Err(place)) => place,
        };
        let matching = order.values()[from..].iter().map(|doc| *doc as u16).filter(|doc| docs.contains(*doc));
        let placed = matching.take(limit).filter_map(|doc| {
            let stored = self.stored(doc)?.clone();
            let cursor = Cursor { values: Vec::new(), entity_ref: stored.entity_ref().to_owned() };
            Some(Placed { cursor, stored })
        });
        placed.collect()
    }

    fn field(&self, by: &OrderBy) -> Field {
        Field { order: self.order(&by.field), descending: by.descending }
    }

    /// The number of a cursor among the documents' numbers: theirs are odd, so where it is between two there is room.
    fn floor(&self, fields: &[Field], after: &Cursor) -> u128 {
        let values = fields.iter().zip(&after.values);
        let number = values.fold(0, |number, (field, value)| {
            let of_value = match value {
                None => MISSING,
                Some(value) => field.floor(value),
            };
            (number << FIELD_BITS) | of_value
        });
        let of_ref = match self.find_ref(&after.entity_ref) {
            Ok(place) => place as u128 * 2 + 1,
            Err(place) => place as u128 * 2,
        };
        (number << FIELD_BITS) | of_ref
    }
}

/// One field of the order, as this segment knows it.
struct Field {
    order: Arc<TextOrder>,
    descending: bool,
}

impl Field {
    fn number(&self, doc: u16) -> u128 {
        match self.order.place(doc, self.descending) {
            None => MISSING,
            Some(place) => self.turned(u128::from(place).min(LAST_PLACE) * 2 + 1),
        }
    }

    fn floor(&self, value: &str) -> u128 {
        let number = match self.order.find(value) {
            Ok(place) => (place as u128).min(LAST_PLACE) * 2 + 1,
            Err(place) => (place as u128).min(LAST_PLACE) * 2,
        };
        self.turned(number)
    }

    fn turned(&self, number: u128) -> u128 {
        if self.descending { MISSING - 1 - number } else { number }
    }

    fn value(&self, doc: u16) -> Option<&str> {
        Some(self.order.text(self.order.place(doc, self.descending)?))
    }
}

/// The documents with the smallest numbers above a floor, at most `limit`, in their order.
fn smallest(docs: &DocSet, floor: Option<u128>, limit: usize, number: impl Fn(u16) -> u128) -> Vec<(u128, u16)> {
    let room = limit * 2 + 64;
    let mut kept: Vec<(u128, u16)> = Vec::new();
    let mut ceiling = u128::MAX;
    if limit == 0 {
        return kept;
    }
    docs.for_each(|doc| {
        let number = number(doc);
        if number > ceiling || floor.is_some_and(|floor| number <= floor) {
            return;
        }
        kept.push((number, doc));
        if kept.len() == room {
            let (_, last, _) = kept.select_nth_unstable(limit - 1);
            ceiling = last.0;
            kept.truncate(limit);
        }
    });
    kept.sort_unstable();
    kept.truncate(limit);
    kept
}
