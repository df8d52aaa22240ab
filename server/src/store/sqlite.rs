//! The embedded store: one SQLite database in the data directory.
//!
//! One thread writes, one reads, each with a connection of its own, behind bounded queues. The writer commits whatever
//! waits for it in one transaction, a savepoint for each request, so that one sync of the disk serves many of them.
//!
//! The journal is a write-ahead log with `synchronous=FULL`: each commit reaches the disk before it is answered.
//! `NORMAL` would be faster, but lose the last commits with the power, and with them sequence numbers already given
//! out; grouped commits pay for the difference.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::types::Type;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, ffi};
use rusqlite::{named_params, params};
use rusqlite_migration::{M, Migrations};
use tokio::sync::oneshot;
use tokio::time;

use super::{DEADLINE, Probe, RoomStore, StoreError};
use crate::config::create_private_dir;
use crate::sync::rows::{ParticipantRow, PlaybackRow, RoomRow, RowChange, UnknownName};

/// The embedded store. Dropping it finishes the writes that wait, then closes the database.
pub struct SqliteStore {
    writer: Worker<Write>,
    reader: Worker<Read>,
    /// Held as long as the store lives, and released after both connections are closed.
    _lock: File,
}

/// Why the embedded store could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has the data directory. Two would hold two realtime states of the same rooms.
    InUse(PathBuf),
    /// The file system did not let us.
    Io(io::Error),
    /// The database was written by a newer release.
    NewerSchema {
        /// Version of the database.
        found: usize,
        /// Newest version this release knows.
        known: usize,
    },
    /// SQLite did not let us, or the file is no database.
    Database(String),
}

impl SqliteStore {
    /// Opens the database in `data_dir`, making and migrating it as needed. Blocks; meant for the start.
    ///
    /// # Errors
    /// [`OpenError`]; the message is fit for the operator.
    pub fn open(data_dir: &Path) -> Result<Self, OpenError> {
        create_private_dir(data_dir).map_err(OpenError::Io)?;
        let lock = private_file(&data_dir.join(LOCK_FILE)).map_err(OpenError::Io)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::InUse(data_dir.to_owned()),
            TryLockError::Error(error) => OpenError::Io(error),
        })?;
        let path = data_dir.join(DATABASE_FILE);
        // Made here and not by SQLite, for the mode; its other files take it over.
        private_file(&path).map_err(OpenError::Io)?;
        let mut connection = connect(&path, Use::Write)?;
        migrate(&mut connection)?;
        let mut database = Database { path: path.clone(), use_: Use::Write, connection: Some(connection) };
        let writer = Worker::start("syncwatch-store-write", move |queue| database.write_all(&queue))?;
        let connection = connect(&path, Use::Read)?;
        let mut database = Database { path, use_: Use::Read, connection: Some(connection) };
        let reader = Worker::start("syncwatch-store-read", move |queue: Receiver<Read>| {
            queue.iter().for_each(|read| read(&mut database));
        })?;
        Ok(Self { writer, reader, _lock: lock })
    }

    async fn write(&self, request: Request) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        let start_by = Instant::now() + START_WITHIN;
        self.writer.send(Write { request, start_by, reply })?;
        within_deadline(answer).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.reader.send(Box::new(move |database| {
            if !reply.is_closed() {
                let _ = reply.send(database.with(|connection| work(connection)));
            }
        }))?;
        within_deadline(answer).await
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}

async fn within_deadline<T>(answer: oneshot::Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
    match time::timeout(DEADLINE, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(StoreError::Unavailable("the database thread has ended".to_owned())),
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {DEADLINE:?}"))),
    }
}

impl RoomStore for SqliteStore {
    async fn create_room(&self, room: RoomRow) -> Result<(), StoreError> {
        self.write(Request::CreateRoom(room)).await
    }

    async fn room_by_code(&self, code: &str) -> Result<Option<RoomRow>, StoreError> {
        let code = code.to_ascii_uppercase();
        self.read(move |connection| connection.prepare_cached(ROOM_BY_CODE)?.query_row([code], room).optional()).await
    }

    async fn room_by_id(&self, id: &str) -> Result<Option<RoomRow>, StoreError> {
        let id = id.to_owned();
        self.read(move |connection| connection.prepare_cached(ROOM_BY_ID)?.query_row([id], room).optional()).await
    }

    async fn participants(&self, room_id: &str) -> Result<Vec<ParticipantRow>, StoreError> {
        let room_id = room_id.to_owned();
        self.read(move |connection| {
            connection.prepare_cached(PARTICIPANTS)?.query_map([room_id], participant)?.collect()
        })
        .await
    }

    async fn playback(&self, room_id: &str) -> Result<Option<PlaybackRow>, StoreError> {
        let room_id = room_id.to_owned();
        self.read(move |connection| connection.prepare_cached(PLAYBACK)?.query_row([room_id], playback).optional())
            .await
    }

    async fn apply(&self, changes: Vec<RowChange>) -> Result<(), StoreError> {
        self.write(Request::Apply(changes)).await
    }

    async fn save_playback(&self, playback: PlaybackRow) -> Result<(), StoreError> {
        self.write(Request::SavePlayback(playback)).await
    }

    async fn expired_rooms(&self, now_ms: i64, limit: u32) -> Result<Vec<RoomRow>, StoreError> {
        self.read(move |connection| {
            connection.prepare_cached(EXPIRED_ROOMS)?.query_map(params![now_ms, limit], room)?.collect()
        })
        .await
    }

    async fn room_count(&self) -> Result<u64, StoreError> {
        self.read(|connection| connection.prepare_cached(ROOM_COUNT)?.query_row([], |row| unsigned(row, "count"))).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.write(Request::Probe(Box::new(Probe::new()))).await?;
        self.read(|connection| connection.prepare_cached(ANY_ROOM)?.exists([])).await.map(|_| ())
    }
}

/// A thread and the way to it.
struct Worker<T> {
    /// Taken when the worker is to end.
    queue: Option<SyncSender<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Worker<T> {
    fn start(name: &str, run: impl FnOnce(Receiver<T>) + Send + 'static) -> Result<Self, OpenError> {
        let (queue, mail) = sync_channel(QUEUE_LENGTH);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || run(mail)).map_err(OpenError::Io)?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    fn send(&self, mail: T) -> Result<(), StoreError> {
        let queue = self.queue.as_ref().expect("the queue is there until the worker is dropped");
        queue.try_send(mail).map_err(|error| {
            StoreError::Unavailable(match error {
                TrySendError::Full(_) => format!("{QUEUE_LENGTH} calls are waiting"),
                TrySendError::Disconnected(_) => "the database thread has ended".to_owned(),
            })
        })
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic in it has been reported already
        }
    }
}

/// One write that waits.
struct Write {
    request: Request,
    /// Not begun after this: a caller that has been told `Unavailable` should find that nothing happened.
    start_by: Instant,
    reply: oneshot::Sender<Result<(), StoreError>>,
}

/// One read that waits.
type Read = Box<dyn FnOnce(&mut Database) + Send>;

enum Request {
    CreateRoom(RoomRow),
    Apply(Vec<RowChange>),
    SavePlayback(PlaybackRow),
    Probe(Box<Probe>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Read,
    Write,
}

/// A connection that is opened anew after it has failed.
struct Database {
    path: PathBuf,
    use_: Use,
    connection: Option<Connection>,
}

impl Database {
    fn with<T>(&mut self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.path, self.use_)?,
        };
        let result = work(&mut connection);
        // Whatever state a failed disk or file has left the connection in goes with it.
        if !result.as_ref().is_err_and(is_connection_suspect) {
            self.connection = Some(connection);
        }
        result.map_err(StoreError::from)
    }

    fn write_all(&mut self, queue: &Receiver<Write>) {
        while let Ok(first) = queue.recv() {
            let group: Vec<_> = std::iter::once(first).chain(queue.try_iter()).take(MAX_GROUP).collect();
            self.write_group(group);
        }
    }

    fn write_group(&mut self, group: Vec<Write>) {
        let now = Instant::now();
        let (late, group): (Vec<_>, Vec<_>) = group.into_iter().partition(|write| write.start_by < now);
        for write in late {
            let _ = write.reply.send(Err(StoreError::Unavailable("waited too long".to_owned())));
        }
        let (requests, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|write| (write.request, write.reply)).unzip();
        if requests.is_empty() {
            return;
        }
        let outcomes = self.with(|connection| commit(connection, &requests));
        match outcomes {
            Ok(outcomes) => {
                for (reply, outcome) in replies.into_iter().zip(outcomes) {
                    let _ = reply.send(outcome); // a caller that went away needs no answer
                }
            }
            Err(error) => {
                tracing::warn!(%error, requests = requests.len(), "a commit failed");
                for reply in replies {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }
}

/// Carries out requests in one transaction. Those that break a rule fail alone; any other error fails all of them.
fn commit(connection: &mut Connection, requests: &[Request]) -> rusqlite::Result<Vec<Result<(), StoreError>>> {
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut outcomes = Vec::with_capacity(requests.len());
    if let [request] = requests {
        // Nobody else's work has to outlive its refusal, so that it needs no savepoint.
        match carry_out(&transaction, request) {
            Ok(()) => outcomes.push(Ok(())),
            Err(Failure::Refused(error)) => return Ok(vec![Err(error)]), // rolled back when dropped
            Err(Failure::Broken(error)) => return Err(error),
        }
    } else {
        for request in requests {
            outcomes.push(attempt(&mut transaction, request)?);
        }
    }
    transaction.commit()?;
    Ok(outcomes)
}

fn attempt(transaction: &mut Transaction<'_>, request: &Request) -> rusqlite::Result<Result<(), StoreError>> {
    let savepoint = transaction.savepoint()?; // rolled back when dropped
    match carry_out(&savepoint, request) {
        Ok(()) => savepoint.commit().map(Ok),
        Err(Failure::Refused(error)) => Ok(Err(error)),
        Err(Failure::Broken(error)) => Err(error),
    }
}

/// Why a request was not carried out.
enum Failure {
    /// It breaks a rule; the transaction goes on without it.
    Refused(StoreError),
    /// The database failed, and the whole transaction with it.
    Broken(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => Self::Refused(error.into()),
            _ => Self::Broken(error),
        }
    }
}

fn carry_out(connection: &Connection, request: &Request) -> Result<(), Failure> {
    match request {
        Request::CreateRoom(room) => insert_room(connection, room),
        Request::Apply(changes) => changes.iter().try_for_each(|change| match change {
            RowChange::UpsertParticipant(participant) => upsert_participant(connection, participant),
            RowChange::RemoveParticipant(id) => remove(connection, REMOVE_PARTICIPANT, id),
            RowChange::SaveRoom(room) => save_room(connection, room),
            RowChange::RemoveRoom(id) => remove(connection, REMOVE_ROOM, id),
            RowChange::RemoveExpired { id, now_ms } => {
                connection.prepare_cached(REMOVE_EXPIRED)?.execute(params![id, now_ms])?;
                Ok(())
            }
        }),
        Request::SavePlayback(playback) => save_playback(connection, playback),
        Request::Probe(probe) => {
            insert_room(connection, &probe.room)?;
            upsert_participant(connection, &probe.participant)?;
            save_playback(connection, &probe.playback)?;
            remove(connection, REMOVE_ROOM, &probe.room.id)
        }
    }
}

fn insert_room(connection: &Connection, room: &RoomRow) -> Result<(), Failure> {
    room_statement(connection, INSERT_ROOM, room).map(|_| ())
}

fn save_room(connection: &Connection, room: &RoomRow) -> Result<(), Failure> {
    match room_statement(connection, SAVE_ROOM, room)? {
        0 => Err(Failure::Refused(StoreError::Missing)),
        _ => Ok(()),
    }
}

fn room_statement(connection: &Connection, sql: &str, room: &RoomRow) -> Result<usize, Failure> {
    Ok(connection.prepare_cached(sql)?.execute(named_params! {
        ":id": room.id,
        ":code": room.code.to_ascii_uppercase(),
        ":name": room.name,
        ":owner_id": room.owner_id,
        ":max_participants": room.max_participants,
        ":password_hash": room.password_hash,
        ":playback_control": room.playback_control.as_str(),
        ":wait_for": room.wait_for.as_str(),
        ":created_at_ms": room.created_at_ms,
        ":expires_at_ms": room.expires_at_ms,
    })?)
}

fn upsert_participant(connection: &Connection, participant: &ParticipantRow) -> Result<(), Failure> {
    connection.prepare_cached(UPSERT_PARTICIPANT)?.execute(named_params! {
        ":id": participant.id,
        ":room_id": participant.room_id,
        ":oder_id": participant.oder_id,
        ":user_id": participant.user_id,
        ":username": participant.username,
        ":guest_name": participant.guest_name,
        ":role": participant.role.as_str(),
        ":can_control": participant.can_control,
        ":joined_at_ms": participant.joined_at_ms,
        ":resume_hash": participant.resume_hash,
    })?;
    Ok(())
}

fn remove(connection: &Connection, sql: &str, id: &str) -> Result<(), Failure> {
    connection.prepare_cached(sql)?.execute([id])?;
    Ok(())
}

fn save_playback(connection: &Connection, playback: &PlaybackRow) -> Result<(), Failure> {
    let unfit = |what: &str| Failure::Refused(StoreError::Corrupt(format!("playback.{what}")));
    let state = playback.state.as_ref().map(serde_json::to_string).transpose().map_err(|_| unfit("state"))?;
    connection.prepare_cached(SAVE_PLAYBACK)?.execute(named_params! {
        ":room_id": playback.room_id,
        ":state": state,
        ":sequence": i64::try_from(playback.sequence).map_err(|_| unfit("sequence"))?,
        ":sequence_limit": i64::try_from(playback.sequence_limit).map_err(|_| unfit("sequence_limit"))?,
    })?;
    Ok(())
}

fn room(row: &Row<'_>) -> rusqlite::Result<RoomRow> {
    Ok(RoomRow {
        id: row.get("id")?,
        code: row.get("code")?,
        name: row.get("name")?,
        owner_id: row.get("owner_id")?,
        max_participants: row.get("max_participants")?,
        password_hash: row.get("password_hash")?,
        playback_control: named(row, "playback_control")?,
        wait_for: named(row, "wait_for")?,
        created_at_ms: row.get("created_at_ms")?,
        expires_at_ms: row.get("expires_at_ms")?,
    })
}

fn participant(row: &Row<'_>) -> rusqlite::Result<ParticipantRow> {
    Ok(ParticipantRow {
        id: row.get("id")?,
        room_id: row.get("room_id")?,
        oder_id: row.get("oder_id")?,
        user_id: row.get("user_id")?,
        username: row.get("username")?,
        guest_name: row.get("guest_name")?,
        role: named(row, "role")?,
        can_control: row.get("can_control")?,
        joined_at_ms: row.get("joined_at_ms")?,
        resume_hash: row.get("resume_hash")?,
    })
}

fn playback(row: &Row<'_>) -> rusqlite::Result<PlaybackRow> {
    let state: Option<String> = row.get("state")?;
    Ok(PlaybackRow {
        room_id: row.get("room_id")?,
        // The cause is not passed on, for it quotes what is stored.
        state: state.map(|json| serde_json::from_str(&json)).transpose().map_err(|_| unreadable("playback state"))?,
        sequence: unsigned(row, "sequence")?,
        sequence_limit: unsigned(row, "sequence_limit")?,
    })
}

fn named<T: FromStr<Err = UnknownName>>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    row.get::<_, String>(column)?.parse().map_err(|UnknownName { kind }| unreadable(kind))
}

fn unsigned(row: &Row<'_>, column: &'static str) -> rusqlite::Result<u64> {
    u64::try_from(row.get::<_, i64>(column)?).map_err(|_| unreadable(column))
}

fn unreadable(what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, format!("unreadable {what}").into())
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        if let rusqlite::Error::FromSqlConversionFailure(_, _, what) = &error {
            return Self::Corrupt(what.to_string());
        }
        let (Some(code), Some(failure)) = (error.sqlite_error_code(), error.sqlite_error()) else {
            // A type or range no row of ours has; reading is all that can fail without SQLite.
            return Self::Corrupt(error.to_string());
        };
        match (code, failure.extended_code) {
            (ErrorCode::ConstraintViolation, ffi::SQLITE_CONSTRAINT_FOREIGNKEY) => Self::Missing,
            (ErrorCode::ConstraintViolation, ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY) => {
                Self::Conflict
            }
            (ErrorCode::ConstraintViolation | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase, _) => {
                Self::Corrupt(error.to_string())
            }
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// Tells whether a connection had better be opened anew after this error.
fn is_connection_suspect(error: &rusqlite::Error) -> bool {
    let harmless = [ErrorCode::ConstraintViolation, ErrorCode::DatabaseBusy, ErrorCode::DatabaseLocked];
    error.sqlite_error_code().is_some_and(|code| !harmless.contains(&code))
}

fn connect(path: &Path, use_: Use) -> rusqlite::Result<Connection> {
    // Without `SQLITE_OPEN_CREATE`: a database that has gone must not come back as an empty one.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update_and_check(None, "journal_size_limit", JOURNAL_LIMIT_BYTES, |_| Ok(()))?;
    connection.pragma_update(None, "query_only", use_ == Use::Read)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let found = connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
    let found = usize::try_from(found).unwrap_or_default(); // below zero is refused by the next step
    if found > MIGRATION_LIST.len() {
        return Err(OpenError::NewerSchema { found, known: MIGRATION_LIST.len() });
    }
    MIGRATIONS.to_latest(connection).map_err(|error| OpenError::Database(error.to_string()))
}

/// Opens a file that only its owner can read, making it if it is not there.
fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.to_string())
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => {
                write!(f, "{} is in use by another syncwatch; each needs a DATA_DIR of its own", path.display())
            }
            Self::Io(error) => write!(f, "the data directory cannot be used: {error}"),
            Self::NewerSchema { found, known } => write!(
                f,
                "{DATABASE_FILE} was written by a newer release: it has schema version {found}, \
                 this release knows versions up to {known}"
            ),
            Self::Database(cause) => write!(f, "{DATABASE_FILE} cannot be opened: {cause}"),
        }
    }
}

impl std::error::Error for OpenError {}

const MIGRATION_LIST: &[M<'static>] = &[
    M::up(include_str!("../../../migrations/sqlite/0001_rooms.sql")),
    M::up(include_str!("../../../migrations/sqlite/0002_participants.sql")),
    M::up(include_str!("../../../migrations/sqlite/0003_playback.sql")),
];

const MIGRATIONS: Migrations<'static> = Migrations::from_slice(MIGRATION_LIST);

const INSERT_ROOM: &str = "\
    INSERT INTO rooms (id, code, name, owner_id, max_participants, password_hash, playback_control, wait_for, \
                       created_at_ms, expires_at_ms) \
    VALUES (:id, :code, :name, :owner_id, :max_participants, :password_hash, :playback_control, :wait_for, \
            :created_at_ms, :expires_at_ms)";

const SAVE_ROOM: &str = "\
    UPDATE rooms SET code = :code, name = :name, owner_id = :owner_id, max_participants = :max_participants, \
                     password_hash = :password_hash, playback_control = :playback_control, wait_for = :wait_for, \
                     created_at_ms = :created_at_ms, expires_at_ms = :expires_at_ms \
    WHERE id = :id";

const REMOVE_ROOM: &str = "DELETE FROM rooms WHERE id = ?1";
const REMOVE_EXPIRED: &str = "DELETE FROM rooms WHERE id = ?1 AND expires_at_ms <= ?2";

const ROOM_BY_CODE: &str = "SELECT * FROM rooms WHERE code = ?1";

const ROOM_BY_ID: &str = "SELECT * FROM rooms WHERE id = ?1";

const EXPIRED_ROOMS: &str = "SELECT * FROM rooms WHERE expires_at_ms <= ?1 ORDER BY expires_at_ms LIMIT ?2";

const ROOM_COUNT: &str = "SELECT count(*) AS count FROM rooms";

const ANY_ROOM: &str = "SELECT 1 FROM rooms LIMIT 1";

const UPSERT_PARTICIPANT: &str = "\
    INSERT INTO participants (id, room_id, oder_id, user_id, username, guest_name, role, can_control, joined_at_ms, \
                              resume_hash) \
    VALUES (:id, :room_id, :oder_id, :user_id, :username, :guest_name, :role, :can_control, :joined_at_ms, \
            :resume_hash) \
    ON CONFLICT (id) DO UPDATE \
    SET room_id = excluded.room_id, oder_id = excluded.oder_id, user_id = excluded.user_id, \
        username = excluded.username, guest_name = excluded.guest_name, role = excluded.role, \
        can_control = excluded.can_control, joined_at_ms = excluded.joined_at_ms, resume_hash = excluded.resume_hash";

const REMOVE_PARTICIPANT: &str = "DELETE FROM participants WHERE id = ?1";

const PARTICIPANTS: &str = "SELECT * FROM participants WHERE room_id = ?1 ORDER BY joined_at_ms, id";

const SAVE_PLAYBACK: &str = "\
    INSERT INTO playback (room_id, state, sequence, sequence_limit) \
    VALUES (:room_id, :state, :sequence, :sequence_limit) \
    ON CONFLICT (room_id) DO UPDATE \
    SET state = excluded.state, sequence = excluded.sequence, sequence_limit = excluded.sequence_limit";

const PLAYBACK: &str = "SELECT * FROM playback WHERE room_id = ?1";

/// The database inside the data directory.
pub const DATABASE_FILE: &str = "syncwatch.db";

/// Locked by the process that uses the data directory. Never removed: a lock on a removed file would keep nobody out.
const LOCK_FILE: &str = "syncwatch.lock";

/// Calls that may wait for a thread. More would not be answered within the deadline on a slow disk anyway.
const QUEUE_LENGTH: usize = 1024;

/// Most requests in one transaction, so that the first of them does not wait for too many others.
const MAX_GROUP: usize = 256;

/// Latest begin of a write after it was asked for; the rest of the deadline is for the commit.
const START_WITHIN: Duration = Duration::from_secs(1);

/// How long SQLite waits for a lock another process holds, a backup for example; within the deadline.
const BUSY_TIMEOUT: Duration = Duration::from_millis(800);

/// Size to which the write-ahead log is cut after a burst.
const JOURNAL_LIMIT_BYTES: u32 = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::suite::{self, participant_of, room_with_code};
    use super::*;
    use crate::testing::TempDir;

    struct Fixture {
        store: SqliteStore,
        dir: TempDir,
    }

    fn fixture() -> Fixture {
        let dir = TempDir::new();
        Fixture { store: SqliteStore::open(dir.path()).unwrap(), dir }
    }

    suite::store_suite!(fixture());

    #[test]
    fn migrations_build_an_empty_database() {
        MIGRATIONS.validate().unwrap();
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        migrate(&mut connection).unwrap();
        let strict: i64 = connection
            .query_row("SELECT count(*) FROM pragma_table_list WHERE strict AND schema = 'main'", [], |row| row.get(0))
            .unwrap();
        assert_eq!(strict, 3);
    }

    #[test]
    fn every_migration_is_in_the_list_and_says_why() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations/sqlite");
        let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        assert_eq!(files.len(), MIGRATION_LIST.len());
        for (index, file) in files.iter().enumerate() {
            assert!(file.file_name().unwrap().to_str().unwrap().starts_with(&format!("{:04}_", index + 1)));
            let text = fs::read_to_string(file).unwrap();
            assert!(text.starts_with("-- "), "{file:?}");
            assert_eq!(M::up(&text), MIGRATION_LIST[index]);
        }
    }

    #[tokio::test]
    async fn rows_outlive_the_process() {
        let Fixture { store, dir } = fixture();
        let room = room_with_code("AAAABBBB");
        let seat = participant_of(&room, "u1", 1);
        store.create_room(room.clone()).await.unwrap();
        store.apply(vec![RowChange::UpsertParticipant(seat.clone())]).await.unwrap();
        drop(store);
        let store = SqliteStore::open(dir.path()).unwrap();
        assert_eq!(store.room_by_code("aaaabbbb").await, Ok(Some(room.clone())));
        assert_eq!(store.participants(&room.id).await, Ok(vec![seat]));
    }

    #[tokio::test]
    async fn writes_that_wait_are_finished_before_the_store_closes() {
        let Fixture { store, dir } = fixture();
        let writes: Vec<_> = (0..100)
            .map(|index| {
                let (reply, answer) = oneshot::channel();
                let request = Request::CreateRoom(room_with_code(&format!("ROOM{index:04}")));
                store.writer.send(Write { request, start_by: Instant::now() + START_WITHIN, reply }).unwrap();
                answer
            })
            .collect();
        drop(store);
        for answer in writes {
            assert_eq!(answer.await, Ok(Ok(())));
        }
        assert_eq!(SqliteStore::open(dir.path()).unwrap().room_count().await, Ok(100));
    }

    #[test]
    fn a_data_directory_in_use_is_refused() {
        let Fixture { store, dir } = fixture();
        let error = SqliteStore::open(dir.path()).unwrap_err();
        assert!(matches!(&error, OpenError::InUse(path) if path == dir.path()));
        assert!(error.to_string().ends_with("is in use by another syncwatch; each needs a DATA_DIR of its own"));
        drop(store);
        assert!(SqliteStore::open(dir.path()).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_what_is_stored() {
        use std::os::unix::fs::PermissionsExt;
        let dir = TempDir::new();
        let data = dir.path().join("data");
        let _store = SqliteStore::open(&data).unwrap();
        assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
        for entry in fs::read_dir(&data).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
        }
    }

    #[test]
    fn a_database_of_a_newer_release_is_refused_and_left_alone() {
        let Fixture { store, dir } = fixture();
        drop(store);
        let raw = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
        raw.pragma_update(None, "user_version", 99).unwrap();
        let error = SqliteStore::open(dir.path()).unwrap_err();
        let expected = "syncwatch.db was written by a newer release: it has schema version 99, this release knows \
                        versions up to 3";
        assert_eq!(error.to_string(), expected);
        assert_eq!(raw.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).unwrap(), 99);
    }

    #[test]
    fn a_file_that_is_no_database_is_refused_and_left_alone() {
        let dir = TempDir::new();
        let path = dir.path().join(DATABASE_FILE);
        fs::write(&path, "not a database ".repeat(100)).unwrap();
        let error = SqliteStore::open(dir.path()).unwrap_err();
        assert_eq!(error.to_string(), "syncwatch.db cannot be opened: file is not a database");
        assert_eq!(fs::read_to_string(&path).unwrap(), "not a database ".repeat(100));
    }

    #[tokio::test]
    async fn a_row_that_cannot_be_read_is_corrupt_and_not_absent() {
        let Fixture { store, dir } = fixture();
        let room = room_with_code("AAAABBBB");
        store.create_room(room.clone()).await.unwrap();
        let playback = PlaybackRow { room_id: room.id.clone(), state: None, sequence: 1, sequence_limit: 2 };
        store.save_playback(playback).await.unwrap();
        let raw = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
        raw.execute_batch("UPDATE rooms SET wait_for = 'godot'; UPDATE playback SET state = '{\"secret\":1}'").unwrap();
        let corrupt = |what: &str| StoreError::Corrupt(format!("unreadable {what}"));
        assert_eq!(store.room_by_id(&room.id).await, Err(corrupt("wait for")));
        assert_eq!(store.playback(&room.id).await, Err(corrupt("playback state")));
        raw.execute_batch("UPDATE rooms SET wait_for = 'none'; UPDATE playback SET state = NULL").unwrap();
        assert_eq!(store.room_by_id(&room.id).await, Ok(Some(room)));
    }

    #[tokio::test]
    async fn a_lock_held_by_another_program_is_outlived() {
        let Fixture { store, dir } = fixture();
        let mut raw = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
        let lock = raw.transaction_with_behavior(TransactionBehavior::Exclusive).unwrap();
        let refused = store.create_room(room_with_code("AAAABBBB")).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        assert_eq!(store.room_count().await, Ok(0));
        drop(lock);
        assert_eq!(store.create_room(room_with_code("AAAABBBB")).await, Ok(()));
    }

    /// A database of its own, without threads, that may not grow past `pages`.
    fn database(dir: &TempDir, pages: u32) -> Database {
        let path = dir.path().join(DATABASE_FILE);
        private_file(&path).unwrap();
        let mut connection = connect(&path, Use::Write).unwrap();
        migrate(&mut connection).unwrap();
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
        Database { path, use_: Use::Write, connection: Some(connection) }
    }

    fn write_group(database: &mut Database, requests: Vec<Request>) -> Vec<Result<(), StoreError>> {
        let start_by = Instant::now() + START_WITHIN;
        let (writes, answers): (Vec<_>, Vec<_>) = requests
            .into_iter()
            .map(|request| {
                let (reply, answer) = oneshot::channel();
                (Write { request, start_by, reply }, answer)
            })
            .unzip();
        database.write_group(writes);
        answers.into_iter().map(|mut answer| answer.try_recv().unwrap()).collect()
    }

    #[test]
    fn a_full_disk_fails_the_group_and_the_next_one_works() {
        let dir = TempDir::new();
        let mut database = database(&dir, 20);
        let big = RoomRow { name: "x".repeat(200_000), ..room_with_code("BIGBIG22") };
        let requests = vec![Request::CreateRoom(room_with_code("AAAABBBB")), Request::CreateRoom(big.clone())];
        let outcomes = write_group(&mut database, requests);
        let full = Err(StoreError::Unavailable("database or disk is full".to_owned()));
        assert_eq!(outcomes, [full.clone(), full]);
        // The connection is opened anew, and with it the limit has gone: there is room again.
        let requests = vec![Request::CreateRoom(room_with_code("AAAABBBB")), Request::CreateRoom(big)];
        assert_eq!(write_group(&mut database, requests), [Ok(()), Ok(())]);
    }

    #[test]
    fn a_refused_request_does_not_fail_its_neighbours() {
        let dir = TempDir::new();
        let mut database = database(&dir, 1000);
        let room = room_with_code("AAAABBBB");
        let half_good = vec![
            RowChange::UpsertParticipant(participant_of(&room, "u1", 1)),
            RowChange::UpsertParticipant(participant_of(&room_with_code("NOWHERE2"), "u2", 2)),
        ];
        let requests = vec![
            Request::CreateRoom(room.clone()),
            Request::CreateRoom(room_with_code("AAAABBBB")),
            Request::Apply(half_good),
            Request::Apply(vec![RowChange::SaveRoom(room_with_code("NOWHERE2"))]),
            Request::CreateRoom(room_with_code("CCCCDDDD")),
        ];
        let expected = [Ok(()), Err(StoreError::Conflict), Err(StoreError::Missing), Err(StoreError::Missing), Ok(())];
        assert_eq!(write_group(&mut database, requests), expected);
        let count =
            |sql: &str| Connection::open(&database.path).unwrap().query_row(sql, [], |row| row.get::<_, i64>(0));
        assert_eq!(count("SELECT count(*) FROM rooms"), Ok(2));
        assert_eq!(count("SELECT count(*) FROM participants"), Ok(0));
    }

    #[test]
    fn a_write_that_waited_too_long_has_no_effect() {
        let dir = TempDir::new();
        let mut database = database(&dir, 1000);
        let (reply, mut answer) = oneshot::channel();
        let request = Request::CreateRoom(room_with_code("AAAABBBB"));
        let start_by = Instant::now().checked_sub(Duration::from_millis(1)).unwrap();
        database.write_group(vec![Write { request, start_by, reply }]);
        assert_eq!(answer.try_recv().unwrap(), Err(StoreError::Unavailable("waited too long".to_owned())));
        assert_eq!(write_group(&mut database, vec![Request::CreateRoom(room_with_code("AAAABBBB"))]), [Ok(())]);
    }

    #[test]
    fn a_database_that_has_gone_is_unavailable_and_never_empty() {
        let dir = TempDir::new();
        let mut database = database(&dir, 1000);
        database.connection = None;
        let away = dir.path().join("away");
        fs::rename(&database.path, &away).unwrap();
        let gone = write_group(&mut database, vec![Request::Apply(vec![])]);
        assert!(matches!(&gone[..], [Err(StoreError::Unavailable(_))]), "{gone:?}");
        assert!(!database.path.exists());
        fs::rename(&away, &database.path).unwrap();
        assert_eq!(write_group(&mut database, vec![Request::Apply(vec![])]), [Ok(())]);
    }

    #[tokio::test]
    async fn a_full_queue_is_unavailable_at_once() {
        let Fixture { store, .. } = fixture();
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let (begin, begun) = std::sync::mpsc::channel();
        store
            .reader
            .send(Box::new(move |_| {
                begin.send(()).unwrap();
                let _ = held.recv();
            }))
            .unwrap();
        // While it is still in the queue, its place there would become free again.
        begun.recv().unwrap();
        while store.reader.send(Box::new(|_| ())).is_ok() {}
        let expected = StoreError::Unavailable("1024 calls are waiting".to_owned());
        assert_eq!(store.room_count().await, Err(expected));
        drop(hold);
        while store.room_count().await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_call_that_takes_too_long_is_unavailable() {
        let Fixture { store, .. } = fixture();
        let (hold, held) = std::sync::mpsc::channel::<()>();
        store
            .reader
            .send(Box::new(move |_| {
                let _ = held.recv();
            }))
            .unwrap();
        let began = Instant::now();
        assert_eq!(store.room_count().await, Err(StoreError::Unavailable("no answer within 2s".to_owned())));
        assert!(began.elapsed() < Duration::from_secs(3));
        drop(hold);
        assert_eq!(store.room_count().await, Ok(0));
    }

    /// Run as root: `cargo test -p syncwatch -- --ignored on_a_disk_that_fills_up`.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    #[ignore = "mounts a small tmpfs, which only root may"]
    async fn on_a_disk_that_fills_up_writes_fail_reads_go_on_and_all_heals() {
        use std::process::Command;
        let dir = TempDir::new();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "none"]).arg(dir.path()).status();
        assert!(mounted.unwrap().success());
        let store = SqliteStore::open(dir.path()).unwrap();
        store.create_room(room_with_code("AAAABBBB")).await.unwrap();
        let filler = |index: u32| dir.path().join(format!("filler{index}"));
        let fillers = (0..).take_while(|index| fs::write(filler(*index), [0; 16 * 1024]).is_ok()).count();
        let mut refused = None;
        for index in 0..1000 {
            let room = RoomRow { name: "x".repeat(10_000), ..room_with_code(&format!("ROOM{index:04}")) };
            if let Err(error) = store.create_room(room).await {
                refused = Some(error);
                break;
            }
        }
        assert!(matches!(refused, Some(StoreError::Unavailable(_))), "{refused:?}");
        // What is left may be enough for a smaller write, but not for many.
        let mut pinged = Ok(());
        for _ in 0..100 {
            pinged = pinged.and(store.ping().await);
        }
        assert!(matches!(pinged, Err(StoreError::Unavailable(_))), "{pinged:?}");
        assert!(store.room_by_code("AAAABBBB").await.unwrap().is_some());
        for index in 0..=fillers {
            let _ = fs::remove_file(filler(u32::try_from(index).unwrap()));
        }
        let healed = store.ping().await.and(store.create_room(room_with_code("CCCCDDDD")).await);
        drop(store);
        let unmounted = Command::new("umount").arg(dir.path()).status();
        assert_eq!(healed, Ok(()));
        assert!(unmounted.unwrap().success());
    }
}
