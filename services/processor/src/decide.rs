//! What a batch of events does to the claims it was locked with: a pure function, from rows and events to a plan of writes.

mod mutation;
mod parents;

pub(crate) use mutation::{Conflict, Unapplied};

use crate::event::{Change, Event, Processed, Read, Upsert};
use catalog::claims::{Claim, Claims, Head, Inserted, Operation, REMOVALS, Revision, Standing};
use catalog::entity;
use catalog::process::{Model, Relation, finish};
use catalog::relations;
use mutation::{conflicts_begun, count_conflicts, count_part, expectation, losers, sweep};
use parents::has_other_parents;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use store::{
    ClaimRow, ClaimWrite, ContentWrite, EntityRow, EntityWrite, Floor, Parts, ReadWrite, RelationRow, Step,
    StreamPosition,
};

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
    before: HashMap<String, Option<Standing>>,
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
            before: HashMap::new(),
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

/// Plans the rows of the claims that the batch touched, and of their contents.
fn write_claims(entity: &mut Entity, events: &[&Event], plan: &mut Plan) {
    let upsert = |source: &str, revision: Option<Revision>| -> Option<&Upsert> {
        let index = *entity.inserted.get(&(source.to_owned(), revision?))?;
        match &events[index].change {
            Change::Upsert(upsert) => Some(upsert),
            _ => None,
        }
    };
    let mut rewritten = HashSet::new();
    for (source, before) in &entity.before {
        let claim = entity.claims.by_source[source].clone();
        let after = claim.standing();
        let newest_inserted =
            entity.inserted.keys().filter(|(of, _)| of == source).map(|(_, revision)| *revision).max();
        let newest = after
            .as_ref()
            .map(|standing| standing.newest)
            .or(claim.newest_head())
            .or(newest_inserted)
            .unwrap_or_default();
        let known_hash = entity.hashes.get(source);
        let newest_upsert = upsert(source, after.as_ref().map(|standing| standing.newest));
        let hash = newest_upsert.map(|upsert| &upsert.hash).or(known_hash).filter(|_| after.is_some());

        let good_before = before.as_ref().and_then(|standing| standing.good);
        let good_after = after.as_ref().and_then(|standing| standing.good);
        let failed_before = before.as_ref().is_some_and(Standing::failed);
        let failed_after = after.as_ref().is_some_and(Standing::failed);
        let new_good = upsert(source, good_after);
        // Byte for byte what is shown already: only the claim moves on.
        let same = new_good.is_some_and(|new| {
            good_before.is_some() && !failed_before && !failed_after && known_hash == Some(&new.hash)
        });
        let lost = good_before.is_some() && good_after.is_none();
        let body = match new_good.filter(|_| !same).and_then(|new| new.outcome.good()) {
            Some(good) => Some(Some(good.body.clone())),
            None => lost.then_some(None),
        };
        let (raw, error) = match newest_upsert.filter(|_| !same).map(|upsert| &upsert.outcome) {
            Some(Processed::Good(_)) => (Some(None), Some(None)),
            Some(Processed::Bad(bad)) => (Some(Some(bad.raw.clone())), Some(Some(bad.error.clone()))),
            // What is shown, and its error, stay until it was read.
            Some(Processed::Pending(raw)) => (Some(Some(raw.clone())), None),
            None => (None, None),
        };
        if let Some(Upsert { outcome: Processed::Pending(_), hash, .. }) = newest_upsert.filter(|_| !same) {
            let asked = after.as_ref().map_or(0, |standing| standing.newest);
            let (entity_id, source, hash) = (entity.row.id, source.clone(), hash.clone());
            plan.reads.push(ReadWrite { entity_id, source, hash, asked });
        }
        let read = entity.reads.get(source).and_then(|index| match &events[*index].change {
            Change::Read(read) => Some(&read.outcome),
            _ => None,
        });
        let (body, error) = match read {
            Some(Ok(good)) => (Some(Some(good.body.clone())), Some(None)),
            Some(Err(error)) => (None, Some(Some(error.clone()))),
            None => (body, error),
        };
        let is_rewritten = body.is_some() || error.is_some() || before.is_some() != after.is_some();
        if is_rewritten {
            rewritten.insert(source.clone());
        }
        let (entity_id, is_known) = (entity.row.id, before.is_some());
        match after {
            None if is_known => plan.contents_gone.push((entity_id, source.clone())),
            Some(_) if is_rewritten || raw.is_some() => {
                plan.contents.push(ContentWrite { entity_id, source: source.clone(), is_known, body, raw, error });
            }
            _ => {}
        }
        plan.claims.push(ClaimWrite {
            entity_id: entity.row.id,
            source: source.clone(),
            newest,
            hash: hash.cloned(),
            claim,
        });
    }
    entity.rewritten = rewritten;
}

/// Plans the rows of claims that no event touches and that were settled with the others: what is settled of an entity is settled of all of its claims,
/// or nobody could tell since when it has been present.
fn write_settled(entity: &Entity, before: BTreeMap<String, Claim>, plan: &mut Plan) {
    for (source, before) in before {
        let claim = entity.claims.by_source.get(&source).filter(|claim| **claim != before);
        let Some(claim) = claim.filter(|_| !entity.before.contains_key(&source)) else { continue };
        let newest = before.standing().map(|standing| standing.newest).or(before.newest_head()).unwrap_or_default();
        let hash = entity.hashes.get(&source).cloned();
        plan.claims.push(ClaimWrite { entity_id: entity.row.id, source, newest, hash, claim: claim.clone() });
    }
}

/// Plans the entity's own row, and whether it has to be stitched.
fn write_entity(entity: &Entity, events: &[&Event], plan: &mut Plan) {
    let row = &entity.row;
    let winner = entity.claims.winner();
    let born = entity.claims.born();
    let source = winner.as_ref().map(|(source, _)| (*source).to_owned());
    let other_winner = source != row.winner;
    let content_changed = source.as_ref().is_some_and(|source| entity.rewritten.contains(source));
    // In a circle that nothing reaches it stays one until somebody claims it.
    let stays_orphan = row.orphan && !entity.is_claimed && !other_winner;
    let orphan = winner.as_ref().is_some_and(|(_, standing)| standing.released || stays_orphan);
    let changed = other_winner || content_changed || born != row.born || orphan != row.orphan;
    let revision = match (&winner, changed) {
        (_, false) => row.revision,
        (Some((_, standing)), true) => standing.newest,
        (None, true) => {
            let inserted = entity.inserted.keys().map(|(_, revision)| *revision).max();
            inserted.into_iter().chain(entity.removed_at).chain(entity.swept_at).max().unwrap_or(row.revision)
        }
    };
    if changed || entity.refresh || has_other_parents(entity) {
        plan.to_stitch.insert(row.id);
    }
    if !changed {
        let moved = entity.inserted.values().filter(|index| events[**index].good().is_some()).count() as u64;
        plan.changed -= moved;
        plan.unchanged += moved;
    }
    if other_winner || content_changed {
        write_said(entity, events, winner.as_ref(), other_winner, plan);
    }
    plan.cascade.extend(next_step(entity, winner.is_none()).map(|step| (row.id, step)));
    let settled_born = entity.claims.settled_born;
    if changed || settled_born != row.settled_born {
        plan.entities.push(EntityWrite { id: row.id, born, settled_born, winner: source, revision, orphan });
    }
}

/// Plans what the entity says of others from now on: what its content says, if that is another one than before.
fn write_said(
    entity: &Entity,
    events: &[&Event],
    winner: Option<&(&str, Standing)>,
    other_winner: bool,
    plan: &mut Plan,
) {
    let row = &entity.row;
    let from_batch = winner.and_then(|(source, standing)| {
        let read = entity.reads.get(*source).copied();
        let inserted = standing.good.and_then(|good| entity.inserted.get(&((*source).to_owned(), good)).copied());
        read.or(inserted).filter(|index| events[*index].good().is_some())
    });
    let is_elsewhere = from_batch.is_none() && winner.is_some_and(|(_, standing)| standing.good.is_some());
    if is_elsewhere && !other_winner {
        // The newest content failed: what is shown stays, with all that it says.
        return;
    }
    if row.winner.is_some() {
        plan.said_before.push(row.id);
    }
    let Some((source, _)) = winner else { return };
    match is_elsewhere {
        true => plan.takeovers.push((row.id, (*source).to_owned())),
        false => plan.said.push((row.id, from_batch)),
    }
    // What it emits, and what a processor of one's own said of others, is known only when it was read again.
    let may_emit = row.emitted.is_some() || row.entity_ref.starts_with("location:") || is_elsewhere;
    if other_winner && may_emit && row.winner.is_some() {
        plan.reads_again.push((row.id, (*source).to_owned()));
    }
}

/// What follows for others, or for the entity itself, from a source that has withdrawn.
fn next_step(entity: &Entity, is_gone: bool) -> Option<Step> {
    if is_gone {
        // One that was removed comes back if something emits it, and then says what becomes of what it emits.
        let step = if entity.removed_at.is_some() { Step::LetGo } else { Step::Children };
        return entity.row.emitted.filter(|_| entity.row.winner.is_some()).map(|_| step);
    }
    let standing = |source: &String| entity.claims.by_source.get(source).and_then(|claim| claim.standing());
    let is_withdrawn = entity.before.iter().any(|(source, before)| before.is_some() && standing(source).is_none());
    let is_held = |(source, claim): (&String, &Claim)| {
        claim.standing().is_some_and(|standing| standing.released || !source.starts_with(EMITTED_BY))
    };
    // Parents may hold one another in a circle: whether one of them is reached from a provider is to be looked at.
    let is_doubtful = is_withdrawn && !entity.claims.by_source.iter().any(is_held);
    is_doubtful.then_some(if entity.is_let_go { Step::Orphan } else { Step::Held })
}

/// What the plan's entities say of others from now on.
pub(crate) fn said_of_others(
    plan: &Plan,
    events: &[&Event],
    mut contents: HashMap<i64, Option<Vec<u8>>>,
    model: &Model,
) -> Result<Vec<(i64, Relation)>, store::Error> {
    let mut said = Vec::new();
    for (id, index) in &plan.said {
        let foreign = index.map_or(&[][..], |index| events[index].foreign());
        said.extend(foreign.iter().map(|relation| (*id, relation.clone())));
    }
    for (id, source) in &plan.takeovers {
        let body = contents
            .remove(id)
            .flatten()
            .ok_or_else(|| store::Error::Damaged(format!("the claim of {source} on entity {id} has no content")))?;
        said.extend(
            foreign_of(&body, model)
                .map_err(|what| store::Error::Damaged(format!("the content of {source} on entity {id}: {what}")))?
                .into_iter()
                .map(|relation| (*id, relation)),
        );
    }
    Ok(said)
}

/// What the fields of a stored, processed entity say of others. It was held for valid once, maybe by a processor of one's own: it is not asked again here.
fn foreign_of(body: &[u8], model: &Model) -> Result<Vec<Relation>, String> {
    let mut entity: Map<String, Value> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    entity.shift_remove("relations");
    let entity::Unprocessed { entity, entity_ref } =
        entity::unprocessed(entity).map_err(|refusal| refusal.to_string())?;
    let relations = relations::emit(model, &entity, &entity_ref).map_err(|error| error.to_string())?;
    Ok(finish(entity, &entity_ref, relations).foreign)
}

/// The rows that go and the rows that come.
pub(crate) fn relation_changes(
    said: Vec<(i64, Relation)>,
    ids: &HashMap<String, i64>,
    before: Vec<RelationRow>,
) -> Result<(Vec<RelationRow>, Vec<RelationRow>), store::Error> {
    let mut now = HashSet::with_capacity(said.len());
    for (originator_id, relation) in said {
        let subject_id = *ids
            .get(&relation.source_ref)
            .ok_or_else(|| store::Error::Damaged(format!("{} has no row", relation.source_ref)))?;
        now.insert(RelationRow {
            originator_id,
            subject_id,
            relation_type: relation.relation_type,
            target_ref: relation.target_ref,
        });
    }
    let mut gone = Vec::new();
    for row in before {
        if !now.remove(&row) {
            gone.push(row);
        }
    }
    let mut new: Vec<RelationRow> = now.into_iter().collect();
    new.sort_unstable();
    Ok((gone, new))
}
