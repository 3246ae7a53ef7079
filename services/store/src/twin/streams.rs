//! Streams as they were last seen: `streams.rs`, statement by statement.

use super::Store;
use super::database::Key;
use super::transaction::{Transaction, View};
use crate::{Error, Gap, Life, Remedy, SeenStream, StreamPosition};

/// Offsets that are kept.
const OFFSETS: usize = 100;

impl View<'_> {
    pub(super) fn position(&self, name: &str) -> Option<StreamPosition> {
        self.database.streams.get(self.tid, &name.to_owned()).cloned()
    }

    /// Whether a stream is known to have gone back, and nobody has recorded that yet.
    pub(super) fn has_gone_back(&self) -> bool {
        self.database.streams.all(self.tid).any(|(_, stream)| stream.published == i64::MAX)
    }

    fn change_stream(&mut self, name: &str, change: impl FnOnce(&mut StreamPosition)) {
        self.database.streams.change(self.tid, &name.to_owned(), change);
    }

    /// `reset_stream.sql`
    fn reset_stream(&mut self, name: &str, seen: &SeenStream) {
        let newest = self.database.claims.all(self.tid).map(|(_, claim)| claim.newest).max().unwrap_or(0);
        let known = newest.max(self.floor().revision);
        self.database.streams.change(self.tid, &name.to_owned(), |position| {
            let dropped = (position.earlier.len() + 1).saturating_sub(OFFSETS);
            position.earlier.push((position.offset_since, position.revision_offset));
            position.earlier.drain(..dropped);
            position.revision_offset = known.max(position.revision_offset + position.last_sequence);
            position.offset_since = position.offset_since.max(position.last_stored);
            position.created = seen.created;
            position.last_sequence = seen.last_sequence;
            position.last_stored = seen.last_stored;
            position.published = 0;
            position.resets += 1;
        });
    }

    /// `write_gap.sql`
    fn write_gap(&mut self, name: &str, known: &StreamPosition, seen: &SeenStream, remedy: Remedy) {
        self.database.xid(self.tid);
        self.database.gap_ids += 1;
        let shrank = seen.created == known.created && seen.last_sequence < known.last_sequence;
        let still_has = if shrank { seen.last_sequence } else { 0 };
        let settled = self.floor().revision - known.revision_offset;
        let lost_at_most = match remedy {
            Remedy::None => (known.last_sequence - still_has.max(settled)).max(0),
            Remedy::PublishOutbox | Remedy::Rebuild => 0,
        };
        let gap = Gap {
            stream: name.to_owned(),
            seconds_ago: 0.0,
            known_sequence: known.last_sequence,
            found_sequence: seen.last_sequence,
            lost_at_most,
        };
        let (id, found_at) = (self.database.gap_ids, self.now);
        self.database.gaps.put(self.tid, id, Some((gap, found_at)));
    }
}

impl Transaction {
    /// `for share` of a stream's row: whether it has this life, which it then keeps until the end. The twin's locks have one mode, so others who share wait.
    pub(super) async fn holds(&mut self, life: Life<'_>) -> Result<bool, Error> {
        let has = |view: View<'_>| view.position(life.stream).is_some_and(|known| known.resets == life.resets);
        if !has(self.view()) {
            return Ok(false);
        }
        self.lock(Key::Stream(life.stream.to_owned())).await?;
        Ok(has(self.view()))
    }

    /// `note_highest.sql`: whether the stream's row has this life.
    pub(super) async fn raise_published(&mut self, life: Life<'_>, sequence: u64) -> Result<bool, Error> {
        let holds = self.holds(life).await?;
        if holds {
            let sequence = i64::try_from(sequence).unwrap_or(i64::MAX);
            self.view().change_stream(life.stream, |known| known.published = known.published.max(sequence));
        }
        Ok(holds)
    }

    /// `unpublish.sql`
    async fn unpublish(&mut self) -> Result<(), Error> {
        let published: Vec<i64> = {
            let view = self.view();
            let asks = view.database.outbox.all(view.tid);
            asks.filter(|(_, ask)| ask.sequence.is_some()).map(|(id, _)| *id).collect()
        };
        for id in published {
            self.lock(Key::Ask(id)).await?;
            let mut view = self.view();
            view.database.outbox.change(view.tid, &id, |ask| ask.sequence = None);
        }
        Ok(())
    }
}

impl Store {
    pub async fn stream_position(&self, name: &str) -> Result<Option<StreamPosition>, Error> {
        self.alone("stream_position", |view| view.position(name)).await
    }

    pub async fn note_stream(&self, name: &str, seen: &SeenStream) -> Result<(), Error> {
        let mut transaction = self.statement("note_stream").await?;
        transaction.lock(Key::Stream(name.to_owned())).await?;
        {
            let mut view = transaction.view();
            let SeenStream { created, last_sequence, last_stored } = *seen;
            match view.position(name) {
                None => {
                    let earlier = Vec::new();
                    let (revision_offset, offset_since) = (0, 0);
                    let position = StreamPosition {
                        revision_offset,
                        offset_since,
                        earlier,
                        created,
                        last_sequence,
                        last_stored,
                        resets: 0,
                        published: 0,
                    };
                    view.database.streams.put(view.tid, name.to_owned(), Some(position));
                }
                Some(known)
                    if (known.created == created && known.last_sequence < last_sequence)
                        || (known.created == 0 && known.last_sequence <= last_sequence) =>
                {
                    view.change_stream(name, |position| {
                        position.created = created;
                        (position.last_sequence, position.last_stored) = (last_sequence, last_stored);
                    });
                }
                Some(_) => {}
            }
        }
        transaction.finish().await
    }

    pub async fn note_sequence(&self, life: Life<'_>, sequence: u64, stored: i64) -> Result<(), Error> {
        let sequence = i64::try_from(sequence).unwrap_or(i64::MAX);
        let mut transaction = self.statement("note_sequence").await?;
        let name = life.stream;
        let is_behind = |view: &View<'_>| {
            view.position(name).is_some_and(|known| known.last_sequence < sequence && known.resets == life.resets)
        };
        let is_wanted = is_behind(&transaction.view());
        if is_wanted {
            transaction.lock(Key::Stream(name.to_owned())).await?;
            let mut view = transaction.view();
            if is_behind(&view) {
                view.change_stream(name, |known| (known.last_sequence, known.last_stored) = (sequence, stored));
            }
        }
        transaction.finish().await
    }

    pub async fn note_highest(&self, life: Life<'_>, sequence: u64) -> Result<bool, Error> {
        let mut transaction = self.statement("note_highest").await?;
        let is_same = transaction.raise_published(life, sequence).await?;
        transaction.finish().await?;
        Ok(is_same)
    }

    pub async fn reset_stream(
        &self,
        name: &str,
        known: &StreamPosition,
        seen: &SeenStream,
        remedy: Remedy,
    ) -> Result<bool, Error> {
        let mut transaction = self.statement("reset_stream").await?;
        let compared = (known.last_sequence, known.last_stored);
        let is_same = |view: &View<'_>| {
            view.position(name).is_some_and(|found| (found.last_sequence, found.last_stored) == compared)
        };
        let mut is_first = is_same(&transaction.view());
        if is_first {
            transaction.lock(Key::Stream(name.to_owned())).await?;
            is_first = is_same(&transaction.view());
        }
        if !is_first {
            transaction.leave().await?;
            return Ok(false);
        }
        transaction.view().reset_stream(name, seen);
        transaction.leave().await?;
        transaction.run("reset_stream.write_gap", |mut view| view.write_gap(name, known, seen, remedy)).await?;
        transaction.enter("reset_stream.remedy").await?;
        match remedy {
            Remedy::None => {}
            Remedy::PublishOutbox => transaction.unpublish().await?,
            Remedy::Rebuild => transaction.change_repair(|repair| repair.rebuild_after = Some(0)).await?,
        }
        transaction.leave().await?;
        transaction.commit("reset_stream.commit").await?;
        Ok(true)
    }
}
