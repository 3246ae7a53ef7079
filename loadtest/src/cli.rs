//! The command line: the commands, how a report is printed, and with which exit code a run ends.

use crate::Error;
use crate::chaos::{Chaos, Recovery};
use crate::command::{
    change::Change, compare::Compare, compete::Compete, conformance::Conformance, generate::Generate, ingest::Ingest,
    kill::Kill, limit::Limit, mixed::Mixed, overload::Overload, planted::Planted, read::Read, scale::Scale,
    shuffle::Shuffle, soak::Soak,
};
use crate::report::{Output, Report, Requirement};
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Drives a running Callboard installation as an outsider, measures it and judges it
///
/// Without addresses it starts an installation of its own, servers included, and leaves nothing behind.
/// Exit codes: 0 done and everything held; 1 a check failed or a requirement was missed; 2 asked wrongly; 3 it could not be done; 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, subcommand_required = true, arg_required_else_help = true, max_term_width = 140)]
struct Cli {
    /// How the report is printed
    #[arg(long, global = true, value_enum, default_value = "table")]
    output: Output,
    /// What a figure has to be, for example 'entities_per_second>=1000'; as often as needed
    #[arg(long, global = true, value_name = "NAME>=VALUE")]
    require: Vec<Requirement>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a synthetic catalog
    Generate(Generate),
    /// Import a catalog and measure until every entity can be read
    Ingest(Ingest),
    /// Change entities of an idle catalog and measure until each change can be read
    Change(Change),
    /// Measure a reader: calls, queries, streams, watches, memory and starts
    Read(Read),
    /// Import a catalog with fresh single changes beside, then publish it again unchanged
    Mixed(Mixed),
    /// Import the same catalog with more and more workers
    Scale(Scale),
    /// Change entities for a long time and see whether memory, disk and delay stay as they are
    Soak(Soak),
    /// Offer ten times what can be taken, into small streams, and see that memory is bounded, publishers are told, and it recovers
    Overload(Overload),
    /// Measure what this machine could do at best with the same bytes
    Limit(Limit),
    /// Measure Callboard and Backstage on the same data, in turns; or compare their final entities one by one
    Compare(Compare),
    /// Judge the model: take recorded cases through the running pipeline and compare what comes of them
    Conformance(Conformance),
    /// Kill, stop, cut, wipe and fill everything while providers go on, and judge what comes of it
    Chaos(Chaos),
    /// Measure from the kill of each role and server until a change is readable again
    Recovery(Recovery),
    /// Plant each known bug in Callboard, and see that chaos catches it
    Planted(Planted),
    /// Prove that every work item takes effect exactly once
    #[command(subcommand)]
    Proof(Proof),
}

#[derive(Debug, Subcommand)]
enum Proof {
    /// Several processors and stitchers at once: every event counted once, the same catalog as with one of each
    Compete(Compete),
    /// Processors and stitchers killed in the middle, again and again: the same catalog as undisturbed
    Kill(Kill),
    /// Events overtaken, repeated and redelivered: the same catalog as in order and once
    Shuffle(Shuffle),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Command::Chaos(_) = cli.command {
        // Each of its runs waits on a thread for servers that start and commands that answer, beside which proxies and providers go on.
        builder.worker_threads(24);
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no async runtime: {error}");
            return ExitCode::from(3);
        }
    };
    // On this thread, which ends last: the processes that are started from it end with it.
    match runtime.block_on(run(&cli)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Runs the command until its end or a signal; dropping it stops whatever it had started.
async fn run(cli: &Cli) -> Result<bool, Error> {
    let listen = |kind| signal(kind).map_err(Error::io("listen for signals at", std::path::Path::new("this process")));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let report = tokio::select! {
        report = report(&cli.command) => report?,
        _ = interrupt.recv() => return Err(Error::Interrupted),
        _ = terminate.recv() => return Err(Error::Interrupted),
    };
    let Some(mut report) = report else { return Ok(true) };
    let required = cli.require.iter().try_for_each(|requirement| report.require(requirement));
    // What was measured is shown even where a requirement names nothing.
    println!("{}", report.print(cli.output).trim_end());
    required.map(|()| report.passed())
}

async fn report(command: &Command) -> Result<Option<Report>, Error> {
    match command {
        Command::Generate(generate) => generate.run().map(|()| None),
        Command::Ingest(ingest) => ingest.run().await.map(Some),
        Command::Change(change) => change.run().await.map(Some),
        Command::Mixed(mixed) => mixed.run().await.map(Some),
        Command::Scale(scale) => scale.run().await.map(Some),
        Command::Soak(soak) => soak.run().await.map(Some),
        Command::Overload(overload) => overload.run().await.map(Some),
        Command::Limit(limit) => limit.run().await.map(Some),
        Command::Compare(compare) => compare.run().await.map(Some),
        Command::Recovery(recovery) => recovery.run().await.map(Some),
        Command::Planted(planted) => planted.run().await.map(Some),
        Command::Chaos(chaos) => chaos.run().await.map(Some),
        Command::Conformance(conformance) => conformance.run().await.map(Some),
        Command::Read(read) => read.run().await.map(Some),
        Command::Proof(Proof::Compete(compete)) => compete.run().await.map(Some),
        Command::Proof(Proof::Kill(kill)) => kill.run().await.map(Some),
        Command::Proof(Proof::Shuffle(shuffle)) => shuffle.run().await.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_fits_together() {
        Cli::command().debug_assert();
    }

    fn check(line: &str, accepted: bool) {
        assert_eq!(Cli::try_parse_from(line.split(' ')).is_ok(), accepted, "{line}");
    }

    #[test]
    fn what_is_asked_wrongly_is_refused() {
        check("loadtest ingest --entities 10 --require entities_per_second>=1 --output json", true);
        check("loadtest ingest --set CALLBOARD_BATCH_EVENTS=5", true);
        check("loadtest ingest --set PATH=5", false);
        check("loadtest ingest --nats-url nats://a:1", false);
        check("loadtest ingest --nats-url nats://a:1 --grpc http://a:2", true);
        check("loadtest change --rate 0", false);
        check("loadtest change --rate 5.5 --count 1", true);
        check("loadtest change --background 1000", true);
        check("loadtest generate --entities 5 --dense --hot 3", true);
        check("loadtest mixed --rate 20", true);
        check("loadtest scale --workers 1,2,8", true);
        check("loadtest scale --workers 0", false);
        check("loadtest soak --seconds 3", false);
        check("loadtest limit --entities 10000", true);
        check("loadtest overload --times 10 --seconds 60", true);
        check("loadtest overload --seconds 0", false);
        check("loadtest chaos --minutes 0.5 --runs 2 --cluster", true);
        check("loadtest chaos --runs 0", false);
        check("loadtest proof kill --times 3", true);
        check("loadtest conformance cases --filter refs/ --jobs 4 --verbose", true);
        check("loadtest conformance cases --jobs 0", false);
        check("loadtest compare --equal --entities 10000", true);
        check("loadtest compare --rounds 0", false);
        check("loadtest proof", false);
        check("loadtest ingest --require entities_per_second", false);
    }
}
