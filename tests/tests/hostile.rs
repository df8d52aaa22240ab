//! What a client may send that no client should: the binary answers with a clean error or close, stays up, and its memory
//! stays bounded. One test for each cause, named after it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use syncwatch_tests::{Client, Opcode, Raw, Server, create_room, rest, until};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";
const UPGRADE_FIELDS: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                              sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const LIMIT: Duration = Duration::from_secs(20);
/// What a server may grow by under an attack: its budgets for one connection, the allocator's slack, and room to breathe.
const GROWTH_BYTES: u64 = 32 << 20;

/// The server after the attack: it answers, it has not grown, and its log is calm.
async fn assert_unharmed(server: &mut Server, before: u64, secrets: &[&str]) {
    assert!(server.is_up(), "the server is gone: {:#?}", server.log());
    let health = Raw::get(server.addr(), "/health/live", "").await;
    assert_eq!(health.status, 200, "{}", health.text());
    let mut client = Client::guest(server).await;
    let pong = client.ask("time:ping", json!({ "clientTime": 1 })).await;
    assert_eq!(pong["ok"], true, "{pong}");
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES, "the server grew by {} KiB", grown >> 10);
    server.assert_calm(secrets);
}

/// A server that has served a client, so that what it sets up once is not counted as growth.
async fn warm_server(env: &[(&str, &str)]) -> (Server, u64) {
    let server = Server::with(env).await;
    let mut client = Client::guest(&server).await;
    client.ask("time:ping", json!({ "clientTime": 1 })).await;
    let before = server.resident_bytes();
    (server, before)
}

#[tokio::test]
async fn foreign_origin_is_refused_on_both_transports() {
    let (mut server, before) = warm_server(&[("CORS_ORIGIN", "https://watch.example")]).await;
    for origin in
        ["https://evil.example", "https://watch.example.evil.example", "http://watch.example", "null", "file://"]
    {
        let header = format!("origin: {origin}\r\n");
        let poll = Raw::get(server.addr(), POLLING, &header).await;
        assert_eq!(poll.status, 403, "{origin} by polling: {}", poll.text());
        let upgrade = Raw::connect(server.addr()).await.upgrade(WEBSOCKET, &header).await;
        assert_eq!(upgrade.status, 403, "{origin} by websocket: {}", upgrade.text());
        // A session of an honest client is not for a foreign page either.
        let sid = Raw::poll_session(server.addr()).await;
        let path = format!("{POLLING}&sid={sid}");
        let post = Raw::post(server.addr(), &path, &format!("{header}content-type: text/plain\r\n"), b"40/sync,").await;
        assert_eq!(post.status, 403, "{origin} by POST: {}", post.text());
    }
    for origin in ["https://watch.example".to_owned(), format!("http://{}", server.addr())] {
        let header = format!("origin: {origin}\r\n");
        assert_eq!(Raw::get(server.addr(), POLLING, &header).await.status, 200, "{origin} by polling");
        assert_eq!(
            Raw::connect(server.addr()).await.upgrade(WEBSOCKET, &header).await.status,
            101,
            "{origin} by websocket"
        );
    }
    assert_unharmed(&mut server, before, &[]).await;
}

#[tokio::test]
async fn origins_of_apps_are_allowed_where_they_are_listed() {
    let server = Server::with(&[("CORS_ORIGIN", "file://, null,capacitor://localhost")]).await;
    for (origin, status) in
        [("file://", 101), ("null", 101), ("capacitor://localhost", 101), ("ionic://localhost", 403), ("*", 403)]
    {
        let header = format!("origin: {origin}\r\n");
        let upgrade = Raw::connect(server.addr()).await.upgrade(WEBSOCKET, &header).await;
        assert_eq!(upgrade.status, status, "{origin}: {}", upgrade.text());
        let read = Raw::get(server.addr(), "/health/live", &header).await;
        assert_eq!(read.status, if status == 101 { 200 } else { 403 }, "{origin}: {}", read.text());
    }
}

#[tokio::test]
async fn the_own_origin_is_known_to_both_halves_however_it_is_written() {
    let server = Server::with(&[]).await;
    for (host, origin, allowed) in [
        ("watch.example:443", "wss://watch.example", true),
        ("watch.example:443", "https://watch.example", true),
        ("watch.example", "ws://watch.example:80", true),
        ("watch.example:443", "wss://evil.example", false),
        ("watch.example", "app://watch.example", false),
    ] {
        for (path, fields, status) in [(WEBSOCKET, UPGRADE_FIELDS, 101), (POLLING, "", 200), ("/health/live", "", 200)]
        {
            let mut raw = Raw::connect(server.addr()).await;
            let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\norigin: {origin}\r\n{fields}\r\n");
            raw.write(head.as_bytes()).await;
            let answer = raw.response().await;
            assert_eq!(answer.status, if allowed { status } else { 403 }, "{origin} at {host}, {path}");
        }
    }
}

#[tokio::test]
async fn a_websocket_handshake_by_http_1_0_is_the_proxys_error_and_not_the_servers() {
    let (mut server, before) = warm_server(&[("RUST_LOG", "engineio=debug,info")]).await;
    let mut raw = Raw::connect(server.addr()).await;
    raw.write(format!("GET {WEBSOCKET} HTTP/1.0\r\nhost: x\r\n{UPGRADE_FIELDS}\r\n").as_bytes()).await;
    let answer = raw.response().await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("HTTP/1.1"), "{}", answer.text());
    until(LIMIT, "a line of the log at level debug", || {
        let said = server.log().iter().any(|line| line.contains("DEBUG") && line.contains("HTTP/1.1"));
        async move { said }
    })
    .await;
    assert_unharmed(&mut server, before, &[]).await;
}

#[tokio::test]
async fn oversized_post_is_413_and_the_session_lives() {
    let (mut server, before) = warm_server(&[]).await;
    let sid = Raw::poll_session(server.addr()).await;
    let path = format!("{POLLING}&sid={sid}");
    let body = vec![b'4'; 1_000_001];
    for _ in 0..20 {
        assert_eq!(Raw::post(server.addr(), &path, "content-type: text/plain\r\n", &body).await.status, 413);
    }
    // Chunked, so that the size is not announced; and announced, but never sent.
    let mut chunked = Raw::connect(server.addr()).await;
    chunked.write(format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").as_bytes()).await;
    let chunk = [b"10000\r\n".as_slice(), &[b'4'; 0x10000], b"\r\n"].concat();
    let mut sent = 0;
    while sent < 4_000 && chunked.offer(&chunk, Duration::from_secs(1)).await {
        sent += 1;
    }
    assert!(sent < 4_000, "250 MB were taken");
    let mut announced = Raw::connect(server.addr()).await;
    announced.write(format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n").as_bytes()).await;
    if let Some(answer) = announced.response_or_end(LIMIT).await {
        // Refused for its announced size, or given up when nothing comes.
        assert!(matches!(answer.status, 408 | 413), "{}", answer.status);
    }
    let ok = Raw::post(server.addr(), &path, "content-type: text/plain\r\n", b"40/sync,").await;
    assert_eq!((ok.status, ok.text().as_str()), (200, "ok"), "the session survives");
    assert_unharmed(&mut server, before, &[&sid]).await;
}

#[tokio::test]
async fn half_a_million_tiny_packets_in_one_body_leave_the_server_unharmed() {
    let (mut server, before) = warm_server(&[]).await;
    let sid = Raw::poll_session(server.addr()).await;
    let body = "3\x1e".repeat(499_999) + "3";
    let answer = Raw::post(server.addr(), &format!("{POLLING}&sid={sid}"), "", body.as_bytes()).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    let next = Raw::post(server.addr(), &format!("{POLLING}&sid={sid}"), "", b"40/sync,").await;
    assert_eq!((next.status, next.text().as_str()), (200, "ok"), "the session lives on");
    assert_unharmed(&mut server, before, &[&sid]).await;
}

#[tokio::test]
async fn octet_stream_post_is_answered_and_ends_the_session() {
    let (mut server, before) = warm_server(&[]).await;
    let sid = Raw::poll_session(server.addr()).await;
    let path = format!("{POLLING}&sid={sid}");
    let answer = Raw::post(server.addr(), &path, "content-type: application/octet-stream\r\n", b"\x04abc").await;
    assert_eq!(answer.status, 400);
    assert_eq!(Raw::get(server.addr(), &path, "").await.status, 400, "the session is gone");
    assert_unharmed(&mut server, before, &[&sid]).await;
}

#[tokio::test]
async fn ping_flood_without_reading_is_bounded() {
    let (mut server, before) = warm_server(&[]).await;
    let (mut raw, sid, _) = Raw::joined(server.addr()).await;
    let pings = [0x89, 0x80 | 125, 0, 0, 0, 0].iter().copied().chain([b'x'; 125]).collect::<Vec<u8>>().repeat(1_000);
    let mut thousands = 0;
    while thousands < 300 && raw.offer(&pings, Duration::from_secs(2)).await {
        thousands += 1;
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown < GROWTH_BYTES, "the server grew by {} KiB after {thousands},000 pings", grown >> 10);
    }
    assert_unharmed(&mut server, before, &[&sid]).await;
}

#[tokio::test]
async fn requests_whose_answers_are_not_read_are_bounded() {
    let (mut server, before) = warm_server(&[("WS_PING_INTERVAL", "2000"), ("WS_PING_TIMEOUT", "2000")]).await;
    let (mut raw, sid, _) = Raw::joined(server.addr()).await;
    let ask = frame(r#"42/sync,["time:ping",{"clientTime":123456789}]"#).repeat(1_000);
    let begun = Instant::now();
    while raw.offer(&ask, Duration::from_secs(8)).await {
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown < GROWTH_BYTES, "the server grew by {} KiB", grown >> 10);
        assert!(begun.elapsed() < LIMIT, "a client that reads nothing is shut out at some point");
    }
    assert_unharmed(&mut server, before, &[&sid]).await;
}

#[tokio::test]
async fn slow_headers_and_slow_bodies_are_cut() {
    const PATIENCE: Duration = Duration::from_secs(75);
    let (mut server, before) = warm_server(&[]).await;
    let addr = server.addr();
    let sid = Raw::poll_session(addr).await;
    let header = async {
        let mut raw = Raw::connect(addr).await;
        raw.write(b"GET / HTTP/1.1\r\nhost: x\r\n").await;
        drip(raw, b"x-slow: 1\r\n", PATIENCE).await
    };
    let silence = async {
        let mut raw = Raw::connect(addr).await;
        raw.response_or_end(PATIENCE).await;
        true
    };
    let body = async {
        let mut raw = Raw::connect(addr).await;
        raw.write(
            format!("POST {POLLING}&sid={sid} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n").as_bytes(),
        )
        .await;
        drip(raw, b"4", PATIENCE).await
    };
    let room = async {
        let mut raw = Raw::connect(addr).await;
        raw.write(b"POST /api/rooms HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n").await;
        drip(raw, b" ", PATIENCE).await
    };
    assert_eq!(tokio::join!(header, silence, body, room), (true, true, true, true), "header, silence, body, REST body");
    assert_unharmed(&mut server, before, &[&sid]).await;
}

#[tokio::test]
async fn huge_declared_frame_is_refused_before_it_comes() {
    let (mut server, before) = warm_server(&[]).await;
    for declared in [1 << 30, 1 << 40, u64::MAX] {
        let (mut raw, _, _) = Raw::joined(server.addr()).await;
        let head = [[0x82, 0x80 | 127].as_slice(), &u64::to_be_bytes(declared), &[0; 4]].concat();
        raw.write(&head).await;
        raw.closed(LIMIT).await;
    }
    let (mut raw, sid, _) = Raw::joined(server.addr()).await;
    let _ = raw.offer(&frame(&format!(r#"42/sync,["x","{}"]"#, "x".repeat(1_000_000))), LIMIT).await;
    raw.closed(LIMIT).await;
    assert_unharmed(&mut server, before, &[&sid]).await;
}

#[tokio::test]
async fn endless_fragments_are_bounded() {
    let (mut server, before) = warm_server(&[]).await;
    for piece in [b"".as_slice(), b"x"] {
        let (mut raw, _, _) = Raw::joined(server.addr()).await;
        raw.send(Opcode::Text, false, b"4").await;
        let head = [0x00, 0x80 | u8::try_from(piece.len()).unwrap(), 0, 0, 0, 0];
        let burst = [&head, piece].concat().repeat(10_000);
        let mut bursts = 0;
        while bursts < 150 && raw.offer(&burst, Duration::from_secs(2)).await {
            bursts += 1;
            let grown = server.resident_bytes().saturating_sub(before);
            assert!(grown < GROWTH_BYTES, "the server grew by {} KiB after {bursts}0,000 fragments", grown >> 10);
        }
    }
    assert_unharmed(&mut server, before, &[]).await;
}

#[tokio::test]
async fn broken_frames_end_the_connection_alone() {
    let (mut server, before) = warm_server(&[]).await;
    // In one piece: a frame is looked at when it is complete, or when its length alone is too much.
    let long_ping = [&[0x89, 0xfe, 0, 126, 0, 0, 0, 0][..], &[b'x'; 126]].concat();
    let frames: [(&str, &[u8]); 7] = [
        ("unmasked", &[0x81, 0x01, b'2']),
        ("a reserved bit", &[0xc1, 0x81, 0, 0, 0, 0, b'2']),
        ("an unknown kind", &[0x83, 0x80, 0, 0, 0, 0]),
        ("a continuation of nothing", &[0x80, 0x80, 0, 0, 0, 0]),
        ("a ping in pieces", &[0x09, 0x80, 0, 0, 0, 0]),
        ("a ping of 126 bytes", &long_ping),
        ("text that is no UTF-8", &[0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28]),
    ];
    for (what, bytes) in frames {
        let (mut raw, _, _) = Raw::joined(server.addr()).await;
        raw.write(bytes).await;
        println!("{what}"); // named if the wait for the end fails
        let code = raw.closed(LIMIT).await;
        assert!(matches!(code, None | Some(1002 | 1007)), "{what}: closed with {code:?}");
    }
    assert_unharmed(&mut server, before, &[]).await;
}

#[tokio::test]
async fn malformed_packets_end_the_connection() {
    let (mut server, before) = warm_server(&[]).await;
    let deep = format!(r#"42/sync,["x",{}{}]"#, "[".repeat(100_000), "]".repeat(100_000));
    let digits = format!("42/sync,{}[\"x\"]", "2".repeat(900_000));
    let packets = [
        // Attachments: none, too many, half a number, before CONNECT.
        r#"450-/sync,["a"]"#,
        r#"45999999-/sync,["a",{"_placeholder":true,"num":0}]"#,
        r#"4511-/sync,["a",{"_placeholder":true,"num":0}]"#,
        r#"45/sync,["a"]"#,
        r#"451.5-/sync,["a"]"#,
        r#"451-["a",{"_placeholder":true,"num":0}]"#,
        // Events: no name, a name that is no text, reserved names, no array.
        "42/sync,[]",
        "42/sync,{}",
        r#"42/sync,[{"toString":"foo"}]"#,
        r#"42/sync,["disconnect"]"#,
        r#"42/sync,["connect_error"]"#,
        r#"42/sync,["x""#,
        "42/sync,abc[1]",
        r#"42/sync,-1["x"]"#,
        // Packets at the wrong moment or of no kind.
        "40/sync,",
        "44/sync,{}",
        "41/sync,{}",
        "49",
        "4",
        "4abc",
        r#"42["x"]"#,
        "abc",
        "2",
        // Depth and length.
        &deep,
        &digits,
    ];
    for packet in packets {
        let (mut raw, sid, _) = Raw::joined(server.addr()).await;
        raw.text(packet).await;
        raw.closed(LIMIT).await;
        assert!(server.is_up(), "after {}", &packet[..packet.len().min(60)]);
        server.assert_calm(&[&sid]);
    }
    assert_unharmed(&mut server, before, &[]).await;
}

#[tokio::test]
async fn odd_but_legal_packets_are_ignored() {
    let (mut server, before) = warm_server(&[]).await;
    let (mut raw, sid, socket_id) = Raw::joined(server.addr()).await;
    for packet in [
        r#"42/sync,["error","x"]"#,
        r#"42/sync,["__proto__",{"__proto__":{"a":1}}]"#,
        r#"42/sync,["constructor"]"#,
        r#"42/sync,[1,2]"#,
        r#"42/sync,["toString",null]"#,
        r#"42/sync,["room:join",{"_placeholder":true,"num":0}]"#,
        r#"43/sync,18446744073709551615["x"]"#,
        "40/__proto__,",
        "40/constructor,{}",
        "3",
        "6",
    ] {
        raw.text(packet).await;
    }
    raw.text(r#"42/sync,7["time:ping",{"clientTime":1}]"#).await;
    loop {
        let text = raw.text_frame().await.expect("the connection lives");
        if text.starts_with("43/sync,7[") {
            break;
        }
    }
    assert_unharmed(&mut server, before, &[&sid, &socket_id]).await;
}

#[tokio::test]
async fn attachments_that_never_come_are_freed() {
    let (mut server, before) = warm_server(&[]).await;
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let (mut raw, _, _) = Raw::joined(server.addr()).await;
        raw.text(&format!(
            r#"452-/sync,["x",{{"_placeholder":true,"num":0}},{{"_placeholder":true,"num":1}},"{}"]"#,
            "x".repeat(50_000)
        ))
        .await;
        raw.send(Opcode::Binary, true, &[0; 50_000]).await;
        waiting.push(raw);
    }
    drop(waiting);
    assert_unharmed(&mut server, before, &[]).await;
}

#[tokio::test]
async fn prototype_names_are_unknown_names() {
    let (mut server, before) = warm_server(&[]).await;
    for name in ["__proto__", "constructor", "toString", "hasOwnProperty"] {
        let sid = Raw::get(server.addr(), &format!("{POLLING}&sid={name}"), "").await;
        assert_eq!((sid.status, sid.json()["code"].clone()), (400, json!(1)), "sid={name}");
        let transport = Raw::get(server.addr(), &format!("/socket.io/?EIO=4&transport={name}"), "").await;
        assert_eq!((transport.status, transport.json()["code"].clone()), (400, json!(0)), "transport={name}");
        for path in [format!("{WEBSOCKET}&sid={name}"), format!("/socket.io/?EIO=4&transport={name}")] {
            assert_eq!(Raw::connect(server.addr()).await.upgrade(&path, "").await.status, 400, "{path}");
        }
        let header = format!("sec-websocket-extensions: {name}\r\nsec-websocket-protocol: {name}\r\n");
        let upgrade = Raw::connect(server.addr()).await.upgrade(WEBSOCKET, &header).await;
        assert!(matches!(upgrade.status, 101 | 400), "{}", upgrade.status);
        let room = rest(&server, "GET", &format!("/api/rooms/{name}"), None, None).await;
        assert!(matches!(room.status, 400 | 404), "{}", room.status);
    }
    assert_unharmed(&mut server, before, &[]).await;
}

#[tokio::test]
async fn wrong_revision_is_refused_before_101() {
    let (mut server, before) = warm_server(&[]).await;
    let sid = Raw::poll_session(server.addr()).await;
    for query in ["transport=websocket".to_owned(), "EIO=3&transport=websocket".to_owned()] {
        let fresh = Raw::connect(server.addr()).await.upgrade(&format!("/socket.io/?{query}"), "").await;
        assert_eq!(fresh.status, 400, "{query}");
        let attached = Raw::connect(server.addr()).await.upgrade(&format!("/socket.io/?{query}&sid={sid}"), "").await;
        assert_eq!(attached.status, 400, "{query} to a session");
    }
    assert_unharmed(&mut server, before, &[&sid]).await;
}

#[tokio::test]
async fn strange_upgrades_are_refused() {
    let (mut server, before) = warm_server(&[]).await;
    let many = (0..2_000).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    let spaces = format!("sec-websocket-protocol: b{}x\r\n", " ".repeat(60_000));
    for (path, headers) in [
        (WEBSOCKET, many.as_str()),
        (WEBSOCKET, &spaces),
        (WEBSOCKET, "content-length: 5\r\n"),
        (WEBSOCKET, "sec-websocket-version: 8\r\n"),
        ("/nothing/here", ""),
        ("/api/rooms", ""),
        ("/health/live", ""),
    ] {
        let mut raw = Raw::connect(server.addr()).await;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\nxxxxx"
        );
        let _ = raw.offer(request.as_bytes(), LIMIT).await;
        raw.response_or_end(LIMIT).await;
        raw.reset();
        assert!(server.is_up(), "after {path} {}", &headers[..headers.len().min(40)]);
    }
    // A reset in the middle of everything.
    for _ in 0..50 {
        let mut raw = Raw::connect(server.addr()).await;
        let _ = raw.offer(b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nupgr", LIMIT).await;
        raw.reset();
        let (raw, _, _) = Raw::joined(server.addr()).await;
        raw.reset();
    }
    assert_unharmed(&mut server, before, &[]).await;
}

#[tokio::test]
async fn smuggled_and_endless_requests_are_refused() {
    let (mut server, before) = warm_server(&[]).await;
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(1 << 20));
    for request in [
        "POST /api/rooms HTTP/1.1\r\nhost: x\r\ncontent-length: +3\r\n\r\n{}x",
        "POST /api/rooms HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n{}x",
        "POST /api/rooms HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        "POST /api/rooms HTTP/1.1\r\nhost: x\r\ntransfer-encoding: identity, chunked, x\r\n\r\n0\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\r\n\r\n\0\0\0\x7f",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &long,
    ] {
        let mut raw = Raw::connect(server.addr()).await;
        let _ = raw.offer(request.as_bytes(), LIMIT).await;
        if let Some(answer) = raw.response_or_end(LIMIT).await {
            assert!((400..600).contains(&answer.status), "{} to {}", answer.status, &request[..request.len().min(60)]);
        }
    }
    // Megabytes of header in tiny pieces.
    let mut raw = Raw::connect(server.addr()).await;
    raw.write(b"GET / HTTP/1.1\r\nhost: x\r\nx-long: ").await;
    let mut kilobytes = 0;
    while kilobytes < 8_192 && raw.offer(&[b'x'; 1024], LIMIT).await {
        kilobytes += 1;
    }
    assert!(kilobytes < 8_192, "8 MiB of header were taken");
    assert_unharmed(&mut server, before, &[]).await;
}

#[tokio::test]
async fn ack_flood_is_ignored() {
    let (mut server, before) = warm_server(&[]).await;
    let (mut raw, sid, _) = Raw::joined(server.addr()).await;
    for n in 0..100 {
        let burst = (0..1_000).flat_map(|m| frame(&format!("43/sync,{}[]", n * 1_000 + m))).collect::<Vec<_>>();
        raw.write(&burst).await;
    }
    raw.text(r#"42/sync,7["time:ping",{"clientTime":1}]"#).await;
    while !raw.text_frame().await.expect("the connection lives").starts_with("43/sync,7[") {}
    assert_unharmed(&mut server, before, &[&sid]).await;
}

#[tokio::test]
async fn connect_flood_is_cut_off() {
    let (mut server, before) = warm_server(&[]).await;
    // The same namespace again and again, in one burst: at most one socket comes of it.
    let (mut raw, _) = Raw::websocket(server.addr()).await;
    let _ = raw.offer(&frame("40/sync,").repeat(10_000), LIMIT).await;
    raw.closed(LIMIT).await;
    // A new namespace each time: none of them exists, none of them stays.
    let (mut raw, sid) = Raw::websocket(server.addr()).await;
    for n in 0..100 {
        let burst = (0..1_000).flat_map(|m| frame(&format!("40/no-{n}-{m},{{}}"))).collect::<Vec<_>>();
        // The answers have to be read, or the server rightly cuts a client that reads nothing.
        if !raw.offer(&burst, Duration::from_secs(2)).await {
            break;
        }
        for _ in 0..1_000 {
            if raw.text_frame().await.is_none() {
                break;
            }
        }
    }
    drop(raw);
    assert_unharmed(&mut server, before, &[&sid]).await;
}

#[tokio::test]
async fn abandoned_handshakes_are_freed() {
    let (mut server, before) =
        warm_server(&[("WS_PING_INTERVAL", "500"), ("WS_PING_TIMEOUT", "500"), ("WS_CONNECT_TIMEOUT", "1000")]).await;
    let mut last = String::new();
    for _ in 0..2_000 {
        last = Raw::poll_session(server.addr()).await;
    }
    let path = format!("{POLLING}&sid={last}");
    let addr = server.addr();
    tokio::time::sleep(Duration::from_secs(1)).await; // asking for the session would keep it alive
    until(LIMIT, "the last abandoned session is gone", || async {
        let answer = Raw::post(addr, &path, "", b"3").await;
        answer.status == 400
    })
    .await;
    assert_unharmed(&mut server, before, &[&last]).await;
}

#[tokio::test]
async fn hostile_members_do_not_reach_the_others() {
    let (mut server, before) = warm_server(&[]).await;
    let room = create_room(&server, "owner", json!({ "name": "a room" })).await;
    let code = room["code"].as_str().unwrap();
    let mut witness = Client::guest(&server).await;
    assert_eq!(witness.join(code, "witness").await["ok"], true);
    for n in 0..20 {
        let (mut raw, _, _) = Raw::joined(server.addr()).await;
        raw.text(&format!(r#"42/sync,1["room:join",{{"roomCode":"{code}","guestName":"bad {n}"}}]"#)).await;
        while !raw.text_frame().await.expect("an ack").starts_with("43/sync,1[") {}
        raw.text(r#"42/sync,[{"toString":"foo"}]"#).await;
        raw.closed(LIMIT).await;
    }
    let pong = witness.ask("time:ping", json!({ "clientTime": 1 })).await;
    assert_eq!(pong["ok"], true);
    for (event, payload) in witness.drain() {
        let known = [
            "room:state",
            "chat:history",
            "time:pong",
            "room:participant:joined",
            "room:participant:left",
            "room:participant:updated",
        ];
        assert!(known.contains(&event.as_str()), "{event} {payload}");
        assert_ne!(payload, Value::Null);
    }
    assert_unharmed(&mut server, before, &[]).await;
}

/// One text frame.
fn frame(text: &str) -> Vec<u8> {
    syncwatch_tests::encode(Opcode::Text, true, text.as_bytes())
}

/// Sends `piece` every half second; true once the server has ended the connection.
async fn drip(mut raw: Raw, piece: &[u8], patience: Duration) -> bool {
    let mut waited = Duration::ZERO;
    while waited < patience {
        if raw.ended(Duration::from_millis(500)).await || !raw.offer(piece, Duration::from_secs(1)).await {
            return true;
        }
        waited += Duration::from_millis(500);
    }
    false
}
