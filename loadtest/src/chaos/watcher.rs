//! A watcher of a reader that comes and goes: each entity's versions rise, none twice, and its newest comes in the end.

use api::v1::WatchEntitiesRequest;
use api::v1::catalog_service_client::CatalogServiceClient;
use api::v1::watch_entities_response::Event;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::Endpoint;

/// What a watcher has seen, and what was wrong with it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The newest version of each entity, and whether it is there.
    pub entities: BTreeMap<String, (i64, bool)>,
    pub violations: Vec<String>,
    pub events: u64,
    pub resumed: u64,
    /// Watches begun anew, since the place to resume was too old.
    pub anew: u64,
}

/// Watches the reader whose address stands in `address`, whichever it is at the time, for ever.
pub(crate) async fn run(address: watch::Receiver<String>, seen: Arc<Mutex<Seen>>) {
    let mut token = String::new();
    loop {
        let now = address.borrow().clone();
        if let Err(code) = follow(&now, &mut token, &seen).await
            && matches!(
                code,
                tonic::Code::OutOfRange
                    | tonic::Code::FailedPrecondition
                    | tonic::Code::InvalidArgument
                    | tonic::Code::Aborted
            )
        {
            token.clear();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn follow(address: &str, token: &mut String, seen: &Mutex<Seen>) -> Result<(), tonic::Code> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| tonic::Code::Unavailable)?;
    let endpoint = endpoint.connect_timeout(Duration::from_secs(2));
    let channel = endpoint.connect().await.map_err(|_| tonic::Code::Unavailable)?;
    let request = WatchEntitiesRequest { resume_token: token.clone(), ..WatchEntitiesRequest::default() };
    let mut client = CatalogServiceClient::new(channel).max_decoding_message_size(64 << 20);
    let mut events = client.watch_entities(request).await.map_err(|status| status.code())?.into_inner();
    {
        let mut seen = lock(seen);
        match token.is_empty() {
            // A watch from the beginning shows what there is, once more.
            true => {
                seen.entities.clear();
                seen.anew += 1;
            }
            false => seen.resumed += 1,
        }
    }
    loop {
        // Cut off as a watcher's own network might be.
        let next = tokio::time::timeout(Duration::from_secs(30), events.message()).await;
        let Ok(next) = next else { return Ok(()) };
        let Some(event) = next.map_err(|status| status.code())? else { return Ok(()) };
        let (entity_ref, is_there) = match &event.event {
            Some(Event::Change(entity)) => (entity.r#ref.clone(), true),
            Some(Event::Deletion(deletion)) => (deletion.r#ref.clone(), false),
            _ => {
                note_token(token, event.resume_token);
                continue;
            }
        };
        let mut seen = lock(seen);
        seen.events += 1;
        let known = seen.entities.insert(entity_ref.clone(), (event.version, is_there));
        if let Some((version, _)) = known.filter(|(version, _)| *version >= event.version) {
            seen.violations.push(format!("watch: {entity_ref}: version {} after {version}", event.version));
        }
        drop(seen);
        note_token(token, event.resume_token);
    }
}

fn note_token(token: &mut String, newer: String) {
    if !newer.is_empty() {
        *token = newer;
    }
}

/// What was seen, to be read or written.
pub(crate) fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
