//! Stitching: the final entity out of what processing stored, what others say about it, and its error.

use crate::hash::map_hash;
use crate::location::{EDIT_URL, VIEW_URL, is_script_url};
use crate::search::clashing_keys;
use serde_json::{Map, Value};
use uuid::Uuid;

/// `backstage.io/orphan`: nothing emits the entity any more.
pub const ORPHAN: &str = "backstage.io/orphan";

/// What stands in place of a `javascript:` URL (Backstage's, word for word).
const REJECTED_URL: &str = "https://backstage.io/annotation-rejected-for-security-reasons";

/// The namespace of all uids of entities: itself the v5 UUID of `callboard.entity` in the DNS namespace.
const UIDS: Uuid = Uuid::from_u128(0x718969dd_6615_554f_a668_347b9b4cf260);

/// All that one stitch needs.
pub struct StitchInput<'a> {
    /// What processing stored last for good, with the entity's own `relations`.
    pub processed: Map<String, Value>,
    pub entity_ref: &'a str,
    pub uid: &'a str,
    /// Relations that other entities made for this one, as type and target ref, in any order and number.
    pub incoming: Vec<(String, String)>,
    /// The status item of the processing error, while there is one.
    pub error: Option<&'a Value>,
    /// Whether nothing emits the entity any more.
    pub orphan: bool,
}

/// The final entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stitched {
    /// Its JSON.
    pub body: Vec<u8>,
    /// Hex of a hash over all of it but the etag the engine gives: while it stays, nothing visible has changed.
    pub hash: String,
}

/// Why an entity can't be stitched: the version before stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StitchError {
    #[error("InputError: {entity_ref}: Entity has duplicate keys that vary only in casing, {keys}")]
    KeysClash { entity_ref: String, keys: String },
    #[error("{entity_ref}: the processed entity has no metadata object")]
    NoMetadata { entity_ref: String },
}

/// Builds the final entity: relations merged, each once, sorted by type and target; uid and etag set; the status item of an error appended; annotations that
/// would run script replaced.
///
/// The etag is the hash of the content, unless the source gave one (Backstage's rule). Costs what sorting the relations costs.
pub fn stitch(input: StitchInput<'_>) -> Result<Stitched, StitchError> {
    let StitchInput { processed: mut entity, entity_ref, uid, incoming, error, orphan } = input;
    let relations = merged_relations(entity.remove("relations"), incoming);
    entity.insert("relations".to_owned(), relations);
    if let Some(item) = error {
        append_status(&mut entity, item);
    }
    complete_metadata(&mut entity, uid, orphan)
        .ok_or_else(|| StitchError::NoMetadata { entity_ref: entity_ref.to_owned() })?;
    let clashing = clashing_keys(&entity);
    if !clashing.is_empty() {
        return Err(StitchError::KeysClash {
            entity_ref: entity_ref.to_owned(),
            keys: format!("'{}'", clashing.join("', '")),
        });
    }
    let hash = map_hash(&entity);
    set_etag(&mut entity, &hash);
    let body = serde_json::to_vec(&entity).expect("a tree of JSON values can be written");
    Ok(Stitched { body, hash })
}

/// The uid of an entity: name-based (v5), so that the same incarnation (`born`: the revision that brought it about) has the same uid wherever it is computed.
pub fn uid(installation: &str, entity_ref: &str, born: i64) -> Uuid {
    // U+0000 is in none of the three, so no two of them run together alike.
    Uuid::new_v5(&UIDS, format!("{installation}\0{entity_ref}\0{born}").as_bytes())
}

fn merged_relations(own: Option<Value>, incoming: Vec<(String, String)>) -> Value {
    let mut relations = incoming;
    if let Some(Value::Array(own)) = own {
        relations.extend(own.into_iter().filter_map(type_and_target));
    }
    relations.sort_unstable();
    relations.dedup();
    relations
        .into_iter()
        .map(|(relation_type, target_ref)| {
            let mut relation = Map::with_capacity(2);
            relation.insert("type".to_owned(), Value::String(relation_type));
            relation.insert("targetRef".to_owned(), Value::String(target_ref));
            Value::Object(relation)
        })
        .collect()
}

fn type_and_target(mut relation: Value) -> Option<(String, String)> {
    match (relation["type"].take(), relation["targetRef"].take()) {
        (Value::String(relation_type), Value::String(target_ref)) => Some((relation_type, target_ref)),
        _ => None,
    }
}

fn append_status(entity: &mut Map<String, Value>, item: &Value) {
    let status = entity.entry("status").or_insert_with(|| Value::Object(Map::new()));
    if !status.is_object() {
        *status = Value::Object(Map::new());
    }
    match &mut status["items"] {
        Value::Array(items) => items.push(item.clone()),
        other => *other = Value::Array(vec![item.clone()]),
    }
}

fn complete_metadata(entity: &mut Map<String, Value>, uid: &str, orphan: bool) -> Option<()> {
    let metadata = entity.get_mut("metadata")?.as_object_mut()?;
    metadata.insert("uid".to_owned(), Value::String(uid.to_owned()));
    if orphan {
        let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(ORPHAN.to_owned(), Value::String("true".to_owned()));
        }
    }
    if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
        for key in [VIEW_URL, EDIT_URL] {
            if let Some(Value::String(url)) = annotations.get_mut(key)
                && is_script_url(url)
            {
                REJECTED_URL.clone_into(url);
            }
        }
    }
    Some(())
}

fn set_etag(entity: &mut Map<String, Value>, hash: &str) {
    if let Some(Value::Object(metadata)) = entity.get_mut("metadata") {
        let etag = metadata.entry("etag").or_insert(Value::Null);
        if etag.as_str().is_none_or(str::is_empty) {
            *etag = Value::String(hash.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const UID: &str = "f3c0f2f5-0000-5000-8000-000000000000";

    fn input(processed: Value) -> StitchInput<'static> {
        let Value::Object(processed) = processed else { panic!("an object") };
        StitchInput {
            processed,
            entity_ref: "component:default/web",
            uid: UID,
            incoming: Vec::new(),
            error: None,
            orphan: false,
        }
    }

    fn stitched(input: StitchInput<'_>) -> (Value, String) {
        let stitched = stitch(input).expect("it stitches");
        (serde_json::from_slice(&stitched.body).expect("JSON"), stitched.hash)
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(one, other)| ((*one).to_owned(), (*other).to_owned())).collect()
    }

    #[test]
    fn relations_are_merged_once_each_and_sorted() {
        let processed = json!({"metadata": {"name": "web"}, "relations": [
            {"type": "ownedBy", "targetRef": "group:default/b"},
            {"type": "dependsOn", "targetRef": "a:b/c"},
        ]});
        let incoming = pairs(&[
            ("ownedBy", "group:default/a"),
            ("dependsOn", "a:b/c"),
            ("ownedBy", "group:default/a"),
            ("apiProvidedBy", "z:z/z"),
        ]);
        let (entity, _) = stitched(StitchInput { incoming, ..input(processed) });
        assert_eq!(
            entity["relations"],
            json!([
                {"type": "apiProvidedBy", "targetRef": "z:z/z"},
                {"type": "dependsOn", "targetRef": "a:b/c"},
                {"type": "ownedBy", "targetRef": "group:default/a"},
                {"type": "ownedBy", "targetRef": "group:default/b"},
            ])
        );
        assert_eq!(stitched(input(json!({"metadata": {}}))).0["relations"], json!([]));
    }

    #[test]
    fn the_etag_is_the_hash_unless_the_source_gave_one() {
        let (entity, hash) = stitched(input(json!({"metadata": {"name": "web", "uid": "theirs"}})));
        assert_eq!(entity["metadata"], json!({"name": "web", "uid": UID, "etag": hash}));
        let (entity, other) = stitched(input(json!({"metadata": {"name": "web", "etag": "mine"}})));
        assert_eq!(entity["metadata"]["etag"], "mine");
        assert_ne!(hash, other);
    }

    #[test]
    fn the_hash_tells_every_visible_change_and_only_those() {
        let base = || input(json!({"metadata": {"name": "web", "a": 1}, "spec": {}}));
        let hash = stitched(base()).1;
        assert_eq!(stitched(input(json!({"spec": {}, "metadata": {"a": 1.0, "name": "web"}}))).1, hash);
        let item = json!({"type": "x"});
        let changed = [
            StitchInput { uid: "another", ..base() },
            StitchInput { incoming: pairs(&[("a", "b")]), ..base() },
            StitchInput { error: Some(&item), ..base() },
            StitchInput { orphan: true, ..base() },
        ];
        for input in changed {
            assert_ne!(stitched(input).1, hash);
        }
    }

    #[test]
    fn errors_and_orphans_show() {
        let item = json!({"type": "backstage.io/catalog-processing", "level": "error"});
        let (entity, _) = stitched(StitchInput { error: Some(&item), orphan: true, ..input(json!({"metadata": {}})) });
        assert_eq!(entity["status"], json!({"items": [item]}));
        assert_eq!(entity["metadata"]["annotations"], json!({ORPHAN: "true"}));
        let own = json!({"metadata": {}, "status": {"items": [1], "more": 2}});
        let (entity, _) = stitched(StitchInput { error: Some(&item), ..input(own) });
        assert_eq!(entity["status"], json!({"items": [1, item], "more": 2}));
        let odd = json!({"metadata": {}, "status": 3});
        assert_eq!(stitched(StitchInput { error: Some(&item), ..input(odd) }).0["status"], json!({"items": [item]}));
    }

    fn check_url(url: &str, rejected: bool) {
        let (entity, _) =
            stitched(input(json!({"metadata": {"annotations": {VIEW_URL: url, EDIT_URL: url, "other": url}}})));
        let shown = if rejected { REJECTED_URL } else { url };
        assert_eq!(
            entity["metadata"]["annotations"],
            json!({VIEW_URL: shown, EDIT_URL: shown, "other": url}),
            "{url:?}"
        );
    }

    #[test]
    fn script_urls_are_replaced() {
        check_url("https://example.com", false);
        check_url("javascript:alert(1)", true);
        check_url(" \u{1}\u{1f}JAVA\tsc\r\nript\n:x", true);
        check_url("xjavascript:x", false);
        check_url("\u{a0}javascript:x", false);
        check_url("java script:x", false);
    }

    #[test]
    fn keys_that_differ_in_case_are_an_error() {
        let error = stitch(input(json!({"metadata": {"labels": {"tier": "1", "Tier": "2"}}}))).expect_err("a clash");
        assert_eq!(
            error.to_string(),
            "InputError: component:default/web: Entity has duplicate keys that vary only in casing, 'metadata.labels.tier'"
        );
        assert!(matches!(stitch(input(json!({}))), Err(StitchError::NoMetadata { .. })));
    }

    #[test]
    fn fifty_thousand_relations_are_no_trouble() {
        let incoming =
            (0..50_000).map(|n| ("hasPart".to_owned(), format!("component:default/c{}", n * 7919 % 50_000))).collect();
        let (entity, _) = stitched(StitchInput { incoming, ..input(json!({"metadata": {}})) });
        assert_eq!(entity["relations"].as_array().map(Vec::len), Some(50_000));
    }

    #[test]
    fn uids() {
        let one = uid("catalog", "component:default/web", 7);
        assert_eq!(one, uid("catalog", "component:default/web", 7));
        assert_eq!(one.get_version_num(), 5);
        for other in [
            uid("catalog2", "component:default/web", 7),
            uid("catalog", "component:default/we", 7),
            uid("catalog", "component:default/web", 8),
        ] {
            assert_ne!(one, other);
        }
    }
}
