//! The reader's state in a local file, so that the next start need not read the whole stream: written beside the calls every few minutes,
//! read at the start, followed by what the stream has had since.
//!
//! A snapshot is a short cut and nothing more: one that is damaged, too old or of another stream is left, and the stream is read from its
//! first message.

mod format;
mod load;
mod save;

use std::{path::PathBuf, time::Duration};

use bus::Stop;

use crate::state::State;

pub(crate) use format::{Cursor, Head, damaged, put_sized};
pub(crate) use load::load;
#[cfg(test)]
pub(crate) use {
    format::{Kind, Writer},
    save::save,
};

/// Where snapshots are kept, and how often one is written.
#[derive(Clone, Debug)]
pub struct SnapshotConfig {
    /// The file; beside it, with `.new` behind its name, one that is being written.
    pub file: PathBuf,
    /// From the end of one to the beginning of the next.
    pub every: Duration,
}

/// Writes snapshots until the stop: the first as soon as the reader is ready, unless it began with one.
pub(crate) async fn keep(config: SnapshotConfig, state: State, began_with_one: bool, stop: Stop) {
    if began_with_one && !stop.sleep(config.every).await {
        return;
    }
    let mut ready = state.follow_progress();
    tokio::select! {
        _ = ready.wait_for(|progress| progress.ready) => {}
        () = stop.stopped() => return,
    }
    let mut saved = None;
    loop {
        let sequence = state.sequence();
        if saved != Some(sequence) {
            saved = write(&config, &state, &stop).await.then_some(sequence);
        }
        if !stop.sleep(config.every).await {
            return;
        }
    }
}

async fn write(config: &SnapshotConfig, state: &State, stop: &Stop) -> bool {
    let (file, state, stop) = (config.file.clone(), state.clone(), stop.clone());
    let outcome = tokio::task::spawn_blocking(move || save::save(&file, &state, &stop)).await;
    match outcome.map_err(std::io::Error::other).flatten() {
        Ok(Some(saved)) => {
            tracing::info!(entities = saved.entities, seconds = saved.took.as_secs_f64(), file = %config.file.display(), "a snapshot is written");
            true
        }
        // The reader stops, or its state is not one to be kept.
        Ok(None) => false,
        Err(error) => {
            tracing::warn!(%error, file = %config.file.display(), "no snapshot is written; the next start reads the whole stream");
            false
        }
    }
}
