//! The installation of one case: a `callboard up` of its own on servers that all cases share, and what can be seen of its catalog.

use crate::process::log_end;
use crate::view::View;
use crate::{Error, signal};
use bus::{Bus, StoredDeadLetter};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long an installation may take until it serves.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a question to the `callboard` program may take.
const ASK_LIMIT: Duration = Duration::from_secs(20);
/// Dead letters that are looked at.
const MAX_LETTERS: usize = 1000;

/// What the installations of all cases have in common.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    /// The `callboard` program.
    pub program: PathBuf,
    pub nats_url: String,
    pub database_url: String,
    /// More settings, as environment variables.
    pub settings: Vec<(String, String)>,
}

/// A running installation. Dropping it kills it: what it holds is thrown away.
#[derive(Debug)]
pub(crate) struct Engine {
    pub bus: Bus,
    pub view: View,
    environment: Vec<(String, String)>,
    program: PathBuf,
    child: Child,
}

/// What a catalog shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    /// Entities by ref.
    pub entities: BTreeMap<String, Value>,
    /// Errors by ref: also of entities that were never valid, and are not shown.
    pub errors: BTreeMap<String, String>,
    /// Why messages became dead letters.
    pub letters: Vec<String>,
}

impl Engine {
    /// Starts an installation of this name whose files go to `directory`; waits until it serves.
    ///
    /// To be called from the main thread: see [`signal::end_with_us`].
    ///
    /// # Errors
    /// [`Error::Process`] when it ends, or does not serve in 30 s, with the end of its log.
    pub async fn start(
        shared: &Shared,
        installation: &str,
        directory: &Path,
        settings: Vec<(String, String)>,
    ) -> Result<Engine, Error> {
        let log = directory.join("callboard.log");
        let mut environment = shared.settings.clone();
        environment.extend([
            ("CALLBOARD_NATS_URL".to_owned(), shared.nats_url.clone()),
            ("CALLBOARD_DATABASE_URL".to_owned(), shared.database_url.clone()),
            ("CALLBOARD_INSTALLATION".to_owned(), installation.to_owned()),
            ("CALLBOARD_DATA_DIR".to_owned(), directory.join("data").display().to_string()),
        ]);
        environment.extend(settings);
        let mut child = launch(&shared.program, &environment, &log)?;
        let failed = |reason: String| Error::Process { process: installation.to_owned(), reason, log: log_end(&log) };
        let addresses = match announced(&mut child).await {
            Ok(addresses) => addresses,
            Err(reason) => {
                stop(&mut child);
                return Err(failed(reason));
            }
        };
        let (program, reader) = (shared.program.clone(), addresses["grpcUrl"].as_str().unwrap_or_default().to_owned());
        let connected = async {
            let bus = crate::installation::connect(&shared.nats_url, installation, None).await?;
            Ok::<_, Error>((bus, View::connect(&reader).await?))
        };
        match connected.await {
            Ok((bus, view)) => Ok(Engine { bus, view, environment, program, child }),
            Err(error) => {
                stop(&mut child);
                Err(error)
            }
        }
    }

    /// What the catalog shows now.
    ///
    /// # Errors
    /// [`Error`] of the reader, the broker, or `callboard errors`.
    pub async fn shown(&self) -> Result<Shown, Error> {
        let mut shown = Shown::default();
        let mut take = |entity: api::v1::Entity| {
            shown.entities.insert(entity.r#ref.clone(), Value::Object(api::entity_to_json(&entity)));
        };
        self.view.each(&mut take).await?;
        for line in self.ask(&["errors", "--output", "json"]).await?.lines() {
            let failed: Value = serde_json::from_str(line).unwrap_or_default();
            let text = failed.pointer("/error/message").and_then(Value::as_str).unwrap_or(line);
            shown.errors.insert(failed["ref"].as_str().unwrap_or_default().to_owned(), text.to_owned());
        }
        let letters = bus::newest_dead_letters(&self.bus, MAX_LETTERS).await?;
        shown.letters = letters.into_iter().map(|letter: StoredDeadLetter| letter.reason).collect();
        Ok(shown)
    }

    /// Runs a command of the `callboard` program against this installation; gives what it printed.
    ///
    /// # Errors
    /// [`Error::Process`] when it fails, or takes longer than 20 s.
    pub async fn ask(&self, arguments: &[&str]) -> Result<String, Error> {
        let mut command = Command::new(&self.program);
        clean(&mut command, &self.environment);
        command.args(arguments).stdin(Stdio::null());
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        let failed = |reason: String, log: &[u8]| Error::Process {
            process: format!("callboard {}", arguments.join(" ")),
            reason,
            log: String::from_utf8_lossy(log).into_owned(),
        };
        match tokio::time::timeout(ASK_LIMIT, command.output()).await {
            Ok(Ok(output)) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            Ok(Ok(output)) => Err(failed(format!("ended with {}", output.status), &output.stderr)),
            Ok(Err(error)) => Err(failed(error.to_string(), &[])),
            Err(_) => Err(failed(format!("took longer than {} s", ASK_LIMIT.as_secs()), &[])),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

fn stop(child: &mut Child) {
    // It may have ended already.
    drop(child.kill().and_then(|()| child.wait()));
}

fn launch(program: &Path, environment: &[(String, String)], log: &Path) -> Result<Child, Error> {
    let file = File::create(log).map_err(Error::io("write", log))?;
    let mut command = Command::new(program);
    clean(&mut command, environment);
    command.args(["up", "--output", "json", "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
    signal::end_with_us(&mut command);
    command.spawn().map_err(Error::io("run", program))
}

/// With these settings and none of whoever runs this.
fn clean(command: &mut Command, environment: &[(String, String)]) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CALLBOARD_")) {
        command.env_remove(name);
    }
    command.envs(environment.iter().cloned());
}

/// The line in which it says where it serves.
async fn announced(child: &mut Child) -> Result<Value, String> {
    let Some(out) = child.stdout.take() else { return Err("has no output".to_owned()) };
    let read = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).map(|_| line)
    });
    match tokio::time::timeout(START_LIMIT, read).await {
        Err(_) => Err(format!("did not serve within {} s", START_LIMIT.as_secs())),
        Ok(line) => {
            let line = line.map_err(std::io::Error::other).flatten().map_err(|error| error.to_string())?;
            serde_json::from_str(&line).map_err(|_| "ended before it served".to_owned())
        }
    }
}
