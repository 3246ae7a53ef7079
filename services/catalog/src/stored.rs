//! How a processed entity is kept: its JSON behind a line that says where things stand in it, so that stitching copies it and parses nothing.

use crate::clash;
use crate::hash::map_hash;
use crate::location::{EDIT_URL, VIEW_URL, is_script_url};
use serde_json::{Map, Value};

/// What stands in place of a `javascript:` URL (Backstage's, word for word).
pub(crate) const REJECTED_URL: &str = "https://backstage.io/annotation-rejected-for-security-reasons";

/// The first word of the line. What was kept before there was such a line begins with a brace.
const FORM: &str = "1";

/// A processed entity as it is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    /// Hash of its content, without its relations, its uid and the etag that the engine gives.
    pub hash: &'a str,
    /// The entity, `relations` last.
    pub json: &'a [u8],
    /// Where the closing brace of its metadata stands.
    pub metadata_end: usize,
    /// Where the relations begin, with the comma before them.
    pub relations_at: usize,
    /// The source has given it an etag.
    pub has_etag: bool,
    /// It is completed and checked as a tree: some keys may differ only in case, or it has no metadata.
    pub is_odd: bool,
}

impl Stored<'_> {
    /// The list of its own relations, as JSON.
    pub fn relations(&self) -> &[u8] {
        const NAME: usize = ",\"relations\":".len();
        &self.json[self.relations_at + NAME..self.json.len() - 1]
    }
}

/// Writes a processed entity, `relations` included, as it is kept.
///
/// Annotations that would run script are replaced, and a uid, or an etag that is no text, is left out: none of it is ever shown.
pub fn store(mut entity: Map<String, Value>) -> Vec<u8> {
    let relations = match entity.shift_remove("relations") {
        Some(Value::Array(relations)) => relations.into_iter().filter(is_relation).collect(),
        _ => Value::Array(Vec::new()),
    };
    let has_etag = strip(&mut entity);
    let hash = map_hash(&entity);
    let has_other_relations = entity.keys().any(|key| key.to_lowercase().starts_with("relations"));
    let mut json = Vec::with_capacity(2048);
    let mut metadata_end = 0;
    for (key, value) in &entity {
        json.push(if json.is_empty() { b'{' } else { b',' });
        write(&mut json, key);
        json.push(b':');
        write(&mut json, value);
        if key == "metadata" && value.is_object() {
            metadata_end = json.len() - 1;
        }
    }
    let relations_at = json.len();
    json.push(if json.is_empty() { b'{' } else { b',' });
    json.extend_from_slice(b"\"relations\":");
    write(&mut json, &relations);
    json.push(b'}');
    entity.insert("relations".to_owned(), relations);
    let is_odd = metadata_end == 0 || has_other_relations || clash::is_possible(&entity);
    let flag = |flag: bool, letter| if flag { letter } else { '-' };
    let (etag, odd) = (flag(has_etag, 'e'), flag(is_odd, 'o'));
    let mut kept = format!("{FORM} {hash} {metadata_end} {relations_at} {etag}{odd}\n").into_bytes();
    kept.extend_from_slice(&json);
    kept
}

/// The entity's JSON alone.
pub fn json(kept: &[u8]) -> &[u8] {
    match kept.first() {
        Some(b'{') | None => kept,
        Some(_) => kept.iter().position(|byte| *byte == b'\n').map_or(&[], |end| &kept[end + 1..]),
    }
}

/// Reads the line; none: there is none, or it does not fit.
pub(crate) fn open(kept: &[u8]) -> Option<Stored<'_>> {
    let json = json(kept);
    let line = std::str::from_utf8(kept.get(..kept.len() - json.len())?).ok()?.strip_suffix('\n')?;
    let mut words = line.split(' ');
    if words.next()? != FORM {
        return None;
    }
    let hash = words.next()?;
    let [metadata_end, relations_at]: [usize; 2] = [words.next()?.parse().ok()?, words.next()?.parse().ok()?];
    let flags = words.next()?;
    let fits = metadata_end < relations_at.max(1)
        && json.get(relations_at + 1..).is_some_and(|rest| rest.starts_with(b"\"relations\":") && rest.ends_with(b"}"));
    fits.then(|| Stored {
        hash,
        json,
        metadata_end,
        relations_at,
        has_etag: flags.contains('e'),
        is_odd: flags.contains('o'),
    })
}

fn is_relation(relation: &Value) -> bool {
    relation["type"].is_string() && relation["targetRef"].is_string()
}

/// Takes out of the metadata what is not the source's to say; tells whether the source gave an etag.
fn strip(entity: &mut Map<String, Value>) -> bool {
    let Some(Value::Object(metadata)) = entity.get_mut("metadata") else { return false };
    metadata.shift_remove("uid");
    if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
        for key in [VIEW_URL, EDIT_URL] {
            if let Some(Value::String(url)) = annotations.get_mut(key)
                && is_script_url(url)
            {
                REJECTED_URL.clone_into(url);
            }
        }
    }
    let has_etag = metadata.get("etag").and_then(Value::as_str).is_some_and(|etag| !etag.is_empty());
    if !has_etag {
        metadata.shift_remove("etag");
    }
    has_etag
}

fn write(to: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    serde_json::to_writer(to, value).expect("a tree of JSON values can be written");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kept(entity: Value) -> Vec<u8> {
        let Value::Object(entity) = entity else { panic!("an object") };
        store(entity)
    }

    fn check(entity: Value, odd: bool) {
        let kept = kept(entity.clone());
        let stored = open(&kept).expect("it has its line");
        assert_eq!(stored.is_odd, odd, "{entity}");
        let found: Value = serde_json::from_slice(stored.json).expect("JSON");
        let mut expected = entity;
        expected.as_object_mut().expect("an object").entry("relations").or_insert_with(|| json!([]));
        assert_eq!(found, expected);
        if stored.metadata_end > 0 {
            assert_eq!(stored.json[stored.metadata_end], b'}');
        }
        let end = [&stored.json[..stored.relations_at], if stored.relations_at == 0 { b"{}" } else { b"}" }].concat();
        let without: Map<String, Value> = serde_json::from_slice(&end).expect("JSON");
        assert!(!without.contains_key("relations"));
        assert_eq!(map_hash(&without), stored.hash);
    }

    #[test]
    fn the_line_says_where_things_stand() {
        check(
            json!({"relations": [{"type": "a", "targetRef": "b"}], "metadata": {"name": "}\n\""}, "spec": {}}),
            false,
        );
        check(json!({"spec": {"metadata": {}}, "metadata": {}}), false);
        check(json!({"metadata": {"labels": {"a": "", "A": ""}}}), true);
        check(json!({"metadata": {}, "Relations": {"x": 1}}), true);
        check(json!({"metadata": 3}), true);
        check(json!({}), true);
    }

    #[test]
    fn what_is_no_relation_is_left_out() {
        let kept = kept(json!({"relations": [1, {"type": "a"}, {"type": "a", "targetRef": "b"}], "metadata": {}}));
        assert_eq!(open(&kept).expect("a line").relations(), br#"[{"type":"a","targetRef":"b"}]"#);
        assert_eq!(open(&self::kept(json!({"relations": 3}))).expect("a line").relations(), b"[]");
    }

    #[test]
    fn what_is_not_the_sources_to_say_is_left_out() {
        let kept = kept(json!({"metadata": {"uid": "u", "etag": "", "annotations": {VIEW_URL: "javascript:x"}}}));
        let found: Value = serde_json::from_slice(json(&kept)).expect("JSON");
        assert_eq!(found["metadata"], json!({"annotations": {VIEW_URL: REJECTED_URL}}));
        assert!(!open(&kept).expect("a line").has_etag);
    }

    #[test]
    fn what_has_no_line_is_its_own_json() {
        assert_eq!(json(b"{\"a\":1}\n"), b"{\"a\":1}\n");
        for broken in [&b"{}"[..], b"", b"1 h 0 0 --\n", b"2 h 1 2 --\n{\"relations\":[]}", b"1 h 9 99 --\n{}"] {
            assert!(open(broken).is_none(), "{broken:?}");
        }
    }
}
