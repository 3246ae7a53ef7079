//! Plays one case: its steps in order, and what the catalog shows at each settle.

use super::case::{Case, Step};
use super::engine::{Engine, Shared, Shown};
use super::web::Web;
use crate::Error;
use bus::{Names, Record, header};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a settle may take.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// An entity that nobody has: withdrawing it changes nothing. Not the one that [`crate::view::View`] waits with, which would be answered for its own sake.
const NOBODY: &str = "component:default/nobody-has-this-one-either";
/// In whose name the runner itself publishes: refreshes, and the event behind which everything is settled.
const RUNNER: &str = "conformance";

/// What Locations may bring in by the recording's own rules.
const RECORDED_KINDS: [&str; 8] = ["API", "Component", "Domain", "Group", "Location", "Resource", "System", "User"];
/// How soon it is looked again whether something is still to be done.
const AGAIN: Duration = Duration::from_millis(50);

/// How a case went.
#[derive(Debug)]
pub(crate) struct Played {
    pub case: Case,
    /// What the catalog showed after each settle.
    pub shown: Vec<Shown>,
}

/// Plays the case of a file as an installation of this name, with its files below `directory`.
///
/// # Errors
/// [`Error`]: it could not be played to its end, for example since a step is not supported.
pub(crate) async fn play(shared: &Shared, file: &Path, installation: &str, directory: &Path) -> Result<Played, Error> {
    // Where the case's files are is not where the installation has its own.
    let root = directory.join("files");
    fs::create_dir_all(&root).map_err(Error::io("create", &root))?;
    let web = Web::serve(&root).await?;
    let case = Case::read(file, &root, &web.url)?;
    let settings = settings(&case, &root, &web.url)?;
    let engine = Engine::start(shared, installation, directory, settings).await?;
    let mut player = Player { engine, root, waiting: Vec::new(), revision: 0, published: false, stale: false };
    let mut shown = Vec::new();
    for (number, step) in case.steps.iter().enumerate() {
        match step {
            Step::Settle {} => shown.push(player.settle(&case).await?),
            step => player.step(number, step).await?,
        }
    }
    player.engine.bus.close().await;
    Ok(Played { case, shown })
}

/// The settings by which the installation is as the recording was: what may be read, and what the case says.
fn settings(case: &Case, root: &Path, url: &str) -> Result<Vec<(String, String)>, Error> {
    let rules = case.config.rules.clone().unwrap_or_else(|| json!([{ "allow": RECORDED_KINDS }]));
    let file = root.with_file_name("catalog.yaml");
    fs::write(&file, json!({ "rules": rules }).to_string()).map_err(Error::io("write", &file))?;
    let strategy = case.config.orphan_strategy.as_deref().unwrap_or("delete");
    let settings = [
        ("CALLBOARD_CATALOG_FILE", file.display().to_string()),
        ("CALLBOARD_READ_FILES", root.display().to_string()),
        ("CALLBOARD_READ_HOSTS", url.to_owned()),
        ("CALLBOARD_ORPHAN_STRATEGY", strategy.to_owned()),
        ("CALLBOARD_ORPHAN_GRACE", "0s".to_owned()),
    ];
    Ok(settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

struct Player {
    engine: Engine,
    root: PathBuf,
    /// Events that are still to be published: together, in order.
    waiting: Vec<Record>,
    /// That of the newest event.
    revision: i64,
    /// Whether anything was published yet.
    published: bool,
    /// Whether files changed that may have been read before.
    stale: bool,
}

impl Player {
    async fn step(&mut self, number: usize, step: &Step) -> Result<(), Error> {
        match step {
            Step::Upsert { provider, location_key, entity } => {
                self.add(provider, "upsert", entity, location_key.as_deref(), None)
            }
            Step::Delete { provider, entity_ref } => {
                self.add(provider, "delete", &json!({ "entityRef": entity_ref }), None, None);
            }
            Step::Snapshot { provider, entities } => {
                let id = format!("step-{number}");
                for item in entities {
                    self.add(provider, "upsert", &item.entity, item.location_key.as_deref(), Some(&id));
                }
                self.add(provider, "snapshot", &json!({ "snapshot": id, "count": entities.len() }), None, None);
            }
            Step::Files { files } => {
                self.publish().await?;
                self.write(files)?;
            }
            Step::Refresh { entity_ref: Some(entity_ref), .. } => {
                self.add(RUNNER, "refresh", &json!({ "entityRef": entity_ref }), None, None);
            }
            Step::Refresh { provider, keys, .. } => {
                let provider = provider.as_deref().unwrap_or(RUNNER);
                self.add(provider, "refresh", &json!({ "keys": keys.clone().unwrap_or_default() }), None, None);
            }
            Step::RemoveUid { entity_ref } => {
                self.add(Names::OPERATOR, "remove", &json!({ "entityRef": entity_ref }), None, None);
            }
            Step::Settle {} => {}
        }
        Ok(())
    }

    fn add(&mut self, provider: &str, operation: &str, payload: &Value, key: Option<&str>, snapshot: Option<&str>) {
        let subject = self.engine.bus.names().event(provider, operation);
        let mut record = Record::new(subject, payload.to_string().into_bytes());
        if let Some(key) = key {
            record = record.with_header(header::LOCATION_KEY, key);
        }
        if let Some(snapshot) = snapshot {
            record = record.with_header(header::SNAPSHOT, snapshot);
        }
        self.waiting.push(record);
    }

    async fn publish(&mut self) -> Result<(), Error> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let sequences = bus::publish_all(&self.engine.bus, &std::mem::take(&mut self.waiting)).await?;
        self.published = true;
        self.revision = sequences.last().map_or(self.revision, |last| i64::try_from(*last).unwrap_or(i64::MAX));
        Ok(())
    }

    fn write(&mut self, files: &BTreeMap<String, Option<String>>) -> Result<(), Error> {
        self.stale |= self.published;
        for (name, text) in files {
            let path = self.root.join(name);
            match text {
                Some(text) => {
                    let parent = path.parent().unwrap_or(&self.root);
                    fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
                    fs::write(&path, text).map_err(Error::io("write", &path))?;
                }
                None => fs::remove_file(&path).map_err(Error::io("remove", &path))?,
            }
        }
        Ok(())
    }

    /// Waits until nothing changes any more. Files that changed since they may have been read are read anew first.
    async fn settle(&mut self, case: &Case) -> Result<Shown, Error> {
        self.settled().await?;
        if std::mem::take(&mut self.stale) {
            for entity_ref in case.refs() {
                self.add(RUNNER, "refresh", &json!({ "entityRef": entity_ref }), None, None);
            }
            self.settled().await?;
        }
        if case.reads_outside() {
            self.nothing_due(case).await?;
            // What came of it stands in the stream before the next watermark, which the reader is asked for.
            self.add(RUNNER, "delete", &json!({ "entityRef": NOBODY }), None, None);
            self.settled().await?;
        }
        self.engine.shown().await
    }

    /// Publishes what waits, and waits until everything up to it is in the catalog.
    async fn settled(&mut self) -> Result<(), Error> {
        self.publish().await?;
        self.engine.view.settled(self.revision, SETTLE_LIMIT).await
    }

    /// Waits until nothing is to be read, removed or stitched: the installation itself says so.
    async fn nothing_due(&self, case: &Case) -> Result<(), Error> {
        let deadline = Instant::now() + SETTLE_LIMIT;
        let keeps = case.config.orphan_strategy.as_deref() == Some("keep");
        loop {
            let status: Value = serde_json::from_str(&self.engine.ask(&["status", "--output", "json"]).await?)
                .map_err(|error| Error::Usage(format!("callboard status: no JSON: {error}")))?;
            let count = |name: &str| status["database"][name].as_f64();
            let orphans = if keeps { Some(0.0) } else { count("orphans") };
            // The watermark does not speak of what reads gave; the outbox does, until it is stitched.
            if [count("readsDue"), count("removals"), count("outbox"), orphans] == [Some(0.0); 4] {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::TimedOut {
                    what: "nothing to be read, removed or stitched".to_owned(),
                    seconds: SETTLE_LIMIT.as_secs(),
                    found: status["database"].to_string(),
                });
            }
            sleep(AGAIN).await;
        }
    }
}
