//! The index against the naive reading of the same entities: the same answer for every operator, negation, text, order, page and facet,
//! while entities come, change and go.

use std::collections::BTreeMap;

use catalog::{predicate::Predicate, search::SearchRow};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::entity;
use crate::{
    index::{Cursor, Dictionary, Facet, OrderBy, Query, TextQuery},
    memory::{Memory, Place, read},
    snapshot,
};

/// Documents of a segment, so that a few entities fill several.
const SEGMENT: usize = 5;
const KEYS: [&str; 13] = [
    "metadata.uid",
    "kind",
    "spec.a",
    "spec.b",
    "spec.list",
    "spec.list.x",
    "spec.list.true",
    "spec.flag",
    "spec.null",
    "relations.ownedby",
    "metadata.name",
    "metadata.namespace",
    "nothing",
];
const VALUES: [&str; 17] = [
    "",
    "x",
    "X",
    "xy",
    "yx z",
    "true",
    "TRUE",
    "1",
    "Ä-x",
    "%",
    "a_x",
    "component",
    "group:default/x",
    "default",
    "4711",
    "x-4712",
    "v4711",
];

/// What happens to one of a few entities: it is there with this spec and these relations, or gone.
#[derive(Clone, Debug)]
struct Step {
    of: u8,
    spec: Option<Value>,
    relations: Vec<(&'static str, &'static str)>,
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => prop::sample::select(&VALUES).prop_map(Value::from),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => (0..3).prop_map(Value::from),
        1 => Just(Value::from("l".repeat(201))),
    ]
}

fn spec() -> impl Strategy<Value = Value> {
    let list = prop::collection::vec(value(), 0..4);
    let optional = || prop::option::of(value());
    (optional(), optional(), list, optional(), any::<bool>()).prop_map(|(a, b, list, flag, has_null)| {
        let mut spec = json!({"list": list});
        for (key, value) in [("a", a), ("b", b), ("flag", flag), ("null", has_null.then_some(Value::Null))] {
            if let Some(value) = value {
                spec[key] = value;
            }
        }
        spec
    })
}

fn step() -> impl Strategy<Value = Step> {
    let relation = (
        prop::sample::select(&["ownedBy", "partOf"]),
        prop::sample::select(&["group:default/x", "group:default/y", "true"]),
    );
    (0..12_u8, prop::option::weighted(0.8, spec()), prop::collection::vec(relation, 0..3)).prop_map(
        |(of, spec, mut relations)| {
            relations.sort_unstable();
            relations.dedup();
            Step { of, spec, relations }
        },
    )
}

fn predicate() -> impl Strategy<Value = Predicate> {
    let key = || prop::sample::select(&KEYS).prop_map(str::to_owned);
    let lower = || prop::sample::select(&VALUES).prop_map(str::to_lowercase);
    let leaf = prop_oneof![
        key().prop_map(|key| Predicate::Exists { key }),
        (key(), prop::collection::vec(lower(), 0..3)).prop_map(|(key, values)| Predicate::In { key, values }),
        (key(), lower()).prop_map(|(key, prefix)| Predicate::Prefix { key, prefix }),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Predicate::All),
            prop::collection::vec(inner.clone(), 0..3).prop_map(Predicate::Any),
            inner.prop_map(|inner| Predicate::Not(Box::new(inner))),
        ]
    })
}

fn text() -> impl Strategy<Value = Option<TextQuery>> {
    let fields = prop::collection::vec(prop::sample::select(&KEYS).prop_map(str::to_owned), 0..3);
    let term = prop::sample::select(&[
        "x", "Ä", "y", "x z", "-", "%", "_x", "default/", "tru", "e1", "47", "471", "x-47", "v47", "nowhere",
    ]);
    prop::option::weighted(
        0.4,
        (term, fields).prop_map(|(term, fields)| TextQuery::new(term, &fields).expect("a search")),
    )
}

#[derive(Clone, Debug)]
struct Ask {
    query: Query,
    order: Vec<OrderBy>,
    size: usize,
    facet: &'static str,
}

fn ask() -> impl Strategy<Value = Ask> {
    let by = (prop::sample::select(&KEYS), any::<bool>())
        .prop_map(|(field, descending)| OrderBy { field: field.to_owned(), descending });
    let order = prop::collection::vec(by, 0..3);
    (predicate(), text(), order, 1..6_usize, prop::sample::select(&KEYS))
        .prop_map(|(predicate, text, order, size, facet)| Ask { query: Query { predicate, text }, order, size, facet })
}

type Rows = BTreeMap<String, Vec<SearchRow>>;

fn naive_matches(query: &Query, rows: &[SearchRow]) -> bool {
    let holds = |text: &TextQuery| {
        // Without fields, what names other entities and what is only `true` is not searched.
        let is_searched = |row: &&SearchRow| match text.fields().is_empty() {
            true => {
                !row.key.starts_with("relations.")
                    && row.key != "metadata.uid"
                    && row.original.as_deref() != Some("true")
            }
            false => text.fields().contains(&row.key),
        };
        rows.iter().filter(is_searched).filter_map(|row| row.value.as_deref()).any(|value| text.matches(value))
    };
    query.predicate.matches(rows) && query.text.as_ref().is_none_or(holds)
}

fn naive_cursor(entity_ref: &str, rows: &[SearchRow], order: &[OrderBy]) -> Cursor {
    let value = |by: &OrderBy| {
        let values = rows.iter().filter(|row| row.key == by.field).filter_map(|row| row.value.clone());
        if by.descending { values.max() } else { values.min() }
    };
    Cursor { values: order.iter().map(value).collect(), entity_ref: entity_ref.to_owned() }
}

fn naive_list(ask: &Ask, rows: &Rows) -> Vec<String> {
    let matching = rows.iter().filter(|(_, rows)| naive_matches(&ask.query, rows));
    let mut listed: Vec<Cursor> = matching.map(|(of, rows)| naive_cursor(of, rows, &ask.order)).collect();
    listed.sort_by(|one, other| one.compare(other, &ask.order));
    listed.into_iter().map(|cursor| cursor.entity_ref).collect()
}

fn naive_facet(ask: &Ask, rows: &Rows) -> Vec<(Box<str>, u64)> {
    let mut counts: BTreeMap<Box<str>, u64> = BTreeMap::new();
    for rows in rows.values().filter(|rows| naive_matches(&ask.query, rows)) {
        for row in rows.iter().filter(|row| row.key == ask.facet) {
            if let Some(value) = &row.original {
                *counts.entry(value.as_str().into()).or_default() += 1;
            }
        }
    }
    counts.into_iter().collect()
}

/// Every page of a walk; each counts the same.
fn walk(memory: &Memory, ask: &Ask) -> (Vec<String>, usize) {
    let (mut listed, mut after, mut matches) = (Vec::new(), None, None);
    loop {
        let (mut total, mut page) = (0, Vec::new());
        for segment in memory.segments() {
            total += read(&segment).add_page(&mut page, &ask.query, &ask.order, after.as_ref(), ask.size);
        }
        assert_eq!(*matches.get_or_insert(total), total);
        listed.extend(page.iter().map(|placed| placed.cursor.entity_ref.clone()));
        match page.pop() {
            Some(last) => after = Some(last.cursor),
            None => return (listed, total),
        }
    }
}

fn stream(memory: &Memory, ask: &Ask) -> Vec<String> {
    let (mut listed, mut after) = (Vec::new(), String::new());
    loop {
        let (found, next) = memory.matching_after(&ask.query, &after, ask.size);
        listed.extend(found.iter().map(|stored| stored.entity_ref().to_owned()));
        match next {
            Some(next) => after = next,
            None => return listed,
        }
    }
}

/// What a walk in the order in which entities are held sees, sorted.
fn held(memory: &Memory, ask: &Ask) -> Vec<String> {
    let (mut seen, mut from) = (Vec::new(), Some(Place::default()));
    while let Some(place) = from {
        let (found, next) = memory.matching_from(&ask.query, place, ask.size);
        seen.extend(found.iter().map(|(_, stored)| stored.entity_ref().to_owned()));
        from = next;
    }
    seen.sort_unstable();
    seen
}

fn check(memory: &Memory, rows: &Rows, ask: &Ask) {
    let expected = naive_list(ask, rows);
    assert_eq!(walk(memory, ask), (expected.clone(), expected.len()), "{ask:?}");
    let by_ref: Vec<String> =
        rows.iter().filter(|(_, rows)| naive_matches(&ask.query, rows)).map(|(of, _)| of.clone()).collect();
    assert_eq!(stream(memory, ask), by_ref, "{ask:?}");
    assert_eq!(held(memory, ask), by_ref, "{ask:?}");
    for of in rows.keys() {
        assert_eq!(memory.matching(of, &ask.query).is_some(), by_ref.contains(of), "{of} {ask:?}");
    }
    let mut facet = Facet::default();
    for segment in memory.segments() {
        let segment = read(&segment);
        let docs = (!ask.query.is_everything()).then(|| segment.matching(&ask.query));
        facet.add(&segment, ask.facet, docs.as_deref());
    }
    assert_eq!(facet.into_counts(), naive_facet(ask, rows), "{ask:?}");
}

fn apply(memory: &Memory, rows: &mut Rows, step: &Step, version: i64) {
    let kind = ["component", "api"][usize::from(step.of) % 2];
    let entity_ref = format!("{kind}:default/e{}", step.of);
    let mut message = entity(&entity_ref, version, step.spec.clone());
    if let Some(body) = &message.body {
        let mut body: Value = serde_json::from_slice(body).expect("JSON");
        let relations = step.relations.iter().map(|(kind, target)| json!({"type": kind, "targetRef": target}));
        body["relations"] = relations.collect();
        body["kind"] = json!(["Component", "API"][usize::from(step.of) % 2]);
        rows.insert(entity_ref, catalog::search::search_rows(body.as_object().expect("an object")));
        message.body = Some(body.to_string().into());
    } else {
        rows.remove(&entity_ref);
    }
    memory.apply(message);
    for (of, expected) in &*rows {
        let held = memory.by_ref(of).expect("it is there").search_rows();
        // The order of keys is lost in the message, and with it which of two spellings comes first: neither is looked at here.
        let values = |rows: &[SearchRow]| {
            let mut values: Vec<_> = rows.iter().map(|row| (row.key.clone(), row.value.clone())).collect();
            values.sort();
            values
        };
        assert_eq!(values(&held), values(expected));
    }
}

/// The same entities as a reader has them that begins with a snapshot.
fn restored(memory: &Memory) -> Memory {
    let after = Memory::with_segments_of(SEGMENT);
    for segment in memory.segments() {
        let mut dictionary = Dictionary::default();
        let all = read(&segment).all().into_iter();
        let entities = all.map(|stored| (stored.clone(), dictionary.number(&stored.flat_rows()))).collect();
        let mut content = Vec::new();
        dictionary.save(&mut content);
        let dictionary = Dictionary::restore(&mut snapshot::Cursor(&content)).expect("it is whole");
        after.restore(dictionary, entities);
    }
    after
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn answers_as_the_naive_reading(
        rounds in prop::collection::vec(
            (prop::collection::vec(step(), 1..8), prop::collection::vec(ask(), 1..4), prop::bool::weighted(0.2)),
            1..8,
        ),
    ) {
        let mut memory = Memory::with_segments_of(SEGMENT);
        let (mut rows, mut version, mut asked) = (Rows::new(), 0, Vec::new());
        for (steps, asks, restarts) in &rounds {
            if *restarts {
                memory = restored(&memory);
            }
            for step in steps {
                version += 1;
                apply(&memory, &mut rows, step, version);
            }
            // Earlier questions again: their views were built before these steps.
            asked.extend(asks);
            for ask in &asked {
                check(&memory, &rows, ask);
            }
        }
    }
}

/// A walk that goes on while entities come, go and move: what stood still is seen exactly once.
#[test]
fn a_walk_sees_what_stands_still_once() {
    let memory = Memory::with_segments_of(SEGMENT);
    let put = |name: String, version, a: Value| {
        memory.apply(entity(&format!("component:default/{name}"), version, Some(json!({"a": a}))));
    };
    for place in 0..40 {
        put(format!("e{place:02}"), 1, json!(format!("v{}", place % 7)));
    }
    let order = [OrderBy { field: "spec.a".into(), descending: true }];
    let (mut seen, mut after, mut round) = (Vec::new(), None, 0);
    loop {
        let mut page = Vec::new();
        for segment in memory.segments() {
            read(&segment).add_page(&mut page, &Query::default(), &order, after.as_ref(), 3);
        }
        let Some(last) = page.last() else { break };
        seen.extend(page.iter().map(|placed| placed.stored.entity_ref().to_owned()));
        after = Some(last.cursor.clone());
        round += 1;
        // The entity that the cursor comes from goes or moves; others come on both sides.
        match round % 2 {
            0 => drop(memory.apply(entity(last.stored.entity_ref(), 100, None))),
            _ => drop(memory.apply(entity(last.stored.entity_ref(), 100, Some(json!({"a": "v9"}))))),
        }
        put(format!("n{round}"), 1, json!(format!("v{}", round % 9)));
    }
    for place in 0..40 {
        let of = format!("component:default/e{place:02}");
        assert_eq!(seen.iter().filter(|seen| **seen == of).count(), 1, "{of}");
    }
}
