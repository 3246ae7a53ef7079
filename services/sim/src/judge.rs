//! The judgement at rest: database, entity stream, reader and oracle say the same, and nothing that was accepted is missing.

use crate::oracle::{Catalog, Event, Expected, evaluate};
use crate::site::Site;
use bus::twin::Kept;
use bus::{Bus, Names, header};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use store::Store;

/// Violations of one sort that are told.
const TOLD: usize = 5;

/// What is still to do; none: everything is at rest.
pub(crate) async fn unrest(site: &Site, bus: &Bus, store: &Store) -> Result<Option<String>, String> {
    let names = bus.names();
    let away = |error: bus::Error| error.to_string();
    let failed = |error: store::Error| error.to_string();
    let (events, stitch) = (names.events_stream(), names.stitch_stream());
    for (stream, durable) in [
        (&events, Names::PROCESSOR),
        (&events, Names::PROCESSOR_BULK),
        (&stitch, Names::STITCHER),
        (&stitch, Names::STITCHER_BULK),
    ] {
        let waiting = bus::unsettled(bus, stream, durable).await.map_err(away)?;
        if waiting > 0 {
            return Ok(Some(format!("{waiting} messages wait in {durable}")));
        }
    }
    // A stitcher may be between its publish and its commit for a request that another one has acknowledged.
    if site.database.running() > 0 {
        return Ok(Some("transactions are running".to_owned()));
    }
    let (waiting, _) = store.outbox_length().await.map_err(failed)?;
    if waiting > 0 {
        return Ok(Some(format!("{waiting} rows wait in the outbox")));
    }
    if store.repair_state().await.map_err(failed)?.is_rebuilding {
        return Ok(Some("a rebuild goes on".to_owned()));
    }
    if store.counts().await.map_err(failed)?.removals > 0 || !store.open_snapshots(10).await.map_err(failed)?.is_empty()
    {
        return Ok(Some("removals or snapshots go on".to_owned()));
    }
    let Some(last) = site.broker.messages(&events).last().map(|kept| (kept.sequence, kept.stored)) else {
        return reading(site, bus, store).await;
    };
    let position = store.stream_position(&events).await.map_err(failed)?;
    let revision = position.map(|position| position.revision(last.0, last.1)).unwrap_or_default();
    let floor = store.floor().await.map_err(failed)?;
    if floor < revision {
        return Ok(Some(format!("the floor is {floor}, below the newest event {revision}")));
    }
    reading(site, bus, store).await
}

/// Whether the reader is where the stream is.
async fn reading(site: &Site, bus: &Bus, store: &Store) -> Result<Option<String>, String> {
    let watermark = store.watermark().await.map_err(|error| error.to_string())?;
    let reader = site.newest_reader();
    let shown = reader.as_ref().and_then(reader::State::watermark);
    if watermark >= 0 && shown != Some(watermark) {
        return Ok(Some(format!("the watermark is {watermark}, the reader's is {shown:?}")));
    }
    let last = bus::last_entity(bus, None).await.map_err(|error| error.to_string())?;
    let reached = reader.map(|reader| reader.sequence());
    Ok((reached != Some(last)).then(|| format!("the entity stream ends at {last}, the reader is at {reached:?}")))
}

/// Everything that is wrong.
pub(crate) async fn judge(site: &Site, bus: &Bus, store: &Store) -> Vec<String> {
    let names = bus.names();
    let mut violations = Vec::new();
    let history = site.broker.history();
    let Ok(Some(position)) = store.stream_position(&names.events_stream()).await else {
        return vec!["nothing is known of the event stream".to_owned()];
    };
    // What providers claimed before the broker forgot was withdrawn after it.
    let since = site.lost_at();
    let events: Vec<Event<'_>> = history
        .iter()
        .filter(|kept| *kept.stream == *names.events_stream() && kept.stored > since)
        .map(|kept| {
            let (provider, operation) = names.parse_event(&kept.subject).unwrap_or_default();
            Event { revision: position.revision(kept.sequence, kept.stored), kept, provider, operation }
        })
        .collect();
    let letters = dead_letters(&history, since);
    let refused: BTreeSet<i64> =
        letters.iter().filter(|(_, reason)| reason.starts_with("expected ")).map(|(stored, _)| *stored).collect();
    let snapshots = store.snapshot_rows(1000).await.unwrap_or_default();
    let done: BTreeSet<(String, String)> = snapshots
        .iter()
        .filter(|row| row.state == "done")
        .map(|row| (row.provider.clone(), row.snapshot.clone()))
        .collect();
    let expected = evaluate(names, (&events, since), &refused, &done);
    violations.extend(expected.violations.iter().take(TOLD).cloned());
    violations.extend(snapshots_differ(&expected, &snapshots));
    violations.extend(letters_differ(&expected, &letters, &refused));
    violations.extend(versions(names, &history));
    let stream = newest(names, &site.broker.messages(&names.entities_stream()));
    violations.extend(compare(&expected.catalog, &stream, since > 0));
    if !events.is_empty() {
        violations.extend(promise_broken(site, names, &history, &expected.catalog));
    }
    violations.extend(compare_truth(store, &stream).await);
    violations.extend(compare_reader(site, &stream));
    if site.is_missed() && store.gaps(10).await.is_ok_and(|gaps| gaps.is_empty()) {
        violations.push("I1: the broker forgot, and no gap is reported".to_owned());
    }
    if site.database.deadlocks() > 0 {
        violations.push(format!("{} deadlocks: somebody locks against the order", site.database.deadlocks()));
    }
    violations
}

/// Dead letters of events, by when the event was stored; with the reason.
fn dead_letters(history: &[Kept], since: i64) -> BTreeMap<i64, String> {
    let text =
        |kept: &Kept, name: &str| kept.headers.get(name).map(|value| value.as_str().to_owned()).unwrap_or_default();
    let letters = history.iter().filter(|kept| kept.stream.ends_with("DEAD_LETTERS"));
    let letters = letters.filter_map(|kept| {
        let stored: i64 = text(kept, header::DEAD_STORED).parse().ok()?;
        (stored > since).then(|| (stored, text(kept, header::DEAD_REASON)))
    });
    letters.collect()
}

fn letters_differ(expected: &Expected, letters: &BTreeMap<i64, String>, refused: &BTreeSet<i64>) -> Vec<String> {
    let missing = expected.poison.iter().filter(|(stored, _)| !letters.contains_key(stored));
    let missing = missing
        .map(|(_, subject)| format!("I1: an event of {subject} could be no claim and is not among the dead letters"));
    let innocent =
        letters.iter().filter(|(stored, _)| !expected.poison.contains_key(stored) && !refused.contains(stored));
    let innocent = innocent.map(|(_, reason)| format!("I1: a dead letter that should be none: {reason}"));
    missing.take(TOLD).chain(innocent.take(TOLD)).collect()
}

fn snapshots_differ(expected: &Expected, rows: &[store::SnapshotRow]) -> Vec<String> {
    let mut violations = Vec::new();
    for ((provider, id), seen) in &expected.snapshots {
        let state =
            rows.iter().find(|row| row.provider == *provider && row.snapshot == *id).map(|row| row.state.as_str());
        // A part that was long on its way may have come after the time was over.
        let fits = match state {
            Some("done") => seen.is_complete(),
            Some("held") => seen.refused > 0,
            Some("timed_out") => true,
            _ => false,
        };
        if !fits {
            violations.push(format!(
                "I3: snapshot {id} is {state:?}, with {} parts of {:?}, {} of them refused",
                seen.parts, seen.count, seen.refused
            ));
        }
    }
    violations
}

/// The versions of an entity's messages rise in a stream. One that is made anew, or goes back, begins with what was on its way: a publish that expects
/// nothing of its subject may get there first.
fn versions(names: &Names, history: &[Kept]) -> Vec<String> {
    let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
    let mut violations = Vec::new();
    let mut last = 0;
    for kept in history.iter().filter(|kept| *kept.stream == *names.entities_stream()) {
        if kept.sequence <= last {
            newest.clear();
        }
        last = kept.sequence;
        let Some(version) = version(kept) else { continue };
        if let Some(known) = newest.insert(&kept.subject, version).filter(|known| *known >= version) {
            violations.push(format!("I4: {} was published in version {version} after {known}", kept.subject));
        }
    }
    violations.truncate(TOLD);
    violations
}

/// The newest message of an entity.
struct Newest {
    version: i64,
    hash: Option<String>,
    body: Option<Map<String, Value>>,
}

fn newest(names: &Names, messages: &[Kept]) -> BTreeMap<String, Newest> {
    let text = |kept: &Kept, name: &str| kept.headers.get(name).map(|value| value.as_str().to_owned());
    let entities = messages.iter().filter_map(|kept| {
        let newest = Newest {
            version: version(kept)?,
            hash: text(kept, header::HASH),
            body: serde_json::from_slice(&kept.payload).ok(),
        };
        Some((names.parse_entity(&kept.subject)?, newest))
    });
    entities.collect()
}

fn compare(expected: &Catalog, stream: &BTreeMap<String, Newest>, without_uid: bool) -> Vec<String> {
    let shown = |entity_ref: &String| stream.get(entity_ref).and_then(|newest| newest.body.as_ref());
    let plain = |entity: &Map<String, Value>| {
        let mut entity = entity.clone();
        if let Some(Value::Object(metadata)) = entity.get_mut("metadata").filter(|_| without_uid) {
            metadata.remove("uid");
            metadata.remove("etag");
        }
        entity
    };
    let refs: BTreeSet<&String> = expected.keys().chain(stream.keys()).collect();
    let differs = refs.into_iter().filter_map(|entity_ref| match (expected.get(entity_ref), shown(entity_ref)) {
        (None, None) => None,
        (Some(_), None) => Some(format!("I3: {entity_ref} is lost, the oracle has it")),
        (None, Some(_)) => Some(format!("I3: {entity_ref} is there, and the oracle does not have it")),
        (Some(expected), Some(found)) => {
            let (expected, found) = (plain(expected), plain(found));
            (expected != found).then(|| {
                let (expected, found) = (Value::Object(expected), Value::Object(found));
                format!("I3: {entity_ref} is {found}, the oracle says {expected}")
            })
        }
    });
    differs.take(TOLD).collect()
}

/// What a reader showed when the watermark had passed the newest event was the catalog already.
fn promise_broken(site: &Site, names: &Names, history: &[Kept], expected: &Catalog) -> Vec<String> {
    let Some(shown) = site.promised() else {
        return vec!["at rest the watermark has not reached the newest event".to_owned()];
    };
    let entities = history.iter().filter(|kept| *kept.stream == *names.entities_stream());
    let of = |kept: &&Kept| Some((names.parse_entity(&kept.subject)?, version(kept)?));
    let shown: Vec<Kept> = entities
        .filter(|kept| of(kept).is_some_and(|(of, version)| shown.get(&of) == Some(&version)))
        .cloned()
        .collect();
    let differs = compare(expected, &newest(names, &shown), site.lost_at() > 0).into_iter();
    differs.map(|what| format!("when the watermark had passed everything: {what}")).collect()
}

fn version(kept: &Kept) -> Option<i64> {
    kept.headers.get(header::VERSION)?.as_str().parse().ok()
}

async fn compare_truth(store: &Store, stream: &BTreeMap<String, Newest>) -> Vec<String> {
    let states = match store.published_after(0, 100_000).await {
        Ok(states) => states,
        Err(error) => return vec![format!("the truth cannot be had: {error}")],
    };
    let differs = states.iter().filter_map(|state| {
        let newest = stream.get(&state.entity_ref);
        let found = newest.map(|newest| (newest.version, newest.hash.clone()));
        let is_same = match &found {
            None => state.hash.is_none() && !state.never_stitched,
            // A stitcher that did not live to write what it published again leaves the same in a higher version.
            Some((version, hash)) => *version >= state.version && *hash == state.hash,
        };
        (!is_same).then(|| {
            format!("I4: the truth has {} in version {}, the stream {found:?}", state.entity_ref, state.version)
        })
    });
    differs.take(TOLD).collect()
}

fn compare_reader(site: &Site, stream: &BTreeMap<String, Newest>) -> Vec<String> {
    let Some(reader) = site.newest_reader() else { return Vec::new() };
    let expected = |newest: &Newest| newest.body.is_some().then_some(newest.version);
    let mut violations: Vec<String> = stream
        .iter()
        .filter_map(|(entity_ref, newest)| {
            let shown = reader.memory().by_ref(entity_ref).map(|shown| shown.version());
            (shown != expected(newest)).then(|| {
                format!("I5: a reader has {entity_ref} in version {shown:?}, the stream in {}", newest.version)
            })
        })
        .collect();
    let standing = stream.values().filter(|newest| newest.body.is_some()).count();
    if reader.memory().len() != standing {
        violations.push(format!("I5: a reader has {} entities, the stream {standing}", reader.memory().len()));
    }
    violations.truncate(TOLD);
    violations
}
