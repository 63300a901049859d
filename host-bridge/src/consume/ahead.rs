//! Readers whose next page is read before they ask for it: few at a time, and not for long.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::limits::{FEED_AHEAD_KEPT, FEED_READS_AHEAD};

/// Where they were, by their cursors, and until when they are waited for.
#[derive(Debug, Default)]
pub(crate) struct Ahead(Mutex<Vec<(String, Instant)>>);

impl Ahead {
    /// Whether what follows a cursor is to be read now. More at a time would drive each other's records
    /// out of the cache before anybody has come for them.
    pub(crate) fn begin(&self, cursor: &str) -> bool {
        let (mut awaited, now) = (self.lock(), Instant::now());
        awaited.retain(|(_, until)| *until > now);
        let has_room = awaited.len() < FEED_READS_AHEAD;
        if has_room {
            awaited.push((cursor.to_owned(), now + FEED_AHEAD_KEPT));
        }
        has_room
    }

    /// A reader has come.
    pub(crate) fn end(&self, cursor: &str) {
        self.lock().retain(|(awaited, _)| awaited != cursor);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(String, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn few_are_read_for_at_a_time_until_they_come_or_stay_away() {
        let ahead = Ahead::default();
        let cursors: Vec<_> = (0..FEED_READS_AHEAD).map(|it| it.to_string()).collect();
        assert!(cursors.iter().all(|cursor| ahead.begin(cursor)));
        assert!(!ahead.begin("more"));
        ahead.end("nobody");
        assert!(!ahead.begin("more"));
        ahead.end("0");
        assert!(ahead.begin("more"));
        assert!(!ahead.begin("0"));
        tokio::time::advance(FEED_AHEAD_KEPT).await;
        assert!(cursors.iter().all(|cursor| ahead.begin(cursor)));
        assert!(!ahead.begin("more"));
    }
}
