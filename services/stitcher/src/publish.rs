//! Publishing what changed, while its rows are held: the one place where something outside runs inside a transaction.
//!
//! Each message names the sequence that its subject must have. So of two stitchers, or of one that comes back from a long pause, only
//! one is believed, and the newest message of a subject is always the newest state.

use crate::build::{Built, Form};
use crate::metrics::Metrics;
use crate::verdict;
use bus::{Bus, Error, Failure, NewestEntity, Record, entity_record, header, newest_entity, unprocessed_record};
use catalog::planted;
use futures::StreamExt;
use std::collections::HashSet;
use std::time::Duration;
use store::{StateWrite, Stitching};

/// How long the rows are held for the broker.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a refused batch is compared with the stream and tried again.
const TRIES: usize = 4;
/// Newest messages asked for at once.
const LOOKUPS: usize = 64;

/// A message to be published, and the state that it leads to.
pub(crate) struct Change {
    entity_ref: String,
    revision: i64,
    form: Form,
    expected: u64,
    /// The version in which readers may have it already.
    known: i64,
    state: StateWrite,
}

impl Change {
    pub fn entity_id(&self) -> i64 {
        self.state.entity_id
    }

    fn record(&self, bus: &Bus) -> Record {
        let (entity_ref, version, revision) = (&self.entity_ref, self.state.version, self.revision);
        let record = match &self.form {
            Form::Content { hash, body, parents } => {
                let record = entity_record(bus, entity_ref, version, revision, Some((hash, body.clone())));
                match parents {
                    Some(parents) => record.with_header(header::PARENTS, parents),
                    None => record,
                }
            }
            Form::Unprocessed { hash, why } => unprocessed_record(bus, entity_ref, (version, revision), hash, why),
            Form::Gone | Form::Failed(_) => entity_record(bus, entity_ref, version, revision, None),
        };
        if planted::is("no-expected-sequence") {
            return record;
        }
        record.expecting(self.expected)
    }
}

/// What was published, to be written.
pub(crate) struct Published {
    /// The states of all entities, also of those that did not change.
    pub states: Vec<StateWrite>,
    /// The lowest sequence under which the broker has stored something now; none: it had all of it.
    pub lowest: Option<u64>,
    /// The highest sequence under which something of it stands.
    pub highest: u64,
}

/// Publishes the entities that changed; gives the states to be written, those of the others with them.
pub(crate) async fn publish(
    bus: &Bus,
    stitching: &mut Stitching,
    mut changes: Vec<Change>,
    mut written: Vec<StateWrite>,
    metrics: &Metrics,
) -> Result<Published, Failure> {
    let unchanged = written.len();
    let versions = stitching.take_versions(changes.len()).await.map_err(verdict)?;
    for (change, version) in changes.iter_mut().zip(versions) {
        change.state.version = version;
    }
    if planted::is("version-given-back") {
        changes.iter_mut().for_each(|change| change.state.version = change.known + 1);
    }
    match tokio::time::timeout(PATIENCE, publish_changes(bus, stitching, &mut changes, &mut written)).await {
        Ok(outcome) => outcome?,
        // What was stored all the same is settled by the rule for a refusal, when these entities are stitched again.
        Err(_) => {
            return Err(Failure::Away(format!("the broker did not confirm stitched entities within {PATIENCE:?}")));
        }
    }
    metrics.stitched("changed", changes.len());
    let lowest = changes.iter().map(|change| change.state.sequence).min();
    written.extend(changes.into_iter().map(|change| change.state));
    let highest = written[unchanged..].iter().map(|state| state.sequence).max().unwrap_or(0);
    Ok(Published { states: written, lowest, highest })
}

/// Entities of which the stream has another message than their locked states know: whoever published it did not live to write that.
pub(crate) async fn left_by_others(
    bus: &Bus,
    built: &[Built],
    is_asked: impl Fn(&i64) -> bool,
) -> Result<HashSet<i64>, Failure> {
    let asked = built.iter().filter(|one| is_asked(&one.state.entity_id));
    let lookups = asked.map(|one| async {
        let newest = newest_entity(bus, &one.entity_ref).await?;
        let is_other = newest.is_some_and(|newest| newest.sequence != one.state.sequence);
        Ok(is_other.then_some(one.state.entity_id))
    });
    let looked: Vec<_> = futures::stream::iter(lookups.collect::<Vec<_>>()).buffered(LOOKUPS).collect().await;
    let left: Result<HashSet<Option<i64>>, Error> = looked.into_iter().collect();
    Ok(left.map_err(|error| Failure::Away(error.to_string()))?.into_iter().flatten().collect())
}

/// What is to be published, some of it though it has not changed, and the states of what is not.
pub(crate) fn sort(built: Vec<Built>, again: &HashSet<i64>, metrics: &Metrics) -> (Vec<Change>, Vec<StateWrite>) {
    let (mut changes, mut written) = (Vec::new(), Vec::new());
    let (mut unchanged, mut failed) = (0, 0);
    for Built { entity_ref, revision, state, result, pause_ms } in built {
        let was_published = state.version > 0;
        let keep = StateWrite {
            entity_id: state.entity_id,
            version: state.version,
            sequence: state.sequence,
            hash: state.hash.clone(),
            pause_ms,
        };
        let hash = match &result {
            Form::Failed(reason) => {
                tracing::warn!(
                    entity.r#ref = entity_ref,
                    reason,
                    "an entity cannot be stitched; what is shown of it stays"
                );
                failed += 1;
                written.push(keep);
                continue;
            }
            Form::Gone => None,
            Form::Content { hash, .. } | Form::Unprocessed { hash, .. } => Some(hash.clone()),
        };
        let is_known = hash == state.hash && (was_published || hash.is_none());
        if is_known && !again.contains(&state.entity_id) {
            unchanged += 1;
            written.push(keep);
            continue;
        }
        changes.push(Change {
            entity_ref,
            revision,
            form: result,
            expected: state.sequence,
            known: state.version,
            state: StateWrite { hash, ..keep },
        });
    }
    metrics.stitched("unchanged", unchanged);
    metrics.stitched("error", failed);
    (changes, written)
}

async fn publish_changes(
    bus: &Bus,
    stitching: &mut Stitching,
    changes: &mut Vec<Change>,
    adopted: &mut Vec<StateWrite>,
) -> Result<(), Failure> {
    for _ in 0..TRIES {
        if changes.is_empty() {
            return Ok(());
        }
        let records: Vec<Record> = changes.iter().map(|change| change.record(bus)).collect();
        match bus::publish_all(bus, &records).await {
            Ok(sequences) => {
                for (change, sequence) in changes.iter_mut().zip(sequences) {
                    change.state.sequence = sequence;
                }
                return Ok(());
            }
            Err(Error::WrongLastSequence(_)) => reconcile(bus, stitching, changes, adopted).await?,
            Err(error) if error.is_away() => return Err(Failure::Away(error.to_string())),
            Err(error) => return Err(Failure::Batch(error.to_string())),
        }
    }
    Err(Failure::Collision(format!("the entity stream was at other sequences than expected {TRIES} times")))
}

/// The stream is at other sequences than the states know: a stitcher died between its publish and its commit, or the stream is another.
/// What is there already is adopted, unless it is older than what readers may have (the stream went back); all else gets a version above what is there.
async fn reconcile(
    bus: &Bus,
    stitching: &mut Stitching,
    changes: &mut Vec<Change>,
    adopted: &mut Vec<StateWrite>,
) -> Result<(), Failure> {
    let refs: Vec<String> = changes.iter().map(|change| change.entity_ref.clone()).collect();
    let lookups: Vec<_> = refs.iter().map(|entity_ref| newest_entity(bus, entity_ref)).collect();
    let newest: Vec<Result<Option<NewestEntity>, Error>> =
        futures::stream::iter(lookups).buffered(LOOKUPS).collect().await;
    let mut highest = 0;
    let mut open = Vec::with_capacity(changes.len());
    for (mut change, newest) in changes.drain(..).zip(newest) {
        match newest.map_err(|error| Failure::Away(error.to_string()))? {
            None => change.expected = 0,
            Some(newest) => {
                let is_old = newest.version < change.known;
                if newest.sequence != change.expected && newest.hash == change.state.hash && !is_old {
                    adopted.push(StateWrite { version: newest.version, sequence: newest.sequence, ..change.state });
                    continue;
                }
                change.expected = newest.sequence;
                highest = highest.max(newest.version);
            }
        }
        open.push(change);
    }
    *changes = open;
    if changes.iter().any(|change| change.state.version <= highest) && !planted::is("version-given-back") {
        stitching.raise_versions(highest).await.map_err(verdict)?;
        let versions = stitching.take_versions(changes.len()).await.map_err(verdict)?;
        for (change, version) in changes.iter_mut().zip(versions) {
            change.state.version = version;
        }
    }
    Ok(())
}
