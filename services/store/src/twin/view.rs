//! What an operator asks to see: `view.rs`, statement by statement.

use super::removal::limit;
use super::{Store, seconds};
use crate::{Counts, Error, FailedEntity, TaskRow};

impl Store {
    pub async fn counts(&self) -> Result<Counts, Error> {
        self.alone("counts", |view| {
            let (database, tid) = (&view.database, view.tid);
            let count = |rows: usize| i64::try_from(rows).unwrap_or(i64::MAX);
            Counts {
                entities: count(database.entities.all(tid).filter(|(_, entity)| entity.winner.is_some()).count()),
                failed: count(database.contents.all(tid).filter(|(_, content)| content.error.is_some()).count()),
                outbox: count(database.outbox.all(tid).count()),
                reads: count(database.reads.all(tid).filter(|(_, due)| due.due_at <= view.now).count()),
                removals: count(database.cascade.all(tid).count()),
                orphans: count(database.entities.all(tid).filter(|(_, row)| row.orphan_since.is_some()).count()),
            }
        })
        .await
    }

    pub async fn failed_entities(&self, after: &str, at_most: i64) -> Result<Vec<FailedEntity>, Error> {
        self.alone("failed_entities", |view| {
            let failed = view.database.contents.all(view.tid).filter_map(|((id, source), content)| {
                let entity_ref = view.ref_of(*id).filter(|entity_ref| entity_ref.as_str() > after)?.clone();
                let (shown, error) = (content.body.is_some(), content.error.clone()?);
                Some(FailedEntity { entity_ref, source: source.clone(), shown, error })
            });
            let mut failed: Vec<FailedEntity> = failed.collect();
            failed.sort_by(|one, other| (&one.entity_ref, &one.source).cmp(&(&other.entity_ref, &other.source)));
            failed.truncate(limit(at_most));
            failed
        })
        .await
    }

    pub async fn task_rows(&self) -> Result<Vec<TaskRow>, Error> {
        self.alone("task_rows", |view| {
            let now = view.began();
            let row = |(name, task): (&String, &super::database::Task)| TaskRow {
                name: name.clone(),
                holder: task.holder.clone().filter(|_| task.held_until > now),
                runs: task.runs,
                seconds_ago: task.last_run.map(|last_run| seconds(now - last_run)),
                last_error: task.last_error.clone(),
            };
            view.database.tasks.all(view.tid).map(row).collect()
        })
        .await
    }
}
