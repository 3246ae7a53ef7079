//! Processing, case by case: what an entity becomes, what it relates, and what is said when it can't be processed.

use catalog::entity::{Limits, Unprocessed, parse_entity, unprocessed};
use catalog::process::{Model, Processed, ProcessingError, process};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

static MODEL: LazyLock<Model> = LazyLock::new(Model::builtin);

fn run(entity: &Value) -> Result<Processed, ProcessingError> {
    let unprocessed = parse_entity(entity.to_string().as_bytes(), &Limits::default()).expect("it can be a claim");
    process(&MODEL, &unprocessed, "catalog.events.p1.upsert")
}

fn entity(kind: &str, spec: Value) -> Value {
    let api_version = if kind == "Template" { "scaffolder.backstage.io/v1beta3" } else { "backstage.io/v1alpha1" };
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}, "spec": spec})
}

/// The least that a kind asks for, and more.
fn spec(kind: &str, more: Value) -> Value {
    let mut spec = match kind {
        "Component" => json!({"type": "service", "lifecycle": "production", "owner": "o"}),
        "API" => json!({"type": "openapi", "lifecycle": "production", "owner": "o", "definition": "d"}),
        "Resource" => json!({"type": "database", "owner": "o"}),
        "System" | "Domain" => json!({"owner": "o"}),
        "Group" => json!({"type": "team", "children": []}),
        "User" => json!({"memberOf": []}),
        "Template" => json!({"type": "service", "steps": []}),
        "AiResource" => json!({"type": "skill", "lifecycle": "production", "owner": "o"}),
        _ => json!({}),
    };
    for (key, value) in more.as_object().expect("an object") {
        if value == "(none)" {
            spec.as_object_mut().expect("an object").remove(key);
        } else {
            spec[key] = value.clone();
        }
    }
    spec
}

/// `type target` for the entity's own relations, `source type` for the other ends.
fn check_relations(kind: &str, more: Value, own: &[&str], foreign: &[&str]) {
    let processed = run(&entity(kind, spec(kind, more.clone()))).expect("it is processed");
    let pair = |relation: &Value| format!("{} {}", relation["type"], relation["targetRef"]).replace('"', "");
    let got: Vec<String> = processed.entity["relations"].as_array().expect("a list").iter().map(pair).collect();
    assert_eq!(got, own, "{kind} {more}");
    let own_ref = format!("{}:default/a", kind.to_lowercase());
    assert!(processed.foreign.iter().all(|relation| relation.target_ref == own_ref));
    let got: Vec<String> = processed
        .foreign
        .iter()
        .map(|relation| format!("{} {}", relation.source_ref, relation.relation_type))
        .collect();
    assert_eq!(got, foreign, "{kind} {more}");
}

#[test]
fn relations() {
    let check = check_relations;
    check("Component", json!({}), &["ownedBy group:default/o"], &["group:default/o ownerOf"]);
    check("API", json!({"owner": "user:x/Y"}), &["ownedBy user:x/y"], &["user:x/y ownerOf"]);
    check(
        "Resource",
        json!({"system": "s"}),
        &["ownedBy group:default/o", "partOf system:default/s"],
        &["group:default/o ownerOf", "system:default/s hasPart"],
    );
    check(
        "System",
        json!({"domain": "d"}),
        &["ownedBy group:default/o", "partOf domain:default/d"],
        &["domain:default/d hasPart", "group:default/o ownerOf"],
    );
    check(
        "Domain",
        json!({"subdomainOf": "d"}),
        &["ownedBy group:default/o", "partOf domain:default/d"],
        &["domain:default/d hasPart", "group:default/o ownerOf"],
    );
    check("Template", json!({}), &[], &[]);
    check("Template", json!({"owner": "o"}), &["ownedBy group:default/o"], &["group:default/o ownerOf"]);
    check("Location", json!({"target": "./x"}), &[], &[]);
    check(
        "User",
        json!({"memberOf": ["g", "ns/g"]}),
        &["memberOf group:default/g", "memberOf group:ns/g"],
        &["group:default/g hasMember", "group:ns/g hasMember"],
    );
    check(
        "Group",
        json!({"parent": "p", "children": ["c"], "members": ["u"]}),
        &["childOf group:default/p", "hasMember user:default/u", "parentOf group:default/c"],
        &["group:default/c childOf", "group:default/p parentOf", "user:default/u memberOf"],
    );
    check(
        "Component",
        json!({"subcomponentOf": "c", "providesApis": ["p"], "consumesApis": ["q"]}),
        &[
            "consumesApi api:default/q",
            "ownedBy group:default/o",
            "partOf component:default/c",
            "providesApi api:default/p",
        ],
        &[
            "api:default/p apiProvidedBy",
            "api:default/q apiConsumedBy",
            "component:default/c hasPart",
            "group:default/o ownerOf",
        ],
    );
    check(
        "Resource",
        json!({"dependsOn": ["component:c"], "dependencyOf": "api:d"}),
        &["dependencyOf api:default/d", "dependsOn component:default/c", "ownedBy group:default/o"],
        &["api:default/d dependsOn", "component:default/c dependencyOf", "group:default/o ownerOf"],
    );
}

#[test]
fn relations_of_ai_resources_depend_on_their_type() {
    let owner = "ownedBy group:default/o";
    let back = "group:default/o ownerOf";
    check_relations(
        "AiResource",
        json!({"dependsOn": ["x"]}),
        &["dependsOn airesource:default/x", owner],
        &["airesource:default/x dependencyOf", back],
    );
    check_relations(
        "AiResource",
        json!({"type": "plugin", "skills": ["x"], "plugins": ["y"], "dependsOn": ["z"]}),
        &["hasPart airesource:default/x", owner],
        &["airesource:default/x partOf", back],
    );
    check_relations(
        "AiResource",
        json!({"type": "marketplace", "plugins": ["y"]}),
        &["hasPart airesource:default/y", owner],
        &["airesource:default/y partOf", back],
    );
    let rule = json!({"type": "rule", "category": "c", "rationale": "r", "skills": ["x"], "dependsOn": 3});
    check_relations("AiResource", rule, &[owner], &[back]);
}

#[test]
fn relations_once_each_and_with_oneself_at_both_ends() {
    let check = check_relations;
    check(
        "Component",
        json!({"dependsOn": ["component:a", "Component:default/A"]}),
        &["dependencyOf component:default/a", "dependsOn component:default/a", "ownedBy group:default/o"],
        &["group:default/o ownerOf"],
    );
    check(
        "Component",
        json!({"dependsOn": ["resource:r", "Resource:R", "resource:default/r"]}),
        &["dependsOn resource:default/r", "ownedBy group:default/o"],
        &["group:default/o ownerOf", "resource:default/r dependencyOf"],
    );
    check("Group", json!({"parent": "a"}), &["childOf group:default/a", "parentOf group:default/a"], &[]);
    check(
        "Component",
        json!({"dependencyOf": [{"kind": "API", "name": "X"}, {"kind": "API", "namespace": "N", "name": "X"}]}),
        &["dependencyOf api:default/x", "dependencyOf api:n/x", "ownedBy group:default/o"],
        &["api:default/x dependsOn", "api:n/x dependsOn", "group:default/o ownerOf"],
    );
    for nothing in [json!(null), json!(""), json!(0), json!(false), json!([])] {
        check(
            "Component",
            json!({"dependencyOf": nothing}),
            &["ownedBy group:default/o"],
            &["group:default/o ownerOf"],
        );
    }
}

#[test]
fn the_namespace_of_a_ref_is_that_of_the_entity() {
    let mut component = entity("Component", spec("Component", json!({"dependsOn": ["api:x", "api:default/y"]})));
    component["metadata"]["namespace"] = json!("retail");
    let processed = run(&component).expect("it is processed");
    assert_eq!(
        processed.entity["relations"],
        json!([
            {"type": "dependsOn", "targetRef": "api:default/y"},
            {"type": "dependsOn", "targetRef": "api:retail/x"},
            {"type": "ownedBy", "targetRef": "group:retail/o"},
        ])
    );
}

fn check_sorted(kind: &str, field: &str, given: Value, expected: Value) {
    let mut more = Map::new();
    more.insert(field.to_owned(), given);
    let processed = run(&entity(kind, spec(kind, Value::Object(more)))).expect("it is processed");
    assert_eq!(processed.entity["spec"][field], expected, "{kind} {field}");
}

#[test]
fn lists_of_refs_are_sorted_as_javascript_sorts() {
    check_sorted("Component", "providesApis", json!(["b", "a", "B", "10", "9"]), json!(["10", "9", "B", "a", "b"]));
    check_sorted("User", "memberOf", json!(["b", "a"]), json!(["a", "b"]));
    check_sorted("Group", "children", json!(["ｚ", "𐐀", "a"]), json!(["a", "𐐀", "ｚ"]));
    check_sorted("Group", "members", json!(["b", "a", "b"]), json!(["a", "b", "b"]));
    check_sorted(
        "Component",
        "dependencyOf",
        json!(["api:b", {"kind": "api", "name": "a"}]),
        json!(["api:b", {"kind": "api", "name": "a"}]),
    );
    check_sorted("Location", "targets", json!(["./b", "./a"]), json!(["./b", "./a"]));
    // Whatever the kind makes of them.
    check_sorted("Location", "members", json!(["b", "a"]), json!(["a", "b"]));
    check_sorted("System", "dependsOn", json!(["b", "a"]), json!(["a", "b"]));
    check_sorted("User", "children", json!(["b", "a"]), json!(["a", "b"]));
    check_sorted("Group", "skills", json!(["b", "a"]), json!(["b", "a"]));
    check_sorted("Component", "other", json!(["b", "a"]), json!(["b", "a"]));
}

/// The last cause of the error, and the field.
fn check_error(entity: &Value, field: &str, expected: &str) {
    let error = run(entity).expect_err("it cannot be processed");
    assert_eq!(error.field.as_deref(), Some(field), "{entity}: {error}");
    let mut last = &error;
    while let Some(cause) = &last.cause {
        last = cause;
    }
    let known = "To learn more about catalog file format";
    let got = last.to_string();
    assert_eq!(got.split(known).next().unwrap_or_default().trim_end(), expected, "{entity}");
    assert!(error.to_string().ends_with(&got), "the sentence holds its causes: {error}");
}

fn check_spec(kind: &str, more: Value, field: &str, expected: &str) {
    check_error(&entity(kind, spec(kind, more)), field, expected);
}

#[test]
fn what_kinds_ask_for() {
    let check = check_spec;
    for (kind, field) in [
        ("Component", "type"),
        ("Component", "lifecycle"),
        ("Component", "owner"),
        ("API", "type"),
        ("API", "lifecycle"),
        ("API", "owner"),
        ("API", "definition"),
        ("Resource", "type"),
        ("Resource", "owner"),
        ("System", "owner"),
        ("Domain", "owner"),
        ("Group", "type"),
        ("Template", "type"),
        ("AiResource", "type"),
        ("AiResource", "lifecycle"),
        ("AiResource", "owner"),
    ] {
        let pointer = format!("/spec/{field}");
        check(
            kind,
            json!({field: "(none)"}),
            &pointer,
            &format!("TypeError: /spec must have required property '{field}' - missingProperty: {field}"),
        );
        check(
            kind,
            json!({field: ""}),
            &pointer,
            &format!("TypeError: {pointer} must NOT have fewer than 1 characters - limit: 1"),
        );
        for bad in [json!(null), json!(7), json!([]), json!({}), json!(true)] {
            check(kind, json!({field: bad}), &pointer, &format!("TypeError: {pointer} must be string - type: string"));
        }
    }
}

#[test]
fn what_kinds_allow() {
    for (kind, field) in [
        ("Component", "system"),
        ("Component", "subcomponentOf"),
        ("API", "system"),
        ("Resource", "system"),
        ("System", "domain"),
        ("System", "type"),
        ("Domain", "subdomainOf"),
        ("Domain", "type"),
        ("Group", "parent"),
        ("Location", "type"),
        ("Location", "target"),
        ("Template", "owner"),
        ("AiResource", "system"),
    ] {
        let pointer = format!("/spec/{field}");
        check_spec(
            kind,
            json!({field: ""}),
            &pointer,
            &format!("TypeError: {pointer} must NOT have fewer than 1 characters - limit: 1"),
        );
        check_spec(
            kind,
            json!({field: null}),
            &pointer,
            &format!("TypeError: {pointer} must be string - type: string"),
        );
        assert!(run(&entity(kind, spec(kind, json!({field: "x"})))).is_ok(), "{kind} {field}");
    }
    for (kind, field) in [
        ("Component", "providesApis"),
        ("Component", "consumesApis"),
        ("Component", "dependsOn"),
        ("Resource", "dependsOn"),
        ("Group", "children"),
        ("Group", "members"),
        ("User", "memberOf"),
        ("Location", "targets"),
        ("AiResource", "dependsOn"),
        ("AiResource", "categories"),
    ] {
        let pointer = format!("/spec/{field}");
        for bad in [json!("x"), json!(null), json!({}), json!(1)] {
            check_spec(
                kind,
                json!({field: bad}),
                &pointer,
                &format!("TypeError: {pointer} must be array - type: array"),
            );
        }
        let item = format!("{pointer}/1");
        check_spec(
            kind,
            json!({field: ["k:x", 1]}),
            &item,
            &format!("TypeError: {item} must be string - type: string"),
        );
        check_spec(
            kind,
            json!({field: [1, "k:x"]}),
            &format!("{pointer}/0"),
            &format!("TypeError: {pointer}/0 must be string - type: string"),
        );
        assert!(run(&entity(kind, spec(kind, json!({field: ["k:x"]})))).is_ok(), "{kind} {field}");
    }
}

#[test]
fn the_rest_of_the_kinds() {
    let check = check_spec;
    check(
        "Location",
        json!({"presence": "maybe"}),
        "/spec/presence",
        "TypeError: /spec/presence must be equal to one of the allowed values - allowedValues: required,optional",
    );
    check(
        "Location",
        json!({"presence": 1}),
        "/spec/presence",
        "TypeError: /spec/presence must be string - type: string",
    );
    check("User", json!({"profile": "x"}), "/spec/profile", "TypeError: /spec/profile must be object - type: object");
    check(
        "User",
        json!({"profile": {"email": ""}}),
        "/spec/profile/email",
        "TypeError: /spec/profile/email must NOT have fewer than 1 characters - limit: 1",
    );
    check(
        "Template",
        json!({"steps": [{"action": "a"}, {}]}),
        "/spec/steps/1/action",
        "TypeError: /spec/steps/1 must have required property 'action' - missingProperty: action",
    );
    check(
        "Template",
        json!({"parameters": "x"}),
        "/spec/parameters",
        "TypeError: /spec/parameters must be object - type: object",
    );
    check(
        "Template",
        json!({"steps": [{"action": "a", "if": 1}]}),
        "/spec/steps/0/if",
        "TypeError: /spec/steps/0/if must be string,boolean - type: string,boolean",
    );
    check(
        "API",
        json!({"type": "mcp-server"}),
        "/spec/remotes",
        "TypeError: /spec must have required property 'remotes' - missingProperty: remotes",
    );
    check(
        "API",
        json!({"type": "mcp-server", "remotes": []}),
        "/spec/remotes",
        "TypeError: /spec/remotes must NOT have fewer than 1 items - limit: 1",
    );
    check(
        "API",
        json!({"type": "mcp-server", "remotes": [{"type": "sse"}]}),
        "/spec/remotes/0/url",
        "TypeError: /spec/remotes/0 must have required property 'url' - missingProperty: url",
    );
    check(
        "AiResource",
        json!({"type": "rule"}),
        "/spec/category",
        "TypeError: /spec must have required property 'category' - missingProperty: category",
    );
    check(
        "AiResource",
        json!({"type": "plugin"}),
        "/spec/skills",
        "TypeError: /spec must have required property 'skills' - missingProperty: skills",
    );
    check(
        "AiResource",
        json!({"type": "marketplace"}),
        "/spec/plugins",
        "TypeError: /spec must have required property 'plugins' - missingProperty: plugins",
    );
    check(
        "AiResource",
        json!({"compatibility": "x".repeat(501)}),
        "/spec/compatibility",
        "TypeError: /spec/compatibility must NOT have more than 500 characters - limit: 500",
    );
    let remote =
        json!({"type": "mcp-server", "definition": "(none)", "remotes": [{"type": "sse", "url": "https://a.b"}]});
    assert!(run(&entity("API", spec("API", remote))).is_ok());
}

#[test]
fn kinds_and_versions_that_nobody_knows() {
    let unknown = |entity_ref: &str| {
        format!(
            "InputError: No processor recognized the entity {entity_ref} as valid, possibly caused by a foreign kind or apiVersion"
        )
    };
    for (kind, api_version, entity_ref, field) in [
        ("component", "backstage.io/v1alpha1", "component:default/a", "/kind"),
        ("Machine", "backstage.io/v1alpha1", "machine:default/a", "/kind"),
        ("Component", "backstage.io/v1", "component:default/a", "/apiVersion"),
        ("Template", "backstage.io/v1alpha1", "template:default/a", "/apiVersion"),
        ("AiResource", "backstage.io/v1beta1", "airesource:default/a", "/apiVersion"),
    ] {
        // Nothing of the spec is looked at.
        let entity = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}, "spec": {"type": 1}});
        check_error(&entity, field, &unknown(entity_ref));
    }
    for kind in ["Component", "API", "Resource", "System", "Domain", "Group", "User", "Location"] {
        let mut beta = entity(kind, spec(kind, json!({})));
        beta["apiVersion"] = json!("backstage.io/v1beta1");
        assert!(run(&beta).is_ok(), "{kind}");
    }
}

/// A Component with one place changed.
fn changed(pointer: &str, value: Value) -> Value {
    let mut entity = entity("Component", spec("Component", json!({})));
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let parent = entity.pointer_mut(parent).expect("it is there");
    parent[key.replace("~1", "/")] = value;
    entity
}

#[test]
fn the_envelope() {
    let string = |pointer: &str| format!("TypeError: {pointer} must be string - type: string");
    check_error(&changed("/apiVersion", json!(1)), "/apiVersion", &string("/apiVersion"));
    check_error(
        &changed("/apiVersion", json!("")),
        "/apiVersion",
        "TypeError: /apiVersion must NOT have fewer than 1 characters - limit: 1",
    );
    check_error(&changed("/metadata/namespace", json!(null)), "/metadata/namespace", &string("/metadata/namespace"));
    check_error(
        &changed("/metadata/namespace", json!("")),
        "/metadata/namespace",
        "TypeError: /metadata/namespace must NOT have fewer than 1 characters - limit: 1",
    );
    let bare = json!({"kind": "Component", "metadata": {"name": "a"}});
    check_error(&bare, "", "TypeError: <root> must have required property 'apiVersion' - missingProperty: apiVersion");
}

#[test]
fn the_shape() {
    let check = |pointer: &str, value: Value, problem: &str| {
        check_error(&changed(pointer, value), pointer, &format!("Error: Malformed envelope, {pointer} {problem}"));
    };
    check("/spec", json!([]), "must be object");
    check("/spec", json!(null), "must be object");
    check("/metadata/title", json!(""), "must NOT have fewer than 1 characters");
    check("/metadata/title", json!(1), "must be string");
    check("/metadata/description", json!(null), "must be string");
    check("/metadata/uid", json!(1), "must be string");
    check("/metadata/etag", json!(""), "must NOT have fewer than 1 characters");
    check("/metadata/labels", json!([]), "must be object");
    check("/metadata/annotations", json!(1), "must be object");
    check("/metadata/tags", json!("java"), "must be array");
    check("/metadata/tags", json!({}), "must be array");
    check("/metadata/links", json!({}), "must be array");
    check("/relations", json!({}), "must be array");
    check("/status", json!([]), "must be object");
    let deep = |pointer: &str, value: Value, field: &str, problem: &str| {
        check_error(&changed(pointer, value), field, &format!("Error: Malformed envelope, {field} {problem}"));
    };
    deep("/metadata/tags", json!(["a", ""]), "/metadata/tags/1", "must NOT have fewer than 1 characters");
    deep("/metadata/tags", json!(["a", null]), "/metadata/tags/1", "must be string");
    deep("/metadata/labels", json!({"x/y": 1}), "/metadata/labels/x~1y", "must be string");
    deep("/metadata/annotations", json!({"x": null}), "/metadata/annotations/x", "must be string");
    check_error(
        &changed("/metadata/links", json!([{}])),
        "/metadata/links/0/url",
        "Error: Malformed envelope, /metadata/links/0 must have required property 'url'",
    );
    deep("/metadata/links", json!([{"url": ""}]), "/metadata/links/0/url", "must NOT have fewer than 1 characters");
    deep(
        "/metadata/links",
        json!([{"url": "x:", "type": ""}]),
        "/metadata/links/0/type",
        "must NOT have fewer than 1 characters",
    );
    check_error(
        &changed("/foo", json!(1)),
        "/foo",
        "Error: Malformed envelope, <root> must NOT have additional properties",
    );
    check_error(&changed("/relations", json!([])), "/relations", "Error: Unknown field relations");
    check_error(&changed("/status", json!({})), "/status", "Error: Unknown field status");
    for (pointer, value) in [
        ("/metadata/labels", json!({})),
        ("/metadata/tags", json!([])),
        ("/metadata/links", json!([])),
        ("/metadata/description", json!("")),
        ("/metadata/anything", json!({"at": ["all", null]})),
    ] {
        assert!(run(&changed(pointer, value)).is_ok(), "{pointer}");
    }
}

#[test]
fn the_formats() {
    let check = |pointer: &str, value: Value, field: &str, expected: &str, found: &str| {
        check_error(
            &changed(pointer, value),
            field,
            &format!("Error: \"{field}\" is not valid; expected {expected} but found \"{found}\"."),
        );
    };
    let name = "a string that is sequences of [a-zA-Z0-9] separated by any of [-_.], at most 63 characters in total";
    let label = "a string that is sequences of [a-z0-9] separated by [-], at most 63 characters in total";
    check("/apiVersion", json!("a/b/c"), "apiVersion", "a valid prefix and/or suffix", "a/b/c");
    check("/metadata/name", json!("a b"), "metadata.name", name, "a b");
    check("/metadata/namespace", json!("A"), "metadata.namespace", label, "A");
    check("/metadata/labels", json!({"a": "b c"}), "labels.a", name, "b c");
    check("/metadata/labels", json!({"a b": "c"}), "labels.a b", "a valid prefix and/or suffix", "a b");
    check("/metadata/annotations", json!({"a/": ""}), "annotations.a/", "a valid prefix and/or suffix", "a/");
    check("/metadata/links", json!([{"url": "x"}]), "links.0.url", "a string that is a valid url", "x");
    check("/metadata/links", json!([{"url": "x:", "title": " "}]), "links.0.title", "a non empty string", " ");
    check("/metadata/links", json!([{"url": "x:", "icon": " "}]), "links.0.icon", "a non empty string", " ");
}

#[test]
fn refs_that_do_not_parse() {
    let form = |text: &str| {
        format!("TypeError: Entity reference \"{text}\" was not on the form [<kind>:][<namespace>/]<name>")
    };
    let no_kind = |text: &str| {
        format!(
            "Error: Entity reference {text} had missing or empty kind (e.g. did not start with \"component:\" or similar)"
        )
    };
    let check = check_spec;
    check("Component", json!({"owner": "group:"}), "/spec/owner", &form("group:"));
    check("Component", json!({"owner": "/x"}), "/spec/owner", &form("/x"));
    check("Component", json!({"dependsOn": ["x"]}), "/spec/dependsOn", &no_kind("\"x\""));
    check(
        "Component",
        json!({"dependencyOf": ["api:x", ""]}),
        "/spec/dependencyOf",
        "Error: Entity reference must not be empty",
    );
    check("Component", json!({"dependencyOf": 5}), "/spec/dependencyOf", &no_kind("5"));
    check("Component", json!({"dependencyOf": [["api:x"]]}), "/spec/dependencyOf", &no_kind("[\"api:x\"]"));
    check(
        "Component",
        json!({"dependencyOf": {"kind": "api"}}),
        "/spec/dependencyOf",
        "Error: Entity reference {\"kind\":\"api\"} had missing or empty name",
    );
}

#[test]
fn what_is_shown() {
    let processed =
        run(&entity("Component", spec("Component", json!({"more": [1.5, null]})))).expect("it is processed");
    let location = "nats:catalog.events.p1.upsert";
    assert_eq!(
        Value::Object(processed.entity),
        json!({
            "apiVersion": "backstage.io/v1alpha1",
            "kind": "Component",
            "metadata": {
                "name": "a",
                "namespace": "default",
                "annotations": {"backstage.io/managed-by-location": location, "backstage.io/managed-by-origin-location": location},
            },
            "spec": {"type": "service", "lifecycle": "production", "owner": "o", "more": [1.5, null]},
            "relations": [{"type": "ownedBy", "targetRef": "group:default/o"}],
        })
    );
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        Just(json!(0)),
        Just(json!(true)),
        "[a-cA-C:/ .-]{0,4}".prop_map(Value::from),
        Just(json!("url:https://github.com/a/b/blob/m/c.yaml")),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("(kind|name|url|[a-c])", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

const KINDS: [&str; 10] =
    ["Component", "API", "Resource", "System", "Domain", "Group", "User", "Location", "Template", "AiResource"];

proptest! {
    #[test]
    fn processing_again_gives_the_same(
        kind in proptest::sample::select(&KINDS[..]),
        owner in "([ab]:)?([ab]/)?[a-cA-C]{1,2}",
        refs in proptest::collection::vec("[kK]:([ab]/)?[a-cA-C]{1,2}", 0..6),
        location in proptest::option::of(proptest::sample::select(&["url:https://github.com/a/b/blob/m/c.yaml", " file : /x", "a:b"][..])),
    ) {
        let has_owner = !matches!(kind, "Group" | "User" | "Location");
        let mut more = json!({"dependsOn": refs, "memberOf": refs, "children": refs, "providesApis": refs, "dependencyOf": refs});
        if has_owner {
            more["owner"] = json!(owner);
        }
        let mut entity = entity(kind, spec(kind, more));
        if let Some(location) = location {
            entity["metadata"]["annotations"] = json!({"backstage.io/managed-by-location": location, "backstage.io/managed-by-origin-location": location});
        }
        let first = run(&entity).expect("it is processed");
        let mut again = first.entity.clone();
        again.remove("relations");
        prop_assert_eq!(run(&Value::Object(again)).expect("again"), first);
    }

    #[test]
    fn any_entity_is_processed_or_an_error(
        kind in proptest::sample::select(&KINDS[..]),
        fields in proptest::collection::btree_map("(type|lifecycle|owner|dependencyOf|dependsOn|memberOf|children|steps|parent|remotes)", any_value(), 0..6),
        metadata in proptest::collection::btree_map("(namespace|labels|annotations|tags|links|title)", any_value(), 0..3),
    ) {
        let mut entity = entity(kind, Value::Object(fields.into_iter().collect()));
        for (key, value) in metadata {
            entity["metadata"][key] = value;
        }
        let Value::Object(entity) = entity else { unreachable!() };
        let unprocessed: Unprocessed = unprocessed(entity).expect("a kind and a name");
        match process(&MODEL, &unprocessed, "p") {
            Ok(processed) => {
                let own = unprocessed.entity_ref.to_string();
                prop_assert!(processed.foreign.iter().all(|relation| relation.source_ref != own && relation.target_ref == own));
                prop_assert!(processed.foreign.windows(2).all(|pair| pair[0] < pair[1]));
            }
            Err(error) => prop_assert!(error.field.is_some(), "{error}"),
        }
    }
}
