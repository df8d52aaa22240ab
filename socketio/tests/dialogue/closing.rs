//! The end, and its names.

use socketio::{CloseReason, DecodeError, NamespaceState, PacketKind, Violation};

use crate::support::*;

#[test]
fn close_reasons_are_those_of_the_reference() {
    assert_eq!(CloseReason::Malformed(DecodeError::Json).as_str(), "forced close");
    let violation = Violation::Unexpected { kind: PacketKind::Connect, state: NamespaceState::Connected };
    assert_eq!(CloseReason::Violation(violation).as_str(), "forced server close");
    assert_eq!(CloseReason::ConnectTimeout.as_str(), "forced server close");
}

#[test]
fn errors_read_as_sentences() {
    let violation = Violation::Unexpected { kind: PacketKind::BinaryAck, state: NamespaceState::Pending };
    assert_eq!(CloseReason::from(violation).to_string(), "BINARY_ACK for a namespace that is pending");
    let shape = DecodeError::Shape { kind: PacketKind::Connect };
    assert_eq!(CloseReason::from(shape).to_string(), "data of the wrong JSON type in CONNECT");
    assert_eq!(CloseReason::ConnectTimeout.to_string(), "no namespace was joined in time");
}

#[test]
fn a_close_takes_every_namespace_with_it() {
    let mut dialogue = Dialogue::joined(["/", "/a", "/b"]);
    dialogue.expect_ack(1, 1, Some(5));
    assert_eq!(dialogue.text("2/a,{}"), [malformed(DecodeError::Shape { kind: PacketKind::Event })]);
    dialogue.assert_silent();
}

#[test]
fn nothing_follows_the_close() {
    let mut dialogue = Dialogue::new();
    assert_eq!(dialogue.text("9"), [malformed(DecodeError::UnknownKind)]);
    assert_eq!(dialogue.text("9"), []);
    dialogue.assert_silent();
}
