//! Which entities emit an entity: what its ancestry goes by.

use super::{EMITTED_BY, Entity};
use catalog::claims::Standing;

/// Whether other entities emit it than before, while the same claim is shown: its content stays, and its ancestry does not.
pub(super) fn has_other_parents(entity: &Entity) -> bool {
    let Some(winner) = &entity.row.winner else { return false };
    let mut sources = entity.claims.by_source.keys().filter(|source| source.starts_with(EMITTED_BY)).peekable();
    if sources.peek().is_none() {
        return false;
    }
    let now = |source: &str| entity.claims.by_source.get(source).and_then(|claim| claim.standing());
    let before = |source: &str| entity.before.get(source).cloned().unwrap_or_else(|| now(source));
    let (shown_now, shown_before) = (now(winner), before(winner));
    sources.any(|source| emits(now(source), shown_now.as_ref()) != emits(before(source), shown_before.as_ref()))
}

/// Whether a source's claim makes it a parent: it stands, and under the key of the claim that is shown (under another one it only waits).
fn emits(claim: Option<Standing>, shown: Option<&Standing>) -> bool {
    claim.zip(shown).is_some_and(|(claim, shown)| !claim.released && claim.key == shown.key)
}
