//! What the stitcher counts and times, under Backstage's names where it has them.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use store::Request;
use tokio::time::Instant;

pub(crate) struct Metrics {
    stitched: Counter<u64>,
    requests: Counter<u64>,
    duration: Histogram<f64>,
    queue_delay: Histogram<f64>,
}

impl Metrics {
    pub fn new() -> Self {
        let meter = opentelemetry::global::meter("callboard");
        Metrics {
            stitched: meter
                .u64_counter("catalog.stitched.entities.count")
                .with_description("Entities stitched, by result: changed, unchanged, duplicate (had been stitched since it was asked), error")
                .build(),
            requests: meter.u64_counter("catalog.stitching.requests.count").with_description("Stitch requests taken").build(),
            duration: meter.f64_histogram("catalog.stitching.duration").with_unit("s").with_description("Time of one batch").build(),
            queue_delay: meter
                .f64_histogram("catalog.stitching.queue.delay")
                .with_unit("s")
                .with_description("From the moment a stitch was asked for to the moment a stitcher took it, by lane")
                .build(),
        }
    }

    pub fn taken<'a>(&self, lane: &'static str, requests: impl Iterator<Item = &'a Request>) {
        let (now, labels) = (SystemTime::now(), [KeyValue::new("lane", lane)]);
        for request in requests {
            let asked = UNIX_EPOCH + Duration::from_millis(u64::try_from(request.asked_at_ms).unwrap_or(0));
            self.queue_delay.record(now.duration_since(asked).unwrap_or_default().as_secs_f64(), &labels);
            self.requests.add(1, &[]);
        }
    }

    pub fn stitched(&self, result: &'static str, count: usize) {
        if count > 0 {
            self.stitched.add(count as u64, &[KeyValue::new("result", result)]);
        }
    }

    pub fn batch(&self, started: Instant) {
        self.duration.record(started.elapsed().as_secs_f64(), &[]);
    }
}
