//! Answers from the client to events of ours.

use bytes::Bytes;
use socketio::{
    Action, Binary, Content, Data, DecodeError, Decoder, NamespaceState, PacketKind, UsageError, encode_ack,
    encode_event,
};

use crate::support::*;

#[test]
fn an_ack_reaches_who_waits_for_it() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.expect_ack(0, 5, None), []);
    assert_eq!(dialogue.text(r#"35["ok",1]"#), [ack(0, 5, r#"["ok",1]"#)]);
}

#[test]
fn an_ack_with_id_zero_is_an_ack() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.expect_ack(0, 0, None);
    assert_eq!(dialogue.text("30[]"), [ack(0, 0, "[]")]);
}

#[test]
fn an_ack_id_may_have_leading_zeros() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.expect_ack(0, 7, None);
    assert_eq!(dialogue.text("3007[]"), [ack(0, 7, "[]")]);
}

#[test]
fn an_ack_without_data_has_no_arguments() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.expect_ack(0, 7, None);
    let actions = dialogue.text("37");
    assert_eq!(actions, [ack(0, 7, "[]")]);
    let [Action::Ack { data, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(data.args::<Option<u8>>(), Ok(None));
}

#[test]
fn an_ack_counts_once() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.expect_ack(0, 1, None);
    dialogue.text("31[]");
    assert_eq!(dialogue.text("31[]"), []);
}

#[test]
fn acks_may_come_in_any_order() {
    let mut dialogue = Dialogue::joined(["/"]);
    for id in 0..3 {
        dialogue.expect_ack(0, id, None);
    }
    for id in [2, 0, 1] {
        assert_eq!(dialogue.text(&format!("3{id}[{id}]")), [ack(0, id, &format!("[{id}]"))]);
    }
}

#[test]
fn an_ack_with_an_unknown_id_is_ignored() {
    assert_eq!(Dialogue::joined(["/"]).text(r#"39["x"]"#), []);
}

#[test]
fn an_ack_without_id_is_ignored() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.text("3[1]"), []);
    assert_eq!(dialogue.text("3"), []);
}

#[test]
fn an_ignored_ack_must_be_json_all_the_same() {
    assert_eq!(Dialogue::joined(["/"]).text(r#"39["x"#), [malformed(DecodeError::Json)]);
}

#[test]
fn the_same_id_in_two_namespaces_is_two_acks() {
    let mut dialogue = Dialogue::joined(["/", "/a"]);
    dialogue.expect_ack(0, 1, None);
    dialogue.expect_ack(1, 1, None);
    assert_eq!(dialogue.text("3/a,1[]"), [ack(1, 1, "[]")]);
    assert_eq!(dialogue.text("3/a,1[]"), []);
    assert_eq!(dialogue.text("31[]"), [ack(0, 1, "[]")]);
}

#[test]
fn an_ack_for_a_namespace_not_joined_closes_the_connection() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.text("3/x,1[]"), [violation(PacketKind::Ack, NamespaceState::Absent)]);
    dialogue.assert_silent();
}

#[test]
fn an_ack_before_connect_closes_the_connection() {
    assert_eq!(Dialogue::new().text("31[]"), [violation(PacketKind::Ack, NamespaceState::Absent)]);
}

#[test]
fn an_event_from_the_middleware_may_expect_an_ack_before_the_namespace_is_joined() {
    let mut dialogue = Dialogue::new();
    dialogue.text("0");
    assert_eq!(dialogue.expect_ack(0, 3, Some(9)), []);
    dialogue.accept(0);
    assert_eq!(dialogue.text("33[]"), [ack(0, 3, "[]")]);
}

#[test]
fn an_id_expected_twice_expires_first() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.expect_ack(0, 1, Some(1));
    assert_eq!(dialogue.expect_ack(0, 1, Some(5)), [expired(0, 1)]);
    assert_eq!(dialogue.wait(2), []);
    assert_eq!(dialogue.text("31[]"), [ack(0, 1, "[]")]);
}

#[test]
fn acks_with_binary_data_wait_for_it() {
    let mut dialogue = Dialogue::joined(["/a"]);
    dialogue.expect_ack(0, 4, None);
    let json = r#"[{"_placeholder":true,"num":0}]"#;
    assert_eq!(dialogue.text(&format!("61-/a,4{json}")), []);
    assert_eq!(dialogue.binary(b"png"), [binary_ack(0, 4, json, [b"png"])]);
}

#[test]
fn a_binary_ack_with_an_unknown_id_is_ignored_with_its_attachments() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.text(r#"61-4[{"_placeholder":true,"num":0}]"#), []);
    assert_eq!(dialogue.binary(b"png"), []);
    assert_eq!(dialogue.text("2[1]"), [event(0, "[1]", None)]);
}

#[test]
fn acks_that_go_out_are_read_by_a_client() {
    let mut text = Vec::new();
    let attachments = encode_ack(&mut text, "/a", 0, ("ok", Binary::from(vec![1]))).unwrap();
    assert_eq!(text, br#"61-/a,0["ok",{"_placeholder":true,"num":0}]"#);
    let mut client = Decoder::default();
    assert!(client.text(String::from_utf8(text).unwrap().into()).unwrap().is_none());
    let packet = client.binary(attachments[0].clone()).unwrap().unwrap();
    assert_eq!((packet.kind(), packet.namespace(), packet.ack_id()), (PacketKind::BinaryAck, "/a", Some(0)));
    let Content::Ack(data) = packet.into_content() else { panic!("no ack") };
    let socketio::Args((ok, binary)) = data.args::<socketio::Args<(String, Binary)>>().unwrap();
    assert_eq!((ok.as_str(), binary), ("ok", Binary(Bytes::from_static(&[1]))));
}

#[test]
fn events_that_ask_for_an_ack_carry_its_id() {
    let mut text = Vec::new();
    assert_eq!(encode_event(&mut text, "/", Some(0), "e", ()), Ok(vec![]));
    assert_eq!(text, br#"20["e"]"#);
    assert_eq!(encode_event(&mut text, "/", Some(0), "disconnect", Data::default()), Err(UsageError::ReservedEvent));
}
