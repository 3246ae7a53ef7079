//! A snapshot gives back what was saved, and nothing at all where it cannot be trusted.

use std::{fs, path::Path};

use bus::Followed::{CaughtUp, Entity, Stream, StreamReplaced, Watermark};
use serde_json::json;

use super::{entity, message};
use crate::{
    snapshot::{Head, Kind, Writer, load, save},
    state::State,
    watch::{Begin, Event, Mark, Place, Watcher},
};

const COUNT: i64 = 3000;

fn told() -> State {
    let state = State::default();
    state.apply(Stream(7), 0);
    for version in 1..=COUNT {
        let spec = json!({"type": format!("Type-{}", version % 5), "number": version, "none": null});
        let mut entity = entity(&format!("component:default/e{version}"), version, Some(spec));
        entity.parents = (0..version % 3).map(|parent| format!("location:default/l{parent}")).collect();
        state.apply(Entity(entity), 0);
    }
    [CaughtUp, Watermark(40)].into_iter().for_each(|told| state.apply(told, 0));
    state.apply(Entity(message("component:default/e1", COUNT + 1, true)), 0);
    state
}

fn write(state: &State, path: &Path) -> usize {
    let (_stopper, stop) = bus::stop();
    save(path, state, &stop).expect("the snapshot is written").expect("the state is one to be kept").entities
}

#[tokio::test]
async fn what_was_saved_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("below/a.snapshot");
    let before = told();
    assert_eq!(write(&before, &path), COUNT as usize - 1);
    let after = State::default();
    let head = load(&path, &after).expect("the snapshot is used");
    assert_eq!((head.stream, head.sequence, head.watermark), (7, COUNT as u64 + 1, 40));
    let all = |state: &State| state.memory().after("", usize::MAX);
    assert_eq!(all(&after).len(), COUNT as usize - 1);
    for (one, other) in all(&before).iter().zip(all(&after)) {
        assert_eq!(
            (one.entity_ref(), one.version(), one.revision()),
            (other.entity_ref(), other.version(), other.revision())
        );
        assert_eq!((one.encoded(), one.parents()), (other.encoded(), other.parents()));
        assert_eq!(one.parents().len() as i64, one.version() % 3);
    }
    let query = crate::selection::parse_predicate(&["spec.type=type-3".into()], None).unwrap();
    let of_type =
        |state: &State| state.memory().matching_after(&crate::index::Query::of(query.clone()), "", 5000).0.len();
    assert_eq!((of_type(&before), of_type(&after)), (600, 600));
    assert_eq!(after.entities_by_kind(), before.entities_by_kind());

    // Not ready before the stream is followed to its end; then changes count from there, and watchers resume from before.
    assert!(!after.ready());
    after.apply(CaughtUp, 0);
    assert!(after.ready());
    after.apply(Entity(message("component:default/e2", COUNT + 2, false)), 0);
    let mark = Mark { place: Place { stream: 7, sequence: COUNT as u64 - 1, stored: 0 }, merged: 0 };
    let selection = crate::selection::Selection::parse(&[], None).unwrap();
    let mut watcher = Watcher::begin(&after, selection, Begin::At(mark)).await.expect("the place is known");
    let mut versions = Vec::new();
    while let Some(event) = watcher.next_now().unwrap() {
        match event {
            Event::Change(told) => versions.push(told.version()),
            Event::Deletion(_, version) => versions.push(version),
            Event::Bookmark(_) => {}
        }
    }
    assert_eq!(versions, [COUNT, COUNT + 1, COUNT + 2]);
}

#[test]
fn a_damaged_snapshot_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.snapshot");
    write(&told(), &path);
    let whole = fs::read(&path).unwrap();
    let places = (0..40).map(|step| step * whole.len() / 40).chain(whole.len() - 20..whole.len());
    for place in places {
        let mut flipped = whole.clone();
        flipped[place] ^= 0x10;
        for (damage, bytes) in [("cut", whole[..place].to_vec()), ("flipped", flipped)] {
            fs::write(&path, bytes).unwrap();
            let state = State::default();
            assert_eq!(load(&path, &state), None, "{damage} at {place} of {}", whole.len());
            assert_eq!(state.entities(), 0);
            // The stream is taken from its first message all the same.
            state.apply(Entity(message("component:default/e1", 1, false)), 0);
            assert_eq!(state.entities(), 1);
        }
    }
}

#[test]
fn an_old_snapshot_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.snapshot");
    let mut writer = Writer::new(fs::File::create(&path).unwrap()).unwrap();
    let head = Head {
        stream: 7,
        sequence: 1,
        stored: 0,
        watermark: 0,
        forgotten: 0,
        written: 1_000_000,
        secret: Head::hashing().0,
        probe: Head::hashing().1,
        unprocessed: Default::default(),
    };
    writer.frame(Kind::Head, &serde_json::to_vec(&head).unwrap()).unwrap();
    writer.end().unwrap();
    assert_eq!(load(&path, &State::default()), None);
    assert_eq!(load(&directory.path().join("none"), &State::default()), None);
}

#[test]
fn a_state_that_is_not_whole_is_not_saved() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.snapshot");
    let (_stopper, stop) = bus::stop();
    let state = State::default();
    assert!(save(&path, &state, &stop).unwrap().is_none(), "it is not ready");
    let state = told();
    [StreamReplaced, Stream(8)].into_iter().for_each(|told| state.apply(told, 0));
    assert!(save(&path, &state, &stop).unwrap().is_none(), "a replaced stream is replayed");
    assert!(!path.exists());
}
