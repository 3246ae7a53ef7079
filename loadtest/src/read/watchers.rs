//! A thousand watchers of everything: how soon each is told of a change.

use super::frames::{Came, Connection};
use super::paced::{Latencies, paced_at};
use super::side::ReadSide;
use crate::Error;
use crate::generate::generate;
use crate::report::Report;
use api::v1::WatchEntitiesRequest;
use bus::Bus;
use futures::future::try_join_all;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Connections, over which the watchers are spread.
const CONNECTIONS: usize = 10;
/// How long the last change may take to the last watcher.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is told in this time is not measured: the reader takes the memory that a thousand watchers need, and the sockets their room.
pub(crate) const WARM_UP: Duration = Duration::from_secs(2);
/// Different entities that are changed in turn.
const TARGETS: usize = 2000;
/// Larger ones, in bytes once they are stitched, are left out: the most popular group of 100,000 entities has 160 KB, which are 160 MB to a thousand watchers.
const LARGEST: usize = 8 * 1024;

/// When each change was due: its version counts from the first.
struct Due {
    first: i64,
    at: RefCell<Vec<Instant>>,
}

/// What is measured.
pub(crate) struct Plan {
    pub address: String,
    pub watchers: usize,
    pub rate: f64,
    pub seconds: u64,
}

/// What was found: the latencies of all deliveries, and how many there were too few; and how soon the broker had each change.
pub(crate) struct Found {
    pub latencies: Latencies,
    pub accepted: Latencies,
    pub missing: usize,
}

impl Found {
    pub fn report(&self, report: &mut Report) {
        report.figure("watch_p50_ms", self.latencies.quantile_ms(0.5), "ms");
        report.figure("watch_p99_ms", self.latencies.quantile_ms(0.99), "ms");
        report.figure("watch_max_ms", self.latencies.quantile_ms(1.0), "ms");
        report.curve(self.latencies.curve("watch"));
        report.figure("watch_accepted_p99_ms", self.accepted.quantile_ms(0.99), "ms");
        report.figure("watch_deliveries", self.latencies.count() as f64, "");
        report.equal("changes that a watcher was not told", 0.0, self.missing as f64);
    }
}

/// Prepares the changes as a stitcher would write them, so that making them takes no time from the client.
pub(crate) fn changes(side: &ReadSide, seed: u64, plan: &Plan) -> Vec<bus::Record> {
    let count = (plan.rate * (plan.seconds + WARM_UP.as_secs()) as f64) as usize;
    let is_usual = |entity: &Value| {
        side.stitcher.record(&side.bus, entity, 0).is_some_and(|record| record.payload.len() <= LARGEST)
    };
    let targets: Vec<Value> = generate(seed, side.entities).filter(is_usual).take(TARGETS).collect();
    (0..count)
        .filter_map(|number| {
            let mut entity = targets[number % targets.len()].clone();
            entity["metadata"]["description"] = format!("change {number}").into();
            side.stitcher.record(&side.bus, &entity, side.version + 1 + number as i64)
        })
        .collect()
}

/// Watches and publishes; on the client's core.
pub(crate) async fn measure(plan: Plan, bus: Bus, changes: Vec<bus::Record>, first: i64) -> Result<Found, Error> {
    let due = Due { first, at: RefCell::new(Vec::with_capacity(changes.len())) };
    let watching = Watching {
        due,
        measured_from: first + (plan.rate * WARM_UP.as_secs_f64()) as i64,
        open: Cell::new(plan.watchers * changes.len()),
        latencies: RefCell::new(Latencies::new()),
    };
    let begun = (Cell::new(0), Notify::new());
    let mut connections = Vec::new();
    for number in 0..CONNECTIONS {
        let connection = Connection::open(&plan.address, "WatchEntities").await?;
        for _ in (number..plan.watchers).step_by(CONNECTIONS) {
            connection.ask(&WatchEntitiesRequest { changes_only: true, ..Default::default() });
        }
        connection.send().await?;
        connections.push(connection);
    }
    let reads = connections.iter().map(|connection| {
        connection.read(|_, came| {
            match came {
                Came::Message(message) => match version_of_change(message) {
                    Some(version) => watching.told(version),
                    // The first bookmark: from here on every change is told.
                    None => {
                        begun.0.set(begun.0.get() + 1);
                        begun.1.notify_one();
                    }
                },
                // Cut off: what it was not told stays open.
                Came::End => {}
            }
            watching.open.get() > 0
        })
    });
    let told = async {
        while begun.0.get() < plan.watchers {
            begun.1.notified().await;
        }
        let accepted = publish(&bus, &changes, &watching.due, plan.rate).await?;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while watching.open.get() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok::<Latencies, Error>(accepted)
    };
    // A connection ends when everything is told, or is lost.
    let lost = async { Ok::<Latencies, Error>(try_join_all(reads).await.map(|_| std::future::pending())?.await) };
    let accepted = tokio::select! {
        told = told => told?,
        lost = lost => lost?,
    };
    Ok(Found { missing: watching.open.get(), latencies: watching.latencies.into_inner(), accepted })
}

/// What the watchers are told.
struct Watching {
    due: Due,
    /// The first version that is not part of the warm-up.
    measured_from: i64,
    /// Deliveries that are still to come.
    open: Cell<usize>,
    latencies: RefCell<Latencies>,
}

impl Watching {
    fn told(&self, version: i64) {
        if version >= self.measured_from {
            let at = self.due.at.borrow()[(version - self.due.first) as usize];
            self.latencies.borrow_mut().record(at.elapsed());
        }
        self.open.set(self.open.get() - 1);
    }
}

/// The version of an event that tells a change; none: of another event.
fn version_of_change(mut message: &[u8]) -> Option<i64> {
    use prost::encoding::{WireType, decode_key, decode_varint};
    const CHANGE: u32 = 1;
    const VERSION: u32 = 5;
    let mut is_change = false;
    while !message.is_empty() {
        let (tag, wire_type) = decode_key(&mut message).ok()?;
        let number = decode_varint(&mut message).ok()?;
        if wire_type == WireType::LengthDelimited {
            is_change |= tag == CHANGE;
            message = message.get(number as usize..)?;
        } else if tag == VERSION && is_change {
            return Some(number as i64);
        }
    }
    None
}

/// Publishes each change when it is due, whether those before are on disk or not.
async fn publish(bus: &Bus, changes: &[bus::Record], due: &Due, rate: f64) -> Result<Latencies, Error> {
    let publish = |number: usize, at| {
        due.at.borrow_mut().push(at);
        async move { bus::publish(bus, &changes[number]).await.map(drop).map_err(Error::from) }
    };
    paced_at(rate, changes.len(), publish).await
}
