//! The gRPC server: the catalog, health and reflection, until the process stops.

use std::time::Duration;

use api::ready::catalog_service_server::{CatalogServiceServer, SERVICE_NAME};
use bus::Stop;
use tokio::{net::TcpListener, time::MissedTickBehavior};
use tonic::{
    codec::CompressionEncoding::{Gzip, Zstd},
    service::Routes,
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tonic_reflection::server::Builder as Reflection;

use crate::{Error, connections, service::Service, state::State, watch::Shared};

/// How long calls may take to end after the stop.
const GRACE: Duration = Duration::from_secs(5);
/// How often it is looked whether the reader is late.
const LATE_EVERY: Duration = Duration::from_secs(1);
/// How often watchers look whether they owe a bookmark.
const TICK: Duration = Duration::from_secs(1);
/// Bytes of a request.
const REQUEST_BYTES: usize = 1024 * 1024;

/// Serves until the stop, then until the running calls have ended or the grace is over.
pub(crate) async fn serve(state: State, listener: TcpListener, stop: Stop) -> Result<(), Error> {
    let catalog = CatalogServiceServer::new(Service::new(state.clone())).max_decoding_message_size(REQUEST_BYTES);
    let (reporter, health) = tonic_health::server::health_reporter();
    report(&reporter, ServingStatus::NotServing).await;
    let catalog = catalog.accept_compressed(Gzip).accept_compressed(Zstd).send_compressed(Zstd).send_compressed(Gzip);
    let routes = Routes::new(Shared(catalog))
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let overdue = async {
        stop.stopped().await;
        // Those who wait for what may never come are told at once; what is being answered has the grace.
        state.stop();
        report(&reporter, ServingStatus::NotServing).await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = connections::serve(listener, routes.prepare(), stop.clone()) => {}
        () = overdue => tracing::warn!(seconds = GRACE.as_secs(), "calls still run after the grace; leaving them"),
        never = tell_health(&state, &reporter) => match never {},
        never = tick(&state) => match never {},
    }
    Ok(())
}

/// The watchers' clock.
async fn tick(state: &State) -> std::convert::Infallible {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        state.hub().tick();
    }
}

fn reflection() -> Reflection<'static> {
    Reflection::configure()
        .register_encoded_file_descriptor_set(api::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Says `SERVING` as long as the reader is ready and not late.
async fn tell_health(state: &State, reporter: &HealthReporter) -> std::convert::Infallible {
    let mut progress = state.follow_progress();
    let mut told = false;
    loop {
        let serves = state.ready() && !state.is_late();
        if std::mem::replace(&mut told, serves) != serves {
            report(reporter, if serves { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
        }
        // Whether it is late changes without a step of its progress.
        let _ = tokio::time::timeout(LATE_EVERY, progress.changed()).await;
    }
}

/// Tells the health of the service and, under the empty name, of the server.
async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for name in ["", SERVICE_NAME] {
        reporter.set_service_status(name, status).await;
    }
}
