//! A processor that is a service in any language: it is asked over NATS (request and reply) about the entities of its kinds.
//!
//! It is asked once an entity, before the entity is checked. When it is away, or too slow, the entity keeps its last good version with an error, and is
//! tried again soon; one that does not answer several times in a row is not waited for during some seconds, so that nothing else waits for it.

use crate::pipeline::{EntityProcessor, Step};
use crate::run::{Run, Trouble};
use bus::Bus;
use catalog::entity_ref::EntityRef;
use catalog::location::LocationRef;
use catalog::process::{ProcessingError, Relation};
use catalog::reading::Target;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Questions in a row without an answer after which nobody waits for one.
const SILENCES: u32 = 3;
/// For how long.
const PAUSE: Duration = Duration::from_secs(5);
/// The most that a processor may note for one entity, in bytes.
const NOTES_BYTES: usize = 64 * 1024;

/// A service that is asked.
#[derive(Clone, Debug)]
pub struct ExternalConfig {
    /// Its name, in errors and notes.
    pub name: String,
    /// Where it is asked; no wildcards.
    pub subject: String,
    /// The kinds about which it is asked; case does not count, and `*` is all.
    pub kinds: Vec<String>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Questions at once, from this process.
    pub at_once: usize,
    /// Raised when it may give something else for the same entity: everything of its kinds is processed again then.
    pub version: String,
}

pub(crate) struct External {
    config: ExternalConfig,
    bus: Bus,
    turns: Semaphore,
    silence: Mutex<Silence>,
}

/// Questions that had no answer.
#[derive(Default)]
struct Silence {
    in_a_row: u32,
    until: Option<Instant>,
}

impl External {
    pub fn new(config: ExternalConfig, bus: Bus) -> Result<Self, String> {
        let is_subject = |text: &str| {
            !text.is_empty()
                && text.split('.').all(|token| !token.is_empty())
                && !text.contains(|letter: char| letter.is_whitespace() || letter == '*' || letter == '>')
        };
        if config.name.is_empty() || !is_subject(&config.subject) || config.kinds.is_empty() || config.at_once == 0 {
            return Err(format!(
                "processor {:?}: expected a name, a subject without wildcards, at least one kind, and at_once of at least 1",
                config.name
            ));
        }
        let turns = Semaphore::new(config.at_once);
        Ok(External { config, bus, turns, silence: Mutex::default() })
    }

    async fn ask(&self, question: &Value) -> Result<Answer, Trouble> {
        let Ok(_turn) = self.turns.try_acquire() else {
            return Err(Trouble::Later(format!(
                "processor {} has {} questions already",
                self.config.name, self.config.at_once
            )));
        };
        if self.is_silent() {
            return Err(Trouble::Away(self.threw(format!("no answer to {SILENCES} questions in a row"))));
        }
        let question = question.to_string().into_bytes();
        let answer = bus::ask(&self.bus, &self.config.subject, question, self.config.timeout).await;
        self.heard(answer.is_ok());
        let answer = answer.map_err(|error| match error {
            bus::Error::Away(why) => {
                Trouble::Away(self.threw(format!("no answer from {}: {why}", self.config.subject)))
            }
            other => Trouble::Failed(self.threw(other.to_string())),
        })?;
        serde_json::from_slice(&answer)
            .map_err(|error| Trouble::Failed(self.threw(format!("its answer is none: {error}"))))
    }

    fn is_silent(&self) -> bool {
        let silence = self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        silence.until.is_some_and(|until| Instant::now() < until)
    }

    fn heard(&self, has_answered: bool) {
        let mut silence = self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        if has_answered {
            *silence = Silence::default();
            return;
        }
        silence.in_a_row += 1;
        if silence.in_a_row >= SILENCES {
            silence.until = Some(Instant::now() + PAUSE);
        }
    }

    fn threw(&self, what: String) -> ProcessingError {
        let context = format!("Processor {} threw an error while preprocessing", self.config.name);
        ProcessingError::new("Error", what).wrapped(&context)
    }

    /// Takes over what the service says; the entity, if it says nothing of it.
    fn take(&self, answer: Answer, run: &mut Run<'_>) -> Result<Option<Map<String, Value>>, ProcessingError> {
        run.is_recognized |= answer.recognized;
        for error in answer.errors {
            run.error(ProcessingError::new(&error.name, error.message));
        }
        for said in answer.relations {
            let relation = relation(said, run.entity_ref()).map_err(|what| self.threw(what))?;
            run.relate(relation);
        }
        for key in &answer.refresh_keys {
            run.refresh_by(key);
        }
        let place = |text: &str| LocationRef::parse(text).map_err(|error| self.threw(error.to_string()));
        for emitted in answer.entities {
            let found_at = emitted.location.as_deref().map_or_else(|| Ok(run.places().location.clone()), place)?;
            match emitted.location_key {
                None => run.emit(emitted.entity, &found_at),
                Some(location_key) => run.emit_with_key(emitted.entity, &found_at, location_key),
            }
        }
        for location in answer.locations {
            let is_optional = location.presence.as_deref() == Some("optional");
            let location = place(&format!("{}:{}", location.location_type, location.target))?;
            run.emit_location(&Target { location, is_optional });
        }
        if let Some(notes) = answer.notes {
            if notes.to_string().len() > NOTES_BYTES {
                return Err(self.threw(format!("it notes more than {NOTES_BYTES} bytes")));
            }
            run.note(&self.config.name, notes);
        }
        Ok(answer.entity)
    }
}

fn relation(said: SaidRelation, own: &EntityRef) -> Result<Relation, String> {
    let parsed = |text: &str| EntityRef::parse(text).map(|found| found.to_string()).map_err(|error| error.to_string());
    let source_ref = said.source_ref.as_deref().map_or_else(|| Ok(own.to_string()), parsed)?;
    if said.relation_type.is_empty() {
        return Err("it names a relation without a type".to_owned());
    }
    Ok(Relation { source_ref, relation_type: said.relation_type, target_ref: parsed(&said.target_ref)? })
}

impl EntityProcessor for External {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn version(&self) -> String {
        json!([self.config.subject, self.config.kinds, self.config.version]).to_string()
    }

    fn needs_outside(&self, entity: &Map<String, Value>) -> bool {
        let kind = entity.get("kind").and_then(Value::as_str).unwrap_or_default();
        self.config.kinds.iter().any(|wanted| wanted == "*" || wanted.to_lowercase() == kind.to_lowercase())
    }

    fn may_change_by_itself(&self, entity: &Map<String, Value>) -> bool {
        self.needs_outside(entity)
    }

    fn pre_process<'a>(&'a self, entity: Map<String, Value>, run: &'a mut Run<'_>) -> Step<'a, Map<String, Value>> {
        Box::pin(async move {
            if !self.needs_outside(&entity) {
                return Ok(entity);
            }
            let question = json!({
                "entityRef": run.entity_ref().to_string(),
                "location": run.places().location.to_string(),
                "originLocation": run.places().origin.to_string(),
                "entity": entity,
                "notes": run.noted(&self.config.name),
            });
            let answer = self.ask(&question).await?;
            Ok(self.take(answer, run)?.unwrap_or(entity))
        })
    }
}

/// What a service answers (`schemas/processor/answer.schema.json`); all of it may be left out.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Answer {
    entity: Option<Map<String, Value>>,
    recognized: bool,
    relations: Vec<SaidRelation>,
    entities: Vec<EmittedEntity>,
    locations: Vec<EmittedLocation>,
    errors: Vec<SaidError>,
    refresh_keys: Vec<String>,
    notes: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SaidRelation {
    #[serde(default)]
    source_ref: Option<String>,
    #[serde(rename = "type")]
    relation_type: String,
    target_ref: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EmittedEntity {
    entity: Map<String, Value>,
    #[serde(default)]
    location: Option<String>,
    /// Left out: the location. Null: none.
    #[serde(default, deserialize_with = "given")]
    location_key: Option<Option<String>>,
}

/// Tells what is given as null from what is not given.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmittedLocation {
    #[serde(rename = "type")]
    location_type: String,
    target: String,
    #[serde(default)]
    presence: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SaidError {
    #[serde(default = "plain_error")]
    name: String,
    message: String,
}

fn plain_error() -> String {
    "Error".to_owned()
}
