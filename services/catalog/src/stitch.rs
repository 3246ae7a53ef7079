//! Stitching: the final entity out of what processing stored, what others say about it, and its error.

use crate::hash::Hasher;
use crate::search::clashing_keys;
use crate::stored::{self, Stored};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::borrow::Cow;
use uuid::Uuid;

/// `backstage.io/orphan`: nothing emits the entity any more.
pub const ORPHAN: &str = "backstage.io/orphan";

/// The namespace of all uids of entities: itself the v5 UUID of `callboard.entity` in the DNS namespace.
const UIDS: Uuid = Uuid::from_u128(0x718969dd_6615_554f_a668_347b9b4cf260);

/// All that one stitch needs.
pub struct StitchInput<'a> {
    /// What processing gave last for good, with the entity's own `relations`.
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

/// What is stitched to what processing stored; as in [`StitchInput`].
pub struct Around<'a> {
    pub entity_ref: &'a str,
    pub uid: &'a str,
    pub incoming: Vec<(String, String)>,
    pub error: Option<&'a Value>,
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
    #[error("{entity_ref}: its stored content is no JSON object: {reason}")]
    NoJson { entity_ref: String, reason: String },
}

/// Builds the final entity: relations merged, each once, sorted by type and target; uid and etag set; the status item of an error appended; annotations that
/// would run script replaced.
///
/// The etag is the hash of the content, unless the source gave one (Backstage's rule). Costs what sorting the relations costs.
pub fn stitch(input: StitchInput<'_>) -> Result<Stitched, StitchError> {
    let StitchInput { processed, entity_ref, uid, incoming, error, orphan } = input;
    stitch_stored(&stored::store(processed), Around { entity_ref, uid, incoming, error, orphan })
}

/// [`stitch`] of what [`store`](stored::store) has written: uid, etag and relations are put between the stored bytes. Only where an error is
/// appended, or keys might clash, a tree is built.
pub fn stitch_stored(kept: &[u8], around: Around<'_>) -> Result<Stitched, StitchError> {
    let no_json = |reason: String| StitchError::NoJson { entity_ref: around.entity_ref.to_owned(), reason };
    let again;
    let stored = match stored::open(kept) {
        Some(stored) => stored,
        // It was stored before there was a line.
        None => {
            let entity = serde_json::from_slice(kept).map_err(|error| no_json(error.to_string()))?;
            again = stored::store(entity);
            stored::open(&again).expect("it was written just now")
        }
    };
    let own = OwnRelations::deserialize(&mut serde_json::Deserializer::from_slice(stored.relations()));
    let own = own.map_err(|error| no_json(error.to_string()))?;
    let relations = merged_relations(&own, &around.incoming);
    let hash = hash(stored.hash, &around, &relations);
    let body = match stored.is_odd || around.error.is_some() || around.orphan || types_may_clash(&relations) {
        false => spliced(&stored, around.uid, &hash, &relations),
        true => completed(&stored, &around, &hash, &relations)?,
    };
    Ok(Stitched { body, hash })
}

/// The uid of an entity: name-based (v5), so that the same incarnation (`born`: the revision that brought it about) has the same uid wherever it is computed.
pub fn uid(installation: &str, entity_ref: &str, born: i64) -> Uuid {
    // U+0000 is in none of the three, so no two of them run together alike.
    Uuid::new_v5(&UIDS, format!("{installation}\0{entity_ref}\0{born}").as_bytes())
}

/// Type and target.
type Pair<'a> = (&'a str, &'a str);

type OwnRelations<'a> = Vec<OwnRelation<'a>>;

#[derive(Deserialize)]
struct OwnRelation<'a> {
    #[serde(borrow, rename = "type")]
    relation_type: Cow<'a, str>,
    #[serde(borrow, rename = "targetRef")]
    target_ref: Cow<'a, str>,
}

fn merged_relations<'a>(own: &'a [OwnRelation<'a>], incoming: &'a [(String, String)]) -> Vec<Pair<'a>> {
    let own = own.iter().map(|relation| (&*relation.relation_type, &*relation.target_ref));
    let incoming = incoming.iter().map(|(relation_type, target_ref)| (relation_type.as_str(), target_ref.as_str()));
    let mut relations: Vec<Pair<'_>> = own.chain(incoming).collect();
    relations.sort_unstable();
    relations.dedup();
    relations
}

fn hash(content: &str, around: &Around<'_>, relations: &[Pair<'_>]) -> String {
    let mut hasher = Hasher::new();
    hasher.text(content);
    hasher.text(around.uid);
    hasher.value(&Value::Bool(around.orphan));
    hasher.value(around.error.unwrap_or(&Value::Null));
    for (relation_type, target_ref) in relations {
        hasher.text(relation_type);
        hasher.text(target_ref);
    }
    hasher.hex()
}

/// Relations are sorted, so that each type comes once in a row.
fn types_may_clash(relations: &[Pair<'_>]) -> bool {
    let mut types: Vec<&str> = relations.iter().map(|(relation_type, _)| *relation_type).collect();
    types.dedup();
    let clash = |(index, one): (usize, &&str)| types[..index].iter().any(|other| one.eq_ignore_ascii_case(other));
    !types.iter().all(|kind| kind.is_ascii()) || types.iter().enumerate().any(clash)
}

fn spliced(stored: &Stored<'_>, uid: &str, etag: &str, relations: &[Pair<'_>]) -> Vec<u8> {
    let mut body = Vec::with_capacity(stored.relations_at + 256 + 96 * relations.len());
    body.extend_from_slice(&stored.json[..stored.metadata_end]);
    if body.last() != Some(&b'{') {
        body.push(b',');
    }
    body.extend_from_slice(b"\"uid\":");
    write(&mut body, uid);
    if !stored.has_etag {
        body.extend_from_slice(b",\"etag\":");
        write(&mut body, etag);
    }
    body.extend_from_slice(&stored.json[stored.metadata_end..stored.relations_at]);
    body.extend_from_slice(b",\"relations\":[");
    for (index, (relation_type, target_ref)) in relations.iter().enumerate() {
        body.extend_from_slice(if index == 0 { b"{\"type\":" } else { b",{\"type\":" });
        write(&mut body, relation_type);
        body.extend_from_slice(b",\"targetRef\":");
        write(&mut body, target_ref);
        body.push(b'}');
    }
    body.extend_from_slice(b"]}");
    body
}

fn write(to: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(to, text).expect("a text can be written");
}

/// The same by way of a tree, with what is seldom there.
fn completed(
    stored: &Stored<'_>,
    around: &Around<'_>,
    hash: &str,
    relations: &[Pair<'_>],
) -> Result<Vec<u8>, StitchError> {
    let entity_ref = || around.entity_ref.to_owned();
    let mut entity: Map<String, Value> = serde_json::from_slice(stored.json)
        .map_err(|error| StitchError::NoJson { entity_ref: entity_ref(), reason: error.to_string() })?;
    entity.insert("relations".to_owned(), relations.iter().map(relation).collect());
    if let Some(item) = around.error {
        append_status(&mut entity, item);
    }
    complete_metadata(&mut entity, around.uid, around.orphan)
        .ok_or_else(|| StitchError::NoMetadata { entity_ref: entity_ref() })?;
    let clashing = clashing_keys(&entity);
    if !clashing.is_empty() {
        let keys = format!("'{}'", clashing.join("', '"));
        return Err(StitchError::KeysClash { entity_ref: entity_ref(), keys });
    }
    if let Some(Value::Object(metadata)) = entity.get_mut("metadata").filter(|_| !stored.has_etag) {
        metadata.insert("etag".to_owned(), Value::String(hash.to_owned()));
    }
    Ok(serde_json::to_vec(&entity).expect("a tree of JSON values can be written"))
}

fn relation((relation_type, target_ref): &Pair<'_>) -> Value {
    let mut relation = Map::with_capacity(2);
    relation.insert("type".to_owned(), Value::String((*relation_type).to_owned()));
    relation.insert("targetRef".to_owned(), Value::String((*target_ref).to_owned()));
    Value::Object(relation)
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
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::{EDIT_URL, VIEW_URL};
    use crate::stored::store;
    use proptest::prelude::*;
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

    #[test]
    fn what_was_stored_as_bare_json_stitches_alike() {
        let entity = json!({"relations": [{"targetRef": "a:b/c", "type": "x"}], "metadata": {"name": "web", "uid": 3}});
        let around = || Around {
            entity_ref: "component:default/web",
            uid: UID,
            incoming: pairs(&[("y", "d:e/f")]),
            error: None,
            orphan: false,
        };
        let bare = stitch_stored(entity.to_string().as_bytes(), around()).expect("it stitches");
        let Value::Object(entity) = entity else { panic!("an object") };
        assert_eq!(stitch_stored(&store(entity), around()).expect("it stitches"), bare);
        assert!(matches!(stitch_stored(b"[1]", around()), Err(StitchError::NoJson { .. })));
    }

    proptest! {
        #[test]
        fn to_splice_gives_what_the_tree_gives(
            metadata in crate::hash::tests::any_json(),
            spec in crate::hash::tests::any_json(),
            own in proptest::collection::vec(("[a-c\"]", "[a-c\\\\]"), 0..3),
            incoming in proptest::collection::vec(("[a-c\"]", "[a-c]"), 0..3),
            metadata_first in any::<bool>(),
            etag in proptest::option::of("[a-c]?"),
        ) {
            let mut metadata = match metadata { Value::Object(map) => map, other => Map::from_iter([("x".to_owned(), other)]) };
            metadata.extend(etag.map(|etag| ("etag".to_owned(), Value::String(etag))));
            let own: Vec<Value> = own.iter().map(|(kind, target)| json!({"type": kind, "targetRef": target})).collect();
            let mut fields = [("metadata".to_owned(), metadata.into()), ("spec".to_owned(), spec)];
            fields.rotate_left(usize::from(!metadata_first));
            let mut entity = Map::from_iter(fields);
            entity.insert("relations".to_owned(), own.into());
            let kept = store(entity);
            let stored = stored::open(&kept).expect("a line");
            let around = Around { entity_ref: "a:b/c", uid: UID, incoming, error: None, orphan: false };
            let own: OwnRelations<'_> = serde_json::from_slice(stored.relations()).expect("a list");
            let relations = merged_relations(&own, &around.incoming);
            let spliced: Value = serde_json::from_slice(&spliced(&stored, UID, "hash", &relations)).expect("JSON");
            match completed(&stored, &around, "hash", &relations) {
                Ok(completed) => prop_assert_eq!(spliced, serde_json::from_slice::<Value>(&completed).expect("JSON")),
                Err(_) => prop_assert!(stored.is_odd || types_may_clash(&relations)),
            }
        }
    }

    fn check_url(url: &str, rejected: bool) {
        let (entity, _) =
            stitched(input(json!({"metadata": {"annotations": {VIEW_URL: url, EDIT_URL: url, "other": url}}})));
        let shown = if rejected { crate::stored::REJECTED_URL } else { url };
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
