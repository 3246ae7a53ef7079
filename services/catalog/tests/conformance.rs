//! The recorded answers of Backstage 4.0.0, for the areas where nothing outside is read: the same steps must come to the same catalog.

use catalog::entity::{Limits, parse_entity};
use catalog::entity_ref::EntityRef;
use catalog::process::{Model, Processed, process};
use catalog::stitch::{StitchInput, stitch, uid};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const AREAS: [&str; 4] = ["refs", "relations", "validation", "annotations"];

/// Why Callboard differs on purpose, rule by rule, as the judge of the whole pipeline has it.
const PURPOSES: &str = include_str!("../../../loadtest/src/conformance/on-purpose.json");

/// Cases in which processing alone differs on purpose, each with its rule in [`PURPOSES`].
const DIFFERENT: [(&str, &str); 5] = [
    ("validation/no-location-annotations", "no-location-annotations"),
    ("validation/api-mcp-server", "mcp-server"),
    // `null` and a text are told as what they are, and not as annotations that are missing.
    ("validation/annotations-shape-01", "no-location-annotations"),
    ("validation/annotations-shape-02", "no-location-annotations"),
    ("validation/snapshot-with-malformed", "malformed-among-others"),
];

/// Nothing outside is read here: what the targets of a Location lead to is shown by the whole pipeline.
const READS_OUTSIDE: &str = "validation/spec-location-targets-04";

/// The reason of a case's rule; none: the case has to agree.
fn reason(name: &str) -> Option<String> {
    if name == READS_OUTSIDE {
        return Some("it needs outside reads, which are not processing's part".to_owned());
    }
    let (_, rule) = DIFFERENT.iter().find(|(different, _)| *different == name)?;
    let purposes: Vec<Value> = serde_json::from_str(PURPOSES).expect("the purposes are JSON");
    let purpose = purposes.iter().find(|purpose| purpose["rule"] == *rule).expect("each rule is in the purposes");
    purpose["reason"].as_str().map(str::to_owned)
}

#[test]
fn the_recorded_cases() {
    let Some(root) = corpus() else {
        println!("skipped: no conformance corpus; name its directory in CALLBOARD_CONFORMANCE");
        return;
    };
    let model = Model::builtin();
    let mut report = Report::default();
    for area in AREAS {
        let mut files: Vec<PathBuf> = std::fs::read_dir(root.join("cases").join(area))
            .expect("the corpus has the area")
            .map(|entry| entry.expect("readable").path())
            .collect();
        files.sort();
        for file in files {
            report.case(&model, &file);
        }
    }
    println!("{report}");
    assert!(report.failed.is_empty(), "{} cases failed", report.failed.len());
    assert!(report.passed > 0, "no case ran");
}

fn corpus() -> Option<PathBuf> {
    let named = std::env::var_os("CALLBOARD_CONFORMANCE").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance");
    named.or(Some(beside)).filter(|path| path.join("cases").is_dir())
}

#[derive(Default)]
struct Report {
    passed: usize,
    failed: Vec<String>,
    wording: Vec<String>,
    different: Vec<String>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sections =
            [("failed", &self.failed), ("other wording", &self.wording), ("different on purpose", &self.different)];
        writeln!(f, "{} passed", self.passed)?;
        for (title, lines) in sections {
            writeln!(f, "{} {title}", lines.len())?;
            lines.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        Ok(())
    }
}

impl Report {
    fn case(&mut self, model: &Model, file: &Path) {
        let text = std::fs::read_to_string(file).expect("readable");
        let case: Value = serde_json::from_str(&text).expect("a case is JSON");
        let name = case["name"].as_str().expect("a case has a name").to_owned();
        let mut catalog = Catalog::new(model);
        let steps = case["steps"].as_array().expect("a case has steps");
        if !steps.iter().all(|step| catalog.step(step)) {
            self.different.push(format!("{name}: has steps of another area"));
            return;
        }
        let problems = catalog.compare(&case["expect"]);
        let wording = catalog.other_wording(&case["expect"]);
        if let Some(reason) = reason(&name) {
            if problems.is_empty() && wording.is_empty() {
                self.failed.push(format!("{name}: agrees, and is listed as different"));
            }
            self.different.push(format!("{name}: {reason}"));
            return;
        }
        self.wording.extend(wording.into_iter().map(|line| format!("{name}: {line}")));
        if problems.is_empty() {
            self.passed += 1;
        }
        self.failed.extend(problems.into_iter().map(|problem| format!("{name}: {problem}")));
    }
}

/// The smallest engine: the last good version of each entity, its error, and what is stitched of them.
struct Catalog<'m> {
    model: &'m Model,
    good: BTreeMap<String, Processed>,
    errors: BTreeMap<String, catalog::process::ProcessingError>,
    refused: BTreeSet<String>,
    stitched: BTreeMap<String, Value>,
    not_stitched: BTreeSet<String>,
}

impl<'m> Catalog<'m> {
    fn new(model: &'m Model) -> Self {
        Self {
            model,
            good: BTreeMap::new(),
            errors: BTreeMap::new(),
            refused: BTreeSet::new(),
            stitched: BTreeMap::new(),
            not_stitched: BTreeSet::new(),
        }
    }

    /// Takes one step; false if it is of a sort that this engine has not.
    fn step(&mut self, step: &Value) -> bool {
        match step["op"].as_str() {
            Some("upsert") => self.upsert(&step["entity"], &step["provider"]),
            Some("snapshot") => {
                for item in step["entities"].as_array().into_iter().flatten() {
                    self.upsert(&item["entity"], &step["provider"]);
                }
            }
            Some("delete") => self.delete(step["entityRef"].as_str().expect("a delete has a ref")),
            Some("settle") => self.settle(),
            _ => return false,
        }
        true
    }

    fn upsert(&mut self, entity: &Value, provider: &Value) {
        let bytes = entity.to_string().into_bytes();
        let unprocessed = match parse_entity(&bytes, &Limits::default()) {
            Ok(unprocessed) => unprocessed,
            Err(refusal) => {
                self.refused.insert(refusal.to_string());
                return;
            }
        };
        let entity_ref = unprocessed.entity_ref.to_string();
        let subject = format!("catalog.events.{}", provider.as_str().unwrap_or_default());
        match process(self.model, &unprocessed, &subject) {
            Ok(processed) => {
                self.errors.remove(&entity_ref);
                self.good.insert(entity_ref, processed);
            }
            Err(error) => {
                self.errors.insert(entity_ref, error);
            }
        }
    }

    fn delete(&mut self, entity_ref: &str) {
        let entity_ref = EntityRef::parse(entity_ref).expect("a ref").to_string();
        self.good.remove(&entity_ref);
        self.errors.remove(&entity_ref);
    }

    fn settle(&mut self) {
        self.stitched.retain(|entity_ref, _| self.good.contains_key(entity_ref));
        self.not_stitched.clear();
        for (entity_ref, processed) in &self.good {
            let incoming = self
                .good
                .values()
                .flat_map(|other| &other.foreign)
                .filter(|relation| relation.source_ref == *entity_ref)
                .map(|relation| (relation.relation_type.clone(), relation.target_ref.clone()))
                .collect();
            let status = self.errors.get(entity_ref).map(|error| error.to_status_item());
            let outcome = stitch(StitchInput {
                processed: processed.entity.clone(),
                entity_ref,
                uid: &uid("catalog", entity_ref, 1).to_string(),
                incoming,
                error: status.as_ref(),
                orphan: false,
            });
            match outcome {
                Ok(stitched) => {
                    let entity = serde_json::from_slice(&stitched.body).expect("JSON");
                    self.stitched.insert(entity_ref.clone(), entity);
                }
                Err(_) => {
                    self.not_stitched.insert(entity_ref.clone());
                }
            }
        }
    }

    fn compare(&self, expect: &Value) -> Vec<String> {
        let mut problems = Vec::new();
        let empty = Map::new();
        let entities = expect["entities"].as_object().unwrap_or(&empty);
        for (entity_ref, expected) in entities {
            let got = self.stitched.get(entity_ref).map(|entity| comparable(entity, expected));
            let expected = comparable(expected, expected);
            if got.as_ref() != Some(&expected) {
                problems
                    .push(format!("{entity_ref} is\n    {}\n  expected\n    {expected}", got.unwrap_or(Value::Null)));
            }
        }
        let extra = self.stitched.keys().filter(|entity_ref| !entities.contains_key(*entity_ref));
        problems.extend(extra.map(|entity_ref| format!("{entity_ref} is there")));
        let errors: BTreeSet<&String> = expect["errors"].as_object().unwrap_or(&empty).keys().collect();
        let refused_steps = expect["stepErrors"].is_object();
        let found: BTreeSet<&String> = self.errors.keys().collect();
        if errors != found && !(refused_steps && errors.is_subset(&found)) {
            problems.push(format!("errors of {found:?}, expected {errors:?}"));
        }
        if refused_steps && self.refused.is_empty() && self.errors.is_empty() {
            problems.push("no refusal and no error".to_owned());
        }
        let not_stitched: BTreeSet<String> = serde_json::from_value(expect["notStitched"].clone()).unwrap_or_default();
        if not_stitched != self.not_stitched {
            problems.push(format!("not stitched: {:?}, expected {not_stitched:?}", self.not_stitched));
        }
        problems
    }

    fn other_wording(&self, expect: &Value) -> Vec<String> {
        let empty = Map::new();
        let errors = expect["errors"].as_object().unwrap_or(&empty);
        let differing = errors.iter().filter_map(|(entity_ref, expected)| {
            let got = self.errors.get(entity_ref)?.to_string();
            let expected = expected[0].as_str().unwrap_or_default();
            (got != expected).then(|| format!("\n    {got}\n  recorded\n    {expected}"))
        });
        differing.collect()
    }
}

/// Without what is free: uid, the etag where any will do, and the wording of errors; numbers as doubles.
fn comparable(entity: &Value, expected: &Value) -> Value {
    let mut entity = doubles(entity);
    entity["metadata"]["uid"] = json!("*");
    if expected["metadata"]["etag"] == "*" {
        entity["metadata"]["etag"] = json!("*");
    }
    for item in entity.get_mut("status").and_then(|status| status["items"].as_array_mut()).into_iter().flatten() {
        item["message"] = json!("*");
        item["error"] = json!("*");
    }
    entity
}

fn doubles(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(doubles).collect(),
        Value::Object(map) => Value::Object(map.iter().map(|(key, value)| (key.clone(), doubles(value))).collect()),
        other => other.clone(),
    }
}
