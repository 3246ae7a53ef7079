//! A stream of the twin: its messages by sequence, the ids it remembers, its limits, its consumers.

use super::Kept;
use super::consumer::Consumer;
use super::core::stamp;
use super::reading::Reading;
use crate::StreamStatus;
use crate::nats::Counts;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a stored message takes beside its subject, headers and body.
const OVERHEAD: usize = 32;

/// When a message arrives, over which connection, and the message.
pub(super) type Parcel = (u64, u64, Message);

#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub subject: Arc<str>,
    pub headers: HeaderMap,
    pub payload: Bytes,
    pub time: i64,
}

impl Stored {
    fn bytes(&self) -> usize {
        self.subject.len() + self.payload.len() + 48 * self.headers.len() + OVERHEAD
    }

    pub fn copy(&self, sequence: u64) -> StreamMessage {
        StreamMessage {
            subject: self.subject.as_ref().into(),
            sequence,
            headers: self.headers.clone(),
            payload: self.payload.clone(),
            time: time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.time))
                .unwrap_or(time::OffsetDateTime::UNIX_EPOCH),
        }
    }
}

#[derive(Clone)]
pub(super) struct Stream {
    pub config: Config,
    pub created: i64,
    pub messages: BTreeMap<u64, Stored>,
    pub by_subject: BTreeMap<Arc<str>, BTreeSet<u64>>,
    pub last_sequence: u64,
    pub last_stored: i64,
    pub bytes: usize,
    /// Ids of messages, with their sequence and time.
    ids: BTreeMap<String, (u64, i64)>,
    pub consumers: BTreeMap<String, Consumer>,
    pub followers: Vec<Reading>,
}

impl Stream {
    pub fn new(config: Config, created: i64) -> Stream {
        Stream {
            config,
            created,
            messages: BTreeMap::new(),
            by_subject: BTreeMap::new(),
            last_sequence: 0,
            last_stored: 0,
            bytes: 0,
            ids: BTreeMap::new(),
            consumers: BTreeMap::new(),
            followers: Vec::new(),
        }
    }

    pub fn takes(&self, subject: &str) -> bool {
        self.config.subjects.iter().any(|filter| matches(filter, subject))
    }

    pub fn first_sequence(&self) -> u64 {
        self.messages.keys().next().copied().unwrap_or(self.last_sequence + 1)
    }

    /// The sequence with which a consumer begins.
    pub fn first_of(&self, policy: &DeliverPolicy) -> u64 {
        let DeliverPolicy::ByStartTime { start_time } = policy else { return 1 };
        let is_since = |stored: &Stored| i128::from(stored.time) >= start_time.unix_timestamp_nanos();
        let since = self.messages.iter().find(|(_, stored)| is_since(stored));
        since.map_or(self.last_sequence + 1, |(sequence, _)| *sequence)
    }

    /// The sequence of the newest message of a subject; 0: there is none.
    pub fn last_of(&self, subject: &str) -> u64 {
        self.by_subject.get(subject).and_then(|sequences| sequences.last()).copied().unwrap_or(0)
    }

    /// The sequence under which a message of this id was stored within the window.
    pub fn known(&self, id: &str, now: u64) -> Option<u64> {
        let window = i64::try_from(self.config.duplicate_window.as_nanos()).unwrap_or(i64::MAX);
        let (sequence, at) = self.ids.get(id)?;
        (*at > stamp(now) - window).then_some(*sequence)
    }

    /// Whether there is room for so many bytes more; a stream that discards the old makes room.
    pub fn has_room(&self, records: &[(&str, usize, usize)]) -> bool {
        let more: usize =
            records.iter().map(|(subject, headers, body)| subject.len() + body + 48 * headers + OVERHEAD).sum();
        let limit = usize::try_from(self.config.max_bytes).unwrap_or(usize::MAX);
        self.config.discard == DiscardPolicy::Old || self.bytes + more <= limit
    }

    pub fn store(&mut self, subject: &str, headers: HeaderMap, payload: Bytes, time: i64) -> u64 {
        self.last_sequence += 1;
        self.last_stored = time;
        let sequence = self.last_sequence;
        if let Some(id) = headers.get("Nats-Msg-Id") {
            self.ids.insert(id.as_str().to_owned(), (sequence, time));
        }
        let subject: Arc<str> = match self.by_subject.get_key_value(subject) {
            Some((known, _)) => Arc::clone(known),
            None => subject.into(),
        };
        let stored = Stored { subject: Arc::clone(&subject), headers, payload, time };
        self.bytes += stored.bytes();
        self.messages.insert(sequence, stored);
        let of_subject = self.by_subject.entry(subject).or_default();
        of_subject.insert(sequence);
        if self.config.max_messages_per_subject > 0
            && of_subject.len() as i64 > self.config.max_messages_per_subject
            && let Some(oldest) = of_subject.first().copied()
        {
            self.remove(oldest);
        }
        while usize::try_from(self.config.max_bytes).is_ok_and(|limit| self.bytes > limit) && self.messages.len() > 1 {
            self.remove(self.first_sequence());
        }
        sequence
    }

    pub fn remove(&mut self, sequence: u64) -> bool {
        let Some(stored) = self.messages.remove(&sequence) else { return false };
        self.bytes -= stored.bytes();
        if let Some(of_subject) = self.by_subject.get_mut(&stored.subject) {
            of_subject.remove(&sequence);
            if of_subject.is_empty() {
                self.by_subject.remove(&stored.subject);
            }
        }
        true
    }

    pub fn purge(&mut self, through: u64) {
        // Beyond its end the count of sequences would move on; nobody asks for that.
        let through = through.min(self.last_sequence);
        while let Some(first) = self.messages.keys().next().copied().filter(|first| *first <= through) {
            self.remove(first);
        }
        self.consumers.values_mut().for_each(|consumer| consumer.purged(through));
    }

    /// Removes what has stood longer than it may.
    pub fn expire(&mut self, now: u64) {
        let age = i64::try_from(self.config.max_age.as_nanos()).unwrap_or(i64::MAX);
        while age > 0
            && let Some((sequence, stored)) = self.messages.first_key_value()
            && stored.time + age < stamp(now)
        {
            self.remove(*sequence);
        }
    }

    /// Forgets what lives in memory; gives the durable consumers whose messages are in somebody's hands, with a deadline.
    pub fn restart(&mut self, now: u64) -> Vec<(String, u64)> {
        self.followers.clear();
        let ids = self.messages.iter().filter_map(|(sequence, stored)| {
            Some((stored.headers.get("Nats-Msg-Id")?.as_str().to_owned(), (*sequence, stored.time)))
        });
        self.ids = ids.collect();
        let deadlines = self.consumers.iter_mut().flat_map(|(durable, consumer)| {
            consumer.restart(now).into_iter().map(|deadline| (durable.clone(), deadline)).collect::<Vec<_>>()
        });
        deadlines.collect()
    }

    /// The first message from a sequence on that one of the filters takes.
    pub fn next(&self, from: u64, filters: &[String]) -> Option<(u64, &Stored)> {
        let first = self.taken(filters).filter_map(|sequences| sequences.range(from..).next()).min()?;
        Some((*first, self.messages.get(first)?))
    }

    pub fn count_from(&self, from: u64, filters: &[String]) -> u64 {
        self.taken(filters).map(|sequences| sequences.range(from..).count() as u64).sum()
    }

    /// The sequences of each subject that one of the filters takes.
    fn taken<'a>(&'a self, filters: &'a [String]) -> impl Iterator<Item = &'a BTreeSet<u64>> {
        let takes = move |subject: &str| filters.iter().any(|filter| matches(filter, subject));
        self.by_subject.iter().filter(move |(subject, _)| takes(subject)).map(|(_, sequences)| sequences)
    }

    pub fn message(&self, sequence: u64) -> Option<StreamMessage> {
        self.messages.get(&sequence).map(|stored| stored.copy(sequence))
    }

    pub fn status(&self) -> StreamStatus {
        StreamStatus {
            messages: self.messages.len() as u64,
            bytes: self.bytes as u64,
            first_sequence: self.first_sequence(),
            last_sequence: self.last_sequence,
            last_stored: system_time(self.last_stored),
            created: system_time(self.created),
            leader: None,
        }
    }

    pub fn counts(&self, durable: &str) -> Option<Counts> {
        let consumer = self.consumers.get(durable)?;
        Some(Counts {
            pending: self.count_from(consumer.next, &consumer.config.filter_subjects),
            in_flight: consumer.pending.len() as u64,
            redelivered: consumer.pending.values().filter(|held| held.deliveries > 1).count() as u64,
            acknowledged_through: consumer.acknowledged_through,
            filters: consumer.config.filter_subjects.clone(),
            made: system_time(consumer.made),
        })
    }

    pub fn kept(&self, name: &str) -> Vec<Kept> {
        let stream: Arc<str> = name.into();
        let kept = |(sequence, stored): (&u64, &Stored)| Kept {
            stream: Arc::clone(&stream),
            sequence: *sequence,
            stored: stored.time,
            subject: stored.subject.to_string(),
            headers: stored.headers.clone(),
            payload: stored.payload.clone(),
        };
        self.messages.iter().map(kept).collect()
    }
}

fn system_time(nanoseconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

/// Whether a filter takes a subject: `*` stands for a token, `>` for all that follow.
pub(super) fn matches(filter: &str, subject: &str) -> bool {
    let (mut wanted, mut found) = (filter.split('.'), subject.split('.'));
    loop {
        match (wanted.next(), found.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            _ => return false,
        }
    }
}

/// A message as it is delivered.
pub(super) fn message(stored: &Stored, reply: String, with_body: bool) -> Message {
    Message {
        subject: stored.subject.as_ref().into(),
        reply: Some(reply.into()),
        payload: if with_body { stored.payload.clone() } else { Bytes::new() },
        headers: (!stored.headers.is_empty()).then(|| stored.headers.clone()),
        status: None,
        description: None,
        length: stored.payload.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn filters_take_subjects() {
        for (filter, subject, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.b.c", false),
            ("a.*.c", "a.b.c", true),
            ("a.*", "a.b.c", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            ("a.>", "b.c", false),
        ] {
            assert_eq!(matches(filter, subject), expected, "{filter} {subject}");
        }
    }
}
