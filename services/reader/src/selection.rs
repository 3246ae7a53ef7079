//! Which entities a call is about: its filter and its query, read once.

use api::Error;
use catalog::filter::Filter;
use prost_types::Struct;

use crate::{list::parse_filter, memory::Stored, page_token::fingerprint};

/// What an entity must match.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    filter: Option<Filter>,
    fingerprint: u64,
}

impl Selection {
    /// Reads a request's `filter` and `query`.
    ///
    /// # Errors
    /// [`Error::Invalid`]: one of them cannot be used.
    pub fn parse(filter: &[String], query: Option<&Struct>) -> Result<Selection, Error> {
        if query.is_some() {
            return Err(Error::NotServed { what: "query" });
        }
        Ok(Selection { filter: parse_filter(filter)?, fingerprint: fingerprint(filter) })
    }

    /// A number that tells selections apart, the same in every reader.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Whether an entity is meant.
    pub fn matches(&self, stored: &Stored) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.matches(&stored.rows))
    }
}
