//! Finds, fetches, starts and stops PostgreSQL and nats-server on this machine.
//!
//! [`start`] is what `callboard up` calls: both servers as children with their data below one directory, kept from one start to
//! the next. [`testing`] is what tests call: both servers once for a whole test run, thrown away when it ends.
//! Everything here blocks; call it before the async runtime has work, or from a blocking thread.

mod account;
mod error;
mod fetch;
mod guard;
mod launch;
mod locate;
mod nats;
mod pins;
mod postgres;
mod process;
mod servers;
mod state;
pub mod testing;
mod version;

pub use error::Error;
pub use locate::{NatsBinary, PostgresBinaries, cache_dir, locate_nats, locate_postgres};
pub use nats::NatsConfig;
pub use servers::{Options, Servers, start};
pub use version::Version;
