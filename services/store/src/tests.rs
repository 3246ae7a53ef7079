//! The statements on a real database; and what holds of PostgreSQL and of its twin, each test against both.

mod contract;
mod faults;
mod flows;
mod waiting;

use crate::{Error, Options, Store};
use sqlx::{AssertSqlSafe, Executor, raw_sql};

async fn fresh() -> Store {
    connect(&servers::testing::fresh_name("store")).await
}

async fn connect(installation: &str) -> Store {
    let options = Options {
        url: servers::testing::shared().database_url.clone(),
        installation: installation.to_owned(),
        connections: 4,
        name: "test".into(),
    };
    Store::connect(&options).await.unwrap()
}

#[tokio::test]
async fn every_statement_prepares() {
    let store = fresh().await;
    let mut connection = store.pool().unwrap().acquire().await.unwrap();
    let mut count = 0;
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/sql")).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("-- "), "{} opens with its sentence", path.display());
        let prepare = format!("prepare statement_{count} as {text}");
        let prepared = connection.execute(raw_sql(AssertSqlSafe(prepare))).await;
        assert!(prepared.is_ok(), "{}: {prepared:?}", path.display());
        count += 1;
    }
    assert!(count > 30);
}

/// A hot statement goes by its index, whatever the size of its batch.
#[tokio::test]
async fn hot_statements_go_by_their_index() {
    let store = fresh().await;
    let mut connection = store.pool().unwrap().acquire().await.unwrap();
    connection.execute("set enable_seqscan = off").await.unwrap();
    for (text, parameters, index) in [
        (include_str!("sql/lock_entities.sql"), "array['a:b/c']", "entities_ref_key"),
        (include_str!("sql/find_ids.sql"), "array['a:b/c']", "entities_ref_key"),
        (include_str!("sql/read_claims.sql"), "array[1]::bigint[]", "claims_pkey"),
        (include_str!("sql/read_relations.sql"), "array[1]::bigint[]", "relations_originator"),
        (include_str!("sql/lock_stitch_states.sql"), "array[1]::bigint[], array[1]::bigint[]", "stitch_states_pkey"),
        (include_str!("sql/read_unstitched.sql"), "array[1]::bigint[], array[1]::bigint[]", "stitch_states_pkey"),
        (include_str!("sql/read_entities.sql"), "array[1]::bigint[]", "entities_pkey"),
        (include_str!("sql/read_entities.sql"), "array[1]::bigint[]", "contents_pkey"),
        (include_str!("sql/read_entities.sql"), "array[1]::bigint[]", "claims_pkey on claims emits"),
        (include_str!("sql/read_incoming.sql"), "array[1]::bigint[]", "relations_subject"),
    ] {
        connection.execute(raw_sql(AssertSqlSafe(format!("prepare hot as {text}")))).await.unwrap();
        let explain = AssertSqlSafe(format!("explain execute hot({parameters})"));
        let plan: Vec<String> =
            sqlx::query_scalar(explain).persistent(false).fetch_all(&mut *connection).await.unwrap();
        assert!(plan.iter().any(|line| line.contains(index)), "{text}\n{}", plan.join("\n"));
        connection.execute("deallocate hot").await.unwrap();
    }
}

#[tokio::test]
async fn two_processes_start_at_once() {
    let installation = servers::testing::fresh_name("store");
    let (one, two) = tokio::join!(connect(&installation), connect(&installation));
    assert_eq!((one.floor().await.unwrap(), two.floor().await.unwrap()), (0, 0));
}

#[tokio::test]
async fn a_wrong_address_says_what_to_do() {
    let options =
        |url: &str| Options { url: url.into(), installation: "x".into(), connections: 1, name: "test".into() };
    let error = Store::connect(&options("nonsense")).await.unwrap_err();
    assert!(matches!(&error, Error::Unusable(what) if what.contains("CALLBOARD_DATABASE_URL")), "{error}");
    let error = Store::connect(&options("postgres://x@127.0.0.1:1/x")).await.unwrap_err();
    assert!(matches!(error, Error::Away(_)), "{error}");
}
