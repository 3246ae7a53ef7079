//! What a program gets from the operating system by chance: on the thread of a seed, it is the seed's.
//!
//! The keys of hash maps, and with them their order, and the jitter of pauses come from `getrandom`. A program that names a function of
//! the C library itself is asked before it; so this one answers on the threads of seeds, and asks the kernel on all others.

use crate::random::Random;
use std::cell::RefCell;
use std::fs::File;
use std::io::Read;

thread_local! {
    static CHANCE: RefCell<Option<Random>> = const { RefCell::new(None) };
}

/// From now on this thread's chance is the seed's.
pub(crate) fn begin(seed: u64) {
    CHANCE.with(|chance| *chance.borrow_mut() = Some(Random::new(seed, 5)));
}

/// What the C library's function of this name promises: fills the buffer, and gives its length.
///
/// # Safety
/// `buffer` has room for `length` bytes, as the C library demands it.
#[allow(unsafe_code, reason = "the one way to have the order of hash maps decided by the seed")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    // SAFETY: whoever calls gives a buffer of that length, and nobody else has it meanwhile.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    let is_decided = CHANCE.try_with(|chance| match chance.borrow_mut().as_mut() {
        Some(random) => {
            bytes.chunks_mut(8).for_each(|part| part.copy_from_slice(&random.next().to_le_bytes()[..part.len()]));
            true
        }
        None => false,
    });
    if !is_decided.unwrap_or(false) && File::open("/dev/urandom").and_then(|mut file| file.read_exact(bytes)).is_err() {
        return -1;
    }
    isize::try_from(length).unwrap_or(isize::MAX)
}
