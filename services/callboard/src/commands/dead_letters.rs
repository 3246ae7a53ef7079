//! `callboard dead-letters`: messages that could never be handled: listed, shown, published once more, or dropped.

use crate::cli::{DeadLettersArgs, LettersAction, LettersChosen, LettersFilter};
use crate::config::{Config, Output};
use crate::failure::{Failure, tell};
use crate::operator::{self, Operator};
use crate::output::{self, Table};
use crate::units::show_seconds;
use bus::{Bus, StoredDeadLetter};
use catalog::entity::{Limits, parse_entity};
use serde_json::{Map, Value, json};
use std::io::Write;

/// Letters replayed or dropped by one command at most.
const AT_ONCE: usize = 10_000;

/// Does what is asked; without an action, lists.
///
/// # Errors
/// What is needed is not known or does not answer; a letter that was named is not there, or must not be replayed.
pub fn run(config: &Config, args: &DeadLettersArgs) -> Result<(), Failure> {
    operator::ask(config, async |operator| {
        let bus = operator.bus().await?;
        match &args.action {
            None => list(operator, &bus, &args.filter).await,
            Some(LettersAction::List(filter)) => list(operator, &bus, filter).await,
            Some(LettersAction::Show { letter }) => show(operator, &named(&bus, *letter).await?),
            Some(LettersAction::Replay(chosen)) => replay(operator, &bus, chosen).await,
            Some(LettersAction::Drop(chosen)) => drop_letters(&bus, chosen).await,
        }
    })
}

async fn list(operator: &Operator, bus: &Bus, filter: &LettersFilter) -> Result<(), Failure> {
    let letters = bus::wanted_dead_letters(bus, filter.limit, |letter| fits(filter, letter)).await?;
    let mut out = output::stdout();
    match operator.config.output {
        None | Some(Output::Table) => {
            let rows: Vec<Vec<String>> = letters.iter().map(row).collect();
            Table::new(&["LETTER", "AGE", "STAGE", "PROVIDER", "SUBJECT", "SEQUENCE", "REASON"])
                .write(&mut out, &rows)?;
        }
        Some(Output::Json) => letters.iter().try_for_each(|letter| output::write_json(&mut out, &to_json(letter)))?,
        Some(Output::Yaml) => output::write_yaml(&mut out, &letters.iter().map(to_json).collect())?,
    }
    Ok(out.flush()?)
}

fn fits(filter: &LettersFilter, letter: &StoredDeadLetter) -> bool {
    filter.stage.as_ref().is_none_or(|stage| letter.stage == *stage)
        && filter.provider.as_ref().is_none_or(|provider| letter.provider.as_ref() == Some(provider))
        && filter.reason.as_ref().is_none_or(|text| letter.reason.contains(text.as_str()))
}

async fn named(bus: &Bus, sequence: u64) -> Result<StoredDeadLetter, Failure> {
    let letter = bus::dead_letter(bus, sequence).await?;
    letter.ok_or_else(|| {
        Failure::Runtime(format!("there is no dead letter {sequence}: `callboard dead-letters` lists them"))
    })
}

fn show(operator: &Operator, letter: &StoredDeadLetter) -> Result<(), Failure> {
    let mut out = output::stdout();
    match operator.config.output {
        Some(Output::Json) => output::write_json(&mut out, &to_json(letter))?,
        _ => output::write_yaml(&mut out, &to_json(letter))?,
    }
    Ok(out.flush()?)
}

async fn chosen(bus: &Bus, chosen: &LettersChosen) -> Result<Vec<StoredDeadLetter>, Failure> {
    if chosen.letters.is_empty() {
        let limit = chosen.filter.limit.min(AT_ONCE);
        let mut letters = bus::wanted_dead_letters(bus, limit, |letter| fits(&chosen.filter, letter)).await?;
        letters.reverse();
        return Ok(letters);
    }
    let mut letters = Vec::with_capacity(chosen.letters.len());
    for sequence in &chosen.letters {
        letters.push(named(bus, *sequence).await?);
    }
    Ok(letters)
}

/// In the order of the originals; one that is refused is told, and the others are replayed.
async fn replay(operator: &Operator, bus: &Bus, args: &LettersChosen) -> Result<(), Failure> {
    let store = operator.needed_store().await?;
    let (mut replayed, mut refused) = (0, 0);
    for letter in chosen(bus, args).await? {
        match refusal(bus, &store, &letter).await? {
            Some(why) => {
                tell(&format!("dead letter {}: not replayed: {why}", letter.sequence));
                refused += 1;
            }
            None => {
                let published = bus::publish(bus, &letter.replay()).await?;
                bus::drop_dead_letter(bus, letter.sequence).await?;
                tell(&format!(
                    "dead letter {}: published again as {} {}",
                    letter.sequence, letter.subject, published.sequence
                ));
                replayed += 1;
            }
        }
    }
    tell(&format!("{replayed} replayed, {refused} refused"));
    if refused == 0 { Ok(()) } else { Err(Failure::Told) }
}

/// Why a letter must not be published again; none: nothing speaks against it.
async fn refusal(bus: &Bus, store: &store::Store, letter: &StoredDeadLetter) -> Result<Option<String>, Failure> {
    if letter.is_cut {
        return Ok(Some("only the beginning of the original is kept".to_owned()));
    }
    let Some((provider, operation)) = bus.names().parse_event(&letter.subject) else { return Ok(None) };
    // What names no entity claims none.
    let Some(entity_ref) = entity_ref(&operation, &letter.payload) else { return Ok(None) };
    let Some(newest) = store.newest_claim(&entity_ref, &format!("provider:{provider}")).await? else { return Ok(None) };
    let position = store.stream_position(&bus.names().events_stream()).await?;
    let stored = letter.original_stored.unwrap_or(i64::MAX);
    let revision = position.map_or(0, |position| position.revision(letter.original_sequence, stored));
    Ok((newest > revision).then(|| {
        format!("provider {provider} has spoken of {entity_ref} since, with revision {newest} after {revision}; replaying would undo that")
    }))
}

fn entity_ref(operation: &str, payload: &[u8]) -> Option<String> {
    match operation {
        "upsert" | "import" => {
            parse_entity(payload, &Limits::default()).ok().map(|parsed| parsed.entity_ref.to_string())
        }
        _ => {
            let body: Value = serde_json::from_slice(payload).ok()?;
            let parsed = catalog::entity_ref::EntityRef::parse(body.get("entityRef")?.as_str()?);
            parsed.ok().map(|parsed| parsed.to_string())
        }
    }
}

async fn drop_letters(bus: &Bus, args: &LettersChosen) -> Result<(), Failure> {
    let letters = chosen(bus, args).await?;
    for letter in &letters {
        bus::drop_dead_letter(bus, letter.sequence).await?;
    }
    tell(&format!("{} dropped", letters.len()));
    Ok(())
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
    let headers: Map<String, Value> =
        letter.headers.iter().map(|(name, value)| (name.clone(), Value::String(value.clone()))).collect();
    json!({
        "letter": letter.sequence,
        "ageSeconds": age(letter),
        "stage": letter.stage,
        "provider": letter.provider,
        "reason": letter.reason,
        "subject": letter.subject,
        "stream": letter.stream,
        "sequence": letter.original_sequence,
        "headers": headers,
        "isCut": letter.is_cut,
        "payload": String::from_utf8_lossy(&letter.payload),
    })
}
