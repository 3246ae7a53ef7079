//! What the catalog has to be: the events that the broker accepted, one after the other, by the pure functions.

use bus::Names;
use bus::header;
use bus::twin::Kept;
use catalog::claims::{Claims, Head, Operation};
use catalog::entity::{Limits, parse_entity};
use catalog::process::{Model, Processed, ProcessingError, process};
use catalog::stitch::{StitchInput, stitch, uid};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

static MODEL: LazyLock<Model> = LazyLock::new(Model::builtin);

/// Refs with their entities, as they are to be shown, without etag.
pub(crate) type Catalog = BTreeMap<String, Map<String, Value>>;

/// An event of the broker's, with the revision that it has.
pub(crate) struct Event<'a> {
    pub revision: i64,
    pub kept: &'a Kept,
    pub provider: String,
    pub operation: String,
}

/// A snapshot as its events make it.
#[derive(Default)]
pub(crate) struct SnapshotSeen {
    pub parts: i64,
    pub refused: i64,
    /// Its number, as the event that ends it says.
    pub count: Option<i64>,
    pub begun: i64,
    pub last: i64,
}

impl SnapshotSeen {
    /// Whether it withdraws what it left out.
    pub fn is_complete(&self) -> bool {
        self.refused == 0 && self.count.is_some_and(|count| self.parts >= count)
    }
}

/// All that the events make.
#[derive(Default)]
pub(crate) struct Expected {
    pub catalog: Catalog,
    /// Events that can be no claim, by when they were stored.
    pub poison: BTreeMap<i64, String>,
    pub snapshots: BTreeMap<(String, String), SnapshotSeen>,
    pub violations: Vec<String>,
}

#[derive(Default)]
struct Entity {
    claims: Claims,
    good: BTreeMap<i64, Processed>,
    errors: BTreeMap<i64, ProcessingError>,
}

struct Run<'a> {
    names: &'a Names,
    /// Before the first of the events there were others, which the broker forgot.
    is_late: bool,
    entities: BTreeMap<String, Entity>,
    expected: Expected,
}

/// One sequential run of the events since the broker forgot (in nanoseconds since 1970; 0: never). `refused` are the events, by when they were stored, whose expected revision was refused: whether it had to be is looked at.
pub(crate) fn evaluate(
    names: &Names,
    (events, since): (&[Event<'_>], i64),
    refused: &BTreeSet<i64>,
    swept: &BTreeSet<(String, String)>,
) -> Expected {
    let mut run = Run { names, is_late: since > 0, entities: BTreeMap::new(), expected: Expected::default() };
    for event in events {
        run.take(event, refused);
        run.sweep(event, swept);
    }
    let Run { entities, mut expected, .. } = run;
    expected.catalog = show(names.installation(), &entities);
    expected
}

impl Run<'_> {
    fn take(&mut self, event: &Event<'_>, refused: &BTreeSet<i64>) {
        let revision = event.revision;
        let source = format!("provider:{}", event.provider);
        match event.operation.as_str() {
            "upsert" | "import" => self.claim(event, &source, refused),
            "delete" | "refresh" | "remove" => {
                let body: Value = serde_json::from_slice(&event.kept.payload).unwrap_or_default();
                let Some(entity_ref) = body["entityRef"].as_str() else { return self.poison(event) };
                let entity = self.entities.entry(entity_ref.to_owned()).or_default();
                match event.operation.as_str() {
                    "delete" => {
                        let head = Head { revision, operation: Operation::Withdrawal };
                        entity.claims.insert(&source, head, 0);
                    }
                    "remove" => drop(entity.claims.remove(revision, 0)),
                    _ => {}
                }
            }
            "snapshot" => {
                let body: Value = serde_json::from_slice(&event.kept.payload).unwrap_or_default();
                let id = body["snapshot"].as_str().unwrap_or_default().to_owned();
                let seen = self.seen(event, id);
                seen.count = body["count"].as_i64();
            }
            _ => self.poison(event),
        }
    }

    fn claim(&mut self, event: &Event<'_>, source: &str, refused: &BTreeSet<i64>) {
        let Event { revision, kept, .. } = event;
        let text = |name: &str| kept.headers.get(name).map(|value| value.as_str().to_owned());
        let snapshot = text(header::SNAPSHOT);
        let Ok(parsed) = parse_entity(&kept.payload, &Limits::default()) else {
            if let Some(id) = snapshot {
                let seen = self.seen(event, id);
                (seen.parts, seen.refused) = (seen.parts + 1, seen.refused + 1);
            }
            return self.poison(event);
        };
        let entity_ref = parsed.entity_ref.to_string();
        let entity = self.entities.entry(entity_ref.clone()).or_default();
        if let Some(expected) = text(header::EXPECTED_REVISION).and_then(|expected| expected.parse::<i64>().ok()) {
            let found = entity.claims.winner_before(*revision).map(|standing| standing.newest);
            let is_refused = refused.contains(&kept.stored);
            // The revision of what is shown may be below that of the claim, where the newest event changed nothing.
            let may_be = found.map_or(expected == 0, |found| (1..=found).contains(&expected));
            let has_to_be = found == Some(expected) || (found.is_none() && expected == 0);
            // What was claimed before the broker forgot stands until it is withdrawn, and the oracle does not know it.
            if !self.is_late && ((is_refused && has_to_be) || (!is_refused && !may_be)) {
                let became = if is_refused { "refused" } else { "applied" };
                self.expected.violations.push(format!(
                    "I3: event {revision} on {entity_ref} expects revision {expected} and was {became}; the events before it make {found:?}"
                ));
            }
            if is_refused {
                return;
            }
        }
        let subject = self.names.event(&event.provider, "");
        let outcome = process(&MODEL, &parsed, subject.trim_end_matches('.'));
        let good = outcome.is_ok();
        match outcome {
            Ok(processed) => drop(entity.good.insert(*revision, processed)),
            Err(error) => drop(entity.errors.insert(*revision, error)),
        }
        let operation = Operation::Claim { key: text(header::LOCATION_KEY), good };
        entity.claims.insert(source, Head { revision: *revision, operation }, 0);
        if let Some(id) = snapshot {
            self.seen(event, id).parts += 1;
        }
    }

    fn seen(&mut self, event: &Event<'_>, id: String) -> &mut SnapshotSeen {
        let seen = self.expected.snapshots.entry((event.provider.clone(), id)).or_default();
        seen.begun = if seen.begun == 0 { event.revision } else { seen.begun };
        seen.last = event.revision;
        seen
    }

    fn poison(&mut self, event: &Event<'_>) {
        self.expected.poison.insert(event.kept.stored, event.kept.subject.clone());
    }

    /// What a snapshot of the event's provider has left out is withdrawn as soon as it is complete.
    fn sweep(&mut self, event: &Event<'_>, swept: &BTreeSet<(String, String)>) {
        let complete = self.expected.snapshots.iter().filter(|((provider, _), seen)| {
            *provider == event.provider && seen.last == event.revision && seen.is_complete()
        });
        for ((provider, _), seen) in complete.filter(|(named, _)| swept.contains(*named)) {
            for entity in self.entities.values_mut() {
                entity.claims.sweep(&format!("provider:{provider}"), seen.begun, seen.last);
            }
        }
    }
}

fn show(installation: &str, entities: &BTreeMap<String, Entity>) -> Catalog {
    let winners: Vec<_> = entities
        .iter()
        .filter_map(|(entity_ref, entity)| Some((entity_ref, entity, entity.claims.winner()?.1)))
        .collect();
    let mut incoming: BTreeMap<&str, Vec<(String, String)>> = BTreeMap::new();
    for (_, entity, standing) in &winners {
        let said = standing.good.and_then(|good| entity.good.get(&good)).map(|processed| &processed.foreign);
        for relation in said.into_iter().flatten() {
            let pair = (relation.relation_type.clone(), relation.target_ref.clone());
            incoming.entry(&relation.source_ref).or_default().push(pair);
        }
    }
    let mut catalog = Catalog::new();
    for (entity_ref, entity, standing) in &winners {
        let Some(processed) = standing.good.and_then(|good| entity.good.get(&good)) else { continue };
        let error =
            entity.errors.get(&standing.newest).filter(|_| standing.failed()).map(ProcessingError::to_status_item);
        let incoming = incoming.get(entity_ref.as_str()).cloned().unwrap_or_default();
        let uid = uid(installation, entity_ref, entity.claims.born().unwrap_or_default()).to_string();
        let processed = processed.entity.clone();
        let input = StitchInput {
            processed,
            entity_ref,
            uid: &uid,
            incoming,
            error: error.as_ref(),
            orphan: standing.released,
        };
        if let Ok(stitched) = stitch(input) {
            catalog.insert((*entity_ref).clone(), serde_json::from_slice(&stitched.body).unwrap_or_default());
        }
    }
    catalog
}
