//! Removing settled messages: requests at once, events when they are old enough or the stream gets full.

use crate::Error;
use crate::floor::refuse_another;
use crate::task::Task;
use bus::{Bus, Lanes, settled_through, stream_status};
use std::collections::VecDeque;
use std::time::Duration;
use store::planted;
use store::{Store, StreamPosition};
use tokio::time::Instant;

pub(crate) struct Purge {
    bus: Bus,
    store: Store,
    keep: Duration,
    full: u64,
    /// Where the recorded floor stood, and when, oldest first; one entry a minute at most.
    passed: VecDeque<(Instant, u64)>,
}

impl Purge {
    pub fn new(bus: &Bus, store: &Store, keep: Duration, full: u64) -> Self {
        Purge { bus: bus.clone(), store: store.clone(), keep, full, passed: VecDeque::new() }
    }
}

impl Task for Purge {
    async fn run(&mut self) -> Result<(), Error> {
        self.purge_requests().await?;
        self.purge_events().await
    }
}

impl Purge {
    async fn purge_requests(&self) -> Result<(), Error> {
        let lanes = Lanes::stitch(self.bus.names());
        let status = stream_status(&self.bus, &lanes.stream).await?;
        let Some(position) = self.store.stream_position(&lanes.stream).await? else { return Ok(()) };
        if status.messages > 0 {
            let settled = settled_through(&self.bus, &lanes).await?;
            self.purge((&lanes.stream, &position), settled).await?;
        }
        Ok(())
    }

    /// Purges, if the stream is still the one that was known: in one that went back the same sequences are other messages.
    async fn purge(&self, (stream, known): (&str, &StreamPosition), through: u64) -> Result<(), Error> {
        refuse_another(&self.bus, stream, known, &stream_status(&self.bus, stream).await?).await?;
        Ok(bus::purge_through(&self.bus, stream, through).await?)
    }

    /// Up to the floor that the database has recorded, never beyond.
    async fn purge_events(&mut self) -> Result<(), Error> {
        let stream = self.bus.names().events_stream();
        let status = stream_status(&self.bus, &stream).await?;
        let Some(position) = self.store.stream_position(&stream).await? else { return Ok(()) };
        if planted::is("purge-before-floor") {
            return Ok(bus::purge_through(&self.bus, &stream, status.last_sequence).await?);
        }
        let floor =
            u64::try_from(self.store.floor().await? - position.revision_offset).unwrap_or(0).min(status.last_sequence);
        if self.passed.back().is_none_or(|(at, _)| at.elapsed() > self.keep / 10) {
            self.passed.push_back((Instant::now(), floor));
        }
        let mut through = 0;
        while let Some((_, passed)) = self.passed.pop_front_if(|(at, _)| at.elapsed() > self.keep) {
            through = passed;
        }
        if status.bytes > self.full {
            through = floor;
        }
        if through >= status.first_sequence && status.messages > 0 {
            self.purge((&stream, &position), through.min(floor)).await?;
        }
        Ok(())
    }
}
