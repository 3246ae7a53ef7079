//! Claims that begin to lose to another location key, told on the bus: each once, however often its event is delivered within two minutes.

use crate::Processor;
use crate::decide::{Conflict, PROVIDER};
use bus::Record;
use catalog::hash::bytes_hash;
use serde_json::{Value, json};

/// Publishes what a committed batch has brought about. What fails here is told once more when the event is delivered again; the list that an operator sees is
/// the database's.
pub(crate) async fn tell(processor: &Processor, conflicts: &[Conflict]) {
    for conflict in conflicts {
        if let Err(error) = bus::publish(&processor.bus, &record(processor, conflict)).await {
            tracing::warn!(%error, entity.r#ref = conflict.entity_ref, "a conflict is not told");
            return;
        }
    }
}

fn record(processor: &Processor, conflict: &Conflict) -> Record {
    let (source, _, revision) = &conflict.loses;
    let side = |(source, key, revision): &(String, Option<String>, i64)| -> Value {
        json!({ "source": source, "locationKey": key, "revision": revision })
    };
    let (entity_ref, loses, shown) = (&conflict.entity_ref, side(&conflict.loses), side(&conflict.shown));
    let body = json!({ "entityRef": entity_ref, "loses": loses, "shown": shown });
    let id = bytes_hash([entity_ref.as_bytes(), source.as_bytes(), revision.to_string().as_bytes()]);
    let subject = processor.bus.names().conflict(source.strip_prefix(PROVIDER).unwrap_or(source));
    Record::new(subject, body.to_string()).with_id(format!("conflict-{id}"))
}
