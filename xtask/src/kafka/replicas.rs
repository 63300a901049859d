//! Who leads a partition, who follows, and from which offset on: asked of brokers that answer.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::Kafka;
use super::admin::{REPLY, config};
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
        let found = ask(&self.answering().join(","), Some(topic)).await?;
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
                let replicas = ask(&address, None).await?;
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

/// The partitions of a topic, or of all; of a topic that is unknown there are none.
pub(super) async fn ask(bootstrap: &str, topic: Option<&str>) -> anyhow::Result<Vec<Replicas>> {
    let consumer: BaseConsumer = config(bootstrap).create()?;
    let topic = topic.map(str::to_owned);
    tokio::task::spawn_blocking(move || {
        let metadata = consumer.fetch_metadata(topic.as_deref(), REPLY)?;
        let replicas = metadata.topics().iter().flat_map(|topic| {
            topic.partitions().iter().map(|partition| Replicas {
                topic: topic.name().to_owned(),
                partition: partition.id(),
                leader: usize::try_from(partition.leader()).ok(),
                in_sync: partition
                    .isr()
                    .iter()
                    .filter_map(|id| usize::try_from(*id).ok())
                    .collect(),
            })
        });
        Ok(replicas.collect())
    })
    .await?
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
