//! The pipeline: a list of processors in order, behind one trait; the built-in ones are members like any other.

use crate::builtin::{Annotations, FileReader, Kinds, Placeholders, UrlReader};
use crate::external::{External, ExternalConfig};
use crate::run::{Run, Trouble};
use bus::Bus;
use catalog::entity::{Limits, Unprocessed};
use catalog::hash::content_hash;
use catalog::process::{Model, Processed, ProcessingError, process_whole};
use catalog::reading::Target;
use catalog::rules::Rules;
use futures::future::BoxFuture;
use outside::Outside;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// One step of processing (Backstage's `CatalogProcessor`). Each method has a default that does nothing, so that one implements what one needs.
///
/// Processing calls `pre_process` of every processor in the order of the list, then checks the entity's policies, then `validate_kind` of each, for a
/// Location `read_location` until one has read, and at last `post_process`.
pub trait EntityProcessor: Send + Sync {
    /// Its name: in errors, in notes, and in the configuration. Unique in the list.
    fn name(&self) -> &str;

    /// Raised when the same entity may give something else: everything is processed again then.
    fn version(&self) -> String {
        String::new()
    }

    /// Whether the processor has to be asked about this entity when it may wait: no entity is processed in an event's batch that a processor needs to read
    /// or ask something for.
    fn needs_outside(&self, entity: &Map<String, Value>) -> bool;

    /// Whether what it gives may change without the entity or anything it read through [`Run`] having changed.
    fn may_change_by_itself(&self, _entity: &Map<String, Value>) -> bool {
        false
    }

    /// Completes the entity before it is checked; kind, namespace and name must stay.
    fn pre_process<'a>(&'a self, entity: Map<String, Value>, _run: &'a mut Run<'_>) -> Step<'a, Map<String, Value>> {
        Box::pin(async { Ok(entity) })
    }

    /// Whether it knows the kind and API version of the entity, which must be valid then. An entity that nobody knows is an error.
    fn validate_kind<'a>(
        &'a self,
        entity: Map<String, Value>,
        _run: &'a mut Run<'_>,
    ) -> Step<'a, (Map<String, Value>, bool)> {
        Box::pin(async { Ok((entity, false)) })
    }

    /// Reads a target of a Location and emits what is in it; false: it is not of a type that this processor reads.
    fn read_location<'a>(&'a self, _target: &'a Target, _run: &'a mut Run<'_>) -> Step<'a, bool> {
        Box::pin(async { Ok(false) })
    }

    /// Looks at the valid entity and emits its relations.
    fn post_process<'a>(&'a self, entity: Map<String, Value>, _run: &'a mut Run<'_>) -> Step<'a, Map<String, Value>> {
        Box::pin(async { Ok(entity) })
    }
}

/// What a step gives, in the end.
pub type Step<'a, T> = BoxFuture<'a, Result<T, Trouble>>;

/// How much an evaluation may take.
#[derive(Clone, Copy, Debug)]
pub struct EvaluationLimits {
    /// How long it may take altogether.
    pub timeout: Duration,
    /// Bytes that it may read altogether.
    pub read_bytes: usize,
    /// The processed entity, with what its placeholders brought.
    pub processed: Limits,
    /// Entities that one entity may emit.
    pub emitted: usize,
    /// Bytes of all of them.
    pub emitted_bytes: usize,
    /// Each of them, as it came.
    pub entity: Limits,
}

impl Default for EvaluationLimits {
    fn default() -> Self {
        let entity = Limits::default();
        EvaluationLimits {
            timeout: Duration::from_secs(60),
            read_bytes: 32 << 20,
            processed: Limits { bytes: 2 << 20, ..entity },
            emitted: 10_000,
            emitted_bytes: 16 << 20,
            entity,
        }
    }
}

/// What a pipeline is made of.
pub struct Parts {
    pub model: Arc<Model>,
    pub rules: Rules,
    pub outside: Outside,
    /// Services that are asked over NATS, in order, after the built-in processors.
    pub external: Vec<ExternalConfig>,
    /// Processors of one's own, after those.
    pub own: Vec<Arc<dyn EntityProcessor>>,
    pub limits: EvaluationLimits,
}

impl Parts {
    /// The built-in kinds and processors, which may read nothing.
    ///
    /// # Panics
    /// Never: there are no sources that could not be used.
    pub fn builtin() -> Self {
        let outside = Outside::new(&outside::Sources::default(), outside::Limits::default());
        Parts {
            model: Arc::new(Model::builtin()),
            rules: Rules::default(),
            outside: outside.expect("no sources are no trouble"),
            external: Vec::new(),
            own: Vec::new(),
            limits: EvaluationLimits::default(),
        }
    }
}

/// How entities are processed.
pub struct Pipeline {
    pub(crate) model: Arc<Model>,
    pub(crate) rules: Rules,
    pub(crate) outside: Outside,
    pub(crate) limits: EvaluationLimits,
    pub(crate) processors: Vec<Arc<dyn EntityProcessor>>,
    fingerprint: String,
}

impl Pipeline {
    /// The built-in processors, then the external ones, then one's own.
    ///
    /// # Errors
    /// Two processors of one name.
    pub fn new(parts: Parts, bus: &Bus) -> Result<Self, crate::Error> {
        let Parts { model, rules, outside, external, own, limits } = parts;
        let mut processors: Vec<Arc<dyn EntityProcessor>> = vec![
            Arc::new(Placeholders),
            Arc::new(Kinds(model.clone())),
            Arc::new(FileReader),
            Arc::new(UrlReader),
            Arc::new(Annotations),
        ];
        for config in external {
            processors.push(Arc::new(External::new(config, bus.clone()).map_err(crate::Error::Pipeline)?));
        }
        processors.extend(own);
        let mut names: Vec<&str> = processors.iter().map(|processor| processor.name()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(crate::Error::Pipeline(format!(
                "two processors have the name {}: give each its own",
                twice[0]
            )));
        }
        let versions: Vec<[String; 2]> =
            processors.iter().map(|processor| [processor.name().to_owned(), processor.version()]).collect();
        let fingerprint = content_hash(&json!([model.fingerprint(), rules.as_given(), versions]));
        Ok(Pipeline { model, rules, outside, limits, processors, fingerprint })
    }

    /// Whether processing the entity needs something from outside: it is evaluated then, and not in the batch of its event.
    pub fn needs_outside(&self, entity: &Map<String, Value>) -> bool {
        self.processors.iter().any(|processor| processor.needs_outside(entity))
    }

    /// Processes an entity that needs nothing from outside; pure.
    ///
    /// # Errors
    /// What is wrong with the entity.
    pub fn process(&self, unprocessed: Unprocessed, provider_subject: &str) -> Result<Processed, ProcessingError> {
        process_whole(&self.model, unprocessed, provider_subject)
    }

    /// Hex of a hash over everything that decides what processing gives, but for what is outside: entities processed under another one are due.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The kinds.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }
}
