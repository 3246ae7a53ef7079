//! The entity stream of a generated catalog, byte for byte as stitchers would write it: processed and stitched by the engine's own
//! functions, relations of both ends included; without processors, database and stitchers in between.

use crate::generate::generate;
use bus::{Bus, Record, entity_record};
use catalog::entity::{Limits, parse_entity};
use catalog::process::{Model, Processed, process};
use catalog::stitch::{StitchInput, Stitched, stitch, uid};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// What every entity comes from.
const ORIGIN: &str = "catalog.events.loadtest.import";
/// The installation's name, which is part of every uid.
pub(crate) const INSTALLATION: &str = "catalog";

/// What entities say of each other, and how to stitch them.
#[derive(Clone)]
pub(crate) struct Stitcher(Arc<Inner>);

struct Inner {
    model: Model,
    /// By the ref that is spoken of: the relation's type and target, by their numbers in `texts`.
    incoming: HashMap<Box<str>, Vec<(u32, u32)>>,
    texts: Vec<Box<str>>,
}

impl Stitcher {
    /// Learns what the generated entities say of each other: the first of two passes over them.
    pub fn learn(seed: u64, n: usize, mut done: impl FnMut()) -> Stitcher {
        let model = Model::builtin();
        let mut texts = Texts::default();
        let mut incoming: HashMap<Box<str>, Vec<(u32, u32)>> = HashMap::new();
        for entity in generate(seed, n) {
            let Some((_, processed)) = processed(&model, &entity) else { continue };
            for relation in processed.foreign {
                let pair = (texts.number(&relation.relation_type), texts.number(&relation.target_ref));
                incoming.entry(relation.source_ref.into()).or_default().push(pair);
            }
            done();
        }
        Stitcher(Arc::new(Inner { model, incoming, texts: texts.texts }))
    }

    /// An entity as it is shown: its ref and what stitching gives; none: it is not accepted.
    pub fn stitched(&self, entity: &Value) -> Option<(String, Stitched)> {
        let (entity_ref, processed) = processed(&self.0.model, entity)?;
        let text = |number: u32| self.0.texts[number as usize].to_string();
        let incoming = self.0.incoming.get(entity_ref.as_str());
        let incoming = incoming.into_iter().flatten().map(|(of_type, target)| (text(*of_type), text(*target)));
        let uid = uid(INSTALLATION, &entity_ref, 1).to_string();
        let input = StitchInput {
            processed: processed.entity,
            entity_ref: &entity_ref,
            uid: &uid,
            incoming: incoming.collect(),
            error: None,
            orphan: false,
        };
        let stitched = stitch(input).ok()?;
        Some((entity_ref, stitched))
    }

    /// The message for an entity, with this as its version and revision.
    pub fn record(&self, bus: &Bus, entity: &Value, version: i64) -> Option<Record> {
        let (entity_ref, Stitched { body, hash }) = self.stitched(entity)?;
        Some(entity_record(bus, &entity_ref, version, version, Some((&hash, body))))
    }
}

fn processed(model: &Model, entity: &Value) -> Option<(String, Processed)> {
    let unprocessed = parse_entity(entity.to_string().as_bytes(), &Limits::default()).ok()?;
    let processed = process(model, &unprocessed, ORIGIN).ok()?;
    Some((unprocessed.entity_ref.to_string(), processed))
}

#[derive(Default)]
struct Texts {
    numbers: HashMap<Box<str>, u32>,
    texts: Vec<Box<str>>,
}

impl Texts {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).expect("fewer than four milliards of refs");
        self.numbers.insert(text.into(), number);
        self.texts.push(text.into());
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_relation_are_shown() {
        const N: usize = 300;
        let stitcher = Stitcher::learn(3, N, || ());
        let stitched: HashMap<String, Value> = generate(3, N)
            .map(|entity| stitcher.stitched(&entity).expect("accepted"))
            .map(|(entity_ref, stitched)| (entity_ref, serde_json::from_slice(&stitched.body).expect("JSON")))
            .collect();
        assert_eq!(stitched.len(), N);
        let mut seen = 0;
        for (entity_ref, entity) in &stitched {
            for relation in entity["relations"].as_array().expect("relations") {
                if relation["type"] != "ownedBy" {
                    continue;
                }
                let Some(owner) = stitched.get(relation["targetRef"].as_str().expect("a ref")) else { continue };
                let back = serde_json::json!({"type": "ownerOf", "targetRef": entity_ref});
                assert!(owner["relations"].as_array().expect("relations").contains(&back), "{entity_ref}");
                seen += 1;
            }
        }
        assert!(seen > N / 2, "{seen}");
    }
}
