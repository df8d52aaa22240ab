//! The command line: `syncwatch` runs the server, `syncwatch token` makes a token, and both take every setting as a flag.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::ValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, value_parser};

use crate::auth::{InvalidToken, MAX_USER_ID_CHARS, Tokens};
use crate::config::{Config, ConfigError, Kind, SETTINGS, Setting, Sources};
use crate::text::NAME;

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Run the server.
    Serve(Box<Config>),
    /// Make a token.
    Token(TokenRequest),
}

/// A token to be made.
#[derive(Debug)]
pub struct TokenRequest {
    config: Box<Config>,
    user_id: String,
    username: Option<String>,
    ttl: Duration,
}

/// Why there is nothing to run.
#[derive(Debug)]
pub enum Stop {
    /// The command line was wrong, or asked for help or for the version.
    Usage(clap::Error),
    /// Settings are wrong.
    Settings(ConfigError),
}

impl Stop {
    /// Prints the message and returns the exit status: 0 for help and version, which go to standard output, else 2.
    pub fn report(&self) -> ExitCode {
        let status = match self {
            Self::Usage(error) => {
                let _ = error.print(); // with standard error closed there is nobody to tell
                error.exit_code()
            }
            Self::Settings(error) => {
                let _ = writeln!(io::stderr(), "{error}");
                USAGE_STATUS
            }
        };
        u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from)
    }
}

impl From<clap::Error> for Stop {
    fn from(error: clap::Error) -> Self {
        Self::Usage(error)
    }
}

impl From<ConfigError> for Stop {
    fn from(error: ConfigError) -> Self {
        Self::Settings(error)
    }
}

/// Reads arguments (the program's name first), environment and `.env` file.
///
/// # Errors
/// [`Stop`], whose [`report`](Stop::report) ends the program.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    dotenv: &Path,
) -> Result<Command, Stop> {
    let matches = command().try_get_matches_from(arguments)?;
    let token = matches.subcommand_matches(TOKEN);
    let flags = SETTINGS.iter().filter_map(|setting| {
        let value = token.and_then(|token| given(token, setting)).or_else(|| given(&matches, setting))?;
        Some((setting.name, value.clone()))
    });
    let sources = Sources::collect(flags.collect::<HashMap<_, _>>(), environment, dotenv)?;
    let config = Box::new(Config::read(&sources)?);
    Ok(match token {
        None => Command::Serve(config),
        Some(token) => Command::Token(TokenRequest {
            config,
            user_id: token.get_one::<String>(USER_ID).cloned().unwrap_or_default(),
            username: token.get_one::<String>(USERNAME).cloned(),
            ttl: token.get_one::<Duration>(TTL).copied().unwrap_or_default(),
        }),
    })
}

impl TokenRequest {
    /// Makes the token, and the secret in the data directory if there is none yet.
    ///
    /// # Errors
    /// [`Stop`] where a name is one no server would take, or the data directory cannot be used.
    pub fn issue(&self) -> Result<String, Stop> {
        let tokens = Tokens::new(&self.config.token_secret()?, self.config.jwt_require_exp);
        tokens.issue(&self.user_id, self.username.as_deref(), self.ttl).map_err(|error| {
            let allowed = if error == InvalidToken::WrongClaim("username") {
                let most = NAME.most_characters;
                format!("--username takes 1 to {most} characters, none of them invisible, without outer blanks")
            } else {
                format!("--user-id takes 1 to {MAX_USER_ID_CHARS} characters without control characters")
            };
            Stop::Usage(command().error(ErrorKind::ValueValidation, allowed))
        })
    }

    /// Makes the token and prints it alone on a line; what is unwise about the settings goes to standard error.
    pub fn run(&self) -> ExitCode {
        for warning in self.config.warnings() {
            let _ = writeln!(io::stderr(), "warning: {warning}");
        }
        match self.issue() {
            Ok(token) => writeln!(io::stdout(), "{token}").map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
            Err(stop) => stop.report(),
        }
    }
}

fn given<'a>(matches: &'a ArgMatches, setting: &Setting) -> Option<&'a OsString> {
    matches.get_one::<OsString>(setting.name)
}

fn command() -> clap::Command {
    let token = clap::Command::new(TOKEN)
        .about("Print a token for a user, signed with JWT_SECRET or the secret in DATA_DIR")
        .after_help("It also takes every setting of the server, as --data-dir and --jwt-secret.")
        .arg(Arg::new(USER_ID).long(USER_ID).value_name("ID").required(true).help("Who the token is for"))
        .arg(Arg::new(USERNAME).long(USERNAME).value_name("NAME").help("What others see"))
        .arg(
            Arg::new(TTL)
                .long(TTL)
                .value_name("TIME")
                .default_value("1h")
                .value_parser(ValueParser::new(ttl))
                .help("How long the token is good: a number with s, m, h or d, up to 365d"),
        )
        .args(SETTINGS.iter().map(|setting| flag(setting).hide(true)));
    clap::Command::new("syncwatch")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Self-hosted watch-party server")
        .after_help(
            "Each setting is read from the flag, else from the environment, else from a file .env in the working\n\
             directory. Secrets are better not given as flags, which every user of the machine can see.",
        )
        .args(SETTINGS.iter().map(flag))
        .subcommand(token)
}

fn flag(setting: &'static Setting) -> Arg {
    let default = if setting.default.is_empty() { "none" } else { setting.default };
    let help =
        format!("{} [env: {}] [default: {default}] [allowed: {}]", setting.help, setting.name, setting.kind.allowed());
    Arg::new(setting.name)
        .long(setting.flag)
        .value_name(value_name(&setting.kind))
        .value_parser(value_parser!(OsString))
        .allow_negative_numbers(true) // so that the message is ours, with what is allowed
        .help_heading(setting.group)
        .help(help)
}

fn value_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Whole { .. } => "NUMBER",
        Kind::Switch => "BOOL",
        Kind::OneOf(_) => "WORD",
        Kind::Host => "HOST",
        Kind::Path => "PATH",
        Kind::Text => "TEXT",
        Kind::Origins => "ORIGINS",
        Kind::Networks => "NETWORKS",
        Kind::LogFilter => "FILTER",
        Kind::Url(_) | Kind::RedisUrl => "URL",
    }
}

/// Reads a time like `30s`, `15m`, `1h` or `7d`.
fn ttl(text: &str) -> Result<Duration, String> {
    let unit_seconds = match text.bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3600,
        Some(b'd') => 86_400,
        _ => 0,
    };
    let digits = text.get(..text.len().saturating_sub(1)).unwrap_or_default();
    let number = if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse::<u64>().ok() } else { None };
    number
        .and_then(|number| number.checked_mul(unit_seconds))
        .filter(|seconds| (1..=MAX_TTL_SECONDS).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| "allowed is a time from 1s to 365d, like 30s, 15m, 1h or 7d".to_owned())
}

const TOKEN: &str = "token";
const USER_ID: &str = "user-id";
const USERNAME: &str = "username";
const TTL: &str = "ttl";

/// A token that outlives a year is one nobody remembers having made.
const MAX_TTL_SECONDS: u64 = 365 * 86_400;

/// Exit status of a program that was called wrongly.
const USAGE_STATUS: i32 = 2;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::config::SECRET_FILE;
    use crate::testing::TempDir;

    fn parse_in(dir: &TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Command, Stop> {
        let arguments = std::iter::once("syncwatch").chain(arguments.iter().copied()).map(OsString::from);
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
        parse(arguments, environment, &dir.path().join(".env"))
    }

    fn config(arguments: &[&str], environment: &[(&str, &str)]) -> Config {
        match parse_in(&TempDir::new(), arguments, environment) {
            Ok(Command::Serve(config)) => *config,
            other => panic!("{other:?}"),
        }
    }

    /// The status and the message of a command line that runs nothing.
    fn stopped(arguments: &[&str]) -> (i32, String) {
        match parse_in(&TempDir::new(), arguments, &[]).unwrap_err() {
            Stop::Usage(error) => (error.exit_code(), error.to_string()),
            Stop::Settings(error) => (USAGE_STATUS, error.to_string()),
        }
    }

    fn token_request(dir: &TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Result<TokenRequest, Stop> {
        match parse_in(dir, &[&["token"], arguments].concat(), environment)? {
            Command::Token(request) => Ok(request),
            Command::Serve(_) => panic!("not a token"),
        }
    }

    #[test]
    fn the_command_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_setting_has_a_flag_that_wins() {
        assert_eq!(config(&["--port", "0"], &[("PORT", "1")]).port, 0);
        assert_eq!(config(&["--port=5"], &[]).port, 5);
        for setting in SETTINGS {
            assert!(command().get_arguments().any(|arg| arg.get_long() == Some(setting.flag)), "{}", setting.name);
        }
    }

    #[test]
    fn help_lists_every_setting_with_its_default() {
        let (status, text) = stopped(&["--help"]);
        assert_eq!(status, 0);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for setting in SETTINGS {
            let default = if setting.default.is_empty() { "none" } else { setting.default };
            assert!(text.contains(&format!("--{} <", setting.flag)), "{}", setting.name);
            assert!(text.contains(&format!("{} [env: {}] [default: {default}]", setting.help, setting.name)));
            assert!(text.contains(&format!("{}: --", setting.group)), "{}", setting.group);
        }
        assert_eq!(stopped(&["-h"]), stopped(&["--help"]));
    }

    #[test]
    fn version_names_program_and_version() {
        assert_eq!(stopped(&["--version"]), (0, format!("syncwatch {}\n", env!("CARGO_PKG_VERSION"))));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (arguments, named) in [
            (&["--prot", "1"][..], "--prot"),
            (&["serve"], "serve"),
            (&["--port"], "--port"),
            (&["--port", "1", "--port", "2"], "--port"),
            (&["token"], "--user-id"),
            (&["token", "--user-id", "u", "extra"], "extra"),
            (&["token", "--user-id", "u", "--ttl", "1y"], "--ttl"),
        ] {
            let (status, message) = stopped(arguments);
            assert_eq!(status, 2, "{arguments:?}");
            assert!(message.contains(named), "{message}");
        }
    }

    #[test]
    fn a_wrong_flag_value_is_a_wrong_setting() {
        let expected = "PORT is \"-1\" (command line); allowed is a whole number from 0 to 65535";
        assert_eq!(stopped(&["--port", "-1"]), (2, expected.to_owned()));
    }

    #[test]
    fn a_secret_given_as_flag_does_not_show() {
        let (_, message) = stopped(&["--redis-url", "hunter2", "--database-url=hunter2", "--jwt-secret", "hunter2"]);
        assert!(message.contains("REDIS_URL is \"***\"") && !message.contains("hunter2"), "{message}");
        let (_, message) = stopped(&["--jwt-secret", "hunter2", "--jwt-secret=hunter2"]);
        assert!(!message.contains("hunter2"), "{message}");
        let (_, message) = stopped(&["--jwt-secrets=hunter2"]);
        assert!(!message.contains("hunter2"), "{message}");
    }

    #[test]
    fn a_token_is_made_with_the_secret_set() {
        let dir = TempDir::new();
        let secret = "0123456789abcdef0123456789abcdef";
        let arguments = ["--user-id", "u1", "--username", "Ada", "--ttl", "30s"];
        let request = token_request(&dir, &arguments, &[("JWT_SECRET", secret)]).unwrap();
        let tokens = Tokens::new(&crate::config::Secret::new(secret), true);
        let identity = tokens.verify(&request.issue().unwrap()).unwrap();
        assert_eq!((identity.user_id.as_str(), identity.username), ("u1", Ok(Some("Ada".to_owned()))));
        assert_eq!(request.ttl, Duration::from_secs(30));
    }

    #[test]
    fn a_token_made_before_the_first_start_is_good_for_the_server() {
        let dir = TempDir::new();
        let data = dir.path().join("data").display().to_string();
        for arguments in
            [["--data-dir", &data, "token", "--user-id", "u1"], ["token", "--data-dir", &data, "--user-id", "u1"]]
        {
            let Ok(Command::Token(request)) = parse_in(&dir, &arguments, &[]) else { panic!("not a token") };
            let token = request.issue().unwrap();
            assert_eq!(request.ttl, Duration::from_secs(3600));
            assert!(PathBuf::from(&data).join(SECRET_FILE).exists());
            let server = config(&["--data-dir", &data], &[]);
            assert!(Tokens::new(&server.token_secret().unwrap(), true).verify(&token).is_ok());
        }
    }

    #[test]
    fn a_token_for_a_name_no_server_takes_is_refused() {
        let dir = TempDir::new();
        let secret = [("JWT_SECRET", "secret")];
        for (arguments, named) in [
            (vec!["--user-id", ""], "--user-id takes 1 to 128 characters"),
            (vec!["--user-id", "u", "--username", " Ada"], "--username takes 1 to 50 characters"),
        ] {
            let Err(Stop::Usage(error)) = token_request(&dir, &arguments, &secret).unwrap().issue() else { panic!() };
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(named), "{error}");
        }
    }

    #[test]
    fn times_have_a_unit_and_bounds() {
        for (text, seconds) in
            [("1s", 1), ("30s", 30), ("15m", 900), ("1h", 3600), ("7d", 604_800), ("365d", 31_536_000)]
        {
            assert_eq!(ttl(text), Ok(Duration::from_secs(seconds)));
        }
        for bad in [
            "",
            "s",
            "5",
            "0s",
            "-1s",
            "+1s",
            "1.5h",
            "1 h",
            "1H",
            "366d",
            "8761h",
            "1w",
            "99999999999999999999d",
            "1é",
        ] {
            assert!(ttl(bad).is_err(), "{bad}");
        }
    }

    /// The file `.env.example` as it should be: every setting with its default, none of them set.
    fn env_example() -> String {
        let mut text = "# Settings of SyncWatch. Copy this file to .env and uncomment what you change.\n\
                        # The environment wins over this file, and flags win over both.\n"
            .to_owned();
        let mut group = "";
        for setting in SETTINGS {
            if setting.group != group {
                group = setting.group;
                text.push_str(&format!("\n## {group}\n"));
            }
            let allowed = setting.kind.allowed();
            text.push_str(&format!(
                "\n# {}.\n# Allowed: {allowed}.\n#{}={}\n",
                setting.help, setting.name, setting.default
            ));
        }
        text
    }

    /// Writes the file anew where `UPDATE_EXAMPLES` is set.
    #[test]
    fn the_example_file_lists_every_setting() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.env.example");
        if std::env::var_os("UPDATE_EXAMPLES").is_some() {
            fs::write(&path, env_example()).unwrap();
        }
        assert!(fs::read_to_string(path).unwrap() == env_example(), "run this test with UPDATE_EXAMPLES=1");
    }

    #[test]
    fn a_copied_example_changes_nothing() {
        let dir = TempDir::new();
        fs::write(dir.path().join(".env"), env_example()).unwrap();
        let Ok(Command::Serve(copied)) = parse_in(&dir, &[], &[]) else { panic!() };
        assert_eq!(*copied, config(&[], &[]));
    }
}
