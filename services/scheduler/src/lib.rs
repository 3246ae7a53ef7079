//! The scheduler role: periodic tasks, each run by one host at a time in the whole installation.
//!
//! Any number of hosts may run it. A task belongs to the host that holds its lease in the database, which renews it while it lives;
//! another takes over within [`LEASE`] after its death. Every task is harmless when two hosts run it at once for a moment.

mod check;
mod floor;
#[cfg(test)]
mod floor_test;
mod forget;
mod purge;
mod task;

use bus::{Bus, Stop};
use check::{Check, Rebuild};
use floor::Floor;
use forget::Forget;
use purge::Purge;
use std::time::Duration;
use store::Store;

/// How long a silent host keeps its tasks.
pub const LEASE: Duration = Duration::from_secs(6);

/// How the scheduler works.
#[derive(Clone, Debug)]
pub struct Config {
    /// This host's name, unique in the installation.
    pub host: String,
    /// How long settled events stay in their stream.
    pub keep_events: Duration,
    /// How often the checker takes a turn: 500 entities are compared, and one in 25 of them stitched again.
    pub check_every: Duration,
    /// Bytes of the event stream beyond which settled events go at once.
    pub events_bytes_full: u64,
}

/// Runs the tasks that this host holds until the stop signal, then gives them away.
pub async fn run(bus: Bus, store: Store, config: Config, stop: Stop) {
    let floor = Floor::new(&bus, &store);
    let purge = Purge::new(&bus, &store, config.keep_events, config.events_bytes_full);
    let forget = Forget::new(&store);
    let (check, rebuild) = (Check::new(&bus, &store), Rebuild::new(&store));
    tokio::join!(
        task::run("floor", Duration::from_millis(200), &store, &config.host, &stop, floor),
        task::run("purge", Duration::from_secs(5), &store, &config.host, &stop, purge),
        task::run("forget", Duration::from_secs(20), &store, &config.host, &stop, forget),
        task::run("rebuild", Duration::from_secs(1), &store, &config.host, &stop, rebuild),
        task::run("check", config.check_every, &store, &config.host, &stop, check),
    );
    if let Err(error) = store.drop_tasks(&config.host).await {
        tracing::debug!(%error, "the tasks are not given away; others take them when the lease is over");
    }
}

/// What ends a run of a task.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker.
    #[error(transparent)]
    Bus(#[from] bus::Error),
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
}
