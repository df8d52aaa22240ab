//! The modes whose clients sit in rooms and come back when they are cut off, small, against our servers in this process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use socketio::server::{IoBuilder, RecoveryConfig};
use socketio::{Ack, Io, Socket};
use syncwatch::app;
use syncwatch::config::{Config, Sources};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// Runs a mode, and returns what it reports.
async fn measure(address: SocketAddr, mode: &str) -> Value {
    let mode = mode.to_owned();
    let run = move || {
        let (address, pid) = (address.to_string(), std::process::id().to_string());
        Command::new(env!("CARGO_BIN_EXE_load"))
            .args(mode.split_whitespace())
            .args(["--address", &address, "--pid", &pid, "--warmup", "0.1"])
            .output()
            .unwrap()
    };
    let output = spawn_blocking(run).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = serde_json::from_slice::<Value>(&output.stdout).unwrap();
    assert_eq!(report["errors"], 0, "{report} {}", String::from_utf8_lossy(&output.stderr));
    report
}

/// Starts the product, with its data in a directory of its own.
async fn syncwatch(data: &TempDir) -> SocketAddr {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let environment = [
        ("HOST".into(), "127.0.0.1".into()),
        ("PORT".into(), free.port().to_string().into()),
        ("DATA_DIR".into(), data.path().into()),
    ];
    let sources = Sources { environment: environment.into(), ..Sources::default() };
    let config = Config::read(&sources).unwrap();
    tokio::spawn(async { app::run(config, pending()).await.unwrap() });
    while TcpStream::connect(free).await.is_err() {
        sleep(Duration::from_millis(10)).await;
    }
    free
}

#[tokio::test]
async fn rooms_lose_nothing() {
    let data = TempDir::new().unwrap();
    let address = syncwatch(&data).await;
    for mode in [
        "room --scenario join --rooms 3 --members 4",
        "room --scenario command --rooms 2 --members 3 --seconds 0.5",
        "room --scenario command --rooms 2 --members 3 --seconds 0.5 --rate 5",
        "room --scenario churn --rooms 2 --members 3 --seconds 0.5",
    ] {
        let report = measure(address, mode).await;
        assert_eq!(report["lost"], 0, "{report}");
        assert!(report["operations"].as_u64() > Some(0), "{report}");
    }
}

#[tokio::test]
async fn everybody_is_back_in_the_same_seat_after_an_avalanche() {
    let data = TempDir::new().unwrap();
    let report = measure(syncwatch(&data).await, "avalanche --clients 20 --members 5 --seconds 20").await;
    assert_eq!((&report["lost"], &report["operations"]), (&json!(0), &json!(20)), "{report}");
    assert_eq!(report["seconds_to"]["100"].as_f64().map(|seconds| seconds < 20.0), Some(true), "{report}");
}

async fn join(socket: Socket, room: String, ack: Option<Ack>) {
    socket.join(room);
    let _left = ack.map(|ack| ack.send(()));
}

async fn cast(socket: Socket, number: u64) {
    for room in socket.rooms() {
        let _left = socket.namespace().to(room).emit("cast", (number,));
    }
}

#[tokio::test]
async fn what_jitter_counts_adds_up() {
    let address = bench(Io::builder()).await;
    let mode = "jitter --clients 5 --rate 50 --seconds 2 --period 0.5 --cut-min 0.01 --cut-max 0.1";
    let report = measure(address, mode).await;
    let number = |name: &str| report[name].as_u64().unwrap();
    let share = 1.0 - number("lost") as f64 / (5 * number("sent")) as f64;
    assert!((report["delivered_share"].as_f64().unwrap() - share).abs() < 0.001, "{report}");
    assert!(number("cuts") > 0 && number("duplicates") + number("out_of_order") == 0, "{report}");
}

#[tokio::test]
async fn jitter_loses_nothing_where_clients_recover() {
    let address = bench(Io::builder().recovery(RecoveryConfig::default())).await;
    let mode = "jitter --clients 20 --rate 50 --seconds 2 --period 0.5 --cut-min 0.01 --cut-max 0.1";
    let report = measure(address, mode).await;
    let number = |name: &str| report[name].as_u64().unwrap();
    assert_eq!((number("lost"), number("duplicates"), number("out_of_order")), (0, 0, 0), "{report}");
    assert!(number("cuts") > 20 && number("cuts") == number("recovered"), "{report}");
}

/// Serves what the generator wants of a server.
async fn bench(builder: IoBuilder) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let bench = builder.namespace("/bench", |bench| {
        bench.on_ack("join", join).on("cast", cast);
    });
    let io = bench.build().unwrap();
    tokio::spawn(async move { io.serve(listener, pending()).await });
    address
}
