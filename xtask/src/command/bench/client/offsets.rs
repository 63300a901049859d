//! How many records a topic has, asked of the broker: one question for all partitions.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// Longest wait for an answer.
const REPLY: Duration = Duration::from_secs(10);

pub(super) struct Offsets {
    consumer: Arc<BaseConsumer>,
    ends: TopicPartitionList,
}

impl Offsets {
    pub(super) fn of(bootstrap: &str, topic: &str, partitions: i32) -> anyhow::Result<Self> {
        let consumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
        let mut ends = TopicPartitionList::new();
        for partition in 0..partitions {
            ends.add_partition_offset(topic, partition, Offset::End)?;
        }
        Ok(Self { consumer: Arc::new(consumer), ends })
    }

    /// The sum of the end offsets: no record of these topics is ever removed.
    pub(super) async fn records(&self) -> anyhow::Result<u64> {
        let (consumer, ends) = (self.consumer.clone(), self.ends.clone());
        let ask = move || consumer.offsets_for_times(ends, REPLY);
        let found = tokio::task::spawn_blocking(ask).await??;
        let mut sum = 0;
        for partition in found.elements() {
            partition.error()?;
            sum += u64::try_from(partition.offset().to_raw().unwrap_or(0)).unwrap_or(0);
        }
        Ok(sum)
    }
}
