//! What watchers that stand at one place are told next, as the bytes of their answers: made by the first of them, sent to all.

use std::{collections::VecDeque, sync::Arc};

use prost::bytes::Bytes;

use super::Mark;
use crate::selection::Selection;

/// Slices that are kept, and the bytes of all of them but the newest.
const KEPT: usize = 32;
const KEPT_BYTES: usize = 8 << 20;

/// What the watchers of one selection are told of some changes of the log.
#[derive(Debug)]
pub(crate) struct Slice {
    /// The changes behind this position, and up to that one.
    pub from: u64,
    /// See `from`.
    pub to: u64,
    /// Which entities are watched.
    pub selection: Selection,
    /// The least [`super::Change::complete`] of the changes: who resumed behind it may know something else.
    pub complete: u64,
    /// The answers, as gRPC has them on the wire; empty: there is nothing to tell.
    pub answers: Bytes,
    /// How many answers.
    pub events: u64,
    /// Where to resume after the last of them.
    pub mark: Option<Mark>,
}

/// The slices that were made last, newest first.
#[derive(Debug, Default)]
pub(super) struct Slices(VecDeque<Arc<Slice>>);

impl Slices {
    /// What is told behind a position.
    pub fn find(&self, from: u64, selection: &Selection) -> Option<Arc<Slice>> {
        self.0.iter().find(|slice| slice.from == from && slice.selection == *selection).cloned()
    }

    /// Keeps one more, and fewer of those before.
    pub fn keep(&mut self, slice: Arc<Slice>) {
        let mut bytes = 0;
        let kept = self.0.iter().take(KEPT - 1).take_while(|old| {
            bytes += old.answers.len();
            bytes <= KEPT_BYTES
        });
        let kept = kept.count();
        self.0.truncate(kept);
        self.0.push_front(slice);
    }
}
