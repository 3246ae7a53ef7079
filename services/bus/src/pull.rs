//! Pulling from a durable consumer: what waits now, or the first message that comes; every wait has an end.

use crate::nats::Ask;
use crate::{Backoff, Bus, Error, Item, Lane};
use async_nats::StatusCode;
use futures::StreamExt;
use futures::future::BoxFuture;
use std::time::Duration;

/// How long one wait for a first message lasts before it is asked again; bounds how long a lost consumer goes unnoticed.
const WAIT: Duration = Duration::from_secs(5);
/// How much later than promised the broker's answer may come before it counts as lost.
const GRACE: Duration = Duration::from_secs(2);

/// What waits in one lane: at most one message is asked for ahead, so that no worker hoards.
pub(crate) struct Wait {
    bus: Bus,
    stream: String,
    durable: &'static str,
    received: Vec<Item>,
    asked: Option<BoxFuture<'static, Result<Vec<Item>, Error>>>,
    backoff: Backoff,
    said_away: bool,
}

impl Wait {
    pub(crate) fn new(bus: &Bus, lane: &Lane) -> Wait {
        Wait {
            bus: bus.clone(),
            stream: lane.stream.clone(),
            durable: lane.durable,
            received: Vec::new(),
            asked: None,
            backoff: Backoff::default(),
            said_away: false,
        }
    }

    /// Returns when at least one message was received. Cancel-safe: the request stays out.
    pub(crate) async fn first(&mut self) {
        while self.received.is_empty() {
            let asked = self.asked.get_or_insert_with(|| {
                Box::pin(ask(self.bus.clone(), self.stream.clone(), self.durable, Ask::First(WAIT)))
            });
            let answer = asked.await;
            self.asked = None;
            match answer {
                Ok(items) => {
                    self.backoff.reset();
                    self.said_away = false;
                    self.received = items;
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.said_away, true) {
                        tracing::warn!(stream = self.stream, consumer = self.durable, %error, "cannot fetch; trying until it works");
                    }
                    tokio::time::sleep(self.backoff.pause()).await;
                }
            }
        }
    }

    /// What was received, and what else waits now, up to the lane's bounds.
    pub(crate) async fn take_waiting(&mut self, lane: &Lane) -> Vec<Item> {
        let mut items = std::mem::take(&mut self.received);
        let more = Ask::Waiting { messages: lane.messages.saturating_sub(items.len()).max(1), bytes: lane.bytes };
        match ask(self.bus.clone(), self.stream.clone(), self.durable, more).await {
            Ok(more) => items.extend(more),
            // The wait for a first message says it, and paces itself.
            Err(error) => tracing::debug!(consumer = self.durable, %error, "fetched nothing"),
        }
        items
    }

    pub(crate) async fn into_received(mut self) -> Vec<Item> {
        if let Some(asked) = self.asked.take()
            && let Some(Ok(items)) = futures::FutureExt::now_or_never(asked)
        {
            self.received.extend(items);
        }
        self.received
    }
}

async fn ask(bus: Bus, stream: String, durable: &'static str, ask: Ask) -> Result<Vec<Item>, Error> {
    let (messages, patience) = match &ask {
        Ask::First(wait) => (1, *wait + GRACE),
        Ask::Waiting { messages, .. } => (*messages, GRACE),
    };
    let place = (bus.life(), bus.connection());
    let mut answers = bus.link.pull(&stream, durable, &ask).await?;
    let mut items = Vec::new();
    while items.len() < messages {
        let answer = match tokio::time::timeout(patience, answers.next()).await {
            Ok(Some(answer)) => answer,
            Ok(None) | Err(_) if items.is_empty() => return Err(Error::away("no answer to a pull")),
            Ok(None) | Err(_) => break,
        };
        match answer.status {
            None | Some(StatusCode::OK) => items.extend(Item::new(answer, place)),
            // Nothing (more) waits; the time is over; or the next message would go over the bytes asked for.
            Some(StatusCode::NOT_FOUND | StatusCode::TIMEOUT) => break,
            Some(_) if !items.is_empty() => break,
            Some(StatusCode::NO_RESPONDERS) => {
                return Err(Error::away(format!("there is no consumer {durable} on stream {stream}")));
            }
            Some(status) => {
                return Err(Error::away(format!("{durable}: {status} {}", answer.description.unwrap_or_default())));
            }
        }
    }
    Ok(items)
}
