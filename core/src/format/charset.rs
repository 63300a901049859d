//! Text of arguments that are not UTF-8: ISO-8859-1, or windows-1252 where it is declared.

use std::borrow::Cow;

use super::media::parameter;
use crate::request::header_text;

/// How bytes that are not UTF-8 are read. Each of its charsets has a character for every byte, so
/// that reading never fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    /// Byte for byte, as header values are.
    Latin1,
    /// The same, but for 27 letters and signs in place of control characters.
    Windows1252,
}

impl Charset {
    /// The charset that a content type declares. Any other than windows-1252 is read as
    /// ISO-8859-1: what is to be read is not UTF-8, whatever was declared.
    #[must_use]
    pub fn of(content_type: Option<&str>) -> Self {
        let declared = content_type.and_then(|value| parameter(value, "charset"));
        let is = |name: &&str| declared.as_ref().is_some_and(|it| it.eq_ignore_ascii_case(name));
        if ["windows-1252", "cp1252", "x-cp1252"].iter().any(is) {
            Self::Windows1252
        } else {
            Self::Latin1
        }
    }

    /// Bytes as text: UTF-8 where they are, else read by this charset.
    #[must_use]
    pub fn text(self, bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
        let read = |bytes: &[u8]| match self {
            Self::Latin1 => header_text(bytes).into_owned(),
            Self::Windows1252 => bytes.iter().map(|byte| windows_1252(*byte)).collect(),
        };
        match bytes {
            Cow::Borrowed(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Cow::Borrowed(text),
                Err(_) => Cow::Owned(read(bytes)),
            },
            Cow::Owned(bytes) => {
                Cow::Owned(String::from_utf8(bytes).unwrap_or_else(|error| read(error.as_bytes())))
            }
        }
    }
}

fn windows_1252(byte: u8) -> char {
    let known = byte.checked_sub(0x80).and_then(|at| C1.get(usize::from(at)));
    known.copied().unwrap_or(char::from(byte))
}

/// 0x80 to 0x9F (WHATWG Encoding, index windows-1252); the five that have no character stay the
/// control characters that they are.
const C1: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charset_is_known_by_its_name_in_any_case() {
        let of = |charset: &str| Charset::of(Some(&format!("a/b; charset={charset}")));
        for name in ["windows-1252", "\"CP1252\"", "x-cp1252"] {
            assert_eq!(of(name), Charset::Windows1252, "{name}");
        }
        for name in ["iso-8859-1", "latin1", "utf-8", "koi8-r", ""] {
            assert_eq!(of(name), Charset::Latin1, "{name}");
        }
        assert_eq!(Charset::of(None), Charset::Latin1);
    }

    #[test]
    fn every_byte_has_a_character_of_its_own() {
        for charset in [Charset::Latin1, Charset::Windows1252] {
            let all: Vec<u8> = (0..=255).collect();
            let mut read: Vec<char> = charset.text(all.into()).chars().collect();
            assert_eq!(read.iter().take(128).copied().collect::<String>().len(), 128);
            read.sort_unstable();
            read.dedup();
            assert_eq!(read.len(), 256);
        }
        let text = |charset: Charset, bytes: &'static [u8]| charset.text(bytes.into());
        assert_eq!(text(Charset::Windows1252, b"\x80\x9f\xe9\x81"), "€Ÿé\u{81}");
        assert_eq!(text(Charset::Latin1, b"\x80\xe9"), "\u{80}é");
        assert_eq!(text(Charset::Windows1252, "é".as_bytes()), "é");
    }
}
