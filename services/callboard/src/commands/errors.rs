//! `callboard errors`: entities whose newest content failed, and whether an earlier version is shown.

use crate::config::{Config, Output};
use crate::failure::Failure;
use crate::operator;
use crate::output::{self, Table};
use serde_json::{Value, json};
use std::io::Write;
use store::FailedEntity;

/// Rows read at a time.
const PAGE: i64 = 500;

/// Asks the database.
///
/// # Errors
/// It is not known or does not answer.
pub fn run(config: &Config) -> Result<(), Failure> {
    operator::ask(config, async |operator| {
        let store = operator.needed_store().await?;
        let mut out = output::stdout();
        let mut table = Table::new(&["REF", "SOURCE", "SHOWN", "ERROR"]);
        let mut after = String::new();
        loop {
            let page = store.failed_entities(&after, PAGE).await?;
            match operator.config.output {
                None | Some(Output::Table) => table.write(&mut out, &page.iter().map(row).collect::<Vec<_>>())?,
                Some(Output::Json) => {
                    page.iter().try_for_each(|failed| output::write_json(&mut out, &to_json(failed)))?
                }
                Some(Output::Yaml) if page.is_empty() => {}
                Some(Output::Yaml) => output::write_yaml(&mut out, &page.iter().map(to_json).collect())?,
            }
            match page.last() {
                Some(last) if page.len() as i64 == PAGE => after.clone_from(&last.entity_ref),
                _ => break,
            }
        }
        Ok(out.flush()?)
    })
}

fn row(failed: &FailedEntity) -> Vec<String> {
    let shown = if failed.shown { "earlier" } else { "never" };
    let error = to_json(failed);
    let message = error.pointer("/error/message").and_then(Value::as_str).unwrap_or(&failed.error);
    vec![failed.entity_ref.clone(), failed.source.clone(), shown.to_owned(), message.to_owned()]
}

fn to_json(failed: &FailedEntity) -> Value {
    let error: Value = serde_json::from_str(&failed.error).unwrap_or_else(|_| Value::String(failed.error.clone()));
    json!({"ref": failed.entity_ref, "source": failed.source, "shown": failed.shown, "error": error})
}
