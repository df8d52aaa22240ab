//! Figures and tables as a person reads them.

use std::fmt::Write as _;

use crate::figures::{Spread, figures, ratios};
use crate::record::{Metric, Outcome, Record};
use crate::server::Server;

/// A number with three digits that count, and commas between thousands.
pub(crate) fn figure(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.9995 || size == 0.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, part)| (whole, Some(part)));
    let grouped = grouped(whole);
    fraction.map_or_else(|| format!("{sign}{grouped}"), |fraction| format!("{sign}{grouped}.{fraction}"))
}

/// A count, with commas between thousands.
pub(crate) fn count(value: u64) -> String {
    grouped(&value.to_string())
}

fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A table: what heads the columns, and the rows; columns after the first are figures.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &mut dyn Iterator<Item = &str>| format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "));
    let mut text = line(&mut head.iter().copied());
    text += &line(&mut head.iter().enumerate().map(|(column, _)| if column == 0 { "---" } else { "---:" }));
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

/// A cell that tells what a server needs: the median, the least and the most, how many times what `base` needs, and a
/// mark where not all went well.
pub(crate) fn cell(records: &[Record], work: &str, metric: &Metric, server: Server, base: Server) -> String {
    let own = figures(records, work, None, server, metric);
    let Some(spread) = Spread::of(&own) else { return missing(records, work, server).to_owned() };
    let mut text = format!("{} ({}–{})", figure(spread.median), figure(spread.least), figure(spread.most));
    if server != base
        && let Some(ratio) = Spread::of(&ratios(&own, &figures(records, work, None, base, metric)))
    {
        text += &format!(" ×{}", figure(ratio.median));
    }
    if records.iter().any(|record| record.work == work && record.server == server && record.trouble().is_some()) {
        text += " †";
    }
    text
}

/// A cell that has the median only.
pub(crate) fn median(records: &[Record], work: &str, metric: &Metric, server: Server) -> String {
    let spread = Spread::of(&figures(records, work, None, server, metric));
    spread.map_or_else(|| missing(records, work, server).to_owned(), |spread| figure(spread.median))
}

/// Why there is no figure.
fn missing(records: &[Record], work: &str, server: Server) -> &'static str {
    let tried = records.iter().filter(|record| record.work == work && record.server == server);
    if tried.clone().any(|record| matches!(record.outcome, Outcome::Error(_))) { "failed" } else { "–" }
}

/// What went wrong, so that no figure hides it: attempts that failed, events lost and errors seen.
pub(crate) fn troubles(records: &[Record]) -> String {
    let mut text = String::new();
    for record in records {
        let Some(trouble) = record.trouble() else { continue };
        let size = record.size.map_or_else(String::new, |size| format!(" {size}"));
        let (work, server, repetition) = (&record.work, record.server.name(), record.repetition);
        let _infallible = writeln!(text, "- {work}{size}, {server}, repetition {repetition}: {trouble}");
    }
    if text.is_empty() { "Nothing failed, and nothing was lost.\n".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::tests::record;

    #[test]
    fn a_figure_has_three_digits_that_count() {
        let cases = [
            (0.0, "0.00"),
            (0.01234, "0.012"),
            (0.9996, "1.00"),
            (1.234, "1.23"),
            (9.996, "10.0"),
            (12.34, "12.3"),
            (99.96, "100"),
            (1234.5, "1,234"),
            (-1_234_567.0, "-1,234,567"),
        ];
        for (value, text) in cases {
            assert_eq!(figure(value), text);
        }
    }

    #[test]
    fn a_table_puts_figures_to_the_right() {
        let rows = [vec!["echo".to_owned(), "1.00".to_owned()], vec!["churn".to_owned(), "2.00".to_owned()]];
        assert_eq!(
            table(&["Work", "ours"], &rows),
            "| Work | ours |\n| --- | ---: |\n| echo | 1.00 |\n| churn | 2.00 |\n"
        );
    }

    #[test]
    fn troubles_are_failures_and_losses() {
        let records = [
            record("echo", Server::Raw, 1, Outcome::Error("gone".into())),
            record("echo", Server::Raw, 1, Outcome::Result(json!({ "lost": 0, "errors": 0 }))),
            record("cast", Server::Ours, 2, Outcome::Result(json!({ "lost": 2, "errors": 1 }))),
        ];
        assert_eq!(
            troubles(&records),
            "- echo, raw, repetition 1: attempt 1 failed: gone\n- cast, ours, repetition 2: lost 2, errors 1\n"
        );
    }
}
