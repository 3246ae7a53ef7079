//! The entities that match: in pages, in the order asked for, and as a stream in no order; and how many they are.
//!
//! A call goes through the index segment by segment and lets others go on in between, so what comes, goes or moves meanwhile may be seen or not, and everything
//! else is seen exactly once.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use api::{EncodedEntity, Error, Fields, ready as v1};
use catalog::predicate::Predicate;

use crate::{
    REPLY_LIMIT,
    index::{Cursor, ORDER_FIELDS, OrderBy, Placed, Query},
    memory::{Memory, Place, Stored, read},
    pace::Pace,
    page_token::{PageToken, fingerprint},
    selection::{parse_predicate, parse_query, query_text},
    state::State,
};

/// Entities in a page that names no size.
const PAGE: usize = 100;
/// Entities in a page.
const PAGE_LIMIT: usize = 1000;
/// Entities in a chunk of a stream, its bytes, and entities looked up at once for several chunks.
const CHUNK: usize = 100;
const CHUNK_BYTES: usize = 1024 * 1024;
const SLICE: usize = 1000;
/// How long what was looked up may wait for the client.
const FRESH: Duration = Duration::from_millis(100);

/// ListEntities.
pub(crate) async fn list_entities(
    state: &State,
    request: &v1::ListEntitiesRequest,
) -> Result<v1::ListEntitiesResponse, Error> {
    let fields = Fields::parse(&request.fields)?;
    let size = page_size(request.page_size)?;
    let mut query =
        parse_query(&request.filter, request.query.as_ref(), &request.full_text, &request.full_text_fields)?;
    let order = parse_order(&request.order_by)?;
    if let Some(first) = order.first() {
        // As in Backstage's by-query: what has no value to sort by is not listed.
        let has_value = Predicate::Prefix { key: first.field.clone(), prefix: String::new() };
        query.predicate = query.predicate.and(has_value);
    }
    let fingerprint = walk_fingerprint(request);
    let token = match request.page_token.as_str() {
        "" => None,
        text => Some(PageToken::decode(text, fingerprint)?),
    };
    let after = token.as_ref().map(|token| &token.after);
    // One more than asked for says whether there are more.
    let (matches, placed) = page(state.memory(), &query, &order, after, size + 1).await;
    let total = match &token {
        _ if request.exclude_total_size => 0,
        None => matches as u64,
        Some(token) => token.total,
    };
    let (entities, next) = cut(placed, size);
    let next_page_token = next.map_or_else(String::new, |after| PageToken { fingerprint, total, after }.encode());
    let entities = pick(entities, fields.as_ref())?;
    Ok(v1::ListEntitiesResponse { entities, next_page_token, total_size: total as i64 })
}

/// CountEntities.
pub(crate) async fn count_entities(
    state: &State,
    request: &v1::CountEntitiesRequest,
) -> Result<v1::CountEntitiesResponse, Error> {
    let query = parse_query(&request.filter, request.query.as_ref(), &request.full_text, &request.full_text_fields)?;
    let mut pace = Pace::new();
    let mut count = 0;
    for segment in state.memory().segments() {
        count += read(&segment).matching(&query).len();
        pace.breathe().await;
    }
    Ok(v1::CountEntitiesResponse { count: count as i64 })
}

/// StreamEntities: each chunk is made when the client has room for it.
pub(crate) fn stream_entities(
    state: State,
    request: &v1::StreamEntitiesRequest,
) -> Result<tonic::codegen::BoxStream<v1::StreamEntitiesResponse>, Error> {
    let fields = Fields::parse(&request.fields)?;
    let query = Query::of(parse_predicate(&request.filter, request.query.as_ref())?);
    let walk = Walk::new(query);
    Ok(Box::pin(futures::stream::try_unfold((state, walk, fields), |(state, mut walk, fields)| async {
        let found = walk.chunk(state.memory()).await;
        if found.is_empty() {
            return Ok(None);
        }
        let found = Stored::encode_all(found.iter().map(Arc::as_ref));
        let chunk = v1::StreamEntitiesResponse { entities: pick(found, fields.as_ref())? };
        Ok(Some((chunk, (state, walk, fields))))
    })))
}

/// The matching entities that come first in the order, behind `after`, at most `limit`, which is not 0; and how many match in all.
async fn page(
    memory: &Memory,
    query: &Query,
    order: &[OrderBy],
    after: Option<&Cursor>,
    limit: usize,
) -> (usize, Vec<Placed>) {
    let mut pace = Pace::new();
    let (mut matches, mut found) = (0, Vec::new());
    for segment in memory.segments() {
        matches += read(&segment).add_page(&mut found, query, order, after, limit);
        pace.breathe().await;
    }
    (matches, found)
}

/// As many entities as a page of `size` has and a reply has room for, at least one however large it is; and where the page ends, if there are more.
fn cut(mut placed: Vec<Placed>, size: usize) -> (Vec<EncodedEntity>, Option<Cursor>) {
    let count = count_within(placed.iter().take(size).map(|placed| placed.stored.as_ref()), REPLY_LIMIT);
    let entities = Stored::encode_all(placed[..count].iter().map(|placed| placed.stored.as_ref()));
    let last = (count < placed.len()).then(|| placed.swap_remove(count - 1).cursor);
    (entities, last)
}

/// How many of these, from the first on, have messages of at most so many bytes together; at least one however large it is.
fn count_within<'s>(all: impl Iterator<Item = &'s Stored>, limit: usize) -> usize {
    let mut bytes = 0;
    let fits = |stored: &&Stored| {
        bytes += stored.message_length();
        bytes <= limit || bytes == stored.message_length()
    };
    all.take_while(fits).count()
}

/// A walk over what matches, in the order in which it is held, which costs the least.
struct Walk {
    query: Query,
    /// What comes next and where it is held, and when it was looked up.
    ready: VecDeque<(Place, Arc<Stored>)>,
    since: Instant,
    /// Where to look further; none: that was all.
    further: Option<Place>,
}

impl Walk {
    fn new(query: Query) -> Walk {
        Walk { query, ready: VecDeque::new(), since: Instant::now(), further: Some(Place::default()) }
    }

    /// The next entities, as many as a chunk holds, at least one however large it is; none at the end.
    async fn chunk(&mut self, memory: &Memory) -> Vec<Arc<Stored>> {
        if self.since.elapsed() > FRESH
            && let Some((place, _)) = self.ready.front()
        {
            // The client took its time, and what was looked up may have changed.
            self.further = Some(*place);
            self.ready.clear();
        }
        let mut pace = Pace::new();
        while self.ready.len() < CHUNK
            && let Some(from) = self.further.take()
        {
            let (found, further) = memory.matching_from(&self.query, from, SLICE);
            if self.ready.is_empty() {
                self.since = Instant::now();
            }
            self.further = further;
            self.ready.extend(found);
            pace.breathe().await;
        }
        let count = count_within(self.ready.iter().take(CHUNK).map(|(_, stored)| stored.as_ref()), CHUNK_BYTES);
        self.ready.drain(..count).map(|(_, stored)| stored).collect()
    }
}

/// What the order's criteria ask for.
fn parse_order(order_by: &[v1::Order]) -> Result<Vec<OrderBy>, Error> {
    if order_by.len() > ORDER_FIELDS {
        let reason = format!("expected at most {ORDER_FIELDS} criteria, found {}", order_by.len());
        return Err(Error::invalid("order_by", reason));
    }
    let criterion = |(place, order): (usize, &v1::Order)| match order.field.as_str() {
        "" => Err(Error::invalid(format!("order_by[{place}].field"), "expected a path, found nothing")),
        field => Ok(OrderBy { field: field.to_lowercase(), descending: order.descending }),
    };
    order_by.iter().enumerate().map(criterion).collect()
}

/// A number that tells walks apart: a page token is good for the walk that it comes from alone.
fn walk_fingerprint(request: &v1::ListEntitiesRequest) -> u64 {
    let mut texts = vec![request.full_text.clone(), request.query.as_ref().map_or_else(String::new, query_text)];
    for list in [&request.filter, &request.full_text_fields] {
        texts.push(list.len().to_string());
        texts.extend(list.iter().cloned());
    }
    texts.extend(request.order_by.iter().map(|order| format!("{} {}", order.descending, order.field)));
    fingerprint(&texts)
}

/// The entities with these fields alone.
pub(crate) fn pick(entities: Vec<EncodedEntity>, fields: Option<&Fields>) -> Result<Vec<EncodedEntity>, Error> {
    match fields {
        None => Ok(entities),
        Some(fields) => entities.iter().map(|entity| fields.of(entity)).collect(),
    }
}

pub(crate) fn page_size(asked: i32) -> Result<usize, Error> {
    match usize::try_from(asked) {
        Ok(0) => Ok(PAGE),
        Ok(size) if size <= PAGE_LIMIT => Ok(size),
        _ => {
            let reason = format!("expected 0 to {PAGE_LIMIT}, found {asked}");
            Err(Error::invalid("page_size", reason))
        }
    }
}
