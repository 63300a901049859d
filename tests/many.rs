//! Thousands of requests of one worker end at the same time: each gets its own answer, the VM lives,
//! and what its memory mode has promised is written.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use harness::bridge::{Bridge, Settings};
use harness::envoy::{Envoy, EnvoyConfig, Listener};
use harness::http::Response;
use harness::kafka::{Kafka, KafkaVersion};
use harness::process::wait_until;
use kafka_upstream_tests::relay::{Does, Relay};
use kafka_upstream_tests::{
    Gateway, acked, bodies, configuration, record_of, text, unfinished_http_2,
};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use xtask::build;

const STREAMS: usize = 2000;

/// Two filters in one VM of one worker: one in acked mode behind a relay, with batches as large as
/// all its requests together, and one in memory mode.
async fn start() -> anyhow::Result<(Gateway, Relay)> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    let bridge = Bridge::start(Settings::to(kafka.bootstrap())).await?;
    let relay = Relay::start(&bridge).await?;
    for topic in ["waiting", "later"] {
        kafka.create_topic(topic, 1).await?;
    }
    let waiting = json!({
        "bridge": "relay",
        "delivery_timeout": 6000,
        "producer_request_limits_messages_per_request": STREAMS,
    });
    let listener = |topic: &str, fields: &serde_json::Value| {
        let listener = Listener::filter(topic, configuration(topic, fields)).vm_id("shared");
        listener.stream_idle_timeout_s(30)
    };
    let config = EnvoyConfig::new(build::filter()?).concurrency(1).bridge(&bridge);
    let config = config.cluster("relay", relay.port());
    let config = config.listener(listener("waiting", &acked(&waiting)));
    let config = config.listener(listener("later", &json!({})));
    Ok((Gateway { envoy: Envoy::start(config).await?, bridge, kafka }, relay))
}

/// Sends many requests at a time; each body with its reply.
async fn send_all(
    gateway: &Gateway,
) -> anyhow::Result<JoinSet<anyhow::Result<(String, Response)>>> {
    let port = gateway.envoy.port("waiting")?;
    let mut asking = JoinSet::new();
    for number in 0..STREAMS {
        asking.spawn(async move {
            let body = format!("r {number}");
            let reply = text(&body).timeout(Duration::from_secs(60)).send(port).await?;
            Ok((body, reply))
        });
    }
    Ok(asking)
}

async fn wait_for_waiting(gateway: &Gateway) -> anyhow::Result<()> {
    wait_until("streams that wait", Duration::from_secs(30), async || {
        let waiting = gateway.gauge("streams_waiting").await?;
        ensure!(waiting == STREAMS as u64, "{waiting} wait");
        Ok(())
    })
    .await
}

/// Three hundred records that memory mode has promised are written, by the VM that promised it.
async fn queue_later(gateway: &Gateway) -> anyhow::Result<()> {
    for number in 0..300 {
        ensure!(gateway.send("later", text(&format!("l {number}"))).await?.status == 200);
    }
    Ok(())
}

async fn assert_alive(gateway: &Gateway) -> anyhow::Result<()> {
    gateway.wait_until_empty().await?;
    let written = bodies(&gateway.records("later").await?)?;
    for number in 0..300 {
        let body = format!("l {number}");
        ensure!(written.get(&body) == Some(&1), "{body} is there {:?} times", written.get(&body));
    }
    ensure!(gateway.send("waiting", text("after")).await?.status == 200);
    let log = gateway.envoy.log();
    ensure!(!log.contains("Maximum call stack"), "the VM ended:\n{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_streams_end_by_one_success() -> anyhow::Result<()> {
    let (gateway, relay) = start().await?;
    ensure!(gateway.send("waiting", text("warm")).await?.status == 200);
    queue_later(&gateway).await?;
    relay.always(&[Does::Holds(1)]);
    let asking = send_all(&gateway).await?;
    wait_for_waiting(&gateway).await?;
    relay.release(1);
    let replies = asking.join_all().await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let records = gateway.records("waiting").await?;
    for (body, reply) in &replies {
        ensure!(reply.status == 200, "{body}: {} {}", reply.status, reply.text());
        let message = record_of(&records, reply, "waiting")?.json()?;
        ensure!(message.get("body") == Some(&json!(body)), "{body} got another's answer");
    }
    assert_alive(&gateway).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_streams_end_by_a_frozen_bridge() -> anyhow::Result<()> {
    let (gateway, _relay) = start().await?;
    ensure!(gateway.send("waiting", text("warm")).await?.status == 200);
    queue_later(&gateway).await?;
    gateway.bridge.process().freeze();
    let asking = send_all(&gateway).await?;
    let replies = asking.join_all().await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    gateway.bridge.process().thaw();
    let mut statuses = BTreeMap::<u16, usize>::new();
    replies.iter().for_each(|(_, reply)| *statuses.entry(reply.status).or_default() += 1);
    ensure!(statuses.keys().all(|status| [503, 504].contains(status)), "{statuses:?}");
    ensure!(statuses.values().sum::<usize>() == STREAMS, "{statuses:?}");
    assert_alive(&gateway).await?;
    let written = bodies(&gateway.records("waiting").await?)?;
    for (body, reply) in &replies {
        let is_written = written.contains_key(body);
        ensure!(!is_written || reply.status == 504, "{body} is written: {}", reply.status);
    }
    Ok(())
}

/// One connection opens a thousand HTTP/2 requests, and sends no body of any.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_unfinished_http_2_requests_end_by_their_deadline() -> anyhow::Result<()> {
    let (gateway, _relay) = start().await?;
    ensure!(gateway.send("waiting", text("warm")).await?.status == 200);
    queue_later(&gateway).await?;
    let mut client = TcpStream::connect(("127.0.0.1", gateway.envoy.port("waiting")?)).await?;
    client.write_all(&unfinished_http_2(1000)).await?;
    wait_until("a thousand 408", Duration::from_secs(30), async || {
        let ended = gateway.gauge("requests.outcome.body_timeout").await?;
        ensure!(ended == 1000, "{ended}");
        Ok(())
    })
    .await?;
    assert_alive(&gateway).await
}
