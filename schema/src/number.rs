//! Numbers by their text, which has all their digits.

use crate::fault::Fault;

/// Digits of a whole number of 64 bits, at most.
const WHOLE_DIGITS_MAX: usize = 20;

/// The whole number that a JSON number is, however it is written: `1000`, `1000.0`, `1e3`.
pub(crate) fn whole(text: &str) -> Option<i128> {
    text.parse().ok().or_else(|| digits(text, WHOLE_DIGITS_MAX, 0).ok()?.parse().ok())
}

/// The digits of a JSON number, moved `scale` places to the left of the point: a number with more
/// digits than there is place for is refused, never rounded.
pub(crate) fn digits(text: &str, precision: usize, scale: usize) -> Result<String, Fault> {
    let too_long = || Fault::new(format!("it has more than {precision} digits"));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let (sign, whole) = match whole.strip_prefix('-') {
        Some(whole) => ("-", whole),
        None => ("", whole),
    };
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let kept = digits.trim_end_matches('0');
    if kept.is_empty() {
        return Ok("0".to_owned());
    }
    // Texts are far shorter than 2^63, an exponent that is not is as good as infinite.
    let exponent: i64 = exponent.parse().map_err(|_| too_long())?;
    let exponent = exponent
        .saturating_sub(fraction.len() as i64)
        .saturating_add((digits.len() - kept.len()) as i64)
        .saturating_add(scale as i64);
    let zeros = usize::try_from(exponent)
        .map_err(|_| Fault::new(format!("it has more than {scale} digits behind the point")))?;
    if zeros.saturating_add(kept.len()) > precision {
        return Err(too_long());
    }
    Ok(format!("{sign}{kept}{}", "0".repeat(zeros)))
}

/// The numbers that JSON has no digits for, as Java and ProtoJSON write them.
pub(crate) fn not_finite(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// The JSON of such a number.
pub(crate) fn not_finite_json(number: f64) -> Option<&'static str> {
    match number {
        number if number.is_finite() => None,
        f64::INFINITY => Some("\"Infinity\""),
        f64::NEG_INFINITY => Some("\"-Infinity\""),
        _ => Some("\"NaN\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_keeps_its_digits() {
        for (text, expected) in [
            ("9007199254740993", 9_007_199_254_740_993),
            ("-9007199254740993.0", -9_007_199_254_740_993),
            ("18446744073709551615", i128::from(u64::MAX)),
            ("0.1e4", 1000),
            ("-0", 0),
            ("0e99", 0),
        ] {
            assert_eq!(whole(text), Some(expected), "{text}");
        }
        for text in ["0.5", "1e30", "1e-1", "1e99999999999999999999"] {
            assert_eq!(whole(text), None, "{text}");
        }
    }
}
