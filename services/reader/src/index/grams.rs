//! Which blocks of a chunk of texts may hold a part of a text: by the three bytes that follow one another in it.
//!
//! For each of 1,024 classes of such triples there is a row of bits, one a block of 512 bytes; a block that holds a part holds every triple of it, so that of a rare
//! part a few blocks are left to be searched. A quarter of the texts' memory. Texts that are taken out leave their bits: that costs time, not answers.

use std::ops::Range;

/// Bytes of a block.
const BLOCK: usize = 512;
/// Blocks of a chunk; one row of bits is a line of a processor's cache.
const BLOCKS: usize = 512;
/// Bytes of a chunk.
pub const CHUNK: usize = BLOCK * BLOCKS;
const WORDS: usize = BLOCKS / 64;
/// Bits of a triple's class.
const CLASS_BITS: u32 = 10;
const GRAM: usize = 3;

type Row = [u64; WORDS];

/// The triples of one chunk.
#[derive(Clone, Debug)]
pub struct Grams(Box<[Row]>);

impl Default for Grams {
    fn default() -> Grams {
        Grams(vec![[0; WORDS]; 1 << CLASS_BITS].into())
    }
}

impl Grams {
    /// A text stands somewhere in these bytes of the chunk.
    pub fn add(&mut self, text: &[u8], bytes: Range<usize>) {
        for class in classes(text) {
            for block in bytes.start / BLOCK..=(bytes.end - 1) / BLOCK {
                self.0[class][block / 64] |= 1 << (block % 64);
            }
        }
    }

    /// The bytes of the chunk, in rising order, outside of which no text holds a part of a text; a part of fewer than three bytes may be anywhere.
    pub fn candidates(&self, part: &[u8]) -> impl Iterator<Item = Range<usize>> {
        let mut left = [u64::MAX; WORDS];
        for class in classes(part) {
            left.iter_mut().zip(&self.0[class]).for_each(|(left, row)| *left &= row);
        }
        let mut next = 0;
        std::iter::from_fn(move || {
            let has = |block: usize| left[block / 64] >> (block % 64) & 1 == 1;
            let from = (next..BLOCKS).find(|block| has(*block))?;
            let to = (from..BLOCKS).find(|block| !has(*block)).unwrap_or(BLOCKS);
            next = to;
            Some(from * BLOCK..to * BLOCK)
        })
    }
}

fn classes(text: &[u8]) -> impl Iterator<Item = usize> {
    text.windows(GRAM).map(|gram| {
        let number = gram.iter().fold(0_u32, |number, byte| (number << 8) | u32::from(*byte));
        (number.wrapping_mul(0x9E37_79B1) >> (32 - CLASS_BITS)) as usize
    })
}
