//! Redis, and PostgreSQL, for a server that keeps its state in them: private ones, on free ports, in a directory of their
//! own.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::{Signal, geteuid};

use crate::server::{Program, free_port, pinned};

/// The databases. They are killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Databases {
    redis: Program,
    redis_url: String,
    /// With its URL.
    postgres: Option<(Program, String)>,
}

impl Databases {
    /// Starts Redis, and PostgreSQL if asked for, on the CPUs of the server, since they do a part of its work, with the
    /// settings their packages have.
    pub(crate) async fn start(cpus: &str, directory: &Path, with_postgres: bool) -> io::Result<Self> {
        let port = free_port()?;
        let words = ["redis-server", "--bind", "127.0.0.1", "--port", &port.to_string(), "--dir", &text(directory)];
        let redis = Program::start(pinned(cpus, &words), port).await?;
        let postgres = if with_postgres { Some(Self::start_postgres(cpus, directory).await?) } else { None };
        Ok(Self { redis, redis_url: format!("redis://127.0.0.1:{port}"), postgres })
    }

    async fn start_postgres(cpus: &str, directory: &Path) -> io::Result<(Program, String)> {
        let port = free_port()?;
        let programs = postgres_programs()?;
        let data = directory.join("postgres");
        fs::create_dir(&data)?;
        fs::set_permissions(directory, Permissions::from_mode(0o711))?;
        // PostgreSQL does not run as root. With another user, a process forgets the signal it is to get when its parent ends.
        let user: &[&str] = if geteuid().is_root() { &AS_POSTGRES } else { &[] };
        if !user.is_empty() {
            finish(&["chown", "postgres:postgres", &text(&data)]).await?;
        }
        let (initdb, postgres) = (text(&programs.join("initdb")), text(&programs.join("postgres")));
        let make =
            [initdb.as_str(), "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale"];
        finish(&[user, &make, &["--pgdata", &text(&data)]].concat()).await?;
        let serve = [postgres.as_str(), "-D", &text(&data), "-h", "127.0.0.1", "-p", &port.to_string()];
        let settings = ["-c", "unix_socket_directories=", "-c", "log_min_messages=fatal"];
        let postgres = Program::start(pinned(cpus, &[user, &serve, &settings].concat()), port).await?;
        Ok((postgres, format!("postgres://postgres@127.0.0.1:{port}/postgres")))
    }

    /// Where Redis is.
    pub(crate) fn redis_url(&self) -> &str {
        &self.redis_url
    }

    /// The environment of a server that uses them.
    pub(crate) fn variables(&self) -> Vec<String> {
        let postgres = self.postgres.iter().map(|(_, url)| format!("DATABASE_URL={url}"));
        [format!("REDIS_URL={}", self.redis_url)].into_iter().chain(postgres).collect()
    }

    /// Their processes, while they run.
    pub(crate) fn pids(&self) -> io::Result<Vec<u32>> {
        [&self.redis].into_iter().chain(self.postgres.iter().map(|(program, _)| program)).map(Program::pid).collect()
    }

    /// Ends them, without waiting for those who are connected.
    pub(crate) async fn stop(self) -> io::Result<()> {
        self.redis.stop(Signal::TERM).await?;
        match self.postgres {
            Some((postgres, _)) => postgres.stop(Signal::INT).await,
            None => Ok(()),
        }
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Where Debian's package has the programs of the newest version that is installed.
pub(crate) fn postgres_programs() -> io::Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql")?.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    let newest = versions.filter(|programs| programs.join("postgres").exists()).max();
    newest.ok_or_else(|| io::Error::other("PostgreSQL is not installed"))
}

/// Runs a program to its end.
async fn finish(words: &[&str]) -> io::Result<()> {
    let (program, arguments) = words.split_first().ok_or_else(|| io::Error::other("no program"))?;
    let output = tokio::process::Command::new(program).args(arguments).kill_on_drop(true).output().await?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{}: {}: {}", words.join(" "), output.status, said.trim())))
}

const AS_POSTGRES: [&str; 5] = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig=KILL"];
