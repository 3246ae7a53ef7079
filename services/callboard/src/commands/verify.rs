//! `callboard verify` and `callboard rebuild`: whether truth, stream and reader say the same, and publishing everything again.

use crate::cli::{RebuildArgs, VerifyArgs};
use crate::config::{Config, Output};
use crate::failure::{Failure, tell};
use crate::operator::{self, Operator};
use crate::output::{self, Table};
use api::v1::StreamEntitiesRequest;
use bus::Bus;
use catalog::hash::map_hash;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::{Duration, Instant};
use store::Store;

/// Entities read from the database at a time.
const PAGE: i64 = 1000;
/// How often what differs is looked at again.
const LOOKS: usize = 3;
/// How long a rebuild is waited for.
const REBUILD_LIMIT: Duration = Duration::from_secs(600);

/// Hashes by ref: of what is there. About a hundred bytes an entity.
type Hashes = BTreeMap<String, String>;

/// What each of the three says.
#[derive(Default)]
struct Looked {
    /// What is to be published.
    truth: Hashes,
    /// What is to be seen.
    shown: Hashes,
    /// Refs of which the truth says nothing that could be published: what is shown stays.
    failed: BTreeSet<String>,
    stream: Hashes,
    reader: Option<Hashes>,
}

/// Compares, and tells what differs.
///
/// # Errors
/// [`Failure::Told`] if anything differs; something does not answer.
pub fn run(config: &Config, args: &VerifyArgs) -> Result<(), Failure> {
    operator::ask(config, async |operator| {
        let (bus, store) = (operator.bus().await?, operator.needed_store().await?);
        let mut looked = look(operator, &bus, &store, args).await?;
        let mut differing = looked.differing();
        for _ in 0..LOOKS {
            if differing.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            let again = look(operator, &bus, &store, args).await?;
            let now = again.differing();
            // Only what differs each time, in the same way or another.
            differing = now.intersection(&differing).cloned().collect();
            looked = again;
        }
        show(operator, &looked, &differing)?;
        let readers = if looked.reader.is_some() { " and the reader" } else { "" };
        tell(&format!(
            "{} entities in the database, the stream{readers}; {} differ",
            looked.shown.len(),
            differing.len()
        ));
        if differing.is_empty() { Ok(()) } else { Err(Failure::Told) }
    })
}

async fn look(operator: &Operator, bus: &Bus, store: &Store, args: &VerifyArgs) -> Result<Looked, Failure> {
    let mut looked = truth(bus, store).await?;
    let take = |entity_ref, newest: bus::NewestEntity| {
        if let Some(hash) = newest.hash {
            looked.stream.insert(entity_ref, hash);
        }
    };
    bus::newest_entities(bus, take).await?;
    if !args.no_reader {
        looked.reader = Some(reader(operator).await?);
    }
    Ok(looked)
}

async fn truth(bus: &Bus, store: &Store) -> Result<Looked, Failure> {
    let (mut looked, mut after) = (Looked::default(), 0);
    loop {
        let page = store.published_after(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(looked) };
        after = last.entity_id;
        let ids: Vec<i64> = page.iter().map(|one| one.entity_id).collect();
        let expected = stitcher::expected(store, bus.names().installation(), &ids).await?;
        looked.failed.extend(page.into_iter().map(|one| one.entity_ref));
        for one in expected {
            looked.failed.remove(&one.entity_ref);
            looked.shown.extend(one.shown.map(|hash| (one.entity_ref.clone(), hash)));
            looked.truth.extend(one.hash.map(|hash| (one.entity_ref, hash)));
        }
    }
}

async fn reader(operator: &Operator) -> Result<Hashes, Failure> {
    let mut hashes = Hashes::new();
    let request = StreamEntitiesRequest::default();
    let mut chunks = operator
        .reader()
        .await?
        .stream_entities(request)
        .await
        .map_err(|status| operator::refused(&status))?
        .into_inner();
    while let Some(chunk) = chunks.message().await.map_err(|status| operator::refused(&status))? {
        for entity in &chunk.entities {
            hashes.insert(entity.r#ref.clone(), map_hash(&api::entity_to_json(entity)));
        }
    }
    Ok(hashes)
}

impl Looked {
    fn differing(&self) -> BTreeSet<String> {
        let readers = self.reader.iter().flat_map(|reader| reader.keys());
        let refs: BTreeSet<&String> = self.truth.keys().chain(self.stream.keys()).chain(readers).collect();
        // Of one that has failed what was shown stays.
        let differs = |entity_ref: &&&String| {
            let of_reader = |reader: &Hashes| reader.get(**entity_ref) != self.shown.get(**entity_ref);
            !self.failed.contains(**entity_ref)
                && (self.stream.get(**entity_ref) != self.truth.get(**entity_ref)
                    || self.reader.as_ref().is_some_and(of_reader))
        };
        refs.iter().filter(differs).map(|entity_ref| (*entity_ref).clone()).collect()
    }
}

fn show(operator: &Operator, looked: &Looked, differing: &BTreeSet<String>) -> Result<(), Failure> {
    let of = |hashes: &Hashes, entity_ref: &String| hashes.get(entity_ref).cloned();
    let rows: Vec<Value> = differing
        .iter()
        .map(|entity_ref| {
            let reader = looked.reader.as_ref().and_then(|reader| of(reader, entity_ref));
            json!({
                "ref": entity_ref,
                "database": of(&looked.truth, entity_ref),
                "stream": of(&looked.stream, entity_ref),
                "database_content": of(&looked.shown, entity_ref),
                "reader_content": reader,
            })
        })
        .collect();
    let mut out = output::stdout();
    match operator.config.output {
        Some(Output::Json) => rows.iter().try_for_each(|row| output::write_json(&mut out, row))?,
        Some(Output::Yaml) => output::write_yaml(&mut out, &rows.into_iter().collect())?,
        _ if rows.is_empty() => {}
        _ => {
            let text =
                |row: &Value, key: &str| row[key].as_str().map_or("-", |text| &text[..text.len().min(16)]).to_owned();
            let cells = |row: &Value| {
                vec![
                    text(row, "database"),
                    text(row, "stream"),
                    text(row, "database_content"),
                    text(row, "reader_content"),
                    row["ref"].as_str().unwrap_or_default().to_owned(),
                ]
            };
            Table::new(&["DATABASE", "STREAM", "ITS CONTENT", "READER", "REF"])
                .write(&mut out, &rows.iter().map(cells).collect::<Vec<_>>())?;
        }
    }
    Ok(out.flush()?)
}

/// Has everything published again.
///
/// # Errors
/// The database does not answer, or the rebuild is not done in time.
pub fn rebuild(config: &Config, args: &RebuildArgs) -> Result<(), Failure> {
    operator::ask(config, async |operator| {
        let store = operator.needed_store().await?;
        store.begin_rebuild().await?;
        tell("every entity is published again; `callboard status` tells when it is done");
        let started = Instant::now();
        while args.wait && !is_done(&store).await? {
            if started.elapsed() > REBUILD_LIMIT {
                return Err(Failure::runtime("not done within ten minutes; it goes on"));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    })
}

async fn is_done(store: &Store) -> Result<bool, Failure> {
    Ok(!store.repair_state().await?.is_rebuilding && store.counts().await?.outbox == 0)
}
