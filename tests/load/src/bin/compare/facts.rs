//! What the figures depend on: the machine, and the versions of all that was run.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::databases::postgres_programs;
use crate::place::Place;

/// Collects them; `quick` tells that the works were made small.
pub(crate) fn gather(place: &Place, quick: bool) -> io::Result<Value> {
    let peers = place.source.join("peers");
    let postgres = postgres_programs().ok().map(|programs| programs.join("postgres").display().to_string());
    let postgres = postgres.and_then(|postgres| version(&postgres, &["--version"]));
    let versions = json!({
        "ours": version("git", &["-C", &place.source.display().to_string(), "describe", "--always", "--dirty"]),
        "tungstenite": locked(&place.source.join("../../Cargo.lock"), "tungstenite")?,
        "socketioxide": locked(&peers.join("socketioxide/Cargo.lock"), "socketioxide")?,
        "socket.io": installed(&peers.join("socket.io"), "socket.io")?,
        "ws": installed(&peers.join("socket.io"), "ws")?,
        "python-socketio": pinned(&peers.join("python-socketio/requirements.txt"), "python-socketio")?,
        "uvicorn": pinned(&peers.join("python-socketio/requirements.txt"), "uvicorn")?,
        "contract": installed(&peers.join("contract"), "socket.io")?,
        "redis": version("redis-server", &["--version"]),
        "postgres": postgres,
        "rustc": version("rustc", &["--version"]),
        "node": version("node", &["--version"]),
        "python": version(&place.target.join("load-venv/bin/python").display().to_string(), &["--version"]),
    });
    Ok(json!({
        "quick": quick,
        "cpu": field("/proc/cpuinfo", "model name")?,
        "cpus": place.cpus,
        "memory": field("/proc/meminfo", "MemTotal")?,
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        "open_files": place.open_files,
        "server_core": place.server_core,
        "load_core": place.load_core,
        "versions": versions,
    }))
}

/// The facts as a section of a report.
pub(crate) fn text(facts: &Value) -> String {
    let said = |name: &str| facts[name].as_str().map_or_else(|| facts[name].to_string(), str::to_owned);
    let versions = facts["versions"].as_object().into_iter().flatten();
    let versions = versions.map(|(name, version)| format!("{name} {}", version.as_str().unwrap_or("missing")));
    let quick = if facts["quick"] == true {
        "**A quick run: fewer clients than the titles say, and too short to tell anything.**\n\n"
    } else {
        ""
    };
    format!(
        "## Machine\n\n{quick}{} CPUs, {}; {} of memory; Linux {}; {} open files for each process. \
         Servers ran on CPU {}, the generator on CPU {}.\n\nVersions: {}.\n",
        said("cpus"),
        said("cpu"),
        said("memory"),
        said("kernel"),
        said("open_files"),
        said("server_core"),
        said("load_core"),
        versions.collect::<Vec<_>>().join(", "),
    )
}

/// The version that a program says it is of: the first word with a digit; nothing where it is missing.
fn version(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut words = said.split_whitespace();
    let word = words.find(|word| word.contains(|letter: char| letter.is_ascii_digit()))?;
    Some(word.trim_start_matches("v=").to_owned())
}

/// The value of a line `name : value`.
fn field(path: &str, name: &str) -> io::Result<Option<String>> {
    let text = fs::read_to_string(path)?;
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    Ok(lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned()))
}

/// A version in a lock file of cargo.
fn locked(path: &Path, name: &str) -> io::Result<Option<String>> {
    let text = fs::read_to_string(path)?;
    let package = format!("name = \"{name}\"");
    let version = text.lines().skip_while(|line| *line != package).nth(1);
    Ok(version.and_then(|line| line.split('"').nth(1)).map(str::to_owned))
}

/// A version in a lock file of npm.
fn installed(directory: &Path, name: &str) -> io::Result<Option<String>> {
    let lock = serde_json::from_str::<Value>(&fs::read_to_string(directory.join("package-lock.json"))?)?;
    Ok(lock["packages"][format!("node_modules/{name}")]["version"].as_str().map(str::to_owned))
}

/// A version in a list of requirements.
fn pinned(path: &Path, name: &str) -> io::Result<Option<String>> {
    let text = fs::read_to_string(path)?;
    let mut lines = text.lines().filter_map(|line| line.split_once("=="));
    Ok(lines.find(|(key, _)| *key == name).map(|(_, version)| version.to_owned()))
}
