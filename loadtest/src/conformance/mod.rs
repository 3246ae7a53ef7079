//! Recorded cases: steps that an installation is taken through, from an empty catalog on, and the catalog that has to come of them.

pub(crate) mod case;
pub(crate) mod engine;
pub(crate) mod judge;
pub(crate) mod play;
pub(crate) mod purpose;
pub(crate) mod web;
