//! The log: one line per event on standard error, for people on a terminal, as JSON elsewhere.
//!
//! What repeats is counted, see [`Repeats`]; what is not seen, or would end a line, is escaped.

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, fmt, registry};

use crate::config::{Config, LogFormat};

mod escape;
mod repeats;

use escape::{Escaping, Form};
pub use repeats::Repeats;

/// Starts the log; a second call in a process changes nothing.
///
/// What is returned has the counts of lines that repeat: [`Repeats::report`] must be polled for them to be logged, and
/// [`Repeats::report_all`] be called at the end.
///
/// The filter has been checked by the configuration; one that cannot be read would be `info`.
pub fn init(config: &Config) -> Repeats {
    let terminal = io::stderr().is_terminal();
    let json = is_json(config.log_format, terminal);
    let repeats = Repeats::default();
    let subscriber = subscriber(&config.log_filter, json, terminal, repeats.clone(), io::stderr);
    let _ = tracing::subscriber::set_global_default(subscriber);
    repeats
}

fn is_json(format: LogFormat, terminal: bool) -> bool {
    match format {
        LogFormat::Auto => !terminal,
        LogFormat::Human => false,
        LogFormat::Json => true,
    }
}

fn subscriber<W>(filter: &str, json: bool, ansi: bool, repeats: Repeats, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let filtered = registry().with(filter).with(repeats);
    let form = match (json, ansi) {
        (true, _) => Form::Json,
        (false, true) => Form::Colored,
        (false, false) => Form::Plain,
    };
    let lines = fmt::layer().with_writer(Escaping::new(writer, form));
    if json {
        Box::new(filtered.with(lines.json().flatten_event(true)))
    } else {
        Box::new(filtered.with(lines.with_ansi(ansi)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, json: bool) -> String {
        logged_by(filter, json, false, || {
            tracing::info!(room = "r1", "joined");
            tracing::debug!("not by default");
        })
    }

    fn logged_by(filter: &str, json: bool, ansi: bool, run: impl FnOnce()) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber = subscriber(filter, json, ansi, Repeats::default(), move || writer.clone());
        tracing::subscriber::with_default(subscriber, run);
        String::from_utf8(memory.0.lock().unwrap().clone()).unwrap()
    }

    const EVIL: &str = "a\u{202e}b\nERROR c\u{200b}\u{2028}\u{1b}[2J\u{e0041}\u{85}\rö";

    #[test]
    fn an_event_is_one_line_without_hidden_characters() {
        for ansi in [false, true] {
            let text = logged_by("info", false, ansi, || tracing::info!(error = %EVIL, quoted = EVIL, "{EVIL}"));
            let hidden = |one: &char| crate::text::is_hidden(*one) && !(ansi && *one == '\u{1b}');
            assert_eq!(text.chars().filter(hidden).collect::<String>(), "\n", "{text:?}");
            assert!(
                text.ends_with('\n') && text.contains(r"a\u{202e}b\nERROR c\u{200b}") && text.contains('ö'),
                "{text}"
            );
            assert!(!text.contains("\u{1b}[2J"), "{text:?}");
        }
    }

    #[test]
    fn json_keeps_the_text_and_shows_no_hidden_character() {
        let text = logged_by("info", true, false, || tracing::info!(error = %EVIL, quoted = EVIL, "{EVIL}"));
        assert_eq!(text.chars().filter(|one| crate::text::is_hidden(*one)).collect::<String>(), "\n", "{text:?}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["error"], &line["quoted"], &line["message"]), (&EVIL.into(), &EVIL.into(), &EVIL.into()));
    }

    #[test]
    fn a_failing_backend_is_one_line() {
        let text = logged_by("info", true, false, || {
            for room in 0..1_000 {
                tracing::warn!(room, error = "disk full", "the store is unavailable");
            }
        });
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn the_format_follows_the_terminal_unless_set() {
        assert!(!is_json(LogFormat::Auto, true));
        assert!(is_json(LogFormat::Auto, false));
        assert!(!is_json(LogFormat::Human, false));
        assert!(is_json(LogFormat::Json, true));
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged("info", true);
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!((&line["level"], &line["message"], &line["room"]), (&"INFO".into(), &"joined".into(), &"r1".into()));
    }

    #[test]
    fn human_lines_have_no_escape_codes_off_a_terminal() {
        let text = logged("info", false);
        assert!(text.contains("joined") && text.contains("room=\"r1\"") && !text.contains('\u{1b}'), "{text}");
        assert!(!text.contains("not by default"));
    }

    #[test]
    fn the_filter_rules_what_is_logged() {
        assert_eq!(logged("debug", true).lines().count(), 2);
        assert_eq!(logged("off", true), "");
    }
}
