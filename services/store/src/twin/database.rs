//! The tables of `schemas/postgres`, the locks on their rows, and the transactions that are running.

use super::table::{Table, Tid};
use crate::stitch::Snapshot;
use crate::{Gap, RepairState, StreamPosition};
use catalog::claims::{Claim, Revision};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// A moment of the database's clock: microseconds since 1970.
pub(super) type Moment = i64;
/// How long a transaction may wait for its client: `idle_in_transaction_session_timeout` of the connections.
const IDLE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Default)]
pub(super) struct Entity {
    pub entity_ref: String,
    pub born: Option<Revision>,
    pub settled_born: Option<Revision>,
    pub winner: Option<String>,
    pub revision: Revision,
    pub emitted: Option<Revision>,
    pub orphan_since: Option<Moment>,
}

#[derive(Clone, Debug)]
pub(super) struct ClaimOf {
    pub newest: Revision,
    pub present: bool,
    pub released: bool,
    pub key: Option<String>,
    pub hash: Option<String>,
    pub claim: Claim,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub body: Option<Vec<u8>>,
    pub raw: Option<Vec<u8>>,
    pub error: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Stitched {
    pub version: i64,
    pub sequence: u64,
    pub hash: Option<String>,
    pub seen: Option<Snapshot>,
    pub not_before: Option<Moment>,
}

#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub lane: String,
    pub revision: Revision,
    pub transaction: i64,
    pub entity_ids: Vec<i64>,
    pub asked_at: Moment,
    pub sequence: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct Floor {
    pub revision: Revision,
    pub forget_through: Revision,
    pub noted: Revision,
    pub noted_at: Moment,
}

#[derive(Clone, Debug)]
pub(super) struct Task {
    pub holder: Option<String>,
    pub held_until: Moment,
    pub last_run: Option<Moment>,
    pub last_error: Option<String>,
    pub runs: i64,
}

#[derive(Clone, Debug)]
pub(super) struct FullMutation {
    pub state: String,
    pub reason: Option<String>,
    pub begun: Revision,
    pub ended: Option<Revision>,
    pub count: Option<i64>,
    pub swept_at: Option<Revision>,
    pub swept_through: i64,
    pub withdrawn: i64,
    pub taken_until: Moment,
    pub began_at: Moment,
    pub closed_at: Option<Moment>,
}

#[derive(Clone, Debug)]
pub(super) struct Part {
    pub highest: Revision,
    pub parts: i64,
    pub refused: bool,
    pub noted_at: Moment,
}

#[derive(Clone, Debug)]
pub(super) struct Due {
    pub hash: String,
    pub asked: Revision,
    pub asked_at: Moment,
    pub lane: String,
    pub due_at: Moment,
    pub lease: i64,
    pub leased_until: Option<Moment>,
    pub notes: Option<String>,
    pub failures: i32,
}

#[derive(Clone, Debug)]
pub(super) struct Repair {
    pub rebuild_after: Option<i64>,
    pub state: RepairState,
}

/// Under which pipeline claims are processed, and how far the walk over them has got; none: it is over.
#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    pub fingerprint: String,
    pub walked_to: Option<i64>,
    pub leased_until: Option<Moment>,
}

/// What is locked: a row by its primary key, or, of `Ref`, the place of a ref that somebody may be about to insert.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Ref(String),
    Entity(i64),
    Claim(i64, String),
    Content(i64, String),
    Stitched(i64),
    Ask(i64),
    Read(i64, String),
    Refreshed(String, i64, String),
    Cascade(i64, String),
    Snapshot(String, String),
    Part(String, String, Revision),
    Stream(String),
    Task(String),
    Floor,
    Repair,
    Pipeline,
}

#[derive(Debug)]
struct Lock {
    owner: Tid,
    queue: VecDeque<Tid>,
}

/// A transaction that is running.
#[derive(Debug)]
pub(super) struct Running {
    /// Given with its first lock or write.
    pub xid: Option<i64>,
    /// `now()`.
    pub began: Moment,
    /// A statement has failed: nothing but the end is possible.
    pub failed: bool,
    /// Since when nobody has called; none: a statement runs.
    idle_since: Option<Instant>,
    waits_for: Option<Key>,
    holds: BTreeSet<Key>,
}

#[derive(Debug)]
pub(super) struct Database {
    pub floor: Table<(), Floor>,
    pub streams: Table<String, StreamPosition>,
    pub refs: Table<String, i64>,
    pub entities: Table<i64, Entity>,
    pub claims: Table<(i64, String), ClaimOf>,
    pub contents: Table<(i64, String), Content>,
    /// Originator, subject, type and target, and how many rows are like that.
    pub relations: Table<(i64, i64, String, String), usize>,
    pub stitched: Table<i64, Stitched>,
    pub outbox: Table<i64, Ask>,
    pub tasks: Table<String, Task>,
    pub snapshots: Table<(String, String), FullMutation>,
    pub parts: Table<(String, String, Revision), Part>,
    pub reads: Table<(i64, String), Due>,
    pub refresh_keys: Table<(String, i64, String), ()>,
    pub cascade: Table<(i64, String), Revision>,
    pub gaps: Table<i64, (Gap, Moment)>,
    pub repair: Table<(), Repair>,
    pub pipeline: Table<(), Pipeline>,
    /// Sequences are outside of transactions: what was given is never given again.
    pub entity_ids: i64,
    pub outbox_ids: i64,
    pub gap_ids: i64,
    pub versions: i64,
    /// What the clock has shown last.
    pub shown: Moment,
    /// How often transactions have waited for each other.
    pub deadlocks: u64,
    locks: BTreeMap<Key, Lock>,
    running: BTreeMap<Tid, Running>,
    next_tid: Tid,
    next_xid: i64,
    newest_ended: i64,
}

impl Database {
    pub fn new(now: Moment) -> Database {
        let floor = Floor { revision: 0, forget_through: 0, noted: 0, noted_at: now };
        let state = RepairState { is_rebuilding: false, checked_after: 0, rounds: 0, mended: 0 };
        Database {
            floor: Table::with((), floor),
            streams: Table::default(),
            refs: Table::default(),
            entities: Table::default(),
            claims: Table::default(),
            contents: Table::default(),
            relations: Table::default(),
            stitched: Table::default(),
            outbox: Table::default(),
            tasks: Table::default(),
            snapshots: Table::default(),
            parts: Table::default(),
            reads: Table::default(),
            refresh_keys: Table::default(),
            cascade: Table::default(),
            gaps: Table::default(),
            repair: Table::with((), Repair { rebuild_after: None, state }),
            pipeline: Table::default(),
            entity_ids: 0,
            outbox_ids: 0,
            gap_ids: 0,
            versions: 0,
            shown: now,
            deadlocks: 0,
            locks: BTreeMap::new(),
            running: BTreeMap::new(),
            next_tid: 1,
            // PostgreSQL's own first ones are taken by its start.
            next_xid: 3,
            newest_ended: 2,
        }
    }

    pub fn begin(&mut self, now: Moment) -> Tid {
        let tid = self.next_tid;
        self.next_tid += 1;
        let running = Running {
            xid: None,
            began: now,
            failed: false,
            idle_since: Some(Instant::now()),
            waits_for: None,
            holds: BTreeSet::new(),
        };
        self.running.insert(tid, running);
        tid
    }

    pub fn count_running(&self) -> usize {
        self.running.len()
    }

    /// None: it was ended, for it did nothing for too long.
    pub fn running(&self, tid: Tid) -> Option<&Running> {
        self.running.get(&tid)
    }

    /// Whether a statement runs in it, or else since when none does.
    pub fn set_busy(&mut self, tid: Tid, is_busy: bool) {
        if let Some(running) = self.running.get_mut(&tid) {
            running.idle_since = (!is_busy).then(Instant::now);
        }
    }

    /// The transaction's `xid`, which it has from its first lock or write on.
    pub fn xid(&mut self, tid: Tid) -> i64 {
        let Some(running) = self.running.get_mut(&tid) else { return 0 };
        *running.xid.get_or_insert_with(|| {
            self.next_xid += 1;
            self.next_xid - 1
        })
    }

    /// What `pg_current_snapshot()` gives to a statement that begins now.
    pub fn snapshot(&self) -> Snapshot {
        let xmax = self.newest_ended + 1;
        let running = self.running.values().filter_map(|running| running.xid);
        let mut in_progress: Vec<i64> = running.filter(|xid| *xid < xmax).collect();
        in_progress.sort_unstable();
        Snapshot { xmin: in_progress.first().copied().unwrap_or(xmax), xmax, in_progress }
    }

    /// Takes a lock if it is free, and says whether it is held.
    pub fn try_lock(&mut self, tid: Tid, key: &Key) -> bool {
        let lock = self.locks.entry(key.clone()).or_insert(Lock { owner: tid, queue: VecDeque::new() });
        if lock.owner != tid {
            return false;
        }
        if let Some(running) = self.running.get_mut(&tid) {
            running.waits_for = None;
            running.holds.insert(key.clone());
        }
        self.xid(tid);
        true
    }

    /// Takes a lock, or a place in the queue for it, and says whether it is held.
    pub fn lock_or_queue(&mut self, tid: Tid, key: &Key) -> bool {
        if self.try_lock(tid, key) {
            return true;
        }
        if let Some(lock) = self.locks.get_mut(key).filter(|lock| !lock.queue.contains(&tid)) {
            lock.queue.push_back(tid);
        }
        if let Some(running) = self.running.get_mut(&tid) {
            running.waits_for = Some(key.clone());
        }
        false
    }

    /// When the holder of a lock will be ended if it goes on doing nothing.
    pub fn holder_ends_at(&self, key: &Key) -> Option<Instant> {
        Some(self.running.get(&self.locks.get(key)?.owner)?.idle_since? + IDLE)
    }

    /// A statement of it has failed, and waits for nothing any more.
    pub fn fail(&mut self, tid: Tid) {
        let Some(running) = self.running.get_mut(&tid) else { return };
        running.failed = true;
        let Some(lock) = running.waits_for.take().and_then(|key| self.locks.get_mut(&key)) else { return };
        lock.queue.retain(|waiting| *waiting != tid);
    }

    /// Whether a transaction waits for one that waits for it.
    pub fn is_deadlock(&self, tid: Tid) -> bool {
        let mut at = tid;
        for _ in 0..=self.running.len() {
            let Some(key) = self.running.get(&at).and_then(|running| running.waits_for.as_ref()) else { return false };
            let Some(lock) = self.locks.get(key) else { return false };
            at = lock.owner;
            if at == tid {
                return true;
            }
        }
        false
    }

    /// Ends transactions whose clients have done nothing for too long.
    pub fn end_idle(&mut self) {
        let now = Instant::now();
        let is_over = |running: &Running| running.idle_since.is_some_and(|since| since + IDLE <= now);
        let over: Vec<Tid> = self.running.iter().filter(|(_, running)| is_over(running)).map(|(tid, _)| *tid).collect();
        for tid in over {
            self.end(tid, false);
        }
    }

    /// Ends a transaction: what it wrote is visible from now on, or never was; its locks go to who waits longest.
    pub fn end(&mut self, tid: Tid, is_committed: bool) {
        let Some(running) = self.running.remove(&tid) else { return };
        self.settle(tid, is_committed);
        self.newest_ended = self.newest_ended.max(running.xid.unwrap_or(0));
        if let Some(lock) = running.waits_for.and_then(|key| self.locks.get_mut(&key)) {
            lock.queue.retain(|waiting| *waiting != tid);
        }
        for key in running.holds {
            self.release(key);
        }
    }

    fn release(&mut self, key: Key) {
        let Some(lock) = self.locks.get_mut(&key) else { return };
        while let Some(next) = lock.queue.pop_front() {
            let Some(running) = self.running.get_mut(&next) else { continue };
            lock.owner = next;
            running.waits_for = None;
            running.holds.insert(key);
            return;
        }
        self.locks.remove(&key);
    }

    fn settle(&mut self, tid: Tid, is_committed: bool) {
        self.floor.settle(tid, is_committed);
        self.streams.settle(tid, is_committed);
        self.refs.settle(tid, is_committed);
        self.entities.settle(tid, is_committed);
        self.claims.settle(tid, is_committed);
        self.contents.settle(tid, is_committed);
        self.relations.settle(tid, is_committed);
        self.stitched.settle(tid, is_committed);
        self.outbox.settle(tid, is_committed);
        self.tasks.settle(tid, is_committed);
        self.snapshots.settle(tid, is_committed);
        self.parts.settle(tid, is_committed);
        self.reads.settle(tid, is_committed);
        self.refresh_keys.settle(tid, is_committed);
        self.cascade.settle(tid, is_committed);
        self.gaps.settle(tid, is_committed);
        self.repair.settle(tid, is_committed);
        self.pipeline.settle(tid, is_committed);
    }
}
