//! WatchEntities: the answer of a watch, as the codec makes it or below the codec.
//!
//! The codec encodes each event for each watcher. Where nothing is compressed, events are sent as bytes that all watchers at one place share: the call leaves its
//! watcher in the answer's extensions, and [`Shared`], around the service, takes it from there and puts another body in place of the codec's.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use api::{Error, ready as v1};
use futures::{Stream, StreamExt, TryFutureExt, future::MapOk, stream};
use hyper::{
    HeaderMap,
    body::{Bytes, Frame},
};
use tonic::{
    Response, Status,
    body::Body,
    codegen::{BoxStream, Service, http},
    server::NamedService,
};

use super::Watcher;
use crate::state::State;

/// The header that says that an answer is compressed.
const ENCODING: &str = "grpc-encoding";

type Answer = Result<v1::WatchEntitiesResponse, Status>;

/// WatchEntities, for who calls the reader from its own process.
///
/// # Errors
/// The request makes no sense, there are too many watchers, or the place to resume from is not known here.
pub async fn watch_entities(
    state: &State,
    request: &v1::WatchEntitiesRequest,
) -> Result<impl Stream<Item = Answer>, Error> {
    Ok(answers(Some(Box::new(Watcher::of(state, request).await?))))
}

/// WatchEntities, for the service.
pub(crate) async fn begin(state: &State, request: &v1::WatchEntitiesRequest) -> Result<Watched, Error> {
    let watcher = Box::new(Watcher::of(state, request).await?);
    Ok(Watched(Arc::new(Mutex::new(Some(watcher)))))
}

fn answers(watcher: Option<Box<Watcher>>) -> impl Stream<Item = Answer> {
    stream::unfold(watcher, |watcher| async {
        let mut watcher = watcher?;
        let answer = watcher.next_answer().await;
        let then = answer.is_ok().then_some(watcher);
        Some((answer.map_err(Status::from), then))
    })
}

/// A watch that has begun, for the one who sends its answers.
#[derive(Clone)]
pub(crate) struct Watched(Arc<Mutex<Option<Box<Watcher>>>>);

impl Watched {
    /// The answer as the codec makes it, and in its extensions the watch itself.
    pub fn into_response(self) -> Response<BoxStream<v1::WatchEntitiesResponse>> {
        let watched = self.clone();
        let told = stream::once(async move { watched.take() }).flat_map(answers);
        let mut response = Response::new(Box::pin(told) as _);
        response.extensions_mut().insert(self);
        response
    }

    fn take(&self) -> Option<Box<Watcher>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A service whose watches are answered below the codec.
#[derive(Clone, Debug)]
pub(crate) struct Shared<S>(pub S);

impl<S: NamedService> NamedService for Shared<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Shared<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = MapOk<S::Future, fn(http::Response<Body>) -> http::Response<Body>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.call(request).map_ok(below_the_codec)
    }
}

fn below_the_codec(mut response: http::Response<Body>) -> http::Response<Body> {
    let watched = response.extensions_mut().remove::<Watched>();
    let is_compressed = response.headers().contains_key(ENCODING);
    match watched.filter(|_| !is_compressed).and_then(|watched| watched.take()) {
        Some(watcher) => response.map(|_| Body::new(Answers::of(watcher))),
        None => response,
    }
}

/// A body of answers, and in the end why there are no more.
struct Answers(Option<BoxStream<Bytes>>);

impl Answers {
    fn of(watcher: Box<Watcher>) -> Answers {
        Answers(Some(Box::pin(stream::unfold(Some(watcher), |watcher| async {
            let mut watcher = watcher?;
            let answers = watcher.next_answers().await;
            let then = answers.is_ok().then_some(watcher);
            Some((answers.map_err(Status::from), then))
        }))))
    }
}

impl hyper::body::Body for Answers {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(answers) = &mut self.0 else { return Poll::Ready(None) };
        let frame = match ready!(answers.as_mut().poll_next(context)) {
            Some(Ok(answers)) => Frame::data(answers),
            over => {
                self.0 = None;
                Frame::trailers(trailers(over.and_then(Result::err)))
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }
}

fn trailers(status: Option<Status>) -> HeaderMap {
    let status = status.unwrap_or_else(|| Status::ok(""));
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // What the reader says of an error is text, so a header can hold it; if not, the code alone.
        trailers.insert(Status::GRPC_STATUS, (status.code() as i32).into());
    }
    trailers
}
