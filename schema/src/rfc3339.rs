//! Times as RFC 3339 writes them.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The time that a text stands for, unless it would be rounded: a leap second, or with more than nine
/// decimals.
pub(crate) fn time(text: &str) -> Option<OffsetDateTime> {
    let decimals = text.split_once('.').map_or("", |(_, decimals)| decimals);
    let is_finer = decimals.bytes().take_while(u8::is_ascii_digit).count() > 9;
    let is_leap = text.get(17..19) == Some("60");
    OffsetDateTime::parse(text, &Rfc3339).ok().filter(|_| !is_finer && !is_leap)
}
