//! Backstage's own answers to filters, predicates, texts, orders, pages and facets over one recorded catalog; skipped where the recording is not there.

use std::{collections::BTreeMap, fs::File, path::PathBuf};

use api::v1;
use bus::EntityMessage;
use prost_types::Struct;
use serde_json::{Map, Value, json};
use tonic::Code;

use super::{Served, entity};

/// Answers in which Callboard differs on purpose, and why.
const DIFFERENT: [(&str, &str); 2] = [
    ("order-008", "an entity is listed once, at its smallest value, not once for each of its tags"),
    ("walk-011", "the same"),
];

/// The recording, where it is there.
fn recorded(name: &str) -> Option<Value> {
    let named = std::env::var_os("CALLBOARD_CONFORMANCE").map(PathBuf::from);
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance");
    let file = File::open(named.unwrap_or_else(beside).join("queries").join(name)).ok()?;
    Some(serde_json::from_reader(flate2::read::GzDecoder::new(file)).expect("JSON"))
}

fn messages(entities: &Map<String, Value>) -> Vec<EntityMessage> {
    let message = |(place, (entity_ref, body)): (usize, (&String, &Value))| {
        let mut message = entity(entity_ref, 1, None);
        let mut body = body.clone();
        body["metadata"]["uid"] = json!(format!("uid-{place}"));
        message.body = Some(body.to_string().into());
        message
    };
    entities.iter().enumerate().map(message).collect()
}

/// A request's parameters: of its path, or of its body.
#[derive(Debug)]
struct Ask {
    parameters: Vec<(String, String)>,
    body: Value,
    /// Of `/entities`, which has no page size of its own.
    is_list: bool,
}

impl Ask {
    fn of(query: &Value) -> Ask {
        let path = query["path"].as_str().unwrap_or_default();
        let parameters = url::form_urlencoded::parse(path.split_once('?').unwrap_or_default().1.as_bytes());
        Ask {
            parameters: parameters.into_owned().collect(),
            body: query["body"].clone(),
            is_list: path.split('?').next() == Some("/entities"),
        }
    }

    fn all(&self, name: &str) -> Vec<String> {
        let of_name = self.parameters.iter().filter(|(key, _)| key == name);
        of_name.map(|(_, value)| value.clone()).collect()
    }

    fn one(&self, name: &str) -> Option<String> {
        self.all(name).into_iter().next()
    }

    fn query(&self) -> Option<Struct> {
        let query = self.body.get("query")?.as_object()?;
        Some(Struct { fields: query.iter().map(|(key, value)| (key.clone(), to_message(value))).collect() })
    }

    /// The first order field, as Backstage's by-query takes it.
    fn order(&self) -> Vec<v1::Order> {
        let of_path = self.one("orderField").map(|field| {
            let (field, direction) = field.split_once(',').unwrap_or((&field, "asc"));
            v1::Order { field: field.to_owned(), descending: direction == "desc" }
        });
        let of_body = || {
            let first = self.body["orderBy"].get(0)?;
            Some(v1::Order { field: first["field"].as_str()?.to_owned(), descending: first["order"] == "desc" })
        };
        of_path.or_else(of_body).into_iter().collect()
    }

    fn limit(&self) -> i64 {
        let of_path = self.one("limit").and_then(|limit| limit.parse().ok());
        let of_body = || self.body["limit"].as_f64().map(|limit| limit as i64);
        of_path.or_else(of_body).unwrap_or(if self.is_list { 1000 } else { 200 })
    }

    /// What the gRPC call asks, if it can say it.
    fn list(&self) -> Option<v1::ListEntitiesRequest> {
        let says_more = |name: &str| self.one(name).is_some() || self.body.get(name).is_some();
        if ["offset", "cursor", "after"].into_iter().any(says_more) || self.limit() < 0 {
            return None;
        }
        let order_by = self.order();
        let text =
            self.one("fullTextFilterTerm").or_else(|| Some(self.body["fullTextFilter"]["term"].as_str()?.into()));
        let fields = match self.one("fullTextFilterFields") {
            Some(fields) => fields.split(',').map(str::to_owned).collect(),
            None => {
                let of_body = self.body["fullTextFilter"]["fields"].as_array().cloned().unwrap_or_default();
                of_body.iter().filter_map(|field| field.as_str().map(str::to_owned)).collect::<Vec<_>>()
            }
        };
        // Backstage's default: the field that is ordered by, or the uid.
        let by_default = || order_by.first().map_or_else(|| "metadata.uid".to_owned(), |order| order.field.clone());
        Some(v1::ListEntitiesRequest {
            filter: self.all("filter"),
            query: self.query(),
            full_text_fields: match &text {
                Some(_) if fields.is_empty() => vec![by_default()],
                _ => fields,
            },
            full_text: text.unwrap_or_default(),
            order_by,
            page_size: self.limit().min(1000) as i32,
            ..Default::default()
        })
    }
}

fn to_message(value: &Value) -> prost_types::Value {
    use prost_types::{ListValue, value::Kind};
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(*flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().expect("a double")),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(to_message).collect() }),
        Value::Object(map) => Kind::StructValue(Struct {
            fields: map.iter().map(|(key, value)| (key.clone(), to_message(value))).collect(),
        }),
    };
    prost_types::Value { kind: Some(kind) }
}

/// Whether an answer holds what was recorded of it: a whole entity by its ref, or those fields that were asked for.
fn holds(entity: &v1::Entity, expected: &Value) -> bool {
    match expected.get("$entity") {
        Some(entity_ref) => *entity_ref == json!(entity.r#ref),
        None => within(expected, &Value::Object(api::entity_to_json(entity))),
    }
}

fn within(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| within(part, whole)))
        }
        (Value::String(any), _) if any == "*" => true,
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        _ => part == whole,
    }
}

fn agree(found: &[v1::Entity], expected: &[Value], compare: &str) -> bool {
    let mut left: Vec<&v1::Entity> = found.iter().collect();
    found.len() == expected.len()
        && match compare {
            "exact" => found.iter().zip(expected).all(|(entity, expected)| holds(entity, expected)),
            "any-order" => expected.iter().all(|expected| {
                let place = left.iter().position(|entity| holds(entity, expected));
                place.is_some_and(|place| !left.swap_remove(place).r#ref.is_empty())
            }),
            _ => true,
        }
}

/// How a query went: not asked, because it says what the contract does not; or whether the answer agreed.
type Outcome = Option<Result<(), String>>;

fn told(agrees: bool, what: impl FnOnce() -> String) -> Outcome {
    Some(if agrees { Ok(()) } else { Err(what()) })
}

/// Refusals of the filter or the query itself are refusals here, too; of other parameters, the contract has no word.
fn is_about_the_query(expect: &Value) -> bool {
    let message = expect["body"]["error"]["message"].as_str().unwrap_or_default();
    ["Invalid filter", "Invalid query", "The $contains"].iter().any(|begin| message.starts_with(begin))
}

async fn by_query(served: &Served, query: &Value) -> Outcome {
    let (ask, expect) = (Ask::of(query), &query["expect"]);
    let request = ask.list()?;
    let answer = served.client().max_decoding_message_size(64 << 20).list_entities(request).await;
    if expect["status"] != 200 {
        let refused = answer.as_ref().is_err_and(|status| status.code() == Code::InvalidArgument);
        return is_about_the_query(expect).then(|| told(refused, || format!("{answer:?}")))?;
    }
    let answer = answer.map(tonic::Response::into_inner);
    let expected = &expect["body"];
    let items = expected["items"].as_array().or(expected.as_array())?;
    let agrees = answer.as_ref().is_ok_and(|answer| {
        let total = expected.get("totalItems").is_none_or(|total| {
            ask.one("totalItems").as_deref() == Some("exclude")
                || ask.body["totalItems"] == "exclude"
                || *total == json!(answer.total_size)
        });
        let compare = match ask.order().is_empty() && query["compare"] == "exact" && expected.get("items").is_some() {
            // Without an order Backstage's is that of the uids.
            true => "any-order",
            false => query["compare"].as_str().unwrap_or_default(),
        };
        total && (ask.limit() == 0 || agree(&answer.entities, items, compare))
    });
    told(agrees, || {
        format!(
            "expected {} of {}, found {:?}",
            items.len(),
            expected["totalItems"],
            answer.map(|answer| (answer.entities.len(), answer.total_size))
        )
    })
}

async fn facets(served: &Served, query: &Value) -> Outcome {
    let (ask, expect) = (Ask::of(query), &query["expect"]);
    let of_body = ask.body["facets"].as_array().cloned().unwrap_or_default();
    let mut names: Vec<String> = of_body.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
    names.extend(ask.all("facet"));
    if names.iter().any(|name| name == "metadata.uid") || ask.body.get("query").is_some_and(|query| !query.is_object())
    {
        return None;
    }
    let request = v1::GetFacetsRequest { facets: names, filter: ask.all("filter"), query: ask.query() };
    let answer = served.client().get_facets(request).await;
    if expect["status"] != 200 {
        return is_about_the_query(expect).then(|| told(answer.is_err(), || format!("{answer:?}")))?;
    }
    let counts = |facet: &v1::Facet| {
        let values = facet.values.iter().map(|count| json!({"value": count.value, "count": count.count}));
        (facet.facet.clone(), values.collect::<Value>())
    };
    let found: BTreeMap<String, Value> = answer.as_ref().ok()?.get_ref().facets.iter().map(counts).collect();
    let expected: BTreeMap<String, Value> = serde_json::from_value(expect["body"]["facets"].clone()).expect("facets");
    told(found == expected, || format!("expected {expected:?}, found {found:?}"))
}

async fn by_refs(served: &Served, query: &Value) -> Outcome {
    let (ask, expect) = (Ask::of(query), &query["expect"]);
    let refs = ask.body["entityRefs"].as_array()?;
    let refs: Vec<String> = refs.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect();
    // Backstage looks refs up as they are written; here they are read, so that only whole ones in lower case compare.
    let is_whole = |text: &String| text.contains(':') && text.contains('/') && *text == text.to_lowercase();
    if expect["status"] != 200 || !refs.iter().all(is_whole) {
        return None;
    }
    let request =
        v1::BatchGetEntitiesRequest { refs, filter: ask.all("filter"), query: ask.query(), ..Default::default() };
    let found = served.client().batch_get_entities(request).await.expect("an answer").into_inner().results;
    let expected = expect["body"]["items"].as_array()?;
    let agrees = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| match &found.entity {
            None => expected.is_null(),
            Some(entity) => holds(entity, expected),
        });
    told(agrees, || format!("expected {expected:?}, found {found:?}"))
}

/// A walk from the first page to the last.
async fn walk(served: &Served, query: &Value) -> Outcome {
    let walk = &query["walk"];
    if walk["method"] == "AFTER" {
        return None;
    }
    let parameters = walk["query"].as_object().into_iter().flatten();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let ask = Ask {
        parameters: parameters.map(|(key, value)| (key.clone(), text(value))).collect(),
        body: walk["body"].clone(),
        is_list: false,
    };
    let mut request = ask.list()?;
    let mut pages = Vec::new();
    loop {
        let page = served.client().list_entities(request.clone()).await.expect("a page").into_inner();
        pages.push(page.entities.iter().map(|entity| entity.r#ref.clone()).collect::<Vec<_>>());
        match page.next_page_token.as_str() {
            "" => break,
            token => request.page_token = token.to_owned(),
        }
    }
    let expected = query["expect"]["pages"].as_array()?.iter();
    let mut expected: Vec<Vec<String>> =
        expected.map(|page| serde_json::from_value(page["items"].clone()).expect("refs")).collect();
    if query["compare"] != "exact" {
        let sorted = |pages: &[Vec<String>]| {
            let mut all = pages.concat();
            all.sort();
            vec![all]
        };
        (pages, expected) = (sorted(&pages), sorted(&expected));
    }
    told(pages == expected, || format!("expected {expected:?}, found {pages:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_as_recorded() {
    let (Some(entities), Some(queries)) = (recorded("entities.json.gz"), recorded("queries.json.gz")) else {
        println!("skipped: no conformance corpus; name its directory in CALLBOARD_CONFORMANCE");
        return;
    };
    let served = Served::with(messages(entities.as_object().expect("an object"))).await;
    let (mut passed, mut skipped, mut failed) = (0, Vec::new(), Vec::new());
    for query in queries.as_array().expect("a list") {
        let id = query["id"].as_str().expect("a text");
        if DIFFERENT.iter().any(|(different, _)| *different == id) {
            continue;
        }
        let outcome = match query["area"].as_str().expect("a text") {
            "walk" => walk(&served, query).await,
            "facets" => facets(&served, query).await,
            "by-refs" => by_refs(&served, query).await,
            // By uid in Backstage, or by several orders of which only the first is told here.
            "list"
                if query["path"].as_str().is_some_and(|path| path.contains("order=") || path.contains("limit=0")) =>
            {
                None
            }
            "filter" | "predicate" | "order" | "text" | "page" | "list" => by_query(&served, query).await,
            _ => continue,
        };
        match outcome {
            None => skipped.push(id),
            Some(Ok(())) => passed += 1,
            Some(Err(reason)) => failed.push(format!("{id}: {reason}")),
        }
    }
    println!("{passed} agree, {} cannot be asked here: {}", skipped.len(), skipped.join(" "));
    assert!(failed.is_empty(), "{} of them differ:\n{}", failed.len(), failed.join("\n"));
    assert!(passed > 200, "only {passed} queries were asked");
}
