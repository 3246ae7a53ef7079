//! Entities from files, directories and stdin, each checked by the rules that processors hold to.

use crate::failure::Failure;
use catalog::documents::{Document, DocumentError, parse_documents};
use catalog::entity::{Limits, parse_entity};
use catalog::error::ProcessingError;
use catalog::field_line::field_line;
use catalog::process::{Model, process};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The most that one file, or stdin, may hold.
const FILE_BYTES: u64 = 256 << 20;
/// The most files that are read.
const FILES: usize = 100_000;
/// How deep directories are searched.
const DEPTH: usize = 64;

/// A text and where it came from.
pub struct Source {
    /// The file's path, or `stdin`.
    pub name: String,
    /// What it holds.
    pub text: String,
}

/// An entity that may be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Its ref.
    pub entity_ref: String,
    /// Its JSON.
    pub json: Vec<u8>,
}

/// Why a document may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: document {document}{field}: {reason}")]
pub struct Fault {
    /// Where it stands.
    pub file: String,
    /// The line in the file, from 1.
    pub line: usize,
    /// Which document of the file, from 1.
    pub document: usize,
    /// `, field /spec/owner`; empty where no field is at fault.
    pub field: String,
    /// What was expected and what was found.
    pub reason: String,
}

/// Reads files, `-` for stdin, and every *.yaml, *.yml and *.json below directories, in the order of their names.
///
/// # Errors
/// [`Failure::Usage`] for what is not there, is no UTF-8 text, or is over a limit.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            sources.push(Source { name: "stdin".to_owned(), text: read_text("stdin", std::io::stdin().lock())? });
            continue;
        }
        let mut files = Vec::new();
        let found = fs::metadata(path).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
        match found.is_dir() {
            true => search(path, DEPTH, &mut files)?,
            false => files.push(path.clone()),
        }
        if files.is_empty() {
            return Err(Failure::Usage(format!(
                "{}: expected *.yaml, *.yml or *.json files in it, found none",
                path.display()
            )));
        }
        for file in files {
            let name = file.display().to_string();
            let open = fs::File::open(&file).map_err(|error| Failure::Usage(format!("{name}: {error}")))?;
            sources.push(Source { text: read_text(&name, open)?, name });
        }
    }
    Ok(sources)
}

fn read_text(name: &str, from: impl Read) -> Result<String, Failure> {
    let mut text = String::new();
    let length = from
        .take(FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| Failure::Usage(format!("{name}: {error}")))?;
    match length as u64 > FILE_BYTES {
        true => Err(Failure::Usage(format!("{name}: expected at most {} MiB; split it", FILE_BYTES >> 20))),
        false => Ok(text),
    }
}

/// Hidden directories and links to directories are passed over.
fn search(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| Failure::Usage(format!("{}: {error}", directory.display()));
    let entries: Result<Vec<_>, _> = fs::read_dir(directory).map_err(cannot)?.collect();
    let mut entries = entries.map_err(cannot)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type().map_err(cannot)?);
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        if kind.is_dir() && !is_hidden {
            match depth {
                0 => {
                    return Err(Failure::Usage(format!(
                        "{}: directories are nested deeper than {DEPTH}",
                        path.display()
                    )));
                }
                _ => search(&path, depth - 1, files)?,
            }
        }
        let is_entities =
            path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
        if is_entities && path.is_file() {
            files.push(path);
        }
        if files.len() > FILES {
            return Err(Failure::Usage(format!(
                "{}: expected at most {FILES} files; publish parts of it",
                directory.display()
            )));
        }
    }
    Ok(())
}

/// Checks every document of a text; the good ones and the bad ones, each in order.
pub fn check(source: &Source, model: &Model, provider_subject: &str) -> (Vec<Checked>, Vec<Fault>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for document in documents(&source.text) {
        match check_document(&document, model, provider_subject) {
            Ok(checked) => good.push(checked),
            Err(problem) => bad.push(fault(source, &document, problem)),
        }
    }
    (good, bad)
}

/// JSON values behind one another are documents too, which YAML does not know.
fn documents(text: &str) -> Vec<Document> {
    if !text.trim_start().starts_with('{') {
        return parse_documents(text);
    }
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut documents = Vec::new();
    let mut line = 1;
    let mut counted = 0;
    loop {
        let from = stream.byte_offset();
        let start = from + (text[from..].len() - text[from..].trim_start().len());
        line += text[counted..start].matches('\n').count();
        counted = start;
        match stream.next() {
            None => return documents,
            Some(Ok(value)) => documents.push(Document { index: documents.len(), line, content: Ok(value) }),
            // YAML in braces, or a broken text: then it is read as YAML, whose errors are as good.
            Some(Err(_)) if documents.is_empty() => return parse_documents(text),
            Some(Err(error)) => {
                let error = DocumentError { line: error.line(), column: error.column(), message: error.to_string() };
                documents.push(Document { index: documents.len(), line, content: Err(error) });
                return documents;
            }
        }
    }
}

enum Problem {
    Unreadable(DocumentError),
    Refused(String),
    Invalid(ProcessingError),
}

fn check_document(document: &Document, model: &Model, provider_subject: &str) -> Result<Checked, Problem> {
    let value = document.content.as_ref().map_err(|error| Problem::Unreadable(error.clone()))?;
    let json = serde_json::to_vec(value).map_err(|error| Problem::Refused(error.to_string()))?;
    let unprocessed =
        parse_entity(&json, &Limits::default()).map_err(|refusal| Problem::Refused(refusal.to_string()))?;
    process(model, &unprocessed, provider_subject).map_err(Problem::Invalid)?;
    Ok(Checked { entity_ref: unprocessed.entity_ref.to_string(), json })
}

fn fault(source: &Source, document: &Document, problem: Problem) -> Fault {
    let (line, field, reason) = match problem {
        Problem::Unreadable(error) => (error.line, String::new(), error.message),
        Problem::Refused(reason) => {
            // What it says begins with the field.
            let first = reason.split(' ').next().unwrap_or_default();
            let field = if ["kind", "metadata", "metadata.name"].contains(&first) { first } else { "" };
            (field_line(&source.text, document, field), named(field), reason)
        }
        Problem::Invalid(error) => {
            let field = error.field.clone().unwrap_or_default();
            (field_line(&source.text, document, &field), named(&field), innermost(error))
        }
    };
    Fault { file: source.name.clone(), line, document: document.index + 1, field, reason }
}

/// `, field /spec/owner`
fn named(field: &str) -> String {
    if field.is_empty() { String::new() } else { format!(", field {field}") }
}

/// What went wrong, without the steps that it went wrong in.
fn innermost(mut error: ProcessingError) -> String {
    while let Some(cause) = error.cause.take() {
        error = *cause;
    }
    error.message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let source = Source { name: "f.yaml".to_owned(), text: text.to_owned() };
        let (good, bad) = super::check(&source, &Model::builtin(), "catalog.events.cli");
        let mut found: Vec<String> = good.into_iter().map(|checked| checked.entity_ref).collect();
        found.extend(bad.into_iter().map(|fault| fault.to_string()));
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found} is not {expected}");
        }
    }

    const GOOD: &str = "apiVersion: backstage.io/v1alpha1
kind: Component
metadata:
  name: web
spec:
  type: service
  lifecycle: production
  owner: team
";

    #[test]
    fn documents_are_checked_one_by_one() {
        check(GOOD, &["component:default/web"]);
        check("", &[]);
        check(
            &format!("{GOOD}---\na: 1\na: 2\n---\n{GOOD}"),
            &["component:default/web", "component:default/web", "f.yaml:11: document 2: "],
        );
        check(&GOOD.replace("  owner: team\n", ""), &["f.yaml:5: document 1, field /spec/owner: "]);
        check(&GOOD.replace("name: web", "name: a b"), &["f.yaml:4: document 1, field metadata.name: "]);
        check(
            &GOOD.replace("kind: Component\n", ""),
            &["f.yaml:1: document 1, field kind: kind must be a non-empty string, found nothing"],
        );
        check(
            &GOOD.replace("  name: web", "  name: 7"),
            &["f.yaml:4: document 1, field metadata.name: metadata.name must be a non-empty string, found a number"],
        );
        check("- 1\n", &["f.yaml:1: document 1: the entity must be a JSON object, found an array"]);
    }

    #[test]
    fn json_values_behind_one_another() {
        let one = r#"{"apiVersion":"backstage.io/v1alpha1","kind":"Group","metadata":{"name":"a"},"spec":{"type":"team","children":[]}}"#;
        check(&format!("{one}\n{one}"), &["group:default/a", "group:default/a"]);
        check(
            &format!("{one}\n\n{{\"kind\":1}}\n{one}"),
            &["group:default/a", "group:default/a", "f.yaml:3: document 2, field metadata: "],
        );
        check(&format!("{one}\n{{\"a\":"), &["group:default/a", "f.yaml:2: document 2: EOF"]);
        check("{kind: Component, metadata: {name: x}}", &["f.yaml:1: document 1"]);
    }
}
