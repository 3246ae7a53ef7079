//! Differences that are meant: rules that a case is recognized by from its own steps, and the reason of each, which stands in services/README.md too.

use super::case::{Case, Item, Step};
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
    /// What a case has in it where Callboard differs; the doc comments of [`Rule`] say what each means, and of which entities.
    rule: Rule,
    /// What may differ then; a difference in anything else is a failure all the same.
    aspects: Vec<Aspect>,
    /// Why, in one sentence.
    pub reason: String,
    /// How the row in the table of services/README.md begins.
    #[allow(dead_code, reason = "a test holds it against the table")]
    row: String,
}

/// How a case is recognized, and of which entities it may show something else then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Rule {
    /// What is shown under a location key is withdrawn while another source claims the ref under another key, or under none.
    LoserTakesOver,
    /// What is shown is withdrawn while another provider claims the ref under the same key, or both under none.
    ClaimsOfOneKeyStand,
    /// A provider upserts what another one has published, byte by byte, and the first one withdraws it.
    IdenticalClaimCounts,
    /// One provider publishes a ref under two location keys.
    OwnKeyChanges,
    /// A ref is published under an empty location key.
    EmptyKey,
    /// A snapshot holds an entity without a sound envelope, and others.
    MalformedAmongOthers,
    /// An entity is published without the annotations that say where it comes from.
    NoLocationAnnotations,
    /// An API of type mcp-server is published.
    McpServer,
    /// A delete names its ref with capitals.
    DeleteInAnotherCase,
    /// All steps that were refused are refreshes of refs that are not there.
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

/// The reasons for which a case may differ so, each difference for one of them; none: one of its differences is a failure.
pub(crate) fn reason(purposes: &[Purpose], case: &Case, differences: &[Difference]) -> Option<String> {
    let excused: Vec<_> = purposes.iter().map(|purpose| (purpose, purpose.rule.excused(case))).collect();
    let mut reasons: Vec<&str> = Vec::new();
    for difference in differences {
        let (purpose, _) = excused.iter().find(|(purpose, excused)| {
            purpose.aspects.contains(&difference.aspect) && excused.iter().any(|excused| excused.covers(difference))
        })?;
        if !reasons.contains(&purpose.reason.as_str()) {
            reasons.push(&purpose.reason);
        }
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// What may differ when a rule holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Excused {
    /// The entity of a ref, and what it brings in if it is a Location; of others what they say of it: their relations, and with these their etags.
    Entity(String),
    /// What a step says, and whatever the files of the case hold.
    Anything,
}

impl Excused {
    fn covers(&self, difference: &Difference) -> bool {
        match (self, &difference.entity_ref) {
            (Excused::Anything, _) => true,
            (Excused::Entity(excused), Some(found)) if excused == found => true,
            // What a Location brings in comes and goes with it.
            (Excused::Entity(excused), Some(_)) if excused.starts_with("location:") => true,
            (Excused::Entity(_), Some(_)) => match difference.aspect {
                Aspect::Entity => difference.text.contains(": .relations"),
                aspect => aspect == Aspect::Etag,
            },
            (Excused::Entity(_), None) => false,
        }
    }
}

impl Rule {
    fn excused(self, case: &Case) -> Vec<Excused> {
        let published = |fits: fn(&Value) -> bool| {
            case.published().filter(|entity| fits(entity)).map(|entity| Excused::Entity(entity_ref(entity))).collect()
        };
        let anything_if = |holds: bool| if holds { vec![Excused::Anything] } else { Vec::new() };
        match self {
            Rule::LoserTakesOver | Rule::ClaimsOfOneKeyStand | Rule::IdenticalClaimCounts | Rule::OwnKeyChanges => {
                let found = meetings(case).into_iter().filter(|(rule, _)| *rule == self);
                found.map(|(_, entity_ref)| Excused::Entity(entity_ref)).collect()
            }
            Rule::EmptyKey => {
                let of_step = |step: &Step| match step {
                    Step::Upsert { location_key, entity, .. } => vec![(location_key.clone(), entity_ref(entity))],
                    Step::Snapshot { entities, .. } => {
                        entities.iter().map(|item| (item.location_key.clone(), entity_ref(&item.entity))).collect()
                    }
                    _ => Vec::new(),
                };
                let published = case.steps.iter().flat_map(of_step);
                let is_empty = |(key, _): &(Option<String>, String)| key.as_deref() == Some("");
                published.filter(is_empty).map(|(_, entity_ref)| Excused::Entity(entity_ref)).collect()
            }
            Rule::MalformedAmongOthers => {
                let among_others = |entities: &&Vec<Item>| {
                    entities.len() > 1 && entities.iter().any(|item| !has_envelope(&item.entity))
                };
                let snapshots = case.steps.iter().filter_map(|step| match step {
                    Step::Snapshot { entities, .. } => Some(entities),
                    _ => None,
                });
                let items = snapshots.filter(among_others).flatten();
                items.map(|item| Excused::Entity(entity_ref(&item.entity))).collect()
            }
            Rule::NoLocationAnnotations => published(|entity| has_envelope(entity) && !is_placed(entity)),
            Rule::McpServer => published(|entity| entity["spec"]["type"] == "mcp-server" && entity["kind"] == "API"),
            Rule::DeleteInAnotherCase => {
                let deletes = case.steps.iter().filter_map(|step| match step {
                    Step::Delete { entity_ref, .. } => Some((entity_ref, entity_ref.to_lowercase())),
                    _ => None,
                });
                deletes.filter(|(written, lower)| *written != lower).map(|(_, lower)| Excused::Entity(lower)).collect()
            }
            Rule::RefreshOfNothing => {
                anything_if(case.expect.step_errors.keys().all(|step| refreshes_nothing(case, *step)))
            }
            Rule::ParentsMeet => {
                let read = Files::of(case).into_entities().chain(case.published().cloned());
                let refs: BTreeSet<String> =
                    read.filter(|entity| entity["kind"] == "Location").map(|entity| entity_ref(&entity)).collect();
                anything_if(refs.len() > 1)
            }
            Rule::ProviderAndParentMeet => {
                let claimed: BTreeSet<String> = case.published().map(entity_ref).collect();
                let in_files = Files::of(case).into_entities().map(|entity| entity_ref(&entity));
                in_files.filter(|found| claimed.contains(found)).map(Excused::Entity).collect()
            }
            Rule::ParentsInACircle => anything_if(Files::of(case).have_a_circle()),
        }
    }
}

/// Whether a step is a refresh of a ref that no step before it published, and that no file holds.
fn refreshes_nothing(case: &Case, number: usize) -> bool {
    let Some(Step::Refresh { entity_ref: Some(named), .. }) = case.steps.get(number) else { return false };
    let before = Case { steps: case.steps[..number].to_vec(), ..case.clone() };
    let mut there = Files::of(case).into_entities().chain(before.published().cloned());
    !there.any(|entity| entity_ref(&entity) == named.to_lowercase())
}

/// What a provider says of a ref.
struct Claim<'a> {
    provider: &'a str,
    key: Option<&'a str>,
    entity: &'a Value,
    /// The step from which on it has said so under this key, and that of its newest word.
    since: usize,
    newest: usize,
}

/// The claims of each ref while the steps go on, and where they meet.
#[derive(Default)]
struct Claims<'a> {
    claims: BTreeMap<String, Vec<Claim<'a>>>,
    /// Refs with what was upserted byte by byte as another provider has it: those providers.
    copied: BTreeMap<String, BTreeSet<&'a str>>,
    met: Vec<(Rule, String)>,
}

/// The rules by which claims meet in a case, with the refs of which they speak.
fn meetings(case: &Case) -> Vec<(Rule, String)> {
    let mut claims = Claims::default();
    for (number, step) in case.steps.iter().enumerate() {
        match step {
            Step::Upsert { provider, location_key, entity } => {
                claims.note_copy(provider, location_key.as_deref(), entity);
                claims.claim(number, provider, location_key.as_deref(), entity);
            }
            Step::Snapshot { provider, entities } => {
                let named: BTreeSet<String> = entities.iter().map(|item| entity_ref(&item.entity)).collect();
                let all: Vec<String> = claims.claims.keys().filter(|found| !named.contains(*found)).cloned().collect();
                all.iter().for_each(|entity_ref| claims.withdraw(provider, entity_ref));
                for item in entities {
                    claims.claim(number, provider, item.location_key.as_deref(), &item.entity);
                }
            }
            Step::Delete { provider, entity_ref } => claims.withdraw(provider, &entity_ref.to_lowercase()),
            Step::RemoveUid { entity_ref } => drop(claims.claims.remove(&entity_ref.to_lowercase())),
            Step::Files { .. } | Step::Refresh { .. } | Step::Settle {} => {}
        }
    }
    claims.met
}

impl<'a> Claims<'a> {
    fn note_copy(&mut self, provider: &str, key: Option<&str>, entity: &Value) {
        let entity_ref = entity_ref(entity);
        for claim in self.claims.get(&entity_ref).into_iter().flatten() {
            if claim.provider != provider && claim.key == key && claim.entity == entity {
                self.copied.entry(entity_ref.clone()).or_default().insert(claim.provider);
            }
        }
    }

    fn claim(&mut self, number: usize, provider: &'a str, key: Option<&'a str>, entity: &'a Value) {
        let entity_ref = entity_ref(entity);
        let of_ref = self.claims.get(&entity_ref);
        let before = of_ref.and_then(|claims| claims.iter().find(|claim| claim.provider == provider));
        let mut since = number;
        match before.map(|claim| (claim.key, claim.since)) {
            Some((same, earlier)) if same == key => since = earlier,
            Some(_) => {
                self.met.push((Rule::OwnKeyChanges, entity_ref.clone()));
                self.withdraw(provider, &entity_ref);
            }
            None => {}
        }
        let claims = self.claims.entry(entity_ref).or_default();
        claims.retain(|claim| claim.provider != provider);
        claims.push(Claim { provider, key, entity, since, newest: number });
    }

    fn withdraw(&mut self, provider: &str, entity_ref: &str) {
        let Some(claims) = self.claims.get_mut(entity_ref) else { return };
        let was_shown = shown(claims).filter(|claim| claim.provider == provider).map(|claim| claim.key);
        claims.retain(|claim| claim.provider != provider);
        if let (Some(key), Some(next)) = (was_shown, shown(claims)) {
            let rule = if next.key == key { Rule::ClaimsOfOneKeyStand } else { Rule::LoserTakesOver };
            self.met.push((rule, entity_ref.to_owned()));
        }
        let was_copied = self.copied.get(entity_ref).is_some_and(|copied| copied.contains(provider));
        if was_copied && !claims.is_empty() {
            self.met.push((Rule::IdenticalClaimCounts, entity_ref.to_owned()));
        }
    }
}

/// The claim that wins: of the key that was there first the newest one; without keys the newest.
fn shown<'c, 'a>(claims: &'c [Claim<'a>]) -> Option<&'c Claim<'a>> {
    let first = claims.iter().filter(|claim| claim.key.is_some()).min_by_key(|claim| claim.since);
    let key = first.and_then(|claim| claim.key);
    claims.iter().filter(|claim| claim.key == key).max_by_key(|claim| claim.newest)
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

    fn into_entities(self) -> impl Iterator<Item = Value> {
        self.0.into_values().flatten()
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

    fn case(steps: Value) -> Case {
        serde_json::from_value(json!({ "steps": steps, "expect": {} })).unwrap()
    }

    /// Of the entity `a:default/b` in these aspects.
    fn check(steps: Value, aspects: &[Aspect], expected: Option<&str>) {
        check_of("a:default/b", steps, aspects, expected);
    }

    fn check_of(entity_ref: &str, steps: Value, aspects: &[Aspect], expected: Option<&str>) {
        let differ = |aspect: &Aspect| Difference {
            aspect: *aspect,
            entity_ref: Some(entity_ref.to_owned()),
            text: String::new(),
        };
        let differences: Vec<Difference> = aspects.iter().map(differ).collect();
        let found = reason(&purposes().unwrap(), &case(steps), &differences);
        assert_eq!(found.is_some(), expected.is_some(), "{found:?}");
        if let (Some(found), Some(expected)) = (found, expected) {
            assert!(found.contains(expected), "{found}");
        }
    }

    /// Rows of which no recorded case can show anything: what is between two settles, and what is asked of a reader.
    const ELSEWHERE: [&str; 4] =
        ["A child becomes an orphan", "Ordered by a field", "Full text without fields", "No limit on an entity"];

    #[test]
    fn the_table_and_the_rules_agree_one_to_one() {
        let text = include_str!("../../../services/README.md");
        let table = text.split("## Where we differ from Backstage").nth(1).expect("the table's heading");
        let rows = table.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
        let mut rows: Vec<&str> = rows.take_while(|line| line.starts_with("| ")).collect();
        let purposes = purposes().unwrap();
        for beginning in purposes.iter().map(|purpose| purpose.row.as_str()).chain(ELSEWHERE) {
            let row = rows.iter().position(|row| row[2..].starts_with(beginning));
            rows.remove(row.unwrap_or_else(|| panic!("no row of its own begins with: {beginning}")));
        }
        assert_eq!(rows, Vec::<&str>::new(), "rows without a rule");
    }

    #[test]
    fn a_case_is_recognized_by_its_steps() {
        use Aspect::{Entity, Error, Etag, Uid};
        let entity = |n: i64| {
            json!({ "apiVersion": "v1", "kind": "A", "spec": { "n": n }, "metadata": { "name": "b", "annotations": {
            "backstage.io/managed-by-location": "url:x", "backstage.io/managed-by-origin-location": "url:x" } } })
        };
        let upsert = |provider: &str, key: Value, n: i64| json!({ "op": "upsert", "provider": provider, "locationKey": key, "entity": entity(n) });
        let keyless = |provider: &str, n: i64| upsert(provider, json!(null), n);
        let delete = |provider: &str| json!({ "op": "delete", "provider": provider, "entityRef": "a:default/b" });
        let empty = |provider: &str| json!({ "op": "snapshot", "provider": provider, "entities": [] });
        check(json!([keyless("p", 1)]), &[Entity], None);
        // A loser differs when the winner is gone, and not before.
        let conflict = [upsert("p", json!("k"), 1), upsert("q", json!("l"), 2)];
        let [first, second] = &conflict;
        check(json!([first, second]), &[Entity], None);
        check(json!([first, second, delete("q")]), &[Entity], None);
        check(json!([first, second, delete("p")]), &[Entity, Uid, Etag], Some("loses"));
        check(json!([first, second, delete("p")]), &[Error], None);
        check(json!([first, second, empty("p")]), &[Entity], Some("loses"));
        check(json!([first, keyless("q", 2), delete("p")]), &[Entity], Some("loses"));
        check(json!([keyless("q", 2), first, delete("p")]), &[Entity], Some("loses"));
        check(json!([first, second, upsert("p", json!("m"), 1)]), &[Entity], Some("loses"));
        check_of("a:default/c", json!([first, second, delete("p")]), &[Entity], None);
        // The same of claims under one key.
        check(json!([upsert("p", json!("k"), 1), upsert("q", json!("k"), 2)]), &[Entity], None);
        check(
            json!([upsert("p", json!("k"), 1), upsert("q", json!("k"), 2), delete("q")]),
            &[Entity],
            Some("one location key"),
        );
        check(json!([keyless("p", 1), keyless("q", 2)]), &[Entity], None);
        check(json!([keyless("p", 1), keyless("q", 2), delete("p")]), &[Entity], None);
        check(json!([keyless("p", 1), keyless("q", 2), delete("q")]), &[Entity], Some("one location key"));
        check(json!([keyless("p", 1), keyless("q", 1), delete("p")]), &[Entity], Some("byte-identical"));
        check(json!([upsert("p", json!("k"), 1), upsert("p", json!("l"), 1)]), &[Uid], Some("keeps the uid"));
        check(json!([upsert("p", json!("k"), 1), upsert("p", json!("l"), 1)]), &[Uid, Entity], None);
        check(json!([upsert("p", json!(""), 1)]), &[Entity], Some("empty location key"));
        check(json!([upsert("p", json!(""), 1)]), &[Error], None);
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

    #[test]
    fn a_refresh_is_excused_where_nothing_is_there_to_refresh() {
        let entity = json!({ "apiVersion": "v1", "kind": "A", "metadata": { "name": "b" } });
        let upsert = json!({ "op": "upsert", "provider": "p", "entity": entity });
        let refresh = |named: &str| json!({ "op": "refresh", "entityRef": named });
        let refused = [Difference { aspect: Aspect::StepError, entity_ref: None, text: String::new() }];
        let check = |steps: Value, refused_steps: &[&str], expected: bool| {
            let errors: BTreeMap<_, _> = refused_steps.iter().map(|step| (*step, "NotFoundError")).collect();
            let case = serde_json::from_value(json!({ "steps": steps, "expect": { "stepErrors": errors } })).unwrap();
            assert_eq!(reason(&purposes().unwrap(), &case, &refused).is_some(), expected, "{steps}");
        };
        check(json!([upsert, refresh("a:default/nobody")]), &["1"], true);
        check(json!([upsert, refresh("a:default/b")]), &["1"], false);
        check(json!([refresh("A:default/b"), upsert]), &["0"], true);
        check(json!([upsert, refresh("a:default/nobody")]), &["0"], false);
        check(json!([upsert, refresh("a:default/nobody")]), &["0", "1"], false);
        check(json!([upsert, { "op": "refresh", "provider": "p", "keys": ["k"] }]), &["1"], false);
    }
}
