//! One key's values in order: what sorts pages, and where values with a prefix stand.
//!
//! The distinct values are numbered in order, and each document knows the number of its smallest and of its largest value. Comparing documents is comparing
//! numbers; a new value moves the numbers behind it by one, which is a pass over two arrays (some microseconds for a full segment).

use std::ops::Range;

use super::texts::{TextId, Texts};

/// A document without a value.
const NONE: u32 = u32::MAX;

/// The values of one key in one segment, in order. Values are numbers whose texts the caller knows: of texts, or of documents for their refs.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// Distinct values in the order of their texts, and by how many documents each is had.
    values: Vec<u32>,
    docs: Vec<u32>,
    /// By document: the places of its smallest and largest value.
    low: Vec<u32>,
    high: Vec<u32>,
}

impl Order {
    /// Takes in documents' values, sorted by their texts; equal neighbours are one value. `number` gives a value that is new its number.
    pub fn extend<'t, V: Texted>(
        &mut self,
        sorted: &[V],
        text: impl Fn(u32) -> &'t str,
        number: impl FnMut(&V) -> u32,
    ) {
        let found = self.find_all(sorted, text);
        self.take_in(sorted, &found, number);
    }

    fn take_in<V: Texted>(&mut self, sorted: &[V], found: &[Result<usize, usize>], number: impl FnMut(&V) -> u32) {
        let news = self.insert_all(sorted, found, number);
        let mut before = 0;
        for ((value, found), next) in sorted.iter().zip(found).zip(1..) {
            let place = match found {
                Ok(place) => place + news.partition_point(|at| at <= place),
                Err(place) => place + before,
            };
            self.give(value.doc(), place);
            let is_last = sorted.get(next).is_none_or(|next| next.text() != value.text());
            before += usize::from(found.is_err() && is_last);
        }
    }

    /// Where sorted texts stand, or would.
    fn find_all<'t, V: Texted>(&self, sorted: &[V], text: impl Fn(u32) -> &'t str) -> Vec<Result<usize, usize>> {
        let mut from = 0;
        let places = sorted.iter().map(|value| {
            let rest = &self.values[from..];
            let found = rest.binary_search_by(|other| text(*other).cmp(value.text()));
            let place = found.map(|place| from + place).map_err(|place| from + place);
            from = place.unwrap_or_else(|place| place);
            place
        });
        places.collect()
    }

    /// Puts in what was not found, each value once; gives the places before which that was.
    fn insert_all<V: Texted>(
        &mut self,
        sorted: &[V],
        found: &[Result<usize, usize>],
        mut number: impl FnMut(&V) -> u32,
    ) -> Vec<usize> {
        let mut news = Vec::new();
        let (mut values, mut docs) = (Vec::new(), Vec::new());
        let mut taken = 0;
        for (at, (value, found)) in sorted.iter().zip(found).enumerate() {
            let Err(place) = *found else { continue };
            if at > 0 && sorted[at - 1].text() == value.text() {
                continue;
            }
            if news.is_empty() {
                values.reserve_exact(self.values.len() + sorted.len());
                docs.reserve_exact(self.values.len() + sorted.len());
            }
            values.extend_from_slice(&self.values[taken..place]);
            docs.extend_from_slice(&self.docs[taken..place]);
            taken = place;
            values.push(number(value));
            docs.push(0);
            news.push(place);
        }
        if !news.is_empty() {
            values.extend_from_slice(&self.values[taken..]);
            docs.extend_from_slice(&self.docs[taken..]);
            self.move_places(&news);
            (self.values, self.docs) = (values, docs);
        }
        news
    }

    /// Documents know the places as they are once there is a new value before each of these.
    fn move_places(&mut self, news: &[usize]) {
        let mut moved = Vec::with_capacity(self.values.len());
        let mut before = 0;
        for place in 0..self.values.len() {
            while news.get(before).is_some_and(|at| *at <= place) {
                before += 1;
            }
            moved.push((place + before) as u32);
        }
        let moved_to = |at: &mut u32| {
            if *at != NONE {
                *at = moved[*at as usize];
            }
        };
        self.low.iter_mut().for_each(moved_to);
        self.high.iter_mut().for_each(moved_to);
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

/// A value of a document.
pub trait Texted {
    fn text(&self) -> &str;
    fn doc(&self) -> u16;
}

impl<T: AsRef<str>> Texted for (T, u16) {
    fn text(&self) -> &str {
        self.0.as_ref()
    }

    fn doc(&self) -> u16 {
        self.1
    }
}

/// An order with the texts of its values.
#[derive(Clone, Debug, Default)]
pub struct TextOrder {
    order: Order,
    texts: Texts,
}

impl TextOrder {
    /// Takes in values of documents that had none.
    pub fn extend<T: AsRef<str>>(&mut self, mut values: Vec<(T, u16)>) {
        values.sort_unstable_by(|one, other| one.text().cmp(other.text()).then(one.1.cmp(&other.1)));
        let TextOrder { order, texts } = self;
        let found = order.find_all(&values, |id| texts.get(TextId(id)));
        order.take_in(&values, &found, |(text, _)| texts.insert(text.as_ref(), 0).0);
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
