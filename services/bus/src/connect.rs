//! One connection to the broker: made with patience, kept for ever, its loss and return said once.

use crate::nats::REQUEST_TIMEOUT;
use crate::{Backoff, Error, Link, Names, Stop};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// The oldest nats-server whose atomic batches keep what they promise.
const OLDEST_SERVER: (i64, i64, i64) = (2, 12, 5);

/// Where the broker is and who we are there.
#[derive(Clone, Debug)]
pub struct Options {
    /// `nats://host:port`, several separated by commas.
    pub url: String,
    /// The installation's name.
    pub installation: String,
    /// User and password, where the broker asks for them.
    pub credentials: Option<(String, String)>,
    /// What this connection is called in the broker's own lists, for example `callboard-processor`.
    pub name: String,
    /// How long to try before giving up; none: for ever, as a service does.
    pub patience: Option<Duration>,
}

/// A connection, with the names of the installation that it serves. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Bus {
    pub(crate) link: Link,
    pub(crate) names: Names,
    pub(crate) connections: watch::Receiver<u64>,
    /// See [`Bus::life`].
    pub(crate) life: Arc<Life>,
}

/// In the place of a connection: nobody says how often the stream has been lost.
const NOBODY: u64 = u64::MAX;

/// How often the work stream has been lost, and on which connection that was seen.
#[derive(Debug)]
pub(crate) struct Life {
    number: AtomicI64,
    seen_on: AtomicU64,
}

impl Default for Life {
    fn default() -> Self {
        Life { number: AtomicI64::new(0), seen_on: AtomicU64::new(NOBODY) }
    }
}

impl Bus {
    /// Connects. Survives every later loss of the connection by itself.
    ///
    /// # Errors
    /// [`Error::Unusable`] for a wrong address, refused credentials or a nats-server older than 2.12.5;
    /// [`Error::Away`] when `patience` is over or `stop` came first.
    pub async fn connect(options: &Options, stop: &Stop) -> Result<Bus, Error> {
        let names = Names::new(&options.installation)?;
        let (counter, connections) = watch::channel(0);
        let client = dial(options, stop, Watcher::new(counter, &options.url)).await?;
        refuse_old_server(&client)?;
        Ok(Bus { link: Link::over(client), names, connections, life: Arc::default() })
    }

    /// The names of the installation.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Changes each time the connection was made anew.
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.connections.clone()
    }

    /// The number of the connection that is in use, or was last.
    pub fn connection(&self) -> u64 {
        *self.connections.borrow()
    }

    /// How often the work stream had been lost, as whoever uses this said last. What was taken in an earlier life is not of the stream that is there now,
    /// where its sequence may be another message's: it is neither handled nor answered.
    pub fn life(&self) -> i64 {
        self.life.number.load(Ordering::Relaxed)
    }

    /// Says how often the work stream has been lost, as it was seen on this connection.
    pub fn begin_life(&self, life: i64, connection: u64) {
        self.life.number.store(life, Ordering::Relaxed);
        self.life.seen_on.store(connection, Ordering::Release);
    }

    /// Whether the number of its life is that of the stream that is there now, as far as the connection tells; also if nobody ever says it.
    pub(crate) fn knows_life(&self) -> bool {
        [NOBODY, self.connection()].contains(&self.life.seen_on.load(Ordering::Acquire))
    }

    /// Whether the broker can be reached now.
    pub fn is_connected(&self) -> bool {
        self.link.is_connected()
    }

    /// The broker's largest payload, in bytes.
    pub fn max_payload(&self) -> usize {
        self.link.max_payload()
    }

    /// Sends what is still buffered and closes the connection; waits two seconds at most.
    pub async fn close(&self) {
        self.link.close().await;
    }
}

async fn dial(options: &Options, stop: &Stop, watcher: Watcher) -> Result<async_nats::Client, Error> {
    let addresses: Vec<&str> = options.url.split(',').map(str::trim).collect();
    let mut backoff = Backoff::default();
    let started = tokio::time::Instant::now();
    let mut said = false;
    loop {
        let error = match connect_options(options, watcher.clone()).connect(&addresses[..]).await {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        if is_hopeless(&error) {
            return Err(Error::Unusable(format!(
                "cannot use the broker at {}: {error}. Set CALLBOARD_NATS_URL (nats://host:port), and CALLBOARD_NATS_USER and CALLBOARD_NATS_PASSWORD if it asks for them",
                options.url
            )));
        }
        if options.patience.is_some_and(|patience| started.elapsed() >= patience) {
            return Err(Error::Away(format!(
                "nobody answers at {} ({error}). Is nats-server running there? CALLBOARD_NATS_URL names it",
                options.url
            )));
        }
        if !said {
            said = true;
            tracing::warn!(nats.url = options.url, %error, "the broker is away; trying until it answers");
        }
        if !stop.sleep(backoff.pause()).await {
            return Err(Error::away("stopped before the broker answered"));
        }
    }
}

fn connect_options(options: &Options, watcher: Watcher) -> async_nats::ConnectOptions {
    let connect = async_nats::ConnectOptions::new()
        .name(&options.name)
        .connection_timeout(Duration::from_secs(5))
        .ping_interval(Duration::from_secs(10))
        .request_timeout(Some(REQUEST_TIMEOUT))
        .subscription_capacity(16 * 1024)
        .max_reconnects(None)
        .reconnect_delay_callback(|attempts| {
            let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(3));
            (0..attempts.min(20)).map(|_| backoff.pause()).last().unwrap_or_default()
        })
        .event_callback(move |event| {
            let watcher = watcher.clone();
            async move { watcher.heard(&event) }
        });
    match &options.credentials {
        Some((user, password)) => connect.user_and_password(user.clone(), password.clone()),
        None => connect,
    }
}

fn is_hopeless(error: &async_nats::ConnectError) -> bool {
    use async_nats::ConnectErrorKind as Kind;
    matches!(error.kind(), Kind::ServerParse | Kind::Authentication | Kind::AuthorizationViolation | Kind::Tls)
}

fn refuse_old_server(client: &async_nats::Client) -> Result<(), Error> {
    let (major, minor, patch) = OLDEST_SERVER;
    if client.is_server_compatible(major, minor, patch) {
        return Ok(());
    }
    Err(Error::Unusable(format!(
        "the broker is nats-server {}, and Callboard needs {major}.{minor}.{patch} or newer (older ones lose or repeat atomic batches): update it",
        client.server_info().version
    )))
}

/// Counts connections and says a loss and a return once each.
#[derive(Clone)]
struct Watcher {
    counter: Arc<watch::Sender<u64>>,
    away: Arc<AtomicBool>,
    last_error: Arc<Mutex<String>>,
    url: String,
}

impl Watcher {
    fn new(counter: watch::Sender<u64>, url: &str) -> Self {
        Watcher { counter: Arc::new(counter), away: Arc::default(), last_error: Arc::default(), url: url.to_owned() }
    }

    fn heard(&self, event: &async_nats::Event) {
        match event {
            async_nats::Event::Connected => {
                self.counter.send_modify(|count| *count += 1);
                if self.away.swap(false, Ordering::Relaxed) {
                    tracing::info!(nats.url = self.url, "the broker is back");
                }
            }
            async_nats::Event::Disconnected => {
                if !self.away.swap(true, Ordering::Relaxed) {
                    tracing::warn!(nats.url = self.url, "the broker is away; trying until it answers");
                }
            }
            // We close it ourselves, and nobody else can.
            async_nats::Event::Draining | async_nats::Event::Closed => {}
            async_nats::Event::SlowConsumer(subscription) => {
                tracing::error!(
                    subscription,
                    "messages came faster than they were taken, and some were dropped; they will be delivered again"
                );
            }
            other => {
                let text = other.to_string();
                let mut last = self.last_error.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if *last != text && !self.away.load(Ordering::Relaxed) {
                    tracing::warn!(event = text, "the broker's client reports");
                    *last = text;
                }
            }
        }
    }
}
