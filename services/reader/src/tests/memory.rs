//! Whatever the order of messages, the memory ends with the newest version of each entity and never steps back.

use std::collections::HashMap;

use proptest::prelude::*;

use super::{entity, message};
use crate::memory::{Applied, Memory};

#[derive(Clone, Copy, Debug)]
enum Step {
    Message(u8, i64),
    BeginReplay,
    EndReplay,
}

fn entity_ref(of: u8) -> String {
    let kind = ["component", "api"][usize::from(of) % 2];
    format!("{kind}:default/e{of}")
}

/// Which versions are deletions is a function of the version: a version is one state.
fn is_deletion(version: i64) -> bool {
    version % 4 == 3
}

fn shown(memory: &Memory, of: u8) -> Option<i64> {
    memory.by_ref(&entity_ref(of)).map(|stored| stored.version())
}

fn assert_consistent(memory: &Memory) {
    let all = memory.after("", usize::MAX);
    assert!(all.windows(2).all(|pair| pair[0].entity_ref() < pair[1].entity_ref()));
    assert_eq!(all.len(), memory.len());
    assert_eq!(all.is_empty(), memory.is_empty());
    assert_eq!(memory.kinds().values().sum::<u64>(), all.len() as u64);
    let bytes: usize = all.iter().map(|stored| stored.held_bytes()).sum();
    assert_eq!(memory.body_bytes(), bytes as u64);
    for stored in all {
        let by_uid = memory.by_uid(&stored.uid()).expect("by uid");
        assert_eq!(by_uid.version(), stored.version());
    }
}

/// Runs the steps against the rule: a ref shows a version only if it is newer than any shown before, or, after it was
/// dropped by a replay, that version again.
fn check(steps: &[Step]) {
    let memory = Memory::default();
    let mut newest: HashMap<u8, i64> = HashMap::new();
    let mut dropped: HashMap<u8, i64> = HashMap::new();
    let mut named: Option<Vec<u8>> = None;
    for step in steps {
        match *step {
            Step::Message(of, version) => {
                let before = shown(&memory, of);
                let again = dropped.get(&of) == Some(&version);
                let counts = again || newest.get(&of).is_none_or(|newest| *newest < version);
                let applied = memory.apply(message(&entity_ref(of), version, is_deletion(version)));
                assert_eq!(matches!(applied, Applied::Newer(_)), counts, "{step:?} of {steps:?}");
                let expected = match counts {
                    true => (!is_deletion(version)).then_some(version),
                    false => before,
                };
                assert_eq!(shown(&memory, of), expected, "{step:?} of {steps:?}");
                if counts {
                    newest.insert(of, version);
                    dropped.remove(&of);
                }
                if let Some(named) = &mut named {
                    named.push(of);
                }
            }
            Step::BeginReplay => {
                memory.begin_replay();
                named = Some(Vec::new());
            }
            Step::EndReplay => {
                let Some(named) = named.take() else { continue };
                for of in (0..6).filter(|of| !named.contains(of)) {
                    if let Some(version) = shown(&memory, of) {
                        dropped.insert(of, version);
                    }
                }
                memory.end_replay();
                for of in dropped.keys() {
                    assert_eq!(shown(&memory, *of), None, "{steps:?}");
                }
            }
        }
        assert_consistent(&memory);
    }
}

#[test]
fn a_message_counts_only_if_it_is_newer() {
    use Step::{BeginReplay, EndReplay, Message};
    let cases: &[&[Step]] = &[
        &[Message(0, 2), Message(0, 1), Message(0, 2), Message(0, 4)],
        &[Message(0, 3), Message(0, 2), Message(0, 4)],
        &[Message(0, 2), BeginReplay, EndReplay, Message(0, 1), Message(0, 2)],
        &[Message(0, 2), BeginReplay, Message(0, 1), EndReplay, Message(0, 4)],
        &[Message(0, 2), BeginReplay, BeginReplay, Message(0, 2), EndReplay],
        &[Message(0, 2), BeginReplay, Message(0, 2), BeginReplay, EndReplay],
        &[Message(0, i64::MIN), BeginReplay, EndReplay],
    ];
    for steps in cases {
        check(steps);
    }
}

#[test]
fn an_entity_that_cannot_be_served_is_not_shown() {
    let memory = Memory::default();
    memory.apply(message("component:default/a", 1, false));
    let deep = (0..40).fold(serde_json::json!(1), |value, _| serde_json::json!([value]));
    let deep = entity("component:default/a", 2, Some(serde_json::json!({"deep": deep})));
    let Applied::Unreadable(reason, _) = memory.apply(deep) else { panic!("it was taken") };
    assert!(reason.contains("at most 32 levels"), "{reason}");
    assert!(memory.is_empty());
    let mut broken = message("component:default/b", 3, false);
    broken.body = Some("{".into());
    assert!(matches!(memory.apply(broken), Applied::Unreadable(..)));
    assert!(matches!(memory.apply(message("component:default/a", 1, false)), Applied::Known));
    assert!(matches!(memory.apply(message("component:default/a", 4, false)), Applied::Newer(_)));
}

proptest! {
    #[test]
    fn any_order_and_repetition_ends_in_the_newest(
        versions in prop::collection::vec((0..6_u8, 1..40_i64), 1..60),
        seed in any::<u64>(),
    ) {
        let mut deliveries: Vec<(u8, i64)> = versions.iter().chain(&versions).copied().collect();
        deliveries.sort_by_key(|(of, version)| (u64::from(*of) * 1000 + *version as u64).wrapping_mul(seed | 1));
        check(&deliveries.iter().map(|(of, version)| Step::Message(*of, *version)).collect::<Vec<_>>());
        let memory = Memory::default();
        for (of, version) in deliveries {
            memory.apply(message(&entity_ref(of), version, is_deletion(version)));
        }
        for of in 0..6 {
            let newest = versions.iter().filter(|(other, _)| *other == of).map(|(_, version)| *version).max();
            prop_assert_eq!(shown(&memory, of), newest.filter(|version| !is_deletion(*version)));
        }
    }

    #[test]
    fn no_replay_steps_back(
        steps in prop::collection::vec(
            prop_oneof![
                8 => (0..6_u8, 1..40_i64).prop_map(|(of, version)| Step::Message(of, version)),
                1 => Just(Step::BeginReplay),
                1 => Just(Step::EndReplay),
            ],
            0..80,
        ),
    ) {
        check(&steps);
    }
}
