//! How long to wait before the next try: exponential, with jitter, for ever.

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Growing pauses between tries of one thing. Only the calculator of the `backoff` crate is used, never its sleeping, its chance or its giving up.
#[derive(Debug)]
pub struct Backoff(ExponentialBackoff);

impl Backoff {
    /// Pauses from about `first` up to about `longest`, each half as long again as the one before, give or take half.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Backoff(ExponentialBackoff {
            current_interval: first,
            initial_interval: first,
            max_interval: longest,
            randomization_factor: 0.0,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(self.0.max_interval).mul_f64(0.5 + chance())
    }

    /// Starts again from the first pause: the thing succeeded.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

/// From 0 to 1: what the standard library keys its hash maps with, so that whoever decides over these decides over pauses too.
fn chance() -> f64 {
    f64::from((RandomState::new().hash_one(0) >> 32) as u32) / f64::from(u32::MAX)
}

impl Default for Backoff {
    /// From 100 ms to 5 s.
    fn default() -> Self {
        Backoff::new(Duration::from_millis(100), Duration::from_secs(5))
    }
}
