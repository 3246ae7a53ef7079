//! The hash of a JSON value: the same for the same information, whatever the order of keys or the spelling of numbers.

use crate::number::js_number;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Hex of SHA-256 over the value with the keys of every object sorted by their bytes; streams, and copies nothing of the tree.
///
/// Numbers count as JavaScript writes them, so `1.0` and `1` are the same.
pub fn content_hash(value: &Value) -> String {
    let mut hasher = Hasher::new();
    hasher.value(value);
    hasher.hex()
}

/// [`content_hash`] of an object.
pub fn map_hash(map: &Map<String, Value>) -> String {
    let mut hasher = Hasher::new();
    hasher.map(map);
    hasher.hex()
}

/// Hex of SHA-256 over parts, each with its length before it.
pub fn bytes_hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Hasher::new();
    for part in parts {
        hasher.head(b'b', part.len());
        hasher.0.update(part);
    }
    hasher.hex()
}

/// Each value goes in with a letter for its type and, where its length is open, the length before it: no two values give the same bytes.
pub(crate) struct Hasher(Sha256);

impl Hasher {
    pub fn new() -> Self {
        Self(Sha256::new())
    }

    pub fn text(&mut self, text: &str) {
        self.head(b's', text.len());
        self.0.update(text);
    }

    pub fn hex(self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = String::with_capacity(64);
        for byte in self.0.finalize() {
            hex.push(char::from(DIGITS[usize::from(byte >> 4)]));
            hex.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        hex
    }

    pub fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.0.update(b"n"),
            Value::Bool(true) => self.0.update(b"t"),
            Value::Bool(false) => self.0.update(b"f"),
            Value::Number(number) => {
                let text = js_number(number);
                self.head(b'd', text.len());
                self.0.update(text);
            }
            Value::String(text) => self.text(text),
            Value::Array(items) => {
                self.head(b'a', items.len());
                items.iter().for_each(|item| self.value(item));
            }
            Value::Object(map) => self.map(map),
        }
    }

    fn map(&mut self, map: &Map<String, Value>) {
        let mut entries: Vec<_> = map.iter().collect();
        entries.sort_unstable_by_key(|(key, _)| key.as_str());
        self.head(b'o', entries.len());
        for (key, value) in entries {
            self.text(key);
            self.value(value);
        }
    }

    fn head(&mut self, kind: u8, length: usize) {
        let mut head = [kind; 9];
        head[1..].copy_from_slice(&(length as u64).to_le_bytes());
        self.0.update(head);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn check(one: &str, other: &str, same: bool) {
        let hash = |text: &str| content_hash(&serde_json::from_str(text).expect("JSON"));
        assert_eq!(hash(one) == hash(other), same, "{one} and {other}");
    }

    #[test]
    fn same_information_same_hash() {
        check(r#"{"a":1,"b":{"c":[],"d":null}}"#, r#"{"b":{"d":null,"c":[]},"a":1}"#, true);
        check("1.0", "1", true);
        check("1e2", "100", true);
        check("-0.0", "0", true);
        check("[1,2]", "[2,1]", false);
        check("[[1],2]", "[[1,2]]", false);
        check(r#"{"a":null}"#, "{}", false);
        check(r#"{"a":"b"}"#, r#"{"b":"a"}"#, false);
        check("1", "\"1\"", false);
        check("[]", "{}", false);
        check("null", "\"null\"", false);
        check(r#"["ab",""]"#, r#"["a","b"]"#, false);
    }

    #[test]
    fn it_is_hex_of_32_bytes_and_does_not_change_between_versions() {
        let map = json!({"kind": "Component", "n": [1, 2.5, true]});
        let hash = content_hash(&map);
        assert_eq!(hash.len(), 64);
        assert_eq!(Some(&hash), map.as_object().map(map_hash).as_ref());
    }

    pub(crate) fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-c]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-c]{1,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn reversed(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                Value::Object(map.iter().rev().map(|(key, value)| (key.clone(), reversed(value))).collect())
            }
            Value::Array(items) => items.iter().map(reversed).collect(),
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn key_order_is_no_information(value in any_json()) {
            prop_assert_eq!(content_hash(&value), content_hash(&reversed(&value)));
        }

        #[test]
        fn other_values_have_other_hashes(one in any_json(), other in any_json()) {
            prop_assert_eq!(one == other, content_hash(&one) == content_hash(&other));
        }
    }
}
