//! What the catalog has to be: the accepted events, one after the other, by the pure functions; and refs and relations by rules of its own.

use super::provider::Accepted;
use catalog::claims::{Claims, Head, Operation};
use catalog::entity::{Limits, parse_entity};
use catalog::process::{Model, process};
use catalog::stitch::{StitchInput, stitch};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Refs with their entities, as they are to be shown, without uid and etag.
pub(crate) type Catalog = BTreeMap<String, Map<String, Value>>;

/// An entity's relations: type and target.
pub(crate) type Relations = BTreeSet<(String, String)>;

#[derive(Default)]
struct Entity {
    claims: Claims,
    /// What each event's processing gave.
    good: BTreeMap<i64, Map<String, Value>>,
    said: BTreeMap<i64, Vec<catalog::process::Relation>>,
    errors: BTreeMap<i64, Value>,
}

/// One sequential run of the events, in the order of the stream.
pub(crate) fn evaluate(events: &[Accepted]) -> Catalog {
    let model = Model::builtin();
    let mut entities: BTreeMap<String, Entity> = BTreeMap::new();
    for step in steps(events) {
        let revision = |sequence: u64| i64::try_from(sequence).unwrap_or(i64::MAX);
        let Accepted { sequence, event, .. } = match step {
            Step::Event(accepted) => accepted,
            Step::Sweep(Swept { provider, begun, ended }) => {
                let source = format!("provider:{provider}");
                let sweep = |entity: &mut Entity| {
                    entity.claims.sweep(&source, revision(begun), revision(ended));
                };
                entities.values_mut().for_each(sweep);
                continue;
            }
        };
        let revision = revision(*sequence);
        let Some(entity_ref) = &event.entity_ref else { continue };
        let entity = entities.entry(entity_ref.clone()).or_default();
        let operation = match event.operation {
            "delete" => Operation::Withdrawal,
            "upsert" | "import" => {
                let Ok(parsed) = parse_entity(&event.payload, &Limits::default()) else { continue };
                let outcome = process(&model, &parsed, &format!("catalog.events.{}", event.provider));
                let good = outcome.is_ok();
                match outcome {
                    Ok(processed) => {
                        entity.good.insert(revision, processed.entity);
                        entity.said.insert(revision, processed.foreign);
                    }
                    Err(error) => drop(entity.errors.insert(revision, error.to_status_item())),
                }
                Operation::Claim { key: event.key.clone(), good }
            }
            _ => continue,
        };
        entity.claims.insert(&format!("provider:{}", event.provider), Head { revision, operation }, 0);
    }
    show(&entities)
}

/// A snapshot all of whose parts were accepted: where it begins and ends.
struct Swept {
    provider: &'static str,
    begun: u64,
    ended: u64,
}

/// What happens, one after the other.
enum Step<'a> {
    Event(&'a Accepted),
    /// Directly after the snapshot's last event.
    Sweep(Swept),
}

fn steps(events: &[Accepted]) -> Vec<Step<'_>> {
    let mut snapshots: BTreeMap<&str, (Swept, usize, usize)> = BTreeMap::new();
    for Accepted { sequence, event, .. } in events {
        let Some(snapshot) = &event.snapshot else { continue };
        let first = || (Swept { provider: event.provider, begun: *sequence, ended: *sequence }, 0, snapshot.parts + 1);
        let (swept, found, _) = snapshots.entry(&snapshot.id).or_insert_with(first);
        swept.ended = *sequence;
        *found += 1;
    }
    let complete = snapshots.into_values().filter(|(_, found, expected)| found == expected);
    let sweeps = complete.map(|(swept, ..)| (swept.ended, 1, Step::Sweep(swept)));
    let mut steps: Vec<(u64, u8, Step<'_>)> =
        events.iter().map(|event| (event.sequence, 0, Step::Event(event))).chain(sweeps).collect();
    steps.sort_by_key(|(sequence, kind, _)| (*sequence, *kind));
    steps.into_iter().map(|(_, _, step)| step).collect()
}

fn show(entities: &BTreeMap<String, Entity>) -> Catalog {
    let winners: Vec<(&String, &Entity, catalog::claims::Standing)> = entities
        .iter()
        .filter_map(|(entity_ref, entity)| Some((entity_ref, entity, entity.claims.winner()?.1)))
        .collect();
    let mut incoming: BTreeMap<&str, Vec<(String, String)>> = BTreeMap::new();
    for (_, entity, standing) in &winners {
        for relation in standing.good.and_then(|good| entity.said.get(&good)).into_iter().flatten() {
            let pair = (relation.relation_type.clone(), relation.target_ref.clone());
            incoming.entry(&relation.source_ref).or_default().push(pair);
        }
    }
    let mut catalog = Catalog::new();
    for (entity_ref, entity, standing) in &winners {
        let Some(processed) = standing.good.and_then(|good| entity.good.get(&good)) else { continue };
        let error = if standing.failed() { entity.errors.get(&standing.newest) } else { None };
        let incoming = incoming.get(entity_ref.as_str()).cloned().unwrap_or_default();
        let input = StitchInput { processed: processed.clone(), entity_ref, uid: "", incoming, error, orphan: false };
        if let Ok(stitched) = stitch(input) {
            let entity: Map<String, Value> = serde_json::from_slice(&stitched.body).unwrap_or_default();
            catalog.insert((*entity_ref).clone(), anonymous(entity));
        }
    }
    catalog
}

/// Without what depends on where the events stand.
pub(crate) fn anonymous(mut entity: Map<String, Value>) -> Map<String, Value> {
    if let Some(Value::Object(metadata)) = entity.get_mut("metadata") {
        metadata.remove("uid");
        metadata.remove("etag");
    }
    entity
}

/// One provider's claim, in the second oracle's own words.
#[derive(Clone, Default)]
struct Said {
    at: u64,
    key: Option<String>,
    keyed_since: Option<u64>,
    shown: Option<Value>,
}

/// Refs and relations by rules written down a second time: nothing is shared with the catalog's own functions.
pub(crate) fn refs_and_relations(events: &[Accepted]) -> BTreeMap<String, Relations> {
    let mut claims: BTreeMap<&str, BTreeMap<&str, Said>> = BTreeMap::new();
    for step in steps(events) {
        let Accepted { sequence, event, .. } = match step {
            Step::Event(accepted) => accepted,
            Step::Sweep(swept) => {
                let stays = |provider: &str, said: &Said| provider != swept.provider || said.at >= swept.begun;
                claims.values_mut().for_each(|of_ref| of_ref.retain(|provider, said| stays(provider, said)));
                continue;
            }
        };
        let Some(entity_ref) = &event.entity_ref else { continue };
        let of_ref = claims.entry(entity_ref).or_default();
        match event.operation {
            "delete" => drop(of_ref.remove(event.provider)),
            "upsert" | "import" => {
                let before = of_ref.get(event.provider).cloned().unwrap_or_default();
                let entity: Value = serde_json::from_slice(&event.payload).unwrap_or_default();
                let breaks_a_rule = entity["metadata"].get("tags").is_some();
                let keyed_since = event.key.is_some().then(|| before.keyed_since.unwrap_or(*sequence));
                let shown = if breaks_a_rule { before.shown } else { Some(entity) };
                of_ref.insert(event.provider, Said { at: *sequence, key: event.key.clone(), keyed_since, shown });
            }
            _ => {}
        }
    }
    let mut found: BTreeMap<String, Relations> = BTreeMap::new();
    let mut pairs: Vec<(String, &str, &str, String)> = Vec::new();
    for (entity_ref, of_ref) in &claims {
        let Some(entity) = winner(of_ref).and_then(|said| said.shown.as_ref()) else { continue };
        found.entry((*entity_ref).to_owned()).or_default();
        let texts = |value: &Value| match value {
            Value::String(text) => vec![text.clone()],
            Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        let rules = [
            ("owner", "ownedBy", "ownerOf"),
            ("dependsOn", "dependsOn", "dependencyOf"),
            ("system", "partOf", "hasPart"),
        ];
        for (field, there, back) in rules {
            for target in texts(&entity["spec"][field]) {
                let target = if target.contains(':') { target } else { format!("system:default/{target}") };
                pairs.push(((*entity_ref).to_owned(), there, back, target));
            }
        }
    }
    for (source, there, back, target) in pairs {
        if let Some(relations) = found.get_mut(&target) {
            relations.insert((back.to_owned(), source.clone()));
        }
        if let Some(relations) = found.get_mut(&source) {
            relations.insert((there.to_owned(), target));
        }
    }
    found
}

fn winner<'a>(of_ref: &'a BTreeMap<&str, Said>) -> Option<&'a Said> {
    let first = of_ref.values().filter(|said| said.key.is_some()).min_by_key(|said| said.keyed_since);
    match first {
        Some(first) => of_ref.values().filter(|said| said.key == first.key).max_by_key(|said| said.at),
        None => of_ref.values().max_by_key(|said| said.at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::provider::{Event, Snapshot};
    use std::sync::Arc;

    fn accepted(sequence: u64, provider: &'static str, operation: &'static str, key: Option<&str>) -> Accepted {
        let entity = serde_json::json!({"apiVersion": "backstage.io/v1alpha1", "kind": "System", "metadata": {"name": "s", "title": provider}, "spec": {"owner": "group:default/g"}});
        let group = serde_json::json!({"apiVersion": "backstage.io/v1alpha1", "kind": "Group", "metadata": {"name": "g"}, "spec": {"type": "t", "children": []}});
        let (entity_ref, payload) =
            if provider == "chaos-c" { ("group:default/g", group) } else { ("system:default/s", entity) };
        let event = Event {
            provider,
            operation,
            entity_ref: Some(entity_ref.into()),
            key: key.map(str::to_owned),
            snapshot: None,
            payload: Arc::new(payload.to_string().into_bytes()),
        };
        Accepted { epoch: 0, sequence, event }
    }

    fn of_snapshot(mut accepted: Accepted, id: &str, parts: usize) -> Accepted {
        accepted.event.snapshot = Some(Snapshot { id: id.into(), parts, epoch: 0 });
        if accepted.event.operation == "snapshot" {
            accepted.event.entity_ref = None;
        }
        accepted
    }

    fn check(events: &[Accepted], title: Option<&str>, relations: usize) {
        let catalog = evaluate(events);
        let found = catalog.get("system:default/s").and_then(|entity| entity["metadata"]["title"].as_str());
        assert_eq!(found, title);
        let second = refs_and_relations(events);
        assert_eq!(second.keys().collect::<Vec<_>>(), catalog.keys().collect::<Vec<_>>());
        assert_eq!(second.values().map(BTreeSet::len).sum::<usize>(), relations);
    }

    #[test]
    fn both_oracles_say_the_same() {
        let a = |sequence, operation, key| accepted(sequence, "chaos-a", operation, key);
        let b = |sequence, operation, key| accepted(sequence, "chaos-b", operation, key);
        let group = accepted(9, "chaos-c", "upsert", None);
        check(&[a(1, "upsert", None), b(2, "upsert", None), group.clone()], Some("chaos-b"), 2);
        check(&[a(1, "upsert", Some("k")), b(2, "upsert", None), group.clone()], Some("chaos-a"), 2);
        check(&[a(1, "upsert", Some("k")), b(2, "upsert", Some("k"))], Some("chaos-b"), 1);
        check(&[a(1, "upsert", Some("k")), b(2, "upsert", None), a(3, "delete", None)], Some("chaos-b"), 1);
        check(&[a(1, "upsert", None), a(2, "delete", None), group.clone()], None, 0);
        // Snapshots: one that leaves it out, one that names it last, one that began before it was claimed, one that is not complete.
        let end = |sequence, parts| of_snapshot(a(sequence, "snapshot", None), "s", parts);
        let part = |sequence| of_snapshot(a(sequence, "import", Some("k")), "s", 1);
        check(&[a(1, "upsert", None), b(2, "upsert", None), b(3, "delete", None), end(4, 0)], None, 0);
        check(
            &[a(1, "upsert", Some("k")), b(2, "upsert", Some("j")), end(3, 1), part(4), group.clone()],
            Some("chaos-a"),
            2,
        );
        check(&[end(1, 1), a(2, "upsert", None), part(3)], Some("chaos-a"), 1);
        check(&[a(1, "upsert", None), end(2, 1)], Some("chaos-a"), 1);
    }
}
