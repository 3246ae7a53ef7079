//! How far everything is: the outbox is cleared behind the stitchers, the floor recorded, the watermark published.

use crate::Error;
use crate::task::Task;
use bus::{Bus, Lanes, StreamStatus, settled_through, strays_through, stream_status};
use std::time::{SystemTime, UNIX_EPOCH};
use store::{SeenStream, Store};

pub(crate) struct Floor {
    bus: Bus,
    store: Store,
    /// Up to where the event stream was settled at the last run.
    events_settled: u64,
    stitch_settled: u64,
    /// What was published last, and into which of the entity streams there were.
    watermark: (i64, i64),
}

impl Floor {
    pub fn new(bus: &Bus, store: &Store) -> Self {
        Floor { bus: bus.clone(), store: store.clone(), events_settled: 0, stitch_settled: 0, watermark: (-1, -1) }
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
        let status = stream_status(&self.bus, &lanes.stream).await?;
        if status.last_sequence == self.stitch_settled {
            return Ok(());
        }
        self.refuse_another(&lanes.stream, &status).await?;
        self.stitch_settled = settled_through(&self.bus, &lanes).await?;
        self.store.note_stream(&lanes.stream, &seen(&status)).await?;
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
        self.refuse_another(&lanes.stream, &status).await?;
        let settled = settled_through(&self.bus, &lanes).await?;
        let known = if self.events_settled <= settled { self.events_settled } else { 0 };
        strays_through(&self.bus, known.max(status.first_sequence.saturating_sub(1)), settled).await?;
        if let Some(revision) = self.revision(&lanes.stream, settled).await? {
            self.store.raise_floor(revision).await?;
        }
        self.store.note_stream(&lanes.stream, &seen(&status)).await?;
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

    /// A stream that is not the one that is known is looked at by a processor first; until then nothing of it counts.
    async fn refuse_another(&self, stream: &str, status: &StreamStatus) -> Result<(), Error> {
        let Some(known) = self.store.stream_position(stream).await? else { return Ok(()) };
        let found = seen(status);
        let went_back = known.created != found.created || found.last_sequence < known.last_sequence;
        let stored = match went_back {
            true => None,
            false => bus::stored_at(&self.bus, stream, known.last_sequence).await?,
        };
        match went_back || stored.is_some_and(|at| nanoseconds(at) != known.last_stored) {
            true => {
                Err(bus::Error::Away(format!("stream {stream} is another one, or went back; a processor looks at it"))
                    .into())
            }
            false => Ok(()),
        }
    }

    /// Once for each step forward, and again into a stream that was wiped.
    async fn publish_watermark(&mut self) -> Result<(), Error> {
        let stream = self.bus.names().entities_stream();
        let resets = self.store.stream_resets(&stream).await?;
        let watermark = self.store.watermark().await?;
        if watermark >= 0 && (watermark > self.watermark.0 || resets != self.watermark.1) {
            bus::publish(&self.bus, &bus::watermark_record(&self.bus, watermark)).await?;
            self.watermark = (watermark, resets);
            self.store.note_stream(&stream, &seen(&stream_status(&self.bus, &stream).await?)).await?;
        }
        Ok(())
    }
}

fn seen(status: &StreamStatus) -> SeenStream {
    SeenStream {
        created: nanoseconds(status.created),
        last_sequence: i64::try_from(status.last_sequence).unwrap_or(i64::MAX),
        last_stored: if status.last_sequence == 0 { 0 } else { nanoseconds(status.last_stored) },
    }
}

fn nanoseconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
}
