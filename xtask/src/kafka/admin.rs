//! Topics and metadata through rdkafka, a client that shares no code with the bridge.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::Kafka;
use super::replicas::{Replicas, ask};
use crate::process::wait_until;

/// Longest wait for one answer.
pub(super) const REPLY: Duration = Duration::from_secs(4);

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
        self.create_topics(&[name], partitions, replication, configs).await
    }

    /// As [`Kafka::create_topic_with`], for topics that are alike.
    ///
    /// # Errors
    /// As [`Kafka::create_topic`].
    pub async fn create_topics(
        &self,
        names: &[&str],
        partitions: i32,
        replication: i32,
        configs: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let topic = |name| {
            let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replication));
            configs.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
        };
        let topics: Vec<_> = names.iter().copied().map(topic).collect();
        let options = AdminOptions::new().operation_timeout(Some(LEADERS));
        let results = self.admin()?.create_topics(&topics, &options).await?;
        succeeded(results).with_context(|| format!("cannot create {names:?}"))?;
        self.wait_for_leaders(names, partitions).await
    }

    /// Removes a topic.
    ///
    /// # Errors
    /// When Kafka refuses, for instance because there is no such topic.
    pub async fn delete_topic(&self, name: &str) -> anyhow::Result<()> {
        let options = AdminOptions::new().operation_timeout(Some(LEADERS));
        let results = self.admin()?.delete_topics(&[name], &options).await?;
        succeeded(results).with_context(|| format!("cannot delete topic {name}"))
    }

    /// Raises the number of partitions of topics, and waits until each has a leader.
    ///
    /// # Errors
    /// When Kafka refuses, for instance because there are more already.
    pub async fn add_partitions(&self, names: &[&str], partitions: i32) -> anyhow::Result<()> {
        let count = usize::try_from(partitions)?;
        let all: Vec<_> = names.iter().map(|name| NewPartitions::new(name, count)).collect();
        let options = AdminOptions::new().operation_timeout(Some(LEADERS));
        let results = self.admin()?.create_partitions(&all, &options).await?;
        succeeded(results).with_context(|| format!("cannot add partitions to {names:?}"))?;
        self.wait_for_leaders(names, partitions).await
    }

    async fn wait_for_leaders(&self, names: &[&str], partitions: i32) -> anyhow::Result<()> {
        wait_until(&format!("the leaders of {names:?}"), LEADERS, async || {
            // Brokers learn of a topic one after the other.
            for address in self.answering() {
                let replicas = ask(&address, None).await?;
                for name in names {
                    let is_led = |found: &&Replicas| found.topic == *name && found.leader.is_some();
                    let led = replicas.iter().filter(is_led).count();
                    ensure!(i32::try_from(led) == Ok(partitions), "{name} has {led} leaders");
                }
            }
            Ok(())
        })
        .await
    }

    fn admin(&self) -> anyhow::Result<AdminClient<DefaultClientContext>> {
        Ok(config(&self.answering().join(",")).create()?)
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

pub(super) fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    // What librdkafka would log while a broker is down is expected here.
    config.set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg);
    config
}

fn succeeded(
    results: Vec<Result<String, (String, rdkafka::types::RDKafkaErrorCode)>>,
) -> anyhow::Result<()> {
    ensure!(!results.is_empty(), "no answer");
    results.into_iter().try_for_each(|result| match result {
        Ok(_) => Ok(()),
        Err((name, code)) => bail!("{name}: {code}"),
    })
}
