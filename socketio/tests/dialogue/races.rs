//! Inputs about slots that are gone already.

use socketio::{DecodeError, NamespaceState, PacketKind};

use crate::support::*;

#[test]
fn whatever_concerns_an_unknown_slot_is_ignored() {
    let mut dialogue = Dialogue::new();
    assert_eq!(dialogue.accept(9), []);
    assert_eq!(dialogue.refuse(9, "no"), []);
    assert_eq!(dialogue.disconnect(9), []);
    assert_eq!(dialogue.expect_ack(9, 1, Some(1)), []);
    assert_eq!(dialogue.alarm(), Some(45));
}

#[test]
fn an_accept_after_the_server_ended_the_slot_is_ignored() {
    let mut dialogue = Dialogue::new();
    dialogue.text("0");
    dialogue.disconnect(0);
    assert_eq!(dialogue.accept(0), []);
    assert_eq!(dialogue.alarm(), Some(45));
}

#[test]
fn a_second_accept_is_ignored() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.accept(0), []);
}

#[test]
fn a_refusal_after_the_accept_is_ignored() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.refuse(0, "no"), []);
    assert_eq!(dialogue.text("2[1]"), [event(0, "[1]", None)]);
}

#[test]
fn a_disconnect_that_crosses_the_clients_own_is_ignored() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.text("1");
    assert_eq!(dialogue.disconnect(0), []);
}

#[test]
fn a_disconnect_for_an_old_slot_spares_the_new_one() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.text("1");
    dialogue.text("0");
    dialogue.accept(1);
    assert_eq!(dialogue.disconnect(0), []);
    assert_eq!(dialogue.text("2[1]"), [event(1, "[1]", None)]);
}

#[test]
fn slots_are_never_reused() {
    let mut dialogue = Dialogue::new();
    for slot in 0..20 {
        assert_eq!(dialogue.text("0"), [connect(slot, "/", None)]);
        dialogue.accept(slot);
        assert_eq!(dialogue.text("1"), [disconnected(slot)]);
    }
}

#[test]
fn acks_of_a_left_namespace_are_forgotten() {
    let mut dialogue = Dialogue::joined(["/", "/a"]);
    dialogue.expect_ack(0, 1, Some(1));
    dialogue.expect_ack(1, 1, Some(2));
    assert_eq!(dialogue.text("1"), [disconnected(0)]);
    assert_eq!(dialogue.alarm(), Some(2));
    assert_eq!(dialogue.wait(1), []);
    assert_eq!(dialogue.wait(1), [expired(1, 1)]);
}

#[test]
fn acks_of_a_namespace_the_server_ended_are_forgotten() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.expect_ack(0, 1, Some(1));
    dialogue.disconnect(0);
    assert_eq!(dialogue.alarm(), None);
    assert_eq!(dialogue.wait(5), []);
}

#[test]
fn an_ack_is_not_carried_over_into_a_new_slot() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.expect_ack(0, 1, None);
    dialogue.text("1");
    dialogue.text("0");
    dialogue.accept(1);
    assert_eq!(dialogue.text("31[]"), []);
}

#[test]
fn an_expected_ack_of_a_left_slot_is_ignored() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.text("1");
    assert_eq!(dialogue.expect_ack(0, 1, Some(1)), []);
    assert_eq!(dialogue.alarm(), None);
}

#[test]
fn an_event_that_crosses_the_servers_disconnect_closes_as_in_the_reference() {
    let mut dialogue = Dialogue::joined(["/", "/a"]);
    dialogue.disconnect(1);
    assert_eq!(dialogue.text("2/a,[1]"), [violation(PacketKind::Event, NamespaceState::Absent)]);
}

#[test]
fn a_binary_event_that_completes_after_the_servers_disconnect_closes_as_in_the_reference() {
    let mut dialogue = Dialogue::joined(["/", "/a"]);
    dialogue.text(r#"51-/a,["e"]"#);
    dialogue.disconnect(1);
    assert_eq!(dialogue.binary(b"x"), [violation(PacketKind::BinaryEvent, NamespaceState::Absent)]);
}

#[test]
fn a_disconnect_of_another_namespace_leaves_a_binary_event_alone() {
    let mut dialogue = Dialogue::joined(["/", "/a"]);
    dialogue.text(r#"51-/a,["e"]"#);
    assert_eq!(dialogue.disconnect(0), [write("1")]);
    assert_eq!(dialogue.binary(b"x"), [binary_event(1, r#"["e"]"#, None, [b"x"])]);
}

#[test]
fn an_accept_between_attachments_is_written() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.text("0/a,");
    dialogue.text(r#"51-["e"]"#);
    assert_eq!(dialogue.accept(1), [write(r#"0/a,{"sid":"s1"}"#)]);
    assert_eq!(dialogue.binary(b"x"), [binary_event(0, r#"["e"]"#, None, [b"x"])]);
}

#[test]
fn an_accept_after_the_close_is_ignored() {
    let mut dialogue = Dialogue::new();
    dialogue.text("0");
    assert_eq!(dialogue.text("9"), [malformed(DecodeError::UnknownKind)]);
    assert_eq!(dialogue.accept(0), []);
    dialogue.assert_silent();
}
