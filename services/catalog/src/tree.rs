//! JSON that is read once and thrown away: its texts are those of the bytes it was read from, and objects are lists.
//!
//! Measured on stitched entities: half of what `serde_json::Value` takes, which copies each text and hashes each key.

use std::{borrow::Cow, collections::HashMap, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Objects of up to so many keys are compared key by key.
const FEW: usize = 16;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    List(Vec<Tree<'a>>),
    Object(Object<'a>),
}

/// A JSON object: its keys in their order, each once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object<'a>(Vec<(Cow<'a, str>, Tree<'a>)>);

impl<'a> Tree<'a> {
    /// What stands under a key, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Tree<'a>> {
        self.as_object()?.get(key)
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Tree::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items, if it is a list.
    pub fn as_list(&self) -> Option<&[Tree<'a>]> {
        match self {
            Tree::List(items) => Some(items),
            _ => None,
        }
    }

    /// The object, if it is one.
    pub fn as_object(&self) -> Option<&Object<'a>> {
        match self {
            Tree::Object(object) => Some(object),
            _ => None,
        }
    }
}

impl<'a> Object<'a> {
    /// What stands under a key.
    pub fn get(&self, key: &str) -> Option<&Tree<'a>> {
        self.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    /// Every key and what stands under it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tree<'a>)> {
        self.0.iter().map(|(key, value)| (&**key, value))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of a key that came more than once the last value counts, at the place of the first.
    fn of(fields: Vec<(Cow<'a, str>, Tree<'a>)>) -> Object<'a> {
        let comes_again = |(place, (key, _)): (usize, &(Cow<'a, str>, Tree<'a>))| {
            fields[place + 1..].iter().any(|(other, _)| other == key)
        };
        if fields.len() <= FEW && !fields.iter().enumerate().any(comes_again) {
            return Object(fields);
        }
        let mut places = HashMap::with_capacity(fields.len());
        let mut kept: Vec<(Cow<'a, str>, Tree<'a>)> = Vec::with_capacity(fields.len());
        for (key, value) in fields {
            match places.get(&key) {
                Some(place) => {
                    let known: &mut (Cow<'a, str>, Tree<'a>) = &mut kept[*place];
                    known.1 = value;
                }
                None => {
                    places.insert(key.clone(), kept.len());
                    kept.push((key, value));
                }
            }
        }
        Object(kept)
    }
}

impl<'a> From<&'a Value> for Tree<'a> {
    fn from(value: &'a Value) -> Tree<'a> {
        match value {
            Value::Null => Tree::Null,
            Value::Bool(flag) => Tree::Bool(*flag),
            Value::Number(number) => Tree::Number(number.clone()),
            Value::String(text) => Tree::Text(text.into()),
            Value::Array(items) => Tree::List(items.iter().map(Tree::from).collect()),
            Value::Object(object) => Tree::Object(object.into()),
        }
    }
}

impl<'a> From<&'a Map<String, Value>> for Object<'a> {
    fn from(map: &'a Map<String, Value>) -> Object<'a> {
        Object(map.iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl<'de> Deserialize<'de> for Tree<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree<'de>, D::Error> {
        deserializer.deserialize_any(AnyTree)
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object<'de>, D::Error> {
        deserializer.deserialize_map(AnyObject)
    }
}

struct AnyTree;

impl<'de> Visitor<'de> for AnyTree {
    type Value = Tree<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Tree<'de>, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Tree<'de>, E> {
        Ok(Tree::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Tree<'de>, E> {
        Ok(Tree::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Tree<'de>, E> {
        Ok(Tree::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Tree<'de>, E> {
        Ok(Number::from_f64(number).map_or(Tree::Null, Tree::Number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Tree<'de>, E> {
        Ok(Tree::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree<'de>, E> {
        Ok(Tree::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Tree<'de>, A::Error> {
        AnyObject.visit_map(access).map(Tree::Object)
    }
}

struct AnyObject;

impl<'de> Visitor<'de> for AnyObject {
    type Value = Object<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Object<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some((Key(key), value)) = access.next_entry()? {
            fields.push((key, value));
        }
        Ok(Object::of(fields))
    }
}

struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key<'de>, D::Error> {
        deserializer.deserialize_str(AnyKey)
    }
}

struct AnyKey;

impl<'de> Visitor<'de> for AnyKey {
    type Value = Key<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Borrowed(key)))
    }

    fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Owned(key.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is read from a text is what `serde_json` reads.
    fn check(text: &str) {
        let expected = serde_json::from_str::<Value>(text);
        let found = serde_json::from_str::<Tree>(text);
        match (&expected, found) {
            (Ok(expected), Ok(found)) => assert_eq!(Tree::from(expected), found, "{text}"),
            (expected, found) => assert_eq!(expected.is_err(), found.is_err(), "{text}"),
        }
    }

    #[test]
    fn reads_what_serde_json_reads() {
        let many: Vec<String> = (0..40).map(|n| format!("\"k{}\":{n}", n % 30)).collect();
        let deep = format!("{}{}", "[".repeat(130), "]".repeat(130));
        for text in [
            r#"{"a":1,"b":[null,true,-2,1.5,1e300,"x\ny","\u00e4"],"a":{"c":{}}}"#,
            r#"{"a\u0062":1,"ab":2}"#,
            r#"{"a":1,}"#,
            "1e400",
            r#"[18446744073709551615, -9223372036854775808, 18446744073709551616]"#,
            "\"\\ud800\"",
            &format!("{{{}}}", many.join(",")),
            &deep,
            "",
            "1 2",
        ] {
            check(text);
        }
        assert!(serde_json::from_str::<Object>("[]").is_err());
    }

    proptest! {
        #[test]
        fn reads_any_text(text in r#"[\[\]{}:,"ab\\1.e\- ]{0,24}"#) {
            check(&text);
        }
    }
}
