//! The command line: what each command is for, with examples.

use crate::config::Config;
use crate::config_file;
use crate::failure::Failure;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// Reads the command line, the environment and the settings' file. Help and errors of the command line end the program here.
///
/// # Errors
/// [`Failure::Usage`] for settings that are wrong or do not fit together.
pub fn parse() -> Result<(Config, Command), Failure> {
    let mut cli = read(Cli::command());
    if let Some(file) = cli.config.config.take() {
        cli = read(config_file::apply(Cli::command(), &file)?);
    }
    cli.config.check()?;
    Ok((cli.config, cli.command))
}

fn read(command: clap::Command) -> Cli {
    let matches = command.get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Callboard: a software catalog that many programs write and all can read, as a pipeline over NATS JetStream
#[derive(Parser)]
#[command(name = "callboard", version, subcommand_required = true, arg_required_else_help = true, after_help = TOUR, max_term_width = 140)]
pub struct Cli {
    /// The settings.
    #[command(flatten)]
    pub config: Config,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const TOUR: &str = "Every setting is a flag, an environment variable and a key of a file: `callboard help up` lists them.";

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Run everything in one process, with a broker and a database of its own where none is given
    #[command(after_help = UP)]
    Up,
    /// Run a processor: takes events, merges claims, asks for stitching. Add as many as you like
    #[command(after_help = ROLE)]
    Processor,
    /// Run a stitcher: builds final entities and publishes them. Add as many as you like
    #[command(after_help = ROLE)]
    Stitcher,
    /// Run a scheduler: the periodic tasks, each on one host at a time. A second one stands by
    #[command(after_help = ROLE)]
    Scheduler,
    /// Run a reader: the whole catalog in memory, served over gRPC. Needs the broker alone
    #[command(after_help = ROLE)]
    Reader,
}

const UP: &str = "Examples:
  callboard up                                        with servers and data in .callboard
  callboard up --grpc-listen 127.0.0.1:0 --http-listen 127.0.0.1:0
  callboard up --nats-url nats://broker:4222 --database-url postgres://callboard:…@db/callboard

While it runs, `callboard status`, `callboard list` and the others in the same directory find it by themselves.
Ctrl-C (SIGINT) or SIGTERM finishes what is in hand, within 10 s; a second one ends it at once.";

const ROLE: &str = "Examples:
  CALLBOARD_NATS_URL=nats://broker:4222 CALLBOARD_DATABASE_URL=postgres://callboard:…@db/callboard callboard processor
  callboard reader --nats-url nats://broker:4222 --grpc-listen 0.0.0.0:7070

A role waits for a broker or a database that is away, at its start too. SIGTERM finishes or gives back what it holds, within 10 s.";
