//! A feed of the topic `orders` on a cluster in memory, for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use kafka_client::fake_broker::{FakeCluster, FakeSettings};
use kafka_client::{
    Client, ClusterConfig, HttpsTrust, IsolationLevel, Outcome, Producer, ProducerConfig, Record,
};
use kafka_upstream_core::registry::Confluent;

use super::dead_letters::DeadLetters;
use super::feed_metrics::FeedFamilies;
use super::feeds::{Feed, Reset};
use super::follow::Follower;
use super::hub::{Hub, Resources};
use super::reader::FeedReader;
use super::selection::Deserializer;
use super::socket::Writer;
use super::start::{Given, Start};
use crate::pipeline::Pipeline;
use crate::registry::Registry;
use crate::registry::connection::Connection;

pub(crate) struct Fixture {
    pub(crate) cluster: FakeCluster,
    pub(crate) resources: Arc<Resources>,
    client: Client,
    producer: Producer,
    pub(crate) hub: Arc<Hub>,
    /// Of feeds.
    count: AtomicUsize,
}

pub(crate) const WITHIN: Duration = Duration::from_secs(10);

impl Fixture {
    /// `orders` has a partition for each of these leaders, of brokers 1 and 2.
    pub(crate) fn new(leaders: &[i32], memory: usize) -> Self {
        let cluster = FakeCluster::new(FakeSettings { brokers: 2, ..FakeSettings::default() });
        cluster.create_topic("orders", leaders);
        Self::on(cluster, memory)
    }

    /// Another bridge on the same cluster.
    pub(crate) fn beside(&self) -> Self {
        Self::on(self.cluster.clone(), 1 << 20)
    }

    fn on(cluster: FakeCluster, memory: usize) -> Self {
        let client = cluster.client(ClusterConfig::new(&cluster.bootstrap()).unwrap().into());
        let resources = Resources::new(memory);
        let hub = Hub::new(client.clone(), IsolationLevel::ReadCommitted, &resources);
        Self {
            producer: client.producer(),
            cluster,
            resources,
            client,
            hub,
            count: AtomicUsize::new(0),
        }
    }

    pub(crate) fn reader(&self, change: impl FnOnce(&mut Feed)) -> Arc<FeedReader> {
        let mut feed = Feed { reset: Reset::Earliest, ..Feed::of_topics(&["orders"]) };
        change(&mut feed);
        let client = self.client.clone();
        // Those that give the same records are one feed.
        let number = match feed.takes_all() {
            true => 0,
            false => self.count.fetch_add(1, Relaxed) + 1,
        };
        let topic = feed.selection.dlq_topic.clone();
        let metrics = FeedFamilies::default().of("test");
        let dead_letters =
            topic.map(|topic| DeadLetters::new("test", &topic, client, Arc::clone(&metrics)));
        let registry = (feed.deserializer == Deserializer::SchemaRegistry).then(away);
        let reader = FeedReader::new(feed, number, Arc::clone(&self.hub), dead_letters, metrics);
        Arc::new(reader.decoding(registry))
    }

    /// What writes for clients.
    pub(crate) fn writer(&self) -> Writer {
        let (client, config) = (self.client.clone(), ProducerConfig::default());
        let pipeline = Pipeline::new("default", client, &config, None);
        Writer { pipeline: Arc::new(pipeline), metrics: Arc::default() }
    }

    pub(crate) async fn follower(&self, start: Start) -> Follower {
        let reader = self.reader(|_| {});
        Follower::open(reader, &Given::From(start), None, WITHIN).await.unwrap()
    }

    pub(crate) async fn write(&self, partition: i32, value: &[u8]) {
        self.write_to("orders", partition, value).await;
    }

    pub(crate) async fn write_to(&self, topic: &str, partition: i32, value: &[u8]) {
        // Before any reader came.
        let (partition, timestamp_ms) = (Some(partition), 1000);
        self.send_to(topic, Record { partition, timestamp_ms, ..Record::new(value) }).await;
    }

    pub(crate) async fn send(&self, record: Record<'_>) {
        self.send_to("orders", record).await;
    }

    async fn send_to(&self, topic: &str, record: Record<'_>) {
        let outcome = self.producer.send(topic, record, WITHIN).await;
        assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
    }
}

/// A registry that does not answer.
fn away() -> Arc<Registry> {
    let url = Some("http://127.0.0.1:1".to_owned());
    let connection =
        Connection::new(&Confluent { url, ..Confluent::default() }, HttpsTrust::Anyone);
    Arc::new(Registry::new("away".to_owned(), &connection))
}

impl Follower {
    /// Partition, offset and length of the next records, within a time.
    pub(crate) async fn next_records(&mut self, within: Duration) -> Vec<(i32, i64, usize)> {
        let until = tokio::time::Instant::now() + within;
        let portions = self.more(until, Duration::ZERO).await.unwrap();
        let mut records = Vec::new();
        let taken = self.take(portions, |taken| {
            let record = &taken.segment.records[taken.index].record;
            let length = record.value.as_ref().map_or(0, bytes::Bytes::len);
            records.push((taken.partition, record.offset, length));
            false
        });
        taken.unwrap();
        records
    }
}
