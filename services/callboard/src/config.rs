//! The configuration: one struct whose comments are the manual, and what must fit together in it.

use crate::config_values::{
    ack_wait, batch_events, check_every, concurrency, database_url, domain, http_url, installation, keep_events,
    log_filter, max_behind, nats_url, orphan_grace, read_bytes, read_interval, read_timeout, replicas, snapshot_every,
    snapshot_timeout, stream_bytes,
};
use crate::failure::Failure;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Each setting has three names: the flag `--nats-url`, the environment's `CALLBOARD_NATS_URL`, and the key `nats_url` of the file that
/// `--config` names. A flag counts before the environment, that before the file, and that before the default.
#[derive(Clone, clap::Args)]
#[command(next_help_heading = "Settings (--nats-url, CALLBOARD_NATS_URL and the file's nats_url are one)")]
pub struct Config {
    /// YAML file with settings, for example `nats_url: nats://localhost:4222`; unknown keys are refused
    #[arg(long, env = "CALLBOARD_CONFIG", global = true, hide_short_help = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Name of the installation [default: catalog]: prefix of its subjects, in capitals of its streams, and its database schema
    ///
    /// 1 to 32 of a-z, 0-9 and _, a letter first. Installations of different names live side by side on one broker and one database.
    #[arg(long, env = "CALLBOARD_INSTALLATION", global = true, hide_short_help = true, value_name = "NAME", value_parser = installation)]
    pub installation: Option<String>,

    /// The broker: nats://host:port, several separated by commas
    #[arg(long, env = "CALLBOARD_NATS_URL", global = true, hide_short_help = true, value_name = "URL", value_parser = nats_url)]
    pub nats_url: Option<String>,

    /// User at the broker, where it asks for one
    #[arg(long, env = "CALLBOARD_NATS_USER", global = true, hide_short_help = true, value_name = "NAME")]
    pub nats_user: Option<String>,

    /// That user's password; better in the environment or the file than in a flag that others can see
    #[arg(
        long,
        env = "CALLBOARD_NATS_PASSWORD",
        global = true,
        hide_short_help = true,
        hide_env_values = true,
        value_name = "TEXT"
    )]
    pub nats_password: Option<String>,

    /// PostgreSQL 14 or newer: postgres://user:password@host:port/database. Readers need none
    #[arg(long, env = "CALLBOARD_DATABASE_URL", global = true, hide_short_help = true, hide_env_values = true, value_name = "URL", value_parser = database_url)]
    pub database_url: Option<String>,

    /// Connections to the database that each role opens at most; a stitcher has up to three transactions open, and notes beside them
    #[arg(long, env = "CALLBOARD_DATABASE_CONNECTIONS", global = true, hide_short_help = true, value_name = "COUNT", default_value = "10", value_parser = clap::value_parser!(u32).range(4..=1000))]
    pub database_connections: u32,

    /// Where a reader serves gRPC; port 0 takes a free one
    #[arg(
        long,
        env = "CALLBOARD_GRPC_LISTEN",
        global = true,
        hide_short_help = true,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:7070"
    )]
    pub grpc_listen: SocketAddr,

    /// How far behind the entity stream a reader may be to count as ready; it goes on answering all the same. In a region, how long its link may be cut
    #[arg(long, env = "CALLBOARD_MAX_BEHIND", global = true, hide_short_help = true, value_name = "DURATION", default_value = "2m", value_parser = max_behind)]
    pub max_behind: Duration,

    /// For a reader in another region: the JetStream domain of the writing region. Its own broker, joined by a leaf node, keeps a mirror of the entity stream
    #[arg(long, env = "CALLBOARD_MIRROR_OF", global = true, hide_short_help = true, value_name = "DOMAIN", value_parser = domain)]
    pub mirror_of: Option<String>,

    /// Where a reader keeps a snapshot of what it holds, so that its next start takes seconds; none: each start reads the whole stream
    #[arg(long, env = "CALLBOARD_SNAPSHOT_FILE", global = true, hide_short_help = true, value_name = "FILE")]
    pub snapshot_file: Option<PathBuf>,

    /// How often it is written; 10s to 1d
    #[arg(long, env = "CALLBOARD_SNAPSHOT_EVERY", global = true, hide_short_help = true, value_name = "DURATION", default_value = "10m", value_parser = snapshot_every)]
    pub snapshot_every: Duration,

    /// Where a role serves /metrics, /healthz and /readyz; port 0 takes a free one
    #[arg(
        long,
        env = "CALLBOARD_HTTP_LISTEN",
        global = true,
        hide_short_help = true,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:7071"
    )]
    pub http_listen: SocketAddr,

    /// Where the operator's commands reach a reader [default: that of the running `callboard up`, else what --grpc-listen says]
    #[arg(long, env = "CALLBOARD_GRPC_URL", global = true, hide_short_help = true, value_name = "URL", value_parser = http_url)]
    pub grpc_url: Option<String>,

    /// Where the operator's commands find /metrics [default: that of the running `callboard up`, else what --http-listen says]
    #[arg(long, env = "CALLBOARD_HTTP_URL", global = true, hide_short_help = true, value_name = "URL", value_parser = http_url)]
    pub http_url: Option<String>,

    /// What is logged to stderr [default: info, of `demo` and the operator's commands warn]: a level, or target=level separated by commas
    #[arg(long, env = "CALLBOARD_LOG", global = true, hide_short_help = true, value_name = "FILTER", value_parser = log_filter)]
    pub log: Option<String>,

    /// How it is logged
    #[arg(
        long,
        env = "CALLBOARD_LOG_FORMAT",
        global = true,
        hide_short_help = true,
        value_enum,
        default_value = "text"
    )]
    pub log_format: LogFormat,

    /// Where metrics and traces are sent by OTLP over gRPC, for example http://localhost:4317; none: nowhere
    #[arg(long, env = "CALLBOARD_OTLP_ENDPOINT", global = true, hide_short_help = true, value_name = "URL", value_parser = http_url)]
    pub otlp_endpoint: Option<String>,

    /// Copies of each stream: 1, or 3 or 5 in a cluster of as many brokers
    #[arg(long, env = "CALLBOARD_REPLICAS", global = true, hide_short_help = true, value_name = "COUNT", default_value = "1", value_parser = replicas)]
    pub replicas: usize,

    /// Bytes of events that may wait; publishers are refused beyond it
    #[arg(long, env = "CALLBOARD_EVENTS_MAX_BYTES", global = true, hide_short_help = true, value_name = "BYTES", default_value = "4GiB", value_parser = stream_bytes)]
    pub events_max_bytes: i64,

    /// Bytes of stitch requests that may wait; processors wait beyond it
    #[arg(long, env = "CALLBOARD_STITCH_MAX_BYTES", global = true, hide_short_help = true, value_name = "BYTES", default_value = "1GiB", value_parser = stream_bytes)]
    pub stitch_max_bytes: i64,

    /// How long a worker may be silent about a message before another gets it; 1s to 10m. Workers speak up every third of it
    #[arg(long, env = "CALLBOARD_ACK_WAIT", global = true, hide_short_help = true, value_name = "DURATION", default_value = "30s", value_parser = ack_wait)]
    pub ack_wait: Duration,

    /// Events that a processor takes at a time, at most; 1 to 10,000
    #[arg(long, env = "CALLBOARD_BATCH_EVENTS", global = true, hide_short_help = true, value_name = "COUNT", default_value = "1000", value_parser = batch_events)]
    pub batch_events: usize,

    /// How long settled events stay in their stream, at least 2m: as long as the broker knows a repeated publish
    #[arg(long, env = "CALLBOARD_KEEP_EVENTS", global = true, hide_short_help = true, value_name = "DURATION", default_value = "10m", value_parser = keep_events)]
    pub keep_events: Duration,

    /// How often the entity stream is compared with the database, 500 entities at a time; 1s to 1h
    #[arg(long, env = "CALLBOARD_CHECK_EVERY", global = true, hide_short_help = true, value_name = "DURATION", default_value = "10s", value_parser = check_every)]
    pub check_every: Duration,

    /// YAML file of what decides how entities are processed: what may be read, rules, processors, formats (deploy/examples/catalog.yaml)
    #[arg(long, env = "CALLBOARD_CATALOG_FILE", global = true, hide_short_help = true, value_name = "FILE")]
    pub catalog_file: Option<PathBuf>,

    /// Directory of kinds of one's own: `<Kind>.schema.json` and tables of relation fields, `<any>.json`
    #[arg(long, env = "CALLBOARD_KINDS_DIR", global = true, hide_short_help = true, value_name = "DIR")]
    pub kinds_dir: Option<PathBuf>,

    /// Hosts that Locations and placeholders may be read from, separated by commas: github.com, *.example.com:8443, http://10.0.0.7:8080 [default: none]
    ///
    /// Read by https, or by http if that is written before it. A name that leads to an address that is not public is refused, unless the catalog file
    /// allows it; an address is allowed by being named.
    #[arg(long, env = "CALLBOARD_READ_HOSTS", global = true, hide_short_help = true, value_name = "HOSTS")]
    pub read_hosts: Option<String>,

    /// Directories below which files may be read, absolute, separated by commas [default: none]
    #[arg(long, env = "CALLBOARD_READ_FILES", global = true, hide_short_help = true, value_name = "DIRS")]
    pub read_files: Option<String>,

    /// Bytes that one read may give, after decompression; 1KiB to 64MiB
    #[arg(long, env = "CALLBOARD_READ_MAX_BYTES", global = true, hide_short_help = true, value_name = "BYTES", default_value = "10MiB", value_parser = read_bytes)]
    pub read_max_bytes: usize,

    /// How long one read may take, with its redirects; 100ms to 60s
    #[arg(long, env = "CALLBOARD_READ_TIMEOUT", global = true, hide_short_help = true, value_name = "DURATION", default_value = "10s", value_parser = read_timeout)]
    pub read_timeout: Duration,

    /// Reads at once in each processor; 1 to 1,000
    #[arg(long, env = "CALLBOARD_READ_CONCURRENCY", global = true, hide_short_help = true, value_name = "COUNT", default_value = "32", value_parser = concurrency)]
    pub read_concurrency: usize,

    /// Of these, reads at once at one host; 1 to 1,000
    #[arg(long, env = "CALLBOARD_READ_HOST_CONCURRENCY", global = true, hide_short_help = true, value_name = "COUNT", default_value = "8", value_parser = concurrency)]
    pub read_host_concurrency: usize,

    /// What becomes of an entity that nothing emits any more: `delete` it when the grace period is over, or `keep` it, marked as an orphan
    #[arg(
        long,
        env = "CALLBOARD_ORPHAN_STRATEGY",
        global = true,
        hide_short_help = true,
        value_enum,
        default_value = "delete"
    )]
    pub orphan_strategy: OrphanStrategy,

    /// How long an orphan stays before it is deleted; 0s to 30d
    #[arg(long, env = "CALLBOARD_ORPHAN_GRACE", global = true, hide_short_help = true, value_name = "DURATION", default_value = "30s", value_parser = orphan_grace)]
    pub orphan_grace: Duration,

    /// How long after a read of what an entity needs from outside it is time for the next, a tenth more or less; 1s to 30d
    #[arg(long, env = "CALLBOARD_READ_INTERVAL", global = true, hide_short_help = true, value_name = "DURATION", default_value = "150s", value_parser = read_interval)]
    pub read_interval: Duration,

    /// Entities that a processor begins to read again in a second because it is time, at most; 1 to 10,000
    #[arg(long, env = "CALLBOARD_READ_RATE", global = true, hide_short_help = true, value_name = "COUNT", default_value = "20", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub read_rate: u32,

    /// A snapshot that would withdraw more than this share of its provider's claims, in percent, is held for an operator; 0 to 100
    #[arg(long, env = "CALLBOARD_SNAPSHOT_MAX_REMOVAL", global = true, hide_short_help = true, value_name = "PERCENT", default_value = "50", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub snapshot_max_removal: u32,

    /// So many claims a snapshot may withdraw whatever their share; 0 to 1,000,000
    #[arg(long, env = "CALLBOARD_SNAPSHOT_FREE_REMOVALS", global = true, hide_short_help = true, value_name = "COUNT", default_value = "20", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub snapshot_free_removals: u32,

    /// A snapshot of which nothing came for so long withdraws nothing; until then `at_least_revision` waits for it. 10s to 1d
    #[arg(long, env = "CALLBOARD_SNAPSHOT_TIMEOUT", global = true, hide_short_help = true, value_name = "DURATION", default_value = "10m", value_parser = snapshot_timeout)]
    pub snapshot_timeout: Duration,

    /// Where `up` and `demo` keep their servers' data and say where they are reached
    #[arg(
        long,
        env = "CALLBOARD_DATA_DIR",
        global = true,
        hide_short_help = true,
        value_name = "DIR",
        default_value = ".callboard"
    )]
    pub data_dir: PathBuf,

    /// Where fetched servers are kept [default: the user's cache directory]
    #[arg(long, env = "CALLBOARD_CACHE_DIR", global = true, hide_short_help = true, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,

    /// How a command writes what it found
    #[arg(long, env = "CALLBOARD_OUTPUT", global = true, hide_short_help = true, value_enum)]
    pub output: Option<Output>,
}

/// How is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What becomes of an entity that nothing emits any more (Backstage's `orphanStrategy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OrphanStrategy {
    /// It is deleted.
    Delete,
    /// It stays, marked.
    Keep,
}

/// How a command writes what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Aligned columns, for people.
    Table,
    /// One JSON value a line.
    Json,
    /// YAML documents.
    Yaml,
}

impl Config {
    /// The installation's name.
    pub fn installation(&self) -> &str {
        self.installation.as_deref().unwrap_or("catalog")
    }

    /// How the streams are to be.
    pub fn stream_limits(&self) -> bus::Limits {
        bus::Limits {
            replicas: self.replicas,
            events_bytes: self.events_max_bytes,
            stitch_bytes: self.stitch_max_bytes,
            ack_wait: self.ack_wait,
            ..bus::Limits::default()
        }
    }

    /// When a snapshot withdraws nothing.
    pub fn snapshots(&self) -> processor::SnapshotsConfig {
        processor::SnapshotsConfig {
            max_removal_percent: self.snapshot_max_removal,
            free_removals: self.snapshot_free_removals,
            timeout: self.snapshot_timeout,
        }
    }

    /// What is read outside, and what comes of it.
    pub fn reads(&self) -> processor::ReadsConfig {
        processor::ReadsConfig {
            interval: self.read_interval,
            scheduled_per_second: self.read_rate,
            orphans: match self.orphan_strategy {
                OrphanStrategy::Delete => processor::OrphanStrategy::Delete,
                OrphanStrategy::Keep => processor::OrphanStrategy::Keep,
            },
            orphan_grace: self.orphan_grace,
            ..processor::ReadsConfig::default()
        }
    }

    /// User and password at the broker.
    pub fn credentials(&self) -> Option<(String, String)> {
        self.nats_user.clone().zip(self.nats_password.clone())
    }

    /// What must fit together.
    ///
    /// # Errors
    /// [`Failure::Usage`]: which settings, what they are, and what to do.
    pub fn check(&self) -> Result<(), Failure> {
        if self.nats_user.is_some() != self.nats_password.is_some() {
            let (given, other) =
                if self.nats_user.is_some() { ("nats_user", "nats_password") } else { ("nats_password", "nats_user") };
            return Err(Failure::Usage(format!(
                "{given} is given without {other}: give both (for example CALLBOARD_NATS_USER and CALLBOARD_NATS_PASSWORD) or neither"
            )));
        }
        let (grpc, http) = (self.grpc_listen, self.http_listen);
        if grpc == http && grpc.port() != 0 {
            return Err(Failure::Usage(format!(
                "grpc_listen and http_listen are both {grpc}: give each its own port, or 0 for a free one"
            )));
        }
        if self.stitch_max_bytes > self.events_max_bytes {
            return Err(Failure::Usage(format!(
                "stitch_max_bytes {} is larger than events_max_bytes {}: a stitch request is smaller than the event that causes it; lower the one or raise the other",
                self.stitch_max_bytes, self.events_max_bytes
            )));
        }
        Ok(())
    }
}
