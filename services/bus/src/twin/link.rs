//! The one seam: each call goes to nats-server, or to its twin.

use super::client::Client;
use crate::nats::{Ask, Counts, Messages, Nats, Unanswered, Which};
use crate::{Error, StreamStatus};
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::Config;
use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use futures::stream::BoxStream;
use std::time::Duration;

/// A connection to a broker.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one a process")]
pub(crate) enum Link {
    Nats(Nats),
    Twin(Client),
}

impl Link {
    pub fn over(client: async_nats::Client) -> Link {
        Link::Nats(Nats::over(client))
    }

    pub fn is_connected(&self) -> bool {
        match self {
            Link::Nats(to) => to.is_connected(),
            Link::Twin(to) => to.is_connected(),
        }
    }

    pub fn max_payload(&self) -> usize {
        match self {
            Link::Nats(to) => to.max_payload(),
            Link::Twin(to) => to.max_payload(),
        }
    }

    pub fn token(&self) -> String {
        match self {
            Link::Nats(to) => to.token(),
            Link::Twin(to) => to.token(),
        }
    }

    pub async fn close(&self) {
        match self {
            Link::Nats(to) => to.close().await,
            Link::Twin(to) => to.close().await,
        }
    }

    pub async fn request(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
        patience: Duration,
    ) -> Result<Bytes, Unanswered> {
        match self {
            Link::Nats(to) => to.request(subject, headers, payload, patience).await,
            Link::Twin(to) => to.request(subject, headers, payload, patience).await,
        }
    }

    pub async fn publish(&self, subject: &str, headers: HeaderMap, payload: Bytes) -> Result<(), Error> {
        match self {
            Link::Nats(to) => to.publish(subject, headers, payload).await,
            Link::Twin(to) => to.publish(subject, headers, payload).await,
        }
    }

    pub async fn pull(&self, stream: &str, durable: &str, ask: &Ask) -> Result<BoxStream<'static, Message>, Error> {
        match self {
            Link::Nats(to) => to.pull(stream, durable, ask).await,
            Link::Twin(to) => to.pull(stream, durable, ask).await,
        }
    }

    pub async fn stream(&self, name: &str) -> Result<Option<StreamStatus>, Error> {
        match self {
            Link::Nats(to) => to.stream(name).await,
            Link::Twin(to) => to.stream(name).await,
        }
    }

    pub async fn stream_of(&self, domain: &str, name: &str) -> Result<Option<StreamStatus>, Error> {
        match self {
            Link::Nats(to) => to.stream_of(domain, name).await,
            Link::Twin(to) => to.stream_of(domain, name).await,
        }
    }

    pub async fn stream_config(&self, name: &str) -> Result<Option<Config>, Error> {
        match self {
            Link::Nats(to) => to.stream_config(name).await,
            Link::Twin(to) => to.stream_config(name).await,
        }
    }

    pub async fn create_stream(&self, wanted: Config) -> Result<(), Error> {
        match self {
            Link::Nats(to) => to.create_stream(wanted).await,
            Link::Twin(to) => to.create_stream(wanted).await,
        }
    }

    pub async fn update_stream(&self, wanted: Config) -> Result<(), Error> {
        match self {
            Link::Nats(to) => to.update_stream(wanted).await,
            Link::Twin(to) => to.update_stream(wanted).await,
        }
    }

    pub async fn get_or_create_stream(&self, wanted: Config) -> Result<Config, Error> {
        match self {
            Link::Nats(to) => to.get_or_create_stream(wanted).await,
            Link::Twin(to) => to.get_or_create_stream(wanted).await,
        }
    }

    pub async fn delete_stream(&self, name: &str) -> Result<(), Error> {
        match self {
            Link::Nats(to) => to.delete_stream(name).await,
            Link::Twin(to) => to.delete_stream(name).await,
        }
    }

    pub async fn purge(&self, name: &str, through: u64) -> Result<(), Error> {
        match self {
            Link::Nats(to) => to.purge(name, through).await,
            Link::Twin(to) => to.purge(name, through).await,
        }
    }

    pub async fn subjects(&self, name: &str, filter: String) -> Result<Vec<String>, Error> {
        match self {
            Link::Nats(to) => to.subjects(name, filter).await,
            Link::Twin(to) => to.subjects(name, filter).await,
        }
    }

    pub async fn consumer_config(&self, stream: &str, durable: &str) -> Result<Option<pull::Config>, Error> {
        match self {
            Link::Nats(to) => to.consumer_config(stream, durable).await,
            Link::Twin(to) => to.consumer_config(stream, durable).await,
        }
    }

    pub async fn put_consumer(&self, stream: &str, wanted: pull::Config) -> Result<(), Error> {
        match self {
            Link::Nats(to) => to.put_consumer(stream, wanted).await,
            Link::Twin(to) => to.put_consumer(stream, wanted).await,
        }
    }

    pub async fn delete_consumer(&self, stream: &str, durable: &str) -> Result<(), Error> {
        match self {
            Link::Nats(to) => to.delete_consumer(stream, durable).await,
            Link::Twin(to) => to.delete_consumer(stream, durable).await,
        }
    }

    pub async fn consumer(&self, stream: &str, durable: &str) -> Result<Counts, Error> {
        match self {
            Link::Nats(to) => to.consumer(stream, durable).await,
            Link::Twin(to) => to.consumer(stream, durable).await,
        }
    }

    pub async fn message(&self, stream: &str, which: Which<'_>) -> Result<Option<StreamMessage>, Error> {
        match self {
            Link::Nats(to) => to.message(stream, which).await,
            Link::Twin(to) => to.message(stream, which).await,
        }
    }

    pub async fn delete_message(&self, stream: &str, sequence: u64) -> Result<(), Error> {
        match self {
            Link::Nats(to) => to.delete_message(stream, sequence).await,
            Link::Twin(to) => to.delete_message(stream, sequence).await,
        }
    }

    pub async fn follow(&self, stream: &str, after: u64) -> Result<(Messages, bool), Error> {
        match self {
            Link::Nats(to) => to.follow(stream, after).await,
            Link::Twin(to) => to.follow(stream, after).await,
        }
    }

    pub async fn newest(&self, stream: &str, filter: String) -> Result<(Messages, u64), Error> {
        match self {
            Link::Nats(to) => to.newest(stream, filter).await,
            Link::Twin(to) => to.newest(stream, filter).await,
        }
    }
}
