//! The binary under test, as a process of its own on a free port with a data directory of its own.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

use crate::{SECRET, within};

const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(30);
const READY: &str = "SyncWatch is ready: http://127.0.0.1:";
/// Lines of the log that are kept; a flood of logs must not become a flood of memory.
const LOG_LINES: usize = 50_000;
/// Variables handed down to the binary; all others are the test's to set.
const INHERITED: [&str; 4] = ["PATH", "HOME", "TMPDIR", "LLVM_PROFILE_FILE"];

/// A running server. It is killed, and its data removed, when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    port: u16,
    log: Log,
    env: Vec<(String, String)>,
    data: TempDir,
}

type Log = Arc<Mutex<VecDeque<String>>>;

impl Server {
    /// Starts a server with the settings of the suite.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts a server with these settings on top.
    pub async fn with(env: &[(&str, &str)]) -> Self {
        raise_file_limit();
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>();
        let data = tempfile::Builder::new().prefix("syncwatch-rs-").tempdir().unwrap();
        let log = Log::default();
        let (child, port) = launch(data.path(), &env, &log).await;
        Self { child, port, log, env, data }
    }

    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Its directory of data.
    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// Memory held by the process, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let pid = self.child.id().expect("the server runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a running process has VmRSS");
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Whether the process is still there.
    pub fn is_up(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Everything logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().iter().cloned().collect()
    }

    /// The lines that tell of an error of the server's own: level ERROR, or a panic.
    pub fn log_lines_above_warn(&self) -> Vec<String> {
        self.log()
            .into_iter()
            .filter(|line| level(line).as_deref() == Some("ERROR") || line.contains("panicked at"))
            .collect()
    }

    /// Fails if the log has an error, the signing secret or one of `secrets`.
    ///
    /// # Panics
    /// With the offending lines.
    pub fn assert_calm(&self, secrets: &[&str]) {
        assert_eq!(self.log_lines_above_warn(), Vec::<String>::new(), "nothing a client sends is the server's error");
        for line in self.log() {
            for secret in secrets.iter().chain([&SECRET]) {
                assert!(!line.contains(secret), "a secret is logged: {line}");
            }
        }
    }

    /// Ends the process as by the kernel's hand: nothing is flushed or said.
    pub async fn kill_hard(&mut self) {
        within(STOP, "the end of a killed process", self.child.kill()).await.unwrap();
    }

    /// Asks for a graceful stop and answers how the process ended.
    pub async fn terminate(&mut self) -> ExitStatus {
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.try_into().unwrap())) {
            kill_process(pid, Signal::TERM).unwrap();
        }
        within(STOP, "the end after SIGTERM", self.child.wait()).await.unwrap()
    }

    /// Starts again on the same data, after [`kill_hard`](Self::kill_hard) or [`terminate`](Self::terminate).
    pub async fn restart(&mut self) {
        (self.child, self.port) = launch(self.data.path(), &self.env, &self.log).await;
    }
}

/// Runs the binary to its end with these arguments and nothing but these settings.
pub async fn run<S: AsRef<OsStr>>(args: &[S], env: &[(&str, &str)], dir: &Path) -> Output {
    let mut command = command(dir);
    command.args(args).envs(env.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
    within(START, "the end of a run", command.output()).await.unwrap()
}

/// The binary: `SYNCWATCH_BIN`, else a release build, made once.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("SYNCWATCH_BIN") {
            return path.into();
        }
        let output = std::process::Command::new(env!("CARGO"))
            .args(["build", "--release", "-p", "syncwatch", "--message-format=json-render-diagnostics"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "the binary does not build");
        let lines = String::from_utf8(output.stdout).unwrap();
        let executable = lines
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)));
        executable.expect("cargo names the binary it built")
    })
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(binary());
    // Run in the data directory, so that no `.env` of the checkout is read.
    command.current_dir(dir).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command
}

async fn launch(dir: &Path, env: &[(String, String)], log: &Log) -> (Child, u16) {
    let mut command = command(dir);
    command.env("HOST", "127.0.0.1").env("PORT", "0").env("DATA_DIR", dir).env("JWT_SECRET", SECRET);
    command.envs(env.iter().map(|(name, value)| (name, value))).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    keep_log(child.stderr.take().unwrap(), Arc::clone(log));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (ready, port) = oneshot::channel();
    tokio::spawn(async move {
        let mut ready = Some(ready);
        while let Ok(Some(line)) = lines.next_line().await {
            let port =
                line.strip_prefix(READY).and_then(|rest| rest.strip_suffix('/')).and_then(|port| port.parse().ok());
            if let (Some(port), Some(ready)) = (port, ready.take()) {
                let _ = ready.send(port);
            }
        }
    });
    match within(START, "the ready line on stdout", port).await {
        Ok(port) => (child, port),
        Err(_) => {
            let status = child.wait().await.unwrap();
            panic!("the server ended before it was ready, {status}: {:#?}", log.lock().unwrap())
        }
    }
}

fn keep_log(stderr: impl AsyncRead + Unpin + Send + 'static, log: Log) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let mut log = log.lock().unwrap();
            if log.len() == LOG_LINES {
                log.pop_front();
            }
            log.push_back(line);
        }
    });
}

fn level(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    Some(line.get("level")?.as_str()?.to_uppercase())
}

/// A thousand clients are two thousand sockets; many shells allow half of that.
fn raise_file_limit() {
    static RAISED: LazyLock<()> = LazyLock::new(|| {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).unwrap();
    });
    LazyLock::force(&RAISED);
}
