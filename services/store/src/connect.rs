//! One pool of connections to an installation's schema, which is created and migrated here.

use crate::Error;
use crate::known::Known;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Executor, SqlStr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// The oldest PostgreSQL that has all that is used here.
const OLDEST_SERVER: i32 = 140_000;

/// Every change of the schema, in order.
const MIGRATIONS: [(i64, &str, &str); 8] = [
    (1, "catalog", include_str!("../../../schemas/postgres/0001_catalog.sql")),
    (2, "snapshots", include_str!("../../../schemas/postgres/0002_snapshots.sql")),
    (3, "reads", include_str!("../../../schemas/postgres/0003_reads.sql")),
    (5, "repair", include_str!("../../../schemas/postgres/0005_repair.sql")),
    (6, "room", include_str!("../../../schemas/postgres/0006_room.sql")),
    (7, "pipeline", include_str!("../../../schemas/postgres/0007_pipeline.sql")),
    (8, "lean", include_str!("../../../schemas/postgres/0008_lean.sql")),
    (9, "published", include_str!("../../../schemas/postgres/0009_published.sql")),
];

/// Where the database is, and which installation's schema in it.
#[derive(Clone, Debug)]
pub struct Options {
    /// `postgres://user:password@host:port/database`.
    pub url: String,
    /// The installation's name: the schema.
    pub installation: String,
    /// Connections at most.
    pub connections: u32,
    /// What the connections are called in the database's own lists.
    pub name: String,
}

/// The truth of one installation. Clones share the pool.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) pool: PgPool,
    pub(crate) known: Arc<Known>,
}

impl Store {
    /// Connects, and brings the schema up to date. One try.
    ///
    /// # Errors
    /// [`Error::Unusable`] for a wrong address, refused credentials or a PostgreSQL older than 14; [`Error::Away`] if nobody answers.
    pub async fn connect(options: &Options) -> Result<Store, Error> {
        let connect = PgConnectOptions::from_str(&options.url)
            .map_err(|error| Error::Unusable(format!("CALLBOARD_DATABASE_URL is no database address ({error}): expected postgres://user:password@host:port/database")))?
            .application_name(&options.name)
            .options([
                ("search_path", options.installation.as_str()),
                ("statement_timeout", "30000"),
                ("lock_timeout", "10000"),
                ("idle_in_transaction_session_timeout", "30000"),
                // Batches are described by arrays; plans made for their real sizes are worth less than planning them once.
                ("plan_cache_mode", "force_generic_plan"),
                // Such a plan is often made while its tables are empty, where reading all of a table looks cheapest; it has to be right when
                // they are full. So what is found goes by its index, one by one.
                ("enable_seqscan", "off"),
                ("enable_hashjoin", "off"),
                ("enable_mergejoin", "off"),
                ("enable_material", "off"),
                ("random_page_cost", "1.1"),
                ("jit", "off"),
            ]);
        let known = Arc::new(Known::default());
        let forgets = Arc::clone(&known);
        let pool = PgPoolOptions::new()
            .max_connections(options.connections)
            .acquire_timeout(Duration::from_secs(5))
            .test_before_acquire(false)
            .after_connect(move |_, _| {
                forgets.forget();
                Box::pin(std::future::ready(Ok(())))
            })
            .connect_with(connect)
            .await
            .map_err(explain)?;
        let store = Store { pool, known };
        store.refuse_old_server().await?;
        store.migrate(&options.installation).await?;
        Ok(store)
    }

    async fn refuse_old_server(&self) -> Result<(), Error> {
        let version: String = sqlx::query_scalar("show server_version_num").fetch_one(&self.pool).await?;
        match version.parse::<i32>() {
            Ok(version) if version >= OLDEST_SERVER => Ok(()),
            _ => Err(Error::Unusable(format!(
                "the database is PostgreSQL {version}, and Callboard needs 14 or newer: update it"
            ))),
        }
    }

    async fn migrate(&self, installation: &str) -> Result<(), Error> {
        // The name was checked to be [a-z0-9_] where the installation was named; here it is quoted all the same.
        let schema = format!("create schema if not exists \"{}\"", installation.replace('"', ""));
        // Two processes that start at once may both find none; the second is told that it exists.
        match self.pool.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(schema))).await {
            Ok(_) => {}
            Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("42P06" | "23505")) => {}
            Err(error) => return Err(error.into()),
        }
        let migration = |(version, name, text): (i64, &'static str, &'static str)| {
            Migration::new(version, name.into(), MigrationType::Simple, SqlStr::from_static(text), false)
        };
        Migrator::with_migrations(MIGRATIONS.map(migration).to_vec()).run(&self.pool).await.map_err(|error| {
            Error::Unusable(format!("the schema {installation} cannot be brought up to date: {error}"))
        })
    }

    /// Whether the database answers within two seconds.
    pub async fn is_reachable(&self) -> bool {
        let ping = sqlx::query("select 1").execute(&self.pool);
        matches!(tokio::time::timeout(Duration::from_secs(2), ping).await, Ok(Ok(_)))
    }

    /// Closes every connection.
    pub async fn close(&self) {
        let _ = tokio::time::timeout(Duration::from_secs(5), self.pool.close()).await;
    }
}

fn explain(error: sqlx::Error) -> Error {
    match &error {
        sqlx::Error::Database(refusal)
            if refusal.code().is_some_and(|code| code.starts_with("28") || code == "3D000") =>
        {
            Error::Unusable(format!(
                "the database refuses us: {}. CALLBOARD_DATABASE_URL names user, password and database",
                refusal.message()
            ))
        }
        _ => Error::from(error),
    }
}
