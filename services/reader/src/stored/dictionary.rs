//! What messages are packed with: a dictionary, and each thread's contexts for it.

use std::{
    cell::RefCell,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use zstd::zstd_safe::{CParameter, WriteBuf};

const LEVEL: i32 = 3;
/// Entries of the two tables in which places of the dictionary are looked up, as powers of two. The level's own are four times as large and do not stay in a core's
/// cache: packing takes half as long so, and what is packed is a hundredth larger.
const TABLE_BITS: u32 = 14;

/// What messages are packed with.
pub(super) struct Dictionary {
    /// Tells the contexts of a thread whether they are of this dictionary.
    number: u64,
    bytes: Vec<u8>,
}

thread_local! {
    /// Each thread's contexts and the number of the dictionary that they hold.
    static CONTEXTS: RefCell<Option<(u64, Contexts)>> = const { RefCell::new(None) };
}

struct Contexts {
    compressor: zstd::bulk::Compressor<'static>,
    decompressor: zstd::bulk::Decompressor<'static>,
}

impl Dictionary {
    /// Of bytes that were trained.
    pub fn new(bytes: Vec<u8>) -> Arc<Dictionary> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        Arc::new(Dictionary { number: NUMBERS.fetch_add(1, Relaxed), bytes })
    }

    /// As a snapshot keeps it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// None: it cannot be packed.
    pub fn pack(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.with_contexts(|contexts| contexts.compressor.compress(message).ok())?
    }

    /// A message of this length.
    pub fn unpack(&self, packed: &[u8], length: usize) -> Vec<u8> {
        let mut message = Vec::with_capacity(length);
        self.unpack_into(packed, &mut message);
        message
    }

    /// The same into room that is as long as the message.
    pub fn unpack_into(&self, packed: &[u8], room: &mut (impl WriteBuf + ?Sized)) {
        let unpacked = self.with_contexts(|contexts| contexts.decompressor.decompress_to_buffer(packed, room).ok());
        unpacked.flatten().expect("what was packed with this dictionary is unpacked with it");
    }

    fn with_contexts<T>(&self, work: impl FnOnce(&mut Contexts) -> T) -> Option<T> {
        CONTEXTS.with_borrow_mut(|held| {
            if held.as_ref().is_none_or(|(number, _)| *number != self.number) {
                *held = Some((self.number, Contexts::new(&self.bytes)?));
            }
            held.as_mut().map(|(_, contexts)| work(contexts))
        })
    }
}

impl fmt::Debug for Dictionary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "dictionary {} of {} bytes", self.number, self.bytes.len())
    }
}

impl Contexts {
    /// None: no memory for them.
    fn new(dictionary: &[u8]) -> Option<Contexts> {
        let mut compressor = zstd::bulk::Compressor::with_dictionary(LEVEL, dictionary).ok()?;
        // The message's length is known and there is one dictionary: nothing of it needs to be in each.
        compressor.include_contentsize(false).ok()?;
        compressor.include_dictid(false).ok()?;
        compressor.include_checksum(false).ok()?;
        compressor.set_parameter(CParameter::HashLog(TABLE_BITS)).ok()?;
        compressor.set_parameter(CParameter::ChainLog(TABLE_BITS)).ok()?;
        let decompressor = zstd::bulk::Decompressor::with_dictionary(dictionary).ok()?;
        Some(Contexts { compressor, decompressor })
    }
}
