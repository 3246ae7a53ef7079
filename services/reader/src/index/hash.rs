//! Hashes of texts: quick ones for tables that compare, keyed ones where the hash itself tells texts apart.

use std::{
    hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState},
    sync::OnceLock,
};

/// Multiplied by it, what stands at one end of a number is at the other too.
pub const ODD: u64 = 0x9E37_79B9_7F4A_7C15;

/// See [`secret`]; with a hasher that has taken it in, so that no row has to.
static SECRET: OnceLock<([u64; 2], DefaultHasher)> = OnceLock::new();

/// Under what this process hashes texts of which it keeps nothing but the hash: by chance, or as the snapshot did with which it began.
pub fn secret() -> [u64; 2] {
    keyed().0
}

fn keyed() -> &'static ([u64; 2], DefaultHasher) {
    SECRET.get_or_init(|| {
        let chance = RandomState::new();
        under([chance.hash_one(0), chance.hash_one(1)])
    })
}

fn under(secret: [u64; 2]) -> ([u64; 2], DefaultHasher) {
    let mut hasher = DefaultHasher::new();
    secret.hash(&mut hasher);
    (secret, hasher)
}

/// Hashes as a snapshot did; false: this process has begun with another secret.
pub fn adopt_secret(theirs: [u64; 2]) -> bool {
    SECRET.get_or_init(|| under(theirs)).0 == theirs
}

/// Tells a text from all others: see [`hidden_hash`].
pub fn identity_of(text: &str) -> u64 {
    hidden_hash(text, None)
}

/// Hashes of rows are below this; what is above tells a relation: see [`relation_word`].
const ROWS: u64 = 1 << 63;
/// Bits of a ref's hash.
const REF_BITS: u32 = 56;

/// Of a key and a value, or of a key that is there. Nobody outside can make two of them collide, and that two do by chance is as likely among a hundred million
/// rows as a disk that reads wrong.
pub fn hidden_hash(key: &str, value: Option<&str>) -> u64 {
    hidden_value(&hidden_key(key), value)
}

/// What the hidden hashes of a key's values begin with.
pub fn hidden_key(key: &str) -> DefaultHasher {
    let mut hasher = keyed().1.clone();
    key.hash(&mut hasher);
    hasher
}

/// [`hidden_hash`] of a value under a key whose beginning is known.
pub fn hidden_value(of_key: &DefaultHasher, value: Option<&str>) -> u64 {
    let mut hasher = of_key.clone();
    value.hash(&mut hasher);
    hasher.finish() % ROWS
}

/// Tells an entity's ref from all others, as [`hidden_hash`] does rows.
pub fn ref_hash(entity_ref: &str) -> u64 {
    let mut hasher = keyed().1.clone();
    entity_ref.hash(&mut hasher);
    hasher.finish() % (1 << REF_BITS)
}

/// In the place of a row's hash: a number (below 128) and a ref's hash, which can be read from it.
pub const fn relation_word(number: u8, target: u64) -> u64 {
    ROWS | (number as u64) << REF_BITS | target
}

/// The number and the hash that such a word was made of; none: it is a row's hash.
pub fn relation_of(word: u64) -> Option<(u8, u64)> {
    let number = (word % ROWS) >> REF_BITS;
    (word >= ROWS).then_some((number as u8, word % (1 << REF_BITS)))
}

/// A hash for tables whose entries are compared: quick, no protection.
pub fn hash_of(text: &str) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ text.len() as u64;
    let mut chunks = text.as_bytes().chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        hash = (hash ^ word).wrapping_mul(ODD).rotate_left(29);
    }
    for byte in chunks.remainder() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (hash.wrapping_mul(ODD) >> 32) as u32
}

/// Of two numbers, for the same.
pub fn mix(one: u32, two: u32) -> u32 {
    let both = u64::from(one) << 32 | u64::from(two);
    (both.wrapping_mul(ODD) >> 32) as u32 ^ two
}

/// A table wants its bits at both ends.
pub fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(ODD)
}

/// The same of what is long enough, but whose bits at one end may all be alike.
pub fn scatter(hash: u64) -> u64 {
    let product = hash.wrapping_mul(ODD);
    product ^ (product >> 32)
}
