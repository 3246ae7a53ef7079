//! The only crate with NATS: subjects, streams, durable consumers, the one worker loop.

mod ask;
mod connect;
mod dead_letter;
mod delivered;
mod entity;
mod error;
mod floor;
mod follow;
mod item;
mod mirror;
mod names;
mod nats;
mod publish;
mod pull;
mod retry;
mod status;
mod stop;
mod streams;
#[cfg(feature = "twin")]
pub mod twin;
mod worker;

#[cfg(not(feature = "twin"))]
pub(crate) use nats::Nats as Link;
#[cfg(feature = "twin")]
pub(crate) use twin::Link;

pub use ask::ask;
pub use connect::{Bus, Options};
pub use dead_letter::{StoredDeadLetter, dead_letter, drop_dead_letter, newest_dead_letters, wanted_dead_letters};
pub use entity::{
    NO_WATERMARK, NewestEntity, entity_record, newest_entities, newest_entity, newest_watermark, unprocessed_record,
    watermark_record,
};
pub use error::Error;
pub use floor::{Lanes, Stray, settled_through, strays_through};
pub use follow::{EntityMessage, Followed, Follower};
pub use item::Item;
pub use mirror::{ensure_mirror, last_entity};
pub use names::{Names, decode_token, encode_token};
pub use publish::{Published, Record, publish, publish_all, publish_at_once};
pub use retry::Backoff;
pub use status::{
    ConsumerStatus, StreamStatus, consumer_status, find_stream, has_grown_anew, made_at, nanoseconds, next_stored,
    stream_status, unsettled,
};
pub use stop::{Stop, Stopper, stop};
pub use streams::{Limits, delete, ensure_consumers, ensure_streams, purge_through};
pub use worker::{Failure, Handler, Lane, Outcome, Worker};

/// Headers that Callboard gives meaning to, beside the broker's own.
pub mod header {
    /// On an event: the location key under which its source claims the entity (Backstage's `locationKey`).
    pub const LOCATION_KEY: &str = "Callboard-Location-Key";
    /// On an event: the snapshot (a provider's full mutation) that it is part of.
    pub const SNAPSHOT: &str = "Callboard-Snapshot";
    /// On an event: the revision which it replaces.
    pub const EXPECTED_REVISION: &str = "Callboard-Expected-Revision";
    /// On an entity: the version of its stitched form; rises with each change.
    pub const VERSION: &str = "Callboard-Version";
    /// Of a stitch request: it may have been delivered before, in a message or a stream that is gone.
    pub const AGAIN: &str = "Callboard-Again";
    /// On an entity: the revision of the event that its content comes from.
    pub const REVISION: &str = "Callboard-Revision";
    /// On an entity: the hash of its content and of its parents, by which a stitcher knows its own work again.
    pub const HASH: &str = "Callboard-Hash";
    /// On an entity: the refs of the entities that emit it, as a JSON array; absent: no entity does.
    pub const PARENTS: &str = "Callboard-Parents";
    /// On an entity without a body: that it is no deletion, but was never processed successfully; why, in one line.
    pub const UNPROCESSED: &str = "Callboard-Unprocessed";
    /// On an entity: how its body is compressed (`zstd`).
    pub const ENCODING: &str = "Callboard-Encoding";
    /// On a dead letter: why, in one sentence.
    pub const DEAD_REASON: &str = "Callboard-Dead-Reason";
    /// On a dead letter: the subject on which the original came.
    pub const DEAD_SUBJECT: &str = "Callboard-Dead-Subject";
    /// On a dead letter: the stream in which the original stood.
    pub const DEAD_STREAM: &str = "Callboard-Dead-Stream";
    /// On a dead letter: the original's sequence in that stream.
    pub const DEAD_SEQUENCE: &str = "Callboard-Dead-Sequence";
    /// On a dead letter: when the original was stored, in nanoseconds since 1970.
    pub const DEAD_STORED: &str = "Callboard-Dead-Stored";
    /// On a dead letter: the original was too long to be kept whole.
    pub const DEAD_CUT: &str = "Callboard-Dead-Cut";
    /// On a dead letter: before each header of the original, so that none of them acts again.
    pub const ORIGINAL_PREFIX: &str = "Original-";
}
