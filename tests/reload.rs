//! A listener is replaced while its filter holds records: none of them is lost.

use std::time::Duration;

use anyhow::ensure;
use harness::bridge::{Bridge, Settings};
use harness::envoy::{EnvoyConfig, Listener};
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use harness::process::wait_until;
use harness::reader::read_all;
use kafka_upstream_tests::listeners::Watched;
use kafka_upstream_tests::{bodies, configuration, text};
use serde_json::json;
use xtask::build;

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_listener_sends_what_it_holds_before_it_ends() -> anyhow::Result<()> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    kafka.create_topic("orders", 1).await?;
    let mut bridge = Bridge::start(Settings::to(kafka.bootstrap())).await?;
    let port = ports::free()?;
    let filter = |flush: u64| {
        let fields = json!({ "producer_async": true, "producer_async_flush_timeout": flush });
        let listener = Listener::filter("orders", configuration("orders", &fields));
        listener.on_port(port)
    };
    let config =
        |flush| EnvoyConfig::new(build::filter()?).bridge(&bridge).listener(filter(flush)).json();
    let (first, second) = (config(1000)?, config(999)?);
    let arguments = ["--concurrency", "1", "--drain-time-s", "1", "--drain-strategy", "immediate"];
    let (watched, envoy) = Watched::start(&first, ("orders", port), &arguments).await?;

    bridge.kill9()?;
    for number in 0..50 {
        let reply = text(&number.to_string()).send(port).await?;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let stat = async |name: &str, value: u64| {
        wait_until("a statistic", Duration::from_secs(30), async || {
            let now = envoy.stat(name).await?;
            ensure!(now == value, "{name} is {now}, not yet {value}");
            Ok(())
        })
        .await
    };
    stat("wasmcustom.kafka_upstream_queue_records", 50).await?;
    watched.publish(1, &second)?;
    stat("listener_manager.total_filter_chains_draining", 1).await?;
    stat("listener_manager.total_filter_chains_draining", 0).await?;
    bridge.restart().await?;
    stat("wasmcustom.kafka_upstream_records_written", 50).await?;
    stat("wasmcustom.kafka_upstream_queue_records", 0).await?;
    let written = bodies(&read_all(&kafka.bootstrap(), "orders").await?)?;
    assert_eq!(written.len(), 50);
    Ok(())
}
