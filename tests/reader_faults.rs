//! Open streams and polls while leaders move, partitions are added, and topics are created again.

use std::time::Duration;

use anyhow::ensure;
use harness::bridge::{Bridge, Settings};
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use kafka_upstream_tests::cluster::{BrokerFault, REPLICATED, strike};
use kafka_upstream_tests::followers::{Ledger, Readers, Writer};
use kafka_upstream_tests::on_both_versions;
use kafka_upstream_tests::produce::client;

/// Streams, and as many who poll.
const READERS: usize = 20;
const RECORD: (Duration, usize) = (Duration::from_millis(30), 0);

async fn start(kafka: &Kafka) -> anyhow::Result<(Bridge, Readers)> {
    let port = ports::free()?;
    let feed = "[feeds.orders]\ntopics = ['orders']\nsse.heartbeat_ms = 2000";
    let feeds = format!("[feeds]\nlisten = ['127.0.0.1:{port}']\n{feed}");
    let bridge = Bridge::start(Settings::to(kafka.bootstrap()).line(&feeds)).await?;
    Ok((bridge, Readers::start(port, "orders", READERS)))
}

/// Brokers that do not answer are no end of a stream, and at most a 503 to who polls.
fn only_unavailable(met: &Ledger) -> anyhow::Result<()> {
    let is_unavailable = |refusal: &String| refusal.ends_with("kafka_unavailable");
    ensure!(met.refusals.keys().all(is_unavailable) && met.breaks == 0, "{met:?}");
    Ok(())
}

async fn leaders_and_partitions(version: KafkaVersion) -> anyhow::Result<()> {
    let mut kafka = Kafka::start(version, 3).await?;
    kafka.create_topic_with("orders", 3, 3, &REPLICATED).await?;
    let client = client(&kafka.bootstrap(), &[("metadata.max.age.ms", "2000")])?;
    let writer = Writer::start(&client, "orders", 0..3, RECORD);
    let (_bridge, readers) = start(&kafka).await?;
    readers.until_seen(100).await?;
    for (partition, fault) in (0..).zip([BrokerFault::Bounce, BrokerFault::Kill]) {
        strike(&mut kafka, fault, ("orders", partition)).await?;
        readers.until_seen(100).await?;
    }
    kafka.add_partitions(&["orders"], 5).await?;
    let added = Writer::start(&client, "orders", 3..5, RECORD);
    strike(&mut kafka, BrokerFault::Freeze, ("orders", 2)).await?;
    readers.until_seen(100).await?;
    let mut written = writer.finish().await?;
    written.extend(added.finish().await?);
    let met = readers.finish(written).await?;
    only_unavailable(&met)?;
    ensure!(met.gaps.is_empty(), "{met:?}");
    Ok(())
}

async fn recreated(version: KafkaVersion) -> anyhow::Result<()> {
    let kafka = Kafka::pooled(version).await?;
    kafka.create_topic("orders", 3).await?;
    let client = client(&kafka.bootstrap(), &[])?;
    let writer = Writer::start(&client, "orders", 0..3, RECORD);
    let (_bridge, readers) = start(&kafka).await?;
    readers.until_seen(100).await?;
    let before = writer.finish().await?;
    readers.until_all(before.iter().sum()).await?;
    kafka.delete_topic("orders").await?;
    kafka.create_topic("orders", 3).await?;
    let writer = Writer::start(&client, "orders", 0..3, RECORD);
    readers.until_seen(100).await?;
    let met = readers.finish(writer.finish().await?).await?;
    let told = [("recreated".to_owned(), 2 * READERS * 3)];
    ensure!(met.gaps == told.into() && met.refusals.is_empty(), "{met:?}");
    Ok(())
}

on_both_versions! {
    each_record_is_read_once_while_leaders_move_and_partitions_are_added:
        super::leaders_and_partitions;
    a_topic_that_is_created_again_is_a_gap_and_read_from_its_start: super::recreated;
}
