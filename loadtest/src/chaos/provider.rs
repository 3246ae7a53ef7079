//! The workload: providers that claim, change, withdraw and repeat, with poison in between; and an exact record of what the broker accepted.

use crate::random::Random;
use bus::{Bus, Record};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Providers whose claims meet on all refs.
pub(crate) const PROVIDERS: [&str; 3] = ["chaos-a", "chaos-b", "chaos-c"];
/// Publishes on their way at once; those of a round may overtake each other.
const FLIGHTS: usize = 16;
/// Events of one round.
const ROUND: usize = 24;
/// How long one publish is tried: shorter than the two minutes for which the broker knows its id.
const PATIENCE: Duration = Duration::from_secs(90);
/// Names of entities of each kind.
const NAMES: usize = 120;
/// Of a hundred rounds, so many hold a snapshot.
const SNAPSHOTS: u8 = 6;
/// Of a hundred entities that a provider claims, so many are in its next snapshot.
const KEPT: u8 = 80;

/// An event that a broker acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    /// In which of the broker's lives: it ends where the broker forgets.
    pub epoch: u64,
    pub sequence: u64,
    pub event: Event,
}

/// What was published.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub provider: &'static str,
    pub operation: &'static str,
    /// The ref that it is about; none: it ends a snapshot, or can be no claim.
    pub entity_ref: Option<String>,
    pub key: Option<String>,
    /// The snapshot that it is part of, or ends.
    pub snapshot: Option<Snapshot>,
    pub payload: Arc<Vec<u8>>,
}

/// Everything that a provider has, at once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Snapshot {
    pub id: Arc<str>,
    /// Upserts and imports of it.
    pub parts: usize,
    /// In which of the broker's lives it was begun: it is not gone on with in another.
    pub epoch: u64,
}

impl Event {
    /// It can be no claim, and has to be a dead letter.
    pub fn is_poison(&self) -> bool {
        self.entity_ref.is_none() && self.snapshot.is_none()
    }
}

/// What happened to publishing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub accepted: u64,
    /// Of these, second events of the same content.
    pub repeated: u64,
    pub poison: u64,
    /// Of these, events that stand before others that were published earlier.
    pub overtaken: u64,
    pub snapshots: u64,
    /// Publishes repeated under the same id after they were confirmed.
    pub same_id: u64,
    /// Publishes that were not confirmed at first and tried again under the same id.
    pub retried: u64,
    /// Publishes given up; they count as uncertain.
    pub given_up: u64,
}

#[derive(Default)]
struct Ledger {
    accepted: Vec<Accepted>,
    /// Something was published in the present epoch whose fate is not known,
    is_uncertain: bool,
    /// of these refs.
    uncertain: BTreeSet<String>,
    /// The highest number of a publish, and its sequence, in the present epoch.
    furthest: (u64, u64, u64),
    /// What each provider claims now, by ref.
    intents: BTreeMap<(String, &'static str), Event>,
    tally: Tally,
}

/// All providers together.
#[derive(Clone)]
pub(crate) struct Providers {
    bus: Bus,
    epoch: Arc<AtomicU64>,
    is_ended: Arc<AtomicBool>,
    ledger: Arc<Mutex<Ledger>>,
    flights: Arc<Semaphore>,
    run: Arc<str>,
    ids: Arc<AtomicU64>,
}

impl Providers {
    pub fn new(bus: Bus, seed: u64) -> Providers {
        let began = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
        Providers {
            bus,
            epoch: Arc::default(),
            is_ended: Arc::default(),
            ledger: Arc::default(),
            flights: Arc::new(Semaphore::new(FLIGHTS)),
            run: format!("chaos-{seed}-{began}").into(),
            ids: Arc::default(),
        }
    }

    /// The broker has forgotten: everything of this epoch is uncertain. A resynchronization has to follow.
    pub fn forget(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// What was published, so far.
    pub fn tally(&self) -> Tally {
        self.lock().tally
    }

    /// The events of the present epoch, in the order of the stream.
    pub fn accepted(&self) -> Vec<Accepted> {
        let epoch = self.epoch.load(Ordering::SeqCst);
        let mut accepted: Vec<Accepted> =
            self.lock().accepted.iter().filter(|accepted| accepted.epoch == epoch).cloned().collect();
        accepted.sort_by_key(|accepted| accepted.sequence);
        accepted
    }

    /// Ends the workload after its round.
    pub fn end(&self) {
        self.is_ended.store(true, Ordering::SeqCst);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Publishes rounds of the seed until the end.
    pub async fn work(self, seed: u64) {
        let mut random = Random::new(seed ^ 0x0077_6f72_6b6c_6f61);
        let mut step = 0;
        while !self.is_ended.load(Ordering::SeqCst) {
            let mut events: Vec<Event> = (0..ROUND).map(|_| self.invent(&mut random, &mut step)).collect();
            if random.percent(SNAPSHOTS) {
                events.extend(self.snapshot(&mut random, step));
                random.shuffle(&mut events);
            }
            let repeats: Vec<bool> = events.iter().map(|_| random.percent(8)).collect();
            let rounds =
                events.into_iter().zip(repeats).map(|(event, repeat)| self.clone().publish_maybe_twice(event, repeat));
            futures::future::join_all(rounds).await;
            tokio::time::sleep(Duration::from_millis(random.below(120) as u64)).await;
        }
    }

    /// After a broker forgot, what providers do: everything they ever claimed is withdrawn, and what they claim now is claimed anew. Again
    /// until nothing has an unknown fate.
    pub async fn resynchronize(&self) {
        loop {
            let (refs, intents) = {
                let mut ledger = self.lock();
                ledger.is_uncertain = false;
                let uncertain = std::mem::take(&mut ledger.uncertain);
                let told = ledger.accepted.iter().filter_map(|accepted| accepted.event.entity_ref.clone());
                (told.chain(uncertain).collect::<BTreeSet<String>>(), ledger.intents.clone())
            };
            let withdraw = |entity_ref: &String| PROVIDERS.map(|provider| withdrawal(provider, entity_ref));
            let withdrawals: Vec<Event> = refs.iter().flat_map(withdraw).collect();
            futures::future::join_all(withdrawals.into_iter().map(|event| self.clone().publish(event))).await;
            futures::future::join_all(intents.into_values().map(|event| self.clone().publish(event))).await;
            if !self.has_uncertain() {
                return;
            }
        }
    }

    /// Whether something was published whose fate is not known.
    pub fn has_uncertain(&self) -> bool {
        self.lock().is_uncertain
    }

    async fn publish_maybe_twice(self, event: Event, again: bool) {
        self.clone().publish(event.clone()).await;
        if again && event.entity_ref.is_some() && event.snapshot.is_none() {
            self.lock().tally.repeated += 1;
            self.publish(event).await;
        }
    }

    /// Publishes one event until its fate is known.
    async fn publish(self, event: Event) {
        let Ok(_flight) = self.flights.acquire().await else { return };
        let number = self.ids.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number}", self.run);
        let subject = self.bus.names().event(event.provider, event.operation);
        let record = Record::new(subject, event.payload.as_ref().clone()).with_id(&id);
        let record = match &event.key {
            Some(key) => record.with_header(bus::header::LOCATION_KEY, key),
            None => record,
        };
        let record = match &event.snapshot {
            Some(snapshot) if event.entity_ref.is_some() => record.with_header(bus::header::SNAPSHOT, &snapshot.id),
            _ => record,
        };
        let epoch = self.epoch.load(Ordering::SeqCst);
        if event.snapshot.as_ref().is_some_and(|snapshot| snapshot.epoch != epoch) {
            return;
        }
        // Later ones overtake it.
        if number.is_multiple_of(5) {
            tokio::time::sleep(Duration::from_millis(number * 7919 % 50)).await;
        }
        let started = std::time::Instant::now();
        let mut is_first = true;
        loop {
            match bus::publish(&self.bus, &record).await {
                Ok(published) => {
                    self.note((epoch, number, published.sequence), event);
                    return self.repeat(&record, number).await;
                }
                Err(_) if started.elapsed() < PATIENCE => {
                    if std::mem::take(&mut is_first) {
                        self.lock().tally.retried += 1;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(_) => {
                    let mut ledger = self.lock();
                    ledger.tally.given_up += 1;
                    ledger.is_uncertain = true;
                    ledger.uncertain.extend(event.entity_ref);
                    return;
                }
            }
        }
    }

    /// Now and then the same publish once more, under its id: the broker drops it.
    async fn repeat(&self, record: &Record, number: u64) {
        if number.is_multiple_of(25) && bus::publish(&self.bus, record).await.is_ok_and(|published| published.duplicate)
        {
            self.lock().tally.same_id += 1;
        }
    }

    fn note(&self, (began, number, sequence): (u64, u64, u64), event: Event) {
        let mut ledger = self.lock();
        ledger.tally.accepted += 1;
        ledger.tally.poison += u64::from(event.is_poison());
        ledger.tally.snapshots += u64::from(event.operation == "snapshot");
        let epoch = self.epoch.load(Ordering::SeqCst);
        if epoch != began {
            // It may stand in the broker that was, or in the one that is.
            ledger.is_uncertain = true;
            ledger.uncertain.extend(event.entity_ref);
            return;
        }
        let (known, furthest, highest) = ledger.furthest;
        if known == epoch && (number < furthest) != (sequence < highest) {
            ledger.tally.overtaken += 1;
        }
        if known != epoch || sequence > highest {
            ledger.furthest = (epoch, number, sequence);
        }
        ledger.accepted.push(Accepted { epoch, sequence, event });
    }

    /// A provider says everything that it has, but for some: parts, and the event that ends it, in any order.
    fn snapshot(&self, random: &mut Random, step: u64) -> Vec<Event> {
        let provider = *random.one_of(&PROVIDERS);
        let epoch = self.epoch.load(Ordering::SeqCst);
        let mut ledger = self.lock();
        let claimed: Vec<(String, Event)> = ledger
            .intents
            .iter()
            .filter(|((_, by), _)| *by == provider)
            .map(|((to, _), event)| (to.clone(), event.clone()))
            .collect();
        let (kept, left): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|_| random.percent(KEPT));
        for (entity_ref, _) in left {
            ledger.intents.remove(&(entity_ref, provider));
        }
        let snapshot = Snapshot { id: format!("{}-{epoch}-{step}", self.run).into(), parts: kept.len(), epoch };
        let part = |(_, event): (_, Event)| Event { operation: "import", snapshot: Some(snapshot.clone()), ..event };
        let mut events: Vec<Event> = kept.into_iter().map(part).collect();
        let payload = json!({"snapshot": &*snapshot.id, "count": snapshot.parts}).to_string().into_bytes();
        let end = Event {
            provider,
            operation: "snapshot",
            entity_ref: None,
            key: None,
            snapshot: Some(snapshot),
            payload: Arc::new(payload),
        };
        events.push(end);
        events
    }

    fn invent(&self, random: &mut Random, step: &mut u64) -> Event {
        *step += 1;
        let provider = *random.one_of(&PROVIDERS);
        if random.percent(2) {
            return poison(random, provider, *step);
        }
        let (kind, name) = (random.below(4), random.skewed(NAMES));
        let (entity_ref, entity) = entity(random, (kind, name), provider, *step);
        let event = match random.below(100) {
            0..15 => withdrawal(provider, &entity_ref),
            15..20 => Event { operation: "refresh", ..withdrawal(provider, &entity_ref) },
            what => {
                let key = random.percent(30).then(|| format!("key-{}", random.below(3)));
                let operation = if what < 60 { "upsert" } else { "import" };
                let payload = Arc::new(entity.to_string().into_bytes());
                Event { provider, operation, entity_ref: Some(entity_ref.clone()), key, snapshot: None, payload }
            }
        };
        let mut ledger = self.lock();
        match event.operation {
            "upsert" | "import" => drop(ledger.intents.insert((entity_ref, provider), event.clone())),
            "delete" => drop(ledger.intents.remove(&(entity_ref, provider))),
            _ => {}
        }
        event
    }
}

fn withdrawal(provider: &'static str, entity_ref: &str) -> Event {
    let payload = Arc::new(json!({ "entityRef": entity_ref }).to_string().into_bytes());
    Event { provider, operation: "delete", entity_ref: Some(entity_ref.to_owned()), key: None, snapshot: None, payload }
}

/// Components, groups, resources and systems that name each other; one in twelve breaks a rule.
fn entity(random: &mut Random, (kind, name): (usize, usize), provider: &str, step: u64) -> (String, Value) {
    let other = random.skewed(NAMES);
    let owner = format!("group:default/g{}", random.skewed(NAMES / 4));
    let (kind, name, spec) = match kind {
        0 => ("Group", format!("g{}", name / 4), json!({"type": "team", "children": []})),
        1 => ("Resource", format!("r{name}"), json!({"type": "database", "owner": owner})),
        2 => ("System", format!("s{name}"), json!({"owner": owner})),
        _ => {
            let needs = [format!("resource:default/r{other}"), format!("component:default/c{other}")];
            let spec = json!({"type": "service", "lifecycle": "production", "owner": owner, "system": format!("s{other}"), "dependsOn": needs});
            ("Component", format!("c{name}"), spec)
        }
    };
    let mut metadata = json!({"name": name, "description": format!("{provider} at step {step}")});
    if random.percent(8) {
        metadata["tags"] = json!(["Not Valid"]);
    }
    let entity_ref = format!("{}:default/{name}", kind.to_lowercase());
    (entity_ref, json!({"apiVersion": "backstage.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}))
}

/// What can be no claim: malformed, of no known operation, over the limit.
fn poison(random: &mut Random, provider: &'static str, step: u64) -> Event {
    let (operation, payload) = match random.below(40) {
        0..10 => ("upsert", format!("{{\"poison\": {step}")),
        10..20 => ("upsert", format!("{{\"kind\": \"Component\", \"poison\": {step}}}")),
        20..30 => ("explode", format!("{{\"poison\": {step}}}")),
        30..39 => ("delete", format!("{{\"poison\": {step}}}")),
        _ => ("import", json!({"poison": step, "large": "x".repeat(600 * 1024)}).to_string()),
    };
    Event { provider, operation, entity_ref: None, key: None, snapshot: None, payload: Arc::new(payload.into_bytes()) }
}
