//! The walk over all claims under another pipeline: `walk.rs`, statement by statement.

use super::database::{Key, Moment, Pipeline};
use super::removal::limit;
use super::transaction::View;
use super::{Merge, Store};
use crate::{Error, ReadWrite, WalkStep, WalkedClaim};

/// How long a step is somebody's.
const LEASE: Moment = 30_000_000;

impl View<'_> {
    fn pipeline(&self) -> Option<&Pipeline> {
        self.database.pipeline.get(self.tid, &())
    }

    /// `read_walk.sql`
    fn walk_step(&self, after: i64, entities: i64, fingerprint: &str) -> WalkStep {
        let mut step = WalkStep { after, last: None, claims: Vec::new() };
        for (id, entity) in self.database.entities.range(self.tid, after + 1..).take(limit(entities)) {
            step.last = Some(*id);
            let of_it = (*id, String::new())..(*id + 1, String::new());
            for (key, claim) in self.database.claims.range(self.tid, of_it) {
                let Some(hash) = claim.hash.clone().filter(|hash| claim.present && !hash.ends_with(fingerprint)) else {
                    continue;
                };
                let content = self.database.contents.get(self.tid, key);
                let is_raw = content.is_some_and(|content| content.raw.is_some());
                let Some(content) = content.and_then(|content| content.raw.clone().or(content.body.clone())) else {
                    continue;
                };
                step.claims.push(WalkedClaim {
                    entity_id: *id,
                    entity_ref: entity.entity_ref.clone(),
                    source: key.1.clone(),
                    hash,
                    content,
                    is_raw,
                    is_due: self.database.reads.get(self.tid, key).is_some(),
                });
            }
        }
        step
    }
}

impl Store {
    pub async fn begin_walk(&self, fingerprint: &str) -> Result<bool, Error> {
        let mut transaction = self.statement("begin_walk").await?;
        transaction.lock(Key::Pipeline).await?;
        let is_another = {
            let mut view = transaction.view();
            let is_another = view.pipeline().is_none_or(|pipeline| pipeline.fingerprint != fingerprint);
            if is_another {
                let pipeline = Pipeline { fingerprint: fingerprint.to_owned(), walked_to: Some(0), leased_until: None };
                view.database.pipeline.put(view.tid, (), Some(pipeline));
            }
            is_another
        };
        transaction.finish().await?;
        Ok(is_another)
    }

    pub async fn repeat_walk(&self, fingerprint: &str) -> Result<(), Error> {
        let is_over = |pipeline: &Pipeline| pipeline.fingerprint != fingerprint && pipeline.walked_to.is_none();
        self.change_walk("repeat_walk", is_over, |pipeline, _| pipeline.walked_to = Some(0)).await?;
        Ok(())
    }

    pub async fn take_walk(&self, fingerprint: &str, entities: i64) -> Result<Option<WalkStep>, Error> {
        let now = self.alone("take_walk", |view| view.now).await?;
        let is_free = |pipeline: &Pipeline| {
            pipeline.fingerprint == fingerprint
                && pipeline.walked_to.is_some()
                && pipeline.leased_until.is_none_or(|until| until < now)
        };
        let taken = self.change_walk("take_walk", is_free, |pipeline, now| pipeline.leased_until = Some(now + LEASE));
        let Some(after) = taken.await?.and_then(|pipeline| pipeline.walked_to) else { return Ok(None) };
        Ok(Some(self.alone("read_walk", |view| view.walk_step(after, entities, fingerprint)).await?))
    }

    pub async fn move_walk(&self, fingerprint: &str, step: &WalkStep) -> Result<(), Error> {
        let is_there =
            |pipeline: &Pipeline| pipeline.fingerprint == fingerprint && pipeline.walked_to == Some(step.after);
        let moved = |pipeline: &mut Pipeline, _| (pipeline.walked_to, pipeline.leased_until) = (step.last, None);
        self.change_walk("move_walk", is_there, moved).await?;
        Ok(())
    }

    /// Changes the row if it is so, and gives it as it is then.
    async fn change_walk(
        &self,
        point: &'static str,
        is_wanted: impl Fn(&Pipeline) -> bool,
        change: impl FnOnce(&mut Pipeline, Moment),
    ) -> Result<Option<Pipeline>, Error> {
        let mut transaction = self.statement(point).await?;
        let mut changed = None;
        if transaction.view().pipeline().is_some_and(&is_wanted) {
            transaction.lock(Key::Pipeline).await?;
            let mut view = transaction.view();
            if view.pipeline().is_some_and(&is_wanted) {
                let (tid, now) = (view.tid, view.now);
                view.database.pipeline.change(tid, &(), |pipeline| change(pipeline, now));
                changed = view.pipeline().cloned();
            }
        }
        transaction.finish().await?;
        Ok(changed)
    }
}

impl Merge {
    pub async fn rehash_claims(&mut self, claims: &[(i64, String, String, String)]) -> Result<(), Error> {
        self.transaction.enter("merge.rehash_claims").await?;
        for (entity_id, source, before, now) in claims {
            let key = (*entity_id, source.clone());
            self.transaction.lock(Key::Claim(key.0, key.1.clone())).await?;
            let mut view = self.transaction.view();
            let tid = view.tid;
            if view.database.claims.get(tid, &key).is_some_and(|claim| claim.hash.as_ref() == Some(before)) {
                view.database.claims.change(tid, &key, |claim| claim.hash = Some(now.clone()));
            }
        }
        self.transaction.leave().await
    }

    pub async fn begin_reads(&mut self, lane: &str, reads: &[(ReadWrite, Vec<u8>)]) -> Result<(), Error> {
        if reads.is_empty() {
            return Ok(());
        }
        self.transaction.enter("merge.keep_raw").await?;
        for (read, raw) in reads {
            let key = (read.entity_id, read.source.clone());
            self.transaction.lock(Key::Content(key.0, key.1.clone())).await?;
            let mut view = self.transaction.view();
            let tid = view.tid;
            view.database.contents.change(tid, &key, |content| {
                content.raw.get_or_insert_with(|| raw.clone());
            });
        }
        self.transaction.leave().await?;
        let reads: Vec<ReadWrite> = reads.iter().map(|(read, _)| read.clone()).collect();
        self.write_reads(lane, &reads).await
    }
}
