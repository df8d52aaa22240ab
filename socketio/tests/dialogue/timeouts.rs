//! The connect timeout and the deadlines of acks.

use std::time::Duration;

use socketio::{Action, CloseReason, ConnectionConfig};

use crate::support::*;

#[test]
fn a_client_that_joins_nothing_is_closed_after_45_seconds() {
    let mut dialogue = Dialogue::new();
    assert_eq!(dialogue.alarm(), Some(45));
    assert_eq!(dialogue.wait(44), []);
    assert_eq!(dialogue.wait(1), [Action::Close(CloseReason::ConnectTimeout)]);
    dialogue.assert_silent();
}

#[test]
fn the_connect_timeout_can_be_configured() {
    let config = ConnectionConfig { connect_timeout: Duration::from_secs(3), ..ConnectionConfig::default() };
    let mut dialogue = Dialogue::with(config);
    assert_eq!(dialogue.alarm(), Some(3));
    assert_eq!(dialogue.wait(3), [Action::Close(CloseReason::ConnectTimeout)]);
}

#[test]
fn an_endless_connect_timeout_is_none() {
    let config = ConnectionConfig { connect_timeout: Duration::MAX, ..ConnectionConfig::default() };
    assert_eq!(Dialogue::with(config).alarm(), None);
}

#[test]
fn the_first_namespace_joined_ends_the_connect_timeout() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.alarm(), None);
    assert_eq!(dialogue.wait(1000), []);
}

#[test]
fn a_refused_client_is_closed_by_the_connect_timeout() {
    let mut dialogue = Dialogue::new();
    dialogue.text("0/random");
    dialogue.refuse(0, "Invalid namespace");
    assert_eq!(dialogue.alarm(), Some(45));
    assert_eq!(dialogue.wait(45), [Action::Close(CloseReason::ConnectTimeout)]);
}

#[test]
fn a_pending_namespace_does_not_stop_the_connect_timeout() {
    let mut dialogue = Dialogue::new();
    dialogue.text("0");
    assert_eq!(dialogue.wait(45), [Action::Close(CloseReason::ConnectTimeout)]);
    assert_eq!(dialogue.accept(0), []);
}

#[test]
fn a_client_that_left_again_is_not_closed_by_the_connect_timeout() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.text("1");
    assert_eq!(dialogue.wait(1000), []);
}

#[test]
fn early_and_repeated_timeouts_do_nothing() {
    let mut dialogue = Dialogue::new();
    for _ in 0..3 {
        assert_eq!(dialogue.wait(0), []);
    }
    assert_eq!(dialogue.alarm(), Some(45));
}

#[test]
fn an_ack_that_does_not_come_expires() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.expect_ack(0, 1, Some(10));
    assert_eq!(dialogue.alarm(), Some(10));
    assert_eq!(dialogue.wait(9), []);
    assert_eq!(dialogue.wait(1), [expired(0, 1)]);
    assert_eq!(dialogue.alarm(), None);
    assert_eq!(dialogue.text("31[]"), []);
}

#[test]
fn an_ack_without_deadline_never_expires() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.expect_ack(0, 1, None);
    assert_eq!(dialogue.alarm(), None);
    assert_eq!(dialogue.wait(1_000_000), []);
    assert_eq!(dialogue.text("31[]"), [ack(0, 1, "[]")]);
}

#[test]
fn acks_expire_one_deadline_after_the_other() {
    let mut dialogue = Dialogue::joined(["/", "/a"]);
    dialogue.expect_ack(0, 1, Some(3));
    dialogue.expect_ack(1, 2, Some(1));
    dialogue.expect_ack(0, 3, Some(2));
    assert_eq!(dialogue.alarm(), Some(1));
    assert_eq!(dialogue.wait(2), [expired(1, 2), expired(0, 3)]);
    assert_eq!(dialogue.alarm(), Some(1));
    assert_eq!(dialogue.wait(1), [expired(0, 1)]);
}

#[test]
fn an_answered_ack_does_not_expire() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.expect_ack(0, 1, Some(1));
    dialogue.text("31[]");
    assert_eq!(dialogue.alarm(), None);
    assert_eq!(dialogue.wait(5), []);
}

#[test]
fn an_answer_that_overtakes_the_alarm_counts() {
    let mut dialogue = Dialogue::joined(["/"]);
    dialogue.expect_ack(0, 1, Some(1));
    dialogue.now += Duration::from_secs(2);
    assert_eq!(dialogue.text("31[]"), [ack(0, 1, "[]")]);
    assert_eq!(dialogue.wait(0), []);
}

#[test]
fn a_deadline_in_the_past_is_due_at_the_next_timeout() {
    let mut dialogue = Dialogue::joined(["/"]);
    assert_eq!(dialogue.expect_ack(0, 1, Some(0)), []);
    assert_eq!(dialogue.alarm(), Some(0));
    assert_eq!(dialogue.wait(0), [expired(0, 1)]);
}

#[test]
fn acks_expire_before_the_connect_timeout_closes() {
    let mut dialogue = Dialogue::new();
    dialogue.text("0");
    dialogue.expect_ack(0, 1, Some(7));
    assert_eq!(dialogue.alarm(), Some(7));
    assert_eq!(dialogue.wait(45), [expired(0, 1), Action::Close(CloseReason::ConnectTimeout)]);
    dialogue.assert_silent();
}
