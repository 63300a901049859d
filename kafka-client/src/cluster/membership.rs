//! Which cluster this is: another one behind the same addresses is noticed before it is written to.

use std::sync::Arc;

use super::{Cluster, ConnectError};
use crate::calls::metadata::AskMetadata;
use crate::connection::{Connection, LostReason};
use crate::error::Cause;
use crate::resolve::Endpoint;

/// The id that brokers give their cluster.
#[derive(Debug)]
pub(super) struct Membership {
    id: Option<Arc<str>>,
    /// Whether no other id is ever taken (`cluster.id.pin`).
    is_pinned: bool,
    /// How many clusters there were before this one.
    era: u64,
}

impl Membership {
    pub(super) fn new(pin: Option<String>) -> Self {
        Self { is_pinned: pin.is_some(), id: pin.map(Arc::from), era: 0 }
    }
}

impl Cluster {
    /// Which cluster answers, once one has.
    pub(crate) fn id(&self) -> Option<Arc<str>> {
        self.membership.lock().id.clone()
    }

    /// Grows when another cluster takes the place of the one that was there: what was learnt in an
    /// earlier era means nothing any more.
    pub(crate) fn era(&self) -> u64 {
        self.membership.lock().era
    }

    /// Whether an answer of such a cluster may be believed at all.
    pub(crate) fn admits(&self, theirs: Option<&str>) -> Result<(), Cause> {
        let membership = self.membership.lock();
        match &membership.id {
            Some(pin) if membership.is_pinned && theirs != Some(pin) => {
                let theirs = theirs.unwrap_or("(none)");
                Err(format!("the cluster is {theirs}, and cluster.id.pin is {pin}").into())
            }
            _ => Ok(()),
        }
    }

    /// Takes the id of an admitted answer; says whether that is another cluster than before. Brokers
    /// before 0.10.1 tell no id, and are taken for what is there.
    pub(crate) fn adopt(&self, theirs: Option<&str>) -> bool {
        let Some(theirs) = theirs else { return false };
        let mut membership = self.membership.lock();
        let was = membership.id.replace(theirs.into());
        let Some(was) = was.filter(|was| **was != *theirs) else { return false };
        membership.era += 1;
        drop(membership);
        self.settings.stats.cluster_changes.add(1);
        tracing::error!(
            %was,
            now = theirs,
            effect = "topics and producer id are dropped, records that the former one may have are unknown",
            "cluster_changed"
        );
        true
    }

    /// Asks a broker which cluster it belongs to. A connection must not carry anything of this
    /// cluster, such as its producer id, to another one.
    pub(crate) async fn vouch(
        &self,
        endpoint: &Endpoint,
        connection: &Connection,
    ) -> Result<(), ConnectError> {
        let Some(ours) = self.membership.lock().id.clone() else { return Ok(()) };
        let stranger = |cause: Cause| {
            let error = ConnectError::Stranger { endpoint: endpoint.clone(), cause };
            self.faults.add(endpoint, &error);
            error
        };
        let question = AskMetadata { topics: Vec::new(), asks_operations: false };
        let patience = self.config.connect_timeout.min(self.config.request_timeout);
        let reply = match connection.submit(&question, patience).await {
            Ok(reply) => reply.answer().await,
            Err(lost) => Err(lost),
        };
        let answer = reply.map_err(|lost| match lost.fault {
            LostReason::Closed => self.closed_at_request(endpoint),
            _ => stranger(format!("does not say of which cluster it is: {lost}").into()),
        })?;
        match answer.cluster_id {
            Some(theirs) if *theirs != *ours => {
                Err(stranger(format!("is a broker of cluster {theirs}, not of {ours}").into()))
            }
            _ => Ok(()),
        }
    }
}
