//! Connections: taken until the stop, each served over HTTP/2 within limits.

use std::time::Duration;

use bus::Stop;
use hyper::server::conn::http2::Builder;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tonic::service::Routes;

use crate::coalesce::Coalescing;

/// A connection that does not answer a ping for this long is closed, so that a stream to a vanished client ends.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's headers.
const HEADER_BYTES: u32 = 16 * 1024;
/// Calls at once on one connection.
const CALLS: u32 = 1000;
/// Bytes of one answer that wait to be sent, but for the part that came last: with hyper's 400 KiB a thousand watchers that lag for a moment
/// fill most of a gigabyte. What they lag behind stands in the log, once for all of them.
const WAITING_BYTES: usize = 32 * 1024;
/// How long nothing is taken after a connection could not be: the system has no more of them.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves until the stop, and then until the running calls have ended.
pub(crate) async fn serve(listener: TcpListener, routes: Routes, stop: Stop) {
    let mut open = JoinSet::new();
    let stopped = stop.stopped();
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            biased;
            () = &mut stopped => break,
            Some(_) = open.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => drop(open.spawn(serve_one(socket, routes.clone(), stop.clone()))),
                Err(error) => {
                    tracing::debug!(%error, "a connection cannot be taken");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
    // Whoever comes now is refused, and goes to another reader.
    drop(listener);
    while open.join_next().await.is_some() {}
}

async fn serve_one(socket: TcpStream, routes: Routes, stop: Stop) {
    // Without it answers may be late, and nothing else.
    let _ = socket.set_nodelay(true);
    let connection = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(PING_EVERY))
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(CALLS)
        .max_header_list_size(HEADER_BYTES)
        .max_send_buf_size(WAITING_BYTES)
        .serve_connection(TokioIo::new(Coalescing::new(socket)), TowerToHyperService::new(routes));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}
