//! The one executable: configuration, telemetry, a subcommand a role, and the operator's commands.
fn main() {}
