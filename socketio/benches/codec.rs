//! The codec alone: what one message costs on its way in and out.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use bytestring::ByteString;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde::{Deserialize, Serialize};
use socketio::{Action, Binary, Connection, ConnectionConfig, Content, Decoder, Input, encode_ack, encode_event};

#[derive(Serialize, Deserialize)]
struct Command {
    room: String,
    time: f64,
    note: String,
}

/// An event whose packet has exactly `bytes` bytes.
fn packet(bytes: usize) -> (Command, ByteString) {
    let mut command = Command { room: "AB12".into(), time: 1.5, note: String::new() };
    loop {
        let mut out = Vec::new();
        encode_event(&mut out, "/", None, "e", &command).expect("strings and numbers serialize");
        if out.len() >= bytes {
            return (command, ByteString::try_from(Bytes::from_owner(out)).expect("JSON is UTF-8"));
        }
        command.note.push_str(&"n".repeat(bytes - out.len()));
    }
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for bytes in [64, 1024] {
        let (_, message) = packet(bytes);
        group.throughput(Throughput::Bytes(message.len() as u64));
        group.bench_function(format!("plain event, {bytes} B"), |b| {
            let mut decoder = Decoder::default();
            b.iter(|| decoder.text(black_box(message.clone())));
        });
        group.bench_function(format!("event through the connection, {bytes} B"), |b| {
            let now = Instant::now();
            let mut connection = Connection::new(ConnectionConfig::default(), now);
            connection.handle(Input::Text("0".into()), now);
            if let Some(Action::Connect { slot, .. }) = connection.poll_action() {
                connection.handle(Input::Accept { slot, sid: "s".into(), pid: None }, now);
            }
            connection.poll_action();
            b.iter(|| {
                connection.handle(Input::Text(black_box(message.clone())), now);
                connection.poll_action()
            });
        });
        group.bench_function(format!("event into its type, {bytes} B"), |b| {
            let mut decoder = Decoder::default();
            b.iter(|| {
                let packet = decoder.text(black_box(message.clone())).expect("it is valid").expect("it is complete");
                let Content::Event(Some(event)) = packet.into_content() else { return None };
                event.data().args::<Command>().ok()
            });
        });
        group.bench_function(format!("event into its type by serde_json alone, {bytes} B"), |b| {
            b.iter(|| serde_json::from_str::<(String, Command)>(black_box(&message[1..])).ok());
        });
    }
    group.finish();
}

fn decode_binary(c: &mut Criterion) {
    let image = Binary::from(vec![7; 1024]);
    let mut out = Vec::new();
    let attachments =
        encode_event(&mut out, "/", None, "e", (&image, &image)).expect("binary values serialize in a packet");
    let message = ByteString::try_from(Bytes::from_owner(out)).expect("JSON is UTF-8");
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Bytes(message.len() as u64 + 2048));
    group.bench_function("two placeholders and attachments", |b| {
        let mut decoder = Decoder::default();
        b.iter_batched(
            || attachments.clone(),
            |attachments| {
                let mut packet = decoder.text(message.clone());
                for attachment in attachments {
                    packet = decoder.binary(attachment);
                }
                packet
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    let mut out = Vec::with_capacity(4096);
    for bytes in [64, 1024] {
        let (command, message) = packet(bytes);
        group.throughput(Throughput::Bytes(message.len() as u64));
        group.bench_function(format!("event, {bytes} B"), |b| {
            b.iter(|| {
                out.clear();
                encode_event(&mut out, "/", None, "e", black_box(&command))
            });
        });
        group.bench_function(format!("ack, {bytes} B"), |b| {
            b.iter(|| {
                out.clear();
                encode_ack(&mut out, "/", 7, black_box(&command))
            });
        });
    }
    let image = Binary::from(vec![7; 1024]);
    group.throughput(Throughput::Bytes(2048));
    group.bench_function("event with two attachments", |b| {
        b.iter(|| {
            out.clear();
            encode_event(&mut out, "/", None, "e", black_box((&image, &image)))
        });
    });
    group.finish();
}

criterion_group!(benches, decode, decode_binary, encode);
criterion_main!(benches);
