//! Logical types in plain JSON: what stands for them there, and the value underneath.

use base64::prelude::{BASE64_STANDARD, Engine};
use num_bigint::{BigInt, Sign};
use uuid::Uuid;

use crate::fault::Fault;
use crate::json::{self, Value};
use crate::limits::{DECIMAL_DIGITS_MAX, OUTPUT_BYTES_MAX};
use crate::{number, rfc3339};

/// What a value means, where JSON says it in another way than Avro.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Logical {
    /// A number with digits after its point.
    Decimal {
        /// Its digits.
        precision: usize,
        /// Those after the point.
        scale: usize,
    },
    /// 16 bytes, or their text.
    Uuid,
    /// Months, days and milliseconds.
    Duration,
    /// A number of units since the epoch or since midnight.
    Time(Iso, Unit),
}

/// Which part of RFC 3339's date and time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Iso {
    /// `2026-11-30`
    Date,
    /// `12:30:00.5`
    Time,
    /// `2026-11-30T12:30:00.5`
    Local,
    /// `2026-11-30T12:30:00.5+01:00`
    Instant,
}

/// Nanoseconds of a unit, and its name.
pub(super) type Unit = (i128, &'static str);

pub(super) const DAY: Unit = (86_400_000_000_000, "days");
pub(super) const MILLIS: Unit = (1_000_000, "milliseconds");
pub(super) const MICROS: Unit = (1000, "microseconds");
pub(super) const NANOS: Unit = (1, "nanoseconds");

/// The number of units that a text stands for.
pub(super) fn units(text: &str, iso: Iso, (nanos, name): Unit) -> Result<i64, Fault> {
    let full = match iso {
        Iso::Date => format!("{text}T00:00:00Z"),
        Iso::Time => format!("1970-01-01T{text}Z"),
        Iso::Local => format!("{text}Z"),
        Iso::Instant => text.to_owned(),
    };
    let parsed = rfc3339::time(&full);
    let since = parsed.ok_or_else(|| Fault::new(expected(iso)))?.unix_timestamp_nanos();
    if since % nanos != 0 {
        return Err(Fault::new(format!("it is finer than {name}")));
    }
    i64::try_from(since / nanos).map_err(|_| Fault::new("it is beyond 64 bits"))
}

fn expected(iso: Iso) -> &'static str {
    match iso {
        Iso::Date => "must be a number of days, or a date as in RFC 3339",
        Iso::Time => "must be a number, or a time as in RFC 3339 without an offset",
        Iso::Local => "must be a number, or a date and time as in RFC 3339 without an offset",
        Iso::Instant => "must be a number, or a date and time as in RFC 3339",
    }
}

/// The 16 bytes of a UUID with hyphens.
pub(super) fn uuid(text: &str) -> Option<[u8; 16]> {
    let uuid = Uuid::try_parse(text).ok().filter(|_| text.len() == 36)?;
    Some(uuid.into_bytes())
}

/// The text of a UUID's 16 bytes.
pub(super) fn uuid_text(bytes: &[u8]) -> Option<String> {
    Uuid::from_slice(bytes).ok().map(|uuid| uuid.to_string())
}

const DURATION: [&str; 3] = ["months", "days", "millis"];

/// The bytes of a duration.
pub(super) fn duration(value: Value<'_>) -> Option<Vec<u8>> {
    if value.kind() != json::Kind::Object || value.len() != DURATION.len() {
        return None;
    }
    let mut bytes = Vec::with_capacity(12);
    for name in DURATION {
        let part: u32 = value.get(name)?.number()?.parse().ok()?;
        bytes.extend(part.to_le_bytes());
    }
    Some(bytes)
}

/// The JSON of a duration's bytes.
pub(super) fn duration_json(bytes: &[u8]) -> String {
    let mut parts = Vec::new();
    for (name, part) in DURATION.iter().zip(bytes.as_chunks().0) {
        parts.push(format!("\"{name}\":{}", u32::from_le_bytes(*part)));
    }
    format!("{{{}}}", parts.join(","))
}

/// The number without its point, as two's complement.
pub(super) fn unscaled(text: &str, precision: usize, scale: usize) -> Result<Vec<u8>, Fault> {
    let digits = number::digits(text, precision, scale)?;
    let number: BigInt = digits.parse().map_err(|_| Fault::new("must be a number"))?;
    Ok(number.to_signed_bytes_be())
}

/// The number with its point.
pub(super) fn scaled(bytes: &[u8], scale: usize) -> Result<String, Fault> {
    let is_negative = bytes.first().is_some_and(|first| *first >= 0x80);
    let padding = if is_negative { 0xff } else { 0 };
    let start = bytes.iter().take_while(|byte| **byte == padding).count();
    // One byte of them may be needed for the sign.
    let significant = bytes.get(start.saturating_sub(1)..).unwrap_or_default();
    // 8 bits hold more than two digits.
    if significant.len() > DECIMAL_DIGITS_MAX / 2 {
        return Err(Fault::new("it has too many digits for a decimal"));
    }
    let number = BigInt::from_signed_bytes_be(significant);
    let sign = if number.sign() == Sign::Minus { "-" } else { "" };
    let digits = format!("{:0>1$}", number.magnitude().to_string(), scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let point = if fraction.is_empty() { "" } else { "." };
    Ok(format!("{sign}{whole}{point}{fraction}"))
}

/// Bytes of a text in base64.
pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(text).ok()
}

/// Bytes as a text in base64.
pub(super) fn to_base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// `bytes` in `size` bytes with the same sign.
pub(super) fn sign_extended(bytes: &[u8], size: usize) -> Result<Vec<u8>, Fault> {
    if size > OUTPUT_BYTES_MAX {
        return Err(Fault::new("its payload is larger than 16 MiB"));
    }
    let padding = size.checked_sub(bytes.len());
    let padding = padding.ok_or_else(|| Fault::new(format!("it needs more than {size} bytes")))?;
    let sign = if bytes.first().is_some_and(|first| *first >= 0x80) { 0xff } else { 0 };
    let mut extended = vec![sign; padding];
    extended.extend(bytes);
    Ok(extended)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_keep_their_digits() {
        for (text, scale, expected) in [
            ("12.34", 2, "12.34"),
            ("-0.05", 2, "-0.05"),
            ("1.50", 1, "1.5"),
            ("1e3", 2, "1000.00"),
            ("1.5E-1", 2, "0.15"),
            ("0e999999999999999999999", 0, "0"),
            ("-0", 3, "0.000"),
            ("-128", 0, "-128"),
            ("99999999999999999999999999999999.99", 2, "99999999999999999999999999999999.99"),
        ] {
            let bytes = unscaled(text, 34, scale).unwrap();
            assert_eq!(scaled(&bytes, scale).unwrap(), expected, "{text}");
            assert_eq!(scaled(&sign_extended(&bytes, 600).unwrap(), scale).unwrap(), expected);
        }
        for text in ["0.001", "100000", "1e400", "1e-400", "1e99999999999999999999", "123456.7"] {
            assert!(unscaled(text, 5, 2).is_err(), "{text}");
        }
        assert!(sign_extended(&unscaled("128", 5, 0).unwrap(), 1).is_err());
    }

    #[test]
    fn times_are_numbers_of_units() {
        for (text, iso, unit, expected) in [
            ("1970-01-02", Iso::Date, DAY, 1),
            ("0001-01-01", Iso::Date, DAY, -719_162),
            ("12:30:00.5", Iso::Time, MILLIS, 45_000_500),
            ("1970-01-01T00:00:01.000001", Iso::Local, MICROS, 1_000_001),
            ("1970-01-01T01:00:00+01:00", Iso::Instant, NANOS, 0),
            ("1969-12-31T23:59:59.999Z", Iso::Instant, MILLIS, -1),
        ] {
            assert_eq!(units(text, iso, unit).unwrap(), expected, "{text}");
        }
        for (text, iso, unit) in [
            ("1970-01-02T00:00:00Z", Iso::Date, DAY),
            ("1970-02-30", Iso::Date, DAY),
            ("12:30:00Z", Iso::Time, MILLIS),
            ("25:00:00", Iso::Time, MILLIS),
            ("12:30:00.0005", Iso::Time, MILLIS),
            ("1970-01-01T00:00:01Z", Iso::Local, MICROS),
            ("1970-01-01T00:00:01", Iso::Instant, MICROS),
            ("9999-01-01T00:00:01Z", Iso::Instant, NANOS),
            ("1970-01-01T00:00:00.0000000001Z", Iso::Instant, NANOS),
            ("2016-12-31T23:59:60Z", Iso::Instant, NANOS),
            ("", Iso::Instant, NANOS),
        ] {
            assert!(units(text, iso, unit).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_number_survives(bytes in prop::collection::vec(any::<u8>(), 0..400), scale in 0..9_usize) {
            let text = scaled(&bytes, scale).unwrap();
            prop_assert!(json::is_number(&text));
            let number = BigInt::from_signed_bytes_be(&bytes);
            prop_assert_eq!(unscaled(&text, 1000, scale).unwrap(), number.to_signed_bytes_be());
        }
    }
}
