//! Processors that are services: the worked example in Python, really run; and what becomes of an entity when one is away, slow, busy or wrong.

use crate::evaluate_test::entity;
use crate::{Due, Evaluated, Evaluation, EvaluationLimits, ExternalConfig, Parts, Pipeline, testing};
use async_nats::Client;
use bus::Bus;
use catalog::process::Model;
use catalog::rules::Rules;
use futures::StreamExt;
use outside::{Limits, Outside, Sources};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/examples/processor.py");
/// The client library that the example needs.
const CLIENT: &str = "nats-py==2.16.0";
/// How long Python may take to begin.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Where Python finds the client library: fetched once, and kept with the servers that tests need.
fn client_library() -> PathBuf {
    let target = servers::cache_dir().expect("a cache directory").join("python").join(CLIENT.replace("==", "-"));
    if !target.join("nats/__init__.py").is_file() {
        let fetched = target.with_extension(format!("part-{}", std::process::id()));
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]).arg(&fetched).arg(CLIENT);
        let done = pip.stdin(Stdio::null()).status().expect("python3 is there");
        assert!(done.success(), "{CLIENT} is needed: python3 -m pip install --target {} {CLIENT}", target.display());
        // Another test run may have been faster.
        let _ = std::fs::rename(&fetched, &target);
    }
    target
}

/// The example, until the test ends.
struct Example(Child);

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn example(subject: &str, rota: &std::path::Path, client: &Client) -> Example {
    let mut python = Command::new("python3");
    python.arg(EXAMPLE).args([&servers::testing::shared().nats_url, subject]).arg(rota);
    let child = python.env("PYTHONPATH", client_library()).stdin(Stdio::null()).spawn().expect("python3 is there");
    let example = Example(child);
    let begun = Instant::now();
    // Asked with nothing, it answers with an error.
    while client.request(subject.to_owned(), "{}".into()).await.is_err() {
        assert!(begun.elapsed() < START_LIMIT, "the example does not answer");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    example
}

async fn client() -> Client {
    async_nats::connect(&servers::testing::shared().nats_url).await.expect("the test broker answers")
}

fn config(subject: &str) -> ExternalConfig {
    ExternalConfig {
        name: "on-call".to_owned(),
        subject: subject.to_owned(),
        kinds: vec!["component".to_owned(), "Machine".to_owned()],
        timeout: Duration::from_secs(10),
        at_once: 8,
        version: String::new(),
    }
}

fn pipeline(config: ExternalConfig, bus: &Bus) -> Pipeline {
    let parts = Parts {
        model: Arc::new(Model::builtin()),
        rules: Rules::default(),
        outside: Outside::new(&Sources::default(), Limits::default()).expect("usable"),
        external: vec![config],
        own: Vec::new(),
        limits: EvaluationLimits::default(),
    };
    Pipeline::new(parts, bus).expect("usable")
}

fn web(owner: &str) -> Value {
    entity("Component", "web", "url:https://h.example/a", json!({"type": "service", "lifecycle": "p", "owner": owner}))
}

async fn evaluate(pipeline: &Pipeline, entity: &Value, notes: Option<&str>) -> Evaluation {
    assert!(pipeline.needs_outside(entity.as_object().expect("an object")));
    let raw = entity.to_string().into_bytes();
    pipeline.evaluate(&Due { source: "provider:p", raw: &raw, provider_subject: "catalog.events.p", notes }).await
}

async fn changed(pipeline: &Pipeline, entity: &Value) -> Evaluated {
    match evaluate(pipeline, entity, None).await {
        Evaluation::Changed(evaluated) => *evaluated,
        other => panic!("{other:?}"),
    }
}

fn body(evaluated: &Evaluated) -> Value {
    let good = evaluated.outcome.as_ref().unwrap_or_else(|bad| panic!("{bad:?}"));
    serde_json::from_slice(catalog::stored::json(&good.body)).expect("JSON")
}

fn error(evaluated: &Evaluated) -> String {
    let item: Value = serde_json::from_str(&evaluated.outcome.as_ref().expect_err("an error").error).expect("JSON");
    item["message"].as_str().expect("a message").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worked_example_in_python() {
    let directory = tempfile::tempdir().expect("a directory");
    let rota = directory.path().join("rota.json");
    std::fs::write(&rota, r#"{"payments": ["ada", "grace"]}"#).expect("a file");
    let (bus, client) = (testing::bus("external").await, client().await);
    let subject = format!("{}.processors.on-call", bus.names().installation());
    let _example = example(&subject, &rota, &client).await;
    let pipeline = pipeline(config(&subject), &bus);

    let found = changed(&pipeline, &web("payments")).await;
    let shown = body(&found);
    assert_eq!(shown["metadata"]["annotations"]["example.com/on-call"], "user:default/ada");
    let own = json!([
        {"type": "onCall", "targetRef": "user:default/ada"},
        {"type": "ownedBy", "targetRef": "group:default/payments"}
    ]);
    assert_eq!(shown["relations"], own);
    let foreign: Vec<String> = found
        .outcome
        .as_ref()
        .expect("good")
        .foreign
        .iter()
        .map(|one| format!("{} {} {}", one.source_ref, one.relation_type, one.target_ref))
        .collect();
    assert_eq!(
        foreign,
        ["group:default/payments ownerOf component:default/web", "user:default/ada onCallFor component:default/web"]
    );
    assert_eq!(found.refresh_keys, ["on-call:payments"]);
    let again = evaluate(&pipeline, &web("payments"), Some(&found.notes)).await;
    assert!(matches!(again, Evaluation::Unchanged { .. }), "the same answer: {again:?}");
    std::fs::write(&rota, r#"{"payments": ["grace"]}"#).expect("a file");
    let Evaluation::Changed(found) = evaluate(&pipeline, &web("payments"), Some(&found.notes)).await else {
        panic!("another answer")
    };
    assert_eq!(body(&found)["relations"][0]["targetRef"], "user:default/grace");

    let found = changed(&pipeline, &web("nobody")).await;
    assert_eq!(error(&found), "Error: the rota has nobody of team 'nobody'");
    assert!(!found.retry_soon);
}

/// Answers every question with the same text; `None`: with nothing, ever.
async fn serve(client: &Client, subject: &str, said: Option<&str>) {
    let mut questions = client.subscribe(subject.to_owned()).await.expect("subscribed");
    client.flush().await.expect("the broker knows it");
    let (client, said) = (client.clone(), said.map(str::to_owned));
    tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            if let (Some(said), Some(reply)) = (&said, question.reply) {
                let _ = client.publish(reply, said.clone().into()).await;
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn answers() {
    let (bus, client) = (testing::bus("external").await, client().await);
    let installation = bus.names().installation().to_owned();
    let check = async |case: &str, entity: &Value, said: &str| -> Evaluated {
        let subject = format!("{installation}.processors.{case}");
        serve(&client, &subject, Some(said)).await;
        changed(&pipeline(config(&subject), &bus), entity).await
    };
    let nothing = check("nothing", &web("payments"), "{}").await;
    assert_eq!(body(&nothing)["spec"]["owner"], "payments");
    let machine = entity("Machine", "m", "url:https://h.example/a", json!({}));
    let unknown = check("unknown", &machine, "{}").await;
    assert!(error(&unknown).contains("No processor recognized the entity machine:default/m"));
    assert_eq!(body(&check("known", &machine, r#"{"recognized": true}"#).await)["kind"], "Machine");
    let threw = "InputError: Processor on-call threw an error while preprocessing; caused by Error: ";
    for (case, said, expected) in [
        ("text", "no JSON", "its answer is none"),
        ("field", r#"{"relation": []}"#, "unknown field `relation`"),
        ("ref", r#"{"relations": [{"type": "a", "targetRef": "a/"}]}"#, "Entity reference"),
        ("place", r#"{"entities": [{"entity": {}, "location": "https://x"}]}"#, "please prefix it with 'url:'"),
    ] {
        let found = check(case, &web("payments"), said).await;
        let error = error(&found);
        assert!(error.starts_with(threw) && error.contains(expected) && !found.retry_soon, "{error}");
    }
    let said =
        json!({"entity": {"apiVersion": "backstage.io/v1alpha1", "kind": "Component", "metadata": {"name": "other"}}});
    let renamed = check("renamed", &web("payments"), &said.to_string()).await;
    assert!(error(&renamed).contains("The entity kind, namespace, or name changed during processing"));

    let api = |name: &str| json!({"apiVersion": "backstage.io/v1alpha1", "kind": "API", "metadata": {"name": name}});
    let said = json!({
        "entities": [
            {"entity": api("one")},
            {"entity": api("two"), "location": "url:https://h.example/b", "locationKey": null},
            {"entity": api("three"), "locationKey": "own"},
        ],
        "locations": [{"type": "url", "target": "https://h.example/c", "presence": "optional"}],
        "notes": {"seen": 1},
    });
    let found = check("emits", &web("payments"), &said.to_string()).await;
    let keys: Vec<_> = found.children.iter().map(|child| child.location_key.as_deref()).collect();
    let here = Some("url:https://h.example/a");
    assert_eq!(keys, [here, None, Some("own"), here]);
    assert!(found.children[3].entity_ref.starts_with("location:default/generated-"));
    assert!(found.children[3].outcome.is_none(), "it is to be read itself");
    assert!(found.notes.contains(r#"{"seen":1}"#), "{}", found.notes);
    let said = json!({"entities": [{"entity": {"apiVersion": "v1", "kind": "User", "metadata": {"name": "u"}}}]});
    let refused = check("rules", &web("payments"), &said.to_string()).await;
    assert!(error(&refused).contains("Entity user:default/u at url:https://h.example/a"), "the rules hold");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_waits_for_one_that_is_away() {
    let (bus, client) = (testing::bus("external").await, client().await);
    let subject = |case: &str| format!("{}.processors.{case}", bus.names().installation());
    let away = pipeline(config(&subject("away")), &bus);
    let begun = Instant::now();
    let found = changed(&away, &web("payments")).await;
    assert!(error(&found).contains("no answer from") && found.retry_soon, "{}", error(&found));
    assert!(begun.elapsed() < Duration::from_secs(5), "nobody serves the subject, and the broker says so");
    let again = evaluate(&away, &web("payments"), Some(&found.notes)).await;
    assert!(matches!(again, Evaluation::Unchanged { retry_soon: true, .. }), "{again:?}");

    serve(&client, &subject("silent"), None).await;
    let silent = ExternalConfig { timeout: Duration::from_millis(200), ..config(&subject("silent")) };
    let silent = pipeline(silent, &bus);
    for _ in 0..3 {
        assert!(changed(&silent, &web("payments")).await.retry_soon);
    }
    let begun = Instant::now();
    let found = changed(&silent, &web("payments")).await;
    assert!(error(&found).contains("no answer to 3 questions in a row"), "{}", error(&found));
    assert!(begun.elapsed() < Duration::from_millis(150), "it is not waited for: {:?}", begun.elapsed());

    serve(&client, &subject("busy"), None).await;
    let busy = ExternalConfig { timeout: Duration::from_secs(2), at_once: 1, ..config(&subject("busy")) };
    let busy = pipeline(busy, &bus);
    let entity = web("payments");
    let (one, other) = tokio::join!(evaluate(&busy, &entity, None), evaluate(&busy, &entity, None));
    assert!(matches!(one, Evaluation::Changed(_)), "{one:?}");
    assert!(matches!(other, Evaluation::Later(_)), "{other:?}");
}
