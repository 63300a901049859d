//! The Kafka parts on real brokers of both versions.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::kafka::{Kafka, KafkaVersion};
use harness::process::wait_until;
use harness::reader::{Tail, read_all};
use kafka_client::{Client, Outcome, Reason, Record};
use kafka_upstream_tests::produce::client;
use tokio::time::Instant;

fn producer(kafka: &Kafka) -> anyhow::Result<Client> {
    client(&kafka.bootstrap(), &[("acks", "all")])
}

async fn send(client: &Client, topic: &str, from: u32, count: u32) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let producer = client.producer();
    let topic = producer.topic(topic, deadline).await?;
    for number in from..from + count {
        let (key, value) = (format!("k{number}"), format!("{{\"n\":{number}}}"));
        let record = Record {
            partition: None,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: &[(b"id", Some(b"7")), (b"none", None)],
            timestamp_ms: 0,
        };
        let ticket = producer.put(&topic, record, deadline).await?;
        let outcome = ticket.outcome().await;
        anyhow::ensure!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn records_survive_a_stopped_and_a_killed_broker() {
    for version in [KafkaVersion::V4_3, KafkaVersion::V3_9] {
        let mut kafka = Kafka::start(version, 1).await.unwrap();
        kafka.create_topic("t", 3).await.unwrap();
        assert!(kafka.create_topic("t", 3).await.is_err(), "it exists");
        assert!(read_all(&kafka.bootstrap(), "unknown").await.is_err());
        let producer = producer(&kafka).unwrap();
        send(&producer, "t", 0, 10).await.unwrap();
        let mut tail = Tail::open(&kafka.bootstrap(), "t").await.unwrap();
        assert_eq!(tail.read().await.unwrap().len(), 10);
        kafka.stop_broker(1).await.unwrap();
        kafka.start_broker(1).await.unwrap();
        send(&producer, "t", 10, 10).await.unwrap();
        assert_eq!(tail.read().await.unwrap().len(), 10, "only what is new");
        kafka.kill_broker(1).unwrap();
        kafka.start_broker(1).await.unwrap();
        let records = read_all(&kafka.bootstrap(), "t").await.unwrap();
        assert_eq!(records.len(), 20);
        let first = records.iter().find(|record| record.key.as_deref() == Some(b"k0")).unwrap();
        assert_eq!(first.json().unwrap(), serde_json::json!({"n": 0}));
        assert_eq!(first.headers[0], ("id".to_owned(), Some(b"7".to_vec())));
        assert_eq!(first.headers[1], ("none".to_owned(), None));
    }
}

/// The broker's clock seems ahead of a record from an hour ago.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_timestamp_that_kafka_refuses_names_the_clock_and_fails_no_neighbour() {
    for version in [KafkaVersion::V4_3, KafkaVersion::V3_9] {
        let kafka = Kafka::pooled(version).await.unwrap();
        let recent = [("message.timestamp.before.max.ms", "60000")];
        kafka.create_topic_with("clocks", 1, 1, &recent).await.unwrap();
        let client = client(&kafka.bootstrap(), &[("acks", "all"), ("linger.ms", "200")]).unwrap();
        let (producer, deadline) = (client.producer(), Instant::now() + Duration::from_secs(30));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let now = i64::try_from(now).unwrap();
        let at = |timestamp_ms| Record {
            partition: None,
            key: None,
            value: Some(b"v"),
            headers: &[],
            timestamp_ms,
        };
        let (early, right) = tokio::join!(
            producer.send("clocks", at(now - 3_600_000), deadline),
            producer.send("clocks", at(now), deadline)
        );
        assert!(matches!(right, Outcome::Written { .. }), "{right:?}");
        let Outcome::NotWritten(reason @ Reason::InvalidTimestamp(_)) = early else {
            panic!("{early:?}")
        };
        let told = reason.to_string();
        assert!(told.starts_with("this host's clock or the broker's is wrong"), "{told}");
        assert!(told.contains("out of range"), "the broker's own words: {told}");
        assert!(!reason.is_permanent());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_partition_moves_when_its_leader_is_killed() {
    let mut kafka = Kafka::start(KafkaVersion::V4_3, 3).await.unwrap();
    kafka.create_topic_with("t", 2, 3, &[("min.insync.replicas", "2")]).await.unwrap();
    let producer = producer(&kafka).unwrap();
    send(&producer, "t", 0, 10).await.unwrap();
    let before = kafka.leader_of("t", 0).await.unwrap();
    kafka.kill_broker(before).unwrap();
    let shared = &kafka;
    wait_until("another leader", Duration::from_secs(30), || async move {
        let now = shared.leader_of("t", 0).await?;
        anyhow::ensure!(now != before, "still {now}");
        Ok(())
    })
    .await
    .unwrap();
    send(&producer, "t", 10, 10).await.unwrap();
    assert_eq!(read_all(&kafka.bootstrap(), "t").await.unwrap().len(), 20);
    kafka.start_broker(before).await.unwrap();
    kafka.freeze_broker(before).unwrap();
    kafka.thaw_broker(before).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pooled_broker_has_no_topics_and_runs_whatever_another_test_did() {
    for harm in ["none", "frozen", "killed unseen"] {
        let mut kafka = Kafka::pooled(KafkaVersion::V4_3).await.unwrap();
        kafka.create_topic("t", 2).await.unwrap();
        let producer = producer(&kafka).unwrap();
        send(&producer, "t", 0, 1).await.unwrap();
        assert_eq!(read_all(&kafka.bootstrap(), "t").await.unwrap().len(), 1, "{harm}");
        match harm {
            "frozen" => kafka.freeze_broker(1).unwrap(),
            "killed unseen" => drop(kafka.process(1).unwrap().kill9().unwrap()),
            _ => {}
        }
    }
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await.unwrap();
    assert!(read_all(&kafka.bootstrap(), "t").await.is_err(), "it has the topic of before");
}
