//! A catalog brought into an installation, and waited for until all of it can be read.

use crate::Error;
use crate::generate::Catalog;
use crate::installation::Installation;
use crate::publish::{Event, publish_batches};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Atomic batches on their way at once.
pub(crate) const FLIGHTS: usize = 4;
/// The provider of everything that is generated.
pub(crate) const PROVIDER: &str = "loadtest";

/// How an import went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Imported {
    /// Revision of the last event.
    pub revision: i64,
    /// From the first publish to the last confirmation.
    pub published: Duration,
    /// From the first publish until the reader had all refs; in a catalog that was not empty: until the last confirmation.
    pub present: Duration,
    /// From the first publish until everything was settled: stitched with all relations.
    pub readable: Duration,
}

/// Publishes a generated catalog as imports and waits until all of it is readable.
///
/// # Errors
/// [`Error::TimedOut`] when it is not within `limit`.
pub(crate) async fn import(
    installation: &Installation,
    catalog: &Catalog,
    flights: usize,
    limit: Duration,
) -> Result<Imported, Error> {
    import_entities(installation, (catalog.generate(), catalog.entities), flights, limit).await
}

/// As [`import`], with entities, `n` of them, that are given.
///
/// # Errors
/// As [`import`].
pub(crate) async fn import_entities(
    installation: &Installation,
    (entities, n): (impl Iterator<Item = Value> + Send, usize),
    flights: usize,
    limit: Duration,
) -> Result<Imported, Error> {
    let before = installation.view.total().await?;
    let events = entities.map(|entity| Event::new(PROVIDER, "import", &entity));
    let started = Instant::now();
    let bar = bar("published", n);
    let last = publish_batches(&installation.bus, events, flights, |count| bar.inc(count as u64)).await?;
    let published = started.elapsed();
    bar.finish_and_clear();
    let bar = self::bar("readable", n);
    // Where there were entities before, the same refs may have been among them.
    if before == 0 {
        let seen = |total: i64| bar.set_position(u64::try_from(total).unwrap_or(0));
        installation.view.has_total(i64::try_from(n).unwrap_or(i64::MAX), limit, seen).await?;
    }
    let present = started.elapsed();
    let revision = i64::try_from(last).unwrap_or(i64::MAX);
    installation.view.settled(revision, limit).await?;
    bar.finish_and_clear();
    Ok(Imported { revision, published, present, readable: started.elapsed() })
}

/// A bar on stderr, if that is a terminal.
pub(crate) fn bar(what: &'static str, length: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:10} {wide_bar} {human_pos}/{human_len} {per_sec} {elapsed}");
    let bar = ProgressBar::new(length as u64).with_message(what);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
