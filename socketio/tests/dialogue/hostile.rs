//! What hit other implementations, each test named after its cause.

use std::time::{Duration, Instant};

use socketio::{Action, DataError, DecodeError, Input, NamespaceState, PacketKind};

use crate::support::*;

/// CVE-2026-69185.
#[test]
fn zero_attachments_leave_nothing_open_that_buffers_forever() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.text(r#"50-["a"]"#), [malformed(DecodeError::NoAttachments)]);
    for _ in 0..1000 {
        assert_eq!(dialogue.binary(b"x"), []);
    }
}

/// CVE-2026-33151.
#[test]
fn announcing_a_million_attachments_holds_none() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.text(r#"5999999-["a"]"#), [malformed(DecodeError::TooManyAttachments { limit: 10 })]);
    dialogue.assert_silent();
}

/// CVE-2024-38355.
#[test]
fn an_event_called_error_is_an_event() {
    assert_eq!(Dialogue::joined(["/"]).text(r#"2["error","x"]"#), [event(0, r#"["error","x"]"#, None)]);
}

/// CVE-2023-32695.
#[test]
fn an_object_for_an_event_name_is_not_called() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.text(r#"2[{"toString":"foo"}]"#), [malformed(DecodeError::EventName)]);
}

/// CVE-2022-2421.
#[test]
fn a_string_for_a_placeholder_number_is_not_looked_up() {
    let mut dialogue = Dialogue::joined(["/"]);
    let message = r#"51-["x",{"_placeholder":true,"num":"splice"}]"#;
    assert_eq!(dialogue.text(message), [malformed(DecodeError::Placeholder)]);
    dialogue.assert_silent();
}

/// CVE-2020-36049: quadratic parsers take minutes here. The time allowed is generous, for machines that are busy.
#[test]
fn megabytes_of_digits_are_read_in_one_pass() {
    let start = Instant::now();
    let digits = "2".repeat(1_000_000);
    assert_eq!(Dialogue::joined(["/"]).text(&digits), [malformed(DecodeError::AckIdTooLarge)]);
    let zeros = format!("2{}7[1]", "0".repeat(1_000_000));
    assert_eq!(Dialogue::joined(["/"]).text(&zeros), [event(0, "[1]", Some(7))]);
    let count = format!("5{digits}-[1]");
    assert_eq!(Dialogue::joined(["/"]).text(&count), [malformed(DecodeError::TooManyAttachments { limit: 10 })]);
    let backslashes = format!("2[\"{}\"]", "\\\\".repeat(500_000));
    assert_eq!(Dialogue::joined(["/"]).text(&backslashes).len(), 1);
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// The scan for placeholders is linear too, deep or wide.
#[test]
fn megabytes_of_placeholders_are_read_in_one_pass() {
    let start = Instant::now();
    let wide = format!(r#"51-["e"{}]"#, r#",{"_placeholder":true,"num":0}"#.repeat(20_000));
    assert_eq!(Dialogue::joined(["/"]).text(&wide), []);
    let deep = format!(r#"51-["e",{}{}{}]"#, "[".repeat(126), "[],".repeat(200_000) + "1", "]".repeat(126));
    assert_eq!(Dialogue::joined(["/"]).text(&deep), []);
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// CVE-2026-48804: accepted before CONNECT and kept, one half packet a client.
#[test]
fn half_a_binary_packet_before_connect_is_not_kept() {
    let mut dialogue = Dialogue::new();
    assert_eq!(dialogue.text(r#"51-["a"]"#), [violation(PacketKind::BinaryEvent, NamespaceState::Absent)]);
    let mut dialogue = Dialogue::new();
    dialogue.text("0");
    assert_eq!(dialogue.text(r#"51-["a"]"#), [violation(PacketKind::BinaryEvent, NamespaceState::Pending)]);
}

/// CVE-2026-48804, the other half: whoever announces an attachment and stops holds memory only until the close.
#[test]
fn half_a_binary_packet_is_freed_on_close() {
    let attachment = bytes::Bytes::from(vec![0; 1000]);
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.text(r#"52-["a"]"#);
    dialogue.note(Input::Binary(attachment.clone()));
    assert!(!attachment.is_unique());
    assert_eq!(dialogue.text("2[1]"), [malformed(DecodeError::TextBetweenAttachments { missing: 1 })]);
    assert!(attachment.is_unique());
}

/// The same where the server is who closes.
#[test]
fn half_a_binary_packet_is_freed_when_a_handler_finds_malformed_json() {
    let attachment = bytes::Bytes::from(vec![0; 1000]);
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.text(r#"52-["a"]"#);
    dialogue.note(Input::Binary(attachment.clone()));
    assert_eq!(dialogue.hear(Input::Malformed), [malformed(DecodeError::Json)]);
    assert!(attachment.is_unique());
}

#[test]
fn a_connect_flood_during_async_middleware_makes_one_slot() {
    let mut dialogue = Dialogue::new();
    assert_eq!(dialogue.text("0"), [connect(0, "/", None)]);
    assert_eq!(dialogue.text("0"), [violation(PacketKind::Connect, NamespaceState::Pending)]);
    for _ in 0..1000 {
        assert_eq!(dialogue.text("0"), []);
    }
}

#[test]
fn a_flood_of_namespaces_stops_at_the_limit() {
    let mut dialogue = Dialogue::new();
    let asked = (0..1000).flat_map(|n| dialogue.text(&format!("0/{n},"))).filter(is_connect).count();
    assert_eq!(asked, 100);
}

fn is_connect(action: &Action) -> bool {
    matches!(action, Action::Connect { .. })
}

#[test]
fn a_flood_of_unknown_acks_is_ignored() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.expect_ack(0, 5000, None);
    for id in 0..1000 {
        assert_eq!(dialogue.text(&format!("3{id}[]")), []);
    }
    assert_eq!(dialogue.text("35000[]"), [ack(0, 5000, "[]")]);
}

/// The reference decodes this, and dies when it echoes it.
#[test]
fn json_nested_100_000_deep_is_not_parsed() {
    for open in ["[", r#"{"a":"#] {
        let message = format!(r#"2["e",{}"#, open.repeat(100_000));
        assert_eq!(Dialogue::joined(["/"]).text(&message), [malformed(DecodeError::TooDeep)]);
    }
}

#[test]
fn names_from_a_prototype_are_names() {
    for name in ["__proto__", "constructor", "toString", "hasOwnProperty"] {
        let mut dialogue = Dialogue::joined(["/"]);
        assert_eq!(dialogue.text(&format!("0/{name},")), [connect(1, &format!("/{name}"), None)]);
        let json = format!("[{name:?}]");
        assert_eq!(dialogue.text(&format!("2{json}")), [event(0, &json, None)]);
    }
}

#[test]
fn an_error_repeats_nothing_the_peer_sent() {
    let mut dialogue = Dialogue::joined(["/"]);
    let actions = dialogue.text(r#"2["e","SECRET\r\nforged"]"#);
    let [Action::Event { event, .. }] = &actions[..] else { panic!("{actions:?}") };
    let Err(DataError::Mismatch { message, .. }) = event.data().args::<u64>() else { panic!("it fits") };
    assert_eq!(message, "invalid type: string, expected u64");
    for message in ["SECRET", "5SECRET", r#"51-["SECRET"#, "0SECRET", r#"2{"SECRET":1}"#, "2/SECRET,[1]"] {
        let actions = Dialogue::joined(["/"]).text(message);
        let [Action::Close(reason)] = &actions[..] else { panic!("{actions:?}") };
        assert!(!format!("{reason} {reason:?}").contains("SECRET"), "{reason:?}");
    }
}
