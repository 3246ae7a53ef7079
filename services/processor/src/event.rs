//! From a message to an event: parsed, validated, processed, without any I/O; or the reason why it can never be one.

use crate::evaluate::Child;
use crate::pipeline::Pipeline;
use crate::snapshots::{End, check_id, parse_end};
use bus::{Item, Names, Outcome, header};
use catalog::claims::Revision;
use catalog::entity::{self, Limits};
use catalog::entity_ref::EntityRef;
use catalog::hash::map_hash;
use catalog::process::Relation;
use catalog::reading::refresh_key;
use serde_json::Value;
use std::time::UNIX_EPOCH;

/// Bytes of a location key at most.
const LOCATION_KEY_BYTES: usize = 2048;
/// Refresh keys that one event names at most.
const REFRESH_KEYS: usize = 1000;

/// A message as it was understood.
pub(crate) enum Loaded {
    /// It changes a claim.
    Event(Event),
    /// It asks for what was read from these refresh keys to be read again.
    Keys(Vec<String>),
    /// It ends a snapshot.
    End(End),
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

    pub fn to_outcome(&self) -> Outcome {
        match self {
            Loaded::Event(_) | Loaded::Keys(_) | Loaded::End(_) => Outcome::Done,
            Loaded::Dead(reason) => Outcome::Dead(reason.clone()),
        }
    }
}

/// An event on one claim.
pub(crate) struct Event {
    pub sequence: u64,
    /// When the broker stored it, in nanoseconds since 1970.
    pub stored: i64,
    /// It is no message but part of what an entity emits, under this revision.
    pub emitted: Option<Revision>,
    pub entity_ref: String,
    pub source: String,
    pub change: Change,
}

impl Event {
    /// Whether what the events before it make decides what becomes of it.
    pub fn is_expecting(&self) -> bool {
        matches!(&self.change, Change::Upsert(Upsert { expected: Some(_), .. }))
    }
}

pub(crate) enum Change {
    Upsert(Upsert),
    Delete,
    /// Read again what it comes from, and stitch it again; its claims stay as they are.
    Refresh,
    /// An operator removes it, whoever claims it; what emits it is read again.
    Remove,
    /// A parent entity has stopped emitting it.
    Release,
    /// What its claim needed from outside was read.
    Read(Read),
    /// A snapshot that began at this revision left it out.
    Sweep {
        begun: Revision,
    },
}

/// What came of a read.
pub(crate) struct Read {
    /// Hash of the content for which it was read.
    pub hash: String,
    /// What processing gave with it, or the error as a status item.
    pub outcome: Result<Good, String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Upsert {
    pub location_key: Option<String>,
    /// Hash of the entity as it came, and of the model that processed it.
    pub hash: String,
    pub outcome: Processed,
    /// The snapshot that it is part of.
    pub snapshot: Option<String>,
    /// The revision that it replaces; 0: the entity must not be there.
    pub expected: Option<Revision>,
}

impl Upsert {
    /// What an entity emits.
    pub fn of(child: Child) -> Upsert {
        let Child { location_key, raw, hash, outcome, .. } = child;
        let outcome = match outcome {
            None => Processed::Pending(raw),
            Some(Ok(good)) => Processed::Good(good),
            Some(Err(bad)) => Processed::Bad(bad),
        };
        Upsert { location_key, hash, outcome, snapshot: None, expected: None }
    }
}

/// What processing gave.
#[derive(Clone, Debug)]
pub(crate) enum Processed {
    Good(Good),
    Bad(Bad),
    /// Nothing yet: it needs outside reads. The entity as it came.
    Pending(Vec<u8>),
}

impl Processed {
    pub fn good(&self) -> Option<&Good> {
        match self {
            Processed::Good(good) => Some(good),
            _ => None,
        }
    }
}

/// Processing succeeded.
#[derive(Clone, Debug)]
pub struct Good {
    pub body: Vec<u8>,
    pub foreign: Vec<Relation>,
}

/// Processing failed: the entity as it came, and the error as a status item.
#[derive(Clone, Debug)]
pub struct Bad {
    pub raw: Vec<u8>,
    pub error: String,
}

impl Event {
    /// The content that it brings.
    pub fn good(&self) -> Option<&Good> {
        match &self.change {
            Change::Upsert(upsert) => upsert.outcome.good(),
            Change::Read(read) => read.outcome.as_ref().ok(),
            _ => None,
        }
    }

    /// What the event's entity says of others.
    pub fn foreign(&self) -> &[Relation] {
        self.good().map_or(&[], |good| &good.foreign)
    }
}

/// Understands a message.
pub(crate) fn load(item: &Item, names: &Names, pipeline: &Pipeline, limits: &Limits) -> Loaded {
    let Some((provider, operation)) = names.parse_event(item.subject()) else {
        return Loaded::Dead(format!("subject {} names no provider and operation", item.subject()));
    };
    let parsed = match operation.as_str() {
        "upsert" | "import" => {
            let provider_subject = item.subject().rsplit_once('.').map_or(item.subject(), |(provider, _)| provider);
            upsert(item.payload(), item.header(header::LOCATION_KEY), provider_subject, pipeline, limits)
                .and_then(|(entity_ref, change)| Ok((entity_ref, with_headers(change, item)?)))
        }
        "snapshot" => return parse_end(provider, item.payload()).map_or_else(Loaded::Dead, Loaded::End),
        "delete" => parse_ref(item.payload()).map(|entity_ref| (entity_ref, Change::Delete)),
        "refresh" => match parse_keys(item.payload()) {
            Ok(Some(keys)) => return Loaded::Keys(keys),
            Ok(None) => parse_ref(item.payload()).map(|entity_ref| (entity_ref, Change::Refresh)),
            Err(reason) => Err(reason),
        },
        "remove" if provider == Names::OPERATOR => {
            parse_ref(item.payload()).map(|entity_ref| (entity_ref, Change::Remove))
        }
        "remove" => Err(format!("provider {provider} may not remove what others claim: expected {}", Names::OPERATOR)),
        other => Err(format!("operation {other}: this version of Callboard does not know it")),
    };
    match parsed {
        Ok((entity_ref, change)) => Loaded::Event(Event {
            sequence: item.sequence,
            stored: stored(item),
            emitted: None,
            entity_ref,
            source: format!("provider:{provider}"),
            change,
        }),
        Err(reason) => Loaded::Dead(reason),
    }
}

/// An upsert with what the headers say of it beside its location key.
fn with_headers(mut change: Change, item: &Item) -> Result<Change, String> {
    if let Change::Upsert(upsert) = &mut change {
        if let Some(id) = item.header(header::SNAPSHOT) {
            check_id(id).map_err(|reason| format!("header {}: {reason}", header::SNAPSHOT))?;
            upsert.snapshot = Some(id.to_owned());
        }
        if let Some(text) = item.header(header::EXPECTED_REVISION) {
            let expected = text.parse().ok().filter(|revision: &Revision| *revision >= 0);
            let reason = || format!("header {}: expected a revision, found \"{text}\"", header::EXPECTED_REVISION);
            upsert.expected = Some(expected.ok_or_else(reason)?);
        }
    }
    Ok(change)
}

/// When the broker stored a message, in nanoseconds since 1970.
pub(crate) fn stored(item: &Item) -> i64 {
    let since = item.published.duration_since(UNIX_EPOCH);
    since.map_or(0, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
}

/// An entity as a claim on its ref, processed.
pub(crate) fn upsert(
    payload: &[u8],
    location_key: Option<&str>,
    provider_subject: &str,
    pipeline: &Pipeline,
    limits: &Limits,
) -> Result<(String, Change), String> {
    let unprocessed = entity::parse_entity(payload, limits).map_err(|refusal| refusal.to_string())?;
    if location_key.is_some_and(|key| key.len() > LOCATION_KEY_BYTES) {
        return Err(format!("header {}: expected at most {LOCATION_KEY_BYTES} bytes", header::LOCATION_KEY));
    }
    let location_key = location_key.map(str::to_owned);
    let entity_ref = unprocessed.entity_ref.to_string();
    // Under another pipeline the same entity may give something else.
    let hash = format!("{}-{}", map_hash(&unprocessed.entity), pipeline.fingerprint());
    let outcome = match pipeline.needs_outside(&unprocessed.entity) {
        true => Processed::Pending(payload.to_vec()),
        false => match pipeline.process(unprocessed, provider_subject) {
            Ok(processed) => {
                Processed::Good(Good { body: catalog::stored::store(processed.entity), foreign: processed.foreign })
            }
            Err(error) => Processed::Bad(Bad { raw: payload.to_vec(), error: error.to_status_item().to_string() }),
        },
    };
    Ok((entity_ref, Change::Upsert(Upsert { location_key, hash, outcome, snapshot: None, expected: None })))
}

/// `{"keys": ["url:https://host/path"]}`; none: it names no keys.
fn parse_keys(payload: &[u8]) -> Result<Option<Vec<String>>, String> {
    let expected = format!("expected 1 to {REFRESH_KEYS} strings of at most {LOCATION_KEY_BYTES} bytes");
    let body: Value = serde_json::from_slice(payload).map_err(|error| format!("not JSON: {error}"))?;
    let Some(keys) = body.get("keys") else { return Ok(None) };
    let fits = |key: &&str| key.len() <= LOCATION_KEY_BYTES && !key.contains('\0');
    let key = |key: &Value| key.as_str().filter(fits).map(refresh_key);
    let keys: Option<Vec<String>> = keys.as_array().and_then(|keys| keys.iter().map(key).collect());
    let fitting = keys.filter(|keys| (1..=REFRESH_KEYS).contains(&keys.len()));
    fitting.map(Some).ok_or_else(|| format!("field keys: {expected}"))
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
