//! Snapshots: their parts are counted with what these change, and what a complete one left out is withdrawn, a bounded part at a time.

use crate::Processor;
use crate::event::{self, Change, Event, Loaded};
use crate::removal::Locked;
use bus::{Backoff, Item, Outcome, Stop, header};
use catalog::claims::Revision;
use catalog::planted;
use opentelemetry::KeyValue;
use std::time::Duration;
use store::{OpenSnapshot, Parts, Sweep};

/// How often it is looked whether an open snapshot is complete.
const PERIOD: Duration = Duration::from_millis(250);
/// How often it is looked whether there is an open snapshot, beside those whose end this process has taken.
const LOOK: Duration = Duration::from_secs(1);
/// Claims withdrawn in one transaction.
const AT_ONCE: i64 = 500;
/// Snapshots looked at in one turn.
const SNAPSHOTS: i64 = 100;
/// How often a sweep goes on at once when something was in its way.
const COLLISIONS: u32 = 20;
/// Bytes of a snapshot's id at most.
const ID_BYTES: usize = 128;

/// When a snapshot withdraws nothing.
#[derive(Clone, Debug)]
pub struct SnapshotsConfig {
    /// One that would withdraw more than this share of its provider's claims, in percent, is held for an operator.
    pub max_removal_percent: u32,
    /// So many claims it may withdraw whatever their share.
    pub free_removals: u32,
    /// One of which nothing came for so long is over, and withdraws nothing.
    pub timeout: Duration,
}

impl Default for SnapshotsConfig {
    fn default() -> Self {
        SnapshotsConfig { max_removal_percent: 50, free_removals: 20, timeout: Duration::from_secs(600) }
    }
}

/// The event that ends a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub provider: String,
    pub snapshot: String,
    pub count: i64,
}

/// `{"snapshot": "2026-07-01T06:00:00Z", "count": 45}`
pub(crate) fn parse_end(provider: String, payload: &[u8]) -> Result<End, String> {
    let expected = "expected {\"snapshot\": \"<id>\", \"count\": <number of its upserts and imports>}";
    let body: serde_json::Value =
        serde_json::from_slice(payload).map_err(|error| format!("not JSON ({error}): {expected}"))?;
    let count = body.get("count").and_then(serde_json::Value::as_u64).and_then(|count| i64::try_from(count).ok());
    let count = count.ok_or_else(|| format!("field count is not there or no number from 0: {expected}"))?;
    let snapshot = body.get("snapshot").and_then(serde_json::Value::as_str);
    let snapshot = snapshot.ok_or_else(|| format!("field snapshot is not there or no string: {expected}"))?;
    check_id(snapshot).map_err(|reason| format!("field snapshot: {reason}"))?;
    Ok(End { provider, snapshot: snapshot.to_owned(), count })
}

/// What a snapshot's id may be.
pub(crate) fn check_id(id: &str) -> Result<(), String> {
    let fits = (1..=ID_BYTES).contains(&id.len()) && !id.contains('\0');
    fits.then_some(()).ok_or_else(|| format!("expected 1 to {ID_BYTES} bytes, without U+0000"))
}

/// Notes which snapshots the batch ends, and which of its dead letters are parts of one. Done again after a crash, it changes nothing.
pub(crate) async fn note(
    processor: &Processor,
    items: &[Item],
    loaded: &[Loaded],
    outcomes: &mut [Outcome],
) -> Result<(), store::Error> {
    let is_part = |(item, outcome): (&Item, &Outcome)| {
        matches!(outcome, Outcome::Dead(_)) && item.header(header::SNAPSHOT).is_some()
    };
    let has_ends = loaded.iter().any(|loaded| matches!(loaded, Loaded::End(_)));
    if !has_ends && !items.iter().zip(&*outcomes).any(is_part) {
        return Ok(());
    }
    let position = processor.store.stream_position(&processor.bus.names().events_stream()).await?;
    let position = position.ok_or_else(|| store::Error::Away("nothing is known of the stream yet".to_owned()))?;
    if let Some(item) = items.first() {
        processor.refuse_another_life(&position, item.life)?;
    }
    let mut refused = Vec::new();
    for ((item, loaded), outcome) in items.iter().zip(loaded).zip(outcomes) {
        let revision = position.revision(item.sequence, event::stored(item));
        if let Loaded::End(end) = loaded {
            let named = (end.provider.as_str(), end.snapshot.as_str());
            if !processor.store.end_snapshot(named, revision, end.count).await? {
                *outcome = Outcome::Dead(format!(
                    "snapshot {} of provider {} was ended before: expected an id that it has not used",
                    end.snapshot, end.provider
                ));
            }
        } else if is_part((item, outcome)) {
            refused.extend(refused_part(processor, item, revision));
        }
    }
    if has_ends {
        processor.snapshots_go_on.notify_one();
    }
    if !refused.is_empty() {
        refused.sort_unstable_by(|a: &Parts, b| (&a.provider, &a.snapshot).cmp(&(&b.provider, &b.snapshot)));
        processor.store.note_refused(&refused).await?;
    }
    Ok(())
}

fn refused_part(processor: &Processor, item: &Item, revision: Revision) -> Option<Parts> {
    let (provider, _) = processor.bus.names().parse_event(item.subject())?;
    let snapshot = item.header(header::SNAPSHOT).filter(|id| check_id(id).is_ok())?.to_owned();
    Some(Parts { provider, snapshot, first: revision, highest: revision, count: 1 })
}

/// What a turn has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No snapshot is open.
    None,
    /// Some are open, and wait for their parts or for somebody else's sweep.
    Open,
    /// One was swept, or a part of it.
    Swept,
}

/// Judges and sweeps snapshots until the stop signal.
pub(crate) async fn run(processor: &Processor, stop: &Stop) {
    let mut backoff = Backoff::new(PERIOD, Duration::from_secs(10));
    while !stop.is_stopped() {
        let pause = match turn(processor).await {
            Ok(found) => {
                backoff.reset();
                match found {
                    Found::None => LOOK,
                    Found::Open => PERIOD,
                    Found::Swept => Duration::ZERO,
                }
            }
            Err(error) => {
                tracing::debug!(%error, "snapshots cannot be looked at now; trying until they can");
                backoff.pause()
            }
        };
        tokio::select! {
            biased;
            () = stop.stopped() => {}
            () = tokio::time::sleep(pause) => {}
            () = processor.snapshots_go_on.notified() => {}
        }
    }
}

/// Judges those that are complete or silent, and sweeps one.
pub(crate) async fn turn(processor: &Processor) -> Result<Found, store::Error> {
    let open = processor.store.open_snapshots(SNAPSHOTS).await?;
    for snapshot in open.iter().filter(|snapshot| snapshot.state == "open") {
        judge(processor, snapshot).await?;
    }
    if open.is_empty() {
        return Ok(Found::None);
    }
    match processor.store.take_sweep().await? {
        Some(taken) => sweep(processor, &taken).await.map(|()| Found::Swept),
        None => Ok(Found::Open),
    }
}

/// The lowest end of a snapshot that is complete and not swept yet; the highest revision there can be: there is none.
pub(crate) async fn first_unswept(processor: &Processor) -> Result<Revision, store::Error> {
    let open = processor.store.open_snapshots(SNAPSHOTS).await?;
    let complete = open.iter().filter(|snapshot| snapshot.count.is_some_and(|count| snapshot.parts >= count));
    Ok(complete.filter_map(|snapshot| snapshot.last).min().unwrap_or(Revision::MAX))
}

async fn judge(processor: &Processor, snapshot: &OpenSnapshot) -> Result<(), store::Error> {
    let config = &processor.config.snapshots;
    let is_settled = snapshot.settled || planted::is("sweep-early");
    let is_complete = is_settled && snapshot.count.is_some_and(|count| snapshot.parts >= count);
    if !is_complete {
        if snapshot.idle > config.timeout.as_secs_f64() {
            let expected = snapshot.count.map_or_else(|| "an unknown number".to_owned(), |count| count.to_string());
            let reason = format!("nothing came for {} s: {} of {expected} parts", snapshot.idle as u64, snapshot.parts);
            stop(processor, snapshot, "timed_out", &reason).await?;
        }
        return Ok(());
    }
    if snapshot.refused > 0 {
        let reason = format!("{} of {} parts were refused; see the dead letters", snapshot.refused, snapshot.parts);
        return stop(processor, snapshot, "held", &reason).await;
    }
    let (withdrawn, left) = processor.store.count_sweep(&snapshot.provider, snapshot.begun).await?;
    if is_too_much(config, withdrawn, left) {
        let reason = format!(
            "it would withdraw {withdrawn} of {} claims, more than {} percent",
            withdrawn + left,
            config.max_removal_percent
        );
        return stop(processor, snapshot, "held", &reason).await;
    }
    processor.store.begin_sweep(snapshot).await.map(drop)
}

fn is_too_much(config: &SnapshotsConfig, withdrawn: i64, left: i64) -> bool {
    let share = i64::from(config.max_removal_percent);
    withdrawn > i64::from(config.free_removals)
        && withdrawn.saturating_mul(100) > share.saturating_mul(withdrawn.saturating_add(left))
}

async fn stop(processor: &Processor, snapshot: &OpenSnapshot, state: &str, reason: &str) -> Result<(), store::Error> {
    if processor.store.stop_snapshot(snapshot, state, reason).await? {
        let result = KeyValue::new("result", state.to_owned());
        processor.metrics.snapshots.add(1, &[result]);
        tracing::warn!(
            provider.name = snapshot.provider,
            snapshot = snapshot.snapshot,
            state,
            reason,
            "a snapshot withdraws nothing"
        );
    }
    Ok(())
}

/// Withdraws what a snapshot left out. Another processor goes on where this one dies; what both do has no second effect.
async fn sweep(processor: &Processor, sweep: &Sweep) -> Result<(), store::Error> {
    let mut after = sweep.through;
    let mut collisions = 0;
    loop {
        let page = processor.store.sweep_page(sweep, after, AT_ONCE).await?;
        let Some((last, _)) = page.last() else { break };
        let last = *last;
        match sweep_page(processor, sweep, page).await {
            Ok(()) => after = last,
            // Batches that lock the same entities were in the way.
            Err(store::Error::Collision(_)) if collisions < COLLISIONS => collisions += 1,
            Err(error) => return Err(error),
        }
    }
    if processor.store.finish_sweep(sweep).await? {
        processor.metrics.snapshots.add(1, &[KeyValue::new("result", "done")]);
        tracing::info!(provider.name = sweep.provider, snapshot = sweep.snapshot, "a snapshot is swept");
    }
    Ok(())
}

async fn sweep_page(processor: &Processor, sweep: &Sweep, page: Vec<(i64, String)>) -> Result<(), store::Error> {
    let through = page.last().map_or(0, |(id, _)| *id);
    let refs = page.into_iter().map(|(_, entity_ref)| entity_ref).collect();
    let source = format!("provider:{}", sweep.provider);
    let mut locked = Locked::lock(processor, refs).await?;
    let mut events =
        locked.events(sweep.ended, |row| row.source == source && row.claim.is_swept_by(sweep.begun, sweep.ended));
    events.iter_mut().for_each(|event: &mut Event| event.change = Change::Sweep { begun: sweep.begun });
    let withdrawn = events.len() as u64;
    locked.merge.advance_sweep(sweep, through, events.len() as i64).await?;
    locked.commit(processor, &events, sweep.begun).await?;
    processor.metrics.withdrawn.add(withdrawn, &[]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_removals_are_held() {
        let config = SnapshotsConfig::default();
        for (withdrawn, left, held) in
            [(0, 0, false), (20, 0, false), (21, 0, true), (30, 30, false), (31, 30, true), (5, 1_000_000, false)]
        {
            assert_eq!(is_too_much(&config, withdrawn, left), held, "{withdrawn} withdrawn, {left} left");
        }
    }

    #[test]
    fn ends() {
        for (payload, expected) in [
            (r#"{"snapshot": "a", "count": 0}"#, Ok(0)),
            (r#"{"snapshot": "a", "count": 45}"#, Ok(45)),
            (r#"{"snapshot": "a", "count": -1}"#, Err("field count")),
            (r#"{"snapshot": "a", "count": 1.5}"#, Err("field count")),
            (r#"{"snapshot": "a"}"#, Err("field count")),
            (r#"{"snapshot": "", "count": 1}"#, Err("field snapshot")),
            (r#"{"count": 1}"#, Err("field snapshot")),
            ("nonsense", Err("not JSON")),
        ] {
            match (parse_end("p".to_owned(), payload.as_bytes()), expected) {
                (Ok(end), Ok(count)) => assert_eq!(end.count, count, "{payload}"),
                (Err(reason), Err(part)) => assert!(reason.contains(part), "{payload}: {reason}"),
                (found, _) => panic!("{payload}: {found:?}"),
            }
        }
    }
}
