//! The producer's id (KIP-98): asked for once, and again only when it is used up.
//!
//! All partitions share the id, each with an epoch of its own: brokers keep the state of a producer by
//! partition, so that one of them can begin a new epoch while the others go on (KIP-360).

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::backoff::random;
use crate::calls::init_producer_id::{AskProducerId, Identity};
use crate::cluster::{Cluster, anyone};
use crate::error::policy::is_identity_retried;
use crate::error::{Cause, Reason};
use crate::log_throttle::LogThrottle;
use crate::news::{News, Reader};
use crate::stage::{Fault, Stage};

/// The handle; the asking itself is done by [`ProducerId::run`] in a task of its own.
#[derive(Debug)]
pub(crate) struct ProducerId {
    cluster: Arc<Cluster>,
    state: News<State>,
    wanted: Notify,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    held: Option<Identity>,
    /// Of the cluster that gave it.
    era: u64,
    /// Why the last attempt to get one failed.
    failure: Option<Arc<Reason>>,
    /// Since when it is refused, so that someone must do something about it.
    refused: Option<Instant>,
}

/// Why there is no producer id.
#[derive(Debug)]
enum Failure {
    /// A broker answers that it will in a moment, as each does that has just started.
    NotYet(Reason),
    /// It may work in a moment.
    Passing(Reason),
    /// Someone must do something about it; we keep asking, slowly.
    Refused(Reason),
}

impl ProducerId {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Arc<Self> {
        Arc::new(Self { cluster, state: News::default(), wanted: Notify::new() })
    }

    /// The id to use; if there is none, it is asked for, and the last failure given.
    pub(crate) fn held(&self) -> Result<Identity, Arc<Reason>> {
        let state = self.state.latest();
        // Another cluster may give the same number to someone else, whose batches ours would then be
        // taken for.
        state.held.filter(|_| state.era == self.cluster.era()).ok_or_else(|| {
            self.wanted.notify_one();
            state
                .failure
                .unwrap_or_else(|| Arc::new(Reason::Unreachable("none has answered yet".into())))
        })
    }

    /// This id must not be given to anyone any more.
    pub(crate) fn discard(&self, producer_id: i64) {
        self.state
            .change(|state| state.held.take_if(|held| held.producer_id == producer_id).is_some());
    }

    /// As [`ProducerId::discard`], for whatever id is held: what was sent under it is forgotten.
    pub(crate) fn retire(&self) {
        self.state.change(|state| state.held.take().is_some());
    }

    /// Why brokers refuse an id, if they do.
    pub(crate) fn fault(&self) -> Option<Fault> {
        let State { failure, refused, .. } = self.state.latest();
        let cause = Reason::NoProducerId(failure?).chain().into();
        let lasts = refused?.elapsed();
        Some(Fault { server: None, stage: Stage::Authorization, cause, lasts })
    }

    /// Tells of each success and failure from now on.
    pub(crate) fn changes(&self) -> Reader<'_, State> {
        self.state.reader()
    }

    /// Waits until an id is held. `Err` has the last failure.
    pub(crate) async fn ready(&self, deadline: Instant) -> Result<(), Option<Arc<Reason>>> {
        let mut changes = self.state.reader();
        while self.held().is_err() {
            let changed = timeout_at(deadline, changes.next()).await;
            changed.map_err(|_| self.state.latest().failure)?;
        }
        Ok(())
    }

    /// Asks when an id is wanted, until the producer ends.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        shutdown
            .run_until_cancelled(async {
                loop {
                    self.wanted.notified().await;
                    if self.held().is_err() {
                        self.obtain().await;
                    }
                }
            })
            .await;
    }

    async fn obtain(&self) {
        let retry = self.cluster.config.retry;
        let (mut failures, mut throttle) = (0, LogThrottle::default());
        loop {
            let era = self.cluster.era();
            let failure = match self.ask().await {
                Ok(_) if era != self.cluster.era() => continue,
                Ok(held) => {
                    tracing::debug!(producer_id = held.producer_id, "producer_id");
                    let held = Some(held);
                    self.state.replace(State { held, era, failure: None, refused: None });
                    return;
                }
                Err(failure) => failure,
            };
            failures += 1;
            let is_expected = matches!(failure, Failure::NotYet(_)) && failures <= EXPECTED;
            let refused = matches!(failure, Failure::Refused(_))
                .then(|| self.state.latest().refused.unwrap_or_else(Instant::now));
            let (reason, pause) = match failure {
                Failure::NotYet(reason) | Failure::Passing(reason) => {
                    (reason, retry.after(failures, random()))
                }
                // Slowly, but for ever: a permission can be given at any time (before 2.8 it is
                // IDEMPOTENT_WRITE, KIP-679). Going on without an id would duplicate silently.
                Failure::Refused(reason) => (reason, retry.max),
            };
            let (cause, failure) = (Cause::from(reason.to_string()), Some(Arc::new(reason)));
            if is_expected {
                tracing::info!(%cause, "no_producer_id_yet");
            } else if throttle.admits(&cause) {
                tracing::warn!(%cause, "no_producer_id");
            }
            self.state.replace(State { held: None, era, failure, refused });
            sleep(pause).await;
        }
    }

    /// Any broker can answer, because there is no transactional id; with one, only its coordinator
    /// could. Before the id is used the connection is vouched for: an id of another cluster, behind
    /// the same address, may be someone else's here.
    async fn ask(&self) -> Result<Identity, Failure> {
        let places = self.cluster.anyone().into_iter().map(|endpoint| (endpoint, None));
        let asked =
            anyone::ask(&self.cluster, AskProducerId, places, |_, answer| answer.map_err(refused));
        let (identity, endpoint, connection) = asked.await?;
        let vouched = self.cluster.vouch(&endpoint, &connection).await;
        vouched.map_err(|error| Failure::from(error.cause()))?;
        Ok(identity)
    }
}

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Self {
        Self::Passing(Reason::Unreachable(cause))
    }
}

/// So many refusals in a row are a start, and more are a fault that someone should know of: with
/// Kafka's default pauses, some five seconds.
const EXPECTED: u32 = 8;

fn refused(code: i16) -> Failure {
    let reason = Reason::of_code(code);
    if is_identity_retried(code) { Failure::NotYet(reason) } else { Failure::Refused(reason) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinator_that_loads_is_no_fault_and_a_refusal_is_one() {
        let coordinator_load_in_progress = refused(14);
        assert!(matches!(coordinator_load_in_progress, Failure::NotYet(_)));
        let cluster_authorization_failed = refused(31);
        assert!(matches!(cluster_authorization_failed, Failure::Refused(_)));
        assert!(matches!(Failure::from(Cause::from("no broker answers")), Failure::Passing(_)));
    }
}
