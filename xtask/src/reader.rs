//! Reads topics back with rdkafka, so that what the bridge wrote is judged by another client.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// Longest wait for one answer of the cluster.
const REPLY: Duration = Duration::from_secs(10);

/// Longest time without any record while there are more to come.
const STALL: Duration = Duration::from_secs(30);

/// Pause before a partition without a leader is asked again.
const RETRY: Duration = Duration::from_millis(50);

/// A record as Kafka has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRecord {
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
    /// The timestamp in milliseconds since 1970, or -1.
    pub timestamp_ms: i64,
    /// The key; none differs from an empty one.
    pub key: Option<Vec<u8>>,
    /// The value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl ReadRecord {
    /// The value as JSON.
    ///
    /// # Errors
    /// When there is none, or it is not JSON.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        let value = self.value.as_deref().context("the record has no value")?;
        serde_json::from_slice(value).context("the record's value is not JSON")
    }

    /// The first header of a name, as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(found, _)| found == name)?;
        Some(String::from_utf8_lossy(value.as_deref()?).into_owned())
    }
}

/// All records of a topic up to now (without transactions), partition by partition in order of their offsets.
///
/// # Errors
/// When the topic or its leaders are not there, or a batch's checksum is wrong.
pub async fn read_all(bootstrap: &str, topic: &str) -> anyhow::Result<Vec<ReadRecord>> {
    let mut records = Tail::open(bootstrap, topic).await?.read().await?;
    records.sort_by_key(|record| (record.partition, record.offset));
    Ok(records)
}

/// A reader that remembers how far it has come; it has no group and commits nothing.
pub struct Tail {
    consumer: Arc<BaseConsumer>,
    topic: String,
    /// Partition to the offset that comes next.
    next: HashMap<i32, i64>,
}

impl Tail {
    /// Begins at the first record of every partition that the topic has now.
    ///
    /// # Errors
    /// When the topic is not there.
    pub async fn open(bootstrap: &str, topic: &str) -> anyhow::Result<Self> {
        let consumer: Arc<BaseConsumer> = Arc::new(config(bootstrap).create()?);
        let (name, reader) = (topic.to_owned(), Arc::clone(&consumer));
        let next = tokio::task::spawn_blocking(move || assign(&reader, &name)).await??;
        Ok(Self { consumer, topic: topic.to_owned(), next })
    }

    /// The records since the last call, up to each partition's high watermark of now.
    ///
    /// # Errors
    /// When a partition's leader does not answer, or nothing comes for 30 seconds.
    pub async fn read(&mut self) -> anyhow::Result<Vec<ReadRecord>> {
        let (consumer, topic) = (Arc::clone(&self.consumer), self.topic.clone());
        let next = self.next.clone();
        let work = move || read_to_end(&consumer, &topic, next);
        let (records, next) = tokio::task::spawn_blocking(work).await??;
        self.next = next;
        Ok(records)
    }
}

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        // Asked for by the library though no group is joined.
        .set("group.id", "xtask-reader")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        .set("fetch.wait.max.ms", "50")
        .set("queued.max.messages.kbytes", "65536")
        .set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg);
    config
}

fn assign(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<HashMap<i32, i64>> {
    let metadata = consumer.fetch_metadata(Some(topic), REPLY)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let partitions = found.with_context(|| format!("no topic {topic}"))?.partitions();
    if partitions.is_empty() {
        bail!("there is no topic {topic}");
    }
    let mut list = TopicPartitionList::new();
    let mut next = HashMap::new();
    for partition in partitions {
        let (low, _) = watermarks(consumer, topic, partition.id())?;
        list.add_partition_offset(topic, partition.id(), Offset::Offset(low))?;
        next.insert(partition.id(), low);
    }
    consumer.assign(&list)?;
    Ok(next)
}

/// The first offset of a partition and the one that comes next; waits while it has no leader.
fn watermarks(consumer: &BaseConsumer, topic: &str, partition: i32) -> anyhow::Result<(i64, i64)> {
    let deadline = Instant::now() + STALL;
    loop {
        match consumer.fetch_watermarks(topic, partition, REPLY) {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("no offsets of {topic}/{partition}"));
            }
            Err(_) => std::thread::park_timeout(RETRY),
        }
    }
}

type Read = (Vec<ReadRecord>, HashMap<i32, i64>);

fn read_to_end(
    consumer: &BaseConsumer,
    topic: &str,
    mut next: HashMap<i32, i64>,
) -> anyhow::Result<Read> {
    let mut ends = HashMap::new();
    for (partition, from) in &next {
        let (_, end) = watermarks(consumer, topic, *partition)?;
        if end > *from {
            ends.insert(*partition, end);
        }
    }
    let mut records = Vec::new();
    let mut heard = Instant::now();
    while !ends.is_empty() {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                let (partition, after) = (message.partition(), message.offset() + 1);
                records.push(owned(&message));
                next.insert(partition, after);
                if ends.get(&partition).is_some_and(|end| after >= *end) {
                    ends.remove(&partition);
                }
            }
            Some(Err(error)) if is_final(&error) => bail!("{topic}: {error}"),
            Some(Err(_)) | None => {}
        }
        if heard.elapsed() > STALL {
            bail!("{topic}: nothing came for {STALL:?}, partitions left: {ends:?}");
        }
    }
    Ok((records, next))
}

/// Errors that no wait mends: a checksum that is wrong, an offset or a topic that is gone.
fn is_final(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(
        code,
        Some(
            RDKafkaErrorCode::BadMessage
                | RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}

fn owned(message: &BorrowedMessage<'_>) -> ReadRecord {
    let headers = message.headers().map(|headers| {
        headers
            .iter()
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect()
    });
    ReadRecord {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
    }
}
