//! Locations that emit, let go and go, on the real database, with real files: what is shown, what is an orphan, what is gone.

use crate::due::{self, OrphanStrategy};
use crate::event::{Change, Event, upsert};
use crate::order_test::Random;
use crate::{Evaluation, Parts, Pipeline, Processor, emission, removal, testing};
use outside::{Limits, Outside, Sources};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// An installation whose Locations read the files of one directory.
struct Site {
    processor: Processor,
    directory: tempfile::TempDir,
    sequence: AtomicU64,
}

impl Site {
    async fn new(orphans: OrphanStrategy) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut processor = testing::processor("emit").await;
        let sources = Sources { files: vec![directory.path().to_owned()], ..Sources::default() };
        let outside = Outside::new(&sources, Limits::default()).expect("usable");
        let rules = serde_json::from_value(json!([{"allow": ["Component", "Location", "API"]}])).expect("rules");
        let rules = catalog::rules::Rules::new(rules).expect("usable");
        let parts = Parts { outside, rules, ..Parts::builtin() };
        processor.pipeline = Arc::new(Pipeline::new(parts, &processor.bus).expect("usable"));
        processor.config.reads.orphans = orphans;
        processor.config.reads.orphan_grace = Duration::ZERO;
        Site { processor, directory, sequence: AtomicU64::new(0) }
    }

    /// Writes a file: components and Locations, a word each: `a b` are two components, `>m=x.yaml,y.yaml` is the Location m of these targets.
    fn file(&self, name: &str, words: &str) {
        let documents: Vec<String> = words.split_whitespace().map(|word| document(word).to_string()).collect();
        std::fs::write(self.directory.path().join(name), documents.join("\n---\n")).expect("a file");
    }

    /// A provider's event: `+word` upsert, `-ref` delete, `*ref` refresh, `/ref` removal by an operator, `#file` refresh of the file's key.
    async fn event(&self, provider: &str, what: &str) {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        self.event_at(sequence, provider, what).await;
    }

    async fn event_at(&self, sequence: u64, provider: &str, what: &str) {
        let entity_ref = what[1..].to_owned();
        let (entity_ref, change) = match &what[..1] {
            "+" => {
                let mut entity = document(&what[1..]);
                let root = format!("file:{}/root.yaml", self.directory.path().display());
                entity["metadata"]["annotations"] =
                    json!({"backstage.io/managed-by-location": root, "backstage.io/managed-by-origin-location": root});
                let limits = catalog::entity::Limits::default();
                upsert(entity.to_string().as_bytes(), None, "t.events.p", &self.processor.pipeline, &limits)
                    .expect("it can be a claim")
            }
            "-" => (entity_ref, Change::Delete),
            "*" => (entity_ref, Change::Refresh),
            "/" => (entity_ref, Change::Remove),
            _ => {
                let key = format!("file:{}/{entity_ref}", self.directory.path().display());
                self.processor.store.ask_keys(&[key], sequence as i64).await.expect("the database answers");
                return;
            }
        };
        let source = format!("provider:{provider}");
        let event = Event { sequence, stored: 1, emitted: None, entity_ref, source, change };
        let (plan, request) = patiently(async || self.processor.decide_and_commit("fresh", &[&event]).await).await;
        self.processor.after_commit("fresh", &plan, request).await;
        self.processor.ask_for_reads(&plan, &[], &[]).await.expect("the database answers");
    }

    /// See [`check`].
    async fn run(&self, steps: &str) {
        for (number, step) in steps.split(';').map(str::trim).enumerate() {
            if let Some(expected) = step.strip_prefix('=') {
                self.settle().await;
                assert_eq!(self.shown().await, expected.trim(), "at step {number} of {steps}");
            } else if let Some((name, words)) = step.split_once(".yaml: ") {
                self.file(&format!("{name}.yaml"), words);
            } else {
                let (provider, event) = step.split_once(' ').expect("a provider and an event");
                self.event(provider, event).await;
            }
        }
    }

    /// Reads all that is due, and goes on with every removal, until nothing is left to do.
    async fn settle(&self) {
        for _ in 0..100 {
            let read = patiently(async || due::read_all(&self.processor).await).await;
            let removed = patiently(async || removal::turn(&self.processor).await).await;
            if read + removed == 0 {
                return;
            }
        }
        panic!("it does not settle");
    }

    /// What is shown, in order, a word each: name, then `?` for an orphan, `!` for an error.
    async fn shown(&self) -> String {
        let shown = self.rows().await;
        let word = |(entity_ref, shown): (String, store::Shown)| {
            let name = entity_ref.rsplit('/').next().unwrap_or_default().to_owned();
            let marks = [(shown.orphan, "?"), (shown.error.is_some(), "!")];
            name + &marks.iter().filter(|(is_so, _)| *is_so).map(|(_, mark)| *mark).collect::<String>()
        };
        let mut words: Vec<String> = shown.into_iter().map(word).collect();
        words.sort_unstable();
        words.join(" ")
    }

    async fn rows(&self) -> BTreeMap<String, store::Shown> {
        let ids: Vec<i64> = (1..1000).collect();
        let mut stitching = self
            .processor
            .store
            .stitch(&ids.iter().map(|id| (*id, store::WHATEVER)).collect::<Vec<_>>())
            .await
            .expect("nobody else locks");
        let shown = stitching.read_shown(&ids).await.expect("the database answers");
        let present = shown.into_iter().filter(|shown| shown.born.is_some() && shown.body.is_some());
        present.map(|shown| (shown.entity_ref.clone(), shown)).collect()
    }

    async fn born(&self, entity_ref: &str) -> Option<i64> {
        self.rows().await.get(entity_ref)?.born
    }
}

/// As a worker does: what another is in the way of is tried again.
async fn patiently<T>(attempt: impl AsyncFn() -> Result<T, store::Error>) -> T {
    for _ in 0..100 {
        match attempt().await {
            Err(store::Error::Collision(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
            other => return other.expect("the database answers"),
        }
    }
    panic!("collided a hundred times");
}

fn document(word: &str) -> Value {
    match word.strip_prefix('>').map(|word| word.split_once('=').unwrap_or((word, ""))) {
        None => json!({
            "apiVersion": "backstage.io/v1alpha1", "kind": "Component", "metadata": {"name": word},
            "spec": {"type": "service", "lifecycle": "production", "owner": "team", "dependsOn": ["component:default/other"]}
        }),
        Some((name, targets)) => {
            let targets: Vec<String> =
                targets.split(',').filter(|target| !target.is_empty()).map(|target| format!("./{target}")).collect();
            json!({
                "apiVersion": "backstage.io/v1alpha1", "kind": "Location", "metadata": {"name": name},
                "spec": {"type": "file", "targets": targets}
            })
        }
    }
}

/// Steps, separated by `;`: `file=words` writes a file, `p event` is a provider's event, `= words` settles and says what is shown then.
async fn check(orphans: OrphanStrategy, steps: &str) {
    Site::new(orphans).await.run(steps).await;
}

#[tokio::test]
async fn removal() {
    for steps in [
        // Four levels.
        "1.yaml: >l1=2.yaml; 2.yaml: >l2=3.yaml; 3.yaml: a; p +>root=1.yaml; = a l1 l2 root; p -location:default/root; =",
        // A diamond.
        "m.yaml: >m1=a.yaml >m2=a.yaml; a.yaml: a; p +>root=m.yaml; = a m1 m2 root; p -location:default/root; =",
        // Two roots of one child, of one provider or of two.
        "a.yaml: a; b.yaml: b; p +>r1=a.yaml,b.yaml; p +>r2=a.yaml; = a b r1 r2; p -location:default/r1; = a r2; p -location:default/r2; =",
        "m.yaml: >m=a.yaml; a.yaml: a; p +>r1=m.yaml; q +>r2=m.yaml; = a m r1 r2; p -location:default/r1; = a m r2; q -location:default/r2; =",
        // A circle below a root, and one that the root is part of.
        "a.yaml: >la=b.yaml; b.yaml: >lb=a.yaml x; p +>root=a.yaml; = la lb root x; p -location:default/root; =",
        "a.yaml: >la=r.yaml x; r.yaml: >root=a.yaml; p +>root=a.yaml; = la root x; p -location:default/root; =",
        // What a provider has too stays; a provider's deletion of what it did not send has no effect.
        "a.yaml: a; p +>root=a.yaml; =a root; q +a; = a root; p -location:default/root; = a; q -component:default/a; =",
        "a.yaml: a; p +>root=a.yaml; =a root; q -component:default/a; = a root",
        // The root is there again before its children are gone.
        "a.yaml: a; p +>root=a.yaml; = a root; p -location:default/root; p +>root=a.yaml; = a root",
    ] {
        check(OrphanStrategy::Delete, steps).await;
    }
}

#[tokio::test]
async fn orphans() {
    use OrphanStrategy::{Delete, Keep};
    for (strategy, steps) in [
        (Delete, "a.yaml: a b; p +>root=a.yaml; = a b root; a.yaml: a; p *location:default/root; = a root"),
        (
            Keep,
            "a.yaml: a b; p +>root=a.yaml; = a b root; a.yaml: a; p *location:default/root; = a b? root; a.yaml: a b; p *location:default/root; = a b root",
        ),
        (Delete, "l.yaml: >l=m.yaml; m.yaml: >m=a.yaml; a.yaml: a; p +>root=l.yaml; = a l m root; p +>root; = root"),
        (
            Keep,
            "l.yaml: >l=m.yaml; m.yaml: >m=a.yaml; a.yaml: a; p +>root=l.yaml; = a l m root; p +>root; = a l? m root",
        ),
        (Keep, "l.yaml: >l=a.yaml; a.yaml: a; p +>root=l.yaml; = a l root; p -location:default/root; ="),
        // Another parent holds it; a circle does not.
        (Delete, "a.yaml: a; p +>r1=a.yaml; p +>r2=a.yaml; = a r1 r2; p +>r1; = a r1 r2; p +>r2; = r1 r2"),
        (Delete, "a.yaml: >la=b.yaml x; b.yaml: >lb=a.yaml y; p +>root=a.yaml; = la lb root x y; p +>root; = root"),
        (
            Keep,
            "a.yaml: >la=b.yaml x; b.yaml: >lb=a.yaml y; p +>root=a.yaml; = la lb root x y; p +>root; = la? lb? root x? y",
        ),
        // A parent that fails keeps its children.
        (
            Delete,
            "a.yaml: a; p +>root=a.yaml; = a root; a.yaml: >; p *location:default/root; = a root!; a.yaml: b; p *location:default/root; = b root",
        ),
        // An orphan that a provider without a key claims stays what it is while it stays; then the provider's shows.
        (Keep, "a.yaml: a; p +>root=a.yaml; = a root; p +>root; = a? root; q +a; = a? root"),
        (Delete, "a.yaml: a; p +>root=a.yaml; = a root; p +>root; q +a; = a root"),
    ] {
        check(strategy, steps).await;
    }
}

#[tokio::test]
async fn refreshes() {
    for steps in [
        "a.yaml: a; p +>root=a.yaml; = a root; a.yaml: b; p *component:default/a; = b root",
        "a.yaml: a; p +>root=a.yaml; = a root; a.yaml: b; p #a.yaml; = b root",
        "a.yaml: a; p +>root=a.yaml; = a root; a.yaml: b; p #else.yaml; = a root",
        // Emits itself: ignored. Two Locations of one entity: the first keeps it, the other takes over.
        "a.yaml: >root=a.yaml x; p +>root=a.yaml; = root x",
        "a.yaml: a; b.yaml: a; p +>r1=a.yaml; = a r1; p +>r2=b.yaml; = a r1 r2; a.yaml: z; p *location:default/r1; = a r1 r2 z",
        // Of two claims on one Location the one that is shown emits, and the other at once when it takes over.
        "a.yaml: a; b.yaml: b; p +>root=a.yaml; q +>root=b.yaml; = b root; q -location:default/root; = a root",
    ] {
        check(OrphanStrategy::Delete, steps).await;
    }
}

#[tokio::test]
async fn what_is_not_read_yet_hides_nothing() {
    let site = Site::new(OrphanStrategy::Delete).await;
    site.file("a.yaml", "a");
    site.event("p", "+>root=a.yaml").await;
    assert_eq!(site.shown().await, "", "nothing was read yet");
    site.settle().await;
    assert_eq!(site.shown().await, "a root");
    let before = site.rows().await["location:default/root"].body.clone();
    site.event("p", "+>root=missing.yaml").await;
    assert_eq!(site.shown().await, "a root");
    assert_eq!(site.rows().await["location:default/root"].body, before, "the last good version stays");
    site.settle().await;
    assert_eq!(site.shown().await, "a root!");
    assert_eq!(site.rows().await["location:default/root"].body, before);
}

#[tokio::test]
async fn an_entity_that_comes_back_is_a_new_one_unless_it_was_an_orphan() {
    for (strategy, is_kept) in [(OrphanStrategy::Delete, false), (OrphanStrategy::Keep, true)] {
        let site = Site::new(strategy).await;
        site.file("a.yaml", "a");
        site.event("p", "+>root=a.yaml").await;
        site.settle().await;
        let born = site.born("component:default/a").await;
        site.event("p", "+>root").await;
        site.settle().await;
        site.event("p", "+>root=a.yaml").await;
        site.settle().await;
        assert_eq!(site.born("component:default/a").await == born, is_kept, "{strategy:?}");
    }
}

#[tokio::test]
async fn a_read_is_committed_once_and_only_for_what_stands() {
    let site = Site::new(OrphanStrategy::Delete).await;
    site.file("a.yaml", "a");
    site.event("p", "+>root=a.yaml").await;
    let take =
        async || site.processor.store.take_reads("fresh", 10, Duration::ZERO).await.expect("the database answers");
    let first = take().await.remove(0);
    let evaluation = async |due: &store::DueRead| {
        let asked = crate::Due { source: &due.source, raw: &due.raw, provider_subject: "t.events.p", notes: None };
        site.processor.pipeline.evaluate(&asked).await
    };
    let slow = evaluation(&first).await;
    // The first one's lease is over, and another reads a newer file.
    site.file("a.yaml", "b");
    let second = take().await.remove(0);
    assert_eq!(second.lease, first.lease + 1);
    let newer = evaluation(&second).await;
    assert_eq!(due::settle(&site.processor, &second, newer).await.unwrap(), emission::Settled::Done);
    assert_eq!(due::settle(&site.processor, &first, slow).await.unwrap(), emission::Settled::Outdated);
    assert_eq!(site.shown().await, "b root");
    // The claim is withdrawn while it is read.
    site.event("p", "*location:default/root").await;
    let third = take().await.remove(0);
    let gone = evaluation(&third).await;
    assert!(matches!(&gone, Evaluation::Changed(_)));
    site.event("p", "-location:default/root").await;
    assert_eq!(due::settle(&site.processor, &third, gone).await.unwrap(), emission::Settled::Outdated);
    site.settle().await;
    assert_eq!(site.shown().await, "");
}

#[tokio::test]
async fn a_refresh_during_a_read_reads_again() {
    let site = Site::new(OrphanStrategy::Delete).await;
    site.file("a.yaml", "a");
    site.event("p", "+>root=a.yaml").await;
    let due = site.processor.store.take_reads("fresh", 10, Duration::from_secs(60)).await.unwrap().remove(0);
    let asked = crate::Due { source: &due.source, raw: &due.raw, provider_subject: "t.events.p", notes: None };
    let evaluation = site.processor.pipeline.evaluate(&asked).await;
    site.file("a.yaml", "b");
    site.event("p", "*location:default/root").await;
    assert_eq!(due::read_all(&site.processor).await.unwrap(), 0, "another reads it");
    due::settle(&site.processor, &due, evaluation).await.unwrap();
    assert_eq!(site.shown().await, "a root");
    site.settle().await;
    assert_eq!(site.shown().await, "b root");
}

#[tokio::test]
async fn the_watermark_waits_for_removals() {
    let site = Site::new(OrphanStrategy::Delete).await;
    site.file("a.yaml", "a");
    site.event("p", "+>root=a.yaml").await;
    site.settle().await;
    site.event("p", "-location:default/root").await;
    site.processor.store.raise_floor(9).await.unwrap();
    let stream = site.processor.bus.names().stitch_stream();
    let position = site.processor.store.stream_position(&stream).await.unwrap().unwrap();
    let stitched = async || {
        site.processor.store.delete_published(u64::MAX, position.life(&stream)).await.unwrap();
        site.processor.store.watermark().await.unwrap()
    };
    assert_eq!(stitched().await, 1, "its children are there still");
    assert_eq!(removal::turn(&site.processor).await.unwrap(), 1);
    assert_eq!(site.shown().await, "");
    assert_eq!(site.processor.store.watermark().await.unwrap(), 1, "their deletion is not stitched");
    site.settle().await;
    assert_eq!(stitched().await, 9);
}

/// What an operator removes comes back as a new entity if something still emits it; what that emits stays.
#[tokio::test]
async fn an_operator_removes_an_entity() {
    for (steps, removed, kept) in [
        ("a.yaml: a; p +>root=a.yaml", "component:default/a", "location:default/root"),
        ("m.yaml: >m=a.yaml; a.yaml: a; p +>root=m.yaml", "location:default/m", "component:default/a"),
    ] {
        let mut site = Site::new(OrphanStrategy::Delete).await;
        site.processor.config.reads.orphan_grace = Duration::from_secs(60);
        site.run(steps).await;
        site.settle().await;
        let before = (site.born(removed).await, site.born(kept).await);
        site.event("operator", &format!("/{removed}")).await;
        assert_eq!(site.born(removed).await, None, "it is gone until it is read again");
        site.settle().await;
        let after = (site.born(removed).await, site.born(kept).await);
        assert!(after.0.is_some() && after.0 != before.0, "{removed} is a new one: {before:?}, {after:?}");
        assert_eq!(after.1, before.1, "{kept}");
    }
    check(
        OrphanStrategy::Delete,
        "a.yaml: a; p +>root=a.yaml; p +b; = a b root; operator /component:default/b; = a root; p +b; = a b root",
    )
    .await;
    check(OrphanStrategy::Delete, "a.yaml: a; p +>root=a.yaml; = a root; operator /location:default/root; =").await;
}

/// Roots come, change and go, files change, and several processors read, emit and remove at once: in the end there is what the roots reach, and nothing else.
#[tokio::test]
async fn whatever_happens_at_once_what_is_reached_is_there() {
    let seeds = std::env::var("CALLBOARD_TEST_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(3);
    for seed in 1..=seeds {
        println!("seed {seed}");
        chance(Random(0xc0ffee + seed)).await;
    }
}

const FILES: u64 = 6;

async fn chance(mut random: Random) {
    let site = Site::new(OrphanStrategy::Delete).await;
    let (mut files, mut roots) = (BTreeMap::new(), BTreeMap::new());
    for file in 0..FILES {
        write_file(&site, file, &mut files, &mut random);
    }
    let is_over = std::cell::Cell::new(false);
    let work = async || {
        while !is_over.get() {
            patiently(async || due::read_all(&site.processor).await).await;
            patiently(async || removal::turn(&site.processor).await).await;
        }
    };
    let events = async {
        for _ in 0..80 {
            let root = format!("r{}", random.below(3));
            match random.below(4) {
                0 => write_file(&site, random.below(FILES), &mut files, &mut random),
                1 => {
                    site.event("p", &format!("-location:default/{root}")).await;
                    roots.remove(&root);
                }
                2 => site.event("p", &format!("*location:default/l{}", random.below(FILES))).await,
                _ => {
                    let targets = some_files(&mut random);
                    site.event("p", &format!("+>{root}={targets}")).await;
                    roots.insert(root, targets);
                }
            }
        }
        is_over.set(true);
    };
    tokio::join!(work(), work(), events);
    // Files may have changed since they were last read; what is read now may name others.
    for round in 0..3 {
        for name in (0..FILES).map(|file| format!("l{file}")).chain(roots.keys().cloned()) {
            site.event("p", &format!("*location:default/{name}")).await;
        }
        site.settle().await;
        if site.shown().await == reached(&roots, &files) {
            return;
        }
        println!("round {round}: not yet");
    }
    assert_eq!(site.shown().await, reached(&roots, &files), "roots {roots:?}, files {files:?}");
}

/// Some of the files, as the targets of a Location.
fn some_files(random: &mut Random) -> String {
    let targets: Vec<String> = (0..random.below(3)).map(|_| format!("f{}.yaml", random.below(FILES))).collect();
    targets.join(",")
}

/// A file of one component, which other files may have too, and perhaps a Location of its own, which may lead back.
fn write_file(site: &Site, file: u64, files: &mut BTreeMap<String, String>, random: &mut Random) {
    let mut words = format!("c{}", random.below(8));
    if random.below(2) == 0 {
        words += &format!(" >l{file}={}", some_files(random));
    }
    let name = format!("f{file}.yaml");
    site.file(&name, &words);
    files.insert(name, words);
}

/// What the roots reach.
fn reached(roots: &BTreeMap<String, String>, files: &BTreeMap<String, String>) -> String {
    let mut found: std::collections::BTreeSet<String> = roots.keys().cloned().collect();
    let mut targets: Vec<&str> = roots.values().flat_map(|targets| targets.split(',')).collect();
    let mut seen = std::collections::BTreeSet::new();
    while let Some(target) = targets.pop() {
        if target.is_empty() || !seen.insert(target) {
            continue;
        }
        for word in files[target].split_whitespace() {
            let (name, more) = word.strip_prefix('>').and_then(|word| word.split_once('=')).unwrap_or((word, ""));
            found.insert(name.to_owned());
            targets.extend(more.split(','));
        }
    }
    found.into_iter().collect::<Vec<_>>().join(" ")
}

/// Knows the kind Machine, and says of a person that a machine is theirs; or fails, when it is told to.
struct Machines(Arc<std::sync::atomic::AtomicBool>);

impl crate::EntityProcessor for Machines {
    fn name(&self) -> &str {
        "machines"
    }

    fn needs_outside(&self, entity: &serde_json::Map<String, Value>) -> bool {
        entity["kind"] == "Machine"
    }

    fn may_change_by_itself(&self, entity: &serde_json::Map<String, Value>) -> bool {
        self.needs_outside(entity)
    }

    fn validate_kind<'a>(
        &'a self,
        entity: serde_json::Map<String, Value>,
        run: &'a mut crate::Run<'_>,
    ) -> crate::Step<'a, (serde_json::Map<String, Value>, bool)> {
        Box::pin(async move {
            if self.0.load(Ordering::Relaxed) {
                return Err(catalog::process::ProcessingError::new("Error", "away").into());
            }
            run.relate(catalog::process::Relation {
                source_ref: "user:default/ada".to_owned(),
                relation_type: "has".to_owned(),
                target_ref: run.entity_ref().to_string(),
            });
            Ok((entity, true))
        })
    }
}

#[tokio::test]
async fn what_a_processor_of_ones_own_says_of_others_stays_while_the_entity_is_shown() {
    let mut site = Site::new(OrphanStrategy::Delete).await;
    let fails = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let parts = Parts { own: vec![Arc::new(Machines(fails.clone()))], ..Parts::builtin() };
    site.processor.pipeline = Arc::new(Pipeline::new(parts, &site.processor.bus).expect("usable"));
    let claim = async |provider: &str, change: Option<&str>| {
        let sequence = site.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let entity =
            json!({"apiVersion": "example.com/v1", "kind": "Machine", "metadata": {"name": "m", "title": change}});
        let limits = catalog::entity::Limits::default();
        let (entity_ref, upserted) =
            upsert(entity.to_string().as_bytes(), None, "t.events.p", &site.processor.pipeline, &limits)
                .expect("a claim");
        let change = if change.is_some() { upserted } else { Change::Delete };
        let event =
            Event { sequence, stored: 1, emitted: None, entity_ref, source: format!("provider:{provider}"), change };
        let (plan, request) = site.processor.decide_and_commit("fresh", &[&event]).await.expect("it commits");
        site.processor.after_commit("fresh", &plan, request).await;
        site.settle().await;
    };
    let said = async || {
        let ids: Vec<i64> = (1..1000).collect();
        let mut stitching = site.processor.store.look_at_stitched(&ids).await.expect("nobody else locks");
        let incoming = stitching.read_incoming(&ids).await.expect("the database answers");
        incoming.iter().filter(|row| row.relation_type == "has").count()
    };
    claim("p", Some("one")).await;
    assert_eq!((site.shown().await.as_str(), said().await), ("m", 1));
    fails.store(true, Ordering::Relaxed);
    claim("p", Some("two")).await;
    assert_eq!((site.shown().await.as_str(), said().await), ("m!", 1), "the last good version, and all that it says");
    fails.store(false, Ordering::Relaxed);
    claim("q", Some("three")).await;
    assert_eq!((site.shown().await.as_str(), said().await), ("m", 1));
    claim("q", None).await;
    assert_eq!((site.shown().await.as_str(), said().await), ("m", 1), "p takes over, and is asked about anew");
    claim("p", None).await;
    assert_eq!((site.shown().await.as_str(), said().await), ("", 0));
}
