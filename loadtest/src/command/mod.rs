//! The commands, a file each.

pub(crate) mod change;
pub(crate) mod compete;
pub(crate) mod conformance;
pub(crate) mod generate;
pub(crate) mod ingest;
pub(crate) mod kill;
pub(crate) mod planted;
pub(crate) mod shuffle;
