//! A connection: what goes over it keeps its order, and may be late, held up, or lost with it.

use super::Shared;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// One end of a connection, for whoever wants to disturb it.
#[derive(Clone, Debug)]
pub struct Line {
    pub(super) wire: Arc<Wire>,
    shared: Weak<Shared>,
}

#[derive(Debug)]
pub(super) struct Wire {
    /// Rises with each connection that is made: what was sent over an earlier one is lost.
    epoch: watch::Sender<u64>,
    stalled_until: AtomicU64,
    /// When the last thing that was sent arrives, there and here: nothing overtakes it.
    outbound: AtomicU64,
    inbound: AtomicU64,
}

impl Line {
    pub(super) fn new(shared: &Arc<Shared>) -> (Line, watch::Receiver<u64>) {
        let (epoch, connections) = watch::channel(1);
        let zero = || AtomicU64::new(0);
        let wire = Arc::new(Wire { epoch, stalled_until: zero(), outbound: zero(), inbound: zero() });
        shared.core().wires.push(Arc::downgrade(&wire));
        (Line { wire, shared: Arc::downgrade(shared) }, connections)
    }

    /// Nothing comes or goes for a while, as if this process stood still; then all of it does, in order.
    pub fn stall(&self, duration: Duration) {
        if let Some(shared) = self.shared.upgrade() {
            let until = shared.now() + u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2);
            self.wire.stalled_until.fetch_max(until, Relaxed);
        }
    }

    /// The connection breaks, with all that is on its way, and is made anew.
    pub fn reset(&self) {
        self.wire.reset();
    }
}

impl Wire {
    pub fn epoch(&self) -> u64 {
        *self.epoch.borrow()
    }

    pub fn reset(&self) {
        self.epoch.send_modify(|epoch| *epoch += 1);
    }

    pub fn stalled_until(&self) -> u64 {
        self.stalled_until.load(Relaxed)
    }

    /// When what is sent now arrives at the broker.
    pub fn out(&self, now: u64, delay: u64) -> u64 {
        later(&self.outbound, (now + delay).max(self.stalled_until()))
    }

    /// When what the broker sends now arrives here.
    pub fn back(&self, now: u64, delay: u64) -> u64 {
        later(&self.inbound, (now + delay).max(self.stalled_until()))
    }
}

fn later(last: &AtomicU64, at: u64) -> u64 {
    last.fetch_max(at, Relaxed).max(at)
}
