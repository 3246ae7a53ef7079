//! Work in bounded pieces: other calls go on between them.

use std::time::{Duration, Instant};

/// What a call may work on before others go on. A lock is never held across the pause.
const STRETCH: Duration = Duration::from_micros(300);

/// When a call last let others go on.
#[derive(Debug)]
pub(crate) struct Pace(Instant);

impl Pace {
    /// A call begins to work.
    pub fn new() -> Pace {
        Pace(Instant::now())
    }

    /// Lets other calls go on, if this one has worked for long enough.
    pub async fn breathe(&mut self) {
        if self.0.elapsed() > STRETCH {
            tokio::task::yield_now().await;
            self.0 = Instant::now();
        }
    }
}
