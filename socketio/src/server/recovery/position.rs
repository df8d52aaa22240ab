//! Places in the order of events.

use std::fmt;
use std::str::FromStr;

/// The place of an event in the order of its namespace; as what somebody has received, that event and all before it.
///
/// As text, which clients keep and send back, it is the two numbers with a dash between them, as Redis names the entries
/// of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// What comes first in the order: the time of Redis in milliseconds; of a server that is alone the same random number
    /// for all, which tells its positions from those of another run.
    pub epoch: u64,
    /// What decides within an epoch.
    pub number: u64,
}

impl Position {
    /// Returns the next one of the same epoch.
    #[must_use]
    pub fn next(self) -> Self {
        Self { number: self.number.saturating_add(1), ..self }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.number)
    }
}

/// The text is no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPosition;

impl fmt::Display for NoPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no position")
    }
}

impl std::error::Error for NoPosition {}

impl FromStr for Position {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        // `parse` would take a sign as well.
        let number = |digits: &str| {
            let plain = digits.bytes().all(|digit| digit.is_ascii_digit());
            digits.parse().ok().filter(|_| plain).ok_or(NoPosition)
        };
        let (epoch, rest) = text.split_once('-').ok_or(NoPosition)?;
        Ok(Self { epoch: number(epoch)?, number: number(rest)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written_and_nothing_else_is() {
        let position = Position { epoch: 1_700_000_000_000, number: u64::MAX };
        assert_eq!(position.to_string().parse(), Ok(position));
        for text in ["", "-", "1", "1-", "-1", "1--1", "+1-2", "1-+2", "1-2-3", " 1-2", "1-18446744073709551616", "a-b"]
        {
            assert_eq!(text.parse::<Position>(), Err(NoPosition), "{text:?}");
        }
    }

    #[test]
    fn the_epoch_decides_first() {
        let at = |epoch, number| Position { epoch, number };
        assert!(at(1, 9) < at(2, 0) && at(2, 0) < at(2, 0).next());
    }
}
