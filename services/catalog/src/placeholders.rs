//! Placeholders: `$text`, `$json` and `$yaml` where a value may stand, and what is put in their place (Backstage's `PlaceholderProcessor`).

use crate::documents::one_document;
use crate::error::ProcessingError;
use crate::git_url::{other_repository, resolve_url};
use serde_json::{Map, Value};

/// The most placeholders of one entity.
pub const MAX_PLACEHOLDERS: usize = 100;

/// Which placeholder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
    Yaml,
}

impl Form {
    fn of(key: &str) -> Option<Self> {
        match key {
            "$text" => Some(Form::Text),
            "$json" => Some(Form::Json),
            "$yaml" => Some(Form::Yaml),
            _ => None,
        }
    }

    fn key(self) -> &'static str {
        match self {
            Form::Text => "$text",
            Form::Json => "$json",
            Form::Yaml => "$yaml",
        }
    }
}

/// A placeholder and what it names.
#[derive(Debug, Clone, PartialEq)]
pub struct Placeholder {
    form: Form,
    value: Value,
}

impl Placeholder {
    /// The URL that it names, as seen from where the entity was read; of the same repository, if both are files of one.
    pub fn url(&self, base: &str) -> Result<String, ProcessingError> {
        let key = self.form.key();
        let Value::String(value) = &self.value else {
            return Err(failed(format!(
                "Placeholder {key} expected a string value parameter, in the form of an absolute URL or a relative path"
            )));
        };
        let no_url =
            |why: &str| failed(format!("Placeholder {key} could not form a URL out of {base} and {value}, {why}"));
        let url = resolve_url(value, base).ok_or_else(|| no_url("TypeError: Invalid URL"))?;
        if other_repository(&url, base) {
            return Err(no_url("Error: Placeholder may only reference files from the same repository as the entity"));
        }
        Ok(url)
    }

    /// The error of a URL that could not be read.
    pub fn unreadable(&self, why: &impl std::fmt::Display) -> ProcessingError {
        failed(format!("Placeholder {} could not read location {}, {why}", self.form.key(), self.named()))
    }

    /// What stands in its place, of what was read.
    pub fn content(&self, text: &str) -> Result<Value, ProcessingError> {
        match self.form {
            Form::Text => Ok(Value::String(text.to_owned())),
            Form::Json => serde_json::from_str(text).map_err(|error| {
                failed(format!("Placeholder $json failed to parse JSON data at {}, SyntaxError: {error}", self.named()))
            }),
            Form::Yaml => self.yaml(text),
        }
    }

    fn yaml(&self, text: &str) -> Result<Value, ProcessingError> {
        let content = one_document(text).map_err(|found| {
            failed(format!(
                "Placeholder $yaml expected to find exactly one document of data at {}, found {found}",
                self.named()
            ))
        })?;
        content.map_err(|error| {
            failed(format!("Placeholder $yaml found an error in the data at {}, YAMLParseError: {error}", self.named()))
        })
    }

    fn named(&self) -> &str {
        self.value.as_str().unwrap_or_default()
    }
}

fn failed(message: String) -> ProcessingError {
    ProcessingError::new("Error", message).wrapped("Processor PlaceholderProcessor threw an error while preprocessing")
}

/// Whether an entity has placeholders.
pub fn any(entity: &Map<String, Value>) -> bool {
    match of_map(entity) {
        Found::Placeholder(_) => true,
        Found::Leaf => false,
        Found::Children => entity.values().any(any_in),
    }
}

fn any_in(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(any_in),
        Value::Object(map) => any(map),
        _ => false,
    }
}

/// All placeholders of an entity, in order of the text.
pub fn find(entity: &mut Map<String, Value>) -> Result<Vec<Placeholder>, ProcessingError> {
    let mut found = Vec::new();
    walk(entity, &mut |_, placeholder| found.push(placeholder));
    if found.len() > MAX_PLACEHOLDERS {
        return Err(failed(format!(
            "an entity may have {MAX_PLACEHOLDERS} placeholders, this one has {}",
            found.len()
        )));
    }
    Ok(found)
}

/// Puts the contents into the places of the placeholders, in the order in which [`find`] gave them; what is in them is no placeholder.
pub fn replace(entity: &mut Map<String, Value>, contents: Vec<Value>) {
    let mut contents = contents.into_iter();
    walk(entity, &mut |place, _| {
        if let Some(content) = contents.next() {
            *place = content;
        }
    });
}

enum Found {
    Placeholder(Placeholder),
    /// A map with a `$` key that is no placeholder is left alone, with all that is in it.
    Leaf,
    Children,
}

fn of_map(map: &Map<String, Value>) -> Found {
    if !map.keys().any(|key| key.starts_with('$')) {
        return Found::Children;
    }
    let mut entries = map.iter();
    match (entries.next(), entries.next()) {
        (Some((key, value)), None) => match Form::of(key) {
            Some(form) => Found::Placeholder(Placeholder { form, value: value.clone() }),
            None => Found::Leaf,
        },
        _ => Found::Leaf,
    }
}

/// An entity that is itself a placeholder has no kind, and never comes here.
fn walk(map: &mut Map<String, Value>, visit: &mut impl FnMut(&mut Value, Placeholder)) {
    if matches!(of_map(map), Found::Children) {
        map.values_mut().for_each(|value| walk_value(value, visit));
    }
}

fn walk_value(value: &mut Value, visit: &mut impl FnMut(&mut Value, Placeholder)) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| walk_value(item, visit)),
        Value::Object(map) => match of_map(map) {
            Found::Placeholder(placeholder) => visit(value, placeholder),
            Found::Leaf => {}
            Found::Children => map.values_mut().for_each(|value| walk_value(value, visit)),
        },
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(entity: Value, contents: &[&str], expected: Value) {
        let Value::Object(mut entity) = entity else { panic!("an object") };
        let found = find(&mut entity).expect("few placeholders");
        assert_eq!(any(&entity), !found.is_empty());
        assert_eq!(found.len(), contents.len(), "{entity:?}");
        let contents = found.iter().zip(contents).map(|(found, text)| found.content(text).expect("it parses"));
        let contents = contents.collect();
        replace(&mut entity, contents);
        assert_eq!(Value::Object(entity), expected);
    }

    #[test]
    fn where_they_may_stand() {
        check(json!({"a": 1, "b": [{"c": "$text"}]}), &[], json!({"a": 1, "b": [{"c": "$text"}]}));
        check(
            json!({"a": {"$text": "./t"}, "b": [{"$json": "j"}, 7, {"c": {"$yaml": "y"}}]}),
            &["text\n", "{\"k\":[1,null]}", "l: [true, 2]\n"],
            json!({"a": "text\n", "b": [{"k": [1, null]}, 7, {"c": {"l": [true, 2]}}]}),
        );
        let left_alone = json!({"a": {"$text": "t", "b": 1}, "c": {"$openapi": "t"}, "d": {"$x": {"$text": "t"}}});
        check(left_alone.clone(), &[], left_alone);
        for empty in ["---\n", "null", "~\n...\n", "--- # nothing\n"] {
            check(json!({"a": {"$yaml": "y"}}), &[empty], json!({"a": null}));
        }
        check(json!({"a": {"$yaml": "y"}}), &["b: {$text: t}"], json!({"a": {"b": {"$text": "t"}}}));
    }

    fn check_error(placeholder: Value, base: &str, text: &str, expected: &str) {
        let Value::Object(mut entity) = json!({"a": placeholder}) else { panic!("an object") };
        let found = find(&mut entity).expect("one").remove(0);
        let error = found.url(base).and_then(|_| found.content(text)).expect_err("an error").to_string();
        let before = "InputError: Processor PlaceholderProcessor threw an error while preprocessing; caused by Error: ";
        assert!(error.starts_with(&format!("{before}{expected}")), "{error}");
    }

    #[test]
    fn errors() {
        let base = "https://github.com/a/b/blob/main/c.yaml";
        check_error(
            json!({"$text": [1]}),
            base,
            "",
            "Placeholder $text expected a string value parameter, in the form",
        );
        check_error(
            json!({"$text": "./d"}),
            "/srv/a.yaml",
            "",
            "Placeholder $text could not form a URL out of /srv/a.yaml and ./d, TypeError: Invalid URL",
        );
        check_error(
            json!({"$text": "https://github.com/a/other/blob/main/c.yaml"}),
            base,
            "",
            "Placeholder $text could not form a URL out of https://github.com/a/b/blob/main/c.yaml and https://github.com/a/other/blob/main/c.yaml, Error: Placeholder may only reference files from the same repository as the entity",
        );
        check_error(
            json!({"$json": "./d"}),
            base,
            "{",
            "Placeholder $json failed to parse JSON data at ./d, SyntaxError: ",
        );
        check_error(json!({"$yaml": "./d"}), base, "a: b: c", "Placeholder $yaml found an error in the data at ./d, ");
        let two = "Placeholder $yaml expected to find exactly one document of data at ./d, found ";
        check_error(json!({"$yaml": "./d"}), base, "a: 1\n---\nb: 2\n", &format!("{two}2"));
        check_error(json!({"$yaml": "./d"}), base, "", &format!("{two}0"));
        check_error(json!({"$yaml": "./d"}), base, "# nothing\n", &format!("{two}0"));
        check_error(json!({"$yaml": "./d"}), base, "a: 1\n---\n", &format!("{two}2"));
    }
}
