//! Counts the instructions and allocations of the hot paths and holds them against a baseline.
//!
//! ```text
//! cargo run --release -p syncwatch-instructions               every path, held against baseline.json
//! cargo run --release -p syncwatch-instructions -- echo send  the paths with one of these words in their names
//! cargo run --release -p syncwatch-instructions -- --save     makes what is counted the baseline
//! ```
//!
//! Each path runs in a process of its own under valgrind's callgrind, and only what [`count`] is given counts: the same
//! code gives the same figures on a busy machine as on an idle one, but for what sockets and timers make: 0.3 %, and now and
//! then a turn more where something else had the CPU. So what seems worse is measured again, and the least counts. What
//! `callgrind_annotate --inclusive=yes` reads stays in `instructions/` beside the binary, in the files `*.2-01`.

mod baseline;
mod codecs;
mod profile;
mod turns;

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::io::{self, Write as _};
use std::path::Path as FilePath;
use std::process::{self, Command, ExitCode, Output};

use crate::baseline::{Baseline, Verdict};
use crate::profile::Cost;

/// A hot path: does what one operation needs, then has as many as it is told [`count`]ed.
struct Path {
    name: &'static str,
    /// So many that what is left of the preparation (a queue that grows once, say) does not show.
    operations: u32,
    run: fn(u32) -> !,
}

fn paths() -> impl Iterator<Item = &'static Path> {
    codecs::PATHS.iter().chain(turns::PATHS)
}

/// Has operations counted, of this thread alone, and ends the process.
fn count(operations: &mut dyn FnMut()) -> ! {
    mark();
    operations();
    mark();
    process::exit(0)
}

/// Where callgrind writes what it has counted so far and begins anew.
#[inline(never)]
fn mark() {
    black_box(());
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut save = false;
    let mut words = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--save" => save = true,
            // How this program calls itself.
            RUN => {
                let name = arguments.next().unwrap_or_default();
                let path = paths().find(|path| path.name == name).ok_or("no such path")?;
                (path.run)(path.operations)
            }
            _ => words.push(argument),
        }
    }
    let chosen = paths().filter(|path| words.is_empty() || words.iter().any(|word| path.name.contains(word.as_str())));
    compare(chosen, save)
}

/// Counts every path and writes a line of a Markdown table for each.
fn compare<'a>(paths: impl Iterator<Item = &'a Path>, save: bool) -> Result<ExitCode, Box<dyn Error>> {
    let mut out = io::stdout();
    let toolchain = toolchain()?;
    let mut baseline = Baseline::load()?;
    let (mut passed, mut failed) = (0, 0);
    writeln!(out, "| per operation | instructions | before | allocations | before | |\n|---|--:|--:|--:|--:|---|")?;
    for path in paths {
        let before = baseline.paths.get(path.name).copied();
        let mut cost = measure(path)?;
        for _ in 1..TRIES {
            if Verdict::of(cost, before) != Verdict::Worse {
                break;
            }
            let again = measure(path)?;
            if again.instructions < cost.instructions {
                cost = again;
            }
        }
        let verdict = Verdict::of(cost, before);
        baseline.paths.insert(path.name.to_owned(), cost);
        match verdict {
            Verdict::Worse | Verdict::Unknown => failed += 1,
            Verdict::Same | Verdict::Better => passed += 1,
        }
        let (name, Cost { instructions, allocations }) = (path.name, cost);
        let (instructions_before, allocations_before) =
            before.map_or_else(Default::default, |cost| (cost.instructions.to_string(), cost.allocations.to_string()));
        writeln!(
            out,
            "| {name} | {instructions} | {instructions_before} | {allocations} | {allocations_before} | {verdict} |"
        )?;
    }
    if passed + failed == 0 {
        return Err("no path has such a name".into());
    }
    if save {
        baseline.toolchain = toolchain;
        baseline.paths.retain(|name, _| self::paths().any(|path| path.name == name));
        baseline.save()?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "\n{passed} passed, {failed} failed")?;
    if failed == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    if baseline.toolchain != toolchain {
        writeln!(out, "The baseline is of {}, this is {toolchain}.", baseline.toolchain)?;
        writeln!(out, "Rerun with --save on the commit before your change, then compare with that.")?;
    }
    writeln!(out, "If the cost is meant, rerun with --save and commit baseline.json.")?;
    Ok(ExitCode::FAILURE)
}

/// How often a path that seems worse is measured.
const TRIES: u32 = 3;

/// Runs one path under callgrind.
fn measure(path: &Path) -> Result<Cost, Box<dyn Error>> {
    let this = std::env::current_exe()?;
    let profiles = this.with_file_name("instructions");
    fs::create_dir_all(&profiles)?;
    let profile = profiles.join(path.name.replace(|letter: char| !letter.is_alphanumeric(), "-"));
    output(
        Command::new("valgrind")
            .args([
                "--quiet",
                "--tool=callgrind",
                "--separate-threads=yes",
                "--dump-before=syncwatch_instructions::mark*",
            ])
            .arg(format!("--callgrind-out-file={}", profile.display()))
            .arg(this)
            .args([RUN, path.name]),
    )?;
    // Of its second part, the first thread.
    let counted = profile.with_extension("2-01");
    Ok(Cost::from_profile(&fs::read_to_string(counted)?, path.operations).ok_or("callgrind counted nothing")?)
}

/// What else decides on the figures.
fn toolchain() -> Result<String, Box<dyn Error>> {
    let mut versions = Vec::new();
    for tool in ["rustc", "valgrind"] {
        let version =
            output(Command::new(tool).arg("--version").current_dir(FilePath::new(env!("CARGO_MANIFEST_DIR"))))?;
        versions.push(String::from_utf8(version.stdout)?.trim().to_owned());
    }
    Ok(versions.join(", "))
}

fn output(command: &mut Command) -> Result<Output, Box<dyn Error>> {
    let program = command.get_program().to_owned();
    let output = command.output().map_err(|error| format!("{}: {error}", program.display()))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(format!("{}: {}: {}", program.display(), output.status, String::from_utf8_lossy(&output.stderr)).into())
}

const RUN: &str = "--run";
