//! What is reached over relations: both ways, each entity once at its least depth, within bounds.

use std::collections::BTreeMap;

use api::v1::{self, Direction};
use proptest::prelude::*;
use serde_json::json;
use tonic::{Code, Status};

use super::{Served, entity};

/// `component:default/NAME` with relations, each a type and the name of its target.
fn component(name: &str, relations: &[(&str, &str)]) -> bus::EntityMessage {
    let entity_ref = |name: &str| format!("component:default/{name}");
    let relation = |(of_type, target): &(&str, &str)| json!({"type": of_type, "targetRef": entity_ref(target)});
    let mut message = entity(&entity_ref(name), 1, Some(json!({})));
    let mut body: serde_json::Value = serde_json::from_slice(message.body.as_deref().unwrap()).unwrap();
    body["relations"] = relations.iter().map(relation).collect();
    message.body = Some(body.to_string().into());
    message
}

/// a → b → d → a, a → c → d, c → gone; x → a by another type.
async fn served() -> Served {
    Served::with([
        component("a", &[("dependsOn", "b"), ("dependsOn", "c")]),
        component("b", &[("dependsOn", "d")]),
        component("c", &[("dependsOn", "d"), ("dependsOn", "gone")]),
        component("d", &[("dependsOn", "a")]),
        component("x", &[("consumesApi", "a")]),
    ])
    .await
}

async fn traverse(
    served: &Served,
    request: v1::TraverseRelationsRequest,
) -> Result<(Vec<String>, usize, bool), Status> {
    let answer = served.client().traverse_relations(request).await?.into_inner();
    let node = |node: &v1::traverse_relations_response::Node| {
        let name = node.r#ref.strip_prefix("component:default/").unwrap_or(&node.r#ref);
        format!("{name}{}{}", node.depth, if node.exists { "" } else { "?" })
    };
    Ok((answer.nodes.iter().map(node).collect(), answer.edges.len(), answer.truncated))
}

fn from(name: &str, types: &[&str], direction: Direction, max_depth: i32) -> v1::TraverseRelationsRequest {
    v1::TraverseRelationsRequest {
        r#ref: format!("component:{name}"),
        relation_types: types.iter().map(|of_type| of_type.to_string()).collect(),
        direction: direction.into(),
        max_depth,
        ..Default::default()
    }
}

#[tokio::test]
async fn each_entity_comes_once_at_its_least_depth() {
    let served = served().await;
    let cases: [(v1::TraverseRelationsRequest, &[&str], usize); 8] = [
        (from("a", &[], Direction::Unspecified, 0), &["a0", "b1", "c1"], 2),
        (from("a", &[], Direction::Outgoing, 2), &["a0", "b1", "c1", "d2", "gone2?"], 5),
        (from("a", &["DEPENDSON"], Direction::Outgoing, 9), &["a0", "b1", "c1", "d2", "gone2?"], 6),
        (from("a", &["ownedBy"], Direction::Outgoing, 9), &["a0"], 0),
        (from("a", &["dependsOn"], Direction::Incoming, 2), &["a0", "d1", "b2", "c2"], 3),
        (from("a", &["dependsOn", "consumesApi"], Direction::Incoming, 1), &["a0", "d1", "x1"], 2),
        (from("b", &["dependsOn"], Direction::Both, 1), &["b0", "d1", "a1"], 2),
        (from("b", &["dependsOn"], Direction::Both, 2), &["b0", "d1", "a1", "c2"], 5),
    ];
    for (request, nodes, edges) in cases {
        let found = traverse(&served, request.clone()).await.unwrap();
        assert_eq!(found, (nodes.iter().map(|node| node.to_string()).collect(), edges, false), "{request:?}");
    }
}

#[tokio::test]
async fn bounds_are_kept_and_told() {
    let served = served().await;
    let all = from("a", &[], Direction::Outgoing, 9);
    let limited = v1::TraverseRelationsRequest { limit: 2, ..all.clone() };
    assert_eq!(traverse(&served, limited).await.unwrap(), (vec!["a0".into(), "b1".into()], 1, true));
    let short = v1::TraverseRelationsRequest { budget: 3, ..all.clone() };
    assert_eq!(traverse(&served, short).await.unwrap(), (["a0", "b1", "c1", "d2"].map(String::from).into(), 3, true));
    let with =
        v1::TraverseRelationsRequest { include_entities: true, fields: vec!["metadata.name".into()], ..all.clone() };
    let answer = served.client().traverse_relations(with).await.unwrap().into_inner();
    let name = |node: &v1::traverse_relations_response::Node| Some(node.entity.clone()?.metadata?.name);
    let names: Vec<Option<String>> = answer.nodes.iter().map(name).collect();
    assert_eq!(
        names,
        ["a", "b", "c", "d"].map(|name| Some(name.to_owned())).into_iter().chain([None]).collect::<Vec<_>>()
    );
    for (request, field) in [
        (v1::TraverseRelationsRequest { limit: 10_001, ..all.clone() }, "limit"),
        (v1::TraverseRelationsRequest { budget: -1, ..all.clone() }, "budget"),
        (v1::TraverseRelationsRequest { max_depth: 101, ..all.clone() }, "max_depth"),
        (v1::TraverseRelationsRequest { direction: 4, ..all.clone() }, "direction"),
        (from("a", &[], Direction::Both, 1), "relation_types"),
    ] {
        let status = traverse(&served, request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(api::field_violations(&status)[0].0, field);
    }
    let status = traverse(&served, from("nobody", &[], Direction::Outgoing, 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn of_large_entities_what_is_asked_for_is_found_too() {
    let members: Vec<String> = (0..500).map(|member| format!("member-{member}")).collect();
    let owns: Vec<(&str, &str)> = members.iter().map(|member| ("ownerOf", member.as_str())).collect();
    let with = |name: &str, more: &[(&str, &str)]| component(name, &[&owns, more].concat());
    let served = Served::with([
        with("group", &[("childOf", "parent")]),
        with("parent", &[]),
        component("a", &[("ownedBy", "group")]),
    ])
    .await;
    let found = traverse(&served, from("a", &["OwnedBy", "childOf"], Direction::Outgoing, 9)).await.unwrap();
    assert_eq!(found, (["a0", "group1", "parent2"].map(String::from).into(), 2, false));
    let found = traverse(&served, from("parent", &["ownerOf"], Direction::Outgoing, 1)).await.unwrap();
    assert_eq!((found.0.len(), found.1), (501, 500));
}

const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "E", "gone"];
const TYPES: [&str; 4] = ["dependsOn", "DependsOn", "ownedBy", "x"];

/// Relations of one of the first five names.
type Relations = Vec<(usize, &'static str, &'static str)>;

fn relations() -> impl Strategy<Value = Relations> {
    let relation = (0..5_usize, prop::sample::select(&TYPES), prop::sample::select(&NAMES));
    prop::collection::vec(relation, 0..20).prop_map(|mut relations| {
        relations.sort_unstable();
        relations.dedup();
        // Two spellings of one type in one entity cannot be searched, so that is not stitched.
        let mut spelled = BTreeMap::new();
        relations
            .retain(|(of, of_type, _)| *spelled.entry((*of, of_type.to_lowercase())).or_insert(*of_type) == *of_type);
        relations
    })
}

/// The nodes and edges that a walk finds, told without an index.
fn naively(relations: &Relations, request: &v1::TraverseRelationsRequest) -> (Vec<String>, Vec<[String; 3]>) {
    let start = request.r#ref.strip_prefix("component:").unwrap_or_default();
    let asked: Vec<&(usize, &str, &str)> = relations
        .iter()
        .filter(|(_, of_type, _)| {
            request.relation_types.is_empty()
                || request.relation_types.iter().any(|asked| asked.eq_ignore_ascii_case(of_type))
        })
        .collect();
    let outgoing = request.direction != i32::from(Direction::Incoming);
    let incoming = matches!(request.direction(), Direction::Incoming | Direction::Both);
    let mut nodes: Vec<(&str, i32)> = vec![(start, 0)];
    let mut edges: Vec<[String; 3]> = Vec::new();
    let mut at = 0;
    while let Some((name, depth)) = nodes.get(at).copied() {
        at += 1;
        if depth == request.max_depth {
            continue;
        }
        let out = asked.iter().filter(|(of, ..)| outgoing && NAMES[*of] == name);
        // Of those who name it the first in the order of refs comes first. Nothing is found from a ref that is not lower-case, and is nobody's.
        let back = asked.iter().filter(|(.., target)| incoming && *target == name && name != "E");
        let found: Vec<_> =
            out.map(|found| (found, found.2)).chain(back.map(|found| (found, NAMES[found.0]))).collect();
        for ((of, of_type, target), other) in found {
            let is_known = nodes.iter().any(|(known, _)| *known == other);
            if !is_known && nodes.len() == request.limit as usize {
                continue;
            }
            if !is_known {
                nodes.push((other, depth + 1));
            }
            let edge = [NAMES[*of], of_type, target].map(str::to_owned);
            if !(outgoing && incoming && edges.contains(&edge)) {
                edges.push(edge);
            }
        }
    }
    (nodes.iter().map(|(name, depth)| format!("{name}{depth}")).collect(), edges)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_tells_relations_the_walk_is_the_same(
        relations in relations(),
        requests in prop::collection::vec(
            (0..5_usize, prop::sample::subsequence(&TYPES, 1..4), 1..4_i32, 1..4_i32, 1..8_i32),
            1..12,
        ),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let of = |of: usize| -> Vec<(&str, &str)> {
                relations.iter().filter(|relation| relation.0 == of).map(|(_, of_type, target)| (*of_type, *target)).collect()
            };
            let served = Served::with((0..5).map(|number| component(NAMES[number], &of(number)))).await;
            for (start, types, direction, max_depth, limit) in requests {
                let request = v1::TraverseRelationsRequest {
                    limit,
                    ..from(NAMES[start], &types, Direction::try_from(direction).unwrap(), max_depth)
                };
                let answer = served.client().traverse_relations(request.clone()).await.unwrap().into_inner();
                let name = |entity_ref: &str| entity_ref.replace("component:default/", "");
                let nodes: Vec<String> = answer.nodes.iter().map(|node| format!("{}{}", name(&node.r#ref), node.depth)).collect();
                let edges: Vec<[String; 3]> = answer
                    .edges
                    .iter()
                    .map(|edge| [name(&edge.source_ref), edge.r#type.clone(), name(&edge.target_ref)])
                    .collect();
                assert_eq!((nodes, edges), naively(&relations, &request), "{request:?}");
            }
        });
    }
}
