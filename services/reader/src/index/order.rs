//! One key's values in order: what sorts pages, and where values with a prefix stand.
//!
//! The distinct values are numbered in order, and each document knows the number of its smallest and of its largest value. Comparing documents is comparing
//! numbers; a new value moves the numbers behind it by one, which is a pass over two arrays (some microseconds for a full segment).

use std::ops::Range;

use super::texts::{TextId, Texts};

/// A document without a value.
const NONE: u32 = u32::MAX;

/// The values of one key in one segment, in order. Values are numbers whose texts the caller knows: of texts, or of documents for their refs.
#[derive(Debug, Default)]
pub struct Order {
    /// Distinct values in the order of their texts, and by how many documents each is had.
    values: Vec<u32>,
    docs: Vec<u32>,
    /// By document: the places of its smallest and largest value.
    low: Vec<u32>,
    high: Vec<u32>,
}

impl Order {
    /// The order of documents' values, given sorted by their texts; equal numbers are the same value.
    pub fn of_sorted(docs: impl Iterator<Item = (u16, u32)>) -> Order {
        let mut order = Order::default();
        for (doc, value) in docs {
            if order.values.last() != Some(&value) {
                order.values.push(value);
                order.docs.push(0);
            }
            order.give(doc, order.values.len() - 1);
        }
        order
    }

    /// A new value at a place; documents are given it by [`Order::give`].
    pub fn insert(&mut self, place: usize, value: u32) {
        self.values.insert(place, value);
        self.docs.insert(place, 0);
        let behind = |at: &mut u32| *at += u32::from(*at >= place as u32 && *at != NONE);
        self.low.iter_mut().for_each(behind);
        self.high.iter_mut().for_each(behind);
    }

    /// A document has the value at a place.
    pub fn give(&mut self, doc: u16, place: usize) {
        self.docs[place] += 1;
        let (at, place) = (usize::from(doc), place as u32);
        if self.low.len() <= at {
            self.low.resize(at + 1, NONE);
            self.high.resize(at + 1, NONE);
        }
        self.low[at] = self.low[at].min(place);
        self.high[at] = match self.high[at] {
            NONE => place,
            high => high.max(place),
        };
    }

    /// A document has the value at a place no more; the value, if it was the last.
    pub fn take(&mut self, place: usize) -> Option<u32> {
        self.docs[place] -= 1;
        if self.docs[place] > 0 {
            return None;
        }
        self.docs.remove(place);
        let behind = |at: &mut u32| *at -= u32::from(*at > place as u32 && *at != NONE);
        self.low.iter_mut().for_each(behind);
        self.high.iter_mut().for_each(behind);
        Some(self.values.remove(place))
    }

    /// A document has no value any more; its values are taken one by one afterwards.
    pub fn clear(&mut self, doc: u16) {
        if let Some(low) = self.low.get_mut(usize::from(doc)) {
            *low = NONE;
            self.high[usize::from(doc)] = NONE;
        }
    }

    /// The place of a text, or where it would be.
    pub fn find<'t>(&self, asked: &str, text: impl Fn(u32) -> &'t str) -> Result<usize, usize> {
        self.values.binary_search_by(|value| text(*value).cmp(asked))
    }

    /// The values in order.
    pub fn values(&self) -> &[u32] {
        &self.values
    }

    /// The place of a document's value: the smallest, or the largest.
    pub fn place(&self, doc: u16, largest: bool) -> Option<u32> {
        let places = if largest { &self.high } else { &self.low };
        places.get(usize::from(doc)).copied().filter(|place| *place != NONE)
    }
}

/// An order with the texts of its values.
#[derive(Debug, Default)]
pub struct TextOrder {
    order: Order,
    texts: Texts,
}

impl TextOrder {
    /// The order of all these documents' values at once.
    pub fn build<T: AsRef<str>>(mut values: Vec<(T, u16)>) -> TextOrder {
        values.sort_unstable_by(|one, other| one.0.as_ref().cmp(other.0.as_ref()).then(one.1.cmp(&other.1)));
        let mut texts = Texts::default();
        let mut last: Option<(usize, u32)> = None;
        let mut numbered = Vec::with_capacity(values.len());
        for (place, (text, doc)) in values.iter().enumerate() {
            let text = text.as_ref();
            let id = match last {
                Some((before, id)) if values[before].0.as_ref() == text => id,
                _ => texts.insert(text, 0).0,
            };
            last = Some((place, id));
            numbered.push((*doc, id));
        }
        TextOrder { order: Order::of_sorted(numbered.into_iter()), texts }
    }

    /// A document has these values; it had none.
    pub fn put<T: AsRef<str>>(&mut self, doc: u16, values: &[T]) {
        for value in values.iter().map(AsRef::as_ref) {
            let place = self.find(value).unwrap_or_else(|place| {
                self.order.insert(place, self.texts.insert(value, 0).0);
                place
            });
            self.order.give(doc, place);
        }
    }

    /// A document has these values no more, which are all that it had.
    pub fn clear<T: AsRef<str>>(&mut self, doc: u16, values: &[T]) {
        self.order.clear(doc);
        for value in values {
            if let Ok(place) = self.find(value.as_ref())
                && let Some(text) = self.order.take(place)
            {
                self.texts.remove(TextId(text));
            }
        }
    }

    /// The place of a text, or where it would be.
    pub fn find(&self, text: &str) -> Result<usize, usize> {
        self.order.find(text, |id| self.texts.get(TextId(id)))
    }

    /// The place of a document's value: the smallest, or the largest.
    pub fn place(&self, doc: u16, largest: bool) -> Option<u32> {
        self.order.place(doc, largest)
    }

    /// The text at a place.
    pub fn text(&self, place: u32) -> &str {
        self.texts.get(TextId(self.order.values[place as usize]))
    }

    /// The places of the values that begin with a prefix.
    pub fn with_prefix(&self, prefix: &str) -> Range<usize> {
        let text = |id: &u32| self.texts.get(TextId(*id));
        let from = self.order.values.partition_point(|id| text(id) < prefix);
        let length = self.order.values[from..].partition_point(|id| text(id).starts_with(prefix));
        from..from + length
    }
}
