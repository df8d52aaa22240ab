//! Events with attachments.

use bytes::Bytes;
use serde::Deserialize;
use socketio::{Action, Args, Binary, DecodeError, Input, NamespaceState, PacketKind};

use crate::support::*;

#[test]
fn an_event_waits_for_its_attachment() {
    let json = r#"["e",{"_placeholder":true,"num":0}]"#;
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.text(&format!("51-{json}")), []);
    assert_eq!(dialogue.binary(b"png"), [binary_event(0, json, None, [b"png"])]);
}

#[test]
fn attachments_are_numbered_as_they_come() {
    let json = r#"["e",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]"#;
    let mut dialogue = Dialogue::joined(["/a"]);
    assert_eq!(dialogue.text(&format!("52-/a,9{json}")), []);
    assert_eq!(dialogue.binary(b"one"), []);
    let actions = dialogue.binary(b"two");
    assert_eq!(actions, [binary_event(0, json, Some(9), [b"one", b"two"])]);
    let [Action::Event { event, .. }] = &actions[..] else { panic!("{actions:?}") };
    let Args((first, second)) = event.data().args::<Args<(Binary, Binary)>>().unwrap();
    assert_eq!((first.as_ref(), second.as_ref()), (&b"two"[..], &b"one"[..]));
}

#[test]
fn a_typed_handler_finds_bytes_deep_inside() {
    #[derive(Deserialize)]
    struct Upload {
        name: String,
        parts: Vec<Binary>,
    }
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.text(r#"51-["e",{"name":"n","parts":[{"_placeholder":true,"num":0}]}]"#);
    let actions = dialogue.binary(b"part");
    let [Action::Event { event, .. }] = &actions[..] else { panic!("{actions:?}") };
    let upload: Upload = event.data().args().unwrap();
    assert_eq!((upload.name.as_str(), upload.parts), ("n", vec![Binary(Bytes::from_static(b"part"))]));
}

#[test]
fn an_attachment_is_not_copied() {
    let bytes = Bytes::from(vec![1, 2, 3]);
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.text(r#"51-["e",{"_placeholder":true,"num":0}]"#);
    let actions = dialogue.hear(Input::Binary(bytes.clone()));
    let [Action::Event { event, .. }] = &actions[..] else { panic!("{actions:?}") };
    let Binary(read) = event.data().args().unwrap();
    assert_eq!((read.as_ptr(), read.len()), (bytes.as_ptr(), 3));
}

#[test]
fn a_placeholder_used_twice_gives_the_same_buffer() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.text(r#"51-["e",{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]"#);
    let actions = dialogue.binary(b"x");
    let [Action::Event { event, .. }] = &actions[..] else { panic!("{actions:?}") };
    let Args((one, two)) = event.data().args::<Args<(Binary, Binary)>>().unwrap();
    assert_eq!(one, two);
}

#[test]
fn a_missing_placeholder_is_fine() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.text(r#"51-["e"]"#), []);
    assert_eq!(dialogue.binary(b"x"), [binary_event(0, r#"["e"]"#, None, [b"x"])]);
}

#[test]
fn an_empty_attachment_is_an_attachment() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.text(r#"51-["e"]"#);
    assert_eq!(dialogue.binary(b""), [binary_event(0, r#"["e"]"#, None, [b""])]);
}

#[test]
fn an_object_whose_placeholder_flag_is_not_true_is_data() {
    let json = r#"["e",{"_placeholder":false,"num":9},{"_placeholder":1,"num":9}]"#;
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.text(&format!("51-{json}"));
    assert_eq!(dialogue.binary(b"x"), [binary_event(0, json, None, [b"x"])]);
}

#[test]
fn a_binary_event_without_data_is_ignored_with_its_attachments() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.text("51-"), []);
    assert_eq!(dialogue.binary(b"x"), []);
    assert_eq!(dialogue.text("2[1]"), [event(0, "[1]", None)]);
}

#[test]
fn an_attachment_count_may_have_leading_zeros() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.text(r#"5001-["e"]"#), []);
    assert_eq!(dialogue.binary(b"x"), [binary_event(0, r#"["e"]"#, None, [b"x"])]);
}

#[test]
fn ten_attachments_are_accepted() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.text(r#"510-["e"]"#), []);
    for _ in 0..9 {
        assert_eq!(dialogue.binary(b"x"), []);
    }
    assert_eq!(dialogue.binary(b"x"), [binary_event(0, r#"["e"]"#, None, [b"x"; 10])]);
}

#[test]
fn half_a_surrogate_pair_in_a_binary_event_is_json_all_the_same() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.text(r#"51-["e","\ud83d",1e999]"#), []);
    assert_eq!(dialogue.binary(b"x"), [binary_event(0, r#"["e","\ud83d",1e999]"#, None, [b"x"])]);
}

#[test]
fn binary_events_follow_each_other() {
    let mut dialogue = Dialogue::joined(["/"]);
    for _ in 0..3 {
        assert_eq!(dialogue.text(r#"51-["e"]"#), []);
        assert_eq!(dialogue.binary(b"x"), [binary_event(0, r#"["e"]"#, None, [b"x"])]);
    }
}

#[test]
fn an_unsolicited_binary_closes_the_connection() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.binary(b"x"), [malformed(DecodeError::UnsolicitedBinary)]);
    dialogue.assert_silent();
}

#[test]
fn one_attachment_too_many_closes_the_connection() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.text(r#"51-["e"]"#);
    dialogue.binary(b"x");
    assert_eq!(dialogue.binary(b"x"), [malformed(DecodeError::UnsolicitedBinary)]);
}

#[test]
fn text_between_attachments_closes_the_connection() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.text(r#"53-["e"]"#);
    dialogue.binary(b"x");
    assert_eq!(dialogue.text(r#"2["e"]"#), [malformed(DecodeError::TextBetweenAttachments { missing: 2 })]);
    dialogue.assert_silent();
}

#[test]
fn disconnect_between_attachments_closes_the_connection() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.text(r#"51-["e"]"#);
    assert_eq!(dialogue.text("1"), [malformed(DecodeError::TextBetweenAttachments { missing: 1 })]);
}

#[test]
fn a_binary_event_for_a_namespace_not_joined_closes_at_its_header() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.text(r#"51-/x,["e"]"#), [violation(PacketKind::BinaryEvent, NamespaceState::Absent)]);
    dialogue.assert_silent();
}

#[test]
fn a_binary_ack_for_a_namespace_not_joined_closes_at_its_header() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.text("61-/x,1[]"), [violation(PacketKind::BinaryAck, NamespaceState::Absent)]);
}

closes! {
    a_placeholder_out_of_range_closes_the_connection:
        r#"51-["e",{"_placeholder":true,"num":1}]"# => malformed(DecodeError::Placeholder);
    a_negative_placeholder_closes_the_connection:
        r#"51-["e",{"_placeholder":true,"num":-1}]"# => malformed(DecodeError::Placeholder);
    a_fractional_placeholder_closes_the_connection:
        r#"51-["e",{"_placeholder":true,"num":0.5}]"# => malformed(DecodeError::Placeholder);
    a_placeholder_without_num_closes_the_connection:
        r#"51-["e",{"_placeholder":true}]"# => malformed(DecodeError::Placeholder);
    a_placeholder_hidden_behind_escapes_closes_the_connection:
        r#"51-["e",{"\u005fplaceholder":true,"num":7}]"# => malformed(DecodeError::Placeholder);
    a_bad_placeholder_in_an_ack_closes_the_connection:
        r#"61-0[[{"a":{"_placeholder":true,"num":1}}]]"# => malformed(DecodeError::Placeholder);
    a_binary_event_that_is_no_json_closes_at_its_header:
        r#"51-["e",{"_placeholder":true,"num":0]"# => malformed(DecodeError::Json);
    a_binary_event_with_text_behind_its_array_closes_at_its_header:
        r#"51-["e"]x"# => malformed(DecodeError::Json);
    a_binary_event_under_a_reserved_name_closes_at_its_header:
        r#"51-["disconnect"]"# => malformed(DecodeError::ReservedEvent);
    a_binary_event_without_name_closes_at_its_header:
        "51-[]" => malformed(DecodeError::EventName);
    a_binary_event_without_count_closes_the_connection:
        r#"5["x"]"# => malformed(DecodeError::AttachmentCount);
    an_empty_attachment_count_closes_the_connection:
        r#"5-["x"]"# => malformed(DecodeError::AttachmentCount);
    a_fractional_attachment_count_closes_the_connection:
        r#"51.5-["x"]"# => malformed(DecodeError::AttachmentCount);
    a_negative_attachment_count_closes_the_connection:
        r#"5-1-["x"]"# => malformed(DecodeError::AttachmentCount);
    an_attachment_count_in_scientific_notation_closes_the_connection:
        r#"51e0-["x"]"# => malformed(DecodeError::AttachmentCount);
    an_attachment_count_without_end_closes_the_connection:
        "51" => malformed(DecodeError::AttachmentCount);
    eleven_attachments_close_the_connection:
        r#"511-["x"]"# => malformed(DecodeError::TooManyAttachments { limit: 10 });
    attachments_beyond_64_bits_close_the_connection:
        r#"599999999999999999999-["x"]"# => malformed(DecodeError::TooManyAttachments { limit: 10 });
    a_binary_ack_without_attachments_closes_the_connection:
        "60-1[]" => malformed(DecodeError::NoAttachments);
}
