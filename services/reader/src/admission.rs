//! Which calls are worked on: so many at once, each for so long; the others are refused before any work is done.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use api::Error;
use futures::Stream;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Sleep,
};
use tonic::Status;

/// Calls at once that look through the catalog. Each takes a slice of time and lets others go on; more of them would only wait longer.
const SEARCHES: usize = 128;
/// Streams of the whole catalog at once. Each holds a chunk of about 1 MiB.
const STREAMS: usize = 48;
/// How long a call is worked on whatever its deadline.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// How long a stream of the whole catalog takes at most.
const STREAM_LIMIT: Duration = Duration::from_secs(600);

/// The places for calls.
#[derive(Debug)]
pub(crate) struct Admission {
    searches: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Admission {
    /// Every place is free.
    pub fn new() -> Admission {
        Admission { searches: Arc::new(Semaphore::new(SEARCHES)), streams: Arc::new(Semaphore::new(STREAMS)) }
    }

    /// Answers a call that looks through the catalog, within its deadline.
    ///
    /// # Errors
    /// Its own; [`Error::TooManyCalls`], [`Error::TooLong`].
    pub async fn search<T>(
        &self,
        timeout: Option<Duration>,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let _place = self.searches.try_acquire().map_err(|_| Error::TooManyCalls { limit: SEARCHES })?;
        let limit = timeout.map_or(CALL_LIMIT, |timeout| timeout.min(CALL_LIMIT));
        let answered = tokio::time::timeout(limit, answer).await;
        answered.unwrap_or_else(|_| Err(too_long(limit)))
    }

    /// A stream that ends with its deadline. A client that takes nothing does not hold its place beyond that.
    ///
    /// # Errors
    /// [`Error::TooManyCalls`].
    pub fn stream<S>(
        &self,
        timeout: Option<Duration>,
        begin: impl FnOnce() -> Result<S, Error>,
    ) -> Result<Bounded<S>, Error> {
        let place = self.streams.clone().try_acquire_owned().map_err(|_| Error::TooManyCalls { limit: STREAMS })?;
        let limit = timeout.map_or(STREAM_LIMIT, |timeout| timeout.min(STREAM_LIMIT));
        let stream = begin()?;
        let (dropped, ended) = oneshot::channel();
        tokio::spawn(hold(place, limit, ended));
        Ok(Bounded { stream, limit, deadline: Box::pin(tokio::time::sleep(limit)), over: false, _dropped: dropped })
    }
}

async fn hold(place: OwnedSemaphorePermit, limit: Duration, ended: oneshot::Receiver<()>) {
    // Either way the place is free.
    let _ = tokio::time::timeout(limit, ended).await;
    drop(place);
}

fn too_long(limit: Duration) -> Error {
    Error::TooLong { seconds: limit.as_secs_f64().ceil() as u64 }
}

/// A stream that ends with its deadline.
pub(crate) struct Bounded<S> {
    stream: S,
    limit: Duration,
    deadline: Pin<Box<Sleep>>,
    over: bool,
    _dropped: oneshot::Sender<()>,
}

impl<T, S: Stream<Item = Result<T, Status>> + Unpin> Stream for Bounded<S> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        if self.deadline.as_mut().poll(context).is_ready() {
            self.over = true;
            return Poll::Ready(Some(Err(too_long(self.limit).into())));
        }
        Pin::new(&mut self.stream).poll_next(context)
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_call_beyond_the_limit_is_refused_at_once() {
        let admission = Admission::new();
        let held = admission.searches.try_acquire_many(SEARCHES as u32).unwrap();
        let refused = admission.search(None, async { Ok(()) }).await;
        assert_eq!(refused, Err(Error::TooManyCalls { limit: SEARCHES }));
        drop(held);
        assert_eq!(admission.search(None, async { Ok(()) }).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_with_its_deadline_and_with_the_limit() {
        let admission = Admission::new();
        let never = || std::future::pending::<Result<(), Error>>();
        let ended = admission.search(Some(Duration::from_millis(1500)), never()).await;
        assert_eq!(ended, Err(Error::TooLong { seconds: 2 }));
        assert_eq!(admission.search(None, never()).await, Err(Error::TooLong { seconds: 30 }));
        assert_eq!(admission.searches.available_permits(), SEARCHES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_nobody_takes_gives_its_place_back() {
        let admission = Admission::new();
        let begin = || Ok(futures::stream::repeat_with(|| Ok::<u8, Status>(1)));
        let mut stream = admission.stream(None, begin).unwrap();
        assert!(matches!(stream.next().await, Some(Ok(1))));
        assert_eq!(admission.streams.available_permits(), STREAMS - 1);
        tokio::time::sleep(STREAM_LIMIT + Duration::from_secs(1)).await;
        assert_eq!(admission.streams.available_permits(), STREAMS);
        let status = stream.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        assert!(stream.next().await.is_none());
        drop(admission.stream(None, begin).unwrap());
        tokio::task::yield_now().await;
        assert_eq!(admission.streams.available_permits(), STREAMS);
    }
}
