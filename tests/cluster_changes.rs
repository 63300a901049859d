//! The bridge when what it learnt of its Kafka cluster is no longer true.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use harness::bridge::{Bridge, Settings};
use harness::http::Request;
use harness::kafka::{Kafka, KafkaVersion};
use harness::reader::read_all;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// An address that leads to whatever is sent here, as a name or a load balancer does.
async fn forwarder(to: &str) -> anyhow::Result<(String, watch::Sender<String>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?.to_string();
    let (sender, target) = watch::channel(to.to_owned());
    let target = Arc::new(target);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let to = target.borrow().clone();
            tokio::spawn(async move {
                let mut broker = TcpStream::connect(to).await?;
                copy_bidirectional(&mut stream, &mut broker).await
            });
        }
    });
    Ok((address, sender))
}

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
    let (address, target) = forwarder(&former.bootstrap()).await?;
    let bridge = Bridge::start(Settings::to(address)).await?;
    for value in ["a", "b"] {
        assert_eq!(post(&bridge, value).await?, 200);
    }
    former.kill_broker(1)?;
    target.send(next.bootstrap()).context("nobody forwards")?;
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
