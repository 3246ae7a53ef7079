//! A thousand watchers of everything: how soon each is told of a change.

use super::calls::{Client, failed};
use super::paced::{Latencies, pacer};
use super::side::ReadSide;
use crate::Error;
use crate::generate::generate;
use crate::report::Report;
use api::v1::WatchEntitiesRequest;
use bus::Bus;
use prost::bytes::Bytes;
use serde_json::Value;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Connections, over which the watchers are spread.
const CONNECTIONS: usize = 10;
/// How long the last change may take to the last watcher.
const PATIENCE: Duration = Duration::from_secs(30);
/// Different entities that are changed in turn.
const TARGETS: usize = 2000;

/// An event of a watch, with the entity as bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Told {
    #[prost(bytes = "bytes", tag = "1")]
    pub change: Bytes,
    #[prost(int64, tag = "5")]
    pub version: i64,
}

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

/// What was found: the latencies of all deliveries, and how many there were too few.
pub(crate) struct Found {
    pub latencies: Latencies,
    pub missing: usize,
}

impl Found {
    pub fn report(&self, report: &mut Report) {
        report.figure("watch_p50_ms", self.latencies.quantile_ms(0.5), "ms");
        report.figure("watch_p99_ms", self.latencies.quantile_ms(0.99), "ms");
        report.figure("watch_max_ms", self.latencies.quantile_ms(1.0), "ms");
        report.curve(self.latencies.curve("watch"));
        report.figure("watch_deliveries", self.latencies.count() as f64, "");
        report.equal("changes that a watcher was not told", 0.0, self.missing as f64);
    }
}

/// Prepares the changes as a stitcher would write them, so that making them takes no time from the client.
pub(crate) fn changes(side: &ReadSide, seed: u64, plan: &Plan) -> Vec<bus::Record> {
    let count = (plan.rate * plan.seconds as f64) as usize;
    let targets: Vec<Value> = generate(seed, side.entities).take(TARGETS).collect();
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
    let due = Rc::new(Due { first, at: RefCell::new(Vec::with_capacity(changes.len())) });
    let latencies = Rc::new(RefCell::new(Latencies::new()));
    let local = tokio::task::LocalSet::new();
    let missing = local.run_until(async {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(Client::connect(&plan.address).await?);
        }
        let mut watchers = Vec::with_capacity(plan.watchers);
        for number in 0..plan.watchers {
            let request = WatchEntitiesRequest { changes_only: true, ..Default::default() };
            let client = &clients[number % CONNECTIONS];
            let mut told = client
                .stream::<_, Told>("WatchEntities", request)
                .await
                .map_err(|status| failed("WatchEntities", &status))?;
            // The bookmark: from here on every change is told.
            told.message().await.map_err(|status| failed("WatchEntities", &status))?;
            let (due, latencies, count) = (due.clone(), latencies.clone(), changes.len());
            watchers.push(tokio::task::spawn_local(async move {
                let mut open = count;
                while open > 0 {
                    let Ok(Some(event)) = told.message().await else { break };
                    if !event.change.is_empty() {
                        let at = due.at.borrow()[(event.version - due.first) as usize];
                        latencies.borrow_mut().record(at.elapsed());
                        open -= 1;
                    }
                }
                open
            }));
        }
        publish(&bus, &changes, &due, plan.rate).await?;
        let mut missing = 0;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        for watcher in watchers {
            missing += match tokio::time::timeout_at(deadline, watcher).await {
                Ok(Ok(open)) => open,
                _ => 1,
            };
        }
        Ok::<usize, Error>(missing)
    });
    let missing = missing.await?;
    drop(local);
    let latencies = Rc::try_unwrap(latencies).map(RefCell::into_inner).unwrap_or_else(|_| Latencies::new());
    Ok(Found { latencies, missing })
}

async fn publish(bus: &Bus, changes: &[bus::Record], due: &Due, rate: f64) -> Result<(), Error> {
    let mut pace = pacer(rate, changes.len());
    while let Some((number, at)) = pace.recv().await {
        due.at.borrow_mut().push(at);
        bus::publish(bus, &changes[number]).await?;
    }
    Ok(())
}
