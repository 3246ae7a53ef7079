//! The command: which seeds, on how many threads, and what is said of them.

use clap::{Parser, ValueEnum};
use serde_json::json;
use sim::{Outcome, run_after, run_seed};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Simulates the whole pipeline, a seed after the other: the real processors, stitchers, schedulers and readers over twins of the broker and
/// the database in memory, on one thread and a clock of its own. Calls are late, lost or repeated, processes die and stand still, the
/// broker restarts and forgets. At rest everything has to be what one sequential run of the accepted events gives.
///
///   cargo sim -- --seeds 2000           seeds 1 to 2000; ends with 1 if one of them broke something, and says how to see it again
///   cargo sim -- --seeds 500 --from 7000
///   cargo sim -- --seed 17 --trace      one seed, with all that happened in it
///
/// A seed gives the same run each time, told by its trace hash, as long as the code is the same.
#[derive(Parser)]
#[command(name = "sim", verbatim_doc_comment)]
pub(crate) struct Cli {
    /// How many seeds to run.
    #[arg(long, value_name = "N", default_value_t = 200)]
    seeds: u64,
    /// The first of them.
    #[arg(long, value_name = "S", default_value_t = 1)]
    from: u64,
    /// Run this one alone.
    #[arg(long, value_name = "S", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// As it was after so many other runs: a seed that broke something says which number that is.
    #[arg(long, value_name = "N", requires = "seed", default_value_t = 0)]
    after: u64,
    /// Print what happened, line by line: seconds, and what it was.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Of each bug that can be planted, run seeds until one breaks something; the build has to have the feature `planted`.
    #[arg(long, conflicts_with_all = ["seed", "trace", "keep_going"])]
    planted: bool,
    /// Go on after a seed that broke something.
    #[arg(long)]
    keep_going: bool,
    /// Seeds at once; each has a thread of its own.
    #[arg(long, value_name = "N", default_value_t = std::thread::available_parallelism().map_or(1, |count| count.get() as u64))]
    threads: u64,
    /// How the outcome is told.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// What all seeds together came to.
#[derive(Default)]
struct Sum {
    seeds: u64,
    events: u64,
    happenings: u64,
    seconds: f64,
    broken: Vec<Outcome>,
}

impl Cli {
    pub fn run(self) -> ExitCode {
        if self.planted {
            return crate::planted::run(self.seeds, self.from);
        }
        let began = Instant::now();
        let sum = match self.seed {
            Some(seed) => self.one(seed),
            None => self.all(began),
        };
        self.tell(&sum, began.elapsed().as_secs_f64());
        if sum.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn one(&self, seed: u64) -> Sum {
        let outcome = run_after(seed, self.trace, self.after);
        for line in &outcome.trace {
            println!("{line}");
        }
        if self.output == Output::Text {
            println!("seed {seed}: trace hash {:016x} over {} happenings", outcome.trace_hash, outcome.happenings);
        }
        let mut sum = Sum::default();
        sum.add(outcome);
        sum
    }

    fn all(&self, began: Instant) -> Sum {
        let (next, is_broken) = (AtomicU64::new(self.from), AtomicBool::new(false));
        let end = self.from.saturating_add(self.seeds);
        let sum = Mutex::new(Sum::default());
        let work = || {
            while !is_broken.load(Relaxed) || self.keep_going {
                let seed = next.fetch_add(1, Relaxed);
                if seed >= end {
                    return;
                }
                let outcome = run_seed(seed, false);
                if !outcome.violations.is_empty() {
                    is_broken.store(true, Relaxed);
                    if self.output == Output::Text {
                        explain(&outcome);
                    }
                }
                let mut sum = sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                sum.add(outcome);
                self.progress(&sum, began);
            }
        };
        std::thread::scope(|scope| (0..self.threads.max(1)).for_each(|_| drop(scope.spawn(work))));
        sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn progress(&self, sum: &Sum, began: Instant) {
        if sum.seeds.is_multiple_of(50) && self.output == Output::Text && std::io::stderr().is_terminal() {
            let rate = sum.seeds as f64 / began.elapsed().as_secs_f64();
            eprint!("\r{} of {} seeds, {rate:.0} a second, {} broken ", sum.seeds, self.seeds, sum.broken.len());
        }
    }

    fn tell(&self, sum: &Sum, took: f64) {
        match self.output {
            Output::Text => println!(
                "{} seeds, {} events, {:.0} simulated seconds in {took:.1} s: {}",
                sum.seeds,
                sum.events,
                sum.seconds,
                if sum.broken.is_empty() { "all held".to_owned() } else { format!("{} broken", sum.broken.len()) }
            ),
            Output::Json => {
                let broken: Vec<_> = sum.broken.iter().map(|outcome| json!({"seed": outcome.seed, "violations": outcome.violations, "replay": replay(outcome)})).collect();
                println!(
                    "{}",
                    json!({"seeds": sum.seeds, "events": sum.events, "happenings": sum.happenings, "simulatedSeconds": sum.seconds, "seconds": took, "broken": broken})
                );
            }
        }
        if self.seed.is_some() && self.output == Output::Text {
            sum.broken.iter().for_each(explain);
        }
    }
}

impl Sum {
    fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        self.happenings += outcome.happenings;
        self.seconds += outcome.seconds;
        if !outcome.violations.is_empty() {
            self.broken.push(outcome);
        }
    }
}

fn explain(outcome: &Outcome) {
    println!("seed {} is broken (trace hash {:016x}):", outcome.seed, outcome.trace_hash);
    for violation in &outcome.violations {
        println!("  {violation}");
    }
    println!("  see it again: {}", replay(outcome));
}

fn replay(Outcome { seed, after, .. }: &Outcome) -> String {
    format!("cargo sim -- --seed {seed} --after {after} --trace")
}
