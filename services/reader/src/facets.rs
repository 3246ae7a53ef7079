//! How often each value of a facet occurs among the entities that match.

use std::{collections::BTreeMap, ops::ControlFlow};

use api::{Error, ready as v1};

use crate::{
    REPLY_LIMIT,
    list::{parse_filter, scan},
    state::State,
};

/// Facets in one call.
const FACETS: usize = 20;
/// What a value costs in the reply beside its own bytes.
const VALUE_BYTES: usize = 16;

/// GetFacets: Backstage's `/entity-facets`. An entity counts once for each distinct value; values keep their case, and what has no
/// value (null, longer than 200 characters) does not count.
pub(crate) async fn get_facets(state: &State, request: &v1::GetFacetsRequest) -> Result<v1::GetFacetsResponse, Error> {
    if request.query.is_some() {
        return Err(Error::NotServed { what: "query" });
    }
    let asked = request.facets.len();
    if asked == 0 || asked > FACETS {
        return Err(Error::invalid("facets", format!("expected 1 to {FACETS} paths, found {asked}")));
    }
    let filter = parse_filter(&request.filter)?;
    let keys: Vec<String> = request.facets.iter().map(|facet| facet.to_lowercase()).collect();
    let mut counts: Vec<BTreeMap<String, i64>> = vec![BTreeMap::new(); asked];
    let mut bytes = 0;
    scan(state.memory(), filter.as_ref(), "", |stored| {
        for row in &stored.rows {
            let Some(value) = &row.original else { continue };
            for (key, counts) in keys.iter().zip(&mut counts) {
                if *key != row.key {
                    continue;
                }
                match counts.get_mut(value) {
                    Some(count) => *count += 1,
                    None => {
                        bytes += value.len() + VALUE_BYTES;
                        counts.insert(value.clone(), 1);
                    }
                }
            }
        }
        match bytes > REPLY_LIMIT {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })
    .await;
    if bytes > REPLY_LIMIT {
        return Err(Error::ReplyTooLarge { limit: REPLY_LIMIT });
    }
    let facets = request.facets.iter().zip(counts).map(|(facet, counts)| v1::Facet {
        facet: facet.clone(),
        values: counts.into_iter().map(|(value, count)| v1::FacetCount { value, count }).collect(),
    });
    Ok(v1::GetFacetsResponse { facets: facets.collect() })
}
