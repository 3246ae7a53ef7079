//! What becomes of an entity's rows once its claims are decided on: claims, contents, the entity's own row, what follows for others.

use super::parents::has_other_parents;
use super::{EMITTED_BY, Entity, Plan};
use crate::event::{Change, Event, Good, Processed, Upsert};
use catalog::claims::{Claim, Revision, Standing};
use std::collections::{BTreeMap, HashSet};
use store::{ClaimWrite, ContentWrite, EntityWrite, ReadWrite, Step};

/// Plans the rows of the claims that the batch touched, and of their contents.
pub(super) fn write_claims(entity: &mut Entity, events: &[&Event], plan: &mut Plan) {
    let mut rewritten = HashSet::new();
    for (source, before) in &entity.before {
        let claim = entity.claims.by_source[source].clone();
        let after = claim.standing();
        let of_source = entity.inserted.keys().filter(|(of, _)| of == source);
        let newest_inserted = of_source.map(|(_, revision)| *revision).max();
        let newest = after.as_ref().map(|standing| standing.newest);
        let newest = newest.or(claim.newest_head()).or(newest_inserted).unwrap_or_default();
        let newest_upsert = upsert(entity, events, source, after.as_ref().map(|standing| standing.newest));
        let hash = newest_upsert.map(|upsert| &upsert.hash).or(entity.hashes.get(source));
        let hash = hash.filter(|_| after.is_some()).cloned();
        if write_content(entity, events, (source, before.as_ref(), after.as_ref()), plan) {
            rewritten.insert(source.clone());
        }
        plan.claims.push(ClaimWrite { entity_id: entity.row.id, source: source.clone(), newest, hash, claim });
    }
    entity.rewritten = rewritten;
}

/// The upsert of the batch that is part of a claim at a revision.
fn upsert<'a>(entity: &Entity, events: &[&'a Event], source: &str, revision: Option<Revision>) -> Option<&'a Upsert> {
    let index = *entity.inserted.get(&(source.to_owned(), revision?))?;
    match &events[index].change {
        Change::Upsert(upsert) => Some(upsert),
        _ => None,
    }
}

/// Plans the content of one claim, by what stood before and what stands now; tells whether what is shown of it, or its error, is another one.
fn write_content(
    entity: &Entity,
    events: &[&Event],
    (source, before, after): (&String, Option<&Standing>, Option<&Standing>),
    plan: &mut Plan,
) -> bool {
    let good = |standing: Option<&Standing>| standing.and_then(|standing| standing.good);
    let failed = |standing: Option<&Standing>| standing.is_some_and(Standing::failed);
    let new_good = upsert(entity, events, source, good(after));
    let newest = upsert(entity, events, source, after.map(|standing| standing.newest));
    // Byte for byte what is shown already: only the claim moves on.
    let same = good(before).is_some()
        && !failed(before)
        && !failed(after)
        && new_good.is_some_and(|new| entity.hashes.get(source) == Some(&new.hash));
    let lost = good(before).is_some() && good(after).is_none();
    let body = match new_good.filter(|_| !same).and_then(|new| new.outcome.good()) {
        Some(good) => Some(Some(good.body.clone())),
        None => lost.then_some(None),
    };
    let newest = newest.filter(|_| !same);
    let (raw, error) = match newest.map(|upsert| &upsert.outcome) {
        Some(Processed::Good(_)) => (Some(None), Some(None)),
        Some(Processed::Bad(bad)) => (Some(Some(bad.raw.clone())), Some(Some(bad.error.clone()))),
        // What is shown, and its error, stay until it was read.
        Some(Processed::Pending(raw)) => (Some(Some(raw.clone())), None),
        None => (None, None),
    };
    let entity_id = entity.row.id;
    if let Some(Upsert { outcome: Processed::Pending(_), hash, .. }) = newest {
        let asked = after.map_or(0, |standing| standing.newest);
        plan.reads.push(ReadWrite { entity_id, source: source.clone(), hash: hash.clone(), asked });
    }
    let (body, error) = match read(entity, events, source) {
        Some(Ok(good)) => (Some(Some(good.body.clone())), Some(None)),
        Some(Err(error)) => (None, Some(Some(error.clone()))),
        None => (body, error),
    };
    let (is_known, is_there) = (before.is_some(), after.is_some());
    let is_rewritten = body.is_some() || error.is_some() || is_known != is_there;
    if is_known && !is_there {
        plan.contents_gone.push((entity_id, source.clone()));
    } else if is_there && (is_rewritten || raw.is_some()) {
        plan.contents.push(ContentWrite { entity_id, source: source.clone(), is_known, body, raw, error });
    }
    is_rewritten
}

/// What the batch has read for the claim.
fn read<'a>(entity: &Entity, events: &[&'a Event], source: &str) -> Option<&'a Result<Good, String>> {
    match &events[*entity.reads.get(source)?].change {
        Change::Read(read) => Some(&read.outcome),
        _ => None,
    }
}

/// Plans the rows of claims that no event touches and that were settled with the others: what is settled of an entity is settled of all of its claims,
/// or nobody could tell since when it has been present.
pub(super) fn write_settled(entity: &Entity, before: BTreeMap<String, Claim>, plan: &mut Plan) {
    for (source, before) in before {
        let claim = entity.claims.by_source.get(&source).filter(|claim| **claim != before);
        let Some(claim) = claim.filter(|_| !entity.before.contains_key(&source)) else { continue };
        let newest = before.standing().map(|standing| standing.newest).or(before.newest_head()).unwrap_or_default();
        let hash = entity.hashes.get(&source).cloned();
        plan.claims.push(ClaimWrite { entity_id: entity.row.id, source, newest, hash, claim: claim.clone() });
    }
}

/// Plans the entity's own row, and whether it has to be stitched.
pub(super) fn write_entity(entity: &Entity, events: &[&Event], plan: &mut Plan) {
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
