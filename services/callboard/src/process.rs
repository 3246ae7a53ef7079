//! A process of one or several roles: started, watched, and drained at the end.

use crate::failure::{Failure, tell};
use crate::health::Health;
use crate::roles::{self, Context, Role};
use crate::telemetry::Telemetry;
use crate::{config::Config, http};
use bus::Stopper;
use servers::Servers;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

/// How long roles may take to finish or give back what they hold.
const DRAIN: Duration = Duration::from_secs(10);
/// How often it is looked whether the servers of `up` still run.
const SERVERS_CHECK: Duration = Duration::from_secs(1);

/// Roles that run.
pub struct Process {
    /// Where health and metrics are served.
    pub http: SocketAddr,
    /// Where gRPC is served, once it is.
    pub grpc: watch::Receiver<Option<SocketAddr>>,
    roles: JoinSet<(Role, Result<(), Failure>)>,
    stopper: Stopper,
    health: Health,
    signals: Signals,
    servers: Option<Servers>,
}

/// Starts roles. `servers` are stopped after them.
///
/// # Errors
/// [`Failure::Usage`] when the HTTP port cannot be had.
pub async fn start(
    config: &Config,
    roles: &[Role],
    telemetry: &Telemetry,
    servers: Option<Servers>,
) -> Result<Process, Failure> {
    let signals = Signals::new()?;
    let (stopper, stop) = bus::stop();
    let health = Health::new(roles);
    let listener = http::listen(config.http_listen).await?;
    let http = listener.local_addr().map_err(Failure::runtime)?;
    tracing::info!(address = %http, "health and metrics are served over HTTP");
    tokio::spawn(http::serve(listener, health.clone(), telemetry.clone()));
    let (told, grpc) = watch::channel(None);
    let streams = Arc::new(watch::Sender::new(!roles.contains(&Role::Processor)));
    let context = Context { config: config.clone(), health: health.clone(), grpc: Arc::new(told), streams };
    let mut set = JoinSet::new();
    for role in roles.iter().copied() {
        let running = roles::run(role, context.clone(), stop.clone());
        let health = health.clone();
        set.spawn(async move {
            let outcome = running.await;
            health.ended(role);
            (role, outcome)
        });
    }
    Ok(Process { http, grpc, roles: set, stopper, health, signals, servers })
}

impl Process {
    /// Does something while everything runs; none: a signal came first.
    ///
    /// # Errors
    /// Its own, or that of a role or server that ended meanwhile.
    pub async fn meanwhile<T>(&mut self, work: impl Future<Output = Result<T, Failure>>) -> Result<Option<T>, Failure> {
        tokio::select! {
            done = work => done.map(Some),
            ended = self.until_ended() => ended.map(|()| None),
        }
    }

    /// Returns when a signal asks to stop.
    ///
    /// # Errors
    /// A role or server ended by itself.
    pub async fn until_ended(&mut self) -> Result<(), Failure> {
        loop {
            tokio::select! {
                () = self.signals.next() => return Ok(()),
                Some(ended) = self.roles.join_next() => return Err(ended_early(ended)),
                () = tokio::time::sleep(SERVERS_CHECK), if self.servers.is_some() => {
                    if let Some(error) = self.servers.as_mut().and_then(Servers::ended) {
                        return Err(error.into());
                    }
                }
            }
        }
    }

    /// Lets every role finish or give back what it holds, then stops the servers. A second signal ends the process at once.
    ///
    /// # Errors
    /// A role failed while it drained, or was not done in time.
    pub async fn stop(mut self) -> Result<(), Failure> {
        self.health.stopping();
        self.stopper.stop();
        tracing::info!("stopping: finishing or giving back what is in hand");
        let drained = tokio::select! {
            drained = tokio::time::timeout(DRAIN, drain(&mut self.roles)) => drained.unwrap_or_else(|_| Err(overdue())),
            () = self.signals.next() => {
                tell("callboard: a second signal came: ending at once; what was in hand is delivered again");
                std::process::exit(130);
            }
        };
        if let Some(servers) = self.servers.take() {
            servers.stop();
        }
        drained
    }
}

async fn drain(roles: &mut JoinSet<(Role, Result<(), Failure>)>) -> Result<(), Failure> {
    let mut outcome = Ok(());
    while let Some(ended) = roles.join_next().await {
        let ended = ended.map_err(Failure::runtime).and_then(|(_, ended)| ended);
        outcome = outcome.and(ended);
    }
    outcome
}

fn overdue() -> Failure {
    Failure::Runtime(format!("not drained after {} s: leaving; what is in hand is delivered again", DRAIN.as_secs()))
}

fn ended_early(ended: Result<(Role, Result<(), Failure>), JoinError>) -> Failure {
    match ended {
        Ok((_, Err(failure))) => failure,
        Ok((role, Ok(()))) => Failure::Runtime(format!("the {role} ended by itself")),
        Err(error) => Failure::Runtime(format!("a role ended: {error}")),
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Signals, Failure> {
        let hear = |kind| signal(kind).map_err(|error| Failure::Runtime(format!("cannot hear signals: {error}")));
        Ok(Signals { terminate: hear(SignalKind::terminate())?, interrupt: hear(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
