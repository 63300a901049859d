//! When a call must be over.

use std::time::Duration;

use tokio::time::Instant;

/// How long a call may take: a [`Duration`] from the call on, a moment that several calls share (an
/// [`Instant`] of tokio's clock), or, as the default and for `None`, the producer's
/// `delivery.timeout.ms`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// The moment, if this was not given `otherwise` from now on.
    pub(crate) fn or(self, otherwise: Duration) -> Instant {
        self.0.unwrap_or_else(|| after(otherwise))
    }
}

impl From<Duration> for Deadline {
    fn from(timeout: Duration) -> Self {
        Self(Some(after(timeout)))
    }
}

impl From<Option<Duration>> for Deadline {
    fn from(timeout: Option<Duration>) -> Self {
        timeout.map_or(Self(None), Self::from)
    }
}

impl From<Instant> for Deadline {
    fn from(moment: Instant) -> Self {
        Self(Some(moment))
    }
}

/// Longer ones are as good as for ever, and no clock counts further than some.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

fn after(timeout: Duration) -> Instant {
    Instant::now() + timeout.min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_duration_counts_from_the_call_and_none_is_the_delivery_timeout() {
        let (now, minute) = (Instant::now(), Duration::from_secs(60));
        assert_eq!(Deadline::from(Duration::from_secs(1)).or(minute), now + Duration::from_secs(1));
        assert_eq!(Deadline::from(None).or(minute), now + minute);
        assert_eq!(Deadline::default().or(minute), now + minute);
        assert_eq!(Deadline::from(now).or(minute), now);
        assert_eq!(Deadline::from(Duration::MAX).or(minute), now + LONGEST);
    }
}
