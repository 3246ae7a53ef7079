//! How often each value of a facet occurs among the entities that match.

use api::{Error, ready as v1};

use crate::{
    REPLY_LIMIT, index::Facet, index::Query, memory::read, pace::Pace, selection::parse_predicate, state::State,
};

/// Facets in one call.
const FACETS: usize = 20;
/// What a value costs in the reply beside its own bytes.
const VALUE_BYTES: usize = 16;

/// GetFacets: Backstage's `/entity-facets`. An entity counts once for each distinct value; values keep their case, and what has no
/// value (null, longer than 200 characters) does not count.
pub(crate) async fn get_facets(state: &State, request: &v1::GetFacetsRequest) -> Result<v1::GetFacetsResponse, Error> {
    let asked = request.facets.len();
    if asked == 0 || asked > FACETS {
        return Err(Error::invalid("facets", format!("expected 1 to {FACETS} paths, found {asked}")));
    }
    let query = Query::of(parse_predicate(&request.filter, request.query.as_ref())?);
    let keys: Vec<String> = request.facets.iter().map(|facet| facet.to_lowercase()).collect();
    let mut facets: Vec<Facet> = keys.iter().map(|_| Facet::default()).collect();
    let mut pace = Pace::new();
    for segment in state.memory().segments() {
        for key in &keys {
            // The first time this takes a while.
            read(&segment).prepare_facet(key);
            pace.breathe().await;
        }
        {
            let segment = read(&segment);
            let docs = (!query.is_everything()).then(|| segment.matching(&query));
            for (key, facet) in keys.iter().zip(&mut facets) {
                facet.add(&segment, key, docs.as_deref());
            }
        }
        let bytes: usize =
            facets.iter().map(|facet| facet.size()).map(|(values, bytes)| bytes + values * VALUE_BYTES).sum();
        if bytes > REPLY_LIMIT {
            return Err(Error::ReplyTooLarge { limit: REPLY_LIMIT });
        }
        pace.breathe().await;
    }
    let facets = request.facets.iter().zip(facets).map(|(facet, counts)| v1::Facet {
        facet: facet.clone(),
        values: counts
            .into_counts()
            .into_iter()
            .map(|(value, count)| v1::FacetCount { value: value.into(), count: count as i64 })
            .collect(),
    });
    Ok(v1::GetFacetsResponse { facets: facets.collect() })
}
