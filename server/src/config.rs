//! Settings: flags, environment and `.env` turned into one typed [`Config`], or into everything that is wrong with them.
//!
//! A flag wins over the environment, the environment over `.env`, and an empty value counts as not given.

mod proxies;
mod redis;
mod secret;
mod table;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socketio::engineio::Origins;

use redis::RedisUrl;

pub use proxies::TrustedProxies;
pub use redis::{RedisServer, RedisSettings};
pub use secret::{MIN_SECRET_BYTES, SECRET_FILE, Secret, create_private_dir, load_or_create};
pub use table::{Kind, SETTINGS, Setting};

/// Everything that can be set, checked and in the type it is used in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address or host name to listen on.
    pub host: String,
    /// TCP port to listen on; 0 asks for a free one.
    pub port: u16,
    /// What is logged, in the notation of `RUST_LOG`.
    pub log_filter: String,
    /// How the log is written.
    pub log_format: LogFormat,
    /// How long a stopping server waits for its connections.
    pub shutdown_timeout: Duration,
    /// Time over which clients of a stopping server spread their return.
    pub shutdown_reconnect: Duration,
    /// The token secret, if one was set; [`token_secret`](Self::token_secret) finds the one to use.
    pub jwt_secret: Option<Secret>,
    /// Whether a token must have an end.
    pub jwt_require_exp: bool,
    /// What becomes of a client whose token is not valid.
    pub auth_invalid_token: InvalidTokenPolicy,
    /// Whether callers without a token may create rooms.
    pub guest_rooms: bool,
    /// Web origins that may use the server besides its own.
    pub cors_origin: Origins,
    /// Reverse proxies that are believed about who their clients are.
    pub trusted_proxies: TrustedProxies,
    /// How long a room lives.
    pub room_ttl: Duration,
    /// Most participants a room may be created for.
    pub room_max_participants: u32,
    /// Most rooms at a time.
    pub max_rooms: u64,
    /// How long a lost connection keeps its seat.
    pub reconnect_grace: Duration,
    /// How long a room waits for its owner before another stands in.
    pub owner_handover: Duration,
    /// Most client connections at a time.
    pub max_connections: usize,
    /// Time an HTTP connection may stay idle between two requests.
    pub http_keep_alive: Duration,
    /// Time between heartbeats.
    pub ping_interval: Duration,
    /// Time a client has to answer a heartbeat.
    pub ping_timeout: Duration,
    /// Time an upgrade to WebSocket may take.
    pub upgrade_timeout: Duration,
    /// Time a connection may stay without a namespace.
    pub connect_timeout: Duration,
    /// Largest message taken from a client, in bytes.
    pub max_http_buffer_size: usize,
    /// Bytes that may wait for one client before it must keep taking some of them.
    pub max_buffered_bytes: usize,
    /// Time a client may take nothing while more waits for it.
    pub stall_timeout: Duration,
    /// Most bytes that may wait for one client.
    pub max_backlog_bytes: usize,
    /// Most bytes that may wait for all clients together.
    pub max_total_backlog_bytes: usize,
    /// Directory of the embedded database and the generated secret.
    pub data_dir: PathBuf,
    /// PostgreSQL, if one is named.
    pub database_url: Option<Secret>,
    /// Redis, if one is named.
    pub redis: Option<RedisSettings>,
    /// Whether instances that share Redis serve each other's requests, so that a balancer may send any to any of them.
    pub relay: bool,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people on a terminal, JSON elsewhere.
    Auto,
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

/// What becomes of a client whose token is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidTokenPolicy {
    /// Its connection is refused.
    Reject,
    /// It is let in as a guest and told so.
    Guest,
}

/// The values given from outside, still unread.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Values by the name of the setting, from the command line.
    pub flags: HashMap<&'static str, OsString>,
    /// The environment of the process.
    pub environment: HashMap<OsString, OsString>,
    /// The entries of the `.env` file.
    pub dotenv: HashMap<String, String>,
}

impl Sources {
    /// Collects the values; a `.env` file that does not exist is an empty one.
    ///
    /// # Errors
    /// [`Problem::DotEnv`] where the file is there but cannot be read. The message has no line of the file in it,
    /// since that may be a secret.
    pub fn collect(
        flags: HashMap<&'static str, OsString>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        dotenv: &Path,
    ) -> Result<Self, ConfigError> {
        let unreadable = |cause: String| ConfigError(vec![Problem::DotEnv { path: dotenv.to_owned(), cause }]);
        let mut entries = HashMap::new();
        match dotenvy::from_path_iter(dotenv) {
            Err(dotenvy::Error::Io(error)) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(error.to_string())),
            Ok(lines) => {
                let mut after = String::new();
                for line in lines {
                    let (name, value) = line.map_err(|error| {
                        unreadable(if let dotenvy::Error::Io(error) = error {
                            error.to_string()
                        } else {
                            format!("a line{after} is not of the form NAME=value")
                        })
                    })?;
                    after = format!(" after {name}");
                    // Of several entries of one name the last counts, as in a shell.
                    entries.insert(name, value);
                }
            }
        }
        Ok(Self { flags, environment: environment.into_iter().collect(), dotenv: entries })
    }

    fn value(&self, setting: &Setting) -> Option<(Source, OsString)> {
        let given = [
            (Source::Flag, self.flags.get(setting.name).cloned()),
            (Source::Environment, self.environment.get(setting.name.as_ref() as &std::ffi::OsStr).cloned()),
            (Source::DotEnv, self.dotenv.get(setting.name).map(OsString::from)),
        ];
        given.into_iter().find_map(|(source, value)| Some((source, value.filter(|value| !value.is_empty())?)))
    }
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Flag,
    /// The environment.
    Environment,
    /// The `.env` file.
    DotEnv,
}

/// One thing that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A value is not one the setting takes.
    NotAllowed {
        /// The setting.
        setting: &'static Setting,
        /// Where the value came from.
        source: Source,
        /// The value, ready to be shown: quoted, shortened, masked if secret.
        shown: String,
    },
    /// The token secret is missing where one may not be made up.
    SecretMissing,
    /// The directory for the data cannot be used.
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the file system answered.
        cause: String,
    },
    /// The `.env` file cannot be read.
    DotEnv {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
}

/// Everything that is wrong with the settings, in the order of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub Vec<Problem>);

impl Config {
    /// Reads and checks every setting.
    ///
    /// # Errors
    /// All problems at once, so that they can be put right in one go.
    pub fn read(sources: &Sources) -> Result<Self, ConfigError> {
        let mut reader = Reader { sources, problems: Vec::new() };
        let embedded = !BACKENDS.iter().any(|name| sources.names(name));
        let config = Self {
            host: reader.text("HOST"),
            port: reader.whole("PORT"),
            log_filter: reader.text("RUST_LOG"),
            log_format: match reader.text("LOG_FORMAT").as_str() {
                "human" => LogFormat::Human,
                "json" => LogFormat::Json,
                _ => LogFormat::Auto,
            },
            shutdown_timeout: reader.millis("SHUTDOWN_TIMEOUT_MS"),
            shutdown_reconnect: reader.millis("SHUTDOWN_RECONNECT_MS"),
            jwt_secret: reader.secret("JWT_SECRET"),
            jwt_require_exp: reader.switch("JWT_REQUIRE_EXP"),
            auth_invalid_token: match reader.text("AUTH_INVALID_TOKEN").as_str() {
                "guest" => InvalidTokenPolicy::Guest,
                _ => InvalidTokenPolicy::Reject,
            },
            guest_rooms: reader.switch("GUEST_ROOMS") && (embedded || reader.is_given("GUEST_ROOMS")),
            cors_origin: reader.given("CORS_ORIGIN").and_then(|value| Origins::parse(&value)).unwrap_or_default(),
            trusted_proxies: reader
                .given("TRUSTED_PROXIES")
                .and_then(|value| TrustedProxies::parse(&value))
                .unwrap_or_default(),
            room_ttl: Duration::from_secs(reader.whole::<u64>("ROOM_TTL_HOURS") * 3600),
            room_max_participants: reader.whole("ROOM_MAX_PARTICIPANTS"),
            max_rooms: reader.whole("MAX_ROOMS"),
            reconnect_grace: reader.millis("RECONNECT_GRACE_MS"),
            owner_handover: reader.millis("OWNER_HANDOVER_MS"),
            max_connections: reader.whole("MAX_CONNECTIONS"),
            http_keep_alive: reader.millis("HTTP_KEEP_ALIVE_MS"),
            ping_interval: reader.millis("WS_PING_INTERVAL"),
            ping_timeout: reader.millis("WS_PING_TIMEOUT"),
            upgrade_timeout: reader.millis("WS_UPGRADE_TIMEOUT"),
            connect_timeout: reader.millis("WS_CONNECT_TIMEOUT"),
            max_http_buffer_size: reader.whole("WS_MAX_HTTP_BUFFER_SIZE"),
            max_buffered_bytes: reader.whole("WS_MAX_BUFFERED_BYTES"),
            stall_timeout: reader.millis("WS_STALL_TIMEOUT"),
            max_backlog_bytes: reader.whole("WS_MAX_BACKLOG_BYTES"),
            max_total_backlog_bytes: reader.whole("WS_MAX_TOTAL_BACKLOG_BYTES"),
            data_dir: reader.text("DATA_DIR").into(),
            database_url: reader.secret("DATABASE_URL"),
            redis: reader.redis(),
            relay: reader.switch("RELAY"),
        };
        let mut problems = reader.problems;
        if !embedded && config.jwt_secret.is_none() && !sources.names("JWT_SECRET") {
            problems.push(Problem::SecretMissing);
        }
        if problems.is_empty() { Ok(config) } else { Err(ConfigError(problems)) }
    }

    /// Finds the secret for tokens: the one set, else the one kept in the data directory, made there if need be.
    ///
    /// # Errors
    /// [`Problem::DataDir`] where the directory or the file in it cannot be used.
    pub fn token_secret(&self) -> Result<Secret, ConfigError> {
        match &self.jwt_secret {
            Some(secret) => Ok(secret.clone()),
            None => load_or_create(&self.data_dir).map_err(|error| self.data_dir_problem(&error)),
        }
    }

    /// Puts an error of the file system under the data directory into words that name the setting.
    pub fn data_dir_problem(&self, error: &io::Error) -> ConfigError {
        ConfigError(vec![Problem::DataDir { path: self.data_dir.clone(), cause: error.to_string() }])
    }

    /// Returns what is allowed but unwise, one sentence each, for the log at the start.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(length) = self.jwt_secret.as_ref().map(|secret| secret.expose().len())
            && length < MIN_SECRET_BYTES
        {
            warnings.push(format!(
                "JWT_SECRET has {length} bytes; with fewer than {MIN_SECRET_BYTES}, tokens can be forged by trying out secrets"
            ));
        }
        warnings
    }
}

impl Sources {
    fn names(&self, name: &str) -> bool {
        Setting::named(name).is_some_and(|setting| self.value(setting).is_some())
    }
}

/// Reads values one by one and collects what is wrong. A wrong value reads as the default or as zero,
/// which nobody sees: the configuration is dropped once there is a problem.
struct Reader<'a> {
    sources: &'a Sources,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    /// Returns the value given, if it is allowed.
    fn given(&mut self, name: &str) -> Option<String> {
        let setting = Setting::named(name).expect("every setting read is in the table");
        let (source, value) = self.sources.value(setting)?;
        match value.to_str().filter(|value| setting.kind.admits(value)) {
            Some(value) => Some(value.to_owned()),
            None => {
                self.problems.push(Problem::NotAllowed { setting, source, shown: shown(setting, &value) });
                None
            }
        }
    }

    fn is_given(&self, name: &str) -> bool {
        self.sources.names(name)
    }

    fn text(&mut self, name: &str) -> String {
        self.given(name)
            .unwrap_or_else(|| Setting::named(name).map(|setting| setting.default).unwrap_or_default().to_owned())
    }

    fn whole<T: TryFrom<u64> + Default>(&mut self, name: &str) -> T {
        table::whole(&self.text(name)).and_then(|number| T::try_from(number).ok()).unwrap_or_default()
    }

    fn millis(&mut self, name: &str) -> Duration {
        Duration::from_millis(self.whole(name))
    }

    fn switch(&mut self, name: &str) -> bool {
        table::switch(&self.text(name)).unwrap_or_default()
    }

    fn secret(&mut self, name: &str) -> Option<Secret> {
        self.given(name).map(Secret::new)
    }

    /// Reads what says where Redis is. What a URL says counts for more than the other settings.
    fn redis(&mut self) -> Option<RedisSettings> {
        let is_named = BACKENDS.iter().any(|name| name.starts_with("REDIS_") && self.is_given(name));
        let url = self.given("REDIS_URL").and_then(|url| RedisUrl::parse(&url));
        let server = RedisServer { host: self.text("REDIS_HOST"), port: self.whole("REDIS_PORT") };
        let password = self.secret("REDIS_PASSWORD");
        let (db_state, db_rate) = (self.whole("REDIS_DB_STATE"), self.whole("REDIS_DB_RATE"));
        let key_prefix = self.text("REDIS_KEY_PREFIX");
        let url = url.unwrap_or_else(|| RedisUrl::of(server));
        is_named.then(|| RedisSettings {
            servers: url.servers,
            tls: url.tls,
            user: url.user,
            password: url.password.or(password),
            db_state: url.db.unwrap_or(db_state),
            db_rate,
            key_prefix,
        })
    }
}

/// Makes a value fit for a message: masked if secret, else quoted with control characters escaped, and not too long.
fn shown(setting: &Setting, value: &std::ffi::OsStr) -> String {
    if setting.secret {
        return "\"***\"".to_owned();
    }
    let text = value.to_string_lossy();
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "command line",
            Self::Environment => "environment",
            Self::DotEnv => ".env",
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllowed { setting, source, shown } => {
                write!(f, "{} is {shown} ({source}); allowed is {}", setting.name, setting.kind.allowed())
            }
            Self::SecretMissing => {
                write!(
                    f,
                    "JWT_SECRET is not set; with DATABASE_URL or REDIS_* a text of at least {MIN_SECRET_BYTES} bytes is required"
                )
            }
            Self::DataDir { path, cause } => {
                write!(f, "DATA_DIR is {path:?}; allowed is a directory the server can use: {cause}")
            }
            Self::DotEnv { path, cause } => write!(f, "{} cannot be read: {cause}", path.display()),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// Settings that ask for a backend other than the embedded one. The others of Redis only say how it is used.
const BACKENDS: [&str; 5] = ["DATABASE_URL", "REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD"];

/// Longest piece of a wrong value worth showing, in characters.
const MAX_SHOWN_CHARS: usize = 100;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::TempDir;

    fn environment(pairs: &[(&str, &str)]) -> Sources {
        let environment = pairs.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Sources { environment, ..Sources::default() }
    }

    fn read(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::read(&environment(pairs))
    }

    fn message(pairs: &[(&str, &str)]) -> String {
        read(pairs).unwrap_err().to_string()
    }

    #[test]
    fn nothing_set_is_the_embedded_default() {
        let config = read(&[]).unwrap();
        let expected = Config {
            host: "0.0.0.0".to_owned(),
            port: 4000,
            log_filter: "info".to_owned(),
            log_format: LogFormat::Auto,
            shutdown_timeout: Duration::from_secs(10),
            shutdown_reconnect: Duration::from_secs(5),
            jwt_secret: None,
            jwt_require_exp: false,
            auth_invalid_token: InvalidTokenPolicy::Reject,
            guest_rooms: true,
            cors_origin: Origins::Own,
            trusted_proxies: TrustedProxies::default(),
            room_ttl: Duration::from_secs(24 * 3600),
            room_max_participants: 1000,
            max_rooms: 100_000,
            reconnect_grace: Duration::from_secs(20),
            owner_handover: Duration::from_secs(60),
            max_connections: 100_000,
            http_keep_alive: Duration::from_secs(180),
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(10),
            upgrade_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(45),
            max_http_buffer_size: 1_000_000,
            max_buffered_bytes: 4_194_304,
            stall_timeout: Duration::from_secs(10),
            max_backlog_bytes: 67_108_864,
            max_total_backlog_bytes: 1_073_741_824,
            data_dir: "./data".into(),
            database_url: None,
            redis: None,
            relay: true,
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn every_setting_can_be_wrong_and_says_what_is_allowed() {
        let whole = |min: u64, max: u64| format!("a whole number from {min} to {max}");
        let switch = "true or false".to_owned();
        let postgres_url = "postgres://host[:port][/name] or postgresql://host[:port][/name]".to_owned();
        let redis_url = "redis://[[user]:password@]host[:port][,host[:port]...][/number] or rediss://... for TLS; \
                         several hosts are nodes of a Redis Cluster"
            .to_owned();
        let host = "an IP address or a host name, without port".to_owned();
        let cases = [
            ("HOST", "a b", host.clone()),
            ("PORT", "65536", whole(0, 65535)),
            (
                "RUST_LOG",
                "syncwatch=loud",
                "directives like info or syncwatch=debug,info with the levels off, error, warn, info, debug, trace"
                    .to_owned(),
            ),
            ("LOG_FORMAT", "xml", "auto or human or json".to_owned()),
            ("SHUTDOWN_TIMEOUT_MS", "10s", whole(0, 600_000)),
            ("SHUTDOWN_RECONNECT_MS", "-1", whole(0, 600_000)),
            ("JWT_REQUIRE_EXP", "yes", switch.clone()),
            ("RELAY", "on", switch.clone()),
            ("AUTH_INVALID_TOKEN", "ignore", "reject or guest".to_owned()),
            ("GUEST_ROOMS", "1", switch),
            (
                "CORS_ORIGIN",
                "example.org",
                "* or origins like https://example.org or file:// separated by commas".to_owned(),
            ),
            ("TRUSTED_PROXIES", "proxy", "IP addresses or networks like 10.0.0.0/8 separated by commas".to_owned()),
            ("ROOM_TTL_HOURS", "0", whole(1, 8760)),
            ("ROOM_MAX_PARTICIPANTS", "1", whole(2, 100_000)),
            ("MAX_ROOMS", "0", whole(1, 10_000_000)),
            ("RECONNECT_GRACE_MS", "3600001", whole(0, 3_600_000)),
            ("OWNER_HANDOVER_MS", "x", whole(0, 86_400_000)),
            ("MAX_CONNECTIONS", "0", whole(1, 10_000_000)),
            ("HTTP_KEEP_ALIVE_MS", "0", whole(1_000, 3_600_000)),
            ("WS_PING_INTERVAL", "25s", whole(100, 3_600_000)),
            ("WS_PING_TIMEOUT", "99", whole(100, 3_600_000)),
            ("WS_UPGRADE_TIMEOUT", "1e4", whole(100, 3_600_000)),
            ("WS_CONNECT_TIMEOUT", "0", whole(100, 3_600_000)),
            ("WS_MAX_HTTP_BUFFER_SIZE", "1MB", whole(1024, 100_000_000)),
            ("WS_MAX_BUFFERED_BYTES", "1", whole(65_536, 1_073_741_824)),
            ("WS_STALL_TIMEOUT", "0", whole(100, 3_600_000)),
            ("WS_MAX_BACKLOG_BYTES", "64M", whole(65_536, 4_294_967_296)),
            ("WS_MAX_TOTAL_BACKLOG_BYTES", "1", whole(1_048_576, 1_099_511_627_776)),
            ("DATABASE_URL", "mysql://db", postgres_url),
            ("REDIS_URL", "localhost:6379", redis_url),
            ("REDIS_HOST", "redis:6379", host),
            ("REDIS_PORT", "0", whole(1, 65_535)),
            ("REDIS_DB_STATE", "zero", whole(0, 65_535)),
            ("REDIS_DB_RATE", "65536", whole(0, 65_535)),
        ];
        for (name, value, allowed) in &cases {
            let setting = Setting::named(name).unwrap();
            let shown = if setting.secret { "***" } else { value };
            let expected = format!("{name} is \"{shown}\" (environment); allowed is {allowed}");
            assert_eq!(message(&[(name, value), ("JWT_SECRET", "x")]), expected);
        }
        // Whatever is not in the cases above takes any text, and is wrong only where it is no text at all.
        for setting in SETTINGS.iter().filter(|setting| cases.iter().all(|(name, ..)| *name != setting.name)) {
            assert!(matches!(setting.kind, Kind::Text | Kind::Path), "{} is not tested", setting.name);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_not_utf_8_is_wrong_everywhere() {
        use std::os::unix::ffi::OsStringExt;
        for setting in SETTINGS {
            let mut sources = Sources::default();
            sources.environment.insert(setting.name.into(), OsString::from_vec(vec![b'a', 0xff]));
            let error = Config::read(&sources).unwrap_err();
            let shown = if setting.secret { "***" } else { "a\u{fffd}" };
            let expected =
                format!("{} is \"{shown}\" (environment); allowed is {}", setting.name, setting.kind.allowed());
            assert_eq!(error.to_string().lines().next(), Some(expected.as_str()));
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let expected = "PORT is \"http\" (environment); allowed is a whole number from 0 to 65535\n\
                        GUEST_ROOMS is \"maybe\" (environment); allowed is true or false\n\
                        WS_PING_INTERVAL is \"\\u{1b}[2J\" (environment); allowed is a whole number from 100 to 3600000";
        let wrong = [("WS_PING_INTERVAL", "\u{1b}[2J"), ("GUEST_ROOMS", "maybe"), ("PORT", "http")];
        assert_eq!(message(&wrong), expected);
    }

    #[test]
    fn a_long_wrong_value_is_shortened() {
        let expected = format!("PORT is \"{}\"... (environment);", "é".repeat(100));
        assert!(message(&[("PORT", &"é".repeat(101))]).starts_with(&expected));
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let dir = TempDir::new();
        let file = dir.path().join(".env");
        fs::write(&file, "# comment\nPORT=1001\nHOST='127.0.0.1'\nROOM_TTL_HOURS=3\nexport MAX_ROOMS=7\n").unwrap();
        let flags = HashMap::from([("PORT", "1003".into())]);
        let environment =
            [("PORT".into(), "1002".into()), ("HOST".into(), "::1".into()), ("MAX_ROOMS".into(), "".into())];
        let sources = Sources::collect(flags, environment, &file).unwrap();
        let config = Config::read(&sources).unwrap();
        assert_eq!((config.port, config.host.as_str(), config.max_rooms), (1003, "::1", 7));
        assert_eq!(config.room_ttl, Duration::from_secs(3 * 3600));
    }

    #[test]
    fn the_message_names_where_the_value_came_from() {
        let sources = Sources {
            flags: HashMap::from([("PORT", "a".into())]),
            environment: HashMap::from([("MAX_ROOMS".into(), "c".into())]),
            dotenv: HashMap::from([("ROOM_TTL_HOURS".to_owned(), "b".to_owned())]),
        };
        let expected = "PORT is \"a\" (command line); allowed is a whole number from 0 to 65535\n\
                        ROOM_TTL_HOURS is \"b\" (.env); allowed is a whole number from 1 to 8760\n\
                        MAX_ROOMS is \"c\" (environment); allowed is a whole number from 1 to 10000000";
        assert_eq!(Config::read(&sources).unwrap_err().to_string(), expected);
    }

    #[test]
    fn a_missing_file_is_an_empty_one_and_a_broken_one_is_named_without_its_content() {
        let dir = TempDir::new();
        let collect = |name: &str| Sources::collect(HashMap::new(), [], &dir.path().join(name));
        assert!(collect("none").unwrap().dotenv.is_empty());
        fs::write(dir.path().join("broken"), "PORT=1\nJWT_SECRET='hunter2\n").unwrap();
        let message = collect("broken").unwrap_err().to_string();
        assert!(
            message.ends_with("broken cannot be read: a line after PORT is not of the form NAME=value"),
            "{message}"
        );
        assert!(!message.contains("hunter2"));
        assert!(collect(".").is_err());
    }

    #[test]
    fn secrets_never_show() {
        let secrets = [
            ("JWT_SECRET", "hunter2"),
            ("DATABASE_URL", "postgres://user:hunter2@db/x"),
            ("REDIS_URL", "redis://:hunter2@redis"),
            ("REDIS_PASSWORD", "hunter2"),
        ];
        let config = Config::read(&environment(&secrets)).unwrap();
        assert_eq!(config.jwt_secret.as_ref().map(Secret::expose), Some("hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(!config.warnings().concat().contains("hunter2"));
        let error = read(&[&secrets[1..], &[("PORT", "x")]].concat()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        for setting in SETTINGS {
            let named = ["SECRET", "PASSWORD", "_URL"].iter().any(|part| setting.name.contains(part));
            assert_eq!(setting.secret, named, "{}", setting.name);
        }
    }

    #[test]
    fn other_backends_need_a_secret() {
        for (name, value) in [
            ("DATABASE_URL", "postgres://host"),
            ("REDIS_URL", "redis://host"),
            ("REDIS_HOST", "redis"),
            ("REDIS_PORT", "6380"),
            ("REDIS_PASSWORD", "x"),
        ] {
            assert_eq!(read(&[(name, value)]).unwrap_err().0, [Problem::SecretMissing], "{name}");
            let config = read(&[(name, value), ("JWT_SECRET", "x")]).unwrap();
            assert_eq!(
                (config.database_url.is_some(), config.redis.is_some()),
                match name {
                    "DATABASE_URL" => (true, false),
                    _ => (false, true),
                }
            );
            assert_eq!(read(&[(name, "")]).unwrap().redis, None);
        }
        let expected = "JWT_SECRET is not set; with DATABASE_URL or REDIS_* a text of at least 32 bytes is required";
        assert_eq!(message(&[("REDIS_HOST", "redis"), ("DATABASE_URL", "postgres://db/x")]), expected);
    }

    fn redis(pairs: &[(&str, &str)]) -> RedisSettings {
        read(&[pairs, &[("JWT_SECRET", "x")]].concat()).unwrap().redis.unwrap()
    }

    fn redis_at(host: &str, port: u16) -> RedisSettings {
        RedisSettings {
            servers: vec![RedisServer { host: host.to_owned(), port }],
            tls: false,
            user: None,
            password: None,
            db_state: 0,
            db_rate: 2,
            key_prefix: String::new(),
        }
    }

    #[test]
    fn redis_is_named_by_host_and_port_or_by_a_url() {
        assert_eq!(redis(&[("REDIS_HOST", "redis")]), redis_at("redis", 6379));
        assert_eq!(redis(&[("REDIS_PORT", "6380")]), redis_at("localhost", 6380));
        let password = RedisSettings { password: Some(Secret::new("pw")), ..redis_at("redis", 6379) };
        assert_eq!(redis(&[("REDIS_HOST", "redis"), ("REDIS_PASSWORD", "pw")]), password);
        assert_eq!(redis(&[("REDIS_URL", "redis://redis"), ("REDIS_PASSWORD", "pw")]), password);
        assert_eq!(redis(&[("REDIS_URL", "redis://:pw@redis"), ("REDIS_PASSWORD", "other")]), password);
        assert_eq!(redis(&[("REDIS_URL", "redis://a:1"), ("REDIS_HOST", "b")]), redis_at("a", 1));
        let layout = [("REDIS_DB_RATE", "5"), ("REDIS_KEY_PREFIX", "x:")];
        assert_eq!(read(&layout).unwrap().redis, None);
        let expected = RedisSettings { db_state: 3, db_rate: 5, key_prefix: "x:".to_owned(), ..redis_at("a", 6379) };
        assert_eq!(redis(&[&layout[..], &[("REDIS_URL", "redis://a/3")]].concat()), expected);
        let both = [("REDIS_URL", "redis://a/3"), ("REDIS_DB_STATE", "4")];
        assert_eq!(redis(&both), RedisSettings { db_state: 3, ..redis_at("a", 6379) });
        assert!(redis(&[("REDIS_URL", "rediss://a")]).tls);
        assert!(redis(&[("REDIS_URL", "redis://a,b:2")]).is_cluster());
    }

    #[test]
    fn a_token_can_be_made_for_other_backends_given_the_secret() {
        let config = read(&[("REDIS_HOST", "redis"), ("JWT_SECRET", "x")]).unwrap();
        assert!(!config.guest_rooms);
        assert_eq!(config.token_secret().unwrap(), Secret::new("x"));
    }

    #[test]
    fn guest_rooms_follow_the_backend_unless_set() {
        let guest_rooms = |pairs: &[(&str, &str)]| Config::read(&environment(pairs)).unwrap().guest_rooms;
        let redis = [("REDIS_HOST", "redis"), ("JWT_SECRET", "x")];
        assert!(guest_rooms(&[]));
        assert!(!guest_rooms(&[("GUEST_ROOMS", "false")]));
        assert!(!guest_rooms(&redis));
        assert!(guest_rooms(&[redis[0], redis[1], ("GUEST_ROOMS", "true")]));
    }

    #[test]
    fn a_short_secret_is_a_warning() {
        let warnings = |secret: &str| read(&[("JWT_SECRET", secret)]).unwrap().warnings();
        let expected = "JWT_SECRET has 31 bytes; with fewer than 32, tokens can be forged by trying out secrets";
        assert_eq!(warnings(&"x".repeat(31)), [expected]);
        assert!(warnings(&"x".repeat(32)).is_empty());
        assert!(read(&[]).unwrap().warnings().is_empty());
    }

    #[test]
    fn the_secret_is_the_one_set_or_the_one_kept() {
        let dir = TempDir::new();
        let data = dir.path().join("data").display().to_string();
        let set = read(&[("DATA_DIR", &data), ("JWT_SECRET", "set")]).unwrap();
        assert_eq!(set.token_secret().unwrap(), Secret::new("set"));
        assert!(!dir.path().join("data").exists());
        let unset = read(&[("DATA_DIR", &data)]).unwrap();
        assert_eq!(unset.token_secret().unwrap(), unset.token_secret().unwrap());
    }

    #[test]
    fn a_data_directory_that_cannot_be_used_is_named() {
        let dir = TempDir::new();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let message =
            read(&[("DATA_DIR", &file.display().to_string())]).unwrap().token_secret().unwrap_err().to_string();
        assert!(message.starts_with(&format!("DATA_DIR is {file:?}; allowed is a directory the server can use: ")));
    }
}
