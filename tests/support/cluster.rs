//! Faults of one broker after the other, each over only when every replica is back.

use anyhow::Context;
use harness::kafka::Kafka;

/// Configs of a topic that survives the loss of any one broker.
pub const REPLICATED: [(&str, &str); 1] = [("min.insync.replicas", "2")];

/// What can happen to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerFault {
    /// SIGKILL, and started again.
    Kill,
    /// SIGSTOP until others lead its partitions, then SIGCONT.
    Freeze,
    /// Stopped gracefully, and started again.
    Bounce,
}

/// Does it to the leader of a partition, and waits until the cluster of three is whole again.
///
/// # Errors
/// When the cluster does not follow in time.
pub async fn strike(
    kafka: &mut Kafka,
    fault: BrokerFault,
    (topic, partition): (&str, i32),
) -> anyhow::Result<()> {
    let victim = kafka.leader_of(topic, partition).await?;
    let struck = strike_broker(kafka, fault, victim).await;
    if struck.is_err() {
        kafka.check()?;
    }
    struck.with_context(|| format!("{fault:?} of broker {victim}"))
}

async fn strike_broker(kafka: &mut Kafka, fault: BrokerFault, victim: usize) -> anyhow::Result<()> {
    match fault {
        BrokerFault::Kill => kafka.kill_broker(victim)?,
        BrokerFault::Freeze => kafka.freeze_broker(victim)?,
        BrokerFault::Bounce => kafka.stop_broker(victim).await?,
    }
    without(kafka, victim).await?;
    match fault {
        BrokerFault::Freeze => kafka.thaw_broker(victim)?,
        BrokerFault::Kill | BrokerFault::Bounce => kafka.start_broker(victim).await?,
    }
    whole(kafka).await
}

/// Waits until each partition has three replicas in sync.
///
/// # Errors
/// When one does not come back in time.
pub async fn whole(kafka: &Kafka) -> anyhow::Result<()> {
    kafka.wait_for_replicas("all replicas", |found| found.in_sync.len() == 3).await
}

/// Waits until a broker neither leads nor follows anywhere.
///
/// # Errors
/// When the cluster does not notice in time.
pub async fn without(kafka: &Kafka, id: usize) -> anyhow::Result<()> {
    kafka
        .wait_for_replicas("new leaders", |found| {
            found.leader.is_some_and(|leader| leader != id) && !found.in_sync.contains(&id)
        })
        .await
}

/// Makes two tests of each test, one for each version of Kafka.
#[macro_export]
macro_rules! on_both_versions {
    ($($name:ident: $test:path;)+) => {
        $(mod $name {
            #[tokio::test(flavor = "multi_thread")]
            async fn on_kafka_3_9() -> anyhow::Result<()> {
                $test(harness::kafka::KafkaVersion::V3_9).await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn on_kafka_4_3() -> anyhow::Result<()> {
                $test(harness::kafka::KafkaVersion::V4_3).await
            }
        })+
    };
}
