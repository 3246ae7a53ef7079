//! What emitted an entity: from message to answer, packed, in a snapshot, in circles, and of more than a reply holds.

use api::v1;
use serde_json::json;
use tonic::{Code, Status};

use super::{Served, entity};

fn emitted(entity_ref: &str, version: i64, parents: &[&str]) -> bus::EntityMessage {
    let parents = parents.iter().map(|parent| parent.to_string()).collect();
    bus::EntityMessage { parents, ..entity(entity_ref, version, Some(json!({}))) }
}

/// `ref<parent,parent` for each item.
async fn ancestry(served: &Served, asked: &str) -> Result<Vec<String>, Status> {
    let request = v1::GetAncestryRequest { r#ref: asked.into() };
    let answer = served.client().get_ancestry(request).await?.into_inner();
    assert_eq!(answer.root_ref, asked.to_lowercase());
    let item = |item: v1::get_ancestry_response::Item| {
        format!("{}<{}", item.entity.map(|entity| entity.r#ref).unwrap_or_default(), item.parent_refs.join(","))
    };
    Ok(answer.items.into_iter().map(item).collect())
}

#[tokio::test]
async fn the_ancestry_is_walked_up_to_what_providers_emit() {
    let served = Served::with([
        emitted("location:a/root", 1, &[]),
        emitted("location:a/left", 2, &["location:a/root"]),
        emitted("location:a/right", 3, &["location:a/gone", "location:a/root"]),
        emitted("component:a/web", 4, &["location:a/left", "location:a/right"]),
    ])
    .await;
    let expected = [
        "component:a/web<location:a/left,location:a/right",
        "location:a/left<location:a/root",
        "location:a/right<location:a/root",
        "location:a/root<",
    ];
    assert_eq!(ancestry(&served, "Component:a/Web").await.unwrap(), expected);
    assert_eq!(ancestry(&served, "location:a/root").await.unwrap(), ["location:a/root<"]);
    assert_eq!(ancestry(&served, "component:a/none").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(ancestry(&served, "").await.unwrap_err().code(), Code::InvalidArgument);
    served.tell([bus::Followed::Entity(emitted("component:a/web", 5, &["location:a/right"]))]);
    assert_eq!(ancestry(&served, "component:a/web").await.unwrap()[0], "component:a/web<location:a/right");
}

#[tokio::test]
async fn a_circle_is_walked_once() {
    let served = Served::with([
        emitted("location:a/one", 1, &["location:a/two"]),
        emitted("location:a/two", 2, &["location:a/one", "location:a/two"]),
    ])
    .await;
    let expected = ["location:a/two<location:a/one,location:a/two", "location:a/one<location:a/two"];
    assert_eq!(ancestry(&served, "location:a/two").await.unwrap(), expected);
}

#[tokio::test]
async fn more_than_a_reply_holds_is_refused() {
    let large = |name: &str, parents: &[&str]| {
        let mut message = emitted(name, 1, parents);
        let text = "x".repeat(2 << 20);
        message.body = entity(name, 1, Some(json!({ "text": text }))).body;
        message
    };
    let served = Served::with([
        emitted("location:a/root", 1, &[]),
        large("location:a/one", &["location:a/root"]),
        large("location:a/two", &["location:a/one"]),
    ])
    .await;
    assert_eq!(ancestry(&served, "location:a/one").await.unwrap().len(), 2);
    let status = ancestry(&served, "location:a/two").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("larger than"), "{status}");
}
