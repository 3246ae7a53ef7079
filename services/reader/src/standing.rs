//! How far behind the reader is, asked of the broker every few seconds: also when nothing comes, be it that nothing changes or that a link is cut.

use std::time::Duration;

use bus::{Bus, Stop, last_entity};

use crate::state::State;

/// How often the broker is asked.
const EVERY: Duration = Duration::from_secs(2);

/// Asks until the stop, in a region the writing region's broker. As long as no answer comes, the reader falls behind.
pub(crate) async fn ask(bus: Bus, origin: Option<String>, state: State, stop: Stop) {
    let mut is_silent = false;
    while stop.sleep(EVERY).await {
        let (sequence, announced) = (state.sequence(), state.announced());
        let answer = last_entity(&bus, origin.as_deref()).await;
        if std::mem::replace(&mut is_silent, answer.is_err()) != answer.is_err() {
            match &answer {
                Ok(_) => tracing::info!("the entity stream is heard of again"),
                Err(error) => tracing::warn!(%error, "the entity stream is not heard of; serving what is here"),
            }
        }
        if answer.as_ref().is_ok_and(|last| *last == sequence && sequence > 0) {
            state.has_reached_end(announced);
        }
        // Looked at after the answer: what has come meanwhile counts.
        if answer.is_ok_and(|last| last <= state.sequence()) && state.has_caught_up() {
            state.is_current();
        }
    }
}
