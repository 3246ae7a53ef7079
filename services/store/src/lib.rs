//! The only crate with SQL: statements and transactions on the truth in PostgreSQL.

mod connect;
mod copy;
#[cfg(any(test, feature = "twin"))]
mod either;
mod error;
mod floor;
mod known;
mod merge;
mod outbox;
mod reads;
mod removal;
mod repair;
mod snapshots;
mod stitch;
mod streams;
mod tasks;
#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "twin"))]
pub mod twin;
mod view;
mod walk;
mod write;

/// Bugs planted on purpose, for the crates that do not name `catalog`.
pub use catalog::planted;
pub use connect::Options;
#[cfg(any(test, feature = "twin"))]
pub use either::{Merge, Stitching, Store};
pub use error::Error;
pub use floor::Progress;
pub use merge::{ClaimRow, ClaimWrite, ContentWrite, EntityRow, EntityWrite, Floor, RelationRow};
pub use outbox::{OutboxRow, Request};
pub use reads::{DueRead, ReadDone, ReadWrite};
pub use removal::{Ancestor, Cascade, Step};
pub use repair::{Gap, PublishedState, RepairState};
pub use snapshots::{Conflict, OpenSnapshot, Parts, SnapshotRow, Sweep};
pub use stitch::{Incoming, Shown, Snapshot, StateWrite, StitchState, WHATEVER};
pub use streams::{GONE_BACK, Life, Remedy, SeenStream, StreamPosition};
pub use view::{Counts, FailedEntity, TaskRow};
pub use walk::{WalkStep, WalkedClaim};
#[cfg(not(any(test, feature = "twin")))]
pub use {connect::Store, merge::Merge, stitch::Stitching};
