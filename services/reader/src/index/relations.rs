//! How the rows of a segment's documents tell their relations, so that whoever goes from entity to entity need not unpack them.
//!
//! A relation's row is hidden: its text is nowhere. But in the place of its hash it has a word of which the number of its type and the hash of its target can be read.

use super::hash::{ref_hash, relation_of, relation_word};

/// What the keys of relations begin with.
pub use catalog::search::RELATIONS;

/// Types of a segment's relations with a number at most; real catalogs have about twelve.
const TYPES: usize = 127;
/// In the place of a type's number: rows do not tell all relations of the document, the entity does.
const UNTOLD: u8 = TYPES as u8;

/// The word of the row of such documents.
pub const UNTOLD_WORD: u64 = relation_word(UNTOLD, 0);

/// The types of a segment's relations, by number. They stay.
#[derive(Debug, Default)]
pub struct RelationTypes(Vec<RelationType>);

#[derive(Debug)]
struct RelationType {
    /// Lower-case.
    key: Box<str>,
    /// As the first who had it wrote it. Rows of who writes it otherwise do not tell it.
    name: Box<str>,
}

/// What a row tells of relations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// One: the number of its type and the hash of its target.
    Relation(u8, u64),
    /// That the document has others, which only the entity tells.
    Untold,
}

impl Told {
    /// What a hidden row's word tells, if it is not a row's hash.
    pub fn of_word(word: u64) -> Option<Told> {
        relation_of(word).map(|(number, target)| match number {
            UNTOLD => Told::Untold,
            number => Told::Relation(number, target),
        })
    }
}

impl RelationTypes {
    /// The word of a relation's row under a key with this number.
    pub fn word(number: u8, target: &str) -> u64 {
        relation_word(number, ref_hash(target))
    }

    /// The number of a key of relations (lower-case), if it has one: then all its rows have words.
    pub fn number(&self, key: &str) -> Option<u8> {
        self.0.iter().position(|known| *known.key == *key).map(|number| number as u8)
    }

    /// The same; a new one gets a number as long as there are some. `name` is the type as its source wrote it.
    pub fn intern(&mut self, key: &str, name: &str) -> Option<u8> {
        self.number(key).or_else(|| {
            let has_room = self.0.len() < TYPES && key.starts_with(RELATIONS);
            has_room.then(|| {
                self.0.push(RelationType { key: key.into(), name: name.into() });
                (self.0.len() - 1) as u8
            })
        })
    }

    /// The type of a number.
    pub fn name(&self, number: u8) -> &str {
        self.0.get(usize::from(number)).map_or("", |known| &known.name)
    }

    /// Key and type of each, in the order of their numbers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|known| (&*known.key, &*known.name))
    }
}
