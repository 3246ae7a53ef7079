//! From a message to an event: parsed, validated, processed, without any I/O; or the reason why it can never be one.

use bus::{Item, Names, Outcome, header};
use catalog::entity::{self, Limits};
use catalog::entity_ref::EntityRef;
use catalog::hash::map_hash;
use catalog::process::{Model, Relation, process};
use serde_json::Value;
use std::time::UNIX_EPOCH;

/// Bytes of a location key at most.
const LOCATION_KEY_BYTES: usize = 2048;

/// A message as it was understood.
pub(crate) enum Loaded {
    /// It changes a claim.
    Event(Event),
    /// It can't be a claim; the reason in one sentence.
    Dead(String),
}

impl Loaded {
    pub fn event(&self) -> Option<&Event> {
        match self {
            Loaded::Event(event) => Some(event),
            _ => None,
        }
    }

    pub fn into_outcome(self) -> Outcome {
        match self {
            Loaded::Event(_) => Outcome::Done,
            Loaded::Dead(reason) => Outcome::Dead(reason),
        }
    }
}

/// An event on one claim.
pub(crate) struct Event {
    pub sequence: u64,
    /// When the broker stored it, in nanoseconds since 1970.
    pub stored: i64,
    pub entity_ref: String,
    pub source: String,
    pub change: Change,
}

pub(crate) enum Change {
    Upsert(Upsert),
    Delete,
    /// Stitch it again; its claims stay as they are.
    Refresh,
}

pub(crate) struct Upsert {
    pub location_key: Option<String>,
    /// Hash of the entity as it came, and of the model that processed it.
    pub hash: String,
    pub outcome: Result<Good, Bad>,
}

/// Processing succeeded.
#[derive(Debug)]
pub struct Good {
    pub body: Vec<u8>,
    pub foreign: Vec<Relation>,
}

/// Processing failed: the entity as it came, and the error as a status item.
#[derive(Debug)]
pub struct Bad {
    pub raw: Vec<u8>,
    pub error: String,
}

impl Event {
    /// What the event's entity says of others.
    pub fn foreign(&self) -> &[Relation] {
        match &self.change {
            Change::Upsert(Upsert { outcome: Ok(good), .. }) => &good.foreign,
            _ => &[],
        }
    }
}

/// Understands a message.
pub(crate) fn load(item: &Item, names: &Names, model: &Model, limits: &Limits) -> Loaded {
    let Some((provider, operation)) = names.parse_event(item.subject()) else {
        return Loaded::Dead(format!("subject {} names no provider and operation", item.subject()));
    };
    if item.header(header::EXPECTED_REVISION).is_some() {
        return Loaded::Dead(format!(
            "header {}: this version of Callboard does not decide expected revisions",
            header::EXPECTED_REVISION
        ));
    }
    let parsed = match operation.as_str() {
        "upsert" | "import" => {
            let provider_subject = item.subject().rsplit_once('.').map_or(item.subject(), |(provider, _)| provider);
            upsert(item.payload(), item.header(header::LOCATION_KEY), provider_subject, model, limits)
        }
        "delete" => parse_ref(item.payload()).map(|entity_ref| (entity_ref, Change::Delete)),
        "refresh" => parse_ref(item.payload()).map(|entity_ref| (entity_ref, Change::Refresh)),
        other => Err(format!("operation {other}: this version of Callboard does not know it")),
    };
    match parsed {
        Ok((entity_ref, change)) => Loaded::Event(Event {
            sequence: item.sequence,
            stored: item
                .published
                .duration_since(UNIX_EPOCH)
                .map_or(0, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)),
            entity_ref,
            source: format!("provider:{provider}"),
            change,
        }),
        Err(reason) => Loaded::Dead(reason),
    }
}

/// An entity as a claim on its ref, processed.
pub(crate) fn upsert(
    payload: &[u8],
    location_key: Option<&str>,
    provider_subject: &str,
    model: &Model,
    limits: &Limits,
) -> Result<(String, Change), String> {
    let unprocessed = entity::parse_entity(payload, limits).map_err(|refusal| refusal.to_string())?;
    if location_key.is_some_and(|key| key.len() > LOCATION_KEY_BYTES) {
        return Err(format!("header {}: expected at most {LOCATION_KEY_BYTES} bytes", header::LOCATION_KEY));
    }
    let location_key = location_key.map(str::to_owned);
    let entity_ref = unprocessed.entity_ref.to_string();
    // Under another model the same entity may give something else.
    let hash = format!("{}-{}", map_hash(&unprocessed.entity), model.fingerprint());
    let outcome = match process(model, &unprocessed, provider_subject) {
        Ok(processed) => Ok(Good {
            body: serde_json::to_vec(&processed.entity).expect("a JSON tree can be written"),
            foreign: processed.foreign,
        }),
        Err(error) => Err(Bad { raw: payload.to_vec(), error: error.to_status_item().to_string() }),
    };
    Ok((entity_ref, Change::Upsert(Upsert { location_key, hash, outcome })))
}

/// `{"entityRef": "component:default/web"}`
fn parse_ref(payload: &[u8]) -> Result<String, String> {
    let expected = "expected {\"entityRef\": \"kind:namespace/name\"}";
    let body: Value = serde_json::from_slice(payload).map_err(|error| format!("not JSON ({error}): {expected}"))?;
    let Some(text) = body.get("entityRef").and_then(Value::as_str) else {
        return Err(format!("field entityRef is not there or no string: {expected}"));
    };
    if text.len() > 1000 || text.contains('\0') {
        return Err(format!("field entityRef: {expected}, at most 1000 bytes, without U+0000"));
    }
    EntityRef::parse(text).map(|entity_ref| entity_ref.to_string()).map_err(|error| format!("field entityRef: {error}"))
}
