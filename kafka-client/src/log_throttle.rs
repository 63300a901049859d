//! What of a fault that lasts is worth a line of the log: its first time, and once a minute.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Cause;

/// The causes that were logged lately.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Vec<(Cause, Instant)>);

impl LogThrottle {
    /// Whether a failure is to be logged now.
    pub(crate) fn admits(&mut self, cause: &Cause) -> bool {
        let now = Instant::now();
        self.0.retain(|(_, at)| now < *at + AGAIN);
        let is_news = self.0.len() < CAUSES && self.0.iter().all(|(told, _)| told != cause);
        if is_news {
            self.0.push((cause.clone(), now));
        }
        is_news
    }

    /// Whether a success ends a failure that was logged.
    pub(crate) fn clear(&mut self) -> bool {
        !std::mem::take(&mut self.0).is_empty()
    }
}

/// How long a cause is not logged again.
const AGAIN: Duration = Duration::from_secs(60);
/// Causes that are logged within that time; each broker of a cluster has its own.
const CAUSES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fault_that_lasts_is_told_once_a_minute_and_so_is_its_end() {
        let (mut throttle, mut lines) = (LogThrottle::default(), 0);
        for _ in 0..120 {
            for broker in ["a: refused", "b: refused"] {
                lines += usize::from(throttle.admits(&broker.into()));
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(lines, 4);
        assert!(throttle.clear() && !throttle.clear());
        let ever_new = (0..1000).filter(|n| throttle.admits(&format!("{n}").into()));
        assert_eq!(ever_new.count(), CAUSES);
    }
}
