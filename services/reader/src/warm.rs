//! Keeping the views of Backstage's own pages ready while little changes, so that no call has to.

use std::time::Duration;

use bus::Stop;

use crate::state::State;

/// How often is looked.
const EVERY: Duration = Duration::from_secs(1);
/// With more messages between two looks an import runs: what it brings is taken in at once, behind it, or when someone asks.
const FEW: u64 = 1000;

/// Builds the views and brings them up to date, until the stop.
pub(crate) async fn keep(state: State, stop: Stop) {
    let (mut seen, mut warmed) = (0, None);
    while stop.sleep(EVERY).await {
        let sequence = state.sequence();
        let came = sequence - std::mem::replace(&mut seen, sequence).min(sequence);
        if state.ready() && came < FEW && warmed != Some(sequence) {
            let warming = state.clone();
            // It ends by itself, after some seconds at most; a panic there is told when the view is asked for.
            let _ended = tokio::task::spawn_blocking(move || warming.memory().warm()).await;
            warmed = Some(sequence);
        }
    }
}
