//! Readers of busy and of empty partitions for a long time: each is served in time, and the bridge holds
//! no more than it did.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::bridge::{Bridge, Settings};
use harness::http::Request;
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use kafka_upstream_tests::followers::{Readers, Writer};
use kafka_upstream_tests::produce::client;
use tokio::time::{Instant, interval, sleep};

/// How long it goes on; `SOAK_SECONDS` sets another time.
const SECONDS: u64 = 40;
/// Streams, and as many who poll, of the busy topic and of the empty one.
const READERS: usize = 20;
/// A record of each of three partitions, and its bytes.
const RECORD: (Duration, usize) = (Duration::from_millis(100), 4096);
/// When the newest records that are kept in memory have grown to their limit, 16 MiB.
const FULL: Duration = Duration::from_secs(180);
const NEWEST_BYTES: u64 = 16 * 1024 * 1024;
/// How often the bridge is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// What more memory it may have in the last quarter of the time than in the second one, beside those
/// records.
const GROWTH_BYTES: u64 = 8 * 1024 * 1024;
/// What more descriptors: as many connections as may be there for a moment.
const GROWTH_DESCRIPTORS: u64 = 8;
/// Longest silence of a stream whose heartbeat is 2 s.
const SILENCE: Duration = Duration::from_secs(4);
/// Longest time of a page that waits for 1 s.
const PAGE: Duration = Duration::from_secs(4);

/// Half of the topic `orders` stays empty, and all of `none`.
async fn start() -> anyhow::Result<(Kafka, Bridge, u16)> {
    let (kafka, port) = (Kafka::pooled(KafkaVersion::V4_3).await?, ports::free()?);
    kafka.create_topic("orders", 6).await?;
    kafka.create_topic("none", 3).await?;
    let feed = |name| format!("[feeds.{name}]\ntopics = ['{name}']\nsse.heartbeat_ms = 2000\n");
    let feeds = [feed("orders"), feed("none")].concat();
    let feeds = format!("[feeds]\nlisten = ['127.0.0.1:{port}']\n{feeds}");
    let bridge = Bridge::start(Settings::to(kafka.bootstrap()).line(&feeds)).await?;
    Ok((kafka, bridge, port))
}

/// Opens streams that end after their first bytes, one after the other.
async fn come_and_go(port: u16) -> anyhow::Result<()> {
    loop {
        let mut stream = Request::get("/v1/feeds/orders/events").open(port).await?;
        ensure!(stream.status == 200, "{}", stream.status);
        stream.chunk().await?.context("an event stream has a beginning")?;
        sleep(Duration::from_millis(50)).await;
    }
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// The medians of a quarter of them, from the second one on.
fn quarters(values: &[u64]) -> [u64; 3] {
    let quarter = values.len() / 4;
    [1, 2, 3].map(|at| median(values.get(at * quarter..(at + 1) * quarter).unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_served_in_time_and_the_bridge_does_not_grow() -> anyhow::Result<()> {
    let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let (kafka, bridge, port) = start().await?;
    let writer = Writer::start(&client(&kafka.bootstrap(), &[])?, "orders", 0..3, RECORD);
    let busy = Readers::start(port, "orders", READERS);
    let idle = Readers::start(port, "none", READERS);
    let restless = tokio::spawn(come_and_go(port));
    let time = Duration::from_secs(seconds.unwrap_or(SECONDS));
    let end = Instant::now() + time;
    let (mut memory, mut descriptors) = (Vec::new(), Vec::new());
    let mut looks = interval(LOOK);
    while Instant::now() < end {
        looks.tick().await;
        ensure!(!restless.is_finished(), "{:?}", restless.await?);
        memory.push(bridge.process().rss_bytes()?);
        descriptors.push(bridge.process().descriptors()? as u64);
    }
    restless.abort();
    let written = writer.finish().await?;
    println!("{written:?} records");
    let (memory, descriptors) = (quarters(&memory), quarters(&descriptors));
    println!("in three quarters of the time: {memory:?} bytes, {descriptors:?} descriptors");
    for met in [busy.finish(written).await?, idle.finish(Vec::new()).await?] {
        ensure!(met.refusals.is_empty() && met.gaps.is_empty() && met.breaks == 0, "{met:?}");
        ensure!(met.silence < SILENCE && met.slowest_page < PAGE, "{met:?}");
    }
    let ([before, _, after], [open_before, _, open_after]) = (memory, descriptors);
    let newest = if time / 4 < FULL { NEWEST_BYTES } else { 0 };
    ensure!(after < before + newest + GROWTH_BYTES, "{memory:?} bytes");
    ensure!(open_after < open_before + GROWTH_DESCRIPTORS, "{descriptors:?} descriptors");
    Ok(())
}
