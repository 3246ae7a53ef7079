//! What of a batch is a provider's mutation beyond its claims: expected revisions, parts of snapshots, what these leave out, conflicts.

use super::{Entity, PROVIDER, Plan};
use crate::event::{Change, Event, Upsert};
use catalog::claims::{Claims, Inserted, Revision, Standing};
use store::{EntityRow, Floor, Parts};

/// Why an event is not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unapplied {
    /// So many events before it, or fewer, are on their way, by which it is decided.
    TooEarly(i64),
    /// It can never be; the reason in one sentence.
    Refused(String),
}

/// Whether an event with an expected revision is applied, by what the events before it make of the entity; they must all be settled, so that arrival
/// never decides.
pub(super) fn expectation(entity: &Entity, event: &Event, revision: Revision, floor: Floor) -> Option<Unapplied> {
    let Change::Upsert(Upsert { expected: Some(expected), .. }) = &event.change else { return None };
    if entity.claims.has(&event.source, revision, floor.revision) {
        return None;
    }
    if floor.revision < revision - 1 {
        return Some(Unapplied::TooEarly(revision - 1 - floor.revision));
    }
    if floor.unswept < revision {
        return Some(Unapplied::TooEarly(1));
    }
    let found = entity.claims.winner_before(revision).map(|standing| standing.newest);
    if [found, shown(&entity.row, found)].contains(&Some(*expected)) || (found.is_none() && *expected == 0) {
        return None;
    }
    let entity_ref = &event.entity_ref;
    Some(Unapplied::Refused(match found {
        Some(found) => format!("expected {entity_ref} at revision {expected}, and it has moved on to {found}"),
        None => format!("expected {entity_ref} at revision {expected}, and it is not there"),
    }))
}

/// The newest event may have changed nothing: what is shown still has the revision of the one that did. Where nothing is shown, because a later
/// withdrawal came first, the row's revision says nothing of the claim that is found.
fn shown(row: &EntityRow, found: Option<Revision>) -> Option<Revision> {
    found.filter(|_| row.winner.is_some()).map(|newest| row.revision.min(newest))
}

/// Counts an event that is merged now, which it is once, as a part of its snapshot.
pub(super) fn count_part(event: &Event, revision: Revision, plan: &mut Plan) {
    let Change::Upsert(Upsert { snapshot: Some(snapshot), .. }) = &event.change else { return };
    let provider = event.source.strip_prefix(PROVIDER).unwrap_or(&event.source).to_owned();
    let key = (provider.clone(), snapshot.clone());
    let none = Parts { provider, snapshot: snapshot.clone(), first: revision, highest: revision, count: 0 };
    let parts = plan.parts.entry(key).or_insert(none);
    parts.first = parts.first.min(revision);
    parts.highest = parts.highest.max(revision);
    parts.count += 1;
}

/// Withdraws what a snapshot left out.
pub(super) fn sweep(entity: &mut Entity, source: &str, (begun, ended): (Revision, Revision), plan: &mut Plan) {
    let before = entity.claims.by_source.get(source).and_then(|claim| claim.standing());
    match entity.claims.sweep(source, begun, ended) {
        Inserted::Duplicate => plan.duplicates += 1,
        Inserted::New => {
            plan.changed += 1;
            entity.before.entry(source.to_owned()).or_insert(before);
            entity.swept_at = entity.swept_at.max(Some(ended));
        }
    }
}

/// Counts the events of the batch that claim the entity under a location key that is not the winner's.
pub(super) fn count_conflicts(entity: &Entity, events: &[&Event]) -> u64 {
    let Some((winner, shown)) = entity.claims.winner().filter(|(_, shown)| shown.key.is_some()) else { return 0 };
    let loses = |((source, revision), index): &(&(String, Revision), &usize)| {
        let standing = entity.claims.by_source.get(source).and_then(|claim| claim.standing());
        let is_newest = standing.is_some_and(|claim| claim.newest == *revision && claim.key != shown.key);
        source != winner && is_newest && matches!(events[**index].change, Change::Upsert(_))
    };
    entity.inserted.iter().filter(loses).count() as u64
}

/// A claim that begins to lose to another location key, and the one that is shown: source, key, revision of the newest event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub entity_ref: String,
    pub loses: (String, Option<String>, Revision),
    pub shown: (String, Option<String>, Revision),
}

/// Claims that lose to another location key.
pub(super) fn losers(claims: &Claims) -> Vec<(String, Standing)> {
    let Some((winner, shown)) = claims.winner().filter(|(_, shown)| shown.key.is_some()) else { return Vec::new() };
    let others = claims.by_source.iter().filter(|(source, _)| *source != winner);
    let standing = others.filter_map(|(source, claim)| Some((source.clone(), claim.standing()?)));
    standing.filter(|(_, standing)| !standing.released && standing.key != shown.key).collect()
}

/// Claims that lose now and did not before the batch; and those that an event of the batch repeats, for its first delivery may have ended before it was told.
pub(super) fn conflicts_begun(entity: &Entity) -> Vec<Conflict> {
    let Some((winner, shown)) = entity.claims.winner() else { return Vec::new() };
    let found = losers(&entity.claims).into_iter().filter(|(source, standing)| {
        entity.repeated.contains(source) || !entity.losers.contains(&(source.clone(), standing.key.clone()))
    });
    let conflict = |(source, standing): (String, Standing)| Conflict {
        entity_ref: entity.row.entity_ref.clone(),
        loses: (source, standing.key, standing.newest),
        shown: (winner.to_owned(), shown.key.clone(), shown.newest),
    };
    found.map(conflict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_has_the_revision_of_the_last_change() {
        for (winner, revision, found, expected) in [
            (Some("p"), 5, Some(7), Some(5)),
            (Some("p"), 9, Some(7), Some(7)),
            (Some("p"), 5, None, None),
            // A withdrawal above it came first: the row was never written, or tells of an earlier withdrawal.
            (None, 0, Some(7), None),
            (None, 2, Some(7), None),
        ] {
            let row = EntityRow {
                id: 1,
                entity_ref: "component:default/a".to_owned(),
                settled_born: None,
                born: None,
                winner: winner.map(str::to_owned),
                revision,
                emitted: None,
                orphan: false,
            };
            assert_eq!(shown(&row, found), expected, "{winner:?} at {revision}, found {found:?}");
        }
    }
}
