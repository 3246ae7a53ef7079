//! A long sequence of events of two providers: upserts, updates, deletes and re-adds, with and without location keys, on refs that both claim.

use crate::generate::{entity_ref, generate};
use crate::publish::Event;
use crate::random::Random;
use serde_json::{Value, json};

/// Their claims meet on some refs.
const PROVIDERS: [&str; 2] = ["shuffle-a", "shuffle-b"];
/// Upserts, of a hundred, on a ref that the other provider claims already.
const MEETING_PERCENT: u8 = 15;
/// Claims, of a hundred, with a location key.
const KEYED_PERCENT: u8 = 30;
/// Updates, of a hundred, that change the location key.
const REKEYED_PERCENT: u8 = 10;

/// How many events of each sort.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub upserts: usize,
    pub updates: usize,
    pub deletes: usize,
    pub readds: usize,
}

impl Counts {
    /// As many updates as a fifth of the upserts, deletes as a tenth, re-adds as a twentieth.
    pub fn of(upserts: usize) -> Counts {
        Counts { upserts, updates: upserts / 5, deletes: upserts / 10, readds: upserts / 20 }
    }
}

/// The sequence of a seed. Each event makes sense after those before it: what is updated or deleted is claimed then.
pub(crate) fn sequence(seed: u64, counts: Counts) -> Vec<Event> {
    let mut sorts = vec![Sort::Upsert; counts.upserts];
    sorts.extend(std::iter::repeat_n(Sort::Update, counts.updates));
    sorts.extend(std::iter::repeat_n(Sort::Delete, counts.deletes));
    sorts.extend(std::iter::repeat_n(Sort::Readd, counts.readds));
    let mut random = Random::new(seed);
    random.shuffle(&mut sorts);
    let mut author = Author {
        random,
        entities: generate(seed, counts.upserts).collect(),
        next: 0,
        claimed: Vec::new(),
        withdrawn: Vec::new(),
        step: 0,
    };
    // What has nothing to work on yet comes at the end.
    let mut events = Vec::with_capacity(sorts.len());
    let mut early = Vec::new();
    for sort in sorts {
        match author.write(sort) {
            Some(event) => events.push(event),
            None => early.push(sort),
        }
    }
    events.extend(early.into_iter().filter_map(|sort| author.write(sort)));
    events
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Upsert,
    Update,
    Delete,
    Readd,
}

/// A provider's claim on one entity.
#[derive(Clone, Debug)]
struct Claim {
    provider: usize,
    entity: usize,
    key: Option<String>,
}

struct Author {
    random: Random,
    entities: Vec<Value>,
    /// The first entity that nobody has claimed yet.
    next: usize,
    claimed: Vec<Claim>,
    withdrawn: Vec<Claim>,
    step: usize,
}

impl Author {
    fn write(&mut self, sort: Sort) -> Option<Event> {
        self.step += 1;
        match sort {
            Sort::Upsert => self.upsert(),
            Sort::Update => self.update(),
            Sort::Delete => self.delete(),
            Sort::Readd => self.readd(),
        }
    }

    /// A new ref, or the other provider's.
    fn upsert(&mut self) -> Option<Event> {
        if !self.claimed.is_empty() && self.random.percent(MEETING_PERCENT) {
            let met = self.random.one_of(&self.claimed).clone();
            let provider = 1 - met.provider;
            let is_free =
                |claims: &[Claim]| !claims.iter().any(|claim| claim.provider == provider && claim.entity == met.entity);
            if is_free(&self.claimed) && is_free(&self.withdrawn) {
                let key = self.key(met.entity);
                return Some(self.claim(Claim { provider, entity: met.entity, key }));
            }
        }
        let entity = self.next;
        if entity == self.entities.len() {
            return self.update();
        }
        self.next += 1;
        let provider = self.random.below(PROVIDERS.len());
        let key = self.key(entity);
        Some(self.claim(Claim { provider, entity, key }))
    }

    fn update(&mut self) -> Option<Event> {
        let place = self.random.below(self.claimed.len());
        let mut claim = self.claimed.get(place)?.clone();
        if self.random.percent(REKEYED_PERCENT) {
            claim.key = self.key(claim.entity);
        }
        self.claimed[place] = claim.clone();
        Some(self.event(&claim))
    }

    fn delete(&mut self) -> Option<Event> {
        if self.claimed.is_empty() {
            return None;
        }
        let claim = self.claimed.swap_remove(self.random.below(self.claimed.len()));
        let body = json!({ "entityRef": entity_ref(&self.entities[claim.entity]) });
        let event = Event::new(PROVIDERS[claim.provider], "delete", &body);
        self.withdrawn.push(claim);
        Some(event)
    }

    fn readd(&mut self) -> Option<Event> {
        if self.withdrawn.is_empty() {
            return None;
        }
        let claim = self.withdrawn.swap_remove(self.random.below(self.withdrawn.len()));
        Some(self.claim(claim))
    }

    fn claim(&mut self, claim: Claim) -> Event {
        let event = self.event(&claim);
        self.claimed.push(claim);
        event
    }

    /// What a provider says of an entity now: it names the provider and the step, so that no two events say the same.
    fn event(&mut self, claim: &Claim) -> Event {
        let mut entity = self.entities[claim.entity].clone();
        entity["metadata"]["description"] = format!("by {} at step {}", PROVIDERS[claim.provider], self.step).into();
        let mut event = Event::new(PROVIDERS[claim.provider], "upsert", &entity);
        event.location_key.clone_from(&claim.key);
        event
    }

    fn key(&mut self, entity: usize) -> Option<String> {
        let keyed = self.random.percent(KEYED_PERCENT);
        keyed.then(|| format!("url:https://git.example.com/{entity}/{}", self.random.below(3)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn the_sequence_of_a_seed_has_all_it_should() {
        let events = sequence(5, Counts::of(1000));
        assert_eq!(events, sequence(5, Counts::of(1000)));
        assert_eq!(events.len(), 1000 + 200 + 100 + 50);
        let deletes = events.iter().filter(|event| event.operation == "delete").count();
        assert_eq!(deletes, 100);
        let keyed = events.iter().filter(|event| event.location_key.is_some()).count();
        assert!((200..500).contains(&keyed), "{keyed}");
        let mut providers: HashMap<Vec<u8>, usize> = HashMap::new();
        for event in &events {
            *providers.entry(event.provider.as_bytes().to_vec()).or_default() += 1;
        }
        assert!(providers.len() == 2 && providers.values().all(|count| *count > 300), "{providers:?}");
    }

    #[test]
    fn a_short_sequence_is_one_too() {
        for upserts in 0..4 {
            assert_eq!(sequence(1, Counts::of(upserts)).len(), upserts);
        }
    }
}
