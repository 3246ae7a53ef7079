//! Entities by their refs, as new as the caller asks.

use std::{sync::Arc, time::Duration};

use api::{EncodedEntity, Error, Fields, ready as v1};
use catalog::entity_ref::EntityRef;
use prost::Message;
use tokio::time::Instant;

use crate::{REPLY_LIMIT, index::Query, memory::Stored, selection::parse_predicate, state::State};

/// How long a call waits for `at_least_revision` that brings no deadline.
const WAIT: Duration = Duration::from_secs(10);
/// How long a call waits whatever its deadline.
const WAIT_LIMIT: Duration = Duration::from_secs(60);
/// Refs in one batch.
const BATCH_LIMIT: usize = 1000;
/// Refs answered before other calls go on.
const BATCH_BREATH: usize = 100;

/// GetEntity; `timeout` is what the call itself allows.
pub(crate) async fn get_entity(
    state: &State,
    request: &v1::GetEntityRequest,
    timeout: Option<Duration>,
) -> Result<v1::GetEntityResponse, Error> {
    let entity_ref = parse_ref("ref", &request.r#ref)?;
    let fields = Fields::parse(&request.fields)?;
    let stored = match request.at_least_revision {
        0 => state.memory().by_ref(&entity_ref),
        revision if revision > 0 => newer_entity(state, &entity_ref, revision, patience(timeout)).await?,
        negative => {
            let reason = format!("expected a revision of 0 or more, found {negative}");
            return Err(Error::invalid("at_least_revision", reason));
        }
    };
    let stored = stored.ok_or(Error::NotFound { what: entity_ref })?;
    Ok(v1::GetEntityResponse { entity: Some(encoded(&stored, fields.as_ref())?) })
}

/// GetEntityByUid.
pub(crate) async fn get_entity_by_uid(
    state: &State,
    request: &v1::GetEntityByUidRequest,
) -> Result<v1::GetEntityByUidResponse, Error> {
    if request.uid.is_empty() {
        return Err(Error::invalid("uid", "expected a uid, found nothing"));
    }
    let fields = Fields::parse(&request.fields)?;
    let stored = state.memory().by_uid(&request.uid);
    let stored = stored.ok_or_else(|| Error::NotFound { what: format!("uid {}", request.uid) })?;
    Ok(v1::GetEntityByUidResponse { entity: Some(encoded(&stored, fields.as_ref())?) })
}

pub(crate) fn encoded(stored: &Stored, fields: Option<&Fields>) -> Result<EncodedEntity, Error> {
    let entity = stored.encoded();
    fields.map_or(Ok(entity.clone()), |fields| fields.of(&entity))
}

/// BatchGetEntities.
pub(crate) async fn batch_get_entities(
    state: &State,
    request: &v1::BatchGetEntitiesRequest,
) -> Result<v1::BatchGetEntitiesResponse, Error> {
    let refs = &request.refs;
    if refs.len() > BATCH_LIMIT {
        let reason = format!("expected at most {BATCH_LIMIT} refs, found {}", refs.len());
        return Err(Error::invalid("refs", reason));
    }
    let fields = Fields::parse(&request.fields)?;
    let query = Query::of(parse_predicate(&request.filter, request.query.as_ref())?);
    let (mut results, mut bytes) = (Vec::with_capacity(refs.len()), 0);
    for (place, text) in refs.iter().enumerate() {
        let entity_ref = parse_ref(&format!("refs[{place}]"), text)?;
        let stored = state.memory().matching(&entity_ref, &query);
        let entity = stored.map(|stored| encoded(&stored, fields.as_ref())).transpose()?;
        bytes += entity.as_ref().map_or(0, Message::encoded_len);
        // One entity alone is answered however large it is: nobody can ask for less.
        if bytes > REPLY_LIMIT && refs.len() > 1 {
            return Err(Error::ReplyTooLarge { limit: REPLY_LIMIT });
        }
        results.push(v1::batch_get_entities_response::Result { entity });
        if place % BATCH_BREATH == BATCH_BREATH - 1 {
            tokio::task::yield_now().await;
        }
    }
    Ok(v1::BatchGetEntitiesResponse { results })
}

/// The entity as soon as it, or everything, is as new as `revision`; none if there is none then.
async fn newer_entity(
    state: &State,
    entity_ref: &str,
    revision: i64,
    patience: Duration,
) -> Result<Option<Arc<Stored>>, Error> {
    if let Some(answer) = as_new(state, entity_ref, revision) {
        return Ok(answer);
    }
    let deadline = Instant::now() + patience;
    let waiter = state.waiting().enter(entity_ref)?;
    let mut progress = state.follow_progress();
    loop {
        // Enabled before looking, so that a change in between wakes this call.
        let changed = waiter.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        progress.mark_unchanged();
        if let Some(answer) = as_new(state, entity_ref, revision) {
            return Ok(answer);
        }
        tokio::select! {
            () = changed => {}
            _ = progress.changed() => {}
            () = tokio::time::sleep_until(deadline) => return Err(Error::Behind {
                asked: revision,
                reached: state.watermark().unwrap_or_default(),
                pending: state.lag(),
            }),
        }
    }
}

/// The entity, or that there is none, if the memory is known to include `revision`; none if it is not.
fn as_new(state: &State, entity_ref: &str, revision: i64) -> Option<Option<Arc<Stored>>> {
    // Progress first: what it includes is in the memory by the time that it says so.
    let included = state.progress().includes(revision);
    let stored = state.memory().by_ref(entity_ref);
    let of_that_revision = |stored: &Arc<Stored>| stored.revision() == revision;
    (included || stored.as_ref().is_some_and(of_that_revision)).then_some(stored)
}

/// How long to wait: a little less than the call allows, so that the answer says what was missing.
fn patience(timeout: Option<Duration>) -> Duration {
    let early = |timeout: Duration| timeout - (timeout / 10).min(Duration::from_millis(100));
    timeout.map_or(WAIT, early).min(WAIT_LIMIT)
}

pub(crate) fn parse_ref(field: &str, text: &str) -> Result<String, Error> {
    EntityRef::parse(text)
        .map(|entity_ref| entity_ref.to_string())
        .map_err(|error| Error::invalid(field, format!("expected kind:namespace/name: {error}")))
}
