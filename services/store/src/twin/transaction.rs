//! One transaction of one process on the twin: its statements, how they wait for locks, what goes wrong on the way, and its end.

use super::database::{Database, Key, Moment};
use super::table::Tid;
use super::{Fault, Faults, Shared};
use crate::Error;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// As the connections of `connect.rs` set them, and PostgreSQL's own `deadlock_timeout`.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
const DEADLOCK_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Transaction {
    shared: Arc<Shared>,
    faults: Arc<dyn Faults>,
    pub tid: Tid,
    /// `set local lock_timeout`.
    pub lock_timeout: Duration,
    /// What goes wrong with the statement that runs, and since when it does.
    fault: Fault,
    since: Instant,
    /// The server does not know that its client is gone.
    is_cut: bool,
    _connection: tokio::sync::OwnedSemaphorePermit,
}

/// The tables and locks, while nobody else looks at them, and who looks.
pub(super) struct View<'a> {
    pub database: MutexGuard<'a, Database>,
    pub tid: Tid,
    /// `clock_timestamp()`.
    pub now: Moment,
}

impl View<'_> {
    /// `now()`: when the transaction began.
    pub fn began(&self) -> Moment {
        self.database.running(self.tid).map_or(self.now, |running| running.began)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.is_cut {
            self.end(false);
        }
    }
}

impl Transaction {
    pub fn begin(
        shared: Arc<Shared>,
        faults: Arc<dyn Faults>,
        connection: tokio::sync::OwnedSemaphorePermit,
    ) -> Transaction {
        let now = shared.now();
        let tid = shared.lock().begin(now);
        Transaction {
            shared,
            faults,
            tid,
            lock_timeout: LOCK_TIMEOUT,
            fault: Fault::None,
            since: Instant::now(),
            is_cut: false,
            _connection: connection,
        }
    }

    pub fn view(&self) -> View<'_> {
        let now = self.shared.now();
        View { database: self.shared.lock(), tid: self.tid, now }
    }

    /// A statement begins.
    pub async fn enter(&mut self, point: &'static str) -> Result<(), Error> {
        self.fault = self.faults.at(point);
        self.travel().await;
        match self.fault {
            Fault::Lost => {
                self.end(false);
                return Err(away(point));
            }
            Fault::Cut => {
                self.is_cut = true;
                return Err(away(point));
            }
            Fault::None | Fault::Delay(_) | Fault::Ambiguous => {}
        }
        self.since = Instant::now();
        let mut database = self.shared.lock();
        database.end_idle();
        self.shared.changed.notify_waiters();
        match database.running(self.tid) {
            None => return Err(Error::Away("the transaction did nothing for too long (25P03)".into())),
            Some(running) if running.failed => {
                return Err(Error::Refused("current transaction is aborted (25P02)".into()));
            }
            Some(_) => database.set_busy(self.tid, true),
        }
        Ok(())
    }

    /// The statement is done, and its answer on the way.
    pub async fn leave(&mut self) -> Result<(), Error> {
        self.shared.lock().set_busy(self.tid, false);
        self.travel().await;
        match self.fault {
            Fault::Ambiguous => {
                self.end(false);
                Err(away("an answer"))
            }
            _ => Ok(()),
        }
    }

    /// A statement that waits for nothing.
    pub async fn run<T>(&mut self, point: &'static str, body: impl FnOnce(View<'_>) -> T) -> Result<T, Error> {
        self.enter(point).await?;
        let found = body(self.view());
        self.leave().await?;
        Ok(found)
    }

    /// Commits, as the end of the statement that runs.
    pub async fn finish(mut self) -> Result<(), Error> {
        self.end(true);
        self.leave().await
    }

    /// Commits, as a statement of its own.
    pub async fn commit(mut self, point: &'static str) -> Result<(), Error> {
        self.enter(point).await?;
        self.finish().await
    }

    /// Half of the delay is on the way there, half on the way back.
    async fn travel(&self) {
        if let Fault::Delay(delay) = self.fault {
            tokio::time::sleep(delay / 2).await;
        }
    }

    fn end(&mut self, is_committed: bool) {
        self.shared.lock().end(self.tid, is_committed);
        self.shared.changed.notify_waiters();
    }

    /// Takes the lock of a row, waiting for whoever holds it.
    pub async fn lock(&mut self, key: Key) -> Result<(), Error> {
        let since = Instant::now();
        let mut was_checked = false;
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let Some(until) = self.try_to_lock(&key, since, &mut was_checked)? else { return Ok(()) };
            let _ = tokio::time::timeout_at(until, changed).await;
        }
    }

    /// None: it is held. Else until when to wait at most before looking again.
    fn try_to_lock(&self, key: &Key, since: Instant, was_checked: &mut bool) -> Result<Option<Instant>, Error> {
        let mut database = self.shared.lock();
        database.end_idle();
        if database.lock_or_queue(self.tid, key) {
            return Ok(None);
        }
        let (now, failed) = (Instant::now(), |what: &str| Err(Error::Collision(what.to_owned())));
        if now >= since + self.lock_timeout {
            database.fail(self.tid);
            return failed("canceling statement due to lock timeout (55P03)");
        }
        if now >= self.since + STATEMENT_TIMEOUT {
            database.fail(self.tid);
            return failed("canceling statement due to statement timeout (57014)");
        }
        if now >= since + DEADLOCK_TIMEOUT && !*was_checked {
            *was_checked = true;
            if database.is_deadlock(self.tid) {
                database.deadlocks += 1;
                database.fail(self.tid);
                return failed("deadlock detected (40P01)");
            }
        }
        let ends =
            [Some(since + self.lock_timeout), Some(self.since + STATEMENT_TIMEOUT), database.holder_ends_at(key)];
        let ends = ends.into_iter().chain([(!*was_checked).then_some(since + DEADLOCK_TIMEOUT)]);
        Ok(ends.flatten().min())
    }
}

fn away(point: &str) -> Error {
    Error::Away(format!("the connection was lost ({point})"))
}
