//! `callboard get`: one entity, as Backstage would show it.

use super::list::{COLUMNS, row};
use crate::cli::GetArgs;
use crate::config::{Config, Output};
use crate::failure::Failure;
use crate::operator::{self, refused};
use crate::output::{self, Table};
use api::v1::GetEntityRequest;
use serde_json::Value;
use std::io::Write;

/// Asks a reader and writes the entity.
///
/// # Errors
/// There is none, no reader answers, or it has not reached the revision in time.
pub fn run(config: &Config, args: &GetArgs) -> Result<(), Failure> {
    operator::ask(config, async |operator| {
        let request = GetEntityRequest {
            r#ref: args.entity_ref.clone(),
            at_least_revision: args.at_least_revision,
            ..Default::default()
        };
        let answer =
            operator.reader().await?.get_entity(request).await.map_err(|status| refused(&status))?.into_inner();
        let entity = answer.entity.ok_or_else(|| Failure::runtime("the reader answered without an entity"))?;
        let json = Value::Object(api::entity_to_json(&entity));
        let mut out = output::stdout();
        match operator.config.output {
            None | Some(Output::Yaml) => output::write_yaml(&mut out, &json)?,
            Some(Output::Json) => output::write_json(&mut out, &json)?,
            Some(Output::Table) => Table::new(&COLUMNS).write(&mut out, &[row(&entity.r#ref, &json)])?,
        }
        Ok(out.flush()?)
    })
}
