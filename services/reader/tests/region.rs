//! A reader in another region: its broker keeps a mirror over a leaf node; the link is cut, and healed.

use std::{
    fs,
    net::TcpListener as Port,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use api::v1::{self, catalog_service_client::CatalogServiceClient, watch_entities_response::Event};
use bus::{Bus, Record, header};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tonic::Streaming;

const LIMIT: Duration = Duration::from_secs(30);

/// A nats-server of the test's own, killed at its end.
struct Broker {
    child: Child,
    port: u16,
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    Port::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address").port()
}

fn start_broker(directory: &Path, domain: &str, leafnodes: &str) -> Broker {
    let port = free_port();
    let cache = servers::cache_dir().expect("a cache directory");
    let binary = servers::locate_nats(&cache, &mut |_| ()).expect("nats-server").path;
    let store = directory.join(domain);
    let config = directory.join(format!("{domain}.conf"));
    let text = format!(
        "server_name: {domain}\nlisten: \"127.0.0.1:{port}\"\njetstream {{ domain: {domain}, store_dir: \"{}\" }}\nleafnodes {{ {leafnodes} }}\n",
        store.display()
    );
    fs::write(&config, text).expect("the configuration is written");
    let log = fs::File::create(directory.join(format!("{domain}.log"))).expect("a log");
    let child = Command::new(binary).arg("--config").arg(config).stdout(Stdio::null()).stderr(log).spawn();
    Broker { child: child.expect("nats-server starts"), port }
}

/// What stands between the two brokers.
struct Link {
    port: u16,
    target: Arc<Mutex<Option<u16>>>,
    running: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Link {
    async fn to(target: u16) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let link = Link { port, target: Arc::new(Mutex::new(Some(target))), running: Arc::default() };
        let (target, running) = (link.target.clone(), link.running.clone());
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let Some(target) = *target.lock().expect("no panic holds it") else { continue };
                let copy = tokio::spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(("127.0.0.1", target)).await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
                running.lock().expect("no panic holds it").push(copy);
            }
        });
        link
    }

    fn cut(&self) {
        *self.target.lock().expect("no panic holds it") = None;
        self.running.lock().expect("no panic holds it").drain(..).for_each(|copy| copy.abort());
    }

    fn heal(&self, target: u16) {
        *self.target.lock().expect("no panic holds it") = Some(target);
    }
}

async fn connect(port: u16, stop: &bus::Stop) -> Bus {
    let options = bus::Options {
        url: format!("nats://127.0.0.1:{port}"),
        installation: "catalog".into(),
        credentials: None,
        name: "region-test".into(),
        patience: Some(LIMIT),
    };
    Bus::connect(&options, stop).await.expect("the broker answers")
}

/// Publishes as a stitcher does, and the watermark behind it.
async fn publish(bus: &Bus, name: &str, version: i64) {
    let entity_ref = format!("component:default/{name}");
    let body = json!({
        "apiVersion": "backstage.io/v1alpha1",
        "kind": "Component",
        "metadata": {"name": name, "namespace": "default", "title": format!("v{version}")},
        "relations": [],
    });
    let record = Record::new(bus.names().entity(&entity_ref), body.to_string());
    let record = record.with_header(header::VERSION, version).with_header(header::REVISION, version);
    bus::publish(bus, &record).await.expect("the entity is published");
    bus::publish(bus, &bus::watermark_record(bus, version)).await.expect("the watermark is published");
}

/// The versions told, up to and with `last`.
async fn told(watch: &mut Streaming<v1::WatchEntitiesResponse>, last: i64) -> Vec<i64> {
    let mut versions = Vec::new();
    while versions.last() != Some(&last) {
        let event = tokio::time::timeout(LIMIT, watch.message()).await.expect("within 30 s");
        let event = event.expect("the watch goes on").expect("the watch goes on");
        if matches!(event.event, Some(Event::Change(_) | Event::Deletion(_))) {
            versions.push(event.version);
        }
    }
    versions
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within 30 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_serves_what_it_has_while_its_link_is_cut_and_catches_up_without_a_gap() {
    let directory = tempfile::tempdir().expect("a directory");
    let (stopper, stop) = bus::stop();
    let leaf_port = free_port();
    let origin =
        start_broker(directory.path(), "origin", &format!("listen: \"127.0.0.1:{leaf_port}\", no_advertise: true"));
    let link = Link::to(leaf_port).await;
    let remotes = format!("reconnect: 1, remotes: [{{ url: \"nats-leaf://127.0.0.1:{}\" }}]", link.port);
    let region = start_broker(directory.path(), "region", &remotes);
    let writer = connect(origin.port, &stop).await;
    bus::ensure_streams(&writer, &bus::Limits::default()).await.expect("the streams are made");
    publish(&writer, "a", 1).await;

    let near = connect(region.port, &stop).await;
    let config = reader::Config {
        mirror_of: Some("origin".into()),
        max_behind: Duration::from_secs(6),
        ..reader::Config::new("127.0.0.1:0".parse().expect("an address"))
    };
    let reader = reader::start(near, config, stop).await.expect("the reader starts");
    let state = reader.state();
    until("the region has caught up", || state.ready()).await;
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", reader.address())).expect("a URI");
    let mut client = CatalogServiceClient::new(channel.connect().await.expect("the reader listens"));
    let mut watch =
        client.watch_entities(v1::WatchEntitiesRequest::default()).await.expect("a watch begins").into_inner();
    assert_eq!(told(&mut watch, 1).await, [1]);
    publish(&writer, "b", 2).await;
    assert_eq!(told(&mut watch, 2).await, [2]);
    // Revisions are the origin's.
    let get = |name: &str, at_least_revision| {
        let r#ref = format!("component:{name}");
        v1::GetEntityRequest { r#ref, at_least_revision, ..Default::default() }
    };
    let answer = client.get_entity(get("b", 2)).await.expect("b as of revision 2").into_inner();
    assert_eq!(answer.entity.expect("b").revision, 2);

    link.cut();
    for version in 3..=20 {
        publish(&writer, ["a", "b", "c"][version as usize % 3], version).await;
    }
    until("the region says that it is late", || state.is_late()).await;
    assert!(state.behind() > Duration::from_secs(6), "{:?}", state.behind());
    assert!(state.ready(), "it goes on answering");
    let answer = client.get_entity(get("b", 0)).await.expect("b as it was").into_inner();
    assert_eq!(answer.entity.expect("b").revision, 2);

    link.heal(leaf_port);
    let versions = told(&mut watch, 20).await;
    assert!(versions.windows(2).all(|pair| pair[0] < pair[1]), "{versions:?}");
    assert!([18, 19, 20].iter().all(|newest| versions.contains(newest)), "{versions:?}");
    until("the region is up to date", || !state.is_late() && state.behind() < Duration::from_secs(5)).await;
    assert_eq!((state.entities(), state.watermark()), (3, Some(20)));
    stopper.stop();
    drop((client, watch));
    tokio::time::timeout(LIMIT, reader.finished()).await.expect("ended within 30 s").expect("ended well");
}
