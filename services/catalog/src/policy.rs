//! The formats of an entity's fields: Backstage's `FieldFormatEntityPolicy` with its default validators.

use crate::error::ProcessingError;
use crate::location::js_trim;
use serde_json::{Map, Value};
use url::Url;

const SEE: &str = "To learn more about catalog file format, visit: https://github.com/backstage/backstage/blob/master/docs/architecture-decisions/adr002-default-catalog-file-format.md";

/// A format: what it asks for, in words, and whether a text has it.
struct Format {
    expected: &'static str,
    is_valid: fn(&str) -> bool,
}

const API_VERSION: Format = Format { expected: PREFIX_OR_SUFFIX, is_valid: is_api_version };
const KIND: Format = Format {
    expected: "a string that is a sequence of [a-zA-Z][a-z0-9A-Z], at most 63 characters in total",
    is_valid: is_kind,
};
const NAME: Format = Format { expected: OBJECT_NAME, is_valid: is_object_name };
const NAMESPACE: Format = Format {
    expected: "a string that is sequences of [a-z0-9] separated by [-], at most 63 characters in total",
    is_valid: is_dns_label,
};
const KEY: Format = Format { expected: PREFIX_OR_SUFFIX, is_valid: is_key };
const LABEL_VALUE: Format = Format { expected: OBJECT_NAME, is_valid: |text| text.is_empty() || is_object_name(text) };
const TAG: Format = Format {
    expected: "a string that is sequences of [a-z0-9+#] separated by [-], at most 63 characters in total",
    is_valid: is_tag,
};
const URL: Format = Format { expected: "a string that is a valid url", is_valid: |text| Url::parse(text).is_ok() };
const NON_BLANK: Format = Format { expected: "a non empty string", is_valid: |text| !js_trim(text).is_empty() };
const PREFIX_OR_SUFFIX: &str = "a valid prefix and/or suffix";
const OBJECT_NAME: &str =
    "a string that is sequences of [a-zA-Z0-9] separated by any of [-_.], at most 63 characters in total";

/// Checks every field that has a format, in Backstage's order; the first that is not valid is the error. The shape (strings, lists) was checked before.
pub(crate) fn check_formats(entity: &Map<String, Value>) -> Result<(), ProcessingError> {
    let empty = Map::new();
    let metadata = object(entity, "metadata").unwrap_or(&empty);
    require("apiVersion", text(entity, "apiVersion"), &API_VERSION)?;
    require("kind", text(entity, "kind"), &KIND)?;
    require("metadata.name", text(metadata, "name"), &NAME)?;
    require("metadata.namespace", text(metadata, "namespace"), &NAMESPACE)?;
    for (key, value) in object(metadata, "labels").unwrap_or(&empty) {
        require(&format!("labels.{key}"), Some(key), &KEY)?;
        require(&format!("labels.{key}"), value.as_str(), &LABEL_VALUE)?;
    }
    for key in object(metadata, "annotations").unwrap_or(&empty).keys() {
        require(&format!("annotations.{key}"), Some(key), &KEY)?;
    }
    for (index, tag) in items(metadata, "tags").iter().enumerate() {
        require(&format!("tags.{index}"), tag.as_str(), &TAG)?;
    }
    for (index, link) in items(metadata, "links").iter().enumerate() {
        let link = link.as_object().unwrap_or(&empty);
        require(&format!("links.{index}.url"), text(link, "url"), &URL)?;
        require(&format!("links.{index}.title"), text(link, "title"), &NON_BLANK)?;
        require(&format!("links.{index}.icon"), text(link, "icon"), &NAME)?;
    }
    Ok(())
}

fn object<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Map<String, Value>> {
    map.get(key).and_then(Value::as_object)
}

fn text<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    map.get(key).and_then(Value::as_str)
}

fn items<'a>(map: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    map.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn require(field: &str, value: Option<&str>, format: &Format) -> Result<(), ProcessingError> {
    let Some(value) = value.filter(|value| !(format.is_valid)(value)) else {
        return Ok(());
    };
    let expected = format.expected;
    Err(ProcessingError::new(
        "Error",
        format!("\"{field}\" is not valid; expected {expected} but found \"{value}\". {SEE}"),
    )
    .at(field))
}

/// `suffix` or `prefix/suffix` (Backstage's `isValidPrefixOrSuffix`): the prefix a DNS subdomain, the suffix as given.
fn has_prefix_and_suffix(text: &str, is_suffix: fn(&str) -> bool) -> bool {
    match text.split_once('/') {
        None => is_suffix(text),
        Some((prefix, suffix)) => is_dns_subdomain(prefix) && is_suffix(suffix),
    }
}

fn is_api_version(text: &str) -> bool {
    has_prefix_and_suffix(text, |suffix| short(suffix) && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn is_key(text: &str) -> bool {
    has_prefix_and_suffix(text, is_object_name)
}

fn is_kind(text: &str) -> bool {
    short(text)
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// `^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$`
fn is_object_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    short(text)
        && text.bytes().all(inner)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
}

fn is_dns_subdomain(text: &str) -> bool {
    (1..=253).contains(&text.len()) && text.split('.').all(is_dns_label)
}

/// `^[a-z0-9]+(?:\-+[a-z0-9]+)*$`
fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    short(text) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// `^[a-z0-9:+#]+(\-[a-z0-9:+#]+)*$`
fn is_tag(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b':' | b'+' | b'#');
    short(text) && text.split('-').all(|part| !part.is_empty() && part.bytes().all(inner))
}

fn short(text: &str) -> bool {
    (1..=63).contains(&text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: &Format, valid: &[&str], invalid: &[&str]) {
        for text in valid {
            assert!((format.is_valid)(text), "{text:?} is {}", format.expected);
        }
        for text in invalid {
            assert!(!(format.is_valid)(text), "{text:?} is not {}", format.expected);
        }
    }

    #[test]
    fn formats() {
        let (at, over) = ("a".repeat(63), "a".repeat(64));
        let (at, over) = (at.as_str(), over.as_str());
        let (long, too_long) = (["abc"; 63].join("."), ["abc"; 64].join("."));
        let prefix = |prefix: &str| format!("{prefix}/k");
        check(
            &API_VERSION,
            &["v1", "1", "backstage.io/v1alpha1", "a/B", &format!("a.io/{at}"), &prefix(at), &prefix(&long)],
            &[
                "",
                "/",
                "a/",
                "/v1",
                "a/b/c",
                "Backstage.io/v1",
                "a..b/v1",
                "-a.io/v1",
                "a-/v1",
                "a/v-1",
                "a/v.1",
                "v_1",
                &format!("a.io/{over}"),
                &prefix(over),
                &prefix(&too_long),
            ],
        );
        check(&KIND, &["Component", "a", "A1", at], &["", "1a", "my-kind", "my.kind", "K d", "é", over]);
        check(
            &NAME,
            &["a", "A", "1", "a-b", "a_b", "a.b", "a--b", "a._-b", at],
            &["", "-a", ".a", "_a", "a-", "a_", "a.", "a b", "a:b", "a/b", "é", "🙂", " a", "a\n", over],
        );
        check(
            &NAMESPACE,
            &["default", "a", "1", "a-b", "a--b", at],
            &["", "A", "-a", "a-", "a.b", "a_b", "a b", "é", over],
        );
        check(
            &KEY,
            &["a", "example.com/a", "example.com/A.b-c_d", "a-b.c--d/x", &prefix(&long)],
            &[
                "",
                "a/b/c",
                "/a",
                "a/",
                "-a",
                "Example.com/a",
                "exa_mple.com/a",
                "a..b/c",
                " ",
                "é",
                over,
                &prefix(&too_long),
            ],
        );
        check(&LABEL_VALUE, &["", "a", "A.b_c", at], &[" ", "-a", "a-", "a/b", "a,b", "é", over]);
        check(
            &TAG,
            &["java", "c++", "c#", "a:b", "a-b", "1", at],
            &["", "A", "a--b", "-a", "a-", "a b", "a_b", "a.b", "a/b", "é", over],
        );
        check(
            &URL,
            &["https://a.b", "slack://channel?id=1", "mailto:a@b", "x:"],
            &["", "example.com", "/relative", "https://", "//a.b"],
        );
        check(&NON_BLANK, &["a", " a "], &["", " ", "\t\n", "\u{a0}", "\u{feff}"]);
    }

    #[test]
    fn the_first_field_that_is_not_valid_is_named() {
        let entity = serde_json::json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "a", "labels": {"b": "c d"}, "tags": ["A"]}});
        let error = check_formats(entity.as_object().expect("an object")).expect_err("not valid");
        assert_eq!(error.field.as_deref(), Some("labels.b"));
        assert_eq!(
            error.to_string(),
            format!("Error: \"labels.b\" is not valid; expected {OBJECT_NAME} but found \"c d\". {SEE}")
        );
    }
}
