//! One installation on one thread: the real roles over the twins, each process with its connections, and what may be done to it.

use crate::faults::{Faults, Process};
use crate::profile::{Profile, Rates};
use crate::reading::{self, Watched};
use crate::trace::Trace;
use bus::twin::{Line, Snapshot, Twin};
use bus::{Bus, Limits, Stop, Stopper};
use processor::{Parts, Pipeline};
use reader::State;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::Store;
use tokio::task::JoinHandle;

/// The installation's name.
pub(crate) const NAME: &str = "sim";
/// How long a message may be in a worker's hands in silence.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(5);
/// How long a process may take to end when it is asked to.
const ENDING: Duration = Duration::from_secs(120);

/// One for all seeds: to make it takes longer than a seed. It asks nobody outside, so the broker is of no account.
static PIPELINE: LazyLock<Arc<Pipeline>> = LazyLock::new(|| {
    let faults = Faults::new(0, Rates::default(), &Arc::new(Trace::new(false)));
    let (bus, _) = Twin::new(Arc::new(faults)).connect(NAME).expect("the name is a name");
    Arc::new(Pipeline::new(Parts::builtin(), &bus).expect("the built-in processors have names of their own"))
});

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Processor,
    Stitcher,
    Scheduler,
    Reader,
}

/// A process that runs.
pub(crate) struct Running {
    pub role: Role,
    pub host: String,
    task: JoinHandle<()>,
    stopper: Stopper,
    line: Line,
    process: Arc<Process>,
}

/// What all of a seed share.
pub(crate) struct Site {
    pub seed: u64,
    pub profile: Profile,
    pub broker: Twin,
    pub database: store::twin::Twin,
    pub faults: Arc<Faults>,
    pub trace: Arc<Trace>,
    is_over: AtomicBool,
    losses: AtomicU64,
    /// Of what the broker forgot, somebody had seen something.
    is_missed: AtomicBool,
    /// When the broker forgot last, by its own clock.
    lost_at: AtomicU64,
    names: Mutex<BTreeSet<String>>,
    readers: Mutex<Vec<State>>,
    violations: Mutex<Vec<String>>,
    promised: Mutex<Option<BTreeMap<String, i64>>>,
    watched: Mutex<Watched>,
    hosts: AtomicU64,
    pipeline: Arc<Pipeline>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Site {
    pub fn new(seed: u64, trace: &Arc<Trace>) -> Arc<Site> {
        let profile = Profile::of(seed);
        let faults = Arc::new(Faults::new(seed, profile.faults.clone(), trace));
        let broker = Twin::new(faults.clone());
        Arc::new(Site {
            seed,
            profile,
            broker,
            database: store::twin::Twin::new(),
            faults,
            trace: trace.clone(),
            is_over: AtomicBool::new(false),
            losses: AtomicU64::new(0),
            is_missed: AtomicBool::new(false),
            lost_at: AtomicU64::new(0),
            names: Mutex::default(),
            readers: Mutex::default(),
            violations: Mutex::default(),
            promised: Mutex::default(),
            watched: Mutex::default(),
            hosts: AtomicU64::new(0),
            pipeline: PIPELINE.clone(),
        })
    }

    /// How the streams are to be.
    pub fn limits(&self) -> Limits {
        Limits { ack_wait: ACK_WAIT, ..Limits::default() }
    }

    /// A connection to the broker that nobody disturbs.
    pub fn bus(&self) -> Bus {
        self.broker.connect(NAME).expect("the name is a name").0
    }

    /// The truth, without faults.
    pub fn truth(&self) -> Store {
        self.database.connect(Arc::new(store::twin::NoFaults))
    }

    /// A process of a role comes up.
    pub fn start(self: &Arc<Self>, role: Role) -> Running {
        let host = format!("{role:?}{}", self.hosts.fetch_add(1, Relaxed));
        self.trace.note(format_args!("{host} comes up"));
        let (bus, line) = self.broker.connect(NAME).expect("the name is a name");
        let process = Arc::new(Process::new(&self.faults));
        let store = self.database.connect(process.clone());
        let (stopper, stop) = bus::stop();
        let task = match role {
            Role::Processor => tokio::spawn(self.clone().processor(bus, store, stop)),
            Role::Stitcher => {
                let config = stitcher::Config { streams: self.limits(), ..stitcher::Config::default() };
                tokio::spawn(stitcher::run(bus, store, config, stop))
            }
            Role::Scheduler => {
                let config = scheduler::Config {
                    host: host.clone(),
                    keep_events: Duration::from_secs(3),
                    check_every: Duration::from_secs(15),
                    events_bytes_full: 1 << 30,
                };
                tokio::spawn(scheduler::run(bus, store, config, stop))
            }
            Role::Reader => {
                let state = State::default();
                lock(&self.readers).push(state.clone());
                tokio::spawn(reading::follow(self.clone(), bus, state, stop))
            }
        };
        Running { role, host, task, stopper, line, process }
    }

    async fn processor(self: Arc<Self>, bus: Bus, store: Store, stop: Stop) {
        let config = processor::Config {
            streams: self.limits(),
            batch_events: if self.seed.is_multiple_of(3) { 3 } else { 1000 },
            snapshots: processor::SnapshotsConfig {
                // None is held for its share: whether one is depends on what came after it.
                free_removals: 10_000,
                timeout: Duration::from_secs(60),
                ..processor::SnapshotsConfig::default()
            },
            ..processor::Config::default()
        };
        if let Err(error) = processor::run(bus, store, self.pipeline.clone(), config, stop).await {
            self.violated(format!("a processor ended: {error}"));
        }
    }

    /// A process of a role dies, wherever it is in its work.
    pub fn crash(&self, running: &Running) {
        self.trace.note(format_args!("{} dies", running.host));
        running.task.abort();
    }

    /// A process ends because it was asked to.
    pub async fn end(&self, running: Running) {
        self.trace.note(format_args!("{} is asked to end", running.host));
        running.stopper.stop();
        match tokio::time::timeout(ENDING, running.task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.violated(format!("{} ended with {error}", running.host)),
            Err(_) => self.violated(format!("{} did not end within {ENDING:?}", running.host)),
        }
    }

    pub fn stall(&self, running: &Running, duration: Duration) {
        self.trace.note(format_args!("{} stands still for {duration:?}", running.host));
        running.line.stall(duration);
        running.process.stall(duration);
    }

    pub fn reset(&self, running: &Running) {
        self.trace.note(format_args!("the connection of {} breaks", running.host));
        running.line.reset();
    }

    /// The broker comes back with an older state; all that it had accepted since is lost. What somebody had seen of it is missed.
    pub async fn forget(&self, older: &Snapshot) {
        self.trace.note(format_args!("the broker forgets"));
        let events = self.bus().names().events_stream();
        let known = self.truth().stream_position(&events).await.ok().flatten();
        self.broker.restore(older);
        let last = self.broker.messages(&events).last().map_or(0, |kept| kept.sequence);
        if known.is_some_and(|known| known.last_sequence > i64::try_from(last).unwrap_or(i64::MAX)) {
            self.is_missed.store(true, Relaxed);
        }
        self.lost_at.store(u64::try_from(self.broker.time()).unwrap_or(0), Relaxed);
        self.losses.fetch_add(1, Relaxed);
    }

    pub fn losses(&self) -> u64 {
        self.losses.load(Relaxed)
    }

    /// When the broker forgot last, in nanoseconds since 1970; 0: never.
    pub fn lost_at(&self) -> i64 {
        i64::try_from(self.lost_at.load(Relaxed)).unwrap_or(i64::MAX)
    }

    /// Whether a gap has to be reported.
    pub fn is_missed(&self) -> bool {
        self.is_missed.load(Relaxed)
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Relaxed)
    }

    /// The storm is over.
    pub fn calm(&self) {
        self.trace.note(format_args!("calm"));
        self.is_over.store(true, Relaxed);
        self.faults.end();
    }

    /// Something names an entity.
    pub fn names(&self, entity_ref: &str) {
        lock(&self.names).insert(entity_ref.to_owned());
    }

    pub fn all_names(&self) -> Vec<String> {
        lock(&self.names).iter().cloned().collect()
    }

    /// The revision of an entity as some reader shows it.
    pub fn shown_revision(&self, entity_ref: &str) -> Option<i64> {
        let reader = self.newest_reader()?;
        Some(reader.memory().by_ref(entity_ref)?.revision())
    }

    /// The reader that came up last.
    pub fn newest_reader(&self) -> Option<State> {
        lock(&self.readers).last().cloned()
    }

    /// Notes what the watcher has been told.
    pub fn watched(&self, seen: &Watched) {
        lock(&self.watched).clone_from(seen);
    }

    /// What the watcher takes to be there, by ref with the version.
    pub fn watched_now(&self) -> BTreeMap<String, i64> {
        let there = |(entity_ref, (version, is_there)): (&String, &(i64, bool))| {
            is_there.then(|| (entity_ref.clone(), *version))
        };
        lock(&self.watched).iter().filter_map(there).collect()
    }

    /// What a reader shows, by ref with the version, when it knows that the newest event is in it.
    pub fn promise(&self, shown: BTreeMap<String, i64>) {
        self.trace.note(format_args!("everything is promised"));
        *lock(&self.promised) = Some(shown);
    }

    pub fn promised(&self) -> Option<BTreeMap<String, i64>> {
        lock(&self.promised).clone()
    }

    pub fn violated(&self, what: String) {
        self.trace.note(format_args!("violated: {what}"));
        lock(&self.violations).push(what);
    }

    pub fn violations(&self) -> Vec<String> {
        lock(&self.violations).clone()
    }
}

impl Running {
    /// Whether it has ended by itself.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Why it has.
    pub async fn ended(self) -> String {
        match self.task.await {
            Ok(()) => format!("{} ended, and nobody had asked it to", self.host),
            Err(error) => format!("{}: {error}", self.host),
        }
    }
}
