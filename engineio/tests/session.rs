//! Dialogues with the core: no sockets, no runtime, invented time.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engineio::{
    Action, CloseReason, Config, Frame, Input, Message, PostDrop, Refusal, RequestError, Session, Sid, Transport,
    WsFrame,
};

const PING_INTERVAL: u64 = 25_000;
const PING_TIMEOUT: u64 = 20_000;
const UPGRADE_TIMEOUT: u64 = 10_000;
const CLOSE_TIMEOUT: u64 = 30_000;
const OPEN_POLLING: &str = r#"0{"sid":"AAAAAAAAAAAAAAAAAAAA","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;

// ---- opening ----

#[test]
fn the_handshake_of_a_polling_session_is_answered_with_the_open_packet() {
    let mut talk = Talk::open(Transport::Polling, Config::default());
    assert_eq!(talk.actions(), [answer(OPEN_POLLING)]);
    assert_eq!(talk.session.transport(), Transport::Polling);
    assert_eq!(talk.timeout(), Some(PING_INTERVAL));
}

#[test]
fn a_websocket_session_writes_its_open_packet_and_offers_no_upgrade() {
    let mut talk = Talk::open(Transport::WebSocket, Config::default());
    assert_eq!(talk.actions(), []);
    assert_eq!(talk.written(), [OPEN_POLLING.replace(r#"["websocket"]"#, "[]")]);
    assert_eq!(talk.session.transport(), Transport::WebSocket);
}

#[test]
fn the_handshake_also_takes_what_was_sent_at_once() {
    let mut talk = Talk::open(Transport::Polling, Config::default());
    talk.session.handle(send("hello"), talk.now);
    assert_eq!(talk.actions(), [answer(&format!("{OPEN_POLLING}\x1e4hello"))]);
}

// ---- polling: packets to the client ----

#[test]
fn a_poll_waits_until_there_is_something_to_say() {
    let mut talk = Talk::polling();
    assert_eq!(talk.tell(Input::PollArrived), []);
    assert_eq!(talk.tell(send("a")), [answer("4a")]);
}

#[test]
fn a_poll_takes_at_once_what_waits() {
    let mut talk = Talk::polling();
    assert_eq!(talk.tell(send("a")), []);
    assert_eq!(talk.tell(send("b")), []);
    assert_eq!(talk.tell(Input::PollArrived), [answer("4a\x1e4b")]);
    assert_eq!(talk.session.buffered_bytes(), 0);
}

#[test]
fn messages_sent_together_leave_together() {
    let mut talk = Talk::polling();
    let _waits = talk.tell(Input::PollArrived);
    for text in ["a", "b", "c"] {
        talk.session.handle(send(text), talk.now);
    }
    assert_eq!(talk.actions(), [answer("4a\x1e4b\x1e4c")]);
}

#[test]
fn one_poll_gets_one_answer() {
    let mut talk = Talk::polling();
    let _waits = talk.tell(Input::PollArrived);
    assert_eq!(talk.tell(send("a")), [answer("4a")]);
    assert_eq!(talk.tell(send("b")), []);
    assert_eq!(talk.tell(Input::PollArrived), [answer("4b")]);
}

#[test]
fn binary_messages_travel_in_base64() {
    let mut talk = Talk::polling();
    let _queued = talk.tell(Input::Send(Frame::binary(&[1, 2, 3])));
    let _queued = talk.tell(send("a"));
    assert_eq!(talk.tell(Input::PollArrived), [answer("bAQID\x1e4a")]);
}

#[test]
fn a_batch_is_cut_at_max_payload_and_the_next_poll_takes_the_rest() {
    let mut talk = Talk::with(Transport::Polling, |config| config.max_payload_bytes = 12);
    for text in ["aaaa", "bbbb", "cccc"] {
        let _queued = talk.tell(send(text));
    }
    assert_eq!(talk.tell(Input::PollArrived), [answer("4aaaa\x1e4bbbb")]);
    assert_eq!(talk.tell(Input::PollArrived), [answer("4cccc")]);
}

#[test]
fn a_message_above_max_payload_leaves_alone() {
    let mut talk = Talk::with(Transport::Polling, |config| config.max_payload_bytes = 3);
    let _queued = talk.tell(send("large"));
    let _queued = talk.tell(send("b"));
    assert_eq!(talk.tell(Input::PollArrived), [answer("4large")]);
    assert_eq!(talk.tell(Input::PollArrived), [answer("4b")]);
}

// ---- polling: packets from the client ----

#[test]
fn a_post_delivers_its_packets_in_order_and_then_gets_its_answer() {
    let mut talk = Talk::polling();
    assert_eq!(talk.tell(Input::PostArrived), []);
    assert_eq!(
        talk.tell(body("4a\x1ebAQID\x1e4b")),
        [
            deliver("a"),
            Action::Deliver(Message::Binary(Bytes::from_static(&[1, 2, 3]))),
            deliver("b"),
            Action::AcceptPost
        ]
    );
}

#[test]
fn posts_one_after_the_other_are_fine() {
    let mut talk = Talk::polling();
    for text in ["a", "b"] {
        assert_eq!(talk.post(&format!("4{text}")), [deliver(text), Action::AcceptPost]);
    }
}

#[test]
fn a_post_beside_a_waiting_poll_leaves_the_poll_alone() {
    let mut talk = Talk::polling();
    let _waits = talk.tell(Input::PollArrived);
    assert_eq!(talk.post("4a"), [deliver("a"), Action::AcceptPost]);
    assert_eq!(talk.tell(send("b")), [answer("4b")]);
}

#[test]
fn packets_before_a_wrong_one_are_delivered_and_the_rest_is_dropped() {
    let mut talk = Talk::polling();
    let _waits = talk.tell(Input::PollArrived);
    assert_eq!(
        talk.post("4a\x1eabc\x1e4b"),
        [deliver("a"), answer("1"), Action::AcceptPost, closed(CloseReason::ParseError)]
    );
}

#[test]
fn wrong_payloads_close_with_a_parse_error() {
    for wrong in ["abc", "", "4a\x1e", "7", "b*", "\u{fffd}", "\x1e"] {
        let mut talk = Talk::polling();
        let _waits = talk.tell(Input::PollArrived);
        let actions = talk.post(wrong);
        let expected = [answer("1"), Action::AcceptPost, closed(CloseReason::ParseError)];
        assert!(actions.ends_with(&expected), "{wrong:?}: {actions:?}");
    }
}

#[test]
fn wrong_payloads_close_a_session_without_a_poll_too() {
    let mut talk = Talk::polling();
    assert_eq!(talk.post("abc"), [Action::AcceptPost, closed(CloseReason::ParseError)]);
}

#[test]
fn a_close_packet_is_answered_with_a_noop_on_the_poll() {
    let mut talk = Talk::polling();
    let _waits = talk.tell(Input::PollArrived);
    assert_eq!(talk.post("1"), [answer("6"), Action::AcceptPost, closed(CloseReason::ClosedByClient)]);
}

#[test]
fn a_close_packet_without_a_poll_needs_no_noop() {
    let mut talk = Talk::polling();
    assert_eq!(talk.post("1"), [Action::AcceptPost, closed(CloseReason::ClosedByClient)]);
}

#[test]
fn packets_behind_a_close_packet_do_not_count() {
    let mut talk = Talk::polling();
    assert_eq!(talk.post("4a\x1e1\x1e4b"), [deliver("a"), Action::AcceptPost, closed(CloseReason::ClosedByClient)]);
}

#[test]
fn a_ping_from_the_client_is_the_wrong_direction() {
    for ping in ["2", "2probe"] {
        let mut talk = Talk::polling();
        let _waits = talk.tell(Input::PollArrived);
        assert_eq!(talk.post(ping), [answer("1"), Action::AcceptPost, closed(CloseReason::TransportError)]);
    }
}

#[test]
fn packets_without_a_meaning_are_ignored() {
    let mut talk = Talk::polling();
    for ignored in ["0", "0{}", "5", "6", "3"] {
        assert_eq!(talk.post(ignored), [Action::AcceptPost], "{ignored}");
    }
}

#[test]
fn many_packets_are_applied_as_they_are_asked_for_and_accepted_behind_the_last() {
    let mut talk = Talk::polling();
    let payload = (0..150).map(|number| format!("4{number}")).collect::<Vec<_>>().join("\x1e");
    let mut actions = talk.post(&payload);
    for count in [64, 128] {
        assert_eq!(actions, (0..count).map(|number| deliver(&number.to_string())).collect::<Vec<_>>());
        assert!(talk.session.has_unread());
        actions.extend(talk.tell(Input::ReadOn));
    }
    assert_eq!(actions[149..], [deliver("149"), Action::AcceptPost]);
    assert!(!talk.session.has_unread());
    assert_eq!(talk.tell(Input::ReadOn), []);
}

/// A client that upgrades waits for the answer to its POST, and polls no more.
#[test]
fn a_post_is_accepted_early_for_the_sake_of_an_upgrade_and_its_packets_come_before_the_frames_of_the_websocket() {
    let many = |from: usize| (from..from + 100).map(|number| format!("4{number}")).collect::<Vec<_>>().join("\x1e");
    let delivered = |range: std::ops::Range<usize>| range.map(|number| deliver(&number.to_string()));
    let mut talk = Talk::polling();
    let _delivered = talk.post(&many(0));
    assert!(!talk.session.takes_body());
    let _opened = talk.tell(Input::CandidateArrived);
    assert_eq!(talk.tell(candidate("2probe")), [answer_probe(), Action::AcceptPost]);
    // One that was sent before the client knew of the probe's answer waits for its turn, accepted too.
    assert!(talk.session.takes_body());
    assert_eq!(talk.post(&many(100)), [Action::AcceptPost]);
    let mut actions = vec![Action::SwitchTransport];
    actions.extend(delivered(64..200));
    assert_eq!(talk.tell(candidate("5")), actions);
    assert!(!talk.session.has_unread() && !talk.session.takes_body());
    assert_eq!(talk.tell(frame("4next")), [deliver("next")]);
}

#[test]
fn no_more_than_two_bodies_are_taken_for_the_sake_of_an_upgrade() {
    let mut talk = Talk::with(Transport::Polling, |config| config.max_payload_bytes = 1000);
    let _opened = talk.tell(Input::CandidateArrived);
    let _probed = talk.tell(candidate("2probe"));
    for takes_more in [true, false] {
        assert!(talk.session.takes_body());
        let _accepted = talk.post(&["4a"; 300].join("\x1e"));
        assert_eq!(talk.session.takes_body(), takes_more);
    }
    // The upgrade fails: what was accepted is still read.
    let _dropped = talk.tell(candidate("4x"));
    let mut delivered = 0;
    while talk.session.has_unread() {
        delivered += talk.tell(Input::ReadOn).iter().filter(|action| **action == deliver("a")).count();
    }
    assert_eq!(delivered, 600 - 64);
}

#[test]
fn a_post_overlaps_one_that_is_not_read_to_its_end() {
    let mut talk = Talk::polling();
    let _delivered = talk.post(&["4a"; 65].join("\x1e"));
    assert_eq!(
        talk.tell(Input::PostArrived),
        [Action::RefusePost(Refusal::Empty), Action::AbortPost, closed(CloseReason::TransportError)]
    );
    assert_eq!(talk.tell(Input::ReadOn), []);
}

#[test]
fn a_post_that_is_too_large_leaves_the_session_open() {
    let mut talk = Talk::polling();
    assert_eq!(talk.tell(Input::PostArrived), []);
    assert_eq!(talk.tell(Input::PostDropped(PostDrop::TooLarge)), []);
    assert_eq!(talk.post("4a"), [deliver("a"), Action::AcceptPost]);
}

#[test]
fn an_aborted_post_closes_the_session() {
    let mut talk = Talk::polling();
    let _waits = talk.tell(Input::PollArrived);
    let _reads = talk.tell(Input::PostArrived);
    assert_eq!(talk.tell(Input::PostDropped(PostDrop::Aborted)), [answer("1"), closed(CloseReason::TransportError)]);
}

#[test]
fn a_binary_post_closes_the_session() {
    let mut talk = Talk::polling();
    let _reads = talk.tell(Input::PostArrived);
    assert_eq!(talk.tell(Input::PostDropped(PostDrop::Binary)), [closed(CloseReason::TransportError)]);
}

#[test]
fn a_body_that_nobody_announced_is_ignored() {
    let mut talk = Talk::polling();
    assert_eq!(talk.tell(body("4a")), []);
    assert_eq!(talk.tell(Input::PostDropped(PostDrop::Aborted)), []);
    assert!(!talk.session.is_closed());
}

// ---- overlapping and aborted requests ----

#[test]
fn a_second_poll_closes_the_session() {
    let mut talk = Talk::polling();
    let _waits = talk.tell(Input::PollArrived);
    assert_eq!(
        talk.tell(Input::PollArrived),
        [Action::RefusePoll(Refusal::Empty), answer("1"), closed(CloseReason::TransportError)]
    );
}

#[test]
fn a_second_poll_closes_the_session_also_where_the_first_was_about_to_be_answered() {
    let mut talk = Talk::polling();
    let _waits = talk.tell(Input::PollArrived);
    talk.session.handle(send("a"), talk.now);
    assert_eq!(
        talk.tell(Input::PollArrived),
        [Action::RefusePoll(Refusal::Empty), answer("1"), closed(CloseReason::TransportError)]
    );
}

#[test]
fn a_second_post_closes_the_session_and_breaks_off_the_first() {
    let mut talk = Talk::polling();
    let _reads = talk.tell(Input::PostArrived);
    assert_eq!(
        talk.tell(Input::PostArrived),
        [Action::RefusePost(Refusal::Empty), Action::AbortPost, closed(CloseReason::TransportError)]
    );
}

#[test]
fn an_overlap_of_posts_is_told_to_a_waiting_poll() {
    let mut talk = Talk::polling();
    let _waits = talk.tell(Input::PollArrived);
    let _reads = talk.tell(Input::PostArrived);
    assert_eq!(
        talk.tell(Input::PostArrived),
        [Action::RefusePost(Refusal::Empty), answer("1"), Action::AbortPost, closed(CloseReason::TransportError)]
    );
}

#[test]
fn a_second_poll_breaks_off_a_post() {
    let mut talk = Talk::polling();
    let _reads = talk.tell(Input::PostArrived);
    let _waits = talk.tell(Input::PollArrived);
    assert_eq!(
        talk.tell(Input::PollArrived),
        [Action::RefusePoll(Refusal::Empty), answer("1"), Action::AbortPost, closed(CloseReason::TransportError)]
    );
}

#[test]
fn an_aborted_poll_closes_the_session() {
    let mut talk = Talk::polling();
    let _waits = talk.tell(Input::PollArrived);
    assert_eq!(talk.tell(Input::PollAborted), [closed(CloseReason::TransportError)]);
}

#[test]
fn an_abort_without_a_poll_is_nothing() {
    let mut talk = Talk::polling();
    assert_eq!(talk.tell(Input::PollAborted), []);
    assert!(!talk.session.is_closed());
}

// ---- websocket ----

#[test]
fn a_text_frame_is_one_packet() {
    let mut talk = Talk::websocket();
    assert_eq!(talk.tell(frame("4hi")), [deliver("hi")]);
    assert_eq!(talk.tell(frame("4")), [deliver("")]);
}

#[test]
fn a_binary_frame_is_a_message_without_a_type_digit() {
    let mut talk = Talk::websocket();
    let bytes = Bytes::from_static(&[4, 0, 255]);
    assert_eq!(talk.tell(Input::Frame(WsFrame::Binary(bytes.clone()))), [Action::Deliver(Message::Binary(bytes))]);
    assert_eq!(
        talk.tell(Input::Frame(WsFrame::Binary(Bytes::new()))),
        [Action::Deliver(Message::Binary(Bytes::new()))]
    );
}

#[test]
fn base64_in_a_text_frame_is_a_binary_message() {
    let mut talk = Talk::websocket();
    assert_eq!(talk.tell(frame("bAQID")), [Action::Deliver(Message::Binary(Bytes::from_static(&[1, 2, 3])))]);
}

#[test]
fn messages_are_written_in_the_order_they_were_sent() {
    let mut talk = Talk::websocket();
    for text in ["a", "b", "c"] {
        assert_eq!(talk.tell(send(text)), []);
    }
    assert_eq!(talk.written(), ["4a", "4b", "4c"]);
}

#[test]
fn wrong_frames_close_with_a_parse_error() {
    for wrong in ["", "abc", "7", "b*", "é"] {
        let mut talk = Talk::websocket();
        assert_eq!(talk.tell(frame(wrong)), [closed(CloseReason::ParseError)], "{wrong:?}");
    }
}

#[test]
fn a_ping_over_websocket_closes_the_session() {
    for ping in ["2", "2probe"] {
        let mut talk = Talk::websocket();
        assert_eq!(talk.tell(frame(ping)), [closed(CloseReason::TransportError)]);
    }
}

#[test]
fn frames_without_a_meaning_are_ignored() {
    let mut talk = Talk::websocket();
    for ignored in ["0", "3", "3probe", "5", "6"] {
        assert_eq!(talk.tell(frame(ignored)), [], "{ignored}");
    }
    assert!(talk.written().is_empty());
}

#[test]
fn a_close_packet_over_websocket_closes_the_session_at_once() {
    let mut talk = Talk::websocket();
    let _queued = talk.tell(send("unread"));
    assert_eq!(talk.tell(frame("1")), [closed(CloseReason::ClosedByClient)]);
    assert!(talk.written().is_empty());
}

#[test]
fn a_close_frame_and_a_lost_connection_are_told_apart() {
    for (input, reason) in [
        (Input::WebSocketEnded { close_frame: true }, CloseReason::ClosedByClient),
        (Input::WebSocketEnded { close_frame: false }, CloseReason::ConnectionLost),
        (Input::WebSocketFailed, CloseReason::TransportError),
    ] {
        let mut talk = Talk::websocket();
        assert_eq!(talk.tell(input), [closed(reason)]);
    }
    assert_eq!(CloseReason::ClosedByClient.as_str(), CloseReason::ConnectionLost.as_str());
}

#[test]
fn the_end_of_a_websocket_is_nothing_to_a_polling_session() {
    let mut talk = Talk::polling();
    assert_eq!(talk.tell(Input::WebSocketEnded { close_frame: true }), []);
    assert_eq!(talk.tell(Input::WebSocketFailed), []);
    assert_eq!(talk.tell(frame("4a")), []);
    assert!(!talk.session.is_closed());
}

#[test]
fn polling_requests_after_the_upgrade_are_bad_requests_and_the_session_lives_on() {
    let mut talk = Talk::websocket();
    assert_eq!(talk.tell(Input::PollArrived), [Action::RefusePoll(Refusal::Request(RequestError::BadRequest))]);
    assert_eq!(talk.tell(Input::PostArrived), [Action::RefusePost(Refusal::Request(RequestError::BadRequest))]);
    assert_eq!(talk.tell(body("4a")), []);
    assert_eq!(talk.tell(frame("4b")), [deliver("b")]);
}

// ---- upgrade ----

#[test]
fn a_probe_is_answered_and_releases_the_poll() {
    let mut talk = Talk::polling();
    let _waits = talk.tell(Input::PollArrived);
    assert_eq!(talk.tell(Input::CandidateArrived), []);
    assert_eq!(talk.tell(candidate("2probe")), [answer_probe(), answer("6")]);
}

#[test]
fn a_probe_is_answered_with_its_text() {
    assert!(matches!(answer_probe(), Action::WriteCandidate(frame) if frame.data() == b"3probe"));
}

#[test]
fn a_probe_without_a_waiting_poll_releases_nothing() {
    let mut talk = Talk::polling();
    let _opened = talk.tell(Input::CandidateArrived);
    assert_eq!(talk.tell(candidate("2probe")), [answer_probe()]);
}

#[test]
fn polls_are_released_every_100_ms_until_the_upgrade_is_done() {
    let mut talk = Talk::probed();
    for turn in 1..=5 {
        let _waits = talk.tell(Input::PollArrived);
        assert_eq!(talk.timeout(), Some(100 * turn));
        assert_eq!(talk.at(100 * turn - 1), []);
        assert_eq!(talk.at(100 * turn), [answer("6")]);
    }
    assert_eq!(talk.tell(candidate("5")), [Action::SwitchTransport]);
    assert_eq!(talk.timeout(), Some(PING_INTERVAL));
}

#[test]
fn no_noop_reaches_the_websocket() {
    let mut talk = Talk::probed();
    let _nobody_waits = talk.at(100);
    let _switched = talk.tell(candidate("5"));
    let _nothing_due = talk.at(200);
    assert!(talk.written().is_empty());
}

#[test]
fn a_released_poll_takes_messages_instead_of_a_noop() {
    let mut talk = Talk::polling();
    let _opened = talk.tell(Input::CandidateArrived);
    let _waits = talk.tell(Input::PollArrived);
    talk.session.handle(send("a"), talk.now);
    assert_eq!(talk.tell(candidate("2probe")), [answer_probe(), answer("4a")]);
}

#[test]
fn messages_of_an_upgrade_still_travel_by_poll() {
    let mut talk = Talk::probed();
    assert_eq!(talk.tell(send("a")), []);
    assert_eq!(talk.tell(Input::PollArrived), [answer("4a")]);
}

#[test]
fn messages_that_wait_at_the_switch_leave_over_the_websocket() {
    let mut talk = Talk::probed();
    let _queued = talk.tell(send("a"));
    assert_eq!(talk.tell(candidate("5")), [Action::SwitchTransport]);
    let _queued = talk.tell(send("b"));
    assert_eq!(talk.written(), ["4a", "4b"]);
    assert_eq!(talk.session.transport(), Transport::WebSocket);
    assert_eq!(talk.tell(frame("4c")), [deliver("c")]);
}

#[test]
fn a_poll_that_waits_at_the_switch_is_told_that_its_transport_ends() {
    let mut talk = Talk::probed();
    let _waits = talk.tell(Input::PollArrived);
    assert_eq!(talk.tell(candidate("5")), [answer("1"), Action::SwitchTransport]);
}

#[test]
fn an_upgrade_packet_without_a_probe_is_accepted() {
    let mut talk = Talk::polling();
    let _opened = talk.tell(Input::CandidateArrived);
    assert_eq!(talk.tell(candidate("5")), [Action::SwitchTransport]);
}

#[test]
fn a_second_probe_is_answered_like_the_first() {
    let mut talk = Talk::probed();
    assert_eq!(talk.tell(candidate("2probe")), [answer_probe()]);
    assert_eq!(talk.tell(candidate("5")), [Action::SwitchTransport]);
}

#[test]
fn a_wrong_packet_drops_the_candidate_and_polling_survives() {
    for wrong in ["4hi", "2", "2other", "3", "6", "1", "", "abc"] {
        for probed in [false, true] {
            let mut talk = if probed { Talk::probed() } else { Talk::polling() };
            if !probed {
                let _opened = talk.tell(Input::CandidateArrived);
            }
            assert_eq!(talk.tell(candidate(wrong)), [Action::DropCandidate], "{wrong:?}");
            assert_eq!(talk.post("4a"), [deliver("a"), Action::AcceptPost]);
            assert_eq!(talk.timeout(), Some(PING_INTERVAL));
        }
    }
}

#[test]
fn a_binary_frame_drops_the_candidate() {
    let mut talk = Talk::probed();
    assert_eq!(
        talk.tell(Input::CandidateFrame(WsFrame::Binary(Bytes::from_static(b"2probe")))),
        [Action::DropCandidate]
    );
}

#[test]
fn a_lost_candidate_leaves_polling_as_it_was() {
    let mut talk = Talk::probed();
    assert_eq!(talk.tell(Input::CandidateLost), []);
    assert_eq!(talk.tell(candidate("5")), []);
    assert_eq!(talk.session.transport(), Transport::Polling);
    assert_eq!(talk.timeout(), Some(PING_INTERVAL));
}

#[test]
fn another_candidate_may_come_after_one_that_failed() {
    let mut talk = Talk::probed();
    let _lost = talk.tell(Input::CandidateLost);
    assert_eq!(talk.tell(Input::CandidateArrived), []);
    assert_eq!(talk.tell(candidate("2probe")), [answer_probe()]);
    assert_eq!(talk.tell(candidate("5")), [Action::SwitchTransport]);
}

#[test]
fn a_candidate_for_a_session_on_websocket_is_dropped() {
    let mut talk = Talk::websocket();
    assert_eq!(talk.tell(Input::CandidateArrived), [Action::DropCandidate]);
    assert_eq!(talk.tell(frame("4a")), [deliver("a")]);
}

#[test]
fn an_upgrade_that_takes_too_long_is_dropped_and_polling_survives() {
    let mut talk = Talk::polling();
    let _opened = talk.tell(Input::CandidateArrived);
    assert_eq!(talk.timeout(), Some(UPGRADE_TIMEOUT));
    assert_eq!(talk.at(UPGRADE_TIMEOUT - 1), []);
    assert_eq!(talk.at(UPGRADE_TIMEOUT), [Action::DropCandidate]);
    assert_eq!(talk.timeout(), Some(PING_INTERVAL));
    assert_eq!(talk.post("4a"), [deliver("a"), Action::AcceptPost]);
}

#[test]
fn a_probe_does_not_put_off_the_upgrade_timeout() {
    let mut talk = Talk::polling();
    let _opened = talk.tell(Input::CandidateArrived);
    talk.to(UPGRADE_TIMEOUT - 50);
    let _probed = talk.tell(candidate("2probe"));
    assert_eq!(talk.timeout(), Some(UPGRADE_TIMEOUT));
    assert_eq!(talk.at(UPGRADE_TIMEOUT), [Action::DropCandidate]);
}

#[test]
fn a_ping_may_fall_into_an_upgrade_and_its_pong_behind_it() {
    let mut talk = Talk::polling();
    talk.to(PING_INTERVAL - 10);
    let _opened = talk.tell(Input::CandidateArrived);
    let _probed = talk.tell(candidate("2probe"));
    assert_eq!(talk.at(PING_INTERVAL), []);
    assert_eq!(talk.tell(Input::PollArrived), [answer("2")]);
    talk.to(PING_INTERVAL + 300);
    assert_eq!(talk.tell(candidate("5")), [Action::SwitchTransport]);
    assert_eq!(talk.tell(frame("3")), [Action::RoundTrip(ms(300))]);
    assert_eq!(talk.timeout(), Some(2 * PING_INTERVAL + 300));
}

#[test]
fn a_ping_that_nobody_fetched_before_the_switch_leaves_over_the_websocket() {
    let mut talk = Talk::polling();
    let _queued = talk.at(PING_INTERVAL);
    let _opened = talk.tell(Input::CandidateArrived);
    let _switched = talk.tell(candidate("5"));
    assert_eq!(talk.written(), ["2"]);
}

#[test]
fn a_post_that_the_upgrade_overtook_is_processed() {
    let mut talk = Talk::probed();
    let _reads = talk.tell(Input::PostArrived);
    assert_eq!(talk.tell(candidate("5")), [Action::SwitchTransport]);
    assert_eq!(talk.tell(body("4a")), [deliver("a"), Action::AcceptPost]);
    assert_eq!(talk.tell(body("4b")), []);
}

#[test]
fn a_post_that_the_upgrade_overtook_is_broken_off_with_the_session() {
    let mut talk = Talk::probed();
    let _reads = talk.tell(Input::PostArrived);
    let _switched = talk.tell(candidate("5"));
    assert_eq!(
        talk.tell(Input::WebSocketEnded { close_frame: true }),
        [Action::AbortPost, closed(CloseReason::ClosedByClient)]
    );
}

#[test]
fn the_end_of_a_session_ends_its_candidate() {
    let mut talk = Talk::probed();
    let _waits = talk.tell(Input::PollArrived);
    assert_eq!(talk.tell(Input::PollAborted), [Action::DropCandidate, closed(CloseReason::TransportError)]);
}

// ---- closing ----

#[test]
fn closing_with_a_waiting_poll_ends_on_that_poll() {
    let mut talk = Talk::polling();
    let _waits = talk.tell(Input::PollArrived);
    assert_eq!(talk.tell(Input::Close), [answer("1"), closed(CloseReason::ForcedClose)]);
}

#[test]
fn what_was_sent_before_closing_comes_in_a_payload_of_its_own() {
    let mut talk = Talk::polling();
    let _waits = talk.tell(Input::PollArrived);
    talk.session.handle(send("a"), talk.now);
    talk.session.handle(send("b"), talk.now);
    assert_eq!(talk.tell(Input::Close), [answer("4a\x1e4b")]);
    assert_eq!(talk.timeout(), Some(CLOSE_TIMEOUT));
    assert_eq!(talk.tell(Input::PollArrived), [answer("6\x1e1"), closed(CloseReason::ForcedClose)]);
}

#[test]
fn closing_without_a_poll_waits_for_the_next_one() {
    let mut talk = Talk::polling();
    assert_eq!(talk.tell(Input::Close), []);
    assert!(!talk.session.is_closed());
    assert_eq!(talk.timeout(), Some(CLOSE_TIMEOUT));
    assert_eq!(talk.tell(Input::PollArrived), [answer("6\x1e1"), closed(CloseReason::ForcedClose)]);
}

#[test]
fn a_closing_session_is_polled_until_all_that_was_sent_is_fetched() {
    let mut talk = Talk::with(Transport::Polling, |config| config.max_payload_bytes = 4);
    for text in ["aaa", "bbb", "ccc"] {
        let _queued = talk.tell(send(text));
    }
    let _closing = talk.tell(Input::Close);
    for fetched in ["4aaa", "4bbb", "4ccc"] {
        assert_eq!(talk.tell(Input::PollArrived), [answer(fetched)]);
    }
    assert_eq!(talk.tell(Input::PollArrived), [answer("6\x1e1"), closed(CloseReason::ForcedClose)]);
}

#[test]
fn a_closing_session_sends_and_delivers_nothing_new() {
    let mut talk = Talk::polling();
    let _closing = talk.tell(Input::Close);
    assert_eq!(talk.tell(send("late")), []);
    assert_eq!(talk.tell(volatile("late")), []);
    assert_eq!(talk.post("4late\x1e3\x1e2"), [Action::AcceptPost]);
    assert_eq!(talk.tell(Input::PollArrived), [answer("6\x1e1"), closed(CloseReason::ForcedClose)]);
}

#[test]
fn closing_twice_is_closing_once() {
    let mut talk = Talk::polling();
    let _closing = talk.tell(Input::Close);
    talk.to(1000);
    assert_eq!(talk.tell(Input::Close), []);
    assert_eq!(talk.timeout(), Some(CLOSE_TIMEOUT));
}

#[test]
fn a_client_that_never_polls_again_is_given_up_after_the_close_timeout() {
    let mut talk = Talk::polling();
    let _closing = talk.tell(Input::Close);
    assert_eq!(talk.at(CLOSE_TIMEOUT - 1), []);
    assert_eq!(talk.at(CLOSE_TIMEOUT), [closed(CloseReason::ForcedClose)]);
}

#[test]
fn a_closing_session_takes_the_clients_goodbye() {
    let mut talk = Talk::polling();
    let _closing = talk.tell(Input::Close);
    assert_eq!(talk.post("1"), [Action::AcceptPost, closed(CloseReason::ClosedByClient)]);
}

#[test]
fn a_closing_session_that_is_polled_breaks_off_a_post() {
    let mut talk = Talk::polling();
    let _reads = talk.tell(Input::PostArrived);
    let _closing = talk.tell(Input::Close);
    assert_eq!(talk.tell(Input::PollArrived), [answer("6\x1e1"), Action::AbortPost, closed(CloseReason::ForcedClose)]);
}

#[test]
fn overlapping_posts_end_a_closing_session() {
    let mut talk = Talk::polling();
    let _closing = talk.tell(Input::Close);
    let _reads = talk.tell(Input::PostArrived);
    assert_eq!(
        talk.tell(Input::PostArrived),
        [Action::RefusePost(Refusal::Empty), Action::AbortPost, closed(CloseReason::TransportError)]
    );
}

#[test]
fn no_candidate_is_taken_while_closing() {
    let mut talk = Talk::polling();
    let _closing = talk.tell(Input::Close);
    assert_eq!(talk.tell(Input::CandidateArrived), [Action::DropCandidate]);
}

#[test]
fn closing_a_websocket_keeps_what_was_sent_for_the_last_flush() {
    let mut talk = Talk::websocket();
    talk.session.handle(send("a"), talk.now);
    assert_eq!(talk.tell(Input::Close), [closed(CloseReason::ForcedClose)]);
    assert_eq!(talk.session.take_outbox().bytes(), message("a").wire_len());
}

#[test]
fn closing_amid_an_upgrade_with_a_waiting_poll_ends_on_that_poll() {
    let mut talk = Talk::probed();
    let _waits = talk.tell(Input::PollArrived);
    assert_eq!(talk.tell(Input::Close), [Action::DropCandidate, answer("1"), closed(CloseReason::ForcedClose)]);
}

#[test]
fn closing_amid_an_upgrade_is_told_on_the_websocket_once_it_is_the_transport() {
    let mut talk = Talk::probed();
    let _queued = talk.tell(send("a"));
    assert_eq!(talk.tell(Input::Close), []);
    assert_eq!(talk.tell(candidate("5")), [Action::SwitchTransport, closed(CloseReason::ForcedClose)]);
    assert_eq!(talk.written(), ["4a"]);
}

#[test]
fn closing_amid_an_upgrade_is_told_on_the_next_poll_too() {
    let mut talk = Talk::probed();
    let _closing = talk.tell(Input::Close);
    assert_eq!(
        talk.tell(Input::PollArrived),
        [answer("6\x1e1"), Action::DropCandidate, closed(CloseReason::ForcedClose)]
    );
}

#[test]
fn an_upgrade_times_out_while_closing_too() {
    let mut talk = Talk::polling();
    let _opened = talk.tell(Input::CandidateArrived);
    let _closing = talk.tell(Input::Close);
    assert_eq!(talk.timeout(), Some(UPGRADE_TIMEOUT));
    assert_eq!(talk.at(UPGRADE_TIMEOUT), [Action::DropCandidate]);
    assert_eq!(talk.at(CLOSE_TIMEOUT), [closed(CloseReason::ForcedClose)]);
}

// ---- heartbeat ----

#[test]
fn a_ping_is_queued_after_the_interval() {
    let mut talk = Talk::websocket();
    assert_eq!(talk.at(PING_INTERVAL - 1), []);
    assert!(talk.written().is_empty());
    assert_eq!(talk.at(PING_INTERVAL), []);
    assert_eq!(talk.written(), ["2"]);
    assert_eq!(talk.timeout(), Some(PING_INTERVAL + PING_TIMEOUT));
}

#[test]
fn a_ping_answers_a_waiting_poll() {
    let mut talk = Talk::polling();
    let _waits = talk.tell(Input::PollArrived);
    assert_eq!(talk.at(PING_INTERVAL), [answer("2")]);
    assert_eq!(talk.post("3"), [Action::RoundTrip(Duration::ZERO), Action::AcceptPost]);
}

#[test]
fn the_next_ping_is_timed_from_the_pong() {
    let mut talk = Talk::websocket();
    let _pinged = talk.at(PING_INTERVAL);
    talk.to(PING_INTERVAL + 700);
    assert_eq!(talk.tell(frame("3")), [Action::RoundTrip(ms(700))]);
    assert_eq!(talk.timeout(), Some(2 * PING_INTERVAL + 700));
}

#[test]
fn a_missing_pong_ends_a_websocket_and_drops_what_waits() {
    let mut talk = Talk::websocket();
    let _pinged = talk.at(PING_INTERVAL);
    let _queued = talk.tell(send("unread"));
    assert_eq!(talk.at(PING_INTERVAL + PING_TIMEOUT - 1), []);
    assert_eq!(talk.at(PING_INTERVAL + PING_TIMEOUT), [closed(CloseReason::PingTimeout)]);
    assert_eq!(talk.session.buffered_bytes(), 0);
}

#[test]
fn a_missing_pong_is_told_to_a_waiting_poll() {
    let mut talk = Talk::polling();
    let _pinged = talk.at(PING_INTERVAL);
    let _answered = talk.tell(Input::PollArrived);
    let _waits = talk.tell(Input::PollArrived);
    assert_eq!(talk.at(PING_INTERVAL + PING_TIMEOUT), [answer("1"), closed(CloseReason::PingTimeout)]);
}

#[test]
fn a_client_that_never_polls_is_closed_though_its_ping_was_never_fetched() {
    let mut talk = Talk::polling();
    let _pinged = talk.at(PING_INTERVAL);
    assert_eq!(talk.at(PING_INTERVAL + PING_TIMEOUT), [closed(CloseReason::PingTimeout)]);
}

#[test]
fn another_packet_extends_the_wait_for_a_pong_once_per_ping() {
    let mut talk = Talk::websocket();
    let _pinged = talk.at(PING_INTERVAL);
    talk.to(PING_INTERVAL + 10_000);
    assert_eq!(talk.tell(frame("4a")), [deliver("a")]);
    assert_eq!(talk.timeout(), Some(PING_INTERVAL + 10_000 + PING_TIMEOUT));
    talk.to(PING_INTERVAL + 15_000);
    assert_eq!(talk.tell(frame("4b")), [deliver("b")]);
    assert_eq!(talk.timeout(), Some(PING_INTERVAL + 10_000 + PING_TIMEOUT));
    assert_eq!(talk.at(PING_INTERVAL + 10_000 + PING_TIMEOUT), [closed(CloseReason::PingTimeout)]);
}

#[test]
fn the_next_ping_may_be_extended_again() {
    let mut talk = Talk::websocket();
    let mut time = 0;
    for _ in 0..3 {
        time += PING_INTERVAL;
        let _pinged = talk.at(time);
        let _extended = talk.tell(frame("6"));
        time += 5;
        talk.to(time);
        assert_eq!(talk.tell(frame("3")), [Action::RoundTrip(ms(5))]);
        assert_eq!(talk.timeout(), Some(time + PING_INTERVAL));
    }
}

#[test]
fn a_round_trip_runs_from_ping_to_pong_also_when_the_wait_was_extended() {
    let mut talk = Talk::websocket();
    let _pinged = talk.at(PING_INTERVAL);
    talk.to(PING_INTERVAL + 100);
    let _extended = talk.tell(frame("4a"));
    talk.to(PING_INTERVAL + 250);
    assert_eq!(talk.tell(frame("3")), [Action::RoundTrip(ms(250))]);
}

#[test]
fn an_unsolicited_pong_restarts_the_interval_and_measures_nothing() {
    let mut talk = Talk::websocket();
    talk.to(20_000);
    assert_eq!(talk.tell(frame("3")), []);
    assert_eq!(talk.timeout(), Some(20_000 + PING_INTERVAL));
}

#[test]
fn packets_between_pings_put_nothing_off() {
    let mut talk = Talk::websocket();
    talk.to(20_000);
    let _delivered = talk.tell(frame("4a"));
    assert_eq!(talk.timeout(), Some(PING_INTERVAL));
}

#[test]
fn early_and_repeated_timeouts_do_nothing() {
    let mut talk = Talk::websocket();
    assert_eq!(talk.at(1), []);
    let _pinged = talk.at(PING_INTERVAL);
    assert_eq!(talk.at(PING_INTERVAL), []);
    assert_eq!(talk.at(PING_INTERVAL), []);
    assert_eq!(talk.written(), ["2"]);
}

#[test]
fn a_late_timeout_pings_before_it_gives_up() {
    let mut talk = Talk::websocket();
    let asleep = 10 * (PING_INTERVAL + PING_TIMEOUT);
    assert_eq!(talk.at(asleep), []);
    assert_eq!(talk.written(), ["2"]);
    assert_eq!(talk.timeout(), Some(asleep + PING_TIMEOUT));
}

#[test]
fn a_handled_timeout_leaves_a_later_one() {
    for mut talk in [Talk::websocket(), Talk::polling(), Talk::probed()] {
        let mut turns = 0;
        while let Some(due) = talk.timeout() {
            let _carried_out = talk.at(due);
            assert!(talk.timeout().is_none_or(|next| next > due), "{due} again");
            turns += 1;
            assert!(turns < 1000);
        }
        assert!(talk.session.is_closed());
    }
}

// ---- budget and volatile ----

#[test]
fn a_client_that_takes_nothing_while_much_waits_is_closed_after_the_stall_time() {
    for transport in [Transport::Polling, Transport::WebSocket] {
        let mut talk = Talk::with(transport, |config| {
            config.max_buffered_bytes = 1024;
            config.stall_timeout = Some(ms(3_000));
        });
        let half = "x".repeat(500);
        talk.to(1_000);
        assert_eq!(talk.tell(send(&half)), []);
        assert_eq!(talk.timeout(), Some(PING_INTERVAL));
        talk.to(2_000);
        assert_eq!(talk.tell(send(&half)), []);
        assert_eq!(talk.timeout(), Some(5_000));
        assert_eq!(talk.at(4_999), []);
        assert_eq!(talk.at(5_000), [closed(CloseReason::TransportError)]);
        assert_eq!(talk.session.buffered_bytes(), 0);
    }
}

#[test]
fn a_client_that_takes_a_little_from_time_to_time_stays() {
    let mut talk = Talk::with(Transport::WebSocket, |config| {
        config.max_buffered_bytes = 1024;
        config.stall_timeout = Some(ms(3_000));
    });
    let _queued = talk.tell(send(&"x".repeat(5_000)));
    for at in (2_000..20_000).step_by(2_000) {
        talk.to(at);
        talk.session.outbox().unwrap().advance(1);
        assert_eq!(talk.tell(Input::Written), []);
        assert_eq!(talk.timeout(), Some(at + 3_000));
        assert_eq!(talk.at(at + 1_999), []);
    }
    talk.to(20_000);
    let rest = talk.session.outbox().unwrap().remaining();
    talk.session.outbox().unwrap().advance(rest);
    assert_eq!(talk.tell(Input::Written), []);
    assert_eq!(talk.timeout(), Some(PING_INTERVAL), "little enough waits");
}

#[test]
fn a_polling_client_that_fetches_what_waits_stays() {
    let mut talk = Talk::with(Transport::Polling, |config| {
        config.max_buffered_bytes = 1024;
        config.stall_timeout = Some(ms(3_000));
        config.max_payload_bytes = 100;
    });
    for _ in 0..40 {
        let _queued = talk.tell(send(&"x".repeat(90)));
    }
    for at in (2_000..20_000).step_by(2_000) {
        talk.to(at);
        assert_eq!(talk.tell(Input::PollArrived), [answer(&format!("4{}", "x".repeat(90)))]);
        assert_eq!(talk.at(at + 1_999), []);
    }
}

#[test]
fn as_much_may_wait_as_is_configured_and_one_message_of_any_size() {
    let mut talk = Talk::with(Transport::WebSocket, |config| {
        config.max_buffered_bytes = 1024;
        config.max_backlog_bytes = Some(2048);
    });
    assert!(talk.session.has_room_for(1_000_000));
    let _queued = talk.tell(send(&"x".repeat(1000)));
    let waits = talk.session.buffered_bytes();
    assert!(talk.session.has_room_for(2048 - waits));
    assert!(!talk.session.has_room_for(2048 - waits + 1));
}

#[test]
fn input_is_wanted_again_when_a_quarter_of_the_high_water_mark_waits() {
    let mut talk = Talk::with(Transport::WebSocket, |config| config.high_water_bytes = Some(1000));
    let text = "x".repeat(300);
    let bytes = message(&text).wire_len();
    for wanted in [true, true, false] {
        let _queued = talk.tell(send(&text));
        assert_eq!(talk.session.wants_input(0), wanted);
    }
    for wanted in [false, false, true] {
        talk.session.outbox().unwrap().advance(bytes);
        assert_eq!(talk.session.wants_input(0), wanted);
    }
}

#[test]
fn a_single_message_above_the_budget_is_sent_all_the_same() {
    let mut talk = Talk::with(Transport::Polling, |config| config.max_buffered_bytes = 1024);
    let large = "x".repeat(50_000);
    assert_eq!(talk.tell(send(&large)), []);
    assert_eq!(talk.tell(Input::PollArrived), [answer(&format!("4{large}"))]);
}

#[test]
fn a_ping_leaves_ahead_of_what_waits_and_behind_the_frame_in_progress() {
    let mut talk = Talk::websocket();
    for text in ["a", "b"] {
        let _queued = talk.tell(send(text));
    }
    talk.session.outbox().unwrap().advance(1);
    assert_eq!(talk.at(PING_INTERVAL), []);
    talk.session.outbox().unwrap().advance(3);
    assert_eq!(talk.written(), ["2", "4b"]);
}

#[test]
fn a_client_that_takes_what_waits_is_given_time_to_answer_a_ping() {
    let mut talk = Talk::websocket();
    let _queued = talk.tell(send(&"x".repeat(5_000)));
    assert_eq!(talk.at(PING_INTERVAL), []);
    let took_at = PING_INTERVAL + 15_000;
    talk.to(took_at);
    talk.session.outbox().unwrap().advance(4_000);
    assert_eq!(talk.tell(Input::Written), []);
    assert_eq!(talk.at(PING_INTERVAL + PING_TIMEOUT), []);
    assert_eq!(talk.timeout(), Some(took_at + PING_TIMEOUT));
    assert_eq!(talk.at(took_at + PING_TIMEOUT), [closed(CloseReason::PingTimeout)]);
}

#[test]
fn a_client_that_is_not_read_is_pinged_again_instead_of_closed() {
    let mut talk = Talk::websocket();
    assert_eq!(talk.at(PING_INTERVAL), []);
    assert_eq!(talk.written(), ["2"]);
    assert_eq!(talk.tell(Input::ReadingPaused), []);
    assert_eq!(talk.at(PING_INTERVAL + PING_TIMEOUT), []);
    assert_eq!(talk.written(), ["2"]);
    let resumed_at = PING_INTERVAL + PING_TIMEOUT + 5_000;
    talk.to(resumed_at);
    assert_eq!(talk.tell(Input::ReadingResumed), []);
    assert_eq!(talk.timeout(), Some(resumed_at + PING_TIMEOUT));
    assert_eq!(talk.at(resumed_at + PING_TIMEOUT), [closed(CloseReason::PingTimeout)]);
}

#[test]
fn a_client_that_is_not_read_and_takes_nothing_is_closed() {
    let mut talk = Talk::websocket();
    let _queued = talk.tell(send("a"));
    assert_eq!(talk.tell(Input::ReadingPaused), []);
    assert_eq!(talk.at(PING_INTERVAL), []);
    assert_eq!(talk.at(PING_INTERVAL + PING_TIMEOUT), [closed(CloseReason::PingTimeout)]);
}

#[test]
fn a_shutdown_waits_for_the_rest_of_what_a_client_fetches() {
    let mut talk = Talk::with(Transport::Polling, |config| config.max_payload_bytes = 10);
    talk.to(10_000);
    let _waits = talk.tell(Input::PollArrived);
    talk.to(20_000);
    // The poll has waited for long; what it takes now is not all.
    for text in ["aaaaaaaa", "bbbbbbbb", "cccccccc"] {
        talk.session.handle(send(text), talk.now);
    }
    assert_eq!(talk.tell(Input::ShutDown), [answer("4aaaaaaaa")]);
    assert_eq!(talk.timeout(), Some(25_000));
    talk.to(24_000);
    assert_eq!(talk.tell(Input::PollArrived), [answer("4bbbbbbbb")]);
    assert_eq!(talk.timeout(), Some(29_000));
    talk.to(28_000);
    assert_eq!(talk.tell(Input::PollArrived), [answer("4cccccccc")]);
    assert_eq!(talk.at(33_000), [closed(CloseReason::ForcedClose)]);
}

#[test]
fn a_shutdown_hurries_a_session_that_is_closing() {
    let mut talk = Talk::polling();
    talk.to(1_000);
    assert_eq!(talk.tell(Input::Close), []);
    assert_eq!(talk.timeout(), Some(1_000 + CLOSE_TIMEOUT));
    talk.to(20_000);
    assert_eq!(talk.tell(Input::ShutDown), []);
    assert_eq!(talk.at(20_000), [closed(CloseReason::ForcedClose)]);
}

#[test]
fn a_shutdown_waits_for_a_client_that_still_polls_only() {
    let mut talk = Talk::polling();
    talk.to(20_000);
    assert_eq!(talk.tell(Input::ShutDown), []);
    assert_eq!(talk.timeout(), Some(20_000), "its last poll was answered long ago");
    assert_eq!(talk.at(20_000), [closed(CloseReason::ForcedClose)]);

    let mut talk = Talk::polling();
    talk.to(19_000);
    let _waits = talk.tell(Input::PollArrived);
    let _answered = talk.tell(send("a"));
    talk.to(20_000);
    assert_eq!(talk.tell(Input::ShutDown), []);
    assert_eq!(talk.timeout(), Some(24_000));
    assert_eq!(talk.tell(Input::PollArrived), [answer("6\x1e1"), closed(CloseReason::ForcedClose)]);
}

#[test]
fn an_overflow_in_front_of_the_session_closes_it() {
    let mut talk = Talk::polling();
    let _waits = talk.tell(Input::PollArrived);
    talk.session.handle(send("a"), talk.now);
    assert_eq!(talk.tell(Input::Overflowed), [answer("1"), closed(CloseReason::TransportError)]);
}

#[test]
fn a_volatile_message_needs_a_waiting_poll() {
    let mut talk = Talk::polling();
    assert_eq!(talk.tell(volatile("lost")), []);
    assert_eq!(talk.tell(Input::PollArrived), []);
    assert!(talk.session.is_writable());
    assert_eq!(talk.tell(volatile("a")), [answer("4a")]);
    assert!(!talk.session.is_writable());
}

#[test]
fn a_volatile_message_needs_a_websocket_that_has_written_all() {
    let mut talk = Talk::websocket();
    let _queued = talk.tell(send("a"));
    let _dropped = talk.tell(volatile("lost"));
    assert_eq!(talk.written(), ["4a"]);
    let _queued = talk.tell(volatile("b"));
    assert_eq!(talk.written(), ["4b"]);
}

#[test]
fn of_several_volatile_messages_at_once_the_first_leaves() {
    for mut talk in [Talk::websocket(), Talk::polling()] {
        let polling = talk.session.transport() == Transport::Polling;
        if polling {
            let _waits = talk.tell(Input::PollArrived);
        }
        talk.session.handle(volatile("first"), talk.now);
        talk.session.handle(volatile("second"), talk.now);
        let actions = talk.actions();
        let written = talk.written();
        if polling { assert_eq!(actions, [answer("4first")]) } else { assert_eq!(written, ["4first"]) }
    }
}

// ---- after the end ----

#[test]
fn nothing_follows_closed() {
    for mut talk in [Talk::polling(), Talk::websocket(), Talk::probed()] {
        talk.session.handle(Input::Overflowed, talk.now);
        let last = talk.actions().pop();
        assert_eq!(last, Some(closed(CloseReason::TransportError)));
        for input in every_input() {
            assert_eq!(talk.tell(input.clone()), [], "{input:?}");
        }
        assert_eq!(talk.timeout(), None);
        assert!(talk.session.is_closed());
        assert_eq!(talk.session.buffered_bytes(), 0);
    }
}

#[test]
fn inputs_behind_the_end_without_polling_between_them_change_nothing() {
    let mut talk = Talk::websocket();
    talk.session.handle(Input::Close, talk.now);
    for input in every_input() {
        talk.session.handle(input, talk.now);
    }
    assert_eq!(talk.actions(), [closed(CloseReason::ForcedClose)]);
}

#[test]
fn what_a_closed_session_still_has_to_write_is_not_lost_to_later_inputs() {
    let mut talk = Talk::websocket();
    talk.session.handle(send("last words"), talk.now);
    talk.session.handle(Input::Close, talk.now);
    for input in every_input() {
        talk.session.handle(input, talk.now);
    }
    assert_eq!(talk.written(), ["4last words"]);
}

#[test]
fn a_closed_session_remembers_its_last_transport() {
    for (mut talk, transport) in [
        (Talk::polling(), Transport::Polling),
        (Talk::probed(), Transport::Polling),
        (Talk::websocket(), Transport::WebSocket),
    ] {
        let _closed = talk.tell(Input::Overflowed);
        assert_eq!(talk.session.transport(), transport);
        assert_eq!(talk.session.outbox().is_some(), transport == Transport::WebSocket);
    }
}

#[test]
fn the_same_inputs_bring_the_same_actions() {
    let run = || {
        let mut talk = Talk::probed();
        let mut all = Vec::new();
        for (turn, input) in every_input().into_iter().enumerate() {
            talk.to(turn as u64 * 400);
            all.extend(talk.tell(input));
        }
        all
    };
    assert_eq!(run(), run());
}

// ---- helpers ----

/// A session and its clock.
struct Talk {
    session: Session,
    start: Instant,
    now: Instant,
}

impl Talk {
    /// A session whose open packet still waits.
    fn open(transport: Transport, config: Config) -> Self {
        let now = Instant::now();
        let session = Session::open(&Sid::from_random([0; 15]), transport, Arc::new(config), now);
        Self { session, start: now, now }
    }

    /// A session that has sent its open packet.
    fn with(transport: Transport, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        let mut talk = Self::open(transport, config);
        let _open = talk.actions();
        let _open = talk.written();
        talk
    }

    fn polling() -> Self {
        Self::with(Transport::Polling, |_| {})
    }

    fn websocket() -> Self {
        Self::with(Transport::WebSocket, |_| {})
    }

    /// A polling session with a candidate that has been probed.
    fn probed() -> Self {
        let mut talk = Self::polling();
        let _opened = talk.tell(Input::CandidateArrived);
        let _probed = talk.tell(candidate("2probe"));
        talk
    }

    /// Hands an input in and takes all the actions that follow.
    fn tell(&mut self, input: Input) -> Vec<Action> {
        self.session.handle(input, self.now);
        self.actions()
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.session.poll_action()).collect()
    }

    /// A complete POST.
    fn post(&mut self, payload: &str) -> Vec<Action> {
        let mut actions = self.tell(Input::PostArrived);
        actions.extend(self.tell(body(payload)));
        actions
    }

    /// Moves the clock, in milliseconds since the start.
    fn to(&mut self, millis: u64) {
        self.now = self.start + ms(millis);
    }

    /// Moves the clock and rings the alarm.
    fn at(&mut self, millis: u64) -> Vec<Action> {
        self.to(millis);
        self.tell(Input::Timeout)
    }

    fn timeout(&self) -> Option<u64> {
        self.session.poll_timeout().map(|due| due.duration_since(self.start).as_millis() as u64)
    }

    /// Writes what the outbox holds and returns the text of each frame, all of which are short.
    fn written(&mut self) -> Vec<String> {
        let Some(outbox) = self.session.outbox() else { return Vec::new() };
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = outbox.slices(&mut slices);
        let texts = slices[..filled].iter().map(|frame| String::from_utf8(frame[2..].to_vec()).unwrap()).collect();
        let bytes = outbox.bytes();
        outbox.advance(bytes);
        texts
    }
}

fn every_input() -> Vec<Input> {
    vec![
        Input::PostArrived,
        body("4a"),
        Input::PostArrived,
        Input::PostDropped(PostDrop::TooLarge),
        Input::PollArrived,
        frame("4a"),
        frame("3"),
        send("a"),
        volatile("a"),
        candidate("2probe"),
        Input::CandidateLost,
        Input::CandidateArrived,
        candidate("5"),
        Input::Timeout,
        Input::PollAborted,
        Input::PostDropped(PostDrop::Aborted),
        Input::Written,
        Input::ReadOn,
        Input::ReadingPaused,
        Input::ReadingResumed,
        Input::Overflowed,
        Input::Close,
        Input::ShutDown,
        Input::WebSocketEnded { close_frame: false },
        Input::WebSocketFailed,
    ]
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The order to answer a probe, as a session gives it; [`a_probe_is_answered_with_its_text`] looks inside.
fn answer_probe() -> Action {
    let mut talk = Talk::polling();
    let _opened = talk.tell(Input::CandidateArrived);
    talk.tell(candidate("2probe")).remove(0)
}

fn message(text: &str) -> Frame {
    Frame::message(&Message::Text(text.into()))
}

fn send(text: &str) -> Input {
    Input::Send(message(text))
}

fn volatile(text: &str) -> Input {
    Input::SendVolatile(message(text))
}

fn frame(packet: &str) -> Input {
    Input::Frame(WsFrame::Text(packet.into()))
}

fn candidate(packet: &str) -> Input {
    Input::CandidateFrame(WsFrame::Text(packet.into()))
}

fn body(payload: &str) -> Input {
    Input::PostReceived(payload.into())
}

fn deliver(text: &str) -> Action {
    Action::Deliver(Message::Text(text.into()))
}

fn answer(payload: &str) -> Action {
    Action::AnswerPoll(payload.to_owned())
}

fn closed(reason: CloseReason) -> Action {
    Action::Closed(reason)
}
