//! Events as answers: one by one for the codec, or in slices that are sent as they are to all who stand at one place.

use std::{sync::Arc, time::SystemTime};

use api::ready as v1;
use prost::{Message as _, bytes::Bytes};

use super::{BATCH, Event, Watcher};
use crate::watch::{Change, Log, slice::Slice, token::ResumeToken};

/// Bytes of answers that are sent at once; the last of them may be longer.
const SLICE_BYTES: usize = 32 * 1024;
impl Watcher {
    /// The event as an answer.
    pub(super) fn answer(&self, event: Event) -> v1::WatchEntitiesResponse {
        use v1::watch_entities_response::Event as Message;
        let (event, version) = match event {
            Event::Change(told) => (Message::Change(told.encoded()), told.version()),
            Event::Deletion(entity_ref, version) => {
                (Message::Deletion(v1::Deletion { r#ref: entity_ref.to_string() }), version)
            }
            Event::Bookmark(revision) => {
                (Message::Bookmark(v1::Bookmark { revision: revision.unwrap_or_default() }), 0)
            }
        };
        // A reader that is behind does not know what became of deletions meanwhile.
        let at = SystemTime::now().checked_sub(self.state.behind()).unwrap_or(SystemTime::UNIX_EPOCH);
        let token = self.mark.map(|mark| ResumeToken::new(mark, self.selection.fingerprint(), at));
        let token = token.map(|token| token.encode());
        v1::WatchEntitiesResponse { event: Some(event), resume_token: token.unwrap_or_default(), version }
    }

    /// An event, and what else stands ready, as answers.
    pub(super) fn answers(&mut self, event: Event) -> Bytes {
        let (mut answers, mut next) = (Vec::new(), Some(event));
        while let Some(event) = next {
            put_answer(&mut answers, &self.answer(event));
            next = if answers.len() < SLICE_BYTES { self.take() } else { None };
        }
        answers.into()
    }

    /// The answers that all are given who stand where this watcher does, of changes up to `end`; none: there is nothing to tell, or this one
    /// stands where others do not.
    pub(super) fn shared(&mut self, end: u64) -> Option<Bytes> {
        let stands_apart = self.walked.is_some() || self.position < self.merged.0;
        if stands_apart || self.position >= end {
            return None;
        }
        let state = self.state.clone();
        let log = state.hub().read();
        if log.is_void(self.position) {
            return None;
        }
        let slice = match state.hub().slice(self.position, &self.selection) {
            Some(slice) if slice.complete >= self.resumed => {
                (self.position, self.mark) = (slice.to, slice.mark.or(self.mark));
                state.hub().tell(slice.events);
                slice
            }
            Some(_) => return None,
            None => self.slice(&log, end)?,
        };
        Some(slice.answers.clone()).filter(|answers| !answers.is_empty())
    }

    /// Tells itself the next changes in a way that others can use.
    fn slice(&mut self, log: &Log, end: u64) -> Option<Arc<Slice>> {
        let from = self.position;
        let count = usize::try_from(end - from).unwrap_or(usize::MAX).min(BATCH);
        let changes: Vec<&Arc<Change>> = log.recent_after(from, count)?.collect();
        let complete = changes.iter().map(|change| change.complete).min()?;
        // Where it is not known where to resume, each says again what he knows.
        if complete < self.resumed || changes.iter().any(|change| change.place.is_none()) {
            return None;
        }
        let (mut answers, mut events, mut mark) = (Vec::new(), 0, None);
        for change in changes {
            self.tell(change);
            while let Some(event) = self.take() {
                put_answer(&mut answers, &self.answer(event));
                (events, mark) = (events + 1, self.mark);
            }
            if answers.len() >= SLICE_BYTES {
                break;
            }
        }
        let (to, selection) = (self.position, self.selection.clone());
        let slice = Arc::new(Slice { from, to, selection, complete, answers: answers.into(), events, mark });
        self.state.hub().keep_slice(slice.clone());
        Some(slice)
    }
}

/// Puts an answer behind others as gRPC has it on the wire: that it is not compressed, its length, the message.
fn put_answer(answers: &mut Vec<u8>, answer: &v1::WatchEntitiesResponse) {
    answers.push(0);
    answers.extend((answer.encoded_len() as u32).to_be_bytes());
    answer.encode_raw(answers);
}
