//! What committed batches ask to be stitched: `outbox.rs`, statement by statement.

use super::Store;
use super::database::{Ask, Key, Moment};
use super::merge::milliseconds;
use super::transaction::View;
use crate::{Error, Life, OutboxRow, Request};
use catalog::claims::Revision;

const PUBLISHED_WITHIN: Moment = 3_000_000;
const UNPUBLISHED: usize = 100;

impl View<'_> {
    /// `write_outbox.sql` and `ask_stitching.sql`; without a transaction that made it necessary it was this one.
    pub(super) fn ask(
        &mut self,
        lane: &str,
        revision: Revision,
        transaction: Option<i64>,
        entity_ids: &[i64],
    ) -> (i64, i64, Moment) {
        let xid = self.database.xid(self.tid);
        let transaction = transaction.unwrap_or(xid);
        self.database.outbox_ids += 1;
        let (id, asked_at) = (self.database.outbox_ids, self.now);
        let (lane, entity_ids) = (lane.to_owned(), entity_ids.to_vec());
        let ask = Ask { lane, revision, transaction, entity_ids, asked_at, sequence: None };
        self.database.outbox.put(self.tid, id, Some(ask));
        (id, transaction, asked_at)
    }

    /// Ids of the outbox rows that it sees, of some.
    pub(super) fn asks(&self, which: impl Fn(&Ask) -> bool) -> Vec<i64> {
        self.database.outbox.all(self.tid).filter(|(_, ask)| which(ask)).map(|(id, _)| *id).collect()
    }
}

impl Store {
    pub async fn note_published(&self, outbox: i64, sequence: u64, life: Life<'_>) -> Result<(), Error> {
        let note = |ask| Some(Ask { sequence: Some(sequence), ..ask });
        let known = |view: View<'_>| view.database.outbox.get(view.tid, &outbox).map(|_| outbox).into_iter().collect();
        self.change_asks("note_published", (life, Some(sequence)), known, note).await?;
        Ok(())
    }

    pub async fn unpublished(&self) -> Result<Vec<OutboxRow>, Error> {
        self.alone("unpublished", |mut view| {
            let before = view.now - PUBLISHED_WITHIN;
            let waits = |ask: &Ask| ask.sequence.is_none() && ask.asked_at < before;
            let (mut found, tid) = (Vec::new(), view.tid);
            for id in view.asks(waits) {
                if found.len() == UNPUBLISHED {
                    break;
                }
                if !view.database.try_lock(tid, &Key::Ask(id)) {
                    continue;
                }
                let Some(ask) = view.database.outbox.get(tid, &id).cloned() else { continue };
                let asked_at_ms = milliseconds(ask.asked_at);
                let request =
                    Request { outbox: id, transaction: ask.transaction, asked_at_ms, entity_ids: ask.entity_ids };
                found.push(OutboxRow { lane: ask.lane, request });
            }
            found
        })
        .await
    }

    pub async fn delete_published(&self, sequence: u64, life: Life<'_>) -> Result<u64, Error> {
        let is_acknowledged = |ask: &Ask| ask.sequence.is_some_and(|published| published <= sequence);
        let dropped = |view: View<'_>| view.asks(is_acknowledged);
        let keep = |ask| Some(ask).filter(|ask| !is_acknowledged(ask));
        self.change_asks("delete_published", (life, None), dropped, keep).await
    }

    pub async fn outbox_length(&self) -> Result<(i64, i64), Error> {
        self.alone("outbox_length", |view| {
            let (all, unpublished) = (view.asks(|_| true).len(), view.asks(|ask| ask.sequence.is_none()).len());
            (i64::try_from(all).unwrap_or(i64::MAX), i64::try_from(unpublished).unwrap_or(i64::MAX))
        })
        .await
    }

    /// Changes or removes some rows, as they are once they are locked, while the stream has the same life, of which something may be published up to a
    /// sequence; gives how many there were.
    async fn change_asks(
        &self,
        point: &'static str,
        (life, published): (Life<'_>, Option<u64>),
        which: impl FnOnce(View<'_>) -> Vec<i64>,
        change: impl Fn(Ask) -> Option<Ask>,
    ) -> Result<u64, Error> {
        let mut transaction = self.statement(point).await?;
        let ids = which(transaction.view());
        let mut count = 0;
        let holds = match published {
            Some(sequence) => transaction.raise_published(life, sequence).await?,
            None => transaction.holds(life).await?,
        };
        if !holds {
            transaction.finish().await?;
            return Ok(count);
        }
        for id in ids {
            transaction.lock(Key::Ask(id)).await?;
            let mut view = transaction.view();
            let tid = view.tid;
            let Some(ask) = view.database.outbox.get(tid, &id).cloned() else { continue };
            view.database.outbox.put(tid, id, change(ask));
            count += 1;
        }
        transaction.finish().await?;
        Ok(count)
    }
}
