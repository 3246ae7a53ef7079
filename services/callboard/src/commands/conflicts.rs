//! `callboard conflicts`: claims that lose to another location key, with both sides.

use crate::config::{Config, Output};
use crate::failure::Failure;
use crate::operator;
use crate::output::{self, Table};
use serde_json::{Value, json};
use std::io::Write;
use store::Conflict;

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
        let mut table = Table::new(&["REF", "SHOWN", "KEY", "REVISION", "LOSES", "KEY", "REVISION"]);
        let mut after = (0, String::new());
        loop {
            let page = store.conflicts((after.0, &after.1), PAGE).await?;
            match operator.config.output {
                None | Some(Output::Table) => table.write(&mut out, &page.iter().map(row).collect::<Vec<_>>())?,
                Some(Output::Json) => {
                    page.iter().try_for_each(|conflict| output::write_json(&mut out, &to_json(conflict)))?;
                }
                Some(Output::Yaml) if page.is_empty() => {}
                Some(Output::Yaml) => output::write_yaml(&mut out, &page.iter().map(to_json).collect())?,
            }
            match page.last() {
                Some(last) if page.len() as i64 == PAGE => after = (last.entity_id, last.loses.0.clone()),
                _ => break,
            }
        }
        Ok(out.flush()?)
    })
}

fn row(conflict: &Conflict) -> Vec<String> {
    let side = |(source, key, revision): &(String, Option<String>, i64)| {
        [source.clone(), key.clone().unwrap_or_else(|| "-".to_owned()), revision.to_string()]
    };
    let [shown, loses] = [side(&conflict.shown), side(&conflict.loses)];
    [conflict.entity_ref.clone()].into_iter().chain(shown).chain(loses).collect()
}

fn to_json(conflict: &Conflict) -> Value {
    let side = |(source, key, revision): &(String, Option<String>, i64)| json!({"source": source, "locationKey": key, "revision": revision});
    json!({"ref": conflict.entity_ref, "shown": side(&conflict.shown), "loses": side(&conflict.loses)})
}
