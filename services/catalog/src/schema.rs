//! One JSON Schema, compiled once, and the first thing an entity does wrong by it, in the words and the order of ajv (as Backstage reports it).

use jsonschema::error::ValidationErrorKind;
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

/// A compiled schema and its text, which gives errors their order and their limits.
pub(crate) struct Schema {
    text: Value,
    validator: Validator,
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// JSON pointer into the entity; empty for the entity itself.
    pub path: String,
    /// `must be string`
    pub message: String,
    /// `type: string`; empty where ajv has no parameters.
    pub params: String,
    /// The property that is missing there, or should not be there.
    pub property: Option<String>,
}

impl Violation {
    /// JSON pointer to the field at fault: where a property is missing, or one too many, to that property.
    pub fn field(&self) -> String {
        match &self.property {
            Some(property) => format!("{}/{}", self.path, property.replace('~', "~0").replace('/', "~1")),
            None => self.path.clone(),
        }
    }

    /// `/spec/type must be string`
    pub fn short(&self) -> String {
        let path = if self.path.is_empty() { "<root>" } else { &self.path };
        format!("{path} {}", self.message)
    }

    /// `/spec/type must be string - type: string`
    pub fn full(&self) -> String {
        if self.params.is_empty() {
            return self.short();
        }
        format!("{} - {}", self.short(), self.params)
    }
}

impl Schema {
    /// Compiles; schemas stand alone, so a reference to another document is an error.
    pub fn compile(text: Value) -> Result<Self, String> {
        let validator = jsonschema::validator_for(&text).map_err(|error| error.to_string())?;
        Ok(Self { text, validator })
    }

    /// The schema itself.
    pub fn text(&self) -> &Value {
        &self.text
    }

    /// The violation that ajv would name first; none if the value is valid.
    pub fn first_violation(&self, value: &Value) -> Option<Violation> {
        if self.validator.is_valid(value) {
            return None;
        }
        self.validator.iter_errors(value).min_by_key(|error| self.rank(error)).map(|error| self.violation(&error))
    }

    /// Where ajv meets an error: keyword groups in its order, fields in the order of the schema, items in the order of the value.
    ///
    /// Branches (`allOf`, `if`) count as part of what they belong to, so that a rule that holds only for some types reads like one that holds for all.
    fn rank(&self, error: &ValidationError<'_>) -> Vec<usize> {
        let mut ranks = Vec::new();
        let mut node = &self.text;
        let mut place = segments(error.instance_path().as_str());
        let path = segments(error.schema_path().as_str());
        let mut path = path.iter();
        while let Some(keyword) = path.next() {
            node = child(node, keyword);
            match keyword.as_str() {
                "properties" | "patternProperties" => {
                    let name = path.next().map_or("", String::as_str);
                    ranks.extend([keyword_rank(keyword), position(node, name)]);
                    node = child(node, name);
                    place.pop_front();
                }
                "items" | "contains" => {
                    let index = place.pop_front().and_then(|index| index.parse().ok());
                    ranks.extend([keyword_rank(keyword), index.unwrap_or(0)]);
                }
                "additionalProperties" => {
                    ranks.push(keyword_rank(keyword));
                    place.pop_front();
                }
                "allOf" => {
                    if let Some(index) = path.next() {
                        node = child(node, index);
                    }
                }
                "if" | "then" | "else" => {}
                other => ranks.push(keyword_rank(other)),
            }
        }
        if let ValidationErrorKind::Required { property } = error.kind() {
            ranks.push(required_position(node, property));
        }
        ranks
    }

    fn violation(&self, error: &ValidationError<'_>) -> Violation {
        if let ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } = error.kind()
            && let Some(inner) = context.iter().flatten().next()
        {
            return self.violation(inner);
        }
        let mut rule = &self.text;
        for segment in segments(error.schema_path().as_str()) {
            rule = child(rule, &segment);
        }
        let (message, params) = wording(error, rule);
        let property = match error.kind() {
            ValidationErrorKind::Required { property } => Some(listed(property)),
            ValidationErrorKind::AdditionalProperties { unexpected } => unexpected.first().cloned(),
            _ => None,
        };
        Violation { path: error.instance_path().as_str().to_owned(), message, params, property }
    }
}

fn segments(pointer: &str) -> std::collections::VecDeque<String> {
    pointer.split('/').skip(1).map(|segment| segment.replace("~1", "/").replace("~0", "~")).collect()
}

fn child<'a>(node: &'a Value, segment: &str) -> &'a Value {
    let found = match node {
        Value::Object(map) => map.get(segment),
        Value::Array(items) => segment.parse::<usize>().ok().and_then(|index| items.get(index)),
        _ => None,
    };
    found.unwrap_or(&Value::Null)
}

/// ajv's groups: the type, then rules for strings and numbers, rules for any type, for arrays, for objects.
fn keyword_rank(keyword: &str) -> usize {
    const ORDER: [&[&str]; 9] = [
        &["type"],
        &["minLength", "maxLength", "pattern", "format", "minimum", "maximum", "multipleOf"],
        &["const", "enum", "not", "anyOf", "oneOf"],
        &["maxItems", "minItems", "uniqueItems"],
        &["items", "contains"],
        &["maxProperties", "minProperties"],
        &["required"],
        &["dependencies", "propertyNames", "additionalProperties"],
        &["properties", "patternProperties"],
    ];
    ORDER.iter().position(|group| group.contains(&keyword)).unwrap_or(ORDER.len())
}

fn position(object: &Value, name: &str) -> usize {
    object.as_object().and_then(|map| map.keys().position(|key| key == name)).unwrap_or(usize::MAX)
}

fn required_position(list: &Value, name: &Value) -> usize {
    list.as_array().and_then(|names| names.iter().position(|required| required == name)).unwrap_or(usize::MAX)
}

/// ajv's message and parameters; `rule` is the value of the keyword that was broken.
fn wording(error: &ValidationError<'_>, rule: &Value) -> (String, String) {
    let rule = listed(rule);
    match error.kind() {
        ValidationErrorKind::Type { .. } => (format!("must be {rule}"), format!("type: {rule}")),
        ValidationErrorKind::Required { property } => {
            let property = listed(property);
            (format!("must have required property '{property}'"), format!("missingProperty: {property}"))
        }
        ValidationErrorKind::MinLength { limit } => amount("fewer", *limit, "characters"),
        ValidationErrorKind::MaxLength { limit } => amount("more", *limit, "characters"),
        ValidationErrorKind::MinItems { limit } => amount("fewer", *limit, "items"),
        ValidationErrorKind::MaxItems { limit } => amount("more", *limit, "items"),
        ValidationErrorKind::MinProperties { limit } => amount("fewer", *limit, "properties"),
        ValidationErrorKind::MaxProperties { limit } => amount("more", *limit, "properties"),
        ValidationErrorKind::Enum { .. } => {
            ("must be equal to one of the allowed values".to_owned(), format!("allowedValues: {rule}"))
        }
        ValidationErrorKind::Constant { .. } => {
            ("must be equal to constant".to_owned(), format!("allowedValue: {rule}"))
        }
        ValidationErrorKind::Pattern { .. } => (format!("must match pattern \"{rule}\""), format!("pattern: {rule}")),
        ValidationErrorKind::Format { .. } => (format!("must match format \"{rule}\""), format!("format: {rule}")),
        ValidationErrorKind::Minimum { .. } => bound(">=", &rule),
        ValidationErrorKind::Maximum { .. } => bound("<=", &rule),
        ValidationErrorKind::AdditionalProperties { unexpected } => (
            "must NOT have additional properties".to_owned(),
            format!("additionalProperty: {}", unexpected.first().map_or("", String::as_str)),
        ),
        ValidationErrorKind::FalseSchema => ("boolean schema is false".to_owned(), String::new()),
        _ => (error.to_string(), String::new()),
    }
}

fn amount(which: &str, limit: u64, unit: &str) -> (String, String) {
    (format!("must NOT have {which} than {limit} {unit}"), format!("limit: {limit}"))
}

fn bound(comparison: &str, limit: &str) -> (String, String) {
    (format!("must be {comparison} {limit}"), format!("comparison: {comparison}, limit: {limit}"))
}

/// A value as JavaScript writes it into a text: strings bare, lists with commas.
fn listed(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(listed).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_field_at_fault_is_the_property_that_is_missing_or_too_many() {
        let field =
            |schema: Value, value: Value| Schema::compile(schema).unwrap().first_violation(&value).unwrap().field();
        assert_eq!(field(json!({"properties": {"a": {"required": ["b/c"]}}}), json!({"a": {}})), "/a/b~1c");
        assert_eq!(field(json!({"properties": {"a": {}}, "additionalProperties": false}), json!({"d": 1})), "/d");
        assert_eq!(field(json!({"type": "string"}), json!(1)), "");
    }

    fn check(schema: Value, value: Value, expected: &str) {
        let schema = Schema::compile(schema).expect("the schema of the test compiles");
        let got = schema.first_violation(&value).map_or_else(|| "valid".to_owned(), |violation| violation.full());
        assert_eq!(got, expected, "{value} by {}", schema.text());
    }

    #[test]
    fn the_words_of_ajv() {
        check(json!({"type": "string"}), json!("x"), "valid");
        check(json!({"type": "string"}), json!(1), "<root> must be string - type: string");
        check(json!({"type": ["string", "boolean"]}), json!(1), "<root> must be string,boolean - type: string,boolean");
        check(json!({"minLength": 2}), json!("x"), "<root> must NOT have fewer than 2 characters - limit: 2");
        check(json!({"maxLength": 2}), json!("xxx"), "<root> must NOT have more than 2 characters - limit: 2");
        check(json!({"minLength": 1}), json!("🙂"), "valid");
        check(json!({"maxLength": 1}), json!("🙂"), "valid");
        check(json!({"minItems": 1}), json!([]), "<root> must NOT have fewer than 1 items - limit: 1");
        check(json!({"maxItems": 1}), json!([1, 2]), "<root> must NOT have more than 1 items - limit: 1");
        check(json!({"minProperties": 1}), json!({}), "<root> must NOT have fewer than 1 properties - limit: 1");
        check(
            json!({"enum": ["a", "b"]}),
            json!("c"),
            "<root> must be equal to one of the allowed values - allowedValues: a,b",
        );
        check(json!({"const": "a"}), json!("c"), "<root> must be equal to constant - allowedValue: a");
        check(json!({"pattern": "^a$"}), json!("c"), "<root> must match pattern \"^a$\" - pattern: ^a$");
        check(json!({"minimum": 3}), json!(1), "<root> must be >= 3 - comparison: >=, limit: 3");
        check(json!({"required": ["a"]}), json!({}), "<root> must have required property 'a' - missingProperty: a");
        check(
            json!({"properties": {"b": {}}, "additionalProperties": false}),
            json!({"a": 1}),
            "<root> must NOT have additional properties - additionalProperty: a",
        );
        check(
            json!({"properties": {"a/b~c": {"type": "string"}}}),
            json!({"a/b~c": 1}),
            "/a~1b~0c must be string - type: string",
        );
        check(
            json!({"anyOf": [{"type": "object"}, {"type": "array"}]}),
            json!(1),
            "<root> must be object - type: object",
        );
    }

    #[test]
    fn the_order_of_ajv() {
        let schema = json!({
            "type": "object",
            "properties": {
                "b": {"type": "string"},
                "a": {"type": "array", "items": {"type": "object", "required": ["x"], "properties": {"x": {"type": "string"}}}},
                "c": {"type": "string", "minLength": 2, "enum": ["long"]},
            },
            "additionalProperties": false,
            "required": ["c", "a"],
        });
        let check = |value, expected| check(schema.clone(), value, expected);
        check(json!([]), "<root> must be object - type: object");
        check(json!({"b": 1}), "<root> must have required property 'c' - missingProperty: c");
        check(json!({"c": 1, "b": 1}), "<root> must have required property 'a' - missingProperty: a");
        check(json!({"c": 1, "a": 1, "b": 1}), "/b must be string - type: string");
        check(json!({"c": 1, "a": 1, "z": 1}), "<root> must NOT have additional properties - additionalProperty: z");
        check(json!({"c": 1, "a": 1}), "/a must be array - type: array");
        check(json!({"c": "l", "a": []}), "/c must NOT have fewer than 2 characters - limit: 2");
        check(json!({"c": "long", "a": [{"x": 1}, {}]}), "/a/0/x must be string - type: string");
        check(
            json!({"c": "long", "a": [{"x": "1"}, {}, 3]}),
            "/a/1 must have required property 'x' - missingProperty: x",
        );
    }

    #[test]
    fn rules_of_a_branch_stand_among_the_others() {
        let schema = json!({
            "required": ["type", "owner"],
            "properties": {"type": {"type": "string"}, "owner": {"type": "string"}, "definition": {"type": "string"}},
            "if": {"required": ["type"], "properties": {"type": {"const": "remote"}}},
            "then": {"required": ["type", "owner", "remotes"]},
            "else": {"required": ["type", "owner", "definition"]},
        });
        let check = |value, expected| check(schema.clone(), value, expected);
        check(json!({}), "<root> must have required property 'type' - missingProperty: type");
        check(json!({"type": 1}), "<root> must have required property 'owner' - missingProperty: owner");
        check(
            json!({"type": 1, "owner": 1}),
            "<root> must have required property 'definition' - missingProperty: definition",
        );
        check(
            json!({"type": "remote", "owner": 1}),
            "<root> must have required property 'remotes' - missingProperty: remotes",
        );
        check(json!({"type": "a", "owner": "b", "definition": "c"}), "valid");
    }

    #[test]
    fn a_schema_that_points_elsewhere_is_refused() {
        assert!(Schema::compile(json!({"$ref": "https://example.com/x.json"})).is_err());
        assert!(Schema::compile(json!({"type": "nonsense"})).is_err());
    }
}
