//! `callboard watch`: what changes, as it changes.

use super::list::query;
use crate::cli::WatchArgs;
use crate::config::{Config, Output};
use crate::failure::Failure;
use crate::operator::{self, Operator, refused};
use crate::output;
use api::v1::watch_entities_response::Event;
use api::v1::{WatchEntitiesRequest, WatchEntitiesResponse};
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;
use tonic::Code;

/// How long a reader that is away is waited for before it is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Watches until Ctrl-C, across readers that restart.
///
/// # Errors
/// A filter or token that cannot be used, one that is too old, or no reader at the beginning.
pub fn run(config: &Config, args: &WatchArgs) -> Result<(), Failure> {
    operator::ask(config, async |operator| watch(operator, args).await)
}

async fn watch(operator: &Operator, args: &WatchArgs) -> Result<(), Failure> {
    let mut request = WatchEntitiesRequest {
        filter: args.filter.clone(),
        query: args.query.as_deref().map(query).transpose()?,
        resume_token: args.resume.clone().unwrap_or_default(),
        changes_only: !args.all && args.resume.is_none(),
    };
    let mut reader = operator.reader().await?;
    loop {
        let mut events = match reader.watch_entities(request.clone()).await {
            Ok(events) => events.into_inner(),
            Err(status) if goes_on(status.code()) && !request.resume_token.is_empty() => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(status) => return Err(refused(&status)),
        };
        loop {
            match events.message().await {
                Ok(Some(event)) => {
                    if !event.resume_token.is_empty() {
                        request.resume_token.clone_from(&event.resume_token);
                        request.changes_only = false;
                    }
                    write(&event, operator.config.output)?;
                }
                Ok(None) => break,
                Err(status) if goes_on(status.code()) && !request.resume_token.is_empty() => break,
                Err(status) => return Err(refused(&status)),
            }
        }
    }
}

/// Whether another call may well go on from the token.
fn goes_on(code: Code) -> bool {
    // What a connection that breaks is told as, too.
    matches!(code, Code::Unavailable | Code::ResourceExhausted | Code::Unknown | Code::Internal | Code::Cancelled)
}

fn write(event: &WatchEntitiesResponse, form: Option<Output>) -> Result<(), Failure> {
    let (what, entity_ref, entity) = match &event.event {
        Some(Event::Change(entity)) => ("changed", &entity.r#ref, Value::Object(api::entity_to_json(entity))),
        Some(Event::Deletion(deletion)) => ("gone", &deletion.r#ref, Value::Null),
        // Nothing has changed.
        Some(Event::Bookmark(_)) | None => return Ok(()),
    };
    let mut out = output::stdout();
    let json = || json!({"event": what, "ref": entity_ref, "version": event.version, "entity": entity, "resume": event.resume_token});
    match form {
        None | Some(Output::Table) => writeln!(out, "{what:<7}  {entity_ref}")?,
        Some(Output::Json) => output::write_json(&mut out, &json())?,
        Some(Output::Yaml) => {
            writeln!(out, "---")?;
            output::write_yaml(&mut out, &json())?;
        }
    }
    Ok(out.flush()?)
}
