//! Where changes come in and watchers look: the log under its lock, and who is to be woken.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use api::Error;
use tokio::{sync::watch, time::Instant};

use super::{
    Log,
    slice::{Slice, Slices},
};
use crate::selection::Selection;

/// What it costs to wake one watcher, whatever it is told, with some room for everything else: no more of them are woken in a second than that allows.
const WAKE_COST: Duration = Duration::from_micros(8);
/// Shorter pauses are none: timers go by milliseconds.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// How much is kept for watchers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Changes kept with what they changed, and the bytes of the entities in them.
    pub recent: usize,
    /// See `recent`.
    pub recent_bytes: usize,
    /// Changes of which the ref is kept: so far back can a watcher resume, and so far can a slow one fall behind.
    pub traces: usize,
    /// Watchers at once.
    pub watchers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { recent: 4096, recent_bytes: 64 << 20, traces: 1 << 18, watchers: 10_000 }
    }
}

/// What a watcher waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// The position of the newest change.
    pub end: u64,
    /// How far in the stream the reader is.
    pub sequence: u64,
    /// Counts the seconds.
    pub ticks: u64,
    /// The reader stops.
    pub stopping: bool,
}

/// When the watchers were woken last.
#[derive(Clone, Copy, Debug, Default)]
struct Woken {
    last: Option<Instant>,
    /// Somebody waits to wake them again.
    is_put_off: bool,
}

/// The log of changes, and those who follow it.
#[derive(Debug)]
pub(crate) struct Hub {
    log: RwLock<Log>,
    /// Wakes the watchers: the one thing that each of them waits for.
    news: watch::Sender<News>,
    limits: Limits,
    woken: Mutex<Woken>,
    slices: Mutex<Slices>,
    watchers: AtomicUsize,
    told: AtomicU64,
    cut_off: AtomicU64,
}

impl Default for Hub {
    fn default() -> Self {
        Hub::new(Limits::default())
    }
}

impl Hub {
    /// Nobody watches, nothing has changed.
    pub fn new(limits: Limits) -> Hub {
        Hub {
            log: RwLock::new(Log::new(limits)),
            news: watch::Sender::default(),
            woken: Mutex::default(),
            limits,
            slices: Mutex::default(),
            watchers: AtomicUsize::new(0),
            told: AtomicU64::new(0),
            cut_off: AtomicU64::new(0),
        }
    }

    /// The log, and with it the memory as of its end: whoever changes the memory holds the log for writing.
    pub fn read(&self) -> RwLockReadGuard<'_, Log> {
        self.log.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log, to apply changes to the memory and to note them.
    pub fn write(&self) -> RwLockWriteGuard<'_, Log> {
        self.log.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the watchers if there is anything new; or, if they are many and were woken a moment ago, gives how long to wait before
    /// [`Hub::wake_now`]: what comes meanwhile is then told together. None: that is done, or somebody waits already.
    pub fn wake(&self) -> Option<Duration> {
        let pause = WAKE_COST.saturating_mul(u32::try_from(self.watchers.load(Relaxed)).unwrap_or(u32::MAX));
        if pause >= SHORTEST_PAUSE {
            let mut woken = self.woken();
            if woken.is_put_off {
                return None;
            }
            let rest = woken.last.map_or(Duration::ZERO, |last| pause.saturating_sub(last.elapsed()));
            let rest = Some(rest).filter(|rest| !rest.is_zero());
            if rest.is_some() {
                woken.is_put_off = true;
                return rest;
            }
        }
        self.wake_now();
        None
    }

    fn woken(&self) -> MutexGuard<'_, Woken> {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the watchers if there is anything new.
    pub fn wake_now(&self) {
        *self.woken() = Woken { last: Some(Instant::now()), is_put_off: false };
        let (end, sequence) = self.read().news();
        self.news.send_if_modified(|known| {
            let news = News { end, sequence, ..*known };
            std::mem::replace(known, news) != news
        });
    }

    /// A second has passed: some watchers may owe a bookmark. One clock for all of them, since a timer each would be woken as often as they are.
    pub fn tick(&self) {
        self.news.send_modify(|news| news.ticks += 1);
    }

    /// Tells every watcher that the reader stops.
    pub fn stop(&self) {
        self.news.send_modify(|news| news.stopping = true);
    }

    /// Tells when there is anything new.
    pub fn follow(&self) -> watch::Receiver<News> {
        self.news.subscribe()
    }

    /// What watchers of a selection are told behind a position, if one of them has made it lately.
    pub fn slice(&self, from: u64, selection: &Selection) -> Option<Arc<Slice>> {
        self.slices().find(from, selection)
    }

    /// Keeps what a watcher has made, for the others.
    pub fn keep_slice(&self, slice: Arc<Slice>) {
        self.slices().keep(slice);
    }

    fn slices(&self) -> MutexGuard<'_, Slices> {
        self.slices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more watcher; refused if there are too many.
    pub fn enter(&self) -> Result<(), Error> {
        let limit = self.limits.watchers;
        let entered = self.watchers.fetch_update(Relaxed, Relaxed, |count| (count < limit).then_some(count + 1));
        entered.map(drop).map_err(|_| Error::TooManyWatchers { limit })
    }

    /// A watcher has gone.
    pub fn leave(&self) {
        self.watchers.fetch_sub(1, Relaxed);
    }

    /// A watcher was told so many events.
    pub fn tell(&self, events: u64) {
        self.told.fetch_add(events, Relaxed);
    }

    /// A watcher was cut off.
    pub fn cut_off(&self) {
        self.cut_off.fetch_add(1, Relaxed);
    }

    /// What has been counted.
    pub fn counts(&self) -> Counts {
        Counts {
            watchers: self.watchers.load(Relaxed) as u64,
            told: self.told.load(Relaxed),
            cut_off: self.cut_off.load(Relaxed),
        }
    }
}

/// What a hub tells about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Watchers now.
    pub watchers: u64,
    /// Events told since the start.
    pub told: u64,
    /// Watchers cut off since the start, because they were too slow.
    pub cut_off: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_watchers_are_woken_together_and_few_at_once() {
        let hub = Hub::default();
        // Of many, the first that has news waits for all who have news by then.
        for (watchers, expected) in [(10, [false, false, false]), (1000, [true, false, false])] {
            (hub.counts().watchers..watchers).for_each(|_| hub.enter().expect("there is room"));
            assert_eq!([0, 1, 2].map(|_| hub.wake().is_some()), expected, "{watchers} watchers");
        }
        hub.wake_now();
        assert_eq!(hub.wake(), Some(Duration::from_millis(8)));
        hub.wake_now();
        tokio::time::advance(Duration::from_millis(8)).await;
        assert_eq!(hub.wake(), None, "it is done");
        assert!(hub.wake().is_some());
    }
}
