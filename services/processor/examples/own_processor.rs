//! A processor role with a step of one's own: a program of a few lines beside Callboard, which it needs not be changed for.
//!
//!     CALLBOARD_NATS_URL=nats://localhost:4222 CALLBOARD_DATABASE_URL=postgres://… cargo run --example own_processor -p processor
//!
//! Run it in place of `callboard processor` (the pipeline of all processors of an installation has to be the same).

use processor::{Config, EntityProcessor, Parts, Pipeline, Run, Step};
use serde_json::{Map, Value};
use std::env;
use std::error::Error;
use std::sync::Arc;

/// Gives each Component that has none the tag `untagged`.
struct Untagged;

impl EntityProcessor for Untagged {
    fn name(&self) -> &str {
        "untagged"
    }

    fn version(&self) -> String {
        "1".to_owned()
    }

    /// Only what a processor names here comes to it.
    fn needs_outside(&self, entity: &Map<String, Value>) -> bool {
        entity.get("kind").is_some_and(|kind| kind == "Component")
    }

    fn pre_process<'a>(&'a self, mut entity: Map<String, Value>, _: &'a mut Run<'_>) -> Step<'a, Map<String, Value>> {
        Box::pin(async move {
            if self.needs_outside(&entity)
                && let Some(Value::Object(metadata)) = entity.get_mut("metadata")
                && !metadata.contains_key("tags")
            {
                metadata.insert("tags".to_owned(), Value::from(vec!["untagged"]));
            }
            Ok(entity)
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (stopper, stop) = bus::stop();
    let installation = env::var("CALLBOARD_INSTALLATION").unwrap_or_else(|_| "catalog".to_owned());
    let broker = bus::Options {
        url: env::var("CALLBOARD_NATS_URL")?,
        installation: installation.clone(),
        credentials: None,
        name: "own-processor".to_owned(),
        patience: None,
    };
    let database = store::Options {
        url: env::var("CALLBOARD_DATABASE_URL")?,
        installation,
        connections: 10,
        name: "own-processor".to_owned(),
    };
    let bus = bus::Bus::connect(&broker, &stop).await?;
    let store = store::Store::connect(&database).await?;
    let parts = Parts { own: vec![Arc::new(Untagged)], ..Parts::builtin() };
    let pipeline = Pipeline::new(parts, &bus)?;
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        stopper.stop();
    });
    processor::run(bus, store, pipeline, Config::default(), stop).await?;
    Ok(())
}
