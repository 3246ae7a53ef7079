//! Removals that are on their way: what a parent entity emitted, what still holds an entity, orphans whose time is over.

use crate::Error;
use crate::connect::Store;
use crate::merge::Merge;
use catalog::claims::Revision;
use std::time::Duration;

/// Ancestors of one entity that are looked at; with more it counts as held.
const ANCESTORS: i64 = 10_000;

/// What a removal does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The entity is gone: what it emitted is to be withdrawn.
    Children,
    /// The entity was removed by an operator: what it emitted is let go.
    LetGo,
    /// The entity goes too unless it is reached from a provider.
    Held,
    /// The entity becomes an orphan unless it is reached from a provider.
    Orphan,
}

impl Step {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Step::Children => "children",
            Step::LetGo => "let go",
            Step::Held => "held",
            Step::Orphan => "orphan",
        }
    }
}

/// A removal that is to go on.
#[derive(Clone, Debug)]
pub struct Cascade {
    /// The entity.
    pub entity_id: i64,
    /// Its ref.
    pub entity_ref: String,
    /// What is next.
    pub step: Step,
    /// Of what caused it.
    pub revision: Revision,
}

/// An entity, or what emits it, or what emits that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// Its ref.
    pub entity_ref: String,
    /// A provider claims it.
    pub has_provider: bool,
    /// It is an orphan that was let go.
    pub is_released: bool,
}

impl Store {
    /// Removals on their way, the oldest first.
    pub async fn cascades(&self, at_most: i64) -> Result<Vec<Cascade>, Error> {
        let rows: Vec<(i64, String, String, i64)> =
            sqlx::query_as(include_str!("sql/read_cascade.sql")).bind(at_most).fetch_all(&self.pool).await?;
        let cascade = |(entity_id, entity_ref, step, revision): (i64, String, String, i64)| {
            let step = match step.as_str() {
                "children" => Step::Children,
                "let go" => Step::LetGo,
                "held" => Step::Held,
                "orphan" => Step::Orphan,
                other => return Err(Error::Damaged(format!("removal of entity {entity_id} is at step {other}"))),
            };
            Ok(Cascade { entity_id, entity_ref, step, revision })
        };
        rows.into_iter().map(cascade).collect()
    }

    /// Refs of what a source claims, in order, from a ref on.
    pub async fn children(&self, source: &str, after: &str, at_most: i64) -> Result<Vec<String>, Error> {
        let statement = sqlx::query_scalar(include_str!("sql/read_children.sql"));
        Ok(statement.bind(source).bind(after).bind(at_most).fetch_all(&self.pool).await?)
    }

    /// An entity and all its ancestors, in ref order.
    pub async fn ancestors(&self, entity_id: i64) -> Result<Vec<Ancestor>, Error> {
        let mut connection = self.pool.acquire().await?;
        ancestors(&mut connection, entity_id).await
    }

    /// Refs of orphans whose time is over, the oldest first.
    pub async fn overdue_orphans(&self, grace: Duration, at_most: i64) -> Result<Vec<String>, Error> {
        let statement = sqlx::query_scalar(include_str!("sql/read_orphans.sql"));
        Ok(statement.bind(grace.as_secs_f64()).bind(at_most).fetch_all(&self.pool).await?)
    }
}

async fn ancestors(connection: &mut sqlx::PgConnection, entity_id: i64) -> Result<Vec<Ancestor>, Error> {
    let rows: Vec<(String, bool, bool)> = sqlx::query_as(include_str!("sql/read_ancestors.sql"))
        .bind(entity_id)
        .bind(ANCESTORS)
        .fetch_all(connection)
        .await?;
    let ancestor = |(entity_ref, has_provider, is_released)| Ancestor { entity_ref, has_provider, is_released };
    Ok(rows.into_iter().map(ancestor).collect())
}

impl Merge {
    /// As [`Store::children`], after the locks.
    pub async fn children(&mut self, source: &str, at_most: i64) -> Result<Vec<String>, Error> {
        let statement = sqlx::query_scalar(include_str!("sql/read_children.sql"));
        Ok(statement.bind(source).bind("").bind(at_most).fetch_all(self.connection()).await?)
    }

    /// As [`Store::ancestors`], after the locks.
    pub async fn ancestors(&mut self, entity_id: i64) -> Result<Vec<Ancestor>, Error> {
        ancestors(self.connection(), entity_id).await
    }

    /// Notes removals that are to go on.
    pub async fn write_cascade(&mut self, steps: &[(i64, Step)], revision: Revision) -> Result<(), Error> {
        if steps.is_empty() {
            return Ok(());
        }
        sqlx::query(include_str!("sql/write_cascade.sql"))
            .bind(steps.iter().map(|(id, _)| *id).collect::<Vec<_>>())
            .bind(steps.iter().map(|(_, step)| step.name()).collect::<Vec<_>>())
            .bind(revision)
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// A removal has come to its end.
    pub async fn drop_cascade(&mut self, cascade: &Cascade) -> Result<(), Error> {
        sqlx::query(include_str!("sql/drop_cascade.sql"))
            .bind(cascade.entity_id)
            .bind(cascade.step.name())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Marks entities as orphans, or not any more; gives those that were not so before.
    pub async fn mark_orphans(&mut self, entity_ids: &[i64], orphan: bool) -> Result<Vec<i64>, Error> {
        let statement = sqlx::query_scalar(include_str!("sql/mark_orphans.sql"));
        Ok(statement.bind(entity_ids).bind(orphan).fetch_all(self.connection()).await?)
    }
}
