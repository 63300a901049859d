//! The broker that the demo writes to.

use std::fmt;

use harness::kafka::{Kafka, KafkaVersion};
use kafka_client::fake_broker::{FakeCluster, FakeSettings};
use xtask::progress::Step;

/// What the embedded broker keeps of a partition, in bytes: the oldest batches make room.
const RETENTION_BYTES: usize = 64 * 1024 * 1024;

/// Apache Kafka, or the broker of kafka-client's tests, which keeps its records in memory.
#[derive(Debug)]
pub(crate) enum Broker {
    Kafka(Kafka),
    Embedded(FakeCluster),
}

impl Broker {
    /// Starts Kafka and makes a topic.
    pub(crate) async fn kafka(
        version: KafkaVersion,
        brokers: usize,
        topic: &str,
        partitions: i32,
    ) -> anyhow::Result<Self> {
        let step = Step::begin(format!("starting Apache Kafka {version}"));
        let kafka = Kafka::start(version, brokers).await?;
        let replication = i32::try_from(brokers.min(3))?;
        kafka.create_topic_with(topic, partitions, replication, &[]).await?;
        step.done();
        Ok(Self::Kafka(kafka))
    }

    /// Opens the embedded broker at a port of 127.0.0.1, with a topic.
    pub(crate) async fn embedded(topic: &str, partitions: i32) -> anyhow::Result<Self> {
        let cluster = FakeCluster::new(FakeSettings::embedded(RETENTION_BYTES));
        cluster.listen().await?;
        let leaders = vec![1; usize::try_from(partitions)?];
        cluster.create_topic(topic, &leaders);
        Ok(Self::Embedded(cluster))
    }

    pub(crate) fn bootstrap(&self) -> String {
        match self {
            Self::Kafka(kafka) => kafka.bootstrap(),
            Self::Embedded(cluster) => cluster.bootstrap(),
        }
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kafka(kafka) => write!(out, "Apache Kafka {}", kafka.version()),
            Self::Embedded(_) => out.write_str("the embedded broker (in memory)"),
        }
    }
}
