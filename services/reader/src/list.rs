//! The entities that match a filter, in the order of their refs: in pages and as a stream.
//!
//! A walk takes bounded slices of the memory and lets other calls go on between them, so what comes or goes meanwhile may be
//! seen or not, and everything else is seen exactly once.

use std::{ops::ControlFlow, sync::Arc};

use api::{EncodedEntity, Error, Fields, ready as v1};
use catalog::filter::Filter;
use prost::Message;

use crate::{
    REPLY_LIMIT,
    memory::{Memory, Stored},
    page_token::{PageToken, fingerprint},
    state::State,
};

/// Entities looked at before other calls go on: some milliseconds if all of them are encoded.
const SLICE: usize = 256;
/// Entities in a page that names no size.
const PAGE: usize = 100;
/// Entities in a page.
const PAGE_LIMIT: usize = 1000;
/// Entities in a chunk of a stream, and its bytes.
const CHUNK: usize = 100;
const CHUNK_BYTES: usize = 1024 * 1024;
/// Strings in a filter, and their bytes together.
const FILTER_STRINGS: usize = 100;
const FILTER_BYTES: usize = 64 * 1024;

/// ListEntities.
pub(crate) async fn list_entities(
    state: &State,
    request: &v1::ListEntitiesRequest,
) -> Result<v1::ListEntitiesResponse, Error> {
    if !request.full_text.is_empty() {
        return Err(Error::NotServed { what: "full_text" });
    }
    if !request.order_by.is_empty() {
        return Err(Error::NotServed { what: "order_by" });
    }
    if request.query.is_some() {
        return Err(Error::NotServed { what: "query" });
    }
    let fields = Fields::parse(&request.fields)?;
    let size = page_size(request.page_size)?;
    let filter = parse_filter(&request.filter)?;
    let fingerprint = fingerprint(&request.filter);
    let token = match request.page_token.as_str() {
        "" => None,
        text => Some(PageToken::decode(text, fingerprint)?),
    };
    let memory = state.memory();
    let (after, total) = match token {
        None if request.exclude_total_size => (String::new(), Some(0)),
        None if filter.is_none() => (String::new(), Some(memory.len() as u64)),
        None => (String::new(), None),
        Some(token) => (token.after, Some(token.total)),
    };
    let page =
        page(memory, filter.as_ref(), &after, total.is_none(), Room { entities: size, bytes: REPLY_LIMIT }).await?;
    let after = page.last.clone();
    let total = total.unwrap_or(page.matches);
    let next_page_token = match page.more {
        true => PageToken { fingerprint, total, after }.encode(),
        false => String::new(),
    };
    let entities = pick(page.entities, fields.as_ref())?;
    Ok(v1::ListEntitiesResponse { entities, next_page_token, total_size: total as i64 })
}

/// StreamEntities: each chunk is made when the client has room for it.
pub(crate) fn stream_entities(
    state: State,
    request: &v1::StreamEntitiesRequest,
) -> Result<tonic::codegen::BoxStream<v1::StreamEntitiesResponse>, Error> {
    if request.query.is_some() {
        return Err(Error::NotServed { what: "query" });
    }
    let fields = Fields::parse(&request.fields)?;
    let filter = parse_filter(&request.filter)?;
    let walk = Some((state, filter, fields, String::new()));
    Ok(Box::pin(futures::stream::try_unfold(walk, |walk| async {
        let Some((state, filter, fields, after)) = walk else {
            return Ok(None);
        };
        let room = Room { entities: CHUNK, bytes: CHUNK_BYTES };
        let page = page(state.memory(), filter.as_ref(), &after, false, room).await?;
        let chunk = v1::StreamEntitiesResponse { entities: pick(page.entities, fields.as_ref())? };
        let next = page.more.then_some((state, filter, fields, page.last));
        Ok((!chunk.entities.is_empty()).then_some((chunk, next)))
    })))
}

/// The filter that the strings ask for; none matches every entity.
pub(crate) fn parse_filter(strings: &[String]) -> Result<Option<Filter>, Error> {
    let bytes: usize = strings.iter().map(String::len).sum();
    if strings.len() > FILTER_STRINGS || bytes > FILTER_BYTES {
        let reason = format!(
            "expected at most {FILTER_STRINGS} strings of {FILTER_BYTES} bytes together, found {} of {bytes}",
            strings.len()
        );
        return Err(Error::invalid("filter", reason));
    }
    if strings.is_empty() {
        return Ok(None);
    }
    Filter::parse(strings).map(Some).map_err(|error| Error::invalid("filter", error))
}

/// Calls `each` with every entity after `after` that matches, in the order of their refs, until it breaks.
pub(crate) async fn scan(
    memory: &Memory,
    filter: Option<&Filter>,
    after: &str,
    mut each: impl FnMut(&Arc<Stored>) -> ControlFlow<()>,
) {
    let mut slice = memory.after(after, SLICE);
    while let Some(last) = slice.last() {
        let after = last.entity_ref.clone();
        let mut matching = slice.iter().filter(|stored| filter.is_none_or(|filter| filter.matches(&stored.rows)));
        if matching.try_for_each(&mut each).is_break() {
            return;
        }
        tokio::task::yield_now().await;
        slice = memory.after(&after, SLICE);
    }
}

/// The entities with these fields alone.
pub(crate) fn pick(entities: Vec<EncodedEntity>, fields: Option<&Fields>) -> Result<Vec<EncodedEntity>, Error> {
    match fields {
        None => Ok(entities),
        Some(fields) => entities.iter().map(|entity| fields.of(entity)).collect(),
    }
}

/// What a reply can hold.
#[derive(Clone, Copy)]
struct Room {
    entities: usize,
    bytes: usize,
}

/// A page, and what was found beyond it.
struct Page {
    entities: Vec<EncodedEntity>,
    /// The ref of the last of them.
    last: String,
    /// Whether an entity matches after the last of the page.
    more: bool,
    /// How many entities match, if all were to be counted.
    matches: u64,
}

/// The entities that match after `after`, as many as there is room for, and at least one however large it is.
async fn page(
    memory: &Memory,
    filter: Option<&Filter>,
    after: &str,
    count_all: bool,
    room: Room,
) -> Result<Page, Error> {
    let mut page = Page { entities: Vec::new(), last: String::new(), more: false, matches: 0 };
    let mut bytes = 0;
    let mut failed = None;
    scan(memory, filter, after, |stored| {
        page.matches += 1;
        if !page.more && page.entities.len() < room.entities {
            let entity = match stored.encoded() {
                Ok(entity) => entity,
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            };
            bytes += entity.encoded_len();
            if bytes <= room.bytes || page.entities.is_empty() {
                page.entities.push(entity);
                page.last = stored.entity_ref.to_string();
                return ControlFlow::Continue(());
            }
        }
        page.more = true;
        match count_all {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    })
    .await;
    failed.map_or(Ok(page), Err)
}

fn page_size(asked: i32) -> Result<usize, Error> {
    match usize::try_from(asked) {
        Ok(0) => Ok(PAGE),
        Ok(size) if size <= PAGE_LIMIT => Ok(size),
        _ => {
            let reason = format!("expected 0 to {PAGE_LIMIT}, found {asked}");
            Err(Error::invalid("page_size", reason))
        }
    }
}
