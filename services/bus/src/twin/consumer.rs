//! A durable consumer of the twin: what it has delivered, what is in somebody's hands, who waits for more.

use super::core::Core;
use super::line::Wire;
use super::stream::{Parcel, Stream, message};
use super::{Fault, Shared};
use async_nats::jetstream::consumer::pull;
use async_nats::{Message, StatusCode};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Weak;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// After this time the broker delivers again what it forgets to have delivered.
const FORGOTTEN: u64 = 40_000_000;

#[derive(Clone)]
pub(super) struct Consumer {
    pub config: pull::Config,
    /// When it was made.
    pub made: i64,
    /// The next sequence that was never delivered.
    pub next: u64,
    /// The last one that was.
    delivered: u64,
    /// Deliveries so far.
    count: u64,
    pub pending: BTreeMap<u64, Held>,
    /// Of these, the ones to be delivered again, in this order.
    again: VecDeque<u64>,
    pub acknowledged_through: u64,
    pulls: VecDeque<Pull>,
}

/// A message in somebody's hands, or one that waits to be delivered again.
#[derive(Clone)]
pub(super) struct Held {
    pub deliveries: i64,
    /// When it is delivered again.
    until: u64,
}

/// Somebody who waits.
#[derive(Clone)]
pub(super) struct Pull {
    pub number: u64,
    pub wire: Weak<Wire>,
    pub epoch: u64,
    pub sender: UnboundedSender<Parcel>,
    pub messages: usize,
    pub bytes: usize,
    pub is_patient: bool,
    pub shared: Weak<Shared>,
}

/// What is said of a delivered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Ack,
    Nak(u64),
    InProgress,
}

impl Word {
    pub fn parse(payload: &[u8]) -> Word {
        let text = std::str::from_utf8(payload).unwrap_or_default();
        match text.split_once(' ').unwrap_or((text, "")) {
            ("-NAK", options) => {
                let options: serde_json::Value = serde_json::from_str(options).unwrap_or_default();
                Word::Nak(options.get("delay").and_then(serde_json::Value::as_u64).unwrap_or(0))
            }
            ("+WPI", _) => Word::InProgress,
            _ => Word::Ack,
        }
    }
}

impl Consumer {
    /// One that begins with this sequence.
    pub fn new(config: pull::Config, made: i64, next: u64) -> Consumer {
        Consumer {
            config,
            made,
            next,
            delivered: next - 1,
            count: 0,
            pending: BTreeMap::new(),
            again: VecDeque::new(),
            acknowledged_through: next - 1,
            pulls: VecDeque::new(),
        }
    }

    fn ack_wait(&self) -> u64 {
        u64::try_from(self.config.ack_wait.as_nanos()).unwrap_or(u64::MAX / 2)
    }

    /// A word on a message that is not in anybody's hands changes nothing: who said it is not asked for.
    pub fn hear(&mut self, sequence: u64, word: Word, now: u64) -> Option<u64> {
        let ack_wait = self.ack_wait();
        let held = self.pending.get_mut(&sequence)?;
        match word {
            Word::Ack => {
                self.pending.remove(&sequence);
                self.again.retain(|one| *one != sequence);
                self.move_on();
                None
            }
            Word::Nak(delay) => {
                held.until = now + delay;
                Some(held.until)
            }
            Word::InProgress => {
                held.until = now + ack_wait;
                Some(held.until)
            }
        }
    }

    fn move_on(&mut self) {
        let through = self.pending.keys().next().map_or(self.delivered, |first| first - 1);
        self.acknowledged_through = self.acknowledged_through.max(through);
    }

    /// What has been silent too long, or has waited long enough, is to be delivered again.
    pub fn expire(&mut self, now: u64) {
        for (sequence, held) in &self.pending {
            if held.until <= now && !self.again.contains(sequence) {
                self.again.push_back(*sequence);
            }
        }
    }

    pub fn purged(&mut self, through: u64) {
        self.pending.retain(|sequence, _| *sequence > through);
        self.again.retain(|sequence| *sequence > through);
        self.next = self.next.max(through + 1);
        self.delivered = self.delivered.max(through);
        self.acknowledged_through = self.acknowledged_through.max(through);
        self.move_on();
    }

    /// What was in somebody's hands stays there until its time is over; nobody waits any more.
    pub fn restart(&mut self, now: u64) -> Vec<u64> {
        self.pulls.clear();
        let until = now + self.ack_wait();
        self.pending.values_mut().for_each(|held| held.until = held.until.min(until).max(now));
        self.pending.values().map(|held| held.until).collect()
    }

    /// The next message for whoever waits: first what is delivered again, then what never was.
    fn take(
        &mut self,
        stream: &BTreeMap<u64, super::stream::Stored>,
        filters: impl Fn(u64) -> Option<u64>,
    ) -> Option<u64> {
        while let Some(sequence) = self.again.pop_front() {
            if stream.contains_key(&sequence) {
                return Some(sequence);
            }
            self.pending.remove(&sequence);
            self.move_on();
        }
        if self.pending.len() as i64 >= self.config.max_ack_pending {
            return None;
        }
        let sequence = filters(self.next)?;
        self.next = sequence + 1;
        self.delivered = sequence;
        Some(sequence)
    }
}

impl Stream {
    /// Takes one message for a durable consumer; gives it, and until when it is in hand.
    fn deliver(&mut self, name: &str, durable: &str, now: u64, room: usize) -> Option<(Message, u64)> {
        let mut consumer = self.consumers.remove(durable)?;
        let before = (consumer.next, consumer.delivered);
        let filters = consumer.config.filter_subjects.clone();
        let taken = consumer.take(&self.messages, |from| self.next(from, &filters).map(|(sequence, _)| sequence));
        let delivery = taken.and_then(|sequence| {
            let stored = self.messages.get(&sequence)?;
            if stored.payload.len() > room {
                (consumer.next, consumer.delivered) = before;
                return None;
            }
            let until = now + consumer.ack_wait();
            let held = consumer.pending.entry(sequence).or_insert(Held { deliveries: 0, until });
            (held.deliveries, held.until) = (held.deliveries + 1, until);
            consumer.count += 1;
            let waiting = self.count_from(consumer.next, &filters);
            let (deliveries, count, time) = (held.deliveries, consumer.count, stored.time);
            let reply = format!("$JS.ACK.{name}.{durable}.{deliveries}.{sequence}.{count}.{time}.{waiting}");
            Some((message(stored, reply, true), until))
        });
        self.consumers.insert(durable.to_owned(), consumer);
        delivery
    }
}

impl Core {
    /// Takes somebody who waits, until `until` if patient.
    pub fn pull(&mut self, stream: &str, durable: &str, pull: Pull, until: u64) {
        let Some(consumer) = self.streams.get_mut(stream).and_then(|found| found.consumers.get_mut(durable)) else {
            return pull.send(status(StatusCode::NO_RESPONDERS, "no responders"), self.now);
        };
        let number = pull.number;
        let is_patient = pull.is_patient;
        consumer.pulls.push_back(pull);
        self.serve(stream, durable);
        let (stream, durable) = (stream.to_owned(), durable.to_owned());
        match is_patient {
            true => drop(self.push(until, move |core| core.end_pull(&stream, &durable, number, StatusCode::TIMEOUT))),
            false => self.end_pull(&stream, &durable, number, StatusCode::NOT_FOUND),
        }
    }

    fn end_pull(&mut self, stream: &str, durable: &str, number: u64, code: StatusCode) {
        let now = self.now;
        let Some(consumer) = self.streams.get_mut(stream).and_then(|found| found.consumers.get_mut(durable)) else {
            return;
        };
        if let Some(place) = consumer.pulls.iter().position(|pull| pull.number == number)
            && let Some(pull) = consumer.pulls.remove(place)
        {
            pull.send(status(code, "no messages"), now);
        }
    }

    /// Delivers what there is to those who wait, in the order in which they came.
    pub fn serve(&mut self, name: &str, durable: &str) {
        let now = self.now;
        let mut deadlines = Vec::new();
        while let Some(stream) = self.streams.get_mut(name) {
            let Some(mut pull) = stream.consumers.get_mut(durable).and_then(|consumer| consumer.pulls.pop_front())
            else {
                break;
            };
            if pull.is_gone() {
                continue;
            }
            let Some((message, until)) = stream.deliver(name, durable, now, pull.bytes) else {
                if let Some(consumer) = stream.consumers.get_mut(durable) {
                    consumer.pulls.push_front(pull);
                }
                break;
            };
            pull.messages -= 1;
            pull.bytes = pull.bytes.saturating_sub(message.payload.len());
            let until = match pull.deliver(message, now) {
                None => until,
                Some((sequence, sooner)) => {
                    let consumer = stream.consumers.get_mut(durable);
                    if let Some(held) = consumer.and_then(|consumer| consumer.pending.get_mut(&sequence)) {
                        held.until = sooner;
                    }
                    sooner
                }
            };
            deadlines.push(until);
            if pull.messages > 0
                && let Some(consumer) = stream.consumers.get_mut(durable)
            {
                consumer.pulls.push_front(pull);
            }
        }
        deadlines.dedup();
        for deadline in deadlines {
            self.look_at(name.to_owned(), durable.to_owned(), deadline);
        }
    }

    /// What is said on `$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>…`; whether there is such a consumer.
    pub fn hear(&mut self, reply: &str, payload: &Bytes) -> bool {
        let mut tokens = reply.split('.').skip(2);
        let (Some(stream), Some(durable)) = (tokens.next(), tokens.next()) else { return false };
        let Some(sequence) = tokens.nth(1).and_then(|sequence| sequence.parse().ok()) else { return false };
        let now = self.now;
        let Some(consumer) = self.streams.get_mut(stream).and_then(|found| found.consumers.get_mut(durable)) else {
            return false;
        };
        match consumer.hear(sequence, Word::parse(payload), now) {
            Some(until) if until > now => self.look_at(stream.to_owned(), durable.to_owned(), until),
            Some(_) => {
                consumer.expire(now);
                self.serve(stream, durable);
            }
            None => {}
        }
        true
    }
}

impl Pull {
    fn is_gone(&self) -> bool {
        self.sender.is_closed() || self.wire.upgrade().is_none_or(|wire| wire.epoch() != self.epoch)
    }

    fn send(&self, message: Message, now: u64) {
        if let Some(wire) = self.wire.upgrade() {
            let _ = self.sender.send((wire.back(now, 0), self.epoch, message));
        }
    }

    /// Sends a message that was taken, if it is not lost on the way. Gives when the broker, which has forgotten that it did, does it again.
    fn deliver(&self, message: Message, now: u64) -> Option<(u64, u64)> {
        let fault = self.shared.upgrade().map_or(Fault::None, |shared| shared.faults.at("bus.deliver"));
        let wire = self.wire.upgrade()?;
        let delay = match fault {
            Fault::Away => return None,
            Fault::Delay(delay) => nanoseconds(delay),
            Fault::None | Fault::Ambiguous => 0,
        };
        let sequence = crate::delivered::Delivered::of(&message).map(|delivered| delivered.sequence);
        let _ = self.sender.send((wire.back(now, delay), self.epoch, message));
        sequence.filter(|_| fault == Fault::Ambiguous).map(|sequence| (sequence, now + FORGOTTEN))
    }
}

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2)
}

fn status(code: StatusCode, description: &str) -> Message {
    Message {
        subject: "".into(),
        reply: None,
        payload: Bytes::new(),
        headers: None,
        status: Some(code),
        description: Some(description.to_owned()),
        length: 0,
    }
}
