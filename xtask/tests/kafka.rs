//! The Kafka parts on real brokers of both versions.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use xtask::kafka::{Kafka, KafkaVersion};
use xtask::process::wait_until;
use xtask::reader::{Tail, read_all};

fn producer(kafka: &Kafka) -> anyhow::Result<FutureProducer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap()).set("acks", "all");
    Ok(config.create()?)
}

async fn send(producer: &FutureProducer, topic: &str, from: u32, count: u32) -> anyhow::Result<()> {
    for number in from..from + count {
        let (key, value) = (format!("k{number}"), format!("{{\"n\":{number}}}"));
        let header = Header { key: "id", value: Some("7") };
        let none = Header { key: "none", value: None::<&[u8]> };
        let headers = OwnedHeaders::new().insert(header).insert(none);
        let record = FutureRecord::to(topic).key(&key).payload(&value).headers(headers);
        producer.send(record, Duration::from_secs(30)).await.map_err(|(error, _)| error)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn records_survive_a_stopped_and_a_killed_broker() {
    for version in [KafkaVersion::V4_1, KafkaVersion::V3_9] {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_partition_moves_when_its_leader_is_killed() {
    let mut kafka = Kafka::start(KafkaVersion::V4_1, 3).await.unwrap();
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
