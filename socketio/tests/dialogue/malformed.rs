//! Text that is no packet, one test a cause. The first block is the table of what the reference server closes on.

use socketio::{DecodeError, Input, PacketKind};

use crate::support::*;

const fn shape(kind: PacketKind) -> DecodeError {
    DecodeError::Shape { kind }
}

closes! {
    an_empty_message_closes_the_connection: "" => malformed(DecodeError::Empty);
    an_unknown_type_closes_the_connection: "9" => malformed(DecodeError::UnknownKind);
    type_seven_closes_the_connection: r#"7["e"]"# => malformed(DecodeError::UnknownKind);
    a_letter_for_a_type_closes_the_connection: "abc" => malformed(DecodeError::UnknownKind);
    a_letter_beyond_ascii_for_a_type_closes_the_connection: "é" => malformed(DecodeError::UnknownKind);
    an_event_without_name_closes_the_connection: "2[]" => malformed(DecodeError::EventName);
    an_event_that_is_an_object_closes_the_connection: "2{}" => malformed(shape(PacketKind::Event));
    an_event_that_is_a_string_closes_the_connection: r#"2"e""# => malformed(shape(PacketKind::Event));
    an_event_that_is_null_closes_the_connection: "2null" => malformed(shape(PacketKind::Event));
    letters_in_front_of_an_event_close_the_connection: r#"2abc["e"]"# => malformed(shape(PacketKind::Event));
    a_negative_ack_id_closes_the_connection: r#"2-1["e"]"# => malformed(shape(PacketKind::Event));
    a_fractional_ack_id_closes_the_connection: r#"21.5["e"]"# => malformed(shape(PacketKind::Event));
    a_signed_ack_id_closes_the_connection: r#"2+1["e"]"# => malformed(shape(PacketKind::Event));
    an_ack_id_beyond_64_bits_closes_the_connection:
        r#"218446744073709551616["e"]"# => malformed(DecodeError::AckIdTooLarge);
    an_ack_id_of_21_digits_closes_the_connection:
        r#"2100000000000000000000["e"]"# => malformed(DecodeError::AckIdTooLarge);
    an_answer_beyond_64_bits_closes_the_connection:
        r#"318446744073709551616[]"# => malformed(DecodeError::AckIdTooLarge);
    an_event_named_null_closes_the_connection: "2[null]" => malformed(DecodeError::EventName);
    an_event_named_true_closes_the_connection: "2[true]" => malformed(DecodeError::EventName);
    an_event_named_by_an_array_closes_the_connection: r#"2[["e"]]"# => malformed(DecodeError::EventName);
    an_event_named_by_half_a_surrogate_pair_closes_the_connection:
        r#"2["\ud800"]"# => malformed(DecodeError::Json);
    an_event_named_by_no_number_closes_the_connection: "2[1.]" => malformed(DecodeError::Json);
    an_event_whose_name_never_ends_closes_the_connection: r#"2["e"# => malformed(DecodeError::Json);
    an_event_whose_name_ends_in_an_escape_closes_the_connection: r#"2["e\"# => malformed(DecodeError::Json);
    a_bare_line_break_in_a_name_closes_the_connection: "2[\"e\n\"]" => malformed(DecodeError::Json);
    an_event_that_ends_behind_its_name_closes_the_connection: r#"2["e""# => malformed(DecodeError::Json);
    an_event_with_a_trailing_comma_closes_the_connection: r#"2["e",]"# => malformed(DecodeError::Json);
    an_event_with_a_missing_comma_closes_the_connection: r#"2["e"1]"# => malformed(DecodeError::Json);
    an_event_called_connect_closes_the_connection: r#"2["connect"]"# => malformed(DecodeError::ReservedEvent);
    an_event_called_connect_error_closes_the_connection:
        r#"2["connect_error"]"# => malformed(DecodeError::ReservedEvent);
    an_event_called_disconnect_closes_the_connection: r#"2["disconnect",1]"# => malformed(DecodeError::ReservedEvent);
    an_event_called_disconnecting_closes_the_connection:
        r#"2["disconnecting"]"# => malformed(DecodeError::ReservedEvent);
    an_event_called_new_listener_closes_the_connection:
        r#"2["newListener"]"# => malformed(DecodeError::ReservedEvent);
    an_event_called_remove_listener_closes_the_connection:
        r#"2["removeListener"]"# => malformed(DecodeError::ReservedEvent);
    a_reserved_name_behind_escapes_closes_the_connection:
        r#"2["c\u006fnnect"]"# => malformed(DecodeError::ReservedEvent);
    credentials_in_an_array_close_the_connection: "0/a,[]" => malformed(shape(PacketKind::Connect));
    null_for_credentials_closes_the_connection: "0/a,null" => malformed(shape(PacketKind::Connect));
    a_string_for_credentials_closes_the_connection: r#"0/a,"x""# => malformed(shape(PacketKind::Connect));
    connect_without_slash_closes_the_connection: "0custom" => malformed(shape(PacketKind::Connect));
    broken_credentials_close_the_connection: r#"0/a,{"a":}"# => malformed(DecodeError::Json);
    credentials_with_text_behind_them_close_the_connection: "0/a,{}x" => malformed(DecodeError::Json);
    disconnect_with_data_closes_the_connection: "1{}" => malformed(shape(PacketKind::Disconnect));
    an_ack_that_is_an_object_closes_the_connection: "31{}" => malformed(shape(PacketKind::Ack));
    an_ack_that_is_a_string_closes_the_connection: r#"31"x""# => malformed(shape(PacketKind::Ack));
    an_ack_without_id_that_is_an_object_closes_the_connection: "3{}" => malformed(shape(PacketKind::Ack));
    an_ack_that_only_opens_closes_the_connection: "31[" => malformed(DecodeError::Json);
    connect_error_in_an_array_is_malformed_before_it_is_unexpected:
        "4[1]" => malformed(shape(PacketKind::ConnectError));
    malformed_data_for_a_namespace_not_joined_is_malformed: "2/x,{}" => malformed(shape(PacketKind::Event));
    a_byte_order_mark_closes_the_connection: "\u{feff}2[1]" => malformed(DecodeError::UnknownKind);
    whitespace_of_unicode_is_none_of_json: "2\u{a0}[1]" => malformed(shape(PacketKind::Event));
    an_event_nested_too_deep_closes_the_connection:
        format!(r#"2["e",{}{}]"#, "[".repeat(128), "]".repeat(128)) => malformed(DecodeError::TooDeep);
    an_ack_nested_too_deep_closes_the_connection:
        format!("31{}{}", "[".repeat(129), "]".repeat(129)) => malformed(DecodeError::TooDeep);
    credentials_nested_too_deep_close_the_connection:
        format!("0/a,{}1{}", r#"{"a":"#.repeat(129), "}".repeat(129)) => malformed(DecodeError::TooDeep);
    a_binary_event_nested_too_deep_closes_the_connection:
        format!(r#"51-["e",{}{}]"#, "[".repeat(128), "]".repeat(128)) => malformed(DecodeError::TooDeep);
}

#[test]
fn data_may_be_nested_128_deep() {
    let json = format!("[\"e\",{}{}]", "[".repeat(127), "]".repeat(127));
    assert_eq!(Dialogue::joined(["/"]).text(&format!("2{json}")), [event(0, &json, None)]);
    let auth = format!("{}1{}", r#"{"a":"#.repeat(128), "}".repeat(128));
    assert_eq!(Dialogue::new().text(&format!("0{auth}")), [connect(0, "/", Some(&auth))]);
}

#[test]
fn brackets_in_a_string_are_not_depth() {
    let json = format!("[\"e\",\"{}\"]", "[{\\\"".repeat(1000));
    assert_eq!(Dialogue::joined(["/"]).text(&format!("2{json}")), [event(0, &json, None)]);
}

#[test]
fn a_wide_array_is_not_deep() {
    let json = format!("[\"e\"{}]", ",[]".repeat(1000));
    assert_eq!(Dialogue::joined(["/"]).text(&format!("2{json}")), [event(0, &json, None)]);
}

#[test]
fn arguments_found_malformed_by_a_handler_close_the_connection() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.text(r#"2["e",{"a":1"#), [event(0, r#"["e",{"a":1"#, None)]);
    assert_eq!(dialogue.hear(Input::Malformed), [malformed(DecodeError::Json)]);
    dialogue.assert_silent();
}
