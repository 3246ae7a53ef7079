//! YAML (or JSON) text as documents: one that is broken does not lose the others, and errors know their line in the whole text.

use serde_json::{Map, Number, Value};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};

/// The deepest nesting of a document: more than an entity may have, and little enough for the stack of any thread.
const MAX_DEPTH: usize = 40;
/// Whole numbers below this are exact in a double, 2^53.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// One document of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Which of the documents that hold anything, from 0.
    pub index: usize,
    /// Where its content starts in the text, from 1.
    pub line: usize,
    pub content: Result<Value, DocumentError>,
}

/// Why a document can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} at line {line}, column {column}")]
pub struct DocumentError {
    /// In the text, from 1.
    pub line: usize,
    /// In the line, from 1.
    pub column: usize,
    pub message: String,
}

/// Reads all documents of a text, as Backstage's reader does (YAML 1.2, no merge keys, no two equal keys); documents that hold nothing are left out.
///
/// Aliases are bounded (250,000 nodes a document), and so is nesting (40 levels). The length of the text is for the caller to bound.
pub fn parse_documents(text: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    for part in parts(without_mark(text)).into_iter().filter(|part| !part.is_blank()) {
        let content = part.read();
        if content != Ok(Value::Null) {
            documents.push(Document { index: documents.len(), line: part.first_content_line(), content });
        }
    }
    documents
}

/// The content of the one document of a text, which may hold nothing (`null`, or `---` alone).
///
/// # Errors
/// How many there are, if it is another number.
pub(crate) fn one_document(text: &str) -> Result<Result<Value, DocumentError>, usize> {
    let begins = |part: &Part| part.text.lines().any(|line| is_marker(line, "---"));
    let parts = parts(without_mark(text)).into_iter().filter(|part| begins(part) || !part.is_blank());
    let mut parts: Vec<Part> = parts.collect();
    match parts.pop() {
        Some(part) if parts.is_empty() => Ok(if part.is_blank() { Ok(Value::Null) } else { part.read() }),
        last => Err(parts.len() + usize::from(last.is_some())),
    }
}

/// The text of the document whose content starts at a line, and the line of its first one.
pub(crate) fn part_at(text: &str, line: usize) -> Option<(&str, usize)> {
    parts(without_mark(text))
        .into_iter()
        .find(|part| part.first_content_line() == line)
        .map(|part| (part.text, part.line))
}

fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// A run of lines that is one document.
struct Part<'t> {
    text: &'t str,
    /// Of its first line in the whole text, from 1.
    line: usize,
}

/// Splits before `---` and after `...` at column 0, which YAML allows nowhere else, not even in block scalars. Directives (`%YAML 1.2`) stay with the document they precede.
fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let only_directives = || {
            let before = &text[start..at];
            before.lines().any(|line| line.starts_with('%')) && before.lines().all(says_nothing)
        };
        if is_marker(line, "---") && !only_directives() {
            parts.push(Part { text: &text[start..at], line: start_line });
            (start, start_line) = (at, index + 1);
        }
        at += line.len();
        if is_marker(line, "...") {
            parts.push(Part { text: &text[start..at], line: start_line });
            (start, start_line) = (at, index + 2);
        }
    }
    parts.push(Part { text: &text[start..], line: start_line });
    parts
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Blank lines, comments, directives, and markers with nothing behind them.
fn says_nothing(line: &str) -> bool {
    let bare = ["---", "..."].iter().find_map(|marker| line.strip_prefix(marker)).unwrap_or(line).trim();
    bare.is_empty() || bare.starts_with('#') || line.starts_with('%')
}

impl Part<'_> {
    fn is_blank(&self) -> bool {
        self.text.lines().all(says_nothing)
    }

    fn first_content_line(&self) -> usize {
        let before = self.text.lines().take_while(|line| says_nothing(line)).count();
        self.line + before
    }

    fn read(&self) -> Result<Value, DocumentError> {
        match serde_saphyr::from_str_with_options::<Value>(self.text, reading_options()) {
            Ok(value) => Ok(with_whole_numbers(value)),
            Err(error) => {
                let place = error.location();
                let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).max(1);
                Err(DocumentError {
                    line: place.map_or(self.first_content_line(), |place| {
                        (self.line - 1).saturating_add(number(place.line()))
                    }),
                    column: place.map_or(1, |place| number(place.column())),
                    message: message(&error),
                })
            }
        }
    }
}

/// How every document is read.
pub(crate) fn reading_options() -> serde_saphyr::Options {
    let mut options = serde_saphyr::Options::default();
    options.strict_booleans = true;
    options.merge_keys = MergeKeyPolicy::AsOrdinary;
    options.duplicate_keys = DuplicateKeyPolicy::Error;
    options.underscored_numbers_as_strings = true;
    options.non_finite_float_policy = NonFiniteFloatPolicy::PassThrough;
    options.with_snippet = false;
    if let Some(budget) = &mut options.budget {
        budget.max_depth = MAX_DEPTH;
    }
    options
}

/// The first line of the message, without the place, which stands beside it.
fn message(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let end = line.rfind(" at line ").unwrap_or(line.len());
    line[..end].to_owned()
}

/// JavaScript knows one sort of number: `1.0` is `1`.
fn with_whole_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(whole(number)),
        Value::Array(items) => items.into_iter().map(with_whole_numbers).collect(),
        Value::Object(map) => {
            Value::Object(map.into_iter().map(|(key, value)| (key, with_whole_numbers(value))).collect::<Map<_, _>>())
        }
        other => other,
    }
}

fn whole(number: Number) -> Number {
    match number.as_f64() {
        #[allow(clippy::cast_possible_truncation, reason = "checked to be exact")]
        Some(double) if number.is_f64() && double.fract() == 0.0 && double.abs() < EXACT => Number::from(double as i64),
        _ => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn check(text: &str, expected: &[(usize, Value)]) {
        let got: Vec<(usize, Value)> = parse_documents(text)
            .into_iter()
            .map(|document| {
                (
                    document.line,
                    document.content.unwrap_or_else(|error| json!(format!("error {}:{}", error.line, error.column))),
                )
            })
            .collect();
        assert_eq!(got, expected, "{text:?}");
    }

    #[test]
    fn splitting() {
        check("", &[]);
        check("\n# only a comment\n---\n\n---\nnull\n", &[]);
        check("a: 1", &[(1, json!({"a": 1}))]);
        check("\u{feff}a: 1\r\nb: 2\r\n", &[(1, json!({"a": 1, "b": 2}))]);
        check("---\na: 1\n---\n\n# c\nb: 2\n", &[(2, json!({"a": 1})), (6, json!({"b": 2}))]);
        check("--- {a: 1}\n--- # c\nb: 2\n---\n", &[(1, json!({"a": 1})), (3, json!({"b": 2}))]);
        check("a: 1\n...\nb: 2\n...\n", &[(1, json!({"a": 1})), (3, json!({"b": 2}))]);
        check("a: 1\n...\n---\nb: 2", &[(1, json!({"a": 1})), (4, json!({"b": 2}))]);
        check("%YAML 1.2\n---\na: 1\n", &[(3, json!({"a": 1}))]);
        check("a: |\n  ---\n  x\n", &[(1, json!({"a": "---\nx\n"}))]);
        check("---a: 1\n", &[(1, json!({"---a": 1}))]);
        check("[1, 2]\n---\ntext\n---\n7", &[(1, json!([1, 2])), (3, json!("text")), (5, json!(7))]);
        check("{\"a\": [1,\n\t2]}", &[(1, json!({"a": [1, 2]}))]);
    }

    #[test]
    fn one_broken_document_does_not_lose_the_others() {
        check(
            "a: 1\n---\nb: 1\nb: 2\n---\nc: 3\n",
            &[(1, json!({"a": 1})), (3, json!("error 4:1")), (6, json!({"c": 3}))],
        );
        let documents = parse_documents("a: 1\n---\nb: [1\n---\nc: *nobody\n---\nd: 4\n");
        let outcomes: Vec<bool> = documents.iter().map(|document| document.content.is_ok()).collect();
        assert_eq!(outcomes, [true, false, false, true]);
        assert_eq!(documents.iter().map(|document| document.index).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn errors_say_what_and_where() {
        let error = parse_documents("---\na: 1\na: 2\n")[0].content.clone().expect_err("two equal keys");
        assert_eq!((error.line, error.column), (3, 1));
        assert!(error.to_string().ends_with(" at line 3, column 1"), "{error}");
        assert!(!error.message.is_empty() && !error.message.contains("line"), "{}", error.message);
    }

    fn check_scalar(text: &str, expected: Value) {
        check(&format!("a: {text}\n"), &[(1, json!({"a": expected}))]);
    }

    #[test]
    fn scalars_are_those_of_yaml_1_2_in_javascript() {
        for word in ["yes", "no", "on", "off", "y", "n", "Yes", "2020-01-01", "1_000", "12:30", "~x"] {
            check_scalar(word, json!(word));
        }
        check_scalar("true", json!(true));
        check_scalar("~", Value::Null);
        check_scalar("null", Value::Null);
        check_scalar("", Value::Null);
        check_scalar("1.0", json!(1));
        check_scalar("1e3", json!(1000));
        check_scalar("-0.5", json!(-0.5));
        check_scalar("010", json!(10));
        check_scalar("0x1f", json!(31));
        check_scalar("0o17", json!(15));
        check_scalar(".inf", Value::Null);
        check_scalar(".nan", Value::Null);
        check_scalar("1e400", Value::Null);
        check_scalar("'1'", json!("1"));
        check_scalar("!tag value", json!("value"));
        check_scalar("[&x 1, *x]", json!([1, 1]));
        check("<<: {b: 1}\na: 2\n", &[(1, json!({"<<": {"b": 1}, "a": 2}))]);
        check("1: x\ntrue: y\n", &[(1, json!({"1": "x", "true": "y"}))]);
        check("a:\n  b: {\n  c: 1\n}\n", &[(1, json!({"a": {"b": {"c": 1}}}))]);
    }

    #[test]
    fn bombs_are_bounded() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let one = format!("*a{}", level - 1);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [one.as_str(); 10].join(", ")));
        }
        assert!(parse_documents(&bomb)[0].content.is_err());
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse_documents(&nested(MAX_DEPTH))[0].content.is_ok());
        assert!(parse_documents(&nested(MAX_DEPTH + 1))[0].content.is_err());
        assert!(parse_documents(&nested(50_000))[0].content.is_err());
    }

    #[test]
    fn the_deepest_document_fits_a_small_stack() {
        let text = format!("{}1{}", "{a: ".repeat(MAX_DEPTH), "}".repeat(MAX_DEPTH));
        let read = move || {
            let documents = parse_documents(&text);
            assert!(documents[0].content.is_ok());
            let pointer = "/a".repeat(MAX_DEPTH);
            assert_eq!(crate::field_line::field_line(&text, &documents[0], &pointer), 1);
        };
        let thread = std::thread::Builder::new().stack_size(1536 * 1024).spawn(read);
        thread.expect("a thread").join().expect("no overflow");
    }

    proptest! {
        #[test]
        fn any_text_is_documents(text in any::<String>()) {
            let _ = parse_documents(&text);
        }

        #[test]
        fn any_yamlish_text_is_documents(text in "([a-c]: |- |\n|---\n|\\.\\.\\.\n|  |[{}\\[\\],:&*!|>'\"#x%?@\u{0}]){0,20}") {
            let lines = text.lines().count();
            for document in parse_documents(&text) {
                prop_assert!(document.line >= 1 && document.line <= lines.max(1));
            }
        }
    }
}
