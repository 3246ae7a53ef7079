//! How far everything is: the outbox is cleared behind the stitchers, the floor recorded, the watermark published.

use crate::Error;
use crate::task::Task;
use bus::{Bus, Lanes, StreamStatus, settled_through, strays_through, stream_status};
use std::time::SystemTime;
use store::{Life, SeenStream, Store, StreamPosition};

pub(crate) struct Floor {
    pub(crate) bus: Bus,
    pub(crate) store: Store,
    /// How often streams were found wiped or gone back: what follows is of the streams since then.
    resets: i64,
    /// Up to where the event stream was settled at the last run.
    events_settled: u64,
    /// The same of the stitch stream, and how often that had been lost by then.
    stitch_settled: (u64, i64),
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
            stitch_settled: (0, 0),
            watermark: None,
        }
    }
}

impl Task for Floor {
    async fn run(&mut self) -> Result<(), Error> {
        let progress = self.store.progress().await?;
        self.forget_what_is_lost(progress.resets);
        let is_cleared = progress.asks && self.clear_outbox().await?;
        let is_raised = self.raise_floor().await?;
        let watermark = match is_cleared || is_raised {
            true => self.store.watermark().await?,
            false => progress.watermark,
        };
        self.publish_watermark(watermark).await
    }
}

impl Floor {
    /// Sequences of a stream that was lost say nothing of the one that came after it, though they may be the same numbers.
    fn forget_what_is_lost(&mut self, resets: i64) {
        if resets != self.resets {
            *self = Floor { resets, ..Floor::new(&self.bus, &self.store) };
        }
    }

    /// An outbox row goes when the stitchers have acknowledged what it asked for. Where it stands may be noted after that, so it is looked for
    /// also when nothing new is in the stream. Gives whether one has gone.
    async fn clear_outbox(&mut self) -> Result<bool, Error> {
        let lanes = Lanes::stitch(self.bus.names());
        if stream_status(&self.bus, &lanes.stream).await?.last_sequence != self.stitch_settled.0 {
            let Some((settled, position, _)) = self.settled(&lanes).await? else { return Ok(false) };
            self.stitch_settled = (settled, position.resets);
        }
        let (settled, resets) = self.stitch_settled;
        Ok(self.store.delete_published(settled, Life { stream: &lanes.stream, resets }).await? > 0)
    }

    /// What no consumer takes is a dead letter before the floor passes it. Gives whether it may have been raised.
    pub(crate) async fn raise_floor(&mut self) -> Result<bool, Error> {
        let lanes = Lanes::events(self.bus.names());
        if stream_status(&self.bus, &lanes.stream).await?.last_sequence == self.events_settled {
            return Ok(false);
        }
        let Some((settled, position, status)) = self.settled(&lanes).await? else { return Ok(false) };
        let known = if self.events_settled <= settled { self.events_settled } else { 0 };
        strays_through(&self.bus, known.max(status.first_sequence.saturating_sub(1)), settled).await?;
        let revision = self.revision_behind(&lanes.stream, &position, (settled, status.last_sequence)).await?;
        self.store.settle(revision, position.life(&lanes.stream)).await?;
        self.events_settled = settled;
        Ok(true)
    }

    /// Up to which sequence a stream is settled, with what is known of the stream and how it was found; none: nothing is known of it.
    /// It is compared afterwards, so that all of it is of the stream that is known; and noted, so that one that comes after it begins above.
    async fn settled(&self, lanes: &Lanes) -> Result<Option<(u64, StreamPosition, StreamStatus)>, Error> {
        let Some(position) = self.store.stream_position(&lanes.stream).await? else { return Ok(None) };
        let settled = settled_through(&self.bus, lanes).await?;
        let status = stream_status(&self.bus, &lanes.stream).await?;
        refuse_another(&self.bus, &lanes.stream, &position, &status).await?;
        self.store.note_stream(&lanes.stream, &seen(&status)).await?;
        Ok(Some((settled.min(status.last_sequence), position, status)))
    }

    /// The highest revision below that of the first message behind a sequence: of a stream that went back, that one has a later offset than the last before it.
    async fn revision_behind(
        &self,
        stream: &str,
        position: &StreamPosition,
        (settled, last): (u64, u64),
    ) -> Result<i64, Error> {
        let next = match settled < last && position.offset_since > 0 {
            true => bus::next_stored(&self.bus, stream, settled + 1).await?,
            false => None,
        };
        let (sequence, stored) = match next {
            Some((sequence, stored)) if sequence <= last => (sequence, nanoseconds(stored)),
            // What is still to come has the newest offset.
            _ => (settled + 1, i64::MAX),
        };
        Ok(position.revision(sequence, stored) - 1)
    }

    /// Once for each step forward, and again into a stream that was wiped.
    pub(crate) async fn publish_watermark(&mut self, watermark: i64) -> Result<(), Error> {
        if watermark < 0 || self.watermark.is_some_and(|(known, _)| watermark <= known) {
            return Ok(());
        }
        let stream = self.bus.names().entities_stream();
        if let Some(known) = self.store.stream_position(&stream).await? {
            refuse_another(&self.bus, &stream, &known, &stream_status(&self.bus, &stream).await?).await?;
        }
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

/// A stream that is not the one that is known is looked at by a processor first; until then nothing of it counts.
pub(crate) async fn refuse_another(
    bus: &Bus,
    stream: &str,
    known: &StreamPosition,
    status: &StreamStatus,
) -> Result<(), Error> {
    let [sequence, stored] = [known.last_sequence, known.last_stored].map(|number| u64::try_from(number).unwrap_or(0));
    if !known.is_above(&seen(status)) && !bus::has_grown_anew(bus, stream, (sequence, stored)).await? {
        return Ok(());
    }
    Err(bus::Error::Away(format!("stream {stream} is another one, or went back; a processor looks at it")).into())
}

pub(crate) fn seen(status: &StreamStatus) -> SeenStream {
    SeenStream {
        created: nanoseconds(status.created),
        last_sequence: i64::try_from(status.last_sequence).unwrap_or(i64::MAX),
        last_stored: if status.last_sequence == 0 { 0 } else { nanoseconds(status.last_stored) },
    }
}

fn nanoseconds(time: SystemTime) -> i64 {
    i64::try_from(bus::nanoseconds(time)).unwrap_or(i64::MAX)
}
