//! One key's values, document by document, in codes: what facets count.

use hashbrown::HashTable;

use super::{
    doc_set::DocSet,
    hash::{ODD, hash_of, identity_of, spread},
    slab::Slab,
    texts::{TextId, Texts},
};

/// A document without a value.
const NONE: u32 = u32::MAX;
/// With this bit: the number of a combination of codes. Without: one code.
const MANY: u32 = 1 << 31;

/// The values of one key in one segment, as their sources wrote them.
#[derive(Clone, Debug, Default)]
pub struct Column {
    /// By document.
    slots: Vec<u32>,
    /// Several values of one document; once, however many documents have the same.
    many: Slab<Combination>,
    combinations: HashTable<u32>,
    codes: Slab<Code>,
    table: HashTable<u32>,
    texts: Texts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Code {
    text: TextId,
    hash: u32,
    docs: u32,
    identity: [u32; 2],
}

#[derive(Clone, Debug, Default)]
struct Combination {
    codes: Box<[u32]>,
    docs: u32,
}

/// A value, and how many documents have it.
#[derive(Clone, Copy, Debug)]
pub struct CountedValue<'a> {
    texts: &'a Texts,
    text: TextId,
    /// Tells the value from all others, in all segments.
    pub identity: u64,
    /// More than 0.
    pub count: u32,
}

impl CountedValue<'_> {
    /// The value.
    pub fn value(&self) -> &str {
        self.texts.get(self.text)
    }
}

impl Column {
    /// A document has these values; it had none.
    pub fn put<T: AsRef<str>>(&mut self, doc: u16, values: &[T]) {
        let codes: Vec<u32> = values.iter().map(|value| self.code(value.as_ref())).collect();
        let slot = match codes[..] {
            [] => return,
            [one] => one,
            _ => self.combination(codes) | MANY,
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
                for code in self.leave(slot & !MANY) {
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
                let identity = u64::from(code.identity[0]) | u64::from(code.identity[1]) << 32;
                each(CountedValue { texts: &self.texts, text: code.text, identity, count });
            }
        };
        let Some(docs) = docs else {
            return self.codes.iter().for_each(|(_, code)| tell(code, code.docs));
        };
        // One count a document: behind those of the codes stand those of the combinations, and one of nothing.
        let (codes, nothing) = (self.codes.places(), self.codes.places() + self.many.places());
        let mut counts = vec![0_u32; nothing + 1];
        docs.for_each(|doc| {
            let place = match self.slots.get(usize::from(doc)) {
                None | Some(&NONE) => nothing,
                Some(slot) if slot & MANY != 0 => codes + (slot & !MANY) as usize,
                Some(code) => *code as usize,
            };
            counts[place] += 1;
        });
        let (counts, of_combinations) = counts.split_at_mut(codes);
        for ((_, combination), count) in self.many.iter().zip(of_combinations) {
            combination.codes.iter().for_each(|code| counts[*code as usize] += *count);
        }
        self.codes.iter().zip(counts).for_each(|((_, code), count)| tell(code, *count));
    }

    /// One document more has several values; gives the number of their combination.
    fn combination(&mut self, codes: Vec<u32>) -> u32 {
        let hash = hash_of_codes(&codes);
        let known = |id: &u32| *self.many[*id].codes == *codes;
        let id = match self.combinations.find(hash, known) {
            Some(id) => *id,
            None => {
                let id = self.many.insert(Combination { codes: codes.into(), docs: 0 });
                self.combinations.insert_unique(hash, id, |id| hash_of_codes(&self.many[*id].codes));
                id
            }
        };
        self.many[id].docs += 1;
        id
    }

    /// One document less has these values; gives their codes.
    fn leave(&mut self, id: u32) -> Box<[u32]> {
        self.many[id].docs -= 1;
        if self.many[id].docs > 0 {
            return self.many[id].codes.clone();
        }
        let Combination { codes, .. } = self.many.remove(id);
        if let Ok(entry) = self.combinations.find_entry(hash_of_codes(&codes), |other| *other == id) {
            entry.remove();
        }
        codes
    }

    fn code(&mut self, value: &str) -> u32 {
        let hash = hash_of(value);
        let known = |id: &u32| self.codes[*id].hash == hash && self.texts.is(self.codes[*id].text, value);
        let code = match self.table.find(spread(hash), known) {
            Some(code) => *code,
            None => {
                let identity = identity_of(value);
                let identity = [identity as u32, (identity >> 32) as u32];
                let code = self.codes.insert(Code { hash, identity, ..Code::default() });
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

fn hash_of_codes(codes: &[u32]) -> u64 {
    codes.iter().fold(ODD, |hash, code| (hash ^ u64::from(*code)).wrapping_mul(ODD).rotate_left(29))
}
