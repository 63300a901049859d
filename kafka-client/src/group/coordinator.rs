//! The broker that coordinates a group: found, asked, and found again when it is another.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::backoff::random;
use crate::calls::Call;
use crate::calls::find_coordinator::FindCoordinator;
use crate::cluster::Cluster;
use crate::consumer::ReaderConnections;
use crate::error::Reason;
use crate::limits::{COORDINATOR_SOUGHT, JOINING_CONNECTIONS, READER_CONNECTIONS};
use crate::lock::Lock;
use crate::metadata::Metadata;

/// Shared by all handles and members of one group.
#[derive(Debug)]
pub(crate) struct Coordinator {
    pub(crate) group: Arc<str>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) metadata: Arc<Metadata>,
    connections: GroupConnections,
    broker: Lock<Option<Found>>,
}

/// What all groups of a client ask on.
#[derive(Debug, Clone)]
pub(crate) struct GroupConnections {
    /// Answered at once.
    prompt: Arc<ReaderConnections>,
    /// A broker keeps who joins waiting until all members have, and works on nothing behind it.
    parked: Arc<ReaderConnections>,
}

impl GroupConnections {
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Self {
        Self {
            prompt: ReaderConnections::new(cluster.clone(), READER_CONNECTIONS),
            parked: ReaderConnections::new(cluster.clone(), JOINING_CONNECTIONS),
        }
    }
}

/// Where the coordinator was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    broker: i32,
    /// Of the cluster.
    era: u64,
}

/// What an error code of a coordinator says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coordination {
    /// It is another broker, or none for now.
    Moved,
    /// It is loading the group, or waits for others.
    Busy,
    /// It answers for the group.
    Settled,
}

impl Coordination {
    /// A group's codes: 15 COORDINATOR_NOT_AVAILABLE and 16 NOT_COORDINATOR; 14
    /// COORDINATOR_LOAD_IN_PROGRESS, 7 REQUEST_TIMED_OUT, 88 UNSTABLE_OFFSET_COMMIT (KIP-447), and
    /// −1, which says nothing.
    pub(super) fn of(code: i16) -> Self {
        match code {
            15 | 16 => Self::Moved,
            -1 | 7 | 14 | 88 => Self::Busy,
            _ => Self::Settled,
        }
    }
}

impl Coordinator {
    pub(super) fn new(
        group: &str,
        cluster: Arc<Cluster>,
        metadata: Arc<Metadata>,
        connections: GroupConnections,
    ) -> Self {
        Self { group: group.into(), cluster, metadata, connections, broker: Lock::default() }
    }

    /// Asks the coordinator, which is found first if it is not known, and may keep who asks waiting
    /// for as long as `parked`.
    pub(super) async fn call<C: Call>(
        &self,
        call: C,
        parked: Duration,
        deadline: Instant,
    ) -> Result<C::Answer, Failure> {
        let broker = self.find(deadline).await?;
        let GroupConnections { prompt, parked: parking } = &self.connections;
        let connections = if parked.is_zero() { prompt } else { parking };
        let answer = connections.call(broker, call, parked, deadline).await;
        answer.map_err(|reason| match reason {
            Reason::Unsupported(_) | Reason::Closed => Failure::Final(reason),
            passing => {
                self.forget();
                Failure::Passing(passing)
            }
        })
    }

    /// Finds the coordinator, unless it is known.
    async fn find(&self, deadline: Instant) -> Result<i32, Failure> {
        self.cluster.check_open().map_err(Failure::Final)?;
        let era = self.cluster.era();
        let known = *self.broker.lock();
        if let Some(found) = known.filter(|found| found.era == era) {
            return Ok(found.broker);
        }
        let broker = self.ask_anyone(deadline).await?;
        *self.broker.lock() = Some(Found { broker, era });
        Ok(broker)
    }

    /// Notes what a code of the group's coordinator says about where it is.
    pub(super) fn on_code(&self, code: i16) -> Coordination {
        let coordination = Coordination::of(code);
        if coordination == Coordination::Moved {
            self.forget();
        }
        coordination
    }

    /// It is to be found again.
    fn forget(&self) {
        *self.broker.lock() = None;
    }

    /// Waits before the next attempt; says whether there is time for one.
    pub(super) async fn pause(&self, failures: u32, deadline: Instant) -> bool {
        let pause = self.cluster.config.retry.after(failures, random());
        sleep_until(deadline.min(Instant::now() + pause)).await;
        Instant::now() < deadline && !self.cluster.settings.shutdown.is_cancelled()
    }

    /// Each broker once, from a random one on: any of them knows.
    async fn ask_anyone(&self, deadline: Instant) -> Result<i32, Failure> {
        if self.cluster.brokers().is_empty() {
            let asked = self.metadata.ask_now(deadline).await;
            let nobody = || "no broker is known".into();
            asked.map_err(|last| {
                Failure::Passing(Reason::Unreachable(last.unwrap_or_else(nobody)))
            })?;
        }
        let mut brokers = self.cluster.brokers();
        let places = brokers.len().max(1) as u64;
        brokers.rotate_left(usize::try_from(random() % places).unwrap_or(0));
        let generation = self.metadata.generation();
        let mut last = Reason::Unreachable("no broker is known".into());
        for (broker, _) in brokers {
            let until = deadline.min(Instant::now() + COORDINATOR_SOUGHT);
            let call = FindCoordinator { group: self.group.clone() };
            match self.connections.prompt.call(broker, call, Duration::ZERO, until).await {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(code)) => match Coordination::of(code) {
                    Coordination::Settled => return Err(Failure::Final(Reason::of_code(code))),
                    Coordination::Moved | Coordination::Busy => last = Reason::of_code(code),
                },
                Err(reason @ (Reason::Unsupported(_) | Reason::Closed)) => {
                    return Err(Failure::Final(reason));
                }
                Err(reason) => last = reason,
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        // Brokers may be elsewhere than they were.
        self.metadata.complain(generation);
        Err(Failure::Passing(last))
    }
}

/// Why the coordinator gave no answer.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// Asking again may help.
    Passing(Reason),
    Final(Reason),
}
