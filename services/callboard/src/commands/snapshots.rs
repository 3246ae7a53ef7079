//! `callboard snapshots`: what providers sent as all that they have, and what an operator says of those that are held.

use super::publish::count;
use crate::cli::{SnapshotArgs, SnapshotsCommand};
use crate::config::{Config, Output};
use crate::failure::{Failure, tell};
use crate::operator;
use crate::output::{self, Table};
use serde_json::{Value, json};
use std::io::Write;
use store::SnapshotRow;

/// Snapshots that are listed, at most.
const LISTED: i64 = 1000;

/// Lists, approves or discards.
///
/// # Errors
/// The database is not known or does not answer; or there is no such snapshot.
pub fn run(config: &Config, command: Option<&SnapshotsCommand>) -> Result<(), Failure> {
    match command {
        None => list(config),
        Some(SnapshotsCommand::Approve(args)) => decide(config, args, true),
        Some(SnapshotsCommand::Discard(args)) => decide(config, args, false),
    }
}

fn list(config: &Config) -> Result<(), Failure> {
    operator::ask(config, async |operator| {
        let rows = operator.needed_store().await?.snapshot_rows(LISTED).await?;
        let mut out = output::stdout();
        match operator.config.output {
            None | Some(Output::Table) => {
                let mut table = Table::new(&["PROVIDER", "SNAPSHOT", "STATE", "PARTS", "WITHDRAWN", "AGE", "REASON"]);
                table.write(&mut out, &rows.iter().map(row).collect::<Vec<_>>())?;
            }
            Some(Output::Json) => rows.iter().try_for_each(|row| output::write_json(&mut out, &to_json(row)))?,
            Some(Output::Yaml) => output::write_yaml(&mut out, &rows.iter().map(to_json).collect())?,
        }
        Ok(out.flush()?)
    })
}

fn row(snapshot: &SnapshotRow) -> Vec<String> {
    let expected = snapshot.count.map_or_else(|| "?".to_owned(), |count| count.to_string());
    vec![
        snapshot.provider.clone(),
        snapshot.snapshot.clone(),
        snapshot.state.clone(),
        format!("{}/{expected}", snapshot.parts),
        snapshot.withdrawn.to_string(),
        format!("{:.0}s", snapshot.age),
        snapshot.reason.clone().unwrap_or_default(),
    ]
}

fn to_json(snapshot: &SnapshotRow) -> Value {
    json!({
        "provider": snapshot.provider,
        "snapshot": snapshot.snapshot,
        "state": snapshot.state,
        "reason": snapshot.reason,
        "begun": snapshot.begun,
        "count": snapshot.count,
        "parts": snapshot.parts,
        "withdrawn": snapshot.withdrawn,
        "ageSeconds": snapshot.age,
    })
}

/// An id may be in use by several providers: then one of them has to be named.
fn decide(config: &Config, args: &SnapshotArgs, approve: bool) -> Result<(), Failure> {
    operator::ask(config, async |operator| {
        let store = operator.needed_store().await?;
        let rows = store.snapshot_rows(LISTED).await?;
        let meant = |row: &&SnapshotRow| {
            row.snapshot == args.id && args.provider.as_ref().is_none_or(|provider| *provider == row.provider)
        };
        let waits = |row: &&SnapshotRow| row.state == "held" || (!approve && row.state == "open");
        let found: Vec<&SnapshotRow> = rows.iter().filter(meant).filter(waits).collect();
        let provider = match found.as_slice() {
            [row] => &row.provider,
            [] => return Err(Failure::Runtime(none_waits(rows.iter().filter(meant), &args.id))),
            several => {
                let number = count(several.len(), "provider has", "providers have");
                return Err(Failure::Usage(format!("{number} a snapshot {}: name one with --provider", args.id)));
            }
        };
        let moved = match approve {
            true => store.approve_snapshot(provider, &args.id).await?,
            false => store.discard_snapshot(provider, &args.id).await?,
        };
        match moved {
            true => {
                let told = if approve { "approved: a processor withdraws what it left out" } else { "discarded" };
                tell(&format!("snapshot {} of provider {provider} is {told}", args.id));
                Ok(())
            }
            false => Err(Failure::Runtime(format!("snapshot {} has just been decided by somebody else", args.id))),
        }
    })
}

fn none_waits<'a>(mut rows: impl Iterator<Item = &'a SnapshotRow>, id: &str) -> String {
    match rows.next() {
        Some(row) => format!("snapshot {id} of provider {} is {}: nothing to decide", row.provider, row.state),
        None => format!("no snapshot {id} is known; `callboard snapshots` lists them"),
    }
}
