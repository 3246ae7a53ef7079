//! A stitched entity's JSON as a message and back, without loss.
//!
//! The rule is the same at every place: a typed field takes a value that it can hold and that can be told from an absent one;
//! everything else stays under its own key in the `extra` beside it. So no JSON object is lost, however odd it is.

use std::collections::BTreeMap;

use catalog::entity_ref::EntityRef;
use serde_json::{Map, Value};

use crate::{
    Error,
    structs::{from_struct, to_struct},
    v1,
};

/// How deep an entity's objects and lists may be nested, itself included, to become a message.
///
/// Protobuf readers refuse messages nested deeper than 100 (the limit of the C++, Java and Rust libraries), and one level of JSON
/// costs up to three of them in a Struct.
pub const MAX_DEPTH: usize = 32;

/// The message for a stitched entity's JSON; `revision` is what came beside it.
///
/// Refused ([`Error::Unreadable`]): what is no JSON object, has no `kind` or `metadata.name` to build the ref of, or is
/// nested deeper than [`MAX_DEPTH`].
pub fn entity_from_json(json: &[u8], revision: i64) -> Result<v1::Entity, Error> {
    let entity: Map<String, Value> = serde_json::from_slice(json).map_err(|error| Error::Unreadable {
        entity_ref: "?".into(),
        reason: format!("expected a JSON object, found {error}"),
    })?;
    entity_from_map(entity, revision)
}

/// [`entity_from_json`] for an entity that is parsed already.
pub fn entity_from_map(json: Map<String, Value>, revision: i64) -> Result<v1::Entity, Error> {
    let entity_ref = entity_ref(&json)?;
    let depth = depth(&json);
    if depth > MAX_DEPTH {
        return Err(Error::Unreadable {
            entity_ref,
            reason: format!("expected at most {MAX_DEPTH} levels of nesting, found {depth}"),
        });
    }
    Ok(entity_from_parts(entity_ref, json, revision))
}

/// The message for JSON that may be a part of an entity's.
pub(crate) fn entity_from_parts(entity_ref: String, mut json: Map<String, Value>, revision: i64) -> v1::Entity {
    let mut metadata = take(&mut json, "metadata", object);
    let identity = |metadata: &mut Option<_>, key| {
        metadata.as_mut().and_then(|map| take(map, key, filled_text)).unwrap_or_default()
    };
    v1::Entity {
        r#ref: entity_ref,
        uid: identity(&mut metadata, "uid"),
        etag: identity(&mut metadata, "etag"),
        revision,
        api_version: take(&mut json, "apiVersion", filled_text).unwrap_or_default(),
        kind: take(&mut json, "kind", filled_text).unwrap_or_default(),
        metadata: metadata.map(metadata_from),
        spec: take(&mut json, "spec", object).map(to_struct),
        relations: take(&mut json, "relations", relations).unwrap_or_default(),
        status: take(&mut json, "status", status),
        extra: rest(json),
    }
}

/// The JSON of an entity's message: what [`entity_from_json`] was given, but for the order of keys and the form of numbers.
///
/// `relations` is always written, as in every stitched entity. Where a typed field and `extra` name the same key, `extra` counts.
pub fn entity_to_json(entity: &v1::Entity) -> Map<String, Value> {
    let mut json = Map::new();
    put_filled(&mut json, "apiVersion", &entity.api_version);
    put_filled(&mut json, "kind", &entity.kind);
    if let Some(metadata) = &entity.metadata {
        let mut metadata = metadata_to_json(metadata);
        put_filled(&mut metadata, "uid", &entity.uid);
        put_filled(&mut metadata, "etag", &entity.etag);
        json.insert("metadata".into(), Value::Object(metadata));
    }
    if let Some(spec) = &entity.spec {
        json.insert("spec".into(), Value::Object(from_struct(spec)));
    }
    let relations = entity.relations.iter().map(relation_to_json).collect();
    json.insert("relations".into(), Value::Array(relations));
    if let Some(status) = &entity.status {
        json.insert("status".into(), status_to_json(status));
    }
    put_extra(&mut json, entity.extra.as_ref());
    json
}

/// How deep the objects and lists of an object are nested; 1 for one that holds only scalars.
pub fn depth(object: &Map<String, Value>) -> usize {
    1 + object.values().map(value_depth).max().unwrap_or(0)
}

fn value_depth(value: &Value) -> usize {
    match value {
        Value::Object(object) => depth(object),
        Value::Array(items) => 1 + items.iter().map(value_depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The ref of an entity as it is written; the namespace is `default` where there is none.
fn entity_ref(json: &Map<String, Value>) -> Result<String, Error> {
    let within = |key| json.get("metadata")?.get(key)?.as_str();
    let missing = |field| Error::Unreadable {
        entity_ref: "?".into(),
        reason: format!("{field}: expected a string that is not empty"),
    };
    let filled = |text: &&str| !text.is_empty();
    let kind = json.get("kind").and_then(Value::as_str).filter(filled).ok_or_else(|| missing("kind"))?;
    let name = within("name").filter(filled).ok_or_else(|| missing("metadata.name"))?;
    Ok(EntityRef::of(kind, within("namespace").unwrap_or_default(), name).to_string())
}

fn metadata_from(mut json: Map<String, Value>) -> v1::Metadata {
    v1::Metadata {
        name: take(&mut json, "name", filled_text).unwrap_or_default(),
        namespace: take(&mut json, "namespace", filled_text).unwrap_or_default(),
        title: take(&mut json, "title", text),
        description: take(&mut json, "description", text),
        labels: take(&mut json, "labels", texts_by_key).unwrap_or_default(),
        annotations: take(&mut json, "annotations", texts_by_key).unwrap_or_default(),
        tags: take(&mut json, "tags", texts).unwrap_or_default(),
        links: take(&mut json, "links", links).unwrap_or_default(),
        extra: rest(json),
    }
}

fn metadata_to_json(metadata: &v1::Metadata) -> Map<String, Value> {
    let mut json = Map::new();
    put_filled(&mut json, "name", &metadata.name);
    put_filled(&mut json, "namespace", &metadata.namespace);
    put(&mut json, "title", metadata.title.as_ref());
    put(&mut json, "description", metadata.description.as_ref());
    for (key, texts) in [("labels", &metadata.labels), ("annotations", &metadata.annotations)] {
        if !texts.is_empty() {
            let texts = texts.iter().map(|(key, text)| (key.clone(), text.clone().into()));
            json.insert(key.into(), Value::Object(texts.collect()));
        }
    }
    if !metadata.tags.is_empty() {
        json.insert("tags".into(), metadata.tags.clone().into());
    }
    if !metadata.links.is_empty() {
        let links = metadata.links.iter().map(link_to_json).collect();
        json.insert("links".into(), Value::Array(links));
    }
    put_extra(&mut json, metadata.extra.as_ref());
    json
}

fn is_link(item: &Value) -> bool {
    item.get("url").is_some_and(Value::is_string)
}

fn links(value: Value) -> Result<Vec<v1::Link>, Value> {
    Ok(filled_list(value, is_link)?
        .into_iter()
        .map(|mut link| v1::Link {
            url: take(&mut link, "url", text).unwrap_or_default(),
            title: take(&mut link, "title", text),
            icon: take(&mut link, "icon", text),
            r#type: take(&mut link, "type", text),
            extra: rest(link),
        })
        .collect())
}

fn link_to_json(link: &v1::Link) -> Value {
    let mut json = Map::new();
    put(&mut json, "url", Some(&link.url));
    put(&mut json, "title", link.title.as_ref());
    put(&mut json, "icon", link.icon.as_ref());
    put(&mut json, "type", link.r#type.as_ref());
    put_extra(&mut json, link.extra.as_ref());
    Value::Object(json)
}

fn is_relation(item: &Value) -> bool {
    has_exactly(item, &["type", "targetRef"], 2)
}

fn relations(value: Value) -> Result<Vec<v1::Relation>, Value> {
    if value.as_array().is_some_and(Vec::is_empty) {
        return Ok(Vec::new());
    }
    Ok(filled_list(value, is_relation)?
        .into_iter()
        .map(|mut relation| v1::Relation {
            r#type: take(&mut relation, "type", text).unwrap_or_default(),
            target_ref: take(&mut relation, "targetRef", text).unwrap_or_default(),
        })
        .collect())
}

fn relation_to_json(relation: &v1::Relation) -> Value {
    let mut json = Map::new();
    put(&mut json, "type", Some(&relation.r#type));
    put(&mut json, "targetRef", Some(&relation.target_ref));
    Value::Object(json)
}

/// Whether the typed field takes the value.
fn is_status(value: &Value) -> bool {
    let is_item = |item: &Value| {
        let error = item.get("error");
        error.is_none_or(Value::is_object)
            && has_exactly(item, &["type", "level", "message"], 3 + usize::from(error.is_some()))
    };
    let items_only = |map: &Map<String, Value>| {
        let items = map.get("items").and_then(Value::as_array);
        map.len() == 1 && items.is_some_and(|items| items.iter().all(is_item))
    };
    value.as_object().is_some_and(items_only)
}

fn status(value: Value) -> Result<v1::Status, Value> {
    if !is_status(&value) {
        return Err(value);
    }
    let items = match value {
        Value::Object(mut map) => take(&mut map, "items", |items| filled_list(items, |_| true)),
        _ => None,
    };
    let items = items.unwrap_or_default().into_iter();
    Ok(v1::Status { items: items.map(status_item).collect() })
}

fn status_item(mut item: Map<String, Value>) -> v1::StatusItem {
    v1::StatusItem {
        r#type: take(&mut item, "type", text).unwrap_or_default(),
        level: take(&mut item, "level", text).unwrap_or_default(),
        message: take(&mut item, "message", text).unwrap_or_default(),
        error: take(&mut item, "error", object).map(to_struct),
    }
}

fn status_to_json(status: &v1::Status) -> Value {
    let item = |item: &v1::StatusItem| {
        let mut json = Map::new();
        put(&mut json, "type", Some(&item.r#type));
        put(&mut json, "level", Some(&item.level));
        put(&mut json, "message", Some(&item.message));
        if let Some(error) = &item.error {
            json.insert("error".into(), Value::Object(from_struct(error)));
        }
        Value::Object(json)
    };
    let items = status.items.iter().map(item).collect();
    Value::Object(Map::from_iter([("items".into(), Value::Array(items))]))
}

/// Takes what stands under `key` if it fits; leaves it where it is otherwise.
fn take<T>(map: &mut Map<String, Value>, key: &str, fit: impl FnOnce(Value) -> Result<T, Value>) -> Option<T> {
    let value = map.remove(key)?;
    fit(value).map_err(|value| map.insert(key.into(), value)).ok()
}

fn object(value: Value) -> Result<Map<String, Value>, Value> {
    match value {
        Value::Object(map) => Ok(map),
        other => Err(other),
    }
}

fn text(value: Value) -> Result<String, Value> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(other),
    }
}

fn filled_text(value: Value) -> Result<String, Value> {
    match value {
        Value::String(text) if !text.is_empty() => Ok(text),
        other => Err(other),
    }
}

fn texts(value: Value) -> Result<Vec<String>, Value> {
    match value {
        Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_string) => {
            Ok(items.into_iter().flat_map(text).collect())
        }
        other => Err(other),
    }
}

fn texts_by_key(value: Value) -> Result<BTreeMap<String, String>, Value> {
    match value {
        Value::Object(map) if !map.is_empty() && map.values().all(Value::is_string) => {
            Ok(map.into_iter().flat_map(|(key, value)| Some((key, text(value).ok()?))).collect())
        }
        other => Err(other),
    }
}

/// The objects of a list that is not empty and holds nothing else, each of which is as `is_item` asks.
fn filled_list(value: Value, is_item: impl Fn(&Value) -> bool) -> Result<Vec<Map<String, Value>>, Value> {
    match value {
        Value::Array(items) if !items.is_empty() && items.iter().all(|item| item.is_object() && is_item(item)) => {
            Ok(items.into_iter().flat_map(object).collect())
        }
        other => Err(other),
    }
}

/// Whether a value is an object of `len` keys in which each of `texts` is a string.
fn has_exactly(value: &Value, texts: &[&str], len: usize) -> bool {
    let is_text = |key: &&str| value.get(*key).is_some_and(Value::is_string);
    value.as_object().is_some_and(|map| map.len() == len) && texts.iter().all(is_text)
}

fn rest(map: Map<String, Value>) -> Option<prost_types::Struct> {
    (!map.is_empty()).then(|| to_struct(map))
}

fn put(json: &mut Map<String, Value>, key: &str, text: Option<&String>) {
    if let Some(text) = text {
        json.insert(key.into(), text.clone().into());
    }
}

fn put_filled(json: &mut Map<String, Value>, key: &str, text: &String) {
    put(json, key, Some(text).filter(|text| !text.is_empty()));
}

fn put_extra(json: &mut Map<String, Value>, extra: Option<&prost_types::Struct>) {
    if let Some(extra) = extra {
        json.extend(from_struct(extra));
    }
}
