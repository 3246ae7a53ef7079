//! `callboard demo`: from nothing to an example catalog that can be asked, and what came of it.

use super::publish::{await_last, revisions};
use super::up::{announce, run_everything, start_servers};
use crate::addresses::{self, Addresses};
use crate::cli::DemoArgs;
use crate::config::Config;
use crate::example;
use crate::failure::{Failure, tell};
use crate::input::{self, Checked, Source};
use crate::operator::{Operator, refused};
use crate::output::{self, Table};
use crate::publishing::{self, Publisher};
use crate::scrape;
use crate::telemetry::Telemetry;
use crate::units::show_seconds;
use api::v1::{Entity, GetEntityRequest};
use catalog::process::Model;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Instant;

/// In whose name the example is published.
const PROVIDER: &str = "example";
/// The entity that is shown: a component with many relations.
const SHOWN: &str = "component:default/booking-service";
/// What `up` and `demo` keep in their data directory.
const DATA: [&str; 6] = ["nats", "postgres", "nats.log", "postgres.log", "postgres.password", "servers.json"];

/// Runs everything with the example, until it is shown or until SIGINT or SIGTERM.
///
/// # Errors
/// Servers cannot be had, or a role failed.
pub fn run(config: &Config, args: &DemoArgs) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut claim = addresses::claim(&config.data_dir)?;
    if args.fresh {
        forget(&config.data_dir)?;
    }
    let mut config = config.clone();
    config.grpc_listen = free_or_any(config.grpc_listen);
    config.http_listen = free_or_any(config.http_listen);
    tell("finding PostgreSQL and nats-server…");
    let (config, servers) = start_servers(&config, &mut |line| tell(&format!("{line}…")))?;
    tell("starting every role…");
    run_everything(&config, servers, "warn", async |process, telemetry| {
        let Some(addresses) = announce(&config, process, &mut claim).await? else { return Ok(()) };
        let shown = process.meanwhile(show(&config, &addresses, telemetry, begun)).await?;
        if shown.is_none() || args.once {
            return Ok(());
        }
        tell("Ctrl-C stops everything; the data stays.");
        process.until_ended().await
    })
}

/// Removes the data of earlier runs, and nothing else that stands in the directory.
fn forget(data_dir: &Path) -> Result<(), Failure> {
    for name in DATA {
        let path = data_dir.join(name);
        let removed = match path.is_dir() {
            true => std::fs::remove_dir_all(&path),
            false => std::fs::remove_file(&path),
        };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::Runtime(format!("cannot remove {}: {error}", path.display())));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The address if it is free now, else any free port there.
fn free_or_any(address: SocketAddr) -> SocketAddr {
    match TcpListener::bind(address) {
        Ok(_) => address,
        Err(_) => SocketAddr::new(address.ip(), 0),
    }
}

async fn show(config: &Config, addresses: &Addresses, telemetry: &Telemetry, begun: Instant) -> Result<(), Failure> {
    let operator = Operator::new(config);
    let entities = example()?;
    tell(&format!("publishing {} entities…", entities.len()));
    let published = Instant::now();
    publish(&operator, &entities).await?;
    let readable = published.elapsed().as_secs_f64();
    let request = GetEntityRequest { r#ref: SHOWN.to_owned(), ..Default::default() };
    let answer = operator.reader().await?.get_entity(request).await.map_err(|status| refused(&status))?.into_inner();
    let entity = answer.entity.ok_or_else(|| Failure::runtime("the reader answered without an entity"))?;
    let mut out = output::stdout();
    write_entity(&mut out, &entity)?;
    writeln!(
        out,
        "{} entities published, stitched and readable in {}; {} since the start",
        entities.len(),
        show_seconds(readable),
        show_seconds(begun.elapsed().as_secs_f64())
    )?;
    writeln!(out, "{}\n", delays(&telemetry.metrics_text()))?;
    write_next(&mut out, config, addresses)?;
    Ok(out.flush()?)
}

fn example() -> Result<Vec<Checked>, Failure> {
    let model = Model::builtin();
    let mut entities = Vec::new();
    for (name, text) in example::FILES {
        let source = Source { name: name.to_owned(), text: text.to_owned() };
        let (good, bad) = input::check(&source, &model, PROVIDER);
        if let Some(fault) = bad.first() {
            return Err(Failure::runtime(fault));
        }
        entities.extend(good);
    }
    Ok(entities)
}

async fn publish(operator: &Operator, entities: &[Checked]) -> Result<(), Failure> {
    let bus = operator.bus().await?;
    let publisher = Publisher { provider: PROVIDER.to_owned(), ..Publisher::default() };
    let sequences = publishing::publish(&bus, &publisher, entities, &|_| ()).await?;
    let revisions = revisions(operator, &bus.names().events_stream(), &sequences).await?;
    let refs: Vec<&str> = entities.iter().map(|entity| entity.entity_ref.as_str()).collect();
    await_last(operator, &refs, &revisions).await
}

fn write_entity(out: &mut dyn Write, entity: &Entity) -> Result<(), Failure> {
    let metadata = entity.metadata.clone().unwrap_or_default();
    writeln!(out, "\n{}  {}", entity.r#ref, metadata.title())?;
    writeln!(out, "  {}\n", metadata.description())?;
    let rows =
        entity.relations.iter().map(|relation| vec![format!("  {}", relation.r#type), relation.target_ref.clone()]);
    Table::new(&["  RELATION", "TARGET"]).write(out, &rows.collect::<Vec<_>>())?;
    Ok(writeln!(out)?)
}

fn delays(metrics: &str) -> String {
    let of = |stage: &str| {
        let name = format!("catalog_{stage}_queue_delay_seconds");
        match (scrape::quantile(metrics, &name, 0.5), scrape::quantile(metrics, &name, 0.99)) {
            (Some(p50), Some(p99)) => format!("{stage} p50 {}, p99 {}", show_seconds(p50), show_seconds(p99)),
            _ => format!("{stage} had nothing to do"),
        }
    };
    format!("queue delays: {}; {}", of("processing"), of("stitching"))
}

fn write_next(out: &mut dyn Write, config: &Config, addresses: &Addresses) -> Result<(), Failure> {
    let Addresses { installation, nats_url, grpc_url, http_url, .. } = addresses;
    let callboard = this_program();
    let data_dir = match config.data_dir.to_str() {
        Some(".callboard") | None => String::new(),
        Some(data_dir) => format!(" --data-dir {data_dir}"),
    };
    writeln!(out, "gRPC     {grpc_url}\nHTTP     {http_url}/metrics, /healthz, /readyz\nNATS     {nats_url}\n")?;
    writeln!(out, "Next, in another terminal:")?;
    for command in ["list --filter kind=component", "get component:website", "status"] {
        writeln!(out, "  {callboard} {command}{data_dir}")?;
    }
    let entity = r#"{"apiVersion": "backstage.io/v1alpha1", "kind": "Component", "metadata": {"name": "mine"}, "spec": {"type": "service", "lifecycle": "experimental", "owner": "team-booking"}}"#;
    writeln!(out, "  nats --server {nats_url} req {installation}.events.my-provider.upsert '{entity}'")?;
    let call = format!("{grpc_url}/{}", "callboard.catalog.v1.CatalogService/GetEntity");
    writeln!(
        out,
        "  buf curl --protocol grpc --http2-prior-knowledge {call} --data '{{\"ref\": \"component:default/mine\"}}'\n"
    )?;
    Ok(())
}

/// As it was called: what is typed next should be the same program.
fn this_program() -> String {
    std::env::args().next().filter(|name| !name.is_empty()).unwrap_or_else(|| "callboard".to_owned())
}
