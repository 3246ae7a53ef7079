//! Differences that are meant: rules that a case is recognized by from its own steps, and the reason of each, which stands in services/README.md too.

use super::case::{Case, Step};
use super::judge::{Aspect, Difference};
use crate::Error;
use catalog::documents::parse_documents;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The rules with their reasons.
const PURPOSES: &str = include_str!("on-purpose.json");

/// A difference that is meant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Purpose {
    /// What a case has in it where Callboard differs; the doc comments of [`Rule`] say what each means.
    rule: Rule,
    /// What may differ then; a difference in anything else is a failure all the same.
    aspects: Vec<Aspect>,
    /// Why, in one sentence.
    pub reason: String,
    /// How the row in the table of services/README.md begins.
    #[allow(dead_code, reason = "a test holds it against the table")]
    row: String,
}

/// How a case is recognized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Rule {
    /// Sources meet on a ref with different location keys, and one of them withdraws.
    LoserTakesOver,
    /// Providers meet on a ref without location keys.
    KeylessClaimsStand,
    /// Two providers publish the same entity, byte by byte.
    IdenticalClaimCounts,
    /// One provider publishes a ref under two location keys.
    OwnKeyChanges,
    /// A snapshot holds an entity without a sound envelope, and others.
    MalformedAmongOthers,
    /// An entity is published without the annotations that say where it comes from.
    NoLocationAnnotations,
    /// An API of type mcp-server is published.
    McpServer,
    /// A delete names its ref with capitals.
    DeleteInAnotherCase,
    /// A refresh names a ref that nobody publishes.
    RefreshOfNothing,
    /// Several Locations have targets.
    ParentsMeet,
    /// A provider publishes a ref that a file has, too.
    ProviderAndParentMeet,
    /// A Location in a file has a target that leads back to that file.
    ParentsInACircle,
}

/// The purposes of this version.
///
/// # Errors
/// [`Error::Usage`]: the list in the program is wrong.
pub(crate) fn purposes() -> Result<Vec<Purpose>, Error> {
    serde_json::from_str(PURPOSES).map_err(|error| Error::Usage(format!("on-purpose.json: {error}; this is a bug")))
}

/// The reason for which a case may differ so; none: one of its differences is a failure.
pub(crate) fn reason<'a>(purposes: &'a [Purpose], case: &Case, differences: &[Difference]) -> Option<&'a str> {
    let claims = Claims::of(case);
    let meant = |purpose: &&Purpose| {
        differences.iter().all(|difference| purpose.aspects.contains(&difference.aspect)) && purpose.rule.holds(&claims)
    };
    purposes.iter().find(meant).map(|purpose| purpose.reason.as_str())
}

/// What a case says of each ref, by provider.
struct Claims<'a> {
    case: &'a Case,
    /// By ref and provider: the keys and contents under which it was published, in order.
    claims: BTreeMap<String, BTreeMap<&'a str, Vec<Claim<'a>>>>,
}

/// A location key, and the entity.
type Claim<'a> = (Option<&'a str>, &'a Value);

impl<'a> Claims<'a> {
    fn of(case: &'a Case) -> Claims<'a> {
        let mut claims = Claims { case, claims: BTreeMap::new() };
        for step in &case.steps {
            match step {
                Step::Upsert { provider, location_key, entity } => {
                    claims.add(provider, location_key.as_deref(), entity)
                }
                Step::Snapshot { provider, entities } => {
                    for item in entities {
                        claims.add(provider, item.location_key.as_deref(), &item.entity);
                    }
                }
                _ => {}
            }
        }
        claims
    }

    fn add(&mut self, provider: &'a str, key: Option<&'a str>, entity: &'a Value) {
        let providers = self.claims.entry(entity_ref(entity)).or_default();
        providers.entry(provider).or_default().push((key, entity));
    }

    /// Whether, for some ref that several providers publish, all that they say of it fits.
    fn meet(&self, fits: impl Fn(&[Claim]) -> bool) -> bool {
        let met = self.claims.values().filter(|providers| providers.len() > 1);
        met.into_iter().any(|providers| fits(&providers.values().flatten().copied().collect::<Vec<_>>()))
    }
}

impl Rule {
    fn holds(self, claims: &Claims) -> bool {
        let published = |fits: fn(&Value) -> bool| claims.case.published().any(fits);
        match self {
            Rule::LoserTakesOver => claims.meet(|claims| keys(claims).len() > 1),
            Rule::KeylessClaimsStand => {
                claims.meet(|claims| claims.iter().filter(|(key, _)| key.is_none()).count() > 1)
            }
            Rule::IdenticalClaimCounts => claims.meet(|claims| {
                claims.iter().enumerate().any(|(index, (_, one))| claims[..index].iter().any(|(_, other)| one == other))
            }),
            Rule::OwnKeyChanges => {
                claims.claims.values().flat_map(BTreeMap::values).any(|claims| keys(claims).len() > 1)
            }
            Rule::MalformedAmongOthers => claims.case.steps.iter().any(|step| match step {
                Step::Snapshot { entities, .. } => {
                    entities.len() > 1 && entities.iter().any(|item| !has_envelope(&item.entity))
                }
                _ => false,
            }),
            Rule::NoLocationAnnotations => published(|entity| has_envelope(entity) && !is_placed(entity)),
            Rule::McpServer => published(|entity| entity["spec"]["type"] == "mcp-server" && entity["kind"] == "API"),
            Rule::DeleteInAnotherCase => claims.case.steps.iter().any(|step| match step {
                Step::Delete { entity_ref, .. } => *entity_ref != entity_ref.to_lowercase(),
                _ => false,
            }),
            Rule::RefreshOfNothing => claims.case.steps.iter().any(|step| match step {
                Step::Refresh { entity_ref: Some(named), .. } => {
                    !Files::of(claims.case).entities().any(|entity| entity_ref(&entity) == *named)
                        && !claims.claims.contains_key(named)
                }
                _ => false,
            }),
            Rule::ParentsMeet => {
                let files = Files::of(claims.case);
                let read = files.entities().chain(claims.case.published().cloned());
                let refs: BTreeSet<String> =
                    read.filter(|entity| entity["kind"] == "Location").map(|entity| entity_ref(&entity)).collect();
                refs.len() > 1
            }
            Rule::ProviderAndParentMeet => {
                Files::of(claims.case).entities().any(|entity| claims.claims.contains_key(&entity_ref(&entity)))
            }
            Rule::ParentsInACircle => Files::of(claims.case).have_a_circle(),
        }
    }
}

/// The files of a case, each with all that it holds in any step.
struct Files(BTreeMap<String, Vec<Value>>);

impl Files {
    fn of(case: &Case) -> Files {
        let mut files: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for step in &case.steps {
            let Step::Files { files: written } = step else { continue };
            for (path, text) in written {
                let documents = parse_documents(text.as_deref().unwrap_or_default());
                files
                    .entry(path.clone())
                    .or_default()
                    .extend(documents.into_iter().filter_map(|document| document.content.ok()));
            }
        }
        Files(files)
    }

    fn entities(&self) -> impl Iterator<Item = Value> {
        self.0.values().flatten().cloned().collect::<Vec<_>>().into_iter()
    }

    /// Whether one leads to itself, over the targets of its Locations.
    fn have_a_circle(&self) -> bool {
        self.0.keys().any(|start| {
            let mut seen = BTreeSet::new();
            let mut next: Vec<String> = self.targets(start);
            while let Some(path) = next.pop() {
                if path == *start {
                    return true;
                }
                if seen.insert(path.clone()) {
                    next.extend(self.targets(&path));
                }
            }
            false
        })
    }

    /// The files of the case that the Locations in a file name, by the last part of their targets.
    fn targets(&self, path: &str) -> Vec<String> {
        let locations = self.0.get(path).into_iter().flatten().filter(|entity| entity["kind"] == "Location");
        let named = locations.flat_map(|location| {
            let spec = &location["spec"];
            let several = spec["targets"].as_array().cloned().unwrap_or_default();
            several.into_iter().chain([spec["target"].clone()])
        });
        let last = |target: Value| Some(target.as_str()?.rsplit('/').next()?.to_owned());
        let ends = named.filter_map(last).collect::<Vec<_>>();
        let is_named = |path: &&String| path.rsplit('/').next().is_some_and(|last| ends.iter().any(|end| end == last));
        self.0.keys().filter(is_named).cloned().collect()
    }
}

fn keys<'a>(claims: &[Claim<'a>]) -> BTreeSet<Option<&'a str>> {
    claims.iter().map(|(key, _)| *key).collect()
}

fn entity_ref(entity: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_lowercase();
    let namespace = match text(&entity["metadata"]["namespace"]) {
        empty if empty.is_empty() => "default".to_owned(),
        namespace => namespace,
    };
    format!("{}:{namespace}/{}", text(&entity["kind"]), text(&entity["metadata"]["name"]))
}

fn has_envelope(entity: &Value) -> bool {
    let said = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    said(&entity["apiVersion"]) && said(&entity["kind"]) && said(&entity["metadata"]["name"])
}

fn is_placed(entity: &Value) -> bool {
    let annotations = &entity["metadata"]["annotations"];
    ["backstage.io/managed-by-location", "backstage.io/managed-by-origin-location"]
        .iter()
        .all(|name| annotations[name].is_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(steps: Value, aspects: &[Aspect], expected: Option<&str>) {
        let case = json!({ "steps": steps, "expect": {} });
        let case: Case = serde_json::from_value(case).unwrap();
        let differences: Vec<Difference> =
            aspects.iter().map(|aspect| Difference { aspect: *aspect, text: String::new() }).collect();
        let purposes = purposes().unwrap();
        let found = reason(&purposes, &case, &differences);
        assert_eq!(found.is_some(), expected.is_some(), "{found:?}");
        if let (Some(found), Some(expected)) = (found, expected) {
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn every_purpose_has_its_row_in_the_table() {
        let table = include_str!("../../../services/README.md");
        for purpose in purposes().unwrap() {
            assert!(table.contains(&format!("\n| {}", purpose.row)), "no row begins with: {}", purpose.row);
        }
    }

    #[test]
    fn a_case_is_recognized_by_its_steps() {
        use Aspect::{Entity, Error, Uid};
        let entity = |n: i64| {
            json!({ "apiVersion": "v1", "kind": "A", "spec": { "n": n }, "metadata": { "name": "b", "annotations": {
            "backstage.io/managed-by-location": "url:x", "backstage.io/managed-by-origin-location": "url:x" } } })
        };
        let upsert = |provider: &str, key: Value, n: i64| json!({ "op": "upsert", "provider": provider, "locationKey": key, "entity": entity(n) });
        check(json!([upsert("p", json!(null), 1)]), &[Entity], None);
        check(json!([upsert("p", json!("k"), 1), upsert("q", json!("l"), 2)]), &[Entity, Uid], Some("loses"));
        check(json!([upsert("p", json!("k"), 1), upsert("q", json!("k"), 2)]), &[Entity], None);
        check(json!([upsert("p", json!(null), 1), upsert("q", json!(null), 2)]), &[Entity], Some("keyless"));
        check(json!([upsert("p", json!("k"), 1), upsert("p", json!("l"), 1)]), &[Uid], Some("keeps the uid"));
        check(json!([upsert("p", json!("k"), 1), upsert("p", json!("l"), 1)]), &[Uid, Entity], None);
        let bare = json!({ "apiVersion": "v1", "kind": "A", "metadata": { "name": "b" } });
        check(
            json!([{ "op": "upsert", "provider": "p", "entity": bare }]),
            &[Entity, Error],
            Some("without location annotations"),
        );
        check(
            json!([{ "op": "snapshot", "provider": "p", "entities": [{ "entity": entity(1) }, { "entity": {} }] }]),
            &[Entity],
            Some("malformed"),
        );
        let location = |name: &str, target: &str| {
            format!("kind: Location\nmetadata: {{name: {name}}}\nspec: {{target: ./{target}}}\n")
        };
        let files = |b: &str| json!({ "op": "files", "files": { "a.yaml": location("a", "b.yaml"), "b.yaml": location("b", b) } });
        check(json!([files("a.yaml")]), &[Entity], Some("circle"));
        check(json!([files("c.yaml")]), &[Entity], None);
        check(json!([files("c.yaml")]), &[Uid], Some("takes over when the first lets go"));
        check(
            json!([{ "op": "files", "files": { "a.yaml": "kind: A\nmetadata: {name: b}\n" } }, upsert("p", json!("k"), 1)]),
            &[Entity],
            Some("beside a Location"),
        );
    }
}
