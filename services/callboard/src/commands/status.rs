//! `callboard status`: how much there is, how much waits, how long it waits, and what is wrong.

use crate::config::{Config, Output};
use crate::failure::Failure;
use crate::operator::{self, Operator};
use crate::output::{self, Table};
use crate::scrape;
use crate::units::{show_bytes, show_seconds};
use api::v1::ListEntitiesRequest;
use bus::{Bus, Names};
use serde_json::{Map, Value, json};
use std::io::Write;

/// Gaps told at most.
const GAPS: i64 = 100;

/// Asks the broker, and the database, a reader and its metrics where they can be reached.
///
/// # Errors
/// The broker does not answer.
pub fn run(config: &Config) -> Result<(), Failure> {
    operator::ask(config, async |operator| {
        let status = gather(operator).await?;
        let mut out = output::stdout();
        match operator.config.output {
            None | Some(Output::Table) => write_tables(&mut out, &status)?,
            Some(Output::Json) => output::write_json(&mut out, &status)?,
            Some(Output::Yaml) => output::write_yaml(&mut out, &status)?,
        }
        Ok(out.flush()?)
    })
}

/// The status as one JSON object; what could not be asked is an object with an `error`.
async fn gather(operator: &Operator) -> Result<Value, Failure> {
    let bus = operator.bus().await?;
    let or_error = |part: Result<Value, Failure>| part.unwrap_or_else(|error| json!({"error": error.to_string()}));
    Ok(json!({
        "installation": operator.config.installation(),
        "streams": streams(&bus).await,
        "consumers": consumers(&bus).await,
        "delays": delays(operator).await,
        "database": or_error(database(operator).await),
        "reader": or_error(reader(operator).await),
    }))
}

async fn streams(bus: &Bus) -> Vec<Value> {
    let names = bus.names();
    let mut streams = Vec::new();
    let all = [
        names.events_stream(),
        names.stitch_stream(),
        names.reads_stream(),
        names.entities_stream(),
        names.dead_letters_stream(),
        names.conflicts_stream(),
    ];
    for name in all {
        streams.push(match bus::stream_status(bus, &name).await {
            Ok(found) => json!({"stream": name, "messages": found.messages, "bytes": found.bytes, "lastSequence": found.last_sequence}),
            Err(error) => json!({"stream": name, "error": error.to_string()}),
        });
    }
    streams
}

async fn consumers(bus: &Bus) -> Vec<Value> {
    let names = bus.names();
    let (events, stitch, reads) = (names.events_stream(), names.stitch_stream(), names.reads_stream());
    let wanted = [
        (&events, Names::PROCESSOR),
        (&events, Names::PROCESSOR_BULK),
        (&stitch, Names::STITCHER),
        (&stitch, Names::STITCHER_BULK),
        (&reads, Names::LOCATION_READER),
    ];
    let mut consumers = Vec::new();
    for (stream, durable) in wanted {
        consumers.push(match bus::consumer_status(bus, stream, durable).await {
            Ok(found) => json!({
                "consumer": durable, "pending": found.pending, "inFlight": found.in_flight, "redelivered": found.redelivered,
                "oldestSeconds": found.oldest.map(|oldest| oldest.as_secs_f64()),
            }),
            Err(error) => json!({"consumer": durable, "error": error.to_string()}),
        });
    }
    consumers
}

/// Of the process whose metrics can be reached; with roles in several processes, one of them.
async fn delays(operator: &Operator) -> Value {
    let url = operator.http_url();
    match scrape::fetch(&url, "/metrics").await {
        Ok(page) => {
            let delays = |name: &str| json!({"p50Seconds": scrape::quantile(&page, name, 0.5), "p99Seconds": scrape::quantile(&page, name, 0.99)});
            json!({
                "from": url,
                "processing": delays("catalog_processing_queue_delay_seconds"),
                "stitching": delays("catalog_stitching_queue_delay_seconds"),
                "readerLag": scrape::value(&page, "catalog_reader_lag"),
                "readerWatermark": scrape::value(&page, "catalog_reader_watermark"),
            })
        }
        Err(error) => json!({"error": error}),
    }
}

async fn database(operator: &Operator) -> Result<Value, Failure> {
    let store = operator.needed_store().await?;
    let counts = store.counts().await?;
    let gaps = store.gaps(GAPS).await?.into_iter().map(|gap| {
        json!({
            "stream": gap.stream, "foundSecondsAgo": gap.seconds_ago, "knownSequence": gap.known_sequence,
            "foundSequence": gap.found_sequence, "lostAtMost": gap.lost_at_most,
        })
    });
    let gaps: Vec<Value> = gaps.collect();
    let repair = store.repair_state().await?;
    let repair = json!({"isRebuilding": repair.is_rebuilding, "rounds": repair.rounds, "mended": repair.mended});
    let tasks = store.task_rows().await?.into_iter().map(|task| {
        json!({"task": task.name, "host": task.holder, "runs": task.runs, "lastRunSecondsAgo": task.seconds_ago, "lastError": task.last_error})
    });
    Ok(
        json!({"entities": counts.entities, "failed": counts.failed, "outbox": counts.outbox, "readsDue": counts.reads, "removals": counts.removals, "orphans": counts.orphans, "gaps": gaps, "repair": repair, "tasks": tasks.collect::<Vec<_>>()}),
    )
}

async fn reader(operator: &Operator) -> Result<Value, Failure> {
    let request = ListEntitiesRequest { page_size: 1, ..ListEntitiesRequest::default() };
    let listed = operator.reader().await?.list_entities(request).await;
    let url = operator.grpc_url();
    Ok(match listed {
        Ok(page) => json!({"at": url, "ready": true, "entities": page.into_inner().total_size}),
        Err(status) => json!({"at": url, "ready": false, "reason": status.message()}),
    })
}

fn write_tables(out: &mut dyn Write, status: &Value) -> Result<(), Failure> {
    let items = |key: &str| status.pointer(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let rows = |key: &str, row: fn(&Value) -> Vec<String>| {
        items(key).iter().map(|item| with_error(row(item), item)).collect::<Vec<_>>()
    };
    writeln!(out, "installation {}\n", text(status, "/installation"))?;
    Table::new(&["STREAM", "MESSAGES", "BYTES", "LAST"]).write(out, &rows("/streams", stream_row))?;
    writeln!(out)?;
    Table::new(&["CONSUMER", "PENDING", "IN FLIGHT", "REDELIVERED", "OLDEST"])
        .write(out, &rows("/consumers", consumer_row))?;
    writeln!(out)?;
    if status.pointer("/database/tasks").is_some() {
        Table::new(&["TASK", "HOST", "RUNS", "LAST RUN", "ERROR"]).write(out, &rows("/database/tasks", task_row))?;
        writeln!(out)?;
    }
    let repair = repair_line(status, &items("/database/gaps"));
    for line in [delay_line(status), database_line(status), reader_line(status), dead_line(&items("/streams")), repair]
    {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn with_error(mut row: Vec<String>, item: &Value) -> Vec<String> {
    if let (Some(error), Some(last)) = (item.get("error").and_then(Value::as_str), row.last_mut()) {
        error.clone_into(last);
    }
    row
}

fn stream_row(stream: &Value) -> Vec<String> {
    let bytes = stream.get("bytes").and_then(Value::as_u64).map(show_bytes).unwrap_or_default();
    vec![text(stream, "/stream"), text(stream, "/messages"), bytes, text(stream, "/lastSequence")]
}

fn consumer_row(consumer: &Value) -> Vec<String> {
    let column = |pointer| text(consumer, pointer);
    vec![
        column("/consumer"),
        column("/pending"),
        column("/inFlight"),
        column("/redelivered"),
        seconds(consumer, "/oldestSeconds"),
    ]
}

fn task_row(task: &Value) -> Vec<String> {
    let host = match text(task, "/host") {
        host if host.is_empty() => "nobody".to_owned(),
        host => host,
    };
    vec![text(task, "/task"), host, text(task, "/runs"), seconds(task, "/lastRunSecondsAgo"), text(task, "/lastError")]
}

fn delay_line(status: &Value) -> String {
    if let Some(error) = status.pointer("/delays/error").and_then(Value::as_str) {
        return format!("queue delays    unknown: {error}");
    }
    let of = |stage: &str| {
        let at = |quantile: &str| seconds(status, &format!("/delays/{stage}/{quantile}Seconds"));
        match at("p50") {
            none if none.is_empty() => format!("{stage} nothing yet"),
            p50 => format!("{stage} p50 {p50}, p99 {}", at("p99")),
        }
    };
    format!("queue delays    {}; {}", of("processing"), of("stitching"))
}

fn database_line(status: &Value) -> String {
    match status.pointer("/database/error").and_then(Value::as_str) {
        Some(error) => format!("database        unknown: {error}"),
        None => {
            let count = |key: &str| text(status, &format!("/database/{key}"));
            format!(
                "database        {} entities, {} failed, {} outbox rows",
                count("entities"),
                count("failed"),
                count("outbox")
            )
        }
    }
}

fn reader_line(status: &Value) -> String {
    let reader = status.get("reader").and_then(Value::as_object).cloned().unwrap_or_default();
    let part = |map: &Map<String, Value>, key: &str| map.get(key).map(plain).unwrap_or_default();
    if let Some(error) = reader.get("error") {
        return format!("reader          unknown: {}", plain(error));
    }
    match reader.get("ready").and_then(Value::as_bool) {
        Some(true) => {
            let lag = text(status, "/delays/readerLag");
            let lag = if lag.is_empty() { String::new() } else { format!(", {lag} messages behind") };
            format!("reader          ready at {}, {} entities{lag}", part(&reader, "at"), part(&reader, "entities"))
        }
        _ => format!("reader          not ready at {}: {}", part(&reader, "at"), part(&reader, "reason")),
    }
}

/// What a broker has lost, and what the checker has found.
fn repair_line(status: &Value, gaps: &[Value]) -> String {
    let rebuilding = match status.pointer("/database/repair/isRebuilding").and_then(Value::as_bool) {
        Some(true) => ", publishing everything again now",
        _ => "",
    };
    let mended = text(status, "/database/repair/mended");
    let gaps = match gaps.first() {
        None => "no gap".to_owned(),
        Some(newest) => format!(
            "{} gaps (newest {GAPS} at most), the newest in {} {} ago, at most {} accepted events lost",
            gaps.len(),
            text(newest, "/stream"),
            seconds(newest, "/foundSecondsAgo"),
            text(newest, "/lostAtMost")
        ),
    };
    format!("repair          {gaps}; {mended} entities mended{rebuilding}")
}

fn dead_line(streams: &[Value]) -> String {
    let is_theirs = |stream: &&Value| text(stream, "/stream").ends_with("_DEAD_LETTERS");
    let letters = streams.iter().find(is_theirs).map(|stream| text(stream, "/messages")).unwrap_or_default();
    match letters.as_str() {
        "" | "0" => "dead letters    none".to_owned(),
        some => format!("dead letters    {some}: `callboard dead-letters` lists them"),
    }
}

fn seconds(item: &Value, pointer: &str) -> String {
    item.pointer(pointer).and_then(Value::as_f64).map(show_seconds).unwrap_or_default()
}

fn text(item: &Value, pointer: &str) -> String {
    item.pointer(pointer).map(plain).unwrap_or_default()
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number
            .as_f64()
            .filter(|number| number.fract() == 0.0)
            .map_or_else(|| number.to_string(), |whole| format!("{whole:.0}")),
        other => other.to_string(),
    }
}
