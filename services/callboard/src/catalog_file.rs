//! What decides how entities are processed: the catalog file, the directory of kinds, and the settings about reading, as parts of the pipeline.

use crate::config::Config;
use crate::failure::Failure;
use crate::units::parse_duration;
use catalog::model::{BUILTIN_RELATIONS, BUILTIN_SCHEMAS, CustomFormat, Model};
use catalog::rules::{Rule, Rules};
use outside::{Host, Limits, Outside, Sources};
use processor::{EvaluationLimits, ExternalConfig, Parts};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The most that the catalog file, or a file of a kind, may hold, in bytes.
const FILE_BYTES: u64 = 1 << 20;
/// The most files of kinds.
const KIND_FILES: usize = 1000;

/// The file that `catalog_file` names; each part may be left out.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CatalogFile {
    /// What may be read outside.
    read: Sources,
    /// Which kinds may come from which locations, in place of the default rules.
    rules: Option<Vec<Rule>>,
    /// Services that are asked over NATS, in this order.
    processors: Vec<ExternalProcessor>,
    /// Formats of fields, in place of the built-in ones.
    formats: BTreeMap<String, CustomFormat>,
}

/// A service that is asked about entities.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExternalProcessor {
    name: String,
    subject: String,
    kinds: Vec<String>,
    /// How long an answer may take [default: 5s].
    #[serde(default)]
    timeout: Option<String>,
    /// Questions at once from each processor [default: 8].
    #[serde(default)]
    at_once: Option<usize>,
    /// Another one: its entities are processed again.
    #[serde(default)]
    version: String,
}

/// What the pipeline is made of.
///
/// # Errors
/// [`Failure::Usage`]: which file or setting is wrong, and why.
pub fn parts(config: &Config) -> Result<Parts, Failure> {
    let file = catalog_file(config)?;
    let external = file.processors.into_iter().map(external).collect::<Result<_, _>>()?;
    let rules = file.rules.map_or_else(|| Ok(Rules::default()), Rules::new).map_err(Failure::usage)?;
    let limits = Limits {
        bytes: config.read_max_bytes,
        timeout: config.read_timeout,
        at_once: config.read_concurrency,
        at_once_per_host: config.read_host_concurrency,
    };
    let mut sources = file.read;
    sources.hosts.extend(listed(&config.read_hosts).map(|host| Host { host: host.to_owned(), ..Host::default() }));
    sources.files.extend(listed(&config.read_files).map(PathBuf::from));
    Ok(Parts {
        model: Arc::new(model_with(config, &file.formats)?),
        rules,
        outside: Outside::new(&sources, limits).map_err(Failure::usage)?,
        external,
        own: Vec::new(),
        limits: EvaluationLimits::default(),
    })
}

/// The kinds and formats alone, for what checks entities before they are published.
///
/// # Errors
/// As [`parts`].
pub fn model(config: &Config) -> Result<Model, Failure> {
    model_with(config, &catalog_file(config)?.formats)
}

fn listed(list: &Option<String>) -> impl Iterator<Item = &str> {
    list.iter().flat_map(|list| list.split(',')).map(str::trim).filter(|one| !one.is_empty())
}

fn catalog_file(config: &Config) -> Result<CatalogFile, Failure> {
    let Some(path) = &config.catalog_file else { return Ok(CatalogFile::default()) };
    let refuse = |what: String| Failure::Usage(format!("catalog_file {}: {what}", path.display()));
    let text = read(path).map_err(refuse)?;
    let documents = catalog::documents::parse_documents(&text);
    let content = match documents.as_slice() {
        [] => return Ok(CatalogFile::default()),
        [one] => one.content.clone().map_err(|error| refuse(error.to_string()))?,
        _ => return Err(refuse(format!("expected one YAML document, found {}", documents.len()))),
    };
    let Value::Object(_) = content else {
        return Err(refuse("expected a YAML mapping of read, rules, processors and formats".to_owned()));
    };
    serde_json::from_value(content).map_err(|error| refuse(error.to_string()))
}

fn external(given: ExternalProcessor) -> Result<ExternalConfig, Failure> {
    let ExternalProcessor { name, subject, kinds, timeout, at_once, version } = given;
    let range = Duration::from_millis(10)..=Duration::from_secs(60);
    let timeout = timeout.as_deref().map_or(Ok(Duration::from_secs(5)), parse_duration);
    let timeout = timeout.map_err(|error| Failure::Usage(format!("processor {name}: timeout: {error}")))?;
    if !range.contains(&timeout) {
        return Err(Failure::Usage(format!("processor {name}: timeout: expected 10ms to 60s")));
    }
    Ok(ExternalConfig { name, subject, kinds, timeout, at_once: at_once.unwrap_or(8), version })
}

/// The built-in kinds and those of the directory; a file of the name of a built-in one takes its place.
fn model_with(config: &Config, formats: &BTreeMap<String, CustomFormat>) -> Result<Model, Failure> {
    let own = config.kinds_dir.as_deref().map_or(Ok(Vec::new()), kind_files)?;
    let (mut schemas, mut relations) = (BUILTIN_SCHEMAS.to_vec(), vec![BUILTIN_RELATIONS]);
    for (name, text) in &own {
        let list = if name.ends_with(".schema.json") { &mut schemas } else { &mut relations };
        list.push((name, text));
    }
    let model = Model::from_parts(&schemas, &relations).and_then(|model| model.with_formats(formats));
    model.map_err(Failure::usage)
}

fn kind_files(directory: &Path) -> Result<Vec<(String, String)>, Failure> {
    let refuse = |what: String| Failure::Usage(format!("kinds_dir {}: {what}", directory.display()));
    let entries = std::fs::read_dir(directory).map_err(|error| refuse(error.to_string()))?;
    let mut files = Vec::new();
    for entry in entries.take(KIND_FILES + 1) {
        let path = entry.map_err(|error| refuse(error.to_string()))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| name.ends_with(".json")) else {
            continue;
        };
        let text = read(&path).map_err(|what| refuse(format!("{name}: {what}")))?;
        files.push((name.to_owned(), text));
    }
    match files.len() > KIND_FILES {
        true => Err(refuse(format!("expected at most {KIND_FILES} files"))),
        false => Ok(files),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    match length > FILE_BYTES {
        true => Err(format!("expected at most {FILE_BYTES} bytes, found {length}")),
        false => std::fs::read_to_string(path).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, FromArgMatches};

    fn config(line: &[&str]) -> Config {
        let matches = crate::cli::Cli::command().try_get_matches_from([&["callboard", "up"], line].concat()).unwrap();
        crate::cli::Cli::from_arg_matches(&matches).unwrap().config
    }

    fn check(text: &str, expected: Result<(), &str>) {
        let file = std::env::temp_dir().join(format!("{}.yaml", servers::testing::fresh_name("callboard-catalog")));
        std::fs::write(&file, text).unwrap();
        let found = parts(&config(&["--catalog-file", file.to_str().unwrap()]));
        std::fs::remove_file(&file).unwrap();
        match (found.map(|_| ()), expected) {
            (Ok(()), Ok(())) => {}
            (Err(found), Err(expected)) => assert!(found.to_string().contains(expected), "{found}"),
            (found, expected) => panic!("{text}: {found:?} is not {expected:?}"),
        }
    }

    #[test]
    fn catalog_files() {
        check("", Ok(()));
        check("read: {hosts: [{host: github.com, paths: [/org]}], files: [/]}\nrules: []\n", Ok(()));
        check(
            "rules: [{allow: [A, {kind: B, spec.type: c}], locations: [{type: url, pattern: 'https://**'}]}]\n",
            Ok(()),
        );
        check("processors: [{name: a, subject: a.b, kinds: [Component], timeout: 2s}]\n", Ok(()));
        check("formats: {tag: {pattern: '[a-z]+', max_length: 10}}\n", Ok(()));
        check("hosts: []\n", Err("unknown field `hosts`"));
        check("read: {host: x}\n", Err("unknown field `host`"));
        check("read: {hosts: [{host: 'ftp://x'}]}\n", Err("scheme ftp"));
        check("read: {files: [relative]}\n", Err("expected an absolute path"));
        check("rules: [{allow: [A], locations: [{type: url, exact: a, pattern: b}]}]\n", Err("both exact and pattern"));
        check("processors: [{name: a, subject: a.b, kinds: [C], timeout: 2h}]\n", Err("expected 10ms to 60s"));
        check("formats: {tags: {pattern: a}}\n", Err("tags is no format"));
        check("- a\n", Err("expected a YAML mapping"));
        check("a: [\n", Err("catalog_file"));
    }

    #[test]
    fn the_commented_example_is_one() {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/examples/catalog.yaml");
        let text = std::fs::read_to_string(example).unwrap();
        check(&text, Ok(()));
    }

    #[test]
    fn kinds_of_a_directory() {
        let kinds = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/examples/kinds");
        let model = model(&config(&["--kinds-dir", kinds])).unwrap();
        assert_ne!(model.fingerprint(), Model::builtin().fingerprint());
        assert!(!model.relation_fields("Machine").is_empty());
        let error = super::model(&config(&["--kinds-dir", "/no/such/directory"])).err().unwrap();
        assert!(error.to_string().contains("kinds_dir /no/such/directory"), "{error}");
    }

    #[test]
    fn hosts_and_directories_as_settings() {
        assert!(
            parts(&config(&["--read-hosts", "github.com, http://127.0.0.1:8080", "--read-files", "/,/tmp"])).is_ok()
        );
        assert!(parts(&config(&["--read-hosts", "github.com:x"])).is_err());
        assert!(parts(&config(&["--read-files", "/no/such/directory"])).is_err());
    }
}
