//! One entity that needs something from outside, processed: everything is read here, with no transaction open, and what comes of it is plain data.

use crate::builtin::{is_location, key_of};
use crate::event::{Bad, Good};
use crate::pipeline::Pipeline;
use crate::reads::{Noted, Reads};
use crate::run::{Run, Trouble};
use catalog::entity::{self, Unprocessed};
use catalog::entity_ref::EntityRef;
use catalog::hash::{bytes_hash, content_hash, map_hash};
use catalog::location::{self, Places};
use catalog::process::{
    Processed, ProcessingError, before_processing, check_envelope, enforce_policies, finish, unrecognized,
};
use catalog::reading::{Emitted, targets};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// An entity that is to be evaluated.
#[derive(Clone, Copy, Debug)]
pub struct Due<'a> {
    /// What claims it.
    pub source: &'a str,
    /// Its content as it came.
    pub raw: &'a [u8],
    /// Where it comes from if it does not say so itself: its provider's subject.
    pub provider_subject: &'a str,
    /// What the evaluation before this one noted.
    pub notes: Option<&'a str>,
}

/// What comes of it.
#[derive(Debug)]
pub enum Evaluation {
    /// The same as at the evaluation that the notes tell of: everything stays.
    Unchanged { notes: String, retry_soon: bool },
    /// Something else, or for the first time.
    Changed(Box<Evaluated>),
    /// It could not be tried now, for which the entity is not to blame: everything stays, and it is to be tried again soon.
    Later(String),
}

/// What is to be seen of the entity from now on.
#[derive(Debug)]
pub struct Evaluated {
    /// The entity itself; if it failed, it keeps its last good version and what it emitted.
    pub outcome: Result<Good, Bad>,
    /// What it emits, each ref once; nothing if it failed.
    pub children: Vec<Child>,
    /// By which it is to be evaluated again; nothing if it failed: it keeps those it has.
    pub refresh_keys: Vec<String>,
    /// For the next evaluation.
    pub notes: String,
    /// What failed was away and may be back soon.
    pub retry_soon: bool,
}

/// An entity that was emitted.
#[derive(Debug)]
pub struct Child {
    pub entity_ref: String,
    pub location_key: Option<String>,
    /// As it came, with the annotations that say where from.
    pub raw: Vec<u8>,
    /// Of the entity as it came and the pipeline.
    pub hash: String,
    /// None: it needs something from outside, and is to be evaluated itself.
    pub outcome: Option<Result<Good, Bad>>,
}

/// The entity, its ref, and where it comes from.
type Begun = (Map<String, Value>, (EntityRef, Places));

/// What is kept for the next evaluation.
#[derive(Default, Serialize, Deserialize)]
struct Notes {
    /// Of what was evaluated, by which pipeline.
    basis: String,
    /// Of what came of it.
    result: String,
    is_good: bool,
    reads: Noted,
    #[serde(default)]
    processors: Map<String, Value>,
}

impl Pipeline {
    /// Evaluates an entity.
    pub async fn evaluate(&self, due: &Due<'_>) -> Evaluation {
        let noted: Notes = due.notes.and_then(|notes| serde_json::from_str(notes).ok()).unwrap_or_default();
        match tokio::time::timeout(self.limits.timeout, self.read_and_process(due, &noted)).await {
            Ok(evaluation) => evaluation,
            Err(_) => {
                let message = format!("processing took longer than {} seconds", self.limits.timeout.as_secs());
                let failed = Trouble::Away(ProcessingError::new("Error", message));
                self.failed(due, Notes { basis: self.basis(due), ..Notes::default() }, &noted, failed)
            }
        }
    }

    async fn read_and_process(&self, due: &Due<'_>, noted: &Notes) -> Evaluation {
        let basis = self.basis(due);
        let (entity, named) = match self.begin(due) {
            Ok(begun) => begun,
            Err(error) => return self.failed(due, Notes { basis, ..Notes::default() }, noted, error.into()),
        };
        let mut reads = Reads::new(&self.outside, self.limits.read_bytes);
        let may_change = self.processors.iter().any(|processor| processor.may_change_by_itself(&entity));
        let is_same = noted.is_good && noted.basis == basis && !may_change;
        if is_same && reads.are_unchanged(&noted.reads).await {
            return Evaluation::Unchanged { notes: due.notes.unwrap_or_default().to_owned(), retry_soon: false };
        }
        let mut run = Run::new(self, named, reads, noted.processors.clone());
        let outcome = self.run(entity, &mut run).await;
        self.assembled(due, basis, noted, run, outcome)
    }

    /// Before the first processor.
    fn begin(&self, due: &Due<'_>) -> Result<Begun, ProcessingError> {
        let unprocessed = entity::parse_entity(due.raw, &self.limits.entity)
            .map_err(|refusal| ProcessingError::input(refusal.to_string()))?;
        let Unprocessed { mut entity, entity_ref } = unprocessed;
        check_envelope(&entity).map_err(before_processing)?;
        match location::places(&mut entity, &entity_ref, due.provider_subject)? {
            Some(places) => Ok((entity, (entity_ref, places))),
            // The policies say it better.
            None => match enforce_policies(&self.model, entity, &entity_ref) {
                Err(error) => Err(error),
                Ok(_) => Err(ProcessingError::new("Error", "metadata.annotations must be a valid object")),
            },
        }
    }

    /// Backstage's order: see [`crate::EntityProcessor`].
    async fn run(&self, mut entity: Map<String, Value>, run: &mut Run<'_>) -> Result<Processed, Trouble> {
        let own = run.entity_ref.clone();
        for processor in &self.processors {
            entity = processor.pre_process(entity, run).await?;
        }
        entity = enforce_policies(&self.model, entity, &own)?;
        let is_named_alike = entity::unprocessed(entity.clone()).is_ok_and(|found| found.entity_ref == own);
        if !is_named_alike {
            let message = "Fatal: The entity kind, namespace, or name changed during processing";
            return Err(ProcessingError::new("ConflictError", message).into());
        }
        for processor in &self.processors {
            let (valid, known) = processor.validate_kind(entity, run).await?;
            entity = valid;
            run.is_recognized |= known;
        }
        if !run.is_recognized {
            return Err(unrecognized(&own).into());
        }
        if is_location(&entity) {
            self.read_targets(&entity, run).await?;
        }
        for processor in &self.processors {
            entity = processor.post_process(entity, run).await?;
        }
        self.check_rules(run)?;
        Ok(finish(entity, &own, std::mem::take(&mut run.relations)))
    }

    async fn read_targets(&self, entity: &Map<String, Value>, run: &mut Run<'_>) -> Result<(), Trouble> {
        let targets = targets(entity, &run.places.location);
        run.reads.prefetch(targets.iter().flatten().filter_map(key_of).collect()).await;
        for target in targets {
            let target = match target {
                Ok(target) => target,
                Err(error) => {
                    run.error(error);
                    continue;
                }
            };
            let mut is_read = false;
            for processor in &self.processors {
                if processor.read_location(&target, run).await? {
                    is_read = true;
                    break;
                }
            }
            if !is_read {
                let message = format!("No processor was able to handle reading of {}", target.location);
                return Err(ProcessingError::input(message).into());
            }
        }
        Ok(())
    }

    /// One entity that is not allowed fails them all.
    fn check_rules(&self, run: &Run<'_>) -> Result<(), ProcessingError> {
        let places = &run.places;
        let refused = run.emitted.iter().find(|emitted| !self.rules.allow(&emitted.entity, &places.origin));
        refused.map_or(Ok(()), |refused| {
            Err(ProcessingError::new(
                "NotAllowedError",
                format!(
                    "Entity {} at {}, originated at {}, is not of an allowed kind for that location",
                    refused.entity_ref, places.location, places.origin
                ),
            ))
        })
    }

    fn assembled(
        &self,
        due: &Due<'_>,
        basis: String,
        noted: &Notes,
        run: Run<'_>,
        outcome: Result<Processed, Trouble>,
    ) -> Evaluation {
        let Run { reads, notes: processors, emitted, refresh_keys, errors, is_away, .. } = run;
        let notes = Notes { basis, reads: reads.noted().clone(), processors, ..Notes::default() };
        let error = match outcome {
            Ok(processed) if errors.is_empty() => match self.good(processed, emitted) {
                Ok((good, children)) => return changed(notes, noted, (good, children, refresh_keys)),
                Err(error) => Trouble::Failed(error),
            },
            // What was emitted before it came first.
            Err(trouble) if errors.is_empty() => trouble,
            Err(later @ Trouble::Later(_)) => later,
            _ => {
                let first = errors.into_iter().next().unwrap_or_else(|| ProcessingError::new("Error", "unknown"));
                if is_away { Trouble::Away(first) } else { Trouble::Failed(first) }
            }
        };
        self.failed(due, notes, noted, error)
    }

    /// The entity and what it emits, if they are within the limits.
    fn good(&self, processed: Processed, emitted: Vec<Emitted>) -> Result<(Good, Vec<Child>), ProcessingError> {
        let body = catalog::stored::store(processed.entity);
        entity::check_limits(catalog::stored::json(&body), &self.limits.processed)
            .map_err(|refusal| ProcessingError::input(refusal.to_string()))?;
        let mut children = Vec::with_capacity(emitted.len());
        let mut bytes = 0;
        for emitted in emitted {
            let child = self.child(emitted)?;
            bytes += child.raw.len();
            if bytes > self.limits.emitted_bytes {
                let limit = self.limits.emitted_bytes;
                return Err(ProcessingError::input(format!(
                    "the entities that come of it are more than {limit} bytes"
                )));
            }
            children.push(child);
        }
        Ok((Good { body, foreign: processed.foreign }, children))
    }

    fn child(&self, emitted: Emitted) -> Result<Child, ProcessingError> {
        let Emitted { entity, entity_ref, location_key } = emitted;
        let raw = written(&entity);
        entity::check_limits(&raw, &self.limits.entity)
            .map_err(|refusal| ProcessingError::input(format!("{entity_ref}: {refusal}")))?;
        let hash = format!("{}-{}", map_hash(&entity), self.fingerprint());
        let outcome = (!self.needs_outside(&entity)).then(|| {
            let unprocessed = Unprocessed { entity, entity_ref: entity_ref.clone() };
            match self.process(unprocessed, "") {
                Ok(processed) => {
                    Ok(Good { body: catalog::stored::store(processed.entity), foreign: processed.foreign })
                }
                Err(error) => Err(Bad { raw: raw.clone(), error: error.to_status_item().to_string() }),
            }
        });
        Ok(Child { entity_ref: entity_ref.to_string(), location_key, raw, hash, outcome })
    }

    fn failed(&self, due: &Due<'_>, notes: Notes, noted: &Notes, trouble: Trouble) -> Evaluation {
        let (error, retry_soon) = match trouble {
            Trouble::Failed(error) => (error, false),
            Trouble::Away(error) => (error, true),
            Trouble::Later(why) => return Evaluation::Later(why),
        };
        let error = error.to_status_item().to_string();
        // What processors noted at the last success stays for the next one.
        let processors = noted.processors.clone();
        let notes = Notes { result: bytes_hash([error.as_bytes()]), is_good: false, processors, ..notes };
        let is_same = notes.result == noted.result && notes.basis == noted.basis;
        let notes = json_of(&notes);
        if is_same {
            return Evaluation::Unchanged { notes, retry_soon };
        }
        let outcome = Err(Bad { raw: due.raw.to_vec(), error });
        Evaluation::Changed(Box::new(Evaluated {
            outcome,
            children: Vec::new(),
            refresh_keys: Vec::new(),
            notes,
            retry_soon,
        }))
    }

    fn basis(&self, due: &Due<'_>) -> String {
        bytes_hash([self.fingerprint().as_bytes(), due.source.as_bytes(), due.raw])
    }
}

fn changed(notes: Notes, noted: &Notes, (good, children, refresh_keys): (Good, Vec<Child>, Vec<String>)) -> Evaluation {
    let shown = |child: &Child| json!([child.entity_ref, child.location_key, child.hash]);
    let foreign: Vec<Value> = good
        .foreign
        .iter()
        .map(|relation| json!([relation.source_ref, relation.relation_type, relation.target_ref]))
        .collect();
    let all: Vec<Value> = children.iter().map(shown).collect();
    let rest = content_hash(&json!([all, foreign, refresh_keys]));
    let notes = Notes { result: bytes_hash([good.body.as_slice(), rest.as_bytes()]), is_good: true, ..notes };
    let is_same = noted.is_good && notes.result == noted.result && notes.basis == noted.basis;
    let notes = json_of(&notes);
    if is_same {
        return Evaluation::Unchanged { notes, retry_soon: false };
    }
    let outcome = Ok(good);
    Evaluation::Changed(Box::new(Evaluated { outcome, children, refresh_keys, notes, retry_soon: false }))
}

fn json_of(notes: &Notes) -> String {
    serde_json::to_string(notes).expect("notes are plain data")
}

fn written(entity: &Map<String, Value>) -> Vec<u8> {
    serde_json::to_vec(entity).expect("a JSON tree can be written")
}
