//! Readers of partitions by offset: who reads keeps the position, and nothing is stored here.

mod answers;
mod connections;
mod cursor;
mod fetching;
mod isolation;
mod listing;
mod routing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::client::Shared;
use crate::config::ConsumerConfig;
use crate::error::Reason;
use crate::limits::FETCH_PATIENCE;
use crate::metadata::Trust;
use crate::record_batch::{BatchError, StoredRecord};
pub(crate) use connections::ReaderConnections;
use fetching::Fetching;
use listing::Listing;

/// Reads partitions of a cluster by offset, without a group. Cheap to clone; made by
/// [`Client::consumer`](crate::Client::consumer).
///
/// It shares the client's metadata, credential and TLS. Its connections carry nothing but reads, so
/// that a Fetch which waits for records holds up no Produce, and it needs no producer id.
#[derive(Debug, Clone)]
pub struct Consumer {
    client: Arc<Shared>,
    config: ConsumerConfig,
}

/// Which offset of a partition is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The log start: the first record that is still there.
    Earliest,
    /// The log end: behind the last record that may be read, which under read_committed is the last
    /// stable offset (KIP-98).
    Latest,
    /// The first record of this time or later, ms since the Unix epoch; the log end if there is none.
    /// Times before the epoch count as 0.
    Time(i64),
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

/// What was read from one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fetched {
    /// Records at or after the offset that was asked for, in order. Their parts are slices: each keeps
    /// its whole batch in memory, and without compression the whole answer that the batch was in.
    pub records: Vec<StoredRecord>,
    /// Where to go on: behind the records, and behind what is not for readers (control batches,
    /// records of aborted transactions, offsets that compaction has emptied).
    pub next_offset: i64,
    /// The first offset that is still there; `None` if the broker does not say so (before Fetch 5).
    pub log_start: Option<i64>,
    /// The log end, as by [`At::Latest`].
    pub log_end: i64,
    /// The id of the topic that this was read from. Offsets mean nothing in a topic of another id.
    pub topic_id: Option<u128>,
}

/// Why nothing was read from a partition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The offset is not in the log: its records have expired, or it was never reached. A policy must
    /// decide where to go on.
    #[error("the offset is out of range: the log has {log_start} to {log_end}")]
    OutOfRange {
        /// The first offset that is still there.
        log_start: i64,
        /// The log end, as by [`At::Latest`].
        log_end: i64,
    },
    /// The topic was deleted and created again while it was read: offsets of the former mean nothing.
    #[error("the topic was deleted and created again")]
    Recreated,
    /// The records of a batch are more than 64 MiB once they are decompressed. They can be stepped
    /// over.
    #[error("the batch at offset {offset} is more than {limit} bytes when it is decompressed")]
    TooLarge {
        /// The first offset that was not read.
        offset: i64,
        /// The first offset behind the batch.
        next_offset: i64,
        /// Bytes allowed.
        limit: usize,
    },
    /// A batch is damaged, or of a format that is not read (before Kafka 0.11).
    #[error("the batch at offset {offset} cannot be read")]
    Unreadable {
        /// The first offset that was not read.
        offset: i64,
        /// The first offset behind the batch; `None` if it is too damaged to tell.
        next_offset: Option<i64>,
        /// What is wrong with it.
        #[source]
        error: BatchError,
    },
    /// The brokers refuse: the topic or partition does not exist, or we may not read it.
    #[error("the partition cannot be read")]
    Refused(#[source] Reason),
    /// No broker could give records in time. Ask again from the same offset.
    #[error("the partition cannot be read now")]
    Unavailable(#[source] Reason),
}

impl Consumer {
    pub(crate) fn new(client: Arc<Shared>, config: ConsumerConfig) -> Self {
        Self { client, config }
    }

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
        self.client.cluster.check_open()?;
        let metadata = &self.client.metadata;
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
        let deadline = Instant::now() + within;
        Listing::new(self, partitions, at).run(deadline).await
    }

    /// Records of each of these partitions from an offset on, in their order; or why there are none.
    ///
    /// Returns as soon as one partition has records or an error that will not pass, else after
    /// `wait`; and no later than `wait` plus 2 s, whatever brokers do. Partitions that have nothing
    /// new are in the answer with no records, and those that no broker could answer for yet are
    /// [`ReadError::Unavailable`]. A topic that the brokers do not know holds up the others, too, at
    /// its first time for up to 5 s: see [`Consumer::partitions`].
    ///
    /// All records together take up to `max_bytes`, each with 128 bytes for what is around it, but
    /// at least one record is given whatever its size. One batch is decompressed even beyond that, up
    /// to its limit of 64 MiB. Partitions take turns at being the first that is read.
    pub async fn fetch(
        &self,
        partitions: &[(&str, i32, i64)],
        max_bytes: usize,
        wait: Duration,
    ) -> Vec<Result<Fetched, ReadError>> {
        let until = Instant::now() + wait;
        Fetching::new(self, partitions, max_bytes).run(until, until + FETCH_PATIENCE).await
    }
}
