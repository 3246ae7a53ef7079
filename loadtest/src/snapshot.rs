//! A whole catalog at rest, in a form that can be compared with another: entity by entity, field by field.

use crate::Error;
use crate::view::View;
use catalog::hash::map_hash;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// What of an entity counts when two installations are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sameness {
    /// Everything: both have the same name, and the same events at the same revisions.
    Everything,
    /// Everything but which event, of several with the same content, is named as the one it comes from.
    AllButRevision,
    /// All but uid, etag and revision, which follow from the revisions of events that differ.
    ContentOnly,
}

impl Sameness {
    /// In a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Sameness::Everything => "with uid, etag and revision",
            Sameness::AllButRevision => "with uid and etag, without the revision of the event shown",
            Sameness::ContentOnly => "without uid, etag and revision, which follow from the events' sequences",
        }
    }
}

/// Every entity of a catalog, by ref. About 3 KiB of memory an entity.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot(BTreeMap<String, Shown>);

#[derive(Clone, Debug)]
struct Shown {
    /// The entity's JSON.
    json: Vec<u8>,
    digests: [String; 2],
    revision: i64,
}

impl Snapshot {
    /// Reads everything that a reader has.
    pub async fn take(view: &View) -> Result<Snapshot, Error> {
        let mut snapshot = Snapshot::default();
        view.each(|entity| snapshot.insert(&entity.r#ref, entity.revision, api::entity_to_json(&entity))).await?;
        Ok(snapshot)
    }

    fn insert(&mut self, entity_ref: &str, revision: i64, json: Map<String, Value>) {
        let text = Value::Object(json.clone()).to_string().into_bytes();
        let digests = [map_hash(&json), map_hash(&anonymous(json))];
        self.0.insert(entity_ref.to_owned(), Shown { json: text, digests, revision });
    }

    /// Adds an entity that came as JSON.
    pub fn add(&mut self, entity_ref: &str, entity: Value) {
        if let Value::Object(entity) = entity {
            self.insert(entity_ref, 0, entity);
        }
    }

    /// How many entities.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What differs, a line an entity: `ref: what, here, there`. Empty: nothing does.
    pub fn differences(&self, other: &Snapshot, sameness: Sameness) -> Vec<String> {
        let refs: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        let difference = |entity_ref: &String| match (self.0.get(entity_ref), other.0.get(entity_ref)) {
            (Some(expected), Some(found)) => {
                expected.difference(found, sameness).map(|what| format!("{entity_ref}: {what}"))
            }
            (Some(_), None) => Some(format!("{entity_ref}: expected the entity, found none")),
            _ => Some(format!("{entity_ref}: expected no entity, found one")),
        };
        refs.into_iter().filter_map(difference).collect()
    }
}

impl Shown {
    fn difference(&self, other: &Shown, sameness: Sameness) -> Option<String> {
        let whole = usize::from(sameness == Sameness::ContentOnly);
        if self.digests[whole] != other.digests[whole] {
            let read = |shown: &Shown| {
                serde_json::from_slice(&shown.json)
                    .map_or_else(|_| Map::new(), |json| if whole == 1 { anonymous(json) } else { json })
            };
            let path = first_difference("", &Value::Object(read(self)), &Value::Object(read(other)));
            return Some(path.unwrap_or_else(|| "the digests differ".to_owned()));
        }
        let differs = sameness == Sameness::Everything && self.revision != other.revision;
        differs.then(|| format!("revision: expected {}, found {}", self.revision, other.revision))
    }
}

/// The entity without what tells two installations apart.
fn anonymous(mut json: Map<String, Value>) -> Map<String, Value> {
    if let Some(Value::Object(metadata)) = json.get_mut("metadata") {
        metadata.remove("uid");
        metadata.remove("etag");
    }
    json
}

/// Where two values first differ, and how; none: they do not.
pub(crate) fn first_difference(path: &str, expected: &Value, found: &Value) -> Option<String> {
    match (expected, found) {
        (Value::Object(one), Value::Object(other)) => {
            let keys: BTreeSet<&String> = one.keys().chain(other.keys()).filter(|key| *key != "etag").collect();
            let in_keys = keys.into_iter().find_map(|key| {
                first_difference(
                    &format!("{path}.{key}"),
                    one.get(key).unwrap_or(&Value::Null),
                    other.get(key).unwrap_or(&Value::Null),
                )
            });
            in_keys.or_else(|| (one.get("etag") != other.get("etag")).then(|| format!("{path}.etag: differs")))
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            (0..one.len()).find_map(|index| first_difference(&format!("{path}[{index}]"), &one[index], &other[index]))
        }
        (one, other) if one == other => None,
        (one, other) => Some(format!("{path}: expected {}, found {}", short(one), short(other))),
    }
}

fn short(value: &Value) -> String {
    const CHARACTERS: usize = 160;
    let text = value.to_string();
    match text.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn snapshot(entities: &[(&str, i64, Value)]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (entity_ref, revision, json) in entities {
            snapshot.insert(entity_ref, *revision, json.as_object().unwrap().clone());
        }
        snapshot
    }

    fn check(found: (&str, i64, Value), sameness: Sameness, expected: &[&str]) {
        let one = snapshot(&[(
            "a:b/c",
            3,
            json!({ "metadata": { "uid": "1", "etag": "x", "title": "A" }, "relations": [1, 2] }),
        )]);
        assert_eq!(one.differences(&snapshot(&[found]), sameness), expected, "{sameness:?}");
    }

    #[test]
    fn what_differs_is_named() {
        use Sameness::{AllButRevision, ContentOnly, Everything};
        let entity = |uid: &str, etag: &str, title: &str, last: i64| json!({ "metadata": { "uid": uid, "etag": etag, "title": title }, "relations": [1, last] });
        let same = || entity("1", "x", "A", 2);
        check(("a:b/c", 3, same()), Everything, &[]);
        check(("a:b/c", 4, same()), Everything, &["a:b/c: revision: expected 3, found 4"]);
        check(("a:b/c", 4, same()), AllButRevision, &[]);
        check(("a:b/c", 4, entity("2", "y", "A", 2)), ContentOnly, &[]);
        check(
            ("a:b/c", 3, entity("2", "y", "A", 2)),
            AllButRevision,
            &["a:b/c: .metadata.uid: expected \"1\", found \"2\""],
        );
        check(("a:b/c", 3, entity("1", "y", "A", 2)), Everything, &["a:b/c: .metadata.etag: differs"]);
        check(
            ("a:b/c", 3, entity("1", "y", "B", 2)),
            ContentOnly,
            &["a:b/c: .metadata.title: expected \"A\", found \"B\""],
        );
        check(("a:b/c", 3, entity("1", "x", "A", 5)), ContentOnly, &["a:b/c: .relations[1]: expected 2, found 5"]);
        check(
            ("a:b/d", 3, same()),
            ContentOnly,
            &["a:b/c: expected the entity, found none", "a:b/d: expected no entity, found one"],
        );
    }
}
