//! Topics are made, changed and removed by requests that are repeated while the cluster is not ready for them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    TopicName,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::{Instant, sleep};

use super::Kafka;
use super::metadata::{self, Replicas};
use super::wire::{call, topic_name};
use crate::process::wait_until;

/// Longest time until a change of topics is made, and until its partitions have leaders.
const CHANGE: Duration = Duration::from_secs(30);

/// How long the controller may take for one request, in milliseconds.
const CONTROLLER_MS: i32 = 5_000;

/// Pause before a request is repeated.
const RETRY: Duration = Duration::from_millis(100);

/// Versions that Kafka 3.9 and 4 both have.
const CREATE_TOPICS: i16 = 7;
const DELETE_TOPICS: i16 = 6;
const CREATE_PARTITIONS: i16 = 3;
const DELETE_RECORDS: i16 = 2;

/// Error codes of Kafka's protocol.
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const REQUEST_TIMED_OUT: i16 = 7;
const TOPIC_ALREADY_EXISTS: i16 = 36;
const INVALID_PARTITIONS: i16 = 37;
const INVALID_REPLICATION_FACTOR: i16 = 38;
const NOT_CONTROLLER: i16 = 41;

/// What became of a request to change a topic.
struct Answer {
    topic: String,
    code: i16,
    message: String,
}

impl Answer {
    fn new(topic: &TopicName, code: i16, message: Option<&StrBytes>) -> Self {
        let message = message.map(ToString::to_string).unwrap_or_default();
        Self { topic: topic.0.to_string(), code, message }
    }
}

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
        let replication = i16::try_from(replication)?;
        let config = |(key, value): &(&str, &str)| {
            CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value)))
        };
        let topic = |name: &&str| {
            CreatableTopic::default()
                .with_name(topic_name(name))
                .with_num_partitions(partitions)
                .with_replication_factor(replication)
                .with_configs(configs.iter().map(config).collect())
        };
        let request = CreateTopicsRequest::default()
            .with_topics(names.iter().map(topic).collect())
            .with_timeout_ms(CONTROLLER_MS);
        self.change("create", TOPIC_ALREADY_EXISTS, async |address| {
            let response = call(address, CREATE_TOPICS, &request).await?;
            let answers = response.topics.iter();
            Ok(answers
                .map(|it| Answer::new(&it.name, it.error_code, it.error_message.as_ref()))
                .collect())
        })
        .await?;
        self.wait_for_leaders(names, partitions).await
    }

    /// Removes a topic.
    ///
    /// # Errors
    /// When Kafka refuses, for instance because there is no such topic.
    pub async fn delete_topic(&self, name: &str) -> anyhow::Result<()> {
        self.delete_topics(&[name]).await
    }

    /// Removes all topics but Kafka's own, and waits until no broker knows them.
    pub(super) async fn delete_all_topics(&self) -> anyhow::Result<()> {
        let is_own = |topic: &str| topic.starts_with("__");
        let address = self.answering().into_iter().next().context("no broker runs")?;
        let replicas = metadata::replicas(&address, None).await?;
        let topics = replicas.iter().map(|found| found.topic.as_str());
        let topics: BTreeSet<_> = topics.filter(|topic| !is_own(topic)).collect();
        if topics.is_empty() {
            return Ok(());
        }
        self.delete_topics(&Vec::from_iter(topics)).await?;
        self.wait_for_replicas("the end of all topics", |found| is_own(&found.topic)).await
    }

    async fn delete_topics(&self, names: &[&str]) -> anyhow::Result<()> {
        let topic = |name: &&str| DeleteTopicState::default().with_name(Some(topic_name(name)));
        let request = DeleteTopicsRequest::default()
            .with_topics(names.iter().map(topic).collect())
            .with_timeout_ms(CONTROLLER_MS);
        self.change("delete", UNKNOWN_TOPIC_OR_PARTITION, async |address| {
            let response = call(address, DELETE_TOPICS, &request).await?;
            let answer = |it: &DeletableTopicResult| {
                let name = it.name.clone().unwrap_or_default();
                Answer::new(&name, it.error_code, it.error_message.as_ref())
            };
            Ok(response.responses.iter().map(answer).collect())
        })
        .await
    }

    /// Raises the number of partitions of topics, and waits until each has a leader.
    ///
    /// # Errors
    /// When Kafka refuses, for instance because there are more already.
    pub async fn add_partitions(&self, names: &[&str], partitions: i32) -> anyhow::Result<()> {
        let topic = |name: &&str| {
            CreatePartitionsTopic::default()
                .with_name(topic_name(name))
                .with_count(partitions)
                .with_assignments(None)
        };
        let request = CreatePartitionsRequest::default()
            .with_topics(names.iter().map(topic).collect())
            .with_timeout_ms(CONTROLLER_MS);
        self.change("add partitions to", INVALID_PARTITIONS, async |address| {
            let response = call(address, CREATE_PARTITIONS, &request).await?;
            let answers = response.results.iter();
            Ok(answers
                .map(|it| Answer::new(&it.name, it.error_code, it.error_message.as_ref()))
                .collect())
        })
        .await?;
        self.wait_for_leaders(names, partitions).await
    }

    /// Deletes the records of a partition before an offset, as retention does.
    ///
    /// # Errors
    /// When Kafka refuses, for instance because the offset is behind the end of the log.
    pub async fn delete_records(
        &self,
        name: &str,
        partition: i32,
        before: i64,
    ) -> anyhow::Result<()> {
        let partition =
            DeleteRecordsPartition::default().with_partition_index(partition).with_offset(before);
        let topic = DeleteRecordsTopic::default()
            .with_name(topic_name(name))
            .with_partitions(vec![partition]);
        let request =
            DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(CONTROLLER_MS);
        self.change("delete records of", 0, async |address| {
            let response = call(address, DELETE_RECORDS, &request).await?;
            let topics = response.topics.iter();
            let answers = topics.flat_map(|topic| {
                topic.partitions.iter().map(|it| Answer::new(&topic.name, it.error_code, None))
            });
            Ok(answers.collect())
        })
        .await
    }

    /// Repeats a request to change topics while it gets no response, or the controllers are not
    /// ready. `done` is the error of a change that an earlier try has made already.
    async fn change(
        &self,
        what: &str,
        done: i16,
        request: impl AsyncFn(&str) -> anyhow::Result<Vec<Answer>>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + CHANGE;
        let mut is_repeated = false;
        loop {
            let address = self.answering().into_iter().next().context("no broker runs")?;
            let error = match request(&address).await {
                Err(error) => error,
                Ok(answers) => {
                    ensure!(!answers.is_empty(), "no answer");
                    let is_done = |it: &&Answer| it.code == 0 || (is_repeated && it.code == done);
                    match answers.iter().find(|it| !is_done(it)) {
                        None => return Ok(()),
                        Some(Answer { topic, code, message }) => {
                            let error =
                                anyhow::anyhow!("cannot {what} {topic}: error {code}, {message}");
                            if !is_transient(*code) {
                                return Err(error);
                            }
                            error
                        }
                    }
                }
            };
            if Instant::now() >= deadline {
                bail!(error.context(format!("no topic changed in {CHANGE:?}")));
            }
            is_repeated = true;
            sleep(RETRY).await;
        }
    }

    async fn wait_for_leaders(&self, names: &[&str], partitions: i32) -> anyhow::Result<()> {
        wait_until(&format!("the leaders of {names:?}"), CHANGE, async || {
            // Brokers learn of a topic one after the other.
            for address in self.answering() {
                let replicas = metadata::replicas(&address, None).await?;
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
}

/// Brokers that have just joined are not counted for replicas at once.
fn is_transient(code: i16) -> bool {
    matches!(code, REQUEST_TIMED_OUT | NOT_CONTROLLER | INVALID_REPLICATION_FACTOR)
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
