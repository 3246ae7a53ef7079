//! Serves a case's directory over HTTP on loopback, with entity tags, so that an unchanged file costs a conditional request.

use crate::Error;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use catalog::hash::bytes_hash;
use std::net::Ipv4Addr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A directory that is served. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Web {
    /// `http://127.0.0.1:<port>`
    pub url: String,
    server: JoinHandle<()>,
}

impl Web {
    /// Serves a directory on a free port of loopback.
    ///
    /// # Errors
    /// [`Error::Io`] when no port can be had.
    pub async fn serve(root: &Path) -> Result<Web, Error> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Error::io("serve", root))?;
        let address = listener.local_addr().map_err(Error::io("serve", root))?;
        let routes = Router::new().fallback(routing::get(answer)).with_state(Arc::new(root.to_path_buf()));
        let server = tokio::spawn(async move {
            // It ends with this program, or is dropped before.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Web { url: format!("http://{address}"), server })
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(root): State<Arc<PathBuf>>, uri: Uri, headers: HeaderMap) -> Response {
    let relative = PathBuf::from(uri.path().trim_start_matches('/'));
    if relative.components().any(|component| !matches!(component, Component::Normal(_))) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let Ok(body) = tokio::fs::read(root.join(relative)).await else { return StatusCode::NOT_FOUND.into_response() };
    let etag = format!("\"{}\"", bytes_hash([body.as_slice()]));
    match headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        true => (StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response(),
        false => ([(header::ETAG, etag)], body).into_response(),
    }
}
