//! A listener is replaced while its filter holds records: none of them is lost.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kafka_upstream_tests::{bodies, configuration, text};
use serde_json::{Value, json};
use xtask::bridge::{Bridge, Settings};
use xtask::build;
use xtask::envoy::{Envoy, EnvoyConfig, Listener};
use xtask::kafka::{Kafka, KafkaVersion};
use xtask::ports;
use xtask::process::wait_until;
use xtask::reader::read_all;

/// Writes the file that Envoy watches for its listeners; the rename is what it sees.
fn publish(directory: &Path, version: &str, listener: &Value) -> anyhow::Result<()> {
    let mut resource = listener.as_object().context("no listener")?.clone();
    let kind = "type.googleapis.com/envoy.config.listener.v3.Listener";
    resource.insert("@type".to_owned(), json!(kind));
    let document = json!({ "version_info": version, "resources": [resource] });
    std::fs::write(directory.join("new.json"), document.to_string())?;
    std::fs::rename(directory.join("new.json"), directory.join("listeners.json"))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_listener_sends_what_it_holds_before_it_ends() -> anyhow::Result<()> {
    let kafka = Kafka::start(KafkaVersion::V4_1, 1).await?;
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
    let directory = tempfile::tempdir()?;
    publish(directory.path(), "1", &first["static_resources"]["listeners"][0])?;
    let mut dynamic = first.clone();
    dynamic["static_resources"]["listeners"] = json!([]);
    dynamic["node"] = json!({ "id": "test", "cluster": "test" });
    dynamic["dynamic_resources"] = json!({ "lds_config": {
        "path_config_source": { "path": directory.path().join("listeners.json") },
        "resource_api_version": "V3",
    } });
    let admin = first["admin"]["address"]["socket_address"]["port_value"].as_u64();
    let admin = u16::try_from(admin.context("no admin port")?)?;
    let ports = vec![("orders".to_owned(), port)];
    let arguments = ["--concurrency", "1", "--drain-time-s", "1", "--drain-strategy", "immediate"];
    let envoy =
        Envoy::start_file(&dynamic.to_string(), admin, ports, &arguments.map(str::to_owned))
            .await?;

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
    publish(directory.path(), "2", &second["static_resources"]["listeners"][0])?;
    stat("listener_manager.total_filter_chains_draining", 1).await?;
    stat("listener_manager.total_filter_chains_draining", 0).await?;
    bridge.restart().await?;
    stat("wasmcustom.kafka_upstream_records_written", 50).await?;
    stat("wasmcustom.kafka_upstream_queue_records", 0).await?;
    let written = bodies(&read_all(&kafka.bootstrap(), "orders").await?)?;
    assert_eq!(written.len(), 50);
    Ok(())
}
