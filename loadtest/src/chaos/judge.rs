//! The judgement: database, entity stream, readers, watchers and oracles say the same, and nothing that was accepted is missing.

use super::oracle::{self, Catalog};
use super::provider::Accepted;
use super::site::{Answer, Site};
use super::watcher::{self, Seen, lock};
use crate::Error;
use crate::snapshot::first_difference;
use crate::view::View;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long everything may take to come to rest after the last fault.
const REST_LIMIT: Duration = Duration::from_secs(180);
/// How long a watcher may take to have what the reader has.
const WATCH_LIMIT: Duration = Duration::from_secs(20);
/// Violations of one sort that are told.
const TOLD: usize = 20;

/// Waits until nothing waits any more; gives the seconds it took and what was waited for last, or what was still to do.
pub(crate) async fn rest(site: &mut Site) -> Result<Result<(f64, String), String>, Error> {
    let started = Instant::now();
    let mut calm = 0;
    let mut last = String::new();
    while started.elapsed() < REST_LIMIT {
        if let Some(ended) = site.ended()?.into_iter().next() {
            return Ok(Err(ended));
        }
        let reader = site.readers().first().cloned().unwrap_or_default();
        let status = site.ask(&reader, &["status"])?;
        let snapshots = site.ask(&reader, &["snapshots"])?.values;
        let is_open = |snapshot: &&Value| snapshot["state"] == "open" || snapshot["state"] == "sweeping";
        match status.values.first().map(unrest) {
            Some(None) if snapshots.iter().any(|snapshot| is_open(&snapshot)) => {
                (calm, last) = (0, "a snapshot is not swept".to_owned());
            }
            Some(None) => calm += 1,
            Some(Some(what)) => (calm, last) = (0, what),
            None => (calm, last) = (0, format!("the status cannot be had: {}", status.said)),
        }
        // Twice in a row: between two looks, nothing was on its way from one stage to the next.
        if calm == 2 {
            return Ok(Ok((started.elapsed().as_secs_f64(), last)));
        }
        sleep(Duration::from_millis(700)).await;
    }
    Ok(Err(last))
}

/// What is still to do.
fn unrest(status: &Value) -> Option<String> {
    for consumer in status["consumers"].as_array().into_iter().flatten() {
        let waiting = consumer["pending"].as_u64().unwrap_or(1) + consumer["inFlight"].as_u64().unwrap_or(1);
        if waiting > 0 && consumer["consumer"] != "location-reader" {
            return Some(format!("consumer {consumer}"));
        }
    }
    // The checker asks for some all the time.
    let database = &status["database"];
    let outbox = database["outbox"].as_u64().unwrap_or(u64::MAX);
    if outbox > 3 || database["repair"]["isRebuilding"] != false || database["removals"].as_u64() != Some(0) {
        return Some(format!("database {database}"));
    }
    (status["reader"]["ready"] != true).then(|| format!("reader {}", status["reader"]))
}

/// Everything that is wrong.
pub(crate) async fn judge(site: &Site, accepted: &[Accepted], seen: &Mutex<Seen>) -> Result<Vec<String>, Error> {
    let mut violations = Vec::new();
    let expected = oracle::evaluate(accepted);
    let relations = oracle::refs_and_relations(accepted);
    for reader in site.readers() {
        let verified = site.ask(&reader, &["verify"])?;
        if verified.code != 0 {
            let refs: Vec<String> = verified.values.iter().take(TOLD).map(Value::to_string).collect();
            violations.push(format!(
                "verify of reader {reader} ended with {}: {} differ: {} {}",
                verified.code,
                verified.values.len(),
                refs.join(" "),
                verified.said
            ));
        }
        let found = read(&reader).await?;
        violations.extend(compare(&expected, &found).into_iter().take(TOLD));
        violations.extend(compare_relations(&relations, &found).into_iter().take(TOLD));
    }
    match site.deadlocks() {
        0 => {}
        deadlocks => violations.push(format!("{deadlocks} deadlocks: locks are not taken in one order")),
    }
    violations.extend(dead_letters(site, accepted)?.into_iter().take(TOLD));
    violations.extend(watched(site, seen).await?.into_iter().take(TOLD));
    Ok(violations)
}

async fn read(reader: &str) -> Result<Catalog, Error> {
    let mut found = Catalog::new();
    let view = View::connect(&format!("http://{reader}")).await?;
    view.each(|entity| drop(found.insert(entity.r#ref.clone(), oracle::anonymous(api::entity_to_json(&entity)))))
        .await?;
    Ok(found)
}

fn compare(expected: &Catalog, found: &Catalog) -> Vec<String> {
    let refs: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let difference = |entity_ref: &String| match (expected.get(entity_ref), found.get(entity_ref)) {
        (Some(expected), Some(found)) => {
            first_difference("", &Value::Object(expected.clone()), &Value::Object(found.clone()))
                .map(|what| format!("{entity_ref}: {what}"))
        }
        (Some(_), None) => Some(format!("{entity_ref}: lost, the oracle has it")),
        _ => Some(format!("{entity_ref}: there, and the oracle does not have it")),
    };
    refs.into_iter().filter_map(difference).collect()
}

fn compare_relations(expected: &BTreeMap<String, oracle::Relations>, found: &Catalog) -> Vec<String> {
    let relations = |entity: &serde_json::Map<String, Value>| -> oracle::Relations {
        let list = entity.get("relations").and_then(Value::as_array).into_iter().flatten();
        let text = |relation: &Value, key: &str| relation[key].as_str().unwrap_or_default().to_owned();
        list.map(|relation| (text(relation, "type"), text(relation, "targetRef"))).collect()
    };
    let found: BTreeMap<String, oracle::Relations> =
        found.iter().map(|(entity_ref, entity)| (entity_ref.clone(), relations(entity))).collect();
    let refs: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let differs = |entity_ref: &&&String| expected.get(**entity_ref) != found.get(**entity_ref);
    let told = |entity_ref: &&String| {
        format!(
            "{entity_ref}: the second oracle says {:?}, found {:?}",
            expected.get(*entity_ref),
            found.get(*entity_ref)
        )
    };
    refs.iter().filter(differs).map(told).collect()
}

/// Every poison event has a dead letter, and nothing else has one.
fn dead_letters(site: &Site, accepted: &[Accepted]) -> Result<Vec<String>, Error> {
    let reader = site.readers().first().cloned().unwrap_or_default();
    let Answer { code, values: letters, said } = site.ask(&reader, &["dead-letters", "--limit", "10000"])?;
    if code != 0 {
        return Ok(vec![format!("dead-letters ended with {code}: {said}")]);
    }
    let payloads: BTreeSet<&str> = letters.iter().filter_map(|letter| letter["payload"].as_str()).collect();
    let poison = accepted.iter().filter(|accepted| accepted.event.is_poison());
    let missing = poison.filter(|accepted| !payloads.contains(&*String::from_utf8_lossy(&accepted.event.payload)));
    let mut violations: Vec<String> = missing
        .map(|accepted| format!("event {} could be no claim and is not among the dead letters", accepted.sequence))
        .collect();
    let innocent =
        letters.iter().filter(|letter| !letter["payload"].as_str().unwrap_or_default().contains("\"poison\""));
    violations.extend(
        innocent.map(|letter| format!("a dead letter that should be none: {} {}", letter["subject"], letter["reason"])),
    );
    Ok(violations)
}

/// What a watcher has in the end is what the reader has, in the same versions.
async fn watched(site: &Site, seen: &Mutex<Seen>) -> Result<Vec<String>, Error> {
    let reader = site.readers().first().cloned().unwrap_or_default();
    let found: BTreeSet<String> = read(&reader).await?.into_keys().collect();
    // One that begins now is shown everything as it is.
    let fresh = Arc::new(Mutex::new(Seen::default()));
    let (_address, reader) = tokio::sync::watch::channel(reader);
    let watching = tokio::spawn(watcher::run(reader, Arc::clone(&fresh)));
    let until = Instant::now() + WATCH_LIMIT;
    let there = |seen: &Mutex<Seen>| -> BTreeMap<String, i64> {
        let seen = lock(seen);
        let there = seen.entities.iter().filter(|(_, (_, is_there))| *is_there);
        there.map(|(entity_ref, (version, _))| (entity_ref.clone(), *version)).collect()
    };
    loop {
        let (old, new) = (there(seen), there(fresh.as_ref()));
        let is_all = found.iter().eq(new.keys());
        if is_all && old == new || Instant::now() > until {
            watching.abort();
            let mut violations = lock(seen).violations.clone();
            let refs: BTreeSet<&String> = old.keys().chain(new.keys()).chain(&found).collect();
            violations.extend(refs.into_iter().filter(|entity_ref| old.get(*entity_ref) != new.get(*entity_ref)).map(
                |entity_ref| {
                    let (old, new) = (old.get(entity_ref), new.get(entity_ref));
                    format!("watch: {entity_ref}: the watcher has version {old:?}, the reader {new:?}")
                },
            ));
            if !is_all {
                violations.push(format!(
                    "watch: a fresh one shows {} entities, the reader has {}",
                    new.len(),
                    found.len()
                ));
            }
            return Ok(violations);
        }
        sleep(Duration::from_millis(200)).await;
    }
}
