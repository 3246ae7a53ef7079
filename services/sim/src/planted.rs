//! Whether the simulator catches each bug that can be planted, with which seed and how fast.

use catalog::planted::BUGS;
use serde_json::Value;
use std::process::{Command, ExitCode};
use std::time::Instant;

/// Bugs that are not to be seen from here, and why.
const UNSEEN: [(&str, &str); 0] = [];

/// Runs seeds with each of the bugs, until one breaks something.
pub(crate) fn run(seeds: u64, from: u64) -> ExitCode {
    if !cfg!(feature = "planted") {
        eprintln!("no bug is planted in this build: cargo run --release --package sim --features planted -- --planted");
        return ExitCode::FAILURE;
    }
    let mut missed = 0;
    for (bug, what) in BUGS {
        let began = Instant::now();
        let caught = catch(bug, seeds, from);
        let took = began.elapsed().as_secs_f64();
        let unseen = UNSEEN.iter().find(|(name, _)| *name == bug).map(|(_, why)| *why);
        match (caught, unseen) {
            (Some((seed, violation)), _) => println!("{bug}: caught by seed {seed} in {took:.1} s: {violation}"),
            (None, Some(why)) => println!("{bug}: not to be seen here ({why})"),
            (None, None) => {
                missed += 1;
                println!("{bug}: MISSED by {seeds} seeds in {took:.1} s: {what}");
            }
        }
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The bug is chosen by the environment, so each has a process of its own.
fn catch(bug: &str, seeds: u64, from: u64) -> Option<(u64, String)> {
    let program = std::env::current_exe().ok()?;
    let (seeds, from) = (seeds.to_string(), from.to_string());
    let arguments = ["--seeds", seeds.as_str(), "--from", from.as_str(), "--output", "json"];
    let output = Command::new(program).args(arguments).env("CALLBOARD_PLANTED", bug).output().ok()?;
    let told: Value = serde_json::from_slice(&output.stdout).ok()?;
    let broken = told["broken"].as_array()?.iter().min_by_key(|broken| broken["seed"].as_u64())?;
    let violation: String = broken["violations"][0].as_str().unwrap_or_default().chars().take(160).collect();
    Some((broken["seed"].as_u64()?, violation))
}
