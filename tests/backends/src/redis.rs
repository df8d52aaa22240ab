//! A private Redis and a private Redis Cluster.

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::certificates::{AUTHORITY, CERTIFICATE, KEY, make_certificates};
use crate::finish;
use crate::process::Process;

/// A Redis of its own, which stores nothing on disk. It is killed when this is dropped.
#[derive(Debug)]
pub struct Redis {
    directory: TempDir,
    port: u16,
    arguments: Vec<String>,
    tls: bool,
    server: Option<Process>,
}

impl Redis {
    /// Starts one with a default configuration. Blocks until it takes commands, like the two below.
    ///
    /// # Errors
    /// Where Redis is not installed or does not start; the message says what it said.
    pub fn start() -> io::Result<Self> {
        Self::start_with(&[])
    }

    /// Starts one with more arguments of `redis-server`, such as `["--requirepass", "secret"]`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(arguments: &[&str]) -> io::Result<Self> {
        let directory = tempfile::tempdir()?;
        Self::start_in(directory, arguments.iter().map(|&argument| argument.to_owned()).collect(), false)
    }

    /// Starts one that speaks TLS only. Its certificate is for `localhost` and `127.0.0.1`, from the authority in
    /// [`authority`](Self::authority).
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_tls() -> io::Result<Self> {
        let directory = tempfile::tempdir()?;
        make_certificates(directory.path())?;
        let mut arguments = words("--tls-auth-clients no");
        for (argument, file) in
            [("--tls-ca-cert-file", AUTHORITY), ("--tls-cert-file", CERTIFICATE), ("--tls-key-file", KEY)]
        {
            arguments.extend([argument.to_owned(), directory.path().join(file).display().to_string()]);
        }
        Self::start_in(directory, arguments, true)
    }

    fn start_in(directory: TempDir, arguments: Vec<String>, tls: bool) -> io::Result<Self> {
        let mut redis = Self { directory, port: 0, arguments, tls, server: None };
        // Whoever else asks for a free port may be quicker.
        let mut tries = 1..=PORTS_TRIED;
        loop {
            let last = tries.next().is_none_or(|tried| tried == PORTS_TRIED);
            redis.port = free_port()?;
            match redis.serve() {
                Err(refused) if !last && refused.kind() == io::ErrorKind::AddrInUse => {}
                served => return served.map(|()| redis),
            }
        }
    }

    /// Where it is, with the password.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let password = self.password().map(|password| format!(":{password}@")).unwrap_or_default();
        format!("{scheme}://{password}127.0.0.1:{}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The PEM file with the authority that signed its certificate, of one that speaks TLS.
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join(AUTHORITY)
    }

    /// Runs `redis-cli` with these arguments and answers what it prints. Blocks while the server is paused.
    ///
    /// # Errors
    /// Where it cannot run or the command fails; the message says what it said.
    pub fn cli(&self, arguments: &[&str]) -> io::Result<String> {
        let mut cli = Command::new("redis-cli");
        cli.args(["-e", "--no-auth-warning", "-p", &self.port.to_string()]).stdin(Stdio::null());
        if let Some(password) = self.password() {
            cli.args(["--pass", password]);
        }
        if self.tls {
            cli.arg("--tls").arg("--cacert").arg(self.authority());
        }
        finish(cli.args(arguments)).map(|printed| printed.trim_end().to_owned())
    }

    /// Runs `redis-cli` once for several commands, one a line.
    fn cli_lines(&self, lines: &str) -> io::Result<()> {
        let mut cli = Command::new("redis-cli");
        cli.args(["-e", "--no-auth-warning", "-p", &self.port.to_string()]);
        let mut cli = cli.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        cli.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(lines.as_bytes()))?;
        let printed = cli.wait_with_output()?.stdout;
        let said = String::from_utf8_lossy(&printed);
        if said.lines().all(|line| line == "OK") { Ok(()) } else { Err(io::Error::other(said.trim())) }
    }

    /// Ends it as an administrator does.
    ///
    /// # Errors
    /// Where it cannot be told.
    pub fn stop(&mut self) -> io::Result<()> {
        self.end(Signal::TERM)
    }

    /// Ends it at once, like a crash.
    ///
    /// # Errors
    /// Where it cannot be told.
    pub fn kill(&mut self) -> io::Result<()> {
        self.end(Signal::KILL)
    }

    /// Starts it again on the same port, with nothing in it. One that runs is killed first.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn restart(&mut self) -> io::Result<()> {
        if self.server.is_some() {
            self.kill()?;
        }
        self.serve()
    }

    /// Stops it where it is, until [`resume`](Self::resume): connections stay, nothing is answered.
    ///
    /// # Errors
    /// Where it cannot be told.
    pub fn pause(&self) -> io::Result<()> {
        self.running()?.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// Where it cannot be told.
    pub fn resume(&self) -> io::Result<()> {
        self.running()?.signal(Signal::CONT)
    }

    fn serve(&mut self) -> io::Result<()> {
        let log = self.directory.path().join("log");
        let mut serve = Command::new("setpriv");
        serve.args([
            "--pdeathsig=KILL",
            "--",
            "redis-server",
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        let port = self.port.to_string();
        if self.tls {
            serve.args(["--port", "0", "--tls-port", &port]);
        } else {
            serve.args(["--port", &port]);
        }
        serve.arg("--dir").arg(self.directory.path()).arg("--logfile").arg(&log).args(&self.arguments);
        serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = Process::start(serve)?;
        let began = Instant::now();
        while self.cli(&["PING"]).is_err() {
            if server.ended()?.is_some() || began.elapsed() > START_WITHIN {
                let said = fs::read_to_string(log).unwrap_or_else(|_| "is redis-server installed?".to_owned());
                let taken = said.contains("Address already in use");
                let kind = if taken { io::ErrorKind::AddrInUse } else { io::ErrorKind::Other };
                return Err(io::Error::new(kind, format!("Redis does not start: {}", said.trim())));
            }
            thread::sleep(A_MOMENT);
        }
        // Somebody else's Redis would have answered as well.
        if server.ended()?.is_some() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.server = Some(server);
        Ok(())
    }

    fn end(&mut self, signal: Signal) -> io::Result<()> {
        self.running()?.signal(signal)?;
        self.server.take().map_or(Ok(()), Process::reap)
    }

    fn running(&self) -> io::Result<&Process> {
        self.server.as_ref().ok_or_else(|| io::Error::other("Redis does not run"))
    }

    fn password(&self) -> Option<&str> {
        let mut arguments = self.arguments.iter();
        arguments.find(|&argument| argument == "--requirepass")?;
        arguments.next().map(String::as_str)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.server.is_some() {
            let _ended = self.kill();
        }
    }
}

/// A Redis Cluster of three masters, each with a third of the slots, and no replica unless one is added.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts the nodes and makes them a cluster. Blocks until each says that the cluster is complete.
    ///
    /// # Errors
    /// Where Redis is not installed or does not start.
    pub fn start() -> io::Result<Self> {
        Self::start_with(&[])
    }

    /// Starts the nodes with more arguments of `redis-server`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(arguments: &[&str]) -> io::Result<Self> {
        let nodes = SLOTS.iter().map(|_| start_node(arguments)).collect::<io::Result<Vec<_>>>()?;
        let cluster = Self { nodes };
        // As `redis-cli --cluster create` does it, which knows no bus port but the usual one.
        for (epoch, (node, (first, last))) in (1..).zip(cluster.nodes.iter().zip(SLOTS)) {
            node.redis_cluster(&["SET-CONFIG-EPOCH", &epoch.to_string()])?;
            node.redis_cluster(&["ADDSLOTSRANGE", first, last])?;
        }
        for node in &cluster.nodes[1..] {
            let meet = ["MEET", "127.0.0.1", &node.port.to_string(), node.bus_port()];
            cluster.nodes[0].redis_cluster(&meet)?;
        }
        cluster.wait_until_complete()?;
        Ok(cluster)
    }

    /// Where its nodes are, in order of their slots.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }

    /// Adds a replica of one of its masters, which takes over once that is lost. Blocks until it has what the master has;
    /// answers its number among the nodes.
    ///
    /// # Errors
    /// Where it does not start or does not become one.
    pub fn add_replica(&mut self, of: usize) -> io::Result<usize> {
        let (replica, master) = (start_node(&[])?, &self.nodes[of]);
        let id = master.redis_cluster(&["MYID"])?;
        master.redis_cluster(&["MEET", "127.0.0.1", &replica.port.to_string(), replica.bus_port()])?;
        // Refused until it has heard of the master.
        await_that("the replica does not find its master", || Ok(replica.redis_cluster(&["REPLICATE", &id]).is_ok()))?;
        await_that("the replica does not get what its master has", || {
            Ok(replica.cli(&["INFO", "replication"])?.contains("master_link_status:up"))
        })?;
        self.nodes.push(replica);
        self.wait_until_complete()?;
        Ok(self.nodes.len() - 1)
    }

    /// One of its nodes: the masters are 0 to 2.
    ///
    /// # Panics
    /// Where there is no such node.
    pub fn node(&self, index: usize) -> &Redis {
        &self.nodes[index]
    }

    /// Which of its nodes has a key.
    ///
    /// # Errors
    /// Where the first node does not answer.
    pub fn node_of(&self, key: &str) -> io::Result<usize> {
        let slot = self.nodes[0].redis_cluster(&["KEYSLOT", key])?.parse::<u16>().map_err(io::Error::other)?;
        let node = SLOTS.iter().position(|(_, last)| last.parse::<u16>().is_ok_and(|last| slot <= last));
        node.ok_or_else(|| io::Error::other("a slot that there is not"))
    }

    /// The slot of a key, or of a channel.
    ///
    /// # Errors
    /// Where the first node does not answer.
    pub fn slot_of(&self, key: &str) -> io::Result<u16> {
        self.nodes[0].redis_cluster(&["KEYSLOT", key])?.parse().map_err(io::Error::other)
    }

    /// Moves slots in which there are no keys from one of its nodes to another. All nodes know of it on return, the new
    /// one first.
    ///
    /// # Errors
    /// Where a node refuses.
    pub fn move_slots(&self, slots: &[u16], from: usize, to: usize) -> io::Result<()> {
        let (from_id, to_id) = (self.nodes[from].redis_cluster(&["MYID"])?, self.nodes[to].redis_cluster(&["MYID"])?);
        let set = |node: &Redis, how: &str, id: &str| {
            let lines: String = slots.iter().map(|slot| format!("CLUSTER SETSLOT {slot} {how} {id}\n")).collect();
            node.cli_lines(&lines)
        };
        set(&self.nodes[to], "IMPORTING", &from_id)?;
        set(&self.nodes[from], "MIGRATING", &to_id)?;
        set(&self.nodes[to], "NODE", &to_id)?;
        for node in self.nodes.iter().filter(|node| node.port != self.nodes[to].port) {
            set(node, "NODE", &to_id)?;
        }
        Ok(())
    }

    /// Waits until each node says that all slots are served.
    ///
    /// # Errors
    /// Where that takes too long.
    pub fn wait_until_complete(&self) -> io::Result<()> {
        let known = format!("cluster_known_nodes:{}", self.nodes.len());
        for node in &self.nodes {
            await_that("the cluster does not become complete", || {
                let info = node.redis_cluster(&["INFO"])?;
                Ok(info.contains("cluster_state:ok") && info.contains(&known))
            })?;
        }
        Ok(())
    }

    /// Ends one node at once, like a crash.
    ///
    /// # Errors
    /// Where it cannot be told.
    pub fn kill(&mut self, node: usize) -> io::Result<()> {
        self.nodes[node].kill()
    }

    /// Starts one node again, with its slots and nothing in them. [`wait_until_complete`](Self::wait_until_complete)
    /// waits until the others have noticed.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn restart(&mut self, node: usize) -> io::Result<()> {
        self.nodes[node].restart()
    }

    /// Stops one node where it is, until [`resume`](Self::resume).
    ///
    /// # Errors
    /// Where it cannot be told.
    pub fn pause(&self, node: usize) -> io::Result<()> {
        self.nodes[node].pause()
    }

    /// Lets one node go on.
    ///
    /// # Errors
    /// Where it cannot be told.
    pub fn resume(&self, node: usize) -> io::Result<()> {
        self.nodes[node].resume()
    }
}

/// Only a node of a cluster is asked these.
impl Redis {
    fn redis_cluster(&self, arguments: &[&str]) -> io::Result<String> {
        self.cli(&[&["CLUSTER"], arguments].concat())
    }

    fn bus_port(&self) -> &str {
        let mut arguments = self.arguments.iter();
        arguments
            .find(|&argument| argument == "--cluster-port")
            .and_then(|_| arguments.next())
            .map_or("", String::as_str)
    }
}

/// Waits until something is so.
fn await_that(else_message: &str, is_so: impl Fn() -> io::Result<bool>) -> io::Result<()> {
    let began = Instant::now();
    while !is_so()? {
        if began.elapsed() > START_WITHIN {
            return Err(io::Error::other(else_message));
        }
        thread::sleep(A_MOMENT);
    }
    Ok(())
}

/// A node that knows no other.
fn start_node(arguments: &[&str]) -> io::Result<Redis> {
    // The bus port may be taken by now, as the port may.
    let mut tries = 1..=PORTS_TRIED;
    loop {
        let last = tries.next().is_none_or(|tried| tried == PORTS_TRIED);
        let bus = free_port()?.to_string();
        // A node that dies shall be noticed within the patience of a test.
        let node = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1500", "--cluster-port", &bus];
        match Redis::start_with(&[&node, arguments].concat()) {
            Err(refused) if !last && refused.kind() == io::ErrorKind::AddrInUse => {}
            started => return started,
        }
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn words(of: &str) -> Vec<String> {
    of.split(' ').map(str::to_owned).collect()
}

/// The slots of each node of a cluster, first and last.
const SLOTS: [(&str, &str); 3] = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];

const PORTS_TRIED: usize = 5;
const START_WITHIN: Duration = Duration::from_secs(30);
const A_MOMENT: Duration = Duration::from_millis(20);
