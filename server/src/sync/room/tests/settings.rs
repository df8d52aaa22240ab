//! Settings, grants, kicks.

use super::*;

fn named(name: &str) -> RoomPatch {
    RoomPatch { name: Some(name.into()), ..RoomPatch::default() }
}

#[test]
fn the_owner_renames_the_room() {
    Scene::after(&[user(1, "ann")]).expect(
        update(1, named("Abend")),
        &[
            "store room Abend of ann 5 seats open owner_only none",
            "all: room Abend of ann 5 seats open owner_only none",
        ],
    );
}

#[test]
fn the_owner_changes_everything_at_once() {
    let patch = RoomPatch {
        name: Some("Abend".into()),
        max_participants: Some(9),
        password_hash: Some(Some("hash".into())),
        playback_control: Some(PlaybackControl::All),
        wait_for: Some(WaitFor::All),
    };
    Scene::after(&[user(1, "ann")]).expect(
        update(1, patch),
        &["store room Abend of ann 9 seats hash all all", "all: room Abend of ann 9 seats hash all all"],
    );
}

#[test]
fn what_is_not_named_stays() {
    let mut scene = Scene::with(|row| row.password_hash = Some("hash".into()));
    scene.tell(enter(Join { proved_hash: Some("hash".into()), ..user(1, "ann") }));
    scene.expect(
        update(1, RoomPatch::default()),
        &["store room Film of ann 5 seats hash owner_only none", "all: room Film of ann 5 seats hash owner_only none"],
    );
}

#[test]
fn the_owner_takes_the_password_away() {
    let mut scene = Scene::with(|row| row.password_hash = Some("hash".into()));
    scene.tell(enter(Join { proved_hash: Some("hash".into()), ..user(1, "ann") }));
    scene.tell(update(1, RoomPatch { password_hash: Some(None), ..RoomPatch::default() }));
    scene.tell(enter(guest(2, "Zoë")));
    assert_eq!(scene.room.participant_count(), 2);
}

#[test]
fn fewer_seats_than_people_throw_nobody_out() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob"), user(3, "cy")]);
    scene.tell(update(1, RoomPatch { max_participants: Some(2), ..RoomPatch::default() }));
    assert_eq!(scene.room.participant_count(), 3);
    scene.refuse(enter(user(4, "dan")), ErrorCode::RoomFull);
    scene.tell(leave(3));
    scene.refuse(enter(user(4, "dan")), ErrorCode::RoomFull);
    scene.tell(leave(2));
    scene.tell(enter(user(4, "dan")));
}

#[test]
fn only_the_owner_updates() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob"), guest(3, "Zoë")]);
    scene.refuse(update(2, named("Bob's")), ErrorCode::Unauthorized);
    scene.refuse(update(3, named("Zoë's")), ErrorCode::Unauthorized);
    scene.refuse(update(9, named("Nobody's")), ErrorCode::NotInRoom);
}

#[test]
fn the_owner_updates_from_outside() {
    let mut scene = Scene::after(&[user(2, "bob")]);
    let editor = Editor::User("ann".into());
    scene.expect(
        Command::Update { editor, patch: named("Abend") },
        &[
            "store room Abend of ann 5 seats open owner_only none",
            "all: room Abend of ann 5 seats open owner_only none",
        ],
    );
}

#[test]
fn nobody_else_updates_from_outside() {
    let mut scene = Scene::after(&[user(2, "bob")]);
    let editor = Editor::User("bob".into());
    scene.refuse(Command::Update { editor, patch: named("Bob's") }, ErrorCode::Unauthorized);
}

#[test]
fn an_editor_is_known_before_the_update() {
    let scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    let check = |editor| scene.room.check_editor(&editor).map_err(|refusal| refusal.code);
    assert_eq!(check(Editor::Member(ConnectionId(1))), Ok(()));
    assert_eq!(check(Editor::User("ann".into())), Ok(()));
    assert_eq!(check(Editor::Member(ConnectionId(2))), Err(ErrorCode::Unauthorized));
    assert_eq!(check(Editor::User("bob".into())), Err(ErrorCode::Unauthorized));
    assert_eq!(check(Editor::Member(ConnectionId(9))), Err(ErrorCode::NotInRoom));
}

#[test]
fn a_clone_is_not_changed_by_an_update_of_the_original() {
    let mut scene = Scene::after(&[user(1, "ann")]);
    let before = scene.clone();
    scene.tell(update(1, named("Abend")));
    scene.tell(grant(1, "o1", true));
    assert_eq!(before.room.row().name, "Film");
    assert_eq!(scene.room.row().name, "Abend");
}

#[test]
fn the_owner_grants_and_denies() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.expect(grant(1, "o2", true), &["store p2 o2 participant bob+ t2", "all: updated o2 participant bob+"]);
    scene.expect(grant(1, "o2", false), &["store p2 o2 participant bob t2", "all: updated o2 participant bob"]);
}

#[test]
fn granting_twice_is_as_good_as_once() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.tell(grant(1, "o2", true));
    scene.expect(grant(1, "o2", true), &["store p2 o2 participant bob+ t2", "all: updated o2 participant bob+"]);
}

#[test]
fn a_participant_who_is_offline_can_be_granted() {
    let mut scene = Scene::after(&[user(1, "ann"), guest(2, "Zoë")]);
    scene.tell(lost(2));
    scene.expect(grant(1, "o2", true), &["store p2 o2 guest Zoë+ t2", "all: updated o2 guest Zoë+ offline"]);
}

#[test]
fn the_owner_cannot_give_up_control() {
    let mut scene = Scene::after(&[user(1, "ann")]);
    let refusal = scene.refuse(grant(1, "o1", false), ErrorCode::ValidationError);
    assert_eq!(refusal.message, "canControl must be true for the owner");
    scene.expect(grant(1, "o1", true), &["store p1 o1 owner ann+ t1", "all: updated o1 owner ann+"]);
}

#[test]
fn only_the_owner_grants() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.tell(grant(1, "o2", true));
    scene.refuse(grant(2, "o2", true), ErrorCode::Unauthorized);
    scene.refuse(grant(9, "o2", true), ErrorCode::NotInRoom);
}

#[test]
fn nobody_is_granted_under_an_unknown_name() {
    let mut scene = Scene::after(&[user(1, "ann")]);
    scene.refuse(grant(1, "o9", true), ErrorCode::ValidationError);
}

#[test]
fn the_permission_is_checked_before_the_name() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]);
    scene.refuse(grant(2, "o9", true), ErrorCode::Unauthorized);
    scene.refuse(kick(2, "o9"), ErrorCode::Unauthorized);
    scene.refuse(transfer(2, "o9"), ErrorCode::Unauthorized);
}

#[test]
fn the_owner_kicks_somebody() {
    let mut scene = Scene::after(&[user(1, "ann"), guest(2, "Zoë")]);
    scene.expect(kick(1, "o2"), &["forget p2", "to 2: kicked", "remove 2", "all: left o2 kicked"]);
    scene.refuse(leave(2), ErrorCode::NotInRoom);
}

#[test]
fn a_kick_may_say_why() {
    let mut scene = Scene::after(&[user(1, "ann"), guest(2, "Zoë")]);
    let command = Command::Kick { connection: ConnectionId(1), oder_id: "o2".into(), reason: Some("too loud".into()) };
    scene.expect(command, &["forget p2", "to 2: kicked too loud", "remove 2", "all: left o2 kicked"]);
}

#[test]
fn somebody_offline_is_kicked_from_the_seat() {
    let mut scene = Scene::after(&[user(1, "ann"), guest(2, "Zoë")]);
    scene.tell(lost(2));
    scene.expect(kick(1, "o2"), &["forget p2", "all: left o2 kicked"]);
    assert_eq!(scene.due(), HOUR);
}

#[test]
fn the_end_of_a_kicked_connection_does_nothing() {
    let mut scene = Scene::after(&[user(1, "ann"), guest(2, "Zoë")]);
    scene.tell(kick(1, "o2"));
    scene.expect::<&str>(lost(2), &[]);
}

#[test]
fn nobody_kicks_themselves() {
    let mut scene = Scene::after(&[user(1, "ann")]);
    scene.refuse(kick(1, "o1"), ErrorCode::ValidationError);
}

#[test]
fn only_the_owner_kicks() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob"), guest(3, "Zoë")]);
    scene.refuse(kick(2, "o3"), ErrorCode::Unauthorized);
    scene.refuse(kick(2, "o1"), ErrorCode::Unauthorized);
    scene.refuse(kick(9, "o1"), ErrorCode::NotInRoom);
}

#[test]
fn nobody_is_kicked_under_an_unknown_name() {
    let mut scene = Scene::after(&[user(1, "ann")]);
    scene.refuse(kick(1, "o9"), ErrorCode::ValidationError);
}
