//! The runner of the load tests: starts servers one after the other, lets the generator measure each at the same work,
//! and writes what came of it as results.jsonl, tables and charts. `tests/load/run` builds all it needs and calls it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use tokio::signal::unix::{SignalKind, signal};

use crate::place::Place;
use crate::record::Selection;
use crate::runner::{Job, Runner};
use crate::server::Server;

mod chart;
mod databases;
mod facts;
mod figures;
mod growth;
mod markdown;
mod place;
mod product;
mod protocol;
mod record;
mod recovery;
mod runner;
mod scale;
mod server;

/// What to measure, and how much of it.
#[derive(Debug)]
struct Plan {
    selections: Vec<Selection>,
    repetitions: u32,
    /// Names of works; none is all.
    only: Vec<String>,
    /// None is all.
    peers: Vec<Server>,
    quick: bool,
}

impl Plan {
    fn new(matches: &ArgMatches) -> Self {
        let names = |name: &str| matches.get_many::<String>(name).into_iter().flatten().cloned().collect::<Vec<_>>();
        let selections = match matches.get_one::<String>("selection").map(String::as_str) {
            Some("all") | None => Selection::ALL.to_vec(),
            Some(name) => Selection::ALL.into_iter().filter(|selection| selection.name() == name).collect(),
        };
        let peers = names("peers");
        Self {
            selections,
            repetitions: matches.get_one("repetitions").copied().unwrap_or(1),
            only: names("only"),
            peers: Server::all().filter(|server| peers.iter().any(|peer| peer == server.name())).collect(),
            quick: matches.get_flag("quick"),
        }
    }

    /// Whether it measures less than its selections are: the committed results stay as they are then.
    fn is_partial(&self) -> bool {
        self.quick || !self.only.is_empty() || !self.peers.is_empty()
    }

    /// The jobs in the order in which they run. Repetitions are outermost, so that each meets another moment of the
    /// machine; what is compared follows each other, so that it meets the same one; and no server is always the first.
    fn jobs(&self, place: &Place) -> Vec<(u32, Job)> {
        let mut jobs = Vec::new();
        for repetition in 1..=self.repetitions {
            for selection in &self.selections {
                let works = match selection {
                    Selection::Protocol => protocol::jobs(self.quick),
                    Selection::Product => product::jobs(self.quick),
                    Selection::Scale => scale::jobs(self.quick, place.open_files),
                    Selection::Growth => growth::jobs(self.quick, place.open_files),
                    Selection::Recovery => recovery::jobs(self.quick),
                };
                for mut servers in works {
                    servers.retain(|job| self.wants(job));
                    let first = repetition as usize - 1;
                    if !servers.is_empty() {
                        let turn = first % servers.len();
                        servers.rotate_left(turn);
                    }
                    jobs.extend(servers.into_iter().map(|job| (repetition, job)));
                }
            }
        }
        jobs
    }

    fn wants(&self, job: &Job) -> bool {
        (self.only.is_empty() || self.only.contains(&job.work))
            && (self.peers.is_empty() || self.peers.contains(&job.server))
    }
}

fn command() -> Command {
    let selections = Selection::ALL.map(Selection::name).into_iter().chain(["all", "report"]);
    Command::new("compare")
        .about("Measures servers at the same work and compares them")
        .arg(
            Arg::new("selection")
                .default_value("all")
                .value_parser(PossibleValuesParser::new(selections))
                .help("What to measure; `report` only writes tables and charts of what was measured before"),
        )
        .arg(
            Arg::new("repetitions")
                .long("repetitions")
                .value_name("NUMBER")
                .default_value("3")
                .value_parser(value_parser!(u32).range(1..=100))
                .help("How often each is measured; tables show medians"),
        )
        .arg(list("only").value_name("WORK").help("Names of works, separated by commas, instead of all"))
        .arg(
            list("peers")
                .value_name("SERVER")
                .value_parser(PossibleValuesParser::new(Server::all().map(Server::name)))
                .help("Servers, separated by commas, instead of all"),
        )
        .arg(Arg::new("quick").long("quick").action(ArgAction::SetTrue).help("Short runs with few clients, for trying"))
        .arg(Arg::new("out").long("out").value_name("DIR").value_parser(value_parser!(PathBuf)).help(
            "Where results go [default: tests/load/results, and target/load where it is not all that is measured]",
        ))
        .arg(core("server-core", "0", "Where servers run, as `taskset` names CPUs"))
        .arg(core("load-core", "1", "Where the generator runs"))
}

fn list(name: &'static str) -> Arg {
    Arg::new(name).long(name).value_delimiter(',').action(ArgAction::Append)
}

fn core(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("CPUS").default_value(default).help(help)
}

/// Writes the tables and charts of what was measured.
fn report(directory: &Path) -> io::Result<()> {
    for selection in Selection::ALL {
        let (facts, records) = record::read(directory, selection)?;
        if records.is_empty() {
            continue;
        }
        let (file, text) = match selection {
            Selection::Protocol => ("table.md", protocol::report(&records, directory)?),
            Selection::Product => ("product.md", product::report(&records)),
            Selection::Scale => ("scale.md", scale::report(&records)),
            Selection::Growth => ("growth.md", growth::report(&records, directory)?),
            Selection::Recovery => ("recovery.md", recovery::report(&records)),
        };
        let (troubles, facts) = (markdown::troubles(&records), facts::text(&facts));
        fs::write(directory.join(file), format!("{text}\n## Failures and losses\n\n{troubles}\n{facts}"))?;
    }
    Ok(())
}

async fn compare(matches: &ArgMatches) -> io::Result<()> {
    let place = Place::new(matches)?;
    let plan = Plan::new(matches);
    let out = match matches.get_one::<PathBuf>("out") {
        Some(out) => out.clone(),
        None if plan.is_partial() => place.target.join("load"),
        None => place.source.join("results"),
    };
    if !plan.selections.is_empty() {
        let jobs = plan.jobs(&place);
        let unknown = plan.only.iter().find(|name| jobs.iter().all(|(_, job)| job.work != **name));
        if let Some(name) = unknown {
            return Err(io::Error::other(format!("no work of these servers is called {name}; README.md names them")));
        }
        if jobs.is_empty() {
            return Err(io::Error::other("none of these servers is measured there"));
        }
        let facts = facts::gather(&place, plan.quick)?;
        Runner::new(place, jobs, &out, &plan.selections, &facts)?.run().await?;
    }
    report(&out)?;
    runner::say(format_args!("results are in {}", out.display()));
    Ok(())
}

// One thread, which lives as long as the process: servers are told to end when the thread that started them ends.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let matches = command().get_matches();
    let ending = async {
        let (Ok(mut terminate), Ok(mut hangup)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
        else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    };
    // What runs is dropped then, and ends with that.
    let outcome = tokio::select! {
        outcome = compare(&matches) => outcome,
        () = ending => Err(io::Error::other("interrupted")),
    };
    outcome.map_or_else(
        |error| {
            runner::say(format_args!("compare: {error}"));
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(arguments: &[&str]) -> ArgMatches {
        command().get_matches_from([&["compare"], arguments].concat())
    }

    fn plan(arguments: &[&str]) -> Plan {
        Plan::new(&matches(arguments))
    }

    #[test]
    fn servers_take_turns_in_being_first() {
        let arguments = ["protocol", "--only", "churn", "--peers", "ours,raw,socket.io"];
        let jobs = plan(&arguments).jobs(&Place::new(&matches(&arguments)).unwrap());
        let order = jobs.iter().map(|(repetition, job)| (*repetition, job.server)).collect::<Vec<_>>();
        let [raw, ours, reference] = [Server::Raw, Server::Ours, Server::SocketIo];
        assert_eq!(
            order,
            [
                (1, raw),
                (1, ours),
                (1, reference),
                (2, ours),
                (2, reference),
                (2, raw),
                (3, reference),
                (3, raw),
                (3, ours)
            ]
        );
    }

    #[test]
    fn whatever_is_not_all_leaves_the_committed_results_alone() {
        assert!(!plan(&["protocol", "--repetitions", "5"]).is_partial());
        assert!(plan(&["all", "--quick"]).is_partial());
        assert!(plan(&["protocol", "--only", "echo"]).is_partial());
        assert!(plan(&["protocol", "--peers", "ours"]).is_partial());
    }

    #[test]
    fn all_is_every_selection_and_report_none() {
        assert_eq!(plan(&[]).selections, Selection::ALL);
        assert_eq!(plan(&["growth"]).selections, [Selection::Growth]);
        assert_eq!(plan(&["report"]).selections, []);
    }
}
