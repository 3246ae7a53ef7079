//! How far behind the reader is, asked of the broker every few seconds: also when nothing comes, be it that nothing changes or that a link is cut.

use std::time::Duration;

use bus::{Bus, EntitiesStanding, Stop, entities_standing};

use crate::state::State;

/// How often the broker is asked.
const EVERY: Duration = Duration::from_secs(2);
/// A mirror hears of its origin at least this often, even when nothing changes.
const MIRROR_SILENCE: Duration = Duration::from_secs(15);

/// Asks until the stop. As long as no answer comes, the reader falls behind.
pub(crate) async fn ask(bus: Bus, state: State, stop: Stop) {
    let mut mirror_said = false;
    while stop.sleep(EVERY).await {
        let reached = state.sequence();
        let Ok(standing) = entities_standing(&bus).await else { continue };
        if is_current(&standing, reached) && state.has_caught_up() {
            state.is_current();
        }
        let silent = standing.mirror.as_ref().is_some_and(|mirror| !hears(mirror.silent));
        if std::mem::replace(&mut mirror_said, silent) != silent {
            match silent {
                true => {
                    tracing::warn!("the mirror of the entity stream does not hear of its origin; serving what is here")
                }
                false => tracing::info!("the mirror of the entity stream hears of its origin again"),
            }
        }
    }
}

/// Whether everything was here that stood in the stream (a mirror's origin, too) when the broker answered.
fn is_current(standing: &EntitiesStanding, reached: u64) -> bool {
    let mirror_is = standing.mirror.as_ref().is_none_or(|mirror| mirror.lag == 0 && hears(mirror.silent));
    standing.last_sequence <= reached && mirror_is
}

fn hears(silent: Option<Duration>) -> bool {
    silent.is_some_and(|silent| silent <= MIRROR_SILENCE)
}

#[cfg(test)]
mod tests {
    use bus::Mirror;

    use super::*;

    #[test]
    fn currency_is_of_the_stream_and_of_its_origin() {
        let of = |lag, seconds: Option<u64>| Some(Mirror { lag, silent: seconds.map(Duration::from_secs) });
        for (last_sequence, mirror, expected) in [
            (10, None, true),
            (11, None, false),
            (10, of(0, Some(1)), true),
            (10, of(1, Some(1)), false),
            (10, of(0, Some(16)), false),
            // It has never heard of its origin.
            (10, of(0, None), false),
            (11, of(0, Some(1)), false),
        ] {
            let standing = EntitiesStanding { last_sequence, mirror };
            assert_eq!(is_current(&standing, 10), expected, "{standing:?}");
        }
    }
}
