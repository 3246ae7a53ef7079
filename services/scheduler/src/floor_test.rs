//! What the floor's task remembers of streams that are replaced: on a real broker and database.

use crate::floor::{Floor, seen};
use crate::task::Task;
use bus::{Bus, Limits, Record, stream_status};
use std::time::Duration;
use store::{Remedy, SeenStream, Store};

/// Streams as processors make them, noted as they are.
async fn floor(name: &str) -> Floor {
    let (_stopper, stop) = bus::stop();
    let servers = servers::testing::shared();
    let installation = servers::testing::fresh_name(name);
    let options = bus::Options {
        url: servers.nats_url.clone(),
        installation: installation.clone(),
        credentials: None,
        name: "test".into(),
        patience: Some(Duration::from_secs(30)),
    };
    let bus = Bus::connect(&options, &stop).await.expect("the test broker answers");
    let url = servers.database_url.clone();
    let options = store::Options { url, installation, connections: 4, name: "test".into() };
    let store = Store::connect(&options).await.expect("the test database answers");
    let floor = Floor::new(&bus, &store);
    make_streams(&floor).await;
    floor
}

fn limits() -> Limits {
    Limits { events_bytes: 1 << 20, stitch_bytes: 1 << 20, dead_letters_bytes: 1 << 20, ..Limits::default() }
}

async fn make_streams(floor: &Floor) {
    bus::ensure_streams(&floor.bus, &limits()).await.expect("the broker answers");
    bus::ensure_consumers(&floor.bus, &limits(), None).await.expect("the broker answers");
    let names = floor.bus.names();
    for stream in [names.events_stream(), names.stitch_stream(), names.entities_stream()] {
        let status = stream_status(&floor.bus, &stream).await.expect("the stream stands");
        floor.store.note_stream(&stream, &seen(&status)).await.expect("the database answers");
    }
}

/// Deletes a stream, and has it noted as processors do.
async fn lose(floor: &Floor, stream: &str) {
    bus::delete(&floor.bus, stream, None).await.expect("the stream was there");
    let known = floor.store.stream_position(stream).await.expect("the database answers").expect("it was noted");
    let missing = SeenStream { created: 0, last_sequence: 0, last_stored: 0 };
    let noted = floor.store.reset_stream(stream, &known, &missing, Remedy::None).await;
    assert!(noted.expect("the database answers"), "nobody else has noted it");
}

/// Publishes events that no consumer takes.
async fn stray(floor: &Floor, count: usize) {
    let record = Record::new(floor.bus.names().event("p", "explode"), "{}");
    bus::publish_all(&floor.bus, &vec![record; count]).await.expect("the broker answers");
}

async fn dead_letters(floor: &Floor) -> u64 {
    let stream = floor.bus.names().dead_letters_stream();
    stream_status(&floor.bus, &stream).await.expect("the stream stands").messages
}

#[tokio::test(flavor = "multi_thread")]
async fn strays_of_a_stream_that_was_made_anew_are_dead_letters_below_the_old_sequences_too() {
    let mut floor = floor("strays").await;
    stray(&floor, 5).await;
    floor.run().await.expect("both answer");
    assert_eq!(dead_letters(&floor).await, 5);
    lose(&floor, &floor.bus.names().events_stream()).await;
    make_streams(&floor).await;
    stray(&floor, 7).await;
    floor.run().await.expect("both answer");
    assert_eq!(dead_letters(&floor).await, 5 + 7, "each stray has its letter");
}

/// Who asks may stand still between its publish and its note, or die there: the note is then the relay's.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_goes_also_when_it_is_noted_after_all_of_the_stream_was_settled() {
    let mut floor = floor("noted-late").await;
    let stream = floor.bus.names().stitch_stream();
    let (merge, rows) = floor.store.merge(&["a:b/c".into()], &["a:b/c".into()]).await.expect("the database answers");
    let asked =
        merge.commit("fresh", 1, vec![rows[0].id]).await.expect("the database answers").expect("it is asked for");
    let last = stream_status(&floor.bus, &stream).await.expect("the stream stands").last_sequence;
    floor.run().await.expect("both answer");
    let known = floor.store.stream_position(&stream).await.expect("the database answers").expect("it was noted");
    floor.store.note_published(asked.outbox, last, known.life(&stream)).await.expect("the database answers");
    floor.run().await.expect("both answer");
    assert_eq!(floor.store.outbox_length().await.expect("the database answers"), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watermark_never_gets_into_a_stream_of_which_it_is_not_true() {
    let mut floor = floor("watermark").await;
    floor.store.raise_floor(9).await.expect("the database answers");
    // The first run marks the stream, the second one publishes.
    for _ in 0..2 {
        floor.run().await.expect("both answer");
    }
    let (watermark, sequence) = floor.watermark.expect("it was published");
    assert_eq!((watermark, sequence), (9, 2));
    let stream = floor.bus.names().entities_stream();
    bus::delete(&floor.bus, &stream, None).await.expect("the stream was there");
    bus::ensure_streams(&floor.bus, &limits()).await.expect("the broker answers");
    // It was looked at before it was replaced: the broker refuses.
    floor.announce(10, sequence).await.expect_err("the watermark of another stream");
    assert_eq!(bus::newest_watermark(&floor.bus).await.expect("the broker answers"), 0);
    // It is looked at now, and is not the one that is known.
    floor.store.raise_floor(10).await.expect("the database answers");
    for _ in 0..2 {
        floor.publish_watermark(10).await.expect_err("the stream is another one");
    }
    assert_eq!(bus::newest_watermark(&floor.bus).await.expect("the broker answers"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_floor_stands_right_below_an_event_of_a_stream_that_went_back() {
    let mut floor = floor("behind").await;
    let stream = floor.bus.names().events_stream();
    stray(&floor, 2).await;
    floor.raise_floor().await.expect("the servers answer");
    assert_eq!(floor.store.floor().await.expect("the database answers"), 2);
    let status = stream_status(&floor.bus, &stream).await.expect("the stream stands");
    let longer = SeenStream { last_sequence: 10, ..seen(&status) };
    floor.store.note_stream(&stream, &longer).await.expect("the database answers");
    let known = floor.store.stream_position(&stream).await.expect("the database answers").expect("it was noted");
    let noted = floor.store.reset_stream(&stream, &known, &seen(&status), Remedy::None).await;
    assert!(noted.expect("the database answers"), "nobody else has noted it");
    let record = Record::new(floor.bus.names().event("p", "upsert"), "{}");
    bus::publish(&floor.bus, &record).await.expect("the broker answers");
    floor.raise_floor().await.expect("the servers answer");
    assert_eq!(
        floor.store.floor().await.expect("the database answers"),
        12,
        "the event has revision 13, and nobody has taken it"
    );
}
