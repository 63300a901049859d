//! Consumer groups: the offsets that a group keeps in Kafka, and memberships.

mod assignor;
mod classic;
mod coordinator;
mod error;
mod member;
mod modern;
mod offset;
mod offsets;
mod protocol;
mod standing;
mod subscription;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::config::GroupConfig;
use crate::metadata::Metadata;
use coordinator::Coordinator;
pub(crate) use coordinator::GroupConnections;
pub use error::GroupError;
pub use member::{GroupEvent, Member, MemberEvents, Revocation};
pub use offset::{Committed, GroupOffset};
use offsets::{Commit, Fetch};

/// A consumer group. Cheap to clone; made by [`Client::group`](crate::Client::group).
///
/// The offsets of a group can be read and committed without being a member of it. Brokers take such
/// commits only while the group has no members: else they are [`GroupError::InUse`].
///
/// ```
/// use std::time::Duration;
///
/// use kafka_client::{Client, ClusterConfig, GroupOffset};
///
/// # use kafka_client::fake_broker::{FakeCluster, FakeSettings};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let cluster = FakeCluster::new(FakeSettings::default());
/// # cluster.create_topic("orders", &[1]);
/// # cluster.listen().await?;
/// # let servers = cluster.bootstrap();
/// # let within = Duration::from_secs(5);
/// let client = Client::new(ClusterConfig::new(&servers)?.into());
/// let group = client.group("billing");
/// group.commit(&[GroupOffset::new("orders", 0, 42)], within).await.remove(0)?;
/// let committed = group.committed(&[("orders", 0)], within).await.remove(0)?;
/// assert_eq!(committed.map(|committed| committed.offset), Some(42));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Group {
    pub(crate) coordinator: Arc<Coordinator>,
    /// The client ends with its last handle.
    pub(crate) _client: Arc<dyn Any + Send + Sync>,
}

impl Group {
    pub(crate) fn new(
        id: &str,
        cluster: Arc<Cluster>,
        metadata: Arc<Metadata>,
        connections: GroupConnections,
        client: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        let coordinator = Coordinator::new(id, cluster, metadata, connections);
        Self { coordinator: Arc::new(coordinator), _client: client }
    }

    /// The group's name (`group.id`).
    #[must_use]
    pub fn id(&self) -> &str {
        &self.coordinator.group
    }

    /// What the group has committed of each of these partitions, in their order: `None` if nothing,
    /// or what was has expired. Whoever asks decides where to begin then. Offsets of a transaction
    /// that has not ended yet are waited for (KIP-447).
    ///
    /// # Errors
    /// Of each partition [`GroupError`], after at most `within`.
    pub async fn committed(
        &self,
        partitions: &[(&str, i32)],
        within: Duration,
    ) -> Vec<Result<Option<Committed>, GroupError>> {
        let deadline = Instant::now() + within;
        Fetch::new(partitions).run(&self.coordinator, deadline).await
    }

    /// Joins the group, to read these topics together with its other members. Partitions come and go
    /// by [`MemberEvents`].
    pub fn join(&self, topics: &[&str], config: &GroupConfig) -> (Member, MemberEvents) {
        Member::join(self.coordinator.clone(), self._client.clone(), topics, config)
    }

    /// Commits offsets without being a member. Each is kept or refused by itself, in their order. A
    /// commit may move a position backwards, and one whose answer is lost is sent again.
    ///
    /// # Errors
    /// Of each partition [`GroupError`], after at most `within`; one that ran out of time may have
    /// been kept.
    pub async fn commit(
        &self,
        offsets: &[GroupOffset<'_>],
        within: Duration,
    ) -> Vec<Result<(), GroupError>> {
        let deadline = Instant::now() + within;
        Commit::new(offsets).run(&self.coordinator, deadline).await
    }
}
