//! How commands write what they found: aligned columns for people, JSON and YAML for programs.

use crate::failure::Failure;
use console::{measure_text_width, truncate_str};
use serde_json::Value;
use std::io::{self, IsTerminal, Write};

/// Columns narrower than this are not cut further.
const LEAST_WIDTH: usize = 8;
const GAP: &str = "  ";

/// Columns that stay aligned while rows come in pages. On a terminal the last column is cut to what fits.
pub struct Table {
    headers: Vec<&'static str>,
    widths: Vec<usize>,
    begun: bool,
}

impl Table {
    /// A table with these columns.
    pub fn new(headers: &[&'static str]) -> Table {
        Table {
            headers: headers.to_vec(),
            widths: headers.iter().map(|header| measure_text_width(header)).collect(),
            begun: false,
        }
    }

    /// Writes a page of rows, under the headers if it is the first.
    ///
    /// # Errors
    /// [`Failure::ClosedPipe`] when nobody reads on.
    pub fn write(&mut self, out: &mut dyn Write, rows: &[Vec<String>]) -> Result<(), Failure> {
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| one_line(cell)).collect()).collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(measure_text_width(cell));
            }
        }
        let limit = terminal_width();
        if !std::mem::replace(&mut self.begun, true) {
            let headers: Vec<String> = self.headers.iter().map(|header| (*header).to_owned()).collect();
            writeln!(out, "{}", self.line(&headers, limit))?;
        }
        for row in &rows {
            writeln!(out, "{}", self.line(row, limit))?;
        }
        Ok(())
    }

    fn line(&self, row: &[String], limit: Option<usize>) -> String {
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(&self.widths).enumerate() {
            if index + 1 == row.len() {
                let used = measure_text_width(&line);
                let room = limit.map(|limit| limit.saturating_sub(used).max(LEAST_WIDTH));
                line.push_str(&room.map_or_else(|| cell.clone(), |room| truncate_str(cell, room, "…").into_owned()));
            } else {
                let padding = width.saturating_sub(measure_text_width(cell));
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', padding));
                line.push_str(GAP);
            }
        }
        line.trim_end().to_owned()
    }
}

/// A cell ends with its line, and does not steer the terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// None where stdout is no terminal: then nothing is cut.
fn terminal_width() -> Option<usize> {
    io::stdout().is_terminal().then(|| usize::from(console::Term::stdout().size().1))
}

/// Writes a JSON value as one line.
///
/// # Errors
/// [`Failure::ClosedPipe`] when nobody reads on.
pub fn write_json(out: &mut dyn Write, value: &Value) -> Result<(), Failure> {
    Ok(writeln!(out, "{value}")?)
}

/// Writes a JSON value as a YAML document.
///
/// # Errors
/// [`Failure::ClosedPipe`] when nobody reads on.
pub fn write_yaml(out: &mut dyn Write, value: &Value) -> Result<(), Failure> {
    let options = serde_saphyr::ser_options! { compact_list_indent: false, prefer_block_scalars: true };
    let text = serde_saphyr::to_string_with_options(value, options).map_err(Failure::runtime)?;
    Ok(write!(out, "{text}")?)
}

/// Stdout, to be flushed at the end.
pub fn stdout() -> io::BufWriter<io::Stdout> {
    io::BufWriter::new(io::stdout())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_aligned_and_stay_so() {
        let mut table = Table::new(&["REF", "OWNER", "TITLE"]);
        let mut out = Vec::new();
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        table.write(&mut out, &[row(["component:default/größe", "a", "x"]), row(["b", "", "two\nlines"])]).unwrap();
        table.write(&mut out, &[row(["c", "owner", ""])]).unwrap();
        let expected = "REF                      OWNER  TITLE\n\
                        component:default/größe  a      x\n\
                        b                               two lines\n\
                        c                        owner\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn yaml_reads_back_as_it_was() {
        let check = |value: Value| {
            let mut out = Vec::new();
            write_yaml(&mut out, &value).unwrap();
            let text = String::from_utf8(out).unwrap();
            let documents = catalog::documents::parse_documents(&text);
            assert_eq!(documents[0].content.as_ref().unwrap(), &value, "{text}");
        };
        check(
            json!({"a": "yes", "b": "1.0", "c": "null", "d": "", "e": "- x", "f": "x: y", "g": "# c", "h": "~", "i": "0x10"}),
        );
        check(
            json!({"definition": "openapi: 3.0.0\ninfo:\n  title: T\n", "trailing": "a\n\n", "none": "a\nb", "leading": "  a\nb"}),
        );
        check(
            json!({"list": [], "map": {}, "nested": [[1, 2], {"a": [true, null]}], "number": 1.5, "big": 9_007_199_254_740_991_i64}),
        );
        check(
            json!({"long": "word ".repeat(60), "quote": "it's \"so\"", "tab": "a\tb", "unicode": "größe ✓", "at": "@a", "percent": "%a"}),
        );
        check(
            json!({"backstage.io/managed-by-location": "url:https://example.com/a.yaml", "a b": 1, "y": 2, "1": 3, "": 4}),
        );
    }
}
