//! More than a reader takes: told early, by the right code, and over when there is room again.

use std::time::Duration;

use api::v1;
use serde_json::json;
use tonic::{Code, Streaming};

use super::{Served, entity, message};

/// Bytes of a request, calls at once on one connection, and streams of the whole catalog at once, as the contract and the reader have them.
const REQUEST: usize = 1 << 20;
const CALLS: usize = 1000;
const STREAMS: usize = 48;
/// In which time what has to wait is still waiting, and what has not is answered.
const A_WHILE: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_request_beyond_the_limit_is_refused() {
    let served = Served::with([]).await;
    let asked = |bytes: usize| v1::GetEntityRequest { r#ref: "x".repeat(bytes), ..Default::default() };
    let status = served.client().get_entity(asked(REQUEST - 100)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "it is read, and is no ref: {status}");
    let status = served.client().get_entity(asked(REQUEST + 100)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_at_once() {
    // More than the client's window of 2 MiB.
    let text = "x".repeat(900_000);
    let large = |number: i64| entity(&format!("component:a/e{number}"), number, Some(json!({ "text": text })));
    let served = Served::with((1..=5).map(large)).await;
    let stream = || {
        let mut client = served.client();
        async move { client.stream_entities(v1::StreamEntitiesRequest::default()).await }
    };
    // Nobody takes what comes, so that they go on.
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(stream().await.expect("there is room").into_inner());
    }
    let status = tokio::time::timeout(PATIENCE, stream()).await.expect("at once").unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(!status.details().is_empty(), "it says when to try again");
    drop(streams);
    let again = async { while stream().await.is_err() {} };
    tokio::time::timeout(PATIENCE, again).await.expect("there is room again");
}

#[tokio::test]
async fn calls_beyond_the_limit_wait_at_the_client() {
    let served = Served::with([message("component:a/b", 1, false)]).await;
    let watch = || {
        let mut client = served.client();
        async move { client.watch_entities(v1::WatchEntitiesRequest::default()).await.map(tonic::Response::into_inner) }
    };
    let mut watches: Vec<Streaming<v1::WatchEntitiesResponse>> = Vec::new();
    for _ in 0..CALLS {
        watches.push(watch().await.expect("there is room"));
    }
    let mut one_more = Box::pin(watch());
    assert!(tokio::time::timeout(A_WHILE, &mut one_more).await.is_err(), "the connection has as many as it may");
    watches.pop();
    tokio::time::timeout(PATIENCE, one_more).await.expect("there is room again").expect("it begins");
}
