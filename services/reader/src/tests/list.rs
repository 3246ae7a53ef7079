//! Lists and streams through a real client: whatever the size of the pages, a walk sees each entity that matches once.

use api::v1;
use proptest::prelude::*;
use serde_json::json;
use tonic::{Code, Status};

use super::{Served, entity};

fn entities(count: usize, bytes: usize) -> Vec<bus::EntityMessage> {
    let spec = |number: usize| {
        let kind_of = ["service", "website"][number % 2];
        json!({"type": kind_of, "number": number, "text": "x".repeat(bytes)})
    };
    let of = |number| entity(&format!("component:default/e{number}"), 1, Some(spec(number)));
    (0..count).map(of).collect()
}

fn request(filter: &[&str], page_size: i32, page_token: &str) -> v1::ListEntitiesRequest {
    v1::ListEntitiesRequest {
        filter: filter.iter().map(|text| text.to_string()).collect(),
        page_size,
        page_token: page_token.into(),
        ..Default::default()
    }
}

async fn list(served: &Served, request: v1::ListEntitiesRequest) -> Result<v1::ListEntitiesResponse, Status> {
    Ok(served.client().list_entities(request).await?.into_inner())
}

fn refs(entities: &[v1::Entity]) -> Vec<String> {
    entities.iter().map(|entity| entity.r#ref.clone()).collect()
}

/// Every page of a walk; each tells the same total.
async fn walk(served: &Served, filter: &[&str], page_size: i32) -> Vec<Vec<String>> {
    let (mut pages, mut token, mut totals) = (Vec::new(), String::new(), Vec::new());
    loop {
        let page = list(served, request(filter, page_size, &token)).await.unwrap();
        pages.push(refs(&page.entities));
        totals.push(page.total_size as usize);
        token = page.next_page_token;
        if token.is_empty() {
            let seen = pages.iter().map(Vec::len).sum::<usize>();
            assert!(totals.iter().all(|total| *total == seen), "{totals:?} of {seen}");
            return pages;
        }
    }
}

async fn stream(served: &Served, filter: &[&str]) -> Vec<Vec<String>> {
    let filter = filter.iter().map(|text| text.to_string()).collect();
    let request = v1::StreamEntitiesRequest { filter, ..Default::default() };
    let mut stream = served.client().stream_entities(request).await.unwrap().into_inner();
    let mut chunks = Vec::new();
    while let Some(chunk) = stream.message().await.unwrap() {
        chunks.push(refs(&chunk.entities));
    }
    chunks
}

#[test]
fn pages_and_chunks_together_are_the_list() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let served = runtime.block_on(Served::with(entities(2100, 0)));
    let stored = served.state.memory().after("", usize::MAX);
    let all: Vec<String> = stored.iter().map(|stored| stored.entity_ref().to_owned()).collect();
    let odd = |name: &&String| name.ends_with(['1', '3', '5', '7', '9']);
    let matching = |filter: &[&str]| -> Vec<String> {
        match filter {
            [] => all.clone(),
            ["spec.type=website"] => all.iter().filter(odd).cloned().collect(),
            ["spec.number=7", _] => {
                vec!["component:default/e7".into(), "component:default/e8".into()]
            }
            _ => vec![],
        }
    };
    let filters: [&[&str]; 4] =
        [&[], &["spec.type=website"], &["spec.number=7", "spec.number=8,spec.type=service"], &["spec.type=none"]];
    for filter in filters {
        let mut streamed = runtime.block_on(stream(&served, filter)).concat();
        streamed.sort_unstable();
        assert_eq!(streamed, matching(filter), "{filter:?}");
        for size in [0, 1000] {
            assert_eq!(
                runtime.block_on(walk(&served, filter, size)).concat(),
                matching(filter),
                "{filter:?} by {size}"
            );
        }
    }
    proptest!(ProptestConfig::with_cases(16), |(filter in 0..filters.len(), size in 30..1000_i32)| {
        let filter = filters[filter];
        let pages = runtime.block_on(walk(&served, filter, size));
        let full = pages.len() - 1;
        prop_assert!(pages[..full].iter().all(|page| page.len() == size as usize));
        prop_assert_eq!(pages.concat(), matching(filter));
    });
}

#[tokio::test]
async fn a_page_is_cut_where_it_becomes_too_large() {
    let served = Served::with(entities(10, 1_000_000)).await;
    let pages = walk(&served, &[], 10).await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3, 1]);
    assert_eq!(stream(&served, &[]).await.len(), 10);
}

#[tokio::test]
async fn one_entity_too_large_for_a_page_is_a_page() {
    let served = Served::with(entities(2, 5_000_000)).await;
    let mut client = served.client().max_decoding_message_size(16 * 1024 * 1024);
    let first = client.list_entities(request(&[], 0, "")).await.unwrap().into_inner();
    assert_eq!((first.entities.len(), first.next_page_token.is_empty()), (1, false));
}

#[tokio::test]
async fn the_last_page_of_an_even_walk_is_full() {
    let served = Served::with(entities(10, 0)).await;
    assert_eq!(walk(&served, &[], 5).await.len(), 2);
    assert_eq!(walk(&served, &["spec.type=none"], 5).await, [Vec::<String>::new()]);
}

#[tokio::test]
async fn what_cannot_be_used_is_named() {
    let served = Served::with(entities(10, 0)).await;
    let token = list(&served, request(&["kind=component"], 2, "")).await.unwrap().next_page_token;
    let many = vec!["a"; 101];
    let cases = [
        (request(&[], -1, ""), Code::InvalidArgument, "page_size: expected 0 to 1000, found -1"),
        (request(&[], 1001, ""), Code::InvalidArgument, "page_size: expected 0 to 1000, found 1001"),
        (request(&["=x"], 0, ""), Code::InvalidArgument, "filter: "),
        (request(&many, 0, ""), Code::InvalidArgument, "filter: expected at most 100 strings"),
        (request(&[], 0, "x"), Code::InvalidArgument, "page_token: expected the next_page_token of an earlier answer"),
        (request(&[], 0, &token), Code::InvalidArgument, "page_token: it belongs to another filter"),
        (
            with(|list| list.full_text = "a".repeat(1025)),
            Code::InvalidArgument,
            "full_text: expected at most 1024 bytes",
        ),
        (
            with(|list| list.full_text_fields = vec!["a".into(); 21]),
            Code::InvalidArgument,
            "full_text_fields: expected at",
        ),
        (with(|list| list.order_by = vec![v1::Order::default()]), Code::InvalidArgument, "order_by[0].field: expected"),
        (
            with(|list| list.order_by = vec![v1::Order::default(); 6]),
            Code::InvalidArgument,
            "order_by: expected at most 5",
        ),
        (
            with(|list| list.query = Some(unknown_operator())),
            Code::InvalidArgument,
            "query: $.$or: expected one of the",
        ),
    ];
    for (request, code, message) in cases {
        let status = list(&served, request).await.unwrap_err();
        assert_eq!(status.code(), code);
        assert!(status.message().starts_with(message), "{status}");
    }
}

fn with(change: impl FnOnce(&mut v1::ListEntitiesRequest)) -> v1::ListEntitiesRequest {
    let mut request = v1::ListEntitiesRequest::default();
    change(&mut request);
    request
}

fn unknown_operator() -> prost_types::Struct {
    prost_types::Struct { fields: [("$or".into(), prost_types::Value { kind: None })].into() }
}
