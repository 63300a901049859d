//! How the process comes to its end: by a signal, or because a task failed that it cannot do without.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// Whether the process is to end, and why. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    begun: CancellationToken,
    failed: Arc<AtomicBool>,
}

impl Shutdown {
    /// Begins with SIGTERM or SIGINT.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn on_signals() -> io::Result<Self> {
        let (mut term, mut int) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let shutdown = Self::default();
        let own = shutdown.clone();
        shutdown.spawn("signals", async move {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            own.begun.cancel();
            info!("draining");
        });
        Ok(shutdown)
    }

    /// Whether a task failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.load(Relaxed)
    }

    /// Cancelled when the process is to end.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.begun
    }

    /// Starts a task without which the process is of no use: its panic ends the process.
    pub(crate) fn spawn(
        &self,
        task: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        let own = self.clone();
        tokio::spawn(async move {
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                own.fail(task);
            }
        })
    }

    /// What is queued is still written: only who failed is not trusted any more.
    pub(crate) fn fail(&self, task: &str) {
        self.failed.store(true, Relaxed);
        self.begun.cancel();
        error!(task, effect = "draining", "task_failed");
    }
}

/// Waits for work that has begun; once the process is to end, for `grace` at most.
pub(crate) async fn finish<T>(
    work: impl Future<Output = T>,
    shutdown: &CancellationToken,
    grace: Duration,
) -> Option<T> {
    let end = async {
        shutdown.cancelled().await;
        sleep(grace).await;
    };
    tokio::select! {
        done = work => Some(done),
        () = end => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_has_begun_is_finished_unless_it_takes_long() {
        let (shutdown, grace) = (CancellationToken::new(), Duration::from_secs(2));
        let work = |seconds| sleep(Duration::from_secs(seconds));
        assert_eq!(finish(work(3600), &shutdown, grace).await, Some(()));
        shutdown.cancel();
        assert_eq!(finish(work(1), &shutdown, grace).await, Some(()));
        assert_eq!(finish(work(3), &shutdown, grace).await, None);
    }

    #[tokio::test]
    async fn a_task_that_panics_ends_the_process_as_failed_and_one_that_ends_does_not() {
        let shutdown = Shutdown::default();
        shutdown.spawn("short", async {}).await.unwrap();
        assert!(!shutdown.token().is_cancelled());
        shutdown.spawn("broken", async { panic!("a bug") }).await.unwrap();
        assert!(shutdown.token().is_cancelled() && shutdown.has_failed());
    }
}
