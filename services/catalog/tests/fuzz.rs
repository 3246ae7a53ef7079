//! Any input is answered: YAML, JSON, refs, URLs, filter texts and events, without a crash and without a hang.
//!
//! Each target runs for two seconds, or for CALLBOARD_FUZZ_SECONDS: 600 makes an hour of the six. It prints its seed; CALLBOARD_FUZZ_SEED repeats it.
//! An input that has failed once goes into `tests/fuzz/<target>.txt`, one a line with `\n` escaped, and is tried first ever after.

use catalog::documents::parse_documents;
use catalog::entity::{Limits, parse_entity};
use catalog::entity_ref::EntityRef;
use catalog::field_line::field_line;
use catalog::filter::Filter;
use catalog::git_url::{HostKind, raw_url};
use catalog::location::LocationRef;
use catalog::model::BUILTIN_SCHEMAS;
use catalog::placeholders;
use catalog::predicate::Predicate;
use catalog::process::{Model, process};
use catalog::reading::{normal_path, targets};
use catalog::search::search_rows;
use catalog::stitch::{StitchInput, stitch};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// An input that takes longer hangs; the program is a debug build on a busy machine.
const HANG: Duration = Duration::from_secs(10);

static MODEL: LazyLock<Model> = LazyLock::new(Model::builtin);

/// Tries what has failed before, then inputs of the strategy until the time is over.
fn fuzz(target: &str, inputs: impl Strategy<Value = String>, answer: fn(&str)) {
    let timed = |input: &str| {
        let begun = Instant::now();
        answer(input);
        let took = begun.elapsed();
        assert!(took < HANG, "{target}: {input:?} took {took:?}");
    };
    let corpus = format!("{}/tests/fuzz/{target}.txt", env!("CARGO_MANIFEST_DIR"));
    for line in std::fs::read_to_string(corpus).unwrap_or_default().lines() {
        timed(&line.replace("\\n", "\n"));
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
    let seed = number("CALLBOARD_FUZZ_SEED").unwrap_or(now);
    println!("{target}: seed {seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let end = Instant::now() + Duration::from_secs(number("CALLBOARD_FUZZ_SECONDS").unwrap_or(2));
    let mut tried = 0_u64;
    while Instant::now() < end {
        let input = inputs.new_tree(&mut runner).expect("a strategy that rejects nothing").current();
        // A panic says where it was; this says with what.
        let guard = Shown { target, input: &input };
        timed(&input);
        std::mem::forget(guard);
        tried += 1;
    }
    println!("{target}: {tried} inputs");
    assert!(tried > 10, "{target} was tried");
}

/// Shows its input if the answer to it panics.
struct Shown<'a> {
    target: &'a str,
    input: &'a str,
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: failed with {:?}", self.target, self.input);
        }
    }
}

/// Texts of the corpus with pieces cut, doubled, replaced and put in; and texts of nothing but pieces.
fn mutated(corpus: Vec<String>, pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    let piece = || proptest::sample::select(pieces.to_vec()).prop_map(str::to_owned);
    let any_piece = || prop_oneof![8 => piece(), 1 => any::<String>(), 1 => any::<char>().prop_map(String::from)];
    let edits = proptest::collection::vec((any::<u16>(), 0_usize..20, any_piece(), any::<bool>()), 1..8);
    let changed = (proptest::sample::select(corpus), edits).prop_map(|(mut text, edits)| {
        for (place, length, piece, doubles) in edits {
            let mut start = usize::from(place) % (text.len() + 1);
            let mut end = (start + length).min(text.len());
            while !text.is_char_boundary(start) {
                start -= 1;
            }
            while !text.is_char_boundary(end) {
                end += 1;
            }
            let replaced = if doubles { text[start..end].repeat(2) + &piece } else { piece };
            text.replace_range(start..end, &replaced);
        }
        text
    });
    let built = proptest::collection::vec(any_piece(), 0..40).prop_map(|pieces| pieces.concat());
    prop_oneof![2 => changed, 1 => built]
}

/// The examples of the built-in kinds, as JSON.
fn examples() -> Vec<String> {
    let schemas = BUILTIN_SCHEMAS.iter().map(|(_, text)| serde_json::from_str::<Value>(text).expect("built in"));
    schemas
        .flat_map(|schema| schema["examples"].as_array().cloned().unwrap_or_default())
        .map(|one| one.to_string())
        .collect()
}

const YAML: &[&str] = &[
    "---",
    "\n",
    "...",
    ": ",
    "- ",
    "? ",
    "&a ",
    "*a",
    "<<: ",
    "|",
    ">",
    "|2-",
    "{",
    "}",
    "[",
    "]",
    ",",
    "\"",
    "'",
    "#",
    "!t ",
    "!!binary ",
    "%YAML 1.1",
    "~",
    "null",
    "0x",
    "1e400",
    ".inf",
    "  ",
    "\t",
    "\u{feff}",
    "\r\n",
    "\u{85}",
    "\u{2028}",
    "a",
    "a: &b [*b]",
    "\\x00",
    "\"\\ud800\"",
    "*nobody",
];

#[test]
fn yaml() {
    let corpus = vec![
        "apiVersion: v1\nkind: Component\nmetadata:\n  name: web\n  tags: [a, b]\nspec: {type: x}\n---\nb: |\n  text\n"
            .to_owned(),
        "a: &x {b: [1, 2]}\nc: *x\n<<: *x\n? d\n: e\n".to_owned(),
    ];
    fuzz("yaml", mutated(corpus, YAML), |text| {
        for document in parse_documents(text) {
            assert!(document.line >= 1);
            for pointer in ["/metadata/name", "/a/b/0", ""] {
                let _ = field_line(text, &document, pointer);
            }
        }
    });
}

const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "null",
    "true",
    "1e999",
    "-0",
    "0.1",
    "12345678901234567890",
    "\"$text\":",
    "\"relations\":",
    "\"status\":",
    "\"annotations\":",
    "\"backstage.io/managed-by-location\":\"url:",
    "{\"$yaml\":\"./a\"}",
    " ",
    "\n",
    "é",
    "\u{0}",
    "İ",
    "ß",
];

#[test]
fn events() {
    fuzz("events", mutated(examples(), JSON), |text| {
        let Ok(unprocessed) = parse_entity(text.as_bytes(), &Limits::default()) else { return };
        let Ok(processed) = process(&MODEL, &unprocessed, "catalog.events.p") else { return };
        let entity_ref = unprocessed.entity_ref.to_string();
        let again = catalog::entity::Unprocessed { entity: processed.entity.clone(), ..unprocessed };
        assert!(process(&MODEL, &again, "").is_err(), "what is processed has relations, which a source may not have");
        let _ = search_rows(&processed.entity);
        let incoming = vec![("ownedBy".to_owned(), entity_ref.clone())];
        let input = StitchInput {
            processed: processed.entity,
            entity_ref: &entity_ref,
            uid: "u",
            incoming,
            error: None,
            orphan: true,
        };
        let _ = stitch(input);
    });
}

#[test]
fn json() {
    let corpus = vec![
        r#"{"$all": [{"kind": "component"}, {"$not": {"spec.type": {"$in": ["a", 1]}}}, {"relations": {"$contains": {"type": "ownedBy"}}}]}"#.to_owned(),
        r#"{"kind": "Location", "spec": {"type": "url", "targets": ["./a", "/b"], "presence": "optional", "x": {"$text": "./t"}}}"#.to_owned(),
    ];
    fuzz("json", mutated(corpus, JSON), |text| {
        let Ok(value) = serde_json::from_str::<Value>(text) else { return };
        let _ = Predicate::parse(&value);
        let Value::Object(mut entity) = value else { return };
        // What is a placeholder itself has no kind, and is no entity.
        if entity.keys().any(|key| key.starts_with('$')) {
            return;
        }
        let own = LocationRef { location_type: "url".to_owned(), target: "https://h.example/a/b.yaml".to_owned() };
        let _ = targets(&entity, &own);
        let found = placeholders::find(&mut entity).unwrap_or_default();
        assert_eq!(placeholders::any(&entity), !found.is_empty() || placeholders::find(&mut entity).is_err());
        for placeholder in &found {
            let _ = (placeholder.url(&own.target), placeholder.content(text));
        }
        placeholders::replace(&mut entity, found.iter().map(|_| Value::Null).collect());
        assert!(!placeholders::any(&entity) || found.is_empty());
    });
}

const REFS: &[&str] = &[
    ":",
    "/",
    "a",
    "A",
    "default",
    "component",
    " ",
    "\u{0}",
    "é",
    "İ",
    "url",
    "file",
    "javascript",
    "\t",
    "..",
    ".",
    "-",
    "%2e",
];

#[test]
fn refs() {
    let corpus =
        vec!["component:default/web".to_owned(), "url:https://h.example/a".to_owned(), "/srv/./a/../b".to_owned()];
    fuzz("refs", mutated(corpus, REFS), |text| {
        if let Ok(parsed) = EntityRef::parse_with(text, Some("Component"), "default") {
            assert_eq!(
                parsed,
                EntityRef::of(&parsed.kind, &parsed.namespace, &parsed.name),
                "{text:?} is lower-cased once"
            );
        }
        if let Ok(location) = LocationRef::parse(text) {
            assert_eq!(LocationRef::parse(&location.to_string()).as_ref(), Ok(&location));
        }
        let path = normal_path(text);
        assert_eq!(normal_path(&path), path);
    });
}

const URLS: &[&str] = &[
    "https://",
    "github.com",
    "/blob/",
    "/-/blob/",
    "/_git/",
    "?path=",
    "%2F",
    "%2e%2e",
    "%252e",
    "..",
    ".",
    "/",
    "\\",
    "#",
    "@",
    ":",
    "&version=GB",
    "src",
    "tree",
    "a",
    "é",
    "\u{0}",
    "%",
    "%zz",
    "[::1]",
    "127.1",
];

#[test]
fn urls() {
    let corpus = vec![
        "https://github.com/o/r/blob/main/d/c.yaml".to_owned(),
        "https://gitlab.com/g/p/-/blob/main/c.yaml".to_owned(),
        "https://dev.azure.com/o/p/_git/r?path=%2Fc.yaml&version=GBmain".to_owned(),
    ];
    fuzz("urls", mutated(corpus, URLS), |text| {
        for kind in [HostKind::GitHub, HostKind::GitHubRaw, HostKind::GitLab, HostKind::Bitbucket, HostKind::Azure] {
            let Ok(raw) = raw_url(text, kind, "https://api.example/v1") else { continue };
            assert!(raw.starts_with("https://api.example/v1/"), "{text:?} leads to {raw}");
            let path = raw.split('?').next().unwrap_or_default();
            assert!(path.split('/').all(|part| part != ".." && part != "."), "{text:?} climbs: {raw}");
        }
    });
}

const FILTERS: &[&str] = &[
    "=",
    ",",
    "kind",
    "component",
    "metadata.annotations.a/b",
    " ",
    "&",
    "*",
    "é",
    "\u{0}",
    "=,=",
    ",,",
    "relations.ownedBy",
];

#[test]
fn filters() {
    let corpus = vec!["kind=component,spec.type=service".to_owned(), "metadata.tags.java".to_owned()];
    fuzz("filters", mutated(corpus, FILTERS), |text| {
        let _ = Filter::parse(&[text.to_owned()]);
        let _ = Filter::parse(&text.split('&').map(str::to_owned).collect::<Vec<_>>());
    });
}
