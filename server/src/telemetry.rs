//! The log: one line per event on standard error, for people on a terminal, as JSON elsewhere.

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Config, LogFormat};

/// Starts the log; a second call in a process changes nothing.
///
/// The filter has been checked by the configuration; one that cannot be read would be `info`.
pub fn init(config: &Config) {
    let terminal = io::stderr().is_terminal();
    let json = is_json(config.log_format, terminal);
    let subscriber = subscriber(&config.log_filter, json, terminal, io::stderr);
    let _ = tracing::subscriber::set_global_default(subscriber);
}

fn is_json(format: LogFormat, terminal: bool) -> bool {
    match format {
        LogFormat::Auto => !terminal,
        LogFormat::Human => false,
        LogFormat::Json => true,
    }
}

fn subscriber<W>(filter: &str, json: bool, ansi: bool, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    if json {
        Box::new(builder.json().flatten_event(true).finish())
    } else {
        Box::new(builder.with_ansi(ansi).finish())
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
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber = subscriber(filter, json, false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(room = "r1", "joined");
            tracing::debug!("not by default");
        });
        String::from_utf8(memory.0.lock().unwrap().clone()).unwrap()
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
