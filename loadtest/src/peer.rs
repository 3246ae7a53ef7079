//! Backstage's catalog backend as a child process, told what to do over its stdin (`loadtest/backstage/peer.mjs`), on a PostgreSQL like ours.

use crate::installation::{Disk, start_servers};
use crate::process::log_end;
use crate::usage::{self, Usage};
use crate::{Error, signal};
use serde_json::{Value, json};
use servers::Servers;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long it may take until it is ready.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long one request may take: an import of many entities.
const ASK_LIMIT: Duration = Duration::from_secs(1800);
/// How long the packages may take to come.
const INSTALL_LIMIT: Duration = Duration::from_secs(1200);

/// A running Backstage. Dropping it ends it, and its database.
#[derive(Debug)]
pub(crate) struct Peer {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
    // In the order in which they are dropped.
    child: Child,
    servers: Servers,
}

impl Peer {
    /// Starts PostgreSQL (synced to disk) below `data` and the backend on it; its packages are installed by their lock file if they are not there.
    ///
    /// To be called from the main thread: see [`signal::end_with_us`].
    ///
    /// # Errors
    /// [`Error::Process`]: no node or npm, or it is not ready in two minutes.
    pub async fn start(directory: &Path, data: &Path) -> Result<Peer, Error> {
        install(directory).await?;
        let servers = start_servers(data.join("servers"), |options| options.nats = false).await?;
        let log = data.join("backstage.log");
        let file = File::create(&log).map_err(Error::io("write", &log))?;
        let mut command = std::process::Command::new("node");
        command.arg("peer.mjs").current_dir(directory).env("NODE_ENV", "production");
        command.env("PEER_DATABASE_URL", servers.database_url().unwrap_or_default());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
        signal::end_with_us(&mut command);
        let mut command = Command::from(command);
        let mut child = command.kill_on_drop(true).spawn().map_err(Error::io("run node in", directory))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Usage("the peer has no pipes; this is a bug".to_owned()));
        };
        let mut peer = Peer { input, output: BufReader::new(output).lines(), log, child, servers };
        peer.answer(START_LIMIT).await?;
        Ok(peer)
    }

    /// A full mutation with the entities of a file, one a line; gives the seconds until all were stitched.
    pub async fn ingest(&mut self, file: &Path) -> Result<f64, Error> {
        let answer = self.ask(json!({ "do": "ingest", "file": file })).await?;
        Ok(answer["seconds"].as_f64().unwrap_or(f64::NAN))
    }

    /// A delta mutation with one entity; gives the milliseconds until it could be read.
    pub async fn change(&mut self, entity: &Value) -> Result<f64, Error> {
        let answer = self.ask(json!({ "do": "change", "entity": entity })).await?;
        Ok(answer["milliseconds"].as_f64().unwrap_or(f64::NAN))
    }

    /// Writes every final entity into a file, one a line.
    pub async fn dump(&mut self, file: &Path) -> Result<(), Error> {
        self.ask(json!({ "do": "dump", "file": file })).await.map(drop)
    }

    /// What it and its database have used.
    pub fn used(&self) -> Usage {
        let own = self.child.id().and_then(usage::of_process).unwrap_or_default();
        let database = usage::children_named(std::process::id(), "postgres");
        database.into_iter().filter_map(usage::of_tree).fold(own, |sum, more| Usage {
            cpu_seconds: sum.cpu_seconds + more.cpu_seconds,
            memory_bytes: sum.memory_bytes + more.memory_bytes,
            resident_bytes: sum.resident_bytes + more.resident_bytes,
        })
    }

    /// What its database has on disk.
    pub fn disk(&self) -> Disk {
        Disk::of(&self.servers)
    }

    /// Ends it, and its database.
    pub async fn stop(mut self) -> Result<(), Error> {
        let killed = self.child.kill().await.map_err(Error::io("end the process that logs to", &self.log));
        let servers = self.servers;
        tokio::task::spawn_blocking(move || servers.stop())
            .await
            .map_err(std::io::Error::other)
            .map_err(Error::io("stop the database of the process that logs to", &self.log))?;
        killed
    }

    async fn ask(&mut self, request: Value) -> Result<Value, Error> {
        let line = format!("{request}\n");
        self.input.write_all(line.as_bytes()).await.map_err(Error::io("ask the process that logs to", &self.log))?;
        self.answer(ASK_LIMIT).await
    }

    async fn answer(&mut self, limit: Duration) -> Result<Value, Error> {
        let failed =
            |reason: String| Error::Process { process: "backstage".to_owned(), reason, log: log_end(&self.log) };
        let line = match tokio::time::timeout(limit, self.output.next_line()).await {
            Err(_) => return Err(failed(format!("did not answer within {} s", limit.as_secs()))),
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Ok(Ok(None)) => return Err(failed("ended by itself".to_owned())),
            Ok(Ok(Some(line))) => line,
        };
        let answer: Value = serde_json::from_str(&line).map_err(|_| failed(format!("answered no JSON: {line}")))?;
        match answer["error"].as_str() {
            Some(error) => Err(failed(format!("failed: {error}"))),
            None => Ok(answer),
        }
    }
}

/// The packages of the lock file, unless they are there.
async fn install(directory: &Path) -> Result<(), Error> {
    if !directory.join("peer.mjs").is_file() {
        return Err(Error::Usage(format!("--backstage {}: expected the directory with peer.mjs", directory.display())));
    }
    if directory.join("node_modules/@backstage/plugin-catalog-backend").is_dir() {
        return Ok(());
    }
    eprintln!("installing Backstage's packages in {}", directory.display());
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(directory).kill_on_drop(true);
    let output = tokio::time::timeout(INSTALL_LIMIT, npm.output()).await;
    let failed = |reason: String, log: &[u8]| Error::Process {
        process: "npm ci".to_owned(),
        reason,
        log: String::from_utf8_lossy(log).into_owned(),
    };
    match output {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(failed(format!("ended with {}", output.status), &output.stderr)),
        Ok(Err(error)) => Err(Error::io("run npm in", directory)(error)),
        Err(_) => Err(failed(format!("took longer than {} s", INSTALL_LIMIT.as_secs()), &[])),
    }
}
