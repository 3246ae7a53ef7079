//! One generated entity: what it is called, whom it names, what else stands in it.

use crate::generate::{Kind, Layout};
use crate::random::Random;
use serde_json::{Map, Value, json};

/// References, of a hundred, that name nothing.
const DANGLING_PERCENT: u8 = 1;
/// Groups below one group.
const GROUP_CHILDREN: usize = 8;

const AREAS: [&str; 12] = [
    "billing", "search", "checkout", "identity", "catalog", "shipping", "pricing", "media", "risk", "support",
    "ledger", "mobile",
];
const THINGS: [&str; 12] = [
    "service", "worker", "gateway", "portal", "importer", "store", "sync", "engine", "site", "library", "relay",
    "monitor",
];
const WORDS: [&str; 24] = [
    "keeps", "orders", "of", "every", "customer", "and", "sends", "events", "to", "the", "teams", "that", "own",
    "them", "with", "retries", "in", "each", "region", "for", "reports", "about", "payments", "daily",
];
const LIFECYCLES: [&str; 5] = ["production", "production", "production", "experimental", "deprecated"];
const LANGUAGES: [&str; 6] = ["java", "go", "rust", "typescript", "python", "kotlin"];

/// The entity of a kind and index.
pub(crate) fn entity(layout: &Layout, kind: Kind, index: usize) -> Value {
    let random = layout.random(kind, index);
    let (namespace, name) = identity(layout, kind, index);
    let mut author = Author { layout, random, kind, index, namespace };
    let spec = author.spec();
    json!({
        "apiVersion": "backstage.io/v1alpha1",
        "kind": kind.name(),
        "metadata": author.metadata(&name),
        "spec": spec,
    })
}

/// Namespace and name; the same wherever the entity is named.
pub(crate) fn identity(layout: &Layout, kind: Kind, index: usize) -> (&'static str, String) {
    let mut random = Random::at(!layout.seed, (kind as u64) << 48 | index as u64);
    let namespace = if random.percent(20) { "platform" } else { "default" };
    let area = random.one_of(&AREAS);
    let name = match kind {
        Kind::Group => format!("{area}-team-{index}"),
        Kind::Domain => format!("{area}-{index}"),
        Kind::System => format!("{area}-system-{index}"),
        Kind::User => format!("user.{index}"),
        Kind::Resource => format!("{area}-db-{index}"),
        Kind::Api => format!("{area}-api-{index}"),
        Kind::Component => format!("{area}-{}-{index}", random.one_of(&THINGS)),
    };
    (namespace, name)
}

/// Writes one entity.
struct Author<'a> {
    layout: &'a Layout,
    random: Random,
    kind: Kind,
    index: usize,
    namespace: &'static str,
}

impl Author<'_> {
    fn spec(&mut self) -> Value {
        match self.kind {
            Kind::Group => self.group(),
            Kind::Domain => json!({ "owner": self.name(Kind::Group) }),
            Kind::System => json!({ "owner": self.name(Kind::Group), "domain": self.name(Kind::Domain) }),
            Kind::User => self.user(),
            Kind::Resource => self.resource(),
            Kind::Api => self.api(),
            Kind::Component => self.component(),
        }
    }

    /// The group with this index is the child of one before it: a tree with one root.
    fn group(&mut self) -> Value {
        let title = format!("{} {}", self.random.one_of(&AREAS), self.index);
        let mut spec = json!({ "type": "team", "profile": { "displayName": title, "email": format!("team-{}@example.com", self.index) }, "children": [] });
        if self.index > 0 {
            spec["parent"] = self.name_of(Kind::Group, (self.index - 1) / GROUP_CHILDREN, false).into();
        }
        spec
    }

    fn user(&mut self) -> Value {
        let profile = json!({ "displayName": format!("User {}", self.index), "email": format!("user.{}@example.com", self.index) });
        json!({ "profile": profile, "memberOf": self.names(Kind::Group, 1, 2) })
    }

    fn resource(&mut self) -> Value {
        json!({
            "type": "database",
            "owner": self.name(Kind::Group),
            "system": self.name(Kind::System),
            "dependsOn": self.names(Kind::Resource, 0, 1),
        })
    }

    fn api(&mut self) -> Value {
        let paths: Map<String, Value> = (0..3 + self.random.below(6))
            .map(|path| (format!("/v1/{}/{path}", self.random.one_of(&AREAS)), self.operation()))
            .collect();
        let definition =
            json!({ "openapi": "3.1.0", "info": { "title": self.words(3), "version": "1.0.0" }, "paths": paths });
        json!({
            "type": "openapi",
            "lifecycle": self.random.one_of(&LIFECYCLES),
            "owner": self.name(Kind::Group),
            "system": self.name(Kind::System),
            "definition": definition.to_string(),
        })
    }

    fn operation(&mut self) -> Value {
        json!({ "get": { "summary": self.words(6), "responses": { "200": { "description": self.words(8) } } } })
    }

    fn component(&mut self) -> Value {
        let (least, most, apis) = if self.layout.dense { (18, 25, 8) } else { (0, 4, 3) };
        let mut depends_on = self.names(Kind::Component, least, most);
        depends_on.extend(self.names(Kind::Resource, 0, 1));
        let mut spec = json!({
            "type": self.random.one_of(&THINGS),
            "lifecycle": self.random.one_of(&LIFECYCLES),
            "owner": self.owner(),
            "dependsOn": depends_on,
            "consumesApis": self.names(Kind::Api, 0, apis),
        });
        if self.random.percent(90) {
            spec["system"] = self.name(Kind::System).into();
        }
        if self.random.percent(20) {
            spec["providesApis"] = self.names(Kind::Api, 1, 1).into();
        }
        if self.random.percent(5) {
            spec["subcomponentOf"] = self.name(Kind::Component).into();
        }
        spec
    }

    /// Who owns a Component: of the first ones the first group, as many as are to be its members.
    fn owner(&mut self) -> String {
        let owner = self.name(Kind::Group);
        match self.index < self.layout.hot && self.layout.count(Kind::Group) > 0 {
            true => self.name_of(Kind::Group, 0, false),
            false => owner,
        }
    }

    fn metadata(&mut self, name: &str) -> Value {
        let place = format!("https://git.example.com/{}/{name}", self.random.one_of(&AREAS));
        let location = format!("url:{place}/blob/main/catalog-info.yaml");
        let mut metadata = json!({
            "namespace": self.namespace,
            "name": name,
            "title": name.replace(['-', '.'], " "),
            "description": self.words(36),
            "annotations": {
                "backstage.io/managed-by-location": location,
                "backstage.io/managed-by-origin-location": location,
            },
            "labels": { "tier": format!("tier-{}", self.random.below(4)), "region": format!("region-{}", self.random.below(9)) },
            "tags": [self.random.one_of(&LANGUAGES), self.random.one_of(&AREAS)],
        });
        if self.kind == Kind::Component {
            metadata["annotations"]["example.com/source-slug"] =
                format!("{}/{name}", self.random.one_of(&AREAS)).into();
            metadata["annotations"]["example.com/dashboard"] =
                format!("https://dashboards.example.com/d/{:016x}", self.random.number()).into();
            metadata["links"] = json!([
                { "url": format!("https://runbooks.example.com/{name}"), "title": self.words(3), "icon": "docs" },
                { "url": format!("https://alerts.example.com/{name}"), "title": self.words(2), "icon": "alert" },
            ]);
        }
        metadata
    }

    fn words(&mut self, count: usize) -> String {
        let words: Vec<&str> = (0..count).map(|_| *self.random.one_of(&WORDS)).collect();
        words.join(" ")
    }

    /// From `least` to `most` different entities of a kind, each number as likely.
    fn names(&mut self, kind: Kind, least: usize, most: usize) -> Vec<String> {
        let count = least + self.random.below(most - least + 1);
        let mut names: Vec<String> = (0..count).map(|_| self.name(kind)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// How this entity names one of a kind, popular ones more often; in one of a hundred cases there is none of that name.
    fn name(&mut self, kind: Kind) -> String {
        let count = self.layout.count(kind);
        let dangling = self.random.percent(DANGLING_PERCENT) || count == 0;
        let mut index = self.random.skewed(count);
        if kind == self.kind && index == self.index {
            // Nothing depends on itself.
            index = (index + 1) % count.max(1);
        }
        self.name_of(kind, index, dangling)
    }

    fn name_of(&self, kind: Kind, index: usize, dangling: bool) -> String {
        let (namespace, mut name) = identity(self.layout, kind, index);
        if dangling {
            name = format!("gone-{index}");
        }
        let namespace = if namespace == self.namespace { String::new() } else { format!("{namespace}/") };
        match kind {
            // Under `dependsOn` a reference has to say its kind.
            Kind::Component | Kind::Resource => format!("{}:{namespace}{name}", kind.name().to_lowercase()),
            _ => format!("{namespace}{name}"),
        }
    }
}
