//! What the operator's commands talk to: the addresses that are given, or those of the `up` that runs in the data directory.

use crate::addresses::{self, Addresses};
use crate::commands::up::reachable;
use crate::config::Config;
use crate::failure::Failure;
use crate::{commands, telemetry};
use api::v1::catalog_service_client::CatalogServiceClient;
use bus::{Bus, Stopper};
use std::time::Duration;
use store::Store;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// How long a command tries to reach a server.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest reply that is taken, in bytes: pages are smaller, one entity alone may be larger.
const REPLY_BYTES: usize = 64 << 20;

/// A reader to be asked.
pub type Reader = CatalogServiceClient<Channel>;

/// Where everything is for one command.
pub struct Operator {
    /// The settings, with the addresses that were found.
    pub config: Config,
    /// The data directory's `up` is the one that is asked.
    is_local: bool,
    stopper: Stopper,
    stop: bus::Stop,
}

/// Does a command's asynchronous work.
///
/// # Errors
/// Those of the work.
pub fn ask<T>(config: &Config, work: impl AsyncFnOnce(&Operator) -> Result<T, Failure>) -> Result<T, Failure> {
    let runtime = commands::runtime()?;
    telemetry::start_log(config, "warn")?;
    let operator = Operator::new(config);
    let outcome = runtime.block_on(work(&operator));
    operator.stopper.stop();
    outcome
}

impl Operator {
    /// What is given counts; what is not given is that of a running `up`, unless it serves something else.
    pub fn new(config: &Config) -> Operator {
        let mut config = config.clone();
        let found = addresses::find(&config.data_dir).filter(|found| fits(&config, found));
        let is_local = found.is_some();
        if let Some(found) = found {
            config.installation.get_or_insert(found.installation);
            config.nats_url.get_or_insert(found.nats_url);
            config.database_url.get_or_insert(found.database_url);
            config.grpc_url.get_or_insert(found.grpc_url);
            config.http_url.get_or_insert(found.http_url);
        }
        let (stopper, stop) = bus::stop();
        Operator { config, is_local, stopper, stop }
    }

    /// Connects to the broker.
    ///
    /// # Errors
    /// None is given or none answers; says what to do.
    pub async fn bus(&self) -> Result<Bus, Failure> {
        let options = bus::Options {
            url: self
                .config
                .nats_url
                .clone()
                .ok_or_else(|| self.nothing_known("broker", "--nats-url (nats://host:port)"))?,
            installation: self.config.installation().to_owned(),
            credentials: self.config.credentials(),
            name: "callboard-operator".to_owned(),
            patience: Some(PATIENCE),
        };
        Ok(Bus::connect(&options, &self.stop).await?)
    }

    /// Connects to a reader.
    ///
    /// # Errors
    /// None answers; says what to do.
    pub async fn reader(&self) -> Result<Reader, Failure> {
        let url = self.grpc_url();
        let endpoint =
            Endpoint::from_shared(url.clone()).map_err(|error| Failure::Usage(format!("grpc_url {url}: {error}")))?;
        let channel = endpoint.connect_timeout(PATIENCE).connect().await.map_err(|_| match self.is_local {
            true => Failure::Runtime(format!("no reader answers at {url}")),
            false => {
                Failure::Runtime(format!("no reader answers at {url}: --grpc-url names another; {}", self.no_up()))
            }
        })?;
        Ok(CatalogServiceClient::new(channel).max_decoding_message_size(REPLY_BYTES))
    }

    /// Connects to the database; none: no address is known.
    ///
    /// # Errors
    /// It does not answer, or refuses us.
    pub async fn store(&self) -> Result<Option<Store>, Failure> {
        let Some(url) = self.config.database_url.clone() else { return Ok(None) };
        let installation = self.config.installation().to_owned();
        let options = store::Options { url, installation, connections: 2, name: "callboard-operator".to_owned() };
        Ok(Some(Store::connect(&options).await?))
    }

    /// Connects to the database, which the command cannot do without.
    ///
    /// # Errors
    /// No address is known, it does not answer, or refuses us.
    pub async fn needed_store(&self) -> Result<Store, Failure> {
        let address = "--database-url (postgres://user:password@host:port/database)";
        self.store().await?.ok_or_else(|| self.nothing_known("database", address))
    }

    /// Where a reader is.
    pub fn grpc_url(&self) -> String {
        self.config.grpc_url.clone().unwrap_or_else(|| format!("http://{}", reachable(self.config.grpc_listen)))
    }

    /// Where health and metrics are.
    pub fn http_url(&self) -> String {
        self.config.http_url.clone().unwrap_or_else(|| format!("http://{}", reachable(self.config.http_listen)))
    }

    fn nothing_known(&self, what: &str, flag: &str) -> Failure {
        Failure::Usage(format!("no {what} is given: {}, or give {flag}", self.no_up()))
    }

    fn no_up(&self) -> String {
        format!("no `callboard up` runs with its data in {}: start one here", self.config.data_dir.display())
    }
}

fn fits(config: &Config, found: &Addresses) -> bool {
    let same = |given: &Option<String>, found: &str| given.as_deref().is_none_or(|given| given == found);
    same(&config.installation, &found.installation)
        && same(&config.nats_url, &found.nats_url)
        && same(&config.database_url, &found.database_url)
}

/// What a reader's refusal means to whoever typed the command.
pub fn refused(status: &Status) -> Failure {
    match status.code() {
        Code::InvalidArgument => {
            let violations = api::field_violations(status);
            let lines: Vec<String> =
                violations.into_iter().map(|(field, reason)| format!("{field}: {reason}")).collect();
            Failure::Usage(if lines.is_empty() { status.message().to_owned() } else { lines.join("; ") })
        }
        _ => Failure::runtime(status.message()),
    }
}
