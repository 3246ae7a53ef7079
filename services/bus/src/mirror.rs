//! A region's copy of the entity stream, kept by the region's own broker.

use crate::{Bus, Error};
use async_nats::jetstream::stream::{Config, External, Source, StorageType};

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
    match bus.link.get_or_create_stream(wanted).await?.mirror {
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
        None => bus.link.stream(&name).await?,
        Some(domain) => bus.link.stream_of(domain, &name).await?,
    };
    stream.map(|stream| stream.last_sequence).ok_or_else(|| Error::Away(format!("stream {name}: stream not found")))
}
