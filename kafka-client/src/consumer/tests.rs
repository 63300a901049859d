//! Tests of readers against the fake cluster.

mod batches;
mod bounds;
mod faults;
mod positions;
mod truncation;

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::config::{Acks, ClusterConfig, ConsumerConfig, IsolationLevel, ProducerConfig};
use crate::fake_broker::{FakeCluster, FakeSettings};
use crate::record_batch::Record;
use crate::{Client, Outcome};
use batches::TestBatch;

const WAIT: Duration = Duration::from_secs(10);
const MIB: usize = 1024 * 1024;

fn cluster(brokers: i32) -> FakeCluster {
    let cluster = FakeCluster::new(FakeSettings { brokers, ..FakeSettings::default() });
    cluster.create_topic("orders", &[1]);
    cluster
}

fn client(cluster: &FakeCluster) -> Client {
    cluster.client(ClusterConfig::new(&cluster.bootstrap()).unwrap().into())
}

fn consumer(cluster: &FakeCluster) -> Consumer {
    client(cluster).consumer(&ConsumerConfig::default())
}

fn committed(cluster: &FakeCluster) -> Consumer {
    let config = ConsumerConfig::default().isolation(IsolationLevel::ReadCommitted);
    client(cluster).consumer(&config)
}

/// A topic `orders` with these batches in partition 0.
fn with_batches(batches: &[TestBatch]) -> FakeCluster {
    let cluster = cluster(1);
    batches.iter().for_each(|batch| cluster.put("orders", 0, batch.bytes()));
    cluster
}

impl Consumer {
    async fn fetch_one(&self, offset: i64, wait: Duration) -> Result<Fetched, ReadError> {
        self.fetch(&[("orders", 0, offset)], MIB, wait).await.remove(0)
    }

    async fn offset_of(&self, at: At) -> Result<i64, Reason> {
        self.offsets(&[("orders", 0)], at, WAIT).await.remove(0)
    }
}

impl Fetched {
    fn offsets(&self) -> Vec<i64> {
        self.records.iter().map(|record| record.offset).collect()
    }
}

/// Offsets of the records and the next offset, of `orders` from an offset on.
async fn read(consumer: &Consumer, offset: i64) -> (Vec<i64>, i64) {
    let fetched = consumer.fetch_one(offset, Duration::ZERO).await.unwrap();
    (fetched.offsets(), fetched.next_offset)
}

#[tokio::test(start_paused = true)]
async fn what_a_producer_wrote_is_read_back_in_order_and_the_rest_when_it_comes() {
    let cluster = cluster(2);
    cluster.create_topic("wide", &[1, 2, 1]);
    let client = client(&cluster);
    let producer = client.producer_with(&ProducerConfig::default().acks(Acks::Leader));
    let headers = [(&b"a"[..], Some(&b"b"[..])), (b"a", None)];
    let mut written = Vec::new();
    for number in 0..9u8 {
        let (value, partition) = ([number], Some(i32::from(number % 3)));
        let record = Record { partition, headers: &headers, ..Record::new(&value) };
        let outcome = producer.send("wide", record, WAIT).await;
        let Outcome::Written { partition, offset: Some(offset), .. } = outcome else { panic!() };
        written.push((partition, offset, number));
    }
    let consumer = client.consumer(&ConsumerConfig::default());
    let listed = consumer.partitions("wide", WAIT).await.unwrap();
    assert_eq!(listed.leaders, [Some(1), Some(2), Some(1)]);
    let all = [("wide", 0, 0), ("wide", 1, 0), ("wide", 2, 1)];
    let fetched = consumer.fetch(&all, MIB, Duration::ZERO).await;
    for ((_, partition, from), fetched) in all.iter().zip(fetched) {
        let fetched = fetched.unwrap();
        assert_eq!((fetched.next_offset, fetched.log_start, fetched.log_end), (3, Some(0), 3));
        assert_eq!(fetched.topic_id, listed.id);
        let expected = written.iter().filter(|(index, at, _)| index == partition && at >= from);
        let expected: Vec<_> = expected.map(|(_, offset, number)| (*offset, *number)).collect();
        let got = fetched.records.iter().map(|it| (it.offset, it.value.as_ref().unwrap()[0]));
        assert_eq!(got.collect::<Vec<_>>(), expected);
        assert_eq!(fetched.records[0].headers.len(), 2);
    }
    let coming = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let record = Record { partition: Some(1), ..Record::new(b"late") };
        producer.send("wide", record, WAIT).await;
        Instant::now()
    };
    let ends = [("wide", 0, 3), ("wide", 1, 3), ("wide", 2, 3)];
    let (fetched, written_at) = tokio::join!(consumer.fetch(&ends, MIB, WAIT), coming);
    let counts: Vec<_> = fetched.iter().map(|it| it.as_ref().unwrap().records.len()).collect();
    assert_eq!(counts, [0, 1, 0]);
    let stats = client.stats();
    assert_eq!((stats.records_read, stats.fetch_bytes > 500), (9, true), "one was not asked for");
    assert_eq!(stats.fetch_requests, cluster.requests(crate::fake_broker::FETCH));
    assert!(written_at.elapsed() < Duration::from_millis(200), "{:?}", written_at.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_reader_needs_no_producer_id_and_its_long_poll_holds_up_no_write() {
    use crate::fake_broker::INIT_PRODUCER_ID;
    let cluster = cluster(1);
    let client = client(&cluster);
    let consumer = client.consumer(&ConsumerConfig::default());
    assert_eq!(cluster.connections(), 0, "nothing is asked before the first call");
    assert_eq!(read(&consumer, 0).await, (vec![], 0));
    assert_eq!(client.ready(WAIT).await, Ok(()));
    assert_eq!(cluster.requests(INIT_PRODUCER_ID), 0);

    let polling = ConsumerConfig::default().fetch_max_wait(Duration::from_secs(60));
    let polling = client.consumer(&polling);
    let idle = tokio::spawn(async move { polling.fetch_one(0, Duration::from_secs(60)).await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    let started = Instant::now();
    let producer = client.producer_with(&ProducerConfig::default());
    let outcome = producer.send("orders", Record::new(b"x"), WAIT).await;
    assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(idle.await.unwrap().unwrap().offsets(), [0]);
}

#[tokio::test(start_paused = true)]
async fn every_version_of_fetch_and_list_offsets_reads_the_same() {
    use crate::fake_broker::{FETCH, LIST_OFFSETS};
    for (fetch, list) in [(4, 2), (5, 3), (9, 4), (11, 5), (12, 6), (13, 7), (15, 7), (17, 9)] {
        let cluster = with_batches(&[TestBatch::of(&[0, 1, 2])]);
        cluster.upgrade(1, FETCH, 4, fetch);
        cluster.upgrade(1, LIST_OFFSETS, 1, list);
        let consumer = consumer(&cluster);
        let fetched = consumer.fetch_one(1, WAIT).await.unwrap();
        assert_eq!((fetched.offsets(), fetched.log_end), (vec![1, 2], 3), "version {fetch}");
        assert_eq!(fetched.log_start, (fetch >= 5).then_some(0));
        assert_eq!(consumer.offset_of(At::Latest).await, Ok(3));
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_without_an_id_is_read_by_its_name() {
    use crate::fake_broker::METADATA;
    let cluster = with_batches(&[TestBatch::of(&[0])]);
    cluster.upgrade(1, METADATA, 0, 9);
    let fetched = consumer(&cluster).fetch_one(0, WAIT).await.unwrap();
    assert_eq!((fetched.offsets(), fetched.topic_id), (vec![0], None));
}

#[tokio::test(start_paused = true)]
async fn a_reader_with_a_rack_follows_its_leader_to_a_replica_and_back() {
    let cluster = cluster(2);
    cluster.put("orders", 0, TestBatch::of(&[0, 1]).bytes());
    cluster.prefer("orders", 0, Some(2));
    let config = ConsumerConfig::default().rack("a").unwrap();
    let consumer = client(&cluster).consumer(&config);
    assert_eq!(read(&consumer, 0).await, (vec![0, 1], 2));
    assert_eq!(cluster.requests(crate::fake_broker::FETCH), 2);
    cluster.kill(2);
    let fetched = consumer.fetch_one(1, WAIT).await;
    assert!(matches!(fetched, Err(ReadError::Unavailable(_))), "{fetched:?}");
    cluster.prefer("orders", 0, None);
    assert_eq!(read(&consumer, 1).await, (vec![1], 2));
    assert_eq!(read(&self::consumer(&cluster), 0).await, (vec![0, 1], 2), "without a rack");
}

#[tokio::test(start_paused = true)]
async fn a_closed_client_reads_nothing() {
    let cluster = cluster(1);
    let client = client(&cluster);
    let consumer = client.consumer(&ConsumerConfig::default());
    let waiting = consumer.clone();
    let waiting = tokio::spawn(async move { waiting.fetch_one(0, WAIT * 10).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let started = Instant::now();
    client.close(WAIT).await;
    let closed = || Err(ReadError::Unavailable(Reason::Closed));
    assert_eq!(waiting.await.unwrap().map(|it| it.offsets()), Ok(vec![]), "nothing was there");
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(consumer.fetch_one(0, WAIT).await, closed());
    assert_eq!(consumer.offset_of(At::Latest).await, Err(Reason::Closed));
    assert_eq!(consumer.partitions("orders", WAIT).await, Err(Reason::Closed));
}

/// The value of each record, for batches that differ in nothing else.
fn values(fetched: &Fetched) -> Vec<Bytes> {
    fetched.records.iter().map(|record| record.value.clone().unwrap()).collect()
}
