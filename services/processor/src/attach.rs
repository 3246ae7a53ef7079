//! Before anything is fetched or published: the streams as they must be, and whether they are the ones that were left.

use crate::{Error, Processor};
use bus::{Backoff, Bus, Limits, Stop, stream_status};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use store::{Remedy, SeenStream, Store, StreamPosition};
use tokio::sync::watch;

/// How often it is looked whether the streams and consumers still stand.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// In the place of a connection: none.
pub(crate) const NONE: u64 = u64::MAX;

/// How an attempt to attach ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// Everything stands.
    Ready,
    /// The stop signal came first.
    Stopped,
}

/// Creates the streams and durable consumers or brings them up to date, and compares each work stream with what was last seen of
/// it: one that was wiped or went back gets a new revision offset. Waits for the broker and the database as long as it takes.
///
/// # Errors
/// What no waiting can mend.
pub async fn attach(bus: &Bus, store: &Store, limits: &Limits, stop: &Stop) -> Result<Attached, Error> {
    let mut backoff = Backoff::default();
    let mut said = false;
    loop {
        let error = match attach_once(bus, store, limits).await {
            Ok(()) => return Ok(Attached::Ready),
            Err(error) => error,
        };
        let hopeless = matches!(
            &error,
            Error::Bus(bus::Error::Unusable(_)) | Error::Store(store::Error::Unusable(_) | store::Error::Refused(_))
        );
        if hopeless {
            return Err(error);
        }
        if !std::mem::replace(&mut said, true) {
            tracing::warn!(%error, "the streams cannot be looked at; trying until they can");
        }
        if !stop.sleep(backoff.pause()).await {
            return Ok(Attached::Stopped);
        }
    }
}

/// Attaches again each time the connection to the broker was made anew, and takes nothing meanwhile; and looks now and then whether
/// somebody has deleted a stream or a consumer.
pub(crate) async fn again(processor: &Processor, mut connections: watch::Receiver<u64>, stop: &Stop) {
    let Processor { bus, store, config, attached_to, look_again, .. } = processor;
    loop {
        tokio::select! {
            biased;
            () = stop.stopped() => return,
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = look_again.notified() => {}
            changed = connections.changed() => if changed.is_err() {
                return;
            },
        }
        let connection = bus.connection();
        match attach(bus, store, &config.streams, stop).await {
            Ok(_) => attached_to.store(connection, Ordering::Relaxed),
            Err(error) => {
                attached_to.store(NONE, Ordering::Relaxed);
                tracing::error!(%error, "the streams cannot be used; nothing is taken until they can");
            }
        }
    }
}

async fn attach_once(bus: &Bus, store: &Store, limits: &Limits) -> Result<(), Error> {
    let connection = bus.connection();
    // What is missing is noted before it is made anew, so that no message of the new stream gets an old revision.
    let events = bus.names().events_stream();
    let streams = [
        (&events, Remedy::None),
        (&bus.names().stitch_stream(), Remedy::PublishOutbox),
        (&bus.names().entities_stream(), Remedy::Rebuild),
    ];
    for (stream, remedy) in streams {
        if let Some(known) = store.stream_position(stream).await? {
            compare(bus, store, (stream, remedy), &known).await?;
        }
    }
    bus::ensure_streams(bus, limits).await?;
    for (stream, _) in streams {
        // Known before it is found: others note what comes meanwhile.
        let known = store.stream_position(stream).await?;
        let found = seen(&stream_status(bus, stream).await?);
        // It may have been lost, and made anew just now, after it was compared.
        if let Some(known) = &known
            && is_another(bus, stream, known, &found).await?
        {
            return Err(bus::Error::Away(format!("stream {stream} was lost while it was looked at")).into());
        }
        store.note_stream(stream, &found).await?;
    }
    let unsettled = match store.stream_position(&events).await? {
        None => None,
        Some(position) => {
            bus.begin_life(position.resets, connection);
            unsettled_since(bus, store, &events, &position).await?
        }
    };
    Ok(bus::ensure_consumers(bus, limits, unsettled).await?)
}

/// Gives a stream a new offset if it is not the one that was left.
async fn compare(
    bus: &Bus,
    store: &Store,
    (stream, remedy): (&str, Remedy),
    known: &StreamPosition,
) -> Result<(), Error> {
    let now = bus::find_stream(bus, stream).await?;
    let seen = match &now {
        None => SeenStream { created: 0, last_sequence: 0, last_stored: 0 },
        Some(status) => seen(status),
    };
    if !is_another(bus, stream, known, &seen).await? {
        return Ok(());
    }
    if store.reset_stream(stream, known, &seen, remedy).await? {
        opentelemetry::global::meter("callboard")
            .u64_counter("callboard.stream.gaps")
            .with_description("Streams that were found wiped or gone back to an older state")
            .build()
            .add(1, &[opentelemetry::KeyValue::new("stream", stream.to_owned())]);
        tracing::error!(
            stream,
            sequence.known = known.last_sequence,
            sequence.found = seen.last_sequence,
            "the broker lost what it had accepted of this stream, or went back to an older state: its messages have new revisions from now on"
        );
    }
    Ok(())
}

/// Whether a stream that is found so is not the one that is known, or went back.
async fn is_another(bus: &Bus, stream: &str, known: &StreamPosition, found: &SeenStream) -> Result<bool, Error> {
    Ok(known.is_above(found) || holds_another(bus, stream, known).await?)
}

/// Whether the stream went back, and has grown past what is known since.
pub(crate) async fn holds_another(bus: &Bus, stream: &str, known: &StreamPosition) -> Result<bool, bus::Error> {
    let [sequence, stored] = [known.last_sequence, known.last_stored].map(|number| u64::try_from(number).unwrap_or(0));
    bus::has_grown_anew(bus, stream, (sequence, stored)).await
}

/// Since when the event stream holds what is not settled, for a durable that has to be made anew; none: it may be all of it.
async fn unsettled_since(
    bus: &Bus,
    store: &Store,
    stream: &str,
    position: &StreamPosition,
) -> Result<Option<SystemTime>, Error> {
    let settled = u64::try_from(store.floor().await? - position.revision_offset).unwrap_or(0);
    if settled == 0 {
        return Ok(None);
    }
    let known = UNIX_EPOCH + Duration::from_nanos(u64::try_from(position.last_stored).unwrap_or(0));
    // The stream that answers may be another one by now. Each of its messages is newer than the last one known, so it never begins after that.
    let next = bus::next_stored(bus, stream, settled + 1).await?;
    Ok(Some(next.map_or(known, |(_, stored)| stored.min(known))))
}

fn seen(status: &bus::StreamStatus) -> SeenStream {
    SeenStream {
        created: nanoseconds(status.created),
        last_sequence: i64::try_from(status.last_sequence).unwrap_or(i64::MAX),
        last_stored: if status.last_sequence == 0 { 0 } else { nanoseconds(status.last_stored) },
    }
}

fn nanoseconds(time: SystemTime) -> i64 {
    i64::try_from(bus::nanoseconds(time)).unwrap_or(i64::MAX)
}
