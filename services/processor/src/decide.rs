//! What a batch of events does to the claims it was locked with: a pure function, from rows and events to a plan of writes.

mod mutation;
mod parents;
mod said;
mod writes;

pub(crate) use mutation::{Conflict, Unapplied};
pub(crate) use said::{relation_changes, said_of_others};

use crate::event::{Change, Event, Processed, Read, Upsert};
use catalog::claims::{Claims, Head, Inserted, Operation, REMOVALS, Revision, Standing};
use mutation::{conflicts_begun, count_conflicts, count_part, expectation, losers, sweep};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use store::{
    ClaimRow, ClaimWrite, ContentWrite, EntityRow, EntityWrite, Floor, Parts, ReadWrite, Step, StreamPosition,
};
use writes::{write_claims, write_entity, write_settled};

/// How the source of what an entity emits begins; its ref follows.
pub(crate) const EMITTED_BY: &str = "entity:";

/// How the source of what a provider claims begins; its name follows.
pub(crate) const PROVIDER: &str = "provider:";

/// Everything that one batch writes, but what its entities say of others.
#[derive(Default)]
pub(crate) struct Plan {
    pub claims: Vec<ClaimWrite>,
    pub contents_gone: Vec<(i64, String)>,
    pub contents: Vec<ContentWrite>,
    pub entities: Vec<EntityWrite>,
    /// Entities whose stitched form may change.
    pub to_stitch: BTreeSet<i64>,
    /// Entities that say something else of others from now on, with the event (its place in the batch) that has the content, if any.
    said: Vec<(i64, Option<usize>)>,
    /// Of these, the ones that said something before.
    pub said_before: Vec<i64>,
    /// Claims that win now and whose content is not in the batch.
    pub takeovers: Vec<(i64, String)>,
    /// Claims whose content needs outside reads.
    pub reads: Vec<ReadWrite>,
    /// Claims that win now and may have children to emit.
    pub reads_again: Vec<(i64, String)>,
    /// Removals that are to go on.
    pub cascade: Vec<(i64, Step)>,
    /// Refs that are to be read again.
    pub refreshed: Refreshed,
    /// Parts of snapshots that are merged now, by provider and snapshot.
    pub parts: BTreeMap<(String, String), Parts>,
    /// Events (their places in the batch) that are not applied, and what becomes of them.
    pub unapplied: Vec<(usize, Unapplied)>,
    /// Events whose claim loses to another location key.
    pub conflicts: u64,
    /// Claims that begin to lose to another location key.
    pub conflicts_begun: Vec<Conflict>,
    pub lowest_revision: Revision,
    pub changed: u64,
    pub unchanged: u64,
    pub errors: u64,
    pub duplicates: u64,
}

/// Refs that are to be read again.
#[derive(Default)]
pub(crate) struct Refreshed {
    /// Those whose refresh was asked, with what emits them.
    pub refs: BTreeSet<String>,
    /// What emits entities that were removed: what was noted of them is forgotten.
    pub in_full: BTreeSet<String>,
    /// Of the newest event that asks.
    pub revision: Revision,
}

/// One entity while it is decided on.
struct Entity {
    row: EntityRow,
    claims: Claims,
    hashes: HashMap<String, String>,
    /// What was, for each source that an event of the batch touches.
    before: BTreeMap<String, Option<Standing>>,
    /// Sources whose content is another one now.
    rewritten: HashSet<String>,
    /// Events of the batch that are part of a claim now, by source and revision.
    inserted: HashMap<(String, Revision), usize>,
    /// Reads of the batch that belong to a claim as it stands, by source.
    reads: HashMap<String, usize>,
    refresh: bool,
    /// Sources whose claim an event of the batch repeats, so that what it caused may have been left undone.
    repeated: HashSet<String>,
    /// Claims that lost to another location key before the batch.
    losers: BTreeSet<(String, Option<String>)>,
    /// A source claims it anew.
    is_claimed: bool,
    /// A parent has let go of it while others claimed it.
    is_let_go: bool,
    /// Of an operator's removal.
    removed_at: Option<Revision>,
    /// Of a snapshot that left it out.
    swept_at: Option<Revision>,
}

/// Decides what the events do. The rows are locked, and the floor was read after that.
pub(crate) fn decide(
    entities: Vec<EntityRow>,
    (floor, rows): (Floor, Vec<ClaimRow>),
    events: &[&Event],
    position: &StreamPosition,
) -> Plan {
    let mut plan = Plan { lowest_revision: Revision::MAX, ..Plan::default() };
    let mut places = HashMap::new();
    let mut found: Vec<Entity> = Vec::with_capacity(entities.len());
    for row in entities {
        places.insert(row.id, found.len());
        let claims = Claims { settled_born: row.settled_born, ..Claims::default() };
        let entity = Entity {
            row,
            claims,
            hashes: HashMap::new(),
            before: BTreeMap::new(),
            rewritten: HashSet::new(),
            inserted: HashMap::new(),
            reads: HashMap::new(),
            repeated: HashSet::new(),
            losers: BTreeSet::new(),
            refresh: false,
            is_claimed: false,
            is_let_go: false,
            removed_at: None,
            swept_at: None,
        };
        found.push(entity);
    }
    for row in rows {
        if let Some(entity) = places.get(&row.entity_id).map(|place| &mut found[*place]) {
            entity.hashes.extend(row.hash.map(|hash| (row.source.clone(), hash)));
            entity.claims.by_source.insert(row.source, row.claim);
        }
    }
    for entity in found.iter_mut().filter(|entity| entity.claims.by_source.len() > 1) {
        entity.losers = losers(&entity.claims).into_iter().map(|(source, standing)| (source, standing.key)).collect();
    }
    let by_ref: HashMap<String, usize> =
        found.iter().enumerate().map(|(place, entity)| (entity.row.entity_ref.clone(), place)).collect();
    for (index, event) in events.iter().enumerate() {
        if let Some(place) = by_ref.get(&event.entity_ref) {
            let revision = event.emitted.unwrap_or_else(|| position.revision(event.sequence, event.stored));
            insert(&mut found[*place], index, event, revision, floor, &mut plan);
        }
    }
    for mut entity in found {
        plan.conflicts += count_conflicts(&entity, events);
        if entity.claims.by_source.len() > 1 {
            plan.conflicts_begun.extend(conflicts_begun(&entity));
        }
        let before = (entity.claims.by_source.len() > 1).then(|| entity.claims.by_source.clone());
        entity.claims.settle_behind(floor.held, floor.revision);
        write_claims(&mut entity, events, &mut plan);
        write_settled(&entity, before.unwrap_or_default(), &mut plan);
        write_entity(&entity, events, &mut plan);
    }
    plan
}

fn insert(entity: &mut Entity, index: usize, event: &Event, revision: Revision, floor: Floor, plan: &mut Plan) {
    if let Some(unapplied) = expectation(entity, event, revision, floor) {
        plan.unapplied.push((index, unapplied));
        return;
    }
    let before = entity.claims.by_source.get(&event.source).and_then(|claim| claim.standing());
    let operation = match &event.change {
        Change::Upsert(upsert) if is_unchanged_emission(entity, event, upsert, before.as_ref()) => {
            plan.unchanged += 1;
            return;
        }
        Change::Upsert(upsert) => {
            let good = match &upsert.outcome {
                Processed::Good(_) => true,
                Processed::Bad(_) => false,
                Processed::Pending(_) => is_read_already(entity, event, upsert, before.as_ref()),
            };
            Operation::Claim { key: upsert.location_key.clone(), good }
        }
        Change::Delete if event.emitted.is_some() && before.is_none() => return,
        Change::Delete => Operation::Withdrawal,
        Change::Release => match release(entity, &event.source, before.as_ref()) {
            Some(operation) => operation,
            None => return,
        },
        Change::Refresh => {
            plan.lowest_revision = plan.lowest_revision.min(revision);
            plan.unchanged += 1;
            return refresh(entity, revision, plan);
        }
        Change::Remove => {
            plan.lowest_revision = plan.lowest_revision.min(revision);
            return remove(entity, revision, floor.revision, plan);
        }
        Change::Read(read) => return insert_read(entity, index, event, read, plan),
        Change::Sweep { begun } => return sweep(entity, &event.source, (*begun, revision), plan),
    };
    let claims = matches!(operation, Operation::Claim { .. });
    let inserted = match event.emitted {
        None => {
            plan.lowest_revision = plan.lowest_revision.min(revision);
            entity.claims.insert(&event.source, Head { revision, operation }, floor.revision)
        }
        Some(_) => {
            let revision = before.as_ref().map_or(revision, |before| revision.max(before.newest));
            entity.claims.emit(&event.source, Head { revision, operation }, floor.held);
            Inserted::New
        }
    };
    match inserted {
        Inserted::Duplicate => {
            plan.duplicates += 1;
            entity.repeated.insert(event.source.clone());
            // An entry that the attempt has made is no claim.
            entity.claims.by_source.retain(|_, claim| !claim.is_forgettable());
        }
        Inserted::New => {
            entity.is_claimed |= claims;
            entity.before.entry(event.source.clone()).or_insert(before);
            entity.inserted.insert((event.source.clone(), revision), index);
            count_part(event, revision, plan);
            let failed = matches!(&event.change, Change::Upsert(Upsert { outcome: Processed::Bad(_), .. }));
            if failed {
                plan.errors += 1;
            } else {
                plan.changed += 1;
            }
        }
    }
}

/// What an entity emits as it did before moves nothing on.
fn is_unchanged_emission(entity: &Entity, event: &Event, upsert: &Upsert, before: Option<&Standing>) -> bool {
    event.emitted.is_some()
        && entity.hashes.get(&event.source) == Some(&upsert.hash)
        && before.is_some_and(|before| !before.released && before.key == upsert.location_key)
}

/// The same content again, and what it needs from outside was read.
fn is_read_already(entity: &Entity, event: &Event, upsert: &Upsert, before: Option<&Standing>) -> bool {
    let is_known = !entity.before.contains_key(&event.source) && entity.hashes.get(&event.source) == Some(&upsert.hash);
    is_known && before.is_some_and(|before| !before.failed())
}

/// What becomes of a claim that its parent entity does not emit any more: where another source has the entity it is withdrawn.
fn release(entity: &mut Entity, source: &str, before: Option<&Standing>) -> Option<Operation> {
    before.filter(|before| !before.released)?;
    let others = entity.claims.by_source.iter().filter(|(other, _)| *other != source);
    let stands = |standing: Standing| !standing.released;
    let is_alone = others.filter_map(|(_, claim)| claim.standing()).all(|standing| !stands(standing));
    entity.is_let_go |= !is_alone;
    Some(if is_alone { Operation::Release } else { Operation::Withdrawal })
}

/// Asks for the entity to be read again, and what emits it, for that is where its content comes from.
fn refresh(entity: &mut Entity, revision: Revision, plan: &mut Plan) {
    entity.refresh |= entity.row.winner.is_some();
    let refreshed = &mut plan.refreshed;
    refreshed.revision = revision.max(refreshed.revision);
    refreshed.refs.insert(entity.row.entity_ref.clone());
    refreshed.refs.extend(parents(entity));
}

fn parents(entity: &Entity) -> impl Iterator<Item = String> {
    entity.claims.by_source.keys().filter_map(|source| Some(source.strip_prefix(EMITTED_BY)?.to_owned()))
}

/// Withdraws every claim. Delivered again, it asks again for what emits the entity to be read.
fn remove(entity: &mut Entity, revision: Revision, floor: Revision, plan: &mut Plan) {
    let refreshed = &mut plan.refreshed;
    refreshed.revision = revision.max(refreshed.revision);
    refreshed.in_full.extend(parents(entity));
    let before: Vec<(String, Option<Standing>)> =
        entity.claims.by_source.iter().map(|(source, claim)| (source.clone(), claim.standing())).collect();
    if entity.claims.remove(revision, floor) == Inserted::Duplicate {
        plan.duplicates += 1;
        entity.claims.by_source.retain(|_, claim| !claim.is_forgettable());
        return;
    }
    plan.changed += 1;
    for (source, standing) in before.into_iter().chain([(REMOVALS.to_owned(), None)]) {
        entity.before.entry(source.clone()).or_insert(standing);
    }
    entity.removed_at = Some(revision);
}

/// A read belongs to the claim if that still has the content for which it was read.
fn insert_read(entity: &mut Entity, index: usize, event: &Event, read: &Read, plan: &mut Plan) {
    let before = entity.claims.by_source.get(&event.source).and_then(|claim| claim.standing());
    if before.is_none() || entity.hashes.get(&event.source) != Some(&read.hash) {
        plan.duplicates += 1;
        return;
    }
    match &read.outcome {
        Ok(_) => {
            plan.changed += 1;
            entity.claims.succeed(&event.source);
        }
        Err(_) => plan.errors += 1,
    }
    entity.before.entry(event.source.clone()).or_insert(before);
    entity.reads.insert(event.source.clone(), index);
}
