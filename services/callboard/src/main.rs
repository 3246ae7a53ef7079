//! The one executable `callboard`: a subcommand a role, `up` and `demo` with all of them, and the operator's commands.

mod addresses;
mod catalog_file;
mod cli;
mod commands;
mod config;
mod config_file;
mod config_values;
mod example;
mod failure;
mod health;
mod http;
mod input;
mod operator;
mod output;
mod process;
mod publishing;
mod roles;
mod scrape;
mod telemetry;
mod units;

use cli::Command;
use failure::Failure;
use roles::Role;
use std::process::ExitCode;

/// The C library's allocator took a quarter of the processor's time. Without huge pages (`no_thp`): where a page of two megabytes has to be cleared, a reader stands still,
/// which made its p99 five times as long, and a million entities take 200 MiB less.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = cli::parse().and_then(|(config, command)| run(&config, command));
    outcome.map_or_else(Failure::tell, |()| ExitCode::SUCCESS)
}

fn run(config: &config::Config, command: Command) -> Result<(), Failure> {
    match command {
        Command::Up => commands::up::run(config),
        Command::Demo(args) => commands::demo::run(config, &args),
        Command::Processor => commands::role::run(config, Role::Processor),
        Command::Stitcher => commands::role::run(config, Role::Stitcher),
        Command::Scheduler => commands::role::run(config, Role::Scheduler),
        Command::Reader => commands::role::run(config, Role::Reader),
        Command::Publish(args) => commands::publish::run(config, &args),
        Command::Delete(args) => commands::delete::run(config, &args),
        Command::Remove(args) => commands::delete::remove(config, &args),
        Command::Get(args) => commands::get::run(config, &args),
        Command::List(args) => commands::list::run(config, &args),
        Command::Watch(args) => commands::watch::run(config, &args),
        Command::Status => commands::status::run(config),
        Command::Conflicts => commands::conflicts::run(config),
        Command::Snapshots(args) => commands::snapshots::run(config, args.command.as_ref()),
        Command::Errors => commands::errors::run(config),
        Command::DeadLetters(args) => commands::dead_letters::run(config, &args),
        Command::Verify(args) => commands::verify::run(config, &args),
        Command::Rebuild(args) => commands::verify::rebuild(config, &args),
    }
}
