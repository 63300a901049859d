//! Event streams in consumer groups: bridges, their clients and Kafka's own consumers share partitions.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::bridge::{Bridge, Settings};
use harness::http::Request;
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use harness::process::wait_until;
use harness::run_dir::RunDir;
use kafka_client::Client;
use kafka_upstream_tests::on_both_versions;
use kafka_upstream_tests::produce::client;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::interval;
use xtask::tools;

use crate::event_streams::Curl;
use crate::groups::{Other, printed, produce, values};

/// The least that brokers take; those of KIP-848 have a session of their own.
const SESSION: Duration = Duration::from_secs(6);
const MODERN_SESSION: Duration = Duration::from_secs(45);
const SOON: Duration = Duration::from_secs(40);
const PARTITIONS: i32 = 6;
const FEED: &str = "[feeds.shared]\ntopics = ['orders']\nencode_message_id = false\n\
auto_offset_reset = 'earliest'\nsse.heartbeat_ms = 2000\n\
entrypoints = ['get', 'sse', 'websocket']\ngroup = { mode = 'manual', id = 'shared' }\n";

struct Served {
    bridge: Bridge,
    port: u16,
}

impl Served {
    async fn start(kafka: &Kafka, name: &str) -> anyhow::Result<Self> {
        let port = ports::free()?;
        let mut settings = Settings::to(kafka.bootstrap());
        let own = format!("instance_id = '{name}'\nsession_timeout_ms = {}\n", SESSION.as_millis());
        let listen = format!("[feeds]\nlisten = ['127.0.0.1:{port}']\n");
        settings.extra = format!("{listen}{own}{FEED}");
        Ok(Self { bridge: Bridge::start(settings).await?, port })
    }

    fn open(&self) -> anyhow::Result<Curl> {
        Curl::open(self.port, "shared/events", None)
    }

    async fn rebalances(&self) -> anyhow::Result<f64> {
        self.bridge.metric("host_bridge_feed_rebalances_total", "shared").await
    }
}

/// What a stream has brought of a round.
fn got(curl: &Curl, round: usize) -> anyhow::Result<BTreeSet<String>> {
    let (text, prefix) = (curl.text()?, format!("data: {round}-"));
    let of_round = text.lines().filter(|line| line.starts_with(&prefix));
    Ok(of_round.filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect())
}

/// Partitions of its cursor.
fn share(curl: &Curl) -> anyhow::Result<BTreeSet<i32>> {
    let id = curl.last_id()?.unwrap_or_default();
    let (_, positions) = id.split_once('@').unwrap_or_default();
    let numbers = positions.split(',').filter_map(|it| it.split('#').next()?.parse().ok());
    Ok(numbers.collect())
}

async fn shares_are(curls: &[&Curl], expected: &[usize]) -> anyhow::Result<()> {
    wait_until("shares", SOON, async || {
        let shares: Vec<_> = curls.iter().map(|curl| share(curl)).collect::<Result<_, _>>()?;
        let mut counts: Vec<_> = shares.iter().map(BTreeSet::len).collect();
        counts.sort_unstable();
        ensure!(counts == expected, "{shares:?}");
        let all: BTreeSet<_> = shares.iter().flatten().collect();
        ensure!(all.len() == counts.iter().sum::<usize>(), "{shares:?}");
        Ok(())
    })
    .await
}

/// All of a round came, each record to one reader.
async fn disjoint(
    read: impl Fn() -> anyhow::Result<Vec<BTreeSet<String>>>,
    sent: &BTreeSet<String>,
) -> anyhow::Result<()> {
    wait_until("all records", SOON, async || {
        let each = read()?;
        let all: BTreeSet<_> = each.iter().flatten().cloned().collect();
        ensure!(all == *sent, "{} of {}", all.len(), sent.len());
        let count: usize = each.iter().map(BTreeSet::len).sum();
        ensure!(count == sent.len(), "{count} of {}: some came twice", sent.len());
        Ok(())
    })
    .await
}

async fn streams(version: KafkaVersion) -> anyhow::Result<()> {
    let kafka = Kafka::pooled(version).await?;
    kafka.create_topic("orders", PARTITIONS).await?;
    let writer = client(&kafka.bootstrap(), &[])?;
    let (first, mut second) =
        tokio::try_join!(Served::start(&kafka, "b1"), Served::start(&kafka, "b2"))?;
    let sent = produce(&writer, 1, 10).await?;
    let (one, two) = (first.open()?, second.open()?);
    wait_until("what is there", SOON, async || {
        let all = &got(&one, 1)? | &got(&two, 1)?;
        ensure!(all == sent, "{} of {}", all.len(), sent.len());
        Ok(())
    })
    .await?;
    shares_are(&[&one, &two], &[3, 3]).await?;
    let sent = produce(&writer, 2, 10).await?;
    disjoint(|| Ok(vec![got(&one, 2)?, got(&two, 2)?]), &sent).await?;
    clients_come_and_go(&kafka, &first, &[&one, &two]).await?;
    positions_are_the_members(&first, &one, &two).await?;
    beside_others(&kafka, &writer, &[&one, &two]).await?;
    // Killed: what it had is taken over, and nothing is lost.
    let killed = Instant::now();
    second.bridge.kill9()?;
    let sent = produce(&writer, 4, 10).await?;
    let session = if version == KafkaVersion::V3_9 { SESSION } else { MODERN_SESSION };
    wait_until("a takeover", session + SOON, async || {
        let all = got(&one, 4)?;
        ensure!(all == sent, "{} of {}", all.len(), sent.len());
        Ok(())
    })
    .await?;
    let took = killed.elapsed();
    println!("{version:?}: taken over after {took:.1?}");
    ensure!(took < session + Duration::from_secs(6), "{took:?}");
    // It comes back, and the other leaves for good.
    second.bridge.restart().await?;
    let two = second.open()?;
    shares_are(&[&one, &two], &[3, 3]).await?;
    let (mut first, left) = (first, Instant::now());
    first.bridge.stop().await?;
    shares_are(&[&two], &[6]).await?;
    ensure!(left.elapsed() < Duration::from_secs(20), "{:?}", left.elapsed());
    let sent = produce(&writer, 5, 10).await?;
    disjoint(|| Ok(vec![got(&two, 5)?]), &sent).await?;
    ensure!(first.bridge.process().log_tail().contains("stopped"), "it did not end well");
    Ok(())
}

/// Beside the members of two bridges, 500 clients that come and go every second: Kafka hears of none.
async fn clients_come_and_go(kafka: &Kafka, served: &Served, stay: &[&Curl]) -> anyhow::Result<()> {
    let before = (served.rebalances().await?, epochs(kafka).await?);
    let mut seconds = interval(Duration::from_secs(1));
    for _ in 0..4 {
        seconds.tick().await;
        let clients: JoinSet<_> = (0..500).map(|_| stream(served.port)).collect();
        let clients: Vec<_> = clients.join_all().await.into_iter().collect::<Result<_, _>>()?;
        let open = served.bridge.metric("host_bridge_feed_connections", "sse").await?;
        ensure!(open >= clients.len() as f64, "{open}");
    }
    shares_are(stay, &[3, 3]).await?;
    let after = (served.rebalances().await?, epochs(kafka).await?);
    ensure!(after == before, "a client caused a rebalance: {before:?}, {after:?}");
    Ok(())
}

/// A client of the group's stream; most have no partition, and no position.
async fn stream(port: u16) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"GET /v1/feeds/shared/events HTTP/1.1\r\nhost: a\r\n\r\n").await?;
    let mut heard = Vec::new();
    // The end of its first chunk.
    while !heard.ends_with(b"\n\n\r\n") {
        ensure!(stream.read_buf(&mut heard).await? > 0, "the stream has ended");
    }
    ensure!(heard.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&heard));
    Ok(stream)
}

/// What Kafka says of the group, with its epochs; 3.9 has no tool that tells them.
async fn epochs(kafka: &Kafka) -> anyhow::Result<String> {
    if kafka.version() == KafkaVersion::V3_9 {
        return Ok(String::new());
    }
    let mut command = tools::kafka_java(kafka.version())?.command(&[])?;
    command.args(tools::QUICK).arg("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand");
    command.args(["--bootstrap-server", &kafka.bootstrap(), "--describe", "--group", "shared"]);
    command.args(["--state", "--verbose"]);
    let output = spawn_blocking(move || command.output()).await??;
    let told = String::from_utf8(output.stdout)?;
    ensure!(told.contains("GROUP-EPOCH") && told.contains("Stable"), "{told}");
    Ok(told)
}

async fn positions_are_the_members(
    served: &Served,
    own: &Curl,
    other: &Curl,
) -> anyhow::Result<()> {
    for (curl, status) in [(own, 204), (other, 409)] {
        let cursor = curl.last_id()?.context("a cursor")?;
        ensure!(!cursor.ends_with(';'), "{cursor}");
        let body = json!({ "cursor": cursor }).to_string();
        let reply = Request::post("/v1/feeds/shared/commits", body).send(served.port).await?;
        ensure!(reply.status == status, "{status}: {} {}", reply.status, reply.text());
    }
    let reply = Request::get("/v1/feeds/shared/messages?timeout=0").send(served.port).await?;
    ensure!(reply.status == 409 && reply.text().contains("group_in_use"), "{}", reply.text());
    Ok(())
}

/// Java's console consumer has a third while it is there, and kcat a part, too.
async fn beside_others(kafka: &Kafka, writer: &Client, curls: &[&Curl; 2]) -> anyhow::Result<()> {
    let (of_java, of_kcat) = (RunDir::new("group-java")?, RunDir::new("group-kcat")?);
    let modern = [("group.protocol", "consumer")];
    let properties = if kafka.version() == KafkaVersion::V3_9 { &[][..] } else { &modern[..] };
    let mut java = Other::Java.start(kafka, &of_java, "shared", properties)?;
    shares_are(&curls[..], &[2, 2]).await.with_context(|| java.log_tail())?;
    let [one, two] = curls;
    let sent = produce(writer, 3, 10).await?;
    let read = || Ok(vec![got(one, 3)?, got(two, 3)?, values(&printed(&java)?, 3)]);
    disjoint(read, &sent).await.with_context(|| java.log_tail())?;
    // librdkafka speaks the classic protocol alone, also where the others do not.
    let mut kcat = Other::Kcat.start(kafka, &of_kcat, "shared", &[])?;
    let round = Cell::new(10);
    wait_until("kcat's part", SOON, async || {
        round.update(|round| round + 1);
        produce(writer, round.get(), 1).await?;
        ensure!(!printed(&kcat)?.is_empty(), "{}", kcat.log_tail());
        Ok(())
    })
    .await?;
    let sent = produce(writer, 6, 10).await?;
    let read = || {
        let others = [&java, &kcat].map(|other| Ok(values(&printed(other)?, 6)));
        let others: Vec<_> = others.into_iter().collect::<anyhow::Result<_>>()?;
        Ok([vec![got(one, 6)?, got(two, 6)?], others].concat())
    };
    disjoint(read, &sent).await.with_context(|| kcat.log_tail())?;
    kcat.stop(SOON).await?;
    java.stop(SOON).await?;
    shares_are(&curls[..], &[3, 3]).await
}

on_both_versions! {
    streams_share_a_group: super::streams;
}
