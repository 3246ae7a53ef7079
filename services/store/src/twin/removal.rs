//! Removals that are on their way: `removal.rs`, statement by statement.

use super::database::Key;
use super::merge::Merge;
use super::transaction::View;
use super::{Store, micros};
use crate::{Ancestor, Cascade, Error, Step};
use catalog::claims::Revision;
use std::collections::BTreeSet;
use std::time::Duration;

/// As in `removal.rs`.
const ANCESTORS: usize = 10_000;

impl View<'_> {
    /// `read_children.sql`
    fn children(&self, source: &str, after: &str, at_most: i64) -> Vec<String> {
        if !source.starts_with("entity:") {
            return Vec::new();
        }
        let claims = self.database.claims.all(self.tid);
        let emitted = claims.filter(|(key, claim)| key.1 == source && claim.present && !claim.released);
        let refs = emitted.filter_map(|(key, _)| self.ref_of(key.0));
        let refs: BTreeSet<&String> = refs.filter(|entity_ref| entity_ref.as_str() > after).collect();
        refs.into_iter().take(limit(at_most)).cloned().collect()
    }

    pub(super) fn ref_of(&self, id: i64) -> Option<&String> {
        Some(&self.database.entities.get(self.tid, &id)?.entity_ref)
    }

    /// `read_ancestors.sql`
    fn ancestors(&self, entity_id: i64) -> Vec<Ancestor> {
        let (mut found, mut at) = (vec![entity_id], 0);
        while let Some(id) = found.get(at).copied().filter(|_| found.len() < ANCESTORS) {
            for (key, claim) in self.database.claims.range(self.tid, (id, String::new())..(id + 1, String::new())) {
                let parent = key.1.strip_prefix("entity:").filter(|_| claim.present && !claim.released);
                let parent = parent.and_then(|parent| self.database.refs.get(self.tid, &parent.to_owned()));
                found.extend(parent.filter(|parent| !found.contains(parent)).copied().into_iter().collect::<Vec<_>>());
            }
            at += 1;
        }
        let ancestor = |id: i64| {
            let claims = self.database.claims.range(self.tid, (id, String::new())..(id + 1, String::new()));
            let present: Vec<_> = claims.filter(|(_, claim)| claim.present).collect();
            Some(Ancestor {
                entity_ref: self.ref_of(id)?.clone(),
                has_provider: present.iter().any(|(key, _)| !key.1.starts_with("entity:")),
                is_released: present.iter().any(|(_, claim)| claim.released),
            })
        };
        let mut ancestors: Vec<Ancestor> = found.into_iter().filter_map(ancestor).collect();
        ancestors.sort_by(|one, other| one.entity_ref.cmp(&other.entity_ref));
        ancestors
    }
}

impl Store {
    pub async fn cascades(&self, at_most: i64) -> Result<Vec<Cascade>, Error> {
        let rows = self
            .alone("cascades", |view| {
                let rows = view.database.cascade.all(view.tid);
                let row = |((id, step), revision): (&(i64, String), &Revision)| {
                    Some((*revision, *id, step.clone(), view.ref_of(*id)?.clone()))
                };
                let mut rows: Vec<_> = rows.filter_map(row).collect();
                rows.sort_unstable();
                rows
            })
            .await?;
        let cascade = |(revision, entity_id, step, entity_ref): (Revision, i64, String, String)| {
            let steps = [Step::Children, Step::LetGo, Step::Held, Step::Orphan];
            let step = steps.into_iter().find(|known| known.name() == step);
            let step = step.ok_or_else(|| Error::Damaged(format!("removal of entity {entity_id} is at no step")))?;
            Ok(Cascade { entity_id, entity_ref, step, revision })
        };
        rows.into_iter().take(limit(at_most)).map(cascade).collect()
    }

    pub async fn children(&self, source: &str, after: &str, at_most: i64) -> Result<Vec<String>, Error> {
        self.alone("children", |view| view.children(source, after, at_most)).await
    }

    pub async fn ancestors(&self, entity_id: i64) -> Result<Vec<Ancestor>, Error> {
        self.alone("ancestors", |view| view.ancestors(entity_id)).await
    }

    pub async fn overdue_orphans(&self, grace: Duration, at_most: i64) -> Result<Vec<String>, Error> {
        self.alone("overdue_orphans", |view| {
            let until = view.now - micros(grace);
            let entities = view.database.entities.all(view.tid).map(|(_, entity)| entity);
            let overdue = entities.filter_map(|entity| Some((entity.orphan_since?, &entity.entity_ref)));
            let mut overdue: Vec<_> = overdue.filter(|(since, _)| *since <= until).collect();
            overdue.sort_unstable();
            overdue.into_iter().take(limit(at_most)).map(|(_, entity_ref)| entity_ref.clone()).collect()
        })
        .await
    }
}

impl Merge {
    pub async fn children(&mut self, source: &str, at_most: i64) -> Result<Vec<String>, Error> {
        self.transaction.run("merge.children", |view| view.children(source, "", at_most)).await
    }

    pub async fn ancestors(&mut self, entity_id: i64) -> Result<Vec<Ancestor>, Error> {
        self.transaction.run("merge.ancestors", |view| view.ancestors(entity_id)).await
    }

    pub async fn write_cascade(&mut self, steps: &[(i64, Step)], revision: Revision) -> Result<(), Error> {
        if steps.is_empty() {
            return Ok(());
        }
        self.transaction.enter("merge.write_cascade").await?;
        let mut keys: Vec<(i64, String)> = steps.iter().map(|(id, step)| (*id, step.name().to_owned())).collect();
        keys.sort_unstable();
        for key in keys {
            self.transaction.lock(Key::Cascade(key.0, key.1.clone())).await?;
            let mut view = self.transaction.view();
            let known = view.database.cascade.get(view.tid, &key).copied().unwrap_or(revision);
            view.database.cascade.put(view.tid, key, Some(known.min(revision)));
        }
        self.transaction.leave().await
    }

    pub async fn drop_cascade(&mut self, cascade: &Cascade) -> Result<(), Error> {
        self.transaction.enter("merge.drop_cascade").await?;
        let key = (cascade.entity_id, cascade.step.name().to_owned());
        self.transaction.lock(Key::Cascade(key.0, key.1.clone())).await?;
        {
            let mut view = self.transaction.view();
            view.database.cascade.put(view.tid, key, None);
        }
        self.transaction.leave().await
    }

    pub async fn mark_orphans(&mut self, entity_ids: &[i64], orphan: bool) -> Result<Vec<i64>, Error> {
        self.transaction.enter("merge.mark_orphans").await?;
        let mut ids = entity_ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let mut marked = Vec::new();
        for id in ids {
            self.transaction.lock(Key::Entity(id)).await?;
            let mut view = self.transaction.view();
            let now = view.now;
            let is_other =
                view.database.entities.get(view.tid, &id).is_some_and(|row| row.orphan_since.is_some() != orphan);
            if is_other {
                view.database.entities.change(view.tid, &id, |row| row.orphan_since = orphan.then_some(now));
                marked.push(id);
            }
        }
        self.transaction.leave().await?;
        Ok(marked)
    }
}

pub(super) fn limit(at_most: i64) -> usize {
    usize::try_from(at_most).unwrap_or(0)
}
