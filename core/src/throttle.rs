//! A kind of event that is logged once a minute, whatever makes it happen and however often.

use std::time::Duration;

/// When the last line was written, and what has happened since.
#[derive(Debug, Default)]
pub struct LogThrottle {
    next_at: Option<Duration>,
    events: u64,
}

impl LogThrottle {
    /// Nothing has happened.
    #[must_use]
    pub const fn new() -> Self {
        Self { next_at: None, events: 0 }
    }

    /// So many events happened at `now`: how many a line that is due now stands for, those without
    /// a line of their own included.
    pub fn note(&mut self, events: u64, now: Duration) -> Option<u64> {
        self.events += events;
        if self.next_at.is_some_and(|next| now < next) {
            return None;
        }
        self.next_at = Some(now + INTERVAL);
        Some(std::mem::take(&mut self.events))
    }
}

const INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_one_line_that_counts_what_went_before() {
        let mut throttle = LogThrottle::new();
        let at = Duration::from_secs;
        assert_eq!(throttle.note(1, at(5)), Some(1));
        assert_eq!(throttle.note(3, at(6)), None);
        assert_eq!(throttle.note(1, at(64)), None);
        assert_eq!(throttle.note(2, at(65)), Some(6));
        assert_eq!(throttle.note(1, at(1000)), Some(1));
    }
}
