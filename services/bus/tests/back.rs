//! A broker that comes back with an older state and has grown past what a follower knows of it: on nats-server and on the twin.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use bus::twin::Twin;
use bus::{Bus, Followed, Follower, Limits, Record};
use servers::Servers;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(30);
/// What a follower is told that has seen "a" and "b" when "b" is lost, "c" and "d" have come, and "c" again.
const REPLAYED: [&str; 6] = ["replaced", "stream", "a", "d", "c", "caught up"];

#[tokio::test]
async fn a_broker_that_went_back_and_grew_is_replayed() {
    let directory = tempfile::tempdir().unwrap();
    let (left, older) = (directory.path().join("left"), directory.path().join("older"));
    let (first, bus) = start(&left).await;
    bus::ensure_streams(&bus, &limits()).await.unwrap();
    publish(&bus, "a").await;
    stop(first, bus).await;
    copy(&left, &older);
    let (first, bus) = start(&left).await;
    publish(&bus, "b").await;
    let mut follower = Follower::new(&bus);
    let Followed::Stream(identity) = next(&mut follower).await else { panic!("the stream is told first") };
    assert_eq!(told(&mut follower, 3).await, ["a", "b", "caught up"]);
    let (sequence, stored) = (follower.sequence(), follower.stored());
    stop(first, bus).await;

    let (same, bus) = start(&left).await;
    assert_eq!(told(&mut Follower::resume(&bus, identity, sequence, stored), 1).await, ["caught up"]);
    // "b" is replaced by itself: what stood where the follower is stands there no more, and nothing was lost.
    publish(&bus, "b").await;
    assert_eq!(told(&mut Follower::resume(&bus, identity, sequence, stored), 2).await, ["b", "caught up"]);
    stop(same, bus).await;

    let (back, bus) = start(&older).await;
    publish(&bus, "c").await;
    let resumed = || Follower::resume(&bus, identity, sequence, stored);
    assert_eq!(
        told(&mut resumed(), 5).await,
        ["replaced", "stream", "a", "c", "caught up"],
        "another message stands there"
    );
    publish(&bus, "d").await;
    publish(&bus, "c").await;
    // The message at the follower's sequence is gone again. Of what came after the loss nothing stands before it: all of that is still to be told.
    assert_eq!(told(&mut resumed(), 3).await, ["d", "c", "caught up"]);
    publish(&bus, "c").await;
    // Of one that had seen two more "d" stands before its sequence, at which nothing is, and was stored after what it was told.
    let mut ahead = Follower::resume(&bus, identity, sequence + 2, stored + 1);
    assert_eq!(told(&mut ahead, REPLAYED.len()).await, REPLAYED);
    stop(back, bus).await;
}

#[tokio::test(start_paused = true)]
async fn a_twin_that_went_back_and_grew_is_replayed() {
    let twin = Twin::new(Arc::new(()));
    let (bus, _) = twin.connect("back").unwrap();
    let running = twin.clone();
    tokio::spawn(async move { running.run().await });
    bus::ensure_streams(&bus, &limits()).await.unwrap();
    publish(&bus, "a").await;
    let older = twin.snapshot();
    for name in ["b", "x", "y"] {
        publish(&bus, name).await;
    }
    let mut follower = Follower::new(&bus);
    assert_eq!(told(&mut follower, 6).await, ["stream", "a", "b", "x", "y", "caught up"]);
    twin.restore(&older);
    // Sequences 2 to 5: the follower has seen four, and the message at the fourth is gone again.
    for name in ["c", "d", "c", "c"] {
        publish(&bus, name).await;
    }
    assert_eq!(told(&mut follower, REPLAYED.len()).await, REPLAYED);
}

fn limits() -> Limits {
    Limits { events_bytes: 8 << 20, stitch_bytes: 8 << 20, dead_letters_bytes: 8 << 20, ..Limits::default() }
}

async fn start(directory: &Path) -> (Servers, Bus) {
    let mut options = servers::Options::new(directory, servers::cache_dir().unwrap());
    (options.postgres, options.throw_away) = (false, true);
    let servers = tokio::task::spawn_blocking(move || servers::start(options, &mut |_| {})).await.unwrap().unwrap();
    let options = bus::Options {
        url: servers.nats_url().unwrap().to_owned(),
        installation: "back".into(),
        credentials: None,
        name: "test".into(),
        patience: Some(LIMIT),
    };
    let (_stopper, stop) = bus::stop();
    (servers, Bus::connect(&options, &stop).await.unwrap())
}

async fn stop(servers: Servers, bus: Bus) {
    bus.close().await;
    tokio::task::spawn_blocking(move || servers.stop()).await.unwrap();
}

/// Of a directory whose servers are stopped.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        match path.is_dir() {
            true => copy(&path, &to.join(name)),
            false => drop(std::fs::copy(&path, to.join(name)).unwrap()),
        }
    }
}

async fn publish(bus: &Bus, name: &str) {
    let entity_ref = format!("component:default/{name}");
    let record: Record = bus::entity_record(bus, &entity_ref, 1, 1, Some(("hash", b"{}".to_vec())));
    bus::publish(bus, &record).await.unwrap();
}

async fn next(follower: &mut Follower) -> Followed {
    tokio::time::timeout(LIMIT, follower.next()).await.unwrap()
}

async fn told(follower: &mut Follower, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(match next(follower).await {
            Followed::Stream(_) => "stream".to_owned(),
            Followed::StreamReplaced => "replaced".to_owned(),
            Followed::CaughtUp => "caught up".to_owned(),
            Followed::Watermark(revision) => format!("watermark {revision}"),
            Followed::Entity(entity) => entity.entity_ref.rsplit('/').next().unwrap().to_owned(),
        });
    }
    all
}
