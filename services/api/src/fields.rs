//! Some fields of an entity: Backstage's `fields`.

use serde_json::{Map, Value};

use crate::{EncodedEntity, Error, entity::entity_from_parts, entity_to_json};

/// Paths in one request.
const PATHS: usize = 100;
/// Bytes of one path.
const PATH_BYTES: usize = 1024;

/// Which fields of an entity to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    paths: Vec<String>,
}

impl Fields {
    /// Reads a request's `fields`; none: whole entities.
    ///
    /// # Errors
    /// [`Error::Invalid`]: more than 100 paths, an empty or too long one, or one with a `[`, which Backstage refuses too.
    pub fn parse(paths: &[String]) -> Result<Option<Fields>, Error> {
        if paths.len() > PATHS {
            return Err(Error::invalid("fields", format!("expected at most {PATHS} paths, found {}", paths.len())));
        }
        for (place, path) in paths.iter().enumerate() {
            if path.is_empty() || path.len() > PATH_BYTES || path.contains('[') {
                let reason = format!(
                    "expected a path of 1 to {PATH_BYTES} bytes without [, for example metadata.name, found {:?}",
                    path.chars().take(80).collect::<String>()
                );
                return Err(Error::invalid(format!("fields[{place}]"), reason));
            }
        }
        Ok((!paths.is_empty()).then(|| Fields { paths: paths.to_vec() }))
    }

    /// The entity with these fields alone; its ref and revision stay.
    ///
    /// # Errors
    /// [`Error::Unreadable`]: it is no entity's message; a bug.
    pub fn of(&self, entity: &EncodedEntity) -> Result<EncodedEntity, Error> {
        let unreadable =
            |error: prost::DecodeError| Error::Unreadable { entity_ref: "?".into(), reason: error.to_string() };
        let entity = entity.entity().map_err(unreadable)?;
        let picked = self.pick(&entity_to_json(&entity));
        Ok((&entity_from_parts(entity.r#ref, picked, entity.revision)).into())
    }

    /// What stands at these paths, each under its own path. Paths do not lead into lists.
    fn pick(&self, json: &Map<String, Value>) -> Map<String, Value> {
        let mut picked = Map::new();
        for path in &self.paths {
            if let Some((keys, value)) = find(json, path) {
                put(&mut picked, &keys, value.clone());
            }
        }
        picked
    }
}

/// The value at a path, and the keys that lead there. A key may hold dots: the shortest key that is there counts, as in Backstage.
fn find<'a>(json: &'a Map<String, Value>, path: &'a str) -> Option<(Vec<&'a str>, &'a Value)> {
    let (mut keys, mut object, mut rest) = (Vec::new(), json, path);
    loop {
        let ends = rest.match_indices('.').map(|(at, _)| at).chain([rest.len()]);
        let (end, value) = ends.into_iter().find_map(|end| Some((end, object.get(&rest[..end])?)))?;
        keys.push(&rest[..end]);
        if end == rest.len() {
            return Some((keys, value));
        }
        (object, rest) = (value.as_object()?, &rest[end + 1..]);
    }
}

fn put(json: &mut Map<String, Value>, keys: &[&str], value: Value) {
    match keys {
        [] => {}
        [key] => {
            json.insert((*key).to_owned(), value);
        }
        [key, rest @ ..] => {
            let inner = json.entry(*key).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}
