//! The store's methods, each passed on.

use super::{Merge, Stitching, Store, Truth};
use crate::*;
use catalog::claims::Revision;
use std::time::Duration;

#[allow(clippy::missing_errors_doc, reason = "they are those of what is passed on to")]
impl Store {
    pub async fn is_reachable(&self) -> bool {
        match &self.truth {
            Truth::Postgres(truth) => truth.is_reachable().await,
            Truth::Twin(truth) => truth.is_reachable().await,
        }
    }

    pub async fn close(&self) {
        match &self.truth {
            Truth::Postgres(truth) => truth.close().await,
            Truth::Twin(truth) => truth.close().await,
        }
    }

    pub async fn floor(&self) -> Result<Revision, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.floor().await,
            Truth::Twin(truth) => truth.floor().await,
        }
    }

    pub async fn settle(&self, revision: Revision, life: Life<'_>) -> Result<(), Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.settle(revision, life).await,
            Truth::Twin(truth) => truth.settle(revision, life).await,
        }
    }

    pub async fn raise_floor(&self, revision: Revision) -> Result<(), Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.raise_floor(revision).await,
            Truth::Twin(truth) => truth.raise_floor(revision).await,
        }
    }

    pub async fn watermark(&self) -> Result<Revision, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.watermark().await,
            Truth::Twin(truth) => truth.watermark().await,
        }
    }

    pub async fn progress(&self) -> Result<Progress, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.progress().await,
            Truth::Twin(truth) => truth.progress().await,
        }
    }

    pub async fn forget_claims(&self, at_most: i64) -> Result<u64, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.forget_claims(at_most).await,
            Truth::Twin(truth) => truth.forget_claims(at_most).await,
        }
    }

    pub async fn merge(&self, named: &[String], changed: &[String]) -> Result<(Merge, Vec<EntityRow>), Error> {
        Ok(match &self.truth {
            Truth::Postgres(truth) => {
                truth.merge(named, changed).await.map(|(merge, rows)| (Merge::Postgres(merge), rows))?
            }
            Truth::Twin(truth) => truth.merge(named, changed).await.map(|(merge, rows)| (Merge::Twin(merge), rows))?,
        })
    }

    pub async fn note_published(&self, outbox: i64, sequence: u64, life: Life<'_>) -> Result<(), Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.note_published(outbox, sequence, life).await,
            Truth::Twin(truth) => truth.note_published(outbox, sequence, life).await,
        }
    }

    pub async fn unpublished(&self) -> Result<Vec<OutboxRow>, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.unpublished().await,
            Truth::Twin(truth) => truth.unpublished().await,
        }
    }

    pub async fn delete_published(&self, sequence: u64, life: Life<'_>) -> Result<u64, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.delete_published(sequence, life).await,
            Truth::Twin(truth) => truth.delete_published(sequence, life).await,
        }
    }

    pub async fn outbox_length(&self) -> Result<(i64, i64), Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.outbox_length().await,
            Truth::Twin(truth) => truth.outbox_length().await,
        }
    }

    pub async fn take_reads(&self, lane: &str, at_most: i64, lease: Duration) -> Result<Vec<DueRead>, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.take_reads(lane, at_most, lease).await,
            Truth::Twin(truth) => truth.take_reads(lane, at_most, lease).await,
        }
    }

    pub async fn finish_unchanged_read(&self, due: &DueRead, done: &ReadDone) -> Result<(), Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.finish_unchanged_read(due, done).await,
            Truth::Twin(truth) => truth.finish_unchanged_read(due, done).await,
        }
    }

    pub async fn release_reads(&self, held: &[(i64, String, i64)]) -> Result<(), Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.release_reads(held).await,
            Truth::Twin(truth) => truth.release_reads(held).await,
        }
    }

    pub async fn ask_reads(&self, refs: &[String], revision: Revision, in_full: bool) -> Result<u64, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.ask_reads(refs, revision, in_full).await,
            Truth::Twin(truth) => truth.ask_reads(refs, revision, in_full).await,
        }
    }

    pub async fn ask_keys(&self, keys: &[String], revision: Revision) -> Result<u64, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.ask_keys(keys, revision).await,
            Truth::Twin(truth) => truth.ask_keys(keys, revision).await,
        }
    }

    pub async fn cascades(&self, at_most: i64) -> Result<Vec<Cascade>, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.cascades(at_most).await,
            Truth::Twin(truth) => truth.cascades(at_most).await,
        }
    }

    pub async fn children(&self, source: &str, after: &str, at_most: i64) -> Result<Vec<String>, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.children(source, after, at_most).await,
            Truth::Twin(truth) => truth.children(source, after, at_most).await,
        }
    }

    pub async fn ancestors(&self, entity_id: i64) -> Result<Vec<Ancestor>, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.ancestors(entity_id).await,
            Truth::Twin(truth) => truth.ancestors(entity_id).await,
        }
    }

    pub async fn overdue_orphans(&self, grace: Duration, at_most: i64) -> Result<Vec<String>, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.overdue_orphans(grace, at_most).await,
            Truth::Twin(truth) => truth.overdue_orphans(grace, at_most).await,
        }
    }

    pub async fn stitch(&self, asked: &[(i64, i64)]) -> Result<Stitching, Error> {
        Ok(match &self.truth {
            Truth::Postgres(truth) => Stitching::postgres(truth.stitch(asked).await?),
            Truth::Twin(truth) => Stitching::twin(truth.stitch(asked).await?),
        })
    }

    pub async fn unstitched(&self, asked: &[(i64, i64)]) -> Result<Vec<(i64, i64)>, Error> {
        match &self.truth {
            Truth::Postgres(truth) => truth.unstitched(asked).await,
            Truth::Twin(truth) => truth.unstitched(asked).await,
        }
    }

    pub async fn look_at_stitched(&self, entity_ids: &[i64]) -> Result<Stitching, Error> {
        Ok(match &self.truth {
            Truth::Postgres(truth) => Stitching::postgres(truth.look_at_stitched(entity_ids).await?),
            Truth::Twin(truth) => Stitching::twin(truth.look_at_stitched(entity_ids).await?),
        })
    }

    pub async fn stitch_after_others(&self, asked: &[(i64, i64)]) -> Result<Stitching, Error> {
        Ok(match &self.truth {
            Truth::Postgres(truth) => Stitching::postgres(truth.stitch_after_others(asked).await?),
            Truth::Twin(truth) => Stitching::twin(truth.stitch_after_others(asked).await?),
        })
    }
}
