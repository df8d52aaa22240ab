//! Who owns the room, and who stands in.

use super::*;

/// Bob (longest present), Cy and Zoë, a guest, in Ann's room; Ann left at the start.
fn without_ann() -> Scene {
    let mut scene = Scene::after(&[user(1, "ann"), guest(2, "Zoë"), user(3, "bob"), user(4, "cy")]);
    scene.tell(leave(1));
    scene
}

/// The same, with Bob standing in.
fn bob_acts() -> Scene {
    let mut scene = without_ann();
    scene.timeout(&["all: owner bob o3 absent"]);
    scene
}

#[test]
fn the_owner_leaving_does_not_close_the_room() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.expect(leave(1), &["forget p1", "remove 1", "all: left o1 leave"]);
    assert_eq!(scene.due(), 60_000);
}

#[test]
fn the_longest_present_user_stands_in_for_an_absent_owner() {
    let mut scene = without_ann();
    scene.timeout(&["all: owner bob o3 absent"]);
    assert_eq!(scene.now, START + 60_000);
    assert_eq!(scene.due(), HOUR);
}

#[test]
fn nobody_stands_in_early() {
    let mut scene = without_ann();
    scene.later(59_999).expect::<&str>(Command::Timeout, &[]);
    scene.later(1).expect(Command::Timeout, &["all: owner bob o3 absent"]);
}

#[test]
fn the_owner_being_lost_counts_from_the_loss() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.later(1_000).tell(lost(1));
    scene.timeout(&["forget p1", "all: left o1 timeout"]);
    scene.timeout(&["all: owner bob o2 absent"]);
    assert_eq!(scene.now, START + 61_000);
}

#[test]
fn an_owner_who_is_back_in_time_stays_the_owner() {
    let mut scene = without_ann();
    scene.later(59_000).tell(enter(user(5, "ann")));
    assert_eq!(scene.due(), HOUR);
    scene.later(2_000).expect::<&str>(Command::Timeout, &[]);
}

#[test]
fn a_new_absence_counts_anew() {
    let mut scene = without_ann();
    scene.later(59_000).tell(enter(user(5, "ann")));
    scene.later(500).tell(leave(5));
    assert_eq!(scene.due(), 119_500);
}

#[test]
fn a_room_its_owner_never_entered_gets_a_stand_in() {
    let mut scene = Scene::after(&[user(1, "bob")]);
    scene.timeout(&["all: owner bob o1 absent"]);
    assert_eq!(scene.now, START + 60_000);
}

#[test]
fn a_guest_never_stands_in() {
    let mut scene = Scene::after(&[guest(1, "Zoë")]);
    scene.timeout(&[]);
    assert_eq!(scene.due(), HOUR);
}

#[test]
fn the_next_user_stands_in_where_only_guests_were() {
    let mut scene = Scene::after(&[guest(1, "Zoë")]);
    scene.timeout(&[]);
    scene.later(5_000).expect(
        enter(user(2, "bob")),
        &[
            "store p2 o2 participant bob t2",
            "admit 2",
            "state 2 is o2 t2 in [o1 guest Zoë, o2 participant bob] watching nothing",
            "but 2: joined o2 participant bob",
            "all: owner bob o2 absent",
        ],
    );
}

#[test]
fn a_user_who_is_offline_does_not_come_to_stand_in() {
    let mut scene = without_ann();
    scene.later(50_000).tell(lost(3));
    scene.timeout(&["all: owner cy o4 absent"]);
}

#[test]
fn the_owner_is_told_of_by_the_room_while_somebody_stands_in() {
    let mut scene = bob_acts();
    assert_eq!(scene.room.view().acting_oder_id.as_deref(), Some("o3"));
    assert_eq!(scene.room.view().row.owner_id, "ann");
    let effects = scene.tell(enter(user(5, "dan")));
    assert!(effects[2].contains("] acting o3 watching"), "{}", effects[2]);
}

#[test]
fn the_owner_returns() {
    bob_acts().expect(
        enter(user(5, "ann")),
        &[
            "store p5 o5 owner ann+ t5",
            "admit 5",
            "state 5 is o5 t5 in [o2 guest Zoë, o3 participant bob, o4 participant cy, o5 owner ann+] acting o3 \
             watching nothing",
            "but 5: joined o5 owner ann+",
            "all: owner ann o5 returned",
        ],
    );
}

#[test]
fn the_owner_returns_by_a_resume() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.room.options.grace_ms = 90_000;
    scene.tell(lost(1));
    scene.timeout(&["all: owner bob o2 absent"]);
    scene.expect(
        enter(showing(user(3, "ann"), "t1")),
        &[
            "store p1 o1 owner ann+ t3",
            "admit 3",
            "state 3 is o1 t3 in [o1 owner ann+, o2 participant bob] acting o2 watching nothing",
            "but 3: updated o1 owner ann+",
            "all: owner ann o1 returned",
        ],
    );
}

#[test]
fn nobody_stands_in_any_more_once_the_owner_is_back() {
    let mut scene = bob_acts();
    scene.tell(enter(user(5, "ann")));
    assert_eq!(scene.room.view().acting_oder_id, None);
    scene.refuse(source(3), ErrorCode::Unauthorized);
    scene.refuse(kick(3, "o2"), ErrorCode::Unauthorized);
}

#[test]
fn the_next_longest_present_follows_a_stand_in_who_leaves() {
    bob_acts().expect(leave(3), &["forget p3", "remove 3", "all: left o3 leave", "all: owner cy o4 absent"]);
}

#[test]
fn a_stand_in_who_leaves_to_guests_leaves_nobody() {
    let mut scene = bob_acts();
    scene.tell(leave(4));
    scene.expect(leave(3), &["forget p3", "remove 3", "all: left o3 leave"]);
    assert_eq!(scene.room.view().acting_oder_id, None);
    let effects = scene.tell(enter(user(5, "dan")));
    assert_eq!(effects[4], "all: owner dan o5 absent");
}

#[test]
fn a_stand_in_keeps_the_part_through_the_grace() {
    let mut scene = bob_acts();
    scene.expect(lost(3), &["remove 3", "all: updated o3 participant bob offline"]);
    assert_eq!(scene.room.view().acting_oder_id.as_deref(), Some("o3"));
    scene.timeout(&["forget p3", "all: left o3 timeout", "all: owner cy o4 absent"]);
}

#[test]
fn a_stand_in_who_resumes_still_stands_in() {
    let mut scene = bob_acts();
    scene.tell(lost(3));
    let effects = scene.tell(enter(showing(user(5, "bob"), "t3")));
    assert_eq!(effects.last().unwrap(), "but 5: updated o3 participant bob");
    scene.tell(source(5));
}

#[test]
fn a_stand_in_under_a_new_name_is_told_of_again() {
    let effects = bob_acts().tell(enter(user(5, "bob")));
    assert_eq!(
        effects[5..],
        ["but 5: left o3 replaced", "but 5: joined o5 participant bob", "all: owner bob o5 absent"]
    );
}

#[test]
fn a_longer_present_user_does_not_push_a_stand_in_aside() {
    let mut scene = without_ann();
    scene.later(50_000).tell(lost(3));
    scene.timeout(&["all: owner cy o4 absent"]);
    let effects = scene.tell(enter(showing(user(5, "bob"), "t3")));
    assert_eq!(effects.last().unwrap(), "but 5: updated o3 participant bob");
    assert_eq!(scene.room.view().acting_oder_id.as_deref(), Some("o4"));
}

#[test]
fn a_stand_in_controls_an_owner_only_room() {
    bob_acts().expect(source(3), &["all: sync at 60000 #1 paused x1 0@60000"]);
}

#[test]
fn before_the_handover_nobody_controls_an_owner_only_room() {
    let mut scene = without_ann();
    scene.later(30_000).refuse(source(3), ErrorCode::Unauthorized);
}

#[test]
fn a_stand_in_controls_a_selected_room() {
    let mut scene = Scene::with(|row| row.playback_control = PlaybackControl::Selected).joined(&[user(1, "bob")]);
    scene.timeout(&["all: owner bob o1 absent"]);
    scene.expect(source(1), &["all: sync at 60000 #1 paused x1 0@60000"]);
}

#[test]
fn a_stand_in_grants_and_kicks() {
    let mut scene = bob_acts();
    scene.expect(grant(3, "o4", true), &["store p4 o4 participant cy+ t4", "all: updated o4 participant cy+"]);
    scene.expect(kick(3, "o4"), &["forget p4", "to 4: kicked", "remove 4", "all: left o4 kicked"]);
}

#[test]
fn a_stand_in_cannot_kick_the_owner() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.room.options.grace_ms = 90_000;
    scene.tell(lost(1));
    scene.timeout(&["all: owner bob o2 absent"]);
    scene.refuse(kick(2, "o1"), ErrorCode::Unauthorized);
}

#[test]
fn a_stand_in_cannot_take_the_room_away() {
    let mut scene = bob_acts();
    scene.refuse(transfer(3, "o4"), ErrorCode::Unauthorized);
    scene.refuse(update(3, RoomPatch { name: Some("Bob's".into()), ..RoomPatch::default() }), ErrorCode::Unauthorized);
    scene.refuse(delete("bob"), ErrorCode::Unauthorized);
}

#[test]
fn the_owner_hands_the_room_over() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.expect(
        transfer(1, "o2"),
        &[
            "store room Film of bob 5 seats open owner_only none",
            "store p1 o1 participant ann t1",
            "store p2 o2 owner bob+ t2",
            "all: owner bob o2 transfer",
            "all: updated o2 owner bob+",
            "all: updated o1 participant ann",
        ],
    );
}

#[test]
fn the_new_owner_rules_and_the_old_one_does_not() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.tell(transfer(1, "o2"));
    scene.refuse(source(1), ErrorCode::Unauthorized);
    scene.refuse(transfer(1, "o1"), ErrorCode::Unauthorized);
    scene.refuse(delete("ann"), ErrorCode::Unauthorized);
    scene.tell(source(2));
    scene.tell(kick(2, "o1"));
}

#[test]
fn the_new_owner_is_the_owner_after_a_rejoin() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.tell(transfer(1, "o2"));
    scene.tell(leave(1));
    scene.tell(leave(2));
    assert_eq!(scene.tell(enter(user(3, "ann")))[0], "store p3 o3 participant ann t3");
    assert_eq!(scene.tell(enter(user(4, "bob")))[0], "store p4 o4 owner bob+ t4");
}

#[test]
fn only_the_owner_hands_the_room_over() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob"), user(3, "cy")]);
    scene.refuse(transfer(2, "o3"), ErrorCode::Unauthorized);
    scene.refuse(transfer(9, "o3"), ErrorCode::NotInRoom);
}

#[test]
fn a_room_is_not_handed_to_a_guest() {
    let mut scene = Scene::after(&[user(1, "ann"), guest(2, "Zoë")]);
    let refusal = scene.refuse(transfer(1, "o2"), ErrorCode::ValidationError);
    assert_eq!(refusal.message, "oderId must name a user, not a guest");
}

#[test]
fn a_room_is_not_handed_to_its_owner_or_to_nobody() {
    let mut scene = Scene::after(&[user(1, "ann")]);
    scene.refuse(transfer(1, "o1"), ErrorCode::ValidationError);
    let refusal = scene.refuse(transfer(1, "o9"), ErrorCode::ValidationError);
    assert_eq!(refusal.message, "oderId must name a participant of this room");
}

#[test]
fn a_room_handed_to_somebody_offline_waits_for_them() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.tell(lost(2));
    scene.later(1_000).tell(transfer(1, "o2"));
    scene.timeout(&["forget p2", "all: left o2 timeout"]);
    scene.timeout(&["all: owner ann o1 absent"]);
    assert_eq!(scene.now, START + 61_000);
}

#[test]
fn a_handover_without_a_wait_happens_at_once() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.room.options.owner_handover_ms = 0;
    scene.expect(leave(1), &["forget p1", "remove 1", "all: left o1 leave", "all: owner bob o2 absent"]);
}
