//! What is reached from an entity over relations, breadth first, within bounds.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use api::{Error, Fields, ready as v1};
use catalog::predicate::Predicate;
use hashbrown::HashTable;
use v1::traverse_relations_response::{Edge, Node};

use crate::{
    REPLY_LIMIT,
    get::{encoded, parse_ref},
    index::Query,
    memory::Stored,
    pace::Pace,
    state::State,
};

/// Relations away at most, and where the request says nothing.
const DEPTH: Bound = Bound { field: "max_depth", most: 100, otherwise: 1 };
/// Entities to answer.
const NODES: Bound = Bound { field: "limit", most: 10_000, otherwise: 1000 };
/// Relations to look at.
const BUDGET: Bound = Bound { field: "budget", most: 1_000_000, otherwise: 100_000 };
/// Relation types in one request.
const TYPES: usize = 50;
/// What an edge or a node costs in the reply beside its texts.
const FRAME_BYTES: usize = 16;
/// Entities that name one entity and are taken at a time.
const SLICE: usize = 256;

/// TraverseRelations.
pub(crate) async fn traverse_relations(
    state: &State,
    request: &v1::TraverseRelationsRequest,
) -> Result<v1::TraverseRelationsResponse, Error> {
    let entity_ref = parse_ref("ref", &request.r#ref)?;
    let mut walk = Walk::new(state, request)?;
    let start = state.memory().by_ref(&entity_ref).ok_or_else(|| Error::NotFound { what: entity_ref.clone() })?;
    walk.reach(&entity_ref, 0, Some(start))?;
    walk.run().await?;
    Ok(v1::TraverseRelationsResponse { nodes: walk.nodes, edges: walk.edges, truncated: walk.truncated })
}

/// A number of the request that has a most, and a meaning when it is 0.
struct Bound {
    field: &'static str,
    most: i32,
    otherwise: usize,
}

impl Bound {
    fn read(&self, asked: i32) -> Result<usize, Error> {
        match usize::try_from(asked) {
            Ok(0) => Ok(self.otherwise),
            Ok(number) if asked <= self.most => Ok(number),
            _ => Err(Error::invalid(self.field, format!("expected 0 to {}, found {asked}", self.most))),
        }
    }
}

struct Walk<'a> {
    state: &'a State,
    /// Lower-cased; none: all.
    types: Vec<String>,
    outgoing: bool,
    incoming: bool,
    depth: usize,
    limit: usize,
    budget: usize,
    include_entities: bool,
    fields: Option<Fields>,
    nodes: Vec<Node>,
    /// What each node is, in the order of the nodes.
    held: Vec<Option<Arc<Stored>>>,
    /// The places of the nodes, by their refs.
    places: HashTable<usize>,
    hasher: RandomState,
    edges: Vec<Edge>,
    /// Edges that were found, where each can be found from both of its ends.
    known: HashSet<(usize, String, usize)>,
    bytes: usize,
    truncated: bool,
}

impl<'a> Walk<'a> {
    fn new(state: &'a State, request: &v1::TraverseRelationsRequest) -> Result<Walk<'a>, Error> {
        let direction = v1::Direction::try_from(request.direction).map_err(|_| {
            let reason = format!("expected a Direction of the contract, found {}", request.direction);
            Error::invalid("direction", reason)
        })?;
        let types: Vec<String> = request.relation_types.iter().map(|of_type| of_type.to_lowercase()).collect();
        if types.len() > TYPES {
            let reason = format!("expected at most {TYPES}, found {}", types.len());
            return Err(Error::invalid("relation_types", reason));
        }
        let incoming = matches!(direction, v1::Direction::Incoming | v1::Direction::Both);
        if incoming && types.is_empty() {
            let reason = "expected the types to follow against their direction, found none";
            return Err(Error::invalid("relation_types", reason));
        }
        Ok(Walk {
            state,
            types,
            outgoing: direction != v1::Direction::Incoming,
            incoming,
            depth: DEPTH.read(request.max_depth)?,
            limit: NODES.read(request.limit)?,
            budget: BUDGET.read(request.budget)?,
            include_entities: request.include_entities,
            fields: Fields::parse(&request.fields)?,
            nodes: Vec::new(),
            held: Vec::new(),
            places: HashTable::new(),
            hasher: RandomState::new(),
            edges: Vec::new(),
            known: HashSet::new(),
            bytes: 0,
            truncated: false,
        })
    }

    async fn run(&mut self) -> Result<(), Error> {
        let mut pace = Pace::new();
        let mut place = 0;
        while place < self.nodes.len() && self.budget > 0 {
            if (self.nodes[place].depth as usize) < self.depth {
                if self.outgoing {
                    self.follow(place)?;
                }
                if self.incoming {
                    self.follow_back(place)?;
                }
            }
            place += 1;
            pace.breathe().await;
        }
        // With nothing left to look at, there may have been more.
        self.truncated |= self.budget == 0;
        Ok(())
    }

    /// To what a node names.
    fn follow(&mut self, place: usize) -> Result<(), Error> {
        let Some(stored) = self.held[place].clone() else { return Ok(()) };
        let depth = self.nodes[place].depth as usize + 1;
        let types = std::mem::take(&mut self.types);
        let mut followed = Ok(());
        let is_asked = |of_type: &str| is_asked(&types, of_type);
        stored.for_each_relation(is_asked, |of_type, target| {
            if followed.is_ok() && self.look() {
                followed = self.follow_one(place, of_type, target, depth);
            }
        });
        self.types = types;
        followed
    }

    fn follow_one(&mut self, place: usize, of_type: &str, target: &str, depth: usize) -> Result<(), Error> {
        let other = match self.place(target) {
            Some(other) => Some(other),
            // Nobody needs to look up what there is no room for.
            None if self.is_full() => None,
            None => {
                let stored = self.state.memory().by_ref(target);
                self.reach(target, depth, stored)?
            }
        };
        match other {
            Some(other) => self.connect(place, of_type, other),
            None => Ok(()),
        }
    }

    /// To what names a node.
    fn follow_back(&mut self, place: usize) -> Result<(), Error> {
        let (target, depth) = (self.nodes[place].r#ref.clone(), self.nodes[place].depth as usize + 1);
        let names =
            |of_type: &String| Predicate::In { key: format!("relations.{of_type}"), values: vec![target.clone()] };
        let query = Query::of(Predicate::Any(self.types.iter().map(names).collect()));
        let mut after = String::new();
        while self.budget > 0 {
            let (sources, next) = self.state.memory().matching_after(&query, &after, SLICE);
            for source in sources {
                // Nobody needs to unpack what there is no room for.
                if self.place(source.entity_ref()).is_none() && self.is_full() {
                    if !self.look() {
                        return Ok(());
                    }
                    continue;
                }
                let mut types = Vec::new();
                let is_asked = |of_type: &str| is_asked(&self.types, of_type);
                source.for_each_relation(is_asked, |of_type, to| {
                    if to == target {
                        types.push(of_type.to_owned());
                    }
                });
                for of_type in types {
                    if !self.look() {
                        return Ok(());
                    }
                    let other = match self.place(source.entity_ref()) {
                        Some(other) => Some(other),
                        None => self.reach(source.entity_ref(), depth, Some(source.clone()))?,
                    };
                    if let Some(other) = other {
                        self.connect(other, &of_type, place)?;
                    }
                }
            }
            match next {
                Some(next) => after = next,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// One relation is looked at; false: no more may be.
    fn look(&mut self) -> bool {
        self.truncated |= self.budget == 0;
        let may = self.budget > 0;
        self.budget = self.budget.saturating_sub(1);
        may
    }

    /// Whether there are as many nodes as were asked for, when one more is at hand.
    fn is_full(&mut self) -> bool {
        let is_full = self.nodes.len() == self.limit;
        self.truncated |= is_full;
        is_full
    }

    /// Adds a node; none: there are as many as were asked for.
    fn reach(&mut self, entity_ref: &str, depth: usize, stored: Option<Arc<Stored>>) -> Result<Option<usize>, Error> {
        if self.is_full() {
            return Ok(None);
        }
        let entity = stored.as_ref().filter(|_| self.include_entities);
        let entity = entity.map(|stored| encoded(stored, self.fields.as_ref())).transpose()?;
        self.spend(entity_ref.len() + entity.as_ref().map_or(0, |entity| entity.as_bytes().len()))?;
        let place = self.nodes.len();
        let exists = stored.is_some();
        self.nodes.push(Node { r#ref: entity_ref.to_owned(), depth: depth as i32, entity, exists });
        self.held.push(stored);
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        let hash = |place: &usize| hasher.hash_one(nodes[*place].r#ref.as_str());
        self.places.insert_unique(hash(&place), place, hash);
        Ok(Some(place))
    }

    /// Where an entity is among the nodes.
    fn place(&self, entity_ref: &str) -> Option<usize> {
        let is_it = |place: &usize| self.nodes[*place].r#ref == entity_ref;
        self.places.find(self.hasher.hash_one(entity_ref), is_it).copied()
    }

    fn connect(&mut self, source: usize, of_type: &str, target: usize) -> Result<(), Error> {
        if self.incoming && self.outgoing && !self.known.insert((source, of_type.to_owned(), target)) {
            return Ok(());
        }
        let (source_ref, target_ref) = (self.nodes[source].r#ref.clone(), self.nodes[target].r#ref.clone());
        self.spend(source_ref.len() + of_type.len() + target_ref.len())?;
        self.edges.push(Edge { source_ref, r#type: of_type.to_owned(), target_ref });
        Ok(())
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Error> {
        self.bytes += bytes + FRAME_BYTES;
        match self.bytes > REPLY_LIMIT {
            true => Err(Error::ReplyTooLarge { limit: REPLY_LIMIT }),
            false => Ok(()),
        }
    }
}

/// Whether a type is among the lower-cased ones; of none, each is.
fn is_asked(types: &[String], of_type: &str) -> bool {
    types.is_empty() || types.iter().any(|asked| asked.eq_ignore_ascii_case(of_type))
}
