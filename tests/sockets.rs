//! Conversations over WebSocket with clients that others wrote: `websockets` and `websocket-client` of
//! Python, `ws` of Node.js, and Chromium's `WebSocket`; at a bridge, and through Envoy.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use harness::bridge::{Bridge, Settings};
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use harness::process::wait_until;
use harness::reader::read_all;
use kafka_upstream_tests::clients::Client;
use kafka_upstream_tests::feeds_envoy::{self, PAGE};
use kafka_upstream_tests::followers::Writer;
use kafka_upstream_tests::on_both_versions;
use kafka_upstream_tests::produce::client;
use tokio::task::spawn_blocking;
use xtask::{paths, tools};

const PATH: &str = "/v1/feeds/orders/socket?acks=true&";
const SOON: Duration = Duration::from_secs(30);

/// A program of the tests that talks at a port.
fn start(
    name: &'static str,
    mut command: Command,
    port: u16,
    dir: &Path,
) -> anyhow::Result<Client> {
    command.arg(format!("ws://127.0.0.1:{port}{PATH}")).arg(name);
    Client::start(name, command, dir)
}

async fn start_all(direct: u16, gateway: u16, dir: &Path) -> anyhow::Result<Vec<Client>> {
    let tests = paths::workspace().join("tests");
    let python = |file: &str, packages| {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", packages).arg(tests.join("python").join(file));
        command
    };
    let websockets = spawn_blocking(tools::websockets).await??;
    let websocket_client = spawn_blocking(tools::pubsub_client).await??;
    let mut node = Command::new("node");
    node.arg(tests.join("javascript/socket.js")).arg(spawn_blocking(tools::ws).await??);
    let page = format!("http://127.0.0.1:{gateway}{PAGE}");
    Ok(vec![
        start("websockets", python("sockets.py", &websockets), direct, dir)?,
        start("websockets-envoy", python("sockets.py", &websockets), gateway, dir)?,
        start("websocket-client", python("socket_client.py", &websocket_client), direct, dir)?,
        start("ws-envoy", node, gateway, dir)?,
        Client::chromium("chromium-envoy", &page, &[], dir).await?,
    ])
}

/// A page that talks to the server that it comes from.
fn page() -> anyhow::Result<String> {
    let script = fs::read_to_string(paths::workspace().join("tests/javascript/socket.js"))?;
    let call = format!("talk(WebSocket, `ws://${{location.host}}{PATH}`, 'chromium-envoy');");
    Ok(format!("<script>\n{script}\n{call}\n</script>\n"))
}

async fn each_record_once(version: KafkaVersion) -> anyhow::Result<()> {
    let kafka = Kafka::pooled(version).await?;
    for (topic, partitions) in [("orders", 3), ("said", 3), ("dead", 1)] {
        kafka.create_topic(topic, partitions).await?;
    }
    let port = ports::free()?;
    let feed = "[feeds.orders]\ntopics = ['orders']\nentrypoints = ['websocket']\n\
                max_unacked = 20\ndlq_topic = 'dead'\n\
                produce = { enabled = true, topics = ['said'] }";
    let feeds = format!("[feeds]\nlisten = ['127.0.0.1:{port}']");
    let mut bridge = Bridge::start(Settings::to(kafka.bootstrap()).line(&feeds).line(feed)).await?;
    let envoy = feeds_envoy::start(&[port], Some(&page()?)).await?;
    let dir = tempfile::tempdir()?;
    let record = (Duration::from_millis(20), 0);
    let writer = Writer::start(&client(&kafka.bootstrap(), &[])?, "orders", 0..3, record);
    let clients = start_all(port, envoy.port("feeds")?, dir.path()).await?;
    for client in &clients {
        client.until(60).await?;
    }
    for is_graceful in [false, true] {
        if !is_graceful {
            bridge.kill9()?;
        }
        bridge.restart().await?;
        for client in &clients {
            let before: u64 = client.ledger()?.next.iter().sum();
            client.until(before + 60).await?;
        }
    }
    let written = writer.finish().await?;
    for client in &clients {
        client.came_back_and_read(&written).await?;
    }
    all_that_was_told_is_written(&kafka, &clients).await?;
    let dead = read_all(&kafka.bootstrap(), "dead").await?;
    for record in &dead {
        let reason = record.header("kafka-upstream-dlq-reason");
        ensure!(reason.as_deref() == Some("a five"), "{record:?}");
        let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default());
        ensure!(value.starts_with("1 ") && value.trim().ends_with('5'), "{value}");
    }
    ensure!(!dead.is_empty(), "nothing was refused");
    Ok(())
}

/// Each record of which a client was told that it is written is there.
async fn all_that_was_told_is_written(kafka: &Kafka, clients: &[Client]) -> anyhow::Result<()> {
    wait_until("outcomes", SOON, async || {
        let said = read_all(&kafka.bootstrap(), "said").await?;
        let said = said.into_iter().filter_map(|record| record.value);
        let said: BTreeSet<_> = said.map(|it| String::from_utf8_lossy(&it).into_owned()).collect();
        for client in clients {
            let told = client.told("produced ")?;
            let written = told.iter().filter(|it| it[0] == "written").map(|it| &it[1]);
            ensure!(written.clone().count() >= 10, "{}: {told:?}", client.name);
            for number in written {
                let record = format!("{} {number}", client.name);
                ensure!(said.contains(&record), "{record} is not there");
            }
        }
        Ok(())
    })
    .await
}

on_both_versions! {
    clients_talk_and_come_back_by_themselves: super::each_record_once;
}
