//! Each role with its own connections, from waiting for the servers to the last message that is given back.

use crate::catalog_file;
use crate::config::Config;
use crate::failure::Failure;
use crate::health::Health;
use bus::{Backoff, Bus, Stop};
use processor::Pipeline;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use store::Store;
use tokio::sync::watch;

/// What a process can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Takes events, merges claims.
    Processor,
    /// Builds final entities.
    Stitcher,
    /// Runs periodic tasks.
    Scheduler,
    /// Serves the catalog.
    Reader,
}

impl Role {
    /// Every role, as `up` runs them.
    pub const ALL: [Role; 4] = [Role::Processor, Role::Stitcher, Role::Scheduler, Role::Reader];

    /// Readers have the broker alone.
    pub fn needs_database(self) -> bool {
        self != Role::Reader
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Processor => "processor",
            Role::Stitcher => "stitcher",
            Role::Scheduler => "scheduler",
            Role::Reader => "reader",
        })
    }
}

/// What a role runs with.
#[derive(Clone)]
pub struct Context {
    /// The settings, with the addresses of the servers.
    pub config: Config,
    /// Is told what the role has.
    pub health: Health,
    /// Is told where gRPC is served.
    pub grpc: Arc<watch::Sender<Option<SocketAddr>>>,
    /// The streams stand. Beside a processor in the same process the others wait for it, and need not find none.
    pub streams: Arc<watch::Sender<bool>>,
}

/// Whether a role has the addresses that it needs.
///
/// # Errors
/// [`Failure::Usage`]: which is missing.
pub fn check(role: Role, config: &Config) -> Result<(), Failure> {
    match (&config.nats_url, &config.database_url) {
        (None, _) => Err(no_broker()),
        (_, None) if role.needs_database() => Err(no_database()),
        _ if role == Role::Processor => catalog_file::parts(config).map(|_| ()),
        _ => Ok(()),
    }
}

fn no_broker() -> Failure {
    Failure::Usage("no broker is given: set --nats-url or CALLBOARD_NATS_URL (nats://host:port), or run `callboard up`, which brings one".to_owned())
}

fn no_database() -> Failure {
    Failure::Usage("no database is given: set --database-url or CALLBOARD_DATABASE_URL (postgres://user:password@host:port/database)".to_owned())
}

/// Runs a role until the stop signal, and then finishes or gives back what is in hand. Waits for servers that are away.
///
/// # Errors
/// What no waiting can mend: a wrong address, refused credentials, a server that is too old, streams that stand in the way.
pub async fn run(role: Role, context: Context, stop: Stop) -> Result<(), Failure> {
    let Some(bus) = connect_bus(role, &context, &stop).await? else { return Ok(()) };
    context.health.has_bus(role, &bus);
    if role != Role::Processor {
        let mut streams = context.streams.subscribe();
        tokio::select! {
            _ = streams.wait_for(|stand| *stand) => {}
            () = stop.stopped() => {}
        }
    }
    let outcome = match role {
        Role::Reader => read(&context, bus.clone(), stop).await,
        _ => write(role, &context, bus.clone(), stop).await,
    };
    bus.close().await;
    outcome
}

/// None: stopped before the broker answered.
async fn connect_bus(role: Role, context: &Context, stop: &Stop) -> Result<Option<Bus>, Failure> {
    let config = &context.config;
    let options = bus::Options {
        url: config.nats_url.clone().ok_or_else(no_broker)?,
        installation: config.installation().to_owned(),
        credentials: config.credentials(),
        name: format!("callboard-{role}"),
        patience: None,
    };
    match Bus::connect(&options, stop).await {
        Ok(bus) => Ok(Some(bus)),
        Err(_) if stop.is_stopped() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn read(context: &Context, bus: Bus, stop: Stop) -> Result<(), Failure> {
    let snapshot = context.config.snapshot_file.clone();
    let every = context.config.snapshot_every;
    let config = reader::Config {
        snapshot: snapshot.map(|file| reader::SnapshotConfig { file, every }),
        max_behind: context.config.max_behind,
        mirror_of: context.config.mirror_of.clone(),
        ..reader::Config::new(context.config.grpc_listen)
    };
    let reader = reader::start(bus, config, stop).await.map_err(|error| match error {
        reader::Error::Listen { .. } => {
            Failure::Usage(format!("{error}; give another address, or port 0 for a free one"))
        }
        other => Failure::runtime(other),
    })?;
    context.health.has_reader(reader.state());
    context.grpc.send_replace(Some(reader.address()));
    reader.finished().await.map_err(Failure::runtime)
}

async fn write(role: Role, context: &Context, bus: Bus, stop: Stop) -> Result<(), Failure> {
    let Some(store) = connect_store(role, &context.config, &stop).await? else { return Ok(()) };
    context.health.has_store(role, &store);
    let config = &context.config;
    let streams = config.stream_limits();
    let outcome = match role {
        Role::Processor => {
            let config = processor::Config {
                batch_events: config.batch_events,
                streams,
                reads: config.reads(),
                snapshots: config.snapshots(),
                ..processor::Config::default()
            };
            let attached = processor::attach(&bus, &store, &config.streams, &stop).await;
            context.streams.send_replace(true);
            match attached {
                Ok(_) => match pipeline(&context.config, &bus) {
                    Ok(pipeline) => {
                        processor::run(bus, store.clone(), pipeline, config, stop).await.map_err(Failure::runtime)
                    }
                    Err(error) => Err(error),
                },
                Err(error) => Err(Failure::runtime(error)),
            }
        }
        Role::Stitcher => {
            stitcher::run(bus, store.clone(), stitcher::Config { streams, ..stitcher::Config::default() }, stop).await;
            Ok(())
        }
        _ => {
            scheduler::run(bus, store.clone(), scheduler_config(config), stop).await;
            Ok(())
        }
    };
    store.close().await;
    outcome
}

fn pipeline(config: &Config, bus: &Bus) -> Result<Pipeline, Failure> {
    Pipeline::new(catalog_file::parts(config)?, bus).map_err(Failure::usage)
}

/// Waits for a database that is away. None: stopped before it answered.
async fn connect_store(role: Role, config: &Config, stop: &Stop) -> Result<Option<Store>, Failure> {
    let options = store::Options {
        url: config.database_url.clone().ok_or_else(no_database)?,
        installation: config.installation().to_owned(),
        connections: config.database_connections,
        name: format!("callboard-{role}"),
    };
    let mut backoff = Backoff::default();
    let mut said = false;
    loop {
        let what = match Store::connect(&options).await {
            Ok(store) => return Ok(Some(store)),
            Err(error @ (store::Error::Away(_) | store::Error::Collision(_))) => error,
            Err(error) => return Err(error.into()),
        };
        if !std::mem::replace(&mut said, true) {
            tracing::warn!(%role, error = %what, "trying until the database answers");
        }
        if !stop.sleep(backoff.pause()).await {
            return Ok(None);
        }
    }
}

fn scheduler_config(config: &Config) -> scheduler::Config {
    // Three quarters: the rest is for what comes in before the next purge.
    let events_bytes_full = config.events_max_bytes.unsigned_abs() / 4 * 3;
    scheduler::Config {
        host: host(),
        keep_events: config.keep_events,
        check_every: config.check_every,
        events_bytes_full,
    }
}

/// A name that no other process of the installation has: a process number alone is 1 in every container.
fn host() -> String {
    let named = std::env::var("HOSTNAME").ok().or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    let name =
        named.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).unwrap_or_else(|| "host".to_owned());
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() & 0xff_ffff);
    format!("{name}/{}-{started:06x}", std::process::id())
}
