//! Texts that people enter: the names of people and rooms, titles, reasons, chat (contract, section 10).
//!
//! A text is shown to others, on pages and in logs. [`Rules::apply`] takes out what is not seen but changes how the text
//! around it looks: control characters, line breaks, bidirectional controls, and everything else that Unicode calls
//! default-ignorable. Two texts that look alike for that reason become the same text. What a text may not be shortened
//! to silently is refused: see [`Unfit`].

use std::borrow::Cow;
use std::fmt;

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::props::{DefaultIgnorableCodePoint, ExtendedPictographic, GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointSetData};
use unicode_segmentation::UnicodeSegmentation;

/// What a text of one kind may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Most grapheme clusters, which are what people call characters.
    pub most_characters: usize,
    /// Most bytes in UTF-8. A grapheme cluster has no length of its own: any number of accents fit into one.
    pub most_bytes: usize,
    /// Whether the text may have several lines.
    pub has_lines: bool,
}

/// The name of a person or a room.
pub const NAME: Rules = Rules { most_characters: 50, most_bytes: 400, has_lines: false };

/// A sentence or two, such as the reason for a kick, or the title of a video.
pub const SENTENCE: Rules = Rules { most_characters: 200, most_bytes: 1_600, has_lines: false };

/// A message of the chat.
pub const MESSAGE: Rules = Rules { most_characters: 1_000, most_bytes: 8_000, has_lines: true };

/// Why a text cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// There is nothing to be seen in it.
    Invisible,
    /// It has more characters than this.
    TooManyCharacters(usize),
    /// It has more bytes than this.
    TooManyBytes(usize),
}

impl Rules {
    /// Returns the text as it is to be stored and shown.
    ///
    /// It is in NFC; characters that are not seen are taken out, except in emoji sequences, which stay whole; a run of
    /// blanks becomes one space, and there is none at either end. Applied to its own result this changes nothing.
    ///
    /// # Errors
    /// [`Unfit`] if nothing visible or too much is left. Nothing is ever cut.
    pub fn apply(self, text: &str) -> Result<String, Unfit> {
        let text = if self.has_lines {
            let lines: Vec<_> = text.replace("\r\n", "\n").split(is_line_break).map(clean).collect();
            lines.join("\n").trim_matches('\n').to_owned()
        } else {
            clean(text)
        };
        if !text.chars().any(is_visible) {
            Err(Unfit::Invisible)
        } else if text.graphemes(true).count() > self.most_characters {
            Err(Unfit::TooManyCharacters(self.most_characters))
        } else if text.len() > self.most_bytes {
            Err(Unfit::TooManyBytes(self.most_bytes))
        } else {
            Ok(text)
        }
    }
}

/// What the text must be, to be put behind the name of its field.
impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invisible => f.write_str("must have a visible character"),
            Self::TooManyCharacters(most) => write!(f, "must be a string of at most {most} characters"),
            Self::TooManyBytes(most) => write!(f, "must be a string of at most {most} bytes"),
        }
    }
}

impl std::error::Error for Unfit {}

/// Returns what is seen of a text. Names are the same to people if this is the same.
///
/// It differs from the text in emoji sequences only: two emojis look the same whether or not a joiner that joins nothing
/// is between them.
pub fn visible(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_hidden) {
        Cow::Owned(text.chars().filter(|one| !is_hidden(*one)).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// Whether a character is not seen by itself, and so can hide something or change the text around it: a control character,
/// a line or paragraph separator, a bidirectional control, or another default-ignorable character.
pub fn is_hidden(one: char) -> bool {
    let is_noncharacter = matches!(one, '\u{fdd0}'..='\u{fdef}') || u32::from(one) & 0xfffe == 0xfffe;
    one.is_control()
        || matches!(one, '\u{2028}' | '\u{2029}' | '\u{fff9}'..='\u{fffb}')
        || is_noncharacter
        || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(one)
}

/// Cleans one line.
fn clean(line: &str) -> String {
    if line.bytes().all(|byte| byte.is_ascii_graphic()) {
        return line.to_owned();
    }
    let given: Vec<char> = line.chars().collect();
    let mut clean = String::with_capacity(line.len());
    let mut rest = &given[..];
    while let [next, after @ ..] = rest {
        let emoji = emoji_sequence(rest);
        if emoji > 0 {
            clean.extend(&rest[..emoji]);
            rest = &rest[emoji..];
            continue;
        }
        rest = after;
        if is_hidden(*next) {
            continue;
        }
        if !is_blank(*next) {
            clean.push(*next);
        } else if !clean.is_empty() && !clean.ends_with(' ') {
            clean.push(' ');
        }
    }
    ComposingNormalizerBorrowed::new_nfc().normalize(clean.trim_end()).into_owned()
}

/// How many characters in front are an emoji sequence (UTS #51): emojis with their variation selectors, skin tones and tags,
/// and joiners between them. 0 if there is none.
fn emoji_sequence(text: &[char]) -> usize {
    let mut end = emoji(text);
    while end > 0 && text.get(end) == Some(&JOINER) {
        match emoji(&text[end + 1..]) {
            0 => break,
            next => end += 1 + next,
        }
    }
    end
}

/// How many characters in front are one emoji of a sequence.
fn emoji(text: &[char]) -> usize {
    if let ['0'..='9' | '#' | '*', EMOJI_STYLE, KEYCAP, ..] = text {
        return 3;
    }
    let Some(base) = text.first().filter(|one| is_pictographic(**one)) else { return 0 };
    let mut end = 1;
    end += usize::from(matches!(text.get(end), Some(&(EMOJI_STYLE | TEXT_STYLE))));
    end += usize::from(matches!(text.get(end), Some('\u{1f3fb}'..='\u{1f3ff}')));
    if *base == BLACK_FLAG {
        // The flag of a part of a country: the code of the part, in tags. Any other text in tags would be hidden.
        let tags =
            text[end..].iter().take_while(|one| matches!(one, '\u{e0030}'..='\u{e0039}' | '\u{e0061}'..='\u{e007a}'));
        let count = tags.count();
        if (3..=6).contains(&count) && text.get(end + count) == Some(&END_OF_TAGS) {
            end += count + 1;
        }
    }
    end
}

fn is_pictographic(one: char) -> bool {
    CodePointSetData::new::<ExtendedPictographic>().contains(one)
}

/// Whether a character is seen as an empty space.
fn is_blank(one: char) -> bool {
    one.is_whitespace() || one == BRAILLE_BLANK
}

fn is_line_break(one: char) -> bool {
    matches!(one, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Whether a character by itself leaves something to be seen. An accent needs a letter, and a character that has no
/// meaning yet, or one that programs agree on among themselves, may look like nothing.
fn is_visible(one: char) -> bool {
    const VISIBLE: [GeneralCategoryGroup; 4] = [
        GeneralCategoryGroup::Letter,
        GeneralCategoryGroup::Number,
        GeneralCategoryGroup::Punctuation,
        GeneralCategoryGroup::Symbol,
    ];
    let category = CodePointMapData::<GeneralCategory>::new().get(one);
    let is_shown = VISIBLE.iter().any(|group| group.contains(category)) || is_pictographic(one);
    is_shown && !is_hidden(one) && !matches!(one, BRAILLE_BLANK | MUSICAL_NULL)
}

/// Zero width joiner.
const JOINER: char = '\u{200d}';
const EMOJI_STYLE: char = '\u{fe0f}';
const TEXT_STYLE: char = '\u{fe0e}';
const KEYCAP: char = '\u{20e3}';
const BLACK_FLAG: char = '\u{1f3f4}';
const END_OF_TAGS: char = '\u{e007f}';
/// A symbol of which nothing is seen.
const BRAILLE_BLANK: char = '\u{2800}';
/// Another one: a note without a head.
const MUSICAL_NULL: char = '\u{1d159}';

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Result<String, Unfit> {
        let applied = NAME.apply(text);
        if let Ok(once) = &applied {
            assert_eq!(NAME.apply(once).as_ref(), Ok(once), "applied twice");
        }
        applied
    }

    fn becomes(text: &str, expected: &str) {
        assert_eq!(name(text).as_deref(), Ok(expected), "{text:?}");
    }

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for text in ["Ann", "Zoë", "Łukasz O'Neil-Brown", "李小龍", "أحمد", "שרה", "สมชาย", "नमस्ते", "a.b_c", "7", "?"]
        {
            becomes(text, text);
        }
    }

    #[test]
    fn what_is_not_seen_is_taken_out() {
        for (text, expected) in [
            ("Ann\u{200b}", "Ann"),
            ("A\u{0}n\u{1b}n\u{7f}\u{9b}", "Ann"),
            ("A\nn\r\nn\tX", "AnnX"),
            ("A\u{2028}n\u{2029}n\u{85}", "Ann"),
            ("\u{202e}evil.moc", "evil.moc"),
            ("\u{2066}a\u{2069}\u{200e}\u{200f}\u{61c}b\u{202a}\u{202c}", "ab"),
            ("A\u{ad}n\u{feff}n\u{2060}\u{34f}", "Ann"),
            ("\u{3164}Ann\u{ffa0}\u{115f}\u{1160}", "Ann"),
            ("Ann\u{fe0f}\u{200d}\u{e0101}", "Ann"),
            ("A\u{e0041}\u{e0042}nn", "Ann"),
            ("A\u{fff9}n\u{fffb}n\u{ffff}\u{fdd0}", "Ann"),
            ("Ann1\u{200d}2", "Ann12"),
            ("7\u{fe0f}", "7"),
        ] {
            becomes(text, expected);
        }
    }

    #[test]
    fn runs_of_blanks_become_one_and_ends_are_trimmed() {
        becomes("  Ann   Lee  ", "Ann Lee");
        becomes("\u{a0}Ann\u{3000}\u{2003}\u{2800} Lee\u{202f}", "Ann Lee");
        becomes(" \u{200b} Ann \u{200b} Lee \u{200b} ", "Ann Lee");
    }

    #[test]
    fn names_are_in_nfc_also_across_what_was_taken_out() {
        becomes("Zoe\u{308}", "Zoë");
        becomes("Zoe\u{34f}\u{308}", "Zoë");
        becomes("\u{1112}\u{1161}\u{11ab}", "한");
        becomes("\u{212b}", "Å");
    }

    #[test]
    fn emoji_sequences_stay_whole() {
        for text in [
            "👩‍👩‍👧‍👦",
            "🏳️‍🌈",
            "👩🏽‍🚀",
            "🕵🏽‍♂️",
            "❤️",
            "❤︎",
            "1️⃣#️⃣*️⃣",
            "🇩🇪",
            "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
            "☝🏿",
            "Ann ❤️‍🔥 Lee",
        ] {
            becomes(text, text);
        }
    }

    #[test]
    fn what_is_no_part_of_an_emoji_sequence_is_taken_out_beside_one_too() {
        becomes("👩\u{200d}", "👩");
        becomes("\u{200d}👩", "👩");
        becomes("👩\u{200d}\u{200d}👩", "👩👩");
        becomes("👩\u{200d}a", "👩a");
        becomes("❤\u{fe0f}\u{fe0f}", "❤\u{fe0f}");
        // A flag may have the code of a country's part behind it, and no other text.
        becomes("🏴\u{e0067}\u{e0062}", "🏴");
        becomes("🏴\u{e0068}\u{e0069}\u{e0064}\u{e0064}\u{e0065}\u{e006e}\u{e0061}\u{e007f}", "🏴");
        becomes("👩\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}", "👩");
    }

    #[test]
    fn something_must_be_seen() {
        for text in [
            "",
            "   ",
            "\u{200b}",
            "\u{3164}",
            "\0",
            "\u{1b}",
            "\n",
            "\u{202e}",
            "\u{2800}\u{2800}",
            "\u{301}",
            "\u{1d159}",
            "\u{e000}",
            "\u{378}",
            "\u{a0}\u{200d}",
        ] {
            assert_eq!(name(text), Err(Unfit::Invisible), "{text:?}");
        }
    }

    #[test]
    fn too_long_is_refused_and_never_cut() {
        for one in ["x", "ö", "李", "🇩🇪", "a\u{323}\u{302}\u{301}"] {
            let fifty = one.repeat(50);
            assert_eq!(name(&fifty).map(|name| name.graphemes(true).count()), Ok(50), "{one}");
            assert_eq!(name(&one.repeat(51)), Err(Unfit::TooManyCharacters(50)), "{one}");
        }
        let family = "👩‍👩‍👧‍👦"; // one character of 25 bytes
        assert_eq!(name(&family.repeat(16)), Ok(family.repeat(16)));
        assert_eq!(name(&family.repeat(17)), Err(Unfit::TooManyBytes(400)));
        assert_eq!(name(&format!("a{}", "\u{301}".repeat(201))), Err(Unfit::TooManyBytes(400)));
        // What is taken out does not count.
        becomes(&format!("{}Ann", "\u{200b}".repeat(1_000)), "Ann");
    }

    #[test]
    fn a_message_keeps_its_lines() {
        let message = |text: &str| MESSAGE.apply(text);
        assert_eq!(message(" a  b \r\n\n c\u{2028}d\u{b}\u{202e}e\n\n").as_deref(), Ok("a b\n\nc\nd\ne"));
        assert_eq!(message("\n\u{200b}\n"), Err(Unfit::Invisible));
        assert_eq!(message(&"x".repeat(1_001)), Err(Unfit::TooManyCharacters(1_000)));
        assert!(message(&"x".repeat(1_000)).is_ok());
    }

    #[test]
    fn names_that_look_alike_are_the_same() {
        assert_eq!(visible("Ann"), "Ann");
        for (one, other) in
            [("👩\u{200d}👩", "👩👩"), ("❤\u{fe0f}", "❤"), ("🏴\u{e0067}\u{e0062}\u{e007a}\u{e007f}", "🏴")]
        {
            assert_eq!(visible(&name(one).unwrap()), visible(&name(other).unwrap()));
        }
    }

    /// Any text at all: of every short one made of odd characters, what is left is clean.
    #[test]
    fn nothing_hidden_is_left_outside_of_emojis() {
        let odd =
            ['a', ' ', '1', '\0', '\n', '\u{200d}', '\u{fe0f}', '\u{202e}', '\u{20e3}', '👩', '🏽', '🏴', '\u{308}'];
        for first in odd {
            for second in odd {
                for third in odd {
                    for fourth in odd {
                        let text = String::from_iter([first, second, third, fourth]);
                        let Ok(left) = name(&text) else { continue };
                        assert!(left.trim() == left && !left.contains("  "), "{text:?}");
                        let hidden: String = left.chars().filter(|one| is_hidden(*one)).collect();
                        assert!(hidden.chars().all(|one| matches!(one, JOINER | EMOJI_STYLE)), "{text:?}");
                        let is_seen = |one: char| !is_hidden(one) && !is_blank(one);
                        let seen = |text: &str| text.chars().filter(|one| is_seen(*one)).collect::<String>();
                        let nfc = ComposingNormalizerBorrowed::new_nfc();
                        assert_eq!(
                            nfc.normalize(&seen(&left)),
                            nfc.normalize(&seen(&text)),
                            "nothing that is seen goes"
                        );
                    }
                }
            }
        }
    }
}
