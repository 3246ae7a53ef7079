//! Backstage's filter grammar: `kind=component,metadata.tags=java`, or-ed over parameters, and-ed over the parts of one.

use crate::location::js_trim;
use crate::search::SearchRow;

/// The most parts all parameters of one filter may have together.
pub const MAX_PARTS: usize = 10_000;

/// A parsed filter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    sets: Vec<Vec<Condition>>,
}

/// What must be true of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Lower-cased.
    pub key: String,
    /// One of these must be a value of the key, lower-cased; if empty, the key must be there.
    pub values: Vec<String>,
}

/// Why a text is no filter; the wording is Backstage's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("Invalid filter, '{0}' is not a valid statement (expected a string on the form a=b or a= or a)")]
    Statement(String),
    #[error("Invalid filter, more than {MAX_PARTS} statements")]
    TooLong,
}

impl Filter {
    /// Reads the `filter` parameters of a request.
    ///
    /// A part is `key` (it is there), `key=value` or `key=` (it is the empty text), split at the first `=`; spaces round it do not count and empty parts are
    /// dropped. A key that repeats in one parameter asks for any of its values. There is no escaping: a value cannot hold a comma. No parameter that says anything: everything matches.
    pub fn parse(params: &[String]) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        let mut left = MAX_PARTS;
        for param in params {
            let set = parse_set(param, &mut left)?;
            if !set.is_empty() {
                filter.sets.push(set);
            }
        }
        Ok(filter)
    }

    /// The sets of conditions: an entity matches if all conditions of any set hold. No set: everything matches.
    pub fn sets(&self) -> &[Vec<Condition>] {
        &self.sets
    }

    /// Whether an entity with these rows matches.
    pub fn matches(&self, rows: &[SearchRow]) -> bool {
        self.sets.is_empty() || self.sets.iter().any(|set| set.iter().all(|condition| condition.matches(rows)))
    }
}

impl Condition {
    /// Whether any of the rows fulfils it.
    pub fn matches(&self, rows: &[SearchRow]) -> bool {
        rows.iter().any(|row| {
            row.key == self.key
                && (self.values.is_empty() || row.value.as_ref().is_some_and(|value| self.values.contains(value)))
        })
    }
}

fn parse_set(param: &str, left: &mut usize) -> Result<Vec<Condition>, FilterError> {
    // Keys are told apart as written, as in Backstage, and compared in lower case.
    let mut keys: Vec<&str> = Vec::new();
    let mut set: Vec<Condition> = Vec::new();
    for statement in param.split(',').map(js_trim) {
        if statement.is_empty() {
            continue;
        }
        *left = left.checked_sub(1).ok_or(FilterError::TooLong)?;
        let (key, value) = match statement.split_once('=') {
            Some((key, value)) => (js_trim(key), Some(js_trim(value).to_lowercase())),
            None => (statement, None),
        };
        if key.is_empty() {
            return Err(FilterError::Statement(statement.to_owned()));
        }
        let index = keys.iter().rposition(|known| *known == key);
        let index = index.unwrap_or_else(|| {
            keys.push(key);
            set.push(Condition { key: key.to_lowercase(), values: Vec::new() });
            set.len() - 1
        });
        set[index].values.extend(value);
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::search_rows;
    use proptest::prelude::*;
    use serde_json::json;

    fn rows() -> Vec<SearchRow> {
        let entity = json!({
            "kind": "Component",
            "metadata": {"name": "Web", "namespace": "default", "tags": ["java", "Go"], "annotations": {"example.com/a": "b=c"}, "x-null": null},
            "spec": {"type": "service", "empty": "", "port": 8080},
            "relations": [{"type": "ownedBy", "targetRef": "group:default/payments"}],
        });
        search_rows(entity.as_object().expect("an object"))
    }

    fn parse(params: &[&str]) -> Result<Filter, FilterError> {
        Filter::parse(&params.iter().map(|param| (*param).to_owned()).collect::<Vec<_>>())
    }

    fn check(params: &[&str], expected: bool) {
        let filter = parse(params).expect("a filter");
        assert_eq!(filter.matches(&rows()), expected, "{params:?}");
    }

    #[test]
    fn matching() {
        check(&[], true);
        check(&[""], true);
        check(&[" , ,"], true);
        check(&["kind"], true);
        check(&["kind=component"], true);
        check(&["KIND=COMPONENT"], true);
        check(&[" kind = component "], true);
        check(&["kind=api"], false);
        check(&["kind=api,kind=component"], true);
        check(&["kind=api,Kind=component"], false);
        check(&["kind=component,spec.type=service"], true);
        check(&["kind=component,spec.type=website"], false);
        check(&["kind=api", "spec.type=service"], true);
        check(&["kind=api", "spec.type=website"], false);
        check(&["kind=api", ""], false);
        check(&["nothing"], false);
        check(&["kind,kind=api"], false);
        check(&["kind=api,kind"], false);
        check(&["kind,kind=component"], true);
        check(&["metadata.tags=java,metadata.tags=python"], true);
        check(&["metadata.tags.go"], true);
        check(&["metadata.tags.go=true"], true);
        check(&["metadata.annotations.example.com/a=b=c"], true);
        check(&["metadata.annotations.example.com/A"], true);
        check(&["metadata.x-null"], true);
        check(&["metadata.x-null="], false);
        check(&["metadata.x-null=null"], false);
        check(&["spec.empty="], true);
        check(&["spec.type="], false);
        check(&["spec.port=8080"], true);
        check(&["relations.ownedBy=Group:default/payments"], true);
        check(&["kind=component,,spec.type=service,"], true);
    }

    fn check_error(param: &str, expected: &str) {
        assert_eq!(parse(&["kind", param]).expect_err("no filter").to_string(), expected);
    }

    #[test]
    fn errors() {
        let text = |statement: &str| {
            format!(
                "Invalid filter, '{statement}' is not a valid statement (expected a string on the form a=b or a= or a)"
            )
        };
        check_error("=x", &text("=x"));
        check_error(" =x", &text("=x"));
        check_error("a=b, = ,c", &text("="));
        check_error(&"a,".repeat(MAX_PARTS + 1), "Invalid filter, more than 10000 statements");
    }

    /// The rule again, without the grouping: a key that has values wants one of them, one without wants to be there.
    fn naive(params: &[String], rows: &[SearchRow]) -> bool {
        let sets: Vec<Vec<&str>> = params
            .iter()
            .map(|param| param.split(',').map(str::trim).filter(|part| !part.is_empty()).collect())
            .filter(|parts: &Vec<&str>| !parts.is_empty())
            .collect();
        let key = |part: &str| part.split('=').next().unwrap_or_default().to_owned();
        let holds = |set: &Vec<&str>, part: &&str| {
            let key = key(part);
            let valued: Vec<&&str> =
                set.iter().filter(|other| other.contains('=') && self::tests_key(other) == key).collect();
            rows.iter().any(|row| {
                row.key == key.to_lowercase()
                    && (valued.is_empty()
                        || valued.iter().any(|other| {
                            let value = &other[key.len() + 1..];
                            row.value.as_deref() == Some(value.to_lowercase().as_str())
                        }))
            })
        };
        sets.is_empty() || sets.iter().any(|set| set.iter().all(|part| holds(set, part)))
    }

    fn tests_key(part: &str) -> &str {
        part.split('=').next().unwrap_or_default()
    }

    proptest! {
        #[test]
        fn agrees_with_the_naive_reading(params in proptest::collection::vec("([ab](=[xY]?)?,){0,4}", 0..3), values in proptest::collection::vec(("[ab]", proptest::option::of("[xy]?")), 0..4)) {
            let rows: Vec<SearchRow> = values
                .into_iter()
                .map(|(key, value)| SearchRow { key, original: value.clone(), value })
                .collect();
            prop_assert_eq!(Filter::parse(&params).expect("a filter").matches(&rows), naive(&params, &rows));
        }

        #[test]
        fn any_text_is_a_filter_or_an_error(text in any::<String>()) {
            let _ = Filter::parse(&[text]);
        }
    }
}
