//! Stitch requests from the outbox: how they are written, and the sweep that publishes what nobody did.

use crate::{ENTITIES_PER_REQUEST, Processor};
use bus::{Backoff, Bus, Published, Record, Stop, header};
use catalog::planted;
use std::sync::atomic::Ordering;
use std::time::Duration;
use store::{Life, Request};

/// How often the outbox is looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// The stitch stream as a processor knows it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StitchStream {
    /// How often it had been lost when that was last looked at: what is published into it after that is in this one.
    resets: i64,
    /// The highest sequence that was published since.
    highest: u64,
}

/// The messages that ask for what an outbox row says.
pub(crate) fn records(bus: &Bus, lane: &str, request: &Request) -> Vec<Record> {
    let subject = bus.names().stitch(lane);
    let part = |(index, entity_ids): (usize, &[i64])| {
        let part = Request { entity_ids: entity_ids.to_vec(), ..request.clone() };
        let body = serde_json::to_vec(&part).expect("a request is plain data");
        // The transaction is in the id, since numbers begin again in a restored database.
        Record::new(&subject, body).with_id(format!("outbox-{}-{}-{index}", request.outbox, request.transaction))
    };
    request.entity_ids.chunks(ENTITIES_PER_REQUEST).enumerate().map(part).collect()
}

/// Publishes outbox rows whose processor died before it did, and holds processing while too many wait.
pub(crate) async fn run(processor: &Processor, stop: &Stop) {
    let mut backoff = Backoff::new(PERIOD, Duration::from_secs(10));
    let mut said = false;
    loop {
        let pause = match sweep(processor).await {
            Ok(()) => {
                if std::mem::take(&mut said) {
                    tracing::info!("the outbox is published again");
                }
                backoff.reset();
                PERIOD
            }
            Err(error) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(%error, "the outbox cannot be published; trying until it can");
                }
                backoff.pause()
            }
        };
        if !stop.sleep(pause).await {
            return;
        }
    }
}

async fn sweep(processor: &Processor) -> Result<(), crate::Error> {
    let (_, unpublished) = processor.store.outbox_length().await?;
    processor.outbox_is_full.store(unpublished > processor.config.outbox_rows, Ordering::Relaxed);
    if unpublished == 0 {
        return Ok(());
    }
    let stream = processor.bus.names().stitch_stream();
    let Some(position) = processor.store.stream_position(&stream).await? else { return Ok(()) };
    let known = StitchStream { resets: position.resets, highest: u64::try_from(position.published).unwrap_or(0) };
    *processor.stitch_stream() = known;
    for row in processor.store.unpublished().await? {
        let mut published = Vec::new();
        // One by one: a repeated message is recognized by its id, where a repeated batch would be refused.
        for record in records(&processor.bus, &row.lane, &row.request) {
            let record = record.with_header(header::AGAIN, 1);
            published.push(bus::publish(&processor.bus, &record).await?);
        }
        note(processor, row.request.outbox, known, &published).await?;
    }
    Ok(())
}

/// Publishes what a committed batch asks for. What fails here is no loss: the outbox row is published by any processor's sweep.
pub(crate) async fn announce(processor: &Processor, lane: &str, request: &Request) {
    let known = *processor.stitch_stream();
    let records = records(&processor.bus, lane, request);
    let published = match &records[..] {
        [only] => bus::publish(&processor.bus, only).await.map(|published| vec![published]),
        several => bus::publish_all(&processor.bus, several).await.map(|sequences| {
            sequences.into_iter().map(|sequence| Published { sequence, duplicate: false }).collect::<Vec<_>>()
        }),
    };
    let noted = match published {
        Ok(published) => note(processor, request.outbox, known, &published).await,
        Err(error) => Err(error.into()),
    };
    if let Err(error) = noted {
        tracing::debug!(%error, outbox = request.outbox, "an outbox row is not published, or not noted; it will be published again");
    }
}

/// Notes that an outbox row is published. What the broker has stored at or below what it had stored before is in a stream that went back.
async fn note(
    processor: &Processor,
    outbox: i64,
    known: StitchStream,
    published: &[Published],
) -> Result<(), crate::Error> {
    let stream = processor.bus.names().stitch_stream();
    let life = Life { stream: &stream, resets: known.resets };
    let stored = published.iter().filter(|published| !published.duplicate).map(|published| published.sequence);
    if stored.clone().any(|sequence| sequence <= known.highest) {
        processor.store.note_highest(life, store::GONE_BACK).await?;
        processor.look_at_streams();
        return Ok(());
    }
    let last = if planted::is("outbox-dropped") { 0 } else { published.last().map_or(0, |last| last.sequence) };
    processor.store.note_published(outbox, last, life).await?;
    let mut now = processor.stitch_stream();
    if now.resets == known.resets {
        now.highest = now.highest.max(stored.max().unwrap_or(0));
    }
    Ok(())
}
