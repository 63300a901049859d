//! Readers of partitions by offset: who reads keeps the position, and nothing is stored here.

mod answers;
mod connections;
mod cursor;
mod epochs;
mod fetched;
mod fetching;
mod inflating;
mod isolation;
mod listing;
mod partition_read;
mod position;
mod reading;
mod routing;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Reason;
use crate::limits::FETCH_PATIENCE;
use crate::metadata::Trust;
pub(crate) use connections::ReaderConnections;
pub use fetched::{Fetched, ReadError};
use fetching::Fetching;
pub use listing::At;
use listing::Listing;
pub use position::Position;
pub(crate) use reading::Reading;

/// Reads partitions of a cluster by offset, without a group. Cheap to clone; made by
/// [`Client::consumer`](crate::Client::consumer).
///
/// It shares the client's metadata, credential and TLS. Its connections carry nothing but reads, so
/// that a Fetch which waits for records holds up no Produce, and it needs no producer id.
///
/// ```
/// use std::time::Duration;
///
/// use kafka_client::{At, Client, ClusterConfig, ConsumerConfig};
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
/// # let order = kafka_client::Record::new(b"{}");
/// # client.producer().send("orders", order, within).await;
/// let consumer = client.consumer(&ConsumerConfig::default());
/// let mut offset = consumer.offsets(&[("orders", 0)], At::Earliest, within).await.remove(0)?;
/// let mut fetched = consumer.fetch(&[("orders", 0, offset)], 1024 * 1024, within).await;
/// let fetched = fetched.remove(0)?;
/// for record in &fetched.records {
///     println!("{}: {:?}", record.offset, record.value);
/// }
/// offset = fetched.next_offset;
/// # assert_eq!((offset, fetched.records.len()), (1, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Consumer {
    pub(crate) reading: Reading,
    /// The client ends with its last handle.
    pub(crate) _client: Arc<dyn Any + Send + Sync>,
}

/// A topic's partitions as they are now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicPartitions {
    /// The topic's id (KIP-516), which changes when it is deleted and created again; `None` before
    /// Kafka 2.8.
    pub id: Option<u128>,
    /// The leader of each partition, from 0 on; `None` while it has none.
    pub leaders: Vec<Option<i32>>,
}

impl Consumer {
    /// The partitions of a topic with their leaders, as brokers know them now. A topic may stay
    /// unknown for 5 s before it is refused, because brokers learn of new topics at different times.
    ///
    /// # Errors
    /// [`Reason`] why they are not known, after at most `within`.
    pub async fn partitions(
        &self,
        topic: &str,
        within: Duration,
    ) -> Result<TopicPartitions, Reason> {
        self.reading.cluster.check_open()?;
        let metadata = &self.reading.metadata;
        let deadline = Instant::now() + within;
        let count = metadata.partitions(topic, Trust::Doubted, deadline).await?;
        let routes = (0..).take(count).map(|partition| metadata.read_route(topic, partition));
        let routes: Vec<_> = routes.collect();
        let id = routes.first().copied().flatten().map(|route| route.topic_id);
        let leaders = routes.iter().map(|route| route.and_then(|route| route.leader)).collect();
        Ok(TopicPartitions { id: id.filter(|id| *id != 0), leaders })
    }

    /// An offset of each of these partitions, in their order; or why it is not known, after at most
    /// `within`.
    pub async fn offsets(
        &self,
        partitions: &[(&str, i32)],
        at: At,
        within: Duration,
    ) -> Vec<Result<i64, Reason>> {
        let found = self.offsets_with_epochs(partitions, at, within).await;
        found.into_iter().map(|found| found.map(|(offset, _)| offset)).collect()
    }

    /// As [`Consumer::offsets`], with a leader epoch for [`Position::epoch`] if the brokers give one.
    pub async fn offsets_with_epochs(
        &self,
        partitions: &[(&str, i32)],
        at: At,
        within: Duration,
    ) -> Vec<Result<(i64, Option<i32>), Reason>> {
        let deadline = Instant::now() + within;
        Listing::new(&self.reading, partitions, at).run(deadline).await
    }

    /// Records of each of these partitions from an offset on, as [`Consumer::fetch_from`] of positions
    /// without epochs: a log that was truncated is noticed only where its end is before the offset.
    pub async fn fetch(
        &self,
        partitions: &[(&str, i32, i64)],
        max_bytes: usize,
        wait: Duration,
    ) -> Vec<Result<Fetched, ReadError>> {
        let positions = partitions.iter();
        let positions: Vec<_> = positions
            .map(|(topic, partition, offset)| Position::new(topic, *partition, *offset))
            .collect();
        self.fetch_from(&positions, max_bytes, wait).await
    }

    /// Records from each of these positions on, in their order; or why there are none.
    ///
    /// Returns as soon as one partition has records or an error that will not pass, else after
    /// `wait`; and no later than `wait` plus 2 s, whatever brokers do. Partitions that have nothing
    /// new are in the answer with no records, and those that no broker could answer for yet are
    /// [`ReadError::Unavailable`]. A topic that the brokers do not know holds up the others, too, at
    /// its first time for up to 5 s: see [`Consumer::partitions`].
    ///
    /// All records together take up to `max_bytes`, each with 128 bytes for what is around it, but
    /// at least one record is given whatever its size. Batches of up to 64 MiB are decompressed, by all
    /// readers of the client 128 MiB at a time; who waits in vain gets [`ReadError::Unavailable`].
    /// Partitions take turns at being the first that is read.
    pub async fn fetch_from(
        &self,
        positions: &[Position<'_>],
        max_bytes: usize,
        wait: Duration,
    ) -> Vec<Result<Fetched, ReadError>> {
        let until = Instant::now() + wait;
        let deadline = until + FETCH_PATIENCE;
        Fetching::new(&self.reading, positions, max_bytes, deadline).run(until).await
    }
}
