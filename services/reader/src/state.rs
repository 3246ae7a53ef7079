//! What a reader knows: the entities, how far it has followed them, and who waits for more.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bus::Followed;
use tokio::sync::watch;

use crate::{
    memory::{Applied, Memory},
    waiting::Waiting,
};

/// A handle on what the reader knows; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct State(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    memory: Memory,
    progress: watch::Sender<Progress>,
    waiting: Waiting,
    lag: AtomicU64,
    unreadable: AtomicU64,
}

/// How far the reader has followed the stream of entities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Caught up with the stream and seen a watermark, once; a replay of a replaced stream does not take it back.
    pub ready: bool,
    /// Everything up to this revision is in the memory; none as long as that cannot be said.
    pub watermark: Option<i64>,
    /// Caught up with the stream as it is now.
    caught_up: bool,
    /// The stream was replaced, and what its replay does not name is still shown.
    replaying: bool,
}

impl State {
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

    /// The bytes of all entities' JSON.
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

    /// Takes what the follower was told; `lag` are the messages still to come.
    pub(crate) fn apply(&self, followed: Followed, lag: u64) {
        self.0.lag.store(lag, Relaxed);
        match followed {
            Followed::Entity(message) => {
                let entity_ref = message.entity_ref.clone();
                match self.0.memory.apply(message) {
                    Applied::Known => return,
                    Applied::Newer => {}
                    Applied::Unreadable(reason) => {
                        self.0.unreadable.fetch_add(1, Relaxed);
                        tracing::error!(
                            "entity.ref" = entity_ref,
                            "an entity cannot be served and is not shown: {reason}"
                        );
                    }
                }
                self.0.waiting.wake(&entity_ref);
            }
            Followed::Watermark(revision) => self.advance(|progress| {
                progress.watermark = progress.watermark.max(Some(revision));
            }),
            Followed::CaughtUp => self.advance(|progress| progress.caught_up = true),
            // The watermark of the stream that was is no promise about this one.
            Followed::StreamReplaced => {
                self.0.memory.begin_replay();
                self.0.progress.send_modify(|progress| {
                    progress.caught_up = false;
                    progress.replaying = true;
                    progress.watermark = None;
                });
            }
        }
    }

    /// Moves forward; when the stream is told to its end *and* has a watermark, what a replay did not name is dropped:
    /// a stream without one is empty or half rebuilt, and would empty the catalog.
    fn advance(&self, step: impl FnOnce(&mut Progress)) {
        let mut progress = self.progress();
        let before = progress;
        step(&mut progress);
        if progress.caught_up && progress.watermark.is_some() {
            if std::mem::take(&mut progress.replaying) {
                let dropped = self.0.memory.end_replay();
                tracing::warn!(entities = self.entities(), dropped, "the entity stream was replaced and is replayed");
            }
            if !std::mem::replace(&mut progress.ready, true) {
                tracing::info!(entities = self.entities(), "the reader has caught up");
            }
        }
        if progress != before {
            self.0.progress.send_replace(progress);
        }
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

    pub(crate) fn waiting(&self) -> &Waiting {
        &self.0.waiting
    }

    /// A handle that does not keep the entities alive.
    pub(crate) fn observer(&self) -> Observer {
        Observer(Arc::downgrade(&self.0))
    }
}

impl Progress {
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
