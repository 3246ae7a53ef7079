//! `callboard publish`: entities from files, checked by the rules of processing before they go.

use crate::catalog_file;
use crate::cli::PublishArgs;
use crate::config::{Config, Output};
use crate::failure::{Failure, tell};
use crate::input::{self, Checked, Fault};
use crate::operator::{self, Operator, refused};
use crate::output::{self, Table};
use crate::publishing::{self, Publisher};
use api::v1::GetEntityRequest;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::Write;
use std::time::{Duration, Instant};
use tonic::Code;

/// How long `--wait` waits.
const WAIT: Duration = Duration::from_secs(300);
/// A ref that no entity can have: no name ends with a dash.
const NOBODY: &str = "component:default/-";
/// How soon a reader that is not ready is asked again.
const AGAIN: Duration = Duration::from_millis(50);

/// Checks and publishes. What is good goes even if something else is bad.
///
/// # Errors
/// [`Failure::Told`] when something was bad, each said with file, document, line and field.
pub fn run(config: &Config, args: &PublishArgs) -> Result<(), Failure> {
    let sources = input::read(&args.paths)?;
    let model = catalog_file::model(config)?;
    let subject = format!("{}.events.{}", config.installation(), bus::encode_token(&args.provider));
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for source in &sources {
        let (checked, faults) = input::check(source, &model, &subject);
        good.extend(checked);
        bad.extend(faults);
    }
    drop(sources);
    tell_faults(&bad);
    if args.snapshot && !bad.is_empty() {
        tell("nothing is published: a snapshot withdraws what it leaves out, so it must be whole");
        return Err(Failure::Told);
    }
    if args.check {
        tell(&format!("{} of {} documents can be published", good.len(), good.len() + bad.len()));
    } else if !good.is_empty() {
        let publisher = publisher(args, good.len())?;
        operator::ask(config, async |operator| publish(operator, &publisher, &good, args.wait).await)?;
    } else if bad.is_empty() && args.snapshot {
        tell(
            "no documents: a snapshot of nothing would withdraw everything. Nothing is published; `callboard delete` withdraws",
        );
    } else if bad.is_empty() {
        tell("no documents: nothing is published");
    }
    if bad.is_empty() { Ok(()) } else { Err(Failure::Told) }
}

/// A snapshot with documents left out would withdraw what they describe.
fn publisher(args: &PublishArgs, good: usize) -> Result<Publisher, Failure> {
    if args.expected_revision.is_some() && good != 1 {
        let found = count(good, "entity", "entities");
        return Err(Failure::Usage(format!("--expected-revision is for one entity, and {found} would be published")));
    }
    Ok(Publisher {
        provider: args.provider.clone(),
        location_key: args.location_key.clone(),
        snapshot: args.snapshot.then(publishing::snapshot_id),
        expected_revision: args.expected_revision,
    })
}

fn tell_faults(faults: &[Fault]) {
    for fault in faults {
        tell(&fault.to_string());
    }
    if !faults.is_empty() {
        tell(&format!("{} documents are not published: mend them and publish again", faults.len()));
    }
}

async fn publish(operator: &Operator, publisher: &Publisher, entities: &[Checked], wait: bool) -> Result<(), Failure> {
    let bus = operator.bus().await?;
    let bar = progress_bar(entities.len());
    let begun = Instant::now();
    let sequences = publishing::publish(&bus, publisher, entities, &|more| bar.inc(more)).await?;
    let ended = match &publisher.snapshot {
        Some(snapshot) => Some(publishing::end_snapshot(&bus, &publisher.provider, snapshot, entities.len()).await?),
        None => None,
    };
    let seconds = begun.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let revisions = revisions_of(operator, &bus, &sequences).await?;
    let refs: Vec<&str> = entities.iter().map(|entity| entity.entity_ref.as_str()).collect();
    show(operator, &refs, &revisions)?;
    tell(&format!(
        "{} published in {seconds:.2} s as provider {}",
        count(refs.len(), "entity", "entities"),
        publisher.provider
    ));
    if let Some(snapshot) = &publisher.snapshot {
        tell(&format!("snapshot {snapshot} is ended: what it left out is withdrawn; `callboard snapshots` tells"));
    }
    if !wait {
        return Ok(());
    }
    match ended {
        // Read when all of it is, and what it left out is withdrawn.
        Some(ended) => {
            let ended = revisions_of(operator, &bus, &[ended]).await?;
            tell_when_readable(operator, &[NOBODY], &ended).await
        }
        None => tell_when_readable(operator, &refs, &revisions).await,
    }
}

async fn revisions_of(operator: &Operator, bus: &bus::Bus, sequences: &[u64]) -> Result<Vec<i64>, Failure> {
    revisions(operator, &bus.names().events_stream(), sequences).await
}

/// Shown on a terminal only.
fn progress_bar(length: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {human_pos} of {human_len}, {per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length as u64).with_style(style)
}

/// `1 entity`, `2 entities`.
pub fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// The revisions of events: their sequences, and the offset of the stream where the database says one.
///
/// # Errors
/// The database has an address and does not answer.
pub async fn revisions(operator: &Operator, stream: &str, sequences: &[u64]) -> Result<Vec<i64>, Failure> {
    let offset = match operator.store().await? {
        Some(store) => store.stream_position(stream).await?.map_or(0, |position| position.revision_offset),
        None => 0,
    };
    let revision = |sequence: &u64| i64::try_from(*sequence).unwrap_or(i64::MAX).saturating_add(offset);
    Ok(sequences.iter().map(revision).collect())
}

/// Writes refs and their revisions.
///
/// # Errors
/// [`Failure::ClosedPipe`] when nobody reads on.
pub fn show(operator: &Operator, refs: &[&str], revisions: &[i64]) -> Result<(), Failure> {
    let mut out = output::stdout();
    let pairs = refs.iter().zip(revisions);
    match operator.config.output {
        None | Some(Output::Table) => {
            let rows: Vec<Vec<String>> =
                pairs.map(|(name, revision)| vec![(*name).to_owned(), revision.to_string()]).collect();
            Table::new(&["REF", "REVISION"]).write(&mut out, &rows)?;
        }
        Some(Output::Json) => {
            for (name, revision) in pairs {
                output::write_json(&mut out, &json!({"ref": name, "revision": revision}))?;
            }
        }
        Some(Output::Yaml) => {
            let list: Vec<_> = pairs.map(|(name, revision)| json!({"ref": name, "revision": revision})).collect();
            output::write_yaml(&mut out, &list.into())?;
        }
    }
    Ok(out.flush()?)
}

/// Waits until a reader includes the last of these revisions, and says how long that took.
///
/// # Errors
/// As [`await_last`].
pub async fn tell_when_readable(operator: &Operator, refs: &[&str], revisions: &[i64]) -> Result<(), Failure> {
    let begun = Instant::now();
    await_last(operator, refs, revisions).await?;
    tell(&format!("readable after {:.2} s more", begun.elapsed().as_secs_f64()));
    Ok(())
}

/// Waits until a reader includes all of these revisions. One entity is waited for itself; several, which workers handle side by side, by a ref that
/// nobody has: that is answered when everything up to the revision is stitched.
///
/// # Errors
/// It does not within five minutes, or none answers.
pub async fn await_last(operator: &Operator, refs: &[&str], revisions: &[i64]) -> Result<(), Failure> {
    let Some(revision) = revisions.iter().max() else { return Ok(()) };
    let name = if let [only] = refs { only } else { NOBODY };
    let mut reader = operator.reader().await?;
    let begun = Instant::now();
    loop {
        let request = GetEntityRequest { r#ref: name.to_owned(), at_least_revision: *revision, ..Default::default() };
        let Err(status) = reader.get_entity(request).await else { return Ok(()) };
        match status.code() {
            // What a reader does not show at this revision is included too: refused, or deleted since.
            Code::NotFound => return Ok(()),
            Code::DeadlineExceeded | Code::Unavailable if begun.elapsed() < WAIT => tokio::time::sleep(AGAIN).await,
            _ => return Err(refused(&status)),
        }
    }
}
