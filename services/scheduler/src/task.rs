//! One periodic task: its lease, its runs, its errors said once.

use crate::{Error, LEASE};
use bus::{Backoff, Stop};
use opentelemetry::KeyValue;
use std::time::Duration;
use store::Store;
use tokio::time::Instant;

/// What a task does at each of its turns.
pub(crate) trait Task {
    /// One run; looks for itself at what there is to do.
    async fn run(&mut self) -> Result<(), Error>;
}

/// Runs a task every period for as long as this host holds its lease.
pub(crate) async fn run(
    name: &'static str,
    period: Duration,
    store: &Store,
    host: &str,
    stop: &Stop,
    mut task: impl Task,
) {
    let runs = opentelemetry::global::meter("callboard")
        .u64_counter("backend_tasks.task.runs.count")
        .with_description("Runs of periodic tasks, by result")
        .build();
    let mut lease = Lease { store, name, host, renewed: None, said: false };
    let mut failed = false;
    let mut ended: Option<Result<(), String>> = None;
    let mut backoff = Backoff::new(period.max(Duration::from_millis(500)), Duration::from_secs(10));
    while !stop.is_stopped() {
        if !lease.hold(&mut ended).await {
            stop.sleep(LEASE / 3).await;
            continue;
        }
        // A run longer than the lease could overlap with another host's: it is cut, and goes on where it was at the next turn.
        let outcome = match tokio::time::timeout(LEASE / 2, task.run()).await {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(_) => Err(format!("took longer than {:?}", LEASE / 2)),
        };
        runs.add(
            1,
            &[
                KeyValue::new("taskId", name),
                KeyValue::new("result", if outcome.is_ok() { "completed" } else { "failed" }),
            ],
        );
        let pause = match &outcome {
            Ok(()) => {
                if std::mem::take(&mut failed) {
                    tracing::info!(task = name, "the task works again");
                }
                backoff.reset();
                period
            }
            Err(error) => {
                if !std::mem::replace(&mut failed, true) {
                    tracing::warn!(task = name, error, "the task failed; trying again");
                }
                backoff.pause()
            }
        };
        ended = Some(outcome);
        stop.sleep(pause).await;
    }
}

/// The lease of one task, as this host knows it.
struct Lease<'a> {
    store: &'a Store,
    name: &'static str,
    host: &'a str,
    renewed: Option<Instant>,
    said: bool,
}

impl Lease<'_> {
    /// Whether this host holds the lease now; renews it when a third of it is over, and notes the last run with it.
    async fn hold(&mut self, ended: &mut Option<Result<(), String>>) -> bool {
        if self.renewed.is_some_and(|at| at.elapsed() < LEASE / 3) {
            return true;
        }
        let asked = Instant::now();
        match self.store.take_task(self.name, self.host, LEASE, ended.take()).await {
            Ok(Some(_)) => {
                if self.renewed.is_none() {
                    tracing::info!(task = self.name, host = self.host, "this host runs the task");
                }
                self.renewed = Some(asked);
                self.said = false;
                true
            }
            Ok(None) => {
                self.renewed = None;
                false
            }
            Err(error) => {
                if !std::mem::replace(&mut self.said, true) {
                    tracing::warn!(task = self.name, %error, "the lease cannot be renewed; trying again");
                }
                // Until the lease is over nobody else takes it.
                self.renewed = self.renewed.filter(|at| at.elapsed() < LEASE * 2 / 3);
                self.renewed.is_some()
            }
        }
    }
}
