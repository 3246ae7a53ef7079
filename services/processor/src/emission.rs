//! What a read gave, committed: the entity's own outcome, its children's claims, and what it does not emit any more, in one transaction.

use crate::decide::{self, EMITTED_BY};
use crate::evaluate::Evaluated;
use crate::event::{Change, Event, Read, Upsert};
use crate::{Processor, refs_of};
use bus::Backoff;
use catalog::claims::{Claims, Revision};
use std::collections::HashSet;
use std::time::Duration;
use store::{ClaimRow, DueRead, EntityRow, Merge, ReadDone};

/// How often one that another transaction is in the way of is tried.
const ATTEMPTS: u32 = 20;
/// More than one entity can emit.
const ALL: i64 = 100_000;

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    Done,
    /// The claim is another one now, or somebody else has read it: nothing is written.
    Outdated,
}

/// One read that is being committed.
struct Settling<'a> {
    due: &'a DueRead,
    done: &'a ReadDone,
    /// As which the entity emits.
    source: String,
    /// The outcome first, then the children.
    events: Vec<Event>,
    /// None: it failed, and keeps what it has.
    refresh_keys: Option<Vec<String>>,
}

/// Commits what a read gave, and tries again while others are in the way.
pub(crate) async fn settle(
    processor: &Processor,
    due: &DueRead,
    evaluated: Evaluated,
    done: &ReadDone,
) -> Result<Settled, store::Error> {
    let mut settling = Settling::new(due, evaluated, done);
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));
    let mut attempts = 0;
    loop {
        match settling.commit(processor).await {
            Err(store::Error::Collision(what)) if attempts < ATTEMPTS => {
                attempts += 1;
                tracing::debug!(
                    entity.r#ref = due.entity_ref,
                    what,
                    "another was in the way of an emission; trying again"
                );
                tokio::time::sleep(backoff.pause()).await;
            }
            other => return other,
        }
    }
}

impl<'a> Settling<'a> {
    fn new(due: &'a DueRead, evaluated: Evaluated, done: &'a ReadDone) -> Self {
        let source = format!("{EMITTED_BY}{}", due.entity_ref);
        let Evaluated { outcome, children, refresh_keys, .. } = evaluated;
        let is_good = outcome.is_ok();
        let outcome = outcome.map_err(|bad| bad.error);
        let read = Change::Read(Read { hash: due.hash.clone(), outcome });
        let mut events = vec![event(&due.entity_ref, &due.source, read)];
        // An entity that emits itself is ignored, as in Backstage, and so is the second of one ref.
        let mut seen = HashSet::from([due.entity_ref.clone()]);
        for child in children.into_iter().filter(|_| is_good) {
            if seen.insert(child.entity_ref.clone()) {
                events.push(event(&child.entity_ref.clone(), &source, Change::Upsert(Upsert::of(child))));
            }
        }
        Settling { due, done, source, events, refresh_keys: is_good.then_some(refresh_keys) }
    }

    /// One transaction: the entity, what it emits and what it emitted are locked in ref order; then as in every batch.
    async fn commit(&mut self, processor: &Processor) -> Result<Settled, store::Error> {
        // What is read before the locks is looked at again after them.
        let emitted = match self.refresh_keys.is_some() {
            true => processor.store.children(&self.source, "", ALL).await?,
            false => Vec::new(),
        };
        let floor = processor.store.floor().await?;
        let mut releases = self.releases(emitted);
        let (named, changed) = refs_of(&self.events.iter().chain(&releases).collect::<Vec<_>>());
        let (mut merge, entities) = processor.store.merge(&named, &changed).await?;
        if !merge.lock_read(self.due).await? {
            return Ok(Settled::Outdated);
        }
        let claims = merge.read_claims(&entities.iter().map(|entity| entity.id).collect::<Vec<_>>()).await?;
        let Some(parent) = Parent::of(self.due, &entities, &claims.1) else { return Ok(Settled::Outdated) };
        let emits = parent.is_winner && self.refresh_keys.is_some();
        for event in self.events.iter_mut().chain(&mut releases) {
            event.emitted = Some(parent.revision);
        }
        if emits {
            self.check_locked(&mut merge, &changed).await?;
        }
        let events: Vec<&Event> = match emits {
            true => self.events.iter().chain(&releases).collect(),
            false => self.events.iter().take(1).collect(),
        };
        let position = merge.read_position(&processor.bus.names().events_stream()).await?;
        let mut plan = decide::decide(entities, claims, &events, &position);
        plan.lowest_revision = parent.revision;
        let lane = if self.due.lane == "fresh" { "fresh" } else { "bulk" };
        processor.write(&mut merge, lane, &mut plan, &events).await?;
        if emits && (events.len() > 1 || parent.has_emitted) {
            merge.write_emitted(self.due.entity_id, parent.revision).await?;
        }
        merge.finish_read(self.due, self.done, self.refresh_keys.as_deref()).await?;
        // The watermark has passed the event that asked, and does not wait for what is read outside; but it stays where it is until this is stitched.
        let request = merge.commit(lane, floor + 1, plan.to_stitch.iter().copied().collect()).await?;
        processor.after_commit(lane, &plan, request).await;
        Ok(Settled::Done)
    }

    /// What was emitted and is not any more.
    fn releases(&self, emitted: Vec<String>) -> Vec<Event> {
        let now: HashSet<&str> = self.events.iter().map(|event| event.entity_ref.as_str()).collect();
        let gone = emitted.into_iter().filter(|entity_ref| !now.contains(entity_ref.as_str()));
        gone.map(|entity_ref| event(&entity_ref, &self.source, Change::Release)).collect()
    }

    /// Another claim on the same entity may have emitted something between the look and the locks.
    async fn check_locked(&self, merge: &mut Merge, locked: &[String]) -> Result<(), store::Error> {
        let emitted = merge.children(&self.source, ALL).await?;
        match emitted.iter().find(|entity_ref| locked.binary_search(entity_ref).is_err()) {
            Some(other) => Err(store::Error::Collision(format!("{other} was emitted in between"))),
            None => Ok(()),
        }
    }
}

/// The entity that was read, as it is locked.
struct Parent {
    /// Of this emission: of the claim, of what asked for the read, and not below the one before.
    revision: Revision,
    /// Its claim is the one that is shown: only that one emits.
    is_winner: bool,
    has_emitted: bool,
}

impl Parent {
    /// None: the claim was withdrawn.
    fn of(due: &DueRead, entities: &[EntityRow], rows: &[ClaimRow]) -> Option<Parent> {
        let row = entities.iter().find(|entity| entity.id == due.entity_id)?;
        let own = rows.iter().filter(|claim| claim.entity_id == due.entity_id);
        let by_source = own.map(|row| (row.source.clone(), row.claim.clone())).collect();
        let claims = Claims { settled_born: row.settled_born, by_source };
        let standing = claims.by_source.get(&due.source)?.standing()?;
        let revision = due.asked.max(standing.newest).max(row.emitted.unwrap_or(0));
        let is_winner = claims.winner().is_some_and(|(source, _)| source == due.source);
        Some(Parent { revision, is_winner, has_emitted: row.emitted.is_some() })
    }
}

/// A part of an emission; its revision is known when the entity is locked.
fn event(entity_ref: &str, source: &str, change: Change) -> Event {
    let (entity_ref, source) = (entity_ref.to_owned(), source.to_owned());
    Event { sequence: 0, stored: 0, emitted: Some(0), entity_ref, source, change }
}
