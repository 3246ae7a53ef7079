//! A question to a service behind a subject, and its answer (request and reply).

use crate::nats::Unanswered;
use crate::{Bus, Error};
use async_nats::HeaderMap;
use bytes::Bytes;
use std::time::Duration;

/// Asks whoever serves a subject.
///
/// # Errors
/// [`Error::Away`]: nobody serves it, the broker is away, or no answer came in time. [`Error::Unusable`]: the question is larger than the broker takes.
pub async fn ask(bus: &Bus, subject: &str, question: Vec<u8>, patience: Duration) -> Result<Bytes, Error> {
    if question.len() > bus.max_payload() {
        return Err(Error::Unusable(format!("{} bytes are more than the broker takes in one message", question.len())));
    }
    let answer = bus.link.request(subject, HeaderMap::new(), question.into(), patience).await;
    answer.map_err(|error| match error {
        Unanswered::NobodyThere => Error::away(format!("nobody serves {subject}")),
        Unanswered::TooLarge => Error::Unusable("the question is more than the broker takes in one message".to_owned()),
        Unanswered::Lost(what) => Error::Away(what),
    })
}
