//! The catalog as a reader shows it: one entity as new as a revision, how many there are, all of them.

use crate::Error;
use api::v1::catalog_service_client::CatalogServiceClient;
use api::v1::{Entity, GetEntityRequest, ListEntitiesRequest, StreamEntitiesRequest};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// A ref that no entity has: it is answered for a revision only when everything up to that revision is in the catalog.
const NOBODY: &str = "component:default/nobody-has-this-name";
/// How long one call waits for a revision.
const ONE_WAIT: Duration = Duration::from_secs(5);
/// Bytes of one answer.
const MAX_BYTES: usize = 64 << 20;

/// A reader. Clones share the connection.
#[derive(Clone, Debug)]
pub(crate) struct View(CatalogServiceClient<Channel>);

impl View {
    /// Connects to `http://host:port`.
    ///
    /// # Errors
    /// [`Error::Reader`].
    pub async fn connect(address: &str) -> Result<View, Error> {
        let wrong = |source| Error::Reader { address: address.to_owned(), source };
        let endpoint = Endpoint::from_shared(address.to_owned())
            .map_err(wrong)?
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(5));
        let channel = endpoint.connect().await.map_err(wrong)?;
        Ok(View(CatalogServiceClient::new(channel).max_decoding_message_size(MAX_BYTES)))
    }

    /// An entity, as soon as it is at least as new as `revision` (0: at once); none: there is none then.
    ///
    /// # Errors
    /// [`Error::Call`], with `DEADLINE_EXCEEDED` after `patience`.
    pub async fn entity(&self, entity_ref: &str, revision: i64, patience: Duration) -> Result<Option<Entity>, Error> {
        let request =
            GetEntityRequest { r#ref: entity_ref.to_owned(), at_least_revision: revision, ..Default::default() };
        let mut request = Request::new(request);
        request.set_timeout(patience);
        match self.0.clone().get_entity(request).await {
            Ok(answer) => Ok(answer.into_inner().entity),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(failed("GetEntity", status)),
        }
    }

    /// How many entities there are.
    pub async fn total(&self) -> Result<i64, Error> {
        let request = ListEntitiesRequest { page_size: 1, ..ListEntitiesRequest::default() };
        let answer = self.0.clone().list_entities(request).await;
        answer.map(|answer| answer.into_inner().total_size).map_err(|status| failed("ListEntities", status))
    }

    /// Hands over every entity, in no order.
    pub async fn each(&self, mut take: impl FnMut(Entity)) -> Result<(), Error> {
        let wrong = |status| failed("StreamEntities", status);
        let mut chunks =
            self.0.clone().stream_entities(StreamEntitiesRequest::default()).await.map_err(wrong)?.into_inner();
        while let Some(chunk) = chunks.message().await.map_err(wrong)? {
            chunk.entities.into_iter().for_each(&mut take);
        }
        Ok(())
    }

    /// Waits until everything up to a revision is in the catalog: processed, stitched, and what it says of others too.
    ///
    /// # Errors
    /// [`Error::TimedOut`] after `limit`, with what the reader said last.
    pub async fn settled(&self, revision: i64, limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        loop {
            let error = match self.entity(NOBODY, revision, ONE_WAIT).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let Error::Call { code: Code::DeadlineExceeded | Code::Unavailable | Code::Cancelled, message, .. } =
                &error
            else {
                return Err(error);
            };
            if Instant::now() >= deadline {
                return Err(Error::TimedOut {
                    what: format!("everything up to revision {revision} in the catalog"),
                    seconds: limit.as_secs(),
                    found: format!("the reader says: {message}"),
                });
            }
            if !matches!(&error, Error::Call { code: Code::DeadlineExceeded, .. }) {
                sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Waits until there are so many entities.
    ///
    /// # Errors
    /// [`Error::TimedOut`] after `limit`, with how many there were.
    pub async fn has_total(&self, expected: i64, limit: Duration, mut seen: impl FnMut(i64)) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        loop {
            let total = self.total().await?;
            seen(total);
            if total >= expected {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let what = format!("{expected} entities in the catalog");
                return Err(Error::TimedOut { what, seconds: limit.as_secs(), found: format!("found {total}") });
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

fn failed(call: &'static str, status: Status) -> Error {
    Error::Call { call, code: status.code(), message: status.message().to_owned() }
}
