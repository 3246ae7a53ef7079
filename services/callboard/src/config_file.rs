//! The settings' file: YAML whose keys are the settings' names; what it says becomes the settings' defaults.

use crate::failure::Failure;
use clap::Command;
use serde_json::Value;
use std::path::Path;

/// The most that the file may hold, in bytes.
const FILE_BYTES: u64 = 1 << 20;

/// The command with the file's values in place of its defaults.
///
/// # Errors
/// [`Failure::Usage`]: a file that cannot be read, a key that is no setting (with the nearest one), a value that does not fit.
pub fn apply(command: Command, file: &Path) -> Result<Command, Failure> {
    let refuse = |what: String| Failure::Usage(format!("{}: {what}", file.display()));
    let text = read(file).map_err(refuse)?;
    let settings = parse(&text).map_err(refuse)?;
    let known = settings_of(&command);
    let mut applied = command.clone();
    for (key, value) in settings {
        if !known.contains(&key) {
            return Err(refuse(unknown_key(&key, &known)));
        }
        check_value(&command, &key, &value).map_err(refuse)?;
        // Until the end of the program, which reads its settings once.
        let value: &'static str = value.leak();
        applied = applied.mut_arg(key, |setting| setting.default_value(value));
    }
    Ok(applied)
}

fn read(file: &Path) -> Result<String, String> {
    let length = std::fs::metadata(file).map(|found| found.len()).map_err(|error| cannot_read(&error))?;
    match length > FILE_BYTES {
        true => Err(format!("expected at most {FILE_BYTES} bytes of settings, found {length}")),
        false => std::fs::read_to_string(file).map_err(|error| cannot_read(&error)),
    }
}

fn cannot_read(error: &std::io::Error) -> String {
    format!("cannot read the settings' file: {error}; --config or CALLBOARD_CONFIG names it")
}

/// Keys and values, each value as one would write it behind the flag.
fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let documents = catalog::documents::parse_documents(text);
    let content = match documents.as_slice() {
        [] => return Ok(Vec::new()),
        [one] => one.content.as_ref().map_err(|error| error.to_string())?,
        _ => return Err(format!("expected one YAML document, found {}", documents.len())),
    };
    let Value::Object(map) = content else {
        return Err("expected a YAML mapping of settings, for example \"nats_url: nats://localhost:4222\"".to_owned());
    };
    map.iter().map(|(key, value)| Ok((key.clone(), scalar(key, value)?))).collect()
}

fn scalar(key: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(format!("{key}: expected a text or a number")),
    }
}

fn settings_of(command: &Command) -> Vec<String> {
    let names = command.get_arguments().filter(|setting| setting.get_env().is_some());
    names.map(|setting| setting.get_id().to_string()).filter(|name| name != "config").collect()
}

fn unknown_key(key: &str, known: &[String]) -> String {
    let nearest = known.iter().min_by_key(|name| distance(&key.replace('-', "_"), name));
    let hint = nearest.map(|name| format!(" Did you mean \"{name}\"?")).unwrap_or_default();
    format!("unknown key \"{key}\".{hint} The keys are: {}", known.join(", "))
}

/// How many letters are to be added, removed or replaced (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The value has to be one that the flag would take.
fn check_value(command: &Command, key: &str, value: &str) -> Result<(), String> {
    let flag = format!("--{}={value}", key.replace('_', "-"));
    let tried = command
        .clone()
        .subcommand_required(false)
        .arg_required_else_help(false)
        .try_get_matches_from(["callboard".to_owned(), flag]);
    let Err(error) = tried else { return Ok(()) };
    let text = error.to_string();
    let lines = text.lines().next().unwrap_or_default();
    let reason = lines.strip_prefix("error: ").unwrap_or(lines);
    Err(format!("{key}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, FromArgMatches};

    /// What the file gives for a command line: the broker's address and the size of a batch, or the error.
    fn check(text: &str, line: &[&str], expected: Result<(Option<&str>, usize), &str>) {
        let directory = servers::testing::fresh_name("callboard-config");
        let file = std::env::temp_dir().join(format!("{directory}.yaml"));
        std::fs::write(&file, text).unwrap();
        let applied = apply(crate::cli::Cli::command(), &file);
        std::fs::remove_file(&file).unwrap();
        let found = applied.map(|command| {
            let matches = command.try_get_matches_from([&["callboard", "up"], line].concat()).unwrap();
            crate::cli::Cli::from_arg_matches(&matches).unwrap().config
        });
        match (found, expected) {
            (Ok(found), Ok((nats_url, batch_events))) => {
                assert_eq!((found.nats_url.as_deref(), found.batch_events), (nats_url, batch_events), "{text}");
            }
            (Err(found), Err(expected)) => assert!(found.to_string().contains(expected), "{found}"),
            (found, expected) => panic!("{text}: {:?} is not {expected:?}", found.err()),
        }
    }

    #[test]
    fn files() {
        check("", &[], Ok((None, 1000)));
        check("nats_url: nats://a:1\nbatch_events: 7\n", &[], Ok((Some("nats://a:1"), 7)));
        check("nats_url: nats://a:1\n", &["--nats-url", "nats://b:2"], Ok((Some("nats://b:2"), 1000)));
        check("nats_ur: nats://a:1\n", &[], Err("unknown key \"nats_ur\". Did you mean \"nats_url\"?"));
        check("nats-url: nats://a:1\n", &[], Err("Did you mean \"nats_url\"?"));
        check("batch_events: many\n", &[], Err("batch_events: invalid value 'many'"));
        check("batch_events: [1]\n", &[], Err("batch_events: expected a text or a number"));
        check("config: other.yaml\n", &[], Err("unknown key \"config\""));
        check("- a\n", &[], Err("expected a YAML mapping"));
        check("a: [\n", &[], Err(" at line "));
        check("a: 1\n---\nb: 2\n", &[], Err("expected one YAML document, found 2"));
    }
}
