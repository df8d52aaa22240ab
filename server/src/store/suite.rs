//! The one suite every store passes: what [`RoomStore`] promises, tested through nothing but its methods.

use crate::id;
use crate::store::{RoomStore, StoreError};
use crate::sync::playback::{PlaybackState, SourceType};
use crate::sync::rows::{ParticipantRow, PlaybackControl, PlaybackRow, Role, RoomRow, RowChange, WaitFor};

/// Makes one test of each promise. `$fixture` is evaluated for each and is something with a field `store`.
macro_rules! store_suite {
    ($fixture:expr) => {
        $crate::store::suite::store_suite!($fixture;
            a_room_reads_back_as_written
            absence_is_none_or_empty
            codes_are_compared_without_case
            a_taken_code_or_id_is_a_conflict
            of_many_creators_of_one_code_one_wins
            participants_come_in_the_order_they_joined
            a_participant_is_replaced_by_id
            a_user_and_an_oder_id_have_one_seat_in_a_room
            a_change_for_a_missing_room_is_told
            changes_are_made_all_or_not_at_all
            a_saved_room_replaces_the_old_one
            a_removed_room_takes_everything_along
            playback_reads_back_as_written
            expired_rooms_are_listed_oldest_first
            a_room_that_has_more_time_by_now_is_not_removed_as_expired
            many_writers_at_once_are_all_served
            a_write_is_seen_by_the_next_read
            odd_text_is_kept_as_it_is
            a_ping_is_answered
            a_ping_leaves_nothing_behind
        );
    };
    ($fixture:expr; $($name:ident)+) => {
        $(
            #[tokio::test]
            async fn $name() {
                let fixture = $fixture;
                $crate::store::suite::$name(&fixture.store).await;
            }
        )+
    };
}

pub(super) use store_suite;

pub(super) async fn a_room_reads_back_as_written(store: &impl RoomStore) {
    let controls = [PlaybackControl::OwnerOnly, PlaybackControl::All, PlaybackControl::Selected];
    for (index, playback_control) in controls.into_iter().enumerate() {
        let room = RoomRow {
            password_hash: (index == 1).then(|| "$argon2id$...".to_owned()),
            wait_for: if index == 2 { WaitFor::All } else { WaitFor::None },
            playback_control,
            ..room_with_code(&id::room_code())
        };
        store.create_room(room.clone()).await.unwrap();
        assert_eq!(store.room_by_code(&room.code).await, Ok(Some(room.clone())));
        assert_eq!(store.room_by_id(&room.id).await, Ok(Some(room)));
    }
    assert_eq!(store.room_count().await, Ok(3));
}

pub(super) async fn absence_is_none_or_empty(store: &impl RoomStore) {
    assert_eq!(store.room_by_code("AAAABBBB").await, Ok(None));
    assert_eq!(store.room_by_code("").await, Ok(None));
    assert_eq!(store.room_by_id("nobody").await, Ok(None));
    assert_eq!(store.participants("nobody").await, Ok(vec![]));
    assert_eq!(store.playback("nobody").await, Ok(None));
    assert_eq!(store.expired_rooms(i64::MAX, 10).await, Ok(vec![]));
    assert_eq!(store.room_count().await, Ok(0));
    let nothing = vec![RowChange::RemoveParticipant("x".to_owned()), RowChange::RemoveRoom("x".to_owned())];
    assert_eq!(store.apply(nothing).await, Ok(()));
    assert_eq!(store.apply(vec![]).await, Ok(()));
}

pub(super) async fn codes_are_compared_without_case(store: &impl RoomStore) {
    let room = room_with_code("ABCD2345");
    store.create_room(room.clone()).await.unwrap();
    assert_eq!(store.room_by_code("abCd2345").await, Ok(Some(room)));
    assert_eq!(store.create_room(room_with_code("abcd2345")).await, Err(StoreError::Conflict));
    assert_eq!(store.room_by_code("ABCD234_").await, Ok(None));
    assert_eq!(store.room_by_code("ABCD234%").await, Ok(None));
}

pub(super) async fn a_taken_code_or_id_is_a_conflict(store: &impl RoomStore) {
    let first = room_with_code("AAAABBBB");
    store.create_room(first.clone()).await.unwrap();
    assert_eq!(store.create_room(room_with_code("AAAABBBB")).await, Err(StoreError::Conflict));
    let same_id = RoomRow { id: first.id.clone(), ..room_with_code("CCCCDDDD") };
    assert_eq!(store.create_room(same_id).await, Err(StoreError::Conflict));
    assert_eq!(store.room_by_id(&first.id).await, Ok(Some(first)));
    assert_eq!(store.room_count().await, Ok(1));
}

pub(super) async fn of_many_creators_of_one_code_one_wins(store: &impl RoomStore) {
    let creations = (0..20).map(|_| store.create_room(room_with_code("AAAABBBB")));
    let outcomes = all(creations).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Err(StoreError::Conflict)).count(), 19);
}

pub(super) async fn participants_come_in_the_order_they_joined(store: &impl RoomStore) {
    let room = stored_room(store).await;
    let guest = ParticipantRow {
        user_id: None,
        username: None,
        guest_name: Some("Gast".to_owned()),
        role: Role::Guest,
        ..participant_of(&room, "", 20)
    };
    let owner = ParticipantRow { role: Role::Owner, can_control: true, ..participant_of(&room, "u1", 30) };
    let early = participant_of(&room, "u2", 10);
    let second_guest = ParticipantRow { user_id: None, ..participant_of(&room, "", 40) };
    for seat in [&guest, &owner, &early, &second_guest] {
        store.apply(vec![RowChange::UpsertParticipant(seat.clone())]).await.unwrap();
    }
    let other = stored_room(store).await;
    store.apply(vec![RowChange::UpsertParticipant(participant_of(&other, "u1", 5))]).await.unwrap();
    assert_eq!(store.participants(&room.id).await, Ok(vec![early, guest, owner, second_guest]));
}

pub(super) async fn a_participant_is_replaced_by_id(store: &impl RoomStore) {
    let room = stored_room(store).await;
    let first = participant_of(&room, "u1", 10);
    let second = ParticipantRow {
        oder_id: id::order_id(),
        username: None,
        can_control: true,
        role: Role::Owner,
        resume_hash: [0xff; 32],
        ..first.clone()
    };
    store.apply(vec![RowChange::UpsertParticipant(first.clone())]).await.unwrap();
    store.apply(vec![RowChange::UpsertParticipant(second.clone())]).await.unwrap();
    assert_eq!(store.participants(&room.id).await, Ok(vec![second]));
    store.apply(vec![RowChange::RemoveParticipant(first.id)]).await.unwrap();
    assert_eq!(store.participants(&room.id).await, Ok(vec![]));
}

pub(super) async fn a_user_and_an_oder_id_have_one_seat_in_a_room(store: &impl RoomStore) {
    let room = stored_room(store).await;
    let seat = participant_of(&room, "u1", 10);
    store.apply(vec![RowChange::UpsertParticipant(seat.clone())]).await.unwrap();
    let same_user = participant_of(&room, "u1", 20);
    let same_oder_id = ParticipantRow { oder_id: seat.oder_id.clone(), ..participant_of(&room, "u2", 20) };
    for second in [same_user.clone(), same_oder_id] {
        assert_eq!(store.apply(vec![RowChange::UpsertParticipant(second)]).await, Err(StoreError::Conflict));
    }
    assert_eq!(store.participants(&room.id).await, Ok(vec![seat.clone()]));
    let change_of_seat = vec![RowChange::RemoveParticipant(seat.id), RowChange::UpsertParticipant(same_user.clone())];
    assert_eq!(store.apply(change_of_seat).await, Ok(()));
    assert_eq!(store.participants(&room.id).await, Ok(vec![same_user]));
}

pub(super) async fn a_change_for_a_missing_room_is_told(store: &impl RoomStore) {
    let room = room_with_code("AAAABBBB");
    let changes = [RowChange::UpsertParticipant(participant_of(&room, "u1", 1)), RowChange::SaveRoom(room.clone())];
    for change in changes {
        assert_eq!(store.apply(vec![change]).await, Err(StoreError::Missing));
    }
    assert_eq!(store.save_playback(playback_of(&room, 1)).await, Err(StoreError::Missing));
    assert_eq!(store.room_count().await, Ok(0));
}

pub(super) async fn changes_are_made_all_or_not_at_all(store: &impl RoomStore) {
    let room = stored_room(store).await;
    let renamed = RoomRow { name: "other".to_owned(), ..room.clone() };
    let seat = participant_of(&room, "u1", 1);
    let twin = participant_of(&room, "u1", 2);
    let changes = vec![
        RowChange::SaveRoom(renamed),
        RowChange::UpsertParticipant(seat),
        RowChange::UpsertParticipant(twin),
        RowChange::RemoveRoom(room.id.clone()),
    ];
    assert_eq!(store.apply(changes).await, Err(StoreError::Conflict));
    assert_eq!(store.room_by_id(&room.id).await, Ok(Some(room.clone())));
    assert_eq!(store.participants(&room.id).await, Ok(vec![]));
}

pub(super) async fn a_saved_room_replaces_the_old_one(store: &impl RoomStore) {
    let room = stored_room(store).await;
    let next = RoomRow {
        name: "another".to_owned(),
        owner_id: "u9".to_owned(),
        max_participants: 2,
        password_hash: Some("hash".to_owned()),
        playback_control: PlaybackControl::Selected,
        wait_for: WaitFor::All,
        expires_at_ms: room.expires_at_ms + 1,
        ..room.clone()
    };
    store.apply(vec![RowChange::SaveRoom(next.clone())]).await.unwrap();
    assert_eq!(store.room_by_code(&room.code).await, Ok(Some(next.clone())));
    let open = RoomRow { password_hash: None, ..next };
    store.apply(vec![RowChange::SaveRoom(open.clone())]).await.unwrap();
    assert_eq!(store.room_by_id(&room.id).await, Ok(Some(open)));
}

pub(super) async fn a_removed_room_takes_everything_along(store: &impl RoomStore) {
    let room = stored_room(store).await;
    let kept = stored_room(store).await;
    let kept_seat = participant_of(&kept, "u1", 1);
    let seats = vec![
        RowChange::UpsertParticipant(participant_of(&room, "u1", 1)),
        RowChange::UpsertParticipant(kept_seat.clone()),
    ];
    store.apply(seats).await.unwrap();
    store.save_playback(playback_of(&room, 1)).await.unwrap();
    store.apply(vec![RowChange::RemoveRoom(room.id.clone())]).await.unwrap();
    assert_eq!(store.room_by_id(&room.id).await, Ok(None));
    assert_eq!(store.participants(&room.id).await, Ok(vec![]));
    assert_eq!(store.playback(&room.id).await, Ok(None));
    assert_eq!(store.participants(&kept.id).await, Ok(vec![kept_seat]));
    assert_eq!(store.create_room(RoomRow { id: id::row_id(), ..room }).await, Ok(()));
}

pub(super) async fn playback_reads_back_as_written(store: &impl RoomStore) {
    let room = stored_room(store).await;
    assert_eq!(store.playback(&room.id).await, Ok(None));
    let empty = PlaybackRow { room_id: room.id.clone(), state: None, sequence: 0, sequence_limit: 0 };
    let mut half = playback_of(&room, 7);
    if let Some(state) = &mut half.state {
        state.anchor_media_time_ms = 0.1 + 0.2;
        state.playback_rate = 1.0 / 3.0;
    }
    let large = PlaybackRow { sequence_limit: i64::MAX as u64, ..playback_of(&room, 1 << 53) };
    for playback in [empty.clone(), half, large, empty] {
        store.save_playback(playback.clone()).await.unwrap();
        assert_eq!(store.playback(&room.id).await, Ok(Some(playback)));
    }
}

pub(super) async fn expired_rooms_are_listed_oldest_first(store: &impl RoomStore) {
    let mut rooms = Vec::new();
    for expires_at_ms in [300, 100, 200, 400] {
        let room = RoomRow { expires_at_ms, ..room_with_code(&id::room_code()) };
        store.create_room(room.clone()).await.unwrap();
        rooms.push(room);
    }
    let oldest = [&rooms[1], &rooms[2], &rooms[0]].map(Clone::clone).to_vec();
    assert_eq!(store.expired_rooms(300, 10).await, Ok(oldest.clone()));
    assert_eq!(store.expired_rooms(399, 2).await, Ok(oldest[..2].to_vec()));
    assert_eq!(store.expired_rooms(99, 10).await, Ok(vec![]));
    assert_eq!(store.expired_rooms(300, 0).await, Ok(vec![]));
    assert_eq!(store.room_count().await, Ok(4));
}

pub(super) async fn a_room_that_has_more_time_by_now_is_not_removed_as_expired(store: &impl RoomStore) {
    let room = RoomRow { expires_at_ms: 100, ..room_with_code(&id::room_code()) };
    store.create_room(room.clone()).await.unwrap();
    let remove = |now_ms| vec![RowChange::RemoveExpired { id: room.id.clone(), now_ms }];
    store.apply(vec![RowChange::SaveRoom(RoomRow { expires_at_ms: 300, ..room.clone() })]).await.unwrap();
    store.apply(remove(299)).await.unwrap();
    assert_eq!(store.room_count().await, Ok(1));
    store.apply(remove(300)).await.unwrap();
    store.apply(remove(300)).await.unwrap();
    assert_eq!(store.room_count().await, Ok(0));
}

pub(super) async fn many_writers_at_once_are_all_served(store: &impl RoomStore) {
    let room = stored_room(store).await;
    let seats: Vec<_> = (0..300).map(|index| participant_of(&room, &format!("u{index}"), index)).collect();
    let writes = seats.iter().map(|seat| store.apply(vec![RowChange::UpsertParticipant(seat.clone())]));
    assert!(all(writes).await.iter().all(Result::is_ok));
    assert_eq!(store.participants(&room.id).await, Ok(seats));
}

pub(super) async fn a_write_is_seen_by_the_next_read(store: &impl RoomStore) {
    let room = stored_room(store).await;
    for sequence in 1..100 {
        store.save_playback(playback_of(&room, sequence)).await.unwrap();
        let read = store.playback(&room.id).await.unwrap().unwrap();
        assert_eq!(read.sequence, sequence);
    }
}

pub(super) async fn odd_text_is_kept_as_it_is(store: &impl RoomStore) {
    for name in ["'; DROP TABLE rooms; --", "\u{0}nul", "🎬 عربي", " ", &"x".repeat(100_000)] {
        let room = RoomRow { name: name.to_owned(), ..room_with_code(&id::room_code()) };
        store.create_room(room.clone()).await.unwrap();
        assert_eq!(store.room_by_id(&room.id).await, Ok(Some(room)));
    }
}

pub(super) async fn a_ping_is_answered(store: &impl RoomStore) {
    assert_eq!(store.ping().await, Ok(()));
    stored_room(store).await;
    assert_eq!(store.ping().await, Ok(()));
}

pub(super) async fn a_ping_leaves_nothing_behind(store: &impl RoomStore) {
    let room = stored_room(store).await;
    let pings = (0..20).map(|_| store.ping());
    assert_eq!(all(pings).await, [const { Ok(()) }; 20]);
    assert_eq!(store.room_count().await, Ok(1));
    assert_eq!(store.expired_rooms(i64::MAX, 10).await, Ok(vec![room]));
}

/// A room of a new id under this code.
pub(crate) fn room_with_code(code: &str) -> RoomRow {
    RoomRow {
        id: id::row_id(),
        code: code.to_owned(),
        name: "Filmabend".to_owned(),
        owner_id: "owner".to_owned(),
        max_participants: 10,
        password_hash: None,
        playback_control: PlaybackControl::OwnerOnly,
        wait_for: WaitFor::None,
        created_at_ms: 1_700_000_000_000,
        expires_at_ms: 1_700_086_400_000,
    }
}

/// A seat of a user in a room, with new ids.
pub(super) fn participant_of(room: &RoomRow, user_id: &str, joined_at_ms: i64) -> ParticipantRow {
    ParticipantRow {
        id: id::row_id(),
        room_id: room.id.clone(),
        oder_id: id::order_id(),
        user_id: Some(user_id.to_owned()),
        username: Some(format!("name of {user_id}")),
        guest_name: None,
        role: Role::Participant,
        can_control: false,
        joined_at_ms,
        resume_hash: id::random(),
    }
}

fn playback_of(room: &RoomRow, sequence: u64) -> PlaybackRow {
    let state = PlaybackState {
        room_id: room.id.clone(),
        source_type: SourceType::Youtube,
        source_id: "dQw4w9WgXcQ".to_owned(),
        is_playing: true,
        playback_rate: 1.25,
        anchor_server_time_ms: 1_700_000_000_123,
        anchor_media_time_ms: 4200.5,
        sequence_number: sequence,
    };
    PlaybackRow { room_id: room.id.clone(), state: Some(state), sequence, sequence_limit: sequence + 100 }
}

async fn stored_room(store: &impl RoomStore) -> RoomRow {
    let room = room_with_code(&id::room_code());
    store.create_room(room.clone()).await.unwrap();
    room
}

/// Polls all futures at once and waits for all.
async fn all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = futures.map(Box::pin).collect();
    let mut outputs: Vec<Option<T>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, output) in running.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *output = Some(value);
            }
        }
        if outputs.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}
