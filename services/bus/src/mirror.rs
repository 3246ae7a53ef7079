//! A region's copy of the entity stream, kept by the region's own broker.

use crate::streams::refused;
use crate::{Bus, Error};
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::stream::{Config, External, Source, StorageType};
use std::time::Duration;

/// How long the writing region's broker may take to answer.
const ORIGIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Creates the mirror of the entity stream on this broker, or leaves it as it is. The brokers are joined by a leaf node; `origin` is the
/// JetStream domain of the writing region. What the link brings is copied, with the origin's sequences; while it is cut the copy stands.
///
/// # Errors
/// [`Error::Unusable`] where a stream stands in the way that is no mirror.
pub async fn ensure_mirror(bus: &Bus, origin: &str, replicas: usize) -> Result<(), Error> {
    let name = bus.names.entities_stream();
    let wanted = Config {
        name: name.clone(),
        mirror: Some(Source {
            name: name.clone(),
            external: Some(External { api_prefix: format!("$JS.{origin}.API"), delivery_prefix: None }),
            ..Source::default()
        }),
        storage: StorageType::File,
        num_replicas: replicas,
        // As at the origin: the newest message of each subject, deletions until they expire.
        max_messages_per_subject: 1,
        allow_message_ttl: true,
        allow_direct: true,
        ..Config::default()
    };
    let made = bus.jetstream.get_or_create_stream(wanted).await.map_err(|error| refused(&name, &error))?;
    match made.cached_info().config.mirror {
        Some(_) => Ok(()),
        None => Err(Error::Unusable(format!(
            "stream {name} of this broker is no mirror: a region's broker must not be the writing region's"
        ))),
    }
}

/// The sequence of the newest message of the entity stream; of the origin's, if its JetStream domain is named, over the link to it.
///
/// # Errors
/// [`Error::Away`]: no answer, because the link is cut or there is no such stream.
pub async fn last_entity(bus: &Bus, origin: Option<&str>) -> Result<u64, Error> {
    let name = bus.names.entities_stream();
    let stream = match origin {
        None => bus.jetstream.get_stream(name).await,
        Some(domain) => {
            let context = ContextBuilder::new().domain(domain).timeout(ORIGIN_TIMEOUT).build(bus.client.clone());
            context.get_stream(name).await
        }
    };
    Ok(stream.map_err(Error::away)?.cached_info().state.last_sequence)
}
