//! What a worker says to the broker of the messages in its hands.

use super::{Handler, Worker};
use crate::Item;
use crate::nats::REQUEST_TIMEOUT;
use async_nats::HeaderMap;
use bytes::Bytes;
use std::time::Duration;

/// How often it is looked whether somebody has looked at the streams of a new connection.
const LOOK: Duration = Duration::from_millis(20);

impl<H: Handler + Send + 'static> Worker<H> {
    /// Acknowledges a batch and waits until the broker confirms the last one. It takes what comes over one connection in order, so
    /// those before it are processed then too; if the connection was made anew in between, what was lost comes again.
    pub(super) async fn acknowledge(&self, items: &[&Item]) {
        let Some((last, before)) = items.split_last() else { return };
        self.until_known(last).await;
        for item in before {
            self.tell(item, "+ACK").await;
        }
        self.respond(last, "+ACK").await;
    }

    /// Sends an acknowledgement and waits until the broker confirms it. One that is not confirmed is no error: the
    /// message comes again, and has no effect then.
    pub(super) async fn respond(&self, item: &Item, kind: &str) {
        self.until_known(item).await;
        let Some(reply) = item.message.reply.as_ref().filter(|_| self.may_answer(item)) else { return };
        let kind_bytes = Bytes::copy_from_slice(kind.as_bytes());
        if self.bus.link.request(reply, HeaderMap::new(), kind_bytes, REQUEST_TIMEOUT).await.is_err() {
            self.counters.unconfirmed.add(1, &[]);
            tracing::debug!(
                message.id = item.sequence,
                kind,
                "the broker did not confirm; the message will come again"
            );
        }
    }

    /// Whether a message is of the stream that is there now.
    pub(super) fn is_of_this_life(&self, item: &Item) -> bool {
        item.life == self.bus.life()
    }

    /// Whether a message that is answered now is certainly not another one of the same sequence.
    fn may_answer(&self, item: &Item) -> bool {
        (item.connection == self.bus.connection() || self.bus.knows_life()) && self.is_of_this_life(item)
    }

    /// Where the connection is another one than the message came by, the stream may be too: waits until somebody has looked, some seconds at most.
    async fn until_known(&self, item: &Item) {
        let deadline = tokio::time::Instant::now() + REQUEST_TIMEOUT;
        while item.connection != self.bus.connection()
            && !self.bus.knows_life()
            && tokio::time::Instant::now() < deadline
        {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The same without waiting: a word that is lost is said again, or the message comes again.
    pub(super) async fn tell(&self, item: &Item, kind: &'static str) {
        if let Some(reply) = item.message.reply.as_ref().filter(|_| self.may_answer(item)) {
            let _ = self.bus.link.publish(reply, HeaderMap::new(), Bytes::from_static(kind.as_bytes())).await;
        }
    }
}
