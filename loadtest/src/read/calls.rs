//! Calls whose answers are taken as bytes: what the client spends on decoding is not the reader's.

use super::side::channel;
use crate::Error;
use prost::bytes::Bytes;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// Bytes of one answer.
const MAX_BYTES: usize = 64 << 20;

/// An answer with many entities, or results.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Many {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub entities: Vec<Bytes>,
}

/// An answer of which only that it came matters.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Anything {}

/// A client of the service whose answers are read as the caller likes.
#[derive(Clone)]
pub(crate) struct Client(Grpc<Channel>);

impl Client {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// [`Error::Reader`].
    pub async fn connect(address: &str) -> Result<Client, Error> {
        Ok(Client(Grpc::new(channel(address).await?).max_decoding_message_size(MAX_BYTES)))
    }

    /// One answer.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub async fn call<A, B>(&self, rpc: &'static str, request: A) -> Result<B, Error>
    where
        A: prost::Message + 'static,
        B: prost::Message + Default + 'static,
    {
        let mut grpc = self.0.clone();
        let answer = async {
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            grpc.unary(Request::new(request), path(rpc), ProstCodec::default()).await
        };
        answer.await.map(tonic::Response::into_inner).map_err(|status| failed(rpc, &status))
    }

    /// A stream of answers.
    ///
    /// # Errors
    /// As gRPC tells them.
    pub async fn stream<A, B>(&self, rpc: &'static str, request: A) -> Result<Streaming<B>, Status>
    where
        A: prost::Message + 'static,
        B: prost::Message + Default + 'static,
    {
        let mut grpc = self.0.clone();
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let answers = grpc.server_streaming(Request::new(request), path(rpc), ProstCodec::default()).await;
        answers.map(tonic::Response::into_inner)
    }
}

fn path(rpc: &str) -> PathAndQuery {
    format!("/callboard.catalog.v1.CatalogService/{rpc}").parse().expect("an rpc's name makes a path")
}

/// What a status means to a run.
pub(crate) fn failed(call: &'static str, status: &Status) -> Error {
    Error::Call { call, code: status.code(), message: status.message().to_owned() }
}
