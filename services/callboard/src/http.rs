//! The HTTP port of every process: `/metrics`, `/healthz`, `/readyz`.

use crate::failure::Failure;
use crate::health::Health;
use crate::telemetry::Telemetry;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Listens.
///
/// # Errors
/// [`Failure::Usage`]: the address is in use, or not ours.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| {
        Failure::Usage(format!(
            "http_listen: cannot listen on {address}: {error}; give another address, or port 0 for a free one"
        ))
    })
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, health: Health, telemetry: Telemetry) {
    let routes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(health)
        .merge(Router::new().route("/metrics", get(metrics)).with_state(telemetry));
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "health and metrics are served no more");
    }
}

async fn healthz(State(health): State<Health>) -> impl IntoResponse {
    let faults = health.faults();
    (status(&faults), Json(json!({"alive": faults.is_empty(), "faults": faults})))
}

async fn readyz(State(health): State<Health>) -> impl IntoResponse {
    let missing = health.missing().await;
    (status(&missing), Json(json!({"ready": missing.is_empty(), "missing": missing})))
}

fn status(missing: &[String]) -> StatusCode {
    match missing.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn metrics(State(telemetry): State<Telemetry>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], telemetry.metrics_text())
}
