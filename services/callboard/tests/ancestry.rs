//! What emitted an entity, from a provider's Location through a nested one, as a reader tells it: all roles on real servers and real files.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use api::v1::GetAncestryRequest;
use api::v1::catalog_service_client::CatalogServiceClient;
use outside::{Limits, Outside, Sources};
use processor::Parts;
use serde_json::{Value, json};
use std::path::Path;
use support::{Pipeline, component, wait_for};
use tonic::transport::Channel;

const WEB: &str = "component:default/web";

fn location(name: &str, directory: &Path, file: &str) -> Value {
    let root = format!("file:{}", directory.join("root.yaml").display());
    json!({
        "apiVersion": "backstage.io/v1alpha1",
        "kind": "Location",
        "metadata": {"name": name, "annotations": {
            "backstage.io/managed-by-location": root, "backstage.io/managed-by-origin-location": root,
        }},
        "spec": {"type": "file", "target": directory.join(file).display().to_string()}
    })
}

/// Processors that may read the files of a directory.
fn parts(directory: &Path) -> Parts {
    let sources = Sources { files: vec![directory.to_owned()], ..Sources::default() };
    let outside = Outside::new(&sources, Limits::default()).unwrap();
    let rules = serde_json::from_value(json!([{"allow": ["Component", "Location"]}])).unwrap();
    Parts { outside, rules: catalog::rules::Rules::new(rules).unwrap(), ..Parts::builtin() }
}

/// `ref<parent,parent` for each item; nothing as long as there is no such entity.
async fn ancestry(reader: &mut CatalogServiceClient<Channel>, entity_ref: &str) -> Vec<String> {
    let Ok(answer) = reader.get_ancestry(GetAncestryRequest { r#ref: entity_ref.into() }).await else {
        return Vec::new();
    };
    let items = answer.into_inner().items.into_iter();
    items.map(|item| format!("{}<{}", item.entity.unwrap().r#ref, item.parent_refs.join(","))).collect()
}

async fn expect(reader: &mut CatalogServiceClient<Channel>, expected: &[&str]) {
    wait_for(&format!("{expected:?}"), async || (ancestry(reader, WEB).await == expected).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_tells_what_emitted_it() {
    let directory = tempfile::tempdir().unwrap();
    let write = |file: &str, documents: &[Value]| {
        let texts: Vec<String> = documents.iter().map(Value::to_string).collect();
        std::fs::write(directory.path().join(file), texts.join("\n---\n")).unwrap();
    };
    write("root.yaml", &[location("nested", directory.path(), "nested.yaml")]);
    write("nested.yaml", &[component("web", "team")]);
    let mut pipeline = Pipeline::start_of(1, 1, || parts(directory.path())).await;
    let mut reader = pipeline.reader().await;
    pipeline.upsert("p", &location("root", directory.path(), "root.yaml")).await;
    let nested = "component:default/web<location:default/nested";
    let root = ["location:default/nested<location:default/root", "location:default/root<"];
    expect(&mut reader, &[&[nested], &root[..]].concat()).await;
    let version = pipeline.version(WEB);

    // Another Location names the same file: the same content, another ancestry.
    pipeline.upsert("p", &location("second", directory.path(), "nested.yaml")).await;
    let both = "component:default/web<location:default/nested,location:default/second";
    expect(&mut reader, &[both, root[0], "location:default/second<", root[1]]).await;
    wait_for("the stream", async || (pipeline.version(WEB) > version).then_some(())).await;
    let version = pipeline.version(WEB);

    // Nobody's content changes with it: what is withdrawn again is a parent alone.
    pipeline.delete("p", "location:default/root").await;
    expect(&mut reader, &["component:default/web<location:default/second", "location:default/second<"]).await;
    // This test's own follower may be a moment behind the reader.
    wait_for("the stream", async || (pipeline.version(WEB) > version).then_some(())).await;

    // The checker finds what stands there to be what the truth says.
    pipeline.settle().await;
    let found = stitcher::expected(&pipeline.store, pipeline.names().installation(), &ids(&pipeline).await).await;
    let expected = found.unwrap().into_iter().find(|one| one.entity_ref == WEB).unwrap().hash;
    assert_eq!(bus::newest_entity(&pipeline.bus, WEB).await.unwrap().unwrap().hash, expected);
    pipeline.stop().await;
}

/// The numbers of all entities that were published.
async fn ids(pipeline: &Pipeline) -> Vec<i64> {
    let page = pipeline.store.published_after(0, 100).await.unwrap();
    page.into_iter().map(|one| one.entity_id).collect()
}
