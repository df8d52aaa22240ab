//! How fast packets, payloads and frames are read and written, and what a session adds.
#![allow(missing_docs, clippy::unwrap_used)] // `criterion_group!` writes public functions

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engineio::{ByteString, Config, Frame, Input, Message, Packet, Session, Sid, Transport, WsFrame, payload};

/// Typical of an event, and of a large one.
const SIZES: [usize; 2] = [64, 16 * 1024];

fn text(len: usize) -> ByteString {
    "x".repeat(len).into()
}

fn packet(c: &mut Criterion) {
    let mut group = c.benchmark_group("packet");
    for len in SIZES {
        let frame = ByteString::from(format!("4{}", text(len)));
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("decode text {len}"), |b| {
            b.iter(|| Packet::decode(black_box(frame.clone())).unwrap());
        });
    }
    // What polling makes of bytes.
    let frame = ByteString::from(format!("b{}", "x".repeat(1024)));
    group.throughput(Throughput::Bytes(frame.len() as u64));
    group.bench_function("decode base64 1024", |b| {
        b.iter(|| Packet::decode(black_box(frame.clone())).unwrap());
    });
    group.finish();
}

fn payloads(c: &mut Criterion) {
    let mut group = c.benchmark_group("payload");
    for (kind, message) in [("text", Message::Text(text(100))), ("binary", Message::Binary(Bytes::from(vec![7; 100])))]
    {
        let frames: Vec<Frame> = (0..100).map(|_| Frame::message(&message)).collect();
        let mut body = String::new();
        for frame in &frames {
            payload::encode(&mut body, frame);
        }
        let bytes = body.len();
        let body = ByteString::from(body);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("decode 100 {kind}"), |b| {
            b.iter(|| payload::decode(black_box(body.clone())).map(Result::unwrap).count());
        });
        group.bench_function(format!("encode 100 {kind}"), |b| {
            b.iter(|| {
                let mut body = String::with_capacity(bytes);
                for frame in black_box(&frames) {
                    payload::encode(&mut body, frame);
                }
                body
            });
        });
    }
    group.finish();
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame");
    for len in SIZES {
        let message = Message::Text(text(len));
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("encode text {len}"), |b| b.iter(|| Frame::message(black_box(&message))));
        let message = Message::Binary(vec![7; len].into());
        group.bench_function(format!("encode binary {len}"), |b| b.iter(|| Frame::message(black_box(&message))));
    }
    group.finish();
}

fn session(c: &mut Criterion) {
    let mut group = c.benchmark_group("session");
    group.throughput(Throughput::Elements(1));
    let now = Instant::now();
    let open = || {
        let config = Arc::new(Config::default());
        let mut session = Session::open(&Sid::from_random([7; 15]), Transport::WebSocket, config, now);
        let bytes = session.buffered_bytes();
        session.outbox().unwrap().advance(bytes);
        session
    };
    let received = ByteString::from_static("4hello");
    let mut reading = open();
    group.bench_function("frame in, message out", |b| {
        b.iter(|| {
            reading.handle(Input::Frame(WsFrame::Text(received.clone())), now);
            reading.poll_action()
        });
    });
    let frame = Frame::message(&Message::Text(text(64)));
    let mut writing = open();
    group.bench_function("send, written", |b| {
        b.iter(|| {
            writing.handle(Input::Send(frame.clone()), now);
            writing.outbox().unwrap().advance(frame.wire_len());
        });
    });
    group.finish();
}

criterion_group!(benches, packet, payloads, frames, session);
criterion_main!(benches);
