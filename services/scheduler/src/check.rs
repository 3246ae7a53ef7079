//! Repair: what a lost stream held is published again, and the newest message of each entity is compared with the truth.

use crate::Error;
use crate::task::Task;
use bus::Bus;
use futures::StreamExt;
use opentelemetry::metrics::Counter;
use std::collections::BTreeMap;
use std::time::Duration;
use store::{PublishedState, Store};
use tokio::time::Instant;

/// Entities compared in one turn.
const COMPARED: i64 = 500;
/// Of these, one in so many is stitched again from the truth, another one in each round.
const SAMPLE: i64 = 25;
/// Newest messages asked for at once.
const LOOKUPS: usize = 64;
/// How long an entity may wait for its first stitch before its request counts as lost.
const FIRST_STITCH: Duration = Duration::from_secs(120);
/// Entities of a rebuild asked for in one turn.
const REBUILT: i64 = 5000;
/// Outbox rows beyond which a rebuild waits.
const OUTBOX_ROWS: i64 = 100;

/// Publishes everything again while a rebuild goes on; one turn a second.
pub(crate) struct Rebuild {
    store: Store,
}

impl Rebuild {
    pub fn new(store: &Store) -> Self {
        Rebuild { store: store.clone() }
    }
}

impl Task for Rebuild {
    async fn run(&mut self) -> Result<(), Error> {
        let (waiting, _) = self.store.outbox_length().await?;
        if waiting > OUTBOX_ROWS {
            return Ok(());
        }
        match self.store.rebuild_some(REBUILT).await? {
            None => {}
            Some(0) => tracing::info!("every entity was asked to be published again"),
            Some(asked) => tracing::info!(entities = asked, "publishing entities again from the truth"),
        }
        Ok(())
    }
}

/// Compares some entities a turn, and mends what differs at two looks in a row.
pub(crate) struct Check {
    bus: Bus,
    store: Store,
    mended: Counter<u64>,
    /// What differed at the last turn, as the truth was then, and since when.
    suspects: BTreeMap<i64, (PublishedState, Instant)>,
}

impl Check {
    pub fn new(bus: &Bus, store: &Store) -> Self {
        let mended = opentelemetry::global::meter("callboard")
            .u64_counter("callboard.entities.mended")
            .with_description("Entities whose newest message was not what the truth says")
            .build();
        Check { bus: bus.clone(), store: store.clone(), mended, suspects: BTreeMap::new() }
    }
}

impl Task for Check {
    async fn run(&mut self) -> Result<(), Error> {
        let state = self.store.repair_state().await?;
        if state.is_rebuilding {
            self.suspects.clear();
            return Ok(());
        }
        let mended = self.mend().await?;
        let batch = self.store.published_after(state.checked_after, COMPARED).await?;
        let sample: Vec<i64> =
            batch.iter().map(|one| one.entity_id).filter(|id| id % SAMPLE == state.rounds % SAMPLE).collect();
        if !sample.is_empty() {
            self.store.stitch_again(&sample).await?;
        }
        let ended = (batch.len() as i64) < COMPARED;
        let place = batch.last().filter(|_| !ended).map_or(0, |last| last.entity_id);
        let differing = self.differing(batch).await?;
        let now = Instant::now();
        let room = (COMPARED as usize).saturating_sub(self.suspects.len());
        for one in differing.into_iter().take(room) {
            self.suspects.entry(one.entity_id).or_insert((one, now));
        }
        self.store.move_check(place, i64::from(ended), mended as i64).await?;
        Ok(())
    }
}

impl Check {
    /// Looks again at what differed a turn ago: what a stitcher was just publishing does not differ any more.
    async fn mend(&mut self) -> Result<usize, Error> {
        let mut ids: Vec<i64> = Vec::new();
        for (id, (known, since)) in std::mem::take(&mut self.suspects) {
            let now = self.store.published_after(id - 1, 1).await?;
            let is_same = now.first().is_some_and(|now| *now == known);
            if !is_same || self.differing(now).await?.is_empty() {
                continue;
            }
            if known.never_stitched && since.elapsed() < FIRST_STITCH {
                self.suspects.insert(id, (known, since));
            } else {
                tracing::error!(
                    entity.r#ref = known.entity_ref,
                    version = known.version,
                    "the newest message is not what the truth says; mending it"
                );
                ids.push(id);
            }
        }
        ids.sort_unstable();
        if !ids.is_empty() {
            self.store.publish_again(&ids).await?;
            self.mended.add(ids.len() as u64, &[]);
        }
        Ok(ids.len())
    }

    async fn differing(&self, states: Vec<PublishedState>) -> Result<Vec<PublishedState>, Error> {
        let looked = states.into_iter().map(|state| async {
            let newest = bus::newest_entity(&self.bus, &state.entity_ref).await?;
            Ok::<_, bus::Error>(differs(&state, newest.as_ref()).then_some(state))
        });
        let looked: Vec<_> = futures::stream::iter(looked).buffer_unordered(LOOKUPS).collect().await;
        Ok(looked.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }
}

/// Whether the newest message is not the one that the stitch state tells of. A deletion's message goes after seven days.
fn differs(state: &PublishedState, newest: Option<&bus::NewestEntity>) -> bool {
    match newest {
        _ if state.version == 0 => state.never_stitched,
        None => state.hash.is_some(),
        Some(newest) => newest.version != state.version || newest.hash != state.hash,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(state: (i64, Option<&str>, bool), newest: Option<(i64, Option<&str>)>, expected: bool) {
        let state = PublishedState {
            entity_id: 1,
            entity_ref: "a:b/c".to_owned(),
            version: state.0,
            hash: state.1.map(str::to_owned),
            never_stitched: state.2,
        };
        let newest =
            newest.map(|(version, hash)| bus::NewestEntity { sequence: 9, version, hash: hash.map(str::to_owned) });
        assert_eq!(differs(&state, newest.as_ref()), expected, "{state:?} {newest:?}");
    }

    #[test]
    fn the_newest_message_is_what_the_truth_says_or_not() {
        check((5, Some("h"), false), Some((5, Some("h"))), false);
        check((5, Some("h"), false), Some((4, Some("g"))), true);
        check((5, Some("h"), false), Some((6, Some("h"))), true);
        check((5, Some("h"), false), Some((5, None)), true);
        check((5, Some("h"), false), None, true);
        check((5, None, false), None, false);
        check((5, None, false), Some((5, None)), false);
        check((5, None, false), Some((4, Some("h"))), true);
        check((0, None, true), None, true);
        check((0, None, false), None, false);
    }
}
