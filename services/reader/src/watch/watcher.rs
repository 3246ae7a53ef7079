//! One watch: the entities that match as they are, or what changed since a token, and from then on each change.
//!
//! A watcher is at a position of the log. It has been told the newest state of everything up to there, but for what the *walk* through the
//! entities as they are will still come to. Recent changes are told one by one; of older ones only those that are the newest of their
//! ref: so versions in between are merged for a watcher that lags or resumes, and each version is told once at most, in rising order.

mod answers;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime},
};

use api::{Error, ready as v1};
use prost::bytes::Bytes;
use tokio::sync::watch;

use super::{Change, Log, Mark, News, Place, Told, log::Resume, token::ResumeToken};
use crate::{selection::Selection, state::State};

/// Changes told, or entities walked over, before the log is let go of.
const BATCH: usize = 256;
/// Traces looked at before the log is let go of.
const TRACES: usize = 1024;
/// A bookmark tells of a new revision once a second; so many seconds pass before one comes although nothing is new.
const QUIET_TICKS: u64 = 15;
/// Why a watcher has to begin anew.
const REPLACED: &str = "the stream of entities has been replaced since";
/// How long a reader that is behind a token tries to get there.
const CATCH_UP: Duration = Duration::from_secs(10);

/// Where a watch begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Begin {
    /// With the entities as they are.
    AsItIs,
    /// With what changes from now on.
    Now,
    /// With what changed since a watcher stopped here.
    At(Mark),
}

/// What a watcher is told.
#[derive(Debug)]
pub(crate) enum Event {
    /// An entity that matches is new or has changed.
    Change(Arc<Told>),
    /// An entity is gone or does not match any more.
    Deletion(Arc<str>, i64),
    /// Everything up to this revision has been told; none: that cannot be said.
    Bookmark(Option<i64>),
}

/// One watch.
pub(crate) struct Watcher {
    state: State,
    selection: Selection,
    news: watch::Receiver<News>,
    /// Of the hub's clock when the last bookmark came, and now.
    ticks: (u64, u64),
    /// What comes next, with where to resume after it.
    ready: VecDeque<(Event, Option<Mark>)>,
    /// Where to resume after what was told.
    mark: Option<Mark>,
    position: u64,
    /// Changes were passed over that have newer ones up to this position and this sequence.
    merged: (u64, u64),
    /// Another reader may have told it what stands up to this sequence, also what this one has passed over. Until it is known that this one has passed
    /// over none of that, what was shown here before a change is not what the watcher knows.
    resumed: u64,
    /// The walk has told every ref up to this one; none: it is over.
    walked: Option<Arc<str>>,
    owes_bookmark: bool,
    bookmarked: Option<i64>,
}

impl Watcher {
    /// Begins the watch that a request asks for.
    ///
    /// # Errors
    /// As [`Watcher::begin`], and the request may make no sense.
    pub async fn of(state: &State, request: &v1::WatchEntitiesRequest) -> Result<Watcher, Error> {
        let selection = Selection::parse(&request.filter, request.query.as_ref())?;
        let begin = match (request.resume_token.as_str(), request.changes_only) {
            ("", false) => Begin::AsItIs,
            ("", true) => Begin::Now,
            (_, true) => {
                let reason = "expected false, since the resume_token says where to begin, found true";
                return Err(Error::invalid("changes_only", reason));
            }
            (text, false) => Begin::At(ResumeToken::decode(text, selection.fingerprint(), SystemTime::now())?.mark),
        };
        Watcher::begin(state, selection, begin).await
    }

    /// Begins a watch.
    ///
    /// # Errors
    /// There are too many; or the place to begin at is too old, in another stream, or ahead of this reader for some seconds.
    pub async fn begin(state: &State, selection: Selection, begin: Begin) -> Result<Watcher, Error> {
        state.hub().enter()?;
        let news = state.hub().follow();
        let now = news.borrow().ticks;
        let mut watcher = Watcher {
            state: state.clone(),
            selection,
            news,
            ticks: (now, now),
            ready: VecDeque::new(),
            mark: None,
            position: 0,
            merged: (0, 0),
            resumed: 0,
            walked: None,
            owes_bookmark: true,
            bookmarked: None,
        };
        watcher.position = match begin {
            Begin::At(mark) => watcher.resume(mark).await?,
            Begin::Now => state.hub().read().end(),
            Begin::AsItIs => {
                watcher.walked = Some("".into());
                state.hub().read().end()
            }
        };
        Ok(watcher)
    }

    async fn resume(&mut self, mark: Mark) -> Result<u64, Error> {
        (self.mark, self.resumed) = (Some(mark), mark.place.sequence);
        let deadline = tokio::time::Instant::now() + CATCH_UP;
        loop {
            let (resume, end) = {
                let log = self.state.hub().read();
                (log.resume(mark), log.end())
            };
            match resume {
                Resume::At(position) => {
                    if mark.merged > mark.place.sequence {
                        self.merged = (end, mark.merged);
                    }
                    return Ok(position);
                }
                Resume::Forgotten => {
                    return Err(Error::TooOld { reason: "more has changed since than the reader remembers" });
                }
                Resume::AnotherStream => {
                    return Err(Error::TooOld { reason: REPLACED });
                }
                Resume::NotYet => {}
            }
            let needed = mark.place.sequence.max(mark.merged);
            let reached = self.news.wait_for(|news| news.sequence >= needed);
            let news = tokio::time::timeout_at(deadline, reached).await;
            if news.is_err() {
                return Err(Error::NotReady { pending: self.state.lag() });
            }
        }
    }

    /// What comes next, as an answer; waits for it, for ever if need be.
    ///
    /// # Errors
    /// The watcher is too slow, or the reader stops.
    pub async fn next_answer(&mut self) -> Result<v1::WatchEntitiesResponse, Error> {
        loop {
            if let Some(event) = self.take() {
                return Ok(self.answer(event));
            }
            let news = self.look();
            if let Some(event) = self.turn(news).await? {
                return Ok(self.answer(event));
            }
        }
    }

    /// The same as the bytes of one or more answers, shared with all who stand where this watcher does.
    ///
    /// # Errors
    /// As [`Watcher::next_answer`].
    pub async fn next_answers(&mut self) -> Result<Bytes, Error> {
        loop {
            if let Some(event) = self.take() {
                return Ok(self.answers(event));
            }
            let news = self.look();
            if let Some(answers) = self.shared(news.end) {
                return Ok(answers);
            }
            if let Some(event) = self.turn(news).await? {
                return Ok(self.answers(event));
            }
        }
    }

    fn look(&mut self) -> News {
        let news = *self.news.borrow_and_update();
        self.ticks.1 = news.ticks;
        news
    }

    /// Makes ready what there is, or waits until there may be something; gives a bookmark, if it is time for one.
    async fn turn(&mut self, news: News) -> Result<Option<Event>, Error> {
        // Nobody is told more than what he was woken for: so those who were woken together are told the same.
        let is_told = self.walked.is_none() && self.position >= news.end;
        if !is_told && self.step()? {
            // A slice that took its time; a few changes are told at once.
            if self.ready.len() >= BATCH || self.ready.is_empty() || self.walked.is_some() {
                tokio::task::yield_now().await;
            }
            return Ok(None);
        }
        if let Some(event) = self.bookmark() {
            return Ok(Some(event));
        }
        if news.stopping {
            return Err(Error::Stopping);
        }
        // The hub lives as long as the state, which this watcher holds.
        let _ = self.news.changed().await;
        Ok(None)
    }

    /// What stands ready.
    fn take(&mut self) -> Option<Event> {
        let (event, mark) = self.ready.pop_front()?;
        self.mark = mark.or(self.mark);
        self.state.hub().tell(1);
        Some(event)
    }

    /// What comes next without waiting; none: everything is told.
    #[cfg(test)]
    pub fn next_now(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.take() {
                return Ok(Some(event));
            }
            if !self.step()? {
                return Ok(self.bookmark());
            }
        }
    }

    /// What is shared with others here, up to now; only where nothing else stands ready.
    #[cfg(test)]
    pub fn shared_now(&mut self) -> Option<Bytes> {
        let end = self.state.hub().read().end();
        if self.ready.is_empty() { self.shared(end) } else { None }
    }

    /// Where to resume after what was told.
    #[cfg(test)]
    pub fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// Makes ready what comes next; whether there may be more at once.
    fn step(&mut self) -> Result<bool, Error> {
        let state = self.state.clone();
        let log = state.hub().read();
        if log.is_void(self.position) {
            return Err(Error::TooOld { reason: REPLACED });
        }
        if self.position == log.end() {
            return Ok(self.walk());
        }
        if let Some(changes) = log.recent_after(self.position, BATCH) {
            changes.for_each(|change| self.tell(change));
            return Ok(true);
        }
        self.tell_traces(&log)?;
        Ok(true)
    }

    /// Tells a change of the log.
    fn tell(&mut self, change: &Arc<Change>) {
        self.position += 1;
        if self.will_walk(&change.entity_ref) {
            return;
        }
        let matches = |told: &&Arc<Told>| self.selection.matches(told);
        let may_know_another = self.position <= self.merged.0 || change.complete < self.resumed;
        let event = match change.after.as_ref().filter(matches) {
            Some(after) => Event::Change(after.clone()),
            None if may_know_another || change.before.as_ref().is_some_and(|told| matches(&told)) => {
                Event::Deletion(change.entity_ref.clone(), change.version)
            }
            None => return,
        };
        self.ready.push_back((event, self.mark_at(change.place)));
    }

    /// Tells how the entities are now that changed longer ago than the log keeps changes.
    ///
    /// What was shown before is not known: an entity that does not match may or may not have been told.
    fn tell_traces(&mut self, log: &Log) -> Result<(), Error> {
        let Some(traces) = log.traces_after(self.position, TRACES) else {
            self.state.hub().cut_off();
            return Err(Error::TooSlow { behind: log.end() - self.position });
        };
        for (position, trace) in traces {
            self.position = position;
            if self.will_walk(&trace.entity_ref) {
                continue;
            }
            if !log.is_newest(position, trace) {
                self.merged = log.news();
                continue;
            }
            let stored = self.state.memory().matching(&trace.entity_ref, self.selection.query());
            let event = match stored {
                Some(stored) => Event::Change(Arc::new(Told::new(stored))),
                None => Event::Deletion(trace.entity_ref.clone(), trace.version),
            };
            self.ready.push_back((event, self.mark_at(log.place_of(position, trace))));
        }
        Ok(())
    }

    /// The mark for a place that the watcher has come to; none: as long as it walks, it cannot resume.
    fn mark_at(&self, place: Option<Place>) -> Option<Mark> {
        let merged = if self.position < self.merged.0 { self.merged.1 } else { 0 };
        place.filter(|_| self.walked.is_none()).map(|place| Mark { place, merged })
    }

    fn will_walk(&self, entity_ref: &str) -> bool {
        self.walked.as_ref().is_some_and(|walked| **walked < *entity_ref)
    }

    /// Tells some of the entities as they are now.
    fn walk(&mut self) -> bool {
        let Some(walked) = self.walked.take() else { return false };
        let (matching, end) = self.state.memory().matching_after(self.selection.query(), &walked, BATCH);
        self.walked = end.map(Into::into);
        self.ready.extend(matching.into_iter().map(|stored| (Event::Change(Arc::new(Told::new(stored))), None)));
        true
    }

    /// A bookmark, if it is time for one: everything has been told.
    fn bookmark(&mut self) -> Option<Event> {
        let quiet_ticks = self.ticks.1 - self.ticks.0;
        if !self.owes_bookmark && quiet_ticks == 0 {
            return None;
        }
        let log = self.state.hub().read();
        if log.end() != self.position {
            return None;
        }
        let revision = self.state.watermark();
        if !self.owes_bookmark && revision <= self.bookmarked && quiet_ticks < QUIET_TICKS {
            return None;
        }
        self.mark = self.mark_at(log.place()).or(self.mark);
        drop(log);
        (self.owes_bookmark, self.bookmarked, self.ticks.0) = (false, revision, self.ticks.1);
        Some(Event::Bookmark(revision))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.state.hub().leave();
    }
}
