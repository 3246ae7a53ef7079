//! What PostgreSQL counts of an installation that was started here; asked with `psql`, where this machine has it.

use std::path::Path;
use std::time::Duration;
use tokio::process::Command;

/// What was done in the database since it was made. A process's own commits are in it a second later at the latest while it works.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Work {
    pub commits: f64,
    /// None: it does not count them.
    pub statements: Option<f64>,
}

/// One table's rows, copied into an empty one with the same keys.
#[derive(Clone, Debug)]
pub(crate) struct Copied {
    pub table: String,
    pub rows: f64,
    pub took: Duration,
}

/// A database and its superuser.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Database<'a>(pub &'a str);

impl Database<'_> {
    /// What was done until now; none: there is no `psql`.
    pub async fn work(self) -> Option<Work> {
        self.ask("create extension if not exists pg_stat_statements").await;
        let commits = self.ask("select sum(xact_commit) from pg_stat_database").await?;
        let statements = self.ask("select sum(calls) from pg_stat_statements").await;
        Some(Work { commits: commits.parse().ok()?, statements: statements.and_then(|calls| calls.parse().ok()) })
    }

    /// Removes what is dead in its tables; says whether it did.
    pub async fn vacuum(self) -> bool {
        self.ask("vacuum").await.is_some()
    }

    /// Copies every table that has so many rows, one after the other, by binary COPY out of a file into an empty table with the same keys
    /// and checks; none: there is no `psql`, or it refused.
    pub async fn copies(self, directory: &Path, least_rows: f64) -> Option<Vec<Copied>> {
        let tables = "select format('%I.%I', schemaname, tablename) from pg_tables \
                      where schemaname not in ('pg_catalog', 'information_schema') order by 1";
        let file = directory.join("rows.copy");
        let file = file.to_str()?;
        let mut copied = Vec::new();
        for table in self.ask(tables).await?.lines() {
            let rows = self.ask(&format!("select count(*) from {table}")).await?.parse().ok()?;
            if rows < least_rows {
                continue;
            }
            self.ask(&format!("create table public.limit_copy (like {table} including all)")).await?;
            self.ask(&format!("\\copy {table} to '{file}' binary")).await?;
            let took = self.timed(&format!("\\copy public.limit_copy from '{file}' binary")).await?;
            copied.push(Copied { table: table.to_owned(), rows, took });
            self.ask("drop table public.limit_copy").await?;
        }
        Some(copied)
    }

    /// How long a command takes, without the start of `psql`.
    async fn timed(self, command: &str) -> Option<Duration> {
        let said = self.ask_all(&["\\timing on", command]).await?;
        let milliseconds: f64 =
            said.lines().find_map(|line| line.strip_prefix("Time: ")?.split(' ').next()?.parse().ok())?;
        Some(Duration::from_secs_f64(milliseconds / 1000.0))
    }

    /// What a statement gives, as text.
    async fn ask(self, statement: &str) -> Option<String> {
        self.ask_all(&[statement]).await
    }

    /// What several give together.
    async fn ask_all(self, statements: &[&str]) -> Option<String> {
        let mut psql = Command::new("psql");
        psql.env("LC_ALL", "C").args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]);
        for statement in statements {
            psql.args(["--command", statement]);
        }
        let output = psql.arg(self.0).kill_on_drop(true).output().await.ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}
