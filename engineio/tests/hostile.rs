//! Hostile input: each test is named after what once brought down software of this family. The server answers with a
//! clean error or close, stays up, and its memory stays bounded.
#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use engineio::{CloseReason, Message, Transport};
use support::*;

#[tokio::test]
async fn an_upgrade_request_with_another_revision_than_its_session_cve_2026_102599() {
    let host = Host::start().await;
    let client = Polling::open(&host).await;
    for eio in ["", "EIO=3&"] {
        let target = format!("/engine.io/?{eio}transport=websocket&sid={}", client.sid);
        assert_eq!(request(host.addr, "GET", &target, &UPGRADE).await.says(), (400, "Bad request"));
    }
    still_serves(&host, &client).await;
}

#[tokio::test]
async fn a_binary_post_is_answered_at_once_cve_2026_59725() {
    let mut host = Host::start().await;
    let client = Polling::open(&host).await;
    let mut post = Http::connect(host.addr).await;
    // The announced body never comes.
    post.write(format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\nContent-Length: 9\r\n\r\n",
        client.target()
    ))
    .await;
    assert_eq!(post.response().await.says(), (400, ""));
    assert_eq!(host.closed().await, CloseReason::TransportError);

    let client = Polling::open(&host).await;
    let mut post = Http::connect(host.addr).await;
    post.request("POST", &client.target(), &[("Content-Type", "application/octet-stream")], b"4a").await;
    assert_eq!(post.response().await.says(), (400, ""));
    assert_eq!(host.closed().await, CloseReason::TransportError);
    host.idle().await;
}

#[tokio::test]
async fn names_of_prototypes_as_sid_cve_2026_59724_cve_2026_102600() {
    let host = Host::start().await;
    for sid in ["__proto__", "constructor", "toString", "hasOwnProperty"] {
        let target = format!("{POLLING}&sid={sid}");
        assert_eq!(get(host.addr, &target).await.says(), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
        let target = format!("{WEBSOCKET}&sid={sid}");
        assert_eq!(request(host.addr, "GET", &target, &UPGRADE).await.says(), (400, "Session ID unknown"));
    }
}

#[tokio::test]
async fn a_payload_of_very_many_packets_cve_2020_36048() {
    let mut host = Host::start().await;
    host.control.silent.store(true, SeqCst);
    let client = Polling::open(&host).await;
    let many = vec!["4"; 400_000].join("\x1e");
    assert_eq!(client.post(&many).await.says(), (200, "ok"));
    assert!(matches!(host.event().await, Event::Opened(_)));
    for _ in 0..400_000 {
        assert!(matches!(host.event().await, Event::Message(Message::Text(text)) if text.is_empty()));
    }
    let separators = "\x1e".repeat(900_000);
    assert_eq!(client.post(&separators).await.says(), (200, "ok"));
    assert_eq!(host.closed().await, CloseReason::ParseError);
    host.control.silent.store(false, SeqCst);
    let client = Polling::open(&host).await;
    still_serves(&host, &client).await;
}

#[tokio::test]
async fn a_refused_upgrade_does_not_go_on_cve_2023_31125() {
    let host = Host::start().await;
    for transport in ["__proto__", "constructor", "webtransport", ""] {
        let mut http = Http::connect(host.addr).await;
        http.request("GET", &format!("/engine.io/?EIO=4&transport={transport}"), &UPGRADE, b"").await;
        assert_eq!(http.response().await.says(), (400, "Transport unknown"));
        http.write(masked(FIN | TEXT, b"4a")).await;
        let _refused_or_closed = http.end().await;
    }
    host.idle().await;
}

#[tokio::test]
async fn a_reset_right_behind_a_websocket_handshake_cve_2022_41940() {
    let host = Host::start().await;
    for target in [WEBSOCKET, POLLING, "/engine.io/?EIO=4&transport=websocket&sid=AAAAAAAAAAAAAAAAAAAA"] {
        let mut http = Http::connect(host.addr).await;
        http.request("GET", target, &UPGRADE, b"").await;
        http.stream.set_zero_linger().unwrap();
        drop(http);
    }
    host.idle().await;
    let client = Polling::open(&host).await;
    still_serves(&host, &client).await;
}

#[tokio::test]
async fn a_websocket_handshake_with_a_body_cve_2022_21676() {
    let host = Host::start().await;
    for header in ["Content-Length: 4", "Transfer-Encoding: chunked"] {
        let mut http = Http::connect(host.addr).await;
        let mut head = format!("GET {WEBSOCKET} HTTP/1.1\r\nHost: x\r\n{header}\r\n");
        for (name, value) in UPGRADE {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        http.write(head + "\r\n\u{7f}\u{7f}\u{7f}\u{7f}").await;
        assert_eq!(http.response().await.says(), (400, ""));
    }
    host.idle().await;
}

#[tokio::test]
async fn a_flood_of_pings_that_reads_no_pongs_ws_8_23_0() {
    let host = Host::start().await;
    let mut ws = Ws::open(&host).await;
    let pings = masked(FIN | PING, &[b'x'; 125]).repeat(1000);
    let before = resident_bytes();
    for _ in 0..200 {
        ws.http.write(&pings).await;
        assert!(host.server.stats().queued_bytes() <= 1024);
    }
    // 26 MB of pings came in; the tests beside this one have their share in the growth.
    assert!(resident_bytes() < before + 200_000_000);
    // Read all of it, and the session is as it was.
    ws.send("4a").await;
    loop {
        let (first, data) = ws.read().await.unwrap();
        if first == FIN | TEXT {
            assert_eq!(data, b"4a");
            break;
        }
        assert_eq!((first, data.len()), (FIN | PONG, 125));
    }
}

#[tokio::test]
async fn a_message_of_131_000_empty_fragments_cve_2026_62389() {
    let host = Host::start().await;
    let mut ws = Ws::open(&host).await;
    ws.frame(TEXT, b"4").await;
    let empty = masked(0, b"").repeat(1000);
    for _ in 0..131 {
        ws.http.write(&empty).await;
    }
    ws.frame(FIN, b"a").await;
    assert_eq!(ws.text().await, "4a");
}

#[tokio::test]
async fn a_websocket_handshake_with_2000_headers_cve_2024_37890() {
    let host = Host::limited(|_| {}, |limits| limits.max_header_bytes = 1 << 20).await;
    let mut http = Http::connect(host.addr).await;
    let names: Vec<String> = (0..2000).map(|number| format!("x{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| (&**name, "1")).collect();
    http.request("GET", WEBSOCKET, &[&UPGRADE[..], &many].concat(), b"").await;
    assert_eq!(http.response().await.status, 431);
    host.idle().await;
}

#[tokio::test]
async fn a_header_without_end() {
    let host = Host::start().await;
    let mut http = Http::connect(host.addr).await;
    http.write(format!("GET {POLLING} HTTP/1.1\r\nx: ")).await;
    let mut written = 0;
    while http.stream.try_write(&[b'x'; 4096]).is_ok() && written < 100_000 {
        written += 4096;
        tokio::task::yield_now().await;
    }
    let answer = String::from_utf8_lossy(&http.end().await).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let client = Polling::open(&host).await;
    still_serves(&host, &client).await;
}

#[tokio::test]
async fn a_header_that_never_ends_and_an_idle_connection_are_cut_off() {
    let short = Duration::from_millis(100);
    let limit =
        |limits: &mut engineio::server::Limits| (limits.header_timeout, limits.keep_alive_timeout) = (short, short);
    let host = Host::limited(|_| {}, limit).await;
    let mut slow = Http::connect(host.addr).await;
    slow.write(format!("GET {POLLING} HTTP/1.1\r\nHost: ")).await;
    let _nothing_or_408 = slow.end().await;
    let silent = Http::connect(host.addr).await;
    assert_eq!(silent.end().await, b"");
    let mut idle = Http::connect(host.addr).await;
    idle.request("GET", POLLING, &[], b"").await;
    assert_eq!(idle.response().await.status, 200);
    assert_eq!(idle.end().await, b"");
}

#[tokio::test]
async fn a_waiting_poll_outlives_the_header_timeout() {
    let short = Duration::from_millis(50);
    let limit =
        |limits: &mut engineio::server::Limits| (limits.header_timeout, limits.keep_alive_timeout) = (short, short);
    let mut host = Host::limited(|_| {}, limit).await;
    let client = Polling::open(&host).await;
    let socket = host.opened().await;
    let mut poll = host.waiting_poll(&client).await;
    tokio::time::sleep(Duration::from_millis(150)).await; // longer than the limit
    socket.close();
    assert_eq!(poll.response().await.says(), (200, "1"));
}

#[tokio::test]
async fn protocols_and_extensions_that_confuse_parsers_cve_2021_32640_ghsa_5v72_xg48_5rpm() {
    let host = Host::start().await;
    let spaces = format!("b{}x", " ".repeat(8000));
    for (name, value) in [
        ("Sec-WebSocket-Protocol", &*spaces),
        ("Sec-WebSocket-Extensions", "constructor"),
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits; __proto__"),
    ] {
        let mut ws = Ws::connect_with(host.addr, WEBSOCKET, &[(name, value)]).await;
        assert!(ws.text().await.starts_with("0{"));
        ws.send("4a").await;
        assert_eq!(ws.text().await, "4a");
    }
}

#[tokio::test]
async fn messages_above_the_limit_whole_or_in_fragments_get_1009_cve_2016_10542() {
    let mut host = Host::with(|config| config.max_payload_bytes = 1000).await;
    let mut ws = Ws::open(&host).await;
    ws.frame(FIN | BINARY, &[0; 1000]).await;
    assert_eq!(ws.read().await.unwrap().1.len(), 1000);
    ws.frame(FIN | BINARY, &[0; 1001]).await;
    assert_eq!(ws.close_frame().await, 1009_u16.to_be_bytes());
    assert!(matches!(host.message().await, Message::Binary(bytes) if bytes.len() == 1000));
    assert_eq!(host.closed().await, CloseReason::TransportError);

    let mut ws = Ws::open(&host).await;
    ws.frame(BINARY, &[0; 600]).await;
    ws.frame(0, &[0; 600]).await;
    assert_eq!(ws.close_frame().await, 1009_u16.to_be_bytes());
    assert_eq!(host.closed().await, CloseReason::TransportError);
}

#[tokio::test]
async fn a_frame_that_declares_a_huge_length_rustsec_2022_0035() {
    let mut host = Host::start().await;
    for len in [u64::MAX >> 1, u64::MAX, 1 << 40] {
        let mut ws = Ws::open(&host).await;
        ws.http.write([&[0x82, 0xff][..], &len.to_be_bytes(), &[1, 2, 3, 4]].concat()).await;
        let code = ws.close_frame().await;
        assert!([1002_u16, 1009].map(|code| code.to_be_bytes().to_vec()).contains(&code), "{code:?}");
        assert_eq!(host.closed().await, CloseReason::TransportError);
    }
    host.idle().await;
}

#[tokio::test]
async fn frames_against_the_rules_get_1002() {
    let mut host = Host::start().await;
    for (what, bytes) in [
        ("not masked", vec![0x81, 2, b'4', b'a']),
        ("a reserved bit", masked(FIN | 0x40 | TEXT, b"4a")),
        ("an unknown opcode", masked(FIN | 3, b"4a")),
        ("an orphan continuation", masked(FIN, b"4a")),
        ("a control frame in fragments", masked(PING, b"x")),
        ("a control frame above 125 bytes", masked(FIN | PING, &[0; 126])),
        ("a message amid another", [masked(TEXT, b"4"), masked(FIN | TEXT, b"4")].concat()),
        ("a close frame of one byte", masked(FIN | CLOSE, &[3])),
        ("a close frame with code 999", masked(FIN | CLOSE, &[3, 231])),
        ("a close frame with code 1005", masked(FIN | CLOSE, &[3, 237])),
        ("a close frame with code 1006", masked(FIN | CLOSE, &[3, 238])),
    ] {
        let mut ws = Ws::open(&host).await;
        ws.http.write(bytes).await;
        assert_eq!(ws.close_frame().await, 1002_u16.to_be_bytes(), "{what}");
        let reason = host.closed().await;
        assert!(matches!(reason, CloseReason::TransportError | CloseReason::ConnectionLost), "{what}: {reason}");
    }
    host.idle().await;
}

#[tokio::test]
async fn text_that_is_no_utf_8_gets_1007() {
    let mut host = Host::start().await;
    for frames in [
        masked(FIN | TEXT, b"4\xff"),
        [masked(TEXT, b"4\xc3"), masked(FIN, b"x")].concat(),
        masked(FIN | TEXT, b"4\xed\xa0\x80"),
        masked(FIN | CLOSE, b"\x03\xe8\xff"),
    ] {
        let mut ws = Ws::open(&host).await;
        ws.http.write(&frames).await;
        assert_eq!(ws.close_frame().await, 1007_u16.to_be_bytes(), "{frames:?}");
        let _error = host.closed().await;
    }
    let client = Polling::open(&host).await;
    assert_eq!(client.post(b"\xff\xfe").await.says(), (200, "ok"));
    assert_eq!(host.closed().await, CloseReason::ParseError);
}

#[tokio::test]
async fn a_close_frame_amid_a_large_answer_waits_for_its_end() {
    let mut host = Host::with(|config| {
        config.max_buffered_bytes = 30_000_000;
        config.high_water_bytes = Some(30_000_000);
    })
    .await;
    let mut ws = Ws::open(&host).await;
    let socket = host.opened().await;
    socket.send(engineio::Frame::binary(&vec![7; 20_000_000])).unwrap();
    let (first, _) = {
        until(|| host.server.stats().queued_bytes() > 0).await;
        ws.http.write([0x81, 1, b'4']).await; // not masked
        assert_eq!(host.closed().await, CloseReason::TransportError);
        ws.read().await.unwrap()
    };
    assert_eq!(first, FIN | BINARY);
    assert_eq!(ws.close_frame().await, 1002_u16.to_be_bytes());
}

#[tokio::test]
async fn lengths_and_encodings_that_smuggle_rustsec_2021_0078_0079_0020() {
    let host = Host::start().await;
    let client = Polling::open(&host).await;
    for header in [
        "Content-Length: +3",
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: 99999999999999999999999",
        "Transfer-Encoding: gzip, identity",
    ] {
        let mut http = Http::connect(host.addr).await;
        http.write(format!("POST {} HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n4ab", client.target())).await;
        let answer = String::from_utf8_lossy(&http.end().await).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{header}: {answer}");
    }
    still_serves(&host, &client).await;
}

#[tokio::test]
async fn a_chunk_larger_than_any_number_rustsec_2021_0079() {
    let mut host = Host::start().await;
    let client = Polling::open(&host).await;
    let mut http = Http::connect(host.addr).await;
    http.write(format!("POST {} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", client.target())).await;
    http.write("fffffffffffffffff0\r\n4ab").await;
    let _reset_or_400 = http.end().await;
    assert_eq!(host.closed().await, CloseReason::TransportError);
    host.idle().await;
}

#[tokio::test]
async fn an_endless_body_axum_core_rustsec_2022_0055() {
    let host = Host::with(|config| config.max_payload_bytes = 1000).await;
    let client = Polling::open(&host).await;
    let mut post = Http::connect(host.addr).await;
    post.write(format!("POST {} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", client.target())).await;
    let chunk = format!("1000\r\n{}\r\n", "4".repeat(0x1000));
    while post.stream.try_write(chunk.as_bytes()).is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(
        String::from_utf8_lossy(&post.end().await).starts_with("HTTP/1.1 413")
            || host.server.stats().queued_bytes() == 0
    );
    still_serves(&host, &client).await;
}

#[tokio::test]
async fn a_client_that_floods_with_pongs() {
    let host = Host::start().await;
    let mut ws = Ws::open(&host).await;
    let pongs = masked(FIN | TEXT, b"3").repeat(10_000);
    ws.http.write(&pongs).await;
    ws.send("4a").await;
    assert_eq!(ws.text().await, "4a");
}

#[tokio::test]
async fn a_flood_of_probes_that_reads_no_answers() {
    let host = Host::start().await;
    let client = Polling::open(&host).await;
    let mut ws = Ws::probe(&client).await;
    for _ in 0..100 {
        ws.http.write(masked(FIN | TEXT, b"2probe").repeat(1000)).await;
    }
    still_serves(&host, &client).await;
}

#[tokio::test]
async fn requests_for_jsonp_are_refused() {
    let host = Host::start().await;
    let target = format!("{POLLING}&j=1");
    assert_eq!(get(host.addr, &target).await.says(), (400, r#"{"code":3,"message":"Bad request"}"#));
}

#[tokio::test]
async fn more_connections_than_allowed_are_closed_without_an_answer() {
    let host = Host::limited(|_| {}, |limits| limits.max_connections = 2).await;
    let client = Polling::open(&host).await; // its connection ends with it
    let mut poll = host.waiting_poll(&client).await;
    let mut second = Http::connect(host.addr).await;
    second.request("GET", POLLING, &[], b"").await;
    assert_eq!(second.response().await.status, 200);
    let third = Http::connect(host.addr).await;
    assert_eq!(third.end().await, b"");
    drop(second);
    within(async {
        loop {
            let again = Http::connect(host.addr).await;
            let request = format!("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n4a", client.target());
            if again.stream.try_write(request.as_bytes()).is_ok() && again.end_of_one_answer().await {
                break;
            }
        }
    })
    .await;
    assert_eq!(poll.response().await.text(), "4a");
}

/// The session goes on, and others may come.
async fn still_serves(host: &Host, client: &Polling) {
    assert_eq!(client.post("4still here").await.says(), (200, "ok"));
    assert_eq!(client.poll().await.text(), "4still here");
    let mut ws = Ws::open(host).await;
    ws.send("4here too").await;
    assert_eq!(ws.text().await, "4here too");
    assert!(host.server.stats().sessions(Transport::Polling) >= 1);
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or_default() * 4096
}
