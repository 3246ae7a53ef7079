//! A synthetic catalog, shaped like real ones: its kinds in their shares, its owners, systems and dependencies with skew.

use crate::random::Random;
use crate::shape;
use catalog::entity_ref::EntityRef;
use serde_json::Value;

/// The entities of `0..n` under a seed, as one would write them in `catalog-info.yaml`. The same seed gives the same bytes,
/// for ever; a smaller `n` gives the same refs with relations among fewer of them. Nothing is held in memory.
///
/// Of a hundred: 70 Component, 10 API, 6 Resource, 5 System, 5 User, 3 Group (a tree), 1 Domain, in a mixed order; about
/// 1.3 KB of JSON each, about 10 relations each counting both ends, one reference in a hundred dangling, two namespaces.
pub fn generate(seed: u64, n: usize) -> impl Iterator<Item = Value> + Send {
    entities(Layout::new(seed, n), n)
}

fn entities(layout: Layout, n: usize) -> impl Iterator<Item = Value> + Send {
    (0..n).map(move |place| {
        let (kind, index) = layout.at(place);
        shape::entity(&layout, kind, index)
    })
}

/// A synthetic catalog, as it is asked for.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Catalog {
    /// How many entities
    #[arg(long, value_name = "COUNT", default_value = "10000")]
    pub entities: usize,
    /// What they are: the same seed gives the same bytes
    #[arg(long, default_value = "1")]
    pub seed: u64,
    /// About 40 relations an entity, counting both ends, instead of 10
    #[arg(long)]
    pub dense: bool,
    /// Components that one group owns, besides what it owns by chance
    #[arg(long, value_name = "COUNT", default_value = "0")]
    pub hot: usize,
}

impl Catalog {
    /// An ordinary one.
    pub fn plain(seed: u64, entities: usize) -> Catalog {
        Catalog { entities, seed, dense: false, hot: 0 }
    }

    /// Its entities.
    pub fn generate(&self) -> impl Iterator<Item = Value> + Send + use<> {
        let layout = Layout { dense: self.dense, hot: self.hot, ..Layout::new(self.seed, self.entities) };
        entities(layout, self.entities)
    }
}

impl std::fmt::Display for Catalog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} entities of seed {}", self.entities, self.seed)?;
        if self.dense {
            formatter.write_str(", dense")?;
        }
        match self.hot {
            0 => Ok(()),
            hot => write!(formatter, ", {hot} of one group"),
        }
    }
}

/// The ref of a generated entity.
pub(crate) fn entity_ref(entity: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &entity["metadata"];
    EntityRef::of(&text(&entity["kind"]), &text(&metadata["namespace"]), &text(&metadata["name"])).to_string()
}

/// The ref of the entity at a place, without making the entity.
pub(crate) fn ref_at(layout: &Layout, place: usize) -> String {
    let (kind, index) = layout.at(place);
    let (namespace, name) = shape::identity(layout, kind, index);
    EntityRef::of(kind.name(), namespace, &name).to_string()
}

/// The kinds that are generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Group,
    Domain,
    System,
    User,
    Resource,
    Api,
    Component,
}

/// Each kind, how often it stands among a hundred entities, and as Backstage writes it.
const KINDS: [(Kind, usize, &str); 7] = [
    (Kind::Group, 3, "Group"),
    (Kind::Domain, 1, "Domain"),
    (Kind::System, 5, "System"),
    (Kind::User, 5, "User"),
    (Kind::Resource, 6, "Resource"),
    (Kind::Api, 10, "API"),
    (Kind::Component, 70, "Component"),
];
const ROUND: usize = 100;
/// Coprime with [`ROUND`]: the kinds of a round are spread over it.
const STRIDE: usize = 37;

impl Kind {
    pub fn name(self) -> &'static str {
        KINDS[self as usize].2
    }
}

/// Which entity stands where, so that any one can be made, or named, without the others.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub seed: u64,
    counts: [usize; KINDS.len()],
    /// For each place of a round its kind, and how many of that kind stand before it.
    round: [(Kind, usize); ROUND],
    /// Components name many others.
    pub dense: bool,
    /// The first so many Components belong to the first group.
    pub hot: usize,
}

impl Layout {
    pub fn new(seed: u64, n: usize) -> Layout {
        let mut kinds = KINDS.iter().flat_map(|(kind, share, _)| std::iter::repeat_n(*kind, *share));
        let mut round = [(Kind::Component, 0); ROUND];
        for step in 0..ROUND {
            round[step * STRIDE % ROUND].0 = kinds.next().unwrap_or(Kind::Component);
        }
        let mut seen = [0; KINDS.len()];
        for (kind, rank) in &mut round {
            *rank = seen[*kind as usize];
            seen[*kind as usize] += 1;
        }
        let mut layout = Layout { seed, counts: [0; KINDS.len()], round, dense: false, hot: 0 };
        let (rounds, rest) = (n / ROUND, n % ROUND);
        for (kind, share, _) in KINDS {
            let in_rest = round[..rest].iter().filter(|(of, _)| *of == kind).count();
            layout.counts[kind as usize] = rounds * share + in_rest;
        }
        layout
    }

    /// How many there are of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.counts[kind as usize]
    }

    /// The kind at a place, and which of its kind it is.
    pub fn at(&self, place: usize) -> (Kind, usize) {
        let (kind, rank) = self.round[place % ROUND];
        (kind, place / ROUND * KINDS[kind as usize].1 + rank)
    }

    /// What is random about one entity.
    pub fn random(&self, kind: Kind, index: usize) -> Random {
        Random::at(self.seed, (kind as u64) << 48 | index as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use catalog::entity::{Limits, parse_entity};
    use catalog::hash::content_hash;
    use catalog::process::{Model, process};
    use std::collections::{BTreeMap, HashSet};

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let bytes = |seed, n| serde_json::to_vec(&generate(seed, n).collect::<Vec<_>>()).unwrap();
        assert_eq!(bytes(1, 500), bytes(1, 500));
        assert_ne!(bytes(1, 500), bytes(2, 500));
        let all: Value = generate(42, 300).collect();
        assert_eq!(
            content_hash(&all),
            "bdf7cecfcb8e7220b15608c48dac293bf2d9f57213aee2487ba808eae8f0cd91",
            "a change of the generator changes every figure that was measured with it"
        );
    }

    #[test]
    fn an_entity_is_named_without_being_made() {
        let layout = Layout::new(9, 250);
        for (place, entity) in generate(9, 250).enumerate() {
            assert_eq!(ref_at(&layout, place), entity_ref(&entity));
        }
    }

    #[test]
    fn a_round_has_each_kind_in_its_share() {
        for n in [0, 1, 7, 100, 1234] {
            let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
            for entity in generate(1, n) {
                *kinds.entry(entity["kind"].as_str().unwrap().to_owned()).or_default() += 1;
            }
            let layout = Layout::new(1, n);
            for (kind, share, name) in KINDS {
                let found = kinds.get(name).copied().unwrap_or(0);
                assert_eq!(found, layout.count(kind), "{name} of {n}");
                assert!(found >= n / ROUND * share, "{name} of {n}");
            }
        }
    }

    fn edges(catalog: Catalog) -> Vec<String> {
        let model = Model::builtin();
        let foreign = catalog.generate().flat_map(|entity| {
            let parsed = parse_entity(entity.to_string().as_bytes(), &Limits::default()).unwrap();
            process(&model, &parsed, "catalog.events.loadtest").unwrap().foreign
        });
        foreign.map(|relation| relation.source_ref).collect()
    }

    #[test]
    fn a_dense_catalog_has_forty_relations_an_entity_and_a_hot_group_its_members() {
        let both_ends = 2.0 * edges(Catalog { dense: true, ..Catalog::plain(3, 2000) }).len() as f64 / 2000.0;
        assert!((38.0..42.0).contains(&both_ends), "{both_ends} relations an entity");
        let mut named: BTreeMap<String, usize> = BTreeMap::new();
        for subject in edges(Catalog { hot: 1000, ..Catalog::plain(3, 2000) }) {
            *named.entry(subject).or_default() += 1;
        }
        assert!(*named.values().max().unwrap() >= 1000);
    }

    #[test]
    fn the_catalog_is_accepted_and_shaped_like_real_ones() {
        const N: usize = 5000;
        let model = Model::builtin();
        let (mut bytes, mut edges, mut dangling) = (0, 0, 0);
        let mut refs = HashSet::new();
        let mut targets = Vec::new();
        for entity in generate(11, N) {
            let json = serde_json::to_vec(&entity).unwrap();
            let parsed = parse_entity(&json, &Limits::default()).unwrap();
            let processed = process(&model, &parsed, "catalog.events.loadtest").unwrap();
            bytes += json.len();
            edges += processed.foreign.len();
            targets.extend(processed.foreign.into_iter().map(|relation| relation.source_ref));
            assert!(refs.insert(parsed.entity_ref.to_string()), "{} twice", parsed.entity_ref);
        }
        dangling += targets.iter().filter(|target| !refs.contains(*target)).count();
        let mean = |sum: usize| sum as f64 / N as f64;
        assert!((1200.0..1400.0).contains(&mean(bytes)), "{} bytes an entity", mean(bytes));
        assert!((9.0..11.0).contains(&(2.0 * mean(edges))), "{} relations an entity", 2.0 * mean(edges));
        let share = dangling as f64 / edges as f64;
        assert!((0.005..0.015).contains(&share), "{share} of the references dangle");
    }
}
