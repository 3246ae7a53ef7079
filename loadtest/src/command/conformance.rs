//! `loadtest conformance`: recorded cases through the running pipeline, each in an installation of its own, and the verdict on each.

use crate::conformance::case::find;
use crate::conformance::engine::Shared;
use crate::conformance::judge::{Aspect, Difference, judge};
use crate::conformance::play::play;
use crate::conformance::purpose::{Purpose, purposes, reason};
use crate::installation::{Started, data_directory, start_servers};
use crate::process::find_program;
use crate::report::Report;
use crate::{Error, settle};
use futures::StreamExt;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Differences of a case that are shown, without --verbose and with it.
const SHOWN: [usize; 2] = [1, 20];
/// Connections of each role of an installation to the database.
const CONNECTIONS: u32 = 4;

/// What to play, and how.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Conformance {
    /// Holds `cases/`, or is any directory with case files (*.json) below it
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Only cases whose area/name has this in it; * is anything between
    #[arg(long, value_name = "PATTERN")]
    filter: Option<String>,
    /// Cases at once
    #[arg(long, value_name = "COUNT", default_value = "8", value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// All differences of each case (20 at most), also of those that differ on purpose
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    started: Started,
}

const HELP: &str = "Examples:
  loadtest conformance conformance                       every case
  loadtest conformance conformance/cases/orphans         one area
  loadtest conformance conformance --filter 'url-*miss' --verbose
  loadtest conformance conformance --filter upsert-three-keys --keep     keeps each case's files and callboard.log

Each case runs in a `callboard up` of its own (an installation name each; broker and database are shared, and throw their data away): from an
empty catalog on, its steps are published over NATS, and at each `settle` the catalog is read over gRPC and compared with what was recorded.
A case passes, fails, or differs on purpose: then one of the rules in loadtest/src/conformance/on-purpose.json is recognized in its own steps,
and it differs in nothing that the rule does not name. Build `callboard` first: the program beside this one is used, or --callboard.";

/// What became of a case.
struct Verdict {
    name: String,
    /// What the case says of itself.
    about: String,
    differences: Vec<Difference>,
    /// Why it differs on purpose.
    reason: Option<String>,
}

impl Conformance {
    /// Plays the cases.
    pub async fn run(&self) -> Result<Report, Error> {
        let cases = self.cases()?;
        let purposes = purposes()?;
        let program = find_program(self.started.callboard.as_deref())?;
        let data = data_directory(self.started.keep)?;
        let servers = start_servers(data.path().join("servers"), |options| {
            options.throw_away = true;
            options.max_connections = 900;
            // Each installation reserves what its streams may hold, and uses next to nothing of it.
            options.nats_config.max_store_bytes = Some(1 << 50);
        })
        .await?;
        let mut settings = self.started.settings.clone();
        settings.push(("CALLBOARD_DATABASE_CONNECTIONS".to_owned(), CONNECTIONS.to_string()));
        let shared = Shared {
            program,
            nats_url: servers.nats_url().unwrap_or_default().to_owned(),
            database_url: servers.database_url().unwrap_or_default().to_owned(),
            settings,
        };
        let started = Instant::now();
        let bar = settle::bar("cases", cases.len());
        // On this thread: the programs that are started end with it.
        let verdicts: Vec<Verdict> = futures::stream::iter(cases.iter().enumerate())
            .map(|(number, file)| {
                let (shared, purposes, bar, data) = (&shared, &purposes, &bar, data.path());
                async move {
                    let verdict = verdict(shared, purposes, file, number, data).await;
                    bar.inc(1);
                    verdict
                }
            })
            .buffered(usize::from(self.jobs))
            .collect()
            .await;
        bar.finish_and_clear();
        let report = self.report(&verdicts, started.elapsed().as_secs_f64());
        tokio::task::spawn_blocking(move || servers.stop())
            .await
            .map_err(std::io::Error::other)
            .map_err(Error::io("stop the servers below", &self.directory))?;
        Ok(report)
    }

    fn cases(&self) -> Result<Vec<PathBuf>, Error> {
        let mut cases = find(&self.directory)?;
        if let Some(pattern) = &self.filter {
            cases.retain(|file| fits(pattern, &name(file)));
            if cases.is_empty() {
                return Err(Error::Usage(format!("--filter {pattern}: no case has this in its name")));
            }
        }
        Ok(cases)
    }

    fn report(&self, verdicts: &[Verdict], seconds: f64) -> Report {
        let mut report = Report::new(format!("conformance: {} cases of {}", verdicts.len(), self.directory.display()));
        let [passed, failed, meant] = counts(verdicts.iter());
        for (name, count) in [("passed", passed), ("failed", failed), ("on_purpose", meant)] {
            report.figure(name, count as f64, "");
        }
        report.figure("seconds", seconds, "s");
        report.table(&["area", "passed", "failed", "on purpose"], areas(verdicts));
        for verdict in verdicts {
            let text = match &verdict.reason {
                None if verdict.differences.is_empty() => continue,
                None => format!("FAILED      {}", verdict.name),
                Some(reason) => format!("on purpose  {}: {reason}", verdict.name),
            };
            report.note(text);
            if verdict.reason.is_none() || self.verbose {
                self.differences(verdict, &mut report);
            }
        }
        report.detail("cases", verdicts.iter().map(Verdict::to_json).collect());
        report.equal("cases that failed", 0.0, failed as f64);
        report
    }

    fn differences(&self, verdict: &Verdict, report: &mut Report) {
        let shown = SHOWN[usize::from(self.verbose)];
        if self.verbose {
            report.note(format!("            ({})", verdict.about));
        }
        for difference in verdict.differences.iter().take(shown) {
            report.note(format!("            {}", difference.text));
        }
        if let more @ 1.. = verdict.differences.len().saturating_sub(shown) {
            report.note(format!("            and {more} more differences"));
        }
    }
}

async fn verdict(shared: &Shared, purposes: &[Purpose], file: &Path, number: usize, data: &Path) -> Verdict {
    let directory = data.join(name(file));
    let played = match fs::create_dir_all(&directory) {
        Ok(()) => play(shared, file, &format!("case_{number}"), &directory).await,
        Err(error) => Err(Error::io("create", &directory)(error)),
    };
    match played {
        Ok(played) => {
            let differences = judge(&played.case, &played.shown);
            let reason = reason(purposes, &played.case, &differences);
            let about = [played.case.about.as_str(), played.case.note.as_str()].join(" / ");
            Verdict { name: name(file), about, differences, reason }
        }
        Err(error) => {
            let difference = Difference { aspect: Aspect::Run, entity_ref: None, text: error.to_string() };
            Verdict { name: name(file), about: String::new(), differences: vec![difference], reason: None }
        }
    }
}

impl Verdict {
    fn column(&self) -> usize {
        match (&self.reason, self.differences.is_empty()) {
            (None, true) => 0,
            (None, false) => 1,
            (Some(_), _) => 2,
        }
    }

    fn to_json(&self) -> Value {
        let differences: Vec<&str> = self.differences.iter().map(|difference| difference.text.as_str()).collect();
        let verdict = ["passed", "failed", "on purpose"][self.column()];
        json!({ "name": self.name, "verdict": verdict, "reason": self.reason, "differences": differences })
    }
}

/// Passed, failed, on purpose.
fn counts<'a>(verdicts: impl Iterator<Item = &'a Verdict>) -> [usize; 3] {
    let mut counts = [0; 3];
    verdicts.for_each(|verdict| counts[verdict.column()] += 1);
    counts
}

fn areas(verdicts: &[Verdict]) -> Vec<Vec<String>> {
    let mut areas: BTreeMap<&str, Vec<&Verdict>> = BTreeMap::new();
    for verdict in verdicts {
        areas.entry(verdict.name.split('/').next().unwrap_or_default()).or_default().push(verdict);
    }
    let row = |area: &str, counts: [usize; 3]| {
        let mut row = vec![area.to_owned()];
        row.extend(counts.iter().map(usize::to_string));
        row
    };
    let mut rows: Vec<_> = areas.into_iter().map(|(area, verdicts)| row(area, counts(verdicts.into_iter()))).collect();
    rows.push(row("all", counts(verdicts.iter())));
    rows
}

/// `area/name`, as the file's path has it.
fn name(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let area = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    format!("{area}/{stem}")
}

/// Whether a name has the pattern in it; `*` is anything.
fn fits(pattern: &str, name: &str) -> bool {
    let mut rest = name;
    pattern.split('*').all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, expected: bool) {
        assert_eq!(fits(pattern, "orphans/delete-parent-stops"), expected, "{pattern}");
    }

    #[test]
    fn a_filter_is_a_part_of_a_name() {
        check("orphans/", true);
        check("parent", true);
        check("orphans/*stops", true);
        check("delete*parent*stops", true);
        check("stops*delete", false);
        check("keep", false);
        assert_eq!(name(Path::new("x/cases/orphans/a.json")), "orphans/a");
    }
}
