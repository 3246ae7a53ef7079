//! Entities that were never processed successfully: no other call has them, and whoever asks here learns that they are there, and why nothing is shown.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use api::{Error, ready as v1};
use serde::{Deserialize, Serialize};

use crate::{list::page_size, state::State};

/// Why nothing is shown of an entity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reason {
    /// Of the event that brought it about.
    pub revision: i64,
    /// In one line.
    pub error: String,
}

/// All of them, by ref. Each is a kilobyte at most.
#[derive(Debug, Default)]
pub(crate) struct Unprocessed(Mutex<BTreeMap<String, Reason>>);

impl Unprocessed {
    /// Takes what the newest message on an entity says; none: it is shown, or gone.
    pub fn note(&self, entity_ref: &str, reason: Option<Reason>) {
        let mut all = self.all();
        match reason {
            Some(reason) => drop(all.insert(entity_ref.to_owned(), reason)),
            None => drop(all.remove(entity_ref)),
        }
    }

    /// What a replay does not name is not there any more.
    pub fn clear(&self) {
        self.all().clear();
    }

    /// For a snapshot.
    pub fn keep(&self) -> BTreeMap<String, Reason> {
        self.all().clone()
    }

    /// From a snapshot.
    pub fn restore(&self, kept: BTreeMap<String, Reason>) {
        *self.all() = kept;
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Reason>> {
        // Each change is one step, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// ListUnprocessedEntities, in the order of their refs; a page token is the last ref.
pub(crate) async fn list(
    state: &State,
    request: &v1::ListUnprocessedEntitiesRequest,
) -> Result<v1::ListUnprocessedEntitiesResponse, Error> {
    let size = page_size(request.page_size)?;
    let all = state.unprocessed().all();
    let after = (Bound::Excluded(request.page_token.as_str()), Bound::Unbounded);
    let mut rest = all.range::<str, _>(after);
    let entity = |(entity_ref, reason): (&String, &Reason)| v1::UnprocessedEntity {
        r#ref: entity_ref.clone(),
        revision: reason.revision,
        error: reason.error.clone(),
    };
    let entities: Vec<v1::UnprocessedEntity> = rest.by_ref().take(size).map(entity).collect();
    let is_last = rest.next().is_none();
    let next_page_token = entities.last().filter(|_| !is_last).map(|last| last.r#ref.clone()).unwrap_or_default();
    let total_size = i64::try_from(all.len()).unwrap_or(i64::MAX);
    Ok(v1::ListUnprocessedEntitiesResponse { entities, next_page_token, total_size })
}
