//! Publishing into a stream of the twin: one message, or an atomic batch of which all or nothing is stored.

use super::Kept;
use super::core::Core;
use super::stream::Stream;
use async_nats::HeaderMap;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The most messages of one batch.
const BATCH_MESSAGES: usize = 1000;
/// A batch of which nothing comes for this long is abandoned.
const BATCH_IDLE: u64 = 10_000_000_000;

/// An atomic batch that is not complete yet.
#[derive(Default)]
pub(super) struct Batch {
    records: Vec<Sent>,
    touched: u64,
}

/// A message that was sent.
pub(super) struct Sent {
    pub subject: String,
    pub headers: HeaderMap,
    pub payload: Bytes,
}

impl Sent {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.as_str())
    }

    fn expected(&self) -> Option<u64> {
        self.header("Nats-Expected-Last-Subject-Sequence")?.parse().ok()
    }

    fn size(&self) -> (&str, usize, usize) {
        (&self.subject, self.headers.len(), self.payload.len())
    }
}

struct Refused(u64, u64, String);

impl Core {
    /// Takes a message; gives what the broker answers. None: no stream takes the subject.
    pub fn publish(&mut self, sent: Sent) -> Option<Bytes> {
        let name = self.stream_of(&sent.subject)?.config.name.clone();
        let answer = match sent.header("Nats-Batch-Id").map(str::to_owned) {
            Some(id) => self.publish_part(&name, &id, sent),
            None => self.publish_one(&name, sent),
        };
        Some(answer.unwrap_or_else(|Refused(code, number, description)| {
            format!(r#"{{"error":{{"code":{code},"err_code":{number},"description":"{description}"}},"stream":"{name}","seq":0}}"#).into()
        }))
    }

    fn publish_one(&mut self, name: &str, sent: Sent) -> Result<Bytes, Refused> {
        let now = self.now;
        let stream = self.streams.get_mut(name).ok_or_else(missing)?;
        if let Some(known) = sent.header("Nats-Msg-Id").and_then(|id| stream.known(id, now)) {
            return Ok(format!(r#"{{"stream":"{name}","seq":{known},"duplicate":true}}"#).into());
        }
        check(stream, &[&sent])?;
        let sequence = self.store(name, sent);
        self.serve_all(name);
        Ok(format!(r#"{{"stream":"{name}","seq":{sequence}}}"#).into())
    }

    fn publish_part(&mut self, name: &str, id: &str, sent: Sent) -> Result<Bytes, Refused> {
        let now = self.now;
        let place: usize = sent.header("Nats-Batch-Sequence").and_then(|place| place.parse().ok()).unwrap_or(0);
        let is_last = sent.header("Nats-Batch-Commit").is_some();
        if place == 1 {
            self.batches.insert(id.to_owned(), Batch::default());
        }
        let abandoned = || Refused(400, 10176, "batch publish is incomplete and was abandoned".to_owned());
        let batch = self.batches.get_mut(id).ok_or_else(abandoned)?;
        let is_late = place > 1 && batch.touched + BATCH_IDLE < now;
        if batch.records.len() + 1 != place || place > BATCH_MESSAGES || is_late {
            self.batches.remove(id);
            return Err(abandoned());
        }
        batch.touched = now;
        batch.records.push(sent);
        if !is_last {
            return Ok(Bytes::new());
        }
        let records = self.batches.remove(id).map(|batch| batch.records).unwrap_or_default();
        self.commit(name, id, records)
    }

    fn commit(&mut self, name: &str, id: &str, records: Vec<Sent>) -> Result<Bytes, Refused> {
        let now = self.now;
        let stream = self.streams.get_mut(name).ok_or_else(missing)?;
        let mut ids = BTreeSet::new();
        let is_known = |id: &str| stream.known(id, now).is_some();
        if records.iter().filter_map(|sent| sent.header("Nats-Msg-Id")).any(|id| is_known(id) || !ids.insert(id)) {
            return Err(Refused(400, 10201, "atomic publish batch contains duplicate message id".to_owned()));
        }
        check(stream, &records.iter().collect::<Vec<_>>())?;
        let count = records.len();
        let mut sequence = 0;
        for mut sent in records {
            for name in ["Nats-Batch-Id", "Nats-Batch-Sequence", "Nats-Batch-Commit"] {
                sent.headers = without(&sent.headers, name);
            }
            sequence = self.store(name, sent);
        }
        self.serve_all(name);
        Ok(format!(r#"{{"stream":"{name}","seq":{sequence},"batch":"{id}","count":{count}}}"#).into())
    }

    fn store(&mut self, name: &str, sent: Sent) -> u64 {
        let time = self.stamp();
        let Sent { subject, headers, payload } = sent;
        let Some(stream) = self.streams.get_mut(name) else { return 0 };
        stream.expire(self.now);
        let sequence = stream.store(&subject, headers.clone(), payload.clone(), time);
        self.history.push(Kept { stream: Arc::from(name), sequence, stored: time, subject, headers, payload });
        sequence
    }

    /// Gives what was stored to those who wait for it.
    fn serve_all(&mut self, name: &str) {
        let Some(stream) = self.streams.get(name) else { return };
        let durables: Vec<String> = stream.consumers.keys().cloned().collect();
        for durable in durables {
            self.serve(name, &durable);
        }
        self.wake_followers(name);
    }
}

/// Whether every expectation holds, and there is room.
fn check(stream: &Stream, records: &[&Sent]) -> Result<(), Refused> {
    for sent in records {
        let last = stream.last_of(&sent.subject);
        if sent.expected().is_some_and(|expected| expected != last) {
            return Err(Refused(400, 10071, format!("wrong last sequence: {last}")));
        }
    }
    match stream.has_room(&records.iter().map(|sent| sent.size()).collect::<Vec<_>>()) {
        true => Ok(()),
        false => Err(Refused(503, 10077, "maximum bytes exceeded".to_owned())),
    }
}

fn missing() -> Refused {
    Refused(404, 10059, "stream not found".to_owned())
}

fn without(headers: &HeaderMap, left_out: &str) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for (name, values) in headers.iter().filter(|(name, _)| AsRef::<str>::as_ref(*name) != left_out) {
        for value in values {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}
