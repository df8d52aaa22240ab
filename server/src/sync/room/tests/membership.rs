//! Joining and leaving.

use super::*;

#[test]
fn the_owner_joins_an_empty_room() {
    Scene::new().expect(
        enter(user(1, "ann")),
        &[
            "store p1 o1 owner ann+ t1",
            "admit 1",
            "state 1 is o1 t1 in [o1 owner ann+] watching nothing",
            "but 1: joined o1 owner ann+",
        ],
    );
}

#[test]
fn another_user_joins_as_a_participant() {
    Scene::after(&[user(1, "ann")]).expect(
        enter(user(2, "bob")),
        &[
            "store p2 o2 participant bob t2",
            "admit 2",
            "state 2 is o2 t2 in [o1 owner ann+, o2 participant bob] watching nothing",
            "but 2: joined o2 participant bob",
        ],
    );
}

#[test]
fn a_guest_joins_by_name() {
    Scene::new().expect(
        enter(guest(1, "Zoë")),
        &[
            "store p1 o1 guest Zoë t1",
            "admit 1",
            "state 1 is o1 t1 in [o1 guest Zoë] watching nothing",
            "but 1: joined o1 guest Zoë",
        ],
    );
}

#[test]
fn a_row_has_all_that_is_known_of_a_user() {
    let scene = Scene::after(&[user(1, "ann")]);
    let expected = ParticipantRow {
        id: "p1".into(),
        room_id: "room".into(),
        oder_id: "o1".into(),
        user_id: Some("ann".into()),
        username: Some("ANN".into()),
        guest_name: None,
        role: Role::Owner,
        can_control: true,
        joined_at_ms: START,
        resume_hash: id::resume_hash("t1"),
    };
    assert_eq!(scene.participant("o1"), &expected);
    assert_eq!(scene.room.participant_row("p1"), Some(&expected));
}

#[test]
fn a_row_has_all_that_is_known_of_a_guest() {
    let scene = Scene::after(&[guest(1, "Zoë")]);
    let row = scene.participant("o1");
    assert_eq!((&row.user_id, &row.username, row.guest_name.as_deref()), (&None, &None, Some("Zoë")));
}

#[test]
fn guests_may_share_a_name() {
    let scene = Scene::after(&[guest(1, "Zoë"), guest(2, "Zoë")]);
    assert_eq!(scene.room.participant_count(), 2);
}

fn names(scene: &Scene) -> Vec<&str> {
    scene.room.seats.iter().filter_map(|seat| seat.row.name()).collect()
}

#[test]
fn members_with_the_same_name_are_numbered() {
    let mut scene = Scene::after(&[guest(1, "Zoë"), guest(2, "Zoë"), guest(3, "Zoë"), guest(4, "Ann")]);
    assert_eq!(names(&scene), ["Zoë", "Zoë (2)", "Zoë (3)", "Ann"]);
    scene.tell(leave(1));
    scene.tell(enter(guest(5, "Zoë")));
    assert_eq!(names(&scene), ["Zoë (2)", "Zoë (3)", "Ann", "Zoë"], "a name that is free again is given again");
    scene.tell(enter(guest(6, "Zoë (2)")));
    assert_eq!(names(&scene).last(), Some(&"Zoë (2) (2)"), "no member takes a number that another has");
}

#[test]
fn users_and_guests_have_one_set_of_names() {
    let scene = Scene::after(&[guest(1, "ANN"), user(2, "ann"), guest(3, "ANN")]);
    assert_eq!(names(&scene), ["ANN", "ANN (2)", "ANN (3)"]);
    assert_eq!(scene.participant("o2").username.as_deref(), Some("ANN (2)"));
}

#[test]
fn names_that_look_alike_are_the_same_name() {
    let scene = Scene::after(&[guest(1, "👩👩"), guest(2, "👩\u{200d}👩"), guest(3, "❤"), guest(4, "❤\u{fe0f}")]);
    assert_eq!(names(&scene), ["👩👩", "👩\u{200d}👩 (2)", "❤", "❤\u{fe0f} (2)"]);
}

#[test]
fn a_seat_in_its_grace_keeps_its_name_and_a_resume_brings_it_back() {
    let mut scene = Scene::after(&[guest(1, "Zoë"), guest(2, "Zoë")]);
    scene.tell(lost(1));
    scene.tell(enter(guest(3, "Zoë")));
    assert_eq!(names(&scene), ["Zoë", "Zoë (2)", "Zoë (3)"]);
    scene.tell(lost(3));
    scene.tell(leave(2));
    scene.tell(enter(showing(guest(4, "Zoë"), "t3")));
    assert_eq!(names(&scene), ["Zoë", "Zoë (3)"], "though the number before it is free by now");
}

#[test]
fn a_takeover_keeps_the_number_while_the_name_is_taken() {
    let mut scene = Scene::after(&[guest(1, "ANN"), user(2, "ann")]);
    scene.tell(enter(user(3, "ann")));
    assert_eq!(names(&scene), ["ANN", "ANN (2)"]);
    scene.tell(leave(1));
    scene.tell(enter(user(4, "ann")));
    assert_eq!(names(&scene), ["ANN"]);
    scene.tell(enter(user(5, "ann")));
    assert_eq!(names(&scene), ["ANN"], "the own name is not another's");
}

#[test]
fn another_instance_has_the_same_names() {
    let mut scene = Scene::after(&[guest(1, "Zoë")]);
    let mut other = Room::take_up(scene.room.whole(), scene.room.options).unwrap();
    scene.room.mark();
    scene.tell(enter(guest(2, "Zoë")));
    other.apply(scene.room.diff());
    other.handle(enter(guest(3, "Zoë")), scene.now).unwrap();
    assert_eq!(
        other.seats.iter().filter_map(|seat| seat.row.name()).collect::<Vec<_>>(),
        ["Zoë", "Zoë (2)", "Zoë (3)"]
    );
    assert!(other.seats.is_consistent());
}

#[test]
fn a_thousand_of_one_name_all_have_their_own() {
    let mut scene = Scene::new();
    scene.tell(enter(user(1, "ann")));
    scene.tell(update(1, RoomPatch { max_participants: Some(2_000), ..RoomPatch::default() }));
    for number in 2..=1_001 {
        scene.room.handle(enter(guest(number, "Zoë")), scene.now).unwrap();
    }
    let seen: std::collections::BTreeSet<_> = names(&scene).into_iter().collect();
    assert_eq!(seen.len(), 1_001);
    assert!(seen.contains("Zoë (1000)"), "without gaps the numbers are consecutive");
}

#[test]
fn rows_with_the_same_name_from_an_older_release_are_counted() {
    let rows = ["p1", "p2"].map(|id| ParticipantRow {
        id: id.into(),
        room_id: "room".into(),
        oder_id: id.into(),
        user_id: None,
        username: None,
        guest_name: Some("Zoë".into()),
        role: Role::Guest,
        can_control: false,
        joined_at_ms: START,
        resume_hash: id::resume_hash(id),
    });
    let mut room = Room::load(row(), rows.into(), None, START, START + 1_000, RoomOptions::default());
    let name_of = |room: &Room, id: &str| room.participant_row(id).and_then(|row| row.name()).map(str::to_owned);
    room.handle(enter(showing(guest(3, "Zoë"), "p1")), START).unwrap();
    room.handle(leave(3), START).unwrap();
    room.handle(enter(guest(4, "Zoë")), START).unwrap();
    assert_eq!(name_of(&room, "p4").as_deref(), Some("Zoë (2)"), "the other is still there");
    assert!(room.seats.is_consistent());
}

#[test]
fn a_joiner_sees_what_the_room_watches() {
    let mut scene = Scene::after(&[user(1, "ann")]).watching();
    scene.expect(
        enter(guest(2, "Zoë")),
        &[
            "store p2 o2 guest Zoë t2",
            "admit 2",
            "state 2 is o2 t2 in [o1 owner ann+, o2 guest Zoë] watching #1 paused x1 0@0",
            "but 2: joined o2 guest Zoë",
        ],
    );
}

#[test]
fn a_joiner_sees_who_is_offline() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.tell(lost(2));
    let effects = scene.tell(enter(guest(3, "Zoë")));
    assert_eq!(
        effects[2],
        "state 3 is o3 t3 in [o1 owner ann+, o2 participant bob offline, o3 guest Zoë] watching nothing"
    );
}

#[test]
fn the_room_state_is_for_the_joiner_and_of_now() {
    let mut scene = Scene::new();
    scene.later(77);
    scene.room.handle(enter(user(1, "ann")), scene.now).unwrap();
    let effects: Vec<_> = std::iter::from_fn(|| scene.room.poll_effect()).collect();
    let Effect::State { connection, state } = &effects[2] else { panic!("{effects:?}") };
    assert_eq!((*connection, state.server_time), (ConnectionId(1), START + 77));
    assert_eq!(*state.room.row, row());
}

#[test]
fn a_guest_without_a_name_is_refused() {
    Scene::new().refuse(enter(joiner(1, Identity::Guest { name: None })), ErrorCode::Unauthorized);
}

#[test]
fn a_connection_joins_once() {
    let mut scene = Scene::after(&[user(1, "ann")]);
    scene.refuse(enter(user(1, "ann")), ErrorCode::AlreadyInRoom);
    scene.refuse(enter(guest(1, "Zoë")), ErrorCode::AlreadyInRoom);
}

#[test]
fn a_connection_joins_again_after_it_left() {
    let mut scene = Scene::after(&[user(1, "ann")]);
    scene.tell(leave(1));
    let again = Join { participant_id: "p9".into(), oder_id: "o9".into(), ..user(1, "ann") };
    scene.expect(
        enter(again),
        &[
            "store p9 o9 owner ann+ t1",
            "admit 1",
            "state 1 is o9 t1 in [o9 owner ann+] watching nothing",
            "but 1: joined o9 owner ann+",
        ],
    );
}

#[test]
fn a_full_room_takes_nobody() {
    let mut scene = Scene::with(|row| row.max_participants = 2).joined(&[user(1, "ann"), guest(2, "Zoë")]);
    scene.refuse(enter(user(3, "bob")), ErrorCode::RoomFull);
    scene.refuse(enter(guest(3, "Max")), ErrorCode::RoomFull);
}

#[test]
fn a_full_room_does_not_wait_for_its_owner() {
    let mut scene = Scene::with(|row| row.max_participants = 2).joined(&[user(1, "bob"), guest(2, "Zoë")]);
    scene.refuse(enter(user(3, "ann")), ErrorCode::RoomFull);
}

#[test]
fn a_seat_in_its_grace_is_taken() {
    let mut scene = Scene::with(|row| row.max_participants = 2).joined(&[user(1, "ann"), guest(2, "Zoë")]);
    scene.tell(lost(2));
    scene.refuse(enter(user(3, "bob")), ErrorCode::RoomFull);
}

#[test]
fn a_seat_is_free_once_it_is_left() {
    let mut scene = Scene::with(|row| row.max_participants = 2).joined(&[user(1, "ann"), guest(2, "Zoë")]);
    scene.tell(leave(2));
    scene.tell(enter(user(3, "bob")));
    assert_eq!(scene.room.participant_count(), 2);
}

#[test]
fn a_seat_is_free_once_its_grace_is_over() {
    let mut scene = Scene::with(|row| row.max_participants = 2).joined(&[user(1, "ann"), guest(2, "Zoë")]);
    scene.tell(lost(2));
    scene.timeout(&["forget p2", "all: left o2 timeout"]);
    scene.tell(enter(user(3, "bob")));
    assert_eq!(scene.room.participant_count(), 2);
}

#[test]
fn a_password_proved_lets_in() {
    let mut scene = Scene::with(|row| row.password_hash = Some("hash".into()));
    scene.tell(enter(Join { proved_hash: Some("hash".into()), ..user(1, "ann") }));
    assert_eq!(scene.room.participant_count(), 1);
}

#[test]
fn a_password_not_proved_is_refused_to_everyone() {
    let mut scene = Scene::with(|row| row.password_hash = Some("hash".into()));
    scene.refuse(enter(user(1, "ann")), ErrorCode::InvalidPassword);
    scene.refuse(enter(guest(1, "Zoë")), ErrorCode::InvalidPassword);
}

#[test]
fn a_proof_against_a_changed_password_is_void() {
    let mut scene = Scene::with(|row| row.password_hash = Some("new".into()));
    scene.refuse(enter(Join { proved_hash: Some("old".into()), ..user(1, "ann") }), ErrorCode::InvalidPassword);
}

#[test]
fn an_open_room_does_not_mind_a_password() {
    let mut scene = Scene::new();
    scene.tell(enter(Join { proved_hash: Some("old".into()), ..user(1, "ann") }));
    assert_eq!(scene.room.participant_count(), 1);
}

#[test]
fn the_password_is_checked_before_the_name() {
    let mut scene = Scene::with(|row| row.password_hash = Some("hash".into()));
    scene.refuse(enter(joiner(1, Identity::Guest { name: None })), ErrorCode::InvalidPassword);
}

#[test]
fn the_name_is_checked_before_the_seat() {
    let mut scene = Scene::with(|row| row.max_participants = 1).joined(&[user(1, "ann")]);
    scene.refuse(enter(joiner(2, Identity::Guest { name: None })), ErrorCode::Unauthorized);
}

#[test]
fn the_password_is_checked_before_the_seat() {
    let mut scene = Scene::with(|row| row.max_participants = 1).joined(&[user(1, "ann")]);
    scene
        .room
        .handle(update(1, RoomPatch { password_hash: Some(Some("h".into())), ..RoomPatch::default() }), START)
        .unwrap();
    while scene.room.poll_effect().is_some() {}
    scene.refuse(enter(user(2, "bob")), ErrorCode::InvalidPassword);
}

#[test]
fn being_in_the_room_is_checked_before_the_password() {
    let mut scene = Scene::with(|row| row.password_hash = Some("hash".into()));
    scene.tell(enter(Join { proved_hash: Some("hash".into()), ..user(1, "ann") }));
    scene.refuse(enter(user(1, "ann")), ErrorCode::AlreadyInRoom);
}

#[test]
fn an_expired_room_is_checked_before_the_password() {
    let mut scene = Scene::with(|row| row.password_hash = Some("hash".into()));
    scene.later(DAY);
    scene.refuse(enter(user(1, "ann")), ErrorCode::RoomNotFound);
}

#[test]
fn leaving_is_told_to_the_others() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.expect(leave(2), &["forget p2", "remove 2", "all: left o2 leave"]);
}

#[test]
fn who_left_is_in_no_room() {
    let mut scene = Scene::after(&[user(1, "ann")]);
    scene.tell(leave(1));
    scene.refuse(leave(1), ErrorCode::NotInRoom);
}

#[test]
fn only_members_leave() {
    Scene::new().refuse(leave(1), ErrorCode::NotInRoom);
}

#[test]
fn hanging_up_on_purpose_is_final() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.expect(hung_up(2), &["forget p2", "remove 2", "all: left o2 disconnect"]);
}

#[test]
fn a_lost_connection_keeps_the_seat() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.expect(lost(2), &["remove 2", "all: updated o2 participant bob offline"]);
    assert_eq!(scene.room.participant_count(), 2);
    assert_eq!(scene.due(), 20_000);
}

#[test]
fn a_kept_seat_ends_with_its_grace() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.tell(lost(2));
    scene.timeout(&["forget p2", "all: left o2 timeout"]);
    assert_eq!(scene.now, START + 20_000);
}

#[test]
fn a_grace_does_not_end_early() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.tell(lost(2));
    scene.later(19_999).expect::<&str>(Command::Timeout, &[]);
    assert_eq!(scene.due(), 20_000);
}

#[test]
fn a_repeated_timeout_does_nothing() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.tell(lost(2));
    scene.timeout(&["forget p2", "all: left o2 timeout"]);
    scene.expect::<&str>(Command::Timeout, &[]);
}

#[test]
fn a_late_timeout_ends_every_grace_that_is_over() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob"), guest(3, "Zoë"), guest(4, "Max")]);
    scene.tell(lost(2));
    scene.later(5_000).tell(lost(3));
    scene.later(5_000).tell(lost(4));
    scene
        .later(15_000)
        .expect(Command::Timeout, &["forget p2", "all: left o2 timeout", "forget p3", "all: left o3 timeout"]);
    assert_eq!(scene.due(), 30_000);
}

#[test]
fn without_a_grace_a_lost_seat_is_due_at_once() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.room.options.grace_ms = 0;
    scene.tell(lost(2));
    assert_eq!(scene.due(), 0);
    scene.expect(Command::Timeout, &["forget p2", "all: left o2 timeout"]);
}

#[test]
fn a_stranger_hanging_up_does_nothing() {
    let mut scene = Scene::after(&[user(1, "ann")]);
    scene.expect::<&str>(hung_up(9), &[]);
    scene.expect::<&str>(lost(9), &[]);
}

#[test]
fn a_connection_is_lost_once() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.tell(lost(2));
    scene.later(1_000).expect::<&str>(lost(2), &[]);
    assert_eq!(scene.due(), 20_000);
}

#[test]
fn a_lost_connection_is_in_no_room() {
    let mut scene = Scene::after(&[user(1, "ann")]);
    scene.tell(lost(1));
    scene.refuse(leave(1), ErrorCode::NotInRoom);
    scene.refuse(source(1), ErrorCode::NotInRoom);
    scene.refuse(resync(1), ErrorCode::NotInRoom);
}

#[test]
fn everybody_may_leave_and_the_room_stays() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.tell(leave(1));
    scene.expect(leave(2), &["forget p2", "remove 2", "all: left o2 leave"]);
    assert_eq!((scene.room.participant_count(), scene.room.is_closed()), (0, false));
    scene.tell(enter(user(3, "cy")));
    assert_eq!(scene.room.participant_count(), 1);
}

#[test]
fn several_commands_without_polling_queue_their_effects() {
    let mut scene = Scene::new();
    scene.room.handle(enter(user(1, "ann")), scene.now).unwrap();
    scene.room.handle(leave(1), scene.now).unwrap();
    let effects: Vec<_> = std::iter::from_fn(|| scene.room.poll_effect()).map(|effect| describe(&effect)).collect();
    assert_eq!(
        effects,
        [
            "store p1 o1 owner ann+ t1",
            "admit 1",
            "state 1 is o1 t1 in [o1 owner ann+] watching nothing",
            "but 1: joined o1 owner ann+",
            "forget p1",
            "remove 1",
            "all: left o1 leave",
        ]
    );
}
