//! Compares what a catalog shows with what has to come of a case.

use super::case::{Case, Change, Settled, doubles};
use super::engine::Shown;
use crate::snapshot::first_difference;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What a difference is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Aspect {
    /// An entity's content, or that it is there or not.
    Entity,
    /// That there is an error, or none.
    Error,
    /// That a step was refused.
    StepError,
    /// A uid that changed, or should have.
    Uid,
    /// An etag that changed, or should have.
    Etag,
    /// The case could not be played to its end.
    Run,
}

/// Where the catalog is not as it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub aspect: Aspect,
    /// Of which entity; none: of a step, or of the run.
    pub entity_ref: Option<String>,
    /// In one line: after which step, of which entity, expected what, found what.
    pub text: String,
}

/// Every difference of a case that was played to its end.
pub(crate) fn judge(case: &Case, shown: &[Shown]) -> Vec<Difference> {
    let settles = case.settles();
    let mut differences = Vec::new();
    let mut before = &Shown::default();
    for (settled, shown) in settles.iter().zip(shown) {
        let mut judged = Judge { after: settled.after, differences: &mut differences };
        judged.entities(settled, shown);
        judged.errors(settled, shown, !case.expect.step_errors.is_empty());
        judged.identities(settled, before, shown);
        before = shown;
    }
    if let Some(last) = shown.last().filter(|_| !case.expect.step_errors.is_empty()) {
        let mut judged = Judge { after: case.steps.len() - 1, differences: &mut differences };
        judged.refusals(case, last);
    }
    if settles.len() != shown.len() {
        let text = format!("expected {} settles, found {}", settles.len(), shown.len());
        differences.push(Difference { aspect: Aspect::Run, entity_ref: None, text });
    }
    differences
}

struct Judge<'a> {
    after: usize,
    differences: &'a mut Vec<Difference>,
}

impl Judge<'_> {
    fn differ(&mut self, aspect: Aspect, entity_ref: &str, what: &str) {
        let text = format!("after step {}: {entity_ref}: {what}", self.after);
        self.differences.push(Difference { aspect, entity_ref: Some(entity_ref.to_owned()), text });
    }

    /// Exactly these entities, each exactly so, but for uid and for what is said to be free.
    fn entities(&mut self, settled: &Settled, shown: &Shown) {
        let expected = &settled.state.entities;
        let refs: BTreeSet<&String> = expected.keys().chain(shown.entities.keys()).collect();
        for entity_ref in refs {
            match (expected.get(entity_ref), shown.entities.get(entity_ref)) {
                (Some(_), None) => self.differ(Aspect::Entity, entity_ref, "expected the entity, found none"),
                (None, Some(_)) => self.differ(Aspect::Entity, entity_ref, "expected none, found an entity"),
                (Some(expected), Some(found)) => {
                    let (found, expected) = (comparable(found, expected), comparable(expected, expected));
                    if let Some(text) = first_difference("", &expected, &found).or_else(|| etag(&expected, &found)) {
                        self.differ(Aspect::Entity, entity_ref, &text);
                    }
                }
                (None, None) => {}
            }
        }
    }

    /// An error where one is expected, and none elsewhere. An entity whose step is refused there may be a claim with an error here.
    fn errors(&mut self, settled: &Settled, shown: &Shown, refused: bool) {
        let expected: BTreeSet<&String> = settled.state.errors.keys().collect();
        let found: BTreeSet<&String> = shown.errors.keys().collect();
        for entity_ref in expected.difference(&found) {
            self.differ(Aspect::Error, entity_ref, "expected an error, found none");
        }
        for entity_ref in found.difference(&expected).filter(|_| !refused) {
            let text = &shown.errors[*entity_ref];
            self.differ(Aspect::Error, entity_ref, &format!("expected no error, found {text}"));
        }
    }

    fn refusals(&mut self, case: &Case, shown: &Shown) {
        if shown.letters.is_empty() && shown.errors.is_empty() {
            let steps: Vec<String> = case.expect.step_errors.keys().map(usize::to_string).collect();
            let (after, steps) = (self.after, steps.join(", "));
            let text =
                format!("after step {after}: step {steps}: expected to be refused, found no dead letter and no error");
            self.differences.push(Difference { aspect: Aspect::StepError, entity_ref: None, text });
        }
    }

    fn identities(&mut self, settled: &Settled, before: &Shown, now: &Shown) {
        let mut compare = |aspect, field: &str, changes: &BTreeMap<String, Change>| {
            for (entity_ref, change) in changes {
                let of = |shown: &Shown| shown.entities.get(entity_ref).map(|entity| entity["metadata"][field].clone());
                let (Some(old), Some(new)) = (of(before), of(now)) else { continue };
                let found = if old == new { Change::Kept } else { Change::Changed };
                if *change == Change::New || *change != found {
                    self.differ(aspect, entity_ref, &format!("expected the {field} {change:?}, found it {found:?}"));
                }
            }
        };
        compare(Aspect::Uid, "uid", &settled.uid);
        compare(Aspect::Etag, "etag", &settled.etag);
    }
}

/// [`first_difference`] leaves etags to those who compare them.
fn etag(expected: &Value, found: &Value) -> Option<String> {
    let of = |entity: &Value| entity["metadata"]["etag"].clone();
    (of(expected) != of(found)).then(|| format!(".metadata.etag: expected {}, found {}", of(expected), of(found)))
}

/// Without what is free: uid, the etag where any will do, the wording and the number of errors; numbers as doubles.
pub(crate) fn comparable(entity: &Value, expected: &Value) -> Value {
    let mut entity = doubles(entity);
    entity["metadata"]["uid"] = json!("*");
    if expected["metadata"]["etag"] == "*" {
        entity["metadata"]["etag"] = json!("*");
    }
    if let Some(items) = entity.get_mut("status").and_then(|status| status["items"].as_array_mut()) {
        for item in items.iter_mut() {
            item["message"] = json!("*");
            item["error"] = json!("*");
        }
        items.dedup();
    }
    entity
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(expect: Value) -> Case {
        serde_json::from_value(json!({ "steps": [{ "op": "settle" }, { "op": "settle" }], "expect": expect })).unwrap()
    }

    fn shown(entities: Value, errors: &[&str], letters: &[&str]) -> Shown {
        Shown {
            entities: serde_json::from_value(entities).unwrap(),
            errors: errors.iter().map(|entity_ref| ((*entity_ref).to_owned(), "wrong".to_owned())).collect(),
            letters: letters.iter().map(|letter| (*letter).to_owned()).collect(),
        }
    }

    fn check(expect: Value, found: [Shown; 2], expected: &[(Aspect, &str)]) {
        let differences = judge(&case(expect), &found);
        let differences: Vec<(Aspect, &str)> =
            differences.iter().map(|difference| (difference.aspect, difference.text.as_str())).collect();
        assert_eq!(differences, expected);
    }

    #[test]
    fn what_differs_is_named() {
        let entity = |uid: &str, n: i64| json!({ "a:b/c": { "metadata": { "uid": uid, "etag": "x" }, "n": n } });
        let any = json!({ "a:b/c": { "metadata": { "uid": "*", "etag": "*" }, "n": 1 } });
        let empty = || shown(json!({}), &[], &[]);
        let expect = |change: &str| {
            json!({ "entities": any, "history": [{ "after": 0, "entities": any, "uid": {"a:b/c": "new"} },
            { "after": 1, "uid": { "a:b/c": change } }] })
        };
        let one = || shown(entity("1", 1), &[], &[]);
        check(expect("kept"), [one(), one()], &[]);
        check(
            expect("changed"),
            [one(), one()],
            &[(Aspect::Uid, "after step 1: a:b/c: expected the uid Changed, found it Kept")],
        );
        check(
            expect("kept"),
            [one(), shown(entity("1", 2), &["a:b/d"], &[])],
            &[
                (Aspect::Entity, "after step 1: a:b/c: .n: expected 1.0, found 2.0"),
                (Aspect::Error, "after step 1: a:b/d: expected no error, found wrong"),
            ],
        );
        let gone = json!({ "entities": {}, "errors": { "a:b/c": [] }, "history": [{ "after": 0 }, { "after": 1 }] });
        check(
            gone,
            [empty(), one()],
            &[
                (Aspect::Entity, "after step 1: a:b/c: expected none, found an entity"),
                (Aspect::Error, "after step 1: a:b/c: expected an error, found none"),
            ],
        );
        let refused = json!({ "stepErrors": { "0": "no" }, "history": [{ "after": 0 }, { "after": 1 }] });
        check(refused.clone(), [empty(), shown(json!({}), &[], &["no object"])], &[]);
        check(
            refused,
            [empty(), empty()],
            &[(Aspect::StepError, "after step 1: step 0: expected to be refused, found no dead letter and no error")],
        );
    }
}
