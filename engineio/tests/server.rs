//! The shell over real TCP: what the public test suite of the protocol checks, and the statuses and bytes of every
//! answer.
#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use engineio::server::SendError;
use engineio::{CloseReason, Frame, Message, Origins, RequestError, Server, Transport, Transports};
use futures_util::{SinkExt, StreamExt};
use support::*;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite;

// ---- handshake ----

#[tokio::test]
async fn a_polling_handshake_answers_with_the_open_packet() {
    let mut host = Host::start().await;
    let response = get(host.addr, POLLING).await;
    let sid = sid_of(response.text());
    assert_eq!(
        response.says(),
        (
            200,
            &*format!(
                r#"0{{"sid":"{sid}","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}}"#
            )
        )
    );
    assert_eq!(response.header("content-type"), Some("text/plain; charset=UTF-8"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(response.header("content-length"), Some(&*response.body.len().to_string()));
    let _socket = host.opened().await;
    assert_eq!(host.server.stats().sessions(Transport::Polling), 1);
}

#[tokio::test]
async fn a_websocket_handshake_is_followed_by_the_open_packet() {
    let host = Host::start().await;
    let mut ws = Ws::connect(host.addr, WEBSOCKET).await;
    let open = ws.text().await;
    assert!(open.contains(r#""upgrades":[],"pingInterval":25000"#), "{open}");
    assert_eq!(host.server.stats().sessions(Transport::WebSocket), 1);
}

#[tokio::test]
async fn refused_handshakes_say_why() {
    let host = Host::start().await;
    for (method, query, code, message) in [
        ("GET", "EIO=4", 0, "Transport unknown"),
        ("GET", "EIO=4&transport=abc", 0, "Transport unknown"),
        ("GET", "EIO=4&transport=__proto__", 0, "Transport unknown"),
        ("GET", "EIO=4&transport=polling&sid=abc", 1, "Session ID unknown"),
        ("GET", "EIO=4&transport=polling&sid=__proto__", 1, "Session ID unknown"),
        ("GET", "EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAA", 1, "Session ID unknown"),
        ("POST", "EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAA", 1, "Session ID unknown"),
        ("POST", "EIO=4&transport=polling", 2, "Bad handshake method"),
        ("PUT", "EIO=4&transport=polling", 2, "Bad handshake method"),
        ("OPTIONS", "EIO=4&transport=polling", 2, "Bad handshake method"),
        ("GET", "EIO=4&transport=websocket", 3, "Bad request"),
        ("GET", "EIO=4&transport=polling&j=1", 3, "Bad request"),
        ("GET", "transport=polling", 5, "Unsupported protocol version"),
        ("GET", "EIO=3&transport=polling", 5, "Unsupported protocol version"),
        ("GET", "EIO=abc&transport=polling", 5, "Unsupported protocol version"),
    ] {
        let response = request(host.addr, method, &format!("/engine.io/?{query}"), &[]).await;
        assert_eq!(response.says(), (400, &*format!(r#"{{"code":{code},"message":"{message}"}}"#)), "{method} {query}");
        assert_eq!(response.header("content-type"), Some("application/json"));
    }
    assert_eq!(host.server.stats().refusals(RequestError::UnknownTransport), 3);
    host.idle().await;
}

#[tokio::test]
async fn refused_websocket_handshakes_are_plain_text_and_never_101() {
    let host = Host::start().await;
    for (query, body) in [
        ("EIO=4", "Transport unknown"),
        ("EIO=4&transport=websocket&sid=AAAAAAAAAAAAAAAAAAAA", "Session ID unknown"),
        ("EIO=3&transport=websocket", r#"{"code":5,"message":"Unsupported protocol version"}"#),
        ("transport=websocket", r#"{"code":5,"message":"Unsupported protocol version"}"#),
    ] {
        let response = request(host.addr, "GET", &format!("/engine.io/?{query}"), &UPGRADE).await;
        assert_eq!(response.says(), (400, body), "{query}");
    }
}

#[tokio::test]
async fn a_websocket_handshake_with_a_wrong_key_or_version_is_refused() {
    let host = Host::start().await;
    for (name, value) in [
        ("Sec-WebSocket-Version", "12"),
        ("Sec-WebSocket-Key", "short"),
        ("Sec-WebSocket-Key", "!!!!!!!!!!!!!!!!!!!!!!=="),
    ] {
        let headers: Vec<_> =
            UPGRADE.iter().map(|&(known, good)| (known, if known == name { value } else { good })).collect();
        let response = request(host.addr, "GET", WEBSOCKET, &headers).await;
        assert_eq!(response.says(), (400, ""), "{name}: {value}");
        assert_eq!(response.header("sec-websocket-version"), (name == "Sec-WebSocket-Version").then_some("13"));
    }
    host.idle().await;
}

#[tokio::test]
async fn a_websocket_handshake_by_http_1_0_is_told_what_is_wrong() {
    let host = Host::start().await;
    let client = Polling::open(&host).await;
    for target in [WEBSOCKET, POLLING, &client.websocket_target()] {
        let mut http = Http::connect(host.addr).await;
        let fields: String = UPGRADE.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        http.write(format!("GET {target} HTTP/1.0\r\nHost: localhost\r\n{fields}\r\n")).await;
        let response = http.response().await;
        assert_eq!(response.status, 400, "{target}");
        assert!(response.text().contains("HTTP/1.1"), "{}", response.text());
    }
    assert_eq!(client.post("4a").await.status, 200);
    assert_eq!(client.poll().await.says(), (200, "4a"));
}

#[tokio::test]
async fn fields_of_a_websocket_handshake_may_be_lists_in_any_case() {
    let host = Host::start().await;
    for (connection, upgrade) in [
        ("keep-alive, Upgrade", "WebSocket"),
        ("upgrade,keep-alive", "WEBSOCKET"),
        ("keep-alive\r\nConnection: upgrade", "websocket"),
        ("Upgrade", "h2c, websocket"),
        ("Upgrade", "h2c\r\nUpgrade: websocket"),
    ] {
        let mut http = Http::connect(host.addr).await;
        http.write(format!(
            "GET {WEBSOCKET} HTTP/1.1\r\nhost: localhost\r\nconnection: {connection}\r\nUPGRADE: {upgrade}\r\n\
             sec-websocket-version:13\r\nsec-websocket-key:dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ))
        .await;
        assert_eq!(http.response().await.status, 101, "{connection} {upgrade}");
    }
}

#[tokio::test]
async fn an_upgrade_to_another_protocol_is_an_ordinary_request() {
    let host = Host::start().await;
    // As Java's HttpClient has it in every request, unless it is told not to.
    let headers = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQ")];
    assert_eq!(request(host.addr, "GET", POLLING, &headers).await.status, 200);
}

#[tokio::test]
async fn the_first_subprotocol_offered_is_echoed() {
    let host = Host::start().await;
    let client = Polling::open(&host).await;
    for (target, fields, chosen) in [
        (WEBSOCKET, "Sec-WebSocket-Protocol: my-proto", Some("my-proto")),
        (WEBSOCKET, "sec-websocket-protocol:a , b", Some("a")),
        (WEBSOCKET, "Sec-WebSocket-Protocol: b\r\nSec-WebSocket-Protocol: a", Some("b")),
        (&client.websocket_target(), "Sec-WebSocket-Protocol: arduino", Some("arduino")),
        (POLLING, "Sec-WebSocket-Protocol: a", Some("a")),
        // No token, so that no client can mean it.
        (WEBSOCKET, "Sec-WebSocket-Protocol: a b, c", Some("c")),
        (WEBSOCKET, "Sec-WebSocket-Protocol: ,", None),
        (WEBSOCKET, "Sec-WebSocket-Protocol:", None),
        (WEBSOCKET, "X-Other: a", None),
    ] {
        let mut http = Http::connect(host.addr).await;
        let upgrade: String = UPGRADE.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        http.write(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{upgrade}{fields}\r\n\r\n")).await;
        let response = http.response().await;
        assert_eq!((response.status, response.header("sec-websocket-protocol")), (101, chosen), "{fields}");
    }
}

#[tokio::test]
async fn the_application_may_choose_another_subprotocol_or_none() {
    let host = Host::start().await;
    for (wanted, chosen) in [("b", Some("b")), ("c", None)] {
        *host.control.subprotocol.lock().unwrap() = Some(wanted);
        let headers = [&UPGRADE[..], &[("Sec-WebSocket-Protocol", "a, b")]].concat();
        let response = request(host.addr, "GET", WEBSOCKET, &headers).await;
        assert_eq!((response.status, response.header("sec-websocket-protocol")), (101, chosen));
    }
}

#[tokio::test]
async fn requests_are_served_under_the_path() {
    const QUERY: &str = "?EIO=4&transport=polling";
    for (path, add_trailing_slash, served, foreign) in [
        ("/engine.io", true, vec!["/engine.io/", "/engine.io//", "/engine.io/a/b"], vec!["/engine.io", "/engine.iox/"]),
        ("/engine.io/", true, vec!["/engine.io/"], vec!["/engine.io", "/", "//engine.io/"]),
        ("/engine.io", false, vec!["/engine.io", "/engine.io/"], vec!["/engine.iox", "/engine.iox/", "/"]),
        ("/", true, vec!["/", "/engine.io", "//", "/a/b"], vec![]),
        ("/", false, vec!["/", "/engine.io"], vec![]),
        ("/a/b", false, vec!["/a/b", "/a/b/"], vec!["/a", "/a/", "/b"]),
    ] {
        let host = Host::with(|config| {
            config.path = path.to_owned();
            config.add_trailing_slash = add_trailing_slash;
        })
        .await;
        for (targets, status) in [(served, 200), (foreign, 404)] {
            for target in targets {
                let response = get(host.addr, &format!("{target}{QUERY}")).await;
                assert_eq!(response.status, status, "{target} under {path}, slash: {add_trailing_slash}");
            }
        }
    }
}

#[tokio::test]
async fn parameters_may_be_percent_encoded() {
    let host = Host::start().await;
    let response = get(host.addr, "/engine.io/?E%49O=%34&transport=poll%69ng").await;
    assert_eq!(response.status, 200);
    let sid = sid_of(response.text());
    // Some clients encode everything but letters and digits, others everything.
    let encoded: String = sid.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let client = Polling { addr: host.addr, sid: encoded };
    assert_eq!(client.post("4a").await.says(), (200, "ok"));
    assert_eq!(client.poll().await.says(), (200, "4a"));
    let _ws = Ws::connect(host.addr, &client.websocket_target()).await;
    let wrong = Polling { addr: host.addr, sid: sid.replacen(&sid[..1], "%2", 1) };
    assert_eq!(wrong.poll().await.says(), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
}

#[tokio::test]
async fn empty_repeated_and_unknown_parameters_change_nothing() {
    let host = Host::start().await;
    for query in [
        "&&EIO=4&=&transport=polling&",
        "EIO=4&EIO=4&transport=abc&transport=polling",
        "EIO=4&transport=polling&t=abc&b64=1&a=%zz&b=%ff",
        "EIO=4&transport=polling&sid",
        "EIO=4&transport=polling&token=a+b%20c&list[0]=1",
    ] {
        assert_eq!(get(host.addr, &format!("/engine.io/?{query}")).await.status, 200, "{query}");
    }
}

#[tokio::test]
async fn a_parameter_j_is_jsonp_only_where_there_is_polling() {
    let host = Host::start().await;
    let mut ws = Ws::connect(host.addr, &format!("{WEBSOCKET}&j=1")).await;
    assert!(ws.text().await.starts_with("0{"));
    let client = Polling::open(&host).await;
    let mut ws = Ws::connect(host.addr, &format!("{}&j=1", client.websocket_target())).await;
    ws.send("2probe").await;
    assert_eq!(ws.text().await, "3probe");
}

#[tokio::test]
async fn a_websocket_that_asks_for_polling_is_opened_and_closed() {
    let host = Host::start().await;
    let ws = Ws::connect(host.addr, POLLING).await;
    assert_eq!(ws.close_frame().await, b"");
}

#[tokio::test]
async fn a_transport_that_is_off_is_unknown() {
    let host = Host::with(|config| config.transports = Transports { polling: false, websocket: true }).await;
    assert_eq!(get(host.addr, POLLING).await.says(), (400, r#"{"code":0,"message":"Transport unknown"}"#));
    let _open = Ws::open(&host).await;
}

#[tokio::test]
async fn a_client_that_the_application_does_not_admit_gets_403() {
    let host = Host::start().await;
    host.control.forbid.store(true, SeqCst);
    let body = r#"{"code":4,"message":"Forbidden"}"#;
    assert_eq!(get(host.addr, POLLING).await.says(), (403, body));
    assert_eq!(request(host.addr, "GET", WEBSOCKET, &UPGRADE).await.says(), (403, body));
    host.idle().await;
}

#[tokio::test]
async fn a_full_server_answers_503() {
    let host = Host::with(|config| config.max_sessions = 2).await;
    let _first = Polling::open(&host).await;
    let second = Ws::open(&host).await;
    assert_eq!(get(host.addr, POLLING).await.says(), (503, ""));
    assert_eq!(request(host.addr, "GET", WEBSOCKET, &UPGRADE).await.status, 503);
    assert_eq!(host.server.stats().overloads(), 2);
    drop(second);
    until(|| host.server.stats().sessions(Transport::WebSocket) == 0).await;
    within(async { while get(host.addr, POLLING).await.status != 200 {} }).await;
}

#[tokio::test]
async fn methods_that_polling_has_no_use_for_get_500_and_the_session_lives_on() {
    let host = Host::start().await;
    let client = Polling::open(&host).await;
    for method in ["PUT", "DELETE", "PATCH"] {
        assert_eq!(request(host.addr, method, &client.target(), &[]).await.says(), (500, ""));
    }
    assert_eq!(client.post("4a").await.status, 200);
}

// ---- CORS and Origin ----

#[tokio::test]
async fn a_foreign_origin_gets_403_on_every_transport() {
    let host = Host::start().await;
    let origin = ("Origin", "https://evil.example");
    let body = r#"{"code":4,"message":"Forbidden"}"#;
    let polling = request(host.addr, "GET", POLLING, &[origin]).await;
    assert_eq!(polling.says(), (403, body));
    assert_eq!(polling.header("access-control-allow-origin"), None);
    let websocket = request(host.addr, "GET", WEBSOCKET, &[&UPGRADE[..], &[origin]].concat()).await;
    assert_eq!(websocket.says(), (403, body));
    assert_eq!(host.server.stats().refusals(RequestError::Forbidden), 2);
    host.idle().await;
}

#[tokio::test]
async fn the_own_origin_needs_no_list_and_gets_no_headers() {
    let host = Host::start().await;
    let response = request(host.addr, "GET", POLLING, &[("Origin", "http://localhost")]).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn the_own_origin_may_be_written_as_a_websocket_url_and_with_the_default_port() {
    let host = Host::start().await;
    for (name, origin, status) in [
        ("watch.example:443", "wss://watch.example", 101),
        ("watch.example", "wss://watch.example:443", 101),
        ("watch.example:80", "ws://watch.example", 101),
        ("watch.example:443", "https://watch.example", 101),
        ("Watch.Example.", "https://watch.example./", 101),
        ("[::1]:443", "wss://[0:0::1]", 101),
        ("watch.example:8443", "wss://watch.example:8443", 101),
        ("watch.example:443", "ws://watch.example", 403),
        ("watch.example:443", "wss://watch.example.evil", 403),
        ("watch.example:443", "wss://evil.example", 403),
        ("watch.example:443", "wss://watch.example:444", 403),
        ("watch.example", "app://watch.example", 403),
        ("null", "null", 403),
        ("", "file://", 403),
    ] {
        let mut http = Http::connect(host.addr).await;
        let fields: String = UPGRADE.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        http.write(format!("GET {WEBSOCKET} HTTP/1.1\r\nHost: {name}\r\nOrigin: {origin}\r\n{fields}\r\n")).await;
        assert_eq!(http.response().await.status, status, "{origin} at {name}");
    }
}

#[tokio::test]
async fn two_origins_or_two_hosts_are_refused() {
    let host = Host::start().await;
    for fields in [
        "Host: a.example\r\nOrigin: http://a.example\r\nOrigin: http://b.example",
        "Host: a.example\r\nHost: b.example\r\nOrigin: http://a.example",
    ] {
        let mut http = Http::connect(host.addr).await;
        http.write(format!("GET {POLLING} HTTP/1.1\r\n{fields}\r\n\r\n")).await;
        assert_eq!(http.response().await.status, 403, "{fields}");
    }
}

#[tokio::test]
async fn the_host_of_an_absolute_target_counts() {
    let host = Host::start().await;
    for (origin, status) in [("http://a.example", 200), ("http://b.example", 403)] {
        let mut http = Http::connect(host.addr).await;
        let head = format!("GET http://a.example{POLLING} HTTP/1.1\r\nHost: b.example\r\nOrigin: {origin}\r\n\r\n");
        http.write(head).await;
        assert_eq!(http.response().await.status, status, "{origin}");
    }
}

#[tokio::test]
async fn a_listed_origin_gets_its_headers_on_answers_errors_and_101() {
    let host = Host::with(|config| config.origins = Origins::parse("https://app.example").unwrap()).await;
    let origin = ("Origin", "https://app.example");
    for (target, headers) in [
        (POLLING, vec![origin]),
        ("/engine.io/?EIO=4&transport=abc", vec![origin]),
        (WEBSOCKET, [&UPGRADE[..], &[origin]].concat()),
    ] {
        let response = request(host.addr, "GET", target, &headers).await;
        assert_eq!(response.header("access-control-allow-origin"), Some("https://app.example"), "{target}");
        assert_eq!(response.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(response.header("vary"), Some("Origin"));
    }
}

#[tokio::test]
async fn any_origin_is_answered_with_a_star() {
    let host = Host::with(|config| config.origins = Origins::Any).await;
    let response = request(host.addr, "GET", POLLING, &[("Origin", "https://a.example")]).await;
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    assert_eq!(response.header("vary"), None);
}

#[tokio::test]
async fn a_preflight_is_answered_with_204() {
    let host = Host::with(|config| config.origins = Origins::Any).await;
    let headers = [("Origin", "https://a.example"), ("Access-Control-Request-Headers", "x-a")];
    let response = request(host.addr, "OPTIONS", POLLING, &headers).await;
    assert_eq!(response.says(), (204, ""));
    assert_eq!(response.header("access-control-allow-methods"), Some("GET,HEAD,PUT,PATCH,POST,DELETE"));
    assert_eq!(response.header("access-control-allow-headers"), Some("x-a"));
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn an_origin_that_is_no_text_is_a_bad_request() {
    let host = Host::start().await;
    let mut http = Http::connect(host.addr).await;
    http.write([b"GET ", POLLING.as_bytes(), b" HTTP/1.1\r\nHost: localhost\r\nOrigin: \xff\r\n\r\n"].concat()).await;
    assert_eq!(http.response().await.says(), (400, r#"{"code":3,"message":"Bad request"}"#));
}

// ---- messages ----

#[tokio::test]
async fn text_and_binary_are_echoed_over_polling() {
    let host = Host::start().await;
    let client = Polling::open(&host).await;
    let ok = client.post("4hello\x1e4wörld\x1ebAQIDBA==").await;
    assert_eq!(ok.says(), (200, "ok"));
    assert_eq!(ok.header("content-type"), Some("text/html"));
    assert_eq!(ok.header("content-length"), Some("2"));
    assert_eq!(ok.header("cache-control"), Some("no-store"));
    let poll = client.poll().await;
    assert_eq!(poll.says(), (200, "4hello\x1e4wörld\x1ebAQIDBA=="));
    assert_eq!(poll.header("content-type"), Some("text/plain; charset=UTF-8"));
}

#[tokio::test]
async fn base64_is_read_as_node_reads_it() {
    let mut host = Host::start().await;
    host.control.silent.store(true, SeqCst);
    let client = Polling::open(&host).await;
    let whole: &[u8] = &[1, 2, 3];
    let lines = format!("b{}", "QUFB\n".repeat(40));
    for (packet, bytes) in [
        ("bAQID\n", whole),
        ("bAQ\r\nID\r\n", whole),
        ("b\nAQI\n=\n", &[1, 2]),
        (&lines, &[b'A'; 120]),
        ("bAQ", &[1]),
        ("bAQ=", &[1]),
        ("bAR==", &[1]),
        ("b-_-_+/+/", &[0xfb, 0xff, 0xbf, 0xfb, 0xff, 0xbf]),
        ("b", &[]),
        ("b\n", &[]),
    ] {
        assert_eq!(client.post(packet).await.says(), (200, "ok"), "{packet:?}");
        assert_eq!(host.message().await, Message::Binary(Bytes::copy_from_slice(bytes)), "{packet:?}");
    }
}

#[tokio::test]
async fn what_is_no_base64_closes_the_session() {
    let mut host = Host::start().await;
    for packet in ["bA", "bA*Q", "bAQ ID", "bAQ==AQ==", "bAQI==", "b=", "bAQID=", "b\u{e9}"] {
        let client = Polling::open(&host).await;
        assert_eq!(client.post(packet).await.says(), (200, "ok"), "{packet}");
        assert_eq!(host.closed().await, CloseReason::ParseError, "{packet}");
    }
}

#[tokio::test]
async fn a_body_may_come_in_any_way_that_http_has() {
    let host = Host::start().await;
    let client = Polling::open(&host).await;
    for (fields, body) in [
        ("Transfer-Encoding: chunked", "1\r\n4\r\n2;a=b\r\nhi\r\n0\r\nX-Trailer: 1\r\n\r\n"),
        ("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3", "4hi"),
        ("Content-Type: application/json; charset=utf-8\r\nContent-Length: 3", "4hi"),
        ("content-length: 3", "4hi"),
    ] {
        let mut http = Http::connect(client.addr).await;
        http.write(format!("POST {} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n{body}", client.target())).await;
        assert_eq!(http.response().await.says(), (200, "ok"), "{fields}");
        assert_eq!(client.poll().await.says(), (200, "4hi"), "{fields}");
    }
}

#[tokio::test]
async fn a_client_that_waits_to_be_asked_for_the_body_is_asked() {
    let host = Host::start().await;
    let client = Polling::open(&host).await;
    let mut http = Http::connect(client.addr).await;
    let target = client.target();
    let head =
        format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    http.write(head).await;
    assert_eq!(http.response().await.status, 100);
    http.write("4hi").await;
    assert_eq!(http.response().await.says(), (200, "ok"));
    assert_eq!(client.poll().await.says(), (200, "4hi"));
}

#[tokio::test]
async fn a_waiting_poll_is_answered_when_something_is_sent() {
    let mut host = Host::start().await;
    let client = Polling::open(&host).await;
    let socket = host.opened().await;
    let mut poll = client.start_poll().await;
    socket.send(Frame::message(&Message::Text("late".into()))).unwrap();
    assert_eq!(poll.response().await.says(), (200, "4late"));
}

#[tokio::test]
async fn requests_of_one_connection_follow_each_other() {
    let host = Host::start().await;
    let client = Polling::open(&host).await;
    let mut http = Http::connect(host.addr).await;
    for text in ["4a", "4b"] {
        http.request("POST", &client.target(), &[], text.as_bytes()).await;
        assert_eq!(http.response().await.says(), (200, "ok"));
        http.request("GET", &client.target(), &[], b"").await;
        assert_eq!(http.response().await.says(), (200, text));
    }
}

#[tokio::test]
async fn text_and_binary_are_echoed_over_a_websocket_by_tungstenite() {
    let host = Host::start().await;
    let url = format!("ws://{}{WEBSOCKET}", host.addr);
    let (mut ws, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    assert!(within(ws.next()).await.unwrap().unwrap().into_text().unwrap().starts_with("0{"));
    for message in [
        tungstenite::Message::text("4hello"),
        tungstenite::Message::binary(vec![0, 1, 255]),
        tungstenite::Message::text("4"),
        tungstenite::Message::binary(vec![]),
    ] {
        ws.send(message.clone()).await.unwrap();
        assert_eq!(within(ws.next()).await.unwrap().unwrap(), message);
    }
    ws.close(None).await.unwrap();
    host.idle().await;
}

#[tokio::test]
async fn base64_in_a_text_frame_is_binary() {
    let mut host = Host::start().await;
    let mut ws = Ws::open(&host).await;
    ws.send("bAQID").await;
    assert_eq!(host.message().await, Message::Binary(Bytes::from_static(&[1, 2, 3])));
    assert_eq!(ws.read().await, Some((FIN | BINARY, vec![1, 2, 3])));
}

#[tokio::test]
async fn a_message_in_fragments_is_one_message_even_with_a_ping_between_them() {
    let mut host = Host::start().await;
    let mut ws = Ws::open(&host).await;
    ws.frame(TEXT, b"4he").await;
    ws.frame(FIN | PING, b"x").await;
    ws.frame(0, "ö".as_bytes().split_at(1).0).await;
    ws.frame(FIN, "ö".as_bytes().split_at(1).1).await;
    assert_eq!(host.message().await, Message::Text("heö".into()));
    assert_eq!(ws.read().await, Some((FIN | PONG, b"x".to_vec())));
    assert_eq!(ws.text().await, "4heö");
}

#[tokio::test]
async fn a_frame_may_come_byte_by_byte() {
    let host = Host::start().await;
    let mut ws = Ws::open(&host).await;
    for byte in masked(FIN | TEXT, b"4slow") {
        ws.http.write([byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(ws.text().await, "4slow");
}

#[tokio::test]
async fn frames_may_come_right_behind_the_handshake() {
    let host = Host::start().await;
    let mut http = Http::connect(host.addr).await;
    let mut bytes = format!("GET {WEBSOCKET} HTTP/1.1\r\nHost: localhost\r\n").into_bytes();
    for (name, value) in UPGRADE {
        bytes.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(masked(FIN | TEXT, b"4eager"));
    http.write(bytes).await;
    assert_eq!(http.response().await.status, 101);
    let mut ws = Ws { http };
    assert!(ws.text().await.starts_with("0{"));
    assert_eq!(ws.text().await, "4eager");
}

#[tokio::test]
async fn a_megabyte_passes_both_ways_on_both_transports() {
    let host = Host::with(|config| config.max_payload_bytes = 2_000_000).await;
    let large = "é".repeat(500_000);
    let packet = format!("4{large}");

    let client = Polling::open(&host).await;
    assert_eq!(client.post(&packet).await.says(), (200, "ok"));
    assert!(client.poll().await.text() == packet);

    let mut ws = Ws::open(&host).await;
    ws.send(&packet).await;
    assert!(ws.text().await == packet);
    ws.frame(FIN | BINARY, packet.as_bytes()).await;
    assert!(ws.read().await == Some((FIN | BINARY, packet.into_bytes())));
}

#[tokio::test]
async fn packets_without_a_meaning_are_ignored() {
    let host = Host::start().await;
    let client = Polling::open(&host).await;
    assert_eq!(client.post("0\x1e3\x1e5\x1e6\x1e4a").await.says(), (200, "ok"));
    assert_eq!(client.poll().await.text(), "4a");
    let mut ws = Ws::open(&host).await;
    for packet in ["0", "3", "5", "6", "4a"] {
        ws.send(packet).await;
    }
    assert_eq!(ws.text().await, "4a");
}

#[tokio::test]
async fn wrong_packets_close_the_session() {
    for wrong in ["abc", "", "4a\x1e", "2", "2probe"] {
        let mut host = Host::start().await;
        host.control.silent.store(true, SeqCst);
        let client = Polling::open(&host).await;
        let mut poll = host.waiting_poll(&client).await;
        assert_eq!(client.post(wrong).await.says(), (200, "ok"), "{wrong:?}");
        assert_eq!(poll.response().await.says(), (200, "1"));
        let reason = host.closed().await;
        let expected = if wrong.starts_with('2') { CloseReason::TransportError } else { CloseReason::ParseError };
        assert_eq!(reason, expected, "{wrong:?}");
        assert_eq!(client.poll().await.says(), (400, r#"{"code":1,"message":"Session ID unknown"}"#));

        if wrong.contains('\x1e') {
            continue;
        }
        let mut ws = Ws::open(&host).await;
        ws.send(wrong).await;
        assert_eq!(ws.close_frame().await, b"", "{wrong:?}");
        assert_eq!(host.closed().await, expected);
        host.idle().await;
    }
}

// ---- heartbeat ----

#[tokio::test]
async fn pings_come_over_polling_and_a_missing_pong_closes() {
    let mut host = quick_heartbeat().await;
    let client = Polling::open(&host).await;
    for _ in 0..3 {
        assert_eq!(client.poll().await.text(), "2");
        assert_eq!(client.post("3").await.says(), (200, "ok"));
    }
    assert_eq!(client.poll().await.text(), "2");
    assert_eq!(client.poll().await.text(), "1");
    assert_eq!(host.closed().await, CloseReason::PingTimeout);
    assert_eq!(client.poll().await.status, 400);
    host.idle().await;
}

#[tokio::test]
async fn pings_come_over_websocket_and_a_missing_pong_closes() {
    let mut host = quick_heartbeat().await;
    let mut ws = Ws::open(&host).await;
    for _ in 0..3 {
        assert_eq!(ws.text().await, "2");
        ws.send("3").await;
    }
    assert_eq!(ws.text().await, "2");
    assert_eq!(ws.close_frame().await, b"");
    assert_eq!(host.closed().await, CloseReason::PingTimeout);
    host.idle().await;
}

#[tokio::test]
async fn pings_of_websocket_are_answered_and_no_sign_of_life() {
    let mut host = quick_heartbeat().await;
    let mut ws = Ws::open(&host).await;
    assert_eq!(ws.text().await, "2");
    ws.frame(FIN | PING, b"alive?").await;
    assert_eq!(ws.read().await, Some((FIN | PONG, b"alive?".to_vec())));
    assert_eq!(ws.close_frame().await, b"");
    assert_eq!(host.closed().await, CloseReason::PingTimeout);
}

#[tokio::test]
async fn a_client_that_never_polls_is_forgotten() {
    let mut host = quick_heartbeat().await;
    let client = Polling::open(&host).await;
    assert_eq!(host.closed().await, CloseReason::PingTimeout);
    assert_eq!(client.poll().await.status, 400);
    host.idle().await;
}

#[tokio::test]
async fn an_idle_session_costs_no_turns() {
    let host = Host::start().await;
    let mut ws = Ws::open(&host).await;
    ws.send("4a").await;
    assert_eq!(ws.text().await, "4a");
    let client = Polling::open(&host).await;
    let _poll = client.start_poll().await;
    // Nothing can be awaited where nothing is to happen; a busy loop takes thousands of turns in this time.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = host.control.turns.load(SeqCst);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(host.control.turns.load(SeqCst), before);
}

// ---- close ----

#[tokio::test]
async fn a_client_closes_over_polling() {
    let mut host = Host::start().await;
    let client = Polling::open(&host).await;
    let mut poll = host.waiting_poll(&client).await;
    assert_eq!(client.post("1").await.says(), (200, "ok"));
    assert_eq!(poll.response().await.says(), (200, "6"));
    assert_eq!(host.closed().await, CloseReason::ClosedByClient);
    assert_eq!(client.poll().await.says(), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
    host.idle().await;
}

#[tokio::test]
async fn a_client_closes_over_websocket_with_a_packet() {
    let mut host = Host::start().await;
    let mut ws = Ws::open(&host).await;
    ws.send("1").await;
    assert_eq!(ws.close_frame().await, b"");
    assert_eq!(host.closed().await, CloseReason::ClosedByClient);
}

#[tokio::test]
async fn a_close_frame_is_echoed_and_its_code_tells_a_goodbye_from_trouble() {
    for (code, reason) in [
        (&b""[..], CloseReason::ClosedByClient),
        (&[3, 232], CloseReason::ClosedByClient),  // 1000
        (&[3, 233], CloseReason::ClosedByClient),  // 1001
        (&[3, 243], CloseReason::ConnectionLost),  // 1011
        (&[15, 160], CloseReason::ConnectionLost), // 4000
    ] {
        let mut host = Host::start().await;
        let mut ws = Ws::open(&host).await;
        ws.frame(FIN | CLOSE, code).await;
        assert_eq!(ws.close_frame().await, code);
        assert_eq!(host.closed().await, reason, "{code:?}");
        host.idle().await;
    }
}

#[tokio::test]
async fn a_peer_that_vanishes_is_lost() {
    let mut host = Host::start().await;
    drop(Ws::open(&host).await);
    assert_eq!(host.closed().await, CloseReason::ConnectionLost);
    let reset = Ws::open(&host).await;
    reset.http.stream.set_zero_linger().unwrap();
    drop(reset);
    assert_eq!(host.closed().await, CloseReason::ConnectionLost);
    host.idle().await;
}

#[tokio::test]
async fn the_application_closes_a_waiting_poll() {
    let mut host = Host::start().await;
    let client = Polling::open(&host).await;
    let socket = host.opened().await;
    let mut poll = host.waiting_poll(&client).await;
    socket.close();
    assert_eq!(poll.response().await.says(), (200, "1"));
    assert_eq!(host.closed().await, CloseReason::ForcedClose);
    until(|| socket.is_closed()).await;
    assert!(socket.send(Frame::binary(b"")).is_err());
}

#[tokio::test]
async fn the_application_closes_between_two_polls() {
    let mut host = Host::start().await;
    let client = Polling::open(&host).await;
    host.opened().await.close();
    assert_eq!(client.poll().await.says(), (200, "6\x1e1"));
    assert_eq!(host.closed().await, CloseReason::ForcedClose);
}

#[tokio::test]
async fn what_was_sent_before_the_close_arrives() {
    let mut host = Host::start().await;
    let client = Polling::open(&host).await;
    let socket = host.opened().await;
    socket.send(Frame::message(&Message::Text("last".into()))).unwrap();
    socket.close();
    assert_eq!(client.poll().await.says(), (200, "4last"));
    assert_eq!(client.poll().await.says(), (200, "6\x1e1"));

    let mut ws = Ws::open(&host).await;
    let socket = host.opened().await;
    let large = "x".repeat(3_000_000);
    socket.send(Frame::message(&Message::Text(large.as_str().into()))).unwrap();
    socket.close();
    assert_eq!(ws.text().await.len(), 1 + large.len());
    assert_eq!(ws.close_frame().await, b"");
    host.idle().await;
}

#[tokio::test]
async fn closing_the_server_closes_every_session_and_lets_no_new_one_in() {
    let mut host = Host::start().await;
    let client = Polling::open(&host).await;
    let mut poll = host.waiting_poll(&client).await;
    let ws = Ws::open(&host).await;
    let server: Server<App> = host.server.clone();
    let closing = tokio::spawn(async move { server.close().await });
    assert_eq!(poll.response().await.says(), (200, "1"));
    assert_eq!(ws.close_frame().await, b"");
    within(closing).await.unwrap();
    assert_eq!(host.closed().await, CloseReason::ForcedClose);
    assert_eq!(host.closed().await, CloseReason::ForcedClose);
    assert_eq!(get(host.addr, POLLING).await.status, 503);
    host.idle().await;
    host.shut_down().await;
}

#[tokio::test]
async fn closing_an_empty_server_is_done_at_once() {
    let host = Host::start().await;
    within(host.server.close()).await;
}

#[tokio::test]
async fn serving_ends_with_the_requests_in_progress_and_breaks_off_the_rest() {
    let host = Host::limited(|_| {}, |limits| limits.shutdown_timeout = Duration::from_millis(100)).await;
    let client = Polling::open(&host).await;
    let poll = host.waiting_poll(&client).await;
    let idle = Http::connect(host.addr).await;
    let addr = host.addr;
    host.shut_down().await;
    assert_eq!(poll.end().await, b"");
    assert_eq!(idle.end().await, b"");
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}

// ---- upgrade ----

#[tokio::test]
async fn a_session_moves_from_polling_to_websocket() {
    let host = Host::start().await;
    let client = Polling::open(&host).await;
    let mut poll = client.start_poll().await;
    let mut ws = Ws::probe(&client).await;
    assert_eq!(poll.response().await.text(), "6");
    // The next poll is released too, and so on until the upgrade is done.
    assert_eq!(client.poll().await.text(), "6");
    assert_eq!(client.poll().await.text(), "6");
    ws.send("5").await;
    ws.send("4over").await;
    assert_eq!(ws.text().await, "4over");
    assert_eq!(host.server.stats().sessions(Transport::Polling), 0);
    assert_eq!(host.server.stats().sessions(Transport::WebSocket), 1);

    let bad = r#"{"code":3,"message":"Bad request"}"#;
    assert_eq!(client.poll().await.says(), (400, bad));
    assert_eq!(client.post("4late").await.says(), (400, bad));
    ws.send("4still").await;
    assert_eq!(ws.text().await, "4still");
    drop(ws);
    host.idle().await;
}

#[tokio::test]
async fn messages_sent_amid_an_upgrade_arrive_once_and_in_order() {
    let mut host = Host::start().await;
    let client = Polling::open(&host).await;
    let socket = host.opened().await;
    let send = |text: &str| socket.send(Frame::message(&Message::Text(text.into()))).unwrap();
    let mut ws = Ws::probe(&client).await;
    send("a");
    assert_eq!(client.poll().await.text(), "4a");
    send("b");
    ws.send("5").await;
    assert_eq!(ws.text().await, "4b");
    send("c");
    assert_eq!(ws.text().await, "4c");
}

#[tokio::test]
async fn a_second_websocket_with_the_same_sid_is_closed_and_the_first_lives_on() {
    let host = Host::start().await;
    let client = Polling::open(&host).await;
    let mut ws = Ws::probe(&client).await;
    let beside = Ws::connect(host.addr, &client.websocket_target()).await;
    assert_eq!(beside.close_frame().await, b"");
    ws.send("5").await;
    ws.send("4a").await;
    assert_eq!(ws.text().await, "4a");
    let after = Ws::connect(host.addr, &client.websocket_target()).await;
    assert_eq!(after.close_frame().await, b"");
    ws.send("4b").await;
    assert_eq!(ws.text().await, "4b");
}

#[tokio::test]
async fn a_failed_upgrade_leaves_the_session_on_polling() {
    let host = Host::with(|config| config.upgrade_timeout = Duration::from_millis(100)).await;
    let client = Polling::open(&host).await;
    for first in ["4hi", "abc", "2other"] {
        let mut ws = Ws::connect(host.addr, &client.websocket_target()).await;
        ws.send(first).await;
        assert_eq!(ws.close_frame().await, b"", "{first}");
        assert_eq!(client.post("4a").await.status, 200);
        assert_eq!(client.poll().await.text(), "4a");
    }
    drop(Ws::probe(&client).await); // vanishes
    let late = Ws::connect(host.addr, &client.websocket_target()).await;
    assert_eq!(late.close_frame().await, b"");
    assert_eq!(client.post("4b").await.status, 200);
    assert_eq!(client.poll().await.text(), "4b");
    let mut ws = Ws::probe(&client).await;
    ws.send("5").await;
    ws.send("4c").await;
    assert_eq!(ws.text().await, "4c");
}

#[tokio::test]
async fn a_candidate_that_breaks_the_rules_is_told_the_code() {
    let host = Host::start().await;
    let client = Polling::open(&host).await;
    let mut ws = Ws::probe(&client).await;
    ws.http.write([0x81, 1, b'5']).await; // not masked
    assert_eq!(ws.close_frame().await, 1002_u16.to_be_bytes());
    assert_eq!(client.post("4a").await.status, 200);
}

#[tokio::test]
async fn a_candidate_that_pings_gets_a_pong() {
    let host = Host::start().await;
    let client = Polling::open(&host).await;
    let mut ws = Ws::connect(host.addr, &client.websocket_target()).await;
    ws.frame(FIN | PING, b"x").await;
    assert_eq!(ws.read().await, Some((FIN | PONG, b"x".to_vec())));
    ws.send("2probe").await;
    assert_eq!(ws.text().await, "3probe");
}

#[tokio::test]
async fn probe_upgrade_and_messages_may_come_in_one_piece() {
    let host = Host::start().await;
    let client = Polling::open(&host).await;
    let mut ws = Ws::connect(host.addr, &client.websocket_target()).await;
    let piece: Vec<u8> = ["2probe", "5", "4a"].iter().flat_map(|text| masked(FIN | TEXT, text.as_bytes())).collect();
    ws.http.write(piece).await;
    assert_eq!(ws.text().await, "3probe");
    assert_eq!(ws.text().await, "4a");
}

#[tokio::test]
async fn a_session_that_is_closed_amid_its_upgrade_says_so_on_the_websocket() {
    let mut host = Host::start().await;
    let client = Polling::open(&host).await;
    let socket = host.opened().await;
    let mut ws = Ws::probe(&client).await;
    socket.close();
    ws.send("5").await;
    assert_eq!(ws.close_frame().await, b"");
    assert_eq!(host.closed().await, CloseReason::ForcedClose);
}

// ---- overlapping, aborted and excessive requests ----

#[tokio::test]
async fn overlapping_polls_close_the_session() {
    let mut host = Host::start().await;
    let client = Polling::open(&host).await;
    let mut first = host.waiting_poll(&client).await;
    assert_eq!(client.poll().await.says(), (400, ""));
    assert_eq!(first.response().await.says(), (200, "1"));
    assert_eq!(host.closed().await, CloseReason::TransportError);
    host.idle().await;
}

#[tokio::test]
async fn overlapping_posts_close_the_session_and_reset_the_first() {
    let mut host = Host::start().await;
    let client = Polling::open(&host).await;
    let turns = host.settled().await;
    let first = client.start_post(10).await;
    until(|| host.control.turns.load(SeqCst) > turns).await;
    assert_eq!(client.post("4a").await.says(), (400, ""));
    assert_eq!(first.end().await, b"");
    assert_eq!(host.closed().await, CloseReason::TransportError);
    host.idle().await;
}

#[tokio::test]
async fn an_aborted_poll_closes_the_session() {
    let mut host = Host::start().await;
    let client = Polling::open(&host).await;
    drop(client.start_poll().await);
    assert_eq!(host.closed().await, CloseReason::TransportError);
    assert_eq!(client.poll().await.says(), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
    host.idle().await;
}

#[tokio::test]
async fn an_aborted_post_closes_the_session() {
    let mut host = Host::start().await;
    let client = Polling::open(&host).await;
    let mut post = client.start_post(10).await;
    post.write("4a").await;
    drop(post);
    assert_eq!(host.closed().await, CloseReason::TransportError);
    host.idle().await;
}

#[tokio::test]
async fn a_post_that_trickles_in_is_processed_when_it_is_complete() {
    let host = Host::start().await;
    let client = Polling::open(&host).await;
    let mut post = client.start_post(7).await;
    for byte in b"4a\x1e4bcd" {
        post.write([*byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(post.response().await.says(), (200, "ok"));
    assert_eq!(client.poll().await.text(), "4a\x1e4bcd");
}

#[tokio::test]
async fn a_chunked_post_is_fine() {
    let host = Host::start().await;
    let client = Polling::open(&host).await;
    let mut post = Http::connect(host.addr).await;
    post.write(format!("POST {} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", client.target())).await;
    post.write("2\r\n4a\r\n3\r\n\x1e4b\r\n0\r\n\r\n").await;
    assert_eq!(post.response().await.says(), (200, "ok"));
    assert_eq!(client.poll().await.text(), "4a\x1e4b");
}

#[tokio::test]
async fn a_post_that_is_too_large_gets_413_and_the_session_lives_on() {
    let host = Host::with(|config| config.max_payload_bytes = 100).await;
    let client = Polling::open(&host).await;
    let large = format!("4{}", "x".repeat(100));
    for _ in 0..20 {
        assert_eq!(client.post(&large).await.says(), (413, ""), "the one before is not in the way");
    }
    assert_eq!(client.post(&large[1..].replacen('x', "4", 1)).await.says(), (200, "ok"));

    let mut chunked = Http::connect(host.addr).await;
    chunked.write(format!("POST {} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", client.target())).await;
    chunked.write(format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len())).await;
    assert_eq!(chunked.response().await.says(), (413, ""));

    let mut endless = client.start_post(usize::MAX >> 8).await;
    endless.write("x".repeat(20_000)).await;
    assert_eq!(endless.response().await.says(), (413, ""));
    assert_eq!(client.poll().await.body.len(), 100);
}

#[tokio::test]
async fn as_many_packets_as_fit_into_a_body_are_taken() {
    let host = Host::start().await;
    let client = Polling::open(&host).await;
    let count = 200_000;
    let body = vec!["4a"; count].join("\x1e");
    let posting = client.start_post(body.len()).await;
    let (posted, echoed) = tokio::join!(
        async {
            let mut posting = posting;
            posting.write(&body).await;
            posting.response().await
        },
        async {
            let mut echoed = 0;
            while echoed < count {
                echoed += client.poll().await.text().split('\x1e').filter(|packet| *packet == "4a").count();
            }
            echoed
        }
    );
    assert_eq!(posted.says(), (200, "ok"));
    assert_eq!(echoed, count);
}

#[tokio::test]
async fn a_slow_body_is_taken_as_long_as_it_comes() {
    let host = Host::with(|config| config.body_timeout = Duration::from_millis(500)).await;
    let client = Polling::open(&host).await;
    let mut post = client.start_post(9).await;
    for part in ["4", "s", "l", "o", "w", "l", "y", "!", "!"] {
        tokio::time::sleep(Duration::from_millis(80)).await; // longer than the limit in all
        post.write(part).await;
    }
    assert_eq!(post.response().await.says(), (200, "ok"));
    assert_eq!(client.poll().await.text(), "4slowly!!");
}

#[tokio::test]
async fn a_body_of_which_nothing_comes_is_cut_off_with_408() {
    let mut host = Host::with(|config| config.body_timeout = Duration::from_millis(50)).await;
    let client = Polling::open(&host).await;
    let mut post = client.start_post(10).await;
    post.write("4").await;
    assert_eq!(post.response().await.says(), (408, ""));
    assert_eq!(post.end().await, b"");
    assert_eq!(host.closed().await, CloseReason::TransportError);
    host.idle().await;
}

// ---- a handler that is behind, a client that is behind ----

#[tokio::test]
async fn messages_for_a_handler_that_is_behind_are_kept_in_order() {
    let host = Host::start().await;
    let mut ws = Ws::open(&host).await;
    host.control.behind.store(true, SeqCst);
    for number in 0..500 {
        ws.send(&format!("4{number}")).await;
    }
    host.control.catch_up();
    for number in 0..500 {
        assert_eq!(ws.text().await, format!("4{number}"));
    }
}

#[tokio::test]
async fn a_goodbye_is_noticed_though_the_handler_is_behind_and_what_came_before_it_is_delivered() {
    let mut host = Host::start().await;
    let mut ws = Ws::open(&host).await;
    let _socket = host.opened().await;
    host.control.behind.store(true, SeqCst);
    ws.send("4a").await;
    ws.send("4b").await;
    ws.frame(FIN | CLOSE, b"").await;
    for text in ["a", "b"] {
        assert!(matches!(host.event().await, Event::Message(Message::Text(got)) if &*got == text));
    }
    assert!(matches!(host.event().await, Event::Closed(CloseReason::ClosedByClient)));
}

#[tokio::test]
async fn a_loss_is_noticed_though_nothing_is_read_for_a_handler_that_is_behind() {
    let mut host = quick_heartbeat().await;
    let mut ws = Ws::open(&host).await;
    host.control.behind.store(true, SeqCst);
    let kilobytes = format!("4{}", "x".repeat(40_000));
    for _ in 0..3 {
        ws.send(&kilobytes).await;
    }
    drop(ws);
    assert_eq!(host.closed().await, CloseReason::TransportError, "a ping could not be written");
    host.idle().await;
}

#[tokio::test]
async fn a_client_is_not_closed_for_pongs_that_are_not_read() {
    let host = quick_heartbeat().await;
    let mut ws = Ws::open(&host).await;
    host.control.behind.store(true, SeqCst);
    host.control.silent.store(true, SeqCst);
    let kilobytes = format!("4{}", "x".repeat(40_000));
    for _ in 0..3 {
        ws.send(&kilobytes).await;
    }
    // Its pongs wait behind the third message; a second ping comes after the time for the first pong.
    for _ in 0..2 {
        assert_eq!(ws.text().await, "2");
        ws.send("3").await;
    }
    host.control.silent.store(false, SeqCst);
    host.control.catch_up();
    ws.send("4still there").await;
    while ws.text().await != "4still there" {
        ws.send("3").await;
    }
}

#[tokio::test]
async fn a_post_waits_for_a_handler_that_is_behind_and_a_second_one_overlaps() {
    let mut host = Host::start().await;
    let client = Polling::open(&host).await;
    host.control.behind.store(true, SeqCst);
    let flood = vec!["4a"; 64].join("\x1e");
    assert_eq!(client.post(&flood).await.status, 200);
    let mut waiting = Http::connect(host.addr).await;
    let turns = host.control.turns.load(SeqCst);
    waiting.request("POST", &client.target(), &[], b"4b").await;
    until(|| host.control.turns.load(SeqCst) > turns).await;
    host.control.catch_up();
    assert_eq!(waiting.response().await.says(), (200, "ok"));

    host.control.behind.store(true, SeqCst);
    assert_eq!(client.post(&flood).await.status, 200);
    let turns = host.control.turns.load(SeqCst);
    let mut waiting = Http::connect(host.addr).await;
    waiting.request("POST", &client.target(), &[], b"4c").await;
    until(|| host.control.turns.load(SeqCst) > turns).await;
    assert_eq!(client.post("4d").await.says(), (400, ""));
    assert_eq!(waiting.end().await, b"");
    assert_eq!(host.closed().await, CloseReason::TransportError);
}

#[tokio::test]
async fn a_websocket_client_that_never_reads_is_refused_more_and_closed_after_the_stall_time() {
    let mut host = Host::with(|config| {
        config.max_buffered_bytes = 200_000;
        config.max_backlog_bytes = Some(1_000_000);
        config.stall_timeout = Some(Duration::from_millis(300));
    })
    .await;
    let _never_reads = Ws::open(&host).await;
    let socket = host.opened().await;
    let message = Frame::binary(&[0; 50_000]);
    within(async {
        while socket.send(message.clone()) != Err(SendError::Full) {
            assert!(host.server.stats().queued_bytes() <= 1_000_000);
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(socket.queued_bytes() > 900_000 && !socket.is_closed());
    assert_eq!(host.closed().await, CloseReason::TransportError);
    assert_eq!(socket.send(message), Err(SendError::Gone));
    host.idle().await;
}

#[tokio::test]
async fn a_websocket_client_that_never_reads_is_closed_by_the_ping_timeout_at_the_latest() {
    let mut host = Host::with(|config| {
        config.ping_interval = Duration::from_millis(100);
        config.ping_timeout = Duration::from_millis(400);
        config.max_buffered_bytes = 100_000_000;
    })
    .await;
    let _never_reads = Ws::open(&host).await;
    let socket = host.opened().await;
    socket.send(Frame::binary(&vec![0; 30_000_000])).unwrap();
    assert_eq!(host.closed().await, CloseReason::PingTimeout);
    host.idle().await;
}

#[tokio::test]
async fn a_client_that_reads_gets_everything_however_much_it_asked_for_before() {
    let host = Host::start().await;
    for (count, bytes) in [(1_000, 20_000), (200, 90_000), (20_000, 1_000), (60, 900_000)] {
        let ws = Ws::open(&host).await;
        let text = format!("4{}", "x".repeat(bytes));
        let (mut sink, mut stream) = ws.split();
        let sending = async {
            for _ in 0..count {
                sink.send(&text).await;
            }
        };
        let reading = async {
            for _ in 0..count {
                assert!(stream.text().await == text);
            }
        };
        tokio::join!(sending, reading);
    }
}

#[tokio::test]
async fn a_slow_reader_gets_everything_and_holds_its_own_sending_up() {
    let host = Host::with(|config| {
        config.ping_interval = Duration::from_millis(200);
        config.ping_timeout = Duration::from_millis(400);
    })
    .await;
    let ws = Ws::open(&host).await;
    let text = format!("4{}", "x".repeat(50_000));
    let (mut sink, mut stream) = ws.split();
    let count = 400;
    // As in the published clients, a pong waits behind what was sent before it.
    let (pinged, mut pings) = tokio::sync::mpsc::unbounded_channel();
    let sending = async {
        for _ in 0..count {
            if pings.try_recv().is_ok() {
                sink.send("3").await;
            }
            sink.send(&text).await;
        }
        while pings.recv().await.is_some() {
            sink.send("3").await;
        }
    };
    let mut most = 0;
    let reading = async {
        let pinged = pinged;
        let mut read = 0;
        while read < count {
            let frame = stream.text().await;
            if frame == "2" {
                pinged.send(()).unwrap();
                continue;
            }
            assert!(frame == text);
            read += 1;
            most = most.max(host.server.stats().queued_bytes());
            if read % 8 == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await; // a reader of 20 MB/s
            }
        }
    };
    tokio::join!(sending, reading);
    assert!(most < (1 << 20) + 200_000, "{most} bytes waited");
}

#[tokio::test]
async fn the_clients_furthest_behind_go_first_when_too_much_waits_in_all() {
    let mut host = Host::with(|config| {
        config.max_buffered_bytes = 1_000_000;
        config.max_backlog_bytes = Some(8_000_000);
        config.max_total_backlog_bytes = 8_000_000;
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let client = Polling::open(&host).await;
        clients.push((client, host.opened().await));
    }
    for ((_, socket), megabytes) in clients.iter().zip([3, 1, 2, 3]) {
        for _ in 0..megabytes {
            socket.send(Frame::binary(&[0; 1_000_000])).unwrap();
        }
    }
    assert_eq!(host.closed().await, CloseReason::TransportError);
    until(|| host.server.stats().queued_bytes() <= 7_000_000).await;
    let open: Vec<bool> = clients.iter().map(|(_, socket)| !socket.is_closed()).collect();
    assert!(open[1] && open[2] && open[0] != open[3], "{open:?}");
}

#[tokio::test]
async fn a_sender_may_wait_for_room() {
    let mut host = Host::start().await;
    let mut ws = Ws::open(&host).await;
    let socket = host.opened().await;
    let frame = Frame::message(&Message::Text("x".repeat(100_000).into()));
    let sender = tokio::spawn(async move {
        for _ in 0..500 {
            socket.ready().await.unwrap();
            socket.send(frame.clone()).unwrap();
            assert!(socket.queued_bytes() <= (1 << 20) + 100_200);
        }
        socket
    });
    for _ in 0..500 {
        assert_eq!(ws.text().await.len(), 100_001);
    }
    let socket = within(sender).await.unwrap();
    drop(ws);
    until(|| socket.is_closed()).await;
    assert_eq!(socket.ready().await, Err(SendError::Gone));
}

#[tokio::test]
async fn a_sender_that_waits_for_room_learns_of_the_end() {
    let mut host = Host::start().await;
    let client = Polling::open(&host).await;
    let socket = host.opened().await;
    socket.send(Frame::binary(&vec![0; 2 << 20])).unwrap();
    let waits = tokio::spawn({
        let socket = socket.clone();
        async move { socket.ready().await }
    });
    let _closed = client.post("1").await;
    assert_eq!(within(waits).await.unwrap(), Err(SendError::Gone));
}

/// On one thread the session's task has no turn while the test sends.
#[tokio::test]
async fn a_client_is_not_behind_before_a_write_was_tried() {
    let mut host = Host::with(|config| {
        config.max_buffered_bytes = 100_000;
        config.max_backlog_bytes = Some(200_000);
    })
    .await;
    let mut ws = Ws::open(&host).await;
    let socket = host.opened().await;
    let turns = host.control.turns.load(SeqCst);
    ws.send("4a").await;
    assert_eq!(ws.text().await, "4a");
    until(|| host.control.turns.load(SeqCst) > turns).await;
    for number in 0..20 {
        socket.send(Frame::message(&Message::Text(format!("{number}{}", "x".repeat(50_000)).into()))).unwrap();
    }
    for number in 0..20 {
        assert!(ws.text().await.starts_with(&format!("4{number}x")));
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_its_poll_is_cut_off() {
    let mut host = Host::limited(|_| {}, |limits| limits.write_timeout = Duration::from_millis(100)).await;
    let client = Polling::open(&host).await;
    let socket = host.opened().await;
    socket.send(Frame::message(&Message::Text("x".repeat(30_000_000).into()))).unwrap();
    let poll = host.waiting_poll(&client).await;
    tokio::time::sleep(Duration::from_millis(400)).await; // longer than the limit; a stall cannot be awaited
    assert!(poll.end().await.len() < 30_000_000);
}

#[tokio::test]
async fn a_flood_of_messages_is_refused_and_leaves_the_client_alone() {
    let mut host = Host::with(|config| {
        config.max_buffered_bytes = 10_000;
        config.max_backlog_bytes = Some(10_000);
    })
    .await;
    let client = Polling::open(&host).await;
    let socket = host.opened().await;
    let sent = (0..20).filter(|_| socket.send(Frame::binary(&[0; 1000])).is_ok()).count();
    assert!((5..10).contains(&sent), "{sent}");
    assert_eq!(client.poll().await.text().split('\x1e').count(), sent);
    until(|| socket.queued_bytes() == 0).await;
    socket.send(Frame::binary(&[1])).unwrap();
    assert_eq!(client.poll().await.text(), "bAQ==");
}

#[tokio::test]
async fn a_volatile_message_is_dropped_where_nobody_waits_for_it() {
    let mut host = Host::start().await;
    let client = Polling::open(&host).await;
    let socket = host.opened().await;
    socket.send_volatile(Frame::message(&Message::Text("lost".into()))).unwrap();
    socket.send(Frame::message(&Message::Text("kept".into()))).unwrap();
    assert_eq!(client.poll().await.text(), "4kept");
    let mut ws = Ws::open(&host).await;
    let socket = host.opened().await;
    socket.send_volatile(Frame::message(&Message::Text("now".into()))).unwrap();
    assert_eq!(ws.text().await, "4now");
}

#[tokio::test]
async fn nothing_is_left_when_many_sessions_have_ended() {
    let mut host = Host::start().await;
    let before = open_files();
    for turn in 0..60 {
        let client = Polling::open(&host).await;
        match turn % 4 {
            0 => drop(client.start_poll().await),
            1 => drop(client.post("1").await),
            2 => {
                let mut ws = Ws::probe(&client).await;
                ws.send("5").await;
                ws.send("1").await;
            }
            _ => {
                drop(client.post("abc").await);
                drop(Ws::open(&host).await);
            }
        }
    }
    for _ in 0..75 {
        let _any_reason = host.closed().await;
    }
    host.idle().await;
    // The files of other tests in this process come and go; this server held over a hundred.
    until(|| open_files() < before + 60).await;
    within(host.server.close()).await; // no task is left
}

#[tokio::test]
async fn a_handler_that_panics_takes_only_its_own_session_with_it() {
    let mut host = Host::start().await;
    let mut other = Ws::open(&host).await;
    let _other = host.opened().await;
    let client = Polling::open(&host).await;
    let socket = host.opened().await;
    host.control.panic.store(true, SeqCst);
    assert_eq!(client.post("4a").await.says(), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
    host.control.panic.store(false, SeqCst);
    until(|| socket.is_closed()).await;
    assert!(socket.send(Frame::binary(b"")).is_err());
    assert_eq!(client.poll().await.status, 400);
    other.send("4b").await;
    assert_eq!(other.text().await, "4b");
    drop(other);
    host.idle().await;
}

// ---- other streams than TCP ----

#[tokio::test]
async fn a_websocket_works_over_a_stream_that_is_no_tcp() {
    let host = Host::start().await;
    let (client, served) = tokio::io::duplex(64);
    let server = host.server.clone();
    let service = hyper::service::service_fn(move |request| {
        let server = server.clone();
        async move { server.handle(request, ([127, 0, 0, 1], 1).into()).await }
    });
    tokio::spawn(
        hyper::server::conn::http1::Builder::new()
            .serve_connection(hyper_util::rt::TokioIo::new(served), service)
            .with_upgrades(),
    );
    let url = format!("ws://localhost{WEBSOCKET}");
    let (mut ws, _) = tokio_tungstenite::client_async(&url, client).await.unwrap();
    assert!(within(ws.next()).await.unwrap().unwrap().into_text().unwrap().starts_with("0{"));
    let large = tungstenite::Message::text(format!("4{}", "x".repeat(100_000)));
    ws.send(large.clone()).await.unwrap();
    assert!(within(ws.next()).await.unwrap().unwrap() == large);
    ws.get_mut().shutdown().await.unwrap();
    host.idle().await;
}

// ---- helpers ----

async fn quick_heartbeat() -> Host {
    Host::with(|config| {
        config.ping_interval = Duration::from_millis(100);
        config.ping_timeout = Duration::from_millis(150);
        config.max_payload_bytes = 100_000;
    })
    .await
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}
