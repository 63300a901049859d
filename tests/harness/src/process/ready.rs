//! Polling until something is so, with a deadline and the last reason why it is not.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::Process;

/// How long to wait between two looks.
const POLL: Duration = Duration::from_millis(20);

/// Longest time that one look may take.
const LOOK: Duration = Duration::from_secs(5);

/// Calls `check` until it succeeds, and returns what it found.
///
/// # Errors
/// After `timeout`: what was waited for, and the last error of `check`.
pub async fn wait_until<T, F, Fut>(what: &str, timeout: Duration, mut check: F) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = anyhow::Result<T>>,
{
    let deadline = Instant::now() + timeout;
    loop {
        let error = match look(check()).await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(error.context(format!("waited {timeout:?} for {what}")));
        }
        tokio::time::sleep(POLL).await;
    }
}

impl Process {
    /// As [`wait_until`], but gives up as soon as the process has ended; the error shows its log.
    ///
    /// # Errors
    /// When the process ends, or after `timeout`.
    pub async fn wait_ready<T, F, Fut>(
        &mut self,
        what: &str,
        timeout: Duration,
        mut check: F,
    ) -> anyhow::Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = anyhow::Result<T>>,
    {
        let deadline = Instant::now() + timeout;
        loop {
            let error = match look(check()).await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            if !self.is_running() || Instant::now() >= deadline {
                let reason = self.failure(&format!("waited for it {what}"));
                return Err(reason.context(format!("{error:#}")));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

async fn look<T>(check: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(LOOK, check).await.context("no answer in 5 s")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_reason_is_told() {
        let timeout = Duration::from_millis(30);
        let error = wait_until::<(), _, _>("tea", timeout, || async { anyhow::bail!("cold") })
            .await
            .unwrap_err();
        assert_eq!(format!("{error:#}"), "waited 30ms for tea: cold");
    }

    #[tokio::test]
    async fn it_returns_what_it_finds() {
        let mut left = 3;
        let found = wait_until("three looks", Duration::from_secs(5), || {
            left -= 1;
            async move {
                anyhow::ensure!(left == 0, "{left} left");
                Ok("done")
            }
        })
        .await
        .unwrap();
        assert_eq!(found, "done");
    }
}
