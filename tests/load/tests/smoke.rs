//! Every mode against our server and against those that bound it, small and short: nothing may be lost or wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use serde_json::value::RawValue;
use socketio::{Ack, Io, Socket};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

/// One of the servers that bound others, until it is dropped.
struct Limit {
    process: Child,
    address: SocketAddr,
}

impl Limit {
    fn start(kind: &str) -> Self {
        let limit = env!("CARGO_BIN_EXE_limit");
        let arguments = ["--kind", kind, "--port", "0"];
        let mut process = Command::new(limit).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap().parse().unwrap();
        Self { process, address }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Runs a mode, and returns what it reports after checking that all went well.
fn measure(address: SocketAddr, pid: u32, mode: &[&str]) -> Value {
    let (address, pid) = (address.to_string(), pid.to_string());
    let output = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(mode)
        .args(["--address", &address, "--pid", &pid, "--warmup", "0.1", "--seconds", "0.3", "--label", "smoke"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{mode:?}: {errors}");
    let report = serde_json::from_slice::<Value>(&output.stdout).unwrap();
    assert_eq!((&report["lost"], &report["errors"]), (&0.into(), &0.into()), "{mode:?}: {report} {errors}");
    assert_eq!((&report["mode"], &report["label"]), (&mode[0].into(), &"smoke".into()));
    report
}

fn measure_over_websocket(address: SocketAddr, pid: u32) {
    let idle = measure(address, pid, &["idle", "--clients", "20"]);
    assert_eq!(idle["params"]["clients"], 20);
    assert!(idle["rss_kib"]["after"].as_u64() > Some(0), "{idle}");
    for mode in [
        &["echo", "--clients", "3", "--in-flight", "4"][..],
        &["echo", "--clients", "2", "--in-flight", "2", "--payload", "70000"],
        // More than a server lets wait, for clients that read what they get.
        &["bulk", "--clients", "1", "--in-flight", "10", "--payload", "999000"],
        &["cast", "--rooms", "2", "--members", "5"],
        &["cast", "--rooms", "1", "--members", "5", "--payload", "70000"],
        &["churn", "--concurrency", "3"],
    ] {
        assert_operations(&measure(address, pid, mode));
    }
}

fn assert_operations(report: &Value) {
    assert!(report["operations"].as_u64() > Some(0), "{report}");
    assert!(report.get("overtaking").is_none_or(|acks| *acks == 0), "{report}");
    assert!(report["latency_us"]["max"].as_u64() >= report["latency_us"]["p50"].as_u64(), "{report}");
}

#[test]
fn the_bare_server_loses_nothing() {
    let server = Limit::start("raw");
    measure_over_websocket(server.address, server.process.id());
}

#[test]
fn the_tungstenite_server_loses_nothing() {
    let server = Limit::start("tungstenite");
    measure_over_websocket(server.address, server.process.id());
}

async fn join(socket: Socket, room: String, ack: Option<Ack>) {
    socket.join(room);
    let _left = ack.map(|ack| ack.send(()));
}

async fn cast(socket: Socket, payload: Box<RawValue>) {
    for room in socket.rooms() {
        let _left = socket.namespace().to(room).emit("cast", (&payload,));
    }
}

async fn echo(_: Socket, payload: Box<RawValue>, ack: Option<Ack>) {
    let _left = ack.map(|ack| ack.send((payload,)));
}

#[tokio::test]
async fn our_server_loses_nothing() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let io = Io::builder()
        .namespace("/bench", |bench| {
            bench.on_ack("join", join).on("cast", cast).on_ack("echo", echo);
        })
        .build()?;
    let measured = spawn_blocking(move || {
        let pid = std::process::id();
        measure_over_websocket(address, pid);
        assert_operations(&measure(address, pid, &["polling", "--clients", "3", "--in-flight", "4"]));
    });
    tokio::select! {
        () = io.serve(listener, std::future::pending()) => unreachable!("it serves until it is told to stop"),
        measured = measured => Ok(measured?),
    }
}

#[test]
fn a_server_that_is_not_there_is_no_measurement() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let pid = std::process::id().to_string();
    for mode in ["idle", "echo", "bulk", "cast", "churn", "polling"] {
        let arguments = [mode, "--address", &address, "--pid", &pid, "--warmup", "0", "--seconds", "0.1"];
        let output = Command::new(env!("CARGO_BIN_EXE_load")).args(arguments).output().unwrap();
        assert_eq!((output.status.code(), output.stdout), (Some(1), vec![]), "{mode}");
    }
}
