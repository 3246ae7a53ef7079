//! A question to a service behind a subject, and its answer (request and reply).

use crate::{Bus, Error};
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
    let request = async_nats::Request::new().payload(question.into()).timeout(Some(patience));
    match bus.client.send_request(subject.to_owned(), request).await {
        Ok(answer) => Ok(answer.payload),
        Err(error) => Err(Error::away(error)),
    }
}
