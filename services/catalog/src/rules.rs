//! Which kinds may come from which locations (Backstage's `catalog.rules`); what providers send is free of them.

use crate::location::LocationRef;
use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One rule, as configuration has it: `{allow: [Component, {kind: Resource, spec.type: database}], locations: [{type: url, pattern: "https://**/org.yaml"}]}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub allow: Vec<Allowed>,
    /// For which origins; without it, for all.
    #[serde(default)]
    pub locations: Option<Vec<Origin>>,
}

/// A kind, or a kind with a `spec.type`; case does not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Allowed {
    Kind(String),
    Typed(TypedKind),
}

/// A kind with a `spec.type`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypedKind {
    pub kind: String,
    #[serde(default, rename = "spec.type")]
    pub spec_type: Option<String>,
}

/// Origins of one type: all, the one of an exact target, or those whose target a glob pattern matches (case does not count).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    #[serde(rename = "type")]
    pub location_type: String,
    #[serde(default)]
    pub exact: Option<String>,
    #[serde(default)]
    pub pattern: Option<String>,
}

/// Rules that can be asked.
#[derive(Debug)]
pub struct Rules {
    rules: Vec<Rule>,
    /// For each rule, the patterns of its origins.
    patterns: Vec<Vec<Option<Pattern>>>,
}

/// What the targets of origins are matched with, as `minimatch` reads it.
#[derive(Debug)]
struct Pattern {
    glob: GlobMatcher,
    /// After an odd number of `!`: what does not match.
    is_negated: bool,
    /// A `#` makes it a comment, which nothing matches.
    is_comment: bool,
    ends_in_slash: bool,
}

/// Why rules cannot be used, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RuleError(String);

impl Default for Rules {
    /// Backstage's: `Component`, `API` and `Location`, from everywhere.
    fn default() -> Self {
        let allow = ["Component", "API", "Location"].map(|kind| Allowed::Kind(kind.to_owned())).to_vec();
        Rules { rules: vec![Rule { allow, locations: None }], patterns: vec![Vec::new()] }
    }
}

impl Rules {
    /// Rules in place of the default ones; none at all allow nothing.
    ///
    /// # Errors
    /// An origin with both `exact` and `pattern`, or a pattern that is none.
    pub fn new(rules: Vec<Rule>) -> Result<Self, RuleError> {
        let patterns = |rule: &Rule| rule.locations.iter().flatten().map(compile).collect::<Result<_, _>>();
        let patterns = rules.iter().map(patterns).collect::<Result<_, _>>()?;
        Ok(Rules { rules, patterns })
    }

    /// Whether an entity that came of an origin is allowed.
    pub fn allow(&self, entity: &Map<String, Value>, origin: &LocationRef) -> bool {
        self.rules.iter().zip(&self.patterns).any(|(rule, patterns)| {
            let comes_from = rule.locations.as_ref().is_none_or(|locations| {
                locations.iter().zip(patterns).any(|(location, pattern)| location.is(origin, pattern.as_ref()))
            });
            comes_from && rule.allow.iter().any(|allowed| allowed.is(entity))
        })
    }

    /// The rules as they were given.
    pub fn as_given(&self) -> &[Rule] {
        &self.rules
    }
}

fn compile(origin: &Origin) -> Result<Option<Pattern>, RuleError> {
    let Some(pattern) = origin.pattern.as_ref().filter(|pattern| !pattern.is_empty()) else {
        return Ok(None);
    };
    if origin.exact.as_ref().is_some_and(|exact| !exact.is_empty()) {
        return Err(RuleError("A catalog rule location cannot have both exact and pattern values".to_owned()));
    }
    let is_comment = pattern.starts_with('#');
    let plain = pattern.trim_start_matches('!');
    let is_negated = (pattern.len() - plain.len()) % 2 == 1;
    let plain = single_slashes(plain);
    let glob = GlobBuilder::new(&plain).case_insensitive(true).literal_separator(true).build();
    let glob = glob.map_err(|error| RuleError(format!("catalog rule: {error}")))?.compile_matcher();
    Ok(Some(Pattern { glob, is_negated, is_comment, ends_in_slash: plain.ends_with('/') }))
}

impl Pattern {
    fn is_match(&self, target: &str) -> bool {
        let target = single_slashes(target);
        let target = if self.ends_in_slash { &target } else { target.trim_end_matches('/') };
        !self.is_comment && self.glob.is_match(target) != self.is_negated
    }
}

/// Several slashes count as one, in patterns and in what they are matched with.
fn single_slashes(text: &str) -> String {
    let mut single = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter != '/' || !single.ends_with('/') {
            single.push(letter);
        }
    }
    single
}

impl Origin {
    fn is(&self, origin: &LocationRef, pattern: Option<&Pattern>) -> bool {
        let exact = self.exact.as_deref().filter(|exact| !exact.is_empty());
        self.location_type == origin.location_type
            && exact.is_none_or(|exact| exact == origin.target)
            && pattern.is_none_or(|pattern| pattern.is_match(&origin.target))
    }
}

impl Allowed {
    fn is(&self, entity: &Map<String, Value>) -> bool {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_lowercase);
        let (wanted, spec_type) = match self {
            Allowed::Kind(kind) => (kind, None),
            Allowed::Typed(typed) => (&typed.kind, typed.spec_type.as_ref().filter(|wanted| !wanted.is_empty())),
        };
        text(entity.get("kind")).is_some_and(|kind| kind == wanted.to_lowercase())
            && spec_type.is_none_or(|wanted| {
                text(entity.get("spec").and_then(|spec| spec.get("type")))
                    .is_some_and(|found| found == wanted.to_lowercase())
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(rules: Option<Value>, kind: &str, spec_type: &str, origin: &str, expected: bool) {
        let rules = match &rules {
            None => Rules::default(),
            Some(rules) => Rules::new(serde_json::from_value(rules.clone()).expect("rules")).expect("usable rules"),
        };
        let entity = json!({"kind": kind, "spec": {"type": spec_type}});
        let origin = LocationRef::parse(origin).expect("a location ref");
        let found = rules.allow(entity.as_object().expect("an object"), &origin);
        assert_eq!(found, expected, "{kind} {spec_type} from {origin} by {rules:?}");
    }

    #[test]
    fn rules() {
        for (kind, expected) in [("Component", true), ("api", true), ("Location", true), ("User", false)] {
            check(None, kind, "", "url:https://h.example/a", expected);
        }
        check(Some(json!([])), "Component", "", "url:https://h.example/a", false);
        let typed =
            Some(json!([{"allow": ["Component", {"kind": "Resource", "spec.type": "database"}, {"kind": "User"}]}]));
        check(typed.clone(), "COMPONENT", "x", "file:/a", true);
        check(typed.clone(), "resource", "DataBase", "file:/a", true);
        check(typed.clone(), "Resource", "queue", "file:/a", false);
        check(typed, "User", "", "file:/a", true);
        let located = Some(json!([
            {"allow": ["Group"], "locations": [{"type": "url", "pattern": "https://**/org.yaml"}]},
            {"allow": ["System"], "locations": [{"type": "url", "exact": "https://h.example/exact.yaml"}, {"type": "nats"}]},
        ]));
        check(located.clone(), "Group", "", "url:https://h.example/a/b/org.yaml", true);
        check(located.clone(), "Group", "", "url:HTTPS://H.example/A/ORG.yaml", true);
        check(located.clone(), "Group", "", "url:https://h.example/a/other.yaml", false);
        check(located.clone(), "Group", "", "file:https://h.example/org.yaml", false);
        check(located.clone(), "System", "", "url:https://h.example/exact.yaml", true);
        check(located.clone(), "System", "", "url:https://h.example/Exact.yaml", false);
        check(located, "System", "", "nats:catalog.events.p", true);
        let star = Some(
            json!([{"allow": ["A"], "locations": [{"type": "url", "pattern": "https://h.example/*/{a,b}.yaml"}]}]),
        );
        check(star.clone(), "A", "", "url:https://h.example/x/b.yaml", true);
        check(star.clone(), "A", "", "url:https://h.example/x/y/b.yaml", false);
        check(star, "A", "", "url:https://h.example/.x/a.yaml", true);
    }

    fn check_pattern(pattern: &str, target: &str, expected: bool) {
        let rules = json!([{"allow": ["A"], "locations": [{"type": "url", "pattern": pattern}]}]);
        check(Some(rules), "A", "", &format!("url:{target}"), expected);
    }

    #[test]
    fn patterns_are_read_as_minimatch_reads_them() {
        check_pattern("https://h/**", "https://h", false);
        check_pattern("https://h/*", "https://h/", false);
        check_pattern("https://h/*", "https://h/a/", true);
        check_pattern("https://h/a/", "https://h/a", false);
        check_pattern("https://h/[!ab].yaml", "https://h/a.yaml", false);
        check_pattern("https://h/[^ab].yaml", "https://h/c.yaml", true);
        check_pattern("https://h/{a,b/c}.yaml", "https://h/b/c.yaml", true);
        check_pattern("https://h/.*/c", "https://h/.x/c", true);
        check_pattern("https://h/\\*.yaml", "https://h/a.yaml", false);
        check_pattern("!https://h/**", "https://h/a", false);
        check_pattern("!https://h/**", "https://q/a", true);
        check_pattern("!!https://h/**", "https://h/a", true);
        check_pattern("#x", "#x", false);
    }

    #[test]
    fn bad_rules() {
        let both = json!([{"allow": ["A"], "locations": [{"type": "url", "exact": "a", "pattern": "b"}]}]);
        let error = Rules::new(serde_json::from_value(both).expect("rules")).expect_err("both");
        assert_eq!(error.to_string(), "A catalog rule location cannot have both exact and pattern values");
        let bad = json!([{"allow": ["A"], "locations": [{"type": "url", "pattern": "a["}]}]);
        assert!(Rules::new(serde_json::from_value(bad).expect("rules")).is_err());
        assert!(serde_json::from_value::<Vec<Rule>>(json!([{"alow": []}])).is_err());
        assert!(serde_json::from_value::<Vec<Rule>>(json!([{"allow": [{"kind": "A", "type": "b"}]}])).is_err());
    }
}
