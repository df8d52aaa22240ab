//! The store in PostgreSQL: a few connections, and every write in a transaction of its own.
//!
//! What the deadline cuts off leaves its connection in an unknown state, so that the connection is closed and not used
//! again. A write cut off like that may still commit later, but no later than writes of the same rows that follow it:
//! it commits only if all its locks were taken before, and they wait for those.

use std::borrow::Cow;
use std::error::Error as _;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Transaction};
use refinery::error::Kind;
use refinery::{Migration, Runner};
use rustls::{ClientConfig, RootCertStore};
use tokio::time;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, ToSql};
use tokio_postgres::{Config, Error, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{DEADLINE, Probe, RoomStore, StoreError};
use crate::sync::rows::{ParticipantRow, PlaybackRow, RoomRow, RowChange, UnknownName};

/// The store in PostgreSQL. Several may share a database.
pub struct PostgresStore {
    pool: Pool,
}

/// Why the store in PostgreSQL could not be opened. No message holds the password.
#[derive(Debug)]
pub enum OpenError {
    /// The URL is none of a PostgreSQL database.
    Url(String),
    /// The certificates of the system cannot be read, and TLS was asked for.
    Certificates,
    /// The database cannot be reached, or does not let us in.
    Connect(String),
    /// The tables cannot be made or brought up to date.
    Migrate(String),
    /// The database was written by a newer release.
    NewerSchema {
        /// Version of the database.
        found: i32,
        /// Newest version this release knows.
        known: i32,
    },
}

impl PostgresStore {
    /// Connects to the database at `url` and migrates it as needed; of several that start at once, one at a time.
    ///
    /// TLS is used where the URL asks for it with `sslmode=require` or `sslmode=prefer`, and then the certificate of the
    /// server must be one the system trusts.
    ///
    /// # Errors
    /// [`OpenError`]; the message is fit for the operator.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        let store = Self { pool: pool(url)? };
        let late = |_| OpenError::Connect(format!("it did not answer within {OPEN_WITHIN:?}"));
        time::timeout(OPEN_WITHIN, store.migrate()).await.map_err(late)??;
        Ok(store)
    }

    async fn migrate(&self) -> Result<(), OpenError> {
        let mut lease = self.lease().await.map_err(|error| OpenError::Connect(pool_cause(&error)))?;
        migrate(&mut lease).await?;
        lease.give_back();
        Ok(())
    }

    async fn lease(&self) -> Result<Lease, PoolError> {
        Ok(Lease { connection: Some(self.pool.get().await?) })
    }

    async fn rows(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        within_deadline(async {
            let lease = self.lease().await?;
            let statement = lease.prepare_cached(sql).await?;
            let rows = lease.query(&statement, parameters).await?;
            lease.give_back();
            Ok(rows)
        })
        .await
    }

    async fn write(&self, request: Request<'_>) -> Result<(), StoreError> {
        within_deadline(async {
            let mut lease = self.lease().await?;
            let transaction = lease.transaction().await?;
            let outcome = carry_out(&transaction, request).await;
            match outcome {
                Ok(()) => transaction.commit().await?,
                Err(StoreError::Conflict | StoreError::Missing) => transaction.rollback().await?,
                Err(StoreError::Unavailable(_) | StoreError::Corrupt(_)) => return outcome,
            }
            lease.give_back();
            outcome
        })
        .await
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}

impl RoomStore for PostgresStore {
    async fn create_room(&self, room: RoomRow) -> Result<(), StoreError> {
        self.write(Request::CreateRoom(&room)).await
    }

    async fn room_by_code(&self, code: &str) -> Result<Option<RoomRow>, StoreError> {
        let code = code.to_ascii_uppercase();
        first(&self.rows(ROOM_BY_CODE, &[&escaped(&code)]).await?, room)
    }

    async fn room_by_id(&self, id: &str) -> Result<Option<RoomRow>, StoreError> {
        first(&self.rows(ROOM_BY_ID, &[&escaped(id)]).await?, room)
    }

    async fn participants(&self, room_id: &str) -> Result<Vec<ParticipantRow>, StoreError> {
        self.rows(PARTICIPANTS, &[&escaped(room_id)]).await?.iter().map(participant).collect()
    }

    async fn playback(&self, room_id: &str) -> Result<Option<PlaybackRow>, StoreError> {
        first(&self.rows(PLAYBACK, &[&escaped(room_id)]).await?, playback)
    }

    async fn apply(&self, changes: Vec<RowChange>) -> Result<(), StoreError> {
        self.write(Request::Apply(&changes)).await
    }

    async fn save_playback(&self, playback: PlaybackRow) -> Result<(), StoreError> {
        self.write(Request::SavePlayback(&playback)).await
    }

    async fn expired_rooms(&self, now_ms: i64, limit: u32) -> Result<Vec<RoomRow>, StoreError> {
        self.rows(EXPIRED_ROOMS, &[&now_ms, &i64::from(limit)]).await?.iter().map(room).collect()
    }

    async fn room_count(&self) -> Result<u64, StoreError> {
        let count = first(&self.rows(ROOM_COUNT, &[]).await?, |row| unsigned(row, "count"))?;
        count.ok_or_else(|| unreadable("count"))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.write(Request::Probe(&Probe::new())).await?;
        self.rows(ANY_ROOM, &[]).await.map(|_| ())
    }
}

/// A connection in use. It goes back to the pool only when given back; dropped, it is closed.
struct Lease {
    /// There until the lease ends.
    connection: Option<Object>,
}

impl Lease {
    fn give_back(mut self) {
        self.connection = None;
    }
}

impl Deref for Lease {
    type Target = Object;

    fn deref(&self) -> &Object {
        self.connection.as_ref().expect("the connection is there until the lease ends")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Object {
        self.connection.as_mut().expect("the connection is there until the lease ends")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(Object::take(connection));
        }
    }
}

async fn within_deadline<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = |_| StoreError::Unavailable(format!("no answer within {DEADLINE:?}"));
    time::timeout(DEADLINE, call).await.map_err(late)?
}

enum Request<'a> {
    CreateRoom(&'a RoomRow),
    Apply(&'a [RowChange]),
    SavePlayback(&'a PlaybackRow),
    Probe(&'a Probe),
}

async fn carry_out(transaction: &Transaction<'_>, request: Request<'_>) -> Result<(), StoreError> {
    match request {
        Request::CreateRoom(room) => room_statement(transaction, INSERT_ROOM, room).await.map(|_| ()),
        Request::Apply(changes) => apply(transaction, changes).await,
        Request::SavePlayback(playback) => save_playback(transaction, playback).await,
        Request::Probe(probe) => {
            room_statement(transaction, INSERT_ROOM, &probe.room).await?;
            upsert_participant(transaction, &probe.participant).await?;
            save_playback(transaction, &probe.playback).await?;
            execute(transaction, REMOVE_ROOM, &[&escaped(&probe.room.id)]).await.map(|_| ())
        }
    }
}

async fn apply(transaction: &Transaction<'_>, changes: &[RowChange]) -> Result<(), StoreError> {
    let mut seats: Vec<_> = changes.iter().filter_map(seat_of).map(escaped).collect();
    if !seats.is_empty() {
        seats.sort_unstable(); // in one order everywhere, so that two never wait for each other
        execute(transaction, LOCK_SEATS, &[&seats]).await?;
    }
    for change in changes {
        match change {
            RowChange::UpsertParticipant(participant) => upsert_participant(transaction, participant).await?,
            RowChange::RemoveParticipant(id) => {
                execute(transaction, REMOVE_PARTICIPANT, &[&escaped(id)]).await?;
            }
            RowChange::SaveRoom(room) => {
                if room_statement(transaction, SAVE_ROOM, room).await? == 0 {
                    return Err(StoreError::Missing);
                }
            }
            RowChange::RemoveRoom(id) => {
                execute(transaction, REMOVE_ROOM, &[&escaped(id)]).await?;
            }
            RowChange::RemoveExpired { id, now_ms } => {
                execute(transaction, REMOVE_EXPIRED, &[&escaped(id), now_ms]).await?;
            }
        }
    }
    Ok(())
}

/// The id of the seat a change is about.
fn seat_of(change: &RowChange) -> Option<&str> {
    match change {
        RowChange::UpsertParticipant(participant) => Some(&participant.id),
        RowChange::RemoveParticipant(id) => Some(id),
        RowChange::SaveRoom(_) | RowChange::RemoveRoom(_) | RowChange::RemoveExpired { .. } => None,
    }
}

async fn room_statement(transaction: &Transaction<'_>, sql: &str, room: &RoomRow) -> Result<u64, StoreError> {
    let parameters: [&(dyn ToSql + Sync); 10] = [
        &escaped(&room.id),
        &room.code.to_ascii_uppercase(),
        &escaped(&room.name),
        &escaped(&room.owner_id),
        &i64::from(room.max_participants),
        &room.password_hash.as_deref().map(escaped),
        &room.playback_control.as_str(),
        &room.wait_for.as_str(),
        &room.created_at_ms,
        &room.expires_at_ms,
    ];
    execute(transaction, sql, &parameters).await
}

async fn upsert_participant(transaction: &Transaction<'_>, participant: &ParticipantRow) -> Result<(), StoreError> {
    let parameters: [&(dyn ToSql + Sync); 10] = [
        &escaped(&participant.id),
        &escaped(&participant.room_id),
        &escaped(&participant.oder_id),
        &participant.user_id.as_deref().map(escaped),
        &participant.username.as_deref().map(escaped),
        &participant.guest_name.as_deref().map(escaped),
        &participant.role.as_str(),
        &participant.can_control,
        &participant.joined_at_ms,
        &participant.resume_hash.as_slice(),
    ];
    execute(transaction, UPSERT_PARTICIPANT, &parameters).await.map(|_| ())
}

async fn save_playback(transaction: &Transaction<'_>, playback: &PlaybackRow) -> Result<(), StoreError> {
    let unfit = |what: &str| StoreError::Corrupt(format!("playback.{what}"));
    let state = playback.state.as_ref().map(serde_json::to_string).transpose().map_err(|_| unfit("state"))?;
    let sequence = i64::try_from(playback.sequence).map_err(|_| unfit("sequence"))?;
    let sequence_limit = i64::try_from(playback.sequence_limit).map_err(|_| unfit("sequence_limit"))?;
    let parameters: [&(dyn ToSql + Sync); 4] = [&escaped(&playback.room_id), &state, &sequence, &sequence_limit];
    execute(transaction, SAVE_PLAYBACK, &parameters).await.map(|_| ())
}

async fn execute(
    transaction: &Transaction<'_>,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<u64, StoreError> {
    let statement = transaction.prepare_cached(sql).await?;
    Ok(transaction.execute(&statement, parameters).await?)
}

/// Text as it is stored: `\0` for NUL, which PostgreSQL does not keep, and `\\` for a backslash.
fn escaped(text: &str) -> Cow<'_, str> {
    if text.contains(['\0', '\\']) {
        Cow::Owned(text.replace('\\', r"\\").replace('\0', r"\0"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The text that was [`escaped`].
fn unescaped(stored: String) -> String {
    if !stored.contains('\\') {
        return stored;
    }
    let mut text = String::with_capacity(stored.len());
    let mut rest = stored.chars();
    while let Some(next) = rest.next() {
        match next {
            '\\' => text.extend(rest.next().map(|mark| if mark == '0' { '\0' } else { mark })),
            plain => text.push(plain),
        }
    }
    text
}

fn first<T>(rows: &[Row], read: impl FnOnce(&Row) -> Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    rows.first().map(read).transpose()
}

fn room(row: &Row) -> Result<RoomRow, StoreError> {
    Ok(RoomRow {
        id: text(row, "id")?,
        code: text(row, "code")?,
        name: text(row, "name")?,
        owner_id: text(row, "owner_id")?,
        max_participants: u32::try_from(value::<i64>(row, "max_participants")?)
            .map_err(|_| unreadable("max_participants"))?,
        password_hash: optional_text(row, "password_hash")?,
        playback_control: named(row, "playback_control")?,
        wait_for: named(row, "wait_for")?,
        created_at_ms: value(row, "created_at_ms")?,
        expires_at_ms: value(row, "expires_at_ms")?,
    })
}

fn participant(row: &Row) -> Result<ParticipantRow, StoreError> {
    Ok(ParticipantRow {
        id: text(row, "id")?,
        room_id: text(row, "room_id")?,
        oder_id: text(row, "oder_id")?,
        user_id: optional_text(row, "user_id")?,
        username: optional_text(row, "username")?,
        guest_name: optional_text(row, "guest_name")?,
        role: named(row, "role")?,
        can_control: value(row, "can_control")?,
        joined_at_ms: value(row, "joined_at_ms")?,
        resume_hash: value::<&[u8]>(row, "resume_hash")?.try_into().map_err(|_| unreadable("resume_hash"))?,
    })
}

fn playback(row: &Row) -> Result<PlaybackRow, StoreError> {
    let state: Option<&str> = value(row, "state")?;
    Ok(PlaybackRow {
        room_id: text(row, "room_id")?,
        // The cause is not passed on, for it quotes what is stored.
        state: state.map(serde_json::from_str).transpose().map_err(|_| unreadable("playback state"))?,
        sequence: unsigned(row, "sequence")?,
        sequence_limit: unsigned(row, "sequence_limit")?,
    })
}

fn value<'a, T: FromSql<'a>>(row: &'a Row, column: &str) -> Result<T, StoreError> {
    row.try_get(column).map_err(|_| unreadable(column))
}

fn text(row: &Row, column: &str) -> Result<String, StoreError> {
    value(row, column).map(unescaped)
}

fn optional_text(row: &Row, column: &str) -> Result<Option<String>, StoreError> {
    Ok(value::<Option<String>>(row, column)?.map(unescaped))
}

fn named<T: FromStr<Err = UnknownName>>(row: &Row, column: &str) -> Result<T, StoreError> {
    value::<&str>(row, column)?.parse().map_err(|UnknownName { kind }| unreadable(kind))
}

fn unsigned(row: &Row, column: &str) -> Result<u64, StoreError> {
    u64::try_from(value::<i64>(row, column)?).map_err(|_| unreadable(column))
}

fn unreadable(what: &str) -> StoreError {
    StoreError::Corrupt(format!("unreadable {what}"))
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        match error.code() {
            Some(&SqlState::UNIQUE_VIOLATION) => Self::Conflict,
            Some(&SqlState::FOREIGN_KEY_VIOLATION) => Self::Missing,
            // The other classes of what data may be wrong with, and a text too long for an index.
            Some(code) if ["22", "23", "54", "XX"].iter().any(|class| code.code().starts_with(class)) => {
                Self::Corrupt(cause(&error))
            }
            Some(_) | None => Self::Unavailable(cause(&error)),
        }
    }
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        Self::Unavailable(pool_cause(&error))
    }
}

fn pool_cause(error: &PoolError) -> String {
    match error {
        PoolError::Backend(error) => cause(error),
        PoolError::Timeout(_) | PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
            error.to_string()
        }
    }
}

/// What went wrong, for the log: neither passwords nor rows are in it.
fn cause(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} ({})", said.message(), said.code().code());
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn pool(url: &str) -> Result<Pool, OpenError> {
    let mut config = Config::from_str(url).map_err(|error| OpenError::Url(cause(&error)))?;
    // The library would prefer TLS, and then take no certificate of the server's own making.
    if !url.contains("sslmode=") {
        config.ssl_mode(SslMode::Disable);
    }
    let options = config.get_options().map_or_else(|| OPTIONS.to_owned(), |given| format!("{given} {OPTIONS}"));
    config.options(options).application_name("syncwatch").connect_timeout(CONNECT_WITHIN).keepalives_idle(IDLE);
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = if config.get_ssl_mode() == SslMode::Disable {
        Manager::from_config(config, NoTls, recycling)
    } else {
        Manager::from_config(config, tls()?, recycling)
    };
    Pool::builder(manager).max_size(CONNECTIONS).build().map_err(|error| OpenError::Connect(error.to_string()))
}

fn tls() -> Result<MakeRustlsConnect, OpenError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(OpenError::Certificates);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has what TLS 1.2 and 1.3 need")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// Brings the tables up to date, in one transaction, while all others who want to wait. If it fails, the connection is not
/// used again, and the lock goes with it.
async fn migrate(connection: &mut Object) -> Result<(), OpenError> {
    let failed = |error: refinery::Error| {
        let known = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
        if let Kind::MissingVersion(applied) = error.kind()
            && applied.version() > known
        {
            return OpenError::NewerSchema { found: applied.version(), known };
        }
        OpenError::Migrate(chain(&error))
    };
    connection.batch_execute(BEGIN_MIGRATION).await?;
    let migrations = MIGRATIONS.iter().map(|(name, sql)| Migration::unapplied(name, sql));
    let migrations = migrations.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let mut runner = Runner::new(&migrations).set_grouped(true);
    runner.set_migration_table_name("schema_versions").run_async(&mut ***connection).await.map_err(failed)?;
    Ok(connection.batch_execute(END_MIGRATION).await?)
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {}", chain(cause)))
}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        Self::Migrate(cause(&error))
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(cause) => write!(f, "DATABASE_URL cannot be used: {cause}"),
            Self::Certificates => f.write_str("DATABASE_URL asks for TLS, and this system has no trusted certificates"),
            Self::Connect(cause) => write!(f, "the database at DATABASE_URL cannot be used: {cause}"),
            Self::Migrate(cause) => write!(f, "the tables of the database cannot be brought up to date: {cause}"),
            Self::NewerSchema { found, known } => write!(
                f,
                "the database was written by a newer release: it has schema version {found}, \
                 this release knows versions up to {known}"
            ),
        }
    }
}

impl std::error::Error for OpenError {}

/// In order; what was released once never changes.
const MIGRATIONS: [(&str, &str); 3] = [
    ("V1__rooms", include_str!("../../../migrations/postgres/0001_rooms.sql")),
    ("V2__participants", include_str!("../../../migrations/postgres/0002_participants.sql")),
    ("V3__playback", include_str!("../../../migrations/postgres/0003_playback.sql")),
];

// The number is of no meaning but must never change.
const BEGIN_MIGRATION: &str = "\
    SET statement_timeout = '25s'; \
    SET lock_timeout = '25s'; \
    SELECT pg_advisory_lock(7305512046713201)";

const END_MIGRATION: &str = "\
    SELECT pg_advisory_unlock(7305512046713201); \
    RESET lock_timeout; \
    RESET statement_timeout";

const INSERT_ROOM: &str = "\
    INSERT INTO rooms (id, code, name, owner_id, max_participants, password_hash, playback_control, wait_for, \
                       created_at_ms, expires_at_ms) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

const SAVE_ROOM: &str = "\
    UPDATE rooms SET code = $2, name = $3, owner_id = $4, max_participants = $5, password_hash = $6, \
                     playback_control = $7, wait_for = $8, created_at_ms = $9, expires_at_ms = $10 \
    WHERE id = $1";

const REMOVE_ROOM: &str = "DELETE FROM rooms WHERE id = $1";
const REMOVE_EXPIRED: &str = "DELETE FROM rooms WHERE id = $1 AND expires_at_ms <= $2";

const ROOM_BY_CODE: &str = "SELECT * FROM rooms WHERE code = $1";

const ROOM_BY_ID: &str = "SELECT * FROM rooms WHERE id = $1";

const EXPIRED_ROOMS: &str = "SELECT * FROM rooms WHERE expires_at_ms <= $1 ORDER BY expires_at_ms LIMIT $2";

const ROOM_COUNT: &str = "SELECT count(*) AS count FROM rooms";

const ANY_ROOM: &str = "SELECT 1 FROM rooms LIMIT 1";

// A removal does not see a seat that another transaction is about to commit, and would not wait for it by itself.
const LOCK_SEATS: &str = "SELECT pg_advisory_xact_lock(1937006964, hashtext(seat)) FROM unnest($1::text[]) AS seat";

const UPSERT_PARTICIPANT: &str = "\
    INSERT INTO participants (id, room_id, oder_id, user_id, username, guest_name, role, can_control, joined_at_ms, \
                              resume_hash) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
    ON CONFLICT (id) DO UPDATE \
    SET room_id = excluded.room_id, oder_id = excluded.oder_id, user_id = excluded.user_id, \
        username = excluded.username, guest_name = excluded.guest_name, role = excluded.role, \
        can_control = excluded.can_control, joined_at_ms = excluded.joined_at_ms, resume_hash = excluded.resume_hash";

const REMOVE_PARTICIPANT: &str = "DELETE FROM participants WHERE id = $1";

const PARTICIPANTS: &str = "SELECT * FROM participants WHERE room_id = $1 ORDER BY joined_at_ms, id";

const SAVE_PLAYBACK: &str = "\
    INSERT INTO playback (room_id, state, sequence, sequence_limit) VALUES ($1, $2, $3, $4) \
    ON CONFLICT (room_id) DO UPDATE \
    SET state = excluded.state, sequence = excluded.sequence, sequence_limit = excluded.sequence_limit";

const PLAYBACK: &str = "SELECT * FROM playback WHERE room_id = $1";

/// Most connections at once. Each is a process of the server; more of them than its processors gain little.
const CONNECTIONS: usize = 8;

/// For what a connection does, so that the server gives up before the caller does; and so that an answer means durable.
const OPTIONS: &str = "-c statement_timeout=1500 -c lock_timeout=1500 -c idle_in_transaction_session_timeout=5000 \
                       -c synchronous_commit=on";

/// How long one attempt to connect takes; within the deadline.
const CONNECT_WITHIN: Duration = Duration::from_millis(1500);

/// How long a connection is idle before it is asked whether it still lasts.
const IDLE: Duration = Duration::from_secs(30);

/// How long the start waits, for others who migrate the database most of all.
const OPEN_WITHIN: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, Weak};
    use std::time::Instant;

    use syncwatch_backends::Postgres;

    use super::super::suite::{self, participant_of, room_with_code};
    use super::*;
    use crate::id;

    struct Fixture {
        store: PostgresStore,
        url: String,
        _postgres: Arc<Postgres>,
    }

    /// A new database, on the server that tests who change nothing about it share while there are any.
    async fn fixture() -> Fixture {
        static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
        let postgres = {
            let mut shared = SHARED.lock().unwrap();
            shared.upgrade().unwrap_or_else(|| {
                let postgres = Arc::new(Postgres::start().unwrap());
                *shared = Arc::downgrade(&postgres);
                postgres
            })
        };
        let name = id::row_id();
        sql(&postgres.url(), &format!("CREATE DATABASE \"{name}\"")).await;
        let url = in_database(&postgres.url(), &name);
        Fixture { store: PostgresStore::open(&url).await.unwrap(), url, _postgres: postgres }
    }

    fn in_database(url: &str, name: &str) -> String {
        let (server, _) = url.rsplit_once('/').unwrap();
        format!("{server}/{name}")
    }

    async fn sql(url: &str, text: &str) {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        client.batch_execute(text).await.unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
    }

    fn is_unavailable<T>(answer: &Result<T, StoreError>) -> bool {
        matches!(answer, Err(StoreError::Unavailable(_)))
    }

    suite::store_suite!(fixture().await);

    #[tokio::test]
    async fn text_with_nul_or_backslash_is_kept_in_every_column() {
        let Fixture { store, _postgres, .. } = fixture().await;
        let odd = "a\0b\\0c\\".to_owned();
        let room = RoomRow {
            owner_id: odd.clone(),
            password_hash: Some(odd.clone()),
            name: odd.clone(),
            ..room_with_code("AAAABBBB")
        };
        let seat = ParticipantRow {
            username: Some(odd.clone()),
            guest_name: Some(odd.clone()),
            ..participant_of(&room, &odd, 1)
        };
        store.create_room(room.clone()).await.unwrap();
        store.apply(vec![RowChange::UpsertParticipant(seat.clone())]).await.unwrap();
        assert_eq!(store.room_by_code("AAAABBBB").await, Ok(Some(room.clone())));
        assert_eq!(store.participants(&room.id).await, Ok(vec![seat]));
        assert_eq!(store.room_by_code(&odd).await, Ok(None));
    }

    #[tokio::test]
    async fn a_row_that_cannot_be_read_is_corrupt_and_not_absent() {
        let Fixture { store, url, _postgres } = fixture().await;
        let room = room_with_code("AAAABBBB");
        store.create_room(room.clone()).await.unwrap();
        let playback = PlaybackRow { room_id: room.id.clone(), state: None, sequence: 1, sequence_limit: 2 };
        store.save_playback(playback).await.unwrap();
        sql(&url, "UPDATE rooms SET wait_for = 'godot'; UPDATE playback SET state = '{\"secret\":1}'").await;
        let corrupt = |what: &str| StoreError::Corrupt(format!("unreadable {what}"));
        assert_eq!(store.room_by_id(&room.id).await, Err(corrupt("wait for")));
        assert_eq!(store.playback(&room.id).await, Err(corrupt("playback state")));
        sql(&url, "UPDATE rooms SET wait_for = 'none'; ALTER TABLE playback DROP COLUMN state").await;
        assert_eq!(store.room_by_id(&room.id).await, Ok(Some(room)));
    }

    #[tokio::test]
    async fn several_that_migrate_an_empty_database_at_once_all_succeed() {
        let Fixture { url, store: _store, _postgres } = fixture().await;
        sql(&url, "CREATE DATABASE empty").await;
        let empty = in_database(&url, "empty");
        let (first, second, third) =
            tokio::join!(PostgresStore::open(&empty), PostgresStore::open(&empty), PostgresStore::open(&empty));
        let (first, second, third) = (first.unwrap(), second.unwrap(), third.unwrap());
        first.create_room(room_with_code("AAAABBBB")).await.unwrap();
        assert_eq!(second.room_count().await, Ok(1));
        assert_eq!(third.ping().await, Ok(()));
    }

    #[tokio::test]
    async fn a_database_of_a_newer_release_is_refused() {
        let Fixture { url, store: _store, _postgres } = fixture().await;
        sql(&url, "INSERT INTO schema_versions VALUES (99, 'later', '2030-01-01T00:00:00Z', '1')").await;
        let error = PostgresStore::open(&url).await.unwrap_err();
        let expected = "the database was written by a newer release: it has schema version 99, this release knows \
                        versions up to 3";
        assert_eq!(error.to_string(), expected);
    }

    #[tokio::test]
    async fn what_is_wrong_with_the_url_is_said_without_the_password() {
        let Fixture { url, store: _store, _postgres } = fixture().await;
        let wrong_password = url.replace("not-a-secret", "hunter2");
        let cases = [
            (in_database(&url, "nowhere"), "database \"nowhere\" does not exist (3D000)"),
            (wrong_password, "password authentication failed for user \"postgres\" (28P01)"),
            ("postgres://u:hunter2@127.0.0.1:1/x".to_owned(), "Connection refused"),
            ("postgres://u:hunter2@127.0.0.1/x?sslmode=maybe".to_owned(), "sslmode"),
            ("mysql://u:hunter2@127.0.0.1/x".to_owned(), "DATABASE_URL cannot be used"),
            (format!("{url}?sslmode=require"), "TLS"),
        ];
        for (url, expected) in cases {
            let said = PostgresStore::open(&url).await.unwrap_err().to_string();
            assert!(said.contains(expected), "{said}");
            assert!(!said.contains("hunter2") && !said.contains("not-a-secret"), "{said}");
        }
    }

    #[tokio::test]
    async fn a_ping_fails_where_rows_cannot_be_written_and_heals() {
        let Fixture { store, url, _postgres } = fixture().await;
        store.create_room(room_with_code("AAAABBBB")).await.unwrap();
        let refusing = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                        RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$; \
                        CREATE TRIGGER refuse BEFORE INSERT ON rooms FOR EACH ROW EXECUTE FUNCTION refuse()";
        sql(&url, refusing).await;
        assert!(is_unavailable(&store.create_room(room_with_code("CCCCDDDD")).await));
        let full = StoreError::Unavailable("No space left on device (53100)".to_owned());
        assert_eq!(store.ping().await, Err(full));
        sql(&url, "DROP TRIGGER refuse ON rooms").await;
        assert_eq!(store.ping().await, Ok(()));
    }

    #[tokio::test]
    async fn after_a_restart_or_a_crash_of_the_server_the_store_heals_and_nothing_is_lost() {
        let mut postgres = Postgres::start().unwrap();
        let store = PostgresStore::open(&postgres.url()).await.unwrap();
        let room = room_with_code("AAAABBBB");
        store.create_room(room.clone()).await.unwrap();
        postgres.stop().unwrap();
        assert!(is_unavailable(&store.room_by_id(&room.id).await));
        assert!(is_unavailable(&store.create_room(room_with_code("CCCCDDDD")).await));
        postgres.restart().unwrap();
        assert_eq!(store.room_by_id(&room.id).await, Ok(Some(room.clone())));
        postgres.kill().unwrap();
        assert!(is_unavailable(&store.ping().await));
        postgres.restart().unwrap();
        assert_eq!(store.room_by_id(&room.id).await, Ok(Some(room)));
        assert_eq!(store.room_count().await, Ok(1));
    }

    #[tokio::test]
    async fn a_server_that_hangs_is_unavailable_within_the_deadline_and_heals() {
        let postgres = Postgres::start().unwrap();
        let store = PostgresStore::open(&postgres.url()).await.unwrap();
        store.ping().await.unwrap();
        postgres.pause().unwrap();
        let began = Instant::now();
        let (written, read) = tokio::join!(store.create_room(room_with_code("AAAABBBB")), store.room_count());
        assert!(is_unavailable(&written) && is_unavailable(&read), "{written:?}, {read:?}");
        assert!(began.elapsed() < DEADLINE + Duration::from_millis(500), "{:?}", began.elapsed());
        postgres.resume().unwrap();
        assert_eq!(store.room_count().await, Ok(0));
        assert_eq!(store.create_room(room_with_code("AAAABBBB")).await, Ok(()));
    }
}
