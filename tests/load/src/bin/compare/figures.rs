//! Medians and spreads of what was measured, and ratios between servers.

use std::collections::BTreeMap;

use crate::record::{Metric, Record};
use crate::server::Server;

/// The figures of one server at one work, by repetition.
pub(crate) type Figures = BTreeMap<u32, f64>;

/// Finds the figures of a server at a work.
pub(crate) fn figures<'a>(
    records: impl IntoIterator<Item = &'a Record>,
    work: &str,
    size: Option<u32>,
    server: Server,
    metric: &Metric,
) -> Figures {
    records
        .into_iter()
        .filter(|record| record.work == work && record.size == size && record.server == server)
        .filter_map(|record| Some((record.repetition, record.figure(metric)?)))
        .collect()
}

/// How many times as much one is as another, in each repetition that has both: what was measured within the same
/// minutes.
pub(crate) fn ratios(figures: &Figures, base: &Figures) -> Figures {
    figures
        .iter()
        .filter_map(|(repetition, figure)| Some((*repetition, figure / base.get(repetition)?)))
        .filter(|(_, ratio)| ratio.is_finite())
        .collect()
}

/// The middle of some figures, and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// The spread of figures, if there are any.
    pub(crate) fn of(figures: &Figures) -> Option<Self> {
        let mut sorted = figures.values().copied().collect::<Vec<_>>();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            *sorted.get(middle)?
        } else {
            (sorted.get(middle.checked_sub(1)?)? + sorted.get(middle)?) / 2.0
        };
        Some(Self { median, least: *sorted.first()?, most: *sorted.last()? })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::Outcome;
    use crate::record::tests::record;

    fn spread(figures: &[f64]) -> Option<Spread> {
        Spread::of(&(1..).zip(figures.iter().copied()).collect())
    }

    #[test]
    fn the_median_is_the_middle_one_or_lies_between_the_middle_two() {
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[7.0]), Some(Spread { median: 7.0, least: 7.0, most: 7.0 }));
        assert_eq!(spread(&[9.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, most: 9.0 }));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 9.0]), Some(Spread { median: 3.0, least: 1.0, most: 9.0 }));
    }

    #[test]
    fn a_ratio_is_taken_within_a_repetition() {
        let ours = Figures::from([(1, 2.0), (2, 3.0), (4, 1.0)]);
        let base = Figures::from([(1, 1.0), (2, 2.0), (3, 5.0), (4, 0.0)]);
        assert_eq!(ratios(&ours, &base), Figures::from([(1, 2.0), (2, 1.5)]));
    }

    #[test]
    fn figures_are_those_of_one_server_at_one_work() {
        let measured = |work, server, repetition, cpu| {
            record(work, server, repetition, Outcome::Result(json!({ "cpu_us_per_op": cpu })))
        };
        let records = [
            measured("echo", Server::Ours, 1, 2.0),
            measured("echo", Server::Raw, 1, 3.0),
            measured("churn", Server::Ours, 1, 4.0),
            record("echo", Server::Ours, 2, Outcome::Error("gone".into())),
            measured("echo", Server::Ours, 2, 5.0),
        ];
        let found = figures(&records, "echo", None, Server::Ours, &Metric::CPU);
        assert_eq!(found, Figures::from([(1, 2.0), (2, 5.0)]));
        assert_eq!(figures(&records, "echo", Some(1), Server::Ours, &Metric::CPU), Figures::new());
    }
}
