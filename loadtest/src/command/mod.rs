//! The commands, a file each.

pub(crate) mod change;
pub(crate) mod compare;
pub(crate) mod compete;
pub(crate) mod conformance;
pub(crate) mod generate;
pub(crate) mod ingest;
pub(crate) mod kill;
pub(crate) mod limit;
pub(crate) mod mixed;
pub(crate) mod overload;
pub(crate) mod planted;
pub(crate) mod read;
pub(crate) mod scale;
pub(crate) mod shuffle;
pub(crate) mod soak;
