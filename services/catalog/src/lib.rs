//! What an entity is, what processing emits, how claims merge, how entities stitch, what a filter matches: pure functions, no clock, no I/O.

pub mod claims;
mod clash;
pub mod documents;
pub mod entity;
pub mod entity_ref;
pub mod error;
pub mod field_line;
pub mod filter;
pub mod git_url;
pub mod hash;
pub mod location;
pub mod model;
mod number;
pub mod placeholders;
pub mod planted;
mod policy;
pub mod predicate;
pub mod process;
pub mod reading;
pub mod relations;
pub mod rules;
mod schema;
mod scm;
pub mod search;
pub mod stitch;
pub mod stored;
pub mod tree;
