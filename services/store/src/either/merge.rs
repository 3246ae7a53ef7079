//! The methods of the processor's transaction, each passed on.

use super::Merge;
use crate::{
    Ancestor, Cascade, ClaimRow, ClaimWrite, ContentWrite, DueRead, EntityWrite, Error, Floor, Parts, ReadDone,
    ReadWrite, RelationRow, Request, Step, StreamPosition, Sweep,
};
use catalog::claims::Revision;
use std::collections::HashMap;

impl Merge {
    pub async fn read_position(&mut self, stream: &str) -> Result<StreamPosition, Error> {
        match self {
            Merge::Postgres(work) => work.read_position(stream).await,
            Merge::Twin(work) => work.read_position(stream).await,
        }
    }

    pub async fn read_claims(&mut self, ids: &[i64]) -> Result<(Floor, Vec<ClaimRow>), Error> {
        match self {
            Merge::Postgres(work) => work.read_claims(ids).await,
            Merge::Twin(work) => work.read_claims(ids).await,
        }
    }

    pub async fn read_contents(&mut self, claims: &[(i64, String)]) -> Result<HashMap<i64, Option<Vec<u8>>>, Error> {
        match self {
            Merge::Postgres(work) => work.read_contents(claims).await,
            Merge::Twin(work) => work.read_contents(claims).await,
        }
    }

    pub async fn find_ids(&mut self, refs: &[String]) -> Result<&HashMap<String, i64>, Error> {
        match self {
            Merge::Postgres(work) => work.find_ids(refs).await,
            Merge::Twin(work) => work.find_ids(refs).await,
        }
    }

    pub async fn read_relations(&mut self, originators: &[i64]) -> Result<Vec<RelationRow>, Error> {
        match self {
            Merge::Postgres(work) => work.read_relations(originators).await,
            Merge::Twin(work) => work.read_relations(originators).await,
        }
    }

    pub async fn write_relations(&mut self, gone: &[RelationRow], new: &[RelationRow]) -> Result<(), Error> {
        match self {
            Merge::Postgres(work) => work.write_relations(gone, new).await,
            Merge::Twin(work) => work.write_relations(gone, new).await,
        }
    }

    pub async fn write_claims(&mut self, claims: &[ClaimWrite]) -> Result<(), Error> {
        match self {
            Merge::Postgres(work) => work.write_claims(claims).await,
            Merge::Twin(work) => work.write_claims(claims).await,
        }
    }

    pub async fn rehash_claims(&mut self, claims: &[(i64, String, String, String)]) -> Result<(), Error> {
        match self {
            Merge::Postgres(work) => work.rehash_claims(claims).await,
            Merge::Twin(work) => work.rehash_claims(claims).await,
        }
    }

    pub async fn begin_reads(&mut self, lane: &str, reads: &[(ReadWrite, Vec<u8>)]) -> Result<(), Error> {
        match self {
            Merge::Postgres(work) => work.begin_reads(lane, reads).await,
            Merge::Twin(work) => work.begin_reads(lane, reads).await,
        }
    }

    pub async fn write_contents(&mut self, gone: &[(i64, String)], new: &[ContentWrite]) -> Result<(), Error> {
        match self {
            Merge::Postgres(work) => work.write_contents(gone, new).await,
            Merge::Twin(work) => work.write_contents(gone, new).await,
        }
    }

    pub async fn write_entities(&mut self, entities: &[EntityWrite]) -> Result<(), Error> {
        match self {
            Merge::Postgres(work) => work.write_entities(entities).await,
            Merge::Twin(work) => work.write_entities(entities).await,
        }
    }

    pub async fn commit(self, lane: &str, revision: Revision, to_stitch: Vec<i64>) -> Result<Option<Request>, Error> {
        match self {
            Merge::Postgres(work) => work.commit(lane, revision, to_stitch).await,
            Merge::Twin(work) => work.commit(lane, revision, to_stitch).await,
        }
    }

    pub async fn write_reads(&mut self, lane: &str, reads: &[ReadWrite]) -> Result<(), Error> {
        match self {
            Merge::Postgres(work) => work.write_reads(lane, reads).await,
            Merge::Twin(work) => work.write_reads(lane, reads).await,
        }
    }

    pub async fn ask_takeovers(&mut self, claims: &[(i64, String)], revision: Revision) -> Result<(), Error> {
        match self {
            Merge::Postgres(work) => work.ask_takeovers(claims, revision).await,
            Merge::Twin(work) => work.ask_takeovers(claims, revision).await,
        }
    }

    pub async fn lock_read(&mut self, due: &DueRead) -> Result<bool, Error> {
        match self {
            Merge::Postgres(work) => work.lock_read(due).await,
            Merge::Twin(work) => work.lock_read(due).await,
        }
    }

    pub async fn finish_read(
        &mut self,
        due: &DueRead,
        done: &ReadDone,
        refresh_keys: Option<&[String]>,
    ) -> Result<(), Error> {
        match self {
            Merge::Postgres(work) => work.finish_read(due, done, refresh_keys).await,
            Merge::Twin(work) => work.finish_read(due, done, refresh_keys).await,
        }
    }

    pub async fn write_emitted(&mut self, entity_id: i64, revision: Revision) -> Result<(), Error> {
        match self {
            Merge::Postgres(work) => work.write_emitted(entity_id, revision).await,
            Merge::Twin(work) => work.write_emitted(entity_id, revision).await,
        }
    }

    pub async fn children(&mut self, source: &str, at_most: i64) -> Result<Vec<String>, Error> {
        match self {
            Merge::Postgres(work) => work.children(source, at_most).await,
            Merge::Twin(work) => work.children(source, at_most).await,
        }
    }

    pub async fn ancestors(&mut self, entity_id: i64) -> Result<Vec<Ancestor>, Error> {
        match self {
            Merge::Postgres(work) => work.ancestors(entity_id).await,
            Merge::Twin(work) => work.ancestors(entity_id).await,
        }
    }

    pub async fn write_cascade(&mut self, steps: &[(i64, Step)], revision: Revision) -> Result<(), Error> {
        match self {
            Merge::Postgres(work) => work.write_cascade(steps, revision).await,
            Merge::Twin(work) => work.write_cascade(steps, revision).await,
        }
    }

    pub async fn drop_cascade(&mut self, cascade: &Cascade) -> Result<(), Error> {
        match self {
            Merge::Postgres(work) => work.drop_cascade(cascade).await,
            Merge::Twin(work) => work.drop_cascade(cascade).await,
        }
    }

    pub async fn mark_orphans(&mut self, entity_ids: &[i64], orphan: bool) -> Result<Vec<i64>, Error> {
        match self {
            Merge::Postgres(work) => work.mark_orphans(entity_ids, orphan).await,
            Merge::Twin(work) => work.mark_orphans(entity_ids, orphan).await,
        }
    }

    pub async fn note_parts(&mut self, parts: &[Parts]) -> Result<(), Error> {
        match self {
            Merge::Postgres(work) => work.note_parts(parts).await,
            Merge::Twin(work) => work.note_parts(parts).await,
        }
    }

    pub async fn advance_sweep(&mut self, sweep: &Sweep, through: i64, withdrawn: i64) -> Result<(), Error> {
        match self {
            Merge::Postgres(work) => work.advance_sweep(sweep, through, withdrawn).await,
            Merge::Twin(work) => work.advance_sweep(sweep, through, withdrawn).await,
        }
    }
}
