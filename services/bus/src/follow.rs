//! Following the entities: everything that stands in the stream, then each change, across broker restarts, in order.

use crate::delivered::Delivered;
use crate::entity::decompress;
use crate::nats::Messages;
use crate::status::{has_grown_anew, nanoseconds};
use crate::{Backoff, Bus, Error, header, stream_status};
use async_nats::Message;
use bytes::Bytes;
use futures::StreamExt;
use std::collections::VecDeque;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// What a follower is told.
#[derive(Debug)]
pub enum Followed {
    /// An entity's newest stitched form, or its deletion.
    Entity(EntityMessage),
    /// Everything up to this revision is in what was told before.
    Watermark(i64),
    /// All that stands in the stream has been told, once since following began, or began again.
    CaughtUp,
    /// The stream that is followed from now on: the time of its creation in nanoseconds, which is its identity. Told once for each.
    Stream(i64),
    /// The stream is another one or went back: a replay from its first message follows. What the replay has not named
    /// at the next [`Followed::CaughtUp`] is gone.
    StreamReplaced,
}

/// One message of the entity stream.
#[derive(Debug)]
pub struct EntityMessage {
    /// The entity's ref, lower-case.
    pub entity_ref: String,
    /// The message's sequence in the stream.
    pub sequence: u64,
    /// The version of the stitched form; a message counts only if its version is newer.
    pub version: i64,
    /// The revision of the event that the content comes from.
    pub revision: i64,
    /// When the broker stored it.
    pub published: SystemTime,
    /// The final entity's JSON; none: deleted.
    pub body: Option<Bytes>,
    /// Refs of the entities that emit it.
    pub parents: Vec<String>,
    /// Without a body: it is not deleted, but was never processed successfully, for this reason.
    pub unprocessed: Option<String>,
}

/// Follows the entity stream from its first message.
pub struct Follower {
    bus: Bus,
    connections: watch::Receiver<u64>,
    messages: Option<Messages>,
    /// Creation time of the stream that is followed, as its identity.
    identity: Option<i64>,
    last_sequence: u64,
    /// When that message was stored, in nanoseconds since 1970; 0: unknown.
    last_stored: u64,
    /// Not everything that stands in the stream has been told since following began. Not that its end as it was then is reached: what was
    /// replaced meanwhile has a newer message behind that end, and until this one comes nothing of it is known.
    is_behind: bool,
    pending: u64,
    told: VecDeque<Followed>,
    backoff: Backoff,
    said_away: bool,
}

impl Follower {
    /// Begins at the first message; nothing is asked of the broker before [`Follower::next`].
    pub fn new(bus: &Bus) -> Follower {
        Follower {
            bus: bus.clone(),
            connections: bus.connections(),
            messages: None,
            identity: None,
            last_sequence: 0,
            last_stored: 0,
            is_behind: false,
            pending: 0,
            told: VecDeque::new(),
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(3)),
            said_away: false,
        }
    }

    /// Begins behind a message of a stream that was followed before, stored at this time ([`Follower::stored`]). If the stream is another one now, or
    /// went back to before that message, that is told.
    pub fn resume(bus: &Bus, stream: i64, sequence: u64, stored: u64) -> Follower {
        Follower { identity: Some(stream), last_sequence: sequence, last_stored: stored, ..Follower::new(bus) }
    }

    /// Messages that were still to come when the last one was sent.
    pub fn lag(&self) -> u64 {
        self.pending
    }

    /// The sequence of the newest message that was told, or passed over.
    pub fn sequence(&self) -> u64 {
        self.last_sequence
    }

    /// When that message was stored, in nanoseconds since 1970; 0: unknown.
    pub fn stored(&self) -> u64 {
        self.last_stored
    }

    /// What comes next; waits for it, for ever if need be. Cancel-safe: a dropped call loses nothing.
    pub async fn next(&mut self) -> Followed {
        loop {
            if let Some(told) = self.told.pop_front() {
                return told;
            }
            let Some(messages) = self.messages.as_mut() else {
                self.begin_with_patience().await;
                continue;
            };
            let message = tokio::select! {
                biased;
                message = messages.next() => message,
                // The consumer lives in the broker's memory: after a restart it is gone, and its silence would last 14 s.
                _ = self.connections.changed() => None,
            };
            match message {
                Some(Ok(message)) => self.heard(message),
                Some(Err(error)) => {
                    tracing::debug!(%error, "following the entities again from sequence {}", self.last_sequence + 1);
                    self.messages = None;
                }
                None => self.messages = None,
            }
        }
    }

    async fn begin_with_patience(&mut self) {
        match self.begin().await {
            Ok(()) => {
                self.backoff.reset();
                if std::mem::take(&mut self.said_away) {
                    tracing::info!(sequence = self.last_sequence, "following the entities again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.said_away, true) {
                    tracing::warn!(%error, "cannot follow the entities; trying until it works");
                }
                tokio::time::sleep(self.backoff.pause()).await;
            }
        }
    }

    async fn begin(&mut self) -> Result<(), Error> {
        self.connections.borrow_and_update();
        let name = self.bus.names.entities_stream();
        let status = stream_status(&self.bus, &name).await?;
        // Until 2262 it is an i64.
        let identity = i64::try_from(nanoseconds(status.created)).unwrap_or(i64::MAX);
        let replaced = self.identity.is_some_and(|known| known != identity)
            || status.last_sequence < self.last_sequence
            || has_grown_anew(&self.bus, &name, (self.last_sequence, self.last_stored)).await?;
        if replaced {
            tracing::warn!(stream = name, "the entity stream is another one or went back; replaying it");
            (self.last_sequence, self.last_stored) = (0, 0);
            self.told.push_back(Followed::StreamReplaced);
        }
        if self.identity.replace(identity) != Some(identity) || replaced {
            self.told.push_back(Followed::Stream(identity));
        }
        let (messages, is_behind) = self.bus.link.follow(&name, self.last_sequence).await?;
        self.messages = Some(messages);
        self.is_behind = is_behind;
        // At most so many; the first message says it exactly.
        self.pending = if is_behind { status.last_sequence.saturating_sub(self.last_sequence).max(1) } else { 0 };
        if !is_behind {
            self.told.push_back(Followed::CaughtUp);
        }
        Ok(())
    }

    fn heard(&mut self, message: Message) {
        let Some(Delivered { sequence, published, pending, .. }) = Delivered::of(&message) else { return };
        self.pending = pending;
        if sequence > self.last_sequence {
            (self.last_sequence, self.last_stored) = (sequence, nanoseconds(published));
            match self.read(&message, sequence, published) {
                Some(told) => self.told.push_back(told),
                None => {
                    tracing::error!(message.id = sequence, subject = %message.subject, "a message of the entity stream cannot be read; passed over")
                }
            }
        }
        if self.pending == 0 && std::mem::take(&mut self.is_behind) {
            self.told.push_back(Followed::CaughtUp);
        }
    }

    fn read(&self, message: &Message, sequence: u64, published: SystemTime) -> Option<Followed> {
        if message.subject.as_str() == self.bus.names.watermark() {
            let watermark: serde_json::Value = serde_json::from_slice(&message.payload).ok()?;
            return Some(Followed::Watermark(watermark.get("revision")?.as_i64()?));
        }
        let entity_ref = self.bus.names.parse_entity(&message.subject)?;
        let text = |name: &str| Some(message.headers.as_ref()?.get(name)?.as_str());
        let number = |name: &str| text(name)?.parse::<i64>().ok();
        let body = match message.payload.is_empty() {
            true => None,
            false => Some(decompress(message)?),
        };
        Some(Followed::Entity(EntityMessage {
            entity_ref,
            sequence,
            version: number(header::VERSION)?,
            revision: number(header::REVISION)?,
            published,
            body,
            parents: text(header::PARENTS).map_or(Some(Vec::new()), |parents| serde_json::from_str(parents).ok())?,
            unprocessed: text(header::UNPROCESSED).map(str::to_owned),
        }))
    }
}
