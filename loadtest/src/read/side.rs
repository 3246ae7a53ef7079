//! The broker and the reader under test: started, filled, restarted.

use super::pin;
use super::stitched::{INSTALLATION, Stitcher};
use crate::Error;
use crate::generate::generate;
use crate::installation::Started;
use crate::process::{Launch, Process, Role, find_program};
use crate::settle::bar;
use crate::usage;
use bus::{Bus, Record, entity_record, watermark_record};
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;
use servers::Servers;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// The core of the reader; and that of client and broker.
pub(crate) const SERVER_CORE: usize = 0;
pub(crate) const CLIENT_CORE: usize = 1;
/// Entities in one atomic batch, and batches on their way at once.
const BATCH: usize = 1000;
const FLIGHTS: usize = 3;
/// Entities that are made by one thread at a time.
const PART: usize = 500;
/// How long a reader may take until it is ready.
const READY_LIMIT: Duration = Duration::from_secs(300);
/// How long a broker that restarts is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that may be on their way to a client: gRPC's default of 64 KiB would measure the window.
const WINDOW: u32 = 8 << 20;

/// A broker with a filled entity stream, and the program that reads it. Dropping it stops everything.
pub(crate) struct ReadSide {
    pub bus: Bus,
    pub launch: Launch,
    /// The same for readers that only start: they may use every core.
    starts: Launch,
    pub entities: usize,
    /// The version of the newest message.
    pub version: i64,
    pub stitcher: Stitcher,
    // In the order in which they are dropped.
    broker: Option<Servers>,
    data: TempDir,
}

impl ReadSide {
    /// Starts a broker and fills its stream.
    pub async fn start(started: &Started, seed: u64, entities: usize) -> Result<ReadSide, Error> {
        let program = find_program(started.callboard.as_deref())?;
        let data = crate::installation::data_directory(started.keep)?;
        let broker = start_broker(data.path().join("data")).await?;
        let url = broker.nats_url().unwrap_or_default().to_owned();
        let mut environment = vec![
            ("CALLBOARD_NATS_URL".to_owned(), url.clone()),
            ("CALLBOARD_INSTALLATION".to_owned(), INSTALLATION.to_owned()),
        ];
        environment.extend(started.settings.iter().cloned());
        let starts = Launch { program, logs: data.path().to_path_buf(), environment };
        let mut launch = starts.clone();
        launch.environment.push(("TOKIO_WORKER_THREADS".to_owned(), "1".to_owned()));
        let bus = crate::installation::connect(&url, INSTALLATION, None).await?;
        bus::ensure_streams(&bus, &bus::Limits::default()).await?;
        let learn = move || {
            let bar = bar("related", entities);
            let stitcher = Stitcher::learn(seed, entities, || bar.inc(1));
            bar.finish_and_clear();
            stitcher
        };
        let stitcher = tokio::task::spawn_blocking(learn).await.map_err(ended)?;
        let mut side = ReadSide { bus, launch, starts, entities, version: 0, stitcher, broker: Some(broker), data };
        side.fill(seed).await?;
        Ok(side)
    }

    async fn fill(&mut self, seed: u64) -> Result<(), Error> {
        let bar = bar("stitched", self.entities);
        let (bus, stitcher) = (self.bus.clone(), self.stitcher.clone());
        let numbered = (1_i64..).zip(generate(seed, self.entities));
        let parts = Parts(numbered).map(|part| {
            let (bus, stitcher) = (bus.clone(), stitcher.clone());
            tokio::task::spawn_blocking(move || {
                part.iter().filter_map(|(version, entity)| stitcher.record(&bus, entity, *version)).collect()
            })
        });
        // Two threads make entities while the broker takes what is made.
        let made = futures::stream::iter(parts).buffered(2 * FLIGHTS).map(|made| made.map_err(ended));
        made.try_chunks(BATCH / PART)
            .map_err(|error| error.1)
            .map_ok(|parts: Vec<Vec<Record>>| {
                let (bus, bar) = (&self.bus, &bar);
                async move {
                    let records = parts.concat();
                    bus::publish_all(bus, &records).await?;
                    bar.inc(records.len() as u64);
                    Ok::<(), Error>(())
                }
            })
            .try_buffered(FLIGHTS)
            .try_for_each(|()| async { Ok(()) })
            .await?;
        bar.finish_and_clear();
        self.version = i64::try_from(self.entities).unwrap_or(i64::MAX);
        self.tell_watermark().await
    }

    /// Publishes an entity under the next version, or its deletion, as often as it takes; says which version that was.
    pub async fn publish_patiently(&mut self, entity_ref: &str, entity: Option<&Value>) -> Result<i64, Error> {
        self.version += 1;
        let record = match entity {
            Some(entity) => self.stitcher.record(&self.bus, entity, self.version),
            None => Some(entity_record(&self.bus, entity_ref, self.version, self.version, None)),
        };
        let Some(record) = record else { return Ok(self.version) };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match bus::publish(&self.bus, &record).await {
                Ok(_) => return Ok(self.version),
                // It may be stored all the same; twice is once, by its version.
                Err(error) if error.is_away() && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Publishes that everything up to here is there.
    pub async fn tell_watermark(&self) -> Result<(), Error> {
        Ok(bus::publish(&self.bus, &watermark_record(&self.bus, self.version)).await.map(drop)?)
    }

    /// Starts a reader with all cores and kills it as soon as it is ready; gives how long that took.
    pub async fn cold_start(&self) -> Result<Duration, Error> {
        let (mut reader, took) = self.begin(&self.starts).await?;
        reader.kill()?;
        Ok(took)
    }

    /// Starts a reader and waits until it is ready; then it has one core, and one thread for its calls.
    pub async fn start_reader(&self) -> Result<Process, Error> {
        Ok(self.begin(&self.launch).await?.0)
    }

    async fn begin(&self, launch: &Launch) -> Result<(Process, Duration), Error> {
        let began = Instant::now();
        let mut reader = Process::start(launch, Role::Reader, 1)?;
        reader.ready_within(launch, READY_LIMIT).await?;
        let took = began.elapsed();
        pin::process(reader.pid(), SERVER_CORE);
        Ok((reader, took))
    }

    /// Has a reader write a snapshot, kills it, and starts another with the snapshot; gives how long that start took.
    pub async fn start_with_snapshot(&self) -> Result<(Process, Duration), Error> {
        let file = self.data.path().join("reader.snapshot");
        let mut launch = self.starts.clone();
        launch.environment.push(("CALLBOARD_SNAPSHOT_FILE".to_owned(), file.to_string_lossy().into_owned()));
        let (mut reader, _) = self.begin(&launch).await?;
        let deadline = Instant::now() + READY_LIMIT;
        while !file.exists() {
            if Instant::now() > deadline {
                let (what, seconds) = ("a snapshot of the reader".to_owned(), READY_LIMIT.as_secs());
                return Err(Error::TimedOut { what, seconds, found: format!("there is no {}", file.display()) });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        reader.kill()?;
        self.begin(&launch).await
    }

    /// Waits until a reader does nothing any more: once it is ready it builds what it will be asked for first, from its second look at the stream on, which is
    /// two seconds later at most.
    pub async fn until_quiet(&self, reader: &Process) -> Result<(), Error> {
        let used = || usage::of_process(reader.pid()).map_or(0.0, |usage| usage.cpu_seconds);
        let deadline = Instant::now() + READY_LIMIT;
        let mut before = used();
        while Instant::now() < deadline {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let now = used();
            // 0.05 of a core.
            if now - before < 0.15 {
                return Ok(());
            }
            before = now;
        }
        let (what, seconds) = ("a reader at rest".to_owned(), READY_LIMIT.as_secs());
        Err(Error::TimedOut { what, seconds, found: "it works on".to_owned() })
    }

    /// Stops the broker with SIGTERM and starts it again on the same port with the same data.
    pub async fn restart_broker(&mut self) -> Result<(), Error> {
        let Some(broker) = self.broker.take() else { return Ok(()) };
        tokio::task::spawn_blocking(move || broker.stop()).await.map_err(ended)?;
        self.broker = Some(start_broker(self.data.path().join("data")).await?);
        Ok(())
    }

    /// Stops the broker and removes its data.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.bus.close().await;
        if let Some(broker) = self.broker.take() {
            tokio::task::spawn_blocking(move || broker.stop()).await.map_err(ended)?;
        }
        Ok(())
    }
}

/// A connection to a reader, with a window that does not hold it up.
pub(crate) async fn channel(address: &str) -> Result<Channel, Error> {
    let address = format!("http://{address}");
    let wrong = |source| Error::Reader { address: address.clone(), source };
    let endpoint = Endpoint::from_shared(address.clone()).map_err(wrong)?.tcp_nodelay(true);
    let endpoint = endpoint.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
    endpoint.connect_timeout(Duration::from_secs(5)).connect().await.map_err(wrong)
}

async fn start_broker(directory: PathBuf) -> Result<Servers, Error> {
    let start = move || {
        // What is started here inherits the core; the thread gives it back when it ends.
        let thread = std::thread::spawn(move || {
            pin::this_thread(CLIENT_CORE);
            let mut options = servers::Options::new(directory, servers::cache_dir()?);
            options.postgres = false;
            servers::start(options, &mut |line| eprintln!("{line}"))
        });
        thread.join()
    };
    let started = tokio::task::spawn_blocking(start).await.map_err(ended)?;
    Ok(started.map_err(|_| Error::Usage("the thread that starts the broker panicked; this is a bug".to_owned()))??)
}

fn ended(error: tokio::task::JoinError) -> Error {
    Error::Usage(format!("a task of the load test ended: {error}; this is a bug"))
}

struct Parts<I>(I);

impl<I: Iterator<Item = (i64, Value)>> Iterator for Parts<I> {
    type Item = Vec<(i64, Value)>;

    fn next(&mut self) -> Option<Vec<(i64, Value)>> {
        let part: Vec<(i64, Value)> = self.0.by_ref().take(PART).collect();
        (!part.is_empty()).then_some(part)
    }
}
