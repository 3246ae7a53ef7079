//! Streams and durable consumers as they must be: created, or brought up to date, with each drift reported.

use crate::{Bus, Error, Names};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use std::time::{Duration, SystemTime};

/// How large the streams may grow, and how many copies the broker keeps.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Copies of each stream: 1, or 3 in a cluster.
    pub replicas: usize,
    /// Bytes of events that may wait; publishers are refused beyond it.
    pub events_bytes: i64,
    /// Bytes of stitch requests that may wait; processors wait beyond it.
    pub stitch_bytes: i64,
    /// Bytes of dead letters; the oldest go beyond it.
    pub dead_letters_bytes: i64,
    /// How long a worker may be silent about a message before another gets it.
    pub ack_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            replicas: 1,
            events_bytes: 4 << 30,
            stitch_bytes: 1 << 30,
            dead_letters_bytes: 256 << 20,
            ack_wait: Duration::from_secs(30),
        }
    }
}

/// Creates the installation's streams or brings them up to date. Only roles with the database do this.
///
/// # Errors
/// [`Error::Unusable`] where a stream stands in the way that cannot be changed into ours.
pub async fn ensure_streams(bus: &Bus, limits: &Limits) -> Result<(), Error> {
    for wanted in configs(&bus.names, limits) {
        ensure_stream(bus, wanted).await?;
    }
    Ok(())
}

/// Bytes of conflicts that are kept; the oldest go beyond it.
const CONFLICTS_BYTES: i64 = 16 << 20;
/// How long what operators look at is kept.
const KEPT: Duration = Duration::from_secs(90 * 24 * 3600);

fn configs(names: &Names, limits: &Limits) -> [Config; 6] {
    let work = |name: String, subject: String, max_bytes: i64| Config {
        name,
        subjects: vec![subject],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: limits.replicas,
        max_bytes,
        max_messages: -1,
        max_messages_per_subject: -1,
        duplicate_window: Duration::from_secs(120),
        allow_direct: true,
        allow_atomic_publish: true,
        ..Config::default()
    };
    let events = work(names.events_stream(), names.all_events(), limits.events_bytes);
    let stitch = work(names.stitch_stream(), names.stitch(">"), limits.stitch_bytes);
    let entities = Config {
        subjects: vec![names.all_entities(), names.watermark()],
        max_messages_per_subject: 1,
        allow_message_ttl: true,
        ..work(names.entities_stream(), String::new(), -1)
    };
    let dead_letters = Config {
        discard: DiscardPolicy::Old,
        max_age: KEPT,
        ..work(names.dead_letters_stream(), names.all_dead_letters(), limits.dead_letters_bytes)
    };
    let conflicts = Config {
        discard: DiscardPolicy::Old,
        max_age: KEPT,
        ..work(names.conflicts_stream(), names.all_conflicts(), CONFLICTS_BYTES)
    };
    // Hints: what is dropped is found without.
    let reads = Config {
        discard: DiscardPolicy::Old,
        max_age: Duration::from_secs(120),
        ..work(names.reads_stream(), names.read(">"), 8 << 20)
    };
    [events, stitch, reads, entities, dead_letters, conflicts]
}

/// How long a stream that the broker refuses to make may take: while processes make the same one at once, it sets its bytes aside for each of them.
const PATIENCE: Duration = Duration::from_secs(5);

async fn ensure_stream(bus: &Bus, wanted: Config) -> Result<(), Error> {
    let until = tokio::time::Instant::now() + PATIENCE;
    let found = loop {
        if let Some(found) = bus.link.stream_config(&wanted.name).await? {
            break found;
        }
        match bus.link.create_stream(wanted.clone()).await {
            Err(Error::Unusable(_)) if tokio::time::Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            made => return made,
        }
    };
    let drift = stream_drift(&found, &wanted);
    if drift.is_empty() {
        return Ok(());
    }
    tracing::warn!(
        stream = wanted.name,
        drift = drift.join("; "),
        "the stream is not as configured; bringing it up to date"
    );
    bus.link.update_stream(Config { metadata: found.metadata, ..wanted }).await
}

fn stream_drift(found: &Config, wanted: &Config) -> Vec<String> {
    let mut drift = Vec::new();
    let mut compare = |what: &str, found: String, wanted: String| {
        if found != wanted {
            drift.push(format!("{what} is {found}, must be {wanted}"));
        }
    };
    compare("subjects", format!("{:?}", found.subjects), format!("{:?}", wanted.subjects));
    compare("discard", format!("{:?}", found.discard), format!("{:?}", wanted.discard));
    compare("replicas", found.num_replicas.to_string(), wanted.num_replicas.to_string());
    compare("max_bytes", found.max_bytes.to_string(), wanted.max_bytes.to_string());
    compare("max_age", format!("{:?}", found.max_age), format!("{:?}", wanted.max_age));
    compare(
        "max_msgs_per_subject",
        found.max_messages_per_subject.to_string(),
        wanted.max_messages_per_subject.to_string(),
    );
    compare("duplicate_window", format!("{:?}", found.duplicate_window), format!("{:?}", wanted.duplicate_window));
    compare("allow_direct", found.allow_direct.to_string(), wanted.allow_direct.to_string());
    compare("allow_atomic", found.allow_atomic_publish.to_string(), wanted.allow_atomic_publish.to_string());
    compare("allow_msg_ttl", found.allow_message_ttl.to_string(), wanted.allow_message_ttl.to_string());
    drift
}

/// Creates the durable consumers of both work streams or brings them up to date. One of the event stream that has to be made anew begins with
/// what was stored at `unsettled` or later; none: with everything. By time and not by sequence: in a stream that was replaced since somebody looked,
/// the same sequences are other messages, and all of them were stored later.
///
/// # Errors
/// [`Error::Unusable`] where a consumer stands in the way that cannot be changed into ours.
pub async fn ensure_consumers(bus: &Bus, limits: &Limits, unsettled: Option<SystemTime>) -> Result<(), Error> {
    let names = &bus.names;
    let of = |operations: &[&str]| operations.iter().map(|operation| names.events_of(operation)).collect::<Vec<_>>();
    let (events, stitch, reads) = (names.events_stream(), names.stitch_stream(), names.reads_stream());
    let wanted = [
        (&events, Names::PROCESSOR, of(&Names::FRESH_OPERATIONS), unsettled),
        (&events, Names::PROCESSOR_BULK, of(&Names::BULK_OPERATIONS), unsettled),
        (&stitch, Names::STITCHER, vec![names.stitch("fresh")], None),
        (&stitch, Names::STITCHER_BULK, vec![names.stitch("bulk")], None),
        (&reads, Names::LOCATION_READER, vec![names.read(">")], None),
    ];
    for (stream, durable, filter_subjects, begin) in wanted {
        let config = pull::Config {
            durable_name: Some(durable.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: limits.ack_wait,
            max_deliver: -1,
            max_ack_pending: 100_000,
            max_waiting: 2048,
            filter_subjects,
            deliver_policy: match begin {
                None => DeliverPolicy::All,
                Some(begin) => DeliverPolicy::ByStartTime { start_time: begin.into() },
            },
            ..pull::Config::default()
        };
        ensure_consumer(bus, stream, config).await?;
    }
    Ok(())
}

async fn ensure_consumer(bus: &Bus, stream: &str, mut wanted: pull::Config) -> Result<(), Error> {
    if let Some(found) = bus.link.consumer_config(stream, wanted.durable_name.as_deref().unwrap_or_default()).await? {
        let mut drift = Vec::new();
        if found.filter_subjects != wanted.filter_subjects {
            drift.push(format!("filters are {:?}, must be {:?}", found.filter_subjects, wanted.filter_subjects));
        }
        if found.ack_wait != wanted.ack_wait {
            drift.push(format!("ack_wait is {:?}, must be {:?}", found.ack_wait, wanted.ack_wait));
        }
        if found.max_ack_pending != wanted.max_ack_pending || found.max_deliver != wanted.max_deliver {
            drift.push("max_ack_pending or max_deliver differ".to_owned());
        }
        if drift.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            stream,
            consumer = wanted.durable_name,
            drift = drift.join("; "),
            "the consumer is not as configured; bringing it up to date"
        );
        wanted.deliver_policy = found.deliver_policy;
    }
    bus.link.put_consumer(stream, wanted).await
}

/// Deletes a stream, or one of its durable consumers, as an operator may do by mistake: for those who try what follows.
///
/// # Errors
/// [`Error::Away`], also where there is none.
pub async fn delete(bus: &Bus, stream: &str, durable: Option<&str>) -> Result<(), Error> {
    match durable {
        None => bus.link.delete_stream(stream).await,
        Some(durable) => bus.link.delete_consumer(stream, durable).await,
    }
}

/// Removes every message of a stream up to this sequence, and nothing beyond what the stream holds.
///
/// # Errors
/// [`Error::Away`].
pub async fn purge_through(bus: &Bus, stream: &str, sequence: u64) -> Result<(), Error> {
    bus.link.purge(stream, sequence).await
}
