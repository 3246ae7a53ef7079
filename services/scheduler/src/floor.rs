//! How far everything is: the outbox is cleared behind the stitchers, the floor recorded, the watermark published.

use crate::Error;
use crate::task::Task;
use bus::{Bus, Lanes, StreamStatus, settled_through, strays_through, stream_status};
use std::time::{SystemTime, UNIX_EPOCH};
use store::{SeenStream, Store};

pub(crate) struct Floor {
    pub(crate) bus: Bus,
    pub(crate) store: Store,
    /// How often streams were found wiped or gone back: what follows is of the streams since then.
    resets: i64,
    /// Up to where the event stream was settled at the last run.
    events_settled: u64,
    stitch_settled: u64,
    /// What was published last, and its sequence; none: nothing is known of it.
    pub(crate) watermark: Option<(i64, u64)>,
}

impl Floor {
    pub fn new(bus: &Bus, store: &Store) -> Self {
        Floor {
            bus: bus.clone(),
            store: store.clone(),
            resets: 0,
            events_settled: 0,
            stitch_settled: 0,
            watermark: None,
        }
    }
}

impl Task for Floor {
    async fn run(&mut self) -> Result<(), Error> {
        self.forget_what_is_lost().await?;
        self.clear_outbox().await?;
        self.raise_floor().await?;
        self.publish_watermark().await
    }
}

impl Floor {
    /// Sequences of a stream that was lost say nothing of the one that came after it, though they may be the same numbers.
    async fn forget_what_is_lost(&mut self) -> Result<(), Error> {
        let resets = self.store.resets().await?;
        if resets != self.resets {
            *self = Floor { resets, ..Floor::new(&self.bus, &self.store) };
        }
        Ok(())
    }

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
    pub(crate) async fn raise_floor(&mut self) -> Result<(), Error> {
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
    pub(crate) async fn publish_watermark(&mut self) -> Result<(), Error> {
        let watermark = self.store.watermark().await?;
        if watermark < 0 || self.watermark.is_some_and(|(known, _)| watermark <= known) {
            return Ok(());
        }
        let stream = self.bus.names().entities_stream();
        self.refuse_another(&stream, &stream_status(&self.bus, &stream).await?).await?;
        let Some((_, before)) = self.watermark else { return self.open().await };
        // Read after the stream was looked at: so it is true of that one. If it is replaced meanwhile, the broker refuses the message.
        self.announce(self.store.watermark().await?, before).await?;
        self.store.note_stream(&stream, &seen(&stream_status(&self.bus, &stream).await?)).await?;
        Ok(())
    }

    /// Learns which message a watermark comes after; in a stream that has none, of one that promises nothing.
    async fn open(&mut self) -> Result<(), Error> {
        match bus::newest_watermark(&self.bus).await? {
            0 => self.announce(bus::NO_WATERMARK, 0).await,
            newest => {
                self.watermark = Some((bus::NO_WATERMARK, newest));
                Ok(())
            }
        }
    }

    /// Publishes a watermark, if the newest message of its subject is the one that is known: it is not in an empty stream.
    pub(crate) async fn announce(&mut self, watermark: i64, before: u64) -> Result<(), Error> {
        // Until it is confirmed nothing is known.
        self.watermark = None;
        let record = bus::watermark_record(&self.bus, watermark).expecting(before);
        self.watermark = Some((watermark, bus::publish(&self.bus, &record).await?.sequence));
        Ok(())
    }
}

pub(crate) fn seen(status: &StreamStatus) -> SeenStream {
    SeenStream {
        created: nanoseconds(status.created),
        last_sequence: i64::try_from(status.last_sequence).unwrap_or(i64::MAX),
        last_stored: if status.last_sequence == 0 { 0 } else { nanoseconds(status.last_stored) },
    }
}

fn nanoseconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
}
