//! The processor role: takes entity events, merges claims, asks for stitching.
//!
//! Any number of them, all equal, anywhere. One batch is five lines, in [`Processor::handle`]: load, decide, commit, announce,
//! acknowledge. A crash before the commit has done nothing; after it, the events come again and have no effect, and the outbox
//! row asks for what was not announced.

mod again;
mod attach;
mod builtin;
mod conflicts;
mod decide;
mod due;
mod emission;
#[cfg(test)]
mod emission_test;
mod error;
mod evaluate;
#[cfg(test)]
mod evaluate_test;
mod event;
mod external;
#[cfg(test)]
mod external_test;
mod metrics;
#[cfg(test)]
mod order_test;
mod pipeline;
mod reads;
mod relay;
mod removal;
mod run;
#[cfg(test)]
mod snapshot_test;
mod snapshots;
#[cfg(test)]
mod testing;

pub use attach::attach;
pub use due::{OrphanStrategy, ReadsConfig};
pub use error::Error;
pub use evaluate::{Child, Due, Evaluated, Evaluation};
pub use event::{Bad, Good};
pub use external::ExternalConfig;
pub use pipeline::{EntityProcessor, EvaluationLimits, Parts, Pipeline, Step};
pub use run::{Run, Trouble};
pub use snapshots::SnapshotsConfig;

use bus::{Bus, Failure, Item, Lane, Limits, Names, Outcome, Stop, Worker};
use catalog::planted;
use decide::{Plan, Unapplied};
use event::{Event, Loaded};
use metrics::Metrics;
use relay::StitchStream;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use store::{EntityRow, Life, Merge, RelationRow, Request, Store, StreamPosition};

/// Entities that one stitch request names at most.
pub(crate) const ENTITIES_PER_REQUEST: usize = 500;

/// When an event that waits for those before it comes again: after this time for each of them, and not later than after that.
const SOONEST_AGAIN: Duration = Duration::from_millis(100);
const LATEST_AGAIN: Duration = Duration::from_secs(2);

/// How a processor works.
#[derive(Clone, Debug)]
pub struct Config {
    /// Batches in hand at once.
    pub loops: usize,
    /// Events in one batch.
    pub batch_events: usize,
    /// Bytes of events in one batch.
    pub batch_bytes: usize,
    /// Limits on one entity.
    pub entity_limits: catalog::entity::Limits,
    /// Unpublished outbox rows beyond which no more is taken.
    pub outbox_rows: i64,
    /// How the broker's streams are to be.
    pub streams: Limits,
    /// What is read outside, and what comes of it.
    pub reads: ReadsConfig,
    /// When a snapshot withdraws nothing.
    pub snapshots: SnapshotsConfig,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            loops: 2,
            batch_events: 1000,
            batch_bytes: 16 << 20,
            entity_limits: catalog::entity::Limits::default(),
            outbox_rows: 1000,
            streams: Limits::default(),
            reads: ReadsConfig::default(),
            snapshots: SnapshotsConfig::default(),
        }
    }
}

/// Works until the stop signal, and then finishes what is in hand.
///
/// # Errors
/// Only what no waiting can mend: streams that stand in the way and cannot be changed into ours.
pub async fn run(
    bus: Bus,
    store: Store,
    pipeline: impl Into<Arc<Pipeline>>,
    config: Config,
    stop: Stop,
) -> Result<(), Error> {
    let (connections, connection) = (bus.connections(), bus.connection());
    if attach(&bus, &store, &config.streams, &stop).await? == attach::Attached::Stopped {
        return Ok(());
    }
    let processor = Arc::new(Processor::new(bus.clone(), store, pipeline.into(), config));
    processor.attached_to.store(connection, Ordering::Relaxed);
    let names = bus.names();
    let lane = |name, durable| Lane {
        name,
        stream: names.events_stream(),
        durable,
        messages: processor.config.batch_events,
        bytes: processor.config.batch_bytes,
    };
    let lanes = vec![lane("fresh", Names::PROCESSOR), lane("bulk", Names::PROCESSOR_BULK)];
    let worker = Worker::new(&bus, Arc::clone(&processor), lanes, processor.config.streams.ack_wait, &stop);
    // Who is about to end still has messages in hand, and must not answer for those of another stream.
    let (drain, drained) = bus::stop();
    let work = async {
        worker.run(processor.config.loops).await;
        drain.stop();
    };
    tokio::join!(
        work,
        relay::run(&processor, &stop),
        attach::again(&processor, connections, &drained),
        due::run(&processor, &stop),
        removal::run(&processor, &stop),
        snapshots::run(&processor, &stop),
        again::run(&processor, &stop),
    );
    Ok(())
}

pub(crate) struct Processor {
    pub bus: Bus,
    pub store: Store,
    pub config: Config,
    /// Too much waits to be published: nothing is taken.
    pub outbox_is_full: AtomicBool,
    /// The connection on which the streams were looked at; while it is another one, or [`attach::NONE`], nothing is taken.
    pub attached_to: AtomicU64,
    pub stitch_stream: Mutex<StitchStream>,
    /// A message shows that the streams are not those that were looked at.
    pub look_again: tokio::sync::Notify,
    /// Some claim is due to be read.
    pub reads_are_due: tokio::sync::Notify,
    /// Some removal is to go on.
    pub removals_go_on: tokio::sync::Notify,
    /// Some snapshot has its end.
    pub snapshots_go_on: tokio::sync::Notify,
    pub pipeline: Arc<Pipeline>,
    pub metrics: Metrics,
}

impl bus::Handler for Processor {
    fn stage(&self) -> &'static str {
        "processor"
    }

    fn may_wait(&self, item: &Item) -> bool {
        item.header(bus::header::EXPECTED_REVISION).is_some()
    }

    async fn may_fetch(&self, _lane: &Lane) -> bool {
        !self.outbox_is_full.load(Ordering::Relaxed) && self.is_attached()
    }

    async fn handle(&self, lane: &Lane, items: &[Item]) -> Result<Vec<Outcome>, Failure> {
        let started = Instant::now();
        self.metrics.taken(lane.name, items);
        let loaded: Vec<Loaded> = items
            .iter()
            .map(|item| event::load(item, self.bus.names(), &self.pipeline, &self.config.entity_limits))
            .collect();
        let (places, events): (Vec<usize>, Vec<&Event>) =
            loaded.iter().enumerate().filter_map(|(place, loaded)| Some((place, loaded.event()?))).unzip();
        let (plan, request) = self.decide_and_commit(lane.name, &events).await.map_err(verdict)?;
        self.ask_for_reads(&plan, items, &loaded).await.map_err(verdict)?;
        let mut outcomes: Vec<Outcome> = loaded.iter().map(Loaded::to_outcome).collect();
        for (index, unapplied) in &plan.unapplied {
            let place = places[*index];
            outcomes[place] = unapplied_outcome(unapplied);
        }
        snapshots::note(self, items, &loaded, &mut outcomes).await.map_err(verdict)?;
        self.after_commit(lane.name, &plan, request).await;
        self.metrics.handled(&plan, &outcomes, started);
        Ok(outcomes)
    }
}

/// What becomes of a message whose event is not applied. Of several that wait for each other the next one must come soon, or the last of
/// them waits as long as all of them together; so how far the floor has to go decides, and not how often it came.
fn unapplied_outcome(unapplied: &Unapplied) -> Outcome {
    match unapplied {
        Unapplied::Refused(reason) => Outcome::Dead(reason.clone()),
        Unapplied::TooEarly(behind) => {
            let behind = u32::try_from(*behind).unwrap_or(u32::MAX);
            Outcome::Later(SOONEST_AGAIN.saturating_mul(behind).min(LATEST_AGAIN))
        }
    }
}

/// The refs that events name, and of these the ones that they change; sorted.
pub(crate) fn refs_of(events: &[&Event]) -> (Vec<String>, Vec<String>) {
    let changed: BTreeSet<&str> = events.iter().map(|event| event.entity_ref.as_str()).collect();
    let others = events.iter().flat_map(|event| event.foreign()).map(|relation| relation.source_ref.as_str());
    let named: BTreeSet<&str> = changed.iter().copied().chain(others).collect();
    let owned = |refs: BTreeSet<&str>| refs.into_iter().map(str::to_owned).collect();
    (owned(named), owned(changed))
}

/// The one verdict on each error of a batch.
fn verdict(error: store::Error) -> Failure {
    match error {
        store::Error::Away(what) => Failure::Away(what),
        store::Error::Collision(what) => Failure::Collision(what),
        other => Failure::Batch(other.to_string()),
    }
}

impl Processor {
    fn new(bus: Bus, store: Store, pipeline: Arc<Pipeline>, config: Config) -> Self {
        let (outbox_is_full, attached_to) = (AtomicBool::new(false), AtomicU64::new(attach::NONE));
        let (look_again, reads_are_due, removals_go_on, snapshots_go_on) = Default::default();
        let metrics = Metrics::new();
        Processor {
            bus,
            store,
            config,
            outbox_is_full,
            attached_to,
            stitch_stream: Mutex::default(),
            look_again,
            reads_are_due,
            removals_go_on,
            snapshots_go_on,
            pipeline,
            metrics,
        }
    }

    /// One transaction: entities locked in ref order, claims read and decided on, everything written, the outbox row last.
    async fn decide_and_commit(&self, lane: &str, events: &[&Event]) -> Result<(Plan, Option<Request>), store::Error> {
        if events.is_empty() {
            return Ok((Plan::default(), None));
        }
        let life = self.bus.life();
        let (named, changed) = refs_of(events);
        // What is noted is noted before anything of it is committed; the locks are taken meanwhile.
        let ((), (mut merge, entities)) =
            tokio::try_join!(self.note_last(events, life), self.store.merge(&named, &changed))?;
        let mut plan = self.decide(&mut merge, entities, events, life).await?;
        self.write(&mut merge, lane, &mut plan, events).await?;
        let request = merge.commit(lane, plan.lowest_revision, plan.to_stitch.iter().copied().collect()).await?;
        Ok((plan, request))
    }

    /// Notes the highest message of the batch, by which a stream that goes back below it is known.
    async fn note_last(&self, events: &[&Event], resets: i64) -> Result<(), store::Error> {
        let last = events.iter().filter(|event| event.emitted.is_none()).max_by_key(|event| event.sequence);
        let Some(last) = last else { return Ok(()) };
        let stream = self.bus.names().events_stream();
        self.store.note_sequence(Life { stream: &stream, resets }, last.sequence, last.stored).await
    }

    /// Reads what is claimed of the locked entities, and decides.
    async fn decide(
        &self,
        merge: &mut Merge,
        entities: Vec<EntityRow>,
        events: &[&Event],
        life: i64,
    ) -> Result<Plan, store::Error> {
        let ids: Vec<i64> = entities.iter().map(|entity| entity.id).collect();
        let position = merge.read_position(&self.bus.names().events_stream()).await?;
        if events.iter().any(|event| event.emitted.is_none()) {
            self.refuse_another_life(&position, life)?;
        }
        self.refuse_another_stream(&position, events).await?;
        let (mut floor, claims) = merge.read_claims(&ids).await?;
        if events.iter().any(|event| event.is_expecting()) {
            // After the claims: the entities are locked, so what a snapshot that is not unswept now withdraws of them is among the claims.
            floor.unswept = snapshots::first_unswept(self).await?;
        }
        Ok(decide::decide(entities, (floor, claims), events, &position))
    }

    /// Whether the streams were looked at since the connection was made.
    pub(crate) fn is_attached(&self) -> bool {
        self.attached_to.load(Ordering::Relaxed) == self.bus.connection()
    }

    /// The streams are not those that were looked at: nothing more is taken until they are looked at again.
    pub(crate) fn look_at_streams(&self) {
        self.attached_to.store(attach::NONE, Ordering::Relaxed);
        self.look_again.notify_one();
    }

    /// Messages that were taken before their stream was lost have no revision in the one that came after it.
    pub(crate) fn refuse_another_life(&self, position: &StreamPosition, life: i64) -> Result<(), store::Error> {
        if position.resets == life {
            return Ok(());
        }
        self.look_at_streams();
        Err(store::Error::Away("the event stream was lost since these events were taken".to_owned()))
    }

    /// An event that stands no later than the last one known, and was stored after it, is of a stream that went back and has grown
    /// since: it must not get a revision before that is recorded.
    async fn refuse_another_stream(&self, position: &StreamPosition, events: &[&Event]) -> Result<(), store::Error> {
        let is_foreign = |event: &&Event| {
            let sequence = i64::try_from(event.sequence).unwrap_or(i64::MAX);
            event.emitted.is_none() && sequence <= position.last_sequence && event.stored > position.last_stored
        };
        if !events.iter().any(is_foreign) {
            return Ok(());
        }
        let stream = self.bus.names().events_stream();
        let away = |error: bus::Error| store::Error::Away(error.to_string());
        // The broker's clock alone may have gone back: then it is the same stream all the same.
        if !attach::holds_another(&self.bus, &stream, position).await.map_err(away)? {
            return Ok(());
        }
        self.look_at_streams();
        Err(store::Error::Away(format!("stream {stream} went back to an older state; it is being looked at")))
    }

    /// Writes all of a plan but its outbox row.
    async fn write(
        &self,
        merge: &mut Merge,
        lane: &str,
        plan: &mut Plan,
        events: &[&Event],
    ) -> Result<(), store::Error> {
        let (gone, new) = self.relations(merge, plan, events).await?;
        merge.write_claims(&plan.claims).await?;
        merge.write_contents(&plan.contents_gone, &plan.contents).await?;
        merge.write_relations(&gone, &new).await?;
        merge.write_entities(&plan.entities).await?;
        merge.write_reads(lane, &plan.reads).await?;
        merge.ask_takeovers(&plan.reads_again, plan.lowest_revision).await?;
        merge.write_cascade(&plan.cascade, plan.lowest_revision).await?;
        merge.note_parts(&plan.parts.values().cloned().collect::<Vec<_>>()).await?;
        let gone = if planted::is("old-relations") { Vec::new() } else { gone };
        plan.to_stitch.extend(gone.iter().chain(&new).map(|relation| relation.subject_id));
        Ok(())
    }

    /// Makes due what the batch's refreshes name. Done again after a crash, it changes nothing.
    async fn ask_for_reads(&self, plan: &Plan, items: &[Item], loaded: &[Loaded]) -> Result<(), store::Error> {
        let refreshed = &plan.refreshed;
        let mut asked = 0;
        for (refs, in_full) in [(&refreshed.in_full, true), (&refreshed.refs, false)] {
            if !refs.is_empty() {
                let refs: Vec<String> = refs.iter().cloned().collect();
                asked += self.store.ask_reads(&refs, refreshed.revision, in_full).await?;
            }
        }
        for (item, loaded) in items.iter().zip(loaded) {
            let Loaded::Keys(keys) = loaded else { continue };
            let position = self.store.stream_position(&self.bus.names().events_stream()).await?;
            let position =
                position.ok_or_else(|| store::Error::Away("nothing is known of the stream yet".to_owned()))?;
            self.refuse_another_life(&position, item.life)?;
            asked += self.store.ask_keys(keys, position.revision(item.sequence, event::stored(item))).await?;
        }
        if asked > 0 {
            due::hint(self, "fresh").await;
        }
        Ok(())
    }

    /// What the entities of the plan say of others from now on, against what they said until now.
    async fn relations(
        &self,
        merge: &mut Merge,
        plan: &Plan,
        events: &[&Event],
    ) -> Result<(Vec<RelationRow>, Vec<RelationRow>), store::Error> {
        let contents = match plan.takeovers.is_empty() {
            true => Default::default(),
            false => merge.read_contents(&plan.takeovers).await?,
        };
        let said = decide::said_of_others(plan, events, contents, self.pipeline.model())?;
        let subjects: BTreeSet<&str> = said.iter().map(|(_, relation)| relation.source_ref.as_str()).collect();
        let subjects: Vec<String> = subjects.into_iter().map(str::to_owned).collect();
        let before = match plan.said_before.is_empty() {
            true => Vec::new(),
            false => merge.read_relations(&plan.said_before).await?,
        };
        decide::relation_changes(said, merge.find_ids(&subjects).await?, before)
    }

    /// Says to others what a commit has for them to do.
    async fn after_commit(&self, lane: &str, plan: &Plan, request: Option<Request>) {
        if let Some(request) = request {
            relay::announce(self, lane, &request).await;
        }
        if !plan.reads.is_empty() || !plan.reads_again.is_empty() {
            due::hint(self, lane).await;
        }
        if !plan.cascade.is_empty() {
            self.removals_go_on.notify_one();
        }
        conflicts::tell(self, &plan.conflicts_begun).await;
    }

    fn stitch_stream(&self) -> MutexGuard<'_, StitchStream> {
        self.stitch_stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_of_those_that_wait_comes_soon() {
        for (behind, milliseconds) in [(1, 100), (3, 300), (20, 2000), (1_000_000, 2000), (i64::MAX, 2000)] {
            let outcome = unapplied_outcome(&Unapplied::TooEarly(behind));
            assert_eq!(outcome, Outcome::Later(Duration::from_millis(milliseconds)), "{behind} behind");
        }
    }
}
