//! An entity as watchers are told of it: what one of them works out, all of them use.

use std::sync::{Arc, OnceLock};

use api::EncodedEntity;
use catalog::search::SearchRow;

use crate::memory::Stored;

/// An entity that watchers are told of.
#[derive(Debug)]
pub(crate) struct Told {
    stored: Arc<Stored>,
    rows: OnceLock<Vec<SearchRow>>,
    encoded: OnceLock<EncodedEntity>,
}

impl Told {
    /// An entity whose rows will be worked out if anybody asks.
    pub fn new(stored: Arc<Stored>) -> Told {
        Told { stored, rows: OnceLock::new(), encoded: OnceLock::new() }
    }

    /// The entity's ref.
    #[cfg(test)]
    pub fn entity_ref(&self) -> &str {
        self.stored.entity_ref()
    }

    /// The entity's version.
    pub fn version(&self) -> i64 {
        self.stored.version()
    }

    /// What filters look at.
    pub fn rows(&self) -> &[SearchRow] {
        self.rows.get_or_init(|| self.stored.search_rows())
    }

    /// The message, ready to be sent.
    pub fn encoded(&self) -> EncodedEntity {
        self.encoded.get_or_init(|| self.stored.encoded()).clone()
    }

    /// About what it takes in memory once everything is worked out: the message, and its texts again in the rows, lower-cased and not.
    pub fn bytes(&self) -> usize {
        4 * self.stored.message_length()
    }
}
