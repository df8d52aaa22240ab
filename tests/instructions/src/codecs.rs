//! What the cores of both crates do with one message, or with ten in a payload.

use std::hint::black_box;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use engineio::{ByteString, Config, Frame, Message, Session, Sid, Transport, WsFrame, payload};
use socketio::{Action, Args, Binary, Connection, ConnectionConfig, Content, Decoder, Input, encode_ack, encode_event};

use crate::{Path, count};

pub(crate) const PATHS: &[Path] = &[
    Path { name: "engineio: encode a frame, 64 B", operations: 1000, run: |n| encode_frame(64, n) },
    Path { name: "engineio: encode a frame, 1 KiB", operations: 1000, run: |n| encode_frame(1024, n) },
    Path { name: "engineio: session, frame to message", operations: 1000, run: receive },
    Path { name: "engineio: session, send to written", operations: 1000, run: send },
    Path { name: "engineio: decode a payload of 10", operations: 1000, run: decode_payload },
    Path { name: "engineio: encode a payload of 10", operations: 1000, run: encode_payload },
    Path { name: "socketio: connection, event with ack", operations: 1000, run: receive_event },
    Path { name: "socketio: encode an event, 64 B", operations: 1000, run: encode_one_event },
    Path { name: "socketio: encode an ack, 64 B", operations: 1000, run: encode_one_ack },
    Path { name: "socketio: encode two attachments", operations: 1000, run: encode_attachments },
    Path { name: "socketio: decode two attachments", operations: 1000, run: decode_attachments },
];

/// Has operations counted, after some that are not: what the first ones allocate for good is none of the rest's cost.
fn repeat(operations: u32, mut operation: impl FnMut()) -> ! {
    for _ in 0..10 {
        operation();
    }
    count(&mut || {
        for _ in 0..operations {
            operation();
        }
    })
}

fn text(len: usize) -> String {
    "x".repeat(len)
}

fn encode_frame(len: usize, operations: u32) -> ! {
    let message = Message::Text(text(len).into());
    repeat(operations, || drop(black_box(Frame::message(black_box(&message)))))
}

fn open_session(now: Instant) -> Session {
    let mut session = Session::open(&Sid::from_random([7; 15]), Transport::WebSocket, Arc::new(Config::default()), now);
    write_all(&mut session);
    session
}

fn write_all(session: &mut Session) {
    let outbox = session.outbox().expect("the transport is a WebSocket");
    let mut slices = [IoSlice::new(&[]); 64];
    let filled = outbox.slices(&mut slices);
    let written = slices[..filled].iter().map(|slice| slice.len()).sum();
    outbox.advance(written);
}

fn receive(operations: u32) -> ! {
    let now = Instant::now();
    let mut session = open_session(now);
    let frame = ByteString::from(format!("4{}", text(64)));
    repeat(operations, || {
        session.handle(engineio::Input::Frame(WsFrame::Text(frame.clone())), now);
        black_box(session.poll_action());
    })
}

fn send(operations: u32) -> ! {
    let now = Instant::now();
    let mut session = open_session(now);
    let frame = Frame::message(&Message::Text(text(64).into()));
    repeat(operations, || {
        session.handle(engineio::Input::Send(frame.clone()), now);
        write_all(black_box(&mut session));
    })
}

fn ten_frames() -> Vec<Frame> {
    vec![Frame::message(&Message::Text(text(64).into())); 10]
}

fn decode_payload(operations: u32) -> ! {
    let mut body = String::new();
    for frame in ten_frames() {
        payload::encode(&mut body, &frame);
    }
    let body = ByteString::from(body);
    repeat(operations, || {
        for packet in payload::decode(black_box(body.clone())) {
            black_box(packet.expect("it was encoded"));
        }
    })
}

fn encode_payload(operations: u32) -> ! {
    let frames = ten_frames();
    let len = frames.iter().map(payload::encoded_len).sum();
    repeat(operations, || {
        let mut body = String::with_capacity(len);
        for frame in black_box(&frames) {
            payload::encode(&mut body, frame);
        }
        black_box(body);
    })
}

/// As far as a handler that takes a string.
fn receive_event(operations: u32) -> ! {
    let now = Instant::now();
    let mut connection = Connection::new(ConnectionConfig::default(), now);
    connection.handle(Input::Text("0/bench,".into()), now);
    if let Some(Action::Connect { slot, .. }) = connection.poll_action() {
        connection.handle(Input::Accept { slot, sid: "s".into(), pid: None }, now);
    }
    connection.poll_action();
    let message = ByteString::from(format!(r#"2/bench,7["echo","{}"]"#, text(64)));
    repeat(operations, || {
        connection.handle(Input::Text(message.clone()), now);
        if let Some(Action::Event { event, .. }) = connection.poll_action() {
            black_box(event.data().args::<String>().expect("it is a string"));
        }
    })
}

fn encode_one_event(operations: u32) -> ! {
    let (mut out, text) = (Vec::with_capacity(256), text(64));
    repeat(operations, || {
        out.clear();
        encode_event(&mut out, "/bench", None, "cast", (black_box(&text),)).expect("a string serializes");
    })
}

fn encode_one_ack(operations: u32) -> ! {
    let (mut out, text) = (Vec::with_capacity(256), text(64));
    repeat(operations, || {
        out.clear();
        encode_ack(&mut out, "/bench", 7, (black_box(&text),)).expect("a string serializes");
    })
}

fn encode_attachments(operations: u32) -> ! {
    let (mut out, image) = (Vec::with_capacity(256), Binary::from(vec![7; 1024]));
    repeat(operations, || {
        out.clear();
        let images = black_box((&image, &image));
        black_box(encode_event(&mut out, "/bench", None, "cast", images).expect("binary values serialize"));
    })
}

fn decode_attachments(operations: u32) -> ! {
    let mut decoder = Decoder::default();
    let image = Bytes::from(vec![7; 1024]);
    let mut out = Vec::new();
    let images = (Binary::from(image.clone()), Binary::from(image.clone()));
    encode_event(&mut out, "/bench", None, "cast", images).expect("binary values serialize");
    let message = ByteString::try_from(Bytes::from(out)).expect("JSON is UTF-8");
    repeat(operations, || {
        let more = decoder.text(message.clone()).and_then(|_| decoder.binary(image.clone()));
        let packet = more.and_then(|_| decoder.binary(image.clone())).expect("it was encoded").expect("it is complete");
        if let Content::Event(Some(event)) = packet.into_content() {
            black_box(event.data().args::<Args<(Binary, Binary)>>().expect("they are binary"));
        }
    })
}
