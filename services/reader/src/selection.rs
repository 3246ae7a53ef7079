//! Which entities a call is about: its filter, its query and its text, read once.

use api::{Error, from_struct};
use catalog::{filter::Filter, predicate::Predicate};
use prost::Message;
use prost_types::Struct;
use serde_json::Value;

use crate::{
    index::{Query, TextQuery},
    page_token::fingerprint,
    watch::Told,
};

/// Strings in a filter, and their bytes together.
const FILTER_STRINGS: usize = 100;
const FILTER_BYTES: usize = 64 * 1024;
/// Bytes of a query.
const QUERY_BYTES: usize = 64 * 1024;
/// Bytes of a text, and the fields that it is looked for in.
const TEXT_BYTES: usize = 1024;
const TEXT_FIELDS: usize = 20;

/// What an entity must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    query: Query,
    fingerprint: u64,
}

impl Selection {
    /// Reads a request's `filter` and `query`.
    ///
    /// # Errors
    /// [`Error::Invalid`]: one of them cannot be used.
    pub fn parse(filter: &[String], query: Option<&Struct>) -> Result<Selection, Error> {
        let texts: Vec<String> = filter.iter().cloned().chain(query.map(query_text)).collect();
        Ok(Selection { query: Query::of(parse_predicate(filter, query)?), fingerprint: fingerprint(&texts) })
    }

    /// A number that tells selections apart, the same in every reader.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// What the index is asked.
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// Whether an entity is meant.
    pub fn matches(&self, told: &Told) -> bool {
        self.query.is_everything() || self.query.predicate.matches(told.rows())
    }
}

/// What the filter's strings and the query ask for; without either, every entity.
pub(crate) fn parse_predicate(filter: &[String], query: Option<&Struct>) -> Result<Predicate, Error> {
    let filter = Predicate::from(parse_filter(filter)?);
    let Some(query) = query else { return Ok(filter) };
    let bytes = query.encoded_len();
    if bytes > QUERY_BYTES {
        return Err(Error::invalid("query", format!("expected at most {QUERY_BYTES} bytes, found {bytes}")));
    }
    let query = Predicate::parse(&Value::Object(from_struct(query))).map_err(|error| Error::invalid("query", error))?;
    Ok(filter.and(query))
}

/// The same with a text; an empty one asks for nothing.
pub(crate) fn parse_query(
    filter: &[String],
    query: Option<&Struct>,
    text: &str,
    text_fields: &[String],
) -> Result<Query, Error> {
    if text.len() > TEXT_BYTES {
        let reason = format!("expected at most {TEXT_BYTES} bytes, found {}", text.len());
        return Err(Error::invalid("full_text", reason));
    }
    if text_fields.len() > TEXT_FIELDS {
        let reason = format!("expected at most {TEXT_FIELDS} paths, found {}", text_fields.len());
        return Err(Error::invalid("full_text_fields", reason));
    }
    Ok(Query { predicate: parse_predicate(filter, query)?, text: TextQuery::new(text, text_fields) })
}

fn parse_filter(strings: &[String]) -> Result<Filter, Error> {
    let bytes: usize = strings.iter().map(String::len).sum();
    if strings.len() > FILTER_STRINGS || bytes > FILTER_BYTES {
        let reason = format!(
            "expected at most {FILTER_STRINGS} strings of {FILTER_BYTES} bytes together, found {} of {bytes}",
            strings.len()
        );
        return Err(Error::invalid("filter", reason));
    }
    Filter::parse(strings).map_err(|error| Error::invalid("filter", error))
}

/// A query as a text that tells it from others.
pub(crate) fn query_text(query: &Struct) -> String {
    Value::Object(from_struct(query)).to_string()
}
