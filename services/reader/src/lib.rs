//! The reader role: holds the stitched catalog in memory, follows its stream, serves it over gRPC.

mod admission;
mod ancestry;
mod coalesce;
mod connections;
mod current;
mod facets;
mod follow;
mod get;
mod gone;
pub mod index;
mod list;
mod memory;
mod metrics;
mod pace;
mod page_token;
mod selection;
mod server;
mod service;
mod snapshot;
mod standing;
mod state;
mod stored;
#[cfg(test)]
mod tests;
mod traverse;
mod unprocessed;
mod waiting;
mod warm;
mod watch;

use std::{net::SocketAddr, time::Duration};

use bus::{Bus, Stop};
use tokio::{
    net::TcpListener,
    task::{JoinError, JoinHandle},
};

pub use memory::{Applied, Change, Memory, Place, Prepared, Stored};
pub use snapshot::SnapshotConfig;
pub use state::State;
pub use watch::watch_entities;

/// Bytes of entities in one reply; a single entity may be larger. Clients refuse replies of 4 MiB unless told otherwise.
const REPLY_LIMIT: usize = 3 * 1024 * 1024 + 512 * 1024;

/// What a reader has to be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to serve gRPC; port 0 takes a free one.
    pub grpc_listen: SocketAddr,
    /// How far behind the entity stream a reader may be to be asked: beyond it `/readyz` and gRPC health say so, and it goes on answering.
    pub max_behind: Duration,
    /// In a region: the JetStream domain of the writing region, of whose entity stream the region's broker keeps a mirror.
    pub mirror_of: Option<String>,
    /// Where snapshots are kept; none: each start reads the whole stream.
    pub snapshot: Option<SnapshotConfig>,
}

impl Config {
    /// A reader on this address, with everything else as it is by default.
    pub fn new(grpc_listen: SocketAddr) -> Config {
        Config { grpc_listen, max_behind: Duration::from_secs(120), mirror_of: None, snapshot: None }
    }
}

/// Why a reader ended, or could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("grpc_listen: cannot listen on {address}: {source}")]
    Listen {
        /// As it was configured.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The contract's descriptors cannot be served by reflection; a bug.
    #[error("the gRPC reflection cannot be built: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The mirror cannot be made.
    #[error(transparent)]
    Mirror(#[from] bus::Error),
    /// A task of the reader panicked; a bug.
    #[error("a task of the reader ended: {0}")]
    Task(#[from] JoinError),
}

/// A reader that runs.
#[derive(Debug)]
pub struct Reader {
    address: SocketAddr,
    state: State,
    server: JoinHandle<Result<(), Error>>,
    follower: JoinHandle<Result<(), Error>>,
    standing: JoinHandle<()>,
    warm: JoinHandle<()>,
}

/// Runs a reader until the stop. It follows the entities and serves them as soon as it has caught up.
pub async fn run(bus: Bus, config: Config, stop: Stop) -> Result<(), Error> {
    start(bus, config, stop).await?.finished().await
}

/// Starts a reader: when this returns it listens, and answers `UNAVAILABLE` until it is ready.
pub async fn start(bus: Bus, config: Config, stop: Stop) -> Result<Reader, Error> {
    let cannot_listen = |source| Error::Listen { address: config.grpc_listen, source };
    let listener = TcpListener::bind(config.grpc_listen).await.map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    let state = State::new(config.max_behind, config.mirror_of.is_some());
    metrics::observe(&state);
    tracing::info!(%address, "the reader serves gRPC");
    Ok(Reader {
        address,
        server: tokio::spawn(server::serve(state.clone(), listener, stop.clone())),
        warm: tokio::spawn(warm::keep(state.clone(), stop.clone())),
        standing: tokio::spawn(standing::ask(bus.clone(), config.mirror_of.clone(), state.clone(), stop.clone())),
        follower: tokio::spawn(follow::follow(bus, config, state.clone(), stop)),
        state,
    })
}

impl Reader {
    /// Where gRPC is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the reader knows, for a process to tell readiness, counts and lag.
    pub fn state(&self) -> State {
        self.state.clone()
    }

    /// Waits until the reader has ended: by the stop, or because something failed.
    pub async fn finished(self) -> Result<(), Error> {
        let server = async { self.server.await? };
        let follower = async { self.follower.await? };
        let standing = async { Ok(self.standing.await?) };
        let warm = async { Ok(self.warm.await?) };
        tokio::try_join!(server, follower, standing, warm).map(|_| ())
    }
}
