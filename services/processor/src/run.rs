//! One entity being processed: what the processors are told, what they read through, and what they emit.

use crate::pipeline::Pipeline;
use crate::reads::Reads;
use catalog::entity_ref::EntityRef;
use catalog::location::{LocationRef, Places};
use catalog::process::{ProcessingError, Relation};
use catalog::reading::{Emitted, Emitter, Target, refresh_key};
use outside::{Content, Error, FoundFile};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// The most relations of one entity, beside those of its fields.
const MAX_RELATIONS: usize = 10_000;
/// The most refresh keys of one entity.
const MAX_REFRESH_KEYS: usize = 2_000;

/// Why a step has no outcome.
#[derive(Debug)]
pub enum Trouble {
    /// Something is wrong with the entity, or with what it names.
    Failed(ProcessingError),
    /// Something that is asked is away: an error, and another try soon.
    Away(ProcessingError),
    /// It could not be tried now, for which the entity is not to blame: nothing changes.
    Later(String),
}

impl From<ProcessingError> for Trouble {
    fn from(error: ProcessingError) -> Self {
        Trouble::Failed(error)
    }
}

/// One entity being processed.
pub struct Run<'p> {
    pub(crate) pipeline: &'p Pipeline,
    pub(crate) entity_ref: EntityRef,
    pub(crate) places: Places,
    pub(crate) reads: Reads<'p>,
    /// What a processor noted at the last run, by its name.
    pub(crate) noted: Map<String, Value>,
    /// What it notes now.
    pub(crate) notes: Map<String, Value>,
    pub(crate) emitted: Vec<Emitted>,
    /// Where each ref stands in them.
    pub(crate) emitted_at: HashMap<EntityRef, usize>,
    pub(crate) relations: Vec<Relation>,
    pub(crate) refresh_keys: Vec<String>,
    pub(crate) errors: Vec<ProcessingError>,
    /// A processor knows the entity's kind.
    pub(crate) is_recognized: bool,
    /// What failed may succeed soon.
    pub(crate) is_away: bool,
}

impl<'p> Run<'p> {
    pub(crate) fn new(
        pipeline: &'p Pipeline,
        (entity_ref, places): (EntityRef, Places),
        reads: Reads<'p>,
        noted: Map<String, Value>,
    ) -> Self {
        Run {
            pipeline,
            entity_ref,
            places,
            reads,
            noted,
            notes: Map::new(),
            emitted: Vec::new(),
            emitted_at: HashMap::new(),
            relations: Vec::new(),
            refresh_keys: Vec::new(),
            errors: Vec::new(),
            is_recognized: false,
            is_away: false,
        }
    }

    /// The entity's ref.
    pub fn entity_ref(&self) -> &EntityRef {
        &self.entity_ref
    }

    /// Where the entity was read, and from which root that place was found.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// What the processor of that name noted when the entity was last processed with success.
    pub fn noted(&self, processor: &str) -> Option<&Value> {
        self.noted.get(processor)
    }

    /// Notes something for the next time (Backstage's processor cache).
    pub fn note(&mut self, processor: &str, value: Value) {
        self.notes.insert(processor.to_owned(), value);
    }

    /// Reads a URL, if that is allowed; what was read once in a run is the same throughout it.
    ///
    /// # Errors
    /// See [`outside::Error`].
    pub async fn read_url(&mut self, url: &str) -> Result<Arc<Content>, Error> {
        self.reads.url(url).await
    }

    /// Reads the files of a path or a pattern, if that is allowed.
    ///
    /// # Errors
    /// See [`outside::Error`].
    pub async fn read_files(&mut self, target: &str) -> Result<Arc<Vec<FoundFile>>, Error> {
        self.reads.files(target).await
    }

    /// Emits an entity that was found at a place; its location key is that place.
    pub fn emit(&mut self, entity: Map<String, Value>, found_at: &LocationRef) {
        match self.emitter().entity(entity, found_at) {
            Ok(emitted) => self.keep(emitted),
            Err(error) => self.errors.push(error),
        }
    }

    /// The same under another location key, or under none.
    pub fn emit_with_key(&mut self, entity: Map<String, Value>, found_at: &LocationRef, location_key: Option<String>) {
        match self.emitter().entity(entity, found_at) {
            Ok(emitted) => self.keep(emitted.map(|emitted| Emitted { location_key, ..emitted })),
            Err(error) => self.errors.push(error),
        }
    }

    /// Emits all entities of a text of YAML or JSON documents.
    pub fn emit_documents(&mut self, text: &str, found_at: &LocationRef) {
        for found in self.emitter().documents(text, found_at) {
            match found {
                Ok(emitted) => self.keep(Some(emitted)),
                Err(error) => self.errors.push(error),
            }
        }
    }

    /// Emits a further location to be read, as a Location entity.
    pub fn emit_location(&mut self, target: &Target) {
        let emitted = self.emitter().location(target);
        self.keep(emitted);
    }

    /// Emits a relation; its source may be another entity.
    pub fn relate(&mut self, relation: Relation) {
        match self.relations.len() < MAX_RELATIONS {
            true => self.relations.push(relation),
            false => self.too_many("relations", MAX_RELATIONS),
        }
    }

    /// Emits a key by whose refresh the entity is processed again.
    pub fn refresh_by(&mut self, key: &str) {
        let key = refresh_key(key);
        if self.refresh_keys.contains(&key) {
            return;
        }
        match self.refresh_keys.len() < MAX_REFRESH_KEYS {
            true => self.refresh_keys.push(key),
            false => self.too_many("refresh keys", MAX_REFRESH_KEYS),
        }
    }

    /// Emits an error: the entity keeps its last good version, and what it emitted, and shows the error.
    pub fn error(&mut self, error: ProcessingError) {
        self.errors.push(error);
    }

    fn emitter(&self) -> Emitter<'_> {
        Emitter { entity_ref: &self.entity_ref, places: &self.places }
    }

    /// Of two entities with one ref the later replaces the earlier if it has the same location key; else the first one stays, as in Backstage.
    fn keep(&mut self, emitted: Option<Emitted>) {
        let Some(emitted) = emitted else { return };
        let (limit, count) = (self.pipeline.limits.emitted, self.emitted.len());
        match self.emitted_at.get(&emitted.entity_ref).map(|place| &mut self.emitted[*place]) {
            Some(earlier) if earlier.location_key == emitted.location_key => *earlier = emitted,
            Some(_) => {}
            None if count < limit => {
                self.emitted_at.insert(emitted.entity_ref.clone(), count);
                self.emitted.push(emitted);
            }
            None => self.too_many("entities", limit),
        }
    }

    /// Said once.
    fn too_many(&mut self, what: &str, limit: usize) {
        let message = format!("more than {limit} {what} come of the entity");
        if self.errors.iter().all(|error| error.message != message) {
            self.errors.push(ProcessingError::input(message));
        }
    }
}
