//! What the process tells about itself: logs to stderr, metrics for Prometheus, metrics and traces by OTLP where asked for.

use crate::config::{Config, LogFormat};
use crate::failure::Failure;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{Aggregation, Instrument, SdkMeterProvider, Stream};
use opentelemetry_sdk::trace::SdkTracerProvider;
use prometheus::TextEncoder;
use std::io::IsTerminal;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

/// Bucket bounds of every delay and duration, in seconds: fractions of a second are what matters in normal operation.
const SECONDS: [f64; 15] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

/// What is to be flushed at the end. Clones share the metrics.
#[derive(Clone)]
pub struct Telemetry {
    registry: prometheus::Registry,
    meters: SdkMeterProvider,
    traces: Option<SdkTracerProvider>,
}

/// Installs logs, metrics and traces for the whole process; before any role starts, since roles take their meter then.
/// Within the async runtime, which OTLP needs.
///
/// # Errors
/// [`Failure::Usage`] for an OTLP endpoint that cannot be used.
pub fn start(config: &Config, default_log: &str, service: &str) -> Result<Telemetry, Failure> {
    let resource = Resource::builder()
        .with_service_name(format!("callboard-{service}"))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let endpoint = config.otlp_endpoint.as_deref();
    let traces = endpoint.map(|endpoint| tracer_provider(endpoint, &resource)).transpose()?;
    let (registry, meters) = meter_provider(endpoint, resource)?;
    opentelemetry::global::set_meter_provider(meters.clone());
    log(config, default_log, traces.as_ref())?;
    Ok(Telemetry { registry, meters, traces })
}

/// Installs the log alone, for a command that ends soon.
///
/// # Errors
/// [`Failure::Usage`] for a filter that cannot be used.
pub fn start_log(config: &Config, default_log: &str) -> Result<(), Failure> {
    log(config, default_log, None)
}

impl Telemetry {
    /// The metrics in Prometheus's text format.
    pub fn metrics_text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }

    /// Sends what is still buffered. Outside the async runtime's threads: it waits.
    pub fn stop(self) {
        // Whoever was to receive it may be away; nothing depends on it.
        drop(self.meters.shutdown());
        drop(self.traces.map(|traces| traces.shutdown()));
    }
}

fn meter_provider(
    endpoint: Option<&str>,
    resource: Resource,
) -> Result<(prometheus::Registry, SdkMeterProvider), Failure> {
    let registry = prometheus::Registry::new();
    let exporter = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false)
        .without_target_info();
    let reader =
        exporter.build().map_err(|error| Failure::Runtime(format!("the metrics cannot be set up: {error}")))?;
    let mut provider = SdkMeterProvider::builder().with_resource(resource).with_reader(reader).with_view(seconds_view);
    if let Some(endpoint) = endpoint {
        let exporter = opentelemetry_otlp::MetricExporter::builder().with_tonic().with_endpoint(endpoint).build();
        provider = provider.with_periodic_exporter(exporter.map_err(|error| wrong_endpoint(endpoint, &error))?);
    }
    Ok((registry, provider.build()))
}

/// Calls to a reader are quicker than these buckets can tell: they keep the bounds of their own.
fn seconds_view(instrument: &Instrument) -> Option<Stream> {
    let name = instrument.name();
    let is_timed = name.ends_with(".delay") || name.ends_with(".duration");
    if !is_timed || name.starts_with("catalog.reader.") {
        return None;
    }
    let buckets = Aggregation::ExplicitBucketHistogram { boundaries: SECONDS.to_vec(), record_min_max: false };
    Stream::builder().with_aggregation(buckets).build().ok()
}

fn tracer_provider(endpoint: &str, resource: &Resource) -> Result<SdkTracerProvider, Failure> {
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
    let exporter = exporter.map_err(|error| wrong_endpoint(endpoint, &error))?;
    Ok(SdkTracerProvider::builder().with_resource(resource.clone()).with_batch_exporter(exporter).build())
}

fn wrong_endpoint(endpoint: &str, error: &dyn std::error::Error) -> Failure {
    Failure::Usage(format!(
        "otlp_endpoint {endpoint}: {error}; expected the address of an OpenTelemetry collector's gRPC port, for example http://localhost:4317"
    ))
}

fn log(config: &Config, default_log: &str, traces: Option<&SdkTracerProvider>) -> Result<(), Failure> {
    let wanted = config.log.as_deref().unwrap_or(default_log);
    // What the clients say of connections and notices, ours say too; a target named in the setting counts before it.
    let filter = EnvFilter::try_new(format!("async_nats=error,sqlx=warn,{wanted}"))
        .map_err(|error| Failure::Usage(format!("log: {error}")))?;
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match config.log_format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed(),
    };
    let spans = traces.map(|traces| tracing_opentelemetry::layer().with_tracer(traces.tracer("callboard")));
    let subscriber = tracing_subscriber::registry().with(lines).with(spans).with(filter);
    subscriber.try_init().map_err(|error| Failure::Runtime(format!("the log cannot be set up: {error}")))
}
