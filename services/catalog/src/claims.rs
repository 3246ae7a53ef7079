//! How the claims on one entity merge: each source's events folded in revision order, and the winner among the sources.
//!
//! An entity is a set of claims, one per source (what emitted it: a provider, later also a parent entity). Events may
//! arrive in any order and more than once; inserting them here is commutative and idempotent, so any order of arrival gives
//! what the order of revisions gives.

use crate::planted;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Where an event stands in the one order of all events. Unique to the event.
pub type Revision = i64;

/// What an event does to its source's claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// The source says: this is the entity.
    Claim {
        /// The location key under which it says so (Backstage's `locationKey`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// Whether processing its content succeeded.
        good: bool,
    },
    /// The source says: not from me any more.
    Withdrawal,
    /// A parent entity has stopped emitting it and nobody else claims it: what it said stands as an orphan, until somebody says more.
    Release,
}

/// An event of a source that is not settled yet, so that others before it may still arrive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The event's revision.
    #[serde(rename = "r")]
    pub revision: Revision,
    /// What it does.
    #[serde(rename = "o")]
    pub operation: Operation,
}

/// A source's claim as its events so far, in order, make it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Revision of the newest event.
    pub newest: Revision,
    /// Its location key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Revision of the newest content, since the last withdrawal, whose processing succeeded. It is what is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good: Option<Revision>,
    /// From which revision on the source has claimed with a key, without a break.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Revision>,
    /// The source has let go of it: it stands as an orphan.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub released: bool,
}

impl Standing {
    /// Whether the newest event's processing has not succeeded: it failed, or its outside reads are outstanding.
    pub fn failed(&self) -> bool {
        self.good != Some(self.newest)
    }
}

/// One source's claim: what its settled events make of it, and its events above the floor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The fold of the settled events; none: no claim, or withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settled: Option<Standing>,
    /// Events above the floor, in revision order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    heads: Vec<Head>,
}

impl Claim {
    /// The claim as it stands; none: withdrawn.
    pub fn standing(&self) -> Option<Standing> {
        self.heads.iter().fold(self.settled.clone(), apply)
    }

    /// The claim as the events up to a revision make it; what is settled already counts as a whole.
    pub fn standing_at(&self, last: Revision) -> Option<Standing> {
        self.heads.iter().take_while(|head| head.revision <= last).fold(self.settled.clone(), apply)
    }

    /// Whether a snapshot that began and ended at these revisions withdraws it: the source claimed it before, and said nothing of it meanwhile.
    pub fn is_swept_by(&self, begun: Revision, ended: Revision) -> bool {
        self.standing_at(ended).is_some_and(|standing| standing.newest < begun)
    }

    /// Whether it may be forgotten once everything up to the floor is: withdrawn, and every event of it settled.
    pub fn is_forgettable(&self) -> bool {
        self.settled.is_none() && self.heads.is_empty()
    }

    /// Revision of the newest event above the floor.
    pub fn newest_head(&self) -> Option<Revision> {
        self.heads.last().map(|head| head.revision)
    }

    fn insert(&mut self, mut head: Head) -> bool {
        if planted::is("merge-by-arrival") {
            head.revision = head.revision.max(self.newest_head().unwrap_or_default() + 1);
        }
        match self.heads.binary_search_by_key(&head.revision, |known| known.revision) {
            Ok(_) => false,
            Err(place) => {
                self.heads.insert(place, head);
                true
            }
        }
    }

    /// Inserts an emission in place of one of the same revision; behind a withdrawal of that revision, which may be an operator's removal, it begins anew.
    fn replace(&mut self, mut head: Head) {
        let mut place = self.heads.partition_point(|known| known.revision <= head.revision);
        let replaced = place.checked_sub(1).map(|last| &self.heads[last]);
        if let Some(Head { operation, .. }) = replaced.filter(|known| known.revision == head.revision) {
            let begins_anew = *operation == Operation::Withdrawal && head.operation != Operation::Withdrawal;
            if let (Operation::Claim { good: true, .. }, Operation::Claim { good, .. }) =
                (operation, &mut head.operation)
            {
                *good = true;
            }
            if !begins_anew {
                place -= 1;
                self.heads.remove(place);
            }
        }
        self.heads.insert(place, head);
    }

    /// The newest event is told to be good after all: what it needed from outside was read.
    fn succeed(&mut self) {
        let Some(newest) = self.standing().map(|standing| standing.newest) else { return };
        let head = self.heads.iter_mut().rfind(|head| head.revision == newest);
        match (head.map(|head| &mut head.operation), &mut self.settled) {
            (Some(Operation::Claim { good, .. }), _) => *good = true,
            (_, Some(settled)) => settled.good = Some(newest),
            _ => {}
        }
    }

    fn settle(&mut self, floor: Revision) {
        let split = self.heads.partition_point(|head| head.revision <= floor);
        self.settled = self.heads.drain(..split).collect::<Vec<_>>().iter().fold(self.settled.take(), apply);
    }
}

fn apply(before: Option<Standing>, head: &Head) -> Option<Standing> {
    let (key, good) = match &head.operation {
        Operation::Claim { key, good } => (key, good),
        Operation::Withdrawal => return None,
        Operation::Release => return before.map(|standing| Standing { released: true, ..standing }),
    };
    let since = before.as_ref().and_then(|standing| standing.since).unwrap_or(head.revision);
    Some(Standing {
        newest: head.revision,
        key: key.clone(),
        good: if *good { Some(head.revision) } else { before.and_then(|standing| standing.good) },
        since: key.is_some().then_some(since),
        released: false,
    })
}

/// Under which an operator's removals stand among the claims; it claims nothing.
pub const REMOVALS: &str = "removal:";

/// Events of one source of one entity that are kept unsettled for a snapshot's sake.
pub const HEADS_HELD: usize = 200;

/// What became of an inserted event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is part of its claim now.
    New,
    /// It was part of it already, or is settled: no effect.
    Duplicate,
}

/// All claims on one entity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Where the entity's incarnation began, as far as settled events tell.
    pub settled_born: Option<Revision>,
    /// The claims by source.
    pub by_source: BTreeMap<String, Claim>,
}

impl Claims {
    /// Inserts a source's event. At or below the floor it has no effect, whoever delivers it.
    pub fn insert(&mut self, source: &str, head: Head, floor: Revision) -> Inserted {
        if head.revision <= floor && !planted::is("floor-ignored") {
            return Inserted::Duplicate;
        }
        let removals = self.by_source.get(REMOVALS).map_or(&[][..], |claim| &claim.heads).to_vec();
        let claim = self.by_source.entry(source.to_owned()).or_default();
        if !claim.insert(head) {
            return Inserted::Duplicate;
        }
        // What comes late is removed by what was meant to remove it.
        for removal in removals {
            claim.insert(removal);
        }
        Inserted::New
    }

    /// Withdraws every source's claim as of this revision, also those that come late (Backstage's deletion of an entity by its uid). What is claimed after
    /// it stands.
    pub fn remove(&mut self, revision: Revision, floor: Revision) -> Inserted {
        let head = Head { revision, operation: Operation::Withdrawal };
        let inserted = self.insert(REMOVALS, head.clone(), floor);
        if inserted == Inserted::New {
            for claim in self.by_source.values_mut() {
                claim.insert(head.clone());
            }
        }
        inserted
    }

    /// Withdraws a source's claim as of the end of a snapshot that left it out; what the source says after that stands. The snapshot is swept when the floor
    /// has passed its end, so this goes below the floor: which is why nothing is settled beyond the beginning of a snapshot that is still to be swept.
    pub fn sweep(&mut self, source: &str, begun: Revision, ended: Revision) -> Inserted {
        let claim = self.by_source.get_mut(source).filter(|claim| claim.is_swept_by(begun, ended));
        let head = Head { revision: ended, operation: Operation::Withdrawal };
        if claim.is_some_and(|claim| claim.insert(head)) { Inserted::New } else { Inserted::Duplicate }
    }

    /// Folds what is settled, but for what a snapshot may still withdraw below the floor, and this in turn when an entity has more than
    /// [`HEADS_HELD`] events of one source: then what came after the snapshot's end counts as if it had come before.
    pub fn settle_behind(&mut self, held: Revision, floor: Revision) {
        let is_long = self.by_source.values().any(|claim| claim.heads.len() > HEADS_HELD);
        self.settle(if is_long { floor } else { held.min(floor) });
    }

    /// The source that is shown and its standing as the events before a revision make them.
    pub fn winner_before(&self, revision: Revision) -> Option<Standing> {
        let before = |claim: &Claim| Claim {
            settled: claim.settled.clone(),
            heads: claim.heads.iter().take_while(|head| head.revision < revision).cloned().collect(),
        };
        let by_source = self.by_source.iter().map(|(source, claim)| (source.clone(), before(claim))).collect();
        Claims { by_source, ..Claims::default() }.winner().map(|(_, standing)| standing)
    }

    /// Whether an event of a source is part of its claim already, or settled.
    pub fn has(&self, source: &str, revision: Revision, floor: Revision) -> bool {
        let is_head = |claim: &Claim| claim.heads.binary_search_by_key(&revision, |head| head.revision).is_ok();
        revision <= floor || self.by_source.get(source).is_some_and(is_head)
    }

    /// Takes what a parent entity emits. Its emissions come one after the other in the order of their revisions, though long after the
    /// floor has passed these; what it said of the same revision is replaced, but for good content that is followed by what is not good (yet).
    pub fn emit(&mut self, source: &str, head: Head, floor: Revision) {
        self.settle(floor);
        let is_present = self.by_source.values().any(|claim| claim.settled.is_some());
        let claim = self.by_source.entry(source.to_owned()).or_default();
        if head.revision > floor {
            claim.replace(head);
            return;
        }
        claim.settled = apply(claim.settled.take(), &head);
        if claim.settled.is_some() && !is_present {
            self.settled_born = Some(head.revision);
        } else if self.by_source.values().all(|claim| claim.settled.is_none()) {
            self.settled_born = None;
        }
    }

    /// The source's newest event is told to be good after all: what it needed from outside was read. Whoever calls has seen that what was read belongs to
    /// that event.
    pub fn succeed(&mut self, source: &str) {
        if let Some(claim) = self.by_source.get_mut(source) {
            claim.succeed();
        }
    }

    /// Folds every event up to the floor into what is settled. Changes neither the winner nor the incarnation.
    pub fn settle(&mut self, floor: Revision) {
        self.settled_born = self.born_through(floor);
        self.by_source.values_mut().for_each(|claim| claim.settle(floor));
    }

    /// The revision with which the entity's present incarnation began; none: no source claims it.
    /// An entity that no source claimed for a moment begins anew: it gets a new uid (Backstage's `metadata.uid`).
    pub fn born(&self) -> Option<Revision> {
        self.born_through(Revision::MAX)
    }

    fn born_through(&self, last: Revision) -> Option<Revision> {
        let mut present: BTreeSet<&str> = BTreeSet::new();
        let mut heads: Vec<(Revision, &str, bool)> = Vec::new();
        for (source, claim) in &self.by_source {
            if claim.settled.is_some() {
                present.insert(source);
            }
            let above = claim.heads.iter().filter(|head| head.revision <= last);
            let above = above.filter(|head| head.operation != Operation::Release);
            heads.extend(above.map(|head| (head.revision, source.as_str(), head.operation != Operation::Withdrawal)));
        }
        heads.sort_unstable();
        let mut born = self.settled_born.filter(|_| !present.is_empty());
        for (revision, source, claims) in heads {
            match claims {
                true => {
                    born = born.or(Some(revision));
                    present.insert(source);
                }
                false => {
                    present.remove(source);
                    born = born.filter(|_| !present.is_empty());
                }
            }
        }
        born
    }

    /// The source whose claim is shown, with its standing; a pure function of the set of claims.
    ///
    /// If any claim has a key, the key whose claims include the lowest `since` wins (who was first keeps it), and within it
    /// the newest claim. Else the newest keyless claim. The other sources wait; the next takes over when the winner withdraws.
    pub fn winner(&self) -> Option<(&str, Standing)> {
        let standing: Vec<(&str, Standing)> =
            self.by_source.iter().filter_map(|(source, claim)| Some((source.as_str(), claim.standing()?))).collect();
        let first = standing
            .iter()
            .filter(|(_, claim)| claim.key.is_some())
            .min_by_key(|(source, claim)| (claim.since, *source));
        let key = first.map(|(_, claim)| claim.key.clone());
        let eligible = standing.iter().filter(|(_, claim)| key.as_ref().is_none_or(|key| claim.key == *key));
        eligible.max_by_key(|(source, claim)| (claim.newest, *source)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One letter an event: source, then `+` claim, `!` claim that fails processing, `-` withdrawal, then the key if any.
    fn claims(events: &str) -> Claims {
        let mut claims = Claims::default();
        for (index, event) in events.split_whitespace().enumerate() {
            claims.insert(&event[..1], head(index as Revision + 1, &event[1..]), 0);
        }
        claims
    }

    fn head(revision: Revision, event: &str) -> Head {
        let key = Some(event[1..].to_owned()).filter(|key| !key.is_empty());
        let operation = match &event[..1] {
            "+" => Operation::Claim { key, good: true },
            "!" => Operation::Claim { key, good: false },
            _ => Operation::Withdrawal,
        };
        Head { revision, operation }
    }

    #[test]
    fn winners() {
        for (events, winner, good, born) in [
            ("", "", None, None),
            ("a+", "a", Some(1), Some(1)),
            ("a+ a+", "a", Some(2), Some(1)),
            ("a+ b+", "b", Some(2), Some(1)),
            ("a+ b+ a+", "a", Some(3), Some(1)),
            ("a+ b+K", "b", Some(2), Some(1)),
            ("a+K b+K", "b", Some(2), Some(1)),
            ("a+K b+L", "a", Some(1), Some(1)),
            ("a+K b+", "a", Some(1), Some(1)),
            ("a+K b+L a-", "b", Some(2), Some(1)),
            ("a+K b+L a- a+K", "b", Some(2), Some(1)),
            ("a+K b+ a-", "b", Some(2), Some(1)),
            ("a+K b+L c+K b+L", "c", Some(3), Some(1)),
            ("a+K a+L b+L", "b", Some(3), Some(1)),
            ("a+K b+L a+M", "a", Some(3), Some(1)),
            ("a+K b+L a+ a+K", "b", Some(2), Some(1)),
            ("a+ a-", "", None, None),
            ("a+ a- a+", "a", Some(3), Some(3)),
            ("a+ b+ a- a+", "a", Some(4), Some(1)),
            ("a+ b- a+", "a", Some(3), Some(1)),
            ("a+ a!", "a", Some(1), Some(1)),
            ("a! a!", "a", None, Some(1)),
            ("a+ a- a!", "a", None, Some(3)),
            ("a+ a! a+ a!", "a", Some(3), Some(1)),
            ("a+ b! b-", "a", Some(1), Some(1)),
        ] {
            let claims = claims(events);
            let found = claims.winner();
            assert_eq!(found.as_ref().map_or("", |(source, _)| source), winner, "winner of {events}");
            assert_eq!(found.and_then(|(_, standing)| standing.good), good, "good content of {events}");
            assert_eq!(claims.born(), born, "incarnation of {events}");
        }
    }

    #[test]
    fn an_event_at_or_below_the_floor_has_no_effect() {
        let mut claims = claims("a+ a+");
        assert_eq!(claims.insert("a", head(2, "-"), 2), Inserted::Duplicate);
        assert_eq!(claims.insert("a", head(2, "+"), 0), Inserted::Duplicate);
        assert_eq!(claims.insert("a", head(3, "-"), 2), Inserted::New);
    }

    #[test]
    fn an_orphan_keeps_what_it_was_until_somebody_says_more() {
        let mut claims = claims("a+K");
        claims.insert("a", Head { revision: 2, operation: Operation::Release }, 0);
        let (source, standing) = claims.winner().expect("an orphan");
        assert_eq!(
            (source, standing.released, standing.key.as_deref(), standing.good),
            ("a", true, Some("K"), Some(1))
        );
        assert_eq!(claims.born(), Some(1));
        claims.insert("b", head(3, "+"), 0);
        assert_eq!(claims.winner().expect("the orphan keeps its key").0, "a");
        claims.insert("c", head(4, "+K"), 0);
        assert_eq!(claims.winner().expect("the same key takes it over").0, "c");
        claims.insert("a", head(5, "+K"), 0);
        let (source, standing) = claims.winner().expect("its parent emits it again");
        assert_eq!((source, standing.released, standing.since), ("a", false, Some(1)));
        claims.settle(9);
        assert_eq!(claims.born(), Some(1));
    }

    #[test]
    fn a_removal_withdraws_what_came_before_it_however_late_it_comes() {
        let mut expected = claims("a+ b+K e+K");
        assert_eq!(expected.remove(4, 0), Inserted::New);
        assert_eq!(expected.remove(4, 0), Inserted::Duplicate);
        assert_eq!((expected.winner(), expected.born()), (None, None));
        let mut late = Claims::default();
        late.remove(4, 0);
        for (revision, source, event) in [(2, "b", "+K"), (3, "e", "+K"), (1, "a", "+")] {
            late.insert(source, head(revision, event), 0);
        }
        assert_eq!(late, expected);
        // What emits it reads again, because of the removal: a new incarnation, on either side of the floor.
        for floor in [3, 4, 9] {
            let mut again = expected.clone();
            again.emit("e", head(4, "!K"), floor);
            assert_eq!((again.winner().map(|(source, _)| source), again.born()), (Some("e"), Some(4)), "floor {floor}");
            again.succeed("e");
            assert_eq!(again.winner().and_then(|(_, standing)| standing.good), Some(4), "floor {floor}");
        }
        // One that was on its way comes to nothing.
        expected.emit("e", head(3, "+L"), 3);
        assert_eq!(expected.winner(), None);
    }

    #[test]
    fn what_was_read_makes_the_newest_event_good() {
        for floor in [0, 2, 3] {
            let mut claims = claims("a+ a! a!");
            claims.settle(floor);
            claims.succeed("a");
            claims.succeed("nobody");
            let standing = claims.winner().expect("present").1;
            assert_eq!((standing.good, standing.failed()), (Some(3), false), "floor {floor}");
        }
    }

    /// An emission comes late: wherever the floor is, it gives what it gives when it comes at once.
    #[test]
    fn an_emission_below_the_floor_is_as_one_above() {
        for emissions in ["2+K", "2+K 2-", "2+K 2- 3+K", "2+K 3+K", "2!K 3- 4+L", "2+K 2!L", "2+K 4- 5+K"] {
            for provider in ["", "1+", "3+", "1+ 3-", "4+ 5-"] {
                let at = |event: &str| (Revision::from(event.as_bytes()[0] - b'0'), event[1..].to_owned());
                let run = |floor: Revision| {
                    let mut claims = Claims::default();
                    for (revision, event) in provider.split_whitespace().map(at) {
                        claims.insert("p", head(revision, &event), 0);
                    }
                    claims.settle(floor);
                    for (revision, event) in emissions.split_whitespace().map(at) {
                        claims.emit("e", head(revision, &event), floor);
                    }
                    let winner = claims.winner().map(|(source, standing)| (source.to_owned(), standing));
                    (winner, claims.born().is_some())
                };
                assert_eq!(run(0), run(9), "{emissions} beside {provider}");
            }
        }
    }

    #[test]
    fn the_stored_form_round_trips() {
        let claims = claims("a+K a!L a-");
        let claim = &claims.by_source["a"];
        let text = serde_json::to_string(claim).unwrap();
        assert_eq!(&serde_json::from_str::<Claim>(&text).unwrap(), claim);
        assert_eq!(
            text,
            r#"{"heads":[{"r":1,"o":{"claim":{"key":"K","good":true}}},{"r":2,"o":{"claim":{"key":"L","good":false}}},{"r":3,"o":"withdrawal"}]}"#
        );
    }

    fn event() -> impl Strategy<Value = (String, Operation)> {
        let key = proptest::option::of(proptest::sample::select(vec!["K".to_owned(), "L".to_owned()]));
        let operation = prop_oneof![
            3 => (key, prop::bool::weighted(0.8)).prop_map(|(key, good)| Operation::Claim { key, good }),
            1 => Just(Operation::Withdrawal),
        ];
        (proptest::sample::select(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()]), operation)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// Any permutation, with repetitions and with the floor following behind, gives what one by one in order gives.
        #[test]
        fn any_order_gives_what_order_gives(events in prop::collection::vec(event(), 0..12), seed in any::<u64>()) {
            let events: Vec<(Revision, String, Operation)> =
                events.into_iter().enumerate().map(|(i, (source, operation))| (i as Revision + 1, source, operation)).collect();
            let mut ordered = Claims::default();
            for (revision, source, operation) in &events {
                ordered.insert(source, Head { revision: *revision, operation: operation.clone() }, revision - 1);
                ordered.settle(*revision);
            }
            let mut arrivals: Vec<usize> = (0..events.len()).chain((0..events.len()).step_by(2)).collect();
            let mut state = seed | 1;
            let mut random = move || { state ^= state << 13; state ^= state >> 7; state ^= state << 17; state as usize };
            for i in (1..arrivals.len()).rev() {
                arrivals.swap(i, random() % (i + 1));
            }
            let mut shuffled = Claims::default();
            let mut arrived = vec![false; events.len()];
            let mut floor = 0;
            for index in arrivals {
                let (revision, source, operation) = &events[index];
                let inserted = shuffled.insert(source, Head { revision: *revision, operation: operation.clone() }, floor);
                prop_assert_eq!(inserted == Inserted::Duplicate, arrived[index]);
                arrived[index] = true;
                if random() % 3 == 0 {
                    floor = arrived.iter().take_while(|arrived| **arrived).count() as Revision;
                    let before = (shuffled.winner().map(|(s, w)| (s.to_owned(), w)), shuffled.born());
                    shuffled.settle(floor);
                    prop_assert_eq!(before, (shuffled.winner().map(|(s, w)| (s.to_owned(), w)), shuffled.born()));
                }
            }
            prop_assert_eq!(ordered.winner(), shuffled.winner());
            prop_assert_eq!(ordered.born(), shuffled.born());
            shuffled.settle(Revision::MAX);
            prop_assert_eq!(ordered.by_source, shuffled.by_source);
        }

        /// Snapshots that overlap, swept in any order when the floor has passed them, among other events in any order and more than once, give what
        /// comes of it when each is swept at the very end of it.
        #[test]
        fn sweeps_fold_like_every_other_event(
            events in prop::collection::vec(event(), 1..14),
            spans in prop::collection::vec((0_usize..14, 0_usize..14, 0_usize..3), 1..4),
            seed in any::<u64>(),
        ) {
            let last = events.len() as Revision;
            // (source, begun, ended); an end is no other event of the source: it is that of the message that ends the snapshot.
            let mut spans: Vec<(String, Revision, Revision)> = spans.into_iter().map(|(a, b, source)| {
                let (a, b) = (a as Revision % last + 1, b as Revision % last + 1);
                (["a", "b", "c"][source].to_owned(), a.min(b), a.max(b))
            }).collect();
            spans.retain(|(source, _, ended)| events[*ended as usize - 1].0 != *source);
            let head = |index: usize| Head { revision: index as Revision + 1, operation: events[index].1.clone() };

            let mut ordered = Claims::default();
            for (index, (source, _)) in events.iter().enumerate() {
                ordered.insert(source, head(index), index as Revision);
                for (source, begun, ended) in spans.iter().filter(|span| span.2 == index as Revision + 1) {
                    ordered.sweep(source, *begun, *ended);
                }
            }

            let mut state = seed | 1;
            let mut random = move || { state ^= state << 13; state ^= state >> 7; state ^= state << 17; state as usize };
            let mut arrivals: Vec<usize> = (0..events.len()).chain(0..events.len()).collect();
            for i in (1..arrivals.len()).rev() {
                arrivals.swap(i, random() % (i + 1));
            }
            let mut shuffled = Claims::default();
            let mut arrived = vec![false; events.len()];
            let mut waiting = spans.clone();
            let mut floor = 0;
            let mut step = |shuffled: &mut Claims, arrived: &[bool], all: bool| {
                floor = arrived.iter().take_while(|arrived| **arrived).count() as Revision;
                while let Some(next) = (0..waiting.len()).filter(|i| waiting[*i].2 <= floor).nth(usize::from(waiting.len() > 1 && random() % 2 == 0))
                    .or((0..waiting.len()).find(|i| waiting[*i].2 <= floor)) {
                    if !all && random() % 2 == 0 { break }
                    let (source, begun, ended) = waiting.remove(next);
                    shuffled.sweep(&source, begun, ended);
                    if random() % 2 == 0 { shuffled.sweep(&source, begun, ended); }
                }
                let held = waiting.iter().map(|span| span.1 - 1).min().unwrap_or(Revision::MAX);
                shuffled.settle_behind(held, floor);
                floor
            };
            let mut known = 0;
            for index in arrivals {
                shuffled.insert(&events[index].0, head(index), known);
                arrived[index] = true;
                known = step(&mut shuffled, &arrived, false);
            }
            step(&mut shuffled, &arrived, true);
            prop_assert_eq!(ordered.winner(), shuffled.winner());
            prop_assert_eq!(ordered.born(), shuffled.born());
        }
    }
}
