//! Reads files and URLs: only what is allowed, within limits.
//!
//! Nothing may be read that the configuration does not name: hosts with their ports and paths, and directories. An address is checked after its name
//! was resolved and is the one that is connected to, at each redirect anew; a link that leads out of a directory is not followed.

mod address;
mod error;
mod fetch;
mod files;
mod hosts;

pub use address::is_public;
pub use error::Error;
pub use fetch::{Answer, Content};
pub use files::FoundFile;
pub use hosts::Host;

use fetch::Fetch;
use files::Roots;
use hosts::Hosts;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// What may be read; nothing, if nothing is named.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sources {
    #[serde(default)]
    pub hosts: Vec<Host>,
    /// Directories, absolute; files below them may be read.
    #[serde(default)]
    pub files: Vec<PathBuf>,
}

/// How much may be read.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one read, after decompression; all the files of one pattern together.
    pub bytes: usize,
    /// How long one read may take, with all its redirects.
    pub timeout: Duration,
    /// Reads at once.
    pub at_once: usize,
    /// Of these, reads at once at one host entry.
    pub at_once_per_host: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bytes: 10 << 20, timeout: Duration::from_secs(10), at_once: 32, at_once_per_host: 8 }
    }
}

/// Reads what is outside.
pub struct Outside {
    fetch: Fetch,
    roots: Arc<Roots>,
    limits: Limits,
    turns: Semaphore,
}

impl Outside {
    /// A reader of these sources.
    ///
    /// # Errors
    /// [`Error::Unusable`]: a host, directory or token that is none.
    pub fn new(sources: &Sources, limits: Limits) -> Result<Self, Error> {
        Self::with_lookup(sources, limits, &address::system_lookup())
    }

    fn with_lookup(sources: &Sources, limits: Limits, lookup: &address::Lookup) -> Result<Self, Error> {
        let fetch = Fetch::new(Hosts::new(&sources.hosts)?, limits, lookup)?;
        let roots = Arc::new(Roots::new(&sources.files)?);
        Ok(Outside { fetch, roots, limits, turns: Semaphore::new(limits.at_once) })
    }

    /// What stands at a URL; with an ETag, only if it is not what it was.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn read_url(&self, url: &str, etag: Option<&str>) -> Result<Answer, Error> {
        self.fetch.check(url)?;
        let _turn = self.turns.acquire().await;
        self.fetch.read(url, etag).await
    }

    /// The files that a path or a pattern names, sorted by path; none: there is none.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn read_files(&self, target: &str) -> Result<Vec<FoundFile>, Error> {
        let _turn = self.turns.acquire().await;
        let (roots, limits, path) = (self.roots.clone(), self.limits, target.to_owned());
        let reading = tokio::task::spawn_blocking(move || roots.read(&path, limits));
        match tokio::time::timeout(self.limits.timeout, reading).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => Err(Error::Refused(format!("file {target} could not be read, {error}"))),
            Err(_) => Err(Error::Away(format!(
                "file {target} took longer than {} seconds",
                self.limits.timeout.as_secs_f32()
            ))),
        }
    }
}

#[cfg(test)]
mod fetch_test;
#[cfg(test)]
mod hostile_test;
#[cfg(test)]
mod testing;
