//! What a receiver's answer means, and when a request is sent again.

use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, StatusCode, header};

/// `retry` as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Retry {
    /// The longest pause after the first attempt; it doubles with each.
    pub(super) initial: Duration,
    /// The longest pause at all, whatever a receiver asks for.
    pub(super) most: Duration,
    /// How often a request is sent; 0 is no bound.
    pub(super) attempts: u32,
    /// For how long.
    pub(super) give_up_after: Option<Duration>,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Delivered,
    /// The same request may succeed later.
    Again {
        /// Not before, as the receiver asks.
        after: Option<Duration>,
        /// Other requests would fare no better.
        is_overloaded: bool,
    },
    /// The receiver does not take it.
    Refused,
    /// The receiver is gone for good.
    Gone,
}

impl Verdict {
    pub(super) fn of(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Self {
        match status.as_u16() {
            200..300 => Self::Delivered,
            410 => Self::Gone,
            408 | 425 | 429 | 500..600 => Self::Again {
                after: headers
                    .get(header::RETRY_AFTER)
                    .and_then(|value| pause(value.to_str().ok()?, now)),
                is_overloaded: matches!(status.as_u16(), 429 | 502 | 504),
            },
            _ => Self::Refused,
        }
    }
}

impl Retry {
    /// The pause after so many attempts: any part of twice the last one's longest (exponential backoff
    /// with full jitter), unless the receiver has asked for more.
    pub(super) fn pause(&self, attempts: u32, after: Option<Duration>, random: u64) -> Duration {
        let factor = 1u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        let longest = self.initial.saturating_mul(factor).min(self.most);
        let longest = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        let jittered = Duration::from_millis(random % longest.saturating_add(1).max(1));
        jittered.max(after.unwrap_or_default()).min(self.most)
    }

    /// Whether a request that was sent so often, for so long, is given up.
    pub(super) fn is_spent(&self, attempts: u32, tried_for: Duration) -> bool {
        (self.attempts != 0 && attempts >= self.attempts)
            || self.give_up_after.is_some_and(|most| tried_for >= most)
    }
}

/// `Retry-After`: seconds, or a time.
fn pause(value: &str, now: SystemTime) -> Option<Duration> {
    match value.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value.trim()).ok()?.duration_since(now).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(after: Option<u64>, is_overloaded: bool) -> Verdict {
        Verdict::Again { after: after.map(Duration::from_secs), is_overloaded }
    }

    #[test]
    fn each_status_has_its_meaning() {
        let of = |status: u16| {
            Verdict::of(status.try_into().unwrap(), &HeaderMap::new(), SystemTime::now())
        };
        for (statuses, verdict) in [
            (&[200, 201, 202, 204, 299][..], Verdict::Delivered),
            (&[408, 425, 500, 503, 599], again(None, false)),
            (&[429, 502, 504], again(None, true)),
            (&[300, 301, 302, 304, 307, 400, 401, 404, 409, 413, 422, 451], Verdict::Refused),
            (&[410], Verdict::Gone),
        ] {
            statuses.iter().for_each(|status| assert_eq!(of(*status), verdict, "{status}"));
        }
    }

    #[test]
    fn a_receiver_says_when_to_come_again() {
        let now = httpdate::parse_http_date("Sun, 29 Nov 2026 12:00:00 GMT").unwrap();
        for (value, after) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("Sun, 29 Nov 2026 12:00:09 GMT", Some(9)),
            ("Sun, 29 Nov 2026 11:00:00 GMT", None),
            ("soon", None),
            ("-1", None),
            ("99999999999999999999", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
            let verdict = Verdict::of(StatusCode::SERVICE_UNAVAILABLE, &headers, now);
            assert_eq!(verdict, again(after, false), "{value}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_are_any_part_of_that() {
        let retry = Retry {
            initial: Duration::from_secs(1),
            most: Duration::from_secs(60),
            attempts: 3,
            give_up_after: Some(Duration::from_secs(10)),
        };
        let longest = |attempts, ms: u64| retry.pause(attempts, None, ms).as_millis();
        for (attempts, most) in [(1, 1000), (2, 2000), (3, 4000), (7, 60_000), (90, 60_000)] {
            assert_eq!(
                (longest(attempts, most), longest(attempts, most + 1)),
                (u128::from(most), 0)
            );
        }
        let asked = |seconds| retry.pause(1, Some(Duration::from_secs(seconds)), 500).as_millis();
        assert_eq!((asked(0), asked(7), asked(u64::MAX)), (500, 7000, 60_000));
        let none = Retry { initial: Duration::ZERO, ..retry.clone() };
        assert_eq!(none.pause(5, None, u64::MAX), Duration::ZERO);
        let spent = |attempts, seconds| retry.is_spent(attempts, Duration::from_secs(seconds));
        assert_eq!([spent(2, 9), spent(3, 0), spent(1, 10)], [false, true, true]);
        let for_ever = Retry { attempts: 0, give_up_after: None, ..retry };
        assert!(!for_ever.is_spent(u32::MAX, Duration::MAX));
    }
}
