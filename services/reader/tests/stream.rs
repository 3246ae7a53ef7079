//! A reader on a real broker: it replays the entity stream, follows it, says when it is ready, and stops.

use std::time::Duration;

use api::v1::{self, catalog_service_client::CatalogServiceClient};
use bus::{Bus, Record, header};
use serde_json::json;
use servers::testing;
use tonic::{Code, Status, transport::Channel};

const LIMIT: Duration = Duration::from_secs(30);

async fn connect(installation: String, stop: &bus::Stop) -> Bus {
    let options = bus::Options {
        url: testing::shared().nats_url.clone(),
        installation,
        credentials: None,
        name: "reader-test".into(),
        patience: Some(LIMIT),
    };
    let bus = Bus::connect(&options, stop).await.expect("the broker answers");
    bus::ensure_streams(&bus, &bus::Limits::default()).await.expect("the streams are made");
    bus
}

/// Publishes as a stitcher does; without a title: the deletion.
async fn publish(bus: &Bus, name: &str, version: i64, title: Option<&str>) {
    let entity_ref = format!("component:default/{name}");
    let body = title.map(|title| {
        json!({
            "apiVersion": "backstage.io/v1alpha1",
            "kind": "Component",
            "metadata": {"name": name, "namespace": "default", "title": title},
            "relations": [],
        })
    });
    let payload = body.map(|body| body.to_string()).unwrap_or_default();
    let record = Record::new(bus.names().entity(&entity_ref), payload)
        .with_header(header::VERSION, version)
        .with_header(header::REVISION, version * 10);
    bus::publish(bus, &record).await.expect("the entity is published");
}

async fn publish_watermark(bus: &Bus, revision: i64) {
    let record = Record::new(bus.names().watermark(), json!({"revision": revision}).to_string());
    bus::publish(bus, &record).await.expect("the watermark is published");
}

async fn title(client: &CatalogServiceClient<Channel>, name: &str, at_least_revision: i64) -> Result<String, Status> {
    let r#ref = format!("component:{name}");
    let mut request = tonic::Request::new(v1::GetEntityRequest { r#ref, at_least_revision, ..Default::default() });
    request.set_timeout(LIMIT);
    let entity = client.clone().get_entity(request).await?.into_inner().entity;
    Ok(entity.and_then(|entity| entity.metadata?.title).expect("a title"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_follows_the_stream() {
    let (stopper, stop) = bus::stop();
    let bus = connect(testing::fresh_name("reader"), &stop).await;
    publish(&bus, "a", 1, Some("first")).await;
    publish(&bus, "b", 2, Some("second")).await;
    let config = reader::Config::new("127.0.0.1:0".parse().expect("an address"));
    let reader = reader::start(bus.clone(), config, stop).await.expect("the reader starts");
    let state = reader.state();
    let channel = Channel::from_shared(format!("http://{}", reader.address())).expect("a URI");
    let client = CatalogServiceClient::new(channel.connect().await.expect("the reader listens"));

    let status = title(&client, "a", 0).await.expect_err("there is no watermark yet");
    assert_eq!(status.code(), Code::Unavailable);
    publish_watermark(&bus, 20).await;
    let ready = async {
        while !state.ready() {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(LIMIT, ready).await.expect("ready within 30 s");

    assert_eq!(title(&client, "a", 0).await.expect("a is known"), "first");
    assert_eq!((state.entities(), state.watermark()), (2, Some(20)));
    let (newer, ()) = tokio::join!(title(&client, "a", 30), publish(&bus, "a", 3, Some("third")));
    assert_eq!(newer.expect("a comes in time"), "third");
    publish(&bus, "b", 4, None).await;
    let (gone, ()) = tokio::join!(title(&client, "b", 40), publish_watermark(&bus, 40));
    assert_eq!(gone.expect_err("b is gone").code(), Code::NotFound);

    stopper.stop();
    drop(client);
    let ended = tokio::time::timeout(LIMIT, reader.finished()).await;
    ended.expect("ended within 30 s").expect("ended well");
}

async fn ready(state: &reader::State) {
    let ready = async {
        while !state.ready() {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(LIMIT, ready).await.expect("ready within 30 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_begins_with_a_snapshot_knows_what_has_changed_since() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("reader.snapshot");
    let config = || reader::Config {
        snapshot: Some(reader::SnapshotConfig { file: file.clone(), every: LIMIT }),
        ..reader::Config::new("127.0.0.1:0".parse().expect("an address"))
    };
    let client = async |reader: &reader::Reader| {
        let channel = Channel::from_shared(format!("http://{}", reader.address())).expect("a URI");
        CatalogServiceClient::new(channel.connect().await.expect("the reader listens"))
    };
    let (_outlasting, outlasting) = bus::stop();
    let bus = connect(testing::fresh_name("snapshot"), &outlasting).await;
    for (version, name) in ["a", "b", "c"].into_iter().enumerate() {
        publish(&bus, name, version as i64 + 1, Some("first")).await;
    }
    publish_watermark(&bus, 30).await;
    let (stopper, stop) = bus::stop();
    let first = reader::start(bus.clone(), config(), stop).await.expect("the reader starts");
    ready(&first.state()).await;
    let mut watch = client(&first).await.watch_entities(v1::WatchEntitiesRequest::default()).await;
    let watch = watch.as_mut().expect("a watch begins").get_mut();
    let mut token = String::new();
    while token.is_empty() {
        token = watch.message().await.expect("the watch goes on").expect("the watch goes on").resume_token;
    }
    let written = async {
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await
        }
    };
    tokio::time::timeout(LIMIT, written).await.expect("a snapshot within 30 s");
    stopper.stop();
    tokio::time::timeout(LIMIT, first.finished()).await.expect("ended within 30 s").expect("ended well");

    // Ready without a new watermark, too: the snapshot has it.
    let (stopper, stop) = bus::stop();
    let second = reader::start(bus.clone(), config(), stop).await.expect("the reader starts");
    ready(&second.state()).await;
    assert_eq!((second.state().entities(), second.state().watermark()), (3, Some(30)));
    stopper.stop();
    tokio::time::timeout(LIMIT, second.finished()).await.expect("ended within 30 s").expect("ended well");

    publish(&bus, "b", 4, Some("second")).await;
    publish(&bus, "c", 5, None).await;
    publish_watermark(&bus, 50).await;
    let (stopper, stop) = bus::stop();
    let third = reader::start(bus.clone(), config(), stop).await.expect("the reader starts");
    ready(&third.state()).await;
    let mut asked = client(&third).await;
    assert_eq!(title(&asked, "a", 50).await.expect("a is known"), "first");
    assert_eq!(title(&asked, "b", 50).await.expect("b is known"), "second");
    assert_eq!(title(&asked, "c", 50).await.expect_err("c is gone").code(), Code::NotFound);
    let request = v1::WatchEntitiesRequest { resume_token: token, ..Default::default() };
    let mut resumed = asked.watch_entities(request).await.expect("the token is good here, too").into_inner();
    let mut versions = Vec::new();
    while versions.len() < 2 {
        let event = tokio::time::timeout(LIMIT, resumed.message()).await.expect("within 30 s");
        versions.push(event.expect("the watch goes on").expect("the watch goes on").version);
    }
    assert_eq!(versions, [4, 5]);
    stopper.stop();
    drop((asked, resumed));
    tokio::time::timeout(LIMIT, third.finished()).await.expect("ended within 30 s").expect("ended well");
}
