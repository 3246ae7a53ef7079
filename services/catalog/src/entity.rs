//! From bytes to a thing that can be a claim: limits first, then JSON, then a kind and a name.

use crate::entity_ref::{DEFAULT_NAMESPACE, EntityRef};
use serde_json::{Map, Value};

/// What an entity may cost at most; checked on the bytes, before anything is built of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Length of the JSON text, in bytes.
    pub bytes: usize,
    /// Objects and arrays within one another, the entity itself included.
    pub depth: usize,
    /// JSON values, counted from above: one, and one more for each comma and each opening bracket.
    pub values: usize,
}

impl Default for Limits {
    /// 512 KiB, 32 levels, 50,000 values.
    ///
    /// 32 levels, because a level of an object is three nested messages in `google.protobuf.Struct`, and the decoders of many languages stop at 100.
    fn default() -> Self {
        Self { bytes: 512 * 1024, depth: 32, values: 50_000 }
    }
}

/// An entity as its source gave it, with the ref under which it is claimed.
#[derive(Debug, Clone, PartialEq)]
pub struct Unprocessed {
    pub entity: Map<String, Value>,
    pub entity_ref: EntityRef,
}

/// Why bytes cannot be a claim at all, in one sentence: they are a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Reads one entity.
///
/// Refused is only what can't be a claim: over a limit, no UTF-8 or JSON, no object, no kind, no `metadata.name`, U+0000 in a string or a key
/// (PostgreSQL can't hold it). Everything else is a claim, and what is wrong with it is told when it is processed; a namespace that is no text, or empty, is `default` in the ref.
pub fn parse_entity(bytes: &[u8], limits: &Limits) -> Result<Unprocessed, Refusal> {
    check_limits(bytes, limits)?;
    let not_json = |error: &dyn std::fmt::Display| Refusal(format!("the entity is not valid JSON: {error}"));
    // Looked at once, and not text by text.
    let text = std::str::from_utf8(bytes).map_err(|error| not_json(&error))?;
    let value: Value = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    let Value::Object(entity) = value else {
        return Err(Refusal(format!("the entity must be a JSON object, found {}", type_of(&value))));
    };
    unprocessed(entity)
}

/// Takes an entity that is a tree already (a document that was read elsewhere); refuses as [`parse_entity`] does what has no kind or name.
pub fn unprocessed(entity: Map<String, Value>) -> Result<Unprocessed, Refusal> {
    let metadata = match entity.get("metadata") {
        Some(Value::Object(metadata)) => metadata,
        Some(other) => {
            return Err(Refusal(format!("metadata must be an object with a name, found {}", type_of(other))));
        }
        None => {
            return Err(Refusal("metadata is missing: expected an object with a name".to_owned()));
        }
    };
    let kind = non_empty(&entity, "kind", "kind")?;
    let name = non_empty(metadata, "name", "metadata.name")?;
    let namespace = metadata.get("namespace").and_then(Value::as_str).unwrap_or(DEFAULT_NAMESPACE);
    let entity_ref = EntityRef::of(kind, namespace, name);
    Ok(Unprocessed { entity, entity_ref })
}

fn non_empty<'a>(object: &'a Map<String, Value>, key: &str, field: &str) -> Result<&'a str, Refusal> {
    let found = match object.get(key) {
        Some(Value::String(text)) if !text.is_empty() => return Ok(text),
        Some(Value::String(_)) => "an empty one",
        Some(other) => type_of(other),
        None => "nothing",
    };
    Err(Refusal(format!("{field} must be a non-empty string, found {found}")))
}

/// The JSON type of a value, with its article, for messages.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// One pass over the bytes that knows strings from structure and nothing more: it need not be right about bytes that are no JSON, for those
/// are refused afterwards, but it must bound what the parser may build.
pub fn check_limits(bytes: &[u8], limits: &Limits) -> Result<(), Refusal> {
    if bytes.len() > limits.bytes {
        return Err(Refusal(format!("the entity is {} bytes long, the limit is {} bytes", bytes.len(), limits.bytes)));
    }
    let (mut depth, mut values) = (0_usize, 1_usize);
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at = end_of_string(bytes, at)?;
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                values += 1;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if depth > limits.depth {
            return Err(Refusal(format!("the entity is nested deeper than {} levels", limits.depth)));
        }
        if values > limits.values {
            return Err(Refusal(format!("the entity holds more than {} values", limits.values)));
        }
        at += 1;
    }
    Ok(())
}

/// The index after the string that starts at `start`; past the end if it never closes (the parser says so).
fn end_of_string(bytes: &[u8], start: usize) -> Result<usize, Refusal> {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return Ok(at + 1),
            b'\\' if bytes[at + 1..].starts_with(b"u0000") => {
                return Err(Refusal(format!("the entity holds the character U+0000 at byte {at}: remove it")));
            }
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: &str) {
        let got = parse_entity(text.as_bytes(), &Limits::default())
            .map_or_else(|refusal| refusal.to_string(), |taken| taken.entity_ref.to_string());
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn claims_and_refusals() {
        check(r#"{"kind":"Component","metadata":{"name":"Web"}}"#, "component:default/web");
        check(r#"{"kind":"K d","metadata":{"name":"a:b","namespace":"NS"}}"#, "k d:ns/a:b");
        check(r#"{"kind":"C","metadata":{"name":"w","namespace":7}}"#, "c:default/w");
        check(r#"{"kind":"C","metadata":{"name":"w","namespace":null}}"#, "c:default/w");
        check(r#"{"kind":"C","metadata":{"name":"w","namespace":""}}"#, "c:default/w");
        check(r#"{"kind":"C","metadata":{"name":"w"},"spec":3,"x":[]}"#, "c:default/w");
        check(r#"{"kind":"C","metadata":{"name":"\\u0000"}}"#, "c:default/\\u0000");
        check("[]", "the entity must be a JSON object, found an array");
        check("null", "the entity must be a JSON object, found null");
        check("7", "the entity must be a JSON object, found a number");
        check(r#""x""#, "the entity must be a JSON object, found a string");
        check("{}", "metadata is missing: expected an object with a name");
        check(r#"{"kind":"C"}"#, "metadata is missing: expected an object with a name");
        check(r#"{"kind":"C","metadata":[]}"#, "metadata must be an object with a name, found an array");
        check(r#"{"metadata":{"name":"w"}}"#, "kind must be a non-empty string, found nothing");
        check(r#"{"kind":"","metadata":{"name":"w"}}"#, "kind must be a non-empty string, found an empty one");
        check(r#"{"kind":1,"metadata":{"name":"w"}}"#, "kind must be a non-empty string, found a number");
        check(r#"{"kind":"C","metadata":{}}"#, "metadata.name must be a non-empty string, found nothing");
        check(r#"{"kind":"C","metadata":{"name":false}}"#, "metadata.name must be a non-empty string, found a boolean");
        check(r#"{"a":"\u0000"}"#, "the entity holds the character U+0000 at byte 6: remove it");
        check(r#"{"a\u0000":1}"#, "the entity holds the character U+0000 at byte 3: remove it");
    }

    #[test]
    fn not_json() {
        for text in ["", "{", "{\"a\":\"", "{\"a\":\"\\", "{\"a\" 1}", "{\"a\":\"\\ud800\"}", "{} {}", "{\"a\":\u{1}}"]
        {
            let refusal = parse_entity(text.as_bytes(), &Limits::default()).unwrap_err();
            assert!(refusal.0.starts_with("the entity is not valid JSON: "), "{text}: {refusal}");
        }
        assert!(parse_entity(b"{\"a\":\"\xff\"}", &Limits::default()).is_err());
    }

    #[test]
    fn limits_hold_at_the_limit() {
        let limits = Limits { bytes: 60, depth: 3, values: 6 };
        let entity = |spec: &str| format!(r#"{{"kind":"C","metadata":{{"name":"w"}},"s":{spec}}}"#);
        let verdict = |spec: &str| {
            parse_entity(entity(spec).as_bytes(), &limits).map_or_else(|refusal| refusal.0, |_| "taken".to_owned())
        };
        assert_eq!(verdict("[[]]"), "the entity holds more than 6 values");
        assert_eq!(verdict("[1]"), "taken");
        assert_eq!(verdict("[\"[[[[,,,,\"]"), "taken");
        assert_eq!(verdict("[1,2]"), "the entity holds more than 6 values");
        let deep = Limits { values: 100, ..limits };
        assert!(parse_entity(entity("[[]]").as_bytes(), &deep).is_ok());
        let refusal = parse_entity(entity("[[[]]]").as_bytes(), &deep).unwrap_err();
        assert_eq!(refusal.0, "the entity is nested deeper than 3 levels");
        let long = entity(&format!("\"{}\"", "x".repeat(60)));
        let refusal = parse_entity(long.as_bytes(), &limits).unwrap_err();
        assert_eq!(refusal.0, format!("the entity is {} bytes long, the limit is 60 bytes", long.len()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_entity(&bytes, &Limits::default());
        }

        #[test]
        fn any_jsonish_text_is_taken_or_refused(text in r#"[{}\[\]",:\\u0a ]{0,60}"#) {
            let _ = parse_entity(text.as_bytes(), &Limits::default());
        }
    }
}
