//! What an entity is, what processing emits, how claims merge, how entities stitch, what a filter matches: pure functions, no clock, no I/O.

pub mod claims;
pub mod documents;
pub mod entity;
pub mod entity_ref;
pub mod error;
pub mod field_line;
pub mod filter;
pub mod hash;
pub mod location;
pub mod model;
mod number;
mod policy;
pub mod process;
pub mod relations;
mod schema;
mod scm;
pub mod search;
pub mod stitch;
