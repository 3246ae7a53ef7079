//! The drawing of services/README.md, held against the manifests: arrows go down only.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each crate, and the inside crates that it may name.
const DRAWING: [(&str, &[&str]); 13] = [
    ("catalog", &[]),
    ("servers", &[]),
    ("api", &["catalog"]),
    ("bus", &["catalog"]),
    ("store", &["catalog"]),
    ("outside", &["catalog"]),
    ("processor", &["bus", "store", "outside", "catalog"]),
    ("stitcher", &["bus", "store", "catalog"]),
    ("scheduler", &["bus", "store", "catalog"]),
    ("reader", &["bus", "api", "catalog"]),
    ("loadtest", &["bus", "api", "catalog", "servers"]),
    ("sim", &["outside", "processor", "stitcher", "scheduler", "reader", "bus", "store", "api", "catalog", "servers"]),
    (
        "callboard",
        &["outside", "processor", "stitcher", "scheduler", "reader", "bus", "store", "api", "catalog", "servers"],
    ),
];

/// Outside crates, and the one crate that may name each.
const OWNED: [(&str, &str); 4] = [("sqlx", "store"), ("async-nats", "bus"), ("backoff", "bus"), ("reqwest", "outside")];

/// What would make a pure crate wait, look at a clock, or draw lots.
const IMPURE: [&str; 9] = ["tokio", "futures", "async-nats", "sqlx", "tonic", "axum", "rand", "time", "opentelemetry"];

/// The most inside dependencies a crate may have on average; what wires all of it together for tests alone is not counted.
const AVERAGE: f64 = 2.5;
const FOR_TESTS: &str = "sim";

#[test]
fn arrows_go_down_only() {
    let manifests = manifests();
    for (name, dependencies) in &manifests {
        let drawn = DRAWING.iter().find(|(known, _)| known == name);
        let (_, allowed) = drawn.unwrap_or_else(|| panic!("{name} is not in the drawing: put it where it belongs"));
        for inside in dependencies.iter().filter(|dependency| manifests.contains_key(*dependency)) {
            assert!(allowed.contains(&inside.as_str()), "{name} names {inside}; it may name {allowed:?}");
        }
    }
}

#[test]
fn what_one_crate_alone_may_name() {
    for (name, dependencies) in &manifests() {
        for (outside, owner) in OWNED {
            let is_named = dependencies.iter().any(|dependency| dependency == outside);
            assert!(!is_named || name == owner, "{name} names {outside}; only {owner} may");
        }
    }
}

#[test]
fn the_core_is_pure() {
    let manifests = manifests();
    let impure: Vec<&String> = manifests["catalog"].iter().filter(|name| IMPURE.contains(&name.as_str())).collect();
    assert!(impure.is_empty(), "catalog names {impure:?}");
}

#[test]
fn few_arrows() {
    let manifests = manifests();
    let inside = |dependencies: &Vec<String>| dependencies.iter().filter(|name| manifests.contains_key(*name)).count();
    let counted = || manifests.iter().filter(|(name, _)| *name != FOR_TESTS);
    let arrows: usize = counted().map(|(_, dependencies)| inside(dependencies)).sum();
    #[allow(clippy::cast_precision_loss, reason = "a dozen")]
    let average = arrows as f64 / counted().count() as f64;
    assert!(average <= AVERAGE, "{arrows} arrows between {} crates are {average:.2} a crate", counted().count());
}

/// Each crate of the workspace with what it names under `[dependencies]`.
fn manifests() -> BTreeMap<String, Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let crates = fs::read_dir(root.join("services")).unwrap().map(|entry| entry.unwrap().path());
    let all: Vec<PathBuf> = crates.chain([root.join("loadtest")]).map(|path| path.join("Cargo.toml")).collect();
    all.iter().filter(|path| path.is_file()).map(|path| read(&fs::read_to_string(path).unwrap())).collect()
}

fn read(manifest: &str) -> (String, Vec<String>) {
    let name = section(manifest, "[package]").find_map(|line| line.strip_prefix("name = ")).unwrap();
    let dependencies = section(manifest, "[dependencies]");
    let named = dependencies.filter_map(|line| line.split(['.', ' ', '=']).next()).map(str::to_owned);
    (name.trim_matches('"').to_owned(), named.collect())
}

fn section<'a>(manifest: &'a str, head: &'a str) -> impl Iterator<Item = &'a str> {
    let after = manifest.lines().skip_while(move |line| *line != head).skip(1);
    after.take_while(|line| !line.starts_with('[')).filter(|line| !line.is_empty() && !line.starts_with('#'))
}
