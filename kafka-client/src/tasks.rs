//! The tasks of a client. It is of no use without any of them, so a panic of one ends all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span};

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    /// Where the client was made: what its tasks log is about the same cluster.
    pub(crate) span: Span,
    state: Arc<Shutdown>,
}

#[derive(Debug)]
struct Shutdown {
    shutdown: CancellationToken,
    failed: AtomicBool,
}

/// Held by a task while it works.
struct Guard(Arc<Shutdown>);

impl Tasks {
    /// Tasks that end at `shutdown`.
    pub(crate) fn new(shutdown: CancellationToken) -> Self {
        let state = Arc::new(Shutdown { shutdown, failed: AtomicBool::new(false) });
        Self { tracker: TaskTracker::new(), span: Span::current(), state }
    }

    pub(crate) fn spawn<F>(&self, work: F)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let guard = Guard(self.state.clone());
        let guarded = async move {
            let _guard = guard;
            work.await;
        };
        self.tracker.spawn(guarded.instrument(self.span.clone()));
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.tracker.len()
    }

    /// Waits until all have ended.
    pub(crate) async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Resolves at the shutdown; says whether a panic is its reason.
    pub(crate) fn shutdown(&self) -> impl Future<Output = bool> + Send + 'static {
        let state = self.state.clone();
        async move {
            state.shutdown.cancelled().await;
            state.failed.load(Relaxed)
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.store(true, Relaxed);
            self.0.shutdown.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_ends_the_others_and_one_that_ends_does_not() {
        let shutdown = CancellationToken::new();
        let tasks = Tasks::new(shutdown.clone());
        tasks.spawn(async {});
        tasks.spawn(shutdown.clone().cancelled_owned());
        tokio::task::yield_now().await;
        assert!(!shutdown.is_cancelled());
        tasks.spawn(async { panic!("a bug") });
        assert!(tasks.shutdown().await);
        tasks.ended().await;
    }

    #[tokio::test]
    async fn a_shutdown_is_no_failure() {
        let shutdown = CancellationToken::new();
        let tasks = Tasks::new(shutdown.clone());
        let ended = tasks.shutdown();
        shutdown.cancel();
        assert!(!ended.await);
    }
}
