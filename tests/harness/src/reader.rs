//! Reads topics back by ListOffsets and Fetch. Batches are decoded here and not by kafka-client's
//! codec, so that what the bridge wrote is judged by other code; only the compression crates are the
//! same, and `tests/readers.rs` reads each codec with kcat and Java, too.

mod batch;
mod decompress;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, ensure};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, ListOffsetsRequest};

use crate::kafka::metadata;
use crate::kafka::wire::{call, topic_name};
use crate::process::wait_until;
use crate::record::ReadRecord;

/// The last version of Fetch that names topics, which Kafka 3.9, 4 and the embedded broker have.
const FETCH: i16 = 12;

/// A version of ListOffsets that all of them have.
const LIST_OFFSETS: i16 = 7;

/// Timestamps that ask for the log start offset and for the high watermark.
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

/// Bytes that one response may have, but for a first batch that is larger.
const MAX_BYTES: i32 = 8 * 1024 * 1024;

/// Longest time until a partition's leader answers.
const LEADER: Duration = Duration::from_secs(30);

/// All records of a topic up to now, partition by partition in order of their offsets.
///
/// # Errors
/// When the topic or its leaders are not there, or a batch cannot be read.
pub async fn read_all(bootstrap: &str, topic: &str) -> anyhow::Result<Vec<ReadRecord>> {
    Tail::open(bootstrap, topic).await?.read().await
}

/// The sum of the end offsets of a topic's partitions, all of which one broker leads: one request,
/// so that it disturbs little what is measured.
///
/// # Errors
/// When the broker does not answer, or does not lead them.
pub async fn end_offset_sum(broker: &str, topic: &str, partitions: i32) -> anyhow::Result<i64> {
    let request = offsets_request(topic, 0..partitions, LATEST);
    let response = call(broker, LIST_OFFSETS, &request).await?;
    let mut sum = 0;
    for answer in response.topics.into_iter().flat_map(|topic| topic.partitions) {
        ensure!(answer.error_code == 0, "error {}", answer.error_code);
        sum += answer.offset;
    }
    Ok(sum)
}

fn offsets_request(topic: &str, partitions: Range<i32>, timestamp: i64) -> ListOffsetsRequest {
    let asked = |partition| {
        ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp)
    };
    let topic = ListOffsetsTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(partitions.map(asked).collect());
    ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic])
}

/// A reader that remembers how far it has come; it has no group and commits nothing.
#[derive(Debug)]
pub struct Tail {
    bootstrap: String,
    topic: String,
    /// Partition to the offset that comes next.
    next: BTreeMap<i32, i64>,
}

impl Tail {
    /// Begins at the first record of every partition that the topic has now.
    ///
    /// # Errors
    /// When the topic is not there.
    pub async fn open(bootstrap: &str, topic: &str) -> anyhow::Result<Self> {
        let reader = Reader { bootstrap, topic };
        let partitions = metadata::replicas(bootstrap, Some(topic)).await?;
        ensure!(!partitions.is_empty(), "there is no topic {topic}");
        let mut next = BTreeMap::new();
        for found in partitions {
            next.insert(found.partition, reader.offset(found.partition, EARLIEST).await?);
        }
        Ok(Self { bootstrap: bootstrap.to_owned(), topic: topic.to_owned(), next })
    }

    /// The records since the last call, up to each partition's high watermark of now.
    ///
    /// # Errors
    /// When a partition's leader does not answer for 30 seconds, or a batch cannot be read.
    pub async fn read(&mut self) -> anyhow::Result<Vec<ReadRecord>> {
        let reader = Reader { bootstrap: &self.bootstrap, topic: &self.topic };
        let mut records = Vec::new();
        for (partition, next) in &mut self.next {
            let end = reader.offset(*partition, LATEST).await?;
            while *next < end {
                let read = reader.fetch(*partition, *next).await?;
                let last = read.last().with_context(|| {
                    format!("{}/{partition} has nothing from {next} to {end}", self.topic)
                })?;
                *next = last.offset + 1;
                records.extend(read);
            }
        }
        Ok(records)
    }
}

/// A topic of a cluster.
struct Reader<'a> {
    bootstrap: &'a str,
    topic: &'a str,
}

impl Reader<'_> {
    /// The offset of a partition at [`EARLIEST`] or [`LATEST`].
    async fn offset(&self, partition: i32, timestamp: i64) -> anyhow::Result<i64> {
        let request = offsets_request(self.topic, partition..partition + 1, timestamp);
        self.retry(partition, async |leader| {
            let response = call(leader, LIST_OFFSETS, &request).await?;
            let answer = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
            let answer = answer.context("no answer")?;
            ensure!(answer.error_code == 0, "error {}", answer.error_code);
            Ok(answer.offset)
        })
        .await
    }

    /// Some records from an offset on.
    async fn fetch(&self, partition: i32, offset: i64) -> anyhow::Result<Vec<ReadRecord>> {
        let asked = FetchPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(MAX_BYTES);
        let topic =
            FetchTopic::default().with_topic(topic_name(self.topic)).with_partitions(vec![asked]);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(500)
            .with_min_bytes(1)
            .with_max_bytes(MAX_BYTES)
            // A fetch of all that it names, without a session (KIP-227).
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let batches = self
            .retry(partition, async |leader| {
                let response = call(leader, FETCH, &request).await?;
                ensure!(response.error_code == 0, "error {}", response.error_code);
                let mut answers = response.responses.into_iter().flat_map(|topic| topic.partitions);
                let answer = answers.next().context("no answer")?;
                ensure!(answer.error_code == 0, "error {}", answer.error_code);
                answer.records.filter(|records| !records.is_empty()).context("no records")
            })
            .await?;
        let mut records = batch::records(partition, batches)?;
        records.retain(|record| record.offset >= offset);
        Ok(records)
    }

    /// Asks the partition's leader until it answers.
    async fn retry<T>(
        &self,
        partition: i32,
        ask: impl AsyncFn(&str) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let what = format!("the leader of {}/{partition}", self.topic);
        wait_until(&what, LEADER, async || {
            let address = metadata::leader(self.bootstrap, self.topic, partition).await?;
            ask(&address).await
        })
        .await
    }
}
