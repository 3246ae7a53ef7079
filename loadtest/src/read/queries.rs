//! What a user of a catalog asks: pages, counts, facets, text, what depends on what; each at a low rate, open loop.

use super::calls::{Anything, Client, Many};
use super::paced::{Latencies, paced};
use crate::Error;
use crate::random::Random;
use crate::report::Report;
use api::v1::{
    CountEntitiesRequest, CountEntitiesResponse, GetFacetsRequest, ListEntitiesRequest, Order, TraverseRelationsRequest,
};
use std::cell::Cell;

const TYPES: [&str; 6] = ["service", "worker", "gateway", "portal", "importer", "store"];
const TAGS: [&str; 6] = ["java", "go", "rust", "typescript", "python", "kotlin"];
const TEXT_FIELDS: [&str; 2] = ["metadata.name", "metadata.title"];
/// A text that the names of three of ten entities hold is looked for among these.
const COMMON_TEXTS: [&str; 10] = ["service", "worker", "gate", "sit", "in", "er", "or", "te", "r-s", "st"];
const COMMON_SHARE: f64 = 0.3;
/// Entities in a page.
const PAGE: i32 = 20;

/// Measures every query and reports its p50 and p99.
pub(crate) async fn measure(address: &str, refs: &[String], entities: usize, report: &mut Report) -> Result<(), Error> {
    let client = Client::connect(address).await?;
    // What a view costs that is built when it is first asked for is not what it costs from then on.
    for _ in 0..3 {
        for number in 0..8 {
            client.call::<_, Anything>("ListEntities", page(number)).await?;
            client.call::<_, Anything>("ListEntities", ordered(number)).await?;
            client.call::<_, Anything>("ListEntities", any(number)).await?;
        }
        client.call::<_, Anything>("GetFacets", facets(0)).await?;
    }
    let list = |request: fn(usize) -> ListEntitiesRequest| {
        let client = &client;
        move |number| async move { client.call::<_, Anything>("ListEntities", request(number)).await.map(drop) }
    };
    tell(report, "page", &paced(100.0, 1000, list(page)).await?);
    tell(report, "ordered", &paced(50.0, 500, list(ordered)).await?);
    tell(report, "any", &paced(50.0, 500, list(any)).await?);
    let count = |number| {
        let client = &client;
        async move { client.call::<_, Anything>("CountEntities", count(number)).await.map(drop) }
    };
    tell(report, "count", &paced(100.0, 1000, count).await?);
    let facets = |number| {
        let client = &client;
        async move { client.call::<_, Anything>("GetFacets", facets(number)).await.map(drop) }
    };
    tell(report, "facets", &paced(10.0, 200, facets).await?);
    full_text(&client, entities, report).await?;
    traverse(&client, refs, report).await
}

fn tell(report: &mut Report, name: &str, latencies: &Latencies) {
    report.figure(format!("{name}_p50_ms"), latencies.quantile_ms(0.5), "ms");
    report.figure(format!("{name}_p99_ms"), latencies.quantile_ms(0.99), "ms");
    report.curve(latencies.curve(name));
}

/// Three predicates, 20 entities, with the total.
fn page(number: usize) -> ListEntitiesRequest {
    let filter = format!("kind=component,spec.lifecycle=production,spec.type={}", TYPES[number % TYPES.len()]);
    ListEntitiesRequest { filter: vec![filter], page_size: PAGE, ..Default::default() }
}

fn ordered(number: usize) -> ListEntitiesRequest {
    let filter = format!("kind=component,spec.type={}", TYPES[number % TYPES.len()]);
    let order = |field: &str, descending| Order { field: field.to_owned(), descending };
    ListEntitiesRequest {
        filter: vec![filter],
        order_by: vec![order("spec.lifecycle", number % 2 == 1), order("metadata.title", false)],
        page_size: PAGE,
        ..Default::default()
    }
}

/// Either of two predicates, neither of which holds the other's.
fn any(number: usize) -> ListEntitiesRequest {
    let filter = vec![
        format!("spec.type={}", TYPES[number % TYPES.len()]),
        format!("metadata.tags={}", TAGS[number % TAGS.len()]),
    ];
    ListEntitiesRequest { filter, page_size: PAGE, ..Default::default() }
}

fn count(number: usize) -> CountEntitiesRequest {
    CountEntitiesRequest { filter: page(number).filter, ..Default::default() }
}

/// Six facets among a fifth of the entities.
fn facets(_: usize) -> GetFacetsRequest {
    let facets =
        ["kind", "spec.type", "spec.lifecycle", "metadata.tags", "metadata.labels.tier", "metadata.labels.region"];
    GetFacetsRequest {
        facets: facets.map(str::to_owned).into(),
        filter: vec!["metadata.namespace=platform".to_owned()],
        ..Default::default()
    }
}

async fn full_text(client: &Client, entities: usize, report: &mut Report) -> Result<(), Error> {
    let search = |text: String| ListEntitiesRequest {
        full_text: text,
        full_text_fields: TEXT_FIELDS.map(str::to_owned).into(),
        page_size: PAGE,
        ..Default::default()
    };
    let call = |text: String| async move { client.call::<_, Anything>("ListEntities", search(text)).await.map(drop) };
    call("warm".to_owned()).await?;
    // A number of four digits is in the names of some dozens in a million.
    let selective = paced(100.0, 1000, |number| call((entities / 2 + number * 7).to_string()));
    tell(report, "full_text", &selective.await?);
    let mut common = ("", 0);
    for text in COMMON_TEXTS {
        let request = CountEntitiesRequest {
            full_text: text.to_owned(),
            full_text_fields: TEXT_FIELDS.map(str::to_owned).into(),
            ..Default::default()
        };
        let hits = client.call::<_, CountEntitiesResponse>("CountEntities", request).await?.count;
        let miss = |hits: i64| (hits as f64 - COMMON_SHARE * entities as f64).abs();
        if miss(hits) < miss(common.1) {
            common = (text, hits);
        }
    }
    let latencies = paced(10.0, 200, |_| call(common.0.to_owned())).await?;
    tell(report, "full_text_common", &latencies);
    report.figure("full_text_common_hits", common.1 as f64, "");
    Ok(())
}

/// Three relations away from any entity, along what it depends on, consumes, is a part of and is owned by.
async fn traverse(client: &Client, refs: &[String], report: &mut Report) -> Result<(), Error> {
    let mut random = Random::new(7);
    let starts: Vec<&String> = (0..500).map(|_| random.one_of(refs)).collect();
    let types = ["dependsOn", "dependencyOf", "consumesApi", "providesApi", "partOf", "ownedBy"];
    let (nodes, answers) = (Cell::new(0), Cell::new(0));
    let latencies = paced(50.0, 500, |number| {
        let request = TraverseRelationsRequest {
            r#ref: starts[number].clone(),
            relation_types: types.map(str::to_owned).into(),
            max_depth: 3,
            limit: 1000,
            ..Default::default()
        };
        let (nodes, answers) = (&nodes, &answers);
        async move {
            // Its first field is the nodes.
            let answer = client.call::<_, Many>("TraverseRelations", request).await?;
            nodes.set(nodes.get() + answer.entities.len());
            answers.set(answers.get() + 1);
            Ok(())
        }
    });
    tell(report, "traverse", &latencies.await?);
    report.figure("traverse_nodes", nodes.get() as f64 / f64::from(answers.get().max(1)), "");
    Ok(())
}
