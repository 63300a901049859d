//! The bridge when what it learnt of its Kafka cluster is no longer true.

use std::time::Duration;

use harness::bridge::{Bridge, Settings};
use harness::http::Request;
use harness::kafka::{Kafka, KafkaVersion};
use harness::reader::read_all;
use kafka_upstream_tests::forwarder::Forwarder;
use tokio::time::{Instant, sleep};

async fn post(bridge: &Bridge, value: &'static str) -> anyhow::Result<u16> {
    let request = Request::post("/v1/clusters/default/topics/orders", value);
    Ok(request.send(bridge.port()).await?.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_at_other_addresses_is_found_and_written_to() -> anyhow::Result<()> {
    let mut former = Kafka::start(KafkaVersion::V4_3, 1).await?;
    let next = Kafka::pooled(KafkaVersion::V4_3).await?;
    former.create_topic("orders", 1).await?;
    next.create_topic("orders", 1).await?;
    let forwarder = Forwarder::to(&former.bootstrap()).await?;
    let bridge = Bridge::start(Settings::to(forwarder.address())).await?;
    for value in ["a", "b"] {
        assert_eq!(post(&bridge, value).await?, 200);
    }
    former.kill_broker(1)?;
    forwarder.lead_to(next.bootstrap())?;
    let gone = Instant::now();
    while post(&bridge, "c").await? != 200 {
        anyhow::ensure!(gone.elapsed() < Duration::from_secs(30), "not found again");
        sleep(Duration::from_millis(50)).await;
    }
    let took = gone.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(bridge.get("/readyz").await?.status, 200);
    let records = read_all(&next.bootstrap(), "orders").await?;
    let values: Vec<_> = records.iter().filter_map(|record| record.value.as_deref()).collect();
    assert_eq!(values, [b"c"]);
    let changes = bridge.metric("host_bridge_kafka_cluster_changes_total", "default").await?;
    assert!((changes - 1.0).abs() < f64::EPSILON, "{changes}");
    Ok(())
}
