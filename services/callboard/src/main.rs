//! The one executable `callboard`: a subcommand a role, `up` and `demo` with all of them, and the operator's commands.

mod addresses;
mod cli;
mod commands;
mod config;
mod config_file;
mod failure;
mod health;
mod http;
mod process;
mod roles;
mod telemetry;
mod units;

use cli::Command;
use failure::Failure;
use roles::Role;
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = cli::parse().and_then(|(config, command)| run(&config, command));
    outcome.map_or_else(Failure::tell, |()| ExitCode::SUCCESS)
}

fn run(config: &config::Config, command: Command) -> Result<(), Failure> {
    match command {
        Command::Up => commands::up::run(config),
        Command::Processor => commands::role::run(config, Role::Processor),
        Command::Stitcher => commands::role::run(config, Role::Stitcher),
        Command::Scheduler => commands::role::run(config, Role::Scheduler),
        Command::Reader => commands::role::run(config, Role::Reader),
    }
}
