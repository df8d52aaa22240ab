//! The command line of the load generator: `load MODE --address HOST:PORT --pid PID`, one line of JSON as answer.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Command;
use rustix::process::{Resource, getrlimit, setrlimit};
use syncwatch_load::options::Options;
use syncwatch_load::report::{Report, progress};
use syncwatch_load::{avalanche, bulk, cast, churn, echo, idle, jitter, polling, room};
use tokio::runtime::{Builder, LocalOptions};

/// Measures once.
async fn run(mode: &str, options: &Options) -> io::Result<Report> {
    match mode {
        avalanche::NAME => avalanche::run(options).await,
        bulk::NAME => bulk::run(options).await,
        cast::NAME => cast::run(options).await,
        churn::NAME => churn::run(options).await,
        echo::NAME => echo::run(options).await,
        idle::NAME => idle::run(options).await,
        jitter::NAME => jitter::run(options).await,
        polling::NAME => polling::run(options).await,
        room::NAME => room::run(options).await,
        unknown => Err(io::Error::other(format!("no mode {unknown}"))),
    }
}

fn command() -> Command {
    Command::new("load")
        .about("Measures a Socket.IO server; progress goes to standard error, the figures as JSON to standard output")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            avalanche::command(),
            bulk::command(),
            cast::command(),
            churn::command(),
            echo::command(),
            idle::command(),
            jitter::command(),
            polling::command(),
            room::command(),
        ])
}

/// Allows as many open files as the system lets us have.
fn raise_open_files() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

fn measure() -> io::Result<()> {
    let mut matches = command().get_matches();
    let (mode, matches) = matches.remove_subcommand().expect("clap asks for one");
    let options = Options::new(matches);
    raise_open_files()?;
    // One thread for all, so that the generator takes one core at most.
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let report = runtime.block_on(run(&mode, &options))?;
    if report.is_empty() {
        return Err(io::Error::other("the server did nothing that could be measured"));
    }
    writeln!(io::stdout(), "{}", report.to_json(&mode, &options))
}

fn main() -> ExitCode {
    measure().map_or_else(
        |error| {
            progress(format_args!("load: {error}"));
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
