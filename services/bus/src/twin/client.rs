//! A client of the twin: each call goes out over its connection, takes effect when it arrives, and waits for what comes back.

use super::consumer::{Consumer, Pull, nanoseconds};
use super::core::Core;
use super::line::{Line, Wire};
use super::publish::Sent;
use super::reading::Reading;
use super::stream::{Parcel, Stream, message};
use super::{Fault, Shared};
use crate::nats::{Ask, Counts, HEARTBEAT, Messages, REQUEST_TIMEOUT, Unanswered, Which};
use crate::{Error, StreamStatus};
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::Config;
use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;

/// The largest payload.
const MAX_PAYLOAD: usize = 8 << 20;

#[derive(Clone, Debug)]
pub(crate) struct Client {
    shared: Arc<Shared>,
    wire: Arc<Wire>,
}

impl Client {
    pub fn new(shared: &Arc<Shared>, line: &Line) -> Client {
        Client { shared: Arc::clone(shared), wire: Arc::clone(&line.wire) }
    }

    pub fn is_connected(&self) -> bool {
        self.wire.stalled_until() <= self.shared.now()
    }

    pub fn max_payload(&self) -> usize {
        MAX_PAYLOAD
    }

    pub fn token(&self) -> String {
        format!("token{}", self.shared.core().number())
    }

    pub async fn close(&self) {}

    pub async fn request(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
        patience: Duration,
    ) -> Result<Bytes, Unanswered> {
        if payload.len() > MAX_PAYLOAD {
            return Err(Unanswered::TooLarge);
        }
        let sent = Sent { subject: subject.to_owned(), headers, payload };
        let (point, event) = ("bus.publish", move |core: &mut Core| core.take(sent));
        let point = if subject.starts_with("$JS.ACK.") { "bus.ack" } else { point };
        let answer = self.call(point, patience, event).await.map_err(|error| Unanswered::Lost(error.to_string()))?;
        answer.ok_or(Unanswered::NobodyThere)
    }

    pub async fn publish(&self, subject: &str, headers: HeaderMap, payload: Bytes) -> Result<(), Error> {
        let sent = Sent { subject: subject.to_owned(), headers, payload };
        let point = if subject.starts_with("$JS.ACK.") { "bus.ack" } else { "bus.publish" };
        if let Some(delay) = self.departure(point) {
            self.send(delay, move |core| drop(core.take(sent)));
        }
        Ok(())
    }

    pub async fn pull(&self, stream: &str, durable: &str, ask: &Ask) -> Result<BoxStream<'static, Message>, Error> {
        let (sender, receiver) = unbounded_channel();
        let (messages, bytes, patience) = match ask {
            Ask::First(wait) => (1, usize::MAX, nanoseconds(*wait)),
            Ask::Waiting { messages, bytes } => (*messages, *bytes, 0),
        };
        let shared = Arc::downgrade(&self.shared);
        let (wire, epoch) = (Arc::downgrade(&self.wire), self.wire.epoch());
        let (stream, durable) = (stream.to_owned(), durable.to_owned());
        let is_patient = patience > 0;
        if let Some(delay) = self.departure("bus.pull") {
            self.send(delay, move |core| {
                let number = core.number();
                let pull = Pull { number, wire, epoch, sender, messages, bytes, is_patient, shared };
                core.pull(&stream, &durable, pull, core.now + patience);
            });
        }
        let answers = self.arrivals(receiver).chain(futures::stream::pending());
        Ok(answers.boxed())
    }

    pub async fn stream(&self, name: &str) -> Result<Option<StreamStatus>, Error> {
        let name = name.to_owned();
        self.ask(move |core| core.streams.get(&name).map(Stream::status)).await
    }

    pub async fn stream_of(&self, domain: &str, _name: &str) -> Result<Option<StreamStatus>, Error> {
        Err(Error::away(format!("there is no domain {domain}")))
    }

    pub async fn stream_config(&self, name: &str) -> Result<Option<Config>, Error> {
        let name = name.to_owned();
        self.ask(move |core| core.streams.get(&name).map(|stream| stream.config.clone())).await
    }

    pub async fn create_stream(&self, wanted: Config) -> Result<(), Error> {
        self.ask(move |core| {
            let created = core.stamp();
            core.streams.entry(wanted.name.clone()).or_insert_with(|| Stream::new(wanted, created));
        })
        .await
    }

    pub async fn update_stream(&self, wanted: Config) -> Result<(), Error> {
        self.with_stream(wanted.name.clone(), move |stream| stream.config = wanted).await
    }

    pub async fn get_or_create_stream(&self, wanted: Config) -> Result<Config, Error> {
        Err(Error::Unusable(format!("stream {}: a twin mirrors nothing", wanted.name)))
    }

    pub async fn delete_stream(&self, name: &str) -> Result<(), Error> {
        let gone = name.to_owned();
        let found = self.ask(move |core| core.streams.remove(&gone).is_some()).await?;
        found.then_some(()).ok_or_else(|| Error::away(format!("stream {name}: stream not found")))
    }

    pub async fn purge(&self, name: &str, through: u64) -> Result<(), Error> {
        self.with_stream(name.to_owned(), move |stream| stream.purge(through)).await
    }

    pub async fn subjects(&self, name: &str, filter: String) -> Result<Vec<String>, Error> {
        self.with_stream(name.to_owned(), move |stream| {
            let taken = stream.by_subject.keys().filter(|subject| super::stream::matches(&filter, subject));
            taken.map(|subject| subject.to_string()).collect()
        })
        .await
    }

    pub async fn consumer_config(&self, stream: &str, durable: &str) -> Result<Option<pull::Config>, Error> {
        let (name, durable) = (stream.to_owned(), durable.to_owned());
        self.ask(move |core| Some(core.streams.get(&name)?.consumers.get(&durable)?.config.clone())).await
    }

    pub async fn put_consumer(&self, stream: &str, wanted: pull::Config) -> Result<(), Error> {
        let durable = wanted.durable_name.clone().unwrap_or_default();
        let (name, missing) = (stream.to_owned(), format!("stream {stream}: stream not found"));
        let put = move |core: &mut Core| {
            let made = core.stamp();
            let stream = core.streams.get_mut(&name)?;
            match stream.consumers.get_mut(&durable) {
                Some(known) => known.config = wanted,
                None => {
                    let first = stream.first_of(&wanted.deliver_policy);
                    stream.consumers.insert(durable, Consumer::new(wanted, made, first));
                }
            }
            Some(())
        };
        self.ask(put).await?.ok_or(Error::Away(missing))
    }

    pub async fn delete_consumer(&self, stream: &str, durable: &str) -> Result<(), Error> {
        let gone = durable.to_owned();
        let found = self.with_stream(stream.to_owned(), move |stream| stream.consumers.remove(&gone).is_some()).await?;
        found.then_some(()).ok_or_else(|| Error::away(format!("consumer {durable}: consumer not found")))
    }

    pub async fn consumer(&self, stream: &str, durable: &str) -> Result<Counts, Error> {
        let name = durable.to_owned();
        let counts = self.with_stream(stream.to_owned(), move |stream| stream.counts(&name)).await?;
        counts.ok_or_else(|| Error::Away(format!("consumer {durable} of {stream}: consumer not found")))
    }

    pub async fn message(&self, stream: &str, which: Which<'_>) -> Result<Option<StreamMessage>, Error> {
        let name = stream.to_owned();
        match which {
            // A stream that is not there has no message either.
            Which::At(sequence) => {
                self.ask(move |core| core.streams.get(&name).and_then(|found| found.message(sequence))).await
            }
            Which::Last(subject) => {
                let subject = subject.to_owned();
                self.with_stream(name, move |found| found.message(found.last_of(&subject))).await
            }
            Which::Next(from, filter) => {
                let filters = [filter.to_owned()];
                self.with_stream(name, move |found| {
                    found.next(from, &filters).map(|(sequence, stored)| stored.copy(sequence))
                })
                .await
            }
        }
    }

    pub async fn delete_message(&self, stream: &str, sequence: u64) -> Result<(), Error> {
        let found = self.with_stream(stream.to_owned(), move |stream| stream.remove(sequence)).await?;
        found.then_some(()).ok_or_else(|| Error::away(format!("there is no message {sequence}")))
    }

    pub async fn follow(&self, stream: &str, after: u64) -> Result<(Messages, bool), Error> {
        let (sender, receiver) = unbounded_channel();
        let (wire, epoch, name) = (Arc::downgrade(&self.wire), self.wire.epoch(), stream.to_owned());
        let shared = Arc::downgrade(&self.shared);
        let is_behind = self.ask(move |core| {
            let number = core.number();
            let found = core.streams.get_mut(&name)?;
            let is_behind = found.messages.range(after + 1..).next().is_some();
            found.followers.push(Reading { number, wire, epoch, after, sender, shared, is_sending: false });
            core.wake_followers(&name);
            Some(is_behind)
        });
        let is_behind = is_behind.await?.ok_or_else(|| Error::away(format!("stream {stream}: stream not found")))?;
        Ok((self.until_silence(receiver), is_behind))
    }

    pub async fn newest(&self, stream: &str, filter: String) -> Result<(Messages, u64), Error> {
        let messages = self.with_stream(stream.to_owned(), move |found| {
            let last = found.by_subject.iter().filter(|(subject, _)| super::stream::matches(&filter, subject));
            let mut sequences: Vec<u64> = last.filter_map(|(_, sequences)| sequences.last().copied()).collect();
            sequences.sort_unstable();
            let count = sequences.len() as u64;
            let whole = sequences.into_iter().zip((0..count).rev());
            let whole = whole.filter_map(|(sequence, pending)| {
                let stored = found.messages.get(&sequence)?;
                let reply = format!("$JS.ACK.{}.newest.1.{sequence}.1.{}.{pending}", found.config.name, stored.time);
                Some(Ok(message(stored, reply, false)))
            });
            whole.collect::<Vec<_>>()
        });
        let messages = messages.await?;
        let count = messages.len() as u64;
        Ok((futures::stream::iter(messages).boxed(), count))
    }

    /// The messages, as they arrive; after the broker has dropped them, silence for two heartbeats and an error.
    fn until_silence(&self, receiver: UnboundedReceiver<Parcel>) -> Messages {
        let silence = futures::stream::once(async {
            tokio::time::sleep(HEARTBEAT * 2).await;
            Err(Error::away("missed idle heartbeat"))
        });
        self.arrivals(receiver).map(Ok).chain(silence).boxed()
    }

    /// What was sent over this connection, when it arrives.
    fn arrivals(&self, receiver: UnboundedReceiver<Parcel>) -> impl futures::Stream<Item = Message> + Send + use<> {
        let client = self.clone();
        futures::stream::unfold((client, receiver), |(client, mut receiver)| async move {
            loop {
                let (at, epoch, message) = receiver.recv().await?;
                client.wait_until(at).await;
                if client.wire.epoch() == epoch {
                    return Some((message, (client, receiver)));
                }
            }
        })
    }

    async fn wait_until(&self, at: u64) {
        let mut at = at;
        while at > self.shared.now() {
            tokio::time::sleep_until(self.shared.instant(at)).await;
            at = at.max(self.wire.stalled_until());
        }
    }

    /// After how long what is sent now departs; none: it is lost.
    fn departure(&self, point: &'static str) -> Option<Duration> {
        match self.shared.faults.at(point) {
            Fault::None | Fault::Ambiguous => Some(Duration::ZERO),
            Fault::Delay(delay) => Some(delay),
            Fault::Away => None,
        }
    }

    async fn ask<T: Send + 'static>(&self, event: impl FnOnce(&mut Core) -> T + Send + 'static) -> Result<T, Error> {
        self.call("bus.ask", REQUEST_TIMEOUT, event).await
    }

    async fn with_stream<T: Send + 'static>(
        &self,
        name: String,
        event: impl FnOnce(&mut Stream) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let missing = format!("stream {name}: stream not found");
        self.ask(move |core| core.streams.get_mut(&name).map(event)).await?.ok_or(Error::Away(missing))
    }

    /// Has something done at the broker, and waits until the answer is here, or until it is too late for it.
    async fn call<T: Send + 'static>(
        &self,
        point: &'static str,
        patience: Duration,
        event: impl FnOnce(&mut Core) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let fault = self.shared.faults.at(point);
        let delay = match fault {
            Fault::Away => return Err(Error::away("the connection was lost")),
            Fault::Delay(delay) => delay,
            Fault::None | Fault::Ambiguous => Duration::ZERO,
        };
        let (sender, receiver) = oneshot::channel();
        let (shared, wire) = (Arc::downgrade(&self.shared), Arc::downgrade(&self.wire));
        self.send(delay, move |core| {
            let answer = event(core);
            let back = match shared.upgrade().map(|shared| shared.faults.at("bus.answer")) {
                Some(Fault::Delay(delay)) => nanoseconds(delay),
                Some(Fault::Away | Fault::Ambiguous) => return,
                Some(Fault::None) | None => 0,
            };
            if let Some(wire) = wire.upgrade() {
                let _ = sender.send((wire.back(core.now, back), wire.epoch(), answer));
            }
        });
        let answered = async {
            // What is lost is waited for in vain.
            let Ok((at, epoch, answer)) = receiver.await else { return std::future::pending().await };
            self.wait_until(at).await;
            if self.wire.epoch() == epoch { answer } else { std::future::pending().await }
        };
        let answer = tokio::time::timeout(patience, answered).await.map_err(|_| Error::away("no answer in time"))?;
        match fault {
            Fault::Ambiguous => Err(Error::away("the connection was lost before the answer came")),
            _ => Ok(answer),
        }
    }

    /// Puts something on the wire. It arrives if the connection still stands then, whatever becomes of whoever sent it.
    fn send(&self, delay: Duration, event: impl FnOnce(&mut Core) + Send + 'static) {
        let now = self.shared.now();
        let (wire, epoch) = (Arc::clone(&self.wire), self.wire.epoch());
        let at = wire.out(now, nanoseconds(delay));
        let mut core = self.shared.core();
        let is_sooner = arrive(&mut core, at, wire, epoch, event);
        match at <= now {
            true => core.run_due(now),
            false if is_sooner => self.shared.sooner.notify_one(),
            false => {}
        }
    }
}

/// A connection that stands still when it arrives holds it up.
fn arrive(
    core: &mut Core,
    at: u64,
    wire: Arc<Wire>,
    epoch: u64,
    event: impl FnOnce(&mut Core) + Send + 'static,
) -> bool {
    core.push(at, move |core| {
        let stalled = wire.stalled_until();
        if stalled > core.now {
            let boxed: Box<dyn FnOnce(&mut Core) + Send> = Box::new(event);
            arrive(core, stalled, wire, epoch, boxed);
        } else if wire.epoch() == epoch {
            event(core);
        }
    })
}

impl Core {
    /// A message on a subject; none: nobody listens.
    fn take(&mut self, sent: Sent) -> Option<Bytes> {
        match sent.subject.starts_with("$JS.ACK.") {
            true => self.hear(&sent.subject, &sent.payload).then(Bytes::new),
            false => self.publish(sent),
        }
    }
}
