//! The example of a processor of one's own, run as the program that it is: its step takes effect, and it ends when it is asked to.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use bus::{Bus, Record};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use store::Store;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Beside this test's own program, where `cargo test` puts it.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples/own_processor");
    assert!(path.is_file(), "{}: cargo test --examples builds it", path.display());
    path
}

/// Content of the one entity that is shown; none: there is none yet.
async fn shown(store: &Store) -> Option<Value> {
    let mut stitching = store.stitch(&[(1, store::WHATEVER)]).await.ok()?;
    let body = stitching.read_shown(&[1]).await.ok()?.pop()?.body?;
    serde_json::from_slice(catalog::stored::json(&body)).ok()
}

#[tokio::test]
async fn the_example_runs() {
    let addresses = servers::testing::shared();
    let installation = servers::testing::fresh_name("own");
    let mut program = tokio::process::Command::new(example())
        .env("CALLBOARD_NATS_URL", &addresses.nats_url)
        .env("CALLBOARD_DATABASE_URL", &addresses.database_url)
        .env("CALLBOARD_INSTALLATION", &installation)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (_stopper, stop) = bus::stop();
    let options = bus::Options {
        url: addresses.nats_url.clone(),
        installation: installation.clone(),
        credentials: None,
        name: "test".into(),
        patience: Some(LIMIT),
    };
    let bus = Bus::connect(&options, &stop).await.unwrap();
    let spec = json!({"type": "service", "lifecycle": "production", "owner": "team"});
    let entity =
        json!({"apiVersion": "backstage.io/v1alpha1", "kind": "Component", "metadata": {"name": "web"}, "spec": spec});
    let record = Record::new(bus.names().event("p", "upsert"), entity.to_string());
    let works = async {
        // The program makes the streams, and the schema.
        while bus::publish(&bus, &record).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let options =
            store::Options { url: addresses.database_url.clone(), installation, connections: 2, name: "test".into() };
        let store = Store::connect(&options).await.unwrap();
        loop {
            match shown(&store).await {
                Some(entity) => return entity,
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let entity = tokio::time::timeout(LIMIT, works).await.expect("the entity is processed in time");
    assert_eq!(entity["metadata"]["tags"], json!(["untagged"]));
    let interrupted = std::process::Command::new("kill").args(["-INT", &program.id().unwrap().to_string()]).status();
    assert!(interrupted.unwrap().success());
    let ended = tokio::time::timeout(LIMIT, program.wait()).await.expect("it ends in time").unwrap();
    assert!(ended.success(), "{ended}");
}
