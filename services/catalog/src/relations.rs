//! Relations: what the fields of an entity say about it and others, both ends of each.

use crate::entity_ref::EntityRef;
use crate::error::ProcessingError;
use crate::model::{Model, RelationField};
use serde_json::{Map, Value, json};

/// One directed relation; refs are lower-cased, the type keeps its case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relation {
    pub source_ref: String,
    pub relation_type: String,
    pub target_ref: String,
}

/// Fields that are sorted whatever the kind, though only some kinds make relations of them (Backstage's `BuiltinKindsEntityProcessor`).
const SORTED: [&str; 7] =
    ["providesApis", "consumesApis", "dependsOn", "dependencyOf", "memberOf", "children", "members"];

/// Sorts the lists of refs in the relation fields of an entity, so that another order in its source changes nothing; lists of anything but strings stay.
///
/// The order is JavaScript's: by UTF-16 code units. The sorted order is visible in the catalog, as in Backstage.
pub fn sort_fields(model: &Model, entity: &mut Map<String, Value>) {
    let own = model.relation_fields(kind_of(entity)).iter().map(|field| field.field.as_str());
    let own: Vec<&str> = own.filter(|field| !SORTED.contains(field)).collect();
    let Some(Value::Object(spec)) = entity.get_mut("spec") else {
        return;
    };
    for field in SORTED.into_iter().chain(own) {
        if let Some(Value::Array(items)) = spec.get_mut(field)
            && items.iter().all(Value::is_string)
        {
            items.sort_by(|one, other| utf16(one).cmp(utf16(other)));
        }
    }
}

fn utf16(value: &Value) -> impl Iterator<Item = u16> {
    value.as_str().unwrap_or_default().encode_utf16()
}

/// All relations that the fields of an entity make, forward and back, in the order of the fields.
pub fn emit(model: &Model, entity: &Map<String, Value>, own: &EntityRef) -> Result<Vec<Relation>, ProcessingError> {
    let own_ref = own.to_string();
    let mut relations = Vec::new();
    let Some(Value::Object(spec)) = entity.get("spec") else {
        return Ok(relations);
    };
    for field in model.relation_fields(kind_of(entity)) {
        if !applies(field, spec) {
            continue;
        }
        for target in targets(spec.get(&field.field)) {
            let target = target_ref(target, field, own)?.to_string();
            relations.push(Relation {
                source_ref: own_ref.clone(),
                relation_type: field.relation.clone(),
                target_ref: target.clone(),
            });
            relations.push(Relation {
                source_ref: target,
                relation_type: field.reverse.clone(),
                target_ref: own_ref.clone(),
            });
        }
    }
    Ok(relations)
}

/// Puts the relations whose source is the entity into its `relations`, sorted and without repetition, and gives back the others, likewise.
pub(crate) fn attach(entity: &mut Map<String, Value>, own: &EntityRef, mut relations: Vec<Relation>) -> Vec<Relation> {
    relations.sort_unstable();
    relations.dedup();
    let own_ref = own.to_string();
    let (own, foreign): (Vec<_>, Vec<_>) = relations.into_iter().partition(|relation| relation.source_ref == own_ref);
    let shown = own
        .into_iter()
        .map(|relation| json!({"type": relation.relation_type, "targetRef": relation.target_ref}))
        .collect();
    entity.insert("relations".to_owned(), Value::Array(shown));
    foreign
}

fn kind_of(entity: &Map<String, Value>) -> &str {
    entity.get("kind").and_then(Value::as_str).unwrap_or_default()
}

fn applies(field: &RelationField, spec: &Map<String, Value>) -> bool {
    field.spec_type.as_deref().is_none_or(|wanted| spec.get("type").and_then(Value::as_str) == Some(wanted))
}

/// The field as a list: one value or the items of a list; nothing if it is missing or what JavaScript holds for false.
fn targets(field: Option<&Value>) -> &[Value] {
    match field {
        None => &[],
        Some(Value::Array(items)) => items,
        Some(one) if is_falsy(one) => &[],
        Some(one) => std::slice::from_ref(one),
    }
}

/// What JavaScript holds for false.
pub(crate) fn is_falsy(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Bool(true) | Value::Array(_) | Value::Object(_) => false,
    }
}

/// The ref a target names: as a text, or as an object of `kind`, `namespace` and `name` (Backstage's compound form, in fields no schema checks).
fn target_ref(target: &Value, field: &RelationField, own: &EntityRef) -> Result<EntityRef, ProcessingError> {
    let default_kind = field.default_kind.as_deref();
    let outcome = match target {
        Value::String(text) => EntityRef::parse_with(text, default_kind, &own.namespace)
            .map_err(|error| ProcessingError::new(error.name(), error.to_string())),
        _ if is_falsy(target) => Err(ProcessingError::new("Error", "Entity reference must not be empty")),
        other => compound_ref(other, default_kind, &own.namespace),
    };
    outcome.map_err(|error| {
        error
            .at(format!("/spec/{}", field.field))
            .wrapped("Processor BuiltinKindsEntityProcessor threw an error while postprocessing")
    })
}

fn compound_ref(
    target: &Value,
    default_kind: Option<&str>,
    default_namespace: &str,
) -> Result<EntityRef, ProcessingError> {
    let missing = |part: &str, hint: &str| {
        ProcessingError::new("Error", format!("Entity reference {target} had missing or empty {part}{hint}"))
    };
    let part = |name: &str, default: Option<&str>| match target.get(name) {
        None | Some(Value::Null) => default.map(str::to_owned),
        Some(given) => given.as_str().filter(|given| !given.is_empty()).map(str::to_owned),
    };
    let kind = part("kind", default_kind)
        .ok_or_else(|| missing("kind", " (e.g. did not start with \"component:\" or similar)"))?;
    let namespace = part("namespace", Some(default_namespace)).ok_or_else(|| missing("namespace", ""))?;
    let name = part("name", None).ok_or_else(|| missing("name", ""))?;
    Ok(EntityRef::of(&kind, &namespace, &name))
}
