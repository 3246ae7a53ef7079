//! When a reader is ready, what its watermark promises, and what a replaced stream takes away.

use bus::Followed::{self, CaughtUp, Entity, Stream, StreamReplaced, Watermark};

use super::message;
use crate::state::State;

/// Tells a state what the stream says; after it, the state is (ready, watermark, entities).
fn check(told: Vec<Followed>, expected: (bool, Option<i64>, usize)) {
    let case = format!("{told:?}");
    let state = State::default();
    for followed in told {
        state.apply(followed, 0);
    }
    let found = (state.ready(), state.watermark(), state.entities());
    assert_eq!(found, expected, "{case}");
}

fn a(version: i64) -> Followed {
    Entity(message("component:default/a", version, false))
}

fn b(version: i64) -> Followed {
    Entity(message("component:default/b", version, false))
}

#[test]
fn ready_is_caught_up_with_a_watermark() {
    check(vec![], (false, None, 0));
    check(vec![a(1), CaughtUp], (false, None, 1));
    check(vec![a(1), Watermark(5)], (false, None, 1));
    check(vec![a(1), Watermark(5), CaughtUp], (true, Some(5), 1));
    check(vec![CaughtUp, Watermark(5)], (true, Some(5), 0));
    check(vec![CaughtUp, Watermark(5), Watermark(4)], (true, Some(5), 0));
    // It only marks the stream.
    check(vec![a(1), CaughtUp, Watermark(-1)], (false, None, 1));
}

#[test]
fn a_watermark_holds_when_nothing_is_still_to_come() {
    let state = State::default();
    for (told, lag, expected) in [
        (a(1), 3, None),
        // What it promises of b may have been replaced by a message behind it.
        (Watermark(5), 2, None),
        (a(2), 1, None),
        (b(3), 0, Some(5)),
        (CaughtUp, 0, Some(5)),
        (Watermark(6), 1, Some(5)),
        (Watermark(7), 0, Some(7)),
    ] {
        let case = format!("{told:?}");
        state.apply(told, lag);
        assert_eq!(state.progress().watermark, expected, "{case}");
    }
}

#[test]
fn the_end_of_the_stream_is_the_end_whatever_the_broker_counts() {
    let state = State::default();
    for (told, lag) in [(a(1), 3), (Watermark(5), 2)] {
        state.apply(told, lag);
    }
    let announced = state.announced();
    state.apply(Watermark(6), 1);
    state.has_reached_end(announced);
    assert_eq!((state.ready(), state.watermark(), state.announced()), (true, Some(5), Some(6)));
    state.has_reached_end(state.announced());
    assert_eq!((state.watermark(), state.announced()), (Some(6), None));
}

#[test]
fn a_replaced_stream_takes_what_it_does_not_name() {
    let known = || vec![Stream(7), a(1), b(2), CaughtUp, Watermark(5)];
    let after = |told: Vec<Followed>| known().into_iter().chain(told).collect();
    let another = |told: Vec<Followed>| after([StreamReplaced, Stream(8)].into_iter().chain(told).collect());
    check(after(vec![StreamReplaced]), (true, None, 2));
    check(after(vec![StreamReplaced, a(1)]), (true, None, 2));
    // An empty or half rebuilt stream, which has no watermark, must not empty the catalog.
    check(after(vec![StreamReplaced, CaughtUp]), (true, None, 2));
    check(another(vec![a(1), CaughtUp, Watermark(3)]), (true, Some(3), 1));
    check(another(vec![a(1), Watermark(3), CaughtUp]), (true, Some(3), 1));
    check(another(vec![CaughtUp, a(1), Watermark(3), b(2)]), (true, Some(3), 2));
    check(another(vec![StreamReplaced, Stream(9), CaughtUp, Watermark(3)]), (true, Some(3), 0));
    check(after(vec![CaughtUp]), (true, Some(5), 2));
}

#[test]
fn an_older_state_of_the_stream_takes_nothing_by_the_watermark_that_it_had() {
    let known = || vec![Stream(7), a(1), b(2), CaughtUp, Watermark(5)];
    let after = |stream: i64, told: Vec<Followed>| {
        known().into_iter().chain([StreamReplaced, Stream(stream)]).chain(told).collect()
    };
    // The broker's directory was rolled back: the stream itself, or one that was there before it.
    for stream in [7, 6] {
        check(after(stream, vec![a(1), Watermark(3), CaughtUp]), (true, None, 2));
        check(after(stream, vec![a(1), Watermark(3), CaughtUp, b(2), Watermark(5)]), (true, Some(5), 2));
        check(after(stream, vec![a(1), Watermark(3), CaughtUp, Watermark(4)]), (true, Some(4), 1));
        // It was published again before this reader came back to it.
        check(after(stream, vec![a(1), Watermark(5), CaughtUp]), (true, Some(5), 1));
    }
    check(after(8, vec![a(1), Watermark(3), CaughtUp]), (true, Some(3), 1));
}
