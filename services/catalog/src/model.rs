//! The kinds an installation knows, as data: a JSON Schema for each, and one table of the fields that make relations.

use crate::hash::Hasher;
use crate::policy::Formats;
use crate::schema::Schema;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

pub use crate::policy::CustomFormat;

/// The schema of every entity, whatever its kind.
const ENTITY_SCHEMA: &str = include_str!("../../../schemas/entity/Entity.schema.json");

/// The built-in relation fields (Backstage's `BuiltinKindsEntityProcessor`, and those of `AiResource`), as name and text.
pub const BUILTIN_RELATIONS: (&str, &str) = ("relations.json", include_str!("../../../schemas/entity/relations.json"));

/// The built-in kinds, as name and text: Backstage's core kinds, `Template` and `AiResource`.
pub const BUILTIN_SCHEMAS: [(&str, &str); 10] = [
    ("API.schema.json", include_str!("../../../schemas/entity/API.schema.json")),
    ("AiResource.schema.json", include_str!("../../../schemas/entity/AiResource.schema.json")),
    ("Component.schema.json", include_str!("../../../schemas/entity/Component.schema.json")),
    ("Domain.schema.json", include_str!("../../../schemas/entity/Domain.schema.json")),
    ("Group.schema.json", include_str!("../../../schemas/entity/Group.schema.json")),
    ("Location.schema.json", include_str!("../../../schemas/entity/Location.schema.json")),
    ("Resource.schema.json", include_str!("../../../schemas/entity/Resource.schema.json")),
    ("System.schema.json", include_str!("../../../schemas/entity/System.schema.json")),
    ("Template.schema.json", include_str!("../../../schemas/entity/Template.schema.json")),
    ("User.schema.json", include_str!("../../../schemas/entity/User.schema.json")),
];

/// Raised by hand when the code of processing changes what comes of an entity, so that everything is processed again.
const RULES_VERSION: u32 = 2;

/// All kinds, compiled once; to be shared by all threads.
pub struct Model {
    entity: Schema,
    kinds: HashMap<String, Vec<KindSchema>>,
    relations: HashMap<String, Vec<RelationField>>,
    formats: Formats,
    fingerprint: String,
}

/// A part of a model that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct ModelError {
    pub file: String,
    pub problem: String,
}

/// A schema of a kind, and the API versions it is for.
pub(crate) struct KindSchema {
    pub api_versions: Vec<String>,
    pub schema: Schema,
}

/// A field of `spec` that makes relations, one row of `relations.json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RelationField {
    /// The kinds that have it; case counts, as in Backstage.
    pub kinds: Vec<String>,
    /// Its name below `spec`; holds one ref or a list of them.
    pub field: String,
    /// Only for entities with this `spec.type`.
    #[serde(default)]
    pub spec_type: Option<String>,
    /// The kind of a ref that names none; without a default such a ref is an error.
    #[serde(default)]
    pub default_kind: Option<String>,
    /// The relation from the entity to what the field names.
    pub relation: String,
    /// The relation back.
    pub reverse: String,
}

impl Model {
    /// The built-in kinds and nothing else.
    pub fn builtin() -> Self {
        Self::from_parts(&BUILTIN_SCHEMAS, &[BUILTIN_RELATIONS])
            .expect("the built-in schemas compile: a test builds them")
    }

    /// A model of schemas and relation tables, each a file name and its text. To add a kind, give the built-in ones and yours; a file of the name of an
    /// earlier one takes its place.
    ///
    /// A schema must list its kinds under `/properties/kind/enum` and its API versions under `/properties/apiVersion/enum`, for by these an entity
    /// is told to be of that kind, and must stand alone (no `$ref` to another document).
    pub fn from_parts(schemas: &[(&str, &str)], relations: &[(&str, &str)]) -> Result<Self, ModelError> {
        let entity = compile("Entity.schema.json", ENTITY_SCHEMA)?;
        let mut kinds: HashMap<String, Vec<KindSchema>> = HashMap::new();
        let schemas: BTreeMap<_, _> = schemas.iter().copied().collect();
        for (file, text) in &schemas {
            add_schema(&mut kinds, file, text)?;
        }
        let mut fields: HashMap<String, Vec<RelationField>> = HashMap::new();
        let relations: BTreeMap<_, _> = relations.iter().copied().collect();
        for (file, text) in &relations {
            add_relations(&mut fields, file, text)?;
        }
        let fingerprint = fingerprint(schemas.iter().chain(&relations));
        Ok(Self { entity, kinds, relations: fields, formats: Formats::default(), fingerprint })
    }

    /// The model with formats of one's own in place of the built-in ones, by name: `api_version`, `kind`, `entity_name`, `namespace`, `label_key`,
    /// `label_value`, `annotation_key`, `annotation_value`, `tag`.
    pub fn with_formats(mut self, custom: &BTreeMap<String, CustomFormat>) -> Result<Self, ModelError> {
        if !custom.is_empty() {
            let unusable = |problem| ModelError { file: "formats".to_owned(), problem };
            self.formats = Formats::new(custom).map_err(unusable)?;
            let mut hasher = Hasher::new();
            hasher.text(&self.fingerprint);
            hasher.text(&serde_json::to_string(custom).unwrap_or_default());
            self.fingerprint = hasher.hex();
        }
        Ok(self)
    }

    /// Hex of a hash over everything that decides what processing gives: entities processed under another one are due.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    pub(crate) fn formats(&self) -> &Formats {
        &self.formats
    }

    pub(crate) fn entity(&self) -> &Schema {
        &self.entity
    }

    pub(crate) fn kind(&self, kind: &str) -> &[KindSchema] {
        self.kinds.get(kind).map_or(&[], Vec::as_slice)
    }

    /// The relation fields of a kind; case counts.
    pub fn relation_fields(&self, kind: &str) -> &[RelationField] {
        self.relations.get(kind).map_or(&[], Vec::as_slice)
    }
}

fn compile(file: &str, text: &str) -> Result<Schema, ModelError> {
    let problem = |problem: String| ModelError { file: file.to_owned(), problem };
    let value: Value = serde_json::from_str(text).map_err(|error| problem(format!("not valid JSON: {error}")))?;
    Schema::compile(value).map_err(|error| problem(format!("not a usable JSON Schema: {error}")))
}

fn add_schema(kinds: &mut HashMap<String, Vec<KindSchema>>, file: &str, text: &str) -> Result<(), ModelError> {
    for kind in strings(&compile(file, text)?, file, "/properties/kind/enum")? {
        let schema = compile(file, text)?;
        let api_versions = strings(&schema, file, "/properties/apiVersion/enum")?;
        kinds.entry(kind).or_default().push(KindSchema { api_versions, schema });
    }
    Ok(())
}

fn strings(schema: &Schema, file: &str, pointer: &str) -> Result<Vec<String>, ModelError> {
    let found: Option<Vec<String>> = schema
        .text()
        .pointer(pointer)
        .and_then(Value::as_array)
        .and_then(|items| items.iter().map(|item| item.as_str().map(str::to_owned)).collect());
    found.filter(|list| !list.is_empty()).ok_or_else(|| ModelError {
        file: file.to_owned(),
        problem: format!("{pointer} must be a list of at least one string"),
    })
}

fn add_relations(fields: &mut HashMap<String, Vec<RelationField>>, file: &str, text: &str) -> Result<(), ModelError> {
    let rows: Vec<RelationField> = serde_json::from_str(text).map_err(|error| ModelError {
        file: file.to_owned(),
        problem: format!("not a list of relation fields: {error}"),
    })?;
    for row in rows {
        for kind in &row.kinds {
            fields.entry(kind.clone()).or_default().push(row.clone());
        }
    }
    Ok(())
}

fn fingerprint<'a>(files: impl Iterator<Item = (&'a &'a str, &'a &'a str)>) -> String {
    let mut hasher = Hasher::new();
    hasher.text(&RULES_VERSION.to_string());
    hasher.text(ENTITY_SCHEMA);
    for (file, text) in files {
        hasher.text(file);
        hasher.text(text);
    }
    hasher.hex()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_kinds_are_there_and_their_examples_hold() {
        let model = Model::builtin();
        for (file, text) in BUILTIN_SCHEMAS {
            let kind = file.trim_end_matches(".schema.json");
            let [schema] = model.kind(kind) else { panic!("{kind} has one schema") };
            let value: Value = serde_json::from_str(text).expect("built in");
            assert!(value["title"].is_string() && value["description"].is_string(), "{file}");
            let examples = value["examples"].as_array().expect("a list");
            assert!(!examples.is_empty(), "{file} has an example");
            for example in examples {
                assert_eq!(schema.schema.first_violation(example), None, "{file}");
                assert_eq!(model.entity().first_violation(example), None, "{file}");
            }
        }
    }

    #[test]
    fn an_operator_adds_a_kind() {
        let schema = r#"{"properties": {"kind": {"enum": ["Machine"]}, "apiVersion": {"enum": ["example.com/v1"]}}}"#;
        let row = r#"[{"kinds": ["Machine"], "field": "rack", "defaultKind": "Rack", "relation": "standsIn", "reverse": "holds"}]"#;
        let mut schemas = BUILTIN_SCHEMAS.to_vec();
        schemas.push(("Machine.schema.json", schema));
        let model = Model::from_parts(&schemas, &[BUILTIN_RELATIONS, ("mine.json", row)]).expect("compiles");
        assert_eq!(model.kind("Machine").len(), 1);
        assert_eq!(model.relation_fields("Machine")[0].relation, "standsIn");
        assert_ne!(model.fingerprint(), Model::builtin().fingerprint());
        assert_eq!(Model::builtin().fingerprint(), Model::builtin().fingerprint());
    }

    fn check_error(schemas: &[(&str, &str)], relations: &[(&str, &str)], expected: &str) {
        let error = Model::from_parts(schemas, relations).err().expect("an error").to_string();
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn a_bad_part_is_named() {
        check_error(&[("a.json", "{")], &[], "a.json: not valid JSON: ");
        check_error(&[("a.json", "{\"type\": 1}")], &[], "a.json: not a usable JSON Schema: ");
        check_error(&[("a.json", "{}")], &[], "a.json: /properties/kind/enum must be a list of at least one string");
        let only_kind = r#"{"properties": {"kind": {"enum": ["A"]}}}"#;
        check_error(&[("a.json", only_kind)], &[], "a.json: /properties/apiVersion/enum must be");
        check_error(&[], &[("r.json", "{}")], "r.json: not a list of relation fields: ");
        check_error(&[], &[("r.json", "[{\"kind\": 1}]")], "r.json: not a list of relation fields: ");
    }
}
