//! An arena of short texts, each with the number of what it belongs to, that can be searched for a part of a text in one pass.
//!
//! A slot is `0xFF`, the owner's number (six bits in each of five bytes, written as UTF-8's continuation bytes), the text, and `0xFF` up to the next multiple of
//! four. `0xFF` is in no UTF-8 and no text begins with a continuation byte, so no search finds what is no part of one text. Slots that were freed are used again
//! by their size; nothing is ever moved, so adding a text never stops for long.

use std::{collections::HashMap, ops::Range};

use memchr::memmem::Finder;

use super::grams::{CHUNK, Grams};

const END: u8 = 0xFF;
/// Bytes before the text.
const HEAD: usize = 1 + OWNER;
/// Slots begin at multiples of this.
const UNIT: usize = 4;
/// Bytes of the owner's number.
const OWNER: usize = 5;
/// Owners are below this.
#[cfg(test)]
const OWNERS: u32 = 1 << (6 * OWNER);

/// Where a text stands: its slot's first byte, in units of four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextId(pub u32);

impl TextId {
    /// No text.
    pub const NONE: TextId = TextId(u32::MAX);
}

impl Default for TextId {
    fn default() -> TextId {
        TextId::NONE
    }
}

/// The arena, in chunks; a chunk is also the longest slot.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    chunks: Vec<Vec<u8>>,
    /// Of each chunk, if the arena is searched often.
    grams: Option<Vec<Grams>>,
    /// Freed slots by their size in units of four.
    free: HashMap<usize, Vec<u32>>,
}

impl Texts {
    /// An arena in which rare parts are found without looking at all of it, for a quarter more of memory.
    pub fn searched_often() -> Texts {
        Texts { grams: Some(Vec::new()), ..Texts::default() }
    }

    /// Keeps a text for its owner. Texts are search values: at most 200 UTF-16 units, so far shorter than a chunk.
    pub fn insert(&mut self, text: &str, owner: u32) -> TextId {
        let units = units(text.len());
        let id = self.free.get_mut(&units).and_then(Vec::pop).unwrap_or_else(|| self.extend(units));
        let (chunk, start) = place(id);
        let slot = &mut self.chunks[chunk][start..start + units * UNIT];
        for (place, byte) in slot[1..HEAD].iter_mut().enumerate() {
            *byte = 0x80 | (owner >> (6 * place)) as u8 & 0x3F;
        }
        slot[HEAD..HEAD + text.len()].copy_from_slice(text.as_bytes());
        slot[HEAD + text.len()..].fill(END);
        if let Some(grams) = &mut self.grams {
            grams[chunk].add(text.as_bytes(), start..start + units * UNIT);
        }
        TextId(id)
    }

    /// Frees a text's slot.
    pub fn remove(&mut self, id: TextId) {
        let length = self.get(id).len();
        let (chunk, start) = place(id.0);
        // No search must find it any more.
        self.chunks[chunk][start + HEAD..start + HEAD + length].fill(END);
        self.free.entry(units(length)).or_default().push(id.0);
    }

    /// Bytes that are taken, texts that were removed included.
    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }

    /// The text.
    pub fn get(&self, id: TextId) -> &str {
        let (chunk, start) = place(id.0);
        let rest = &self.chunks[chunk][start + HEAD..];
        let end = memchr::memchr(END, rest).unwrap_or(rest.len());
        // Only whole texts are written, so it is UTF-8.
        std::str::from_utf8(&rest[..end]).unwrap_or_default()
    }

    /// Whether a slot holds this text; quicker than to get it.
    pub fn is(&self, id: TextId, text: &str) -> bool {
        let (chunk, start) = place(id.0);
        let rest = &self.chunks[chunk][start + HEAD..];
        rest.starts_with(text.as_bytes()) && rest.get(text.len()).is_none_or(|end| *end == END)
    }

    /// Calls `each` with the owner of every text that holds the needle, once a text. The needle is not empty.
    pub fn search(&self, needle: &str, mut each: impl FnMut(u32)) {
        let finder = Finder::new(needle.as_bytes());
        let mut search = |chunk: &[u8], bytes: Range<usize>| {
            let (mut from, end) = (bytes.start, bytes.end.min(chunk.len()));
            while let Some(found) = chunk.get(from..end).and_then(|rest| finder.find(rest)) {
                let found = from + found;
                let slot = memchr::memrchr(END, &chunk[..found]).unwrap_or_default();
                each(owner(&chunk[slot + 1..slot + HEAD]));
                from = memchr::memchr(END, &chunk[found..]).map_or(chunk.len(), |end| found + end);
            }
        };
        for (number, chunk) in self.chunks.iter().enumerate() {
            match &self.grams {
                None => search(chunk, 0..CHUNK),
                Some(grams) => grams[number].candidates(needle.as_bytes()).for_each(|bytes| search(chunk, bytes)),
            }
        }
    }

    /// A new slot at the end.
    fn extend(&mut self, units: usize) -> u32 {
        let has_room = |chunk: &Vec<u8>| chunk.len() + units * UNIT <= CHUNK;
        if !self.chunks.last().is_some_and(has_room) {
            self.chunks.push(Vec::with_capacity(CHUNK));
            self.grams.iter_mut().for_each(|grams| grams.push(Grams::default()));
        }
        let place = self.chunks.len() - 1;
        let chunk = &mut self.chunks[place];
        let start = chunk.len();
        chunk.resize(start + units * UNIT, END);
        ((place * CHUNK + start) / UNIT) as u32
    }
}

fn owner(head: &[u8]) -> u32 {
    head.iter().enumerate().map(|(place, byte)| u32::from(byte & 0x3F) << (6 * place)).sum()
}

fn units(length: usize) -> usize {
    (HEAD + length).div_ceil(UNIT)
}

fn place(id: u32) -> (usize, usize) {
    let byte = id as usize * UNIT;
    (byte / CHUNK, byte % CHUNK)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_is_there(
            steps in prop::collection::vec((any::<bool>(), "[abÄ\u{0}🙂 ]{0,12}", 0..OWNERS), 1..80),
            needle in "[abÄ\u{0}🙂 ]{1,4}",
            is_searched_often in any::<bool>(),
            border in 0..70,
        ) {
            let mut texts = if is_searched_often { Texts::searched_often() } else { Texts::default() };
            // The slots stand across the border of two blocks.
            for _ in 0..border { texts.insert("", 0); }
            let mut expected: BTreeMap<u32, (TextId, String)> = BTreeMap::new();
            for (adds, text, owner) in steps {
                match expected.first_key_value().map(|(owner, (id, _))| (*owner, *id)) {
                    Some((owner, id)) if !adds => {
                        texts.remove(id);
                        expected.remove(&owner);
                    }
                    _ if !expected.contains_key(&owner) => {
                        expected.insert(owner, (texts.insert(&text, owner), text));
                    }
                    _ => {}
                }
                let mut found = Vec::new();
                texts.search(&needle, |owner| found.push(owner));
                found.sort_unstable();
                let holds = expected.iter().filter(|(_, (_, text))| text.contains(&needle));
                prop_assert_eq!(found, holds.map(|(owner, _)| *owner).collect::<Vec<_>>());
                for (id, text) in expected.values() {
                    prop_assert_eq!(texts.get(*id), text);
                    prop_assert!(texts.is(*id, text));
                    prop_assert_eq!(texts.is(*id, &needle), *text == needle);
                }
            }
        }
    }
}
