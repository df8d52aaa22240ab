//! Identifiers and tokens, all from the operating system's secure generator.
//!
//! None of them can be guessed from others, so an id may be shown to those who may know it, and a token proves itself.

use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// Makes an `oderId`: 10 characters of `A-Za-z0-9_-`, 60 random bits.
pub fn order_id() -> String {
    // 8 random bytes are 11 characters of base64; the last carries only 4 bits and is dropped.
    let mut id = BASE64_URL_SAFE_NO_PAD.encode(random::<8>());
    id.truncate(ORDER_ID_CHARS);
    id
}

/// Makes a room code: 8 characters that are not mistaken for each other when read out, 40 random bits.
///
/// Codes are few enough to collide; the store answers that with a conflict, and the caller draws again.
pub fn room_code() -> String {
    // The alphabet has exactly 32 characters, so 5 bits of each byte choose without bias.
    random::<8>().iter().map(|byte| char::from(CODE_ALPHABET[usize::from(byte & 31)])).collect()
}

/// Makes a resume token: 256 random bits in URL-safe base64, 43 characters.
pub fn resume_token() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(random::<32>())
}

/// Returns what is stored of a resume token, so that a stolen database resumes nothing.
///
/// A plain hash is enough: the token is random, not a password that could be tried out.
pub fn resume_hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Makes the id of a row: a UUID of version 4 (RFC 9562) in lower case.
pub fn row_id() -> String {
    let mut bytes = random::<16>();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut id = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            id.push('-');
        }
        let _ = write!(id, "{byte:02x}"); // writing to a string cannot fail
    }
    id
}

/// Makes the id under which a request, a session or an error is found in the log: 12 URL-safe characters.
pub fn log_id() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(random::<9>())
}

/// Makes a secret for signing tokens: 256 random bits in URL-safe base64.
pub fn jwt_secret() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(random::<32>())
}

/// Tells whether `code` has the shape of a room code: 8 letters or digits of ASCII, in either case.
pub fn is_room_code(code: &str) -> bool {
    code.len() == ROOM_CODE_CHARS && code.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Fills an array with secure random bytes.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has randomness once it is up");
    bytes
}

/// Characters of an `oderId`.
pub const ORDER_ID_CHARS: usize = 10;

/// Characters of a room code.
pub const ROOM_CODE_CHARS: usize = 8;

/// The alphabet of the codes we make: no `I`, `O`, `0`, `1`.
pub const CODE_ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    const URL_SAFE: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";

    /// Draws many ids and checks their shape, that none repeats, and that no character is favoured at any place.
    fn check(draw: fn() -> String, chars: usize, alphabet: &str) {
        let draws = 400 * alphabet.len();
        let mut seen = HashSet::new();
        let mut counts: HashMap<(usize, char), usize> = HashMap::new();
        for _ in 0..draws {
            let id = draw();
            assert_eq!(id.chars().count(), chars);
            for (place, character) in id.chars().enumerate() {
                assert!(alphabet.contains(character), "{character} in {id}");
                *counts.entry((place, character)).or_default() += 1;
            }
            assert!(seen.insert(id));
        }
        for place in 0..chars {
            for character in alphabet.chars() {
                // 400 expected, standard deviation 20: seven of them is far beyond chance.
                let count = counts.get(&(place, character)).copied().unwrap_or(0);
                assert!((260..=540).contains(&count), "{character} at {place}: {count} times");
            }
        }
    }

    #[test]
    fn order_ids_are_ten_even_characters() {
        check(order_id, ORDER_ID_CHARS, URL_SAFE);
    }

    #[test]
    fn room_codes_are_eight_even_characters() {
        check(room_code, ROOM_CODE_CHARS, std::str::from_utf8(CODE_ALPHABET).unwrap());
        assert!((0..100).all(|_| is_room_code(&room_code())));
    }

    #[test]
    fn log_ids_are_twelve_even_characters() {
        check(log_id, 12, URL_SAFE);
    }

    #[test]
    fn resume_tokens_are_long_and_never_repeat() {
        let tokens: HashSet<_> = (0..1000).map(|_| resume_token()).collect();
        assert_eq!(tokens.len(), 1000);
        assert!(tokens.iter().all(|token| token.len() == 43 && token.chars().all(|one| URL_SAFE.contains(one))));
    }

    #[test]
    fn resume_hash_is_sha_256() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let hash: String = resume_hash("abc").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, expected);
    }

    #[test]
    fn row_ids_are_version_4_uuids() {
        for _ in 0..1000 {
            let id = row_id();
            let bytes = id.as_bytes();
            assert_eq!(id.len(), 36);
            assert!([8, 13, 18, 23].iter().all(|&dash| bytes[dash] == b'-'));
            assert_eq!(bytes[14], b'4');
            assert!(matches!(bytes[19], b'8' | b'9' | b'a' | b'b'));
        }
    }

    #[test]
    fn any_eight_letters_or_digits_have_the_shape_of_a_code() {
        for good in ["ABCD2345", "abcd2345", "IO01IO01"] {
            assert!(is_room_code(good), "{good}");
        }
        for bad in ["", "ABCD234", "ABCD23456", "ABCD-345", "ABCD 345", "äBCD23", "ABCDÄ34", "ABCD234\0"] {
            assert!(!is_room_code(bad), "{bad}");
        }
    }
}
