//! What a `Location` entity asks to be read, and what entities and other locations come of what was read.

use crate::documents::parse_documents;
use crate::entity_ref::EntityRef;
use crate::error::ProcessingError;
use crate::git_url::resolve_url;
use crate::location::{LocationRef, MANAGED_BY_LOCATION, MANAGED_BY_ORIGIN_LOCATION, Places};
use crate::process::check_envelope;
use crate::relations::is_falsy;
use serde_json::{Map, Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The most targets of one Location.
pub const MAX_TARGETS: usize = 1000;
/// The longest refresh key, and what stays of a longer one, in characters.
const REFRESH_KEY_CHARS: usize = 255;
const REFRESH_KEY_CHARS_KEPT: usize = 180;
/// Types of locations that an entity from elsewhere may name (Backstage's `allowedLocationTypes`).
const ALLOWED_TYPES: [&str; 1] = ["url"];

/// What is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub location: LocationRef,
    /// It need not be there (`presence: optional`).
    pub is_optional: bool,
}

/// What a Location entity asks to be read: `spec.target` and `spec.targets`, relative ones as seen from where the entity was read, of `spec.type`, which
/// defaults to that place's. An error in place of a target leaves the others to be read, as in Backstage.
pub fn targets(entity: &Map<String, Value>, own: &LocationRef) -> Vec<Result<Target, ProcessingError>> {
    let empty = Map::new();
    let spec = entity.get("spec").and_then(Value::as_object).unwrap_or(&empty);
    let text = |key: &str| spec.get(key).and_then(Value::as_str);
    let location_type = text("type").unwrap_or(&own.location_type);
    if location_type != own.location_type && !ALLOWED_TYPES.contains(&location_type) {
        let message = "Registered locations must be of an allowed type [\"url\"]";
        return vec![Err(ProcessingError::input(message).at("/spec/type"))];
    }
    let one = text("target").filter(|target| !target.is_empty());
    let more = spec.get("targets").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let named: Vec<&str> = one.into_iter().chain(more.iter().filter_map(Value::as_str)).collect();
    if named.len() > MAX_TARGETS {
        let message = format!("a Location may have {MAX_TARGETS} targets, this one has {}", named.len());
        return vec![Err(ProcessingError::input(message).at("/spec/targets"))];
    }
    let is_optional = text("presence") == Some("optional");
    let target = |named: &str| {
        if location_type == "file" && named.ends_with('/') {
            return Err(ProcessingError::input(format!(
                "LocationEntityProcessor cannot handle file type location with target {} that ends with a path separator",
                own.target
            )));
        }
        let target = absolute(own, location_type, named);
        Ok(Target { location: LocationRef { location_type: location_type.to_owned(), target }, is_optional })
    };
    named.into_iter().map(target).collect()
}

/// A target as seen from where the Location was read (Backstage's `toAbsoluteUrl`); of another type, or if it makes no URL, it stays as it is.
fn absolute(own: &LocationRef, location_type: &str, target: &str) -> String {
    let resolved = match location_type {
        _ if own.location_type != location_type => None,
        "file" if target.starts_with('.') => {
            let directory = own.target.rsplit_once('/').map_or(".", |(directory, _)| directory);
            Some(normal_path(&format!("{directory}/{target}")))
        }
        "url" => resolve_url(target, &own.target),
        _ => None,
    };
    resolved.unwrap_or_else(|| target.to_owned())
}

/// A path without `.`, `..` and doubled separators, as far as they can be told from the text alone.
pub fn normal_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let is_absolute = path.starts_with('/');
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if is_absolute => {}
            part => parts.push(part),
        }
    }
    match (is_absolute, parts.join("/")) {
        (true, path) => format!("/{path}"),
        (false, path) if path.is_empty() => ".".to_owned(),
        (false, path) => path,
    }
}

/// An entity that processing another one brought in.
#[derive(Debug, Clone, PartialEq)]
pub struct Emitted {
    pub entity: Map<String, Value>,
    pub entity_ref: EntityRef,
    /// Under which it is claimed; none: without a key.
    pub location_key: Option<String>,
}

/// The entity that emits: what it emits is told from it, and comes from its origin.
#[derive(Debug, Clone, Copy)]
pub struct Emitter<'a> {
    pub entity_ref: &'a EntityRef,
    pub places: &'a Places,
}

impl Emitter<'_> {
    /// An entity as it was found at a place, with the annotations that say so; its own ones of these names do not count. None if it is the emitter itself,
    /// which Backstage ignores, too. The location key is where it was found.
    pub fn entity(
        &self,
        mut entity: Map<String, Value>,
        found_at: &LocationRef,
    ) -> Result<Option<Emitted>, ProcessingError> {
        check_envelope(&entity)?;
        let entity_ref = ref_of(&entity);
        if entity_ref == *self.entity_ref {
            return Ok(None);
        }
        let location = found_at.to_string();
        let metadata = entity.get_mut("metadata").and_then(Value::as_object_mut);
        if let Some(metadata) = metadata {
            let annotations = metadata.entry("annotations").or_insert(Value::Null);
            if is_falsy(annotations) {
                *annotations = json!({});
            }
            let Some(annotations) = annotations.as_object_mut() else {
                return Err(ProcessingError::new("Error", "metadata.annotations must be a valid object"));
            };
            annotations.insert(MANAGED_BY_ORIGIN_LOCATION.to_owned(), self.places.origin_text.clone().into());
            annotations.insert(MANAGED_BY_LOCATION.to_owned(), location.clone().into());
        }
        Ok(Some(Emitted { entity, entity_ref, location_key: Some(location) }))
    }

    /// A further location to be read, as the Location entity `generated-<SHA-1 of the location ref>` that asks for it; its location key is where the
    /// emitter was read (Backstage's `locationSpecToLocationEntity`).
    pub fn location(&self, target: &Target) -> Option<Emitted> {
        let name = generated_name(&target.location);
        let own = self.places.location_text.clone();
        let presence = if target.is_optional { "optional" } else { "required" };
        let entity = json!({
            "apiVersion": "backstage.io/v1alpha1",
            "kind": "Location",
            "metadata": {
                "name": name,
                "annotations": {
                    MANAGED_BY_LOCATION: own,
                    MANAGED_BY_ORIGIN_LOCATION: self.places.origin_text,
                },
            },
            "spec": {"type": target.location.location_type, "target": target.location.target, "presence": presence},
        });
        let Value::Object(entity) = entity else { return None };
        let entity_ref = ref_of(&entity);
        (entity_ref != *self.entity_ref).then_some(Emitted { entity, entity_ref, location_key: Some(own) })
    }

    /// All entities of a text of YAML or JSON documents that was found at a place. What is no entity is an error in its place (Backstage's
    /// `parseEntityYaml`).
    pub fn documents(&self, text: &str, found_at: &LocationRef) -> Vec<Result<Emitted, ProcessingError>> {
        let document = |content| match content {
            Ok(Value::Object(entity)) => self.entity(entity, found_at).transpose(),
            Ok(other) => {
                let message = format!("Expected object at root, got {}", crate::location::js_typeof(&other));
                Some(Err(ProcessingError::new("Error", message)))
            }
            Err(error) => {
                let message = format!("YAML error at {found_at}, YAMLParseError: {error}");
                Some(Err(ProcessingError::new("Error", message)))
            }
        };
        parse_documents(text).into_iter().filter_map(|found| document(found.content)).collect()
    }
}

fn ref_of(entity: &Map<String, Value>) -> EntityRef {
    let metadata = entity.get("metadata").and_then(Value::as_object);
    let part = |key: &str| metadata.and_then(|metadata| metadata.get(key)).and_then(Value::as_str).unwrap_or_default();
    let kind = entity.get("kind").and_then(Value::as_str).unwrap_or_default();
    EntityRef::of(kind, part("namespace"), part("name"))
}

/// Backstage's name of the Location entity that asks for a location.
pub fn generated_name(location: &LocationRef) -> String {
    let mut name = "generated-".to_owned();
    for byte in Sha1::digest(location.to_string()) {
        name.push_str(&format!("{byte:02x}"));
    }
    name
}

/// A refresh key as it is kept: one of more than 255 characters ends in its SHA-256 (Backstage's `generateTargetKey`). Keys that are asked for go through
/// this, too.
pub fn refresh_key(key: &str) -> String {
    if key.chars().count() <= REFRESH_KEY_CHARS {
        return key.to_owned();
    }
    let mut kept: String = key.chars().take(REFRESH_KEY_CHARS_KEPT).chain("#sha256:".chars()).collect();
    for byte in Sha256::digest(key) {
        kept.push_str(&format!("{byte:02x}"));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_targets(own: &str, spec: Value, expected: &[&str]) {
        let entity = json!({"kind": "Location", "spec": spec});
        let own = LocationRef::parse(own).expect("a location ref");
        let found = targets(entity.as_object().expect("an object"), &own);
        let found: Vec<String> = found
            .into_iter()
            .map(|target| match target {
                Ok(Target { location, is_optional: false }) => location.to_string(),
                Ok(Target { location, is_optional: true }) => format!("{location}?"),
                Err(error) => error.to_string(),
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_targets_of_a_location() {
        let file = "file:/srv/root.yaml";
        let url = "url:https://h.example/d/root.yaml";
        check_targets(file, json!({}), &[]);
        check_targets(file, json!({"target": "./a.yaml"}), &["file:/srv/a.yaml"]);
        check_targets(file, json!({"target": "../x/./a.yaml"}), &["file:/x/a.yaml"]);
        check_targets(file, json!({"target": "a.yaml"}), &["file:a.yaml"]);
        check_targets(file, json!({"target": "", "targets": ["./b", "/c"]}), &["file:/srv/b", "file:/c"]);
        check_targets(file, json!({"type": "url", "target": "https://h.example/a"}), &["url:https://h.example/a"]);
        check_targets(file, json!({"type": "url", "target": "./a", "presence": "optional"}), &["url:./a?"]);
        check_targets(url, json!({"target": "a.yaml"}), &["url:https://h.example/d/a.yaml"]);
        check_targets(url, json!({"target": "/a.yaml"}), &["url:https://h.example/d/root.yaml/a.yaml"]);
        let refused = "InputError: Registered locations must be of an allowed type [\"url\"]";
        check_targets(url, json!({"type": "file", "target": "/etc/passwd"}), &[refused]);
        let slash = "InputError: LocationEntityProcessor cannot handle file type location with target /srv/root.yaml that ends with a path separator";
        check_targets(file, json!({"targets": ["./d/", "./a"]}), &[slash, "file:/srv/a"]);
        let many: Vec<String> = (0..=MAX_TARGETS).map(|index| format!("./{index}")).collect();
        check_targets(
            file,
            json!({"targets": many}),
            &["InputError: a Location may have 1000 targets, this one has 1001"],
        );
    }

    #[test]
    fn long_refresh_keys_end_in_their_hash() {
        assert_eq!(refresh_key(&"k".repeat(255)), "k".repeat(255));
        let kept = refresh_key(&"k".repeat(256));
        assert_eq!(kept.len(), 180 + 8 + 64);
        assert!(kept.starts_with("kkk") && refresh_key(&format!("{}j", "k".repeat(255))) != kept);
    }

    #[test]
    fn paths() {
        for (path, expected) in [("/a/../..//b/.", "/b"), ("./a/../../b", "../b"), ("a/..", "."), ("/", "/")] {
            assert_eq!(normal_path(path), expected, "{path}");
        }
    }

    fn places() -> Places {
        Places {
            location: LocationRef::parse("file:/srv/root.yaml").expect("a location ref"),
            origin: LocationRef::parse("url:https://h.example/o").expect("a location ref"),
            location_text: "file:/srv/root.yaml".to_owned(),
            origin_text: "url: https://h.example/o".to_owned(),
        }
    }

    fn check_documents(text: &str, expected: &[&str]) {
        let (own, places) = (EntityRef::of("location", "default", "root"), places());
        let emitter = Emitter { entity_ref: &own, places: &places };
        let at = LocationRef::parse("file:/srv/a.yaml").expect("a location ref");
        let found = emitter.documents(text, &at);
        let found: Vec<String> = found
            .iter()
            .map(|found| found.as_ref().map_or_else(ToString::to_string, |found| found.entity_ref.to_string()))
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn documents_are_entities_or_errors() {
        let component = "apiVersion: v1\nkind: Component\nmetadata: {name: Web}\n";
        check_documents("", &[]);
        check_documents(component, &["component:default/web"]);
        check_documents("apiVersion: v1\nkind: location\nmetadata: {name: ROOT}\n", &[]);
        check_documents("just text", &["Error: Expected object at root, got string"]);
        check_documents("[1]", &["Error: Expected object at root, got object"]);
        check_documents(
            "apiVersion: v1\nkind: C\nmetadata: {}\n",
            &["TypeError: /metadata must have required property 'name' - missingProperty: name"],
        );
        check_documents(
            "apiVersion: v1\nkind: C\nmetadata: {name: a, annotations: x}\n",
            &["Error: metadata.annotations must be a valid object"],
        );
        let (own, places) = (EntityRef::of("location", "default", "root"), places());
        let emitter = Emitter { entity_ref: &own, places: &places };
        let text = format!("a: 1\na: 2\n---\n{component}");
        let found = emitter.documents(&text, &places.location);
        let error = found[0].as_ref().expect_err("two equal keys").to_string();
        assert!(error.starts_with("Error: YAML error at file:/srv/root.yaml, YAMLParseError: "), "{error}");
        assert!(error.ends_with(" at line 2, column 1"), "{error}");
        assert!(found[1].is_ok());
    }

    #[test]
    fn what_is_emitted_says_where_it_was_found() {
        let (own, places) = (EntityRef::of("location", "default", "root"), places());
        let emitter = Emitter { entity_ref: &own, places: &places };
        let entity = json!({"apiVersion": "v1", "kind": "C", "metadata": {"name": "a", "annotations": {
            MANAGED_BY_LOCATION: "url:mine", "own": "1"}}});
        let at = LocationRef::parse("file:/srv/a.yaml").expect("a location ref");
        let Value::Object(entity) = entity else { panic!("an object") };
        let emitted = emitter.entity(entity, &at).expect("an entity").expect("another one");
        assert_eq!(emitted.location_key.as_deref(), Some("file:/srv/a.yaml"));
        assert_eq!(
            emitted.entity["metadata"]["annotations"],
            json!({MANAGED_BY_LOCATION: "file:/srv/a.yaml", MANAGED_BY_ORIGIN_LOCATION: "url: https://h.example/o", "own": "1"})
        );
        let target =
            Target { location: LocationRef::parse("url:https://h.example/x").expect("a ref"), is_optional: false };
        let generated = emitter.location(&target).expect("another one");
        assert_eq!(generated.entity_ref.name, generated_name(&target.location));
        assert_eq!(generated.entity_ref.name, "generated-7878bcebef11327c5bb05f3cfacd78af790938d5");
        assert_eq!(generated.location_key.as_deref(), Some("file:/srv/root.yaml"));
    }
}
