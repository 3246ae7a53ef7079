//! `sim`: runs seeds of the simulator, and says which of them broke something.

mod cli;

use clap::Parser;

fn main() -> std::process::ExitCode {
    cli::Cli::parse().run()
}
