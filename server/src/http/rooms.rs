//! `/api/rooms`: creating, looking up, changing and deleting rooms.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;

use super::{Answer, failure, method_not_allowed, success, success_with_token};
use crate::auth::Identity;
use crate::http::metrics::Refusal as RefusalReason;
use crate::id;
use crate::store::{RoomStore, StoreError};
use crate::sync::event::{ErrorCode, Refusal, RoomView, UpdateRequest};
use crate::sync::room::{Command, Editor, RoomPatch};
use crate::sync::rows::{PlaybackControl, RoomRow, WaitFor};
use crate::sync::{Service, internal};

/// Where rooms are.
pub const PATH: &str = "/api/rooms";

/// Most bytes of a request's body.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Seats of a room whose creator names no number.
const DEFAULT_SEATS: u32 = 50;
/// The name of a room whose creator names none.
const DEFAULT_NAME: &str = "Watch party";
/// How often a code is drawn anew when it is taken; of 32^8 codes, even twice is unlikely.
const DRAWS: usize = 8;

/// Answers a request for rooms; `path` is what comes after [`PATH`].
pub async fn answer<S, B>(service: &Service<S>, store: &S, path: &str, request: &Parts, body: B) -> Answer
where
    S: RoomStore,
    B: hyper::body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let code = path.strip_prefix('/').filter(|code| !code.is_empty());
    let result = match (&request.method, code) {
        (&Method::POST, None) => create(service, store, &request.headers, body).await,
        (_, None) => return method_not_allowed("POST"),
        (_, Some(code)) if !id::is_room_code(code) => {
            Err(Refusal::new(ErrorCode::RoomNotFound, "there is no such room").into())
        }
        (&Method::GET | &Method::HEAD, Some(code)) => look_up(service, code).await,
        (&Method::PATCH, Some(code)) => update(service, code, &request.headers, body).await,
        (&Method::DELETE, Some(code)) => delete(service, code, &request.headers).await,
        (_, Some(_)) => return method_not_allowed("GET, PATCH, DELETE"),
    };
    result.unwrap_or_else(|Denied { refusal, status: own }| {
        let status = own.unwrap_or_else(|| status(&refusal, request.headers.contains_key(AUTHORIZATION)));
        let mut answer = failure(status, refusal.code.as_str(), &refusal.message);
        if status == StatusCode::UNAUTHORIZED {
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        answer
    })
}

/// Why a request was not done, and the status where the refusal's own does not tell enough.
struct Denied {
    refusal: Refusal,
    status: Option<StatusCode>,
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, status: None }
    }
}

fn status(refusal: &Refusal, has_token: bool) -> StatusCode {
    match refusal.code {
        ErrorCode::RoomNotFound => StatusCode::NOT_FOUND,
        ErrorCode::ValidationError => StatusCode::BAD_REQUEST,
        ErrorCode::InvalidToken => StatusCode::UNAUTHORIZED,
        ErrorCode::Unauthorized | ErrorCode::InvalidPassword if has_token => StatusCode::FORBIDDEN,
        ErrorCode::Unauthorized | ErrorCode::InvalidPassword => StatusCode::UNAUTHORIZED,
        ErrorCode::RoomFull | ErrorCode::AlreadyInRoom | ErrorCode::NotInRoom => StatusCode::CONFLICT,
        ErrorCode::RateLimitExceeded => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A room as its creator, or anybody who knows its code, sees it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RoomAnswer {
    #[serde(flatten)]
    room: RoomView,
    #[serde(skip_serializing_if = "Option::is_none")]
    participant_count: Option<usize>,
}

async fn create<S, B>(service: &Service<S>, store: &S, headers: &HeaderMap, body: B) -> Result<Answer, Denied>
where
    S: RoomStore,
    B: hyper::body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let config = &service.config;
    let owner = match user(service, headers)? {
        Some(user) => Some(user.user_id),
        None if config.guest_rooms => None,
        None => return Err(Refusal::new(ErrorCode::Unauthorized, "creating a room needs a token").into()),
    };
    let request = read(body, config.room_max_participants).await?;
    let rooms = store.room_count().await.map_err(|error| store_failure(&error))?;
    if rooms >= config.max_rooms {
        service.metrics.refused(RefusalReason::Rooms);
        tracing::warn!(rooms, "no more rooms can be created: MAX_ROOMS is reached");
        return Err(Refusal::new(ErrorCode::Unavailable, "there are too many rooms, try again later").into());
    }
    let (owner_id, token) = match owner {
        Some(owner_id) => (owner_id, None),
        None => {
            let owner_id = format!("guest-{}", id::row_id());
            let token = service.tokens.issue(&owner_id, None, config.room_ttl);
            let token = token.map_err(|error| internal(&format!("a token could not be made: {error}")))?;
            (owner_id, Some(token))
        }
    };
    let row = room_row(service, owner_id, service.patch(request).await?);
    let room = insert(store, row).await?;
    tracing::debug!(room = room.id, "a room was created");
    let room = RoomView { row: room.into(), acting_oder_id: None };
    let data = RoomAnswer { room, participant_count: None };
    Ok(match token {
        Some(token) => success_with_token(StatusCode::CREATED, &data, &token),
        None => success(StatusCode::CREATED, &data),
    })
}

fn room_row<S: RoomStore>(service: &Service<S>, owner_id: String, patch: RoomPatch) -> RoomRow {
    let now_ms = service.state.clock().now_ms();
    let ttl_ms = i64::try_from(service.config.room_ttl.as_millis()).unwrap_or(i64::MAX);
    RoomRow {
        id: id::row_id(),
        code: id::room_code(),
        name: patch.name.unwrap_or_else(|| DEFAULT_NAME.to_owned()),
        owner_id,
        max_participants: patch
            .max_participants
            .unwrap_or_else(|| DEFAULT_SEATS.min(service.config.room_max_participants)),
        password_hash: patch.password_hash.flatten(),
        playback_control: patch.playback_control.unwrap_or(PlaybackControl::OwnerOnly),
        wait_for: patch.wait_for.unwrap_or(WaitFor::None),
        created_at_ms: now_ms,
        expires_at_ms: now_ms.saturating_add(ttl_ms),
    }
}

/// Stores a new room, under another code where the one drawn is taken.
async fn insert<S: RoomStore>(store: &S, mut row: RoomRow) -> Result<RoomRow, Refusal> {
    for _ in 0..DRAWS {
        match store.create_room(row.clone()).await {
            Ok(()) => return Ok(row),
            Err(StoreError::Conflict) => row.code = id::room_code(),
            Err(error) => return Err(store_failure(&error)),
        }
    }
    Err(internal("no free room code was drawn"))
}

async fn look_up<S: RoomStore>(service: &Service<S>, code: &str) -> Result<Answer, Denied> {
    let (room, count) = service.state.view(&code.to_ascii_uppercase()).await?;
    Ok(success(StatusCode::OK, &RoomAnswer { room, participant_count: Some(count) }))
}

async fn update<S, B>(service: &Service<S>, code: &str, headers: &HeaderMap, body: B) -> Result<Answer, Denied>
where
    S: RoomStore,
    B: hyper::body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let code = code.to_ascii_uppercase();
    let editor = Editor::User(require_user(service, headers)?.user_id);
    let request = read(body, service.config.room_max_participants).await?;
    service.state.check_editor(Some(&code), &editor).await?;
    let patch = service.patch(request).await?;
    service.state.outside(&code, Command::Update { editor, patch }).await?;
    look_up(service, &code).await
}

async fn delete<S: RoomStore>(service: &Service<S>, code: &str, headers: &HeaderMap) -> Result<Answer, Denied> {
    #[derive(Serialize)]
    struct Deleted {
        deleted: bool,
    }
    let user = require_user(service, headers)?;
    service.state.outside(&code.to_ascii_uppercase(), Command::Delete { user_id: user.user_id }).await?;
    Ok(success(StatusCode::OK, &Deleted { deleted: true }))
}

/// Finds out who asks; `None` where no token came.
fn user<S: RoomStore>(service: &Service<S>, headers: &HeaderMap) -> Result<Option<Identity>, Refusal> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let invalid = |message: String| Refusal::new(ErrorCode::InvalidToken, message);
    let token = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let token = token.ok_or_else(|| invalid("the Authorization header must be: Bearer, then a token".to_owned()))?;
    service.tokens.verify(token).map(Some).map_err(|error| {
        service.metrics.refused(RefusalReason::Token);
        invalid(error.to_string())
    })
}

fn require_user<S: RoomStore>(service: &Service<S>, headers: &HeaderMap) -> Result<Identity, Refusal> {
    user(service, headers)?.ok_or_else(|| Refusal::new(ErrorCode::Unauthorized, "this needs the owner's token"))
}

/// Reads a body within its limits; none at all is as good as `{}`.
async fn read<B>(body: B, most_participants: u32) -> Result<UpdateRequest, Denied>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let denied = |status, message: &'static str| Denied { refusal: Refusal::invalid(message), status: Some(status) };
    let collecting = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect());
    let body = match collecting.await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return Err(denied(StatusCode::PAYLOAD_TOO_LARGE, "the body must be 16 KiB at most"));
        }
        Ok(Err(_)) => return Err(denied(StatusCode::BAD_REQUEST, "the body must be complete")),
        Err(_late) => return Err(denied(StatusCode::REQUEST_TIMEOUT, "the body took too long")),
    };
    let text = std::str::from_utf8(&body).map_err(|_| Refusal::invalid("the body must be JSON in UTF-8"))?;
    let text = text.trim();
    if text == "null" {
        return Err(Refusal::invalid("the body must be a JSON object").into());
    }
    Ok(UpdateRequest::decode((!text.is_empty()).then_some(text), most_participants)?)
}

fn store_failure(error: &StoreError) -> Refusal {
    match error {
        StoreError::Unavailable(_) => {
            tracing::warn!(%error, "a room could not be created");
            Refusal::new(ErrorCode::Unavailable, "rooms cannot be stored at the moment, try again")
        }
        StoreError::Conflict | StoreError::Missing | StoreError::Corrupt(_) => internal(&error.to_string()),
    }
}
