//! Whether this process lives and can do its work, and what is missing if not.

use crate::roles::Role;
use bus::Bus;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use store::Store;

/// How often the async runtime shows that it runs, and after which silence it counts as stuck.
const BEAT: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_secs(15);

/// What is known of this process's roles; clones share it.
#[derive(Clone)]
pub struct Health(Arc<Mutex<Inner>>);

struct Inner {
    roles: BTreeMap<Role, Parts>,
    beat: Instant,
    stopping: bool,
}

/// What a role has so far.
#[derive(Clone, Default)]
struct Parts {
    bus: Option<Bus>,
    store: Option<Store>,
    reader: Option<reader::State>,
    ended: bool,
}

impl Health {
    /// Nothing is connected yet. Within the async runtime, whose beat is watched from now on.
    pub fn new(roles: &[Role]) -> Health {
        let roles = roles.iter().map(|role| (*role, Parts::default())).collect();
        let health = Health(Arc::new(Mutex::new(Inner { roles, beat: Instant::now(), stopping: false })));
        let watched = Arc::downgrade(&health.0);
        tokio::spawn(async move {
            while let Some(inner) = watched.upgrade() {
                inner.lock().unwrap_or_else(PoisonError::into_inner).beat = Instant::now();
                drop(inner);
                tokio::time::sleep(BEAT).await;
            }
        });
        health
    }

    /// The role has its connection to the broker.
    pub fn has_bus(&self, role: Role, bus: &Bus) {
        self.parts(role, |parts| parts.bus = Some(bus.clone()));
    }

    /// The role has its database.
    pub fn has_store(&self, role: Role, store: &Store) {
        self.parts(role, |parts| parts.store = Some(store.clone()));
    }

    /// The reader follows.
    pub fn has_reader(&self, state: reader::State) {
        self.parts(Role::Reader, |parts| parts.reader = Some(state));
    }

    /// The role's loops have ended.
    pub fn ended(&self, role: Role) {
        self.parts(role, |parts| parts.ended = true);
    }

    /// The process drains.
    pub fn stopping(&self) {
        self.lock().stopping = true;
    }

    /// What is wrong with the process itself: empty as long as it lives and its loops run.
    pub fn faults(&self) -> Vec<String> {
        let inner = self.lock();
        let ended = inner.roles.iter().filter(|(_, parts)| parts.ended && !inner.stopping);
        let mut faults: Vec<String> = ended.map(|(role, _)| format!("{role}: its loops have ended")).collect();
        let silence = inner.beat.elapsed();
        if silence > SILENCE {
            faults.push(format!("the async runtime has been stuck for {} s", silence.as_secs()));
        }
        faults
    }

    /// What is missing before the process can do its work: empty when it is ready.
    pub async fn missing(&self) -> Vec<String> {
        let (roles, stopping) = {
            let inner = self.lock();
            (inner.roles.clone(), inner.stopping)
        };
        let mut missing: Vec<String> = self.faults();
        if stopping {
            missing.push("stopping".to_owned());
        }
        for (role, parts) in roles {
            missing.extend(parts.missing(role).await.into_iter().map(|what| format!("{role}: {what}")));
        }
        missing
    }

    fn parts(&self, role: Role, change: impl FnOnce(&mut Parts)) {
        change(self.lock().roles.entry(role).or_default());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parts {
    async fn missing(&self, role: Role) -> Vec<String> {
        let mut missing = Vec::new();
        let answers = self.reader.as_ref().is_some_and(reader::State::ready);
        // A reader that has caught up answers without the broker, until it is late.
        if !answers && !self.bus.as_ref().is_some_and(Bus::is_connected) {
            missing.push("the broker is away".to_owned());
        }
        if role.needs_database() {
            match &self.store {
                Some(store) if store.is_reachable().await => {}
                _ => missing.push("the database is away".to_owned()),
            }
            return missing;
        }
        match &self.reader {
            None => missing.push("does not serve gRPC yet".to_owned()),
            Some(state) if !state.ready() => {
                missing.push(format!(
                    "has not caught up with the entities and seen a watermark yet, {} messages to come",
                    state.lag()
                ));
            }
            Some(state) if state.is_late() => {
                missing.push(format!("is {} s behind the entities", state.behind().as_secs()));
            }
            Some(_) => {}
        }
        missing
    }
}
