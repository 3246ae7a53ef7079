//! The read contract's service: each rpc is observed, refused until the reader is ready, and answered.

use std::time::Duration;

use api::{
    EncodedTraversal, Error,
    ready::{self as v1, catalog_service_server::CatalogService},
};
use tonic::{Code, Request, Response, Status, codegen::BoxStream, metadata::MetadataMap};

use crate::{
    admission::Admission, ancestry, facets, get, list, metrics::Calls, state::State, traverse, unprocessed, watch,
};

/// Answers from a [`State`].
#[derive(Debug)]
pub(crate) struct Service {
    state: State,
    admission: Admission,
    calls: Calls,
}

#[tonic::async_trait]
impl CatalogService for Service {
    async fn get_entity(
        &self,
        request: Request<v1::GetEntityRequest>,
    ) -> Result<Response<v1::GetEntityResponse>, Status> {
        let timeout = timeout(request.metadata());
        let request = request.into_inner();
        self.answer("GetEntity", get::get_entity(&self.state, &request, timeout)).await
    }

    async fn get_entity_by_uid(
        &self,
        request: Request<v1::GetEntityByUidRequest>,
    ) -> Result<Response<v1::GetEntityByUidResponse>, Status> {
        let request = request.into_inner();
        self.answer("GetEntityByUid", get::get_entity_by_uid(&self.state, &request)).await
    }

    async fn batch_get_entities(
        &self,
        request: Request<v1::BatchGetEntitiesRequest>,
    ) -> Result<Response<v1::BatchGetEntitiesResponse>, Status> {
        let timeout = timeout(request.metadata());
        let request = request.into_inner();
        self.search("BatchGetEntities", timeout, get::batch_get_entities(&self.state, &request)).await
    }

    async fn list_entities(
        &self,
        request: Request<v1::ListEntitiesRequest>,
    ) -> Result<Response<v1::ListEntitiesResponse>, Status> {
        let timeout = timeout(request.metadata());
        let request = request.into_inner();
        self.search("ListEntities", timeout, list::list_entities(&self.state, &request)).await
    }

    async fn count_entities(
        &self,
        request: Request<v1::CountEntitiesRequest>,
    ) -> Result<Response<v1::CountEntitiesResponse>, Status> {
        let timeout = timeout(request.metadata());
        let request = request.into_inner();
        self.search("CountEntities", timeout, list::count_entities(&self.state, &request)).await
    }

    async fn list_unprocessed_entities(
        &self,
        request: Request<v1::ListUnprocessedEntitiesRequest>,
    ) -> Result<Response<v1::ListUnprocessedEntitiesResponse>, Status> {
        let request = request.into_inner();
        self.answer("ListUnprocessedEntities", unprocessed::list(&self.state, &request)).await
    }

    type StreamEntitiesStream = BoxStream<v1::StreamEntitiesResponse>;

    async fn stream_entities(
        &self,
        request: Request<v1::StreamEntitiesRequest>,
    ) -> Result<Response<Self::StreamEntitiesStream>, Status> {
        let timeout = timeout(request.metadata());
        let request = request.into_inner();
        let begin = || list::stream_entities(self.state.clone(), &request);
        let stream = async { Ok(Box::pin(self.admission.stream(timeout, begin)?) as _) };
        self.answer("StreamEntities", stream).await
    }

    async fn get_facets(
        &self,
        request: Request<v1::GetFacetsRequest>,
    ) -> Result<Response<v1::GetFacetsResponse>, Status> {
        let timeout = timeout(request.metadata());
        let request = request.into_inner();
        self.search("GetFacets", timeout, facets::get_facets(&self.state, &request)).await
    }

    async fn get_ancestry(
        &self,
        request: Request<v1::GetAncestryRequest>,
    ) -> Result<Response<v1::GetAncestryResponse>, Status> {
        let timeout = timeout(request.metadata());
        let request = request.into_inner();
        self.search("GetAncestry", timeout, ancestry::get_ancestry(&self.state, &request)).await
    }

    async fn traverse_relations(
        &self,
        request: Request<v1::TraverseRelationsRequest>,
    ) -> Result<Response<EncodedTraversal>, Status> {
        let timeout = timeout(request.metadata());
        let request = request.into_inner();
        self.search("TraverseRelations", timeout, traverse::traverse_relations(&self.state, &request)).await
    }

    type WatchEntitiesStream = BoxStream<v1::WatchEntitiesResponse>;

    async fn watch_entities(
        &self,
        request: Request<v1::WatchEntitiesRequest>,
    ) -> Result<Response<Self::WatchEntitiesStream>, Status> {
        let request = request.into_inner();
        let watched = self.answer("WatchEntities", watch::begin(&self.state, &request)).await?;
        Ok(watched.into_inner().into_response())
    }
}

impl Service {
    /// A service that answers from `state`.
    pub fn new(state: State) -> Service {
        Service { state, admission: Admission::new(), calls: Calls::new() }
    }

    /// Answers a call that looks through the catalog.
    async fn search<T>(
        &self,
        rpc: &'static str,
        timeout: Option<Duration>,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<Response<T>, Status> {
        self.answer(rpc, self.admission.search(timeout, answer)).await
    }

    async fn answer<T>(
        &self,
        rpc: &'static str,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<Response<T>, Status> {
        let observed = self.calls.begin(rpc);
        let answer = match self.state.ready() {
            true => answer.await,
            false => Err(Error::NotReady { pending: self.state.lag() }),
        };
        observed.end(answer.as_ref().map_or_else(Error::code, |_| Code::Ok));
        if let Err(error @ Error::Unreadable { .. }) = &answer {
            tracing::error!(rpc, %error, "a call failed");
        }
        Ok(Response::new(answer?))
    }
}

/// What the call's `grpc-timeout` header allows: up to eight digits and a unit, as gRPC over HTTP/2 writes it.
fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    let header = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    let amount = u64::from(digits.parse::<u32>().ok()?);
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_read_as_grpc_writes_it() {
        let cases = [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("", None),
            ("S", None),
            ("7", None),
            ("-7S", None),
            ("7x", None),
        ];
        for (header, expected) in cases {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", header.parse().unwrap());
            assert_eq!(timeout(&metadata), expected, "{header}");
        }
    }
}
