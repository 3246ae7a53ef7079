//! What the entities of a batch say of others, and which rows that makes come and go.

use super::Plan;
use crate::event::Event;
use catalog::process::{Model, Relation, finish};
use catalog::{entity, relations, stored};
use serde_json::{Map, Value};
use std::collections::HashMap;
use store::RelationRow;

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
    let mut entity: Map<String, Value> =
        serde_json::from_slice(stored::json(body)).map_err(|error| error.to_string())?;
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
    mut before: Vec<RelationRow>,
) -> Result<(Vec<RelationRow>, Vec<RelationRow>), store::Error> {
    let mut now = Vec::with_capacity(said.len());
    for (originator_id, relation) in said {
        let subject_id = *ids
            .get(&relation.source_ref)
            .ok_or_else(|| store::Error::Damaged(format!("{} has no row", relation.source_ref)))?;
        now.push(RelationRow {
            originator_id,
            subject_id,
            relation_type: relation.relation_type,
            target_ref: relation.target_ref,
        });
    }
    now.sort_unstable();
    now.dedup();
    before.sort_unstable();
    let gone = before.iter().filter(|row| now.binary_search(row).is_err()).cloned().collect();
    now.retain(|row| before.binary_search(row).is_err());
    Ok((gone, now))
}
