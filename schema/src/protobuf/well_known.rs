//! The texts of `google.protobuf.Timestamp`, `Duration` and `FieldMask`.

use std::fmt::Write as _;

use time::OffsetDateTime;

use crate::rfc3339;

/// Seconds of 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// Seconds of 10,000 years.
const DURATION_SECONDS_MAX: i64 = 315_576_000_000;
const NANOS: i32 = 1_000_000_000;

/// Seconds and nanoseconds.
pub(super) type Seconds = (i64, i32);

pub(super) const TIMESTAMP: &str =
    "it must be a time as RFC 3339 has it, from the year 1 to 9999, with up to 9 decimals";

pub(super) fn read_timestamp(text: &str) -> Option<Seconds> {
    let time = rfc3339::time(text)?;
    let seconds = time.unix_timestamp();
    let nanos = i32::try_from(time.nanosecond()).ok()?;
    TIMESTAMP_SECONDS.contains(&seconds).then_some((seconds, nanos))
}

pub(super) fn timestamp((seconds, nanos): Seconds) -> Option<String> {
    if !TIMESTAMP_SECONDS.contains(&seconds) || !(0..NANOS).contains(&nanos) {
        return None;
    }
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second) = time.to_hms();
    let month = u8::from(month);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    push_decimals(&mut text, nanos.unsigned_abs());
    text.push('Z');
    Some(text)
}

pub(super) const DURATION: &str =
    "it must be seconds with up to 9 decimals and an s, of at most 10,000 years";

pub(super) fn read_duration(text: &str) -> Option<Seconds> {
    let number = text.strip_suffix('s')?;
    let (is_negative, number) = match number.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, number),
    };
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !are_digits(whole) || !are_digits(decimals) || decimals.len() > 9 {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let nanos: i32 = format!("{decimals:0<9}").parse().ok()?;
    if seconds > DURATION_SECONDS_MAX {
        return None;
    }
    Some(if is_negative { (-seconds, -nanos) } else { (seconds, nanos) })
}

pub(super) fn duration((seconds, nanos): Seconds) -> Option<String> {
    let is_in_range = seconds.unsigned_abs() <= DURATION_SECONDS_MAX.unsigned_abs();
    let is_split = (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0);
    if !is_in_range || is_split || nanos.unsigned_abs() >= NANOS.unsigned_abs() {
        return None;
    }
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    let mut text = format!("{sign}{}", seconds.unsigned_abs());
    push_decimals(&mut text, nanos.unsigned_abs());
    text.push('s');
    Some(text)
}

/// In groups of three, as few as keep the value.
fn push_decimals(text: &mut String, nanos: u32) {
    // Writing to a string does not fail.
    let _ = match nanos {
        0 => Ok(()),
        nanos if nanos % 1_000_000 == 0 => write!(text, ".{:03}", nanos / 1_000_000),
        nanos if nanos % 1_000 == 0 => write!(text, ".{:06}", nanos / 1_000),
        nanos => write!(text, ".{nanos:09}"),
    };
}

pub(super) const FIELD_MASK: &str = "it must be paths of fields in lowerCamelCase, with commas";

/// Paths of fields in snake_case.
pub(super) fn read_field_mask(text: &str) -> Option<Vec<String>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    text.split(',').map(snake_case).collect()
}

pub(super) fn field_mask<'a>(paths: impl Iterator<Item = &'a str>) -> Option<String> {
    let paths: Option<Vec<_>> = paths.map(camel_case).collect();
    Some(paths?.join(","))
}

fn snake_case(path: &str) -> Option<String> {
    let mut snake = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            '_' => return None,
            c if c.is_ascii_uppercase() => snake.extend(['_', c.to_ascii_lowercase()]),
            c => snake.push(c),
        }
    }
    Some(snake)
}

/// Of a path that becomes the same again.
fn camel_case(path: &str) -> Option<String> {
    let mut camel = String::with_capacity(path.len());
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '_' => camel.push(chars.next().filter(char::is_ascii_lowercase)?.to_ascii_uppercase()),
            c if c.is_ascii_uppercase() => return None,
            c => camel.push(c),
        }
    }
    Some(camel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_rfc_3339() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", (0, 0)),
            ("1969-12-31T23:59:59.900Z", (-1, 900_000_000)),
            ("0001-01-01T00:00:00Z", (-62_135_596_800, 0)),
            ("9999-12-31T23:59:59.999999999Z", (253_402_300_799, 999_999_999)),
            ("2026-11-30T04:05:06.000123Z", (1_796_011_506, 123_000)),
        ] {
            assert_eq!(read_timestamp(text), Some(seconds), "{text}");
            assert_eq!(timestamp(seconds).as_deref(), Some(text));
        }
        assert_eq!(
            read_timestamp("2026-11-30T05:05:06.5+01:00"),
            Some((1_796_011_506, 500_000_000))
        );
        for text in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "0000-12-31T23:59:59Z",
            "x",
            "1970-01-01T00:00:00.1234567890Z",
            "9999-12-31T23:59:59-00:01",
            "1970-02-30T00:00:00Z",
            "2016-12-31T23:59:60Z",
        ] {
            assert_eq!(read_timestamp(text), None, "{text}");
        }
        assert_eq!(timestamp((i64::MAX, 0)), None);
        assert_eq!(timestamp((0, -1)), None);
        assert_eq!(timestamp((0, i32::MIN)), None);
    }

    #[test]
    fn a_duration_is_seconds() {
        for (text, seconds) in [
            ("0s", (0, 0)),
            ("1.500s", (1, 500_000_000)),
            ("-0.000000001s", (0, -1)),
            ("-3.000001s", (-3, -1_000)),
            ("315576000000s", (315_576_000_000, 0)),
        ] {
            assert_eq!(read_duration(text), Some(seconds), "{text}");
            assert_eq!(duration(seconds).as_deref(), Some(text));
        }
        for text in ["", "s", "1", "+1s", "1.s", ".5s", "1.0000000001s", "315576000001s", "--1s"] {
            assert_eq!(read_duration(text), None, "{text}");
        }
        for seconds in [(1, -1), (-1, 1), (i64::MIN, 0), (0, i32::MIN), (0, 1_000_000_000)] {
            assert_eq!(duration(seconds), None, "{seconds:?}");
        }
    }

    #[test]
    fn a_field_mask_is_camel_case() {
        let paths = read_field_mask("user.displayName,photo").unwrap();
        assert_eq!(paths, ["user.display_name", "photo"]);
        let text = field_mask(paths.iter().map(String::as_str));
        assert_eq!(text.as_deref(), Some("user.displayName,photo"));
        assert_eq!(read_field_mask("a_b"), None);
        for path in ["aB", "a__b", "a_", "a_1"] {
            assert_eq!(field_mask([path].into_iter()), None, "{path}");
        }
    }
}
