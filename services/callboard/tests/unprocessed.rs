//! An entity that was never processed successfully is told to who asks for such ones, and is in nothing else: all roles on real servers.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use api::v1::catalog_service_client::CatalogServiceClient;
use api::v1::{CountEntitiesRequest, ListUnprocessedEntitiesRequest};
use serde_json::json;
use support::{Pipeline, component, wait_for};
use tonic::transport::Channel;

/// Refs of the page after a token, with the token of the next one.
async fn page(
    reader: &mut CatalogServiceClient<Channel>,
    page_size: i32,
    page_token: &str,
) -> (Vec<String>, String, i64) {
    let request = ListUnprocessedEntitiesRequest { page_size, page_token: page_token.into() };
    let answer = reader.list_unprocessed_entities(request).await.unwrap().into_inner();
    let refs = answer.entities.iter().map(|entity| entity.r#ref.clone()).collect();
    (refs, answer.next_page_token, answer.total_size)
}

async fn expect(reader: &mut CatalogServiceClient<Channel>, expected: &[&str], shown: i64) {
    wait_for(&format!("{expected:?}"), async || {
        let count = reader.count_entities(CountEntitiesRequest::default()).await.unwrap().into_inner().count;
        (page(reader, 0, "").await.0 == expected && count == shown).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_valid_is_told_to_who_asks() {
    let mut pipeline = Pipeline::start().await;
    let mut bad = component("bad", "team");
    bad["metadata"]["tags"] = json!(["Not Lower"]);
    let unknown = |name: &str| json!({"apiVersion": "v1", "kind": "Spaceship", "metadata": {"name": name}});
    pipeline.upsert("p", &component("web", "team")).await;
    pipeline.upsert("p", &bad).await;
    pipeline.upsert("p", &unknown("x")).await;
    pipeline.settle().await;
    let mut reader = pipeline.reader().await;
    let (unprocessed, ship) = ("component:default/bad", "spaceship:default/x");
    expect(&mut reader, &[unprocessed, ship], 1).await;
    assert_eq!(page(&mut reader, 1, "").await, (vec![unprocessed.to_owned()], unprocessed.to_owned(), 2));
    assert_eq!(page(&mut reader, 1, unprocessed).await, (vec![ship.to_owned()], String::new(), 2));
    let answer =
        reader.list_unprocessed_entities(ListUnprocessedEntitiesRequest::default()).await.unwrap().into_inner();
    assert!(answer.entities[0].error.contains("tags.0") && answer.entities[0].revision > 0, "{answer:?}");
    // It becomes valid; another one goes; a shown one that breaks stays shown.
    pipeline.upsert("p", &component("bad", "team")).await;
    let mut web = component("web", "team");
    web["metadata"]["tags"] = json!(["Not Lower"]);
    pipeline.upsert("p", &web).await;
    expect(&mut reader, &[ship], 2).await;
    pipeline.delete("p", ship).await;
    pipeline.upsert("p", &unknown("y")).await;
    expect(&mut reader, &["spaceship:default/y"], 2).await;
    pipeline.stop().await;
}
