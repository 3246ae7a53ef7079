//! What tests share.

use crate::{Config, Parts, Pipeline, Processor, attach};
use bus::Bus;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A connection to the test broker, for an installation of its own.
pub(crate) async fn bus(name: &str) -> Bus {
    let (_stopper, stop) = bus::stop();
    let options = bus::Options {
        url: servers::testing::shared().nats_url.clone(),
        installation: servers::testing::fresh_name(name),
        credentials: None,
        name: "test".into(),
        patience: Some(std::time::Duration::from_secs(30)),
    };
    Bus::connect(&options, &stop).await.expect("the test broker answers")
}

/// The built-in processors, which may read nothing.
pub(crate) fn pipeline(bus: &Bus) -> Pipeline {
    Pipeline::new(Parts::builtin(), bus).expect("the built-in processors have names of their own")
}

/// A processor of an installation of its own, that takes nothing by itself.
pub(crate) async fn processor(name: &str) -> Processor {
    let bus = bus(name).await;
    let options = store::Options {
        url: servers::testing::shared().database_url.clone(),
        installation: bus.names().installation().to_owned(),
        connections: 4,
        name: "test".into(),
    };
    let store = store::Store::connect(&options).await.expect("the test database answers");
    let streams = bus::Limits {
        events_bytes: 1 << 20,
        stitch_bytes: 1 << 20,
        dead_letters_bytes: 1 << 20,
        ..bus::Limits::default()
    };
    let config = Config { streams, ..Config::default() };
    let (_stopper, stop) = bus::stop();
    attach(&bus, &store, &config.streams, &stop).await.expect("the streams stand");
    let pipeline = Arc::new(pipeline(&bus));
    let processor = Processor::new(bus, store, pipeline, config);
    processor.attached_to.store(processor.bus.connection(), Ordering::Relaxed);
    processor
}
