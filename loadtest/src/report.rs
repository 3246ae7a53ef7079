//! What a run found: figures, checks, and whether what was required was reached; as a table or as JSON.

use crate::Error;
use crate::plot::Line;
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs: one object; its names are stable.
    Json,
}

/// What a run found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    title: String,
    /// Which part of the run is reported now; empty: the whole.
    part: &'static str,
    figures: Vec<Figure>,
    checks: Vec<Check>,
    notes: Vec<String>,
    /// Each row as long as the first, which is the header.
    rows: Vec<Vec<String>>,
    /// Distributions, for plots alone.
    curves: Vec<Line>,
    /// Only in the JSON.
    details: Map<String, Value>,
}

#[derive(Clone, Debug)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
}

#[derive(Clone, Debug)]
struct Check {
    name: String,
    expected: String,
    found: String,
    passed: bool,
}

impl Report {
    /// An empty report.
    pub fn new(title: impl Into<String>) -> Report {
        Report { title: title.into(), ..Report::default() }
    }

    /// Has the names of what is added from now on say that it is of this part of the run.
    pub fn part(&mut self, part: &'static str) {
        self.part = part;
    }

    /// Adds a figure; the name says what it is and, where it is no count, ends with its unit.
    pub fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        let name = match self.part {
            "" => name.into(),
            part => format!("{}_{}", part.replace(' ', "_"), name.into()),
        };
        self.figures.push(Figure { name, value, unit });
    }

    /// Adds a check of a count.
    pub fn equal(&mut self, name: impl Into<String>, expected: f64, found: f64) {
        self.check(name, expected == found, plain(expected), plain(found));
    }

    /// Adds a check.
    pub fn check(
        &mut self,
        name: impl Into<String>,
        passed: bool,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        let name = match self.part {
            "" => name.into(),
            part => format!("{part}: {}", name.into()),
        };
        self.checks.push(Check { name, expected: expected.into(), found: found.into(), passed });
    }

    /// Adds what another report has.
    pub fn add(&mut self, other: Report) {
        self.figures.extend(other.figures);
        self.checks.extend(other.checks);
        self.notes.extend(other.notes);
        self.curves.extend(other.curves);
    }

    /// Adds a sentence.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Adds a distribution, for plots alone.
    pub fn curve(&mut self, curve: Line) {
        self.curves.push(curve);
    }

    /// The distributions that were added.
    pub fn curves(&self) -> &[Line] {
        &self.curves
    }

    /// The figures whose names end so, without that end.
    pub fn figures_ending(&self, end: &str) -> Vec<(String, f64)> {
        let of = |figure: &Figure| Some((figure.name.strip_suffix(end)?.to_owned(), figure.value));
        self.figures.iter().filter_map(of).collect()
    }

    /// Adds a table of counts: what they are of in the first column.
    pub fn table(&mut self, header: &[&str], rows: Vec<Vec<String>>) {
        self.rows = std::iter::once(header.iter().map(|name| (*name).to_owned()).collect()).chain(rows).collect();
    }

    /// Adds what only programs want to know.
    pub fn detail(&mut self, name: &str, value: Value) {
        self.details.insert(name.to_owned(), value);
    }

    /// Checks a figure against what was required of it.
    ///
    /// # Errors
    /// [`Error::Usage`] when there is no figure of that name.
    pub fn require(&mut self, requirement: &Requirement) -> Result<(), Error> {
        let Some(figure) = self.figures.iter().find(|figure| figure.name == requirement.name) else {
            let names: Vec<&str> = self.figures.iter().map(|figure| figure.name.as_str()).collect();
            return Err(Error::Usage(format!("--require {}: expected one of {}", requirement.name, names.join(", "))));
        };
        let Figure { name, value, unit } = figure.clone();
        // The figure's own name says which part it is of.
        self.part = "";
        let expected = format!("{} {} {unit}", requirement.comparison.sign(), plain(requirement.bound));
        self.check(name, requirement.holds(value), expected.trim(), format!("{} {unit}", plain(value)).trim());
        Ok(())
    }

    /// Whether every check passed.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }

    /// The report as it is printed.
    pub fn print(&self, output: Output) -> String {
        match output {
            Output::Table => self.text(),
            Output::Json => format!("{:#}", self.json()),
        }
    }

    fn text(&self) -> String {
        let mut table = format!("{}\n", self.title);
        let width = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
        let names = width(&mut self.figures.iter().map(|figure| figure.name.len()));
        let values = width(&mut self.figures.iter().map(|figure| plain(figure.value).len()));
        for Figure { name, value, unit } in &self.figures {
            let line = format!("  {name:names$}  {:>values$} {unit}", plain(*value));
            let _ = writeln!(table, "{}", line.trim_end());
        }
        table.push_str(&self.grid());
        let names = width(&mut self.checks.iter().map(|check| check.name.len()));
        let expectations = width(&mut self.checks.iter().map(|check| check.expected.len()));
        for check in &self.checks {
            let verdict = if check.passed { "ok    " } else { "FAILED" };
            let _ = writeln!(
                table,
                "  {verdict}  {:names$}  expected {:expectations$}  found {}",
                check.name, check.expected, check.found
            );
        }
        for note in &self.notes {
            let _ = writeln!(table, "  {note}");
        }
        table
    }

    fn grid(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let widths: Vec<usize> =
            (0..columns).map(|column| self.rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
        let mut grid = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
                0 => format!("{cell:width$}"),
                _ => format!("{cell:>width$}"),
            });
            let _ = writeln!(grid, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        grid
    }

    fn json(&self) -> Value {
        let figures: Map<String, Value> =
            self.figures.iter().map(|figure| (figure.name.clone(), json!(rounded(figure.value)))).collect();
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|check| json!({ "name": check.name, "expected": check.expected, "found": check.found, "passed": check.passed }))
            .collect();
        let mut json = json!({ "title": self.title, "figures": figures, "checks": checks, "notes": self.notes, "passed": self.passed() });
        if let Some((header, rows)) = self.rows.split_first() {
            let row = |row: &Vec<String>| header.iter().cloned().zip(row.iter().map(|cell| json!(cell))).collect();
            json["table"] = rows.iter().map(|cells| Value::Object(row(cells))).collect();
        }
        for (name, value) in &self.details {
            json[name] = value.clone();
        }
        json
    }
}

/// At most three digits after the point, fewer the larger it is.
fn rounded(value: f64) -> f64 {
    let digits = match value.abs() {
        1000.0.. => 1.0,
        100.0.. => 10.0,
        10.0.. => 100.0,
        _ => 1000.0,
    };
    (value * digits).round() / digits
}

fn plain(value: f64) -> String {
    rounded(value).to_string()
}

/// What a figure has to be: `name>=value`.
#[derive(Clone, Debug, PartialEq)]
pub struct Requirement {
    name: String,
    comparison: Comparison,
    bound: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    AtLeast,
    AtMost,
    Above,
    Below,
    Equal,
}

/// Longer signs first, so that `>=` is not read as `>`.
const COMPARISONS: [Comparison; 5] =
    [Comparison::AtLeast, Comparison::AtMost, Comparison::Equal, Comparison::Above, Comparison::Below];

impl Comparison {
    fn sign(self) -> &'static str {
        match self {
            Comparison::AtLeast => ">=",
            Comparison::AtMost => "<=",
            Comparison::Above => ">",
            Comparison::Below => "<",
            Comparison::Equal => "==",
        }
    }
}

impl Requirement {
    fn holds(&self, value: f64) -> bool {
        match self.comparison {
            Comparison::AtLeast => value >= self.bound,
            Comparison::AtMost => value <= self.bound,
            Comparison::Above => value > self.bound,
            Comparison::Below => value < self.bound,
            Comparison::Equal => value == self.bound,
        }
    }
}

impl std::str::FromStr for Requirement {
    type Err = String;

    fn from_str(text: &str) -> Result<Requirement, String> {
        let split = COMPARISONS.iter().find_map(|comparison| Some((*comparison, text.split_once(comparison.sign())?)));
        let (comparison, (name, bound)) =
            split.ok_or_else(|| format!("expected name>=value (or <=, >, <, ==), found {text}"))?;
        let bound = bound
            .trim()
            .parse()
            .map_err(|_| format!("expected a number after {}, found {bound}", comparison.sign()))?;
        Ok(Requirement { name: name.trim().to_owned(), comparison, bound })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(requirement: &str, expected: Option<bool>) {
        let mut report = Report::new("a run");
        report.figure("entities_per_second", 2500.04, "1/s");
        let required = requirement.parse().map(|requirement| report.require(&requirement));
        assert_eq!(matches!(required, Ok(Ok(()))).then(|| report.passed()), expected, "{requirement}");
    }

    #[test]
    fn a_requirement_holds_or_not() {
        check("entities_per_second>=2500", Some(true));
        check("entities_per_second >= 2501", Some(false));
        check("entities_per_second<3000", Some(true));
        check("entities_per_second>3000", Some(false));
        check("entities_per_second<=2500", Some(false));
        check("entities_per_second==2500.04", Some(true));
        check("entities_per_second=5", None);
        check("entities_per_second>=many", None);
        check("entitys_per_second>=1", None);
    }

    #[test]
    fn a_report_is_a_table_or_json() {
        let mut report = Report::new("a run");
        report.figure("seconds", 1.23456, "s");
        report.equal("events", 3.0, 2.0);
        report.note("one is missing");
        assert_eq!(
            report.print(Output::Table),
            "a run\n  seconds  1.235 s\n  FAILED  events  expected 3  found 2\n  one is missing\n"
        );
        let json: Value = serde_json::from_str(&report.print(Output::Json)).unwrap();
        assert_eq!(json["figures"]["seconds"], 1.235);
        assert_eq!(json["passed"], false);
        assert_eq!(json["checks"][0]["found"], "2");
    }
}
