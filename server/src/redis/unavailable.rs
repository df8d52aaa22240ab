//! Why Redis did not do what it was asked to.

use std::fmt;

use redis::RedisError;

/// Why Redis did not do what it was asked to. Nothing in it is for clients, and no password is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// What kind of trouble it is.
    pub cause: Cause,
    /// What exactly, for the log.
    pub detail: String,
}

/// The kinds of trouble with Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It cannot be reached. The request was not sent.
    Down,
    /// It was asked and did not answer, in time or at all. Whether it did what it was asked to is not known.
    Unanswered,
    /// More requests wait for it already than may.
    Overloaded,
    /// It does not let us in, or not do this.
    Denied,
    /// Its memory is used up.
    OutOfMemory,
    /// It only reads: it is a replica, or the master has lost too many of them.
    ReadOnly,
    /// It has just started and reads its data, or a script keeps it busy.
    Busy,
    /// The cluster has nobody for this key.
    ClusterDown,
    /// It does not know a script. Nobody gets to see this: the script is sent to it then.
    UnknownScript,
    /// It answered with another error, which is one of ours.
    Refused,
}

impl Unavailable {
    pub(super) fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Self { cause, detail: detail.into() }
    }

    /// Whether Redis may have done what it was asked to nevertheless.
    pub fn may_have_happened(&self) -> bool {
        self.cause == Cause::Unanswered
    }
}

impl From<RedisError> for Unavailable {
    fn from(error: RedisError) -> Self {
        let cause = match error.code() {
            Some("OOM") => Cause::OutOfMemory,
            Some("READONLY" | "NOREPLICAS" | "MISCONF") => Cause::ReadOnly,
            Some("LOADING" | "BUSY" | "MASTERDOWN") => Cause::Busy,
            Some("CLUSTERDOWN" | "MOVED" | "ASK" | "TRYAGAIN") => Cause::ClusterDown,
            Some("NOAUTH" | "WRONGPASS" | "NOPERM") => Cause::Denied,
            Some("NOSCRIPT") => Cause::UnknownScript,
            Some(_) => Cause::Refused,
            None if error.kind() == redis::ErrorKind::AuthenticationFailed => Cause::Denied,
            None => Cause::Unanswered,
        };
        Self::new(cause, error.to_string())
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = match self.cause {
            Cause::Down => "cannot be reached",
            Cause::Unanswered => "did not answer",
            Cause::Overloaded => "has too much to do",
            Cause::Denied => "denies access",
            Cause::OutOfMemory => "is out of memory",
            Cause::ReadOnly => "is read-only",
            Cause::Busy => "is busy",
            Cause::ClusterDown => "has no node for the key",
            Cause::UnknownScript => "does not know a script",
            Cause::Refused => "refused a command",
        };
        write!(f, "Redis {cause}: {}", self.detail)
    }
}

impl std::error::Error for Unavailable {}
