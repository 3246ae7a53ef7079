//! A document's values under a key.

use std::borrow::Cow;

use catalog::search::{MAX_VALUE_LENGTH, SearchRow};

use super::Doc;
use crate::index::{
    dictionary::{Dictionary, KeyId, RowId, TRUE, is_hidden},
    relations::RELATIONS,
};

/// One value of a document under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldValue<'a> {
    /// For comparing.
    pub lower: Cow<'a, str>,
    /// As its source wrote it.
    pub original: Cow<'a, str>,
}

/// A key, and how a segment's dictionary knows it.
pub(super) struct Field<'k> {
    key: &'k str,
    id: Option<KeyId>,
    true_row: Option<RowId>,
}

impl<'k> Field<'k> {
    pub fn of(dictionary: &Dictionary, key: &'k str) -> Field<'k> {
        Field { key, id: dictionary.key(key), true_row: dictionary.true_row(key) }
    }
}

impl Doc {
    /// The values under a key. Relations are hidden in the dictionary: they are read from the entity itself.
    pub(super) fn values<'a>(&self, dictionary: &'a Dictionary, field: &Field<'_>) -> Vec<FieldValue<'a>> {
        if let Some(kind) = field.key.strip_prefix(RELATIONS) {
            return self.relations(kind);
        }
        if is_hidden(field.key) {
            return self.hidden(field.key);
        }
        let mut values = Vec::new();
        for row in self.rows.iter() {
            if Some(row) == field.true_row {
                values.push(FieldValue { lower: TRUE.into(), original: TRUE.into() });
            } else if let Some(term) = dictionary.term_of(row)
                && Some(dictionary.key_of(term)) == field.id
                && let (Some(lower), Some(original)) = (dictionary.value(term), dictionary.original(row))
            {
                values.push(FieldValue { lower: lower.into(), original: original.into() });
            }
        }
        values
    }

    /// From the entity's rows, worked out anew: nobody asks for many.
    fn hidden(&self, key: &str) -> Vec<FieldValue<'static>> {
        let rows = self.stored.search_rows().into_iter().filter(|row| row.key == key);
        let value = |row: SearchRow| Some(FieldValue { lower: row.value?.into(), original: row.original?.into() });
        rows.filter_map(value).collect()
    }

    fn relations(&self, kind: &str) -> Vec<FieldValue<'static>> {
        let mut values: Vec<FieldValue<'static>> = Vec::new();
        // Most are of another kind, and most kinds are ASCII.
        let is_asked = |of_kind: &str| of_kind.eq_ignore_ascii_case(kind) || of_kind.to_lowercase() == kind;
        self.stored.for_each_relation(is_asked, |_, target| {
            let lower = target.to_lowercase();
            if is_searched(&lower) && !values.iter().any(|value| value.lower == lower) {
                values.push(FieldValue { lower: lower.into(), original: target.to_owned().into() });
            }
        });
        values
    }
}

/// Whether a value is short enough to have a row of its own.
fn is_searched(value: &str) -> bool {
    value.len() <= MAX_VALUE_LENGTH || value.encode_utf16().count() <= MAX_VALUE_LENGTH
}

pub(super) fn originals<'a>(values: &'a [FieldValue<'_>]) -> Vec<&'a str> {
    values.iter().map(|value| &*value.original).collect()
}

pub(super) fn lowers<'a>(values: &'a [FieldValue<'_>]) -> Vec<&'a str> {
    values.iter().map(|value| &*value.lower).collect()
}
