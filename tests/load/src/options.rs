//! The options: those of every mode, and numbers of which a mode declares its own.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::{Map, Value};

use crate::client::Target;
use crate::proc::Process;

/// A mode's command with the options all modes have, measuring for `seconds` unless told otherwise.
pub fn command(name: &'static str, about: &'static str, seconds: &'static str) -> Command {
    Command::new(name).about(about).args([
        Arg::new("address")
            .long("address")
            .value_name("HOST:PORT")
            .required(true)
            .value_parser(value_parser!(SocketAddr))
            .help("Where the server listens"),
        Arg::new("pid")
            .long("pid")
            .value_name("PID")
            .required(true)
            .value_parser(value_parser!(u32))
            .help("The server's process, or the parent of its processes"),
        Arg::new("label").long("label").value_name("NAME").default_value("").help("What the report calls the server"),
        time("warmup", "1", "Seconds of load before the measuring"),
        time("seconds", seconds, "Seconds to measure for"),
    ])
}

/// An option that takes a whole number, at least 1.
pub fn number(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    let parser = value_parser!(u64).range(1..=u64::from(u32::MAX));
    Arg::new(name).long(name).value_name("NUMBER").default_value(default).value_parser(parser).help(help)
}

/// An option that names a process beside the server, as its database; it may be given several times.
pub fn beside() -> Arg {
    Arg::new(BESIDE)
        .long(BESIDE)
        .value_name("PID")
        .action(ArgAction::Append)
        .value_parser(value_parser!(u32))
        .help("A process beside the server, as its database, or the parent of its processes")
}

/// An option that names another instance of the server; it may be given several times.
pub fn also() -> Arg {
    Arg::new(ALSO)
        .long(ALSO)
        .value_name("HOST:PORT")
        .action(ArgAction::Append)
        .value_parser(value_parser!(SocketAddr))
        .help("Where another instance of the server listens")
}

/// An option that takes seconds.
pub fn time(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    let parser = |text: &str| match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("allowed is a number of seconds up to a day"),
    };
    Arg::new(name).long(name).value_name("SECONDS").default_value(default).value_parser(parser).help(help)
}

/// What the options of a mode were set to.
#[derive(Debug, Clone)]
pub struct Options(ArgMatches);

impl Options {
    /// Takes what [`command`] has matched.
    pub fn new(matches: ArgMatches) -> Self {
        Self(matches)
    }

    /// An option made by [`number`].
    pub fn number(&self, name: &str) -> usize {
        self.0.get_one::<u64>(name).map_or(0, |number| usize::try_from(*number).unwrap_or(usize::MAX))
    }

    /// An option that takes text, if it is given or has a default.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get_one::<String>(name).map(String::as_str)
    }

    /// What the report calls the server.
    pub fn label(&self) -> &str {
        self.text("label").unwrap_or_default()
    }

    /// The namespace of a server, at the usual path.
    pub fn target(&self, namespace: &str) -> Target {
        let address = *self.0.get_one("address").expect("it is required");
        Target { address, path: "/socket.io/".to_owned(), namespace: namespace.to_owned() }
    }

    /// The namespace of all instances of a server.
    pub fn targets(&self, namespace: &str) -> Vec<Target> {
        let first = self.target(namespace);
        let others = self.0.try_get_many::<SocketAddr>(ALSO).ok().flatten().into_iter().flatten();
        let others = others.map(|address| Target { address: *address, ..first.clone() }).collect::<Vec<_>>();
        [vec![first], others].concat()
    }

    /// The server's process.
    pub fn server(&self) -> Process {
        Process::new(*self.0.get_one("pid").expect("it is required"))
    }

    /// An option that takes any number, if it is given.
    pub fn float(&self, name: &str) -> Option<f64> {
        self.0.get_one(name).copied()
    }

    /// The processes beside the server.
    pub fn beside(&self) -> Vec<Process> {
        let pids = self.0.try_get_many::<u32>(BESIDE).ok().flatten();
        pids.map(|pids| pids.map(|&pid| Process::new(pid)).collect()).unwrap_or_default()
    }

    /// For how long to load before the measuring.
    pub fn warmup(&self) -> Duration {
        self.time("warmup")
    }

    /// For how long to measure.
    pub fn seconds(&self) -> Duration {
        self.time("seconds")
    }

    /// An option made by [`time`].
    pub fn time(&self, name: &str) -> Duration {
        Duration::from_secs_f64(*self.0.get_one(name).expect("it has a default"))
    }

    /// All options that are counts or times, for the report.
    pub fn params(&self) -> Map<String, Value> {
        let count = |name| self.0.try_get_one::<u64>(name).ok().flatten().map(|&number| Value::from(number));
        let time = |name| self.0.try_get_one::<f64>(name).ok().flatten().map(|&seconds| Value::from(seconds));
        self.0
            .ids()
            .filter_map(|id| Some((id.to_string(), count(id.as_str()).or_else(|| time(id.as_str()))?)))
            .collect()
    }
}

const BESIDE: &str = "extra-pid";
const ALSO: &str = "also";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn params_are_the_numbers_of_a_mode() {
        let command = command("echo", "", "5").arg(number("clients", "50", ""));
        let matches = command.get_matches_from(["echo", "--address", "127.0.0.1:1", "--pid", "7", "--seconds", "0.5"]);
        let options = Options::new(matches);
        assert_eq!(Value::from(options.params()), json!({"clients": 50, "seconds": 0.5, "warmup": 1.0}));
        assert_eq!((options.number("clients"), options.seconds()), (50, Duration::from_millis(500)));
    }
}
