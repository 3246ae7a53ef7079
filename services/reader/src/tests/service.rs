//! The read contract through a real client: refs, revisions, batches, readiness, what is not served.

use std::time::Duration;

use api::{field_violations, v1};
use bus::Followed;
use serde_json::json;
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::{Served, entity, message};

const A: &str = "component:default/a";

fn get(entity_ref: &str, at_least_revision: i64) -> v1::GetEntityRequest {
    v1::GetEntityRequest { r#ref: entity_ref.into(), at_least_revision, ..Default::default() }
}

async fn got(served: &Served, request: impl tonic::IntoRequest<v1::GetEntityRequest>) -> Result<v1::Entity, Status> {
    let response = served.client().get_entity(request).await?;
    Ok(response.into_inner().entity.expect("always present"))
}

#[tokio::test]
async fn an_entity_is_found_by_its_ref() {
    let served = Served::with([message(A, 1, false), message("api:other/b", 2, false)]).await;
    for (entity_ref, found) in [(A, A), ("Component:A", A), ("component:Default/A", A), ("api:other/b", "api:other/b")]
    {
        let entity = got(&served, get(entity_ref, 0)).await.expect(entity_ref);
        assert_eq!(entity.r#ref, found);
        assert_eq!(entity.uid, format!("uid-{found}"));
    }
    let by_uid = |uid: &str| v1::GetEntityByUidRequest { uid: uid.into(), ..Default::default() };
    let entity = served.client().get_entity_by_uid(by_uid("uid-api:other/b")).await.unwrap().into_inner().entity;
    assert_eq!(entity.unwrap().r#ref, "api:other/b");
    let status = served.client().get_entity_by_uid(by_uid("nobody's")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "there is no entity uid nobody's"));
    let status = got(&served, get("component:nowhere", 0)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.message(), "there is no entity component:default/nowhere");
}

#[tokio::test]
async fn a_bad_request_names_its_field() {
    let served = Served::with([]).await;
    for (request, field) in [
        (get("", 0), "ref"),
        (get("a", 0), "ref"),
        (get(":a/b", 0), "ref"),
        (get("component:/b", 0), "ref"),
        (get(A, -1), "at_least_revision"),
    ] {
        let status = got(&served, request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(&format!("{field}: expected ")), "{status}");
        assert_eq!(field_violations(&status)[0].0, field);
    }
}

#[tokio::test]
async fn a_call_waits_for_the_revision_that_it_asks_for() {
    for (told, expected) in [
        (Followed::Entity(message(A, 2, false)), Ok(20)),
        (Followed::Watermark(20), Ok(10)),
        (Followed::Watermark(25), Ok(10)),
    ] {
        let served = Served::with([message(A, 1, false)]).await;
        assert_eq!(got(&served, get(A, 10)).await.map(|entity| entity.revision).unwrap(), 10);
        let waiting = got(&served, get(A, 20));
        let telling = async {
            waits(&served).await;
            served.tell([Followed::Watermark(19), Followed::Entity(message("api:default/x", 9, false)), told]);
        };
        let (found, ()) = tokio::join!(waiting, telling);
        assert_eq!(found.map(|entity| entity.revision).map_err(|status| status.code()), expected);
        assert_eq!(served.state.waiting().count(), 0);
    }
}

#[tokio::test]
async fn a_deletion_is_waited_for_too() {
    let served = Served::with([message(A, 1, false)]).await;
    let telling = async {
        waits(&served).await;
        served.tell([Followed::Entity(message(A, 2, true)), Followed::Watermark(20)]);
    };
    let (found, ()) = tokio::join!(got(&served, get(A, 20)), telling);
    assert_eq!(found.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_revision_that_does_not_come_in_time_is_told() {
    let served = Served::with([message(A, 1, false)]).await;
    served.tell([Followed::Watermark(41)]);
    // Not through the client: it would give up by itself a tenth of a second later.
    let timeout = Some(Duration::from_millis(300));
    let request = api::ready::GetEntityRequest { r#ref: A.into(), at_least_revision: 45, ..Default::default() };
    let error = crate::get::get_entity(&served.state, &request, timeout).await.unwrap_err();
    let status = Status::from(error);
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let expected = "at_least_revision: the reader has reached revision 41, not yet 45: 0 messages to come";
    assert_eq!(status.message(), expected);
    assert_eq!(served.state.waiting().count(), 0);
}

/// Until a call waits.
async fn waits(served: &Served) {
    let waits = async {
        while served.state.waiting().count() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waits).await.expect("a call waits within 10 s");
}

async fn batch(served: &Served, refs: Vec<String>) -> Result<Vec<Option<String>>, Status> {
    let response =
        served.client().batch_get_entities(v1::BatchGetEntitiesRequest { refs, ..Default::default() }).await?;
    let results = response.into_inner().results.into_iter();
    Ok(results.map(|result| result.entity.map(|entity| entity.r#ref)).collect())
}

#[tokio::test]
async fn a_batch_answers_each_ref_in_order() {
    let served = Served::with([message(A, 1, false), message("api:default/b", 2, false)]).await;
    let refs = |refs: &[&str]| refs.iter().map(|text| text.to_string()).collect::<Vec<_>>();
    let found = batch(&served, refs(&["api:B", A, "api:none", A])).await.unwrap();
    assert_eq!(found, [Some("api:default/b".into()), Some(A.into()), None, Some(A.into())]);
    assert_eq!(batch(&served, vec![]).await.unwrap(), []);
    assert_eq!(batch(&served, vec![A.into(); 1000]).await.unwrap().len(), 1000);
    for (refs, message) in [
        (refs(&[A, A, "b"]), "refs[2]: expected kind:namespace/name"),
        (vec![A.into(); 1001], "refs: expected at most 1000 refs, found 1001"),
    ] {
        let status = batch(&served, refs).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(message), "{status}");
    }
}

#[tokio::test]
async fn a_batch_too_large_for_a_reply_is_refused() {
    let large = |name: &str| entity(name, 1, Some(json!({"text": "x".repeat(2_000_000)})));
    let served = Served::with([large(A), large("api:default/b")]).await;
    assert_eq!(batch(&served, vec![A.into()]).await.unwrap().len(), 1);
    let status = batch(&served, vec![A.into(), "api:b".into()]).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().ends_with("ask for fewer entities"), "{status}");
}

async fn health(served: &Served) -> i32 {
    let service = "callboard.catalog.v1.CatalogService".into();
    let mut client = HealthClient::new(served.channel.clone());
    client.check(HealthCheckRequest { service }).await.unwrap().into_inner().status
}

#[tokio::test]
async fn a_reader_answers_when_it_has_caught_up_and_seen_a_watermark() {
    const SERVING: i32 = 1;
    const NOT_SERVING: i32 = 2;
    let served = Served::start().await;
    served.tell([Followed::Entity(message(A, 1, false)), Followed::CaughtUp]);
    assert_eq!(health(&served).await, NOT_SERVING);
    let status = got(&served, get(A, 0)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let expected = "the reader has not caught up with the catalog yet: 0 messages to come";
    assert_eq!(status.message(), expected);
    served.tell([Followed::Watermark(1)]);
    got(&served, get(A, 0)).await.expect("the reader is ready");
    let serving = async { while health(&served).await != SERVING {} };
    tokio::time::timeout(Duration::from_secs(10), serving).await.expect("serving within 10 s");
    served.tell([Followed::StreamReplaced]);
    got(&served, get(A, 0)).await.expect("it serves what it has while it replays");
}

#[tokio::test]
async fn facets_count_entities_by_value() {
    let of = |name: &str, spec| entity(&format!("component:default/{name}"), 1, Some(spec));
    let served = Served::with([
        of("a", json!({"type": "Service", "tags": ["x", "y"]})),
        of("b", json!({"type": "Service", "tags": ["x", "x"]})),
        of("c", json!({"type": "website", "tags": null})),
    ])
    .await;
    let ask = |facets: &[&str], filter: &[&str]| {
        let mut client = served.client();
        let owned = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect();
        let request = v1::GetFacetsRequest { facets: owned(facets), filter: owned(filter), ..Default::default() };
        async move {
            let facets = client.get_facets(request).await.map(|response| response.into_inner().facets)?;
            let values = |facet: v1::Facet| {
                facet
                    .values
                    .into_iter()
                    .map(|value| format!("{}={}", value.value, value.count))
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            Ok::<_, Status>(facets.into_iter().map(values).collect::<Vec<_>>())
        }
    };
    assert_eq!(
        ask(&["spec.type", "Spec.Tags", "spec.none"], &[]).await.unwrap(),
        ["Service=2 website=1", "x=2 y=1", ""]
    );
    assert_eq!(ask(&["spec.type"], &["spec.tags=y"]).await.unwrap(), ["Service=1"]);
    assert_eq!(ask(&[], &[]).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(ask(&["a"; 21], &[]).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(ask(&["a"], &["=x"]).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn reflection_names_the_services() {
    let served = Served::start().await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(served.channel.clone());
    let mut responses = client.server_reflection_info(futures::stream::iter([request])).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        responses.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list of services")
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["callboard.catalog.v1.CatalogService", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|found| found == name), "{names:?}");
    }
}

#[tokio::test]
async fn the_stop_ends_the_server() {
    let Served { stopper, server, channel, .. } = Served::with([]).await;
    drop(channel);
    stopper.stop();
    let ended = tokio::time::timeout(Duration::from_secs(10), server).await;
    ended.expect("within the grace").unwrap().unwrap();
}
