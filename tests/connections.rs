//! Whose connections to the brokers are shared, and how long they may take and stay.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::kafka::{Kafka, KafkaVersion};
use harness::process::wait_until;
use kafka_upstream_tests::{Gateway, text};
use serde_json::{Value, json};
use tokio::net::TcpListener;

async fn metric(gateway: &Gateway, name: &str) -> anyhow::Result<f64> {
    gateway.bridge.metric(&format!("host_bridge_kafka_{name}"), r#"cluster="inline""#).await
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_shared_by_name_and_end_as_configured() -> anyhow::Result<()> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    let bootstrap = kafka.bootstrap();
    let (host, port) = bootstrap.split_once(':').context("HOST:PORT")?;
    let port: u16 = port.parse()?;
    // It takes connections, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let at = |host: &str, port: u16, more: Value| {
        let mut fields = json!({
            "producer_async": false, "bootstrap_servers": [{ "host": host, "port": port }],
        });
        if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
            fields.extend(more);
        }
        fields
    };
    let listeners = [
        ("one", at(host, port, json!({ "cluster_name": "a" }))),
        ("same", at(host, port, json!({ "cluster_name": "a" }))),
        ("other", at(host, port, json!({ "cluster_name": "b", "keepalive": 1000 }))),
        ("short", at(host, port, json!({ "keepalive": 1000, "keepalive_enabled": true }))),
        (
            "silent",
            at(
                "127.0.0.1",
                silent.local_addr()?.port(),
                json!({
                    "timeout": 300, "delivery_timeout": 2000,
                    "error_handling": { "return_error_message": true },
                }),
            ),
        ),
    ];
    let gateway = Gateway::start_with(kafka, 1, (1, &[]), &listeners).await?;
    let mut opened = Vec::new();
    for listener in ["one", "same", "other"] {
        let reply = gateway.send(listener, text("x")).await?;
        assert_eq!(reply.status, 200, "{listener}: {}", reply.text());
        opened.push(metric(&gateway, "connections_opened_total").await?);
    }
    assert!(opened[0] > 0.0 && opened[0] == opened[1] && opened[2] > opened[1], "{opened:?}");

    let open = metric(&gateway, "connections_open").await?;
    assert_eq!(gateway.send("short", text("x")).await?.status, 200);
    assert!(metric(&gateway, "connections_open").await? > open);
    wait_until("the idle connections are closed", Duration::from_secs(10), async || {
        let now = metric(&gateway, "connections_open").await?;
        ensure!(now == open, "{now} are open");
        Ok(())
    })
    .await?;

    let reply = gateway.send("silent", text("x")).await?;
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains("300 ms"), "{}", reply.text());
    Ok(())
}
