//! What the processor counts and times, under Backstage's names where it has them.

use crate::decide::Plan;
use bus::{Item, Outcome};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram};
use std::time::{Instant, SystemTime};

pub(crate) struct Metrics {
    processed: Counter<u64>,
    duration: Histogram<f64>,
    queue_delay: Histogram<f64>,
    read_delay: Histogram<f64>,
    pub snapshots: Counter<u64>,
    pub withdrawn: Counter<u64>,
    conflicts: Counter<u64>,
}

impl Metrics {
    pub fn new() -> Self {
        let meter = opentelemetry::global::meter("callboard");
        Metrics {
            processed: meter
                .u64_counter("catalog.processed.entities.count")
                .with_description(
                    "Events processed, by result: changed, unchanged, errors, duplicate (had no effect), dead",
                )
                .build(),
            duration: meter
                .f64_histogram("catalog.processing.duration")
                .with_unit("s")
                .with_description("Time of one batch")
                .build(),
            queue_delay: meter
                .f64_histogram("catalog.processing.queue.delay")
                .with_unit("s")
                .with_description("From the moment an event was published to the moment a processor took it, by lane")
                .build(),
            read_delay: meter
                .f64_histogram("callboard.reads.queue.delay")
                .with_unit("s")
                .with_description("From the moment an outside read was due to the moment it began, by lane")
                .build(),
            snapshots: meter
                .u64_counter("callboard.snapshots")
                .with_description("Snapshots that came to an end, by result: done, held, timed_out")
                .build(),
            withdrawn: meter
                .u64_counter("callboard.snapshots.withdrawn")
                .with_description("Claims that snapshots have withdrawn")
                .build(),
            conflicts: meter
                .u64_counter("callboard.conflicts")
                .with_description("Events whose claim loses to another location key")
                .build(),
        }
    }

    pub fn read_taken(&self, lane: &'static str, taken: &[store::DueRead]) {
        for due in taken {
            self.read_delay.record(due.waited.as_secs_f64(), &[KeyValue::new("lane", lane)]);
        }
    }

    pub fn taken(&self, lane: &'static str, items: &[Item]) {
        let (now, labels) = (SystemTime::now(), [KeyValue::new("lane", lane)]);
        for item in items {
            let waited = now.duration_since(item.published).unwrap_or_default();
            self.queue_delay.record(waited.as_secs_f64(), &labels);
        }
    }

    pub fn handled(&self, plan: &Plan, outcomes: &[Outcome], started: Instant) {
        let dead = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Dead(_))).count() as u64;
        let counts = [
            ("changed", plan.changed),
            ("unchanged", plan.unchanged),
            ("errors", plan.errors),
            ("duplicate", plan.duplicates),
            ("dead", dead),
        ];
        for (result, count) in counts {
            if count > 0 {
                self.processed.add(count, &[KeyValue::new("result", result)]);
            }
        }
        if plan.conflicts > 0 {
            self.conflicts.add(plan.conflicts, &[]);
        }
        self.duration.record(started.elapsed().as_secs_f64(), &[]);
    }
}
