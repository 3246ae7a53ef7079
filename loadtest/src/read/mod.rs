//! The read side alone: a broker whose entity stream is filled as stitchers fill it, and one real reader.

pub(crate) mod calls;
pub(crate) mod faults;
pub(crate) mod frames;
pub(crate) mod get;
pub(crate) mod paced;
pub(crate) mod pin;
pub(crate) mod queries;
pub(crate) mod side;
pub(crate) mod stitched;
pub(crate) mod streams;
pub(crate) mod watchers;
