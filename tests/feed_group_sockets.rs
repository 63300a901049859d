//! WebSockets of a consumer group, with a client that others wrote: `websockets` of Python.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::bridge::{Bridge, Settings};
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use harness::process::wait_until;
use kafka_upstream_tests::clients::Client;
use kafka_upstream_tests::followers::Writer;
use kafka_upstream_tests::on_both_versions;
use kafka_upstream_tests::produce::client;
use tokio::task::spawn_blocking;
use xtask::{paths, tools};

const SOON: Duration = Duration::from_secs(30);
const PARTITIONS: usize = 3;
/// Records that a client may have without having acknowledged them.
const WINDOW: usize = 20;
/// How often each partition gets a record, and bytes beside its number.
const EACH: (Duration, usize) = (Duration::from_millis(20), 0);
const FEED: &str = "[feeds.shared]\ntopics = ['orders']\nentrypoints = ['websocket']\n\
auto_offset_reset = 'earliest'\nqos = 'at-least-once'\nmax_unacked = 20\n\
group = { mode = 'manual', id = 'shared' }";

/// Partition and number.
type Record = (usize, u64);

fn start(name: &'static str, port: u16, packages: &Path, dir: &Path) -> anyhow::Result<Client> {
    let mut command = Command::new("python3");
    let file = paths::workspace().join("tests/python/group_socket.py");
    let url = format!("ws://127.0.0.1:{port}/v1/feeds/shared/socket");
    command.env("PYTHONPATH", packages).arg(file).arg(url);
    Client::start(name, command, dir)
}

/// What a client has got, in this order.
fn records(client: &Client) -> anyhow::Result<Vec<Record>> {
    let told = client.told("record ")?;
    let records = told.iter().filter_map(|value| {
        let (partition, number) = value.as_str()?.split_once(' ')?;
        Some((partition.parse().ok()?, number.parse().ok()?))
    });
    Ok(records.collect())
}

/// All that clients have got of each partition, without a gap. No more came twice than they may have had
/// without having acknowledged it.
fn without_gaps(of_clients: &[&[Record]], repeats_most: usize) -> anyhow::Result<Vec<u64>> {
    let all: BTreeSet<_> = of_clients.concat().into_iter().collect();
    let repeats = of_clients.iter().map(|records| records.len()).sum::<usize>() - all.len();
    ensure!(repeats <= repeats_most, "{repeats} came twice: {of_clients:?}");
    let mut next = vec![0; PARTITIONS];
    for (partition, number) in all {
        let next = next.get_mut(partition).context("no such partition")?;
        ensure!(*next == number, "a gap in {partition} before {number}");
        *next += 1;
    }
    Ok(next)
}

/// Each client has partitions of its own, and all have one.
async fn shared([one, two]: &[Client; 2]) -> anyhow::Result<()> {
    let latest = |client: &Client| -> anyhow::Result<BTreeSet<usize>> {
        let records = records(client)?;
        Ok(records.iter().rev().take(WINDOW).map(|(partition, _)| *partition).collect())
    };
    wait_until("shares", SOON, async || {
        let shares = [latest(one)?, latest(two)?];
        let is_all = shares.iter().map(BTreeSet::len).sum::<usize>() == PARTITIONS;
        ensure!(is_all && shares.iter().all(|share| !share.is_empty()), "{shares:?}");
        Ok(())
    })
    .await
}

async fn bridge(kafka: &Kafka) -> anyhow::Result<(Bridge, u16)> {
    let port = ports::free()?;
    let listen = format!("[feeds]\nlisten = ['127.0.0.1:{port}']\ninstance_id = 'b1'");
    let settings = Settings::to(kafka.bootstrap()).line(&listen).line(FEED);
    Ok((Bridge::start(settings).await?, port))
}

async fn one_takes_over(version: KafkaVersion) -> anyhow::Result<()> {
    let kafka = Kafka::pooled(version).await?;
    kafka.create_topic("orders", PARTITIONS.try_into()?).await?;
    let (mut bridge, port) = bridge(&kafka).await?;
    let dir = tempfile::tempdir()?;
    let writer = Writer::start(&client(&kafka.bootstrap(), &[])?, "orders", 0..3, EACH);
    let packages = spawn_blocking(tools::websockets).await??;
    let start = |name| start(name, port, &packages, dir.path());
    let mut clients = [start("one")?, start("two")?];
    shared(&clients).await?;
    let [cut, other] = &mut clients;
    cut.kill()?;
    let of_cut = records(cut)?;
    let last: BTreeMap<_, _> = of_cut.iter().copied().collect();
    wait_until("a takeover", SOON, async || {
        let of_other = records(other)?;
        let next = without_gaps(&[&of_cut, &of_other], WINDOW)?;
        let goes_on = |(partition, last): (&usize, &u64)| {
            next.get(*partition).is_some_and(|next| *next > last + WINDOW as u64)
        };
        ensure!(last.iter().all(goes_on), "{last:?}, {next:?}");
        Ok(())
    })
    .await?;
    bridge.restart().await?;
    let written = writer.finish().await?;
    wait_until("all records", SOON, async || {
        // What it had from the former bridge it may get from the new one, too.
        let next = without_gaps(&[&of_cut, &records(other)?], 2 * WINDOW)?;
        ensure!(next == written, "{next:?} of {written:?}");
        Ok(())
    })
    .await
}

/// By the protocol of KIP-848 a broker takes a topic that is deleted from the group at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_created_again_is_read_from_its_start() -> anyhow::Result<()> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    kafka.create_topic("orders", PARTITIONS.try_into()?).await?;
    let (bridge, port) = bridge(&kafka).await?;
    let rebalances = async || bridge.metric("host_bridge_feed_rebalances_total", "shared").await;
    let (dir, producer) = (tempfile::tempdir()?, client(&kafka.bootstrap(), &[])?);
    let packages = spawn_blocking(tools::websockets).await??;
    let reader = start("reader", port, &packages, dir.path())?;
    let mut before = 0;
    for (round, least) in [300, 100, 100].into_iter().enumerate() {
        if round > 0 {
            let known = rebalances().await?;
            kafka.delete_topic("orders").await?;
            // Once before, and once after the reader has given back what it had of the former topic.
            if round == 1 {
                wait_until("the group to know", SOON, async || {
                    ensure!(rebalances().await? > known);
                    Ok(())
                })
                .await?;
            }
            kafka.create_topic("orders", PARTITIONS.try_into()?).await?;
        }
        let writer = Writer::start(&producer, "orders", 0..3, EACH);
        wait_until("records", SOON, async || {
            let count = records(&reader)?.len();
            ensure!(count >= before + least, "{count} records");
            Ok(())
        })
        .await?;
        let written = writer.finish().await?;
        wait_until("all records of this topic", SOON, async || {
            let own = records(&reader)?.split_off(before);
            ensure!(without_gaps(&[&own], WINDOW)? == written, "{} of {written:?}", own.len());
            Ok(())
        })
        .await?;
        before = records(&reader)?.len();
    }
    Ok(())
}

on_both_versions! {
    one_of_two_takes_over: super::one_takes_over;
}
