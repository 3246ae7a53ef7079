//! A twin of the broker in memory: what JetStream promises, no more, with each fault that a simulator wants and none of its own.
//!
//! It stands below the worker loop, the follower and everything else of this crate, in the place of async-nats. Its clock is tokio's, so
//! under paused time it is as fast as the work is; nothing in it is left to chance or to the order of a hash map.

mod client;
mod consumer;
mod core;
mod line;
mod link;
mod publish;
mod reading;
mod stream;

pub use line::Line;
pub(crate) use link::Link;

use crate::{Bus, Error, Names};
use bytes::Bytes;
use client::Client;
use core::Core;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use stream::Stream;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It takes this long.
    Delay(Duration),
    /// It does not arrive; who waits for an answer gets an error at once.
    Away,
    /// It arrives and takes effect, and who waits for an answer gets an error all the same.
    Ambiguous,
}

/// Decides what happens at each point; the points are the words in `src/twin`, such as `bus.publish`.
pub trait Faults: Send + Sync {
    /// Asked each time that something passes a point.
    fn at(&self, point: &'static str) -> Fault;
}

/// No fault, ever.
impl Faults for () {
    fn at(&self, _point: &'static str) -> Fault {
        Fault::None
    }
}

/// The broker. Clones share it.
#[derive(Clone)]
pub struct Twin(Arc<Shared>);

pub(crate) struct Shared {
    core: Mutex<Core>,
    faults: Arc<dyn Faults>,
    /// Something is to be done sooner than was known.
    sooner: Notify,
    began: Instant,
}

/// What a broker had stored at some time; by default, nothing.
#[derive(Clone, Default)]
pub struct Snapshot(BTreeMap<String, Stream>);

/// A message as it stood, or stands, in a stream.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The stream.
    pub stream: Arc<str>,
    /// Its sequence there.
    pub sequence: u64,
    /// When it was stored, in nanoseconds since 1970; never twice the same.
    pub stored: i64,
    /// The subject.
    pub subject: String,
    /// The headers.
    pub headers: async_nats::HeaderMap,
    /// The body.
    pub payload: Bytes,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Twin")
    }
}

impl Twin {
    /// A broker without streams. Nothing happens in it but while [`Twin::run`] is polled.
    pub fn new(faults: Arc<dyn Faults>) -> Twin {
        let shared = Shared { core: Mutex::default(), faults, sooner: Notify::new(), began: Instant::now() };
        Twin(Arc::new(shared))
    }

    /// Does what is due, for ever.
    pub async fn run(&self) {
        loop {
            let next = {
                let mut core = self.0.core();
                core.run_due(self.0.now());
                core.next_due()
            };
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(self.0.began + Duration::from_nanos(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.0.sooner.notified() => {}
                () = due => {}
            }
        }
    }

    /// A new connection, and what one may do to it.
    ///
    /// # Errors
    /// The installation's name cannot be one.
    pub fn connect(&self, installation: &str) -> Result<(Bus, Line), Error> {
        let names = Names::new(installation)?;
        let (line, connections) = Line::new(&self.0);
        let link = Link::Twin(Client::new(&self.0, &line));
        Ok((Bus { link, names, connections, life: Arc::default() }, line))
    }

    /// Ends and starts again with what is on disk: consumers that live in memory are gone, what was on its way is lost, and
    /// of the ids that were published only those of stored messages are known. The connections are made anew.
    pub fn restart(&self) {
        let mut core = self.0.core();
        core.now = self.0.now();
        core.restart();
    }

    /// What is stored now.
    pub fn snapshot(&self) -> Snapshot {
        let mut streams = self.0.core().streams.clone();
        streams.values_mut().for_each(|stream| stream.followers.clear());
        Snapshot(streams)
    }

    /// Goes back to an older state, and restarts. `Snapshot::default()` is an empty disk.
    pub fn restore(&self, snapshot: &Snapshot) {
        self.0.core().streams.clone_from(&snapshot.0);
        self.restart();
    }

    /// The messages that stand in a stream, oldest first.
    pub fn messages(&self, stream: &str) -> Vec<Kept> {
        let core = self.0.core();
        core.streams.get(stream).map(|found| found.kept(stream)).unwrap_or_default()
    }

    /// Every message that was ever stored, in that order.
    pub fn history(&self) -> Vec<Kept> {
        self.0.core().history.clone()
    }

    /// The time in nanoseconds since 1970, as the broker has it.
    pub fn time(&self) -> i64 {
        core::stamp(self.0.now())
    }
}

impl Shared {
    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nanoseconds since the twin began.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn instant(&self, at: u64) -> Instant {
        self.began + Duration::from_nanos(at)
    }
}
