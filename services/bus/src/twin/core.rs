//! What the broker does, one thing after the other: streams, and the queue of what is to happen when.

use super::line::Wire;
use super::stream::Stream;
use super::{Kept, publish::Batch};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// The second at which a twin's clock begins: 2026-01-01.
const EPOCH: i64 = 1_767_225_600_000_000_000;

/// The twin's time as nanoseconds since 1970.
pub(super) fn stamp(now: u64) -> i64 {
    EPOCH.saturating_add(i64::try_from(now).unwrap_or(i64::MAX))
}

type Event = Box<dyn FnOnce(&mut Core) + Send>;

/// The broker's insides. Everything that changes them is an event of the queue.
#[derive(Default)]
pub(super) struct Core {
    pub now: u64,
    last_stamp: i64,
    pub streams: BTreeMap<String, Stream>,
    pub batches: BTreeMap<String, Batch>,
    pub history: Vec<Kept>,
    pub wires: Vec<Weak<Wire>>,
    queue: BTreeMap<(u64, u64), Event>,
    order: u64,
}

impl Core {
    /// A number that is never given twice.
    pub fn number(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    /// The time as it is stored: no two messages have the same.
    pub fn stamp(&mut self) -> i64 {
        self.last_stamp = stamp(self.now).max(self.last_stamp + 1);
        self.last_stamp
    }

    /// Has something done at a time, after all that is to be done then already; whether that is before everything else.
    pub fn push(&mut self, at: u64, event: impl FnOnce(&mut Core) + Send + 'static) -> bool {
        let order = self.number();
        let is_first = self.next_due().is_none_or(|first| at < first);
        self.queue.insert((at, order), Box::new(event));
        is_first
    }

    pub fn next_due(&self) -> Option<u64> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    pub fn run_due(&mut self, now: u64) {
        while let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= now
        {
            let ((at, _), event) = entry.remove_entry();
            self.now = self.now.max(at);
            event(self);
        }
        self.now = self.now.max(now);
    }

    pub fn restart(&mut self) {
        self.batches.clear();
        self.wires.retain(|wire| wire.strong_count() > 0);
        let wires: Vec<Arc<Wire>> = self.wires.iter().filter_map(Weak::upgrade).collect();
        wires.iter().for_each(|wire| wire.reset());
        let now = self.now;
        let mut held = Vec::new();
        for (name, stream) in &mut self.streams {
            held.extend(stream.restart(now).into_iter().map(|(durable, deadline)| (name.clone(), durable, deadline)));
        }
        for (stream, durable, deadline) in held {
            self.look_at(stream, durable, deadline);
        }
    }

    /// The stream that takes a subject.
    pub fn stream_of(&mut self, subject: &str) -> Option<&mut Stream> {
        self.streams.values_mut().find(|stream| stream.takes(subject))
    }

    /// Looks at a durable consumer again at a time: what was in somebody's hands too long is delivered again.
    pub fn look_at(&mut self, stream: String, durable: String, at: u64) {
        self.push(at, move |core| {
            let now = core.now;
            if let Some(consumer) = core.streams.get_mut(&stream).and_then(|found| found.consumers.get_mut(&durable)) {
                consumer.expire(now);
                core.serve(&stream, &durable);
            }
        });
    }
}
