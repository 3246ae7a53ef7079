//! `callboard up`: every role in one process, with a broker and a database beside it where none is given.

use crate::addresses::{self, Addresses, Claim};
use crate::config::{Config, Output};
use crate::failure::{Failure, tell};
use crate::process::{self, Process};
use crate::roles::Role;
use crate::telemetry::{self, Telemetry};
use servers::Servers;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Runs everything until SIGTERM or SIGINT.
///
/// # Errors
/// What is given is wrong, servers cannot be had, or a role failed.
pub fn run(config: &Config) -> Result<(), Failure> {
    let mut claim = addresses::claim(&config.data_dir)?;
    let (config, servers) = start_servers(config, &mut |line| tell(line))?;
    run_everything(&config, servers, "info", async |process, _| {
        let Some(addresses) = announce(&config, process, &mut claim).await? else { return Ok(()) };
        say(&config, &addresses)?;
        process.until_ended().await
    })
}

/// Starts every role, does the work, and stops everything when it is done.
///
/// # Errors
/// Those of the work, and of roles while they drain.
pub fn run_everything(
    config: &Config,
    servers: Option<Servers>,
    default_log: &str,
    work: impl AsyncFnOnce(&mut Process, &Telemetry) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let runtime = super::runtime()?;
    let telemetry = {
        let _within = runtime.enter();
        telemetry::start(config, default_log, "up")?
    };
    let outcome = runtime.block_on(async {
        let mut process = process::start(config, &Role::ALL, &telemetry, servers).await?;
        let done = work(&mut process, &telemetry).await;
        done.and(process.stop().await)
    });
    telemetry.stop();
    outcome
}

/// Starts the servers that are not given; gives the settings with the addresses of all, and what is to be stopped at the end.
/// On the main thread: the servers end with the thread that started them.
///
/// # Errors
/// Servers that are not to be found, fetched or started, with what to do.
pub fn start_servers(config: &Config, report: &mut dyn FnMut(&str)) -> Result<(Config, Option<Servers>), Failure> {
    let mut config = config.clone();
    if config.nats_url.is_some() && config.database_url.is_some() {
        return Ok((config, None));
    }
    let cache_dir = match &config.cache_dir {
        Some(cache_dir) => cache_dir.clone(),
        None => servers::cache_dir()?,
    };
    let mut options = servers::Options::new(&config.data_dir, cache_dir);
    options.nats = config.nats_url.is_none();
    options.postgres = config.database_url.is_none();
    let servers = servers::start(options, report)?;
    config.nats_url = config.nats_url.or_else(|| servers.nats_url().map(str::to_owned));
    config.database_url = config.database_url.or_else(|| servers.database_url().map(str::to_owned));
    Ok((config, Some(servers)))
}

/// Waits until gRPC is served and writes where everything is; none: stopped before.
///
/// # Errors
/// A role or server ended meanwhile, or the file cannot be written.
pub async fn announce(config: &Config, process: &mut Process, claim: &mut Claim) -> Result<Option<Addresses>, Failure> {
    let (http, mut grpc) = (process.http, process.grpc.clone());
    let served = async move {
        let address = grpc.wait_for(Option::is_some).await.map(|address| *address);
        address.ok().flatten().ok_or_else(|| Failure::Runtime("the reader ended before it served".to_owned()))
    };
    let Some(grpc) = process.meanwhile(served).await? else { return Ok(None) };
    let addresses = Addresses {
        pid: std::process::id(),
        installation: config.installation().to_owned(),
        nats_url: config.nats_url.clone().unwrap_or_default(),
        database_url: config.database_url.clone().unwrap_or_default(),
        grpc_url: format!("http://{}", reachable(grpc)),
        http_url: format!("http://{}", reachable(http)),
    };
    claim.write(&addresses)?;
    Ok(Some(addresses))
}

/// The address to use for one that is listened on: not that of every interface.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => SocketAddr::from((Ipv6Addr::LOCALHOST, address.port())),
        _ => address,
    }
}

/// One line on stdout. The database's address is not in it: it holds a password.
fn say(config: &Config, addresses: &Addresses) -> Result<(), Failure> {
    let Addresses { installation, nats_url, grpc_url, http_url, .. } = addresses;
    let mut out = std::io::stdout().lock();
    match config.output {
        Some(Output::Json) => {
            let line = serde_json::json!({"installation": installation, "natsUrl": nats_url, "grpcUrl": grpc_url, "httpUrl": http_url});
            writeln!(out, "{line}")?;
        }
        _ => writeln!(
            out,
            "callboard is up: installation {installation}, gRPC {grpc_url}, HTTP {http_url}, NATS {nats_url}"
        )?,
    }
    Ok(out.flush()?)
}
