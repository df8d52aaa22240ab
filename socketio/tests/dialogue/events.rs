//! Events from the client.

use socketio::{Action, Args, DataError, NamespaceState, PacketKind};

use crate::support::*;

#[test]
fn an_event_reaches_its_namespace() {
    let mut dialogue = Dialogue::joined(["/", "/a"]);
    assert_eq!(dialogue.text(r#"2["e",1]"#), [event(0, r#"["e",1]"#, None)]);
    assert_eq!(dialogue.text(r#"2/a,["e",1]"#), [event(1, r#"["e",1]"#, None)]);
    assert_eq!(dialogue.text(r#"2/,["e",1]"#), [event(0, r#"["e",1]"#, None)]);
}

#[test]
fn the_name_and_the_arguments_can_be_read() {
    let mut dialogue = Dialogue::joined(["/"]);
    let actions = dialogue.text(r#"2["say",{"x":[1,2]},"é"]"#);
    let [Action::Event { event, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(event.name(), "say");
    let Args((x, text)) = event.data().args::<Args<(serde_json::Value, String)>>().unwrap();
    assert_eq!((x["x"][1].as_u64(), text.as_str()), (Some(2), "é"));
}

#[test]
fn an_event_without_arguments_is_an_event() {
    assert_eq!(Dialogue::joined(["/"]).text(r#"2["e"]"#), [event(0, r#"["e"]"#, None)]);
}

#[test]
fn whitespace_between_tokens_is_legal() {
    let mut dialogue = Dialogue::joined(["/"]);
    let actions = dialogue.text("2 [ \"e\" ,\t1 ]\n");
    let [Action::Event { event, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((event.name(), event.data().args::<u8>()), ("e", Ok(1)));
}

#[test]
fn an_event_may_ask_for_an_ack() {
    assert_eq!(Dialogue::joined(["/a"]).text(r#"2/a,12["e"]"#), [event(0, r#"["e"]"#, Some(12))]);
}

#[test]
fn zero_is_an_ack_id() {
    assert_eq!(Dialogue::joined(["/"]).text(r#"20["e"]"#), [event(0, r#"["e"]"#, Some(0))]);
}

#[test]
fn leading_zeros_of_an_ack_id_mean_nothing() {
    assert_eq!(Dialogue::joined(["/"]).text(r#"2007["e"]"#), [event(0, r#"["e"]"#, Some(7))]);
}

#[test]
fn an_ack_id_may_use_all_of_its_64_bits() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.text(r#"218446744073709551615["e"]"#), [event(0, r#"["e"]"#, Some(u64::MAX))]);
}

#[test]
fn an_ack_id_may_be_used_again_and_again() {
    let mut dialogue = Dialogue::joined(["/"]);
    for _ in 0..3 {
        assert_eq!(dialogue.text(r#"21["e"]"#), [event(0, r#"["e"]"#, Some(1))]);
    }
}

#[test]
fn an_event_without_data_is_ignored() {
    let mut dialogue = Dialogue::joined(["/", "/a"]);
    for message in ["2", "27", "2/a,", "2/a", "2/a,7"] {
        assert_eq!(dialogue.text(message), [], "{message}");
    }
}

#[test]
fn an_event_may_be_named_by_a_number() {
    let mut dialogue = Dialogue::joined(["/"]);
    let actions = dialogue.text("2[1,2]");
    let [Action::Event { event, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((event.name(), event.data().args::<u8>()), ("1", Ok(2)));
}

#[test]
fn an_event_may_be_named_by_a_fraction_or_a_negative_number() {
    for name in ["-1", "0", "1.5", "1e3", "1e999"] {
        let actions = Dialogue::joined(["/"]).text(&format!("2[{name}]"));
        let [Action::Event { event, .. }] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(event.name(), name);
    }
}

#[test]
fn names_that_only_look_reserved_are_free() {
    for name in
        ["error", "connection", "message", "__proto__", "constructor", "Connect", "connect ", "", "disconnected"]
    {
        let json = format!("[{name:?},1]");
        assert_eq!(Dialogue::joined(["/"]).text(&format!("2{json}")), [event(0, &json, None)]);
    }
}

#[test]
fn a_name_with_escapes_is_unescaped() {
    let actions = Dialogue::joined(["/"]).text(r#"2["a\"\u00e9\n",5]"#);
    let [Action::Event { event, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((event.name(), event.data().args::<u8>()), ("a\"é\n", Ok(5)));
}

#[test]
fn events_come_out_in_the_order_they_came_in() {
    let mut dialogue = Dialogue::joined(["/", "/a"]);
    for n in 0..5 {
        let (slot, namespace) = if n % 2 == 0 { (0, "") } else { (1, "/a,") };
        assert_eq!(dialogue.text(&format!("2{namespace}[{n}]")), [event(slot, &format!("[{n}]"), None)]);
    }
}

#[test]
fn a_placeholder_in_a_plain_event_is_a_plain_object() {
    let json = r#"["e",{"_placeholder":true,"num":"splice"}]"#;
    let mut dialogue = Dialogue::joined(["/"]);
    let actions = dialogue.text(&format!("2{json}"));
    assert_eq!(actions, [event(0, json, None)]);
    let [Action::Event { event, .. }] = &actions[..] else { panic!("{actions:?}") };
    let object: serde_json::Value = event.data().args().unwrap();
    assert_eq!(object["num"], "splice");
    assert!(matches!(event.data().args::<socketio::Binary>(), Err(DataError::Mismatch { .. })));
}

#[test]
fn arguments_of_the_wrong_type_leave_the_connection_open() {
    let mut dialogue = Dialogue::joined(["/"]);
    let actions = dialogue.text(r#"2["e","x"]"#);
    let [Action::Event { event, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert!(matches!(event.data().args::<u8>(), Err(DataError::Mismatch { argument: 0, .. })));
    assert_eq!(dialogue.text("2[1]"), [crate::support::event(0, "[1]", None)]);
}

#[test]
fn an_event_before_any_connect_closes_the_connection() {
    let mut dialogue = Dialogue::new();
    assert_eq!(dialogue.text(r#"2["e"]"#), [violation(PacketKind::Event, NamespaceState::Absent)]);
    dialogue.assert_silent();
}

#[test]
fn an_event_for_a_namespace_not_joined_closes_the_connection() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.text(r#"2/x,["e"]"#), [violation(PacketKind::Event, NamespaceState::Absent)]);
    dialogue.assert_silent();
}

#[test]
fn an_event_without_data_for_a_namespace_not_joined_closes_the_connection() {
    assert_eq!(Dialogue::joined(["/"]).text("2/x,"), [violation(PacketKind::Event, NamespaceState::Absent)]);
}

#[test]
fn an_event_while_the_middleware_runs_closes_the_connection() {
    let mut dialogue = Dialogue::new();
    dialogue.text("0");
    assert_eq!(dialogue.text(r#"2["e"]"#), [violation(PacketKind::Event, NamespaceState::Pending)]);
}

#[test]
fn an_event_after_a_refusal_closes_the_connection() {
    let mut dialogue = Dialogue::new();
    dialogue.text("0");
    dialogue.refuse(0, "no");
    assert_eq!(dialogue.text(r#"2["e"]"#), [violation(PacketKind::Event, NamespaceState::Absent)]);
}

#[test]
fn an_event_after_disconnect_closes_the_connection() {
    let mut dialogue = Dialogue::joined(["/", "/a"]);
    dialogue.text("1/a,");
    assert_eq!(dialogue.text(r#"2/a,["e"]"#), [violation(PacketKind::Event, NamespaceState::Absent)]);
}

#[test]
fn a_name_without_comma_swallows_the_data_as_in_the_reference() {
    assert_eq!(Dialogue::joined(["/"]).text(r#"2/["e"]"#), [violation(PacketKind::Event, NamespaceState::Absent)]);
}
