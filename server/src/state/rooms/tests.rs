//! The state over a store that can be slow, broken or stuck, on invented time.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::time::{Instant, advance, sleep};

use super::*;
use crate::sync::event::{ServerEvent, SourceRequest};
use crate::sync::playback::{Motion, SourceType};
use crate::sync::room::{Audience, Identity, RoomPatch};
use crate::sync::rows::{ParticipantRow, PlaybackControl, PlaybackRow, RoomRow, WaitFor};

const START: i64 = 1_700_000_000_000;

const DAY: i64 = 86_400_000;

/// What happened, in order: writes as well as what was published.
type Log = Arc<Mutex<Vec<String>>>;

/// How the store behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Well,
    Slow(u64),
    Fails,
    Hangs,
    /// Does what it is asked to, and says it did not.
    Lies,
    /// Takes a while, and turns away what comes while so many others are at it.
    Crowded(usize),
}

#[derive(Debug)]
struct MemoryStore {
    tables: Mutex<Tables>,
    mood: Mutex<Mood>,
    /// Calls under way, of those that count.
    busy: AtomicUsize,
    log: Log,
}

#[derive(Debug, Default)]
struct Tables {
    rooms: BTreeMap<String, RoomRow>,
    participants: BTreeMap<String, ParticipantRow>,
    playback: BTreeMap<String, PlaybackRow>,
    loads: usize,
    saves: usize,
    writes: usize,
}

#[derive(Debug)]
struct Recorder(Log);

/// One process after another over the same store.
struct World {
    state: Rooms<MemoryStore, Recorder>,
    store: Arc<MemoryStore>,
    log: Log,
}

impl MemoryStore {
    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap()
    }

    /// The stored seats as `oderId user-or-guest`.
    fn seats(&self) -> Vec<String> {
        let name = |row: &ParticipantRow| row.user_id.clone().or(row.guest_name.clone()).unwrap();
        self.tables().participants.values().map(name).collect()
    }

    async fn answer<T>(&self, work: impl FnOnce(&mut Tables) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Well => work(&mut self.tables()),
            Mood::Slow(ms) => {
                sleep(Duration::from_millis(ms)).await;
                work(&mut self.tables())
            }
            Mood::Fails => Err(StoreError::Unavailable("broken".into())),
            Mood::Hangs => std::future::pending().await,
            Mood::Lies => {
                let _ = work(&mut self.tables());
                Err(StoreError::Unavailable("answer lost".into()))
            }
            Mood::Crowded(most) => {
                let is_free = self.busy.fetch_add(1, Ordering::Relaxed) < most;
                let answer = if is_free {
                    sleep(Duration::from_millis(10)).await;
                    work(&mut self.tables())
                } else {
                    Err(StoreError::Unavailable("crowded".into()))
                };
                self.busy.fetch_sub(1, Ordering::Relaxed);
                answer
            }
        }
    }
}

impl RoomStore for MemoryStore {
    async fn create_room(&self, room: RoomRow) -> Result<(), StoreError> {
        self.answer(|tables| {
            tables.rooms.insert(room.id.clone(), room);
            Ok(())
        })
        .await
    }

    async fn room_by_code(&self, code: &str) -> Result<Option<RoomRow>, StoreError> {
        self.answer(|tables| {
            tables.loads += 1;
            Ok(tables.rooms.values().find(|room| room.code == code).cloned())
        })
        .await
    }

    async fn room_by_id(&self, id: &str) -> Result<Option<RoomRow>, StoreError> {
        self.answer(|tables| Ok(tables.rooms.get(id).cloned())).await
    }

    async fn participants(&self, room_id: &str) -> Result<Vec<ParticipantRow>, StoreError> {
        self.answer(|tables| Ok(tables.participants.values().filter(|row| row.room_id == room_id).cloned().collect()))
            .await
    }

    async fn playback(&self, room_id: &str) -> Result<Option<PlaybackRow>, StoreError> {
        self.answer(|tables| Ok(tables.playback.get(room_id).cloned())).await
    }

    async fn apply(&self, changes: Vec<RowChange>) -> Result<(), StoreError> {
        let log = Arc::clone(&self.log);
        self.answer(move |tables| {
            tables.writes += 1;
            tables.check(&changes)?;
            for change in changes {
                tables.apply(change, &log)?;
            }
            Ok(())
        })
        .await
    }

    async fn save_playback(&self, playback: PlaybackRow) -> Result<(), StoreError> {
        self.answer(|tables| {
            if !tables.rooms.contains_key(&playback.room_id) {
                return Err(StoreError::Missing);
            }
            tables.saves += 1;
            tables.playback.insert(playback.room_id.clone(), playback);
            Ok(())
        })
        .await
    }

    async fn expired_rooms(&self, now_ms: i64, limit: u32) -> Result<Vec<RoomRow>, StoreError> {
        let expired = |tables: &mut Tables| {
            let rooms = tables.rooms.values().filter(|room| room.expires_at_ms <= now_ms);
            Ok(rooms.take(limit as usize).cloned().collect())
        };
        self.answer(expired).await
    }

    async fn room_count(&self) -> Result<u64, StoreError> {
        self.answer(|tables| Ok(tables.rooms.len() as u64)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.answer(|_| Ok(())).await
    }
}

impl Tables {
    /// All changes are made, or none.
    fn check(&self, changes: &[RowChange]) -> Result<(), StoreError> {
        let (mut tried, nobody) = (Self { rooms: self.rooms.clone(), ..Self::default() }, Log::default());
        tried.participants.clone_from(&self.participants);
        changes.iter().try_for_each(|change| tried.apply(change.clone(), &nobody))
    }

    fn apply(&mut self, change: RowChange, log: &Log) -> Result<(), StoreError> {
        match change {
            RowChange::UpsertParticipant(row) => {
                if !self.rooms.contains_key(&row.room_id) {
                    return Err(StoreError::Missing);
                }
                let same_user = |held: &&ParticipantRow| {
                    held.id != row.id && held.room_id == row.room_id && held.user_id == row.user_id
                };
                if row.user_id.is_some() && self.participants.values().any(|held| same_user(&held)) {
                    return Err(StoreError::Conflict);
                }
                let name = row.user_id.clone().or(row.guest_name.clone()).unwrap();
                log.lock().unwrap().push(format!("stored {name}"));
                self.participants.insert(row.id.clone(), row);
            }
            RowChange::RemoveParticipant(id) => {
                if let Some(row) = self.participants.remove(&id) {
                    let name = row.user_id.or(row.guest_name).unwrap();
                    log.lock().unwrap().push(format!("removed {name}"));
                }
            }
            RowChange::SaveRoom(row) => {
                if !self.rooms.contains_key(&row.id) {
                    return Err(StoreError::Missing);
                }
                log.lock().unwrap().push(format!("saved {}", row.name));
                self.rooms.insert(row.id.clone(), row);
            }
            RowChange::RemoveExpired { id, now_ms } => {
                if self.rooms.get(&id).is_some_and(|room| room.expires_at_ms <= now_ms) {
                    self.apply(RowChange::RemoveRoom(id), log)?;
                }
            }
            RowChange::RemoveRoom(id) => {
                if let Some(room) = self.rooms.remove(&id) {
                    log.lock().unwrap().push(format!("removed room {}", room.code));
                }
                self.participants.retain(|_, row| row.room_id != id);
                self.playback.remove(&id);
            }
        }
        Ok(())
    }
}

/// What a test notes of a connection that is gone while the room has not been told.
fn lost(connection: ConnectionId) -> String {
    format!("lost {}", connection.0)
}

impl Recorder {
    fn note(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }
}

impl Publisher for Recorder {
    fn is_open(&self, connection: ConnectionId) -> bool {
        !self.0.lock().unwrap().contains(&lost(connection))
    }

    fn admit(&self, _: &str, connection: ConnectionId) {
        self.note(format!("admit {}", connection.0));
    }

    fn state(&self, connection: ConnectionId, state: &Arc<RoomState>) {
        self.note(format!("state {} of {}", connection.0, state.participants.len()));
    }

    fn send(&self, _: &str, to: Audience, event: &ServerEvent) {
        let to = match to {
            Audience::One(connection) => format!("to {}", connection.0),
            Audience::Others(connection) => format!("but {}", connection.0),
            Audience::All => "all".into(),
        };
        let sequence = match event {
            ServerEvent::SyncCommand { state, .. } | ServerEvent::SyncState { state, .. } => {
                format!(" #{}", state.sequence_number)
            }
            ServerEvent::ParticipantLeft { reason, .. } => format!(" {reason:?}").to_lowercase(),
            ServerEvent::ParticipantJoined { .. }
            | ServerEvent::ParticipantUpdated { .. }
            | ServerEvent::RoomUpdated { .. }
            | ServerEvent::OwnerChanged { .. }
            | ServerEvent::Kicked { .. }
            | ServerEvent::RoomClosed { .. }
            | ServerEvent::TimePong { .. }
            | ServerEvent::Shutdown { .. } => String::new(),
        };
        self.note(format!("{to}: {}{sequence}", event.name()));
    }

    fn relay(&self, _: &str, _: Audience, name: &str, _: &serde_json::value::RawValue) {
        panic!("{name} from another instance");
    }

    fn cut(&self, connection: ConnectionId) {
        panic!("{connection:?} lost its seat");
    }

    fn remove(&self, _: &str, connection: ConnectionId) {
        self.note(format!("remove {}", connection.0));
    }
}

impl World {
    /// A store with Ann's rooms `ROOMAAAA` and `ROOMBBBB`, and a process that has just begun.
    fn new() -> Self {
        Self::with(StateOptions::default())
    }

    fn with(options: StateOptions) -> Self {
        let log = Log::default();
        let mood = Mutex::new(Mood::Well);
        let store = MemoryStore { tables: Mutex::default(), mood, busy: AtomicUsize::new(0), log: Arc::clone(&log) };
        for code in ["ROOMAAAA", "ROOMBBBB"] {
            store.tables().rooms.insert(code.to_lowercase(), room_row(code));
        }
        let store = Arc::new(store);
        let clock = Clock::starting_at(START);
        let state = Rooms::start(Arc::clone(&store), Recorder(Arc::clone(&log)), clock, options);
        Self { state, store, log }
    }

    /// Another process, after this one.
    fn restarted(&self) -> Self {
        let (store, log) = (Arc::clone(&self.store), Arc::clone(&self.log));
        let clock = self.state.clock();
        let state = Rooms::start(Arc::clone(&store), Recorder(Arc::clone(&log)), clock, StateOptions::default());
        log.lock().unwrap().clear();
        Self { state, store, log }
    }

    async fn join(&self, number: u64, joiner: Joiner) -> Result<Arc<RoomState>, Refusal> {
        self.state.open(ConnectionId(number), "ROOMAAAA").await?.join(joiner).await
    }

    /// What happened since the last time.
    fn happened(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    async fn count(&self) -> usize {
        self.state.view("ROOMAAAA").await.unwrap().1
    }
}

fn room_row(code: &str) -> RoomRow {
    RoomRow {
        id: code.to_lowercase(),
        code: code.into(),
        name: "Film".into(),
        owner_id: "ann".into(),
        max_participants: 50,
        password_hash: None,
        playback_control: PlaybackControl::OwnerOnly,
        wait_for: WaitFor::None,
        created_at_ms: START,
        expires_at_ms: START + DAY,
    }
}

fn user(name: &str) -> Joiner {
    let identity = Identity::User { user_id: name.into(), username: None };
    Joiner { identity, resume_token: None, proved_hash: None, socket_id: None }
}

fn guest(name: &str) -> Joiner {
    Joiner {
        identity: Identity::Guest { name: Some(name.into()) },
        resume_token: None,
        proved_hash: None,
        socket_id: None,
    }
}

fn source(number: u64) -> Command {
    let source =
        SourceRequest { source_type: SourceType::External, source_id: "film".into(), start_media_time_ms: None };
    Command::Source { connection: ConnectionId(number), source }
}

fn play(number: u64) -> Command {
    Command::Steer { connection: ConnectionId(number), motion: Motion::Play, at_server_time: None }
}

fn leave(number: u64) -> Command {
    Command::Leave { connection: ConnectionId(number) }
}

fn rename(number: u64, name: &str) -> Command {
    let patch = RoomPatch { name: Some(name.into()), ..RoomPatch::default() };
    Command::Update { editor: Editor::Member(ConnectionId(number)), patch }
}

fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> ErrorCode {
    result.unwrap_err().code
}

async fn ms(ms: u64) {
    sleep(Duration::from_millis(ms)).await;
}

#[tokio::test(start_paused = true)]
async fn a_join_is_stored_before_anybody_hears_of_it() {
    let world = World::new();
    let state = world.join(1, user("ann")).await.unwrap();
    assert_eq!(world.happened(), ["stored ann", "admit 1", "state 1 of 1", "but 1: room:participant:joined"]);
    assert_eq!(state.participants[0].row.oder_id, state.own.oder_id);
    assert_eq!((state.own.oder_id.len(), state.own.resume_token.len()), (10, 43));
    let stored = world.store.tables().participants.values().next().cloned().unwrap();
    assert_eq!(stored.resume_hash, id::resume_hash(&state.own.resume_token));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_room_is_not_found_and_not_kept() {
    let world = World::new();
    assert_eq!(code(world.state.open(ConnectionId(1), "NOSUCHRM").await), ErrorCode::RoomNotFound);
    assert_eq!(code(world.state.view("NOSUCHRM").await), ErrorCode::RoomNotFound);
    assert_eq!(world.state.occupancy(), Occupancy { rooms: 0, connections: 0 });
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_in_one_room_at_a_time() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    assert_eq!(code(world.state.open(ConnectionId(1), "ROOMBBBB").await), ErrorCode::AlreadyInRoom);
    assert_eq!(code(world.state.open(ConnectionId(1), "NOSUCHRM").await), ErrorCode::AlreadyInRoom);
    world.state.member(leave(1)).await.unwrap();
    world.state.open(ConnectionId(1), "ROOMBBBB").await.unwrap().join(user("ann")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_on_its_way_once_until_it_gives_up() {
    let world = World::new();
    let admission = world.state.open(ConnectionId(1), "ROOMAAAA").await.unwrap();
    assert_eq!(code(world.state.open(ConnectionId(1), "ROOMAAAA").await), ErrorCode::AlreadyInRoom);
    drop(admission);
    assert_eq!(world.state.occupancy().connections, 0);
    world.join(1, user("ann")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refused_join_leaves_the_connection_free() {
    let world = World::new();
    let nameless = Joiner { identity: Identity::Guest { name: None }, ..guest("Zoë") };
    assert_eq!(code(world.join(1, nameless).await), ErrorCode::Unauthorized);
    assert_eq!((world.state.occupancy().connections, world.happened()), (0, vec![]));
    world.join(1, guest("Zoë")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_admission_tells_what_to_verify_a_password_against() {
    let world = World::new();
    world.store.tables().rooms.get_mut("roomaaaa").unwrap().password_hash = Some("hash".into());
    let admission = world.state.open(ConnectionId(1), "ROOMAAAA").await.unwrap();
    assert_eq!(admission.password_hash(), Some("hash"));
    assert_eq!(code(admission.join(user("ann")).await), ErrorCode::InvalidPassword);
    let admission = world.state.open(ConnectionId(1), "ROOMAAAA").await.unwrap();
    admission.join(Joiner { proved_hash: Some("hash".into()), ..user("ann") }).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_member_without_a_room_is_not_in_one() {
    let world = World::new();
    for command in [leave(1), play(1), rename(1, "x"), Command::Timeout] {
        assert_eq!(code(world.state.member(command).await), ErrorCode::NotInRoom);
    }
}

#[tokio::test(start_paused = true)]
async fn callers_at_the_same_time_share_one_load() {
    let world = World::new();
    world.store.set(Mood::Slow(100));
    let joins: Vec<_> = (1..=20)
        .map(|number| {
            let state = world.state.clone();
            tokio::spawn(async move { state.open(ConnectionId(number), "ROOMAAAA").await.map(drop) })
        })
        .collect();
    for join in joins {
        join.await.unwrap().unwrap();
    }
    assert_eq!(world.store.tables().loads, 1);
}

#[tokio::test(start_paused = true)]
async fn callers_at_the_same_time_share_a_failed_load() {
    let world = World::new();
    world.store.set(Mood::Hangs);
    let begun = Instant::now();
    let opens: Vec<_> = (1..=20)
        .map(|number| {
            let state = world.state.clone();
            tokio::spawn(async move { state.open(ConnectionId(number), "ROOMAAAA").await.map(drop) })
        })
        .collect();
    for open in opens {
        assert_eq!(code(open.await.unwrap()), ErrorCode::Unavailable);
    }
    assert_eq!(begun.elapsed(), store_deadline());
    assert_eq!(world.state.occupancy(), Occupancy { rooms: 0, connections: 0 });
}

fn store_deadline() -> Duration {
    StateOptions::default().store_deadline
}

#[tokio::test(start_paused = true)]
async fn a_join_the_store_fails_has_not_happened() {
    let world = World::new();
    drop(world.state.open(ConnectionId(1), "ROOMAAAA").await.unwrap());
    world.store.set(Mood::Fails);
    assert_eq!(code(world.join(1, user("ann")).await), ErrorCode::Unavailable);
    assert_eq!((world.count().await, world.happened()), (0, vec![]));
    world.store.set(Mood::Well);
    world.join(1, user("ann")).await.unwrap();
    assert_eq!(world.store.seats(), ["ann"]);
}

#[tokio::test(start_paused = true)]
async fn an_update_the_store_fails_has_not_happened() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.happened();
    world.store.set(Mood::Fails);
    assert_eq!(code(world.state.member(rename(1, "Abend")).await), ErrorCode::Unavailable);
    assert_eq!(world.happened(), Vec::<String>::new());
    assert_eq!(world.state.view("ROOMAAAA").await.unwrap().0.row.name, "Film");
    world.store.set(Mood::Well);
    world.state.member(rename(1, "Abend")).await.unwrap();
    assert_eq!(world.happened().last().unwrap(), "all: room:updated");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_said_to_have_failed_is_undone() {
    let world = World::new();
    drop(world.state.open(ConnectionId(1), "ROOMAAAA").await.unwrap());
    world.store.set(Mood::Lies);
    assert_eq!(code(world.join(1, user("ann")).await), ErrorCode::Unavailable);
    assert_eq!(world.store.seats(), ["ann"]);
    world.store.set(Mood::Well);
    world.join(1, user("ann")).await.unwrap();
    assert_eq!(world.store.tables().participants.len(), 1);
    ms(2_000).await;
    assert_eq!(world.store.seats(), ["ann"]);
}

#[tokio::test(start_paused = true)]
async fn an_update_that_was_said_to_have_failed_is_undone_in_time() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.store.set(Mood::Lies);
    assert_eq!(code(world.state.member(rename(1, "Abend")).await), ErrorCode::Unavailable);
    assert_eq!(world.store.tables().rooms["roomaaaa"].name, "Abend");
    world.store.set(Mood::Well);
    ms(3_000).await;
    assert_eq!(world.store.tables().rooms["roomaaaa"].name, "Film");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_waited_for_once() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.state.member(source(1)).await.unwrap();
    ms(1_000).await;
    world.store.set(Mood::Hangs);
    let begun = Instant::now();
    assert_eq!(code(world.state.member(rename(1, "Abend")).await), ErrorCode::Unavailable);
    assert_eq!(begun.elapsed(), store_deadline());
    for number in 2..50 {
        assert_eq!(code(world.join(number, guest("Zoë")).await), ErrorCode::Unavailable);
    }
    world.state.member(play(1)).await.unwrap();
    assert_eq!(begun.elapsed(), store_deadline());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_answers_again_is_used_again() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.store.set(Mood::Hangs);
    assert_eq!(code(world.state.member(rename(1, "Abend")).await), ErrorCode::Unavailable);
    ms(10_000).await;
    assert_eq!(code(world.state.member(rename(1, "Abend")).await), ErrorCode::Unavailable);
    world.store.set(Mood::Well);
    // A ping that was under way may have to run into its deadline first.
    ms(3_000).await;
    world.state.member(rename(1, "Abend")).await.unwrap();
    assert_eq!(world.store.tables().rooms["roomaaaa"].name, "Abend");
}

#[tokio::test(start_paused = true)]
async fn attempts_at_a_failing_store_do_not_push_out_what_waits_for_it() {
    for mood in [Mood::Hangs, Mood::Fails] {
        let world = World::new();
        world.join(1, user("ann")).await.unwrap();
        world.join(2, user("bob")).await.unwrap();
        world.store.set(mood);
        assert_eq!(code(world.state.member(rename(1, "Abend")).await), ErrorCode::Unavailable);
        world.state.member(leave(2)).await.unwrap();
        for number in 10..4_200 {
            assert_eq!(code(world.join(number, guest("Zoë")).await), ErrorCode::Unavailable);
        }
        world.store.set(Mood::Well);
        ms(3_000).await;
        assert_eq!(world.store.seats(), ["ann"], "{mood:?}");
        world.join(3, user("bob")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_leave_does_not_wait_for_the_store() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.join(2, guest("Zoë")).await.unwrap();
    world.happened();
    world.store.set(Mood::Fails);
    world.state.member(leave(2)).await.unwrap();
    assert_eq!(world.happened(), ["remove 2", "all: room:participant:left leave"]);
    assert_eq!((world.count().await, world.store.tables().participants.len()), (1, 2));
    world.store.set(Mood::Well);
    ms(2_000).await;
    assert_eq!(world.store.seats(), ["ann"]);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_to_go_is_gone_before_the_same_user_is_stored_again() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.state.member(leave(1)).await.unwrap();
    world.happened();
    world.join(2, user("ann")).await.unwrap();
    assert_eq!(world.happened()[..2], ["removed ann", "stored ann"]);
}

#[tokio::test(start_paused = true)]
async fn playback_is_written_behind_and_together() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.state.member(source(1)).await.unwrap();
    let after_block = world.store.tables().saves;
    assert_eq!(after_block, 1, "a block of numbers is made durable first");
    for _ in 0..8 {
        world.state.member(play(1)).await.unwrap();
    }
    assert_eq!(world.store.tables().saves, after_block);
    ms(300).await;
    assert_eq!(world.store.tables().saves, after_block + 1);
    let row = world.store.tables().playback["roomaaaa"].clone();
    assert_eq!((row.sequence, row.sequence_limit), (9, 10_000));
    assert!(row.state.unwrap().is_playing);
    ms(5_000).await;
    assert_eq!(world.store.tables().saves, after_block + 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_store_there_are_no_first_numbers() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.store.set(Mood::Fails);
    assert_eq!(code(world.state.member(source(1)).await), ErrorCode::Unavailable);
    world.store.set(Mood::Well);
    world.state.member(source(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_may_not_control_does_not_reach_the_store() {
    let world = World::new();
    world.join(1, guest("Zoë")).await.unwrap();
    assert_eq!(code(world.state.member(source(1)).await), ErrorCode::Unauthorized);
    assert_eq!(world.store.tables().saves, 0);
}

#[tokio::test(start_paused = true)]
async fn playback_goes_on_while_its_writing_hangs() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.state.member(source(1)).await.unwrap();
    world.store.set(Mood::Hangs);
    ms(300).await;
    let begun = Instant::now();
    world.state.member(play(1)).await.unwrap();
    world.state.member(leave(1)).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_of_playback_is_done_again() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.state.member(source(1)).await.unwrap();
    world.store.set(Mood::Fails);
    world.state.member(play(1)).await.unwrap();
    ms(3_000).await;
    world.store.set(Mood::Well);
    ms(2_000).await;
    assert_eq!(world.store.tables().playback["roomaaaa"].sequence, 2);
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_no_number_is_given_out_twice() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.state.member(source(1)).await.unwrap();
    world.state.member(play(1)).await.unwrap();
    let next = world.restarted();
    let joined = next.join(2, user("ann")).await.unwrap();
    assert_eq!(joined.playback, None, "the crash came before the state was written");
    next.state.member(source(2)).await.unwrap();
    assert_eq!(next.happened().last().unwrap(), "all: sync:state #10001");
}

#[tokio::test(start_paused = true)]
async fn after_a_clean_end_numbers_go_on_without_a_gap() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.state.member(source(1)).await.unwrap();
    world.state.shutdown().await;
    let row = world.store.tables().playback["roomaaaa"].clone();
    assert_eq!((row.sequence, row.sequence_limit, row.state.is_some()), (1, 1, true));
    let next = world.restarted();
    next.join(2, user("ann")).await.unwrap();
    next.state.member(play(2)).await.unwrap();
    assert_eq!(next.happened().last().unwrap(), "all: sync:command #2");
}

#[tokio::test(start_paused = true)]
async fn a_long_evening_never_runs_out_of_numbers() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.state.member(source(1)).await.unwrap();
    for _ in 0..12_000 {
        advance(Duration::from_millis(101)).await;
        world.state.member(play(1)).await.unwrap();
    }
    let row = world.store.tables().playback["roomaaaa"].clone();
    assert!(row.sequence_limit >= row.sequence && row.sequence > 11_000, "{row:?}");
    assert_eq!(world.happened().last().unwrap(), "all: sync:command #12001");
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_keeps_its_seat_for_the_grace() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.join(2, guest("Zoë")).await.unwrap();
    world.happened();
    world.state.disconnected(ConnectionId(2), false).await;
    ms(19_990).await;
    assert_eq!(world.happened(), ["remove 2", "all: room:participant:updated"]);
    ms(20).await;
    assert_eq!(world.happened(), ["all: room:participant:left timeout"]);
    ms(300).await;
    assert_eq!(world.happened(), ["removed Zoë"]);
}

#[tokio::test(start_paused = true)]
async fn a_resume_within_the_grace_is_no_join() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    let before = world.join(2, guest("Zoë")).await.unwrap();
    world.state.disconnected(ConnectionId(2), false).await;
    ms(10_000).await;
    world.happened();
    let joiner = Joiner { resume_token: Some(before.own.resume_token.clone()), ..guest("Zoë") };
    let after = world.join(3, joiner).await.unwrap();
    assert_eq!(after.own.oder_id, before.own.oder_id);
    assert_ne!(after.own.resume_token, before.own.resume_token);
    assert_eq!(world.happened(), ["stored Zoë", "admit 3", "state 3 of 2", "but 3: room:participant:updated"]);
    ms(30_000).await;
    assert_eq!(world.happened(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_has_passed_counts_before_the_timer_rings() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.join(2, guest("Zoë")).await.unwrap();
    world.state.member(source(1)).await.unwrap();
    world.state.disconnected(ConnectionId(2), false).await;
    ms(19_900).await;
    world.happened();
    // The room is busy when the grace ends, and the next command already waits in front of the timer.
    world.store.set(Mood::Slow(200));
    let state = world.state.clone();
    let rename = tokio::spawn(async move { state.member(rename(1, "Abend")).await });
    ms(50).await;
    world.state.member(play(1)).await.unwrap();
    rename.await.unwrap().unwrap();
    assert_eq!(
        world.happened(),
        ["saved Abend", "all: room:updated", "all: room:participant:left timeout", "all: sync:command #2"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_on_its_way_in_does_not_arrive() {
    let world = World::new();
    let admission = world.state.open(ConnectionId(1), "ROOMAAAA").await.unwrap();
    world.store.set(Mood::Slow(500));
    let join = tokio::spawn(admission.join(user("ann")));
    ms(100).await;
    world.state.disconnected(ConnectionId(1), false).await;
    assert_eq!(code(join.await.unwrap()), ErrorCode::Unavailable);
    assert_eq!((world.count().await, world.state.occupancy().connections), (0, 0));
    ms(3_000).await;
    assert_eq!(world.happened(), ["stored ann", "removed ann"]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_end_is_still_on_its_way_takes_no_seat() {
    let world = World::new();
    let admission = world.state.open(ConnectionId(1), "ROOMAAAA").await.unwrap();
    world.store.set(Mood::Slow(500));
    let join = tokio::spawn(admission.join(user("ann")));
    ms(100).await;
    world.state.0.publisher.note(lost(ConnectionId(1)));
    assert_eq!(code(join.await.unwrap()), ErrorCode::Unavailable);
    world.state.disconnected(ConnectionId(1), false).await;
    assert_eq!((world.count().await, world.state.occupancy().connections), (0, 0));
    ms(3_000).await;
    assert_eq!(world.happened(), ["lost 1", "stored ann", "removed ann"]);
}

#[tokio::test(start_paused = true)]
async fn a_resume_that_does_not_arrive_leaves_the_token_valid() {
    let world = World::new();
    let first = world.join(1, guest("Zoë")).await.unwrap();
    world.state.disconnected(ConnectionId(1), false).await;
    let resuming = || Joiner { resume_token: Some(first.own.resume_token.clone()), ..guest("Zoë") };
    let admission = world.state.open(ConnectionId(2), "ROOMAAAA").await.unwrap();
    world.store.set(Mood::Slow(500));
    let join = tokio::spawn(admission.join(resuming()));
    ms(100).await;
    world.state.disconnected(ConnectionId(2), true).await;
    assert_eq!(code(join.await.unwrap()), ErrorCode::Unavailable);
    let second = world.join(3, resuming()).await.unwrap();
    assert_eq!(second.own.oder_id, first.own.oder_id);
    ms(3_000).await;
    let stored = world.store.tables().participants.values().next().cloned().unwrap();
    assert_eq!(stored.resume_hash, id::resume_hash(&second.own.resume_token));
}

#[tokio::test(start_paused = true)]
async fn a_join_nobody_waits_for_still_happens() {
    let world = World::new();
    let admission = world.state.open(ConnectionId(1), "ROOMAAAA").await.unwrap();
    world.store.set(Mood::Slow(500));
    let waited = timeout(Duration::from_millis(100), admission.join(user("ann"))).await;
    assert!(waited.is_err());
    ms(1_000).await;
    assert_eq!((world.count().await, world.store.seats()), (1, vec!["ann".to_owned()]));
    world.state.disconnected(ConnectionId(1), true).await;
    assert_eq!(world.count().await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_empty_room_leaves_memory_after_a_while() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.state.member(source(1)).await.unwrap();
    world.state.member(leave(1)).await.unwrap();
    ms(4_900).await;
    assert_eq!(world.state.occupancy(), Occupancy { rooms: 1, connections: 0 });
    ms(200).await;
    assert_eq!(world.state.occupancy(), Occupancy { rooms: 0, connections: 0 });
    let row = world.store.tables().playback["roomaaaa"].clone();
    assert_eq!((row.sequence, row.sequence_limit), (1, 1));
    assert_eq!(world.store.seats(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_room_that_was_only_looked_at_leaves_memory_too() {
    let world = World::new();
    world.state.view("ROOMAAAA").await.unwrap();
    ms(5_100).await;
    assert_eq!((world.state.occupancy().rooms, world.store.tables().saves), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_empty_room_stays_in_memory_until_it_is_written() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.state.member(source(1)).await.unwrap();
    world.store.set(Mood::Fails);
    world.state.member(leave(1)).await.unwrap();
    ms(60_000).await;
    assert_eq!(world.state.occupancy().rooms, 1);
    world.store.set(Mood::Well);
    ms(2_000).await;
    assert_eq!((world.state.occupancy().rooms, world.store.seats()), (0, vec![]));
    assert_eq!(world.store.tables().playback["roomaaaa"].sequence, 1);
}

#[tokio::test(start_paused = true)]
async fn a_room_that_left_memory_is_loaded_again() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.state.member(source(1)).await.unwrap();
    world.state.member(leave(1)).await.unwrap();
    ms(10_000).await;
    let state = world.join(2, user("ann")).await.unwrap();
    assert_eq!(state.playback.as_ref().map(|playback| playback.sequence_number), Some(1));
    assert_eq!(world.store.tables().loads, 2);
}

#[tokio::test(start_paused = true)]
async fn memory_has_room_for_so_many_rooms_only() {
    let world = World::with(StateOptions { max_rooms: 1, ..StateOptions::default() });
    world.join(1, user("ann")).await.unwrap();
    assert_eq!(code(world.state.open(ConnectionId(2), "ROOMBBBB").await), ErrorCode::Unavailable);
    world.join(2, user("bob")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_a_shutdown_nothing_happens_any_more() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.happened();
    world.state.shutdown().await;
    world.state.shutdown().await;
    assert_eq!(code(world.state.member(source(1)).await), ErrorCode::Unavailable);
    assert_eq!(code(world.join(2, user("bob")).await), ErrorCode::Unavailable);
    assert_eq!(code(world.state.view("ROOMBBBB").await), ErrorCode::Unavailable);
    world.state.disconnected(ConnectionId(1), true).await;
    assert_eq!((world.happened(), world.store.seats()), (vec![], vec!["ann".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn seats_survive_a_restart_and_are_resumed() {
    let world = World::new();
    let before = world.join(1, user("ann")).await.unwrap();
    world.state.member(source(1)).await.unwrap();
    world.state.shutdown().await;
    let next = world.restarted();
    let joiner = Joiner { resume_token: Some(before.own.resume_token.clone()), ..user("ann") };
    let after = next.join(1, joiner).await.unwrap();
    assert_eq!(after.own.oder_id, before.own.oder_id);
    assert_eq!(next.happened(), ["stored ann", "admit 1", "state 1 of 1", "but 1: room:participant:updated"]);
}

#[tokio::test(start_paused = true)]
async fn seats_nobody_comes_back_to_after_a_restart_are_given_up() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.join(2, guest("Zoë")).await.unwrap();
    world.state.shutdown().await;
    let next = world.restarted();
    assert_eq!(next.count().await, 2);
    ms(20_500).await;
    assert_eq!(next.store.seats(), Vec::<String>::new());
    ms(6_000).await;
    assert_eq!(next.state.occupancy().rooms, 0);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_ever() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.state.open(ConnectionId(2), "ROOMBBBB").await.unwrap().join(user("ann")).await.unwrap();
    world.state.member(source(1)).await.unwrap();
    world.state.member(source(2)).await.unwrap();
    world.store.set(Mood::Hangs);
    let begun = Instant::now();
    world.state.shutdown().await;
    assert!(begun.elapsed() <= store_deadline() * 2, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_writes_more_rooms_than_the_store_takes_at_once() {
    let world = World::new();
    for number in 0..600 {
        let code = format!("ROOM{number:04}");
        world.store.tables().rooms.insert(code.to_lowercase(), room_row(&code));
        world.state.open(ConnectionId(number), &code).await.unwrap().join(user("ann")).await.unwrap();
        world.state.member(source(number)).await.unwrap();
    }
    world.store.set(Mood::Crowded(256));
    world.state.shutdown().await;
    let tables = world.store.tables();
    let kept = tables.playback.values().filter(|row| row.state.is_some() && row.sequence_limit == 1);
    assert_eq!(kept.count(), 600);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_tries_a_store_that_has_hung() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.store.set(Mood::Hangs);
    assert_eq!(code(world.state.member(rename(1, "Abend")).await), ErrorCode::Unavailable);
    world.state.member(leave(1)).await.unwrap();
    world.store.set(Mood::Well);
    world.state.shutdown().await;
    assert_eq!(world.store.seats(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_room_with_members_in_it_does_not_expire_and_an_empty_one_does_its_time_later() {
    const TTL: i64 = 24 * 60_000;
    let mut options = StateOptions::default();
    options.room.ttl_ms = TTL;
    let world = World::with(options);
    let expires = || world.store.tables().rooms["roomaaaa"].expires_at_ms - START;
    world.store.tables().rooms.get_mut("roomaaaa").unwrap().expires_at_ms = START + TTL;
    world.join(1, user("ann")).await.unwrap();
    world.happened();
    ms(1_000).await; // what is written behind is a moment later
    for minute in 1..100 {
        ms(60_000).await;
        assert_eq!(world.happened(), ["saved Film"], "once in the 24th part of its time");
        assert!((0..1_000).contains(&(expires() - minute * 60_000 - TTL)), "{}", expires());
    }
    world.state.member(leave(1)).await.unwrap();
    ms(TTL as u64 - 1_000).await;
    assert!(world.count().await == 0, "it is there until its time is over");
    world.happened();
    ms(61_000).await;
    let happened = world.happened();
    assert!(happened.contains(&"removed room ROOMAAAA".to_owned()), "{happened:?}");
    assert_eq!(code(world.join(1, user("ann")).await), ErrorCode::RoomNotFound);
}

#[tokio::test(start_paused = true)]
async fn an_expired_room_is_not_found_and_swept() {
    let world = World::new();
    for room in world.store.tables().rooms.values_mut() {
        room.expires_at_ms = START + 100;
    }
    ms(200).await;
    assert_eq!(code(world.join(1, user("ann")).await), ErrorCode::RoomNotFound);
    ms(61_000).await;
    let mut happened = world.happened();
    happened.sort();
    assert_eq!(happened, ["all: room:closed", "removed room ROOMAAAA", "removed room ROOMBBBB"]);
}

#[tokio::test(start_paused = true)]
async fn the_owner_deletes_a_room_from_outside() {
    let world = World::new();
    world.join(1, user("bob")).await.unwrap();
    world.happened();
    let delete = |user_id: &str| Command::Delete { user_id: user_id.into() };
    assert_eq!(code(world.state.outside("ROOMAAAA", delete("bob")).await), ErrorCode::Unauthorized);
    world.state.outside("ROOMAAAA", delete("ann")).await.unwrap();
    assert_eq!(world.happened(), ["removed room ROOMAAAA", "all: room:closed", "remove 1"]);
    assert_eq!(code(world.state.member(leave(1)).await), ErrorCode::NotInRoom);
    assert_eq!(code(world.state.outside("ROOMAAAA", delete("ann")).await), ErrorCode::RoomNotFound);
    ms(1_000).await;
    assert_eq!(world.state.occupancy(), Occupancy { rooms: 0, connections: 0 });
}

#[tokio::test(start_paused = true)]
async fn a_room_the_store_does_not_delete_is_still_there() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.happened();
    world.store.set(Mood::Fails);
    let delete = Command::Delete { user_id: "ann".into() };
    assert_eq!(code(world.state.outside("ROOMAAAA", delete).await), ErrorCode::Unavailable);
    assert_eq!((world.happened(), world.count().await), (vec![], 1));
}

#[tokio::test(start_paused = true)]
async fn a_room_whose_deletion_was_said_to_have_failed_closes() {
    let world = World::new();
    world.join(1, user("bob")).await.unwrap();
    world.happened();
    world.store.set(Mood::Lies);
    let delete = Command::Delete { user_id: "ann".into() };
    assert_eq!(code(world.state.outside("ROOMAAAA", delete).await), ErrorCode::Unavailable);
    assert_eq!(world.happened(), ["removed room ROOMAAAA"]);
    world.store.set(Mood::Well);
    ms(3_000).await;
    assert_eq!(world.happened(), ["all: room:closed", "remove 1"]);
    assert_eq!(world.state.occupancy(), Occupancy { rooms: 0, connections: 0 });
}

#[tokio::test(start_paused = true)]
async fn a_room_that_is_gone_from_the_store_closes_when_somebody_comes() {
    let world = World::new();
    world.join(1, user("bob")).await.unwrap();
    world.happened();
    world.store.tables().rooms.clear();
    assert_eq!(code(world.join(2, user("ann")).await), ErrorCode::RoomNotFound);
    assert_eq!(world.happened(), ["all: room:closed", "remove 1"]);
    ms(1_000).await;
    assert_eq!(world.state.occupancy(), Occupancy { rooms: 0, connections: 0 });
}

#[tokio::test(start_paused = true)]
async fn the_owner_updates_a_room_from_outside() {
    let world = World::new();
    let editor = Editor::User("ann".into());
    world.state.check_editor(Some("ROOMAAAA"), &editor).await.unwrap();
    let patch = RoomPatch { name: Some("Abend".into()), ..RoomPatch::default() };
    world.state.outside("ROOMAAAA", Command::Update { editor, patch }).await.unwrap();
    assert_eq!(world.store.tables().rooms["roomaaaa"].name, "Abend");
}

#[tokio::test(start_paused = true)]
async fn who_may_not_edit_is_told_before_a_password_is_hashed() {
    let world = World::new();
    world.join(1, user("bob")).await.unwrap();
    let member = Editor::Member(ConnectionId(1));
    assert_eq!(code(world.state.check_editor(None, &member).await), ErrorCode::Unauthorized);
    let stranger = Editor::Member(ConnectionId(9));
    assert_eq!(code(world.state.check_editor(None, &stranger).await), ErrorCode::NotInRoom);
    let user = Editor::User("bob".into());
    assert_eq!(code(world.state.check_editor(Some("ROOMAAAA"), &user).await), ErrorCode::Unauthorized);
}

#[tokio::test(start_paused = true)]
async fn a_kicked_connection_may_join_another_room() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    let oder_id = world.join(2, guest("Zoë")).await.unwrap().own.oder_id.clone();
    world.happened();
    let kick = Command::Kick { connection: ConnectionId(1), oder_id, reason: None };
    world.state.member(kick).await.unwrap();
    assert_eq!(world.happened(), ["removed Zoë", "to 2: room:kicked", "remove 2", "all: room:participant:left kicked"]);
    world.state.open(ConnectionId(2), "ROOMBBBB").await.unwrap().join(guest("Zoë")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_told_to_go_may_join_another_room_at_once() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    let connections = &world.state.0.connections;
    let cell = connections.room_of(ConnectionId(1)).unwrap();
    // The moment after `room:kicked` or `room:closed` has gone out.
    let room = Arc::clone(&cell.slot).lock_owned().await;
    let state = world.state.clone();
    let next = tokio::spawn(async move { state.open(ConnectionId(1), "ROOMBBBB").await.map(drop) });
    ms(1).await;
    connections.remove(ConnectionId(1));
    drop(room);
    next.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_late_end_of_a_replaced_connection_is_nobodys() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.join(2, user("ann")).await.unwrap();
    world.happened();
    world.state.disconnected(ConnectionId(1), false).await;
    assert_eq!((world.happened(), world.count().await), (vec![], 1));
}

#[tokio::test(start_paused = true)]
async fn an_absent_owner_gets_a_stand_in_on_time() {
    let world = World::new();
    world.join(1, user("bob")).await.unwrap();
    world.happened();
    ms(59_990).await;
    assert_eq!(world.happened(), Vec::<String>::new());
    ms(20).await;
    assert_eq!(world.happened(), ["all: room:owner:changed"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_room_stays_full_under_a_rush() {
    let world = World::new();
    world.store.tables().rooms.get_mut("roomaaaa").unwrap().max_participants = 5;
    world.store.set(Mood::Slow(20));
    let joins: Vec<_> = (1..=40)
        .map(|number| {
            let state = world.state.clone();
            tokio::spawn(async move {
                state.open(ConnectionId(number), "ROOMAAAA").await.unwrap().join(guest("Zoë")).await.map(drop)
            })
        })
        .collect();
    let mut full = 0;
    for join in joins {
        full += usize::from(join.await.unwrap().is_err_and(|refusal| refusal.code == ErrorCode::RoomFull));
    }
    assert_eq!((full, world.count().await, world.store.tables().participants.len()), (35, 5, 5));
    assert_eq!(world.state.occupancy().connections, 5);
}

/// Lets people come while the store is in this mood: the first one, and while that is written, all others at once.
async fn rush(world: &World, mood: Mood, joiners: Vec<(u64, Joiner)>) -> Vec<Result<Arc<RoomState>, Refusal>> {
    let mut answers = Vec::new();
    for join in begin_rush(world, mood, joiners).await {
        answers.push(join.await.unwrap());
    }
    answers
}

async fn begin_rush(
    world: &World,
    mood: Mood,
    joiners: Vec<(u64, Joiner)>,
) -> Vec<tokio::task::JoinHandle<Result<Arc<RoomState>, Refusal>>> {
    drop(world.state.open(ConnectionId(u64::MAX), "ROOMAAAA").await.unwrap());
    world.store.set(mood);
    let mut joins = Vec::new();
    for (number, joiner) in joiners {
        let state = world.state.clone();
        let join = async move { state.open(ConnectionId(number), "ROOMAAAA").await?.join(joiner).await };
        joins.push(tokio::spawn(join));
        if joins.len() == 1 {
            ms(1).await;
        }
    }
    joins
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_a_write_is_under_way_is_in_the_next_one() {
    let world = World::new();
    let begun = Instant::now();
    let answers = rush(&world, Mood::Slow(20), (1..=40).map(|number| (number, guest("Zoë"))).collect()).await;
    assert_eq!(begun.elapsed(), Duration::from_millis(40));
    assert_eq!(world.store.tables().writes, 2);
    // Each has entered after all who came before, and the order in which they are told shows nothing of the writes.
    for (place, answer) in answers.iter().enumerate() {
        let state = answer.as_ref().unwrap();
        assert_eq!(state.participants.len(), place + 1);
        assert_eq!(state.participants[place].row.oder_id, state.own.oder_id);
    }
    let told: Vec<_> = world.happened().into_iter().filter(|text| !text.starts_with("stored")).collect();
    let expected = (1..=40).flat_map(|number| {
        let texts = [format!("admit {number}"), format!("state {number} of {number}")];
        texts.into_iter().chain([format!("but {number}: room:participant:joined")])
    });
    assert_eq!(told, expected.collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_crowd_enters_in_more_than_one_write() {
    let world = World::new();
    world.store.tables().rooms.get_mut("roomaaaa").unwrap().max_participants = 300;
    let answers = rush(&world, Mood::Slow(20), (1..=301).map(|number| (number, guest("Zoë"))).collect()).await;
    let refused = answers.iter().filter(|answer| answer.is_err()).count();
    assert_eq!((refused, world.count().await, world.store.tables().participants.len()), (1, 300, 300));
    assert_eq!(code(answers.into_iter().next_back().unwrap()), ErrorCode::RoomFull);
    // The first alone, then 128, 128, and what is left.
    assert_eq!(world.store.tables().writes, 4);
}

#[tokio::test(start_paused = true)]
async fn nobody_of_a_group_has_entered_when_its_write_fails() {
    for mood in [Mood::Fails, Mood::Hangs, Mood::Lies] {
        let world = World::new();
        for answer in rush(&world, mood, (1..=20).map(|number| (number, guest("Zoë"))).collect()).await {
            assert_eq!(code(answer), ErrorCode::Unavailable);
        }
        assert_eq!((world.count().await, world.state.occupancy().connections), (0, 0));
        let is_told = |text: &String| !text.starts_with("stored") && !text.starts_with("removed");
        assert!(!world.happened().iter().any(is_told), "{mood:?}");
        world.store.set(Mood::Well);
        ms(5_000).await;
        assert_eq!(world.store.seats(), Vec::<String>::new(), "{mood:?}");
        world.join(1, user("ann")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_row_the_store_refuses_keeps_nobody_else_out() {
    let world = World::new();
    drop(world.state.open(ConnectionId(9), "ROOMAAAA").await.unwrap());
    // A seat the room does not know of.
    let elsewhere = World::new();
    elsewhere.join(1, user("bob")).await.unwrap();
    let row = elsewhere.store.tables().participants.values().next().cloned().unwrap();
    world.store.tables().participants.insert(row.id.clone(), row);
    let people = ["ann", "cy", "bob", "dan"].map(user).into_iter().chain([guest("Zoë")]);
    let answers = rush(&world, Mood::Slow(20), (1..).zip(people).collect()).await;
    let results: Vec<_> = answers.iter().map(|answer| answer.as_ref().map_err(|refusal| refusal.code)).collect();
    let entered: Vec<_> = results.iter().map(|result| result.is_ok()).collect();
    assert_eq!(entered, [true, true, false, true, true]);
    assert_eq!(results[2], Err(ErrorCode::InternalError));
    let seen = answers[4].as_ref().unwrap().participants.iter();
    let seen: Vec<_> = seen.map(|seat| seat.row.user_id.clone().unwrap_or_default()).collect();
    assert_eq!(seen, ["ann", "cy", "dan", ""]);
    assert_eq!((world.count().await, world.state.occupancy().connections), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn who_is_gone_before_the_group_is_written_was_never_there() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    let people = (2..=5).map(|number| (number, guest("Zoë"))).collect();
    let joins = begin_rush(&world, Mood::Slow(100), people).await;
    ms(50).await;
    world.happened();
    ms(100).await; // 3, 4 and 5 are being written
    world.state.disconnected(ConnectionId(3), false).await;
    world.state.0.publisher.note(lost(ConnectionId(5)));
    let mut seats = Vec::new();
    for join in joins {
        seats.push(join.await.unwrap().map(|state| state.participants.len()).map_err(|refusal| refusal.code));
    }
    let ended = Err(ErrorCode::Unavailable);
    assert_eq!(seats, [Ok(2), ended, Ok(3), ended]);
    world.state.disconnected(ConnectionId(5), false).await;
    assert_eq!((world.count().await, world.state.occupancy().connections), (3, 3));
    let told: Vec<_> = world
        .happened()
        .into_iter()
        .filter(|text| !text.starts_with("stored") && !text.starts_with("removed"))
        .collect();
    let welcome = |number, people| {
        [
            format!("admit {number}"),
            format!("state {number} of {people}"),
            format!("but {number}: room:participant:joined"),
        ]
    };
    assert_eq!(told, [welcome(2, 2).to_vec(), vec!["lost 5".into()], welcome(4, 3).to_vec()].concat());
    ms(3_000).await;
    assert_eq!(world.store.tables().participants.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn who_arrived_in_a_try_that_was_done_again_is_free_when_it_fails() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    let people = (2..=4).map(|number| (number, guest("Zoë"))).collect();
    let joins = begin_rush(&world, Mood::Slow(100), people).await;
    ms(150).await; // 3 and 4 are being written
    world.state.disconnected(ConnectionId(3), false).await;
    ms(75).await; // 4 is being written again
    let end = {
        let state = world.state.clone();
        tokio::spawn(async move { state.disconnected(ConnectionId(4), true).await })
    };
    world.state.0.publisher.note(lost(ConnectionId(4)));
    let mut entered = Vec::new();
    for join in joins {
        entered.push(join.await.unwrap().is_ok());
    }
    end.await.unwrap();
    assert_eq!(entered, [true, false, false]);
    assert_eq!((world.count().await, world.state.occupancy().connections), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn what_was_left_half_done_has_not_happened() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    let cell = world.state.0.connections.room_of(ConnectionId(1)).unwrap();
    let mut held = world.state.0.hold(Arc::clone(&cell)).await.unwrap();
    held.live.room.mark();
    held.live.room.handle(leave(1), START).unwrap();
    drop(held); // as a panic would
    world.happened();
    assert_eq!(world.count().await, 1);
    ms(1_000).await;
    assert_eq!((world.happened(), world.store.seats()), (vec![], vec!["ann".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn playback_goes_on_between_the_writes_of_a_crowd() {
    let world = World::new();
    world.join(1, user("ann")).await.unwrap();
    world.state.member(source(1)).await.unwrap();
    world.store.tables().rooms.get_mut("roomaaaa").unwrap().max_participants = 1_000;
    world.store.set(Mood::Slow(100));
    let begun = Instant::now();
    let joins: Vec<_> = (2..=40)
        .map(|number| {
            let state = world.state.clone();
            tokio::spawn(async move { state.open(ConnectionId(number), "ROOMAAAA").await?.join(guest("Zoë")).await })
        })
        .collect();
    ms(50).await;
    world.state.member(play(1)).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_millis(100), "after the write under way, before the next one");
    for join in joins {
        join.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn commands_of_many_go_out_in_sequence() {
    let world = World::new();
    world.store.tables().rooms.get_mut("roomaaaa").unwrap().playback_control = PlaybackControl::All;
    for number in 1..=20 {
        world.join(number, user(&format!("user{number}"))).await.unwrap();
    }
    world.state.member(source(1)).await.unwrap();
    world.happened();
    let plays: Vec<_> = (1..=20)
        .map(|number| {
            let state = world.state.clone();
            tokio::spawn(async move {
                for _ in 0..9 {
                    state.member(play(number)).await.unwrap();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for play in plays {
        play.await.unwrap();
    }
    let expected: Vec<_> = (2..=181).map(|sequence| format!("all: sync:command #{sequence}")).collect();
    assert_eq!(world.happened(), expected);
}

/// Real threads and real time: whatever the interleaving, memory, store and table of connections agree in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_people_at_once_leave_everything_in_agreement() {
    let options = StateOptions { linger_ms: 1, flush_after_ms: 1, ..StateOptions::default() };
    let world = World::with(options);
    let people: Vec<_> = (0..24_u64)
        .map(|person| {
            let state = world.state.clone();
            tokio::spawn(async move {
                for visit in 0..40 {
                    let connection = ConnectionId(person * 1_000 + visit);
                    let code = if (person + visit) % 3 == 0 { "ROOMBBBB" } else { "ROOMAAAA" };
                    let joiner = if person % 2 == 0 { guest("Zoë") } else { user(&format!("user{}", person % 7)) };
                    let ending = {
                        let state = state.clone();
                        async move { state.disconnected(connection, visit % 2 == 0).await }
                    };
                    let Ok(admission) = state.open(connection, code).await else { continue };
                    if visit % 5 == 0 {
                        // The end comes while the join is under way.
                        let (_joined, ()) = tokio::join!(admission.join(joiner), ending);
                        continue;
                    }
                    if admission.join(joiner).await.is_ok() && visit % 3 == 0 {
                        let _maybe_taken_over = state.member(leave(connection.0)).await;
                    }
                    ending.await;
                }
            })
        })
        .collect();
    for person in people {
        person.await.unwrap();
    }
    assert_eq!(world.state.occupancy().connections, 0);
    let mut seats = 0;
    for code in ["ROOMAAAA", "ROOMBBBB"] {
        seats += world.state.view(code).await.unwrap().1;
    }
    world.state.shutdown().await;
    assert_eq!(world.store.tables().participants.len(), seats);
}
