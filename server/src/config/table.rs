//! The one table of settings: environment, `.env`, flags, `--help` and `.env.example` are all driven by it.

use std::net::IpAddr;

use socketio::engineio::Origins;
use tracing_subscriber::EnvFilter;

use super::TrustedProxies;
use super::redis::RedisUrl;

/// One setting: its name, where it is listed, what it takes and what it means.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// Name of the environment variable.
    pub name: &'static str,
    /// Name of the flag, without the leading dashes: the variable's in kebab case.
    pub flag: &'static str,
    /// Heading in `--help` and `.env.example`.
    pub group: &'static str,
    /// What a value has to look like.
    pub kind: Kind,
    /// Value when none is given; empty where there is none.
    pub default: &'static str,
    /// What the setting does, one sentence without a final stop.
    pub help: &'static str,
    /// Whether the value must never be shown: not in messages, not in `Debug`, not in the log.
    pub secret: bool,
}

/// What the value of a setting has to look like.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number from `min` to `max`, both included.
    Whole {
        /// Smallest value allowed.
        min: u64,
        /// Largest value allowed.
        max: u64,
    },
    /// `true` or `false`.
    Switch,
    /// One of a few words.
    OneOf(&'static [&'static str]),
    /// An IP address or a host name.
    Host,
    /// A path of the file system.
    Path,
    /// Any text.
    Text,
    /// `*`, or origins separated by commas.
    Origins,
    /// IP addresses and networks separated by commas.
    Networks,
    /// Directives in the notation of `RUST_LOG`.
    LogFilter,
    /// A URL with a host and one of these schemes.
    Url(&'static [&'static str]),
    /// A URL of Redis, with one host or several.
    RedisUrl,
}

impl Setting {
    /// Finds a setting by the name of its variable.
    pub fn named(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }
}

impl Kind {
    /// Tells whether `value` is allowed.
    pub fn admits(&self, value: &str) -> bool {
        match self {
            Self::Whole { min, max } => whole(value).is_some_and(|number| (*min..=*max).contains(&number)),
            Self::Switch => switch(value).is_some(),
            Self::OneOf(words) => words.contains(&value),
            Self::Host => is_host(value),
            Self::Path => !value.contains('\0'),
            Self::Text => true,
            Self::Origins => Origins::parse(value).is_some(),
            Self::Networks => TrustedProxies::parse(value).is_some(),
            Self::LogFilter => EnvFilter::try_new(value).is_ok(),
            Self::Url(schemes) => is_url(value, schemes),
            Self::RedisUrl => RedisUrl::parse(value).is_some(),
        }
    }

    /// Says in words what is allowed.
    pub fn allowed(&self) -> String {
        match self {
            Self::Whole { min, max } => format!("a whole number from {min} to {max}"),
            Self::Switch => "true or false".to_owned(),
            Self::OneOf(words) => words.join(" or "),
            Self::Host => "an IP address or a host name, without port".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Text => "any text in UTF-8".to_owned(),
            Self::Origins => "* or origins like https://example.org or file:// separated by commas".to_owned(),
            Self::Networks => "IP addresses or networks like 10.0.0.0/8 separated by commas".to_owned(),
            Self::LogFilter => {
                "directives like info or syncwatch=debug,info with the levels off, error, warn, info, debug, trace"
                    .to_owned()
            }
            Self::Url(schemes) => {
                let shapes: Vec<_> = schemes.iter().map(|scheme| format!("{scheme}://host[:port][/name]")).collect();
                shapes.join(" or ")
            }
            Self::RedisUrl => {
                "redis://[[user]:password@]host[:port][,host[:port]...][/number] or rediss://... for TLS; \
                               several hosts are nodes of a Redis Cluster"
                    .to_owned()
            }
        }
    }
}

/// Reads a whole number written in decimal digits only: no sign, no blanks.
pub(super) fn whole(value: &str) -> Option<u64> {
    if !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    value.parse().ok()
}

/// Reads `true` or `false`.
pub(super) fn switch(value: &str) -> Option<bool> {
    value.parse().ok()
}

pub(super) fn is_host(value: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    // Four numbers that are no IP address ("300.0.0.1") are a slip, not a host name.
    let all_digits = value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    value.parse::<IpAddr>().is_ok() || (value.len() <= 253 && !all_digits && value.split('.').all(is_label))
}

fn is_url(value: &str, schemes: &[&str]) -> bool {
    let Some((scheme, rest)) = value.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    schemes.contains(&scheme)
        && !host.is_empty()
        && !host.starts_with(':')
        && !value.contains(|character: char| character.is_whitespace() || character.is_control())
}

const SERVER: &str = "Server";
const ACCESS: &str = "Access";
const ROOMS: &str = "Rooms";
const CONNECTIONS: &str = "Connections";
const STORAGE: &str = "Storage";

/// Every setting there is, in the order in which they are listed.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "HOST",
        flag: "host",
        group: SERVER,
        kind: Kind::Host,
        default: "0.0.0.0",
        help: "Address to listen on",
        secret: false,
    },
    Setting {
        name: "PORT",
        flag: "port",
        group: SERVER,
        kind: Kind::Whole { min: 0, max: 65_535 },
        default: "4000",
        help: "TCP port to listen on; 0 picks a free one, which the log names",
        secret: false,
    },
    Setting {
        name: "RUST_LOG",
        flag: "rust-log",
        group: SERVER,
        kind: Kind::LogFilter,
        default: "info",
        help: "What is logged",
        secret: false,
    },
    Setting {
        name: "LOG_FORMAT",
        flag: "log-format",
        group: SERVER,
        kind: Kind::OneOf(&["auto", "human", "json"]),
        default: "auto",
        help: "How the log on standard error is written; auto is human on a terminal, else json",
        secret: false,
    },
    Setting {
        name: "SHUTDOWN_TIMEOUT_MS",
        flag: "shutdown-timeout-ms",
        group: SERVER,
        kind: Kind::Whole { min: 0, max: 600_000 },
        default: "10000",
        help: "How long a stopping server waits for its connections to end",
        secret: false,
    },
    Setting {
        name: "SHUTDOWN_RECONNECT_MS",
        flag: "shutdown-reconnect-ms",
        group: SERVER,
        kind: Kind::Whole { min: 0, max: 600_000 },
        default: "5000",
        help: "Time over which clients of a stopping server are told to spread their return",
        secret: false,
    },
    Setting {
        name: "JWT_SECRET",
        flag: "jwt-secret",
        group: ACCESS,
        kind: Kind::Text,
        default: "",
        help: "Secret under which tokens are signed with HS256, at least 32 bytes; \
               without one a random secret is kept in DATA_DIR/jwt_secret (required with DATABASE_URL or REDIS_*)",
        secret: true,
    },
    Setting {
        name: "JWT_REQUIRE_EXP",
        flag: "jwt-require-exp",
        group: ACCESS,
        kind: Kind::Switch,
        default: "false",
        help: "Refuse tokens that never expire",
        secret: false,
    },
    Setting {
        name: "AUTH_INVALID_TOKEN",
        flag: "auth-invalid-token",
        group: ACCESS,
        kind: Kind::OneOf(&["reject", "guest"]),
        default: "reject",
        help: "What becomes of a client whose token is not valid",
        secret: false,
    },
    Setting {
        name: "GUEST_ROOMS",
        flag: "guest-rooms",
        group: ACCESS,
        kind: Kind::Switch,
        default: "true",
        help: "Let callers without a token create rooms (default false with DATABASE_URL or REDIS_*)",
        secret: false,
    },
    Setting {
        name: "CORS_ORIGIN",
        flag: "cors-origin",
        group: ACCESS,
        kind: Kind::Origins,
        default: "",
        help: "Web origins that may use this server besides its own, over HTTP and WebSocket",
        secret: false,
    },
    Setting {
        name: "TRUSTED_PROXIES",
        flag: "trusted-proxies",
        group: ACCESS,
        kind: Kind::Networks,
        default: "",
        help: "Reverse proxies whose X-Forwarded-For is believed",
        secret: false,
    },
    Setting {
        name: "ROOM_TTL_HOURS",
        flag: "room-ttl-hours",
        group: ROOMS,
        kind: Kind::Whole { min: 1, max: 8_760 },
        default: "24",
        help: "Hours after which an empty room expires",
        secret: false,
    },
    Setting {
        name: "ROOM_MAX_PARTICIPANTS",
        flag: "room-max-participants",
        group: ROOMS,
        kind: Kind::Whole { min: 2, max: 100_000 },
        default: "1000",
        help: "Most participants a room may be created for",
        secret: false,
    },
    Setting {
        name: "MAX_ROOMS",
        flag: "max-rooms",
        group: ROOMS,
        kind: Kind::Whole { min: 1, max: 10_000_000 },
        default: "100000",
        help: "Most rooms at a time",
        secret: false,
    },
    Setting {
        name: "RECONNECT_GRACE_MS",
        flag: "reconnect-grace-ms",
        group: ROOMS,
        kind: Kind::Whole { min: 0, max: 3_600_000 },
        default: "20000",
        help: "How long a participant whose connection was lost keeps the seat",
        secret: false,
    },
    Setting {
        name: "OWNER_HANDOVER_MS",
        flag: "owner-handover-ms",
        group: ROOMS,
        kind: Kind::Whole { min: 0, max: 86_400_000 },
        default: "60000",
        help: "How long a room waits for its owner before another participant stands in",
        secret: false,
    },
    Setting {
        name: "MAX_CONNECTIONS",
        flag: "max-connections",
        group: CONNECTIONS,
        kind: Kind::Whole { min: 1, max: 10_000_000 },
        default: "100000",
        help: "Most client connections at a time",
        secret: false,
    },
    Setting {
        name: "HTTP_KEEP_ALIVE_MS",
        flag: "http-keep-alive-ms",
        group: CONNECTIONS,
        kind: Kind::Whole { min: 1_000, max: 3_600_000 },
        default: "180000",
        help: "Milliseconds an idle HTTP connection is kept open; must be longer than the idle time of any proxy in front",
        secret: false,
    },
    Setting {
        name: "WS_PING_INTERVAL",
        flag: "ws-ping-interval",
        group: CONNECTIONS,
        kind: Kind::Whole { min: 100, max: 3_600_000 },
        default: "25000",
        help: "Milliseconds between heartbeats",
        secret: false,
    },
    Setting {
        name: "WS_PING_TIMEOUT",
        flag: "ws-ping-timeout",
        group: CONNECTIONS,
        kind: Kind::Whole { min: 100, max: 3_600_000 },
        default: "10000",
        help: "Milliseconds a client has to answer a heartbeat",
        secret: false,
    },
    Setting {
        name: "WS_UPGRADE_TIMEOUT",
        flag: "ws-upgrade-timeout",
        group: CONNECTIONS,
        kind: Kind::Whole { min: 100, max: 3_600_000 },
        default: "10000",
        help: "Milliseconds an upgrade from polling to WebSocket may take",
        secret: false,
    },
    Setting {
        name: "WS_CONNECT_TIMEOUT",
        flag: "ws-connect-timeout",
        group: CONNECTIONS,
        kind: Kind::Whole { min: 100, max: 3_600_000 },
        default: "45000",
        help: "Milliseconds a connection may stay without joining a namespace",
        secret: false,
    },
    Setting {
        name: "WS_MAX_HTTP_BUFFER_SIZE",
        flag: "ws-max-http-buffer-size",
        group: CONNECTIONS,
        kind: Kind::Whole { min: 1_024, max: 100_000_000 },
        default: "1000000",
        help: "Largest message taken from a client, in bytes",
        secret: false,
    },
    Setting {
        name: "WS_MAX_BUFFERED_BYTES",
        flag: "ws-max-buffered-bytes",
        group: CONNECTIONS,
        kind: Kind::Whole { min: 65_536, max: 1_073_741_824 },
        default: "4194304",
        help: "Bytes that may wait for one client before it must keep taking some of them",
        secret: false,
    },
    Setting {
        name: "WS_STALL_TIMEOUT",
        flag: "ws-stall-timeout",
        group: CONNECTIONS,
        kind: Kind::Whole { min: 100, max: 3_600_000 },
        default: "10000",
        help: "Milliseconds a client may take nothing while more than WS_MAX_BUFFERED_BYTES wait for it; WS_PING_TIMEOUT at most",
        secret: false,
    },
    Setting {
        name: "WS_MAX_BACKLOG_BYTES",
        flag: "ws-max-backlog-bytes",
        group: CONNECTIONS,
        kind: Kind::Whole { min: 65_536, max: 4_294_967_296 },
        default: "67108864",
        help: "Most bytes that may wait for one client; WS_MAX_BUFFERED_BYTES at least",
        secret: false,
    },
    Setting {
        name: "WS_MAX_TOTAL_BACKLOG_BYTES",
        flag: "ws-max-total-backlog-bytes",
        group: CONNECTIONS,
        kind: Kind::Whole { min: 1_048_576, max: 1_099_511_627_776 },
        default: "1073741824",
        help: "Most bytes that may wait for all clients together before the slowest are closed; WS_MAX_BACKLOG_BYTES at least",
        secret: false,
    },
    Setting {
        name: "DATA_DIR",
        flag: "data-dir",
        group: STORAGE,
        kind: Kind::Path,
        default: "./data",
        help: "Directory of the embedded database and the generated secret, made if missing",
        secret: false,
    },
    Setting {
        name: "DATABASE_URL",
        flag: "database-url",
        group: STORAGE,
        kind: Kind::Url(&["postgres", "postgresql"]),
        default: "",
        help: "PostgreSQL for rooms and participants, in place of SQLite",
        secret: true,
    },
    Setting {
        name: "REDIS_URL",
        flag: "redis-url",
        group: STORAGE,
        kind: Kind::RedisUrl,
        default: "",
        help: "Redis for the realtime state, or nodes of a Redis Cluster separated by commas; needs DATABASE_URL",
        secret: true,
    },
    Setting {
        name: "REDIS_HOST",
        flag: "redis-host",
        group: STORAGE,
        kind: Kind::Host,
        default: "localhost",
        help: "Host of Redis where REDIS_URL names none",
        secret: false,
    },
    Setting {
        name: "REDIS_PORT",
        flag: "redis-port",
        group: STORAGE,
        kind: Kind::Whole { min: 1, max: 65_535 },
        default: "6379",
        help: "Port of Redis where REDIS_URL names none",
        secret: false,
    },
    Setting {
        name: "REDIS_PASSWORD",
        flag: "redis-password",
        group: STORAGE,
        kind: Kind::Text,
        default: "",
        help: "Password of Redis where REDIS_URL has none",
        secret: true,
    },
    Setting {
        name: "REDIS_DB_STATE",
        flag: "redis-db-state",
        group: STORAGE,
        kind: Kind::Whole { min: 0, max: 65_535 },
        default: "0",
        help: "Redis database number of the realtime state where REDIS_URL has none; a cluster has only 0",
        secret: false,
    },
    Setting {
        name: "REDIS_DB_RATE",
        flag: "redis-db-rate",
        group: STORAGE,
        kind: Kind::Whole { min: 0, max: 65_535 },
        default: "2",
        help: "Redis database number of the rate limits; a cluster has only 0",
        secret: false,
    },
    Setting {
        name: "REDIS_KEY_PREFIX",
        flag: "redis-key-prefix",
        group: STORAGE,
        kind: Kind::Text,
        default: "",
        help: "Put before every Redis key",
        secret: false,
    },
    Setting {
        name: "RELAY",
        flag: "relay",
        group: STORAGE,
        kind: Kind::Switch,
        default: "true",
        help: "Serve requests of sessions at other instances over Redis, so that balancers need not be sticky",
        secret: false,
    },
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_defaults_are_allowed() {
        let mut seen = HashSet::new();
        for setting in SETTINGS {
            assert!(seen.insert(setting.name), "{} is listed twice", setting.name);
            assert_eq!(setting.flag, setting.name.to_ascii_lowercase().replace('_', "-"));
            assert!(setting.default.is_empty() || setting.kind.admits(setting.default), "{}", setting.name);
            assert!(!setting.help.ends_with('.'), "{}", setting.name);
        }
    }

    #[test]
    fn the_readme_lists_every_setting() {
        let readme = include_str!("../../../README.md");
        for Setting { name, default, help, .. } in SETTINGS {
            let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
            let row = format!("| `{name}` | {default} | {help} |");
            assert!(readme.lines().any(|line| line == row), "README.md lacks: {row}");
        }
    }

    #[test]
    fn groups_are_listed_in_one_piece_each() {
        let mut groups: Vec<_> = SETTINGS.iter().map(|setting| setting.group).collect();
        groups.dedup();
        assert_eq!(groups, [SERVER, ACCESS, ROOMS, CONNECTIONS, STORAGE]);
    }

    #[test]
    fn whole_numbers_are_plain_digits() {
        let kind = Kind::Whole { min: 1, max: 10 };
        for good in ["1", "10", "007"] {
            assert!(kind.admits(good), "{good}");
        }
        for bad in ["0", "11", "-1", "+1", " 1", "1 ", "1.0", "1e1", "0x1", "", "99999999999999999999"] {
            assert!(!kind.admits(bad), "{bad}");
        }
    }

    #[test]
    fn hosts_are_addresses_or_names() {
        for good in ["0.0.0.0", "::", "::1", "localhost", "redis-1.example.org", "my_redis"] {
            assert!(Kind::Host.admits(good), "{good}");
        }
        for bad in ["", "host:80", "[::1]", "http://host", "a b", "a..b", "300.0.0.1", "host/"] {
            assert!(!Kind::Host.admits(bad), "{bad}");
        }
    }

    #[test]
    fn urls_have_a_known_scheme_and_a_host() {
        let kind = Kind::Url(&["redis", "rediss"]);
        for good in ["redis://localhost", "rediss://user:pw@host:6379/2", "redis://[::1]:6379"] {
            assert!(kind.admits(good), "{good}");
        }
        for bad in ["localhost", "http://localhost", "redis://", "redis://:6379", "redis:///0", "redis://a b"] {
            assert!(!kind.admits(bad), "{bad}");
        }
    }
}
