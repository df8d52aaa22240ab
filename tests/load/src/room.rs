//! `room`: what it costs to join the rooms of the `/sync` contract, to play in them, and to leave them.
//!
//! Works with any server that keeps the contract and lets guests create rooms: each room's first member comes with the
//! token that its creation has brought and is its owner, all others are guests.

use std::io;

use clap::{Arg, Command, value_parser};

use crate::options::{self, Options, number};
use crate::report::Report;

pub mod fill;
pub mod member;

mod churn;
mod rest;
mod stay;
mod steer;

/// The mode's name.
pub const NAME: &str = "room";

const JOIN: &str = "join";
const COMMAND: &str = "command";
const CHURN: &str = "churn";
const STAY: &str = "stay";

/// The mode's options.
pub fn command() -> Command {
    options::command(NAME, "Rooms of the /sync contract", "5").args([
        Arg::new("scenario").long("scenario").value_name("NAME").required(true).value_parser([JOIN, COMMAND, CHURN, STAY]).help(
            "join: everybody joins, once; command: owners seek, and an operation is an event that reaches a member; \
             churn: members join and leave again and again; stay: everybody joins and does nothing",
        ),
        number("rooms", "100", "How many rooms"),
        number("members", "10", "Connections for each room, of which one is its owner's"),
        outstanding(),
        Arg::new(steer::RATE).long(steer::RATE).value_name("PER_SECOND").value_parser(value_parser!(f64)).help(
            "Commands of each room a second, whether or not the last has reached everyone; without it a room's next one \
             follows when all members have the one before, at most ten a second, which is what the contract allows",
        ),
        options::beside(),
    ])
}

/// An option for how many joins may wait for their answer.
pub(crate) fn outstanding() -> Arg {
    number(fill::OUTSTANDING, "64", "Joins that wait for their answer at a time")
}

/// Plays the scenario.
///
/// # Errors
/// Rooms cannot be created, the clients cannot connect or join, or the server is gone.
pub async fn run(options: &Options) -> io::Result<Report> {
    let scenario = options.text("scenario").unwrap_or_default();
    let mut report = match scenario {
        COMMAND => steer::run(options).await?,
        CHURN => churn::run(options).await?,
        STAY => stay::run(options).await?,
        _ => fill::run(options).await?,
    };
    report.more.insert("scenario".to_owned(), scenario.into());
    Ok(report)
}
