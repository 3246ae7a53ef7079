//! Watchers whose connection takes nothing: what waits for them waits in the log, once for all of them.

use std::time::Duration;

use api::v1::{WatchEntitiesRequest, catalog_service_client::CatalogServiceClient};
use bus::Followed::{CaughtUp, Entity, Watermark};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tonic::transport::Endpoint;

use super::{Served, entity};

const WATCHERS: usize = 100;
const CHANGES: i64 = 400;
/// Bytes of a changed entity, little more or less.
const BYTES: usize = 8 * 1024;
/// Events that all watchers together may have been told: 100 KiB each, and four MiB for the sockets. With hyper's own limit it is twice as many.
const TOLD: u64 = ((WATCHERS * 100 * 1024 + (4 << 20)) / BYTES) as u64;

#[tokio::test]
async fn what_lagging_watchers_have_not_taken_is_not_kept_for_each() {
    let served = Served::start().await;
    served.tell([CaughtUp, Watermark(0)]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gate = format!("http://{}", listener.local_addr().unwrap());
    let (shut, is_shut) = oneshot::channel();
    let reader = TcpStream::connect(served.address).await.unwrap();
    tokio::spawn(pass(listener, reader, is_shut));
    // Windows that would let everything through.
    let endpoint = Endpoint::from_shared(gate).unwrap();
    let endpoint = endpoint.initial_stream_window_size(1 << 30).initial_connection_window_size(1 << 30);
    let client = CatalogServiceClient::new(endpoint.connect().await.unwrap());
    let mut watches = Vec::new();
    for _ in 0..WATCHERS {
        let request = WatchEntitiesRequest { changes_only: true, ..Default::default() };
        watches.push(client.clone().watch_entities(request).await.unwrap());
    }
    shut.send(()).unwrap();
    for version in 1..=CHANGES {
        served.tell([Entity(entity("component:default/a", version, Some(json!({"text": "x".repeat(BYTES)}))))]);
    }
    let told = || served.state.hub().counts().told;
    let mut before = 0;
    while told() == 0 || told() != before {
        before = told();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(told() < TOLD, "{} of at most {TOLD} events", told());
}

/// Passes on both ways until it is shut; then nothing is taken from the reader any more.
async fn pass(listener: TcpListener, reader: TcpStream, is_shut: oneshot::Receiver<()>) {
    let (client, _) = listener.accept().await.unwrap();
    let ((mut asks, mut answered), (mut answers, mut asked)) = (client.into_split(), reader.into_split());
    let answering = async {
        tokio::select! {
            _ = tokio::io::copy(&mut answers, &mut answered) => {}
            _ = is_shut => std::future::pending().await,
        }
    };
    let _ = tokio::join!(tokio::io::copy(&mut asks, &mut asked), answering);
}
