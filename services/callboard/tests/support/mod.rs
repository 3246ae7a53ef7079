//! A whole pipeline in this process, on the run's servers, in an installation of its own.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use api::v1::catalog_service_client::CatalogServiceClient;
use bus::{Bus, Followed, Follower, Names, Record, Stop, Stopper};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::Store;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// The longest wait for anything.
const LIMIT: Duration = Duration::from_secs(60);

pub struct Pipeline {
    pub bus: Bus,
    pub store: Store,
    stopper: Stopper,
    stop: Stop,
    roles: Vec<JoinHandle<()>>,
    seen: Arc<Mutex<Seen>>,
    last_revision: Mutex<i64>,
}

#[derive(Default)]
struct Seen {
    entities: HashMap<String, (i64, Option<Value>)>,
    messages: HashMap<String, usize>,
    watermark: i64,
}

#[derive(Debug)]
pub struct Letter {
    pub reason: String,
    pub subject: String,
    pub payload: Vec<u8>,
    headers: Vec<(String, String)>,
}

impl Letter {
    pub fn original(&self, name: &str) -> Option<&String> {
        let name = format!("Original-{name}");
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

pub fn component(name: &str, owner: &str) -> Value {
    json!({
        "apiVersion": "backstage.io/v1alpha1",
        "kind": "Component",
        "metadata": {"name": name},
        "spec": {"type": "service", "lifecycle": "production", "owner": owner}
    })
}

pub fn group(name: &str) -> Value {
    json!({
        "apiVersion": "backstage.io/v1alpha1",
        "kind": "Group",
        "metadata": {"name": name},
        "spec": {"type": "team", "children": []}
    })
}

/// Streams small enough that many installations fit one test broker.
pub fn limits() -> bus::Limits {
    bus::Limits {
        events_bytes: 64 << 20,
        stitch_bytes: 64 << 20,
        dead_letters_bytes: 16 << 20,
        ..bus::Limits::default()
    }
}

impl Pipeline {
    /// One of each role.
    pub async fn start() -> Pipeline {
        Self::start_with(1, 1).await
    }

    pub async fn start_with(processors: usize, stitchers: usize) -> Pipeline {
        Self::start_of(processors, stitchers, processor::Parts::builtin).await
    }

    /// Processors that are made of these parts.
    pub async fn start_of(processors: usize, stitchers: usize, parts: impl Fn() -> processor::Parts) -> Pipeline {
        let installation = servers::testing::fresh_name("pipeline");
        let (stopper, stop) = bus::stop();
        let (bus, store) = connect(&installation, &stop).await;
        let mut roles = Vec::new();
        for _ in 0..processors {
            let (bus, store) = connect(&installation, &stop).await;
            let config = processor::Config { streams: limits(), ..processor::Config::default() };
            let stop = stop.clone();
            let pipeline = processor::Pipeline::new(parts(), &bus).expect("it is usable");
            roles.push(tokio::spawn(async move {
                processor::run(bus, store, pipeline, config, stop).await.expect("the processor works")
            }));
        }
        for _ in 0..stitchers {
            let (bus, store) = connect(&installation, &stop).await;
            let config = stitcher::Config { streams: limits(), ..stitcher::Config::default() };
            let stop = stop.clone();
            roles.push(tokio::spawn(stitcher::run(bus, store, config, stop)));
        }
        let config = scheduler::Config {
            host: "test".into(),
            keep_events: Duration::from_secs(600),
            check_every: Duration::from_secs(1),
            events_bytes_full: 32 << 20,
        };
        roles.push(tokio::spawn(scheduler::run(bus.clone(), store.clone(), config, stop.clone())));
        let seen = Arc::new(Mutex::new(Seen::default()));
        roles.push(tokio::spawn(follow(bus.clone(), seen.clone(), stop.clone())));
        Pipeline { bus, store, stopper, stop, roles, seen, last_revision: Mutex::new(0) }
    }

    /// A reader beside the other roles, as soon as it answers.
    pub async fn reader(&mut self) -> CatalogServiceClient<Channel> {
        let (bus, stop) = (self.bus.clone(), self.stop.clone());
        let reader = reader::start(bus, reader::Config::new("127.0.0.1:0".parse().unwrap()), stop).await.unwrap();
        let (address, state) = (reader.address(), reader.state());
        self.roles.push(tokio::spawn(async move { reader.finished().await.expect("the reader works") }));
        wait_for("the reader", async || state.ready().then_some(())).await;
        CatalogServiceClient::connect(format!("http://{address}")).await.unwrap()
    }

    pub fn names(&self) -> &Names {
        self.bus.names()
    }

    pub fn event(&self, provider: &str, operation: &str, body: &Value) -> Record {
        Record::new(self.names().event(provider, operation), body.to_string())
    }

    pub async fn upsert(&self, provider: &str, entity: &Value) {
        self.publish(&[self.event(provider, "upsert", entity)]).await;
    }

    pub async fn upsert_with_key(&self, provider: &str, entity: &Value, key: Option<&str>) {
        let event = self.event(provider, "upsert", entity);
        self.publish(&[match key {
            Some(key) => event.with_header(bus::header::LOCATION_KEY, key),
            None => event,
        }])
        .await;
    }

    pub async fn delete(&self, provider: &str, entity_ref: &str) {
        self.publish(&[self.event(provider, "delete", &json!({"entityRef": entity_ref}))]).await;
    }

    /// Publishes once the streams stand; in order.
    pub async fn publish(&self, records: &[Record]) {
        for record in records {
            let sequence =
                wait_for("the event stream", async || bus::publish(&self.bus, record).await.ok()).await.sequence;
            *self.last_revision.lock().unwrap() = i64::try_from(sequence).unwrap();
        }
    }

    /// Waits until everything that was published is stitched and readable: until the watermark says so.
    pub async fn settle(&self) {
        let goal = *self.last_revision.lock().unwrap();
        wait_for("the watermark", async || (self.seen.lock().unwrap().watermark >= goal).then_some(())).await;
    }

    pub fn entity(&self, entity_ref: &str) -> Option<Value> {
        self.seen.lock().unwrap().entities.get(entity_ref)?.1.clone()
    }

    pub fn version(&self, entity_ref: &str) -> i64 {
        self.seen.lock().unwrap().entities[entity_ref].0
    }

    /// How many messages came on an entity.
    pub fn messages(&self, entity_ref: &str) -> usize {
        self.seen.lock().unwrap().messages.get(entity_ref).copied().unwrap_or_default()
    }

    pub fn all(&self) -> HashMap<String, Value> {
        let seen = self.seen.lock().unwrap();
        seen.entities.iter().filter_map(|(entity_ref, (_, body))| Some((entity_ref.clone(), body.clone()?))).collect()
    }

    /// Subjects and payloads of all messages of a stream.
    pub async fn messages_of(&self, stream: &str) -> Vec<(String, Value)> {
        let client = async_nats::connect(&servers::testing::shared().nats_url).await.unwrap();
        let stream = async_nats::jetstream::new(client).get_stream(stream).await.unwrap();
        let state = stream.cached_info().state.clone();
        let mut messages = Vec::new();
        for sequence in state.first_sequence.max(1)..=state.last_sequence {
            let message = stream.get_raw_message(sequence).await.unwrap();
            messages.push((message.subject.to_string(), serde_json::from_slice(&message.payload).unwrap()));
        }
        messages
    }

    pub async fn dead_letters(&self) -> Vec<Letter> {
        let client = async_nats::connect(&servers::testing::shared().nats_url).await.unwrap();
        let stream = async_nats::jetstream::new(client).get_stream(self.names().dead_letters_stream()).await.unwrap();
        let state = stream.cached_info().state.clone();
        let mut letters = Vec::new();
        for sequence in state.first_sequence..=state.last_sequence {
            let message = stream.get_raw_message(sequence).await.unwrap();
            let headers: Vec<(String, String)> =
                message.headers.iter().map(|(name, values)| (name.to_string(), values[0].to_string())).collect();
            let header = |name: &str| headers.iter().find(|(known, _)| known == name).unwrap().1.clone();
            letters.push(Letter {
                reason: header(bus::header::DEAD_REASON),
                subject: header(bus::header::DEAD_SUBJECT),
                payload: message.payload.to_vec(),
                headers,
            });
        }
        letters
    }

    pub async fn stop(self) {
        self.stopper.stop();
        for role in self.roles {
            tokio::time::timeout(LIMIT, role).await.expect("a role drains in time").expect("a role does not panic");
        }
    }
}

async fn connect(installation: &str, stop: &bus::Stop) -> (Bus, Store) {
    let addresses = servers::testing::shared();
    let options = bus::Options {
        url: addresses.nats_url.clone(),
        installation: installation.to_owned(),
        credentials: None,
        name: "test".into(),
        patience: Some(LIMIT),
    };
    let bus = Bus::connect(&options, stop).await.expect("the test broker answers");
    let options = store::Options {
        url: addresses.database_url.clone(),
        installation: installation.to_owned(),
        connections: 4,
        name: "test".into(),
    };
    (bus, Store::connect(&options).await.expect("the test database answers"))
}

async fn follow(bus: Bus, seen: Arc<Mutex<Seen>>, stop: bus::Stop) {
    let mut follower = Follower::new(&bus);
    loop {
        let told = tokio::select! {
            told = follower.next() => told,
            () = stop.stopped() => return,
        };
        let mut seen = seen.lock().unwrap();
        match told {
            Followed::Watermark(revision) => seen.watermark = seen.watermark.max(revision),
            Followed::Entity(message) => {
                *seen.messages.entry(message.entity_ref.clone()).or_default() += 1;
                let body = message.body.map(|body| serde_json::from_slice(&body).expect("an entity is JSON"));
                let known = seen.entities.entry(message.entity_ref).or_default();
                assert!(message.version > known.0, "versions rise");
                *known = (message.version, body);
            }
            Followed::CaughtUp | Followed::StreamReplaced | Followed::Stream(_) => {}
        }
    }
}

/// Tries until there is an answer.
pub async fn wait_for<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let until = tokio::time::Instant::now() + LIMIT;
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < until, "waited {LIMIT:?} for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
