//! The only crate with SQL: statements and transactions on the truth in PostgreSQL.

mod connect;
mod copy;
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
mod view;
mod write;

/// Bugs planted on purpose, for the crates that do not name `catalog`.
pub use catalog::planted;
pub use connect::{Options, Store};
pub use error::Error;
pub use merge::{ClaimRow, ClaimWrite, ContentWrite, EntityRow, EntityWrite, Floor, Merge, RelationRow};
pub use outbox::{OutboxRow, Request};
pub use reads::{DueRead, ReadDone, ReadWrite};
pub use removal::{Ancestor, Cascade, Step};
pub use repair::{Gap, PublishedState, RepairState};
pub use snapshots::{Conflict, OpenSnapshot, Parts, SnapshotRow, Sweep};
pub use stitch::{Incoming, Shown, Snapshot, StateWrite, StitchState, Stitching, WHATEVER};
pub use streams::{Remedy, SeenStream, StreamPosition};
pub use view::{Counts, FailedEntity, TaskRow};
