//! One key's values, document by document, in codes: what facets count.

use hashbrown::HashTable;

use super::{
    dictionary::{hash_of, spread},
    doc_set::DocSet,
    slab::Slab,
    texts::{TextId, Texts},
};

/// A document without a value.
const NONE: u32 = u32::MAX;
/// With this bit: the number of a list of codes. Without: one code.
const MANY: u32 = 1 << 31;

/// The values of one key in one segment, as their sources wrote them.
#[derive(Clone, Debug, Default)]
pub struct Column {
    /// By document.
    slots: Vec<u32>,
    many: Slab<Box<[u32]>>,
    codes: Slab<Code>,
    table: HashTable<u32>,
    texts: Texts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Code {
    text: TextId,
    hash: u32,
    docs: u32,
}

/// A value, and how many documents have it.
#[derive(Clone, Copy, Debug)]
pub struct CountedValue<'a> {
    texts: &'a Texts,
    text: TextId,
    /// Of the value.
    pub hash: u32,
    /// More than 0.
    pub count: u32,
}

impl CountedValue<'_> {
    /// The value.
    pub fn value(&self) -> &str {
        self.texts.get(self.text)
    }

    /// Whether it is this one.
    pub fn is(&self, value: &str) -> bool {
        self.texts.is(self.text, value)
    }
}

impl Column {
    /// A document has these values; it had none.
    pub fn put<T: AsRef<str>>(&mut self, doc: u16, values: &[T]) {
        let codes: Vec<u32> = values.iter().map(|value| self.code(value.as_ref())).collect();
        let slot = match codes[..] {
            [] => return,
            [one] => one,
            _ => self.many.insert(codes.into()) | MANY,
        };
        let place = usize::from(doc);
        if self.slots.len() <= place {
            self.slots.resize(place + 1, NONE);
        }
        self.slots[place] = slot;
    }

    /// A document has no value any more.
    pub fn clear(&mut self, doc: u16) {
        let Some(slot) = self.slots.get_mut(usize::from(doc)) else { return };
        match std::mem::replace(slot, NONE) {
            NONE => {}
            slot if slot & MANY != 0 => {
                for code in self.many.remove(slot & !MANY) {
                    self.release(code);
                }
            }
            code => self.release(code),
        }
    }

    /// Calls `each` with every value that any document has, of all documents or of some.
    pub fn count(&self, docs: Option<&DocSet>, mut each: impl FnMut(CountedValue<'_>)) {
        let mut tell = |code: &Code, count: u32| {
            if count > 0 {
                each(CountedValue { texts: &self.texts, text: code.text, hash: code.hash, count });
            }
        };
        let Some(docs) = docs else {
            return self.codes.iter().for_each(|(_, code)| tell(code, code.docs));
        };
        let mut counts = vec![0_u32; self.codes.places()];
        docs.for_each(|doc| match self.slots.get(usize::from(doc)) {
            None | Some(&NONE) => {}
            Some(slot) if slot & MANY != 0 => {
                self.many[slot & !MANY].iter().for_each(|code| counts[*code as usize] += 1);
            }
            Some(code) => counts[*code as usize] += 1,
        });
        self.codes.iter().zip(counts).for_each(|((_, code), count)| tell(code, count));
    }

    fn code(&mut self, value: &str) -> u32 {
        let hash = hash_of(value);
        let known = |id: &u32| self.codes[*id].hash == hash && self.texts.is(self.codes[*id].text, value);
        let code = match self.table.find(spread(hash), known) {
            Some(code) => *code,
            None => {
                let code = self.codes.insert(Code { hash, ..Code::default() });
                self.codes[code].text = self.texts.insert(value, code);
                self.table.insert_unique(spread(hash), code, |id| spread(self.codes[*id].hash));
                code
            }
        };
        self.codes[code].docs += 1;
        code
    }

    fn release(&mut self, code: u32) {
        self.codes[code].docs -= 1;
        if self.codes[code].docs == 0 {
            let Code { text, hash, .. } = self.codes.remove(code);
            if let Ok(entry) = self.table.find_entry(spread(hash), |other| *other == code) {
                entry.remove();
            }
            self.texts.remove(text);
        }
    }
}
