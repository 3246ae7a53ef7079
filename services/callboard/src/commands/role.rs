//! `callboard processor`, `stitcher`, `scheduler`, `reader`: one role, with servers that are given.

use crate::config::Config;
use crate::failure::Failure;
use crate::roles::Role;
use crate::{process, roles, telemetry};

/// Runs a role until SIGTERM or SIGINT.
///
/// # Errors
/// What is given is wrong, or the role failed.
pub fn run(config: &Config, role: Role) -> Result<(), Failure> {
    roles::check(role, config)?;
    let runtime = super::runtime()?;
    let telemetry = {
        let _within = runtime.enter();
        telemetry::start(config, "info", &role.to_string())?
    };
    let outcome = runtime.block_on(async {
        let mut process = process::start(config, &[role], &telemetry, None).await?;
        let ended = process.until_ended().await;
        ended.and(process.stop().await)
    });
    telemetry.stop();
    outcome
}
