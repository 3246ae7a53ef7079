//! Snapshots: what was counted of them, how they are judged and swept, and what an operator is shown of them.

use crate::Error;
use crate::connect::Store;
use crate::merge::Merge;
use catalog::claims::Revision;

/// Parts of one snapshot that were counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The provider.
    pub provider: String,
    /// The snapshot's id.
    pub snapshot: String,
    /// The lowest revision of these parts.
    pub first: Revision,
    /// The highest.
    pub highest: Revision,
    /// How many.
    pub count: i64,
}

/// A snapshot that is not over.
#[derive(Clone, Debug)]
pub struct OpenSnapshot {
    /// The provider.
    pub provider: String,
    /// Its id.
    pub snapshot: String,
    /// Its state: `open` or `sweeping`.
    pub state: String,
    /// The lowest revision of it.
    pub begun: Revision,
    /// How many parts it has, as the event that ends it says; none: it has not come.
    pub count: Option<i64>,
    /// Parts counted.
    pub parts: i64,
    /// Of these, refused ones.
    pub refused: i64,
    /// The highest revision of it known.
    pub last: Option<Revision>,
    /// The floor has passed that.
    pub settled: bool,
    /// Seconds since something of it was counted.
    pub idle: f64,
}

/// A snapshot in the hands of the processor that sweeps it.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The provider.
    pub provider: String,
    /// Its id.
    pub snapshot: String,
    /// What the provider claimed before this and not since is withdrawn,
    pub begun: Revision,
    /// as of this revision.
    pub ended: Revision,
    /// Number of the last entity that was looked at.
    pub through: i64,
}

/// A snapshot as an operator sees it.
#[derive(Clone, Debug)]
pub struct SnapshotRow {
    /// The provider.
    pub provider: String,
    /// Its id.
    pub snapshot: String,
    /// Its state.
    pub state: String,
    /// Why it is held, or what came of it.
    pub reason: Option<String>,
    /// The lowest revision of it.
    pub begun: Revision,
    /// How many parts it has; none: the event that ends it has not come.
    pub count: Option<i64>,
    /// Parts counted.
    pub parts: i64,
    /// Claims withdrawn.
    pub withdrawn: i64,
    /// Seconds since it began.
    pub age: f64,
}

/// A claim that loses to another location key, and the claim that is shown.
#[derive(Clone, Debug)]
pub struct Conflict {
    /// The entity's number.
    pub entity_id: i64,
    /// Its ref.
    pub entity_ref: String,
    /// Source, location key and revision of what is shown.
    pub shown: (String, Option<String>, Revision),
    /// The same of what loses.
    pub loses: (String, Option<String>, Revision),
}

/// From which states a snapshot moves on to which, over PostgreSQL and over the twin.
impl crate::Store {
    /// Has an open snapshot swept.
    pub async fn begin_sweep(&self, open: &OpenSnapshot) -> Result<bool, Error> {
        self.move_snapshot((&open.provider, &open.snapshot), &["open"], ("sweeping", None), open.last).await
    }

    /// Ends an open snapshot otherwise: `held` or `timed_out`, with the reason.
    pub async fn stop_snapshot(&self, open: &OpenSnapshot, state: &str, reason: &str) -> Result<bool, Error> {
        self.move_snapshot((&open.provider, &open.snapshot), &["open"], (state, Some(reason)), open.last).await
    }

    /// A swept snapshot is done.
    pub async fn finish_sweep(&self, sweep: &Sweep) -> Result<bool, Error> {
        self.move_snapshot((&sweep.provider, &sweep.snapshot), &["sweeping"], ("done", None), None).await
    }

    /// An operator says that a held snapshot is to be swept all the same.
    pub async fn approve_snapshot(&self, provider: &str, snapshot: &str) -> Result<bool, Error> {
        let to = ("sweeping", Some("approved by an operator"));
        self.move_snapshot((provider, snapshot), &["held"], to, None).await
    }

    /// An operator says that a snapshot is to withdraw nothing.
    pub async fn discard_snapshot(&self, provider: &str, snapshot: &str) -> Result<bool, Error> {
        let to = ("discarded", Some("discarded by an operator"));
        self.move_snapshot((provider, snapshot), &["held", "open"], to, None).await
    }
}

impl Merge {
    /// Counts parts that this batch merges. Called last before the commit.
    pub async fn note_parts(&mut self, parts: &[Parts]) -> Result<(), Error> {
        match parts.is_empty() {
            true => Ok(()),
            false => note_parts(self.connection(), parts, false).await,
        }
    }

    /// Notes how far a snapshot is swept.
    pub async fn advance_sweep(&mut self, sweep: &Sweep, through: i64, withdrawn: i64) -> Result<(), Error> {
        let statement = sqlx::query(include_str!("sql/advance_sweep.sql"));
        let statement = statement.bind(&sweep.provider).bind(&sweep.snapshot).bind(through).bind(withdrawn);
        statement.execute(self.connection()).await?;
        Ok(())
    }
}

async fn note_parts(connection: &mut sqlx::PgConnection, parts: &[Parts], refused: bool) -> Result<(), Error> {
    let statement = sqlx::query(include_str!("sql/note_parts.sql"))
        .bind(parts.iter().map(|parts| parts.provider.as_str()).collect::<Vec<_>>())
        .bind(parts.iter().map(|parts| parts.snapshot.as_str()).collect::<Vec<_>>())
        .bind(parts.iter().map(|parts| parts.first).collect::<Vec<_>>())
        .bind(parts.iter().map(|parts| parts.highest).collect::<Vec<_>>())
        .bind(parts.iter().map(|parts| parts.count).collect::<Vec<_>>());
    statement.bind(refused).execute(connection).await?;
    Ok(())
}

impl Store {
    /// Counts parts that were refused, each by itself; one that was counted already is not counted again.
    pub async fn note_refused(&self, parts: &[Parts]) -> Result<(), Error> {
        note_parts(&mut *self.pool.acquire().await?, parts, true).await
    }

    /// Notes the event that ends a snapshot. Gives whether it is that event: another one may have ended a snapshot of that id before.
    pub async fn end_snapshot(
        &self,
        (provider, snapshot): (&str, &str),
        revision: Revision,
        count: i64,
    ) -> Result<bool, Error> {
        let statement = sqlx::query_scalar(include_str!("sql/end_snapshot.sql"));
        let ended: Option<Revision> =
            statement.bind(provider).bind(snapshot).bind(revision).bind(count).fetch_optional(&self.pool).await?;
        // At or below the floor it is settled.
        Ok(ended.is_none_or(|ended| ended == revision))
    }

    /// Snapshots that are not over, the oldest first.
    pub async fn open_snapshots(&self, at_most: i64) -> Result<Vec<OpenSnapshot>, Error> {
        type Row = (String, String, String, i64, Option<i64>, i64, i64, Option<i64>, Option<bool>, f64);
        let rows: Vec<Row> =
            sqlx::query_as(include_str!("sql/read_open_snapshots.sql")).bind(at_most).fetch_all(&self.pool).await?;
        let row = |row: Row| {
            let (provider, snapshot, state, begun, count, parts, refused, last, settled, idle) = row;
            let settled = settled.unwrap_or_default();
            OpenSnapshot { provider, snapshot, state, begun, count, parts, refused, last, settled, idle }
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// How many claims of a provider a snapshot that began there would withdraw, and how many it would leave.
    pub async fn count_sweep(&self, provider: &str, begun: Revision) -> Result<(i64, i64), Error> {
        let statement = sqlx::query_as(include_str!("sql/count_sweep.sql"));
        Ok(statement.bind(source_of(provider)).bind(begun).fetch_one(&self.pool).await?)
    }

    /// Moves a snapshot on from one of these states, if it is in one; says whether it was.
    pub(crate) async fn move_snapshot(
        &self,
        (provider, snapshot): (&str, &str),
        from: &[&str],
        (state, reason): (&str, Option<&str>),
        swept_at: Option<Revision>,
    ) -> Result<bool, Error> {
        let statement = sqlx::query(include_str!("sql/close_snapshot.sql")).bind(provider).bind(snapshot);
        let statement = statement.bind(from).bind(state).bind(reason).bind(swept_at);
        Ok(statement.execute(&self.pool).await?.rows_affected() > 0)
    }

    /// Takes a snapshot that is to be swept.
    pub async fn take_sweep(&self) -> Result<Option<Sweep>, Error> {
        type Row = (String, String, i64, i64, i64);
        let row: Option<Row> = sqlx::query_as(include_str!("sql/take_sweep.sql")).fetch_optional(&self.pool).await?;
        Ok(row.map(|(provider, snapshot, begun, ended, through)| Sweep { provider, snapshot, begun, ended, through }))
    }

    /// Entities that a snapshot may have left out, from a number on.
    pub async fn sweep_page(&self, sweep: &Sweep, after: i64, at_most: i64) -> Result<Vec<(i64, String)>, Error> {
        let statement = sqlx::query_as(include_str!("sql/read_sweep.sql")).bind(source_of(&sweep.provider));
        let statement = statement.bind(after).bind(sweep.begun).bind(sweep.ended).bind(at_most);
        Ok(statement.fetch_all(&self.pool).await?)
    }

    /// Forgets snapshots that are over for a week.
    pub async fn forget_snapshots(&self) -> Result<(), Error> {
        sqlx::query(include_str!("sql/forget_snapshots.sql")).execute(&self.pool).await?;
        Ok(())
    }

    /// Snapshots, those that are not over first.
    pub async fn snapshot_rows(&self, at_most: i64) -> Result<Vec<SnapshotRow>, Error> {
        type Row = (String, String, String, Option<String>, i64, Option<i64>, i64, i64, f64);
        let rows: Vec<Row> =
            sqlx::query_as(include_str!("sql/read_snapshots.sql")).bind(at_most).fetch_all(&self.pool).await?;
        let row = |(provider, snapshot, state, reason, begun, count, parts, withdrawn, age): Row| SnapshotRow {
            provider,
            snapshot,
            state,
            reason,
            begun,
            count,
            parts,
            withdrawn,
            age,
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Claims that lose to another location key, after one of them, by the number of the entity and the source.
    pub async fn conflicts(&self, (entity_id, source): (i64, &str), at_most: i64) -> Result<Vec<Conflict>, Error> {
        type Row = (i64, String, String, Option<String>, i64, String, Option<String>, i64);
        let statement = sqlx::query_as(include_str!("sql/read_conflicts.sql"));
        let rows: Vec<Row> = statement.bind(entity_id).bind(source).bind(at_most).fetch_all(&self.pool).await?;
        let row = |(entity_id, entity_ref, by, by_key, by_revision, source, key, revision): Row| Conflict {
            entity_id,
            entity_ref,
            shown: (by, by_key, by_revision),
            loses: (source, key, revision),
        };
        Ok(rows.into_iter().map(row).collect())
    }
}

/// The source of a provider's claims.
pub(crate) fn source_of(provider: &str) -> String {
    format!("provider:{provider}")
}
