//! A segment's share of a page: the documents that come first in an order, behind a cursor.
//!
//! Each document that matches gets one number, packed of the places of its values in each field's order and of its ref, and the smallest are kept: some
//! nanoseconds a document, whatever the filter, and less where its first fields say that it comes too late. So a page costs at most a pass over what matches, and
//! there is no order that is slow.

use std::{cmp::Ordering, sync::Arc};

use super::{doc_set::DocSet, evaluate::Query, order::TextOrder, segment::Segment};
use crate::stored::Stored;

/// Fields that a page may be ordered by.
pub const ORDER_FIELDS: usize = 5;
/// Bits of one field in a document's number.
const FIELD_BITS: usize = 21;
/// Documents that are passed in the order of their refs in the time of one that is looked up in it.
const STEPS: usize = 8;
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
    /// Adds this segment's share to what earlier ones gave of a page, which stays sorted and has at most `limit` (not 0); gives how many of its documents match.
    pub fn add_page(
        &self,
        found: &mut Vec<Placed>,
        query: &Query,
        order: &[OrderBy],
        after: Option<&Cursor>,
        limit: usize,
    ) -> usize {
        // Nothing behind the end of what is found is needed, once that is enough.
        let before = found.get(limit - 1).map(|last| &last.cursor);
        let (matching, placed) = self.page(query, order, (after, before), limit);
        found.extend(placed);
        found.sort_unstable_by(|one, other| one.cursor.compare(&other.cursor, order));
        found.truncate(limit);
        matching
    }

    /// How many documents match, and of those in between, behind `after` and before `before`, the first in the order, at most `limit`, sorted.
    fn page(
        &self,
        query: &Query,
        order: &[OrderBy],
        (after, before): (Option<&Cursor>, Option<&Cursor>),
        limit: usize,
    ) -> (usize, Vec<Placed>) {
        let docs = self.matching(query);
        if order.is_empty()
            && let Some(first) = self.first_by_ref(&docs, (after, before), limit)
        {
            return (docs.len(), first);
        }
        let fields: Vec<Field> = order.iter().take(ORDER_FIELDS).map(|by| self.field(by)).collect();
        let refs = self.ref_order();
        let floor = after.map(|after| self.number_of(&fields, after));
        let ceiling = before.map_or(u128::MAX, |before| self.number_of(&fields, before));
        let number = |doc: u16, ceiling: u128| {
            let mut left = fields.len() * FIELD_BITS;
            let mut number = 0;
            // What comes too late by its first fields is not looked at any further.
            for field in &fields {
                number = (number << FIELD_BITS) | field.number(doc);
                if number > ceiling >> left {
                    return None;
                }
                left -= FIELD_BITS;
            }
            Some((number << FIELD_BITS) | (u128::from(refs.place(doc, false).unwrap_or_default()) * 2 + 1))
        };
        let first = smallest(&docs, (floor, ceiling), limit, number);
        let place = |(_, doc): (u128, u16)| {
            let stored = self.stored(doc)?.clone();
            let values = fields.iter().map(|field| field.value(doc).map(str::to_owned)).collect();
            Some(Placed { cursor: Cursor { values, entity_ref: stored.entity_ref().to_owned() }, stored })
        };
        (docs.len(), first.into_iter().filter_map(place).collect())
    }

    /// The first by their refs, from ref to ref: where many match, it is not far from one to the next. None: it is further than it is to look at each that matches.
    fn first_by_ref(
        &self,
        docs: &DocSet,
        (after, before): (Option<&Cursor>, Option<&Cursor>),
        limit: usize,
    ) -> Option<Vec<Placed>> {
        let order = self.ref_order();
        let place = |cursor: &Cursor| self.find_ref(&cursor.entity_ref);
        let from = after.map_or(0, |after| place(after).map_or_else(|place| place, |place| place + 1));
        let to = before.map_or(order.values().len(), |before| place(before).unwrap_or_else(|place| place));
        let between = order.values().get(from..to).unwrap_or_default();
        let docs = docs.to_bits();
        let looked_at = &between[..between.len().min(docs.len() * STEPS)];
        let matching = looked_at.iter().map(|doc| *doc as u16).filter(|doc| docs.contains(*doc));
        let placed = matching.take(limit).filter_map(|doc| {
            let stored = self.stored(doc)?.clone();
            let cursor = Cursor { values: Vec::new(), entity_ref: stored.entity_ref().to_owned() };
            Some(Placed { cursor, stored })
        });
        let placed: Vec<Placed> = placed.collect();
        (placed.len() == limit || looked_at.len() == between.len()).then_some(placed)
    }

    fn field(&self, by: &OrderBy) -> Field {
        Field { order: self.order(&by.field), descending: by.descending }
    }

    /// The number of a cursor among the documents' numbers: theirs are odd, so where it is between two there is room.
    fn number_of(&self, fields: &[Field], cursor: &Cursor) -> u128 {
        let values = fields.iter().zip(&cursor.values);
        let number = values.fold(0, |number, (field, value)| {
            let of_value = match value {
                None => MISSING,
                Some(value) => field.number_of(value),
            };
            (number << FIELD_BITS) | of_value
        });
        let of_ref = match self.find_ref(&cursor.entity_ref) {
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

    fn number_of(&self, value: &str) -> u128 {
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

/// The documents with the smallest numbers between a floor and a ceiling, at most `limit`, in their order. `number` may give none for one above the ceiling
/// that it is told.
fn smallest(
    docs: &DocSet,
    (floor, mut ceiling): (Option<u128>, u128),
    limit: usize,
    number: impl Fn(u16, u128) -> Option<u128>,
) -> Vec<(u128, u16)> {
    let room = limit * 2 + 64;
    let mut kept: Vec<(u128, u16)> = Vec::new();
    if limit == 0 {
        return kept;
    }
    docs.for_each(|doc| {
        let Some(number) = number(doc, ceiling) else { return };
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
