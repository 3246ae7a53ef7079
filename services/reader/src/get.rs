//! Entities by their refs, as new as the caller asks.

use std::{fmt::Display, sync::Arc, time::Duration};

use api::{
    EncodedEntity, Error, Fields,
    ready::{self as v1, batch_get_entities_response::Result as Found},
};
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
    // One entity alone is answered however large it is: nobody can ask for less.
    let limit = if refs.len() > 1 { REPLY_LIMIT } else { usize::MAX };
    for (number, some) in refs.chunks(BATCH_BREATH).enumerate() {
        if number > 0 {
            tokio::task::yield_now().await;
        }
        let mut found = Vec::with_capacity(some.len());
        for (place, text) in (number * BATCH_BREATH..).zip(some) {
            let entity_ref = parse_ref(format_args!("refs[{place}]"), text)?;
            found.push(state.memory().matching(&entity_ref, &query));
        }
        let mut entities = encode_within(&found, fields.as_ref(), limit, &mut bytes)?.into_iter();
        results.extend(found.into_iter().map(|found| Found { entity: found.and_then(|_| entities.next()) }));
    }
    Ok(v1::BatchGetEntitiesResponse { results })
}

/// The entities that were found, as long as all of them so far are within the limit.
fn encode_within(
    found: &[Option<Arc<Stored>>],
    fields: Option<&Fields>,
    limit: usize,
    bytes: &mut usize,
) -> Result<Vec<EncodedEntity>, Error> {
    let mut spend = |more| {
        *bytes += more;
        if *bytes > limit { Err(Error::ReplyTooLarge { limit }) } else { Ok(()) }
    };
    let found = found.iter().flatten();
    if fields.is_none() {
        spend(found.clone().map(|stored| stored.message_length()).sum())?;
        return Ok(Stored::encode_all(found.map(Arc::as_ref)));
    }
    let mut entities = Vec::new();
    for stored in found {
        let entity = encoded(stored, fields)?;
        spend(entity.encoded_len())?;
        entities.push(entity);
    }
    Ok(entities)
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

pub(crate) fn parse_ref(field: impl Display, text: &str) -> Result<String, Error> {
    EntityRef::parse(text)
        .map(|entity_ref| entity_ref.to_string())
        .map_err(|error| Error::invalid(field.to_string(), format!("expected kind:namespace/name: {error}")))
}
