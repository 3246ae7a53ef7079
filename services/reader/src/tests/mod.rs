//! What several tests need: entities as the stream carries them, and a reader served on a free port.

mod ancestry;
mod conformance;
mod follow;
mod index;
mod lagging;
mod list;
mod memory;
mod overload;
mod service;
mod snapshot;
mod traverse;
mod watch;

use std::{net::SocketAddr, time::SystemTime};

use api::v1::catalog_service_client::CatalogServiceClient;
use bus::{EntityMessage, Followed, Stopper};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::transport::{Channel, Endpoint};

use crate::{Error, server::serve, state::State};

/// One message of the entity stream; the revision is ten times the version.
fn message(entity_ref: &str, version: i64, deleted: bool) -> EntityMessage {
    entity(entity_ref, version, (!deleted).then(|| json!({"title": format!("v{version}")})))
}

/// One message of the entity stream whose `spec` is given; none: deleted.
fn entity(entity_ref: &str, version: i64, spec: Option<Value>) -> EntityMessage {
    let (kind, rest) = entity_ref.split_once(':').unwrap();
    let (namespace, name) = rest.split_once('/').unwrap();
    let body = spec.map(|spec| {
        json!({
            "apiVersion": "backstage.io/v1alpha1",
            "kind": kind,
            "metadata": {"namespace": namespace, "name": name, "uid": format!("uid-{entity_ref}")},
            "spec": spec,
            "relations": [],
        })
    });
    EntityMessage {
        entity_ref: entity_ref.into(),
        sequence: version.unsigned_abs(),
        version,
        revision: version.saturating_mul(10),
        published: SystemTime::UNIX_EPOCH,
        body: body.map(|body| body.to_string().into()),
        parents: Vec::new(),
        unprocessed: None,
    }
}

/// A reader that is served and told by the test what the stream holds.
struct Served {
    state: State,
    stopper: Stopper,
    server: JoinHandle<Result<(), Error>>,
    channel: Channel,
    address: SocketAddr,
}

impl Served {
    async fn start() -> Served {
        Served::serve(State::default()).await
    }

    async fn serve(state: State) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stopper, stop) = bus::stop();
        let server = tokio::spawn(serve(state.clone(), listener, stop));
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.connect().await.unwrap();
        Served { state, stopper, server, channel, address }
    }

    /// A reader that is ready and holds these entities.
    async fn with(messages: impl IntoIterator<Item = EntityMessage>) -> Served {
        let served = Served::start().await;
        served.tell(messages.into_iter().map(Followed::Entity));
        served.tell([Followed::CaughtUp, Followed::Watermark(0)]);
        served
    }

    fn tell(&self, followed: impl IntoIterator<Item = Followed>) {
        for followed in followed {
            // Some entities are still to come, until the last of them has.
            let lag = if matches!(followed, Followed::Entity(_)) { 3 } else { 0 };
            self.state.apply(followed, lag);
        }
    }

    fn client(&self) -> CatalogServiceClient<Channel> {
        CatalogServiceClient::new(self.channel.clone())
    }
}
