//! `callboard dead-letters`: messages that could never be handled, newest first.

use crate::cli::DeadLettersArgs;
use crate::config::{Config, Output};
use crate::failure::Failure;
use crate::operator;
use crate::output::{self, Table};
use crate::units::show_seconds;
use bus::StoredDeadLetter;
use serde_json::{Value, json};
use std::io::Write;

/// Asks the broker.
///
/// # Errors
/// It is not known or does not answer.
pub fn run(config: &Config, args: &DeadLettersArgs) -> Result<(), Failure> {
    operator::ask(config, async |operator| {
        let bus = operator.bus().await?;
        let letters = bus::newest_dead_letters(&bus, args.limit).await?;
        let mut out = output::stdout();
        match operator.config.output {
            None | Some(Output::Table) => {
                let rows: Vec<Vec<String>> = letters.iter().map(row).collect();
                Table::new(&["LETTER", "AGE", "STAGE", "PROVIDER", "SUBJECT", "SEQUENCE", "REASON"])
                    .write(&mut out, &rows)?;
            }
            Some(Output::Json) => {
                letters.iter().try_for_each(|letter| output::write_json(&mut out, &to_json(letter)))?
            }
            Some(Output::Yaml) => output::write_yaml(&mut out, &letters.iter().map(to_json).collect())?,
        }
        Ok(out.flush()?)
    })
}

fn row(letter: &StoredDeadLetter) -> Vec<String> {
    vec![
        letter.sequence.to_string(),
        show_seconds(age(letter)),
        letter.stage.clone(),
        letter.provider.clone().unwrap_or_default(),
        letter.subject.clone(),
        letter.original_sequence.to_string(),
        letter.reason.clone(),
    ]
}

fn age(letter: &StoredDeadLetter) -> f64 {
    letter.stored.elapsed().unwrap_or_default().as_secs_f64()
}

fn to_json(letter: &StoredDeadLetter) -> Value {
    json!({
        "letter": letter.sequence,
        "ageSeconds": age(letter),
        "stage": letter.stage,
        "provider": letter.provider,
        "reason": letter.reason,
        "subject": letter.subject,
        "stream": letter.stream,
        "sequence": letter.original_sequence,
        "payload": String::from_utf8_lossy(&letter.payload),
    })
}
