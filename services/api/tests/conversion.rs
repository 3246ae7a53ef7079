//! An entity's JSON and its message hold the same, whatever the JSON holds.

use api::{entity_from_json, entity_from_map, entity_to_json, v1};
use proptest::prelude::*;
use prost::Message;
use serde_json::{Map, Value, json};

/// JSON → message → bytes → message → JSON gives the same JSON, numbers compared as doubles.
fn check(entity: Value) -> v1::Entity {
    let Value::Object(map) = entity else { panic!("the case is no object") };
    let message = entity_from_map(map.clone(), 7).expect("the case converts");
    let decoded = v1::Entity::decode(message.encode_to_vec().as_slice()).expect("decodes");
    assert_eq!(decoded, message);
    let (entity_ref, bytes) = api::encode_entity(&(&map).into(), 7).expect("the case is encoded");
    assert_eq!(v1::Entity::decode(bytes.as_slice()).expect("decodes"), message);
    assert_eq!(entity_ref, message.r#ref);
    let back = Value::Object(entity_to_json(&decoded));
    assert_eq!(doubles(back), doubles(Value::Object(map)));
    decoded
}

fn doubles(value: Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64().map(|number| number + 0.0)),
        Value::Array(items) => items.into_iter().map(doubles).collect(),
        Value::Object(map) => Value::Object(map.into_iter().map(|(k, v)| (k, doubles(v))).collect()),
        other => other,
    }
}

/// A stitched entity with one place changed: `metadata` and root are patched with the case's keys.
fn stitched(root: Value, metadata: Value) -> Value {
    let mut entity = json!({
        "apiVersion": "backstage.io/v1alpha1",
        "kind": "Component",
        "metadata": {"name": "Web", "namespace": "default", "uid": "u-1", "etag": "e-1"},
        "spec": {"type": "service", "owner": "team-a"},
        "relations": [{"type": "ownedBy", "targetRef": "group:default/team-a"}],
    });
    for (place, patch) in [("", root), ("/metadata", metadata)] {
        let target = entity.pointer_mut(place).and_then(Value::as_object_mut);
        let Value::Object(patch) = patch else { panic!("the patch is no object") };
        target.expect("an object").extend(patch);
    }
    entity
}

#[test]
fn typed_fields_are_typed() {
    let entity = check(stitched(
        json!({"status": {"items": [{"type": "t", "level": "error", "message": "m", "error": {"name": "E"}}]}}),
        json!({
            "title": "The web", "description": "", "labels": {"a": "b"}, "annotations": {"x/y": "z"}, "tags": ["go"],
            "links": [{"url": "https://a.example", "title": "A", "rank": 1}], "more": {"deep": [null, 1.5, true]},
        }),
    ));
    assert_eq!(entity.r#ref, "component:default/web");
    assert_eq!((entity.uid.as_str(), entity.etag.as_str()), ("u-1", "e-1"));
    assert_eq!(entity.revision, 7);
    assert_eq!(entity.extra, None);
    assert_eq!(entity.status.expect("a status").items[0].level, "error");
    let metadata = entity.metadata.expect("metadata");
    assert_eq!(metadata.name, "Web");
    assert_eq!(metadata.description.as_deref(), Some(""));
    assert_eq!(metadata.labels["a"], "b");
    assert_eq!(metadata.tags, ["go"]);
    assert_eq!(metadata.links[0].title.as_deref(), Some("A"));
    let extra = metadata.extra.expect("extra");
    assert_eq!(extra.fields.keys().collect::<Vec<_>>(), ["more"]);
}

#[test]
fn odd_values_are_kept() {
    let odd = [
        json!(null),
        json!(""),
        json!(1),
        json!([]),
        json!({}),
        json!([null]),
        json!(["a", 1]),
        json!({"a": null}),
        json!([{"url": null}]),
        json!([{"url": "u", "title": 3, "type": null}]),
        json!([{"type": "t", "targetRef": "r", "more": 1}]),
        json!({"items": [{"type": "t", "level": "error", "message": "m", "error": null}]}),
        json!({"items": []}),
        json!({"items": [], "more": 1}),
        json!(9007199254740993_u64),
        json!(-0.0),
        json!(1e300),
    ];
    let inner =
        ["uid", "etag", "title", "description", "labels", "annotations", "tags", "links", "namespace", "extra", "ref"];
    let outer = ["apiVersion", "spec", "relations", "status", "uid", "extra", "revision"];
    for value in &odd {
        for key in inner {
            check(stitched(json!({}), json!({key: value})));
        }
        for key in outer {
            check(stitched(json!({key: value}), json!({})));
        }
    }
}

#[test]
fn numbers_are_written_as_javascript_does() {
    let numbers = json!([1, 1.0, -0.0, 0.5, 9007199254740991_i64]);
    let entity = check(stitched(json!({"spec": {"n": numbers}}), json!({})));
    let back = entity_to_json(&entity);
    assert_eq!(back["spec"].to_string(), r#"{"n":[1,1,0,0.5,9007199254740991]}"#);
}

#[test]
fn the_deepest_entity_is_readable_and_a_deeper_one_is_refused() {
    for wrap in [|value| json!({"a": value}), |value| json!([value])] {
        let deep = |levels: usize| (2..levels).fold(json!(1), |value, _| wrap(value));
        for metadata in [false, true] {
            let place = |levels| match metadata {
                true => stitched(json!({}), json!({"deep": deep(levels)})),
                false => stitched(json!({"spec": {"deep": deep(levels)}}), json!({})),
            };
            let entity = check(place(api::MAX_DEPTH));
            let batch = v1::BatchGetEntitiesResponse {
                results: vec![v1::batch_get_entities_response::Result { entity: Some(entity) }],
            };
            let bytes = batch.encode_to_vec();
            assert_eq!(v1::BatchGetEntitiesResponse::decode(bytes.as_slice()), Ok(batch));
            let deeper = serde_json::to_vec(&place(api::MAX_DEPTH + 1)).expect("JSON");
            let error = entity_from_json(&deeper, 1).expect_err("too deep").to_string();
            assert!(error.contains("at most 32 levels of nesting, found 33"), "{error}");
        }
    }
}

#[test]
fn what_is_no_entity_is_refused() {
    let cases = [
        ("[]", "expected a JSON object"),
        ("{", "expected a JSON object"),
        ("{}", "kind: expected a string"),
        (r#"{"kind":"A"}"#, "metadata.name: expected a string"),
        (r#"{"kind":"A","metadata":{"name":""}}"#, "metadata.name"),
        (r#"{"kind":1,"metadata":{"name":"a"}}"#, "kind: expected"),
    ];
    for (json, expected) in cases {
        let error = entity_from_json(json.as_bytes(), 1).expect_err(json).to_string();
        assert!(error.contains(expected), "{json}: {error}");
    }
}

#[test]
fn a_status_names_the_field() {
    let error = api::Error::invalid("refs[3]", "expected kind:namespace/name, found \"x\"");
    let status = tonic::Status::from(error);
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert_eq!(status.message(), "refs[3]: expected kind:namespace/name, found \"x\"");
    assert_eq!(
        api::field_violations(&status),
        [("refs[3]".to_owned(), "expected kind:namespace/name, found \"x\"".to_owned())]
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        Just("url".to_owned()),
        Just("items".to_owned()),
        Just("type".to_owned()),
        Just("targetRef".to_owned()),
        Just("error".to_owned()),
        ".{0,4}",
    ];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..5).prop_map(|pairs| Value::Object(Map::from_iter(pairs))),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_is_lost(
        inner in prop::sample::select(vec!["uid", "etag", "title", "labels", "annotations", "tags", "links", "x"]),
        outer in prop::sample::select(vec!["apiVersion", "spec", "relations", "status", "x"]),
        values in (any_json(), any_json()),
    ) {
        check(stitched(json!({outer: values.0}), json!({inner: values.1})));
    }
}

#[test]
fn bytes_that_stand_ready_are_the_message_on_the_wire() {
    let entity = check(stitched(json!({}), json!({"title": "T", "labels": {"a": "b"}, "extra": [1, null]})));
    let ready = api::EncodedEntity::from(&entity);
    let plain = v1::ListEntitiesResponse { entities: vec![entity.clone(), entity.clone()], ..Default::default() };
    let fast = api::ready::ListEntitiesResponse { entities: vec![ready.clone(), ready.clone()], ..Default::default() };
    let bytes = plain.encode_to_vec();
    assert_eq!(fast.encode_to_vec(), bytes);
    assert_eq!(fast.encoded_len(), plain.encoded_len());
    assert_eq!(api::ready::ListEntitiesResponse::decode(bytes.as_slice()).expect("decodes"), fast);
    assert_eq!(ready.entity().expect("an entity"), entity);
    let cut = &bytes[..bytes.len() - 3];
    assert!(api::ready::ListEntitiesResponse::decode(cut).is_err());
}

#[test]
fn fields_are_picked_as_backstage_does() {
    let entity =
        check(stitched(json!({}), json!({"annotations": {"example.com/Case": "x", "a": "y"}, "a.b": {"c": 1}})));
    let cases: [(&[&str], Value); 6] = [
        (&["metadata.name"], json!({"metadata": {"name": "Web"}})),
        (&["kind", "spec.type", "spec.absent"], json!({"kind": "Component", "spec": {"type": "service"}})),
        (&["metadata.annotations.example.com/Case"], json!({"metadata": {"annotations": {"example.com/Case": "x"}}})),
        (&["metadata.annotations.example.com/case"], json!({})),
        (&["metadata.a.b.c"], json!({"metadata": {"a.b": {"c": 1}}})),
        (
            &["relations", "metadata.uid"],
            json!({
                "relations": [{"type": "ownedBy", "targetRef": "group:default/team-a"}], "metadata": {"uid": "u-1"},
            }),
        ),
    ];
    for (paths, expected) in cases {
        let paths: Vec<String> = paths.iter().map(|path| path.to_string()).collect();
        let fields = api::Fields::parse(&paths).expect("paths").expect("some");
        let picked = fields.of(&(&entity).into()).expect("picks").entity().expect("an entity");
        assert_eq!((picked.r#ref.as_str(), picked.revision), ("component:default/web", 7));
        let mut json = entity_to_json(&picked);
        // Of a message nobody can tell whether it has no relations or was not asked for them.
        if picked.relations.is_empty() {
            json.remove("relations");
        }
        assert_eq!(Value::Object(json), expected, "{paths:?}");
    }
    for refused in [vec![String::new()], vec!["a[0]".to_owned()], vec!["a".to_owned(); 101]] {
        assert!(api::Fields::parse(&refused).is_err(), "{refused:?}");
    }
    assert_eq!(api::Fields::parse(&[]), Ok(None));
}
