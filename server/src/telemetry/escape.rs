//! What must not stand in a log as it is: characters that are not seen, or that end a line or reorder it.

use std::fmt::Write as _;
use std::io;

use tracing_subscriber::fmt::MakeWriter;

use crate::text::is_hidden;

/// How the lines that are written look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// JSON.
    Json,
    /// Text.
    Plain,
    /// Text with escape codes for colors.
    Colored,
}

/// Writes each event as one line, in which hidden characters are escaped: as `\u202e` in JSON, else as `\u{202e}`.
///
/// Names and other texts of clients may be part of an error. An event comes in one write, with the end of the line last.
#[derive(Clone, Debug)]
pub(super) struct Escaping<W> {
    writer: W,
    form: Form,
}

impl<W> Escaping<W> {
    pub(super) fn new(writer: W, form: Form) -> Self {
        Self { writer, form }
    }
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Escaping<W> {
    type Writer = Escaping<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Escaping { writer: self.writer.make_writer(), form: self.form }
    }
}

impl<W: io::Write> io::Write for Escaping<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = event.strip_suffix(b"\n").unwrap_or(event);
        if line.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') {
            self.writer.write_all(event)?;
        } else {
            let mut escaped = escape(&String::from_utf8_lossy(line), self.form);
            escaped.push('\n');
            self.writer.write_all(escaped.as_bytes())?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn escape(line: &str, form: Form) -> String {
    let mut escaped = String::with_capacity(line.len() + 64);
    let mut rest = line;
    while let Some(one) = rest.chars().next() {
        let len = match form {
            Form::Colored => color_code(rest),
            Form::Json | Form::Plain => 0,
        };
        let (taken, after) = rest.split_at(len.max(one.len_utf8()));
        rest = after;
        if len > 0 || !is_hidden(one) {
            escaped.push_str(taken);
        } else if form == Form::Json {
            for unit in one.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}"); // writing to a string cannot fail
            }
        } else {
            escaped.extend(one.escape_default());
        }
    }
    escaped
}

/// How long the escape code for a color or a style in front is; 0 if there is none. A value can do no harm with one, and
/// the formatter does not mark its own.
fn color_code(text: &str) -> usize {
    let Some(parameter) = text.strip_prefix("\u{1b}[") else { return 0 };
    match parameter.bytes().position(|byte| !byte.is_ascii_digit() && byte != b';') {
        Some(end @ 0..=8) if parameter.as_bytes()[end] == b'm' => "\u{1b}[".len() + end + 1,
        Some(_) | None => 0,
    }
}
