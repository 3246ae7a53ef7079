//! A stitched entity's JSON straight to its encoded message: the bytes that [`entity_from_map`](crate::entity_from_map) and prost come to, without the
//! message in between (measured: 2.5 µs an entity instead of 8). Which field takes what is the same rule; a property test compares the two.

use catalog::{
    entity_ref::EntityRef,
    search::is_relation,
    tree::{Object, Tree},
};

use crate::{
    Error, MAX_DEPTH,
    wire::{DOUBLE, VARINT, put_filled, put_key, put_message, put_number, put_sized},
};

/// Bytes that the message of an ordinary entity needs.
const ROOM: usize = 2048;
/// The entity's ref and its encoded [`v1::Entity`](crate::v1::Entity); `revision` is what came beside the JSON.
///
/// # Errors
/// Those of [`entity_from_map`](crate::entity_from_map).
pub fn encode_entity(json: &Object<'_>, revision: i64) -> Result<(String, Vec<u8>), Error> {
    let entity_ref = checked_ref(json)?;
    let mut out = Vec::with_capacity(ROOM);
    let metadata = json.get("metadata").and_then(Tree::as_object);
    let identity = |key| metadata.and_then(|metadata| filled(metadata, key)).unwrap_or_default();
    put_filled(&mut out, 1, &entity_ref);
    put_filled(&mut out, 2, identity("uid"));
    put_filled(&mut out, 3, identity("etag"));
    put_number(&mut out, 4, revision as u64);
    put_filled(&mut out, 5, filled(json, "apiVersion").unwrap_or_default());
    put_filled(&mut out, 6, filled(json, "kind").unwrap_or_default());
    if let Some(metadata) = metadata {
        put_message(&mut out, 7, |out| put_metadata(out, metadata));
    }
    let spec = json.get("spec").and_then(Tree::as_object);
    if let Some(spec) = spec {
        put_struct(&mut out, 8, spec.iter());
    }
    let relations = json.get("relations").filter(|value| are_relations(value));
    for relation in relations.and_then(Tree::as_list).into_iter().flatten() {
        put_message(&mut out, 9, |out| {
            put_filled(out, 1, text_of(relation, "type"));
            put_filled(out, 2, text_of(relation, "targetRef"));
        });
    }
    let status = json.get("status").filter(|value| is_status(value));
    if let Some(status) = status {
        put_message(&mut out, 10, |out| put_status(out, status));
    }
    let is_taken = |key: &str| match key {
        "apiVersion" | "kind" => filled(json, key).is_some(),
        "metadata" => metadata.is_some(),
        "spec" => spec.is_some(),
        "relations" => relations.is_some(),
        "status" => status.is_some(),
        _ => false,
    };
    put_rest(&mut out, 11, json, is_taken);
    Ok((entity_ref, out))
}

fn put_metadata(out: &mut Vec<u8>, json: &Object<'_>) {
    put_filled(out, 1, filled(json, "name").unwrap_or_default());
    put_filled(out, 2, filled(json, "namespace").unwrap_or_default());
    put_optional(out, 3, json.get("title"));
    put_optional(out, 4, json.get("description"));
    for (tag, key) in [(5, "labels"), (6, "annotations")] {
        for (key, text) in texts_by_key(json, key).into_iter().flat_map(Object::iter) {
            put_message(out, tag, |out| {
                put_filled(out, 1, key);
                put_filled(out, 2, text.as_text().unwrap_or_default());
            });
        }
    }
    let tags = json.get("tags").filter(|value| are_texts(value));
    for tag in tags.and_then(Tree::as_list).into_iter().flatten() {
        put_sized(out, 7, tag.as_text().unwrap_or_default().as_bytes());
    }
    let links = json.get("links").filter(|value| are_links(value));
    for link in links.and_then(Tree::as_list).into_iter().flatten().filter_map(Tree::as_object) {
        put_message(out, 8, |out| put_link(out, link));
    }
    let is_taken = |key: &str| match key {
        "name" | "namespace" | "uid" | "etag" => filled(json, key).is_some(),
        "title" | "description" => has_text(json, key),
        "labels" | "annotations" => texts_by_key(json, key).is_some(),
        "tags" => tags.is_some(),
        "links" => links.is_some(),
        _ => false,
    };
    put_rest(out, 9, json, is_taken);
}

fn put_link(out: &mut Vec<u8>, link: &Object<'_>) {
    put_filled(out, 1, link.get("url").and_then(Tree::as_text).unwrap_or_default());
    for (tag, key) in [(2, "title"), (3, "icon"), (4, "type")] {
        put_optional(out, tag, link.get(key));
    }
    put_rest(out, 5, link, |key| matches!(key, "url" | "title" | "icon" | "type") && has_text(link, key));
}

fn put_status(out: &mut Vec<u8>, status: &Tree<'_>) {
    for item in status.get("items").and_then(Tree::as_list).into_iter().flatten() {
        put_message(out, 1, |out| {
            for (tag, key) in [(1, "type"), (2, "level"), (3, "message")] {
                put_filled(out, tag, text_of(item, key));
            }
            if let Some(error) = item.get("error").and_then(Tree::as_object) {
                put_struct(out, 4, error.iter());
            }
        });
    }
}

/// What is not taken by a typed field, as a Struct under its own keys; nothing, if there is none.
fn put_rest(out: &mut Vec<u8>, tag: u8, json: &Object<'_>, is_taken: impl Fn(&str) -> bool) {
    let mut rest = json.iter().filter(|(key, _)| !is_taken(key)).peekable();
    if rest.peek().is_some() {
        put_struct(out, tag, rest);
    }
}

/// `google.protobuf.Struct`.
fn put_struct<'a>(out: &mut Vec<u8>, tag: u8, fields: impl Iterator<Item = (&'a str, &'a Tree<'a>)>) {
    put_message(out, tag, |out| put_fields(out, fields));
}

fn put_fields<'a>(out: &mut Vec<u8>, fields: impl Iterator<Item = (&'a str, &'a Tree<'a>)>) {
    for (key, value) in fields {
        put_message(out, 1, |out| {
            put_filled(out, 1, key);
            put_message(out, 2, |out| put_value(out, value));
        });
    }
}

/// `google.protobuf.Value`.
fn put_value(out: &mut Vec<u8>, value: &Tree<'_>) {
    match value {
        Tree::Null => {
            put_key(out, 1, VARINT);
            out.push(0);
        }
        Tree::Number(number) => {
            put_key(out, 2, DOUBLE);
            out.extend(number.as_f64().unwrap_or(f64::NAN).to_le_bytes());
        }
        Tree::Text(text) => put_sized(out, 3, text.as_bytes()),
        Tree::Bool(flag) => {
            put_key(out, 4, VARINT);
            out.push(u8::from(*flag));
        }
        Tree::Object(object) => put_message(out, 5, |out| put_fields(out, object.iter())),
        Tree::List(items) => put_message(out, 6, |out| {
            items.iter().for_each(|item| put_message(out, 1, |out| put_value(out, item)));
        }),
    }
}

fn put_optional(out: &mut Vec<u8>, tag: u8, value: Option<&Tree<'_>>) {
    if let Some(text) = value.and_then(Tree::as_text) {
        put_sized(out, tag, text.as_bytes());
    }
}

fn filled<'t>(json: &'t Object<'_>, key: &str) -> Option<&'t str> {
    json.get(key)?.as_text().filter(|text| !text.is_empty())
}

fn has_text(json: &Object<'_>, key: &str) -> bool {
    json.get(key).and_then(Tree::as_text).is_some()
}

fn text_of<'t>(item: &'t Tree<'_>, key: &str) -> &'t str {
    item.get(key).and_then(Tree::as_text).unwrap_or_default()
}

fn texts_by_key<'t, 'a>(json: &'t Object<'a>, key: &str) -> Option<&'t Object<'a>> {
    let is_text = |(_, value): (&str, &Tree<'_>)| value.as_text().is_some();
    json.get(key)?.as_object().filter(|object| !object.is_empty() && object.iter().all(is_text))
}

fn are_texts(value: &Tree<'_>) -> bool {
    value.as_list().is_some_and(|items| !items.is_empty() && items.iter().all(|item| item.as_text().is_some()))
}

fn are_links(value: &Tree<'_>) -> bool {
    let is_link = |item: &Tree<'_>| item.as_object().is_some_and(|link| has_text(link, "url"));
    value.as_list().is_some_and(|items| !items.is_empty() && items.iter().all(is_link))
}

fn are_relations(value: &Tree<'_>) -> bool {
    value.as_list().is_some_and(|items| items.iter().all(is_relation))
}

fn is_status(value: &Tree<'_>) -> bool {
    let is_item = |item: &Tree<'_>| {
        let error = item.get("error");
        error.is_none_or(|error| error.as_object().is_some())
            && has_exactly(item, &["type", "level", "message"], 3 + usize::from(error.is_some()))
    };
    let items_only = |object: &Object<'_>| {
        let items = object.get("items").and_then(Tree::as_list);
        object.len() == 1 && items.is_some_and(|items| items.iter().all(is_item))
    };
    value.as_object().is_some_and(items_only)
}

/// Whether a value is an object of `len` keys in which each of `texts` is a text.
fn has_exactly(value: &Tree<'_>, texts: &[&str], len: usize) -> bool {
    value.as_object().is_some_and(|object| object.len() == len && texts.iter().all(|key| has_text(object, key)))
}

/// The ref of an entity that can become a message.
fn checked_ref(json: &Object<'_>) -> Result<String, Error> {
    let metadata = json.get("metadata").and_then(Tree::as_object);
    let missing = |field| Error::Unreadable {
        entity_ref: "?".into(),
        reason: format!("{field}: expected a string that is not empty"),
    };
    let kind = filled(json, "kind").ok_or_else(|| missing("kind"))?;
    let within = |key| metadata.and_then(|metadata| filled(metadata, key));
    let name = within("name").ok_or_else(|| missing("metadata.name"))?;
    let entity_ref = EntityRef::of(kind, within("namespace").unwrap_or_default(), name).to_string();
    let depth = depth(json);
    if depth > MAX_DEPTH {
        let reason = format!("expected at most {MAX_DEPTH} levels of nesting, found {depth}");
        return Err(Error::Unreadable { entity_ref, reason });
    }
    Ok(entity_ref)
}

fn depth(object: &Object<'_>) -> usize {
    1 + object.iter().map(|(_, value)| value_depth(value)).max().unwrap_or(0)
}

fn value_depth(value: &Tree<'_>) -> usize {
    match value {
        Tree::Object(object) => depth(object),
        Tree::List(items) => 1 + items.iter().map(value_depth).max().unwrap_or(0),
        _ => 0,
    }
}
