//! What tests share.

use bus::Bus;

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
