//! What a reader tells about itself: entities by kind, how far behind it is, calls by rpc and code.

use std::time::Instant;

use opentelemetry::{
    KeyValue, global,
    metrics::{Histogram, Meter},
};
use tonic::Code;

use crate::state::State;

/// Upper bounds in seconds: from a look-up in memory to a call that waits for a revision.
const SECONDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 10.0];

/// Registers what is read from the state whenever metrics are collected; it does not keep the entities alive.
pub(crate) fn observe(state: &State) {
    let meter = global::meter("callboard");
    let observer = state.observer();
    meter
        .u64_observable_gauge("catalog_entities_count")
        .with_description("Entities in the catalog, by kind")
        .with_callback(move |gauge| {
            for (kind, count) in observer.state().into_iter().flat_map(|state| state.entities_by_kind()) {
                gauge.observe(count, &[KeyValue::new("kind", kind)]);
            }
        })
        .build();
    let observer = state.observer();
    meter
        .u64_observable_gauge("catalog.reader.lag")
        .with_unit("{message}")
        .with_description("Messages of the entity stream that the reader has still to take")
        .with_callback(move |gauge| {
            if let Some(state) = observer.state() {
                gauge.observe(state.lag(), &[]);
            }
        })
        .build();
    observe_behind(&meter, state);
    observe_watchers(&meter, state);
    let observer = state.observer();
    meter
        .i64_observable_gauge("catalog.reader.watermark")
        .with_description("The revision up to which the reader holds everything")
        .with_callback(move |gauge| {
            if let Some(watermark) = observer.state().and_then(|state| state.watermark()) {
                gauge.observe(watermark, &[]);
            }
        })
        .build();
    let observer = state.observer();
    meter
        .u64_observable_counter("catalog.reader.unreadable.count")
        .with_description("Messages of the entity stream whose body could not be served")
        .with_callback(move |counter| {
            if let Some(state) = observer.state() {
                counter.observe(state.unreadable(), &[]);
            }
        })
        .build();
}

fn observe_behind(meter: &Meter, state: &State) {
    let observer = state.observer();
    meter
        .f64_observable_gauge("catalog.reader.behind")
        .with_unit("s")
        .with_description(
            "How long ago everything that stood in the entity stream was here; in a region, in the mirror's origin",
        )
        .with_callback(move |gauge| {
            if let Some(state) = observer.state() {
                gauge.observe(state.behind().as_secs_f64(), &[]);
            }
        })
        .build();
}

fn observe_watchers(meter: &Meter, state: &State) {
    let observer = state.observer();
    meter
        .u64_observable_gauge("catalog.reader.watchers")
        .with_unit("{watcher}")
        .with_description("Watches that are open")
        .with_callback(move |gauge| {
            if let Some(state) = observer.state() {
                gauge.observe(state.hub().counts().watchers, &[]);
            }
        })
        .build();
    let observer = state.observer();
    meter
        .u64_observable_counter("catalog.reader.watch.events.count")
        .with_description("Changes and deletions told to watchers")
        .with_callback(move |counter| {
            if let Some(state) = observer.state() {
                counter.observe(state.hub().counts().told, &[]);
            }
        })
        .build();
    let observer = state.observer();
    meter
        .u64_observable_counter("catalog.reader.watch.cut_off.count")
        .with_description("Watches that were ended because the watcher was too slow")
        .with_callback(move |counter| {
            if let Some(state) = observer.state() {
                counter.observe(state.hub().counts().cut_off, &[]);
            }
        })
        .build();
}

/// Calls by rpc and code, with how long they took; a stream counts until it begins.
#[derive(Debug)]
pub(crate) struct Calls {
    duration: Histogram<f64>,
}

/// A call that is being answered.
pub(crate) struct Call<'a> {
    calls: &'a Calls,
    rpc: &'static str,
    since: Instant,
}

impl Calls {
    /// The instrument of the process's meter.
    pub fn new() -> Calls {
        let duration = global::meter("callboard")
            .f64_histogram("catalog.reader.call.duration")
            .with_unit("s")
            .with_description("From a call's request to its answer")
            .with_boundaries(SECONDS.to_vec())
            .build();
        Calls { duration }
    }

    /// A call begins.
    pub fn begin(&self, rpc: &'static str) -> Call<'_> {
        Call { calls: self, rpc, since: Instant::now() }
    }
}

impl Call<'_> {
    /// The call is answered with this code.
    pub fn end(self, code: Code) {
        let attributes = [KeyValue::new("rpc", self.rpc), KeyValue::new("code", name(code))];
        self.calls.duration.record(self.since.elapsed().as_secs_f64(), &attributes);
    }
}

/// A code's name, as `Debug` writes it, without making a text for each call.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "Ok",
        Code::Cancelled => "Cancelled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
