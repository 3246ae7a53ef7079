//! The twin: the truth in memory, for the simulator, behind the same methods and errors as PostgreSQL, one function a statement.
//!
//! What it has of PostgreSQL is what the roles rely on, each rule with a test that runs against both (`tests`):
//! * A statement sees what was committed before it, and what its own transaction wrote. A row that had to be waited for is looked at anew.
//! * What is written is locked until the transaction ends, in the order in which the statement locks. Who waits longest comes first; a wait ends
//!   after the connections' `lock_timeout`, a deadlock after a second, and both are a [`crate::Error::Collision`].
//! * A transaction that is dropped has done nothing; one whose client does nothing for half a minute is ended.
//! * Numbers from a sequence are never given back; a transaction's `xid` is, until it ends, in progress in the snapshots of others.
//!
//! Everything is in the order of the keys, and time is tokio's, so that one seed gives one run. Not in it: the disk, plans, migrations.

mod database;
mod floor;
mod merge;
mod outbox;
mod reads;
mod removal;
mod repair;
mod snapshots;
mod stitch;
mod streams;
mod table;
mod tasks;
mod transaction;
mod view;
mod walk;

pub use merge::Merge;
pub(crate) use stitch::Stitching;

use crate::Error;
use database::{Database, Moment};
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use transaction::Transaction;

/// What the database's clock says when it begins, in microseconds since 1970.
const BEGINNING: Moment = 1_767_225_600_000_000;
/// Connections of one process at most, and how long one waits for one: as `connect.rs` has it.
const CONNECTIONS: usize = 8;
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// What goes wrong between a process and the database, decided call by call.
pub trait Faults: Send + Sync + Debug {
    /// Of a call, by its name: `take_task`, `merge.read_claims`, `merge.commit`, `stitching.commit`.
    fn at(&self, point: &'static str) -> Fault;
}

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It takes as long as that: half of it before it takes effect, half after.
    Delay(Duration),
    /// The connection is lost before it takes effect; the transaction has done nothing.
    Lost,
    /// As lost, but the server does not learn of it: what the transaction has locked stays locked until it has done nothing for half a minute.
    Cut,
    /// It takes effect, and then the connection is lost: of a commit nobody tells whether it was one.
    Ambiguous,
}

/// Nothing ever goes wrong.
#[derive(Clone, Copy, Debug)]
pub struct NoFaults;

impl Faults for NoFaults {
    fn at(&self, _point: &'static str) -> Fault {
        Fault::None
    }
}

/// One database, to which simulated processes connect.
#[derive(Clone, Debug)]
pub struct Twin {
    shared: Arc<Shared>,
}

/// The database as its connections share it.
#[derive(Debug)]
struct Shared {
    database: Mutex<Database>,
    /// Some transaction has ended.
    changed: Notify,
    began: Instant,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Database> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database's clock. It never shows the same twice, as PostgreSQL's never does to what comes after one another.
    fn now(&self) -> Moment {
        let elapsed = BEGINNING.saturating_add(micros(self.began.elapsed()));
        let mut database = self.lock();
        database.shown = elapsed.max(database.shown + 1);
        database.shown
    }
}

impl Default for Twin {
    fn default() -> Self {
        Twin::new()
    }
}

impl Twin {
    /// An empty database, as it is after its migrations. Within a tokio runtime, whose clock is its clock.
    pub fn new() -> Twin {
        let database = Mutex::new(Database::new(BEGINNING));
        Twin { shared: Arc::new(Shared { database, changed: Notify::new(), began: Instant::now() }) }
    }

    /// How often transactions have waited for each other.
    pub fn deadlocks(&self) -> u64 {
        self.shared.lock().deadlocks
    }

    /// How many transactions are running.
    pub fn running(&self) -> usize {
        self.shared.lock().count_running()
    }

    /// What one process has of it.
    pub fn connect(&self, faults: Arc<dyn Faults>) -> crate::Store {
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        Store { shared: self.shared.clone(), faults, connections, closed: Arc::default() }.into()
    }
}

/// The store of one process over the twin. Clones share its connections.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    shared: Arc<Shared>,
    faults: Arc<dyn Faults>,
    connections: Arc<Semaphore>,
    closed: Arc<AtomicBool>,
}

impl Store {
    /// Whether the database answers.
    pub async fn is_reachable(&self) -> bool {
        self.alone("is_reachable", |_| ()).await.is_ok()
    }

    /// Gives no connection any more.
    pub async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// A transaction on a connection of its own.
    async fn begin(&self) -> Result<Transaction, Error> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::Away("the connections are closed".into()));
        }
        let connection = tokio::time::timeout(CONNECTION_TIMEOUT, self.connections.clone().acquire_owned()).await;
        let connection = connection.ok().and_then(Result::ok);
        let connection = connection.ok_or_else(|| Error::Away("no connection became free in time".into()))?;
        Ok(Transaction::begin(self.shared.clone(), self.faults.clone(), connection))
    }

    /// A transaction whose only statement begins.
    async fn statement(&self, point: &'static str) -> Result<Transaction, Error> {
        let mut transaction = self.begin().await?;
        transaction.enter(point).await?;
        Ok(transaction)
    }

    /// A statement that is alone in its transaction, and waits for nothing.
    async fn alone<T>(&self, point: &'static str, body: impl FnOnce(transaction::View<'_>) -> T) -> Result<T, Error> {
        let transaction = self.statement(point).await?;
        let found = body(transaction.view());
        transaction.finish().await?;
        Ok(found)
    }
}

fn micros(duration: Duration) -> Moment {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn seconds(duration: Moment) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "microseconds of a run")]
    let micros = duration as f64;
    micros / 1e6
}
