//! Removals that go on after their cause is committed: what a parent that is gone had emitted, circles that nothing reaches, orphans whose time is over.
//!
//! Each step is one bounded transaction, noted in the database before the one that made it necessary ends, so that it goes on wherever a process dies. Done
//! twice, or by two processors at once, it changes nothing more.

use crate::Processor;
use crate::decide::{self, EMITTED_BY};
use crate::due::OrphanStrategy;
use crate::event::{Change, Event};
use bus::{Backoff, Stop};
use catalog::claims::Revision;
use std::collections::HashSet;
use std::time::Duration;
use store::{Ancestor, Cascade, ClaimRow, EntityRow, Floor, Merge, Step};

/// How often it is looked for removals without a hint.
const PERIOD: Duration = Duration::from_secs(1);
/// Entities removed in one transaction.
const AT_ONCE: i64 = 500;
/// More ancestors than this are not looked at, and the entity counts as held.
const ANCESTORS: usize = 10_000;

/// Goes on with removals until the stop signal.
pub(crate) async fn run(processor: &Processor, stop: &Stop) {
    let mut backoff = Backoff::new(PERIOD, Duration::from_secs(10));
    while !stop.is_stopped() {
        let pause = match turn(processor).await {
            Ok(0) => {
                backoff.reset();
                PERIOD
            }
            Ok(_) => Duration::ZERO,
            Err(error) => {
                tracing::debug!(%error, "removals cannot go on now; trying until they can");
                backoff.pause()
            }
        };
        tokio::select! {
            biased;
            () = stop.stopped() => {}
            () = tokio::time::sleep(pause) => {}
            () = processor.removals_go_on.notified() => {}
        }
    }
}

/// One step of each removal that waits; gives how many there were.
pub(crate) async fn turn(processor: &Processor) -> Result<usize, store::Error> {
    let cascades = processor.store.cascades(100).await?;
    for cascade in &cascades {
        match cascade.step {
            Step::Children | Step::LetGo => withdraw_children(processor, cascade).await?,
            Step::Held | Step::Orphan => look_for_holders(processor, cascade).await?,
        }
    }
    Ok(cascades.len() + remove_orphans(processor).await?)
}

/// A part of what a gone entity had emitted is withdrawn; when nothing is left the removal has come to its end.
async fn withdraw_children(processor: &Processor, cascade: &Cascade) -> Result<(), store::Error> {
    let source = format!("{EMITTED_BY}{}", cascade.entity_ref);
    let children = processor.store.children(&source, "", AT_ONCE).await?;
    let refs = children.iter().chain([&cascade.entity_ref]).cloned().collect();
    let mut locked = Locked::lock(processor, refs).await?;
    let parent = locked.entities.iter().find(|entity| entity.id == cascade.entity_id);
    // One that is there again says with its next emission what becomes of them.
    let is_back = parent.is_some_and(|parent| parent.winner.is_some());
    if is_back || children.is_empty() {
        locked.merge.drop_cascade(cascade).await?;
        return locked.commit(processor, &[], cascade.revision).await;
    }
    let mut events = locked.withdrawals(cascade.revision, |row| row.source == source);
    if cascade.step == Step::LetGo {
        events.iter_mut().for_each(|event| event.change = Change::Release);
    }
    locked.commit(processor, &events, cascade.revision).await
}

/// An entity that only other entities emit goes, or becomes an orphan, with all that emit it, unless one of them is reached from a provider.
async fn look_for_holders(processor: &Processor, cascade: &Cascade) -> Result<(), store::Error> {
    let found = processor.store.ancestors(cascade.entity_id).await?;
    let mut locked = Locked::lock(processor, found.into_iter().map(|ancestor| ancestor.entity_ref).collect()).await?;
    let ancestors = locked.merge.ancestors(cascade.entity_id).await?;
    let known: HashSet<&str> = locked.entities.iter().map(|entity| entity.entity_ref.as_str()).collect();
    if let Some(other) = ancestors.iter().find(|ancestor| !known.contains(ancestor.entity_ref.as_str())) {
        return Err(store::Error::Collision(format!("{} emits something since a moment ago", other.entity_ref)));
    }
    locked.merge.drop_cascade(cascade).await?;
    let mut events = Vec::new();
    match (are_held(&ancestors), cascade.step) {
        (true, _) => {}
        (false, Step::Orphan) => {
            let present = locked.entities.iter().filter(|entity| entity.winner.is_some());
            let present: Vec<i64> = present.map(|entity| entity.id).collect();
            locked.marked = locked.merge.mark_orphans(&present, true).await?;
        }
        (false, _) => events = locked.withdrawals(cascade.revision, |_| true),
    }
    locked.commit(processor, &events, cascade.revision).await
}

/// Whether entities that emit one another are reached from a provider, or hang on an orphan, with which they will go.
fn are_held(ancestors: &[Ancestor]) -> bool {
    ancestors.len() >= ANCESTORS || ancestors.iter().any(|ancestor| ancestor.has_provider || ancestor.is_released)
}

/// Orphans whose time is over go; one that is reached from a provider again is none any more. Gives how many there were.
async fn remove_orphans(processor: &Processor) -> Result<usize, store::Error> {
    let config = &processor.config.reads;
    if config.orphans == OrphanStrategy::Keep {
        return Ok(0);
    }
    let refs = processor.store.overdue_orphans(config.orphan_grace, AT_ONCE).await?;
    if refs.is_empty() {
        return Ok(0);
    }
    let count = refs.len();
    let mut locked = Locked::lock(processor, refs).await?;
    let is_released = |row: &ClaimRow| row.claim.standing().is_some_and(|standing| standing.released);
    let let_go: HashSet<i64> = locked.claims.iter().filter(|row| is_released(row)).map(|row| row.entity_id).collect();
    let orphans = locked.entities.iter().filter(|entity| entity.orphan && !let_go.contains(&entity.id));
    let (mut circles, mut held) = (HashSet::new(), Vec::new());
    for id in orphans.map(|entity| entity.id).collect::<Vec<_>>() {
        match are_held(&locked.merge.ancestors(id).await?) {
            true => held.push(id),
            false => drop(circles.insert(id)),
        }
    }
    locked.marked = locked.merge.mark_orphans(&held, false).await?;
    // Somebody else's claim beside one that was let go takes over.
    let events = locked.withdrawals(locked.floor.revision, |row| is_released(row) || circles.contains(&row.entity_id));
    let floor = locked.floor.revision;
    locked.commit(processor, &events, floor).await?;
    Ok(count)
}

/// Entities that are locked in ref order, with what is claimed of them.
pub(crate) struct Locked {
    pub merge: Merge,
    entities: Vec<EntityRow>,
    floor: Floor,
    claims: Vec<ClaimRow>,
    /// Entities whose orphan mark has changed.
    marked: Vec<i64>,
}

impl Locked {
    pub async fn lock(processor: &Processor, mut refs: Vec<String>) -> Result<Locked, store::Error> {
        refs.sort_unstable();
        refs.dedup();
        let (mut merge, entities) = processor.store.merge(&refs, &refs).await?;
        let ids: Vec<i64> = entities.iter().map(|entity| entity.id).collect();
        let (floor, claims) = merge.read_claims(&ids).await?;
        Ok(Locked { merge, entities, floor, claims, marked: Vec::new() })
    }

    /// What withdraws some of the claims.
    fn withdrawals(&self, revision: Revision, of: impl Fn(&ClaimRow) -> bool) -> Vec<Event> {
        self.events(revision, |row| row.claim.standing().is_some() && of(row))
    }

    /// The same, whether these stand or not.
    pub fn events(&self, revision: Revision, of: impl Fn(&ClaimRow) -> bool) -> Vec<Event> {
        let withdrawal = |row: &ClaimRow| {
            let entity = self.entities.iter().find(|entity| entity.id == row.entity_id)?;
            Some(Event {
                sequence: 0,
                stored: 0,
                emitted: Some(revision),
                entity_ref: entity.entity_ref.clone(),
                source: row.source.clone(),
                change: Change::Delete,
            })
        };
        self.claims.iter().filter(|row| of(row)).filter_map(withdrawal).collect()
    }

    /// Decides, writes and commits as every batch; the watermark stays below the revision until what is asked for is stitched.
    pub async fn commit(
        mut self,
        processor: &Processor,
        events: &[Event],
        revision: Revision,
    ) -> Result<(), store::Error> {
        let events: Vec<&Event> = events.iter().collect();
        let position = self.merge.read_position(&processor.bus.names().events_stream()).await?;
        let mut plan = decide::decide(self.entities, (self.floor, self.claims), &events, &position);
        plan.lowest_revision = revision;
        plan.to_stitch.extend(self.marked);
        processor.write(&mut self.merge, "bulk", &mut plan, &events).await?;
        let request = self.merge.commit("bulk", revision, plan.to_stitch.iter().copied().collect()).await?;
        processor.after_commit("bulk", &plan, request).await;
        Ok(())
    }
}
