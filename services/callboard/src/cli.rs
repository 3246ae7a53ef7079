//! The command line: what each command is for, and what it takes.

mod help;

use crate::config::Config;
use crate::config_file;
use crate::failure::Failure;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::path::PathBuf;

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
#[command(name = "callboard", version, subcommand_required = true, arg_required_else_help = true, after_help = help::TOUR, max_term_width = 140)]
pub struct Cli {
    /// The settings.
    #[command(flatten)]
    pub config: Config,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Run everything in one process, with a broker and a database of its own where none is given
    #[command(after_help = help::UP)]
    Up,
    /// Run everything, publish an example catalog, and show what came of it
    #[command(after_help = help::DEMO)]
    Demo(DemoArgs),
    /// Run a processor: takes events, merges claims, asks for stitching. Add as many as you like
    #[command(after_help = help::ROLE)]
    Processor,
    /// Run a stitcher: builds final entities and publishes them. Add as many as you like
    #[command(after_help = help::ROLE)]
    Stitcher,
    /// Run a scheduler: the periodic tasks, each on one host at a time. A second one stands by
    #[command(after_help = help::ROLE)]
    Scheduler,
    /// Run a reader: the whole catalog in memory, served over gRPC. Needs the broker alone
    #[command(after_help = help::ROLE)]
    Reader,
    /// Check and publish entities from files, directories or stdin
    #[command(after_help = help::PUBLISH)]
    Publish(PublishArgs),
    /// Withdraw a provider's claims on entities
    #[command(after_help = help::DELETE)]
    Delete(DeleteArgs),
    /// Remove entities, whoever claims them; what still emits one brings it back, as a new one
    #[command(after_help = help::REMOVE)]
    Remove(RemoveArgs),
    /// Show one entity
    #[command(after_help = help::GET)]
    Get(GetArgs),
    /// List the entities that match a filter
    #[command(after_help = help::LIST)]
    List(ListArgs),
    /// Show what changes, until Ctrl-C
    #[command(after_help = help::WATCH)]
    Watch(WatchArgs),
    /// Show how much there is, how much waits, how long it waits, and what is wrong
    #[command(after_help = help::STATUS)]
    Status,
    /// List snapshots (what a provider sent as all that it has), approve or discard those that are held
    #[command(after_help = help::SNAPSHOTS)]
    Snapshots(SnapshotsArgs),
    /// List claims that lose to another location key, with both sides
    #[command(after_help = help::CONFLICTS)]
    Conflicts,
    /// List entities whose newest content failed
    #[command(after_help = help::ERRORS)]
    Errors,
    /// List, show, replay or drop messages that could never be handled
    #[command(after_help = help::DEAD_LETTERS)]
    DeadLetters(DeadLettersArgs),
    /// Compare the database, the entity stream and a reader, entity by entity; changes nothing
    #[command(after_help = help::VERIFY)]
    Verify(VerifyArgs),
    /// Publish every entity again from the database, while everything serves
    #[command(after_help = help::REBUILD)]
    Rebuild(RebuildArgs),
}

/// How the demo is run.
#[derive(Args)]
pub struct DemoArgs {
    /// End after what is shown, with exit code 0; for scripts
    #[arg(long)]
    pub once: bool,
    /// Begin with an empty catalog: the data of earlier runs goes
    #[arg(long)]
    pub fresh: bool,
}

/// What is published, and in whose name.
#[derive(Args)]
pub struct PublishArgs {
    /// YAML or JSON files of many documents; directories, searched for *.yaml, *.yml and *.json; - for stdin
    #[arg(required = true, value_name = "FILE|DIR|-")]
    pub paths: Vec<PathBuf>,
    /// The provider in whose name they are published: 1 to 128 bytes
    #[arg(long, default_value = "cli", value_name = "NAME", value_parser = provider)]
    pub provider: String,
    /// The location key of their claims: who has the same one is the same source of an entity; 1 to 2048 bytes
    #[arg(long, value_name = "KEY", value_parser = location_key)]
    pub location_key: Option<String>,
    /// This is all that the provider has: what it published before and is not among these is withdrawn
    #[arg(long, conflicts_with = "check")]
    pub snapshot: bool,
    /// Of one entity: the revision that it replaces, as `get` shows it; refused if the entity has moved on. 0: it must not be there
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(i64).range(0..), conflicts_with = "snapshot")]
    pub expected_revision: Option<i64>,
    /// Check only; publish nothing
    #[arg(long)]
    pub check: bool,
    /// Wait until a reader shows them, five minutes at most
    #[arg(long)]
    pub wait: bool,
}

/// What is done with snapshots.
#[derive(Args)]
pub struct SnapshotsArgs {
    /// Without one they are listed
    #[command(subcommand)]
    pub command: Option<SnapshotsCommand>,
}

/// What an operator says of a snapshot.
#[derive(Subcommand)]
pub enum SnapshotsCommand {
    /// Withdraw what a held snapshot left out, all the same
    Approve(SnapshotArgs),
    /// Let a held snapshot, or one that is not complete, withdraw nothing
    Discard(SnapshotArgs),
}

/// Which snapshot.
#[derive(Args)]
pub struct SnapshotArgs {
    /// Its id
    #[arg(value_name = "ID")]
    pub id: String,
    /// Its provider, where several have used the id
    #[arg(long, value_name = "NAME", value_parser = provider)]
    pub provider: Option<String>,
}

/// What is removed.
#[derive(Args)]
pub struct RemoveArgs {
    /// Entity refs: kind:namespace/name, the namespace `default` where it is left out
    #[arg(required = true, value_name = "REF")]
    pub refs: Vec<String>,
    /// Wait until a reader shows it, five minutes at most
    #[arg(long)]
    pub wait: bool,
}

/// What is withdrawn, and in whose name.
#[derive(Args)]
pub struct DeleteArgs {
    /// Entity refs: kind:namespace/name, the namespace `default` where it is left out
    #[arg(required = true, value_name = "REF")]
    pub refs: Vec<String>,
    /// The provider whose claims are withdrawn
    #[arg(long, default_value = "cli", value_name = "NAME", value_parser = provider)]
    pub provider: String,
    /// Wait until a reader has them, five minutes at most
    #[arg(long)]
    pub wait: bool,
}

/// What is shown.
#[derive(Args)]
pub struct GetArgs {
    /// Entity ref: kind:namespace/name, the namespace `default` where it is left out
    #[arg(value_name = "REF")]
    pub entity_ref: String,
    /// Answer only with what includes this revision, as `publish` printed it
    #[arg(long, default_value_t = 0, value_name = "REVISION")]
    pub at_least_revision: i64,
}

/// What is listed.
#[derive(Args)]
pub struct ListArgs {
    /// Backstage's filter, conditions that must all hold: key=value,key=value,key. Of several --filter one must hold
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,
    /// Backstage's predicates as JSON, for example '{"kind": "component", "$not": {"spec.type": "service"}}'
    #[arg(long, value_name = "JSON")]
    pub query: Option<String>,
    /// Only entities with a value that contains this text
    #[arg(long, value_name = "TEXT")]
    pub text: Option<String>,
    /// Where the text is looked for, for example metadata.title; as often as needed
    #[arg(long, value_name = "FIELD", requires = "text")]
    pub text_field: Vec<String>,
    /// In the order of this field, for example spec.type or metadata.name:desc; as often as needed, the first counts most
    #[arg(long, value_name = "FIELD[:desc]")]
    pub order_by: Vec<String>,
    /// This many entities at most
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<u64>,
}

/// What is watched.
#[derive(Args)]
pub struct WatchArgs {
    /// Backstage's filter, as for `list`: what enters it is a change, what leaves it a deletion
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,
    /// Backstage's predicates as JSON, as for `list`
    #[arg(long, value_name = "JSON")]
    pub query: Option<String>,
    /// Begin with the entities as they are
    #[arg(long)]
    pub all: bool,
    /// Go on where an earlier watch of the same filter stopped: the `resume` of its last line of JSON
    #[arg(long, value_name = "TOKEN", conflicts_with = "all")]
    pub resume: Option<String>,
}

/// What is done with dead letters.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DeadLettersArgs {
    /// Which are listed where no action is named.
    #[command(flatten)]
    pub filter: LettersFilter,
    /// What to do.
    #[command(subcommand)]
    pub action: Option<LettersAction>,
}

/// What to do with dead letters.
#[derive(Subcommand)]
pub enum LettersAction {
    /// List them, newest first
    List(LettersFilter),
    /// Show one, with its headers and the original
    Show {
        /// Its number, as the list has it
        #[arg(value_name = "LETTER")]
        letter: u64,
    },
    /// Publish the originals again as new events, and drop the letters; refused where the provider has spoken of the entity since
    Replay(LettersChosen),
    /// Remove them for good
    Drop(LettersChosen),
}

/// Which letters.
#[derive(Args)]
pub struct LettersFilter {
    /// Of this stage: processor or stitcher
    #[arg(long, value_name = "STAGE")]
    pub stage: Option<String>,
    /// Of this provider
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// Whose reason contains this text
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// This many at most: 1 to 10,000
    #[arg(long, default_value = "50", value_name = "COUNT", value_parser = letters)]
    pub limit: usize,
}

/// Which letters something is done with.
#[derive(Args)]
pub struct LettersChosen {
    /// Their numbers, as the list has them
    #[arg(value_name = "LETTER", required_unless_present_any = ["stage", "provider", "reason"])]
    pub letters: Vec<u64>,
    /// Or all of these.
    #[command(flatten)]
    pub filter: LettersFilter,
}

/// What is compared.
#[derive(Args)]
pub struct VerifyArgs {
    /// Leave the reader out: compare the database and the stream alone
    #[arg(long)]
    pub no_reader: bool,
}

/// How a rebuild is asked for.
#[derive(Args)]
pub struct RebuildArgs {
    /// Wait until every entity was published again, ten minutes at most
    #[arg(long)]
    pub wait: bool,
}

fn provider(text: &str) -> Result<String, String> {
    (1..=128).contains(&text.len()).then(|| text.to_owned()).ok_or_else(|| "expected 1 to 128 bytes".to_owned())
}

fn location_key(text: &str) -> Result<String, String> {
    let fits = (1..=2048).contains(&text.len()) && !text.contains(char::is_control);
    fits.then(|| text.to_owned()).ok_or_else(|| "expected 1 to 2048 bytes without control characters".to_owned())
}

fn letters(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| (1..=10_000).contains(number)).ok_or_else(|| "expected 1 to 10000".to_owned())
}
