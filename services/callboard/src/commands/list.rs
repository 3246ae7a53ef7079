//! `callboard list`: the entities that match, page by page.

use crate::cli::ListArgs;
use crate::config::{Config, Output};
use crate::failure::Failure;
use crate::operator::{self, Operator, refused};
use crate::output::{self, Table};
use api::v1::{ListEntitiesRequest, Order};
use serde_json::Value;
use std::io::Write;

/// Entities in one page.
const PAGE: u64 = 500;

/// The columns of [`row`].
pub const COLUMNS: [&str; 4] = ["REF", "OWNER", "TYPE", "TITLE"];

/// Asks a reader and writes what matches.
///
/// # Errors
/// A filter that cannot be used, or no reader answers.
pub fn run(config: &Config, args: &ListArgs) -> Result<(), Failure> {
    operator::ask(config, async |operator| list(operator, args).await)
}

async fn list(operator: &Operator, args: &ListArgs) -> Result<(), Failure> {
    let mut reader = operator.reader().await?;
    let mut writer = Writer { out: output::stdout(), table: Table::new(&COLUMNS), output: operator.config.output };
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut page_token = String::new();
    while left > 0 {
        let page_size = i32::try_from(PAGE.min(left)).unwrap_or(1);
        let filter = args.filter.clone();
        let request = ListEntitiesRequest {
            filter,
            page_size,
            page_token,
            query: args.query.as_deref().map(query).transpose()?,
            full_text: args.text.clone().unwrap_or_default(),
            full_text_fields: args.text_field.clone(),
            order_by: args.order_by.iter().map(|text| order(text)).collect(),
            exclude_total_size: true,
            ..ListEntitiesRequest::default()
        };
        let page = reader.list_entities(request).await.map_err(|status| refused(&status))?.into_inner();
        left = left.saturating_sub(page.entities.len() as u64);
        writer.write(page.entities)?;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    Ok(())
}

/// What `--query` says, as the reader is asked.
///
/// # Errors
/// It is no JSON object.
pub fn query(text: &str) -> Result<api::Struct, Failure> {
    let object = serde_json::from_str(text)
        .map_err(|error| Failure::Usage(format!("--query: expected a JSON object, found {error}")))?;
    Ok(api::to_struct(object))
}

fn order(text: &str) -> Order {
    let (field, descending) = match text.strip_suffix(":desc") {
        Some(field) => (field, true),
        None => (text.strip_suffix(":asc").unwrap_or(text), false),
    };
    Order { field: field.to_owned(), descending }
}

struct Writer<W> {
    out: W,
    table: Table,
    output: Option<Output>,
}

impl<W: Write> Writer<W> {
    fn write(&mut self, entities: Vec<api::v1::Entity>) -> Result<(), Failure> {
        let json = |entity: &api::v1::Entity| Value::Object(api::entity_to_json(entity));
        match self.output {
            None | Some(Output::Table) => {
                let rows: Vec<Vec<String>> = entities.iter().map(|entity| row(&entity.r#ref, &json(entity))).collect();
                self.table.write(&mut self.out, &rows)?;
            }
            Some(Output::Json) => {
                for entity in &entities {
                    output::write_json(&mut self.out, &json(entity))?;
                }
            }
            Some(Output::Yaml) => {
                for entity in &entities {
                    writeln!(self.out, "---")?;
                    output::write_yaml(&mut self.out, &json(entity))?;
                }
            }
        }
        Ok(self.out.flush()?)
    }
}

/// An entity in one line.
pub fn row(entity_ref: &str, json: &Value) -> Vec<String> {
    let text = |pointer: &str| json.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let title = match text("/metadata/title") {
        title if title.is_empty() => text("/spec/profile/displayName"),
        title => title,
    };
    vec![entity_ref.to_owned(), text("/spec/owner"), text("/spec/type"), title]
}
