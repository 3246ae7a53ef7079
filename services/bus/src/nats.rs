//! The broker as async-nats reaches it: each call that the bus makes of it, and nothing of what it is for.

use crate::{Error, StreamStatus};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, pull};
use async_nats::jetstream::context::{ContextBuilder, GetStreamErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Config, ConsumerErrorKind, Info, LastRawMessageErrorKind, RawMessageErrorKind};
use async_nats::jetstream::{self, stream::Stream};
use async_nats::{HeaderMap, Message, RequestErrorKind};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::time::{Duration, SystemTime};

/// What the broker says of a consumer that is there, but begins at another message: it has one code for all that cannot be changed.
const BEGINS_ELSEWHERE: [&str; 2] = ["deliver policy can not be updated", "start time can not be updated"];
/// The broker's error code for a stream that is not there.
const NO_SUCH_STREAM: u64 = 10059;
/// How long one request to JetStream may take.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Without a message or heartbeat for this long, a follower's consumer is lost.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(2);

/// Why a request has no answer.
pub(crate) enum Unanswered {
    /// Nobody listens on the subject.
    NobodyThere,
    /// It is larger than the broker takes.
    TooLarge,
    /// It, or its answer, was lost or late: it may have been heard all the same.
    Lost(String),
}

/// What is asked of a durable consumer.
pub(crate) enum Ask {
    /// The first message that comes within this time.
    First(Duration),
    /// What waits now, up to these bounds.
    Waiting { messages: usize, bytes: usize },
}

/// Which message of a stream.
#[derive(Clone, Copy)]
pub(crate) enum Which<'a> {
    /// The one of this sequence.
    At(u64),
    /// The first from a sequence on that a filter takes.
    Next(u64, &'a str),
    /// The newest of a subject.
    Last(&'a str),
}

/// A durable consumer's counts.
pub(crate) struct Counts {
    pub pending: u64,
    pub in_flight: u64,
    pub redelivered: u64,
    pub acknowledged_through: u64,
    pub filters: Vec<String>,
    pub made: SystemTime,
}

/// The messages of a consumer that needs no acknowledgement.
pub(crate) type Messages = BoxStream<'static, Result<Message, Error>>;

/// A connection to nats-server. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Nats {
    client: async_nats::Client,
    jetstream: jetstream::Context,
}

impl Nats {
    pub fn over(client: async_nats::Client) -> Nats {
        let jetstream =
            ContextBuilder::new().timeout(REQUEST_TIMEOUT).ack_timeout(REQUEST_TIMEOUT).build(client.clone());
        Nats { client, jetstream }
    }

    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    pub fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// A token that nobody else has.
    pub fn token(&self) -> String {
        self.client.new_inbox().rsplit('.').next().unwrap_or_default().to_owned()
    }

    pub async fn close(&self) {
        let _ = tokio::time::timeout(Duration::from_secs(2), self.client.flush()).await;
        let _ = tokio::time::timeout(Duration::from_secs(2), self.client.drain()).await;
    }

    pub async fn request(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
        patience: Duration,
    ) -> Result<Bytes, Unanswered> {
        let request = async_nats::Request::new().payload(payload).timeout(Some(patience));
        let request = if headers.is_empty() { request } else { request.headers(headers) };
        match self.client.send_request(subject.to_owned(), request).await {
            Ok(answer) => Ok(answer.payload),
            Err(error) => Err(match error.kind() {
                RequestErrorKind::NoResponders => Unanswered::NobodyThere,
                RequestErrorKind::MaxPayloadExceeded => Unanswered::TooLarge,
                _ => Unanswered::Lost(error.to_string()),
            }),
        }
    }

    pub async fn publish(&self, subject: &str, headers: HeaderMap, payload: Bytes) -> Result<(), Error> {
        let sent = match headers.is_empty() {
            true => self.client.publish(subject.to_owned(), payload).await,
            false => self.client.publish_with_headers(subject.to_owned(), headers, payload).await,
        };
        sent.map_err(Error::away)
    }

    /// Messages of a durable consumer, and the broker's word when there are no more.
    pub async fn pull(&self, stream: &str, durable: &str, ask: &Ask) -> Result<BoxStream<'static, Message>, Error> {
        let request = match ask {
            Ask::First(wait) => format!(r#"{{"batch":1,"expires":{}}}"#, wait.as_nanos()),
            Ask::Waiting { messages, bytes } => {
                format!(r#"{{"batch":{messages},"no_wait":true,"max_bytes":{bytes}}}"#)
            }
        };
        let inbox = self.client.new_inbox();
        let answers = self.client.subscribe(inbox.clone()).await.map_err(Error::away)?;
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}");
        self.client.publish_with_reply(subject, inbox, request.into()).await.map_err(Error::away)?;
        Ok(answers.boxed())
    }

    pub async fn stream(&self, name: &str) -> Result<Option<StreamStatus>, Error> {
        found(name, self.jetstream.get_stream(name).await)
    }

    /// The same at another JetStream domain, over the link to it.
    pub async fn stream_of(&self, domain: &str, name: &str) -> Result<Option<StreamStatus>, Error> {
        let context = ContextBuilder::new().domain(domain).timeout(REQUEST_TIMEOUT).build(self.client.clone());
        found(name, context.get_stream(name).await)
    }

    pub async fn stream_config(&self, name: &str) -> Result<Option<Config>, Error> {
        match self.jetstream.get_stream(name).await {
            Ok(stream) => Ok(Some(stream.cached_info().config.clone())),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(api) if api.error_code().0 == NO_SUCH_STREAM => Ok(None),
                GetStreamErrorKind::JetStream(api) => {
                    Err(Error::Unusable(format!("cannot look at stream {name}: {api}")))
                }
                _ => Err(Error::Away(format!("cannot look at stream {name}: {error}"))),
            },
        }
    }

    pub async fn create_stream(&self, wanted: Config) -> Result<(), Error> {
        let name = wanted.name.clone();
        self.jetstream.create_stream(wanted).await.map(drop).map_err(|error| refused(&name, &error))
    }

    pub async fn update_stream(&self, wanted: Config) -> Result<(), Error> {
        let name = wanted.name.clone();
        self.jetstream.update_stream(wanted).await.map(drop).map_err(|error| refused(&name, &error))
    }

    /// Creates a stream or leaves it as it is; gives its configuration.
    pub async fn get_or_create_stream(&self, wanted: Config) -> Result<Config, Error> {
        let name = wanted.name.clone();
        let made = self.jetstream.get_or_create_stream(wanted).await.map_err(|error| refused(&name, &error))?;
        Ok(made.cached_info().config.clone())
    }

    pub async fn delete_stream(&self, name: &str) -> Result<(), Error> {
        self.jetstream.delete_stream(name).await.map(drop).map_err(Error::away)
    }

    /// Removes every message up to this sequence.
    pub async fn purge(&self, name: &str, through: u64) -> Result<(), Error> {
        // The broker purges up to, not including, the sequence; beyond its end it would move the count of sequences on.
        let purged = self.handle(name).await?.purge().sequence(through + 1).await;
        purged.map(drop).map_err(|error| Error::Away(format!("purging {name}: {error}")))
    }

    /// The subjects that have messages.
    pub async fn subjects(&self, name: &str, filter: String) -> Result<Vec<String>, Error> {
        let handle = self.handle(name).await?;
        let info = handle.info_builder().subjects(filter).fetch().await.map_err(Error::away)?;
        let mut info = std::pin::pin!(info);
        let mut subjects = Vec::new();
        // Asked for more after an error, the client panics.
        while let Some(subject) = info.next().await {
            subjects.push(subject.map_err(Error::away)?.0);
        }
        Ok(subjects)
    }

    pub async fn consumer_config(&self, stream: &str, durable: &str) -> Result<Option<pull::Config>, Error> {
        let handle = self.handle(stream).await?;
        let Ok(info) = handle.consumer_info(durable).await else { return Ok(None) };
        let known = info.config;
        Ok(Some(pull::Config {
            filter_subjects: match known.filter_subjects.is_empty() {
                true => vec![known.filter_subject],
                false => known.filter_subjects,
            },
            ack_wait: known.ack_wait,
            max_ack_pending: known.max_ack_pending,
            max_deliver: known.max_deliver,
            deliver_policy: known.deliver_policy,
            ..pull::Config::default()
        }))
    }

    pub async fn put_consumer(&self, stream: &str, wanted: pull::Config) -> Result<(), Error> {
        let durable = wanted.durable_name.clone().unwrap_or_default();
        let made = self.jetstream.create_consumer_on_stream(wanted, stream).await;
        made.map(drop).map_err(|error| match error.kind() {
            // The stream has just gone, and is made anew; or another process has just made the consumer, to begin elsewhere.
            ConsumerErrorKind::JetStream(api)
                if api.error_code().0 == NO_SUCH_STREAM
                    || BEGINS_ELSEWHERE.iter().any(|reason| api.to_string().contains(reason)) =>
            {
                Error::Away(format!("consumer {durable} of {stream}: {api}"))
            }
            ConsumerErrorKind::JetStream(api) if api.code() != 503 => {
                Error::Unusable(format!("the broker does not make consumer {durable} of {stream} as it must be: {api}"))
            }
            _ => Error::Away(format!("consumer {durable} of {stream}: {error}")),
        })
    }

    pub async fn delete_consumer(&self, stream: &str, durable: &str) -> Result<(), Error> {
        self.handle(stream).await?.delete_consumer(durable).await.map(drop).map_err(Error::away)
    }

    pub async fn consumer(&self, stream: &str, durable: &str) -> Result<Counts, Error> {
        let info = self.handle(stream).await?.consumer_info(durable).await;
        let info = info.map_err(|error| Error::Away(format!("consumer {durable} of {stream}: {error}")))?;
        Ok(Counts {
            pending: info.num_pending,
            in_flight: info.num_ack_pending as u64,
            redelivered: info.num_redelivered as u64,
            acknowledged_through: info.ack_floor.stream_sequence,
            filters: match info.config.filter_subjects.is_empty() {
                true => vec![info.config.filter_subject],
                false => info.config.filter_subjects,
            },
            made: info.created.into(),
        })
    }

    /// A message as the stream's leader has it; none: it is not there, or not any more.
    pub async fn message(&self, stream: &str, which: Which<'_>) -> Result<Option<StreamMessage>, Error> {
        let handle = self.handle(stream).await?;
        let asked = match which {
            Which::At(sequence) => handle.get_raw_message(sequence).await,
            Which::Next(from, filter) => {
                handle.raw_message_builder().sequence(from).next_by_subject(filter).send().await
            }
            Which::Last(subject) => {
                return match handle.get_last_raw_message_by_subject(subject).await {
                    Ok(message) => Ok(Some(message)),
                    Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => Ok(None),
                    Err(error) => Err(Error::Away(format!("newest message of {subject}: {error}"))),
                };
            }
        };
        asked.map(Some).or_else(|error| match (error.kind(), which) {
            (RawMessageErrorKind::NoMessageFound, _) => Ok(None),
            (RawMessageErrorKind::JetStream(api), Which::At(_))
                if api.error_code().0 == NO_SUCH_STREAM || [400, 404].contains(&api.code()) =>
            {
                Ok(None)
            }
            _ => Err(Error::Away(format!("stream {stream}: {error}"))),
        })
    }

    pub async fn delete_message(&self, stream: &str, sequence: u64) -> Result<(), Error> {
        self.handle(stream).await?.delete_message(sequence).await.map(drop).map_err(Error::away)
    }

    /// Every message behind this sequence, those that are to come too; and whether there are any now.
    pub async fn follow(&self, stream: &str, after: u64) -> Result<(Messages, bool), Error> {
        let config = pull::Config {
            deliver_policy: match after {
                0 => DeliverPolicy::All,
                after => DeliverPolicy::ByStartSequence { start_sequence: after + 1 },
            },
            replay_policy: ReplayPolicy::Instant,
            ..ephemeral()
        };
        let consumer = self.handle(stream).await?.create_consumer(config).await.map_err(Error::away)?;
        let messages = consumer.stream().max_messages_per_batch(1000).heartbeat(HEARTBEAT);
        let messages = messages.expires(Duration::from_secs(30)).messages().await.map_err(Error::away)?;
        Ok((plain(messages), consumer.cached_info().num_pending > 0))
    }

    /// The newest message of each subject that stands now, without its body; and how many there are.
    pub async fn newest(&self, stream: &str, filter: String) -> Result<(Messages, u64), Error> {
        let config = pull::Config {
            deliver_policy: DeliverPolicy::LastPerSubject,
            headers_only: true,
            filter_subject: filter,
            ..ephemeral()
        };
        let consumer = self.handle(stream).await?.create_consumer(config).await.map_err(Error::away)?;
        let messages = consumer.stream().max_messages_per_batch(1000).messages().await.map_err(Error::away)?;
        Ok((plain(messages), consumer.cached_info().num_pending))
    }

    async fn handle(&self, stream: &str) -> Result<Stream<()>, Error> {
        self.jetstream.get_stream_no_info(stream).await.map_err(Error::away)
    }
}

fn ephemeral() -> pull::Config {
    pull::Config {
        ack_policy: AckPolicy::None,
        memory_storage: true,
        num_replicas: 1,
        inactive_threshold: Duration::from_secs(30),
        ..pull::Config::default()
    }
}

fn plain(messages: pull::Stream) -> Messages {
    messages.map(|message| message.map(|message| message.message).map_err(Error::away)).boxed()
}

fn found(
    name: &str,
    answer: Result<Stream, async_nats::jetstream::context::GetStreamError>,
) -> Result<Option<StreamStatus>, Error> {
    match answer {
        Ok(stream) => Ok(Some(status(stream.cached_info()))),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(api) if api.error_code().0 == NO_SUCH_STREAM => Ok(None),
            _ => Err(Error::Away(format!("stream {name}: {error}"))),
        },
    }
}

fn status(info: &Info) -> StreamStatus {
    StreamStatus {
        messages: info.state.messages,
        bytes: info.state.bytes,
        first_sequence: info.state.first_sequence,
        last_sequence: info.state.last_sequence,
        last_stored: info.state.last_timestamp.into(),
        created: info.created.into(),
        leader: info.cluster.as_ref().and_then(|cluster| cluster.leader.clone()),
    }
}

fn refused(name: &str, error: &async_nats::jetstream::context::CreateStreamError) -> Error {
    use async_nats::jetstream::context::CreateStreamErrorKind as Kind;
    match error.kind() {
        Kind::TimedOut => Error::Away(format!("stream {name}: {error}")),
        Kind::JetStream(api) if api.code() == 503 => Error::Away(format!("stream {name}: {api}")),
        _ => Error::Unusable(format!(
            "the broker does not make stream {name} as it must be: {error}. Is JetStream on, and is there room for it?"
        )),
    }
}
