//! The protocol as a model, checked exhaustively: one entity, two events in any order and again, two processors, two stitchers, the relay, the
//! scheduler, a crash at every step, and a stitch stream that is wiped. Every state that can be reached is looked at.
//!
//! What is shown: no update is lost (at rest the newest message has the newest event's content), nothing is stuck (rest can be reached from every
//! state), and no message is stale (each that the entity stream takes has a higher version than the one before). With one line of the protocol left
//! out, each in its turn, one of the three fails: so the model can.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeSet, HashMap, VecDeque};

/// What is left out of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// A message is acknowledged before the commit.
    AckFirst,
    /// A stitcher publishes whatever the newest message is.
    NothingExpected,
    /// The outbox row goes when it is published.
    OutboxDropped,
    /// The commit writes no outbox row, and the request is published by hand.
    NoOutbox,
    /// Content is what arrived last.
    ByArrival,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Processor {
    Idle,
    Took(u8),
    /// Committed the event; the row it asks for has this place in the outbox.
    Committed(u8, u8),
    Announced(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Stitcher {
    Idle,
    Took(u8),
    /// Holds the state's row, and has read what is committed. Without the lock, it was cut off from the database and does not know it yet.
    Built {
        request: u8,
        content: u8,
        expected: u8,
        version: u8,
        has_lock: bool,
    },
    Published {
        request: u8,
        content: u8,
        sequence: u8,
        version: u8,
        has_lock: bool,
    },
    Committed(u8),
}

/// An outbox row and its request: one for each event's commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Row {
    /// It is in the outbox.
    waits: bool,
    /// Its request stands in the stitch stream.
    published: bool,
    /// The stitchers have acknowledged it.
    acknowledged: bool,
}

/// A message: its sequence, its version, its content. Numbers are ranks: only their order counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Message {
    sequence: u8,
    version: u8,
    content: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct State {
    /// Events acknowledged, by revision - 1.
    settled: [bool; 2],
    /// Events that are part of the claim; the last one to arrive.
    applied: [bool; 2],
    last_arrival: u8,
    rows: [Row; 2],
    /// What the stitch state knows of the newest message.
    known: Message,
    newest: Message,
    /// The highest version that was ever taken.
    versions: u8,
    processors: [Processor; 2],
    stitchers: [Stitcher; 2],
}

/// Takes each step that can be taken.
type Steps<'a> = dyn FnMut(&dyn Fn(&mut State)) + 'a;

impl State {
    fn first() -> State {
        State {
            settled: [false; 2],
            applied: [false; 2],
            last_arrival: 0,
            rows: [Row::default(); 2],
            known: Message::default(),
            newest: Message::default(),
            versions: 0,
            processors: [Processor::Idle; 2],
            stitchers: [Stitcher::Idle; 2],
        }
    }

    /// The fold of the claim: the newest event's content; 0: none.
    fn content(&self, bug: Bug) -> u8 {
        match bug {
            Bug::ByArrival => self.last_arrival,
            _ => {
                if self.applied[1] {
                    2
                } else {
                    u8::from(self.applied[0])
                }
            }
        }
    }

    fn is_at_rest(&self) -> bool {
        let idle = self.processors == [Processor::Idle; 2] && self.stitchers == [Stitcher::Idle; 2];
        let asked = |row: &Row| !row.waits && (!row.published || row.acknowledged);
        idle && self.settled == [true; 2] && self.rows.iter().all(asked)
    }

    fn is_locked(&self) -> bool {
        self.stitchers.iter().any(|stitcher| {
            matches!(stitcher, Stitcher::Built { has_lock: true, .. } | Stitcher::Published { has_lock: true, .. })
        })
    }

    /// Ranks in the place of numbers: what can follow depends on their order alone, so there are few states.
    fn normalized(mut self) -> State {
        let (mut sequences, mut versions) = (BTreeSet::from([0]), BTreeSet::from([0]));
        self.numbers(&mut |sequence| _ = sequences.insert(*sequence), &mut |version| _ = versions.insert(*version));
        let rank = |numbers: &BTreeSet<u8>, number: u8| u8::try_from(numbers.range(..number).count()).unwrap();
        self.numbers(&mut |sequence| *sequence = rank(&sequences, *sequence), &mut |version| {
            *version = rank(&versions, *version)
        });
        // The two are alike.
        self.processors.sort_unstable();
        self.stitchers.sort_unstable();
        self
    }

    fn numbers(&mut self, sequence: &mut impl FnMut(&mut u8), version: &mut impl FnMut(&mut u8)) {
        for message in [&mut self.known, &mut self.newest] {
            sequence(&mut message.sequence);
            version(&mut message.version);
        }
        version(&mut self.versions);
        for stitcher in &mut self.stitchers {
            match stitcher {
                Stitcher::Built { expected: number, version: own, .. }
                | Stitcher::Published { sequence: number, version: own, .. } => {
                    sequence(number);
                    version(own);
                }
                _ => {}
            }
        }
    }

    /// Every state that one step leads to.
    fn next(&self, bug: Bug) -> Vec<State> {
        let mut next = Vec::new();
        let mut step = |change: &dyn Fn(&mut State)| {
            let mut state = self.clone();
            change(&mut state);
            next.push(state.normalized());
        };
        for place in 0..2 {
            self.step_processor(place, bug, &mut step);
            self.step_stitcher(place, bug, &mut step);
            // A crash: what was not committed is as if it had never been.
            step(&|state| state.processors[place] = Processor::Idle);
            step(&|state| state.stitchers[place] = Stitcher::Idle);
        }
        // The stitch stream is wiped: every row counts as unpublished.
        step(&|state| state.rows.iter_mut().for_each(|row| (row.published, row.acknowledged) = (false, false)));
        for row in 0..2 {
            // The relay publishes what is not known to be published; the scheduler drops what is acknowledged.
            if self.rows[row].waits && !self.rows[row].published {
                step(&|state| state.rows[row].published = true);
            }
            if self.rows[row].waits && self.rows[row].acknowledged {
                step(&|state| state.rows[row].waits = false);
            }
        }
        next
    }

    fn step_processor(&self, place: usize, bug: Bug, step: &mut Steps<'_>) {
        let to = |processor| move |state: &mut State| state.processors[place] = processor;
        match self.processors[place] {
            Processor::Idle => {
                for event in (0..2_u8).filter(|event| !self.settled[usize::from(*event)]) {
                    step(&|state| {
                        state.settled[usize::from(event)] |= bug == Bug::AckFirst;
                        to(Processor::Took(event))(state);
                    });
                }
            }
            Processor::Took(event) => step(&|state| {
                let index = usize::from(event);
                // Once in the claim it has no effect, and asks for nothing.
                if std::mem::replace(&mut state.applied[index], true) {
                    return to(Processor::Announced(event))(state);
                }
                state.last_arrival = event + 1;
                state.rows[index] = Row { waits: bug != Bug::NoOutbox, ..Row::default() };
                to(Processor::Committed(event, event))(state);
            }),
            Processor::Committed(event, row) => step(&|state| {
                let row = &mut state.rows[usize::from(row)];
                row.published = true;
                row.waits &= bug != Bug::OutboxDropped;
                to(Processor::Announced(event))(state);
            }),
            Processor::Announced(event) => step(&|state| {
                state.settled[usize::from(event)] = true;
                to(Processor::Idle)(state);
            }),
        }
    }

    fn step_stitcher(&self, place: usize, bug: Bug, step: &mut Steps<'_>) {
        match self.stitchers[place] {
            Stitcher::Idle => {
                for row in (0..2_u8)
                    .filter(|row| self.rows[usize::from(*row)].published && !self.rows[usize::from(*row)].acknowledged)
                {
                    step(&|state| {
                        state.rows[usize::from(row)].acknowledged |= bug == Bug::AckFirst;
                        state.stitchers[place] = Stitcher::Took(row);
                    });
                }
            }
            Stitcher::Took(request) if !self.is_locked() => step(&|state| {
                let content = state.content(bug);
                state.stitchers[place] = match content == state.known.content {
                    true => Stitcher::Committed(request),
                    false => {
                        state.versions += 1;
                        let (expected, version) = (state.known.sequence, state.versions);
                        Stitcher::Built { request, content, expected, version, has_lock: true }
                    }
                };
            }),
            Stitcher::Took(_) => {}
            Stitcher::Built { request, content, expected, version, has_lock } => {
                step(&|state| state.publish(place, bug, (request, content), (expected, version, has_lock)));
                if has_lock {
                    // The database takes it for dead and rolls back; it goes on all the same.
                    step(&|state| {
                        state.stitchers[place] =
                            Stitcher::Built { request, content, expected, version, has_lock: false }
                    });
                }
            }
            Stitcher::Published { request, content, sequence, version, has_lock } => step(&|state| {
                // A commit without the lock fails, and the request comes again.
                state.stitchers[place] = match has_lock {
                    false => Stitcher::Idle,
                    true => {
                        state.known = Message { sequence, version, content };
                        Stitcher::Committed(request)
                    }
                };
            }),
            Stitcher::Committed(request) => step(&|state| {
                // Of a stream that was wiped meanwhile there is nothing to acknowledge.
                let row = &mut state.rows[usize::from(request)];
                row.acknowledged |= row.published;
                state.stitchers[place] = Stitcher::Idle;
            }),
        }
    }

    /// The broker takes the message if its subject stands where it is expected to; else the newest is read: adopted if it is the same, or gone above.
    fn publish(
        &mut self,
        place: usize,
        bug: Bug,
        (request, content): (u8, u8),
        (expected, version, has_lock): (u8, u8, bool),
    ) {
        if expected == self.newest.sequence || bug == Bug::NothingExpected {
            let sequence = self.newest.sequence + 1;
            self.newest = Message { sequence, version, content };
            self.stitchers[place] = Stitcher::Published { request, content, sequence, version, has_lock };
            return;
        }
        if !has_lock {
            // It would ask the database for a version, and learn that it is cut off.
            self.stitchers[place] = Stitcher::Idle;
            return;
        }
        let Message { sequence, version: newest, .. } = self.newest;
        self.stitchers[place] = match self.newest.content == content {
            true => Stitcher::Published { request, content, sequence, version: newest, has_lock },
            false => {
                self.versions = self.versions.max(newest) + 1;
                Stitcher::Built { request, content, expected: sequence, version: self.versions, has_lock }
            }
        };
    }
}

/// Looks at every state; gives how many there are, or what is wrong.
fn explore(bug: Bug) -> Result<usize, &'static str> {
    let first = State::first();
    let mut found: HashMap<State, usize> = HashMap::from([(first.clone(), 0)]);
    let mut before: Vec<Vec<usize>> = vec![Vec::new()];
    let mut rests = Vec::new();
    let mut open = VecDeque::from([(first, 0)]);
    while let Some((state, number)) = open.pop_front() {
        if state.is_at_rest() {
            rests.push(number);
            if state.newest.content != 2 || state.known != state.newest {
                return Err("an update is lost");
            }
        }
        for next in state.next(bug) {
            // Ranks hide how far apart two versions are, but not which one is higher. Before the step the newest one was at most the highest taken.
            if is_stale(&state, &next, bug) {
                return Err("a message is stale");
            }
            let count = found.len();
            let known = *found.entry(next.clone()).or_insert(count);
            if known == count {
                before.push(Vec::new());
                open.push_back((next, known));
            }
            before[known].push(number);
        }
    }
    // Backwards from rest: what is not met can never come to rest.
    let mut met = vec![false; found.len()];
    while let Some(number) = rests.pop() {
        if !std::mem::replace(&mut met[number], true) {
            rests.extend(&before[number]);
        }
    }
    if met.iter().all(|met| *met) { Ok(found.len()) } else { Err("something is stuck") }
}

/// Whether the step published a version that is not higher than the newest one: some stitcher was about to, and the stream took it.
fn is_stale(state: &State, next: &State, bug: Bug) -> bool {
    (0..2).any(|place| {
        let Stitcher::Built { request, content, expected, version, has_lock } = state.stitchers[place] else {
            return false;
        };
        if version > state.newest.version {
            return false;
        }
        let mut after = state.clone();
        after.publish(place, bug, (request, content), (expected, version, has_lock));
        let took = after.newest != state.newest;
        took && after.normalized() == *next
    })
}

#[test]
fn the_protocol_holds_in_every_state() {
    let states = explore(Bug::None).unwrap();
    println!("{states} states");
    assert!(states > 1000, "{states} states are too few to mean anything");
}

#[test]
fn with_a_line_left_out_it_does_not() {
    for (bug, expected) in [
        (Bug::AckFirst, &["an update is lost", "something is stuck"][..]),
        (Bug::NothingExpected, &["a message is stale", "an update is lost"]),
        (Bug::OutboxDropped, &["an update is lost", "something is stuck"]),
        (Bug::NoOutbox, &["an update is lost", "something is stuck"]),
        (Bug::ByArrival, &["an update is lost"]),
    ] {
        let outcome = explore(bug);
        assert!(outcome.as_ref().is_err_and(|error| expected.contains(error)), "{bug:?}: {outcome:?}");
    }
}
