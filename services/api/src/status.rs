//! The status table: which error of the read side is which gRPC code.

use prost::{Message, bytes::Bytes};
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
    /// The contract names it, this reader does not serve it. `UNIMPLEMENTED`.
    #[error("{what} is not served by this reader")]
    NotServed {
        /// The rpc or the request's field.
        what: &'static str,
    },
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
            Error::NotReady { .. } => Code::Unavailable,
            Error::Behind { .. } => Code::DeadlineExceeded,
            Error::ReplyTooLarge { .. } | Error::TooManyWaiting { .. } => Code::ResourceExhausted,
            Error::NotServed { .. } => Code::Unimplemented,
            Error::Unreadable { .. } => Code::Internal,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let (code, message) = (error.code(), error.to_string());
        match error {
            Error::Invalid { field, reason } => {
                let details = bad_request(code, &message, field, reason);
                Status::with_details(code, message, details)
            }
            _ => Status::new(code, message),
        }
    }
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

const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";

fn bad_request(code: Code, message: &str, field: String, description: String) -> Bytes {
    let request = BadRequest { field_violations: vec![FieldViolation { field, description }] };
    let status = RpcStatus {
        code: code as i32,
        message: message.to_owned(),
        details: vec![Any { type_url: BAD_REQUEST.into(), value: request.encode_to_vec() }],
    };
    status.encode_to_vec().into()
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

/// `google.rpc.BadRequest.FieldViolation`.
#[derive(Clone, PartialEq, Message)]
struct FieldViolation {
    #[prost(string, tag = "1")]
    field: String,
    #[prost(string, tag = "2")]
    description: String,
}
