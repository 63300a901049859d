//! Brokers, leaders, replicas and leader epochs, asked of brokers that answer.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse};
use tokio::task::JoinSet;

use super::Kafka;
use super::wire::{call, topic_name};
use crate::process::wait_until;

/// Longest wait until the controllers have noticed a broker that is gone or back.
const CHANGE: Duration = Duration::from_secs(60);

/// A partition as a broker knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replicas {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The broker that leads it, if one does.
    pub leader: Option<usize>,
    /// The brokers that have all of it.
    pub in_sync: Vec<usize>,
}

impl Kafka {
    /// The partitions of a topic.
    ///
    /// # Errors
    /// When there is no such topic, or no answer.
    pub async fn replicas_of(&self, topic: &str) -> anyhow::Result<Vec<Replicas>> {
        let found = replicas(&self.answering().join(","), Some(topic)).await?;
        ensure!(!found.is_empty(), "no topic {topic}");
        Ok(found)
    }

    /// The id of the broker that leads a partition.
    ///
    /// # Errors
    /// When there is no leader, or no answer.
    pub async fn leader_of(&self, topic: &str, partition: i32) -> anyhow::Result<usize> {
        let replicas = self.replicas_of(topic).await?;
        let found = replicas.iter().find(|replica| replica.partition == partition);
        let replica = found.with_context(|| format!("{topic} has no partition {partition}"))?;
        replica.leader.with_context(|| format!("{topic}/{partition} has no leader now"))
    }

    /// Waits until every broker that answers knows `holds` of every partition of every topic.
    ///
    /// # Errors
    /// After 60 seconds, with a partition of which it is not so.
    pub async fn wait_for_replicas(
        &self,
        what: &str,
        holds: impl Fn(&Replicas) -> bool,
    ) -> anyhow::Result<()> {
        wait_until(what, CHANGE, async || {
            for address in self.answering() {
                let replicas = replicas(&address, None).await?;
                let other = replicas.iter().find(|replica| !holds(replica));
                ensure!(other.is_none(), "broker {address} says {other:?}");
            }
            Ok(())
        })
        .await
    }

    /// Waits until no broker that answers knows a topic.
    ///
    /// # Errors
    /// After 60 seconds.
    pub async fn wait_until_unknown(&self, topic: &str) -> anyhow::Result<()> {
        self.wait_for_replicas(&format!("the end of {topic}"), |found| found.topic != topic).await
    }

    /// The leader epochs of a partition in the log of broker `id`, each with its first offset.
    ///
    /// # Errors
    /// When there is no such log.
    pub fn leader_epochs(
        &self,
        id: usize,
        topic: &str,
        partition: i32,
    ) -> anyhow::Result<Vec<(i32, i64)>> {
        let logs = self.broker(id)?.logs(topic)?;
        let (_, folder) = logs
            .iter()
            .find(|(found, _)| *found == partition)
            .with_context(|| format!("broker {id} has no {topic}/{partition}"))?;
        let text = fs::read_to_string(folder.join("leader-epoch-checkpoint"))?;
        // Two lines of its own come first: a version, and how many epochs there are.
        text.lines().skip(2).map(epoch).collect()
    }
}

fn epoch(line: &str) -> anyhow::Result<(i32, i64)> {
    let (epoch, start) = line.split_once(' ').with_context(|| format!("no epoch: {line}"))?;
    Ok((epoch.parse()?, start.parse()?))
}

/// The version of Metadata that Kafka 3.9, 4 and the embedded broker have.
const METADATA: i16 = 12;

/// Succeeds when the broker at `address` lists itself as number `id`.
pub(super) async fn is_in_cluster(address: &str, id: usize) -> anyhow::Result<()> {
    let metadata = ask(address, Some(Vec::new())).await?;
    let is_listed = metadata.brokers.iter().any(|it| usize::try_from(it.node_id.0) == Ok(id));
    ensure!(is_listed, "the cluster does not list broker {id} yet");
    Ok(())
}

/// The partitions of a topic, or of all; of a topic that is unknown there are none.
pub(crate) async fn replicas(
    bootstrap: &str,
    topic: Option<&str>,
) -> anyhow::Result<Vec<Replicas>> {
    let metadata = ask(bootstrap, topic.map(|topic| vec![asked(topic)])).await?;
    let known = |id: i32| usize::try_from(id).ok();
    let replicas = metadata.topics.iter().flat_map(|topic| {
        let name = topic.name.as_ref().map(|name| name.0.to_string()).unwrap_or_default();
        topic.partitions.iter().map(move |partition| Replicas {
            topic: name.clone(),
            partition: partition.partition_index,
            leader: known(partition.leader_id.0),
            in_sync: partition.isr_nodes.iter().filter_map(|id| known(id.0)).collect(),
        })
    });
    Ok(replicas.collect())
}

/// The address of the broker that leads a partition.
pub(crate) async fn leader(bootstrap: &str, topic: &str, partition: i32) -> anyhow::Result<String> {
    let metadata = ask(bootstrap, Some(vec![asked(topic)])).await?;
    let mut partitions = metadata.topics.iter().flat_map(|topic| &topic.partitions);
    let found = partitions.find(|found| found.partition_index == partition);
    let id = found.with_context(|| format!("no partition {topic}/{partition}"))?.leader_id;
    let broker = metadata.brokers.iter().find(|broker| broker.node_id == id);
    let broker = broker.with_context(|| format!("{topic}/{partition} has no leader"))?;
    Ok(format!("{}:{}", broker.host, broker.port))
}

fn asked(topic: &str) -> MetadataRequestTopic {
    MetadataRequestTopic::default().with_name(Some(topic_name(topic)))
}

/// Of all topics where `topics` is none, from whichever broker of `bootstrap` answers first: one that
/// is frozen takes connections and says nothing.
async fn ask(
    bootstrap: &str,
    topics: Option<Vec<MetadataRequestTopic>>,
) -> anyhow::Result<MetadataResponse> {
    let mut asked = JoinSet::new();
    for address in bootstrap.split(',').map(str::to_owned) {
        let request = MetadataRequest::default().with_topics(topics.clone());
        asked.spawn(async move { call(&address, METADATA, &request).await });
    }
    let mut failure = anyhow::anyhow!("no broker is named");
    while let Some(answer) = asked.join_next().await {
        match answer? {
            Ok(response) => return Ok(response),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_begins_at_an_offset() {
        assert_eq!(epoch("3 1500").unwrap(), (3, 1500));
        assert!(epoch("3").is_err());
    }
}
