//! Where things are: what was built, the sources of the peers, and the CPUs that servers and generator run on.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use clap::ArgMatches;
use rustix::process::{Resource, getrlimit};

/// Where things are.
#[derive(Debug)]
pub(crate) struct Place {
    /// `tests/load`.
    pub(crate) source: PathBuf,
    /// Where cargo and `tests/load/run` build.
    pub(crate) target: PathBuf,
    /// Where the programs of this build are.
    pub(crate) programs: PathBuf,
    /// The CPUs of a server, as `taskset` takes them.
    pub(crate) server_core: String,
    /// The CPUs of the generator.
    pub(crate) load_core: String,
    /// How many CPUs there are.
    pub(crate) cpus: u16,
    /// How many files a process may have open.
    pub(crate) open_files: u64,
}

impl Place {
    pub(crate) fn new(matches: &ArgMatches) -> io::Result<Self> {
        let program = env::current_exe()?;
        let up = |levels| program.ancestors().nth(levels).map(Path::to_owned).unwrap_or_default();
        let text = |name| matches.get_one::<String>(name).cloned().unwrap_or_default();
        Ok(Self {
            source: Path::new(env!("CARGO_MANIFEST_DIR")).to_owned(),
            target: up(2),
            programs: up(1),
            server_core: text("server-core"),
            load_core: text("load-core"),
            cpus: available_parallelism().map_or(1, |cpus| u16::try_from(cpus.get()).unwrap_or(u16::MAX)),
            open_files: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
        })
    }
}
