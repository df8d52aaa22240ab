//! Everything that grows, at its limit and one beyond.

use bytes::Bytes;
use socketio::{ConnectionConfig, DecodeError, DecoderConfig, Input};

use crate::support::*;

fn with(decoder: DecoderConfig) -> Dialogue {
    Dialogue::with(ConnectionConfig { decoder, ..ConnectionConfig::default() }).join(["/"])
}

#[test]
fn the_number_of_attachments_can_be_configured() {
    let config = DecoderConfig { max_attachments: 2, ..DecoderConfig::default() };
    assert_eq!(with(config).text(r#"52-["e"]"#), []);
    let too_many = malformed(DecodeError::TooManyAttachments { limit: 2 });
    assert_eq!(with(config).text(r#"53-["e"]"#), [too_many]);
}

#[test]
fn binary_packets_can_be_forbidden() {
    let config = DecoderConfig { max_attachments: 0, ..DecoderConfig::default() };
    assert_eq!(with(config).text(r#"51-["e"]"#), [malformed(DecodeError::TooManyAttachments { limit: 0 })]);
}

#[test]
fn a_binary_packet_may_have_as_many_bytes_as_configured() {
    let config = DecoderConfig { max_binary_bytes: Some(12), ..DecoderConfig::default() };
    let mut dialogue = with(config);
    assert_eq!(dialogue.text(r#"52-["e"]"#), []); // 8 bytes
    assert_eq!(dialogue.binary(b"12"), []);
    assert_eq!(dialogue.binary(b"34"), [binary_event(0, r#"["e"]"#, None, [b"12", b"34"])]);
    assert_eq!(dialogue.text(r#"52-["e"]"#), []);
    assert_eq!(dialogue.binary(b"12"), []);
    assert_eq!(dialogue.binary(b"345"), [malformed(DecodeError::BinaryTooLarge { limit: 12 })]);
    dialogue.assert_silent();
}

#[test]
fn the_text_of_a_binary_packet_counts() {
    let config = DecoderConfig { max_binary_bytes: Some(7), ..DecoderConfig::default() };
    assert_eq!(with(config).text(r#"51-["e"]"#), [malformed(DecodeError::BinaryTooLarge { limit: 7 })]);
}

#[test]
fn a_binary_packet_may_have_four_million_bytes_by_default() {
    let text = r#"52-["e"]"#;
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.text(text);
    assert_eq!(dialogue.hear(Input::Binary(Bytes::from(vec![0; 4_000_000 - text.len()]))), []);
    assert_eq!(dialogue.binary(b"x"), [malformed(DecodeError::BinaryTooLarge { limit: 4_000_000 })]);
}

#[test]
fn one_namespace_too_many_is_refused_without_asking() {
    let config = ConnectionConfig { max_namespaces: 2, ..ConnectionConfig::default() };
    let mut dialogue = Dialogue::with(config).join(["/"]);
    assert_eq!(dialogue.text("0/a,"), [connect(1, "/a", None)]); // pending ones count
    assert_eq!(dialogue.text("0/b,"), [write(r#"4/b,{"message":"Too many namespaces"}"#)]);
    assert_eq!(dialogue.text("2[1]"), [event(0, "[1]", None)]);
}

#[test]
fn a_namespace_that_is_left_or_refused_makes_room() {
    let config = ConnectionConfig { max_namespaces: 1, ..ConnectionConfig::default() };
    let mut dialogue = Dialogue::with(config).join(["/"]);
    dialogue.text("1");
    assert_eq!(dialogue.text("0/a,"), [connect(1, "/a", None)]);
    dialogue.refuse(1, "no");
    assert_eq!(dialogue.text("0/b,"), [connect(2, "/b", None)]);
}

#[test]
fn a_hundred_namespaces_are_allowed_by_default() {
    let mut dialogue = Dialogue::new();
    for n in 0..100 {
        assert_eq!(dialogue.text(&format!("0/{n},")), [connect(n, &format!("/{n}"), None)]);
    }
    assert_eq!(dialogue.text("0/100,"), [write(r#"4/100,{"message":"Too many namespaces"}"#)]);
}

#[test]
fn one_ack_too_many_expires_at_once() {
    let config = ConnectionConfig { max_acks: 2, ..ConnectionConfig::default() };
    let mut dialogue = Dialogue::with(config).join(["/", "/a"]);
    assert_eq!(dialogue.expect_ack(0, 1, None), []);
    assert_eq!(dialogue.expect_ack(1, 2, None), []);
    assert_eq!(dialogue.expect_ack(0, 3, Some(5)), [expired(0, 3)]);
    assert_eq!(dialogue.alarm(), None);
    assert_eq!(dialogue.text("33[]"), []);
    assert_eq!(dialogue.text("31[]"), [ack(0, 1, "[]")]);
    assert_eq!(dialogue.expect_ack(0, 4, None), []);
}

#[test]
fn an_id_expected_twice_at_the_limit_expires_once() {
    let config = ConnectionConfig { max_acks: 1, ..ConnectionConfig::default() };
    let mut dialogue = Dialogue::with(config).join(["/"]);
    assert_eq!(dialogue.expect_ack(0, 1, None), []);
    assert_eq!(dialogue.expect_ack(0, 1, None), [expired(0, 1)]);
    assert_eq!(dialogue.text("31[]"), [ack(0, 1, "[]")]);
}

#[test]
fn a_thousand_acks_may_be_outstanding_by_default() {
    let mut dialogue = Dialogue::joined(["/"]);
    for id in 0..1000 {
        assert_eq!(dialogue.expect_ack(0, id, None), []);
    }
    assert_eq!(dialogue.expect_ack(0, 1000, None), [expired(0, 1000)]);
}

#[test]
fn a_namespace_name_may_have_255_bytes_by_default() {
    let name = format!("/{}", "n".repeat(254));
    assert_eq!(Dialogue::new().text(&format!("0{name},")), [connect(0, &name, None)]);
    let too_long = malformed(DecodeError::NamespaceTooLong { length: 256, limit: 255 });
    assert_eq!(Dialogue::new().text(&format!("0{name}n,")), [too_long]);
}

#[test]
fn the_length_of_a_namespace_name_can_be_configured() {
    let config = DecoderConfig { max_namespace_bytes: 3, ..DecoderConfig::default() };
    assert_eq!(with(config).text("0/ab,"), [connect(1, "/ab", None)]);
    let too_long = malformed(DecodeError::NamespaceTooLong { length: 4, limit: 3 });
    assert_eq!(with(config).text("2/abc,[1]"), [too_long]);
}
