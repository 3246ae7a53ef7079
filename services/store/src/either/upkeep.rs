//! The store's methods for upkeep and operators, each passed on.

use super::{Store, Truth};
use crate::*;
use catalog::claims::Revision;
use std::time::Duration;

#[allow(clippy::missing_errors_doc, reason = "they are those of what is passed on to")]
impl Store {
    pub async fn begin_rebuild(&self) -> Result<(), Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.begin_rebuild().await,
            Truth::Twin(truth) => truth.begin_rebuild().await,
        }
    }

    pub async fn rebuild_some(&self, at_most: i64) -> Result<Option<usize>, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.rebuild_some(at_most).await,
            Truth::Twin(truth) => truth.rebuild_some(at_most).await,
        }
    }

    pub async fn published_after(&self, after: i64, at_most: i64) -> Result<Vec<PublishedState>, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.published_after(after, at_most).await,
            Truth::Twin(truth) => truth.published_after(after, at_most).await,
        }
    }

    pub async fn publish_again(&self, entity_ids: &[i64]) -> Result<(), Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.publish_again(entity_ids).await,
            Truth::Twin(truth) => truth.publish_again(entity_ids).await,
        }
    }

    pub async fn stitch_again(&self, entity_ids: &[i64]) -> Result<(), Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.stitch_again(entity_ids).await,
            Truth::Twin(truth) => truth.stitch_again(entity_ids).await,
        }
    }

    pub async fn move_check(&self, after: i64, rounds: i64, mended: i64) -> Result<(), Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.move_check(after, rounds, mended).await,
            Truth::Twin(truth) => truth.move_check(after, rounds, mended).await,
        }
    }

    pub async fn repair_state(&self) -> Result<RepairState, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.repair_state().await,
            Truth::Twin(truth) => truth.repair_state().await,
        }
    }

    pub async fn gaps(&self, at_most: i64) -> Result<Vec<Gap>, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.gaps(at_most).await,
            Truth::Twin(truth) => truth.gaps(at_most).await,
        }
    }

    pub async fn newest_claim(&self, entity_ref: &str, source: &str) -> Result<Option<Revision>, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.newest_claim(entity_ref, source).await,
            Truth::Twin(truth) => truth.newest_claim(entity_ref, source).await,
        }
    }

    pub async fn note_refused(&self, parts: &[Parts]) -> Result<(), Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.note_refused(parts).await,
            Truth::Twin(truth) => truth.note_refused(parts).await,
        }
    }

    pub async fn end_snapshot(&self, named: (&str, &str), revision: Revision, count: i64) -> Result<bool, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.end_snapshot(named, revision, count).await,
            Truth::Twin(truth) => truth.end_snapshot(named, revision, count).await,
        }
    }

    pub async fn open_snapshots(&self, at_most: i64) -> Result<Vec<OpenSnapshot>, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.open_snapshots(at_most).await,
            Truth::Twin(truth) => truth.open_snapshots(at_most).await,
        }
    }

    pub async fn count_sweep(&self, provider: &str, begun: Revision) -> Result<(i64, i64), Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.count_sweep(provider, begun).await,
            Truth::Twin(truth) => truth.count_sweep(provider, begun).await,
        }
    }

    pub(crate) async fn move_snapshot(
        &self,
        named: (&str, &str),
        from: &[&str],
        to: (&str, Option<&str>),
        swept_at: Option<Revision>,
    ) -> Result<bool, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.move_snapshot(named, from, to, swept_at).await,
            Truth::Twin(truth) => truth.move_snapshot(named, from, to, swept_at).await,
        }
    }

    pub async fn take_sweep(&self) -> Result<Option<Sweep>, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.take_sweep().await,
            Truth::Twin(truth) => truth.take_sweep().await,
        }
    }

    pub async fn sweep_page(&self, sweep: &Sweep, after: i64, at_most: i64) -> Result<Vec<(i64, String)>, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.sweep_page(sweep, after, at_most).await,
            Truth::Twin(truth) => truth.sweep_page(sweep, after, at_most).await,
        }
    }

    pub async fn forget_snapshots(&self) -> Result<(), Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.forget_snapshots().await,
            Truth::Twin(truth) => truth.forget_snapshots().await,
        }
    }

    pub async fn snapshot_rows(&self, at_most: i64) -> Result<Vec<SnapshotRow>, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.snapshot_rows(at_most).await,
            Truth::Twin(truth) => truth.snapshot_rows(at_most).await,
        }
    }

    pub async fn conflicts(&self, after: (i64, &str), at_most: i64) -> Result<Vec<Conflict>, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.conflicts(after, at_most).await,
            Truth::Twin(truth) => truth.conflicts(after, at_most).await,
        }
    }

    pub async fn stream_position(&self, name: &str) -> Result<Option<StreamPosition>, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.stream_position(name).await,
            Truth::Twin(truth) => truth.stream_position(name).await,
        }
    }

    pub async fn note_stream(&self, name: &str, seen: &SeenStream) -> Result<(), Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.note_stream(name, seen).await,
            Truth::Twin(truth) => truth.note_stream(name, seen).await,
        }
    }

    pub async fn note_highest(&self, life: Life<'_>, sequence: u64) -> Result<bool, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.note_highest(life, sequence).await,
            Truth::Twin(truth) => truth.note_highest(life, sequence).await,
        }
    }

    pub async fn note_sequence(&self, life: Life<'_>, sequence: u64, stored: i64) -> Result<(), Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.note_sequence(life, sequence, stored).await,
            Truth::Twin(truth) => truth.note_sequence(life, sequence, stored).await,
        }
    }

    pub async fn reset_stream(
        &self,
        name: &str,
        known: &StreamPosition,
        seen: &SeenStream,
        remedy: Remedy,
    ) -> Result<bool, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.reset_stream(name, known, seen, remedy).await,
            Truth::Twin(truth) => truth.reset_stream(name, known, seen, remedy).await,
        }
    }

    pub async fn take_task(
        &self,
        name: &str,
        host: &str,
        lease: Duration,
        ran: Option<Result<(), String>>,
    ) -> Result<Option<Option<Duration>>, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.take_task(name, host, lease, ran).await,
            Truth::Twin(truth) => truth.take_task(name, host, lease, ran).await,
        }
    }

    pub async fn drop_tasks(&self, host: &str) -> Result<(), Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.drop_tasks(host).await,
            Truth::Twin(truth) => truth.drop_tasks(host).await,
        }
    }

    pub async fn counts(&self) -> Result<Counts, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.counts().await,
            Truth::Twin(truth) => truth.counts().await,
        }
    }

    pub async fn failed_entities(&self, after: &str, at_most: i64) -> Result<Vec<FailedEntity>, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.failed_entities(after, at_most).await,
            Truth::Twin(truth) => truth.failed_entities(after, at_most).await,
        }
    }

    pub async fn task_rows(&self) -> Result<Vec<TaskRow>, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.task_rows().await,
            Truth::Twin(truth) => truth.task_rows().await,
        }
    }

    pub async fn begin_walk(&self, fingerprint: &str) -> Result<bool, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.begin_walk(fingerprint).await,
            Truth::Twin(truth) => truth.begin_walk(fingerprint).await,
        }
    }

    pub async fn repeat_walk(&self, fingerprint: &str) -> Result<(), Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.repeat_walk(fingerprint).await,
            Truth::Twin(truth) => truth.repeat_walk(fingerprint).await,
        }
    }

    pub async fn take_walk(&self, fingerprint: &str, entities: i64) -> Result<Option<WalkStep>, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.take_walk(fingerprint, entities).await,
            Truth::Twin(truth) => truth.take_walk(fingerprint, entities).await,
        }
    }

    pub async fn move_walk(&self, fingerprint: &str, step: &WalkStep) -> Result<(), Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.move_walk(fingerprint, step).await,
            Truth::Twin(truth) => truth.move_walk(fingerprint, step).await,
        }
    }
}
