//! What a reader knows: the entities, how far it has followed them, and who waits for more.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bus::Followed;
use tokio::sync::watch;

#[cfg(test)]
use crate::watch::Limits;
use crate::{
    current::Current,
    memory::{self, Applied, Memory, Prepared},
    snapshot::Head,
    unprocessed::{Reason, Unprocessed},
    waiting::Waiting,
    watch::{Change, Hub, Past, Place, Told},
};

/// A handle on what the reader knows; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct State(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max_behind: Duration,
    /// That the mirror's end is reached says nothing about its origin.
    is_region: bool,
    memory: Memory,
    unprocessed: Unprocessed,
    progress: watch::Sender<Progress>,
    /// Held by who changes the progress: batches that are in the memory before their turn. While there are any, nobody may read.
    ahead: Mutex<usize>,
    waiting: Waiting,
    hub: Hub,
    current: Current,
    lag: AtomicU64,
    unreadable: AtomicU64,
}

/// What a snapshot has to say besides the entities.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Every message up to here is in the memory.
    pub place: Place,
    /// See [`Head::forgotten`].
    pub forgotten: u64,
    /// What the stream said last.
    pub watermark: i64,
    /// The changes that are remembered, oldest first.
    pub traces: Vec<Past<Arc<str>>>,
}

/// What the follower was told, worked out as far as it can be ahead.
#[derive(Debug)]
pub(crate) enum Ahead {
    /// An entity or its deletion, and its message's sequence and time.
    Entity { entity_ref: String, version: i64, at: (u64, u64), worked_out: WorkedOut, reason: Option<Reason> },
    /// Anything else.
    Told(Followed),
}

/// How far an entity's message is worked out.
#[derive(Debug)]
pub(crate) enum WorkedOut {
    /// As new a version is known.
    Known,
    /// All but what is done in its turn.
    Prepared(Box<Prepared>),
    /// It is in the memory already: see [`State::begin_ahead`].
    Taken(Applied),
}

/// How far the reader has followed the stream of entities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Caught up with the stream and seen a watermark, once; a replay of a replaced stream does not take it back.
    pub ready: bool,
    /// Everything up to this revision is in the memory; none as long as that cannot be said.
    pub watermark: Option<i64>,
    /// The newest watermark of the stream, while more is to come: what it promises may have been passed over, because newer messages replaced it that are still to come.
    announced: Option<i64>,
    /// Caught up with the stream as it is now.
    caught_up: bool,
    /// The stream was replaced, and what its replay does not name is still shown.
    replaying: bool,
    /// The stream that is followed: when it was made.
    stream: Option<i64>,
    /// What the stream promised before it came back as an older one: a lower watermark that stands in it is of that older state.
    promised: Option<i64>,
}

impl Default for Inner {
    fn default() -> Self {
        Inner {
            max_behind: Duration::MAX,
            is_region: false,
            memory: Memory::default(),
            unprocessed: Unprocessed::default(),
            progress: watch::Sender::default(),
            ahead: Mutex::default(),
            waiting: Waiting::default(),
            hub: Hub::default(),
            current: Current::default(),
            lag: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
        }
    }
}

impl State {
    /// Nothing is known yet; later than `max_behind` is late. In a region the stream is a mirror.
    pub(crate) fn new(max_behind: Duration, is_region: bool) -> State {
        State(Arc::new(Inner { max_behind, is_region, ..Inner::default() }))
    }

    /// Nothing is known yet; what is kept for watchers is limited so.
    #[cfg(test)]
    pub(crate) fn with_limits(limits: Limits) -> State {
        State(Arc::new(Inner { hub: Hub::new(limits), ..Inner::default() }))
    }

    /// Whether the reader has caught up and seen a watermark: from then on it answers, also while it replays.
    pub fn ready(&self) -> bool {
        self.progress().ready
    }

    /// Messages still to come, as the broker last said.
    pub fn lag(&self) -> u64 {
        self.0.lag.load(Relaxed)
    }

    /// How many entities are held.
    pub fn entities(&self) -> usize {
        self.0.memory.len()
    }

    /// How many entities are held of each kind (lower-cased).
    pub fn entities_by_kind(&self) -> BTreeMap<String, u64> {
        self.0.memory.kinds()
    }

    /// The bytes of all entities as they are held.
    pub fn body_bytes(&self) -> u64 {
        self.0.memory.body_bytes()
    }

    /// Everything up to this revision is held; none until that is known.
    pub fn watermark(&self) -> Option<i64> {
        let progress = self.progress();
        progress.watermark.filter(|_| progress.is_settled())
    }

    /// Messages whose body could not be served since the start; more than 0 is a bug upstream.
    pub fn unreadable(&self) -> u64 {
        self.0.unreadable.load(Relaxed)
    }

    /// How long ago everything that stood in the stream was here; zero: it is.
    pub fn behind(&self) -> Duration {
        self.0.current.behind()
    }

    /// Whether the reader answers, but is further behind than it should be to be asked.
    pub fn is_late(&self) -> bool {
        self.behind() > self.0.max_behind
    }

    /// The sequence of the stream that is reached.
    pub fn sequence(&self) -> u64 {
        self.0.hub.read().news().1
    }

    /// Everything up to this sequence of the stream was taken; its message was stored at this time (see [`bus::Follower::stored`]).
    pub fn reach(&self, sequence: u64, stored: u64) {
        let mut log = self.0.hub.write();
        log.reach(sequence, stored);
        if self.lag() == 0 {
            log.complete();
        }
    }

    /// Whether everything that stood in the stream when following it began is here.
    pub(crate) fn has_caught_up(&self) -> bool {
        self.progress().caught_up
    }

    /// What the newest watermark of the stream promises, while more is to come.
    pub(crate) fn announced(&self) -> Option<i64> {
        self.progress().announced
    }

    /// The stream ended where this reader was when this was announced. Mostly the last message has said so; a broker that counted
    /// wrongly what is still to come is not believed.
    pub(crate) fn has_reached_end(&self, announced: Option<i64>) {
        self.advance(|progress| {
            // Before: what was announced in an older state of the stream is no promise.
            progress.keep_promise(announced);
            progress.caught_up = true;
        });
    }

    /// Everything that stands in the stream is here now.
    pub(crate) fn is_current(&self) {
        self.0.current.now();
    }

    /// What a snapshot has to say besides the entities; none: this state is not one to be kept.
    pub(crate) fn keep(&self) -> Option<Kept> {
        let log = self.0.hub.read();
        let watermark = self.watermark().filter(|_| self.ready())?;
        let (place, forgotten, traces) = log.keep()?;
        Some(Kept { place, forgotten, watermark, traces })
    }

    /// Begins where a snapshot was; its entities are in the memory already.
    pub(crate) fn restore(&self, head: &Head, traces: Vec<Past<String>>) {
        let place = Place { stream: head.stream, sequence: head.sequence, stored: head.stored };
        self.0.hub.write().restore(place, head.forgotten, traces);
        self.0.unprocessed.restore(head.unprocessed.clone());
        self.0.progress.send_modify(|progress| {
            (progress.stream, progress.watermark) = (Some(head.stream), Some(head.watermark));
        });
    }

    /// Whether what is worked out may go into the memory before its turn, by several threads, since nobody can read yet. Nobody can until as many
    /// calls of [`State::end_ahead`] say that what went ahead has had its turn.
    pub(crate) fn begin_ahead(&self) -> bool {
        let mut ahead = self.ahead();
        let may = !self.ready();
        *ahead += usize::from(may);
        may
    }

    /// A batch that went ahead has had its turn.
    pub(crate) fn end_ahead(&self) {
        *self.ahead() -= 1;
        self.advance(|_| {});
    }

    fn ahead(&self) -> MutexGuard<'_, usize> {
        self.0.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works out what the follower was told, as far as that can be done ahead and beside others: what takes the time.
    pub(crate) fn prepare(&self, followed: Followed) -> Ahead {
        let Followed::Entity(mut message) = followed else { return Ahead::Told(followed) };
        let revision = message.revision;
        let reason = message.unprocessed.take().map(|error| Reason { revision, error });
        let (entity_ref, version) = (message.entity_ref.clone(), message.version);
        let at = (message.sequence, bus::nanoseconds(message.published));
        let worked_out = match self.0.memory.is_newer(&entity_ref, version) {
            false => WorkedOut::Known,
            true => WorkedOut::Prepared(Box::new(self.0.memory.prepare(message))),
        };
        Ahead::Entity { entity_ref, version, at, worked_out, reason }
    }

    /// Puts an entity that is worked out into the memory, before its turn; for a batch that may: see [`State::begin_ahead`].
    pub(crate) fn go_ahead(&self, ahead: Ahead) -> Ahead {
        match ahead {
            Ahead::Entity { entity_ref, version, at, worked_out: WorkedOut::Prepared(prepared), reason } => {
                let worked_out = WorkedOut::Taken(self.0.memory.take(*prepared));
                Ahead::Entity { entity_ref, version, at, worked_out, reason }
            }
            other => other,
        }
    }

    /// Takes what the follower was told; `lag` are the messages still to come.
    pub fn apply(&self, followed: Followed, lag: u64) {
        self.take(self.prepare(followed), lag);
    }

    /// Takes what was worked out, in the order in which the follower was told.
    pub(crate) fn take(&self, ahead: Ahead, lag: u64) {
        self.0.lag.store(lag, Relaxed);
        match ahead {
            Ahead::Entity { entity_ref, version, at, worked_out, reason } => {
                if !matches!(worked_out, WorkedOut::Known | WorkedOut::Taken(Applied::Known)) {
                    self.0.unprocessed.note(&entity_ref, reason);
                }
                self.take_entity(&entity_ref, version, at, worked_out);
            }
            Ahead::Told(followed) => self.take_told(followed),
        }
        if lag > 0 {
            return;
        }
        let announced = self.announced();
        if announced.is_some() {
            self.advance(|progress| progress.keep_promise(announced));
        }
        if self.has_caught_up() && !self.0.is_region {
            self.is_current();
        }
    }

    fn take_told(&self, followed: Followed) {
        match followed {
            // An entity is worked out. A watermark below 0 promises nothing.
            Followed::Entity(_) | Followed::Watermark(..0) => {}
            Followed::Watermark(revision) => self.advance(|progress| progress.announced = Some(revision)),
            Followed::CaughtUp => self.advance(|progress| progress.caught_up = true),
            Followed::Stream(stream) => {
                let _alone = self.ahead();
                self.0.hub.write().begin(stream, 0);
                self.0.progress.send_modify(|progress| {
                    // What stands in a stream that was made later is of that stream alone.
                    if progress.stream.replace(stream).is_some_and(|known| stream > known) {
                        progress.promised = None;
                    }
                });
            }
            // The watermark of the stream that was is no promise about this one.
            Followed::StreamReplaced => {
                let _alone = self.ahead();
                self.0.hub.write().begin_replay();
                self.0.memory.begin_replay();
                self.0.unprocessed.clear();
                self.0.progress.send_modify(|progress| {
                    progress.caught_up = false;
                    progress.replaying = true;
                    progress.announced = None;
                    progress.promised = progress.promised.max(progress.watermark.take());
                });
            }
        }
    }

    fn take_entity(&self, entity_ref: &str, version: i64, (sequence, stored): (u64, u64), worked_out: WorkedOut) {
        let is_watched = self.ready();
        // Held over both, so that whoever reads the log sees the memory as of its end.
        let mut log = self.0.hub.write();
        log.reach(sequence, stored);
        let applied = match worked_out {
            WorkedOut::Known => return,
            WorkedOut::Prepared(prepared) => self.0.memory.take(*prepared),
            WorkedOut::Taken(applied) => applied,
        };
        let change = match applied {
            Applied::Known => return,
            Applied::Newer(change) => change,
            Applied::Unreadable(reason, change) => {
                self.0.unreadable.fetch_add(1, Relaxed);
                tracing::error!("entity.ref" = entity_ref, "an entity cannot be served and is not shown: {reason}");
                change
            }
        };
        let memory::Change { before, after } = *change;
        match is_watched {
            true => log.push(Change {
                entity_ref: entity_ref.into(),
                version,
                before: before.map(|before| Arc::new(Told::new(before))),
                after: after.map(|after| Arc::new(Told::new(after))),
                place: None,
                complete: 0,
            }),
            false => log.note(entity_ref.into(), version),
        }
        drop(log);
        self.wake_watchers();
        self.0.waiting.wake(entity_ref);
    }

    fn wake_watchers(&self) {
        if let Some(pause) = self.0.hub.wake() {
            let state = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                state.0.hub.wake_now();
            });
        }
    }

    /// Moves forward; when the stream is told to its end *and* has a watermark, what a replay did not name is dropped:
    /// a stream without one is empty or half rebuilt, and would empty the catalog.
    fn advance(&self, step: impl FnOnce(&mut Progress)) {
        let ahead = self.ahead();
        let mut progress = self.progress();
        let before = progress;
        step(&mut progress);
        if progress.caught_up && progress.watermark.is_some() && *ahead == 0 {
            if std::mem::take(&mut progress.replaying) {
                self.end_replay();
            }
            if !std::mem::replace(&mut progress.ready, true) {
                tracing::info!(entities = self.entities(), "the reader has caught up");
            }
        }
        if progress != before {
            self.0.progress.send_replace(progress);
        }
    }

    fn end_replay(&self) {
        let mut log = self.0.hub.write();
        let dropped = self.0.memory.end_replay();
        log.end_replay(dropped > 0);
        drop(log);
        self.wake_watchers();
        tracing::warn!(entities = self.entities(), dropped, "the entity stream was replaced and is replayed");
    }

    /// Tells everyone who waits that the reader stops.
    pub(crate) fn stop(&self) {
        self.0.hub.stop();
    }

    /// The changes, for those who watch.
    pub(crate) fn hub(&self) -> &Hub {
        &self.0.hub
    }

    pub(crate) fn progress(&self) -> Progress {
        *self.0.progress.borrow()
    }

    /// Tells of each step of [`Progress`].
    pub(crate) fn follow_progress(&self) -> watch::Receiver<Progress> {
        self.0.progress.subscribe()
    }

    /// The entities, for a process that serves them in another way too.
    pub fn memory(&self) -> &Memory {
        &self.0.memory
    }

    /// Entities that were never processed successfully.
    pub(crate) fn unprocessed(&self) -> &Unprocessed {
        &self.0.unprocessed
    }

    pub(crate) fn waiting(&self) -> &Waiting {
        &self.0.waiting
    }

    /// A handle that does not keep the entities alive.
    pub(crate) fn observer(&self) -> Observer {
        Observer(Arc::downgrade(&self.0))
    }
}

impl Progress {
    /// Everything that stood in the stream is here since this was announced, so it holds.
    fn keep_promise(&mut self, announced: Option<i64>) {
        let Some(revision) = announced else { return };
        self.announced = self.announced.filter(|newer| *newer > revision);
        if self.caught_up || Some(revision) >= self.promised {
            self.promised = None;
            self.watermark = self.watermark.max(Some(revision));
        }
    }

    /// Whether the watermark can be relied on: nothing is shown that the stream does not hold.
    fn is_settled(&self) -> bool {
        self.caught_up && !self.replaying
    }

    /// Whether everything up to this revision is in the memory.
    pub fn includes(&self, revision: i64) -> bool {
        self.is_settled() && self.watermark.is_some_and(|watermark| revision <= watermark)
    }
}

/// What a metric's callback holds of a [`State`].
pub(crate) struct Observer(std::sync::Weak<Inner>);

impl Observer {
    /// The state, as long as the reader runs.
    pub fn state(&self) -> Option<State> {
        self.0.upgrade().map(State)
    }
}
