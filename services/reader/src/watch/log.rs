//! The log of changes: the newest with what they changed, many more with their refs alone.

use std::{
    cmp::Ordering,
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::{Limits, Told};

/// A place in a stream of entities, understood by every reader of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The stream's identity: the time of its creation, in nanoseconds.
    pub stream: i64,
    /// Everything up to this sequence is included.
    pub sequence: u64,
    /// When the message of that sequence was stored, in nanoseconds since 1970; 0: unknown. A stream that went back has the same sequences again, with
    /// later times.
    pub stored: u64,
}

impl Place {
    /// Whether both can be of one stream that did not go back between them: times rise with sequences.
    fn agrees_with(self, other: Place) -> bool {
        let is_known = self.stored > 0 && other.stored > 0;
        !is_known
            || match self.sequence.cmp(&other.sequence) {
                // The messages of an atomic batch may have one time.
                Ordering::Less => self.stored <= other.stored,
                Ordering::Equal => self.stored == other.stored,
                Ordering::Greater => self.stored >= other.stored,
            }
    }
}

/// Where a watcher has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// What it was told is the newest state of everything up to here, but for what follows.
    pub place: Place,
    /// It passed over changes that had newer ones, and those newer ones stand up to this sequence: what was shown before one of them
    /// is not what it knows. 0: it passed over none.
    pub merged: u64,
}

/// One change of an entity.
#[derive(Debug)]
pub(crate) struct Change {
    /// The entity's ref.
    pub entity_ref: Arc<str>,
    /// The version that it has now.
    pub version: i64,
    /// What was shown before.
    pub before: Option<Arc<Told>>,
    /// What is shown now; none: it is gone.
    pub after: Option<Arc<Told>>,
    /// Where a watcher that has seen it resumes.
    pub place: Option<Place>,
    /// Up to this sequence, everything that stood in the stream was here before it. What stands behind that, the reader may have passed over: a
    /// message that was replaced before its turn came.
    pub complete: u64,
}

/// Sequence, version and ref of a change, as a snapshot has it.
pub(crate) type Past<R> = (u64, i64, R);

/// What is kept of an older change.
#[derive(Debug)]
pub(crate) struct Trace {
    /// The entity's ref.
    pub entity_ref: Arc<str>,
    /// The version that it had.
    pub version: i64,
    /// Where its message stands.
    at: Option<Place>,
}

/// The changes in the order in which the reader applied them. A position counts them, from 1 at the reader's start.
#[derive(Debug)]
pub(crate) struct Log {
    limits: Limits,
    /// The position of the newest change.
    end: u64,
    /// The newest changes.
    recent: VecDeque<Arc<Change>>,
    /// Bytes that `recent` may keep from being freed.
    recent_bytes: usize,
    /// Every change of `recent`, and older ones.
    traces: VecDeque<Trace>,
    /// The position of each ref's newest trace.
    newest: HashMap<Arc<str>, u64>,
    /// The stream that is followed, and how far.
    here: Option<Place>,
    /// A replaced stream is replayed: what it has not named is still shown, so nobody could resume from a place in it.
    replaying: bool,
    /// Where to resume meanwhile: in the stream that was, which is to say: not.
    stale: Option<Place>,
    /// Changes up to this position came while a replaced stream was replayed.
    replayed: u64,
    /// Who stands before this position may have been told of what a replay dropped.
    dropped: u64,
    /// In this stream, not every change up to here has a trace.
    forgotten: u64,
    /// See [`Change::complete`].
    complete: u64,
}

/// What a snapshot keeps of the log: where it stands, up to where changes are not all known, and the traces of this stream.
pub(crate) type Kept = (Place, u64, Vec<Past<Arc<str>>>);

impl Log {
    /// Nothing has changed yet.
    pub fn new(limits: Limits) -> Log {
        Log {
            limits,
            end: 0,
            recent: VecDeque::new(),
            recent_bytes: 0,
            traces: VecDeque::new(),
            newest: HashMap::new(),
            here: None,
            replaying: false,
            stale: None,
            replayed: 0,
            dropped: 0,
            forgotten: 0,
            complete: 0,
        }
    }

    /// The position of the newest change.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The position of the newest change, and the sequence that is reached.
    pub fn news(&self) -> (u64, u64) {
        (self.end, self.here.map_or(0, |here| here.sequence))
    }

    /// Where a watcher that has seen everything resumes.
    pub fn place(&self) -> Option<Place> {
        match self.replaying {
            true => self.stale,
            false => self.here,
        }
    }

    /// This stream is followed from now on, from behind this sequence.
    pub fn begin(&mut self, stream: i64, sequence: u64) {
        if self.here.is_none_or(|here| here.stream != stream) {
            self.here = Some(Place { stream, sequence, stored: 0 });
            self.forgotten = sequence;
        }
    }

    /// The stream is another one or went back.
    pub fn begin_replay(&mut self) {
        if !self.replaying {
            self.stale = self.here;
        }
        self.replaying = true;
        self.here = None;
        self.complete = 0;
    }

    /// The replay is over, and what it did not name is gone. What it named and was known already has no trace.
    ///
    /// What is gone so (`has_dropped`) has no version to be told in: what the truth made of it was lost with the stream. So whoever watches has to begin anew.
    pub fn end_replay(&mut self, has_dropped: bool) {
        self.replaying = false;
        if has_dropped {
            self.recent.clear();
            self.recent_bytes = 0;
            self.traces.clear();
            self.newest.clear();
            // A position of its own, so that one that begins now stands at it.
            self.end += 1;
            self.dropped = self.end;
        }
        self.replayed = self.end;
        self.forgotten = self.here.map_or(0, |here| here.sequence);
    }

    /// The message with this sequence, stored at this time, was taken, whatever it changed.
    pub fn reach(&mut self, sequence: u64, stored: u64) {
        if let Some(here) = self.here.as_mut().filter(|here| here.sequence < sequence) {
            (here.sequence, here.stored) = (sequence, stored);
        }
    }

    /// Everything that stands in the stream is here.
    pub fn complete(&mut self) {
        self.complete = self.here.map_or(0, |here| here.sequence);
    }

    /// What a snapshot keeps, so that watchers can resume at a reader that begins with it: up to where changes are not all known, and
    /// the traces of this stream. None: there is no place to resume from.
    pub fn keep(&self) -> Option<Kept> {
        let here = self.here.filter(|_| !self.replaying)?;
        let of_here = |trace: &Trace| {
            let at = trace.at.filter(|at| at.stream == here.stream)?;
            Some((at.sequence, trace.version, trace.entity_ref.clone()))
        };
        Some((here, self.forgotten, self.traces_of_here().filter_map(of_here).collect()))
    }

    /// Begins where a snapshot was.
    pub fn restore(&mut self, place: Place, forgotten: u64, traces: Vec<Past<String>>) {
        for (sequence, version, entity_ref) in traces {
            self.here = Some(Place { sequence, stored: 0, ..place });
            self.trace(entity_ref.into(), version);
        }
        self.here = Some(place);
        self.forgotten = self.forgotten.max(forgotten);
    }

    /// Notes a change that was applied.
    pub fn push(&mut self, mut change: Change) {
        change.place = self.place();
        change.complete = self.complete;
        self.trace(change.entity_ref.clone(), change.version);
        self.recent_bytes += bytes(&change);
        self.recent.push_back(Arc::new(change));
        while self.recent.len() > self.limits.recent || self.recent_bytes > self.limits.recent_bytes {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.recent_bytes -= bytes(&oldest);
        }
    }

    /// Notes a change that nobody can watch yet: the reader is not ready.
    pub fn note(&mut self, entity_ref: Arc<str>, version: i64) {
        self.recent.clear();
        self.recent_bytes = 0;
        self.trace(entity_ref, version);
    }

    fn trace(&mut self, entity_ref: Arc<str>, version: i64) {
        self.end += 1;
        self.newest.insert(entity_ref.clone(), self.end);
        self.traces.push_back(Trace { entity_ref, version, at: self.here });
        if self.traces.len() > self.limits.traces
            && let Some(oldest) = self.traces.pop_front()
        {
            let position = self.end - self.traces.len() as u64;
            if self.newest.get(&oldest.entity_ref) == Some(&position) {
                self.newest.remove(&oldest.entity_ref);
            }
            if let (Some(at), Some(here)) = (oldest.at, self.here)
                && at.stream == here.stream
            {
                self.forgotten = self.forgotten.max(at.sequence);
            }
        }
    }

    /// Whether a watcher at this position has to begin anew: what it was told may be gone, and nobody can tell it so.
    pub fn is_void(&self, position: u64) -> bool {
        position < self.dropped
    }

    /// The changes behind a position, at most `limit`; none: they are not that recent any more.
    pub fn recent_after(&self, position: u64, limit: usize) -> Option<impl Iterator<Item = &Arc<Change>>> {
        let skipped = self.recent.len().checked_sub(self.missed(position))?;
        Some(self.recent.range(skipped..).take(limit))
    }

    /// The traces behind a position, at most `limit`, each with its position; none: there are none that old any more.
    pub fn traces_after(&self, position: u64, limit: usize) -> Option<impl Iterator<Item = (u64, &Trace)>> {
        let skipped = self.traces.len().checked_sub(self.missed(position))?;
        Some((position + 1..).zip(self.traces.range(skipped..).take(limit)))
    }

    /// Whether the ref has not changed since this position, at which it did.
    pub fn is_newest(&self, position: u64, trace: &Trace) -> bool {
        self.newest.get(&trace.entity_ref) == Some(&position)
    }

    /// Where a watcher resumes that was told the newest state of everything up to this trace.
    pub fn place_of(&self, position: u64, trace: &Trace) -> Option<Place> {
        trace.at.filter(|_| position > self.replayed && !self.replaying)
    }

    /// The position at which a watcher that stopped at a place goes on.
    pub fn resume(&self, mark: Mark) -> Resume {
        let place = mark.place;
        let Some(here) = self.here.filter(|here| here.stream == place.stream && !self.replaying) else {
            return Resume::AnotherStream;
        };
        if place.sequence > here.sequence && !here.agrees_with(place) {
            return Resume::AnotherStream;
        }
        if place.sequence.max(mark.merged) > here.sequence {
            return Resume::NotYet;
        }
        if place.sequence < self.forgotten {
            return Resume::Forgotten;
        }
        let is_newer = |at: &Place| at.stream == place.stream && at.sequence > place.sequence;
        let mut places = self.traces_of_here().rev().map_while(|trace| trace.at).peekable();
        let mut newer = 0_u64;
        let mut next = here;
        while let Some(at) = places.next_if(is_newer) {
            newer += 1;
            next = at;
        }
        let before = places.next().filter(|at| at.stream == place.stream);
        if !place.agrees_with(next) || before.is_some_and(|before| !before.agrees_with(place)) {
            return Resume::AnotherStream;
        }
        let newer = if catalog::planted::is("resume-off-by-one") { newer.saturating_sub(1) } else { newer };
        Resume::At(self.end - newer)
    }

    /// The traces since the last replay: the sequences of those before are of the stream as it was then.
    fn traces_of_here(&self) -> impl DoubleEndedIterator<Item = &Trace> {
        let before = self.traces.len().saturating_sub(self.missed(self.replayed));
        self.traces.range(before..)
    }

    fn missed(&self, position: u64) -> usize {
        usize::try_from(self.end - position).unwrap_or(usize::MAX)
    }
}

/// Where a watcher goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// At this position.
    At(u64),
    /// The reader is not that far yet.
    NotYet,
    /// The reader does not remember as many changes.
    Forgotten,
    /// The place is in another stream.
    AnotherStream,
}

fn bytes(change: &Change) -> usize {
    let of = |told: &Option<Arc<Told>>| told.as_ref().map_or(0, |told| told.bytes());
    of(&change.before) + of(&change.after)
}
