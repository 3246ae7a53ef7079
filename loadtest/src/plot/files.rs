//! Where plots go: a directory, in which runs of several sizes add up to one plot of what each size costs.

use super::{Axis, Line, Plot, Scale};
use crate::Error;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Whether, and where, a run draws what it measured.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Plots {
    /// Draw what was measured, as SVG files in this directory
    #[arg(long = "plots", value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Values by the name of a figure and the size of the run.
type BySize = BTreeMap<String, BTreeMap<usize, f64>>;

impl Plots {
    /// Whether anything is drawn.
    pub fn is_asked(&self) -> bool {
        self.directory.is_some()
    }

    /// Writes a plot as `name.svg`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn draw(&self, name: &str, plot: &Plot) -> Result<(), Error> {
        match &self.directory {
            None => Ok(()),
            Some(directory) => write(&directory.join(format!("{name}.svg")), &plot.svg()),
        }
    }

    /// Adds a run's values to those of other sizes in `name.json`, and draws all of them as `name.svg`.
    ///
    /// # Errors
    /// A file cannot be read or written, or holds something else.
    pub fn draw_by_size(
        &self,
        name: &str,
        size: usize,
        label: &'static str,
        values: &[(String, f64)],
    ) -> Result<(), Error> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let path = directory.join(format!("{name}.json"));
        let mut all = read(&path)?;
        for (figure, value) in values {
            all.entry(figure.clone()).or_default().insert(size, *value);
        }
        write(&path, &format!("{:#}\n", serde_json::json!(all)))?;
        let line = |(name, values): (String, BTreeMap<usize, f64>)| Line {
            name,
            points: values.into_iter().map(|(size, value)| (size as f64, value)).collect(),
        };
        let x = Axis { label: "entities", scale: Scale::Log };
        let y = Axis { label, scale: Scale::Log };
        self.draw(name, &Plot { title: name.replace('-', " "), x, y, lines: all.into_iter().map(line).collect() })
    }
}

fn read(path: &Path) -> Result<BySize, Error> {
    match std::fs::read(path) {
        Ok(text) => {
            serde_json::from_slice(&text).map_err(|error| Error::Usage(format!("--plots: {}: {error}", path.display())))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BySize::new()),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(Error::io("make", directory))?;
    }
    std::fs::write(path, text).map_err(Error::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_several_sizes_add_up() {
        let directory = tempfile::tempdir().unwrap();
        let plots = Plots { directory: Some(directory.path().join("plots")) };
        let add = |size, value| plots.draw_by_size("read-by-size", size, "milliseconds", &[("page".to_owned(), value)]);
        add(1000, 1.0).unwrap();
        add(100_000, 3.0).unwrap();
        add(1000, 2.0).unwrap();
        let found = read(&directory.path().join("plots/read-by-size.json")).unwrap();
        assert_eq!(found["page"], BTreeMap::from([(1000, 2.0), (100_000, 3.0)]));
        let svg = std::fs::read_to_string(directory.path().join("plots/read-by-size.svg")).unwrap();
        assert_eq!(svg.matches("<circle").count(), 2, "{svg}");
        std::fs::write(directory.path().join("plots/read-by-size.json"), "[]").unwrap();
        assert!(add(1000, 1.0).unwrap_err().to_string().contains("read-by-size.json"));
    }

    #[test]
    fn without_a_directory_nothing_is_drawn() {
        assert!(!Plots::default().is_asked());
        Plots::default().draw_by_size("a", 1, "b", &[]).unwrap();
    }
}
