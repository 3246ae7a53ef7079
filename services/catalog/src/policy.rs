//! The formats of an entity's fields: Backstage's `FieldFormatEntityPolicy` with its default validators.

use crate::error::ProcessingError;
use crate::location::js_trim;
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;
use url::Url;

const SEE: &str = "To learn more about catalog file format, visit: https://github.com/backstage/backstage/blob/master/docs/architecture-decisions/adr002-default-catalog-file-format.md";

/// A format in place of a built-in one, as configuration has it (Backstage's `setFieldValidators`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomFormat {
    /// A regular expression that the whole text must match.
    pub pattern: String,
    /// The most characters [default: 63].
    #[serde(default)]
    pub max_length: Option<usize>,
    /// What is expected, in words, for the error [default: the pattern].
    #[serde(default)]
    pub expected: Option<String>,
}

/// A format: what it asks for, in words, and whether a text has it.
struct Format {
    expected: Cow<'static, str>,
    check: Check,
}

enum Check {
    BuiltIn(fn(&str) -> bool),
    Custom { pattern: Regex, max_length: usize },
}

impl Format {
    const fn built_in(expected: &'static str, is_valid: fn(&str) -> bool) -> Self {
        Format { expected: Cow::Borrowed(expected), check: Check::BuiltIn(is_valid) }
    }

    fn custom(custom: &CustomFormat) -> Result<Self, String> {
        let pattern = Regex::new(&format!("^(?:{})$", custom.pattern)).map_err(|error| error.to_string())?;
        let max_length = custom.max_length.unwrap_or(63);
        let expected = custom.expected.clone();
        let expected = expected.unwrap_or_else(|| {
            format!("a string that matches {}, at most {max_length} characters in total", custom.pattern)
        });
        Ok(Format { expected: Cow::Owned(expected), check: Check::Custom { pattern, max_length } })
    }

    fn is_valid(&self, text: &str) -> bool {
        match &self.check {
            Check::BuiltIn(is_valid) => is_valid(text),
            Check::Custom { pattern, max_length } => text.chars().count() <= *max_length && pattern.is_match(text),
        }
    }
}

/// The formats of the fields.
pub(crate) struct Formats {
    api_version: Format,
    kind: Format,
    entity_name: Format,
    namespace: Format,
    label_key: Format,
    label_value: Format,
    annotation_key: Format,
    annotation_value: Format,
    tag: Format,
}

impl Default for Formats {
    /// Backstage's.
    fn default() -> Self {
        Formats {
            api_version: API_VERSION,
            kind: KIND,
            entity_name: NAME,
            namespace: NAMESPACE,
            label_key: KEY,
            label_value: LABEL_VALUE,
            annotation_key: KEY,
            annotation_value: Format::built_in("a string", |_| true),
            tag: TAG,
        }
    }
}

impl Formats {
    /// Backstage's, but for those that are given by name.
    pub fn new(custom: &BTreeMap<String, CustomFormat>) -> Result<Self, String> {
        let mut formats = Formats::default();
        for (name, custom) in custom {
            let place = match name.as_str() {
                "api_version" => &mut formats.api_version,
                "kind" => &mut formats.kind,
                "entity_name" => &mut formats.entity_name,
                "namespace" => &mut formats.namespace,
                "label_key" => &mut formats.label_key,
                "label_value" => &mut formats.label_value,
                "annotation_key" => &mut formats.annotation_key,
                "annotation_value" => &mut formats.annotation_value,
                "tag" => &mut formats.tag,
                _ => return Err(format!("{name} is no format; they are {NAMES}")),
            };
            *place = Format::custom(custom).map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(formats)
    }
}

const NAMES: &str =
    "api_version, kind, entity_name, namespace, label_key, label_value, annotation_key, annotation_value and tag";

const API_VERSION: Format = Format::built_in(PREFIX_OR_SUFFIX, is_api_version);
const KIND: Format =
    Format::built_in("a string that is a sequence of [a-zA-Z][a-z0-9A-Z], at most 63 characters in total", is_kind);
const NAME: Format = Format::built_in(OBJECT_NAME, is_object_name);
const NAMESPACE: Format = Format::built_in(
    "a string that is sequences of [a-z0-9] separated by [-], at most 63 characters in total",
    is_dns_label,
);
const KEY: Format = Format::built_in(PREFIX_OR_SUFFIX, is_key);
const LABEL_VALUE: Format = Format::built_in(OBJECT_NAME, |text| text.is_empty() || is_object_name(text));
const TAG: Format = Format::built_in(
    "a string that is sequences of [a-z0-9+#] separated by [-], at most 63 characters in total",
    is_tag,
);
const URL: Format = Format::built_in("a string that is a valid url", |text| Url::parse(text).is_ok());
const NON_BLANK: Format = Format::built_in("a non empty string", |text| !js_trim(text).is_empty());
const PREFIX_OR_SUFFIX: &str = "a valid prefix and/or suffix";
const OBJECT_NAME: &str =
    "a string that is sequences of [a-zA-Z0-9] separated by any of [-_.], at most 63 characters in total";

/// Checks every field that has a format, in Backstage's order; the first that is not valid is the error. The shape (strings, lists) was checked before.
pub(crate) fn check_formats(formats: &Formats, entity: &Map<String, Value>) -> Result<(), ProcessingError> {
    let empty = Map::new();
    let metadata = object(entity, "metadata").unwrap_or(&empty);
    require("apiVersion", text(entity, "apiVersion"), &formats.api_version)?;
    require("kind", text(entity, "kind"), &formats.kind)?;
    require("metadata.name", text(metadata, "name"), &formats.entity_name)?;
    require("metadata.namespace", text(metadata, "namespace"), &formats.namespace)?;
    for (key, value) in object(metadata, "labels").unwrap_or(&empty) {
        require(&format!("labels.{key}"), Some(key), &formats.label_key)?;
        require(&format!("labels.{key}"), value.as_str(), &formats.label_value)?;
    }
    for (key, value) in object(metadata, "annotations").unwrap_or(&empty) {
        require(&format!("annotations.{key}"), Some(key), &formats.annotation_key)?;
        require(&format!("annotations.{key}"), value.as_str(), &formats.annotation_value)?;
    }
    for (index, tag) in items(metadata, "tags").iter().enumerate() {
        require(&format!("tags.{index}"), tag.as_str(), &formats.tag)?;
    }
    for (index, link) in items(metadata, "links").iter().enumerate() {
        let link = link.as_object().unwrap_or(&empty);
        require(&format!("links.{index}.url"), text(link, "url"), &URL)?;
        require(&format!("links.{index}.title"), text(link, "title"), &NON_BLANK)?;
        require(&format!("links.{index}.icon"), text(link, "icon"), &NON_BLANK)?;
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
    let Some(value) = value.filter(|value| !format.is_valid(value)) else {
        return Ok(());
    };
    let expected = &format.expected;
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
            assert!(format.is_valid(text), "{text:?} is {}", format.expected);
        }
        for text in invalid {
            assert!(!format.is_valid(text), "{text:?} is not {}", format.expected);
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
    fn formats_of_ones_own() {
        let custom = |name: &str, pattern: &str| {
            let custom = CustomFormat { pattern: pattern.to_owned(), max_length: Some(5), expected: None };
            Formats::new(&BTreeMap::from([(name.to_owned(), custom)]))
        };
        let formats = custom("tag", "[A-Z]+|é").expect("usable");
        let tagged = |tag: &str| {
            let entity = serde_json::json!({"metadata": {"tags": [tag]}});
            check_formats(&formats, entity.as_object().expect("an object")).map_err(|error| error.message)
        };
        assert_eq!(tagged("JAVA"), Ok(()));
        assert_eq!(tagged("é"), Ok(()));
        for wrong in ["java", "JAVA1", "A\nB", "TOOLONG"] {
            assert!(tagged(wrong).is_err(), "{wrong}");
        }
        let expected = "expected a string that matches [A-Z]+|é, at most 5 characters in total but found \"java\"";
        assert!(tagged("java").expect_err("lower case").contains(expected));
        assert!(custom("tag", "(").is_err());
        assert!(
            custom("tags", "a").err().expect("no such format").starts_with("tags is no format; they are api_version,")
        );
    }

    #[test]
    fn the_first_field_that_is_not_valid_is_named() {
        let entity = serde_json::json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "a", "labels": {"b": "c d"}, "tags": ["A"]}});
        let error = check_formats(&Formats::default(), entity.as_object().expect("an object")).expect_err("not valid");
        assert_eq!(error.field.as_deref(), Some("labels.b"));
        assert_eq!(
            error.to_string(),
            format!("Error: \"labels.b\" is not valid; expected {OBJECT_NAME} but found \"c d\". {SEE}")
        );
    }
}
