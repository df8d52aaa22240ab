//! Playback: who may, when it takes effect, what becomes of it.

use super::*;

/// Ann in her room, with a film on.
fn ready() -> Scene {
    Scene::after(&[user(1, "ann")]).watching()
}

fn steer_at(number: u64, motion: Motion, at: i64) -> Command {
    Command::Steer { connection: ConnectionId(number), motion, at_server_time: Some((START + at) as f64) }
}

#[test]
fn a_source_is_put_on_paused() {
    Scene::after(&[user(1, "ann")]).expect(source(1), &["all: sync at 0 #1 paused x1 0@0"]);
}

#[test]
fn a_source_starts_where_it_is_asked_to() {
    let mut scene = Scene::after(&[user(1, "ann")]);
    let request = SourceRequest {
        source_type: SourceType::Youtube,
        source_id: "dQw4w9WgXcQ".into(),
        start_media_time_ms: Some(42_500.0),
    };
    scene.later(10).expect(
        Command::Source { connection: ConnectionId(1), source: request },
        &["all: sync at 10 #1 paused x1 42500@10"],
    );
    let state = scene.room.playback_row(0).state.unwrap();
    assert_eq!((state.source_type, state.source_id.as_str()), (SourceType::Youtube, "dQw4w9WgXcQ"));
}

#[test]
fn another_source_begins_anew_and_the_numbers_go_on() {
    let mut scene = ready();
    scene.tell(steer(1, Motion::SetRate(2.0)));
    scene.tell(play(1));
    scene.later(1_000).expect(source(1), &["all: sync at 1000 #4 paused x1 0@1000"]);
}

#[test]
fn a_play_reaches_everybody_ahead_of_its_time() {
    ready().later(100).expect(play(1), &["all: PLAY -> #2 playing x1 0@150"]);
}

#[test]
fn a_pause_stops_where_everybody_will_be() {
    let mut scene = ready();
    scene.tell(play(1));
    scene.later(1_000).expect(pause(1), &["all: PAUSE -> #3 paused x1 1000@1050"]);
}

#[test]
fn a_pause_while_paused_changes_nothing_but_the_number() {
    ready().expect(pause(1), &["all: PAUSE -> #2 paused x1 0@50"]);
}

#[test]
fn a_play_while_playing_moves_nobody() {
    let mut scene = ready();
    scene.tell(play(1));
    scene.later(10_000).expect(play(1), &["all: PLAY -> #3 playing x1 10000@10050"]);
}

#[test]
fn a_seek_goes_on_playing_at_the_target() {
    let mut scene = ready();
    scene.tell(play(1));
    scene.later(1_000).expect(steer(1, Motion::Seek(60_000.0)), &["all: SEEK 60000 -> #3 playing x1 60000@1050"]);
}

#[test]
fn a_seek_while_paused_stays_paused() {
    ready().expect(steer(1, Motion::Seek(1_234.5)), &["all: SEEK 1234.5 -> #2 paused x1 1234.5@50"]);
}

#[test]
fn a_rate_re_anchors_at_its_time() {
    let mut scene = ready();
    scene.tell(play(1));
    scene.later(1_000).expect(steer(1, Motion::SetRate(1.5)), &["all: SET_RATE 1.5 -> #3 playing x1.5 1000@1050"]);
    scene.later(1_000).expect(pause(1), &["all: PAUSE -> #4 paused x1.5 2500@2050"]);
}

#[test]
fn a_rate_survives_a_pause() {
    let mut scene = ready();
    scene.tell(steer(1, Motion::SetRate(0.5)));
    scene.later(100).tell(play(1));
    scene.later(2_000).expect(pause(1), &["all: PAUSE -> #4 paused x0.5 1000@2150"]);
}

#[test]
fn a_command_before_the_last_one_took_effect_starts_from_there() {
    let mut scene = ready();
    scene.tell(play(1));
    scene.later(10).expect(pause(1), &["all: PAUSE -> #3 paused x1 10@60"]);
}

#[test]
fn a_pause_overtakes_a_play_set_for_later() {
    let mut scene = ready();
    scene.expect(steer_at(1, Motion::Play, 2_000), &["all: PLAY -> #2 playing x1 0@2000"]);
    scene.later(100).expect(pause(1), &["all: PAUSE -> #3 paused x1 0@150"]);
}

#[test]
fn a_pause_overtaking_a_seek_pauses_at_its_target() {
    let mut scene = ready();
    scene.tell(play(1));
    scene.later(100).tell(steer_at(1, Motion::Seek(60_000.0), 2_000));
    scene.later(100).expect(pause(1), &["all: PAUSE -> #4 paused x1 60000@250"]);
}

#[test]
fn a_proposed_time_counts_within_two_seconds() {
    let mut scene = ready();
    scene.expect(steer_at(1, Motion::Play, 0), &["all: PLAY -> #2 playing x1 0@0"]);
    scene.expect(steer_at(1, Motion::Pause, 2_000), &["all: PAUSE -> #3 paused x1 2000@2000"]);
}

#[test]
fn a_proposed_time_in_the_past_or_too_far_ahead_does_not_count() {
    let mut scene = ready();
    scene.expect(steer_at(1, Motion::Play, -1), &["all: PLAY -> #2 playing x1 0@50"]);
    scene.later(50).expect(steer_at(1, Motion::Pause, 2_051), &["all: PAUSE -> #3 paused x1 50@100"]);
}

#[test]
fn the_lead_is_the_slowest_members() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob"), guest(3, "Zoë")]).watching();
    for (connection, round_trip_ms) in [(1, 40), (2, 301), (3, 100)] {
        scene.expect::<&str>(measured(connection, round_trip_ms), &[]);
    }
    scene.expect(play(1), &["all: PLAY -> #2 playing x1 0@181"]);
}

#[test]
fn the_lead_has_bounds() {
    let mut scene = ready();
    scene.tell(measured(1, 2));
    scene.expect(play(1), &["all: PLAY -> #2 playing x1 0@50"]);
    scene.tell(measured(1, 30_000));
    scene.expect(pause(1), &["all: PAUSE -> #3 paused x1 450@500"]);
}

#[test]
fn a_new_measure_takes_the_place_of_the_old_one() {
    let mut scene = ready();
    scene.tell(measured(1, 600));
    scene.tell(measured(1, 100));
    scene.expect(play(1), &["all: PLAY -> #2 playing x1 0@80"]);
}

#[test]
fn who_is_offline_holds_nobody_up() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]).watching();
    scene.tell(measured(2, 900));
    scene.tell(lost(2));
    scene.expect(play(1), &["all: PLAY -> #2 playing x1 0@50"]);
}

#[test]
fn a_new_connection_is_measured_anew() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]).watching();
    scene.tell(measured(2, 900));
    scene.tell(enter(showing(user(3, "bob"), "t2")));
    scene.expect(play(1), &["all: PLAY -> #2 playing x1 0@50"]);
}

#[test]
fn a_measure_of_a_stranger_does_nothing() {
    let mut scene = ready();
    scene.expect::<&str>(measured(9, 900), &[]);
    scene.expect(play(1), &["all: PLAY -> #2 playing x1 0@50"]);
}

#[test]
fn without_a_source_nothing_can_be_steered() {
    let mut scene = Scene::after(&[user(1, "ann")]);
    for motion in [Motion::Play, Motion::Pause, Motion::Seek(0.0), Motion::SetRate(1.0)] {
        let refusal = scene.refuse(steer(1, motion), ErrorCode::ValidationError);
        assert_eq!(refusal.message, "the room has no source yet");
    }
    scene.refuse(resync(1), ErrorCode::ValidationError);
}

#[test]
fn only_members_steer() {
    let mut scene = ready();
    scene.refuse(play(9), ErrorCode::NotInRoom);
    scene.refuse(source(9), ErrorCode::NotInRoom);
    scene.refuse(resync(9), ErrorCode::NotInRoom);
}

#[test]
fn in_an_owner_only_room_the_owner_alone_controls() {
    let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob"), guest(3, "Zoë")]).watching();
    scene.tell(grant(1, "o2", true));
    scene.refuse(play(2), ErrorCode::Unauthorized);
    scene.refuse(source(3), ErrorCode::Unauthorized);
    scene.tell(play(1));
}

#[test]
fn in_a_room_for_all_everyone_but_guests_controls() {
    let mut scene = Scene::with(|row| row.playback_control = PlaybackControl::All)
        .joined(&[user(1, "ann"), user(2, "bob"), guest(3, "Zoë")])
        .watching();
    scene.tell(grant(1, "o3", true));
    scene.tell(play(2));
    scene.refuse(play(3), ErrorCode::Unauthorized);
}

#[test]
fn in_a_selected_room_the_owner_and_the_granted_control() {
    let mut scene = Scene::with(|row| row.playback_control = PlaybackControl::Selected)
        .joined(&[user(1, "ann"), user(2, "bob"), guest(3, "Zoë")])
        .watching();
    scene.refuse(play(2), ErrorCode::Unauthorized);
    scene.tell(grant(1, "o2", true));
    scene.tell(grant(1, "o3", true));
    scene.tell(play(1));
    scene.tell(pause(2));
    scene.tell(play(3));
    scene.tell(grant(1, "o2", false));
    scene.refuse(play(2), ErrorCode::Unauthorized);
}

#[test]
fn the_permission_is_checked_before_the_source() {
    Scene::after(&[user(1, "ann"), user(2, "bob")]).refuse(play(2), ErrorCode::Unauthorized);
}

#[test]
fn ten_commands_in_a_second_pass_and_the_eleventh_does_not() {
    let mut scene = ready();
    for _ in 0..9 {
        scene.later(50).tell(play(1));
    }
    let refusal = scene.later(100).refuse(play(1), ErrorCode::RateLimitExceeded);
    assert_eq!(refusal.retry_after_ms, Some(450));
}

#[test]
fn the_window_slides() {
    let mut scene = ready();
    for _ in 0..9 {
        scene.later(50).tell(play(1));
    }
    scene.now = START + 999;
    assert_eq!(scene.refuse(play(1), ErrorCode::RateLimitExceeded).retry_after_ms, Some(1));
    scene.later(1).tell(play(1));
    assert_eq!(scene.refuse(play(1), ErrorCode::RateLimitExceeded).retry_after_ms, Some(50));
    scene.later(50).tell(play(1));
}

#[test]
fn a_refused_command_does_not_count() {
    let mut scene = Scene::after(&[user(1, "ann")]);
    for _ in 0..20 {
        scene.refuse(play(1), ErrorCode::ValidationError);
    }
    scene.tell(source(1));
    for _ in 0..9 {
        scene.tell(play(1));
    }
    for _ in 0..20 {
        scene.refuse(play(1), ErrorCode::RateLimitExceeded);
    }
    scene.later(1_000).tell(play(1));
}

#[test]
fn all_kinds_of_commands_count_together() {
    let mut scene = ready();
    for motion in [Motion::Play, Motion::Pause, Motion::Seek(5.0), Motion::SetRate(2.0)] {
        scene.tell(steer(1, motion));
        scene.tell(source(1));
    }
    scene.tell(play(1));
    scene.refuse(source(1), ErrorCode::RateLimitExceeded);
}

#[test]
fn a_resync_does_not_count() {
    let mut scene = ready();
    for _ in 0..30 {
        scene.expect(resync(1), &["to 1: sync at 0 #1 paused x1 0@0"]);
    }
    scene.tell(play(1));
}

#[test]
fn each_participant_has_its_own_window() {
    let mut scene = Scene::with(|row| row.playback_control = PlaybackControl::All)
        .joined(&[user(1, "ann"), user(2, "bob")])
        .watching();
    for _ in 0..9 {
        scene.tell(play(1));
    }
    scene.refuse(play(1), ErrorCode::RateLimitExceeded);
    scene.tell(play(2));
}

#[test]
fn a_resume_does_not_empty_the_window() {
    let mut scene = ready();
    for _ in 0..9 {
        scene.tell(play(1));
    }
    scene.tell(enter(showing(user(2, "ann"), "t1")));
    scene.refuse(play(2), ErrorCode::RateLimitExceeded);
}

#[test]
fn without_numbers_left_a_command_is_unavailable() {
    let mut scene = ready();
    scene.room.sequence_limit = 2;
    scene.tell(play(1));
    scene.refuse(pause(1), ErrorCode::Unavailable);
    scene.refuse(source(1), ErrorCode::Unavailable);
    scene.room.raise_sequence_limit(3);
    scene.expect(pause(1), &["all: PAUSE -> #3 paused x1 0@50"]);
}

#[test]
fn the_rate_is_checked_before_the_numbers_left() {
    let mut scene = ready();
    for _ in 0..9 {
        scene.tell(play(1));
    }
    scene.room.sequence_limit = 10;
    scene.refuse(play(1), ErrorCode::RateLimitExceeded);
}

#[test]
fn a_resync_is_for_the_one_who_asks() {
    let mut scene = Scene::after(&[user(1, "ann"), guest(2, "Zoë")]).watching();
    scene.tell(play(1));
    scene.later(500).expect(resync(2), &["to 2: sync at 500 #2 playing x1 0@50"]);
}
