//! Event streams read by clients that others wrote and that come back by themselves: `EventSource` of
//! Chromium, and LaunchDarkly's client in Python; at a bridge, and through Envoy.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::bridge::{Bridge, Settings};
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use kafka_upstream_tests::clients::Client;
use kafka_upstream_tests::feeds_envoy::{self, PAGE};
use kafka_upstream_tests::followers::Writer;
use kafka_upstream_tests::on_both_versions;
use kafka_upstream_tests::produce::client;
use tokio::task::spawn_blocking;
use xtask::{paths, tools};

const STREAM: &str = "/v1/feeds/orders/events?from=earliest";

async fn python(name: &'static str, port: u16, dir: &Path) -> anyhow::Result<Client> {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", spawn_blocking(tools::sse_client).await??);
    command.arg(paths::workspace().join("tests/python/events.py"));
    command.arg(format!("http://127.0.0.1:{port}{STREAM}"));
    Client::start(name, command, dir)
}

/// A page that logs what `EventSource` gets from a server, by default its own.
fn page(server: &str) -> String {
    format!(
        "<script>\n\
         const source = new EventSource('{server}{STREAM}');\n\
         const tell = it => console.log('event ' + \
         JSON.stringify([it.type, it.data, it.lastEventId]));\n\
         source.onopen = () => console.log('opened');\n\
         for (const type of ['message', 'binary', 'gap', 'failure', 'goaway'])\n\
         source.addEventListener(type, tell);\n\
         </script>\n"
    )
}

async fn each_record_once(version: KafkaVersion) -> anyhow::Result<()> {
    let kafka = Kafka::pooled(version).await?;
    kafka.create_topic("orders", 3).await?;
    let ports = [ports::free()?, ports::free()?];
    let bridge = |port| {
        let feeds = format!("[feeds]\nlisten = ['127.0.0.1:{port}']");
        let feed = "[feeds.orders]\ntopics = ['orders']\nsse.heartbeat_ms = 2000";
        Bridge::start(Settings::to(kafka.bootstrap()).line(&feeds).line(feed))
    };
    let mut bridges = [bridge(ports[0]).await?, bridge(ports[1]).await?];
    let envoy = feeds_envoy::start(&ports, Some(&page(""))).await?;
    let (direct, gateway) = (ports[0], envoy.port("feeds")?);
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("page.html");
    fs::write(&file, page(&format!("http://127.0.0.1:{direct}")))?;
    let (file, site) = (file.display().to_string(), format!("http://127.0.0.1:{gateway}{PAGE}"));
    // The bridge itself allows no other origin to read: that is a gateway's.
    let any_origin = ["--disable-web-security"];
    let clients = [
        python("python", direct, dir.path()).await?,
        python("python-envoy", gateway, dir.path()).await?,
        Client::chromium("chromium", &file, &any_origin, dir.path()).await?,
        Client::chromium("chromium-envoy", &site, &[], dir.path()).await?,
    ];
    let record = (Duration::from_millis(50), 0);
    let writer = Writer::start(&client(&kafka.bootstrap(), &[])?, "orders", 0..3, record);
    for client in &clients {
        client.until(30).await?;
    }
    for is_graceful in [false, true] {
        for bridge in &mut bridges {
            if !is_graceful {
                bridge.kill9()?;
            }
            bridge.restart().await?;
        }
        for client in &clients {
            let before: u64 = client.ledger()?.next.iter().sum();
            client.until(before + 30).await?;
        }
    }
    let written = writer.finish().await?;
    for client in &clients {
        client.came_back_and_read(&written).await?;
    }
    Ok(())
}

on_both_versions! {
    clients_come_back_by_themselves_and_get_each_record_once: super::each_record_once;
}
