//! Readers behind gateways, by the configurations that are shipped: Envoy, and nginx.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::bridge::{Bridge, Settings};
use harness::envoy::{Envoy, Example, Runner};
use harness::http::Request;
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use harness::process::{Process, wait_until};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use xtask::{build, paths, tools};

/// A bridge with a feed of the topic `http-requests`, and the port where it is read.
async fn readers(kafka: &Kafka) -> anyhow::Result<(Bridge, u16)> {
    let port = ports::free()?;
    let settings = Settings::to(kafka.bootstrap())
        .line(&format!("[feeds]\nlisten = ['127.0.0.1:{port}']"))
        .line(
            "[feeds.http-requests]\ntopics = ['http-requests']\nauto_offset_reset = 'earliest'\n\
               entrypoints = ['get', 'pubsub']",
        );
    Ok((Bridge::start(settings).await?, port))
}

/// Reads pages to the end, and checks that each record is there once.
async fn all_are_read(port: u16, count: usize) -> anyhow::Result<()> {
    let (mut cursor, mut read) = (String::new(), BTreeSet::new());
    loop {
        let path = format!("/v1/feeds/http-requests?limit=7&timeout=0&cursor={cursor}");
        let reply = Request::get(&path).send(port).await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        let page: Value = serde_json::from_slice(&reply.body)?;
        let items = page.get("items").and_then(Value::as_array).context("items")?;
        for item in items {
            let content = item.get("content").and_then(Value::as_str).context("content")?;
            ensure!(read.insert(content.to_owned()), "{content} came twice");
        }
        let next = page.pointer("/pagination/nextCursor").and_then(Value::as_str);
        cursor = next.context("nextCursor")?.to_owned();
        if items.is_empty() {
            break;
        }
    }
    ensure!(read.len() == count, "{} of {count} records", read.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_is_read_through_the_envoy_that_is_shipped() -> anyhow::Result<()> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    kafka.create_topic("http-requests", 3).await?;
    let (bridge, feeds_port) = readers(&kafka).await?;
    let dir = tempfile::tempdir()?;
    let example = Example {
        port: ports::free()?,
        admin_port: ports::free()?,
        wasm: build::filter()?,
        socket: dir.path().join("socket"),
        bridge_port: bridge.port(),
        readers_port: ports::free()?,
        feeds_port,
    };
    let envoy = Envoy::start_example(&Runner::Direct, &example).await?;
    for number in 0..20 {
        let reply = Request::post("/", format!("order {number}")).send(example.port).await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    }
    all_are_read(envoy.port("feeds")?, 20).await?;
    let other = Request::get("/readyz").send(envoy.port("feeds")?).await?;
    assert_eq!(other.status, 404, "nothing but feeds is behind the readers' port");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_is_read_through_nginx() -> anyhow::Result<()> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    kafka.create_topic("http-requests", 3).await?;
    let (bridge, feeds_port) = readers(&kafka).await?;
    for number in 0..20 {
        let path = "/v1/clusters/default/topics/http-requests";
        let reply = Request::post(path, format!("order {number}")).send(bridge.port()).await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    }
    let (_nginx, port) = nginx(feeds_port).await?;
    all_are_read(port, 20).await?;
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
    let handshake = "GET /v1/feeds/http-requests/pubsub HTTP/1.1\r\nhost: a\r\n\
                     connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                     sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(handshake.as_bytes()).await?;
    // A ping, masked, and its reply.
    socket.write_all(b"\x82\x88\0\0\0\0\x08\x03\x82\x02\x03\x0a\x01s").await?;
    let (mut read, expected) = (Vec::new(), b"\x82\x08\x08\x03\x82\x02\x03\x0a\x01s");
    while !read.ends_with(expected) {
        let more = socket.read_buf(&mut read).await?;
        ensure!(more > 0, "{}", String::from_utf8_lossy(&read));
    }
    ensure!(read.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&read));
    Ok(())
}

/// nginx with the location that is shipped for Kong's and other nginx, which has no WasmX here.
async fn nginx(feeds_port: u16) -> anyhow::Result<((Process, tempfile::TempDir), u16)> {
    let shipped = fs::read_to_string(paths::workspace().join("kong/nginx.conf"))?;
    let block = |begin: &str| {
        let begin = shipped.find(begin).with_context(|| begin.to_owned())?;
        let (block, _) =
            shipped.get(begin..).unwrap_or_default().split_once("}\n").context("end")?;
        anyhow::Ok(block.to_owned())
    };
    let (map, location) = (block("map $http_upgrade")?, block("location /v1/feeds/")?);
    let location = location.replace("127.0.0.1:9290", &format!("127.0.0.1:{feeds_port}"));
    let (dir, port) = (tempfile::tempdir()?, ports::free()?);
    let root = dir.path().display();
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let paths = paths.map(|name| format!("{name}_temp_path {root}/{name};\n")).concat();
    let config = format!(
        "daemon off;\npid {root}/pid;\nerror_log stderr;\nevents {{ worker_connections 1024; }}\n\
         http {{\naccess_log off;\n{map}}}\n{paths}server {{\nlisten 127.0.0.1:{port};\n{location}}}\n}}\n}}\n"
    );
    let file = dir.path().join("nginx.conf");
    fs::write(&file, config)?;
    let mut command = tokio::task::spawn_blocking(tools::nginx).await??;
    command.arg("-e").arg("stderr").arg("-p").arg(dir.path()).arg("-c").arg(&file);
    let process = Process::spawn("nginx", command, &dir.path().join("log"))?;
    wait_until("nginx", Duration::from_secs(15), async || {
        let reply = Request::get("/none").send(port).await?;
        ensure!(reply.status == 404, "{}", reply.status);
        Ok(())
    })
    .await?;
    Ok(((process, dir), port))
}
