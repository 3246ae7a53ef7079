//! The pipeline on one thread, seeded, with faults, judged by an oracle.
//!
//! The roles are the real ones, over the twins of the broker and the database. Time is tokio's, and passes only when everybody waits. All
//! that could be otherwise is decided by the seed; so a seed that failed fails again.

mod chance;
mod faults;
mod judge;
mod oracle;
mod profile;
mod providers;
mod random;
mod reading;
mod run;
mod site;
mod storm;
mod trace;

pub use run::{Outcome, run_after, run_seed};
