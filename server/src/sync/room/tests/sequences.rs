//! Random lives of a room, and what must be true of all of them.

use std::collections::{BTreeMap, BTreeSet};

use super::replica::Diff;
use super::*;

/// Knuth's linear congruential generator: the same seed is the same life.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len() as u64) as usize])
    }
}

/// What one could know of a room from its effects alone.
#[derive(Default)]
struct Observer {
    /// Connections that were admitted and not removed.
    hearing: BTreeSet<ConnectionId>,
    /// Whether an admitted connection has had its `room:state`.
    welcomed: BTreeSet<ConnectionId>,
    /// Names that joined and have not left.
    present: BTreeSet<String>,
    /// Names that have left.
    left: BTreeSet<String>,
    /// Participant rows in the store.
    rows: BTreeMap<String, String>,
    sequence: u64,
    closed: bool,
}

impl Observer {
    fn see(&mut self, effect: &Effect) {
        assert!(!self.closed || matches!(effect, Effect::Remove { .. }), "{effect:?} after the end");
        match effect {
            Effect::Persist(RowChange::UpsertParticipant(row)) => {
                self.rows.insert(row.id.clone(), row.oder_id.clone());
            }
            Effect::Persist(RowChange::RemoveParticipant(id)) => {
                assert!(self.rows.remove(id).is_some(), "{id} was not stored");
            }
            Effect::Persist(RowChange::RemoveRoom(_)) => self.rows.clear(),
            Effect::Persist(RowChange::RemoveExpired { .. }) => panic!("not the room's to ask for"),
            Effect::Persist(RowChange::SaveRoom(_)) => {}
            Effect::Admit { connection } => assert!(self.hearing.insert(*connection), "{connection:?} admitted twice"),
            Effect::State { connection, state } => {
                assert!(self.hearing.contains(connection), "{connection:?} was not admitted");
                assert!(self.welcomed.insert(*connection), "{connection:?} was welcomed twice");
                assert!(state.participants.iter().any(|seat| seat.row.oder_id == state.own.oder_id && seat.online));
                self.present.insert(state.own.oder_id.clone());
            }
            Effect::Send { to, event } => {
                let hears: BTreeSet<_> = match to {
                    Audience::One(connection) => [*connection].into(),
                    Audience::Others(connection) => {
                        self.hearing.iter().filter(|hears| *hears != connection).copied().collect()
                    }
                    Audience::All => self.hearing.clone(),
                };
                assert!(hears.is_subset(&self.welcomed), "{event:?} before room:state");
                self.hear(event);
            }
            Effect::Cut { connection } => assert!(!self.hearing.contains(connection)),
            Effect::Remove { connection } => {
                assert!(self.hearing.remove(connection), "{connection:?} was not admitted");
                self.welcomed.remove(connection);
            }
        }
    }

    fn hear(&mut self, event: &ServerEvent) {
        match event {
            ServerEvent::ParticipantLeft { oder_id, .. } => {
                assert!(self.present.remove(oder_id), "{oder_id} was not here");
                assert!(self.left.insert(oder_id.clone()), "{oder_id} left twice");
            }
            ServerEvent::ParticipantJoined { participant } => {
                assert!(!self.left.contains(&participant.row.oder_id), "{} is back", participant.row.oder_id);
            }
            ServerEvent::SyncCommand { state, .. } | ServerEvent::SyncState { state, .. } => {
                assert!(state.sequence_number >= self.sequence);
                self.sequence = state.sequence_number;
            }
            ServerEvent::RoomClosed { .. } => self.closed = true,
            ServerEvent::ParticipantUpdated { participant } => {
                assert!(self.present.contains(&participant.row.oder_id), "{} is not here", participant.row.oder_id);
            }
            ServerEvent::OwnerChanged { oder_id, .. } => {
                assert!(self.present.contains(oder_id), "{oder_id} is not here");
            }
            ServerEvent::Kicked { .. } | ServerEvent::RoomUpdated { .. } => {}
            ServerEvent::TimePong { .. } | ServerEvent::Shutdown { .. } => panic!("not the room's to send"),
        }
    }
}

/// Does something with a change as it comes out at the other end.
fn carried<T>(diff: &Diff, make: impl FnOnce(Diff) -> T) -> T {
    make(serde_json::from_str(&serde_json::to_string(diff).unwrap()).unwrap())
}

/// One life of a room with few seats and many people.
fn live(seed: u64, steps: u64) {
    const NAMES: [&str; 5] = ["ann", "bob", "cy", "dan", "eve"];
    let mut dice = Dice(seed);
    let mut row = row();
    row.max_participants = 4;
    row.playback_control =
        dice.pick(&[PlaybackControl::OwnerOnly, PlaybackControl::All, PlaybackControl::Selected]).unwrap();
    let options = RoomOptions { ttl_ms: 20_000 + dice.below(3_000_000) as i64, ..RoomOptions::default() };
    row.expires_at_ms = START + options.ttl_ms;
    let mut room = Room::load(row, Vec::new(), None, START, START, options);
    room.raise_sequence_limit(dice.below(200));
    let mut copy = carried(&room.whole(), |whole| Room::take_up(whole, options).unwrap());
    let mut now = START;
    let mut seen = Observer::default();
    let mut tokens: Vec<u64> = vec![0];
    let mut last_due = START;
    for number in 1..=steps {
        now += [0, 3, 40, 400, 4_000, 30_000][dice.below(6) as usize];
        let members: Vec<_> = seen.hearing.iter().copied().collect();
        let present: Vec<_> = room.seats.iter().map(|seat| seat.row.oder_id.clone()).collect();
        let stranger = ConnectionId(1_000_000 + number);
        let member = dice.pick(&members).unwrap_or(stranger).0;
        let target = present.get(dice.below(present.len() as u64 + 1) as usize).map_or("nobody", String::as_str);
        let before_sequence = room.sequence();
        let command = match dice.below(18) {
            0..=4 => {
                let join = match dice.below(3) {
                    0 => guest(number, "Zoë"),
                    _ => user(number, NAMES[dice.below(5) as usize]),
                };
                let shown = dice.pick(&tokens).unwrap();
                enter(if dice.below(2) == 0 { showing(join, &format!("t{shown}")) } else { join })
            }
            5 => leave(member),
            6 => hung_up(member),
            7 | 8 => lost(member),
            9 => kick(member, target),
            10 => grant(member, target, dice.below(2) == 0),
            11 => transfer(member, target),
            12 => source(member),
            13 => play(member),
            14 => steer(member, Motion::Seek(dice.below(100_000) as f64)),
            15 => measured(member, dice.below(2_000) as u32),
            16 if dice.below(8) == 0 => Command::InstanceLost { instance: 0 },
            16 => Command::Resync { connection: ConnectionId(member) },
            _ => Command::Timeout,
        };
        let joins = matches!(command, Command::Join(_));
        let steers = matches!(command, Command::Source { .. } | Command::Steer { .. });
        let times_out = matches!(command, Command::Timeout);
        let before = room.clone();
        let mut tried = room.clone();
        tried.mark();
        let tried_result = tried.handle(command.clone(), now);
        tried.revert();
        assert_eq!(tried, before, "what was taken back left something");
        room.mark();
        let result = room.handle(command, now);
        assert_eq!(result, tried_result);
        assert!(room.has_changed() || room.diff().seats.is_empty());
        carried(&room.diff(), |diff| copy.apply(diff));
        room.keep();
        assert!(room.seats.is_consistent());
        if result.is_err() {
            assert_eq!(room, before, "a refusal changed the room");
        } else {
            assert_eq!(room.sequence() - before_sequence, u64::from(steers), "step {number}");
        }
        if joins && result.is_ok() {
            tokens.push(number);
            if tokens.len() > 6 {
                tokens.remove(0);
            }
        }
        while let Some(effect) = room.poll_effect() {
            seen.see(&effect);
        }
        assert_eq!(copy, room, "another instance has the same room");
        assert!(room.participant_count() <= 4, "more people than seats");
        assert!(room.sequence() <= room.sequence_limit());
        let online: BTreeSet<_> = room.seats.iter().filter_map(Seat::connection).collect();
        assert_eq!(online, seen.hearing, "who hears is who is online");
        let rows: BTreeMap<_, _> =
            room.seats.iter().map(|seat| (seat.row.id.clone(), seat.row.oder_id.clone())).collect();
        assert_eq!(rows, seen.rows, "the store has the seats");
        let users: Vec<_> = room.seats.iter().filter_map(|seat| seat.row.user_id.as_ref()).collect();
        assert_eq!(users.len(), users.iter().collect::<BTreeSet<_>>().len(), "one seat per user");
        if !room.is_closed() {
            assert_eq!(room.seats.iter().map(|seat| seat.row.oder_id.clone()).collect::<BTreeSet<_>>(), seen.present);
        }
        match room.poll_timeout() {
            Some(due) if times_out => {
                assert!(due > now, "a handled timeout leaves a later one");
                assert!(due >= last_due.min(due) && due >= START);
                last_due = due;
            }
            Some(_) => {}
            None => assert!(room.is_closed()),
        }
    }
}

#[test]
fn many_commands_are_taken_back_at_once() {
    for seed in 0..50 {
        let mut dice = Dice(seed);
        let mut scene = Scene::after(&[user(1, "ann"), guest(2, "Zoë"), user(3, "bob")]).watching();
        scene.tell(lost(3));
        let before = scene.room.clone();
        scene.room.mark();
        for number in 10..30 {
            let command = match dice.below(6) {
                0 => enter(showing(user(number, "bob"), "t3")),
                1 => enter(user(number, ["bob", "cy", "dan"][dice.below(3) as usize])),
                2 => lost(1 + dice.below(3)),
                3 => kick(1, "o2"),
                4 => transfer(1, "o3"),
                _ => play(1),
            };
            let _maybe_refused = scene.room.handle(command, scene.now);
            scene.later(1_000);
        }
        scene.room.revert();
        assert_eq!(scene.room, before, "{seed}");
        scene.room.revert();
        assert_eq!(scene.room, before, "without a mark nothing happens");
    }
}

/// Counted, since time would be another on every machine.
#[test]
fn what_a_command_changes_does_not_grow_with_the_room() {
    let work = |people: u64| {
        let mut scene = Scene::with(|row| row.max_participants = 10_000);
        for number in 1..=people {
            scene.tell(enter(guest(number, "Zoë")));
        }
        let commands = [enter(user(people + 1, "ann")), grant(people + 1, "o1", true), lost(1), kick(people + 1, "o2")];
        let count = |command| {
            scene.room.mark();
            scene.room.handle(command, scene.now).unwrap();
            let changes = scene.room.seats.changes();
            scene.room.keep();
            changes
        };
        commands.map(count)
    };
    assert_eq!(work(3), [1, 1, 1, 1]);
    assert_eq!(work(1_000), [1, 1, 1, 1]);
}

#[test]
fn a_participant_is_written_once_for_all_who_are_told() {
    let mut scene = Scene::after(&[user(1, "ann"), guest(2, "Zoë")]);
    let mut states = Vec::new();
    for number in 3..=5 {
        scene.room.handle(enter(guest(number, "Ida")), scene.now).unwrap();
        states.extend(std::iter::from_fn(|| scene.room.poll_effect()).filter_map(|effect| match effect {
            Effect::State { state, .. } => Some(state),
            Effect::Persist(_)
            | Effect::Admit { .. }
            | Effect::Send { .. }
            | Effect::Remove { .. }
            | Effect::Cut { .. } => None,
        }));
    }
    let texts: Vec<_> = states.iter().map(|state| serde_json::to_value(&**state).unwrap()).collect();
    assert_eq!(texts[0]["participants"][0], texts[2]["participants"][0]);
    assert!(states[0].participants[1].is_clone_of(&states[2].participants[1]));
    // Who is seen in another way is written anew.
    scene.tell(lost(2));
    scene.tell(lost(5));
    scene.room.handle(enter(showing(guest(6, "Ida"), "t5")), scene.now).unwrap();
    let views: Vec<_> = scene.room.seats.iter().map(Seat::view).collect();
    let online = |view: &ParticipantView| serde_json::to_value(view).unwrap()["online"].clone();
    assert_eq!(views.iter().map(online).collect::<Vec<_>>(), [true, false, true, true, true]);
}

#[test]
fn short_lives_keep_every_promise() {
    for seed in 0..300 {
        live(seed, 60);
    }
}

#[test]
fn long_lives_keep_every_promise() {
    for seed in 1_000..1_020 {
        live(seed, 900);
    }
}

#[test]
fn the_same_life_has_the_same_effects() {
    let run = || {
        let mut scene = Scene::after(&[user(1, "ann"), user(2, "bob")]).watching();
        let mut effects = scene.tell(play(1));
        effects.extend(scene.later(5_000).tell(lost(2)));
        effects.extend(scene.tell(enter(showing(user(3, "bob"), "t2"))));
        effects
    };
    assert_eq!(run(), run());
}

/// Every pair of commands in quick succession, at every distance up to past the first one's moment: the second starts
/// where the media really is, unless a jump was pending, which then has happened.
#[test]
fn no_command_moves_the_media_unless_it_says_so() {
    let motions = [Motion::Play, Motion::Pause, Motion::SetRate(2.0), Motion::SetRate(0.5)];
    for first in motions {
        for second in motions {
            for gap in [0, 1, 49, 50, 51, 500, 1_999, 2_000, 2_100] {
                for ahead in [0, 10, 700, 2_000] {
                    let mut scene = Scene::after(&[user(1, "ann")]).watching();
                    scene.tell(play(1));
                    scene.later(5_000);
                    let at_server_time = Some((scene.now + ahead) as f64);
                    scene.tell(Command::Steer { connection: ConnectionId(1), motion: first, at_server_time });
                    let course = scene.room.playback.clone().unwrap();
                    scene.later(gap).tell(steer(1, second));
                    let state = scene.room.playback_row(0).state.unwrap();
                    let real = course.position_at(state.anchor_server_time_ms);
                    assert!((state.anchor_media_time_ms - real).abs() < 0.01, "{first:?} {second:?} {gap} {ahead}");
                }
            }
        }
    }
}
