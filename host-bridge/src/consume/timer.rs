//! A timer that is set again and again, and seldom rings.

use std::pin::Pin;

use tokio::time::{Instant, Sleep, sleep_until};

/// What is set for later than before is left as it was: it rings too early once, where setting it each
/// time costs more than all else that an event costs its reader.
#[derive(Debug, Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Returns at a time or, now and then, before.
    pub(crate) async fn wait(&mut self, until: Instant) {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.is_elapsed() || until < timer.deadline() {
            timer.as_mut().reset(until);
        }
        timer.as_mut().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_never_rings_too_late() {
        let (mut timer, start) = (Timer::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let now = || start.elapsed().as_secs();
        timer.wait(at(5)).await;
        assert_eq!(now(), 5);
        let unheard = tokio::time::timeout(Duration::from_secs(1), timer.wait(at(20)));
        assert!(unheard.await.is_err());
        timer.wait(at(10)).await;
        assert_eq!(now(), 10);
        let unheard = tokio::time::timeout(Duration::from_secs(1), timer.wait(at(12)));
        assert!(unheard.await.is_err());
        // Once too early, and then when it should.
        timer.wait(at(30)).await;
        assert_eq!(now(), 12);
        timer.wait(at(30)).await;
        assert_eq!(now(), 30);
    }
}
