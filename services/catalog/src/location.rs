//! Where an entity comes from: location refs, and the annotations the engine derives from them.

use crate::entity_ref::EntityRef;
use crate::error::ProcessingError;
use crate::relations::is_falsy;
use crate::scm;
use serde_json::{Map, Value};

/// `backstage.io/managed-by-location`: where the entity was read.
pub const MANAGED_BY_LOCATION: &str = "backstage.io/managed-by-location";
/// `backstage.io/managed-by-origin-location`: the root from which that location was found.
pub const MANAGED_BY_ORIGIN_LOCATION: &str = "backstage.io/managed-by-origin-location";
/// `backstage.io/view-url`: where a person reads the source of the entity.
pub const VIEW_URL: &str = "backstage.io/view-url";
/// `backstage.io/edit-url`: where a person edits it.
pub const EDIT_URL: &str = "backstage.io/edit-url";
/// `backstage.io/source-location`: the directory of the source, as a location ref.
pub const SOURCE_LOCATION: &str = "backstage.io/source-location";

/// A location ref in its parts: `<type>:<target>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocationRef {
    pub location_type: String,
    pub target: String,
}

impl LocationRef {
    /// Splits at the first colon and trims both parts (Backstage's `parseLocationRef`); refused are empty parts, the types `http` and `https`, and a
    /// target that a browser would take for a `javascript:` URL.
    pub fn parse(text: &str) -> Result<Self, ProcessingError> {
        let parts = text
            .split_once(':')
            .map(|(location_type, target)| (js_trim(location_type), js_trim(target)))
            .filter(|(location_type, target)| !location_type.is_empty() && !target.is_empty());
        let Some((location_type, target)) = parts else {
            return Err(ProcessingError::type_error(format!(
                "Unable to parse location ref '{text}', expected '<type>:<target>', e.g. 'url:https://host/path'"
            )));
        };
        if location_type == "http" || location_type == "https" {
            return Err(ProcessingError::type_error(format!(
                "Invalid location ref '{text}', please prefix it with 'url:', e.g. 'url:{text}'"
            )));
        }
        if is_script_url(target) {
            return Err(ProcessingError::type_error(format!(
                "Invalid location ref '{text}', target is a javascript: URL"
            )));
        }
        Ok(Self { location_type: location_type.to_owned(), target: target.to_owned() })
    }
}

impl std::fmt::Display for LocationRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.location_type, self.target)
    }
}

/// Whether a browser would run a URL as script: `javascript:` in any case, after control characters and spaces, with tabs and line ends anywhere within.
pub(crate) fn is_script_url(url: &str) -> bool {
    let mut rest = url.trim_start_matches(|c: char| c <= '\u{20}').chars();
    let mut next = || rest.find(|c| !matches!(c, '\r' | '\n' | '\t'));
    "javascript:".chars().all(|expected| next().is_some_and(|found| found.eq_ignore_ascii_case(&expected)))
}

/// Where an entity comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Where it was read.
    pub location: LocationRef,
    /// The root from which that place was found.
    pub origin: LocationRef,
    /// Both as the annotations have them, untrimmed: so they are passed on.
    pub location_text: String,
    pub origin_text: String,
}

/// Where an entity comes from, by its annotations; none if what stands there is no map, which is an error of the schema with a clearer text than any here.
///
/// Backstage demands both managed-by annotations of every provider. Here an entity with neither gets both as `nats:<provider subject>`: it does not care.
/// One that gives only one of them does care and has forgotten the other, so that is Backstage's error, as is one that is malformed.
pub fn places(
    entity: &mut Map<String, Value>,
    own: &EntityRef,
    provider_subject: &str,
) -> Result<Option<Places>, ProcessingError> {
    let Some(annotations) = annotations(entity) else {
        return Ok(None);
    };
    complete(annotations, provider_subject);
    let (location, location_text) = given(annotations, MANAGED_BY_LOCATION, own)?;
    let (origin, origin_text) = given(annotations, MANAGED_BY_ORIGIN_LOCATION, own)?;
    Ok(Some(Places { location, origin, location_text, origin_text }))
}

/// Gives an entity that was read at a URL the annotations that follow from it (Backstage's `AnnotateLocationEntityProcessor`); those it has already stay.
pub fn annotate(entity: &mut Map<String, Value>, location: &LocationRef) {
    let Some(annotations) = annotations(entity).filter(|_| location.location_type == "url") else {
        return;
    };
    let url = &location.target;
    let edit_url = scm::edit_url(url);
    let source = scm::source_url(url).map(|source| format!("url:{source}"));
    for (key, value) in [(VIEW_URL, Some(url.clone())), (EDIT_URL, edit_url), (SOURCE_LOCATION, source)] {
        if let Some(value) = value
            && !annotations.contains_key(key)
        {
            annotations.insert(key.to_owned(), Value::String(value));
        }
    }
}

fn annotations(entity: &mut Map<String, Value>) -> Option<&mut Map<String, Value>> {
    let metadata = entity.get_mut("metadata")?.as_object_mut()?;
    metadata.entry("annotations").or_insert_with(|| Value::Object(Map::new())).as_object_mut()
}

fn complete(annotations: &mut Map<String, Value>, provider_subject: &str) {
    let keys = [MANAGED_BY_LOCATION, MANAGED_BY_ORIGIN_LOCATION];
    if keys.iter().any(|key| annotations.contains_key(*key)) {
        return;
    }
    for key in keys {
        let location = Value::String(format!("nats:{provider_subject}"));
        annotations.insert(key.to_owned(), location);
    }
}

fn given(
    annotations: &Map<String, Value>,
    key: &str,
    own: &EntityRef,
) -> Result<(LocationRef, String), ProcessingError> {
    let field = || format!("/metadata/annotations/{}", key.replace('~', "~0").replace('/', "~1"));
    let missing = || ProcessingError::input(format!("Entity '{own}' does not have the annotation {key}")).at(field());
    match annotations.get(key) {
        Some(Value::String(text)) if !text.is_empty() => {
            LocationRef::parse(text).map(|parsed| (parsed, text.clone())).map_err(|error| error.at(field()))
        }
        None => Err(missing()),
        Some(falsy) if is_falsy(falsy) => Err(missing()),
        Some(other) => Err(ProcessingError::type_error(format!(
            "Unable to parse location ref '{other}', unexpected argument {}",
            js_typeof(other)
        ))
        .at(field())),
    }
}

/// `typeof` of JavaScript.
pub(crate) fn js_typeof(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Null | Value::Array(_) | Value::Object(_) => "object",
    }
}

/// `trim` of JavaScript: what Rust trims, without U+0085 and with U+FEFF.
pub(crate) fn js_trim(text: &str) -> &str {
    text.trim_matches(|c: char| c == '\u{feff}' || (c.is_whitespace() && c != '\u{85}'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check_ref(text: &str, expected: &str) {
        let got = LocationRef::parse(text).map_or_else(|error| error.to_string(), |parsed| parsed.to_string());
        assert_eq!(got, expected, "{text:?}");
    }

    #[test]
    fn location_refs() {
        let unreadable = |text: &str| {
            format!(
                "TypeError: Unable to parse location ref '{text}', expected '<type>:<target>', e.g. 'url:https://host/path'"
            )
        };
        let script = |text: &str| format!("TypeError: Invalid location ref '{text}', target is a javascript: URL");
        check_ref("url:https://host/path", "url:https://host/path");
        check_ref(" url : https://host ", "url:https://host");
        check_ref("\u{feff}file:\u{a0}/srv/a", "file:/srv/a");
        check_ref("nats:catalog.events.p1", "nats:catalog.events.p1");
        for text in ["nocolon", "url:", ":x", " : ", ""] {
            check_ref(text, &unreadable(text));
        }
        check_ref(
            "https://example.com/x",
            "TypeError: Invalid location ref 'https://example.com/x', please prefix it with 'url:', e.g. 'url:https://example.com/x'",
        );
        for text in ["url:javascript:alert(1)", "url:JaVaScript:x", "url:java\tscript:x", "x:\u{1}javascript:x"] {
            check_ref(text, &script(text));
        }
        check_ref("url:javascripts:x", "url:javascripts:x");
        check_ref("url:javascript", "url:javascript");
    }

    fn check(given: Value, expected: Value) {
        let mut entity = json!({"metadata": {"annotations": given}});
        let entity = entity.as_object_mut().expect("an object");
        let own = EntityRef::of("component", "default", "web");
        let outcome = places(entity, &own, "catalog.events.p1.upsert")
            .map(|places| places.iter().for_each(|places| annotate(entity, &places.location)));
        let got = outcome
            .map_or_else(|error| Value::String(error.to_string()), |()| entity["metadata"]["annotations"].clone());
        assert_eq!(got, expected);
    }

    #[test]
    fn managed_by_is_filled_in() {
        let subject = "nats:catalog.events.p1.upsert";
        check(json!({}), json!({MANAGED_BY_LOCATION: subject, MANAGED_BY_ORIGIN_LOCATION: subject}));
        check(json!("x"), json!("x"));
        let mut bare = json!({"metadata": {}});
        places(bare.as_object_mut().expect("an object"), &EntityRef::of("c", "", "r"), "s").expect("no error");
        assert_eq!(bare["metadata"]["annotations"][MANAGED_BY_LOCATION], "nats:s");
    }

    #[test]
    fn malformed_ones_are_errors() {
        let missing =
            |key| json!(format!("InputError: Entity 'component:default/web' does not have the annotation {key}"));
        check(json!({MANAGED_BY_LOCATION: ""}), missing(MANAGED_BY_LOCATION));
        check(json!({MANAGED_BY_LOCATION: null}), missing(MANAGED_BY_LOCATION));
        check(json!({MANAGED_BY_LOCATION: "a:b", MANAGED_BY_ORIGIN_LOCATION: ""}), missing(MANAGED_BY_ORIGIN_LOCATION));
        check(
            json!({MANAGED_BY_LOCATION: 7}),
            json!("TypeError: Unable to parse location ref '7', unexpected argument number"),
        );
    }

    #[test]
    fn a_url_location_gives_three_more_and_own_ones_stay() {
        let location = "url:https://github.com/a/b/blob/main/c.yaml";
        let given = |more: Value| {
            let mut all = json!({MANAGED_BY_LOCATION: location, MANAGED_BY_ORIGIN_LOCATION: location});
            for (key, value) in more.as_object().expect("an object") {
                all[key] = value.clone();
            }
            all
        };
        check(
            given(json!({})),
            given(json!({
                VIEW_URL: "https://github.com/a/b/blob/main/c.yaml",
                EDIT_URL: "https://github.com/a/b/edit/main/c.yaml",
                SOURCE_LOCATION: "url:https://github.com/a/b/tree/main/",
            })),
        );
        let own = json!({VIEW_URL: "v", EDIT_URL: "e", SOURCE_LOCATION: "s"});
        check(given(own.clone()), given(own));
    }
}
