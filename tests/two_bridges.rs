//! Two bridges behind the Envoy that is shipped, one of them always going away, and readers of every
//! kind that must not notice more than the end of a connection.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::bridge::{Bridge, Settings};
use harness::envoy::Envoy;
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use kafka_upstream_tests::feeds_envoy;
use kafka_upstream_tests::followers::{Readers, Writer};
use kafka_upstream_tests::produce::client;
use tokio::time::{Instant, sleep, sleep_until};

/// How long bridges are killed; `READERS_SECONDS` sets another time.
const SECONDS: u64 = 26;
/// Readers of each kind.
const READERS: usize = 200;
/// Time from the end of one bridge to that of the other.
const TURN: Duration = Duration::from_secs(5);
/// How long a bridge is away.
const AWAY: Duration = Duration::from_secs(1);
/// A record of each of three partitions.
const PAUSE: Duration = Duration::from_millis(100);

struct Pair {
    envoy: Envoy,
    bridges: [Bridge; 2],
    kafka: Kafka,
}

impl Pair {
    async fn start() -> anyhow::Result<Self> {
        let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
        kafka.create_topic("orders", 3).await?;
        let ports = [ports::free()?, ports::free()?];
        let bridge = |port| {
            let feed = "[feeds.orders]\ntopics = ['orders']\nsse.heartbeat_ms = 2000";
            let feeds = format!("[feeds]\nlisten = ['127.0.0.1:{port}']\n{feed}");
            Bridge::start(Settings::to(kafka.bootstrap()).line(&feeds))
        };
        let bridges = [bridge(ports[0]).await?, bridge(ports[1]).await?];
        let envoy = feeds_envoy::start(&ports, None).await?;
        Ok(Self { envoy, bridges, kafka })
    }

    /// Readers of both kinds, and a writer of what they read.
    fn load(&self) -> anyhow::Result<(Readers, Writer)> {
        let client = client(&self.kafka.bootstrap(), &[])?;
        let writer = Writer::start(&client, "orders", 0..3, (PAUSE, 0));
        Ok((Readers::start(self.envoy.port("feeds")?, "orders", READERS), writer))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_two_bridges_that_are_killed_in_turn_get_each_record_once() -> anyhow::Result<()>
{
    let seconds = std::env::var("READERS_SECONDS").ok().and_then(|text| text.parse().ok());
    let mut pair = Pair::start().await?;
    let (readers, writer) = pair.load()?;
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS));
    let mut kills = 0;
    while Instant::now() < end {
        let turn = Instant::now() + TURN;
        let bridge = pair.bridges.get_mut(kills % 2).context("two bridges")?;
        bridge.kill9()?;
        sleep(AWAY).await;
        bridge.restart().await?;
        kills += 1;
        sleep_until(turn).await;
    }
    let sum = readers.finish(writer.finish().await?).await?;
    ensure!(kills >= 5, "{kills} kills");
    ensure!(sum.refusals.is_empty() && sum.gaps.is_empty(), "{sum:?}");
    // Half of the streams were at the bridge that was killed.
    ensure!(sum.breaks > READERS, "{} connections broke", sum.breaks);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_a_bridge_that_is_asked_to_end_go_on_at_the_other() -> anyhow::Result<()> {
    const STOPS: usize = 4;
    let mut pair = Pair::start().await?;
    let (readers, writer) = pair.load()?;
    for stop in 0..STOPS {
        sleep(TURN / 2).await;
        let bridge = pair.bridges.get_mut(stop % 2).context("two bridges")?;
        let began = Instant::now();
        let status = bridge.stop().await?;
        let took = began.elapsed();
        println!("{status} after {took:?}");
        ensure!(status.success() && took < Duration::from_secs(8), "{status} after {took:?}");
        sleep(AWAY).await;
        bridge.restart().await?;
    }
    let sum = readers.finish(writer.finish().await?).await?;
    ensure!(sum.refusals.is_empty() && sum.gaps.is_empty(), "{sum:?}");
    ensure!(sum.breaks == 0, "{} connections broke without goaway", sum.breaks);
    ensure!(sum.goaways > READERS, "{} streams were told", sum.goaways);
    Ok(())
}
