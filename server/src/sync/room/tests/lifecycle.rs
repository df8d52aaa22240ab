//! The room's own beginning and end.

use super::*;

fn stored(number: u64, name: Option<&str>, joined_at_ms: i64) -> ParticipantRow {
    ParticipantRow {
        id: format!("p{number}"),
        room_id: "room".into(),
        oder_id: format!("o{number}"),
        user_id: name.map(Into::into),
        username: None,
        guest_name: name.is_none().then(|| "Zoë".into()),
        role: match name {
            Some("ann") => Role::Owner,
            Some(_) => Role::Participant,
            None => Role::Guest,
        },
        can_control: name == Some("ann"),
        joined_at_ms,
        resume_hash: id::resume_hash(&format!("t{number}")),
    }
}

fn state(sequence_number: u64) -> PlaybackState {
    PlaybackState {
        room_id: "room".into(),
        source_type: SourceType::Upload,
        source_id: "film".into(),
        is_playing: true,
        playback_rate: 1.0,
        anchor_server_time_ms: START - 5_000,
        anchor_media_time_ms: 1_000.0,
        sequence_number,
    }
}

/// A room of three, loaded after a restart.
fn loaded() -> Scene {
    let rows = vec![stored(3, None, 30), stored(2, Some("bob"), 20), stored(1, Some("ann"), 10)];
    let playback = PlaybackRow { room_id: "room".into(), state: Some(state(41)), sequence: 42, sequence_limit: 10_000 };
    let room = Room::load(row(), rows, Some(playback), START, START + 20_000, RoomOptions::default());
    Scene { room, now: START }
}

#[test]
fn a_loaded_room_waits_for_everybody_to_come_back() {
    let mut scene = loaded();
    assert_eq!((scene.room.participant_count(), scene.due()), (3, 20_000));
    scene.timeout(&[
        "forget p1",
        "all: left o1 timeout",
        "forget p2",
        "all: left o2 timeout",
        "forget p3",
        "all: left o3 timeout",
        "store room Film of ann 5 seats open owner_only none",
    ]);
    assert_eq!(scene.room.participant_count(), 0);
}

#[test]
fn a_token_resumes_a_seat_after_a_restart() {
    loaded().expect(
        enter(showing(joiner(4, Identity::Guest { name: None }), "t3")),
        &[
            "store p3 o3 guest Zoë t4",
            "admit 4",
            "state 4 is o3 t4 in [o1 owner ann+ offline, o2 participant bob offline, o3 guest Zoë] watching #41 \
             playing x1 1000@-5000",
            "but 4: updated o3 guest Zoë",
        ],
    );
}

#[test]
fn loaded_seats_count_and_are_in_the_order_they_were_taken() {
    let mut scene = loaded();
    let effects = scene.tell(enter(guest(5, "Max")));
    assert!(effects[2].contains("[o1 owner ann+ offline, o2 participant bob offline, o3 guest Zoë offline, o5"));
    scene.tell(enter(guest(6, "Moe")));
    scene.refuse(enter(guest(7, "Mia")), ErrorCode::RoomFull);
}

#[test]
fn the_owners_absence_counts_from_the_load() {
    let mut scene = loaded();
    scene.tell(enter(showing(user(4, "bob"), "t2")));
    scene.timeout(&["forget p1", "all: left o1 timeout", "forget p3", "all: left o3 timeout"]);
    scene.timeout(&["all: owner bob o2 absent"]);
    assert_eq!(scene.now, START + 60_000);
}

#[test]
fn sequence_numbers_go_on_from_the_stored_limit() {
    let mut scene = loaded();
    scene.tell(enter(showing(user(4, "ann"), "t1")));
    scene.refuse(play(4), ErrorCode::Unavailable);
    scene.room.raise_sequence_limit(20_000);
    scene.expect(play(4), &["all: PLAY -> #10001 playing x1 6050@50"]);
}

#[test]
fn a_room_without_stored_playback_begins_at_one() {
    let mut scene = Scene::after(&[user(1, "ann")]);
    scene.expect(source(1), &["all: sync at 0 #1 paused x1 0@0"]);
}

#[test]
fn a_playback_row_has_what_a_load_needs() {
    let mut scene = Scene::after(&[user(1, "ann")]);
    let empty = PlaybackRow { room_id: "room".into(), state: None, sequence: 0, sequence_limit: 0 };
    assert_eq!(scene.room.playback_row(0), empty);
    scene.tell(source(1));
    let row = scene.room.playback_row(77);
    assert_eq!((row.sequence, row.sequence_limit), (1, 77));
    assert_eq!(row.state.map(|state| state.sequence_number), Some(1));
}

#[test]
fn a_sequence_limit_is_never_lowered() {
    let mut scene = Scene::new();
    scene.room.raise_sequence_limit(10);
    assert_eq!((scene.room.sequence_limit(), scene.room.sequence()), (1_000_000, 0));
}

/// When the room's row says that it expires, since the start.
fn expires(scene: &Scene) -> i64 {
    scene.room.row().expires_at_ms - START
}

#[test]
fn a_room_that_nobody_enters_expires() {
    let mut scene = Scene::new();
    scene.timeout(&[]);
    scene.timeout(&["forget room", "all: closed expired"]);
    assert_eq!(scene.now, START + DAY);
    assert!(scene.room.is_closed());
    assert_eq!(scene.room.poll_timeout(), None);
}

#[test]
fn a_room_with_members_online_never_expires() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    for hour in 1..100 {
        scene.timeout(&["store room Film of ann 5 seats open owner_only none"]);
        assert_eq!((scene.now - START, expires(&scene)), (hour * HOUR, hour * HOUR + DAY));
    }
    // Not even where no timeout was handled for long.
    scene.later(9 * DAY);
    assert!(!scene.room.is_over(scene.now));
    scene.tell(source(1));
    assert_eq!(expires(&scene), scene.now - START + DAY);
}

#[test]
fn a_room_expires_its_time_to_live_after_the_last_one_has_left() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.later(600_000).expect(hung_up(2), &["forget p2", "remove 2", "all: left o2 disconnect"]);
    assert_eq!(expires(&scene), DAY, "one is still there");
    scene.later(600_000);
    let stored = "store room Film of ann 5 seats open owner_only none";
    scene.expect(leave(1), &["forget p1", "remove 1", "all: left o1 leave", stored]);
    assert_eq!(expires(&scene), 1_200_000 + DAY);
    scene.timeout(&[]);
    assert!(!scene.room.is_over(START + 1_200_000 + DAY - 1));
    scene.timeout(&["forget room", "all: closed expired"]);
    assert_eq!(scene.now, START + 1_200_000 + DAY);
}

#[test]
fn a_room_whose_members_were_all_lost_is_empty_when_their_grace_ends() {
    let mut scene = Scene::after(&[user(1, "ann")]);
    scene.later(1_000).tell(lost(1));
    assert_eq!(expires(&scene), 1_000 + DAY);
    let stored = "store room Film of ann 5 seats open owner_only none";
    scene.timeout(&["forget p1", "all: left o1 timeout", stored]);
    assert_eq!(expires(&scene), 21_000 + DAY);
}

#[test]
fn an_expired_room_is_over_before_anybody_was_told() {
    let mut scene = Scene::after(&[user(1, "ann")]);
    scene.tell(leave(1));
    scene.later(DAY);
    assert!(scene.room.is_over(scene.now) && !scene.room.is_closed());
    scene.refuse(enter(user(1, "ann")), ErrorCode::RoomNotFound);
    scene.refuse(leave(1), ErrorCode::RoomNotFound);
    scene.expect::<&str>(lost(1), &[]);
    scene.expect(Command::Timeout, &["forget room", "all: closed expired"]);
}

#[test]
fn the_owner_deletes_the_room() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.expect(delete("ann"), &["forget room", "all: closed deleted", "remove 1", "remove 2"]);
}

#[test]
fn the_owner_deletes_the_room_from_outside() {
    Scene::after(&[user(2, "bob")]).expect(delete("ann"), &["forget room", "all: closed deleted", "remove 2"]);
}

#[test]
fn nobody_else_deletes_the_room() {
    Scene::after(&[user(1, "ann"), user(2, "bob")]).refuse(delete("bob"), ErrorCode::Unauthorized);
}

#[test]
fn a_closed_room_is_not_found_by_anybody() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.tell(delete("ann"));
    let commands = [
        enter(user(3, "cy")),
        enter(showing(user(3, "ann"), "t1")),
        leave(1),
        update(1, RoomPatch::default()),
        grant(1, "o2", true),
        kick(1, "o2"),
        transfer(1, "o2"),
        delete("ann"),
        source(1),
        play(1),
        resync(1),
    ];
    for command in commands {
        scene.refuse(command, ErrorCode::RoomNotFound);
    }
}

#[test]
fn nothing_follows_the_end_of_a_room() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.tell(lost(2));
    scene.tell(delete("ann"));
    scene.later(DAY * 2);
    for command in [Command::Timeout, lost(1), hung_up(2), measured(1, 5)] {
        scene.expect::<&str>(command, &[]);
    }
    assert_eq!(scene.room.poll_timeout(), None);
}

#[test]
fn a_big_room_is_cloned_in_a_moment() {
    let mut scene = Scene::with(|row| row.max_participants = 1_000);
    for number in 1..=1_000 {
        scene.room.handle(enter(guest(number, "Zoë")), START).unwrap();
        while scene.room.poll_effect().is_some() {}
    }
    let begun = std::time::Instant::now();
    for _ in 0..100 {
        std::hint::black_box(scene.room.clone());
    }
    // Microseconds each; the bound leaves a loaded machine and an unoptimised build their time.
    assert!(begun.elapsed().as_millis() < 500, "{:?}", begun.elapsed());
}
