//! A recorded case: found in a directory, read, and written for the place where it is played.

use crate::Error;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha1::{Digest, Sha1};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Files in one run at most.
const MAX_FILES: usize = 100_000;
/// Directories below the given one at most.
const MAX_DEPTH: usize = 8;

/// A case.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Case {
    /// What it is about, in a sentence.
    #[serde(default)]
    pub about: String,
    /// A known flaw or freedom of the recording.
    #[serde(default)]
    pub note: String,
    #[serde(default)]
    pub config: CaseConfig,
    pub steps: Vec<Step>,
    pub expect: Expected,
}

/// Where the case's installation differs from the recording's default.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CaseConfig {
    /// `delete` or `keep`.
    pub orphan_strategy: Option<String>,
    /// Which kinds Locations may bring in.
    pub rules: Option<Value>,
}

/// What is done.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub(crate) enum Step {
    /// A provider publishes one entity.
    Upsert { provider: String, location_key: Option<String>, entity: Value },
    /// It withdraws one.
    Delete { provider: String, entity_ref: String },
    /// A full mutation: this, and nothing else, is what it has.
    Snapshot { provider: String, entities: Vec<Item> },
    /// Files below the case's directory are written; without text, removed.
    Files { files: BTreeMap<String, Option<String>> },
    /// An entity, or what has these refresh keys, is to be read and processed anew.
    Refresh { entity_ref: Option<String>, provider: Option<String>, keys: Option<Vec<String>> },
    /// The entity is deleted, whoever claims it.
    RemoveUid { entity_ref: String },
    /// Nothing changes any more.
    Settle {},
}

/// An entity of a snapshot.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Item {
    pub entity: Value,
    pub location_key: Option<String>,
}

/// What has to come of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Expected {
    #[serde(flatten)]
    pub last: State,
    /// By step number: the error with which the step was refused.
    #[serde(default)]
    pub step_errors: BTreeMap<usize, Value>,
    #[serde(default)]
    pub history: Vec<Settled>,
}

/// The catalog after a settle.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    #[serde(default)]
    pub entities: BTreeMap<String, Value>,
    #[serde(default)]
    pub absent: Vec<String>,
    #[serde(default)]
    pub errors: BTreeMap<String, Value>,
}

/// One settle of several.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Settled {
    /// Its step number.
    pub after: usize,
    #[serde(flatten)]
    pub state: State,
    #[serde(default)]
    pub uid: BTreeMap<String, Change>,
    #[serde(default)]
    pub etag: BTreeMap<String, Change>,
}

/// What became of a uid or etag since the settle before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Change {
    New,
    Kept,
    Changed,
}

impl Case {
    /// The case for a directory and an address under which it is served.
    ///
    /// # Errors
    /// [`Error::Usage`]: the file is no case.
    pub fn read(path: &Path, root: &Path, url: &str) -> Result<Case, Error> {
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        let text = with_hashes(&text.replace("$ROOT", &root.to_string_lossy()).replace("$URL", url));
        let case = serde_json::from_str(&text);
        case.map_err(|error| Error::Usage(format!("{}: no case: {error}", path.display())))
    }

    /// What is expected after each settle, in order.
    pub fn settles(&self) -> Vec<Settled> {
        let after = self.steps.iter().rposition(|step| matches!(step, Step::Settle {})).unwrap_or(0);
        let mut settles = self.expect.history.clone();
        match settles.last_mut() {
            Some(last) if last.after == after => last.state = self.expect.last.clone(),
            _ => settles.push(Settled {
                after,
                state: self.expect.last.clone(),
                uid: BTreeMap::new(),
                etag: BTreeMap::new(),
            }),
        }
        settles
    }

    /// Every ref that the case expects something of.
    pub fn refs(&self) -> Vec<String> {
        let mut refs: Vec<String> = Vec::new();
        for Settled { state, .. } in self.settles() {
            refs.extend(state.entities.into_keys().chain(state.absent).chain(state.errors.into_keys()));
        }
        refs.sort();
        refs.dedup();
        refs
    }

    /// Whether something is to be read outside: files, the targets of a Location, placeholders.
    pub fn reads_outside(&self) -> bool {
        let has_files = self.steps.iter().any(|step| matches!(step, Step::Files { .. }));
        let asks = |entity: &Value| {
            let text = entity.to_string();
            entity["kind"] == "Location"
                || ["\"$text\"", "\"$json\"", "\"$yaml\""].iter().any(|name| text.contains(name))
        };
        has_files || self.published().any(asks)
    }

    /// Entities that the case publishes.
    pub fn published(&self) -> impl Iterator<Item = &Value> {
        self.steps.iter().flat_map(|step| match step {
            Step::Upsert { entity, .. } => vec![entity],
            Step::Snapshot { entities, .. } => entities.iter().map(|item| &item.entity).collect(),
            _ => Vec::new(),
        })
    }
}

/// Every `generated-$SHA1(x)` as `generated-` and the SHA-1 of x.
fn with_hashes(text: &str) -> String {
    const MARK: &str = "$SHA1(";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(MARK) {
        let Some((hashed, behind)) = after.split_once(')') else { break };
        out.push_str(before);
        for byte in Sha1::digest(hashed.as_bytes()) {
            let _ = write!(out, "{byte:02x}");
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// Case files: of the `cases` in a directory, or anywhere below it; in the order of their paths.
///
/// # Errors
/// [`Error::Usage`] when there are none, or far too many.
pub(crate) fn find(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let cases = directory.join("cases");
    let root = if cases.is_dir() { cases } else { directory.to_path_buf() };
    let mut found = Vec::new();
    search(&root, MAX_DEPTH, &mut found)?;
    found.sort();
    match found.len() {
        1..=MAX_FILES => Ok(found),
        0 => Err(Error::Usage(format!("{}: expected case files (*.json), found none", directory.display()))),
        count => Err(Error::Usage(format!(
            "{}: expected at most {MAX_FILES} case files, found {count}",
            directory.display()
        ))),
    }
}

fn search(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    for entry in fs::read_dir(directory).map_err(Error::io("read", directory))? {
        let path = entry.map_err(Error::io("read", directory))?.path();
        if path.is_dir() && depth > 0 {
            search(&path, depth - 1, found)?;
        } else if path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
    Ok(())
}

/// Without what JSON does not have in common with an entity read back: numbers as doubles.
pub(crate) fn doubles(value: &Value) -> Value {
    match value {
        Value::Number(number) => serde_json::json!(number.as_f64()),
        Value::Array(items) => items.iter().map(doubles).collect(),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, value)| (key.clone(), doubles(value))).collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(with_hashes(text), expected);
    }

    #[test]
    fn hashes_are_put_in() {
        check("plain $SHA1", "plain $SHA1");
        check("generated-$SHA1(abc) and", "generated-a9993e364706816aba3e25717850c26c9cd0d89d and");
        check("$SHA1(abc", "$SHA1(abc");
    }

    #[test]
    fn a_case_is_read() {
        let text = r#"{"name": "a/b", "about": "x", "steps": [
            {"op": "upsert", "provider": "p", "locationKey": null, "entity": {}}, {"op": "settle"},
            {"op": "refresh", "provider": "p", "keys": ["url:$URL/x"]}, {"op": "remove-uid", "entityRef": "a:b/c"}, {"op": "settle"}],
          "expect": {"entities": {"a:b/c": {}}, "absent": [], "errors": {}, "history": [
            {"after": 1, "entities": {}, "absent": ["a:b/d"], "errors": {}, "uid": {}, "etag": {}},
            {"after": 4, "uid": {"a:b/c": "new"}, "etag": {"a:b/c": "new"}}]}}"#;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("case.json");
        fs::write(&path, text).unwrap();
        let case = Case::read(&path, directory.path(), "http://here").unwrap();
        assert_eq!(case.about, "x");
        let settles = case.settles();
        assert_eq!(settles.iter().map(|settled| settled.after).collect::<Vec<_>>(), [1, 4]);
        assert!(settles[1].state.entities.contains_key("a:b/c"));
        assert_eq!(settles[1].uid["a:b/c"], Change::New);
        assert_eq!(case.refs(), ["a:b/c", "a:b/d"]);
        assert!(matches!(&case.steps[2], Step::Refresh { keys: Some(keys), .. } if keys == &["url:http://here/x"]));
        assert_eq!(find(directory.path()).unwrap(), [path]);
    }
}
