//! `loadtest generate`: writes a synthetic catalog.

use crate::Error;
use crate::generate::Catalog;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Entities in one file.
const FILE_ENTITIES: usize = 1000;

/// What to write.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Generate {
    #[command(flatten)]
    catalog: Catalog,
    /// A directory for files of 1,000 entities, which are YAML too; or -: one JSON object a line
    #[arg(long, value_name = "DIR|-", default_value = "-")]
    out: PathBuf,
}

impl Generate {
    /// Writes them.
    pub fn run(&self) -> Result<(), Error> {
        match self.out.as_os_str() == "-" {
            true => self.to_stdout(),
            false => self.to_directory(),
        }
    }

    fn to_stdout(&self) -> Result<(), Error> {
        let mut out = BufWriter::new(io::stdout().lock());
        let mut write = || {
            for entity in self.catalog.generate() {
                writeln!(out, "{entity}")?;
            }
            out.flush()
        };
        match write() {
            // Whoever read it has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(Error::io("write", Path::new("standard output"))),
        }
    }

    fn to_directory(&self) -> Result<(), Error> {
        fs::create_dir_all(&self.out).map_err(Error::io("create", &self.out))?;
        let mut entities = self.catalog.generate();
        for number in 0..self.catalog.entities.div_ceil(FILE_ENTITIES) {
            let path = self.out.join(format!("entities-{number:05}.yaml"));
            let mut write = || {
                let mut out = BufWriter::new(File::create(&path)?);
                for entity in entities.by_ref().take(FILE_ENTITIES) {
                    writeln!(out, "---\n{entity}")?;
                }
                out.flush()
            };
            write().map_err(Error::io("write", &path))?;
        }
        Ok(())
    }
}
