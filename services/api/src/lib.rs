//! The read contract: code generated from proto/, conversions between entities and messages, the status table.

mod codec;
mod encode;
mod encoded;
mod entity;
mod fields;
mod status;
mod structs;
pub mod wire;

pub use codec::ReadyCodec;
pub use encode::encode_entity;
pub use encoded::{Encoded, EncodedEntity, EncodedTraversal};
pub use entity::{MAX_DEPTH, depth, entity_from_json, entity_from_map, entity_to_json};
pub use fields::Fields;
pub use prost_types::Struct;
pub use status::{Error, field_violations, retry_after};
pub use structs::{from_struct, to_struct};

/// The messages and the service of `callboard.catalog.v1`, generated; the proto file is their documentation.
#[allow(clippy::all, clippy::unwrap_used, missing_docs)]
pub mod v1 {
    tonic::include_proto!("callboard.catalog.v1");
}

/// The same contract with entities as bytes that stand ready ([`EncodedEntity`] wherever [`v1`] has its entity): what a reader
/// serves, and what a client asks with that only passes entities on. On the wire the two are one.
#[allow(clippy::all, clippy::unwrap_used, missing_docs)]
pub mod ready {
    tonic::include_proto!("ready/callboard.catalog.v1");
}

/// The contract and what it imports as an encoded `google.protobuf.FileDescriptorSet`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));
