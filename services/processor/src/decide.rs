//! What a batch of events does to the claims it was locked with: a pure function, from rows and events to a plan of writes.

use crate::event::{Change, Event, Good, Upsert};
use catalog::claims::{Claims, Head, Inserted, Operation, Revision, Standing};
use catalog::entity;
use catalog::process::{Model, Relation, process};
use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashMap, HashSet};
use store::{ClaimRow, ClaimWrite, ContentWrite, EntityRow, EntityWrite, FailureWrite, RelationRow, StreamPosition};

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
    pub lowest_revision: Revision,
    pub changed: u64,
    pub unchanged: u64,
    pub errors: u64,
    pub duplicates: u64,
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
    refresh: bool,
}

/// Decides what the events do. The rows are locked, and the floor was read after that.
pub(crate) fn decide(
    entities: Vec<EntityRow>,
    (floor, rows): (Revision, Vec<ClaimRow>),
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
            refresh: false,
        };
        found.push(entity);
    }
    for row in rows {
        if let Some(entity) = places.get(&row.entity_id).map(|place| &mut found[*place]) {
            entity.hashes.extend(row.hash.map(|hash| (row.source.clone(), hash)));
            entity.claims.by_source.insert(row.source, row.claim);
        }
    }
    let by_ref: HashMap<String, usize> =
        found.iter().enumerate().map(|(place, entity)| (entity.row.entity_ref.clone(), place)).collect();
    for (index, event) in events.iter().enumerate() {
        if let Some(place) = by_ref.get(&event.entity_ref) {
            insert(&mut found[*place], index, event, position.revision(event.sequence, event.stored), floor, &mut plan);
        }
    }
    for mut entity in found {
        entity.claims.settle(floor);
        write_claims(&mut entity, events, &mut plan);
        write_entity(&entity, events, &mut plan);
    }
    plan
}

fn insert(entity: &mut Entity, index: usize, event: &Event, revision: Revision, floor: Revision, plan: &mut Plan) {
    plan.lowest_revision = plan.lowest_revision.min(revision);
    let operation = match &event.change {
        Change::Upsert(upsert) => Operation::Claim { key: upsert.location_key.clone(), good: upsert.outcome.is_ok() },
        Change::Delete => Operation::Withdrawal,
        Change::Refresh => {
            entity.refresh |= entity.row.winner.is_some();
            plan.unchanged += 1;
            return;
        }
    };
    let before = entity.claims.by_source.get(&event.source).and_then(|claim| claim.standing());
    match entity.claims.insert(&event.source, Head { revision, operation }, floor) {
        Inserted::Duplicate => {
            plan.duplicates += 1;
            // An entry that the attempt has made is no claim.
            entity.claims.by_source.retain(|_, claim| !claim.is_forgettable());
        }
        Inserted::New => {
            entity.before.entry(event.source.clone()).or_insert(before);
            entity.inserted.insert((event.source.clone(), revision), index);
            let failed = matches!(&event.change, Change::Upsert(upsert) if upsert.outcome.is_err());
            if failed {
                plan.errors += 1;
            } else {
                plan.changed += 1;
            }
        }
    }
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
        let body = match new_good.filter(|_| !same).and_then(|new| new.outcome.as_ref().ok()) {
            Some(good) => Some(Some(good.body.clone())),
            None => lost.then_some(None),
        };
        let failure = match newest_upsert.and_then(|upsert| upsert.outcome.as_ref().err()) {
            Some(bad) => Some(Some(FailureWrite { raw: bad.raw.clone(), error: bad.error.clone() })),
            None => (failed_before && !failed_after).then_some(None),
        };
        let is_rewritten = body.is_some() || failure.is_some() || before.is_some() != after.is_some();
        if is_rewritten {
            rewritten.insert(source.clone());
        }
        let (entity_id, is_known) = (entity.row.id, before.is_some());
        match after {
            None if is_known => plan.contents_gone.push((entity_id, source.clone())),
            Some(_) if is_rewritten => {
                plan.contents.push(ContentWrite { entity_id, source: source.clone(), is_known, body, failure });
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

/// Plans the entity's own row, and whether it has to be stitched.
fn write_entity(entity: &Entity, events: &[&Event], plan: &mut Plan) {
    let row = &entity.row;
    let winner = entity.claims.winner();
    let born = entity.claims.born();
    let source = winner.as_ref().map(|(source, _)| (*source).to_owned());
    let other_winner = source != row.winner;
    let content_changed = source.as_ref().is_some_and(|source| entity.rewritten.contains(source));
    let changed = other_winner || content_changed || born != row.born;
    let revision = match (&winner, changed) {
        (_, false) => row.revision,
        (Some((_, standing)), true) => standing.newest,
        (None, true) => entity.inserted.keys().map(|(_, revision)| *revision).max().unwrap_or(row.revision),
    };
    if changed || entity.refresh {
        plan.to_stitch.insert(row.id);
    }
    if !changed {
        let moved = entity
            .inserted
            .values()
            .filter(|index| matches!(&events[**index].change, Change::Upsert(upsert) if upsert.outcome.is_ok()))
            .count() as u64;
        plan.changed -= moved;
        plan.unchanged += moved;
    }
    if other_winner || content_changed {
        if row.winner.is_some() {
            plan.said_before.push(row.id);
        }
        if let Some((source, standing)) = &winner {
            let from_batch = standing.good.and_then(|good| entity.inserted.get(&((*source).to_owned(), good)).copied());
            match from_batch {
                None if standing.good.is_some() => plan.takeovers.push((row.id, (*source).to_owned())),
                from_batch => plan.said.push((row.id, from_batch)),
            }
        }
    }
    let settled_born = entity.claims.settled_born;
    if changed || settled_born != row.settled_born {
        plan.entities.push(EntityWrite { id: row.id, born, settled_born, winner: source, revision });
    }
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
        let good: Option<&Good> = index.and_then(|index| match &events[index].change {
            Change::Upsert(upsert) => upsert.outcome.as_ref().ok(),
            _ => None,
        });
        said.extend(good.iter().flat_map(|good| &good.foreign).map(|relation| (*id, relation.clone())));
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

/// What a stored, processed entity says of others: processing what is processed gives the same.
fn foreign_of(body: &[u8], model: &Model) -> Result<Vec<Relation>, String> {
    let mut entity: Map<String, Value> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    entity.shift_remove("relations");
    let unprocessed = entity::unprocessed(entity).map_err(|refusal| refusal.to_string())?;
    Ok(process(model, &unprocessed, "").map_err(|error| error.to_string())?.foreign)
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
