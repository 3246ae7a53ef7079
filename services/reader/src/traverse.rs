//! What is reached from an entity over relations, breadth first, within bounds.

mod answer;
mod links;

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::Arc,
};

use api::{EncodedEntity, EncodedTraversal, Error, Fields, ready as v1};
use catalog::{predicate::Predicate, search::RELATIONS};
use hashbrown::HashTable;

use self::links::{Link, Target};
use crate::{
    REPLY_LIMIT,
    get::{encoded, parse_ref},
    index::{Query, ref_hash, scatter},
    memory::{Place, Stored},
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
) -> Result<EncodedTraversal, Error> {
    let entity_ref = parse_ref("ref", &request.r#ref)?;
    let mut walk = Walk::new(state, request)?;
    let hash = ref_hash(&entity_ref);
    let place = state.memory().by_hash(hash, |place, _| place);
    let start = walk.text(&entity_ref);
    walk.reach(start, hash, 0, Some(place.ok_or(Error::NotFound { what: entity_ref })?))?;
    walk.run().await?;
    Ok(walk.answer())
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
    /// The refs of nodes and of what may become one, one behind the other: that is quicker than a piece of memory for each.
    texts: String,
    nodes: Vec<Node>,
    /// The places of the nodes, by the hashes of their refs.
    places: HashTable<usize>,
    /// The types of relations that were met, as they are written.
    met: Vec<String>,
    /// Of each segment, which of them its numbers of types are; none: it is not asked for.
    numbers: HashMap<usize, Vec<Option<usize>>>,
    edges: Vec<Edge>,
    /// Edges that were found, where each can be found from both of its ends.
    known: HashSet<Edge>,
    bytes: usize,
    truncated: bool,
}

/// An entity that is reached; the fields of the answer's node, and what leads on.
struct Node {
    /// Where its ref stands in the texts.
    entity_ref: Range<usize>,
    hash: u64,
    depth: usize,
    /// Where it stands in the index; none: there is no such entity.
    place: Option<Place>,
    entity: Option<EncodedEntity>,
}

/// A relation between two nodes, by their places, of one of the types that were met.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Edge {
    source: usize,
    of_type: usize,
    target: usize,
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
            texts: String::new(),
            nodes: Vec::new(),
            places: HashTable::new(),
            met: Vec::new(),
            numbers: HashMap::new(),
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
            if self.nodes[place].depth < self.depth {
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
    fn follow(&mut self, at: usize) -> Result<(), Error> {
        let depth = self.nodes[at].depth + 1;
        let told = self.told(at);
        let Some(links) = told.and_then(|told| self.look_up(told)) else {
            return self.follow_entity(at, depth);
        };
        for Link { of_type, target, to } in links {
            if !self.look() {
                return Ok(());
            }
            let other = match to {
                Target::Node(other) => Some(other),
                Target::NoRoom => None,
                // It may have become one since, by another type.
                Target::New(place, entity_ref) => match self.place(target) {
                    Some(other) => Some(other),
                    None => self.reach(entity_ref, target, depth, Some(place))?,
                },
            };
            match other {
                Some(other) => self.connect(at, of_type, other)?,
                None => self.truncated = true,
            }
        }
        Ok(())
    }

    /// [`Walk::follow`] by what the entity says.
    fn follow_entity(&mut self, at: usize, depth: usize) -> Result<(), Error> {
        let Some(stored) = self.stored(at) else { return Ok(()) };
        let types = std::mem::take(&mut self.types);
        let mut followed = Ok(());
        let is_asked = |of_type: &str| is_asked(&types, of_type);
        stored.for_each_relation(is_asked, |of_type, target| {
            if followed.is_ok() && self.look() {
                followed = self.follow_one(at, of_type, target, depth);
            }
        });
        self.types = types;
        followed
    }

    fn follow_one(&mut self, at: usize, of_type: &str, target: &str, depth: usize) -> Result<(), Error> {
        match self.node(target, ref_hash(target), depth)? {
            Some(other) => {
                let of_type = meet(&mut self.met, of_type);
                self.connect(at, of_type, other)
            }
            None => Ok(()),
        }
    }

    /// To what names a node.
    fn follow_back(&mut self, at: usize) -> Result<(), Error> {
        let (target, depth) = (self.ref_of(at).to_owned(), self.nodes[at].depth + 1);
        let names =
            |of_type: &String| Predicate::In { key: format!("{RELATIONS}{of_type}"), values: vec![target.clone()] };
        let query = Query::of(Predicate::Any(self.types.iter().map(names).collect()));
        let mut after = String::new();
        while self.budget > 0 {
            let (sources, next) = self.state.memory().matching_after(&query, &after, SLICE);
            for source in sources {
                let hash = ref_hash(source.entity_ref());
                // Nobody needs to unpack what there is no room for.
                if self.place(hash).is_none() && self.is_full() {
                    if !self.look() {
                        return Ok(());
                    }
                    continue;
                }
                let mut types = Vec::new();
                let is_asked = |of_type: &str| is_asked(&self.types, of_type);
                source.for_each_relation(is_asked, |of_type, to| {
                    if to == target {
                        types.push(meet(&mut self.met, of_type));
                    }
                });
                for of_type in types {
                    if !self.look() {
                        return Ok(());
                    }
                    if let Some(other) = self.node(source.entity_ref(), hash, depth)? {
                        self.connect(other, of_type, at)?;
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

    /// Where an entity is among the nodes, as a new one if it is none; none: there are as many as were asked for.
    fn node(&mut self, entity_ref: &str, hash: u64, depth: usize) -> Result<Option<usize>, Error> {
        match self.place(hash) {
            Some(node) => Ok(Some(node)),
            // Nobody needs to look up what there is no room for.
            None if self.is_full() => Ok(None),
            None => {
                let place = self.state.memory().by_hash(hash, |place, _| place);
                let entity_ref = self.text(entity_ref);
                self.reach(entity_ref, hash, depth, place)
            }
        }
    }

    /// Adds a node; none: there are as many as were asked for.
    fn reach(
        &mut self,
        entity_ref: Range<usize>,
        hash: u64,
        depth: usize,
        place: Option<Place>,
    ) -> Result<Option<usize>, Error> {
        if self.is_full() {
            return Ok(None);
        }
        let at = self.nodes.len();
        let length = entity_ref.len();
        self.nodes.push(Node { entity_ref, hash, depth, place, entity: None });
        if self.include_entities {
            let entity = self.stored(at).map(|stored| encoded(&stored, self.fields.as_ref())).transpose()?;
            self.nodes[at].entity = entity;
        }
        self.spend(length + self.nodes[at].entity.as_ref().map_or(0, |entity| entity.as_bytes().len()))?;
        let nodes = &self.nodes;
        self.places.insert_unique(scatter(hash), at, |at| scatter(nodes[*at].hash));
        Ok(Some(at))
    }

    /// Where an entity is among the nodes.
    fn place(&self, hash: u64) -> Option<usize> {
        self.places.find(scatter(hash), |at| self.nodes[*at].hash == hash).copied()
    }

    fn ref_of(&self, node: usize) -> &str {
        &self.texts[self.nodes[node].entity_ref.clone()]
    }

    fn stored(&self, node: usize) -> Option<Arc<Stored>> {
        self.state.memory().by_hash(self.nodes[node].hash, |_, stored| stored.clone())
    }

    fn text(&mut self, entity_ref: &str) -> Range<usize> {
        let start = self.texts.len();
        self.texts.push_str(entity_ref);
        start..self.texts.len()
    }

    fn connect(&mut self, source: usize, of_type: usize, target: usize) -> Result<(), Error> {
        let edge = Edge { source, of_type, target };
        if self.incoming && self.outgoing && !self.known.insert(edge) {
            return Ok(());
        }
        self.edges.push(edge);
        self.spend(self.edge_texts(edge).map(str::len).iter().sum())
    }

    fn edge_texts(&self, Edge { source, of_type, target }: Edge) -> [&str; 3] {
        [self.ref_of(source), &self.met[of_type], self.ref_of(target)]
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

/// The number of a type among those that were met.
fn meet(met: &mut Vec<String>, of_type: &str) -> usize {
    met.iter().position(|known| known == of_type).unwrap_or_else(|| {
        met.push(of_type.to_owned());
        met.len() - 1
    })
}
