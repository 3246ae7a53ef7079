//! How far everything is: the outbox is cleared behind the stitchers, the floor recorded, the watermark published.

use crate::Error;
use crate::task::Task;
use bus::{Bus, Lanes, settled_through, strays_through, stream_status};
use std::time::{SystemTime, UNIX_EPOCH};
use store::{SeenStream, Store};

pub(crate) struct Floor {
    bus: Bus,
    store: Store,
    /// Up to where the event stream was settled at the last run.
    events_settled: u64,
    stitch_settled: u64,
    watermark: i64,
}

impl Floor {
    pub fn new(bus: &Bus, store: &Store) -> Self {
        Floor { bus: bus.clone(), store: store.clone(), events_settled: 0, stitch_settled: 0, watermark: -1 }
    }
}

impl Task for Floor {
    async fn run(&mut self) -> Result<(), Error> {
        self.clear_outbox().await?;
        self.raise_floor().await?;
        self.publish_watermark().await
    }
}

impl Floor {
    /// An outbox row goes when the stitchers have acknowledged what it asked for.
    async fn clear_outbox(&mut self) -> Result<(), Error> {
        let lanes = Lanes::stitch(self.bus.names());
        if stream_status(&self.bus, &lanes.stream).await?.last_sequence == self.stitch_settled {
            return Ok(());
        }
        self.stitch_settled = settled_through(&self.bus, &lanes).await?;
        self.store.delete_published(self.stitch_settled).await?;
        Ok(())
    }

    /// What no consumer takes is a dead letter before the floor passes it.
    async fn raise_floor(&mut self) -> Result<(), Error> {
        let lanes = Lanes::events(self.bus.names());
        let status = stream_status(&self.bus, &lanes.stream).await?;
        if status.last_sequence == self.events_settled {
            return Ok(());
        }
        let settled = settled_through(&self.bus, &lanes).await?;
        let known = if self.events_settled <= settled { self.events_settled } else { 0 };
        strays_through(&self.bus, known.max(status.first_sequence.saturating_sub(1)), settled).await?;
        if let Some(revision) = self.revision(&lanes.stream, settled).await? {
            self.store.raise_floor(revision).await?;
        }
        let seen = SeenStream {
            created: nanoseconds(status.created),
            last_sequence: i64::try_from(status.last_sequence).unwrap_or(i64::MAX),
            last_stored: nanoseconds(status.last_stored),
        };
        self.store.note_stream(&lanes.stream, &seen).await?;
        self.events_settled = settled;
        Ok(())
    }

    /// The revision of a sequence of the event stream; none: it cannot be told which offset it has, and a later one will do.
    async fn revision(&self, stream: &str, sequence: u64) -> Result<Option<i64>, Error> {
        let Some(position) = self.store.stream_position(stream).await? else { return Ok(None) };
        if position.offset_since == 0 {
            return Ok(Some(position.revision(sequence, i64::MAX)));
        }
        let number = i64::try_from(sequence).unwrap_or(i64::MAX);
        Ok(bus::stored_at(&self.bus, stream, number)
            .await?
            .map(|stored| position.revision(sequence, nanoseconds(stored))))
    }

    async fn publish_watermark(&mut self) -> Result<(), Error> {
        let watermark = self.store.watermark().await?;
        if watermark > self.watermark {
            bus::publish(&self.bus, &bus::watermark_record(&self.bus, watermark)).await?;
            self.watermark = watermark;
        }
        Ok(())
    }
}

fn nanoseconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
}
