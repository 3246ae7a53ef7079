//! Stitch requests from the outbox: how they are written, and the sweep that publishes what nobody did.

use crate::{ENTITIES_PER_REQUEST, Processor};
use bus::{Backoff, Bus, Record, Stop};
use std::sync::atomic::Ordering;
use std::time::Duration;
use store::Request;

/// How often the outbox is looked at.
const PERIOD: Duration = Duration::from_secs(1);

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
    processor.stitch_resets.store(position.resets, Ordering::Relaxed);
    for row in processor.store.unpublished().await? {
        let mut last = 0;
        // One by one: a repeated message is recognized by its id, where a repeated batch would be refused.
        for record in records(&processor.bus, &row.lane, &row.request) {
            last = bus::publish(&processor.bus, &record).await?.sequence;
        }
        processor.store.note_published(row.request.outbox, last, position.life(&stream)).await?;
    }
    Ok(())
}
