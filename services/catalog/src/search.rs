//! Flattening: an entity as the rows that filters, facets and orders look at (Backstage's `buildEntitySearch`).

use crate::entity_ref::DEFAULT_NAMESPACE;
use crate::number::js_number;
use crate::tree::{Object, Tree};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

/// Keys longer than this have no row, in UTF-16 code units (Backstage's `MAX_KEY_LENGTH`).
const MAX_KEY_LENGTH: usize = 200;
/// Values longer than this answer only whether the key is there, in UTF-16 code units (Backstage's `MAX_VALUE_LENGTH`).
pub const MAX_VALUE_LENGTH: usize = 200;
/// No text longer than this many bytes comes below the limit by lower-casing; it is not even tried.
const HOPELESS_BYTES: usize = 16 * MAX_VALUE_LENGTH;

/// What the keys of relations begin with.
pub const RELATIONS: &str = "relations.";
/// What is not flattened, at exactly these places; some of it gets rows of its own afterwards.
const SKIPPED: [&str; 7] =
    ["attachments", "relations", "status", "metadata.name", "metadata.namespace", "metadata.uid", "metadata.etag"];

/// One row: a key, lower-cased, and one of its values.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SearchRow {
    pub key: String,
    /// Lower-cased, for comparing; none for null and for what is too long: such a row only says that the key is there.
    pub value: Option<String>,
    /// In the case of the source, for showing (facets).
    pub original: Option<String>,
}

/// The rows of an entity, each key and value once, in the order of the entity; of two values that differ in case the first is kept.
pub fn search_rows(entity: &Map<String, Value>) -> Vec<SearchRow> {
    let row = |row: FlatRow<'_>| SearchRow {
        key: row.key.to_owned(),
        value: row.value.map(str::to_owned),
        original: row.original.map(str::to_owned),
    };
    without_repetitions(FlatRows::of(&entity.into()).iter().map(row).collect())
}

/// The rows of an entity in one piece of memory, for those who look at each once. A key and value may stand there more than once;
/// the first counts.
#[derive(Debug, Clone)]
pub struct FlatRows {
    /// Of each row the key, the value and, if they are others, the original and the relation's type as it is written.
    text: String,
    rows: Vec<Span>,
    /// See [`FlatRows::tell_relations`].
    tell_relations: bool,
}

/// One row of [`FlatRows`]; the fields are those of [`SearchRow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlatRow<'a> {
    pub key: &'a str,
    pub value: Option<&'a str>,
    pub original: Option<&'a str>,
    /// The type as its source wrote it, if the row tells a relation: one of this type to the value.
    pub relation: Option<&'a str>,
}

/// Where a row begins and where its parts end in the text.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    key: usize,
    value: Option<usize>,
    original: usize,
    relation: Option<usize>,
}

impl FlatRows {
    /// The rows of an entity.
    pub fn of(entity: &Object<'_>) -> FlatRows {
        let mut rows =
            FlatRows { text: String::with_capacity(4096), rows: Vec::with_capacity(96), tell_relations: true };
        flatten(entity, &mut |key, value| rows.push(key, value));
        let is_like_one = rows.iter().any(|row| row.key.starts_with(RELATIONS));
        rows.tell_relations = !is_like_one;
        let mut key = String::new();
        for relation in items(entity, "relations") {
            key.clear();
            key.push_str(RELATIONS);
            key.push_str(text_of(relation.get("type")));
            let before = rows.rows.len();
            rows.push(&key, relation.get("targetRef").and_then(scalar));
            let is_told = is_relation(relation) && rows.rows.len() > before && rows.tell_relation(&key);
            rows.tell_relations &= is_told;
        }
        rows
    }

    /// Whether every relation is told by a row of its own ([`FlatRow::relation`]), and no other row is under a key of relations. Where a target is not
    /// lower-case, or too long to be searched, it is not.
    pub fn tell_relations(&self) -> bool {
        self.tell_relations
    }

    /// The newest row is of a relation whose key was this; whether the row tells it wholly.
    fn tell_relation(&mut self, key: &str) -> bool {
        let Some(span) = self.rows.last_mut() else { return false };
        if span.value != Some(span.original) {
            return false;
        }
        let of_type = span.start + RELATIONS.len()..span.key;
        if self.text[of_type] != key[RELATIONS.len()..] {
            self.text.push_str(&key[RELATIONS.len()..]);
        }
        span.relation = Some(self.text.len());
        true
    }

    /// How many rows there are, repeated ones included.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows in the order of the entity.
    pub fn iter(&self) -> impl Iterator<Item = FlatRow<'_>> {
        self.rows.iter().map(|span| {
            let value = span.value.map(|end| &self.text[span.key..end]);
            let original = span.value.filter(|end| span.original > *end).map(|end| &self.text[end..span.original]);
            let key = &self.text[span.start..span.key];
            let relation = span.relation.map(|end| match end > span.original {
                true => &self.text[span.original..end],
                false => &key[RELATIONS.len()..],
            });
            FlatRow { key, value, original: original.or(value), relation }
        })
    }

    fn push(&mut self, key: &str, value: Option<Cow<'_, str>>) {
        let start = self.text.len();
        push_lower(&mut self.text, key);
        let key = self.text.len();
        if utf16_length(&self.text[start..]) > MAX_KEY_LENGTH {
            self.text.truncate(start);
            return;
        }
        let mut span = Span { start, key, value: None, original: key, relation: None };
        if let Some(value) = value.filter(|value| value.len() <= HOPELESS_BYTES) {
            push_lower(&mut self.text, &value);
            let lower = &self.text[key..];
            if utf16_length(lower) <= MAX_VALUE_LENGTH {
                let is_lower = *lower == *value;
                span.value = Some(self.text.len());
                if !is_lower {
                    self.text.push_str(&value);
                }
                span.original = self.text.len();
            } else {
                self.text.truncate(key);
            }
        }
        self.rows.push(span);
    }
}

/// Appends a text in lower case.
fn push_lower(to: &mut String, text: &str) {
    if text.is_ascii() {
        let start = to.len();
        to.push_str(text);
        to[start..].make_ascii_lowercase();
    } else {
        to.push_str(&text.to_lowercase());
    }
}

/// Keys that differ only in case from an earlier one, lower-cased: an entity that has them cannot be searched, so it is not stitched.
pub(crate) fn clashing_keys(entity: &Map<String, Value>) -> Vec<String> {
    if !crate::clash::is_possible(entity) {
        return Vec::new();
    }
    let entity = &Object::from(entity);
    let mut spellings: BTreeMap<String, HashSet<String>> = BTreeMap::new();
    let mut add = |key: &str| {
        let spellings = spellings.entry(key.to_lowercase()).or_default();
        if !spellings.contains(key) {
            spellings.insert(key.to_owned());
        }
    };
    flatten(entity, &mut |key, _| add(key));
    let types: HashSet<&str> =
        items(entity, "relations").iter().map(|relation| text_of(relation.get("type"))).collect();
    types.iter().for_each(|kind| add(&format!("{RELATIONS}{kind}")));
    spellings.into_iter().filter(|(_, spellings)| spellings.len() > 1).map(|(key, _)| key).collect()
}

/// Calls `emit` with each key, in its own case, and a value as text; relations are left to the caller.
fn flatten(entity: &Object<'_>, emit: &mut impl FnMut(&str, Option<Cow<'_, str>>)) {
    let mut walk = Walk { path: String::new(), ambiguous: 0, items: HashSet::new(), emit };
    walk.object(entity);
    let metadata = entity.get("metadata").and_then(Tree::as_object);
    let field = |name: &str| metadata.and_then(|metadata| metadata.get(name));
    emit("metadata.name", field("name").and_then(scalar));
    emit("metadata.namespace", field("namespace").and_then(scalar));
    emit("metadata.uid", field("uid").and_then(scalar));
    let has_none = |namespace: &Tree<'_>| *namespace == Tree::Null || namespace.as_text() == Some("");
    if field("namespace").is_none_or(has_none) {
        emit("metadata.namespace", Some(Cow::Borrowed(DEFAULT_NAMESPACE)));
    }
}

struct Walk<'e, E> {
    path: String,
    /// Lists and keys with a dot on the path. Where there is none, no other way leads to the same path.
    ambiguous: usize,
    /// Lower-cased keys seen so far that may be met again: a string in a list becomes a key of its own only where there is none yet.
    items: HashSet<String>,
    emit: &'e mut E,
}

impl<E: FnMut(&str, Option<Cow<'_, str>>)> Walk<'_, E> {
    fn object(&mut self, object: &Object<'_>) {
        for (key, value) in object.iter() {
            let length = self.path.len();
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(key);
            let has_dot = usize::from(key.contains('.'));
            self.ambiguous += has_dot;
            self.value(value);
            self.ambiguous -= has_dot;
            self.path.truncate(length);
        }
    }

    fn value(&mut self, value: &Tree<'_>) {
        if SKIPPED.contains(&self.path.as_str()) {
            return;
        }
        match value {
            Tree::Object(object) => self.object(object),
            Tree::List(items) => {
                self.ambiguous += 1;
                for item in items {
                    self.value(item);
                    if let Tree::Text(text) = item {
                        self.item(text);
                    }
                }
                self.ambiguous -= 1;
            }
            leaf => {
                if self.ambiguous > 0 {
                    self.items.insert(self.path.to_lowercase());
                }
                (self.emit)(&self.path, scalar(leaf));
            }
        }
    }

    /// `metadata.tags.java` for the tag `java`, so that it can be asked for as a key (with the value `true`).
    fn item(&mut self, text: &str) {
        if text.len() > HOPELESS_BYTES {
            return;
        }
        let length = self.path.len();
        self.path.push('.');
        self.path.push_str(text);
        if self.items.insert(self.path.to_lowercase()) {
            (self.emit)(&self.path, Some(Cow::Borrowed("true")));
        }
        self.path.truncate(length);
    }
}

/// `String(value)` of JavaScript, and none for null. (Objects and lists do not get here.)
fn scalar<'t>(value: &'t Tree<'_>) -> Option<Cow<'t, str>> {
    match value {
        Tree::Bool(true) => Some(Cow::Borrowed("true")),
        Tree::Bool(false) => Some(Cow::Borrowed("false")),
        Tree::Number(number) => Some(Cow::Owned(js_number(number))),
        Tree::Text(text) => Some(Cow::Borrowed(text)),
        Tree::Null | Tree::List(_) | Tree::Object(_) => None,
    }
}

/// Whether this is a relation as contracts have it: a type and a target, and nothing else.
pub fn is_relation(value: &Tree<'_>) -> bool {
    let is_text = |key| value.get(key).and_then(Tree::as_text).is_some();
    value.as_object().is_some_and(|relation| relation.len() == 2) && is_text("type") && is_text("targetRef")
}

fn utf16_length(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.encode_utf16().count() }
}

fn items<'t, 'a>(entity: &'t Object<'a>, key: &str) -> &'t [Tree<'a>] {
    entity.get(key).and_then(Tree::as_list).unwrap_or_default()
}

fn text_of<'t>(value: Option<&'t Tree<'_>>) -> &'t str {
    value.and_then(Tree::as_text).unwrap_or_default()
}

fn without_repetitions(mut rows: Vec<SearchRow>) -> Vec<SearchRow> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    let key_and_value = |index: usize| (&rows[index].key, &rows[index].value);
    order.sort_by(|one, other| key_and_value(*one).cmp(&key_and_value(*other)));
    let mut repeated = vec![false; rows.len()];
    for pair in order.windows(2) {
        repeated[pair[1]] = key_and_value(pair[0]) == key_and_value(pair[1]);
    }
    let mut repeated = repeated.into_iter();
    rows.retain(|_| !repeated.next().unwrap_or(false));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows_of(entity: &Value) -> Vec<String> {
        let rows = search_rows(entity.as_object().expect("an object"));
        rows.iter()
            .map(|row| match (&row.value, &row.original) {
                (Some(value), Some(original)) if value != original => format!("{}|{value}|{original}", row.key),
                (Some(value), _) => format!("{}|{value}", row.key),
                (None, _) => format!("{}|NULL", row.key),
            })
            .collect()
    }

    fn check(entity: Value, expected: &[&str]) {
        let rows = rows_of(&entity);
        let rows: Vec<&str> = rows
            .iter()
            .map(String::as_str)
            .filter(|row| !row.starts_with("metadata.name") && !row.starts_with("metadata.uid"))
            .collect();
        assert_eq!(rows, expected, "{entity}");
    }

    #[test]
    fn relations_are_told() {
        let long = format!("group:default/{}", "x".repeat(MAX_VALUE_LENGTH));
        for (relations, key, expected) in [
            (json!([{"type": "ownedBy", "targetRef": "group:default/a"}]), "spec", Some("ownedBy")),
            (json!([{"type": "x", "targetRef": "a"}]), "spec", Some("x")),
            (json!([{"type": "x", "targetRef": "a"}]), "relations", Some("x")),
            (json!([{"type": "x", "targetRef": "a"}]), "Relations", None),
            (json!([{"type": "x", "targetRef": "A"}]), "spec", None),
            (json!([{"type": "x", "targetRef": long}]), "spec", None),
            (json!([{"type": long, "targetRef": "a"}]), "spec", None),
            (json!([{"type": "x", "targetRef": 7}]), "spec", None),
            (json!([{"type": "x", "targetRef": "a", "more": ""}]), "spec", None),
        ] {
            let mut entity = json!({"kind": "Component", key: {"a": "b"}});
            entity["relations"] = relations;
            let rows = FlatRows::of(&entity.as_object().expect("an object").into());
            let told: Vec<&str> = rows.iter().filter_map(|row| row.relation).collect();
            assert_eq!(rows.tell_relations(), expected.is_some(), "{entity}");
            if let Some(expected) = expected {
                assert_eq!(told, [expected], "{entity}");
            }
        }
    }

    #[test]
    fn flattening() {
        check(json!({"kind": "Component"}), &["kind|component|Component"]);
        check(
            json!({"spec": {"port": 8080, "ratio": 1.0, "big": 1e21, "flag": false}}),
            &["spec.port|8080", "spec.ratio|1", "spec.big|1e+21", "spec.flag|false"],
        );
        check(json!({"spec": {"a": null, "b": [], "c": {}}}), &["spec.a|NULL"]);
        check(json!({"spec": {"nested": [{"d": 1}, {"d": 2}]}}), &["spec.nested.d|1", "spec.nested.d|2"]);
        check(json!({"spec": {"deep": [[1, ["x"]]]}}), &["spec.deep|1", "spec.deep|x", "spec.deep.x|true"]);
        check(
            json!({"metadata": {"tags": ["Java", "go", "java"]}}),
            &["metadata.tags|java|Java", "metadata.tags.java|true", "metadata.tags|go", "metadata.tags.go|true"],
        );
        check(
            json!({"spec": {"dependsOn": ["component:other/b"]}}),
            &["spec.dependson|component:other/b", "spec.dependson.component:other/b|true"],
        );
        check(
            json!({"metadata": {"annotations": {"example.com/Case": "VaLue"}}}),
            &["metadata.annotations.example.com/case|value|VaLue"],
        );
        check(json!({"attachments": {"a": 1}, "status": {"b": 1}, "metadata": {"etag": "e"}}), &[]);
        check(json!({"spec": {"status": 1, "relations": [2]}}), &["spec.status|1", "spec.relations|2"]);
        check(
            json!({"relations": [{"type": "ownedBy", "targetRef": "group:default/a"}, {"type": "ownedBy", "targetRef": "group:default/b"}]}),
            &["relations.ownedby|group:default/a", "relations.ownedby|group:default/b"],
        );
        check(
            json!({"spec": {"a": [1, "1", 1.0, true, "TRUE"]}}),
            &["spec.a|1", "spec.a.1|true", "spec.a|true", "spec.a.true|true"],
        );
        check(json!({"spec": {"a": ""}}), &["spec.a|"]);
        check(json!({"spec": {"a": ["b"], "a.b": "c"}}), &["spec.a|b", "spec.a.b|true", "spec.a.b|c"]);
        check(json!({"spec": {"a.b": "c", "a": ["b"]}}), &["spec.a.b|c", "spec.a|b"]);
    }

    #[test]
    fn name_namespace_and_uid_come_last() {
        assert_eq!(
            rows_of(&json!({"metadata": {"name": "Web", "namespace": "ns", "uid": "U", "title": "T"}})),
            ["metadata.title|t|T", "metadata.name|web|Web", "metadata.namespace|ns", "metadata.uid|u|U"]
        );
        assert_eq!(
            rows_of(&json!({"metadata": {"name": "web"}})),
            ["metadata.name|web", "metadata.namespace|NULL", "metadata.uid|NULL", "metadata.namespace|default"]
        );
    }

    #[test]
    fn limits() {
        let (at, over) = ("Ä".repeat(200), "a".repeat(201));
        check(json!({"spec": {"a": at, "b": over}}), &[&format!("spec.a|{}|{at}", at.to_lowercase()), "spec.b|NULL"]);
        check(json!({"spec": {"a": "x".repeat(100_000), "b": "🙂".repeat(101)}}), &["spec.a|NULL", "spec.b|NULL"]);
        check(json!({"s": {"k".repeat(198): 1, "l".repeat(199): 1}}), &[&format!("s.{}|1", "k".repeat(198))]);
        check(json!({"s": ["x".repeat(200)]}), &[&format!("s|{}", "x".repeat(200))]);
    }

    fn check_clash(entity: Value, expected: &[&str]) {
        assert_eq!(clashing_keys(entity.as_object().expect("an object")), expected, "{entity}");
    }

    #[test]
    fn keys_that_differ_only_in_case() {
        check_clash(json!({"spec": {"a": 1, "b": 2}}), &[]);
        check_clash(json!({"metadata": {"labels": {"tier": "1", "Tier": "2"}}}), &["metadata.labels.tier"]);
        check_clash(json!({"spec": {"a": {"B": 1}, "A": {"b": 1}, "c": 1, "C": 1}}), &["spec.a.b", "spec.c"]);
        check_clash(json!({"metadata": {"Name": "x"}}), &["metadata.name"]);
        check_clash(json!({"spec": {"a": {}, "A": 1}}), &[]);
        check_clash(json!({"spec": {"a": ["x", "X"]}}), &[]);
        check_clash(json!({"spec": {"a": [{"x": 1}, {"X": 1}]}}), &["spec.a.x"]);
        check_clash(
            json!({"relations": [{"type": "likes"}, {"type": "Likes"}, {"type": "likes"}]}),
            &["relations.likes"],
        );
        check_clash(json!({"status": {"a": 1, "A": 1}}), &[]);
    }
}
