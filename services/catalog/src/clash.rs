//! Whether an entity may have keys that differ only in case: one walk that copies nothing, before the walk that names them.

use serde_json::{Map, Value};
use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, RandomState};
use std::hash::{BuildHasher, Hasher};

/// Whether some of its keys may differ only in case. False is certain, true is not: more counts as a key here than in the end is one, and what is not
/// ASCII is not looked at closely.
pub(crate) fn is_possible(entity: &Map<String, Value>) -> bool {
    let start = RandomState::new();
    let root = Path { lower: start.build_hasher(), exact: start.build_hasher() };
    let mut keys = Keys { seen: HashMap::with_capacity(128), is_possible: false };
    // They are keys whether the entity has them or not.
    let metadata = root.then("metadata", &mut keys.is_possible);
    for name in ["name", "namespace", "uid"] {
        let path = metadata.then(name, &mut keys.is_possible);
        keys.key(&path);
    }
    for (name, value) in entity {
        match (name.as_str(), value) {
            ("relations", Value::Array(relations)) => keys.relations(&root, relations),
            _ => {
                let path = root.then(name, &mut keys.is_possible);
                keys.value(path, value);
            }
        }
    }
    keys.is_possible
}

/// Where a value stands, as hashes of its keys joined by dots: in lower case, and as they are written.
#[derive(Clone)]
struct Path {
    lower: DefaultHasher,
    exact: DefaultHasher,
}

impl Path {
    fn then(&self, name: &str, is_possible: &mut bool) -> Path {
        let mut path = self.clone();
        *is_possible |= !name.is_ascii();
        path.exact.write(name.as_bytes());
        path.exact.write_u8(b'.');
        let mut lower = [0; 64];
        for part in name.as_bytes().chunks(lower.len()) {
            let lower = &mut lower[..part.len()];
            lower.copy_from_slice(part);
            lower.make_ascii_lowercase();
            path.lower.write(lower);
        }
        path.lower.write_u8(b'.');
        path
    }
}

struct Keys {
    /// Each key's hash in lower case, with its hash as it is written.
    seen: HashMap<u64, u64>,
    is_possible: bool,
}

impl Keys {
    fn value(&mut self, path: Path, value: &Value) {
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    let path = path.then(name, &mut self.is_possible);
                    self.value(path, value);
                }
            }
            Value::Array(items) => {
                for item in items {
                    self.value(path.clone(), item);
                    if let Value::String(text) = item {
                        let path = path.then(text, &mut self.is_possible);
                        self.key(&path);
                    }
                }
            }
            _ => self.key(&path),
        }
    }

    fn relations(&mut self, root: &Path, relations: &[Value]) {
        let path = root.then("relations", &mut self.is_possible);
        // They are sorted, so that each type comes once.
        let mut last = None;
        for relation in relations {
            let kind = relation.get("type").and_then(Value::as_str).unwrap_or_default();
            if last != Some(kind) {
                let path = path.then(kind, &mut self.is_possible);
                self.key(&path);
                last = Some(kind);
            }
        }
    }

    fn key(&mut self, path: &Path) {
        let exact = path.exact.finish();
        self.is_possible |= self.seen.insert(path.lower.finish(), exact).is_some_and(|other| other != exact);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(entity: Value, expected: bool) {
        assert_eq!(is_possible(entity.as_object().unwrap()), expected, "{entity}");
    }

    #[test]
    fn what_may_clash_is_found() {
        check(json!({"metadata": {"labels": {"tier": "1", "Tier": "2"}}}), true);
        check(
            json!({"metadata": {"labels": {"tier": "1", "tiers": "2"}}, "spec": {"dependsOn": ["a", "b", "a"]}}),
            false,
        );
        check(json!({"spec": {"tags": ["Java", "java"]}}), true);
        check(json!({"metadata": {"Name": "x"}}), true);
        check(json!({"spec": {"a": {"b": 1}, "A.b": 2}}), true);
        check(json!({"spec": {"a": {"b": 1}, "a.b": 2}}), false);
        check(json!({"spec": {"a": [{"b": 1}, {"B": 1}]}}), true);
        check(json!({"spec": {"\u{e4}": 1}}), true);
        check(json!({"spec": {"\u{212a}": 1, "k": 1}}), true);
        let long = "x".repeat(70);
        check(json!({"spec": {&long: 1, &long.to_uppercase(): 1}}), true);
        check(json!({"spec": {}, "relations": [{"type": "ownedBy"}, {"type": "ownedBy"}, {"type": "partOf"}]}), false);
        check(json!({"spec": {}, "relations": [{"type": "ownedBy"}, {"type": "ownedby"}]}), true);
    }
}
