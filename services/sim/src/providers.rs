//! What providers publish: claims, changes, withdrawals, snapshots, and what can be no claim; and again all they claim, when a broker forgot.

use crate::profile::Profile;
use crate::random::Random;
use crate::site::Site;
use bus::{Bus, Names, Record, header};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long one publish is tried: shorter than the two minutes for which the broker knows its id.
const PATIENCE: Duration = Duration::from_secs(100);

/// A provider with its own connection.
pub(crate) struct Provider {
    name: String,
    bus: Bus,
    site: Arc<Site>,
    profile: Profile,
    random: Random,
    ids: u64,
    snapshots: u64,
    /// What it claims now, by ref.
    intents: BTreeMap<String, Record>,
    resynchronized: u64,
}

impl Provider {
    pub fn new(number: u64, bus: Bus, site: &Arc<Site>) -> Provider {
        Provider {
            name: format!("p{number}"),
            bus,
            site: site.clone(),
            profile: site.profile.clone(),
            random: Random::new(site.seed, 100 + number),
            ids: 0,
            snapshots: 0,
            intents: BTreeMap::new(),
            resynchronized: 0,
        }
    }

    /// Publishes until the storm is over, and then what the broker may have forgotten.
    pub async fn work(mut self) {
        while !self.site.is_over() {
            self.resynchronize().await;
            self.turn().await;
            let pause = self.random.below(self.profile.pause + 1);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        self.resynchronize().await;
    }

    async fn turn(&mut self) {
        let workload = self.profile.workload.clone();
        match self.random.below(100) {
            0..4 if workload.poison => {
                let record = self.poison();
                self.publish(record).await;
            }
            4..8 if workload.removals => {
                let entity_ref = self.some_ref();
                self.publish(about(&self.bus, Names::OPERATOR, "remove", &entity_ref)).await;
            }
            8..14 if workload.snapshots => self.snapshot().await,
            14..18 => {
                let entity_ref = self.some_ref();
                self.publish(about(&self.bus, &self.name, "refresh", &entity_ref)).await;
            }
            18..36 => {
                let entity_ref = self.some_ref();
                self.intents.remove(&entity_ref);
                self.publish(about(&self.bus, &self.name, "delete", &entity_ref)).await;
            }
            _ => {
                let (entity_ref, record) = self.claim();
                let record = self.maybe_expecting(&entity_ref, record);
                self.site.names(&entity_ref);
                if record.headers.get(header::EXPECTED_REVISION).is_none() {
                    self.intents.insert(entity_ref, record.clone());
                }
                self.publish(record.clone()).await;
                if self.random.percent(6) {
                    self.publish(record).await;
                }
            }
        }
    }

    /// A full mutation: some of what it claims, more or less at once, with the event that ends it before, among or behind its parts.
    async fn snapshot(&mut self) {
        self.snapshots += 1;
        let id = format!("{}-{}", self.name, self.snapshots);
        let mut parts: Vec<Record> = Vec::new();
        let mut named = BTreeSet::new();
        for _ in 0..self.random.below(5) {
            let (entity_ref, record) = self.claim();
            self.site.names(&entity_ref);
            named.insert(entity_ref.clone());
            self.intents.insert(entity_ref, record.clone());
            parts.push(record.with_header(header::SNAPSHOT, &id));
        }
        if self.profile.workload.poison && self.random.percent(10) {
            parts.push(self.poison_part().with_header(header::SNAPSHOT, &id));
        }
        let missing = u64::from(self.random.percent(8));
        let end = json!({"snapshot": id, "count": parts.len() as u64 + missing}).to_string();
        let end = Record::new(self.bus.names().event(&self.name, "snapshot"), end);
        let place = self.random.below(parts.len() as u64 + 1);
        parts.insert(usize::try_from(place).unwrap_or(0), end);
        self.intents.retain(|entity_ref, _| named.contains(entity_ref));
        for part in parts {
            self.publish(part).await;
            if self.random.percent(20) {
                let (entity_ref, record) = self.claim();
                self.site.names(&entity_ref);
                self.intents.insert(entity_ref, record.clone());
                self.publish(record).await;
            }
        }
    }

    /// After a broker forgot, what providers do: everything is withdrawn, and what is claimed now is claimed anew.
    async fn resynchronize(&mut self) {
        while self.resynchronized != self.site.losses() {
            self.resynchronized = self.site.losses();
            for entity_ref in self.site.all_names() {
                self.publish(about(&self.bus, &self.name, "delete", &entity_ref)).await;
            }
            for record in self.intents.clone().into_values() {
                self.publish(record).await;
            }
        }
    }

    /// Publishes one event until its fate is known, or nobody can know it.
    async fn publish(&mut self, record: Record) {
        self.ids += 1;
        let record = record.with_id(format!("{}-{}", self.name, self.ids));
        let began = Instant::now();
        while bus::publish(&self.bus, &record).await.is_err() && began.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(50 + self.random.below(200))).await;
        }
    }

    fn maybe_expecting(&mut self, entity_ref: &str, record: Record) -> Record {
        if !self.profile.workload.expected || !self.random.percent(15) {
            return record;
        }
        let shown = self.site.shown_revision(entity_ref);
        let expected = if self.random.percent(75) {
            shown.unwrap_or(0)
        } else {
            i64::try_from(self.random.below(30)).unwrap_or(0)
        };
        record.with_header(header::EXPECTED_REVISION, expected)
    }

    fn some_ref(&mut self) -> String {
        let (kind, name) = (self.random.below(4), self.random.below(self.profile.names));
        let kind = ["group", "resource", "system", "component"][usize::try_from(kind).unwrap_or(0)];
        format!("{kind}:default/{}{name}", &kind[..1])
    }

    /// Components, groups, resources and systems that name each other; some break a rule.
    fn claim(&mut self) -> (String, Record) {
        let entity_ref = self.some_ref();
        let names = self.profile.names;
        let (other, owner) = (self.random.below(names), format!("group:default/g{}", self.random.below(names.min(2))));
        let (kind, spec) = match &entity_ref[..1] {
            "g" => ("Group", json!({"type": "team", "children": []})),
            "r" => ("Resource", json!({"type": "database", "owner": owner})),
            "s" => ("System", json!({"owner": owner})),
            _ => {
                let needs = [format!("resource:default/r{other}"), format!("component:default/c{other}")];
                let spec = json!({"type": "service", "lifecycle": "production", "owner": owner, "system": format!("s{other}"), "dependsOn": needs});
                ("Component", spec)
            }
        };
        let name = entity_ref.rsplit('/').next().unwrap_or_default();
        // Few texts, so that the same content comes again.
        let mut metadata = json!({"name": name, "description": format!("{} {}", self.name, self.random.below(6))});
        if self.random.percent(8) {
            metadata["tags"] = json!(["Not Valid"]);
        }
        let entity = json!({"apiVersion": "backstage.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec});
        let operation = if self.random.percent(60) { "upsert" } else { "import" };
        let record = Record::new(self.bus.names().event(&self.name, operation), entity.to_string());
        let has_key = self.random.percent(self.profile.workload.keys);
        let record = if has_key {
            record.with_header(header::LOCATION_KEY, format!("k{}", self.random.below(3)))
        } else {
            record
        };
        (entity_ref, record)
    }

    /// What can be no claim.
    fn poison(&mut self) -> Record {
        let number = self.random.next();
        let (operation, body) = match self.random.below(4) {
            0 => ("upsert", format!("{{\"poison\": {number}")),
            1 => ("upsert", json!({"kind": "Component", "poison": number}).to_string()),
            2 => ("explode", json!({"poison": number}).to_string()),
            _ => ("delete", json!({"poison": number}).to_string()),
        };
        Record::new(self.bus.names().event(&self.name, operation), body)
    }

    fn poison_part(&mut self) -> Record {
        let body = format!("{{\"poison\": {}", self.random.next());
        Record::new(self.bus.names().event(&self.name, "import"), body)
    }
}

fn about(bus: &Bus, provider: &str, operation: &str, entity_ref: &str) -> Record {
    let body: Value = json!({ "entityRef": entity_ref });
    Record::new(bus.names().event(provider, operation), body.to_string())
}
