//! What a command costs a room, by how many people are in it.
#![allow(missing_docs, clippy::unwrap_used)] // `criterion_group!` writes public functions

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use syncwatch::sync::event::SourceRequest;
use syncwatch::sync::playback::{Motion, SourceType};
use syncwatch::sync::room::{Command, ConnectionId, Effect, Identity, Join, ResumeToken, Room, RoomOptions};
use syncwatch::sync::rows::{PlaybackControl, RoomRow, WaitFor};

const SIZES: [u64; 4] = [10, 100, 1_000, 10_000];

const START: i64 = 1_700_000_000_000;

/// A room with the owner and so many users and guests in it, and a source.
fn room(people: u64) -> Room {
    let row = RoomRow {
        id: "2f1c8a5e-4c1b-4f0e-9d59-1f6f2f0a7b11".into(),
        code: "ABCD2345".into(),
        name: "Film".into(),
        owner_id: "user0".into(),
        max_participants: u32::MAX,
        password_hash: None,
        playback_control: PlaybackControl::OwnerOnly,
        wait_for: WaitFor::None,
        created_at_ms: START,
        expires_at_ms: i64::MAX,
    };
    let mut room = Room::load(row, Vec::new(), None, START, START, RoomOptions::default());
    room.raise_sequence_limit(u64::MAX);
    for number in 0..people {
        handle(&mut room, enter(number), START);
    }
    let source =
        SourceRequest { source_type: SourceType::External, source_id: "film".into(), start_media_time_ms: None };
    handle(&mut room, Command::Source { connection: ConnectionId(0), source }, START);
    room
}

fn enter(number: u64) -> Command {
    let identity = if number.is_multiple_of(2) {
        Identity::User { user_id: format!("user{number}"), username: Some(format!("User {number}")) }
    } else {
        Identity::Guest { name: Some(format!("Guest {number}")) }
    };
    Command::Join(Box::new(Join {
        connection: ConnectionId(number),
        socket_id: None,
        identity,
        resume_hash: None,
        proved_hash: None,
        participant_id: format!("2f1c8a5e-4c1b-4f0e-9d59-{number:012}"),
        oder_id: format!("o{number:09}"),
        token: ResumeToken::new(format!("{number:043}")),
    }))
}

/// Carries out a command as the shell does, and drops what is to be told.
fn handle(room: &mut Room, command: Command, now_ms: i64) {
    room.handle(command, now_ms).unwrap();
    while let Some(effect) = room.poll_effect() {
        black_box(effect);
    }
    black_box(room.poll_timeout());
}

fn durably(room: &mut Room, command: Command, now_ms: i64) {
    room.mark();
    handle(room, command, now_ms);
    room.keep();
}

/// A join, and the leave that makes room for the next one.
fn visit(c: &mut Criterion) {
    let mut group = c.benchmark_group("join and leave");
    for people in SIZES {
        let mut room = room(people);
        group.bench_function(BenchmarkId::from_parameter(people), |b| {
            b.iter_batched(
                || enter(people + 1),
                |join| {
                    durably(&mut room, join, START);
                    handle(&mut room, Command::Leave { connection: ConnectionId(people + 1) }, START);
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// The leave of somebody in the middle, and their return.
fn leave(c: &mut Criterion) {
    let mut group = c.benchmark_group("leave and take back");
    for people in SIZES {
        let mut room = room(people);
        let connection = ConnectionId(people / 2);
        group.bench_function(BenchmarkId::from_parameter(people), |b| {
            b.iter(|| {
                room.mark();
                handle(&mut room, Command::Leave { connection }, START);
                room.revert();
            });
        });
    }
    group.finish();
}

fn steer(c: &mut Criterion) {
    let mut group = c.benchmark_group("steer");
    for people in SIZES {
        let mut room = room(people);
        let mut now_ms = START;
        group.bench_function(BenchmarkId::from_parameter(people), |b| {
            b.iter(|| {
                now_ms += 1_000; // within everybody's rate
                handle(
                    &mut room,
                    Command::Steer { connection: ConnectionId(0), motion: Motion::Play, at_server_time: None },
                    now_ms,
                );
            });
        });
    }
    group.finish();
}

/// A connection that is lost, and its user's return.
fn resume(c: &mut Criterion) {
    let mut group = c.benchmark_group("lose and resume");
    for people in SIZES {
        let mut room = room(people);
        let mut number = people;
        let mut shown = syncwatch::id::resume_hash(&format!("{:043}", 1));
        let mut connection = ConnectionId(1);
        group.bench_function(BenchmarkId::from_parameter(people), |b| {
            b.iter(|| {
                handle(&mut room, Command::Disconnected { connection, deliberate: false }, START);
                number += 2;
                let Command::Join(mut join) = enter(number | 1) else { return };
                join.resume_hash = Some(shown);
                (connection, shown) = (join.connection, join.token.hash);
                durably(&mut room, Command::Join(join), START);
            });
        });
    }
    group.finish();
}

/// `room:state` as text, for the event and for the ack.
fn state(c: &mut Criterion) {
    let mut group = c.benchmark_group("room:state as text");
    for people in SIZES {
        let mut room = room(people);
        room.handle(enter(people + 1), START).unwrap();
        let state = std::iter::from_fn(|| room.poll_effect()).find_map(|effect| match effect {
            Effect::State { state, .. } => Some(state),
            Effect::Persist(_)
            | Effect::Admit { .. }
            | Effect::Send { .. }
            | Effect::Remove { .. }
            | Effect::Cut { .. } => None,
        });
        let state = state.unwrap();
        group.bench_function(BenchmarkId::from_parameter(people), |b| {
            b.iter(|| serde_json::to_vec(black_box(&*state)).unwrap());
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(500))
        .sample_size(20);
    targets = visit, leave, steer, resume, state
}
criterion_main!(benches);
