//! A broker with just the room that an installation needs, which many processes set up at once.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use bus::{Bus, Error, Limits};
use std::time::Duration;

const MIB: i64 = 1 << 20;

/// Events 16, stitch requests 16, dead letters 64, and what is fixed: conflicts 16, hints 8.
const NEEDED: i64 = 120 * MIB;

fn broker(room: i64) -> (tempfile::TempDir, servers::Servers) {
    let directory = tempfile::tempdir().unwrap();
    let mut options = servers::Options::new(directory.path(), servers::cache_dir().unwrap());
    options.postgres = false;
    options.throw_away = true;
    options.nats_config.max_store_bytes = Some(room.cast_unsigned());
    let started = servers::start(options, &mut |_| ()).unwrap();
    (directory, started)
}

async fn set_up(url: String) -> Result<(), Error> {
    let limits =
        Limits { events_bytes: 16 * MIB, stitch_bytes: 16 * MIB, dead_letters_bytes: 64 * MIB, ..Limits::default() };
    let options = bus::Options {
        url,
        installation: "catalog".into(),
        credentials: None,
        name: "room".into(),
        patience: Some(Duration::from_secs(30)),
    };
    let (_stopper, stop) = bus::stop();
    let bus = Bus::connect(&options, &stop).await.unwrap();
    bus::ensure_streams(&bus, &limits).await
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_set_up_an_installation_at_once_need_its_room_once() {
    let (_directory, broker) = broker(NEEDED);
    let url = broker.nats_url().unwrap().to_owned();
    let all: Vec<_> = (0..12).map(|_| tokio::spawn(set_up(url.clone()))).collect();
    for one in all {
        one.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_the_room_is_told_of_with_what_to_look_at() {
    let (_directory, broker) = broker(NEEDED - 9 * MIB);
    let error = set_up(broker.nats_url().unwrap().to_owned()).await.unwrap_err().to_string();
    assert!(error.contains("CATALOG_CONFLICTS") && error.contains("is there room for it?"), "{error}");
}
