//! The built-in processors, with Backstage's names and rules.

use crate::pipeline::{EntityProcessor, Step};
use crate::reads::files_key;
use crate::run::{Run, Trouble};
use catalog::location::{self, LocationRef};
use catalog::process::{Model, ProcessingError, validate_kind};
use catalog::reading::{Target, normal_path};
use catalog::{placeholders, relations};
use outside::Error;
use serde_json::{Map, Value};
use std::sync::Arc;

/// `$text`, `$json` and `$yaml`.
pub(crate) struct Placeholders;

impl EntityProcessor for Placeholders {
    fn name(&self) -> &str {
        "PlaceholderProcessor"
    }

    fn needs_outside(&self, entity: &Map<String, Value>) -> bool {
        placeholders::any(entity)
    }

    fn pre_process<'a>(&'a self, mut entity: Map<String, Value>, run: &'a mut Run<'_>) -> Step<'a, Map<String, Value>> {
        Box::pin(async move {
            let found = placeholders::find(&mut entity)?;
            let base = run.places().location.target.clone();
            let urls = found.iter().map(|placeholder| placeholder.url(&base)).collect::<Result<Vec<_>, _>>()?;
            run.reads.prefetch(urls.clone()).await;
            let mut contents = Vec::with_capacity(found.len());
            for (placeholder, url) in found.iter().zip(urls) {
                let read = run.read_url(&url).await;
                let content = read.map_err(|error| trouble(placeholder.unreadable(&error), &error))?;
                contents.push(placeholder.content(&String::from_utf8_lossy(&content.bytes))?);
                run.refresh_by(&format!("url:{url}"));
            }
            placeholders::replace(&mut entity, contents);
            Ok(entity)
        })
    }
}

fn trouble(shown: ProcessingError, error: &Error) -> Trouble {
    match error {
        Error::Away(_) => Trouble::Away(shown),
        _ => Trouble::Failed(shown),
    }
}

/// The kinds that are data: their schemas and relation fields.
pub(crate) struct Kinds(pub Arc<Model>);

impl EntityProcessor for Kinds {
    fn name(&self) -> &str {
        "BuiltinKindsEntityProcessor"
    }

    fn needs_outside(&self, _: &Map<String, Value>) -> bool {
        false
    }

    fn pre_process<'a>(&'a self, mut entity: Map<String, Value>, _: &'a mut Run<'_>) -> Step<'a, Map<String, Value>> {
        relations::sort_fields(&self.0, &mut entity);
        Box::pin(async { Ok(entity) })
    }

    fn validate_kind<'a>(
        &'a self,
        entity: Map<String, Value>,
        run: &'a mut Run<'_>,
    ) -> Step<'a, (Map<String, Value>, bool)> {
        let outcome = validate_kind(&self.0, entity, run.entity_ref());
        Box::pin(async { Ok(outcome?) })
    }

    fn post_process<'a>(&'a self, entity: Map<String, Value>, run: &'a mut Run<'_>) -> Step<'a, Map<String, Value>> {
        Box::pin(async move {
            for relation in relations::emit(&self.0, &entity, run.entity_ref())? {
                run.relate(relation);
            }
            Ok(entity)
        })
    }
}

/// Whether the entity is a Location; case counts, as in Backstage.
pub(crate) fn is_location(entity: &Map<String, Value>) -> bool {
    entity.get("kind").and_then(Value::as_str) == Some("Location")
}

/// Targets of type `file`.
pub(crate) struct FileReader;

impl EntityProcessor for FileReader {
    fn name(&self) -> &str {
        "FileReaderProcessor"
    }

    fn needs_outside(&self, entity: &Map<String, Value>) -> bool {
        is_location(entity)
    }

    fn read_location<'a>(&'a self, target: &'a Target, run: &'a mut Run<'_>) -> Step<'a, bool> {
        Box::pin(async move {
            let path = &target.location.target;
            if target.location.location_type != "file" {
                return Ok(false);
            }
            match run.read_files(path).await {
                Ok(files) if files.is_empty() => {
                    if !target.is_optional {
                        let message = format!("file {path} does not exist");
                        run.error(ProcessingError::new("NotFoundError", message));
                    }
                    // It may come.
                    run.refresh_by(&format!("file:{}", normal_path(path)));
                }
                Ok(files) => {
                    for file in files.iter() {
                        let found_at = LocationRef { location_type: "file".to_owned(), target: file.path.clone() };
                        run.emit_documents(&String::from_utf8_lossy(&file.bytes), &found_at);
                        run.refresh_by(&found_at.to_string());
                    }
                }
                Err(error) => failed(run, &error, error.message().to_owned()),
            }
            Ok(true)
        })
    }
}

/// Targets of type `url`.
pub(crate) struct UrlReader;

impl EntityProcessor for UrlReader {
    fn name(&self) -> &str {
        "url-reader"
    }

    fn needs_outside(&self, entity: &Map<String, Value>) -> bool {
        is_location(entity)
    }

    fn read_location<'a>(&'a self, target: &'a Target, run: &'a mut Run<'_>) -> Step<'a, bool> {
        Box::pin(async move {
            let url = &target.location.target;
            if target.location.location_type != "url" {
                return Ok(false);
            }
            let before_query = url.split(['?', '#']).next().unwrap_or_default();
            if before_query.contains('*') {
                let message = "Unable to read url, Unsupported search pattern URL";
                run.error(ProcessingError::new("Error", message));
                return Ok(true);
            }
            match run.read_url(url).await {
                Ok(content) => run.emit_documents(&String::from_utf8_lossy(&content.bytes), &target.location),
                Err(Error::NotFound(_)) if target.is_optional => {}
                Err(Error::NotFound(_)) => {
                    let message = format!("Unable to read url, no matching files found for {url}");
                    run.error(ProcessingError::new("NotFoundError", message));
                }
                Err(error) => failed(run, &error, format!("Unable to read url, {}", error.message())),
            }
            run.refresh_by(&target.location.to_string());
            Ok(true)
        })
    }
}

fn failed(run: &mut Run<'_>, error: &Error, message: String) {
    run.is_away |= matches!(error, Error::Away(_));
    let name = if matches!(error, Error::NotAllowed(_)) { "NotAllowedError" } else { "Error" };
    run.error(ProcessingError::new(name, message));
}

/// What is read ahead for a target; none for types that no built-in reader reads.
pub(crate) fn key_of(target: &Target) -> Option<String> {
    match target.location.location_type.as_str() {
        "file" => Some(files_key(&target.location.target)),
        "url" if !target.location.target.contains('*') => Some(target.location.target.clone()),
        _ => None,
    }
}

/// The annotations that follow from where the entity was read.
pub(crate) struct Annotations;

impl EntityProcessor for Annotations {
    fn name(&self) -> &str {
        "AnnotateLocationEntityProcessor"
    }

    fn needs_outside(&self, _: &Map<String, Value>) -> bool {
        false
    }

    fn pre_process<'a>(&'a self, mut entity: Map<String, Value>, run: &'a mut Run<'_>) -> Step<'a, Map<String, Value>> {
        location::annotate(&mut entity, &run.places().location);
        Box::pin(async { Ok(entity) })
    }
}
