//! Joining, being refused, leaving.

use serde_json::value::to_raw_value;
use socketio::{DecodeError, Input, NamespaceState, PacketKind, Slot};

use crate::support::*;

#[test]
fn connect_asks_the_middleware_and_its_yes_is_written() {
    let mut dialogue = Dialogue::new();
    assert_eq!(dialogue.text("0"), [connect(0, "/", None)]);
    assert_eq!(dialogue.accept(0), [write(r#"0{"sid":"s1"}"#)]);
}

#[test]
fn the_credentials_reach_the_middleware_as_they_came() {
    assert_eq!(Dialogue::new().text(r#"0{"token":1}"#), [connect(0, "/", Some(r#"{"token":1}"#))]);
}

#[test]
fn credentials_may_follow_a_namespace() {
    assert_eq!(Dialogue::new().text(r#"0/a,{"b":[{}]}"#), [connect(0, "/a", Some(r#"{"b":[{}]}"#))]);
}

#[test]
fn credentials_may_hold_half_a_surrogate_pair() {
    let auth = r#"{"name":"\ud83d"}"#;
    assert_eq!(Dialogue::new().text(&format!("0{auth}")), [connect(0, "/", Some(auth))]);
}

#[test]
fn the_main_namespace_may_be_spelled_out() {
    assert_eq!(Dialogue::new().text("0/,"), [connect(0, "/", None)]);
}

#[test]
fn the_main_namespace_may_be_spelled_out_without_comma() {
    assert_eq!(Dialogue::new().text("0/"), [connect(0, "/", None)]);
}

#[test]
fn a_namespace_may_end_with_the_packet() {
    assert_eq!(Dialogue::new().text("0/a"), [connect(0, "/a", None)]);
}

#[test]
fn an_ack_id_on_connect_is_ignored() {
    assert_eq!(Dialogue::new().text("07{}"), [connect(0, "/", Some("{}"))]);
}

#[test]
fn a_query_is_part_of_the_name() {
    let mut dialogue = Dialogue::new();
    assert_eq!(dialogue.text("0/custom?x=1,"), [connect(0, "/custom?x=1", None)]);
    assert_eq!(dialogue.refuse(0, "Invalid namespace"), [write(r#"4/custom?x=1,{"message":"Invalid namespace"}"#)]);
}

#[test]
fn names_are_compared_byte_by_byte() {
    let mut dialogue = Dialogue::joined(["/a"]);
    assert_eq!(dialogue.text("0/A,"), [connect(1, "/A", None)]);
    assert_eq!(dialogue.text("0/a/,"), [connect(2, "/a/", None)]);
    assert_eq!(dialogue.text("0/ä,"), [connect(3, "/ä", None)]);
}

#[test]
fn an_unknown_namespace_is_refused_and_the_connection_stays_open() {
    let mut dialogue = Dialogue::new();
    assert_eq!(dialogue.text("0/random"), [connect(0, "/random", None)]);
    assert_eq!(dialogue.refuse(0, "Invalid namespace"), [write(r#"4/random,{"message":"Invalid namespace"}"#)]);
    assert_eq!(dialogue.text("0"), [connect(1, "/", None)]);
}

#[test]
fn a_refusal_may_carry_data() {
    let mut dialogue = Dialogue::new();
    dialogue.text("0/no,");
    let data = to_raw_value(&serde_json::json!({"code": 7})).unwrap();
    let refusal = Input::Refuse { slot: Slot::nth(0), message: "no\"pe".to_owned(), data: Some(data) };
    assert_eq!(dialogue.hear(refusal), [write(r#"4/no,{"message":"no\"pe","data":{"code":7}}"#)]);
}

#[test]
fn a_refused_namespace_may_be_asked_for_again() {
    let mut dialogue = Dialogue::new();
    dialogue.text("0/a,");
    dialogue.refuse(0, "later");
    assert_eq!(dialogue.text("0/a,"), [connect(1, "/a", None)]);
    assert_eq!(dialogue.accept(1), [write(r#"0/a,{"sid":"s1"}"#)]);
}

#[test]
fn the_recovery_secret_is_written_behind_the_sid() {
    let mut dialogue = Dialogue::new();
    dialogue.text("0");
    let accept = Input::Accept { slot: Slot::nth(0), sid: "s1".into(), pid: Some("p1".into()) };
    assert_eq!(dialogue.hear(accept), [write(r#"0{"sid":"s1","pid":"p1"}"#)]);
}

#[test]
fn several_namespaces_are_joined_side_by_side() {
    let mut dialogue = Dialogue::new();
    assert_eq!(dialogue.text("0"), [connect(0, "/", None)]);
    assert_eq!(dialogue.text("0/a,"), [connect(1, "/a", None)]);
    assert_eq!(dialogue.text("0/b,"), [connect(2, "/b", None)]);
    assert_eq!(dialogue.accept(2), [write(r#"0/b,{"sid":"s1"}"#)]);
    assert_eq!(dialogue.refuse(1, "no"), [write(r#"4/a,{"message":"no"}"#)]);
    assert_eq!(dialogue.accept(0), [write(r#"0{"sid":"s1"}"#)]);
}

#[test]
fn inputs_may_pile_up_and_actions_keep_their_order() {
    let mut dialogue = Dialogue::new();
    dialogue.note(Input::Text("0".into()));
    dialogue.note(Input::Accept { slot: Slot::nth(0), sid: "s1".into(), pid: None });
    dialogue.note(Input::Text(r#"2["a"]"#.into()));
    dialogue.note(Input::Text("1".into()));
    dialogue.note(Input::Text("9".into()));
    let expected = [
        connect(0, "/", None),
        write(r#"0{"sid":"s1"}"#),
        event(0, r#"["a"]"#, None),
        disconnected(0),
        malformed(DecodeError::UnknownKind),
    ];
    assert_eq!(dialogue.actions(), expected);
}

#[test]
fn a_second_connect_to_a_joined_namespace_closes_the_connection() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.text("0"), [violation(PacketKind::Connect, NamespaceState::Connected)]);
    dialogue.assert_silent();
}

#[test]
fn a_second_connect_to_the_main_namespace_by_its_name_closes_the_connection() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.text("0/,"), [violation(PacketKind::Connect, NamespaceState::Connected)]);
    dialogue.assert_silent();
}

#[test]
fn a_second_connect_while_the_middleware_runs_closes_the_connection() {
    let mut dialogue = Dialogue::new();
    dialogue.text("0/a,");
    assert_eq!(dialogue.text("0/a,"), [violation(PacketKind::Connect, NamespaceState::Pending)]);
    dialogue.assert_silent();
}

#[test]
fn disconnect_leaves_the_namespace_and_nothing_else() {
    let mut dialogue = Dialogue::joined(["/", "/a"]);
    assert_eq!(dialogue.text("1/a,"), [disconnected(1)]);
    assert_eq!(dialogue.text(r#"2["e"]"#), [event(0, r#"["e"]"#, None)]);
}

#[test]
fn disconnect_needs_no_comma() {
    assert_eq!(Dialogue::joined(["/a"]).text("1/a"), [disconnected(0)]);
}

#[test]
fn a_client_may_stay_without_any_namespace_and_come_back() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.text("1"), [disconnected(0)]);
    assert_eq!(dialogue.wait(100_000), []);
    assert_eq!(dialogue.alarm(), None);
    assert_eq!(dialogue.text("0"), [connect(1, "/", None)]);
    assert_eq!(dialogue.accept(1), [write(r#"0{"sid":"s1"}"#)]);
}

#[test]
fn the_server_may_end_a_namespace() {
    let mut dialogue = Dialogue::joined(["/", "/a"]);
    assert_eq!(dialogue.disconnect(1), [write("1/a,")]);
    assert_eq!(dialogue.disconnect(0), [write("1")]);
    assert_eq!(dialogue.text("0/a,"), [connect(2, "/a", None)]);
}

#[test]
fn the_server_may_end_a_namespace_that_is_pending() {
    let mut dialogue = Dialogue::new();
    dialogue.text("0/a,");
    assert_eq!(dialogue.disconnect(0), [write("1/a,")]);
    assert_eq!(dialogue.accept(0), []);
}

#[test]
fn disconnect_from_a_pending_namespace_closes_the_connection() {
    let mut dialogue = Dialogue::new();
    dialogue.text("0");
    assert_eq!(dialogue.text("1"), [violation(PacketKind::Disconnect, NamespaceState::Pending)]);
}

#[test]
fn disconnect_from_a_namespace_not_joined_closes_the_connection() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.text("1/x"), [violation(PacketKind::Disconnect, NamespaceState::Absent)]);
    dialogue.assert_silent();
}

#[test]
fn disconnect_twice_closes_the_connection() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.text("1");
    assert_eq!(dialogue.text("1"), [violation(PacketKind::Disconnect, NamespaceState::Absent)]);
}

#[test]
fn connect_error_from_a_client_closes_the_connection() {
    for (message, state) in [
        ("4", NamespaceState::Connected),
        (r#"4{"message":"x"}"#, NamespaceState::Connected),
        (r#"4"x""#, NamespaceState::Connected),
        ("4/x,", NamespaceState::Absent),
    ] {
        let mut dialogue = Dialogue::joined(["/"]);
        assert_eq!(dialogue.text(message), [violation(PacketKind::ConnectError, state)], "{message}");
    }
}
