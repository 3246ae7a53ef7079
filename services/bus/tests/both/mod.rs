//! What the bus's tests share: the same installation on nats-server and on the twin, and waiting with a bound.

use bus::Bus;
use bus::twin::Twin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A connection to nats-server, and one to a twin that is running, which comes with it.
pub async fn both(test: &str) -> [(Bus, Option<Twin>); 2] {
    let installation = servers::testing::fresh_name(test);
    let options = bus::Options {
        url: servers::testing::shared().nats_url.clone(),
        installation: installation.clone(),
        credentials: None,
        name: "test".into(),
        patience: Some(LIMIT),
    };
    let (_stopper, stop) = bus::stop();
    let real = Bus::connect(&options, &stop).await.unwrap();
    let twin = Twin::new(Arc::new(()));
    let (imagined, _) = twin.connect(&installation).unwrap();
    let running = twin.clone();
    tokio::spawn(async move { running.run().await });
    [(real, None), (imagined, Some(twin))]
}

pub async fn wait_until(what: &str, condition: impl AsyncFn() -> bool) {
    let until = Instant::now() + LIMIT;
    while !condition().await {
        assert!(Instant::now() < until, "waited {LIMIT:?} for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
