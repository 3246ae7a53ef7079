//! What the index costs: built from generated entities, asked, changed while it is asked. `cargo bench -p reader --bench index -- 1000000`
//!
//! The entities are the load test's, processed and stitched; they are kept in a file of the temporary directory, since making them takes longer than indexing them.
#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use bus::EntityMessage;
use catalog::{
    entity::parse_entity,
    predicate::Predicate,
    process::{Model, Processed, process},
    stitch::{StitchInput, stitch, uid},
};
use reader::{
    Memory, Place, Prepared,
    index::{Facet, OrderBy, Query, TextQuery},
};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 200;

fn main() {
    let count: usize = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(10_000);
    let file = entities(count);
    let idle = resident();
    let memory = Memory::default();
    let began = busy();
    let (mut refs, mut preparing, mut taking) = (Vec::new(), Duration::ZERO, Duration::ZERO);
    let mut lines = BufReader::new(File::open(&file).unwrap()).lines().map(Result::unwrap);
    loop {
        let messages: Vec<EntityMessage> = lines.by_ref().take(1000).map(|line| message(line, 1)).collect();
        let Some(first) = messages.first() else { break };
        refs.push(first.entity_ref.clone());
        refs.extend(messages.iter().skip(1).step_by((count / 10_000).max(1)).map(|message| message.entity_ref.clone()));
        let before = busy();
        let prepared: Vec<Prepared> = messages.into_iter().map(|message| memory.prepare(message)).collect();
        let between = busy();
        prepared.into_iter().for_each(|prepared| drop(memory.take(prepared)));
        preparing += between - before;
        taking += busy() - between;
    }
    println!(
        "{count} entities in {:.2?} of one core: {:.1?} each to work it out, without a lock, {:.1?} to take it; {} MiB, {} of them entities",
        busy() - began,
        preparing / count as u32,
        taking / count as u32,
        (resident() - idle) >> 20,
        memory.body_bytes() >> 20
    );
    let began = busy();
    memory.warm();
    println!("the usual views built in {:.2?}; {} MiB", busy() - began, (resident() - idle) >> 20);
    if std::env::args().any(|argument| argument == "--build") {
        return;
    }
    ask_all(&memory, &refs);
    println!("{} MiB with the views of these questions", (resident() - idle) >> 20);
    stream(&memory);
    change(&memory, &file);
}

fn ask_all(memory: &Memory, refs: &[String]) {
    let all = |filter: serde_json::Value| Query::of(Predicate::parse(&filter).unwrap());
    let two = all(json!({"kind": "component", "spec.lifecycle": "production"}));
    let three = all(json!({"kind": "component", "spec.lifecycle": "production", "metadata.tags": "java"}));
    let any = all(json!({"$any": [{"spec.type": "gateway"}, {"metadata.tags": "go"}]}));
    let by_name = [OrderBy { field: "metadata.name".into(), descending: false }];
    let text = |term: &str, fields: &[&str]| {
        let fields: Vec<String> = fields.iter().map(|field| field.to_string()).collect();
        Query { text: TextQuery::new(term, &fields), ..Query::default() }
    };
    let names = ["metadata.name", "metadata.title"];
    time("get", |round| memory.by_ref(&refs[round * 7 % refs.len()]).unwrap().encoded().as_bytes().len());
    time("page of 20, two predicates", |_| page(memory, &two, &[], 20));
    time("page of 20, three predicates", |_| page(memory, &three, &[], 20));
    time("ordered page, two predicates", |_| page(memory, &two, &by_name, 20));
    time("ordered page of everything", |_| page(memory, &Query::default(), &by_name, 20));
    time("page, $any of two", |_| page(memory, &any, &[], 20));
    time("ordered page, $any of two", |_| page(memory, &any, &by_name, 20));
    time("count, two predicates", |_| count(memory, &two));
    time("count, prefix of a name", |_| {
        count(memory, &all(json!({"metadata.name": {"$hasPrefix": "billing-service-1"}})))
    });
    let six = ["kind", "spec.type", "spec.lifecycle", "metadata.tags", "metadata.namespace", "relations.ownedby"];
    time("six facets, two predicates", |_| six.iter().map(|key| facet(memory, key, &two)).sum());
    time("six facets, three predicates", |_| six.iter().map(|key| facet(memory, key, &three)).sum());
    for term in ["monitor-4711", "4711", "billing", "ing", "r"] {
        time(&format!("text {term:?} in name and title"), |_| count(memory, &text(term, &names)));
        time(&format!("text {term:?} in name and title, page of 20"), |_| page(memory, &text(term, &names), &[], 20));
    }
    for term in ["4711", "billing"] {
        time(&format!("text {term:?} anywhere"), |_| count(memory, &text(term, &[])));
    }
    time("relations, depth 3", |round| traverse(memory, &refs[round * 7 % refs.len()]));
}

/// Prints how long it took the first time, and then at the median and at the 99th percentile.
fn time(what: &str, mut work: impl FnMut(usize) -> usize) {
    let mut took: Vec<Duration> = Vec::new();
    let mut result = 0;
    for round in 0..=ROUNDS {
        let started = Instant::now();
        result = work(round);
        took.push(started.elapsed());
    }
    let first = took.remove(0);
    took.sort_unstable();
    println!(
        "{what:<48} {:>9.3?} {:>9.3?}  first {first:>9.3?}  ({result})",
        took[ROUNDS / 2],
        took[ROUNDS * 99 / 100]
    );
}

fn page(memory: &Memory, query: &Query, order: &[OrderBy], size: usize) -> usize {
    let (mut matches, mut found) = (0, Vec::new());
    for segment in memory.segments() {
        matches += segment.read().unwrap().add_page(&mut found, query, order, None, size);
    }
    let bytes: usize = found.iter().map(|placed| placed.stored.encoded().as_bytes().len()).sum();
    matches + bytes / usize::MAX
}

fn count(memory: &Memory, query: &Query) -> usize {
    memory.segments().iter().map(|segment| segment.read().unwrap().matching(query).len()).sum()
}

fn facet(memory: &Memory, key: &str, query: &Query) -> usize {
    let mut facet = Facet::default();
    for segment in memory.segments() {
        let segment = segment.read().unwrap();
        let docs = segment.matching(query);
        facet.add(&segment, key, Some(&docs));
    }
    facet.into_counts().len()
}

fn traverse(memory: &Memory, entity_ref: &str) -> usize {
    let mut reached = vec![entity_ref.to_owned()];
    let (mut from, mut depth) = (0, 0);
    while depth < 3 && reached.len() < 1000 {
        let end = reached.len();
        for place in from..end {
            let Some(stored) = memory.by_ref(&reached[place]) else { continue };
            for (_, target) in stored.relations().into_iter().take(10) {
                if !reached.contains(&target) {
                    reached.push(target);
                }
            }
        }
        (from, depth) = (end, depth + 1);
    }
    reached.len()
}

fn stream(memory: &Memory) {
    let started = Instant::now();
    let (mut from, mut entities, mut bytes) = (Some(Place::default()), 0, 0);
    while let Some(place) = from {
        let (found, next) = memory.matching_from(&Query::default(), place, 1000);
        entities += found.len();
        bytes += found.iter().map(|(_, stored)| stored.encoded().as_bytes().len()).sum::<usize>();
        from = next;
    }
    println!("{entities} entities, {} MiB of messages, one after the other in {:.2?}", bytes >> 20, started.elapsed());
}

/// 5,000 changes a second for some seconds, while pages are asked for.
fn change(memory: &Memory, file: &PathBuf) {
    let lines: Vec<String> =
        BufReader::new(File::open(file).unwrap()).lines().take(20_000).map(Result::unwrap).collect();
    let (ends, version) = (AtomicBool::new(false), AtomicU64::new(2));
    let lifecycle = |line: &str, round: u64| {
        line.replace("production", ["experimental", "deprecated"][round as usize % 2])
            .replace("title\":\"", &format!("title\":\"v{round} "))
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut busy, mut changes) = (Duration::ZERO, 0_u32);
            let started = Instant::now();
            while !ends.load(Relaxed) {
                let round = version.fetch_add(1, Relaxed);
                let message = message(lifecycle(&lines[changes as usize * 131 % lines.len()], round), round as i64);
                let began = Instant::now();
                memory.apply(message);
                busy += began.elapsed();
                changes += 1;
                let due = Duration::from_micros(200) * changes;
                std::thread::sleep(due.saturating_sub(started.elapsed()));
            }
            println!(
                "{:.0} changes/s, each {:.1?}",
                f64::from(changes) / started.elapsed().as_secs_f64(),
                busy / changes.max(1)
            );
        });
        let two = Query::of(Predicate::parse(&json!({"kind": "component", "spec.lifecycle": "production"})).unwrap());
        let by_name = [OrderBy { field: "metadata.name".into(), descending: false }];
        for _ in 0..10 {
            time("ordered page under changes", |_| page(memory, &two, &by_name, 20));
        }
        ends.store(true, Relaxed);
    });
}

fn message(body: String, version: i64) -> EntityMessage {
    let field = |name: &str| {
        let from = body.find(&format!("\"{name}\":\"")).unwrap() + name.len() + 4;
        body[from..].split('"').next().unwrap().to_lowercase()
    };
    EntityMessage {
        entity_ref: format!("{}:{}/{}", field("kind"), field("namespace"), field("name")),
        sequence: version as u64,
        version,
        revision: version,
        published: SystemTime::UNIX_EPOCH,
        body: Some(body.into()),
        parents: Vec::new(),
        unprocessed: None,
    }
}

/// A file of final entities, one a line.
fn entities(count: usize) -> PathBuf {
    let path = std::env::temp_dir().join(format!("callboard-entities-{count}.ndjson"));
    if path.exists() {
        return path;
    }
    let model = Model::builtin();
    let processed = |entity: serde_json::Value| -> (String, Processed) {
        let unprocessed = parse_entity(entity.to_string().as_bytes(), &Default::default()).ok().unwrap();
        (unprocessed.entity_ref.to_string(), process(&model, &unprocessed, "bench").unwrap())
    };
    let mut incoming: HashMap<String, Vec<(String, String)>> = HashMap::new();
    for entity in loadtest::generate(7, count) {
        for relation in processed(entity).1.foreign {
            incoming.entry(relation.source_ref).or_default().push((relation.relation_type, relation.target_ref));
        }
    }
    let unfinished = path.with_extension("part");
    let mut file = BufWriter::new(File::create(&unfinished).unwrap());
    for entity in loadtest::generate(7, count) {
        let (entity_ref, processed) = processed(entity);
        let stitched = stitch(StitchInput {
            processed: processed.entity,
            entity_ref: &entity_ref,
            uid: &uid("bench", &entity_ref, 1).to_string(),
            incoming: incoming.remove(&entity_ref).unwrap_or_default(),
            error: None,
            orphan: false,
        });
        file.write_all(&stitched.unwrap().body).unwrap();
        file.write_all(b"\n").unwrap();
    }
    file.flush().unwrap();
    std::fs::rename(&unfinished, &path).unwrap();
    path
}

/// What this thread has had of a core: others may be busy beside.
fn busy() -> Duration {
    let status = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(status.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).unwrap_or_default())
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or_default() * 4096
}
