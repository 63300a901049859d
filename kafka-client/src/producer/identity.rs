//! The producer's id (KIP-98): asked for once, and again only when it is used up.
//!
//! All partitions share the id, each with an epoch of its own: brokers keep the state of a producer by
//! partition, so that one of them can begin a new epoch while the others go on (KIP-360).

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::backoff::random;
use crate::calls::init_producer_id::{AskProducerId, ProducerIdentity};
use crate::cluster::{Cluster, anyone};
use crate::error::policy::is_identity_retried;
use crate::error::{Cause, Reason};
use crate::log_throttle::LogThrottle;
use crate::stage::{ConnectionFailure, Stage};
use crate::watch::{Watch, WatchReader};

/// The handle; the asking itself is done by [`ProducerId::run`] in a task of its own.
#[derive(Debug)]
pub(crate) struct ProducerId {
    cluster: Arc<Cluster>,
    state: Watch<ProducerIdState>,
    wanted: Notify,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct ProducerIdState {
    held: Option<ProducerIdentity>,
    /// Of the cluster that gave it.
    era: u64,
    /// Why the last attempt to get one failed.
    failure: Option<Arc<Reason>>,
    /// Since when it is refused, so that someone must do something about it.
    refused: Option<Instant>,
}

/// Why there is no producer id.
#[derive(Debug)]
enum ProducerIdFailure {
    /// A broker answers that it will in a moment, as each does that has just started.
    NotYet(Reason),
    /// It may work in a moment.
    Passing(Reason),
    /// Someone must do something about it; we keep asking, slowly.
    Refused(Reason),
}

impl ProducerId {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Arc<Self> {
        Arc::new(Self { cluster, state: Watch::default(), wanted: Notify::new() })
    }

    /// The id to use; if there is none, it is asked for, and the last failure given.
    pub(crate) fn held(&self) -> Result<ProducerIdentity, Arc<Reason>> {
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
    pub(crate) fn fault(&self) -> Option<ConnectionFailure> {
        let ProducerIdState { failure, refused, .. } = self.state.latest();
        let cause = Reason::NoProducerId(failure?).chain().into();
        let lasts = refused?.elapsed();
        Some(ConnectionFailure { server: None, stage: Stage::Authorization, cause, lasts })
    }

    /// Tells of each success and failure from now on.
    pub(crate) fn changes(&self) -> WatchReader<'_, ProducerIdState> {
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
                    self.state.replace(ProducerIdState { held, era, failure: None, refused: None });
                    return;
                }
                Err(failure) => failure,
            };
            failures += 1;
            let is_expected =
                matches!(failure, ProducerIdFailure::NotYet(_)) && failures <= EXPECTED;
            let refused = matches!(failure, ProducerIdFailure::Refused(_))
                .then(|| self.state.latest().refused.unwrap_or_else(Instant::now));
            let (reason, pause) = match failure {
                ProducerIdFailure::NotYet(reason) | ProducerIdFailure::Passing(reason) => {
                    (reason, retry.after(failures, random()))
                }
                // Slowly, but for ever: a permission can be given at any time (before 2.8 it is
                // IDEMPOTENT_WRITE, KIP-679). Going on without an id would duplicate silently.
                ProducerIdFailure::Refused(reason) => (reason, retry.max),
            };
            let (cause, failure) = (Cause::from(reason.to_string()), Some(Arc::new(reason)));
            if is_expected {
                tracing::info!(%cause, "no_producer_id_yet");
            } else if throttle.admits(&cause) {
                tracing::warn!(%cause, "no_producer_id");
            }
            self.state.replace(ProducerIdState { held: None, era, failure, refused });
            sleep(pause).await;
        }
    }

    /// Any broker can answer, because there is no transactional id; with one, only its coordinator
    /// could. Before the id is used the cluster behind the connection is checked: an id of another one, behind
    /// the same address, may be someone else's here.
    async fn ask(&self) -> Result<ProducerIdentity, ProducerIdFailure> {
        let candidates = self.cluster.anyone().into_iter().map(|endpoint| (endpoint, None));
        let asked = anyone::ask(&self.cluster, AskProducerId, candidates, |_, answer| {
            answer.map_err(refused)
        });
        let (identity, endpoint, connection) = asked.await?;
        let checked = self.cluster.check_cluster(&endpoint, &connection).await;
        checked.map_err(|error| ProducerIdFailure::from(error.cause()))?;
        Ok(identity)
    }
}

impl From<Cause> for ProducerIdFailure {
    fn from(cause: Cause) -> Self {
        Self::Passing(Reason::Unreachable(cause))
    }
}

/// So many refusals in a row are a start, and more are a fault that someone should know of: with
/// Kafka's default pauses, some five seconds.
const EXPECTED: u32 = 8;

fn refused(code: i16) -> ProducerIdFailure {
    let reason = Reason::of_code(code);
    if is_identity_retried(code) {
        ProducerIdFailure::NotYet(reason)
    } else {
        ProducerIdFailure::Refused(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinator_that_loads_is_no_fault_and_a_refusal_is_one() {
        let coordinator_load_in_progress = refused(14);
        assert!(matches!(coordinator_load_in_progress, ProducerIdFailure::NotYet(_)));
        let cluster_authorization_failed = refused(31);
        assert!(matches!(cluster_authorization_failed, ProducerIdFailure::Refused(_)));
        assert!(matches!(
            ProducerIdFailure::from(Cause::from("no broker answers")),
            ProducerIdFailure::Passing(_)
        ));
    }
}
