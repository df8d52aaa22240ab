//! Coming back: by token, and as the same user.

use super::*;

/// Ann and Bob, with Bob's connection lost.
fn bob_lost() -> Scene {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.tell(lost(2));
    scene
}

#[test]
fn a_token_brings_the_seat_back() {
    bob_lost().later(5_000).expect(
        enter(showing(user(3, "bob"), "t2")),
        &[
            "store p2 o2 participant bob t3",
            "admit 3",
            "state 3 is o2 t3 in [o1 owner ann+, o2 participant bob] watching nothing",
            "but 3: updated o2 participant bob",
        ],
    );
}

#[test]
fn a_resumed_seat_has_no_grace_left_to_end() {
    let mut scene = bob_lost();
    scene.tell(enter(showing(user(3, "bob"), "t2")));
    assert_eq!(scene.due(), HOUR);
}

#[test]
fn a_resumed_seat_keeps_when_it_was_taken() {
    let mut scene = bob_lost();
    scene.later(5_000).tell(enter(showing(user(3, "bob"), "t2")));
    assert_eq!(scene.participant("o2").joined_at_ms, START);
}

#[test]
fn a_resume_keeps_role_and_grant() {
    let mut scene = Scene::after(&[user(1, "ann"), guest(2, "Zoë")]);
    scene.tell(grant(1, "o2", true));
    scene.tell(lost(2));
    scene.expect(
        enter(showing(joiner(3, Identity::Guest { name: None }), "t2")),
        &[
            "store p2 o2 guest Zoë+ t3",
            "admit 3",
            "state 3 is o2 t3 in [o1 owner ann+, o2 guest Zoë+] watching nothing",
            "but 3: updated o2 guest Zoë+",
        ],
    );
}

#[test]
fn a_resume_needs_no_password() {
    let mut scene = Scene::with(|row| row.password_hash = Some("hash".into()));
    scene.tell(enter(Join { proved_hash: Some("hash".into()), ..guest(1, "Zoë") }));
    scene.tell(lost(1));
    let effects = scene.tell(enter(showing(joiner(2, Identity::Guest { name: None }), "t1")));
    assert_eq!(effects[0], "store p1 o1 guest Zoë t2");
}

#[test]
fn a_resume_needs_no_free_seat() {
    let mut scene = Scene::with(|row| row.max_participants = 2).joined(&[user(1, "ann"), guest(2, "Zoë")]);
    scene.tell(lost(2));
    scene.tell(enter(showing(guest(3, "Zoë"), "t2")));
    assert_eq!(scene.room.participant_count(), 2);
}

#[test]
fn a_token_works_once() {
    let mut scene = Scene::after(&[user(1, "ann"), guest(2, "Zoë")]);
    scene.tell(lost(2));
    scene.tell(enter(showing(guest(3, "Zoë"), "t2")));
    scene.tell(lost(3));
    scene.expect(
        enter(showing(guest(4, "Zoë"), "t2")),
        &[
            "store p4 o4 guest Zoë (2) t4",
            "admit 4",
            "state 4 is o4 t4 in [o1 owner ann+, o2 guest Zoë offline, o4 guest Zoë (2)] watching nothing",
            "but 4: joined o4 guest Zoë (2)",
        ],
    );
}

#[test]
fn the_token_of_a_resume_resumes_again() {
    let mut scene = Scene::after(&[user(1, "ann"), guest(2, "Zoë")]);
    for (lose, token) in [(2, "t2"), (3, "t3"), (4, "t4")] {
        scene.tell(lost(lose));
        let effects = scene.tell(enter(showing(guest(lose + 1, "Zoë"), token)));
        assert_eq!(effects[3], format!("but {}: updated o2 guest Zoë", lose + 1));
    }
}

#[test]
fn a_token_nobody_has_is_an_ordinary_join() {
    let mut scene = Scene::after(&[user(1, "ann")]);
    scene.expect(
        enter(showing(guest(2, "Zoë"), "t99")),
        &[
            "store p2 o2 guest Zoë t2",
            "admit 2",
            "state 2 is o2 t2 in [o1 owner ann+, o2 guest Zoë] watching nothing",
            "but 2: joined o2 guest Zoë",
        ],
    );
}

#[test]
fn a_token_nobody_has_does_not_stand_for_a_password_or_a_name() {
    let mut scene = Scene::with(|row| row.password_hash = Some("hash".into()));
    scene.refuse(enter(showing(guest(1, "Zoë"), "t99")), ErrorCode::InvalidPassword);
    let mut scene = Scene::new();
    scene.refuse(enter(showing(joiner(1, Identity::Guest { name: None }), "t99")), ErrorCode::Unauthorized);
}

#[test]
fn a_token_is_void_when_the_grace_is_over() {
    let mut scene = Scene::after(&[user(1, "ann"), guest(2, "Zoë")]);
    scene.tell(lost(2));
    scene
        .later(20_000)
        .refuse(enter(showing(joiner(3, Identity::Guest { name: None }), "t2")), ErrorCode::Unauthorized);
}

#[test]
fn a_token_works_until_the_grace_is_over() {
    let mut scene = Scene::after(&[user(1, "ann"), guest(2, "Zoë")]);
    scene.tell(lost(2));
    let effects = scene.later(19_999).tell(enter(showing(joiner(3, Identity::Guest { name: None }), "t2")));
    assert_eq!(effects[3], "but 3: updated o2 guest Zoë");
}

#[test]
fn a_token_is_void_after_leaving() {
    let mut scene = Scene::after(&[user(1, "ann"), guest(2, "Zoë")]);
    scene.tell(leave(2));
    scene.refuse(enter(showing(joiner(3, Identity::Guest { name: None }), "t2")), ErrorCode::Unauthorized);
}

#[test]
fn a_token_is_void_after_a_kick() {
    let mut scene = Scene::after(&[user(1, "ann"), guest(2, "Zoë")]);
    scene.tell(kick(1, "o2"));
    scene.refuse(enter(showing(joiner(3, Identity::Guest { name: None }), "t2")), ErrorCode::Unauthorized);
}

#[test]
fn a_users_token_is_no_good_to_a_guest() {
    let mut scene = Scene::after(&[user(1, "ann")]);
    scene.tell(lost(1));
    scene.refuse(enter(showing(joiner(2, Identity::Guest { name: None }), "t1")), ErrorCode::Unauthorized);
}

#[test]
fn a_users_token_is_no_good_to_another_user() {
    let mut scene = Scene::after(&[user(1, "ann")]);
    scene.tell(lost(1));
    scene.expect(
        enter(showing(user(2, "eve"), "t1")),
        &[
            "store p2 o2 participant eve t2",
            "admit 2",
            "state 2 is o2 t2 in [o1 owner ann+ offline, o2 participant eve] watching nothing",
            "but 2: joined o2 participant eve",
        ],
    );
}

#[test]
fn a_guests_token_is_no_good_to_a_user() {
    let mut scene = Scene::after(&[guest(1, "Zoë")]);
    scene.tell(lost(1));
    let effects = scene.tell(enter(showing(user(2, "zoe"), "t1")));
    assert_eq!(effects[3], "but 2: joined o2 participant zoe");
}

#[test]
fn a_token_takes_the_seat_from_a_connection_thought_alive() {
    let mut scene = Scene::after(&[user(1, "ann"), guest(2, "Zoë")]);
    scene.expect(
        enter(showing(joiner(3, Identity::Guest { name: None }), "t2")),
        &[
            "store p2 o2 guest Zoë t3",
            "to 2: kicked replaced",
            "remove 2",
            "admit 3",
            "state 3 is o2 t3 in [o1 owner ann+, o2 guest Zoë] watching nothing",
        ],
    );
}

#[test]
fn a_user_has_one_seat_and_the_next_connection_takes_it() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.expect(
        enter(user(3, "bob")),
        &[
            "store p2 o3 participant bob t3",
            "to 2: kicked replaced",
            "remove 2",
            "admit 3",
            "state 3 is o3 t3 in [o1 owner ann+, o3 participant bob] watching nothing",
            "but 3: left o2 replaced",
            "but 3: joined o3 participant bob",
        ],
    );
}

#[test]
fn the_seat_of_a_lost_user_is_taken_without_a_kick() {
    bob_lost().expect(
        enter(user(3, "bob")),
        &[
            "store p2 o3 participant bob t3",
            "admit 3",
            "state 3 is o3 t3 in [o1 owner ann+, o3 participant bob] watching nothing",
            "but 3: left o2 replaced",
            "but 3: joined o3 participant bob",
        ],
    );
}

#[test]
fn a_wrong_token_of_the_same_user_still_takes_the_seat() {
    let effects = bob_lost().tell(enter(showing(user(3, "bob"), "t99")));
    assert_eq!(effects[3..], ["but 3: left o2 replaced", "but 3: joined o3 participant bob"]);
}

#[test]
fn a_takeover_needs_no_free_seat() {
    let mut scene = Scene::with(|row| row.max_participants = 2).joined(&[user(1, "ann"), user(2, "bob")]);
    scene.tell(enter(user(3, "bob")));
    assert_eq!(scene.room.participant_count(), 2);
}

#[test]
fn a_takeover_without_a_token_needs_the_password() {
    let mut scene = Scene::with(|row| row.password_hash = Some("hash".into()));
    scene.tell(enter(Join { proved_hash: Some("hash".into()), ..user(1, "ann") }));
    scene.refuse(enter(user(2, "ann")), ErrorCode::InvalidPassword);
}

#[test]
fn a_takeover_keeps_role_grant_and_time() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.tell(grant(1, "o2", true));
    let effects = scene.later(3_000).tell(enter(user(3, "bob")));
    assert_eq!(effects[0], "store p2 o3 participant bob+ t3");
    assert_eq!(scene.participant("o3").joined_at_ms, START);
}

#[test]
fn a_takeover_brings_the_newest_username() {
    let mut scene = Scene::after(&[user(1, "ann")]);
    let named = Identity::User { user_id: "ann".into(), username: Some("Annie".into()) };
    scene.tell(enter(joiner(2, named)));
    assert_eq!(scene.participant("o2").username.as_deref(), Some("Annie"));
    scene.tell(enter(joiner(3, Identity::User { user_id: "ann".into(), username: None })));
    assert_eq!(scene.participant("o3").username.as_deref(), Some("Annie"));
}

#[test]
fn the_owner_taking_over_stays_the_owner() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.expect(
        enter(user(3, "ann")),
        &[
            "store p1 o3 owner ann+ t3",
            "to 1: kicked replaced",
            "remove 1",
            "admit 3",
            "state 3 is o3 t3 in [o3 owner ann+, o2 participant bob] watching nothing",
            "but 3: left o1 replaced",
            "but 3: joined o3 owner ann+",
        ],
    );
}

#[test]
fn the_end_of_a_replaced_connection_does_nothing() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.tell(enter(user(3, "bob")));
    scene.expect::<&str>(lost(2), &[]);
    scene.expect::<&str>(hung_up(2), &[]);
    assert_eq!(scene.room.participant_count(), 2);
}

#[test]
fn a_replaced_connection_is_in_no_room() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.tell(enter(showing(user(3, "bob"), "t2")));
    scene.refuse(leave(2), ErrorCode::NotInRoom);
    scene.expect(leave(3), &["forget p2", "remove 3", "all: left o2 leave"]);
}

#[test]
fn a_replaced_connection_may_take_the_seat_back() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.tell(enter(user(3, "bob")));
    let back = Join { participant_id: "p9".into(), oder_id: "o9".into(), ..user(2, "bob") };
    let effects = scene.tell(enter(back));
    assert_eq!(effects[1..3], ["to 3: kicked replaced", "remove 3"]);
    assert_eq!(effects[5..], ["but 2: left o3 replaced", "but 2: joined o9 participant bob"]);
}

#[test]
fn the_old_token_is_void_after_a_takeover() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.tell(enter(user(3, "bob")));
    let effects = scene.tell(enter(showing(user(4, "bob"), "t2")));
    assert_eq!(effects[5..], ["but 4: left o3 replaced", "but 4: joined o4 participant bob"]);
}

#[test]
fn a_user_whose_grace_ended_unnoticed_takes_the_seat_over() {
    let mut scene = bob_lost();
    let effects = scene.later(25_000).tell(enter(showing(user(3, "bob"), "t2")));
    assert_eq!(effects[3..], ["but 3: left o2 replaced", "but 3: joined o3 participant bob"]);
}

#[test]
fn two_guests_are_never_the_same() {
    let mut scene = Scene::after(&[guest(1, "Zoë")]);
    let effects = scene.tell(enter(guest(2, "Zoë")));
    assert_eq!(effects[3], "but 2: joined o2 guest Zoë (2)");
}

#[test]
fn tokens_stay_out_of_debug_output() {
    let join = showing(user(1, "ann"), "t9");
    assert!(!format!("{:?}", join.token).contains("t1"));
}
