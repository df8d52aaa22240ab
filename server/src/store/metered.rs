//! A store whose calls are timed.

use std::sync::Arc;
use std::time::Instant;

use super::{RoomStore, StoreError};
use crate::http::metrics::Metrics;
use crate::sync::rows::{ParticipantRow, PlaybackRow, RoomRow, RowChange};

/// Passes every call on, and records how long it took and whether the store did its part.
///
/// A conflict or a missing room is an answer, not a failure of the store.
#[derive(Debug)]
pub struct Metered<S> {
    store: S,
    metrics: Arc<Metrics>,
}

impl<S> Metered<S> {
    /// Wraps a store.
    pub fn new(store: S, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics }
    }

    async fn timed<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let began = Instant::now();
        let answer = call.await;
        let is_ok = !matches!(answer, Err(StoreError::Unavailable(_) | StoreError::Corrupt(_)));
        self.metrics.store_call(operation, is_ok, began.elapsed());
        answer
    }
}

impl<S: RoomStore> RoomStore for Metered<S> {
    async fn create_room(&self, room: RoomRow) -> Result<(), StoreError> {
        self.timed("create_room", self.store.create_room(room)).await
    }

    async fn room_by_code(&self, code: &str) -> Result<Option<RoomRow>, StoreError> {
        self.timed("room_by_code", self.store.room_by_code(code)).await
    }

    async fn room_by_id(&self, id: &str) -> Result<Option<RoomRow>, StoreError> {
        self.timed("room_by_id", self.store.room_by_id(id)).await
    }

    async fn participants(&self, room_id: &str) -> Result<Vec<ParticipantRow>, StoreError> {
        self.timed("participants", self.store.participants(room_id)).await
    }

    async fn playback(&self, room_id: &str) -> Result<Option<PlaybackRow>, StoreError> {
        self.timed("playback", self.store.playback(room_id)).await
    }

    async fn apply(&self, changes: Vec<RowChange>) -> Result<(), StoreError> {
        self.timed("apply", self.store.apply(changes)).await
    }

    async fn save_playback(&self, playback: PlaybackRow) -> Result<(), StoreError> {
        self.timed("save_playback", self.store.save_playback(playback)).await
    }

    async fn expired_rooms(&self, now_ms: i64, limit: u32) -> Result<Vec<RoomRow>, StoreError> {
        self.timed("expired_rooms", self.store.expired_rooms(now_ms, limit)).await
    }

    async fn room_count(&self) -> Result<u64, StoreError> {
        self.timed("room_count", self.store.room_count()).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.timed("ping", self.store.ping()).await
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::super::sqlite::SqliteStore;
    use super::super::suite;
    use super::*;
    use crate::testing::TempDir;

    struct Fixture {
        store: Metered<SqliteStore>,
        _dir: TempDir,
    }

    fn fixture() -> Fixture {
        let dir = TempDir::new();
        let store = SqliteStore::open(dir.path()).unwrap();
        Fixture { store: Metered::new(store, Arc::new(Metrics::new())), _dir: dir }
    }

    suite::store_suite!(fixture());

    #[tokio::test]
    async fn calls_are_counted_by_operation_and_result() {
        let Fixture { store, .. } = fixture();
        store.ping().await.unwrap();
        let missing = RowChange::SaveRoom(suite::room_with_code("AAAABBBB"));
        store.apply(vec![missing]).await.unwrap_err();
        let too_large =
            PlaybackRow { room_id: "r".to_owned(), state: None, sequence: u64::MAX, sequence_limit: u64::MAX };
        store.save_playback(too_large).await.unwrap_err();
        let body = store.metrics.answer(None).into_body().collect().await.unwrap().to_bytes();
        let text = std::str::from_utf8(&body).unwrap();
        for labels in [
            r#"{operation="ping",result="ok"} 1"#,
            r#"{operation="apply",result="ok"} 1"#,
            r#"{operation="save_playback",result="error"} 1"#,
        ] {
            assert!(text.contains(&format!("syncwatch_store_seconds_count{labels}")), "{text}");
        }
    }
}
