//! What one half of the processes reaches the servers through, and how it is configured.

use super::proxy::Proxy;
use super::site::Server;
use crate::Error;
use crate::process::Launch;
use std::path::Path;

/// What one half of the processes reaches the servers through.
pub(crate) struct Side {
    /// One, or one for each member of a cluster.
    pub brokers: Vec<Proxy>,
    pub database: Proxy,
    pub launch: Launch,
}

impl Side {
    /// Proxies in front of the servers, and what the processes are started with.
    pub async fn start(
        (nats, database): (&[String], &str),
        program: &Path,
        (logs, settings): (&Path, &[(String, String)]),
    ) -> Result<Side, Error> {
        let mut brokers = Vec::with_capacity(nats.len());
        for url in nats {
            let proxy = Proxy::start().await?;
            proxy.target(url);
            brokers.push(proxy);
        }
        let proxy = Proxy::start().await?;
        proxy.target(database);
        let mut side = Side {
            brokers,
            database: proxy,
            launch: Launch { program: program.to_path_buf(), logs: logs.to_path_buf(), environment: Vec::new() },
        };
        let mut environment = vec![
            ("CALLBOARD_NATS_URL".to_owned(), side.nats_url(nats)),
            ("CALLBOARD_DATABASE_URL".to_owned(), side.database.address(database)),
            ("CALLBOARD_REPLICAS".to_owned(), nats.len().to_string()),
            ("CALLBOARD_INSTALLATION".to_owned(), "catalog".to_owned()),
            ("CALLBOARD_ACK_WAIT".to_owned(), "4s".to_owned()),
            ("CALLBOARD_CHECK_EVERY".to_owned(), "2s".to_owned()),
            // Snapshots leave out what they like; one that lost its end is given up in time.
            ("CALLBOARD_SNAPSHOT_MAX_REMOVAL".to_owned(), "100".to_owned()),
            ("CALLBOARD_SNAPSHOT_TIMEOUT".to_owned(), "90s".to_owned()),
            // Both fit into the small disk, beside the dead letters.
            ("CALLBOARD_EVENTS_MAX_BYTES".to_owned(), "134217728".to_owned()),
            ("CALLBOARD_STITCH_MAX_BYTES".to_owned(), "67108864".to_owned()),
        ];
        environment.extend(settings.iter().cloned());
        side.launch.environment = environment;
        Ok(side)
    }

    /// The addresses of the proxies in front of the brokers with these addresses.
    pub fn nats_url(&self, nats: &[String]) -> String {
        let addresses: Vec<String> = self.brokers.iter().zip(nats).map(|(proxy, url)| proxy.address(url)).collect();
        addresses.join(",")
    }

    /// The proxies in front of a server.
    pub fn proxies(&self, server: Server) -> &[Proxy] {
        if server == Server::Broker { &self.brokers } else { std::slice::from_ref(&self.database) }
    }
}
