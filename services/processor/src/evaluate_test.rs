//! What comes of entities that need something from outside: files of a directory, and URLs of a small server, really read.

use crate::{Due, Evaluated, Evaluation, EvaluationLimits, Parts, Pipeline};
use catalog::process::Model;
use catalog::rules::{Rule, Rules};
use outside::{Host, Limits, Outside, Sources};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

/// Files in a directory, and the same ones by HTTP, with ETags.
struct Site {
    directory: tempfile::TempDir,
    url: String,
    /// `200 /a.yaml`, `304 /a.yaml`
    answered: Arc<Mutex<Vec<String>>>,
    pipeline: Pipeline,
}

impl Site {
    async fn new(rules: Option<Value>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let answered = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(serve(listener, directory.path().to_owned(), answered.clone()));
        let url = format!("http://{address}");
        let host = Host { host: url.clone(), ..Host::default() };
        let sources = Sources { hosts: vec![host], files: vec![directory.path().to_owned()] };
        let rules: Option<Vec<Rule>> = rules.map(|rules| serde_json::from_value(rules).expect("rules"));
        let parts = Parts {
            model: Arc::new(Model::builtin()),
            rules: rules.map_or_else(Rules::default, |rules| Rules::new(rules).expect("usable")),
            outside: Outside::new(&sources, Limits::default()).expect("usable"),
            external: Vec::new(),
            own: Vec::new(),
            limits: EvaluationLimits::default(),
        };
        let pipeline = Pipeline::new(parts, &crate::testing::bus("outside").await).expect("usable");
        Site { directory, url, answered, pipeline }
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.directory.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }

    fn remove(&self, path: &str) {
        std::fs::remove_file(self.directory.path().join(path)).expect("a file");
    }

    fn root(&self) -> &str {
        self.directory.path().to_str().expect("UTF-8")
    }

    /// A Location that was read where the site is.
    fn location(&self, location_type: &str, spec: Value) -> Value {
        let root = if location_type == "file" { self.root() } else { &self.url };
        entity("Location", "root", &format!("{location_type}:{root}/root.yaml"), spec)
    }

    async fn evaluate(&self, entity: &Value, notes: Option<&str>) -> Evaluation {
        let raw = entity.to_string().into_bytes();
        assert!(self.pipeline.needs_outside(entity.as_object().expect("an object")));
        let due = Due { source: "provider:p", raw: &raw, provider_subject: "catalog.events.p", notes };
        self.pipeline.evaluate(&due).await
    }

    async fn changed(&self, entity: &Value, notes: Option<&str>) -> Evaluated {
        match self.evaluate(entity, notes).await {
            Evaluation::Changed(evaluated) => *evaluated,
            other => panic!("{other:?}"),
        }
    }

    async fn check(&self, location: &Value, expected: Result<&[&str], &str>) -> Evaluated {
        let found = self.changed(location, None).await;
        match (&found.outcome, expected) {
            (Ok(_), Ok(expected)) => {
                let children: Vec<&str> = found.children.iter().map(|child| child.entity_ref.as_str()).collect();
                assert_eq!(children, expected, "{location}");
            }
            (Err(bad), Err(expected)) => {
                let message = self.message(&bad.error);
                assert!(message.contains(expected), "{message}");
                assert!(found.children.is_empty());
            }
            (outcome, expected) => panic!("{location}: {outcome:?} is not {expected:?}"),
        }
        found
    }

    fn message(&self, item: &str) -> String {
        let item: Value = serde_json::from_str(item).expect("a status item");
        let message = item["message"].as_str().expect("a message");
        message.replace(self.root(), "$ROOT").replace(&self.url, "$URL")
    }
}

/// Answers what stands in the directory, until the test ends.
async fn serve(listener: TcpListener, root: std::path::PathBuf, answered: Arc<Mutex<Vec<String>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (root, answered) = (root.clone(), answered.clone());
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream);
            loop {
                let (mut path, mut etag) = (String::new(), None);
                loop {
                    let mut line = String::new();
                    if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                        return;
                    }
                    let line = line.trim_end();
                    match line.split_once(": ") {
                        _ if line.is_empty() => break,
                        _ if line.starts_with("GET ") => {
                            line.split(' ').nth(1).unwrap_or_default().clone_into(&mut path)
                        }
                        Some((name, value)) if name.eq_ignore_ascii_case("if-none-match") => {
                            etag = Some(value.to_owned())
                        }
                        _ => {}
                    }
                }
                let content = std::fs::read(root.join(path.trim_start_matches('/'))).ok();
                let etag_of = |content: &Vec<u8>| format!("\"{}\"", catalog::hash::bytes_hash([content.as_slice()]));
                let now = content.as_ref().map(etag_of);
                let (status, body) = match (content, now == etag) {
                    (None, _) => ("404 Not Found", Vec::new()),
                    (Some(_), true) => ("304 Not Modified", Vec::new()),
                    (Some(content), false) => ("200 OK", content),
                };
                answered.lock().expect("nobody panics").push(format!("{} {path}", &status[..3]));
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\netag: {}\r\n\r\n",
                    body.len(),
                    now.unwrap_or_default()
                );
                if stream.write_all(head.as_bytes()).await.is_err() || stream.write_all(&body).await.is_err() {
                    return;
                }
            }
        });
    }
}

pub(crate) fn entity(kind: &str, name: &str, location: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "backstage.io/v1alpha1", "kind": kind, "spec": spec,
        "metadata": {"name": name, "annotations": {
            "backstage.io/managed-by-location": location, "backstage.io/managed-by-origin-location": location}},
    })
}

fn component(name: &str) -> String {
    format!(
        "apiVersion: backstage.io/v1alpha1\nkind: Component\nmetadata:\n  name: {name}\nspec: {{type: service, lifecycle: production, owner: payments}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn locations() {
    let site = Site::new(None).await;
    site.write("a.yaml", &component("checkout"));
    site.write("d/b.yaml", &format!("{}---\n{}", component("basket"), component("BASKET")));
    site.write("bad.yaml", "a: 1\na: 2\n");
    site.write("scalar.yaml", "just text\n");
    site.write(
        "group.yaml",
        "apiVersion: backstage.io/v1alpha1\nkind: Group\nmetadata: {name: g}\nspec: {type: t, children: []}\n",
    );
    for location_type in ["file", "url"] {
        let location = |spec: Value| site.location(location_type, spec);
        site.check(&location(json!({})), Ok(&[])).await;
        site.check(&location(json!({"target": "./a.yaml"})), Ok(&["component:default/checkout"])).await;
        let two = location(json!({"target": "./a.yaml", "targets": ["./d/b.yaml", "./a.yaml"]}));
        let found = site.check(&two, Ok(&["component:default/checkout", "component:default/basket"])).await;
        let at = if location_type == "file" { site.root() } else { &site.url };
        let key = format!("{location_type}:{at}/d/b.yaml");
        assert_eq!(found.children[1].location_key.as_ref(), Some(&key));
        assert!(found.refresh_keys.contains(&key), "{:?}", found.refresh_keys);
        assert!(String::from_utf8_lossy(&found.children[1].raw).contains("BASKET"), "the later one counts");
        let missing = json!({"targets": ["./a.yaml", "./none.yaml"]});
        site.check(&location(missing), Err("NotFoundError: ")).await;
        let optional = json!({"targets": ["./a.yaml", "./none.yaml"], "presence": "optional"});
        site.check(&location(optional), Ok(&["component:default/checkout"])).await;
        site.check(&location(json!({"targets": ["./a.yaml", "./bad.yaml"]})), Err("YAML error at ")).await;
        site.check(&location(json!({"target": "./scalar.yaml"})), Err("Expected object at root, got string")).await;
        site.check(&location(json!({"target": "./group.yaml"})), Err("is not of an allowed kind for that location"))
            .await;
        site.check(&location(json!({"type": "other", "target": "x"})), Err("must be of an allowed type")).await;
    }
    site.check(&site.location("file", json!({"target": "./d/*.yaml"})), Ok(&["component:default/basket"])).await;
    site.check(&site.location("file", json!({"target": "/etc/passwd"})), Err("NotAllowedError: ")).await;
    site.check(&site.location("url", json!({"target": "http://127.0.0.1:1/a"})), Err("NotAllowedError: ")).await;
    site.check(&site.location("url", json!({"target": "./d/*.yaml"})), Err("Unsupported search pattern URL")).await;
    site.check(
        &entity("Location", "l", "nats:x", json!({"target": "y"})),
        Err("No processor was able to handle reading of nats:y"),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_target_costs_one_conditional_request() {
    let site = Site::new(None).await;
    site.write("a.yaml", &component("checkout"));
    site.write("b.yaml", &component("basket"));
    let location = site.location("url", json!({"targets": ["./a.yaml", "./b.yaml"]}));
    let first = site.check(&location, Ok(&["component:default/checkout", "component:default/basket"])).await;
    let answered = || {
        let mut answered = std::mem::take(&mut *site.answered.lock().expect("nobody panics"));
        answered.sort();
        answered
    };
    answered();
    let again = site.evaluate(&location, Some(&first.notes)).await;
    let Evaluation::Unchanged { notes, .. } = again else { panic!("{again:?}") };
    assert_eq!(notes, first.notes);
    assert_eq!(answered(), ["304 /a.yaml", "304 /b.yaml"]);
    site.write("b.yaml", &component("invoicer"));
    let second = site.changed(&location, Some(&first.notes)).await;
    assert_eq!(second.children[1].entity_ref, "component:default/invoicer");
    assert_eq!(answered(), ["200 /a.yaml", "200 /b.yaml", "304 /a.yaml"]);
    site.remove("b.yaml");
    let failed = site.changed(&location, Some(&second.notes)).await;
    assert!(failed.outcome.is_err() && !failed.retry_soon);
    let again = site.evaluate(&location, Some(&failed.notes)).await;
    assert!(matches!(again, Evaluation::Unchanged { .. }), "the same error: {again:?}");
    site.write("b.yaml", &component("invoicer"));
    let back = site.changed(&location, Some(&failed.notes)).await;
    assert!(back.outcome.is_ok());
    // The same files, by their content.
    let location = site.location("file", json!({"target": "./*.yaml"}));
    let first = site.changed(&location, None).await;
    assert!(matches!(site.evaluate(&location, Some(&first.notes)).await, Evaluation::Unchanged { .. }));
    site.write("c.yaml", &component("new"));
    assert_eq!(site.changed(&location, Some(&first.notes)).await.children.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn placeholders() {
    let site = Site::new(None).await;
    site.write("spec.txt", "openapi: 3\n");
    site.write("d.json", "{\"k\": [1, null]}");
    let location = format!("url:{}/a.yaml", site.url);
    let api = |definition: Value| {
        entity(
            "API",
            "orders",
            &location,
            json!({"type": "openapi", "lifecycle": "p", "owner": "o", "definition": definition, "x": [{"$json": "d.json"}]}),
        )
    };
    let found = site.changed(&api(json!({"$text": "./spec.txt"})), None).await;
    let body: Value = serde_json::from_slice(catalog::stored::json(&found.outcome.expect("good").body)).expect("JSON");
    assert_eq!(body["spec"]["definition"], "openapi: 3\n");
    assert_eq!(body["spec"]["x"], json!([{"k": [1, null]}]));
    assert_eq!(found.refresh_keys, [format!("url:{}/spec.txt", site.url), format!("url:{}/d.json", site.url)]);
    let same = site.evaluate(&api(json!({"$text": "./spec.txt"})), Some(&found.notes)).await;
    assert!(matches!(same, Evaluation::Unchanged { .. }), "{same:?}");
    let before =
        "InputError: Processor PlaceholderProcessor threw an error while preprocessing; caused by Error: Placeholder";
    let missing = format!(
        "{before} $text could not read location ./none.txt, NotFoundError: could not read $URL/none.txt, 404 Not Found"
    );
    site.check(&api(json!({"$text": "./none.txt"})), Err(&missing)).await;
    let kind = "caused by TypeError: /spec/definition must be string - type: string";
    site.check(&api(json!({"$json": "./d.json"})), Err(kind)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_that_needs_nothing_comes_out_as_it_does_in_a_batch() {
    let site = Site::new(None).await;
    let directories = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/local/example");
    let directories = std::fs::read_dir(directories).expect("the example catalog");
    let examples = directories
        .flatten()
        .filter_map(|directory| std::fs::read_to_string(directory.path().join("catalog-info.yaml")).ok());
    let documents = examples.flat_map(|text| catalog::documents::parse_documents(&text));
    let mut seen = HashMap::new();
    for document in documents {
        let Ok(Value::Object(entity)) = document.content else { panic!("an entity") };
        let raw = serde_json::to_vec(&entity).expect("JSON");
        let unprocessed = catalog::entity::unprocessed(entity).expect("an entity");
        if site.pipeline.needs_outside(&unprocessed.entity) {
            continue;
        }
        let kind = unprocessed.entity_ref.kind.clone();
        let batch = site.pipeline.process(unprocessed, "catalog.events.p").expect("a good one");
        let due = Due { source: "provider:p", raw: &raw, provider_subject: "catalog.events.p", notes: None };
        let Evaluation::Changed(evaluated) = site.pipeline.evaluate(&due).await else { panic!("changed") };
        let good = evaluated.outcome.expect("a good one");
        assert_eq!(
            serde_json::from_slice::<Value>(catalog::stored::json(&good.body)).expect("JSON"),
            Value::Object(batch.entity)
        );
        assert_eq!(good.foreign, batch.foreign);
        *seen.entry(kind).or_insert(0) += 1;
    }
    assert!(seen.len() > 3, "{seen:?}");
}

/// Adds a word to descriptions, and emits an entity.
struct Own;

impl crate::EntityProcessor for Own {
    fn name(&self) -> &str {
        "own"
    }

    fn needs_outside(&self, entity: &serde_json::Map<String, Value>) -> bool {
        entity.get("kind").is_some_and(|kind| kind == "System")
    }

    fn post_process<'a>(
        &'a self,
        mut entity: serde_json::Map<String, Value>,
        run: &'a mut crate::Run<'_>,
    ) -> crate::Step<'a, serde_json::Map<String, Value>> {
        Box::pin(async move {
            let seen = run.noted("own").and_then(Value::as_u64).unwrap_or(0);
            run.note("own", json!(seen + 1));
            entity["metadata"]["seen"] = json!(seen);
            let child = json!({"apiVersion": "backstage.io/v1alpha1", "kind": "API", "metadata": {"name": "own"}});
            let Value::Object(child) = child else { return Ok(entity) };
            let here = run.places().location.clone();
            run.emit(child, &here);
            Ok(entity)
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_processor_of_ones_own_plugs_in() {
    let bus = crate::testing::bus("own").await;
    let parts = |own: Vec<Arc<dyn crate::EntityProcessor>>| Parts { own, ..Parts::builtin() };
    let pipeline = Pipeline::new(parts(vec![Arc::new(Own)]), &bus).expect("usable");
    let without = Pipeline::new(parts(Vec::new()), &bus).expect("usable");
    assert_ne!(pipeline.fingerprint(), without.fingerprint());
    let twice = Pipeline::new(parts(vec![Arc::new(Own), Arc::new(Own)]), &bus).err().expect("two of one name");
    assert!(twice.to_string().contains("two processors have the name own"));
    let system = entity("System", "s", "url:https://h.example/a", json!({"owner": "o"}));
    assert!(pipeline.needs_outside(system.as_object().expect("an object")));
    assert!(!without.needs_outside(system.as_object().expect("an object")));
    let raw = system.to_string().into_bytes();
    let due = |notes| Due { source: "provider:p", raw: &raw, provider_subject: "catalog.events.p", notes };
    let Evaluation::Changed(found) = pipeline.evaluate(&due(None)).await else { panic!("changed") };
    let body: Value = serde_json::from_slice(catalog::stored::json(&found.outcome.expect("good").body)).expect("JSON");
    assert_eq!(body["metadata"]["seen"], 0);
    assert_eq!(found.children[0].entity_ref, "api:default/own");
    let again = pipeline.evaluate(&due(Some(&found.notes))).await;
    assert!(matches!(again, Evaluation::Unchanged { .. }), "nothing that it reads has changed: {again:?}");
}
