//! The servers that are compared: how each is started, and how it ends.

use std::ffi::OsStr;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::databases::Databases;
use crate::place::Place;

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Server {
    /// The least that answers at all, on the operating system's calls.
    #[serde(rename = "raw")]
    Raw,
    /// The least that answers, on the WebSocket library that Rust servers use.
    #[serde(rename = "tungstenite")]
    Tungstenite,
    /// Ours: `socketio/examples/fanout.rs`.
    #[serde(rename = "ours")]
    Ours,
    /// `peers/socketioxide`.
    #[serde(rename = "socketioxide")]
    Socketioxide,
    /// `peers/socket.io`, the reference.
    #[serde(rename = "socket.io")]
    SocketIo,
    /// `peers/python-socketio`.
    #[serde(rename = "python-socketio")]
    PythonSocketIo,
    /// The product.
    #[serde(rename = "syncwatch")]
    Syncwatch,
    /// `peers/contract`, with Redis and PostgreSQL.
    #[serde(rename = "contract")]
    Contract,
    /// Ours with recovery.
    #[serde(rename = "ours-recovery")]
    Recovering,
    /// Three of ours with recovery, over Redis.
    #[serde(rename = "ours-recovery-redis")]
    RecoveringCluster,
    /// `peers/socket.io` with recovery.
    #[serde(rename = "socket.io-recovery")]
    RecoveringSocketIo,
}

impl Server {
    /// Those of the namespace `/bench`.
    pub(crate) const BENCHES: [Self; 6] =
        [Self::Raw, Self::Tungstenite, Self::Ours, Self::Socketioxide, Self::SocketIo, Self::PythonSocketIo];
    /// Those of the namespace `/sync`.
    pub(crate) const PRODUCTS: [Self; 2] = [Self::Syncwatch, Self::Contract];

    /// Those whose clients can come back.
    pub(crate) const RECOVERING: [Self; 3] = [Self::Recovering, Self::RecoveringCluster, Self::RecoveringSocketIo];

    pub(crate) fn all() -> impl Iterator<Item = Self> + Clone {
        Self::BENCHES.into_iter().chain(Self::PRODUCTS).chain(Self::RECOVERING)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Tungstenite => "tungstenite",
            Self::Ours => "ours",
            Self::Socketioxide => "socketioxide",
            Self::SocketIo => "socket.io",
            Self::PythonSocketIo => "python-socketio",
            Self::Syncwatch => "syncwatch",
            Self::Contract => "contract",
            Self::Recovering => "ours-recovery",
            Self::RecoveringCluster => "ours-recovery-redis",
            Self::RecoveringSocketIo => "socket.io-recovery",
        }
    }

    /// Its name with what it is, where the name alone does not tell.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Raw => "limit: raw",
            Self::Tungstenite => "limit: tungstenite",
            Self::Contract => "socket.io with Redis and PostgreSQL",
            Self::Recovering => "ours",
            Self::RecoveringCluster => "three of ours on Redis",
            Self::RecoveringSocketIo => "socket.io",
            Self::Ours | Self::Socketioxide | Self::SocketIo | Self::PythonSocketIo | Self::Syncwatch => self.name(),
        }
    }

    /// Whether it needs Redis, and whether PostgreSQL too.
    fn databases(self) -> Option<bool> {
        match self {
            Self::Contract => Some(true),
            Self::RecoveringCluster => Some(false),
            Self::Raw
            | Self::Tungstenite
            | Self::Ours
            | Self::Socketioxide
            | Self::SocketIo
            | Self::PythonSocketIo
            | Self::Syncwatch
            | Self::Recovering
            | Self::RecoveringSocketIo => None,
        }
    }

    /// How many processes it is.
    fn instances(self) -> usize {
        if self == Self::RecoveringCluster { 3 } else { 1 }
    }

    /// The command that starts it. What it may set itself is the same for all: one worker.
    fn command(self, place: &Place, port: u16, files: &Path, databases: Option<&Databases>) -> Vec<String> {
        let text = |path: PathBuf| path.display().to_string();
        let peers = place.source.join("peers");
        let port = port.to_string();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let port_variable = format!("PORT={port}");
        match self {
            Self::Raw | Self::Tungstenite => {
                words(&[&text(place.programs.join("limit")), "--kind", self.name(), "--port", &port])
            }
            Self::Ours | Self::Recovering | Self::RecoveringCluster => {
                let program = text(place.programs.join("examples/fanout"));
                let mut command = words(&[&program, "--port", &port, "--workers", "1"]);
                if self != Self::Ours {
                    command.extend(words(&["--recovery", "1"]));
                }
                command.extend(databases.into_iter().flat_map(|databases| words(&["--redis", databases.redis_url()])));
                command
            }
            Self::Socketioxide => {
                let program = text(place.target.join("socketioxide/release/syncwatch-load-socketioxide"));
                words(&[&program, "--port", &port, "--workers", "1"])
            }
            Self::SocketIo | Self::RecoveringSocketIo => {
                let program = text(peers.join("socket.io/server.mjs"));
                let mut command = words(&["env", "NODE_ENV=production", "node", &program, "--port", &port]);
                command.extend((self == Self::RecoveringSocketIo).then(|| "--recovery".to_owned()));
                command
            }
            Self::PythonSocketIo => {
                let python = text(place.target.join("load-venv/bin/python"));
                words(&[&python, &text(peers.join("python-socketio/server.py")), "--port", &port])
            }
            // On one CPU it has one worker.
            Self::Syncwatch => {
                let data = format!("DATA_DIR={}", files.display());
                let program = text(place.programs.join("syncwatch"));
                words(&["env", &port_variable, "HOST=127.0.0.1", "RUST_LOG=warn", JWT_SECRET, &data, &program])
            }
            Self::Contract => {
                let mut command = words(&["env", &port_variable, "NODE_ENV=production", JWT_SECRET]);
                command.extend(databases.into_iter().flat_map(Databases::variables));
                command.extend(words(&["node", &text(peers.join("contract/server.mjs"))]));
                command
            }
        }
    }
}

/// A server that runs. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    program: Program,
    /// Its other instances.
    others: Vec<Program>,
    databases: Option<Databases>,
    // What it keeps goes after it.
    _files: TempDir,
}

impl Running {
    /// Starts a server on a free port, and waits until it takes connections.
    pub(crate) async fn start(server: Server, place: &Place) -> io::Result<Self> {
        let (cpus, files) = (&*place.server_core, tempfile::tempdir()?);
        let databases = match server.databases() {
            Some(with_postgres) => Some(Databases::start(cpus, files.path(), with_postgres).await?),
            None => None,
        };
        let start = async || {
            let port = free_port()?;
            let words = server.command(place, port, files.path(), databases.as_ref());
            let mut command = pinned(cpus, &words);
            // No settings from a file of where this was called.
            command.current_dir(files.path());
            Program::start(command, port).await
        };
        let (program, mut others) = (start().await?, Vec::new());
        for _ in 1..server.instances() {
            others.push(start().await?);
        }
        Ok(Self { program, others, databases, _files: files })
    }

    /// What tells the generator where it is and which processes are its own.
    pub(crate) fn options(&self) -> io::Result<Vec<String>> {
        let address = |program: &Program| SocketAddr::from((Ipv4Addr::LOCALHOST, program.port)).to_string();
        let mut options = vec![("--address", address(&self.program)), ("--pid", self.program.pid()?.to_string())];
        for other in &self.others {
            options.extend([("--also", address(other)), ("--extra-pid", other.pid()?.to_string())]);
        }
        if let Some(databases) = &self.databases {
            options.extend(databases.pids()?.into_iter().map(|pid| ("--extra-pid", pid.to_string())));
        }
        Ok(options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect())
    }

    /// Ends it, and what it needed.
    pub(crate) async fn stop(self) -> io::Result<()> {
        self.program.stop(Signal::TERM).await?;
        for other in self.others {
            other.stop(Signal::TERM).await?;
        }
        match self.databases {
            Some(databases) => databases.stop().await,
            None => Ok(()),
        }
    }
}

/// A process that listens. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Program {
    process: Child,
    port: u16,
}

impl Program {
    /// Runs a command, and waits until it takes connections at a port.
    pub(crate) async fn start(mut command: Command, port: u16) -> io::Result<Self> {
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let deadline = Instant::now() + STARTING;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
            if let Some(status) = process.try_wait()? {
                return Err(io::Error::other(format!("it did not start: {status}")));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("it does not listen after {STARTING:?}")));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { process, port })
    }

    /// Its process, while it runs.
    pub(crate) fn pid(&self) -> io::Result<u32> {
        self.process.id().ok_or_else(|| io::Error::other("it has ended"))
    }

    /// Ends it: asks with a signal first, and kills it when that does not help.
    pub(crate) async fn stop(mut self, signal: Signal) -> io::Result<()> {
        if let Some(status) = self.process.try_wait()? {
            return Err(io::Error::other(format!("it ended by itself: {status}")));
        }
        let pid = i32::try_from(self.pid()?).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            kill_process(pid, signal)?;
        }
        if timeout(STOPPING, self.process.wait()).await.is_err() {
            self.process.kill().await?;
        }
        Ok(())
    }
}

/// A command that runs on some CPUs only, and ends when the runner does, however that ends.
pub(crate) fn pinned(cpus: &str, words: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "taskset", "--cpu-list", cpus]).args(words).kill_on_drop(true);
    command
}

/// A port that is free now.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// An interpreter with many modules takes a second or two.
const STARTING: Duration = Duration::from_secs(30);
/// Ten thousand connections take a moment to close.
const STOPPING: Duration = Duration::from_secs(5);
const JWT_SECRET: &str = "JWT_SECRET=that of a server that lives for seconds";
