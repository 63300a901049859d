//! Times as AWS writes them, and how far this host's clock is from those who refuse its signatures.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

/// This host's clock differs from that of a service, so much that its signatures are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockSkew {
    /// Seconds by which this host is ahead, where the service tells its own time.
    ahead: Option<i64>,
}

impl ClockSkew {
    /// What a refusal of AWS says of the clock, if it says anything: a signature is made when it is
    /// needed, so one that has expired or is not yet good was made by a wrong clock.
    #[must_use]
    pub fn in_refusal(said: &str) -> Option<Self> {
        if !SAID.iter().any(|text| said.contains(text)) {
            return None;
        }
        // `Signature expired: SIGNED is now earlier than LIMIT (SERVICE - 15 min.)`
        let times: Vec<_> = said
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter_map(|word| aws_time(word).and_then(seconds))
            .collect();
        let ahead = match times.as_slice() {
            [signed, _limit, service, ..] => Some(signed - service),
            _ => None,
        };
        Some(Self { ahead })
    }

    /// The difference to the time that a service tells, if it is more than AWS tolerates.
    #[must_use]
    pub fn between(ours: SystemTime, theirs: SystemTime) -> Option<Self> {
        let ahead = seconds(ours)? - seconds(theirs)?;
        (ahead.unsigned_abs() > TOLERATED.as_secs()).then_some(Self { ahead: Some(ahead) })
    }
}

impl fmt::Display for ClockSkew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(ahead) = self.ahead else {
            return f.write_str("this host's clock seems wrong, set it by NTP");
        };
        let minutes = ahead.unsigned_abs() / 60;
        let side = if ahead < 0 { "behind" } else { "ahead" };
        write!(f, "this host's clock seems {minutes} minutes {side}, set it by NTP")
    }
}

/// A time that AWS writes, `20240506T070809Z` or `2024-05-06T07:08:09Z`.
#[must_use]
pub fn aws_time(text: &str) -> Option<SystemTime> {
    let text: String = text.chars().filter(|c| !"-:".contains(*c)).collect();
    // Parts of a second are left out.
    let (whole, _) = text.strip_suffix('Z')?.split_at_checked(15)?;
    let time = SystemTime::from(PrimitiveDateTime::parse(whole, FORM).ok()?.assume_utc());
    (time >= UNIX_EPOCH).then_some(time)
}

/// `yyyyMMdd'T'HHmmss'Z'` in UTC.
pub(super) fn timestamp(at: SystemTime) -> String {
    let text = OffsetDateTime::from(at.max(UNIX_EPOCH)).format(FORM).unwrap_or_default();
    format!("{text}Z")
}

const FORM: &[BorrowedFormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second]");

fn seconds(time: SystemTime) -> Option<i64> {
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// Words of AWS's services: in a broker's message, in an STS message, and STS's own code.
const SAID: [&str; 4] =
    ["Signature expired", "Signature not yet current", "RequestExpired", "RequestTimeTooSkewed"];
/// The least that one of AWS's services tolerates.
const TOLERATED: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_in_utc() {
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_735_689_599, "20241231T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(timestamp(time), text);
            assert_eq!(aws_time(text), Some(time));
        }
        let told = UNIX_EPOCH + Duration::from_secs(951_782_400);
        assert_eq!(aws_time("2000-02-29T00:00:00Z"), Some(told));
        assert_eq!(aws_time("2000-02-29T00:00:00.123Z"), Some(told));
        for text in ["", "soon", "20000229", "19000229T000000Z", "2000022+T000000Z", "ÄÖÜ2T9T0Z"]
        {
            assert_eq!(aws_time(text), None, "{text}");
        }
    }

    #[test]
    fn a_refusal_says_how_wrong_the_clock_is() {
        let told = |said| ClockSkew::in_refusal(said).map(|skew| skew.to_string());
        for (said, advice) in [
            (
                "[id]: Signature expired: 20210502T144040Z is now earlier than 20210502T173143Z \
                 (20210502T174643Z - 15 min.)",
                "this host's clock seems 186 minutes behind, set it by NTP",
            ),
            (
                "Signature not yet current: 20210502T183640Z is still later than \
                 20210502T175140Z (20210502T173640Z + 15 min.)",
                "this host's clock seems 60 minutes ahead, set it by NTP",
            ),
            ("Signature expired", "this host's clock seems wrong, set it by NTP"),
            ("RequestExpired", "this host's clock seems wrong, set it by NTP"),
        ] {
            assert_eq!(told(said).as_deref(), Some(advice));
        }
        assert_eq!(told("Access denied"), None);
    }

    #[test]
    fn five_minutes_are_tolerated() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(ClockSkew::between(at(1000), at(1300)), None);
        let skew = ClockSkew::between(at(1000), at(1301)).unwrap();
        assert_eq!(skew.to_string(), "this host's clock seems 5 minutes behind, set it by NTP");
    }
}
