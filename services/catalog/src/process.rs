//! Processing one entity: checked, completed, and turned into what the catalog shows and relates; pure, and the same whenever it is done.

use crate::entity::Unprocessed;
use crate::entity_ref::{DEFAULT_NAMESPACE, EntityRef};
use crate::location;
use crate::policy;
use crate::relations;
use serde_json::{Map, Value};

pub use crate::error::ProcessingError;
pub use crate::model::{Model, ModelError};
pub use crate::relations::Relation;

/// What processing gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Processed {
    /// The entity as it is to be shown, with its own relations under `relations`: `{"type", "targetRef"}`, sorted by both, each once.
    pub entity: Map<String, Value>,
    /// The other ends: relations whose source is another entity; sorted, each once.
    pub foreign: Vec<Relation>,
}

/// Processes one entity, in Backstage's order: the envelope; annotations and the sorting of refs (its `preProcessEntity`); the policies `SchemaValid`,
/// `DefaultNamespace`, `NoForeignRootFields`, `FieldFormat`; the schema of its kind; its relations (`postProcessEntity`).
///
/// `provider_subject` names where an entity without location annotations comes from. Processing what came of processing, without its `relations`, gives
/// the same again. The first error ends it.
pub fn process(model: &Model, unprocessed: &Unprocessed, provider_subject: &str) -> Result<Processed, ProcessingError> {
    process_whole(model, unprocessed.clone(), provider_subject)
}

/// As [`process`], of an entity that nobody needs afterwards: it is not copied.
pub fn process_whole(
    model: &Model,
    unprocessed: Unprocessed,
    provider_subject: &str,
) -> Result<Processed, ProcessingError> {
    let Unprocessed { mut entity, entity_ref } = unprocessed;
    let own = &entity_ref;
    check_envelope(&entity).map_err(before_processing)?;
    if let Some(places) = location::places(&mut entity, own, provider_subject)? {
        location::annotate(&mut entity, &places.location);
    }
    relations::sort_fields(model, &mut entity);
    let entity = enforce_policies(model, entity, own)?;
    let (entity, is_recognized) = validate_kind(model, entity, own)?;
    if !is_recognized {
        let kind = entity.get("kind").and_then(|kind| kind.as_str()).unwrap_or_default();
        let is_known = !model.kind(kind).is_empty();
        return Err(unrecognized(own).at(if is_known { "/apiVersion" } else { "/kind" }));
    }
    let emitted = relations::emit(model, &entity, own)?;
    Ok(finish(entity, own, emitted))
}

/// The last step: relations go to where they stand.
pub fn finish(mut entity: Map<String, Value>, own: &EntityRef, relations: Vec<Relation>) -> Processed {
    let foreign = relations::attach(&mut entity, own, relations);
    Processed { entity, foreign }
}

/// The error of an entity whose envelope is none, as the entity itself shows it.
pub fn before_processing(error: ProcessingError) -> ProcessingError {
    error.wrapped("Entity envelope failed validation before processing")
}

/// Backstage's `EntityEnvelope` schema: the least that the steps after it rely on.
pub fn check_envelope(entity: &Map<String, Value>) -> Result<(), ProcessingError> {
    let metadata = match entity.get("metadata") {
        Some(Value::Object(metadata)) => Some(metadata),
        _ => None,
    };
    let violation = required(entity, "", "apiVersion")
        .or_else(|| required(entity, "", "kind"))
        .or_else(|| required(entity, "", "metadata"))
        .or_else(|| text(entity, "", "apiVersion"))
        .or_else(|| text(entity, "", "kind"))
        .or_else(|| match metadata {
            None => Some(("/metadata".to_owned(), "must be object - type: object".to_owned())),
            Some(metadata) => required(metadata, "/metadata", "name")
                .or_else(|| text(metadata, "/metadata", "name"))
                .or_else(|| text(metadata, "/metadata", "namespace")),
        });
    let Some((field, problem)) = violation else {
        return Ok(());
    };
    let place = if field.is_empty() { "<root>" } else { &field };
    Err(ProcessingError::type_error(format!("{place} {problem}")).at(field))
}

fn required(object: &Map<String, Value>, path: &str, key: &str) -> Option<(String, String)> {
    if object.contains_key(key) {
        return None;
    }
    let problem = format!("must have required property '{key}' - missingProperty: {key}");
    Some((path.to_owned(), problem))
}

fn text(object: &Map<String, Value>, path: &str, key: &str) -> Option<(String, String)> {
    let problem = match object.get(key)? {
        Value::String(text) if !text.is_empty() => return None,
        Value::String(_) => "must NOT have fewer than 1 characters - limit: 1",
        _ => "must be string - type: string",
    };
    Some((format!("{path}/{key}"), problem.to_owned()))
}

/// Backstage's entity policies, in order: `SchemaValid`, `DefaultNamespace`, `NoForeignRootFields`, `FieldFormat`.
pub fn enforce_policies(
    model: &Model,
    entity: Map<String, Value>,
    own: &EntityRef,
) -> Result<Map<String, Value>, ProcessingError> {
    policies(model, entity).map_err(|error| error.wrapped(&format!("Policy check failed for {own}")))
}

fn policies(model: &Model, entity: Map<String, Value>) -> Result<Map<String, Value>, ProcessingError> {
    let entity = Value::Object(entity);
    if let Some(violation) = model.entity().first_violation(&entity) {
        let message = format!("Malformed envelope, {}", violation.short());
        return Err(ProcessingError::new("Error", message).at(violation.field()));
    }
    let mut entity = into_map(entity);
    if let Some(Value::Object(metadata)) = entity.get_mut("metadata") {
        metadata.entry("namespace").or_insert_with(|| Value::String(DEFAULT_NAMESPACE.to_owned()));
    }
    for key in entity.keys() {
        if !["apiVersion", "kind", "metadata", "spec"].contains(&key.as_str()) {
            let message = format!("Unknown field {key}");
            return Err(ProcessingError::new("Error", message).at(format!("/{key}")));
        }
    }
    policy::check_formats(model.formats(), &entity)?;
    Ok(entity)
}

/// Holds an entity against each schema of its kind and API version; gives it back, and whether there is one (any other is "not mine" to a schema, not an
/// error of it).
pub fn validate_kind(
    model: &Model,
    entity: Map<String, Value>,
    own: &EntityRef,
) -> Result<(Map<String, Value>, bool), ProcessingError> {
    let entity = Value::Object(entity);
    let field = |key: &str| entity.get(key).and_then(Value::as_str).unwrap_or_default();
    let (kind, api_version) = (field("kind"), field("apiVersion"));
    let mut is_recognized = false;
    for schema in model.kind(kind) {
        if !schema.api_versions.iter().any(|known| known == api_version) {
            continue;
        }
        if let Some(violation) = schema.schema.first_violation(&entity) {
            let context =
                format!("Processor BuiltinKindsEntityProcessor threw an error while validating the entity {own}");
            return Err(ProcessingError::type_error(violation.full()).at(violation.field()).wrapped(&context));
        }
        is_recognized = true;
    }
    Ok((into_map(entity), is_recognized))
}

/// No schema, and no processor, knows the kind and API version of the entity.
pub fn unrecognized(own: &EntityRef) -> ProcessingError {
    ProcessingError::input(format!(
        "No processor recognized the entity {own} as valid, possibly caused by a foreign kind or apiVersion"
    ))
    .at("/kind")
}

/// The object again that was wrapped as a value for its schema to look at.
fn into_map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
