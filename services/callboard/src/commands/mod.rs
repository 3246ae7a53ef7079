//! One file a command.

pub mod conflicts;
pub mod dead_letters;
pub mod delete;
pub mod demo;
pub mod errors;
pub mod get;
pub mod list;
pub mod publish;
pub mod role;
pub mod snapshots;
pub mod status;
pub mod up;
pub mod verify;
pub mod watch;

use crate::failure::Failure;

/// The async runtime of this process.
///
/// # Errors
/// [`Failure::Runtime`] when the system gives no threads.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    // TLS has one implementation here, and must not look for it.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Failure::Runtime(format!("cannot start: {error}")))
}
