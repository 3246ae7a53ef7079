//! The index: pure data structures that find entities by what stands in them.
//!
//! Entities are documents in [`Segment`]s of up to 65,536, each with a dictionary of its rows, the documents of every row (a roaring container: sorted lists, or
//! bitmaps where many have it) and, built when they are first asked for, columns for facets, orders for pages and words for full text. Everything is changed in
//! place, in some tens of microseconds, and what a call does in a segment is bounded by the segment; whoever asks goes from one to the next and adds up.

mod column;
mod dictionary;
mod doc_set;
mod evaluate;
mod facets;
mod grams;
mod hash;
mod order;
mod page;
mod postings;
mod relations;
mod rows;
mod segment;
mod slab;
mod text;
mod texts;
mod tokens;
mod views;

pub use dictionary::Dictionary;
pub use doc_set::{DocSet, SEGMENT_DOCS};
pub use evaluate::Query;
pub use facets::Facet;
pub use hash::{adopt_secret, hidden_hash, ref_hash, scatter, secret};
pub use page::{Cursor, ORDER_FIELDS, OrderBy, Placed};
pub use rows::Rows;
pub use segment::Segment;
pub use text::TextQuery;
