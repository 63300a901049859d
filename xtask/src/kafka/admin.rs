//! Topics and metadata through rdkafka, a client that shares no code with the bridge.

use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::Kafka;
use crate::process::wait_until;

/// Longest wait for one answer.
const REPLY: Duration = Duration::from_secs(4);

/// Longest wait until a new topic has its leaders.
const LEADERS: Duration = Duration::from_secs(30);

impl Kafka {
    /// Makes a topic with one replica a partition, and waits until each partition has a leader.
    ///
    /// # Errors
    /// When Kafka refuses, for instance because the topic exists.
    pub async fn create_topic(&self, name: &str, partitions: i32) -> anyhow::Result<()> {
        self.create_topic_with(name, partitions, 1, &[]).await
    }

    /// Makes a topic with a replication factor and topic configs.
    ///
    /// # Errors
    /// As [`Kafka::create_topic`].
    pub async fn create_topic_with(
        &self,
        name: &str,
        partitions: i32,
        replication: i32,
        configs: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let replicas = TopicReplication::Fixed(replication);
        let mut topic = NewTopic::new(name, partitions, replicas);
        for (key, value) in configs {
            topic = topic.set(key, value);
        }
        let admin = self.admin()?;
        let options = AdminOptions::new().operation_timeout(Some(LEADERS));
        let results = admin.create_topics([&topic], &options).await?;
        first(results).with_context(|| format!("cannot create topic {name}"))?;
        let bootstrap = self.bootstrap();
        wait_until(&format!("the leaders of topic {name}"), LEADERS, || {
            has_leaders(&bootstrap, name, partitions)
        })
        .await
    }

    /// Removes a topic.
    ///
    /// # Errors
    /// When Kafka refuses, for instance because there is no such topic.
    pub async fn delete_topic(&self, name: &str) -> anyhow::Result<()> {
        let options = AdminOptions::new().operation_timeout(Some(LEADERS));
        let results = self.admin()?.delete_topics(&[name], &options).await?;
        first(results).with_context(|| format!("cannot delete topic {name}"))
    }

    /// The id of the broker that leads a partition.
    ///
    /// # Errors
    /// When there is no leader, or no answer.
    pub async fn leader_of(&self, topic: &str, partition: i32) -> anyhow::Result<usize> {
        let leaders = leaders(&self.bootstrap(), topic).await?;
        let leader = leaders
            .iter()
            .find(|(found, _)| *found == partition)
            .with_context(|| format!("{topic} has no partition {partition}"))?
            .1;
        usize::try_from(leader).map_err(|_| anyhow!("{topic}/{partition} has no leader now"))
    }

    fn admin(&self) -> anyhow::Result<AdminClient<DefaultClientContext>> {
        Ok(config(&self.bootstrap()).create()?)
    }
}

/// Succeeds when the broker at `address` lists itself as number `id` and knows a controller.
pub(super) async fn is_in_cluster(address: &str, id: usize) -> anyhow::Result<()> {
    let consumer: BaseConsumer = config(address).create()?;
    tokio::task::spawn_blocking(move || {
        let metadata = consumer.fetch_metadata(None, REPLY)?;
        let known = |broker: &rdkafka::metadata::MetadataBroker| usize::try_from(broker.id());
        ensure!(
            metadata.brokers().iter().any(|broker| known(broker) == Ok(id)),
            "the cluster does not list broker {id} yet"
        );
        Ok(())
    })
    .await?
}

async fn has_leaders(bootstrap: &str, topic: &str, partitions: i32) -> anyhow::Result<()> {
    let leaders = leaders(bootstrap, topic).await?;
    let led = leaders.iter().filter(|(_, leader)| *leader >= 0).count();
    ensure!(i32::try_from(led) == Ok(partitions), "{led} of {partitions} have a leader");
    Ok(())
}

/// Each partition with its leader; -1 stands for none.
async fn leaders(bootstrap: &str, topic: &str) -> anyhow::Result<Vec<(i32, i32)>> {
    let consumer: BaseConsumer = config(bootstrap).create()?;
    let topic = topic.to_owned();
    tokio::task::spawn_blocking(move || {
        let metadata = consumer.fetch_metadata(Some(&topic), REPLY)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let found = found.with_context(|| format!("no topic {topic}"))?;
        Ok(found.partitions().iter().map(|part| (part.id(), part.leader())).collect())
    })
    .await?
}

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    // What librdkafka would log while a broker is down is expected here.
    config.set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg);
    config
}

fn first<T>(
    results: Vec<Result<T, (String, rdkafka::types::RDKafkaErrorCode)>>,
) -> anyhow::Result<()> {
    match results.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err((_, code))) => bail!("{code}"),
        None => bail!("no answer"),
    }
}
