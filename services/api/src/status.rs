//! The status table: which error of the read side is which gRPC code.

use std::time::Duration;

use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};

/// Why a call of the read contract cannot be answered. `From<Error> for tonic::Status` is the status table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field of the request cannot be used. `INVALID_ARGUMENT`, with a `google.rpc.BadRequest` detail.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field's path in the request, for example `refs[3]`.
        field: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// There is no such entity. `NOT_FOUND`.
    #[error("there is no entity {what}")]
    NotFound {
        /// The ref, or the uid, as it was looked for.
        what: String,
    },
    /// The reader has not caught up yet. `UNAVAILABLE`: another reader may answer, or this one a little later.
    #[error("the reader has not caught up with the catalog yet: {pending} messages to come")]
    NotReady {
        /// Messages that the broker says are still to come.
        pending: u64,
    },
    /// The reader did not reach the revision in time. `DEADLINE_EXCEEDED`.
    #[error(
        "at_least_revision: the reader has reached revision {reached}, not yet {asked}: {pending} messages to come"
    )]
    Behind {
        /// The revision that the answer had to include.
        asked: i64,
        /// The watermark that the reader has seen.
        reached: i64,
        /// Messages that the broker says are still to come.
        pending: u64,
    },
    /// The answer is larger than a reply may be. `RESOURCE_EXHAUSTED`.
    #[error("the reply would be larger than {limit} bytes: ask for fewer entities")]
    ReplyTooLarge {
        /// Bytes.
        limit: usize,
    },
    /// As many calls as may wait for a revision are waiting. `RESOURCE_EXHAUSTED`.
    #[error("{limit} calls wait for a revision already: try again later")]
    TooManyWaiting {
        /// Calls.
        limit: usize,
    },
    /// As many calls as may run at once are running. `RESOURCE_EXHAUSTED`.
    #[error("{limit} calls of this sort run already: try again later")]
    TooManyCalls {
        /// Calls.
        limit: usize,
    },
    /// As many watchers as there may be are watching. `RESOURCE_EXHAUSTED`.
    #[error("{limit} watchers watch already: try another reader")]
    TooManyWatchers {
        /// Watchers.
        limit: usize,
    },
    /// A watcher that took too little for too long is cut off. `RESOURCE_EXHAUSTED`.
    #[error(
        "the watcher is too slow: {behind} changes have not been taken, and the reader remembers no more; watch again, without a token if this one is too old"
    )]
    TooSlow {
        /// Changes.
        behind: u64,
    },
    /// A resume token stands for a place that the reader does not know any more. `OUT_OF_RANGE`.
    #[error(
        "resume_token: {reason}; watch again without a token, and take what comes before the first bookmark as all there is"
    )]
    TooOld {
        /// Why it is.
        reason: &'static str,
    },
    /// The call took longer than it may. `DEADLINE_EXCEEDED`.
    #[error("the call was not answered within {seconds} s: ask for less")]
    TooLong {
        /// How long it may take.
        seconds: u64,
    },
    /// The reader stops. `UNAVAILABLE`: another reader may answer.
    #[error("the reader stops: try another one, or this one again")]
    Stopping,
    /// An entity in the catalog cannot be made a message; a bug, since only stitched entities come here. `INTERNAL`.
    #[error("entity {entity_ref} cannot be read: {reason}")]
    Unreadable {
        /// `?` where it is not known.
        entity_ref: String,
        /// What was expected and what was found.
        reason: String,
    },
}

impl Error {
    /// A field of the request that cannot be used; `reason` says what was expected and what was found.
    pub fn invalid(field: impl Into<String>, reason: impl ToString) -> Error {
        Error::Invalid { field: field.into(), reason: reason.to_string() }
    }

    /// The gRPC code that says so.
    pub fn code(&self) -> Code {
        match self {
            Error::Invalid { .. } => Code::InvalidArgument,
            Error::NotFound { .. } => Code::NotFound,
            Error::NotReady { .. } | Error::Stopping => Code::Unavailable,
            Error::Behind { .. } | Error::TooLong { .. } => Code::DeadlineExceeded,
            Error::ReplyTooLarge { .. }
            | Error::TooManyWaiting { .. }
            | Error::TooManyCalls { .. }
            | Error::TooManyWatchers { .. }
            | Error::TooSlow { .. } => Code::ResourceExhausted,
            Error::TooOld { .. } => Code::OutOfRange,
            Error::Unreadable { .. } => Code::Internal,
        }
    }
}

impl Error {
    /// After which time the same call may well succeed; none: not by waiting.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::NotReady { .. } | Error::TooManyWatchers { .. } => Some(Duration::from_secs(1)),
            Error::Stopping | Error::TooManyWaiting { .. } | Error::TooManyCalls { .. } => {
                Some(Duration::from_millis(100))
            }
            _ => None,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let (code, message, retry_after) = (error.code(), cut(error.to_string()), error.retry_after());
        let detail = match error {
            Error::Invalid { field, reason } => Some(bad_request(cut(field), cut(reason))),
            _ => retry_after.map(retry_info),
        };
        let Some(detail) = detail else { return Status::new(code, message) };
        let status = RpcStatus { code: code as i32, message: message.clone(), details: vec![detail] };
        Status::with_details(code, message, status.encode_to_vec().into())
    }
}

/// A status goes in headers, for which clients have little room: of what a request brings it repeats a part alone.
fn cut(mut text: String) -> String {
    if text.len() > TEXT_LIMIT {
        text.truncate(text.floor_char_boundary(TEXT_LIMIT));
        text.push('…');
    }
    text
}

/// After which time a status says that the call may be tried again: its `google.rpc.RetryInfo` detail.
pub fn retry_after(status: &Status) -> Option<Duration> {
    let details = RpcStatus::decode(status.details()).ok()?.details;
    let detail = details.iter().find(|detail| detail.type_url == RETRY_INFO)?;
    RetryInfo::decode(detail.value.as_slice()).ok()?.retry_delay?.try_into().ok()
}

/// The fields that a status refuses, each with the reason: its `google.rpc.BadRequest` detail. Empty where it has none.
pub fn field_violations(status: &Status) -> Vec<(String, String)> {
    let details = RpcStatus::decode(status.details()).unwrap_or_default();
    details
        .details
        .iter()
        .filter(|detail| detail.type_url == BAD_REQUEST)
        .filter_map(|detail| BadRequest::decode(detail.value.as_slice()).ok())
        .flat_map(|request| request.field_violations)
        .map(|violation| (violation.field, violation.description))
        .collect()
}

/// Bytes of a text in a status.
const TEXT_LIMIT: usize = 1024;

const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

fn bad_request(field: String, description: String) -> Any {
    let request = BadRequest { field_violations: vec![FieldViolation { field, description }] };
    Any { type_url: BAD_REQUEST.into(), value: request.encode_to_vec() }
}

fn retry_info(delay: Duration) -> Any {
    let info = RetryInfo { retry_delay: delay.try_into().ok() };
    Any { type_url: RETRY_INFO.into(), value: info.encode_to_vec() }
}

/// `google.rpc.Status`, what the header `grpc-status-details-bin` carries.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.rpc.BadRequest`.
#[derive(Clone, PartialEq, Message)]
struct BadRequest {
    #[prost(message, repeated, tag = "1")]
    field_violations: Vec<FieldViolation>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

/// `google.rpc.BadRequest.FieldViolation`.
#[derive(Clone, PartialEq, Message)]
struct FieldViolation {
    #[prost(string, tag = "1")]
    field: String,
    #[prost(string, tag = "2")]
    description: String,
}
