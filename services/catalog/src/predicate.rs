//! What entities are asked for: Backstage's filter predicates (`{"kind": "component", "$not": {…}}`) and its filter grammar, as one tree.

use crate::filter::{Condition, Filter};
use crate::number::js_number;
use crate::search::SearchRow;
use serde_json::{Map, Value};

/// The most parts that one predicate may have: conditions, operators and values together.
pub const MAX_PARTS: usize = 10_000;
/// How deep `$all`, `$any` and `$not` may be nested.
pub const MAX_DEPTH: usize = 32;

/// What must be true of an entity's search rows. Keys and values are lower-cased, as in the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Predicate {
    /// Every one of them; of none: every entity.
    All(Vec<Predicate>),
    /// At least one of them; of none: no entity.
    Any(Vec<Predicate>),
    /// What the inner one does not match, entities without its key included.
    Not(Box<Predicate>),
    /// The key is there, be its value null.
    Exists {
        /// Lower-cased.
        key: String,
    },
    /// One of the key's values is one of these; of none: no entity.
    In {
        /// Lower-cased.
        key: String,
        /// Lower-cased.
        values: Vec<String>,
    },
    /// One of the key's values begins so.
    Prefix {
        /// Lower-cased.
        key: String,
        /// Lower-cased; every value begins with the empty one.
        prefix: String,
    },
}

/// Why a value is no predicate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PredicateError {
    /// Backstage's wording.
    #[error(
        "Invalid filter predicate: top-level primitive values are not supported. Wrap the value in a field expression, e.g. {{ \"kind\": {0} }}"
    )]
    Primitive(String),
    /// Backstage's wording.
    #[error("The $contains operator for \"relations\" requires a \"type\" string property")]
    RelationType,
    /// Something else stands where something was expected.
    #[error("{path}: expected {expected}")]
    Form {
        /// Where, from the predicate's root (`$`).
        path: String,
        /// What would have been right.
        expected: &'static str,
    },
    /// More parts than [`MAX_PARTS`], or deeper than [`MAX_DEPTH`].
    #[error("expected at most {MAX_PARTS} parts in {MAX_DEPTH} levels")]
    TooLarge,
}

impl Predicate {
    /// Matches every entity.
    pub fn everything() -> Predicate {
        Predicate::All(Vec::new())
    }

    /// Reads the `query` of a request: Backstage's `FilterPredicate`.
    ///
    /// An object is `{"$all": […]}`, `{"$any": […]}` or `{"$not": …}`, alone, or fields that must all hold. A field is a string, number or boolean
    /// that one of the key's values equals, or an object of `$exists`, `$in`, `$contains` (a scalar; for `relations` `{"type", "targetRef"}`) and
    /// `$hasPrefix`; where it has several, all must hold.
    pub fn parse(query: &Value) -> Result<Predicate, PredicateError> {
        Parser { left: MAX_PARTS }.predicate(query, "$", 0)
    }

    /// Both this and the other.
    pub fn and(self, other: Predicate) -> Predicate {
        match (self, other) {
            (Predicate::All(all), other) if all.is_empty() => other,
            (this, Predicate::All(all)) if all.is_empty() => this,
            (this, other) => Predicate::All(vec![this, other]),
        }
    }

    /// Whether it says nothing, so that every entity matches.
    pub fn is_everything(&self) -> bool {
        matches!(self, Predicate::All(all) if all.is_empty())
    }

    /// Whether an entity with these rows matches.
    pub fn matches(&self, rows: &[SearchRow]) -> bool {
        match self {
            Predicate::All(all) => all.iter().all(|one| one.matches(rows)),
            Predicate::Any(any) => any.iter().any(|one| one.matches(rows)),
            Predicate::Not(inner) => !inner.matches(rows),
            Predicate::Exists { key } => rows.iter().any(|row| row.key == *key),
            Predicate::In { key, values: asked } => {
                values_of(rows, key).any(|value| asked.iter().any(|asked| asked == value))
            }
            Predicate::Prefix { key, prefix } => values_of(rows, key).any(|value| value.starts_with(prefix)),
        }
    }
}

impl From<Filter> for Predicate {
    fn from(filter: Filter) -> Predicate {
        let condition = |Condition { key, values }: &Condition| match values.is_empty() {
            true => Predicate::Exists { key: key.clone() },
            false => Predicate::In { key: key.clone(), values: values.clone() },
        };
        let one_of = |mut list: Vec<Predicate>, wrap: fn(Vec<Predicate>) -> Predicate| match list.len() {
            1 => list.remove(0),
            _ => wrap(list),
        };
        let sets = filter.sets().iter();
        let sets: Vec<Predicate> =
            sets.map(|set| one_of(set.iter().map(condition).collect(), Predicate::All)).collect();
        match sets.is_empty() {
            true => Predicate::everything(),
            false => one_of(sets, Predicate::Any),
        }
    }
}

/// Reads a predicate, part by part.
struct Parser {
    left: usize,
}

impl Parser {
    fn predicate(&mut self, query: &Value, path: &str, depth: usize) -> Result<Predicate, PredicateError> {
        self.count(1)?;
        if depth > MAX_DEPTH {
            return Err(PredicateError::TooLarge);
        }
        let object = match query {
            Value::Object(object) => object,
            Value::String(_) | Value::Number(_) | Value::Bool(_) => {
                return Err(PredicateError::Primitive(query.to_string()));
            }
            _ => return Err(form(path, "an object")),
        };
        let operator = object.iter().find(|(key, _)| key.starts_with('$'));
        let Some((operator, value)) = operator else {
            let fields = object.iter().map(|(key, value)| self.field(key, value, &format!("{path}.{key}")));
            return Ok(Predicate::All(fields.collect::<Result<_, _>>()?));
        };
        if object.len() > 1 {
            return Err(form(path, "an operator to stand alone, without other keys beside it"));
        }
        let path = format!("{path}.{operator}");
        match operator.as_str() {
            "$all" => Ok(Predicate::All(self.list(value, &path, depth)?)),
            "$any" => Ok(Predicate::Any(self.list(value, &path, depth)?)),
            "$not" => Ok(Predicate::Not(Box::new(self.predicate(value, &path, depth + 1)?))),
            _ => Err(form(&path, "one of the operators $all, $any and $not")),
        }
    }

    fn list(&mut self, value: &Value, path: &str, depth: usize) -> Result<Vec<Predicate>, PredicateError> {
        let items = value.as_array().ok_or_else(|| form(path, "a list of predicates"))?;
        items.iter().map(|item| self.predicate(item, path, depth + 1)).collect()
    }

    fn field(&mut self, key: &str, value: &Value, path: &str) -> Result<Predicate, PredicateError> {
        self.count(1)?;
        let key = key.to_lowercase();
        if let Some(value) = primitive(value) {
            return Ok(Predicate::In { key, values: vec![value] });
        }
        let object = value.as_object().filter(|object| !object.is_empty());
        let object = object.ok_or_else(|| form(path, "a string, number, boolean or an object of operators"))?;
        let mut conditions = Vec::new();
        for (operator, value) in object {
            let path = format!("{path}.{operator}");
            conditions.push(match operator.as_str() {
                "$exists" => exists(&key, value).ok_or_else(|| form(&path, "a boolean"))?,
                "$in" => Predicate::In { key: key.clone(), values: self.primitives(value, &path)? },
                "$contains" => self.contains(&key, value, &path)?,
                "$hasPrefix" => {
                    let prefix = value.as_str().ok_or_else(|| form(&path, "a string"))?.to_lowercase();
                    Predicate::Prefix { key: key.clone(), prefix }
                }
                _ => return Err(form(&path, "one of the operators $exists, $in, $contains and $hasPrefix")),
            });
        }
        Ok(match conditions.len() {
            1 => conditions.remove(0),
            _ => Predicate::All(conditions),
        })
    }

    fn contains(&mut self, key: &str, value: &Value, path: &str) -> Result<Predicate, PredicateError> {
        if let Some(value) = primitive(value) {
            return Ok(Predicate::In { key: key.to_owned(), values: vec![value] });
        }
        let relation = value.as_object().filter(|_| key == "relations");
        let relation = relation.ok_or_else(|| form(path, "a string, number or boolean"))?;
        self.relation(relation, path)
    }

    fn relation(&mut self, relation: &Map<String, Value>, path: &str) -> Result<Predicate, PredicateError> {
        let kind = relation.get("type").and_then(Value::as_str).ok_or(PredicateError::RelationType)?;
        if relation.keys().any(|key| key != "type" && key != "targetRef") {
            return Err(form(path, "nothing but type and targetRef"));
        }
        let key = format!("relations.{}", kind.to_lowercase());
        let path = format!("{path}.targetRef");
        let values = match relation.get("targetRef") {
            None => return Ok(Predicate::Exists { key }),
            Some(Value::String(target)) => vec![target.to_lowercase()],
            Some(Value::Object(object)) if object.len() == 1 && object.contains_key("$in") => {
                self.primitives(&object["$in"], &path)?
            }
            Some(_) => return Err(form(&path, "a string or {\"$in\": […]}")),
        };
        match values.is_empty() {
            true => Err(form(&path, "at least one target")),
            false => Ok(Predicate::In { key, values }),
        }
    }

    fn primitives(&mut self, value: &Value, path: &str) -> Result<Vec<String>, PredicateError> {
        let expected = || form(path, "a list of strings, numbers and booleans");
        let items = value.as_array().ok_or_else(expected)?;
        self.count(items.len())?;
        items.iter().map(|item| primitive(item).ok_or_else(expected)).collect()
    }

    fn count(&mut self, parts: usize) -> Result<(), PredicateError> {
        self.left = self.left.checked_sub(parts).ok_or(PredicateError::TooLarge)?;
        Ok(())
    }
}

fn values_of<'a, 'k: 'a>(rows: &'a [SearchRow], key: &'k str) -> impl Iterator<Item = &'a str> {
    let of_key = rows.iter().filter(move |row| row.key == key);
    of_key.filter_map(|row| row.value.as_deref())
}

fn exists(key: &str, value: &Value) -> Option<Predicate> {
    let exists = Predicate::Exists { key: key.to_owned() };
    Some(match value.as_bool()? {
        true => exists,
        false => Predicate::Not(Box::new(exists)),
    })
}

/// A scalar as the rows hold it.
fn primitive(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.to_lowercase()),
        Value::Number(number) => Some(js_number(number).to_lowercase()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn form(path: &str, expected: &'static str) -> PredicateError {
    PredicateError::Form { path: path.to_owned(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::search_rows;
    use serde_json::json;

    fn rows() -> Vec<SearchRow> {
        let entity = json!({
            "kind": "Component",
            "metadata": {"name": "Web-Shop", "namespace": "default", "tags": ["java", "Go"], "x-null": null},
            "spec": {"type": "service", "empty": "", "port": 8080, "flag": true, "nested": [{"d": 1}, {"d": 2}]},
            "relations": [
                {"type": "ownedBy", "targetRef": "group:default/payments"},
                {"type": "dependsOn", "targetRef": "component:default/db"},
            ],
        });
        search_rows(entity.as_object().expect("an object"))
    }

    fn check(query: Value, expected: bool) {
        let predicate = Predicate::parse(&query).expect("a predicate");
        assert_eq!(predicate.matches(&rows()), expected, "{query}");
    }

    #[test]
    fn matching() {
        check(json!({}), true);
        check(json!({"$all": []}), true);
        check(json!({"$any": []}), false);
        check(json!({"$not": {"$any": []}}), true);
        check(json!({"KIND": "Component"}), true);
        check(json!({"kind": "component", "spec.type": "website"}), false);
        check(json!({"spec.port": 8080}), true);
        check(json!({"spec.port": 8080.0}), true);
        check(json!({"spec.port": "8080"}), true);
        check(json!({"spec.flag": true}), true);
        check(json!({"spec.empty": ""}), true);
        check(json!({"metadata.x-null": {"$exists": true}}), true);
        check(json!({"metadata.x-null": ""}), false);
        check(json!({"nothing": {"$exists": false}}), true);
        check(json!({"kind": {"$exists": false}}), false);
        check(json!({"kind": {"$in": ["api", "COMPONENT"]}}), true);
        check(json!({"kind": {"$in": []}}), false);
        check(json!({"kind": {"$in": ["component"], "$hasPrefix": "a"}}), false);
        check(json!({"metadata.name": {"$hasPrefix": "WEB-"}}), true);
        check(json!({"metadata.name": {"$hasPrefix": "%"}}), false);
        check(json!({"metadata.tags": {"$contains": "go"}}), true);
        check(json!({"spec.nested.d": {"$contains": 2}}), true);
        check(json!({"$not": {"metadata.tags": "java"}}), false);
        check(json!({"$not": {"nothing": "java"}}), true);
        check(json!({"$any": [{"kind": "api"}, {"$all": [{"kind": "component"}, {"spec.type": "service"}]}]}), true);
        check(json!({"relations": {"$contains": {"type": "OwnedBy", "targetRef": "Group:default/payments"}}}), true);
        check(json!({"relations": {"$contains": {"type": "dependsOn"}}}), true);
        check(json!({"relations": {"$contains": {"type": "ownedBy", "targetRef": {"$in": ["a:b/c"]}}}}), false);
        check(json!({"relations": {"$contains": {"type": "ownedBy", "targetRef": "component:default/db"}}}), false);
        check(json!({"relations": {"$contains": "x"}}), false);
        check(json!({"relations": {"$exists": true}}), false);
    }

    fn check_error(query: Value, expected: &str) {
        assert_eq!(Predicate::parse(&query).expect_err("no predicate").to_string(), expected, "{query}");
    }

    #[test]
    fn errors() {
        let primitive = |text: &str| {
            format!(
                "Invalid filter predicate: top-level primitive values are not supported. Wrap the value in a field expression, e.g. {{ \"kind\": {text} }}"
            )
        };
        check_error(json!("x"), &primitive("\"x\""));
        check_error(json!({"$any": ["component"]}), &primitive("\"component\""));
        check_error(json!([]), "$: expected an object");
        check_error(
            json!({"kind": "component", "$not": {"kind": "api"}}),
            "$: expected an operator to stand alone, without other keys beside it",
        );
        check_error(json!({"$or": []}), "$.$or: expected one of the operators $all, $any and $not");
        check_error(
            json!({"kind": {"$eq": "api"}}),
            "$.kind.$eq: expected one of the operators $exists, $in, $contains and $hasPrefix",
        );
        check_error(json!({"kind": {"$in": "api"}}), "$.kind.$in: expected a list of strings, numbers and booleans");
        check_error(json!({"kind": null}), "$.kind: expected a string, number, boolean or an object of operators");
        check_error(json!({"spec.port": {"$hasPrefix": 8}}), "$.spec.port.$hasPrefix: expected a string");
        check_error(json!({"kind": {"$exists": "yes"}}), "$.kind.$exists: expected a boolean");
        check_error(
            json!({"kind": {"$contains": {"type": "x"}}}),
            "$.kind.$contains: expected a string, number or boolean",
        );
        check_error(
            json!({"relations": {"$contains": {"targetRef": "a:b/c"}}}),
            "The $contains operator for \"relations\" requires a \"type\" string property",
        );
        check_error(
            json!({"relations": {"$contains": {"type": "ownedBy", "targetRef": {"$in": []}}}}),
            "$.relations.$contains.targetRef: expected at least one target",
        );
        let deep = (0..40).fold(json!({}), |inner, _| json!({"$not": inner}));
        check_error(deep, "expected at most 10000 parts in 32 levels");
        check_error(json!({"kind": {"$in": vec!["a"; MAX_PARTS]}}), "expected at most 10000 parts in 32 levels");
    }

    #[test]
    fn a_filter_is_a_predicate() {
        for (params, expected) in [
            (&[] as &[&str], true),
            (&["kind=component,spec.type=service"], true),
            (&["kind=api,kind=component"], true),
            (&["kind=api", "spec.port"], true),
            (&["kind=api", "spec.port="], false),
        ] {
            let params: Vec<String> = params.iter().map(|param| (*param).to_owned()).collect();
            let predicate = Predicate::from(Filter::parse(&params).expect("a filter"));
            assert_eq!(predicate.matches(&rows()), expected, "{params:?}");
        }
    }
}
