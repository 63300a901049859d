//! How the process comes to its end: by a signal, or because a task failed that it cannot do without.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use futures_util::FutureExt as _;
use tokio::signal::unix::{SignalKind, signal};
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_ends_the_process_as_failed_and_one_that_ends_does_not() {
        let shutdown = Shutdown::default();
        shutdown.spawn("short", async {}).await.unwrap();
        assert!(!shutdown.token().is_cancelled());
        shutdown.spawn("broken", async { panic!("a bug") }).await.unwrap();
        assert!(shutdown.token().is_cancelled() && shutdown.has_failed());
    }
}
