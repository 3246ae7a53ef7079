//! When the reader last had everything that stood in the stream.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// The newest moment of which that is known.
#[derive(Debug)]
pub(crate) struct Current {
    /// Times are counted from here.
    started: Instant,
    /// In milliseconds.
    at: AtomicU64,
}

impl Default for Current {
    fn default() -> Self {
        Current { started: Instant::now(), at: AtomicU64::new(0) }
    }
}

impl Current {
    /// Everything is here now.
    pub fn now(&self) {
        self.at.fetch_max(self.milliseconds(), Relaxed);
    }

    /// How long ago that was.
    pub fn behind(&self) -> Duration {
        Duration::from_millis(self.milliseconds().saturating_sub(self.at.load(Relaxed)))
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
