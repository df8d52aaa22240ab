//! The figures that later ones are held against, and what counts as worse.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use crate::profile::Cost;

/// `baseline.json`.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Baseline {
    /// What it was counted with: other compilers give other figures.
    pub toolchain: String,
    pub paths: BTreeMap<String, Cost>,
}

impl Baseline {
    /// Reads the file; without one, every path is unknown.
    pub(crate) fn load() -> io::Result<Self> {
        match fs::read(FILE) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn save(&self) -> io::Result<()> {
        fs::write(FILE, serde_json::to_string_pretty(self)? + "\n")
    }
}

/// How a cost compares with the baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    Same,
    /// Cheaper by more than noise: worth saving, since a later loss up to here would not show.
    Better,
    Worse,
    /// Not in the baseline.
    Unknown,
}

impl Verdict {
    pub(crate) fn of(cost: Cost, before: Option<Cost>) -> Self {
        let Some(before) = before else { return Self::Unknown };
        let instructions = cost.instructions - before.instructions;
        let allocations = cost.allocations - before.allocations;
        let tolerance = before.instructions * INSTRUCTIONS_TOLERANCE;
        if instructions > tolerance || allocations > ALLOCATIONS_TOLERANCE {
            Self::Worse
        } else if instructions < -tolerance || allocations < -ALLOCATIONS_TOLERANCE {
            Self::Better
        } else {
            Self::Same
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "",
            Self::Better => "better, rerun with --save",
            Self::Worse => "WORSE",
            Self::Unknown => "NOT IN THE BASELINE",
        })
    }
}

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.json");

/// Above what the same code varies by from run to run.
const INSTRUCTIONS_TOLERANCE: f64 = 0.03;

/// Less than one in ten operations: some allocate for several at once.
const ALLOCATIONS_TOLERANCE: f64 = 0.05;
