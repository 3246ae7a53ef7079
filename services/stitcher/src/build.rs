//! From what is committed to final entities: read after the locks, built without any I/O.

use catalog::hash::{bytes_hash, map_hash};
use catalog::stitch::{Around, stitch_stored, uid};
use serde_json::Value;
use std::collections::HashMap;
use std::time::Duration;
use store::{Error, Incoming, Shown, StitchState, Stitching, Store};
use tokio::time::Instant;

/// An entity is stitched again no sooner than this many times what its last stitch took, so that a hot one costs a bounded share.
const PAUSE_FACTOR: u32 = 20;
/// Shorter pauses are none.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// No row, and no KiB of the body, counts for more: only a process that was stopped, or got no core, takes as long by the clock.
const LONGEST_PART: Duration = Duration::from_millis(1);

/// An entity as it is to be shown now.
pub(crate) struct Built {
    pub entity_ref: String,
    pub revision: i64,
    pub state: StitchState,
    pub result: Form,
    pub pause_ms: i64,
}

/// What stitching gave.
pub(crate) enum Form {
    Content {
        hash: String,
        body: Vec<u8>,
        /// Refs of the entities that emit it, as a JSON array; none: no entity does.
        parents: Option<String>,
    },
    /// It was never processed successfully: nothing is shown of it, but why, to who asks.
    Unprocessed {
        hash: String,
        why: String,
    },
    Gone,
    /// It cannot be stitched; what is shown stays.
    Failed(String),
}

/// What the truth makes of an entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The entity.
    pub entity_id: i64,
    /// Its ref.
    pub entity_ref: String,
    /// What is published as its hash; none: it is not there.
    pub hash: Option<String>,
    /// Hash of all that is to be seen of it, uid and etag included; none: nothing is.
    pub shown: Option<String>,
}

/// What the truth makes of these entities (sorted, distinct) now, without a lock and without writing anything. One that cannot be stitched is
/// left out: what is shown of it stays.
///
/// # Errors
/// Those of the database.
pub async fn expected(store: &Store, installation: &str, entity_ids: &[i64]) -> Result<Vec<Expected>, Error> {
    let mut stitching = store.look_at_stitched(entity_ids).await?;
    let due = std::mem::take(&mut stitching.states);
    let expected = |built: Built| {
        let (hash, shown) = match built.result {
            Form::Content { hash, body, .. } => (Some(hash), Some(map_hash(&serde_json::from_slice(&body).ok()?))),
            Form::Unprocessed { hash, .. } => (Some(hash), None),
            Form::Gone => (None, None),
            Form::Failed(_) => return None,
        };
        Some(Expected { entity_id: built.state.entity_id, entity_ref: built.entity_ref, hash, shown })
    };
    Ok(build(&mut stitching, &due, installation).await?.into_iter().filter_map(expected).collect())
}

/// Reads and builds the entities of these states.
pub(crate) async fn build(
    stitching: &mut Stitching,
    due: &[StitchState],
    installation: &str,
) -> Result<Vec<Built>, Error> {
    let ids: Vec<i64> = due.iter().map(|state| state.entity_id).collect();
    let started = Instant::now();
    let shown = stitching.read_shown(&ids).await?;
    let present: Vec<i64> =
        shown.iter().filter(|entity| entity.body.is_some()).map(|entity| entity.entity_id).collect();
    let incoming = match present.is_empty() {
        true => Vec::new(),
        false => stitching.read_incoming(&present).await?,
    };
    let rows = u32::try_from(shown.len() + incoming.len()).unwrap_or(u32::MAX).max(1);
    let read_a_row = started.elapsed() / rows;
    let mut incoming = by_subject(incoming);
    let mut shown: HashMap<i64, Shown> = shown.into_iter().map(|entity| (entity.entity_id, entity)).collect();
    let mut built = Vec::with_capacity(due.len());
    for state in due {
        let Some(entity) = shown.remove(&state.entity_id) else { continue };
        let incoming = incoming.remove(&state.entity_id).unwrap_or_default();
        let rows = u32::try_from(incoming.len()).unwrap_or(u32::MAX).saturating_add(1);
        let kibibytes = entity.body.as_ref().map_or(0, |body| u32::try_from(body.len() >> 10).unwrap_or(u32::MAX));
        let started = Instant::now();
        let (entity_ref, revision) = (entity.entity_ref.clone(), entity.revision);
        let result = build_one(entity, incoming, installation);
        let pause_ms = pause(started.elapsed() + read_a_row * rows, rows.saturating_add(kibibytes));
        built.push(Built { entity_ref, revision, state: state.clone(), result, pause_ms });
    }
    Ok(built)
}

fn by_subject(incoming: Vec<Incoming>) -> HashMap<i64, Vec<(String, String)>> {
    let mut subjects: HashMap<i64, Vec<(String, String)>> = HashMap::new();
    for row in incoming {
        subjects.entry(row.subject_id).or_default().push((row.relation_type, row.target_ref));
    }
    subjects
}

fn build_one(entity: Shown, incoming: Vec<(String, String)>, installation: &str) -> Form {
    let (body, born) = match (entity.body, entity.born, &entity.error) {
        (Some(body), Some(born), _) => (body, born),
        (None, Some(_), Some(error)) => return unprocessed(error),
        _ => return Form::Gone,
    };
    let error: Option<Value> = entity.error.and_then(|error| serde_json::from_str(&error).ok());
    let uid = uid(installation, &entity.entity_ref, born).to_string();
    let around =
        Around { entity_ref: &entity.entity_ref, uid: &uid, incoming, error: error.as_ref(), orphan: entity.orphan };
    match stitch_stored(&body, around) {
        Ok(stitched) => {
            let parents = entity.parents.map(|parents| Value::from(parents).to_string());
            Form::Content { hash: hash_with(stitched.hash, parents.as_deref()), body: stitched.body, parents }
        }
        Err(error) => Form::Failed(error.to_string()),
    }
}

/// How the hash of an entity begins that was never processed successfully.
const UNPROCESSED: &str = "unprocessed-";
/// Characters of the reason that are told.
const WHY_CHARS: usize = 1000;

fn unprocessed(status_item: &str) -> Form {
    let item: Value = serde_json::from_str(status_item).unwrap_or_default();
    let message = item["message"].as_str().unwrap_or("its processing failed");
    let why: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WHY_CHARS).collect();
    Form::Unprocessed { hash: format!("{UNPROCESSED}{}", bytes_hash([why.as_bytes()])), why }
}

/// The content's hash, and behind a plus that of its parents where it has any: they stand beside the content, and others are another state.
fn hash_with(mut hash: String, parents: Option<&str>) -> String {
    if let Some(parents) = parents {
        hash.push('+');
        hash.push_str(&bytes_hash([parents.as_bytes()])[..16]);
    }
    hash
}

/// How long an entity of so many parts rests that took so long.
fn pause(took: Duration, parts: u32) -> i64 {
    let pause = took.min(LONGEST_PART * parts) * PAUSE_FACTOR;
    match pause < SHORTEST_PAUSE {
        true => 0,
        false => i64::try_from(pause.min(LONGEST_PAUSE).as_millis()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_costs_much_rests_and_who_was_stopped_does_not() {
        let check = |took_ms, parts, expected_ms| {
            assert_eq!(pause(Duration::from_millis(took_ms), parts), expected_ms, "{took_ms} ms, {parts} parts");
        };
        check(2, 10, 0);
        check(3, 10, 60);
        check(9_000, 10, 200);
        check(9_000, 50_000, 30_000);
    }
}
