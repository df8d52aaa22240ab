//! Small pieces that leave together: a vectored write takes a longer way through the kernel than a plain one.

/// Pieces are copied together up to so many bytes.
pub(super) const MAX_GATHERED_BYTES: usize = 8 * 1024;

/// Copies pieces to the start of `buffer`, as many as it has room for whole, and returns how many bytes that were.
pub(super) fn gather<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    for piece in pieces {
        let Some(room) = buffer.get_mut(filled..filled + piece.len()) else { break };
        room.copy_from_slice(piece);
        filled += piece.len();
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_copied_whole_or_not_at_all() {
        let mut buffer = [0; 5];
        assert_eq!(gather([&b"ab"[..], b"", b"cde"], &mut buffer), 5);
        assert_eq!(&buffer, b"abcde");
        assert_eq!(gather([&b"12"[..], b"3456", b"7"], &mut buffer), 2);
        assert_eq!(gather([], &mut buffer), 0);
    }
}
