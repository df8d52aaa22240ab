//! Settings, and what the binary says of itself before it serves.

use std::process::Output;
use std::time::Duration;

use serde_json::json;
use syncwatch_tests::{Client, Raw, SECRET, Server, rest, run, user_token};
use tempfile::tempdir;

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_wrong_setting_is_named_and_the_status_is_2() {
    let dir = tempdir().unwrap();
    let wrong = [
        ("PORT", "http"),
        ("PORT", "70000"),
        ("PORT", "-1"),
        ("WS_PING_TIMEOUT", "soon"),
        ("WS_PING_INTERVAL", "1.5"),
        ("RECONNECT_GRACE_MS", "-1"),
        ("ROOM_MAX_PARTICIPANTS", "0"),
        ("ROOM_TTL_HOURS", "forever"),
        ("AUTH_INVALID_TOKEN", "maybe"),
        ("JWT_REQUIRE_EXP", "perhaps"),
        ("GUEST_ROOMS", "2"),
        ("CORS_ORIGIN", "not an origin"),
        ("DATABASE_URL", "ftp://db.example/x"),
        ("REDIS_PORT", "x"),
    ];
    for (name, value) in wrong {
        let output = run::<&str>(&[], &[("PORT", "0"), (name, value)], dir.path()).await;
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{name}={value}: {message}");
        assert!(message.contains(name), "{name}={value}: {message}");
        assert!(output.stdout.is_empty(), "{name}={value}: stdout is for the ready line");
    }
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once() {
    let dir = tempdir().unwrap();
    let output = run::<&str>(&[], &[("PORT", "x"), ("WS_PING_TIMEOUT", "y")], dir.path()).await;
    assert_eq!(output.status.code(), Some(2));
    let message = stderr(&output);
    assert!(message.contains("PORT") && message.contains("WS_PING_TIMEOUT"), "{message}");
}

#[tokio::test]
async fn secrets_in_settings_are_masked() {
    let dir = tempdir().unwrap();
    let env = [
        ("DATABASE_URL", "mysql://user:hunter2secret@db.example/x"),
        ("REDIS_PASSWORD", "hunter3secret"),
        ("PORT", "x"),
    ];
    let output = run::<&str>(&[], &env, dir.path()).await;
    assert_eq!(output.status.code(), Some(2));
    for secret in ["hunter2secret", "hunter3secret"] {
        assert!(!stderr(&output).contains(secret), "{}", stderr(&output));
    }
}

#[tokio::test]
async fn backends_without_a_secret_for_tokens_are_an_error() {
    let dir = tempdir().unwrap();
    for env in [("REDIS_HOST", "127.0.0.1"), ("DATABASE_URL", "postgres://127.0.0.1:1/x")] {
        let output = run::<&str>(&[], &[("PORT", "0"), env], dir.path()).await;
        assert_eq!(output.status.code(), Some(2), "{env:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("JWT_SECRET"), "{env:?}: {}", stderr(&output));
    }
}

#[tokio::test]
async fn an_unknown_flag_is_an_error() {
    let dir = tempdir().unwrap();
    let output = run(&["--no-such-flag"], &[], dir.path()).await;
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("--no-such-flag"), "{}", stderr(&output));
}

#[tokio::test]
async fn help_lists_every_setting_with_its_default() {
    let dir = tempdir().unwrap();
    let output = run(&["--help"], &[], dir.path()).await;
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).unwrap();
    for (name, default) in [
        ("PORT", "4000"),
        ("WS_PING_TIMEOUT", "10000"),
        ("WS_PING_INTERVAL", "25000"),
        ("RECONNECT_GRACE_MS", "20000"),
        ("ROOM_MAX_PARTICIPANTS", "1000"),
        ("ROOM_TTL_HOURS", "24"),
        ("OWNER_HANDOVER_MS", "60000"),
        ("REDIS_DB_STATE", "0"),
        ("REDIS_DB_RATE", "2"),
    ] {
        let (_, rest) = help.split_once(name).unwrap_or_else(|| panic!("{name} is not in the help"));
        assert!(rest.contains(default), "{name}: its default {default} is not in the help");
    }
    for name in [
        "HOST",
        "DATABASE_URL",
        "REDIS_URL",
        "REDIS_HOST",
        "REDIS_PORT",
        "REDIS_PASSWORD",
        "JWT_SECRET",
        "CORS_ORIGIN",
        "DATA_DIR",
    ] {
        assert!(help.contains(name), "{name} is not in the help");
    }
}

#[tokio::test]
async fn a_taken_port_is_told() {
    let server = Server::start().await;
    let dir = tempdir().unwrap();
    let port = server.addr().port().to_string();
    let output = run::<&str>(&[], &[("HOST", "127.0.0.1"), ("PORT", &port)], dir.path()).await;
    assert!(!output.status.success());
    assert!(stderr(&output).contains(&port), "{}", stderr(&output));
}

#[tokio::test]
async fn a_short_secret_is_a_warning() {
    let server = Server::with(&[("JWT_SECRET", "short-secret")]).await;
    let warning = server.log().into_iter().find(|line| line.contains("JWT_SECRET")).expect("a line about JWT_SECRET");
    assert!(warning.to_uppercase().contains("WARN"), "{warning}");
    assert!(!warning.contains("short-secret"), "{warning}");
}

#[tokio::test]
async fn settings_come_from_a_file_too() {
    let server = Server::start().await;
    let dir = tempdir().unwrap();
    std::fs::write(dir.path().join(".env"), "AUTH_INVALID_TOKEN=nonsense\n").unwrap();
    let output = run::<&str>(&[], &[("PORT", "0")], dir.path()).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("AUTH_INVALID_TOKEN"), "{}", stderr(&output));
    drop(server);
}

#[tokio::test]
async fn the_secret_the_server_makes_is_kept_and_private() {
    let mut server = Server::with(&[("JWT_SECRET", "")]).await;
    let made = rest(&server, "POST", "/api/rooms", None, Some(&json!({ "name": "ours" }))).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    let (code, token) = (made["data"]["code"].as_str().unwrap(), made["token"].as_str().unwrap().to_owned());
    assert!(server.terminate().await.success());
    server.restart().await;
    let changed =
        rest(&server, "PATCH", &format!("/api/rooms/{code}"), Some(&token), Some(&json!({ "name": "renamed" }))).await;
    assert_eq!(changed.status, 200, "a token outlives the process: {}", changed.text());
    #[cfg(unix)]
    for entry in std::fs::read_dir(server.data_dir()).unwrap() {
        use std::os::unix::fs::MetadataExt;
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().contains("secret") {
            assert_eq!(entry.metadata().unwrap().mode() & 0o077, 0, "{:?} is its owner's alone", entry.path());
        }
    }
    let forged = rest(&server, "POST", "/api/rooms", Some(&user_token("alice")), Some(&json!({}))).await;
    assert_eq!(forged.status, 401, "the secret of the suite is not the server's: {}", forged.text());
}

#[tokio::test]
async fn a_token_of_the_command_line_opens_the_door() {
    let server = Server::start().await;
    let env = [("JWT_SECRET", SECRET)];
    let output = run(&["token", "--user-id", "alice", "--username", "Alice"], &env, server.data_dir()).await;
    assert!(output.status.success(), "{}", stderr(&output));
    let token = String::from_utf8(output.stdout).unwrap();
    assert_eq!(token.trim().lines().count(), 1, "the token alone: {token:?}");
    let made = rest(&server, "POST", "/api/rooms", Some(token.trim()), Some(&json!({ "name": "ours" }))).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let room = made.json()["data"].clone();
    assert_eq!(room["ownerId"], "alice");
    let mut client = Client::user(&server, token.trim()).await;
    let joined = client.ask("room:join", json!({ "roomCode": room["code"] })).await;
    assert_eq!(joined["ok"], true, "{joined}");
    assert_eq!(joined["participants"][0]["username"], "Alice");
    assert_eq!(joined["participants"][0]["role"], "owner");
}

#[tokio::test]
async fn health_and_metrics_are_told() {
    let mut server = Server::start().await;
    let live = Raw::get(server.addr(), "/health/live", "").await;
    assert_eq!(live.status, 200, "{}", live.text());
    let ready = Raw::get(server.addr(), "/health/ready", "").await;
    assert_eq!(ready.status, 200, "{}", ready.text());
    assert!(ready.text().to_lowercase().contains("latency"), "{}", ready.text());
    let metrics = Raw::get(server.addr(), "/metrics", "").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.text().contains("# TYPE "), "{}", metrics.text());
    assert!(server.terminate().await.success());
    server.assert_calm(&[]);
}

#[tokio::test]
async fn a_stop_ends_with_status_0_whoever_is_connected() {
    // Sessions have this long to end; requests under way a few seconds more.
    let mut server = Server::with(&[("SHUTDOWN_TIMEOUT_MS", "4000")]).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Client::guest(&server).await);
    }
    let poll = Raw::poll_session(server.addr()).await;
    let mut idle = Raw::connect(server.addr()).await;
    let mut half = Raw::connect(server.addr()).await;
    half.write(b"GET /health/live HTTP/1.1\r\nhost:").await;
    let begun = std::time::Instant::now();
    let status = server.terminate().await;
    assert_eq!(status.code(), Some(0), "{:#?}", server.log());
    assert!(begun.elapsed() < Duration::from_secs(12), "the stop took {:?}", begun.elapsed());
    for client in &mut clients {
        client.next("server:shutdown").await;
        client.ended().await;
    }
    assert!(idle.ended(Duration::from_secs(1)).await, "idle connections are closed too");
    server.assert_calm(&[&poll]);
}

#[tokio::test]
async fn a_stop_takes_no_longer_than_its_clients_need() {
    let mut server = Server::with(&[("SHUTDOWN_TIMEOUT_MS", "60000")]).await;
    let _stopped_polling = Raw::poll_session(server.addr()).await;
    let _connected = Client::guest(&server).await;
    let begun = std::time::Instant::now();
    assert_eq!(server.terminate().await.code(), Some(0), "{:#?}", server.log());
    assert!(begun.elapsed() < Duration::from_secs(20), "the stop took {:?}", begun.elapsed());
}
