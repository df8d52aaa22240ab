//! A private PostgreSQL.

use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process, kill_process_group};
use tempfile::TempDir;

use crate::certificates::{AUTHORITY, CERTIFICATE, KEY, make_certificates};
use crate::finish;
use crate::process::Process;

/// A PostgreSQL of its own, with the user `postgres` and the database `postgres`. It is killed when this is dropped.
#[derive(Debug)]
pub struct Postgres {
    directory: TempDir,
    programs: PathBuf,
    port: u16,
    tls: bool,
    server: Option<Process>,
}

impl Postgres {
    /// Makes a cluster and starts it. Blocks until it takes connections.
    ///
    /// # Errors
    /// Where PostgreSQL is not installed or does not start; the message says what it said.
    pub fn start() -> io::Result<Self> {
        Self::start_in(tempfile::tempdir()?, false)
    }

    /// The same, speaking TLS with a certificate of an [authority](Self::authority) of its own.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_tls() -> io::Result<Self> {
        let directory = tempfile::tempdir()?;
        make_certificates(directory.path())?;
        Self::start_in(directory, true)
    }

    fn start_in(directory: TempDir, tls: bool) -> io::Result<Self> {
        let programs = programs()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let data = directory.path().join(DATA);
        let password = directory.path().join("password");
        fs::create_dir(&data)?;
        fs::write(&password, PASSWORD)?;
        if geteuid().is_root() {
            // The directory is walked through by the user the server runs as.
            fs::set_permissions(directory.path(), Permissions::from_mode(0o711))?;
            let key = tls.then(|| directory.path().join(KEY));
            finish(Command::new("chown").arg("postgres:postgres").args([&data, &password]).args(key))?;
        }
        let mut make = as_postgres(&programs.join("initdb"));
        make.args(["--no-sync", "--auth=scram-sha-256", "--username=postgres", "--encoding=UTF8", "--no-locale"]);
        finish(make.arg("--pwfile").arg(&password).arg("--pgdata").arg(&data))?;
        let mut postgres = Self { directory, programs, port, tls, server: None };
        postgres.serve()?;
        Ok(postgres)
    }

    /// Where it is, with the password.
    pub fn url(&self) -> String {
        let mode = if self.tls { "?sslmode=require" } else { "" };
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/postgres{mode}", self.port)
    }

    /// The PEM file with the authority that signed its certificate, of one that speaks TLS.
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join(AUTHORITY)
    }

    /// Answers a query: a line for each row, its fields with `|` between them.
    ///
    /// # Errors
    /// Where it fails; the message says why.
    pub fn query(&self, sql: &str) -> io::Result<String> {
        let mut ask = Command::new(self.programs.join("psql"));
        ask.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--command", sql, &self.url()]);
        let output = ask.stdin(Stdio::null()).output()?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Ends it as an administrator in a hurry does: connections are closed, nothing is lost.
    ///
    /// # Errors
    /// Where it cannot be told.
    pub fn stop(&mut self) -> io::Result<()> {
        self.running()?.signal(Signal::INT)?;
        self.reap()
    }

    /// Ends all its processes at once, like a crash.
    ///
    /// # Errors
    /// Where they cannot be told.
    pub fn kill(&mut self) -> io::Result<()> {
        self.signal_all(Signal::KILL)?;
        self.reap()
    }

    /// Starts it again, on the same port, with what it has stored. One that runs is stopped first.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn restart(&mut self) -> io::Result<()> {
        if self.server.is_some() {
            self.stop()?;
        }
        self.serve()
    }

    /// Stops all its processes where they are, until [`resume`](Self::resume).
    ///
    /// # Errors
    /// Where they cannot be told.
    pub fn pause(&self) -> io::Result<()> {
        self.signal_all(Signal::STOP)
    }

    /// Lets its processes go on.
    ///
    /// # Errors
    /// Where they cannot be told.
    pub fn resume(&self) -> io::Result<()> {
        self.signal_all(Signal::CONT)
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut serve = as_postgres(&self.programs.join("postgres"));
        serve.arg("-D").arg(self.directory.path().join(DATA));
        serve.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-c", "unix_socket_directories="]);
        // No test takes the power away.
        serve.args(["-c", "fsync=off", "-c", "log_min_messages=fatal"]).stderr(Stdio::null());
        if self.tls {
            let file = |name: &str| self.directory.path().join(name).display().to_string();
            serve.args(["-c", "ssl=on", "-c", &format!("ssl_cert_file={}", file(CERTIFICATE))]);
            serve.args(["-c", &format!("ssl_key_file={}", file(KEY))]);
        }
        self.server = Some(Process::start(serve)?);
        let began = Instant::now();
        while !self.is_ready() {
            let ended = self.server.as_mut().map(Process::ended).transpose()?.flatten();
            if ended.is_some() || began.elapsed() > START_WITHIN {
                return Err(io::Error::other("PostgreSQL does not start"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        let mut ask = Command::new(self.programs.join("pg_isready"));
        ask.args(["--quiet", "--host=127.0.0.1", "--timeout=1", &format!("--port={}", self.port)]);
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
            && ask.status().is_ok_and(|status| status.success())
    }

    fn running(&self) -> io::Result<&Process> {
        self.server.as_ref().ok_or_else(|| io::Error::other("PostgreSQL does not run"))
    }

    /// PostgreSQL makes every process of its own a leader of a group, so that each is told by itself.
    fn signal_all(&self, signal: Signal) -> io::Result<()> {
        let main = self.running()?.pid()?;
        let children = children(main)?;
        kill_process(main, signal)?;
        for child in children {
            // One that has ended meanwhile needs no signal.
            let _gone = kill_process_group(child, signal);
        }
        Ok(())
    }

    fn reap(&mut self) -> io::Result<()> {
        self.server.take().map_or(Ok(()), Process::reap)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.server.is_some() {
            let _ended = self.kill();
        }
    }
}

/// Where Debian's package has the programs of the newest version that is installed.
fn programs() -> io::Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql")?.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    let newest = versions.filter(|programs| programs.join("postgres").exists()).max();
    newest.ok_or_else(|| io::Error::other("PostgreSQL is not installed"))
}

/// A command of PostgreSQL, which does not run as root.
fn as_postgres(program: &Path) -> Command {
    let mut command = if geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig=KILL", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn children(of: Pid) -> io::Result<Vec<Pid>> {
    let pid = of.as_raw_nonzero();
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(listed.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)).collect())
}

const DATA: &str = "data";

/// Not a secret: the cluster lives for one test. There is one so that a wrong one can be tried.
const PASSWORD: &str = "not-a-secret";

const START_WITHIN: Duration = Duration::from_secs(30);
