//! kafka-client's readers on real logs: compressed, compacted, truncated by an unclean election, and led
//! by one broker after the other.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::kafka::{Kafka, KafkaVersion, Setup};
use harness::process::wait_until;
use harness::reader::read_all;
use kafka_client::{
    At, Client, Consumer, ConsumerConfig, Fetched, Outcome, Position, ReadError, Record,
};
use kafka_upstream_tests::cluster::{BrokerFault, REPLICATED, strike};
use kafka_upstream_tests::on_both_versions;
use kafka_upstream_tests::produce::{Plan, client};

const WITHIN: Duration = Duration::from_secs(20);
const MIB: usize = 1024 * 1024;

/// Where a reader is in a partition.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    offset: i64,
    epoch: Option<i32>,
}

async fn fetch(
    consumer: &Consumer,
    (topic, partition): (&str, i32),
    held: Held,
    wait: Duration,
) -> Result<Fetched, ReadError> {
    let position = Position::new(topic, partition, held.offset).epoch(held.epoch);
    consumer.fetch_from(&[position], MIB, wait).await.remove(0)
}

/// The records of a partition from a position to its end, and the position there.
async fn read_on(
    consumer: &Consumer,
    place: (&str, i32),
    mut held: Held,
) -> anyhow::Result<(Vec<(i64, String)>, Held)> {
    let mut read = Vec::new();
    loop {
        let fetched = fetch(consumer, place, held, Duration::ZERO).await?;
        for record in fetched.records {
            read.push((record.offset, text(record.value.as_deref())));
        }
        let has_moved = fetched.next_offset > held.offset;
        held = Held { offset: fetched.next_offset, epoch: fetched.epoch };
        if held.offset >= fetched.log_end {
            return Ok((read, held));
        }
        ensure!(has_moved, "it stands still at {held:?} before {}", fetched.log_end);
    }
}

fn text(value: Option<&[u8]>) -> String {
    value.map_or_else(String::new, |value| String::from_utf8_lossy(value).into_owned())
}

async fn send(client: &Client, topic: &str, key: &str, value: &str) -> anyhow::Result<i64> {
    let record = Record::new(value.as_bytes()).key(key.as_bytes());
    match client.producer().send(topic, record, WITHIN).await {
        Outcome::Written { offset: Some(offset), .. } => Ok(offset),
        other => anyhow::bail!("{value}: {other:?}"),
    }
}

async fn every_codec(version: KafkaVersion) -> anyhow::Result<()> {
    let kafka = Kafka::pooled(version).await?;
    kafka.create_topic("codecs", 1).await?;
    let mut written = Vec::new();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let client = client(&kafka.bootstrap(), &[("compression.type", codec)])?;
        for bytes in [10, 3000, 500_000] {
            let value = format!("{codec} ").repeat(bytes / codec.len());
            written.push((send(&client, "codecs", codec, &value).await?, value));
        }
    }
    let reader = client(&kafka.bootstrap(), &[])?;
    let consumer = reader.consumer(&ConsumerConfig::default());
    let (read, _) = read_on(&consumer, ("codecs", 0), Held::default()).await?;
    ensure!(read == written, "{} of {} are read", read.len(), written.len());
    Ok(())
}

/// A producer's last batch stays when all of its records are compacted away: it is empty then.
async fn compacted(version: KafkaVersion) -> anyhow::Result<()> {
    let properties =
        [("log.cleaner.backoff.ms", "200"), ("log.retention.check.interval.ms", "500")];
    let setup = Setup { properties: &properties, ..Setup::default() };
    let kafka = Kafka::start_setup(version, 1, 1, setup).await?;
    let configs = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0.0"),
        ("segment.ms", "200"),
        ("delete.retention.ms", "0"),
    ];
    kafka.create_topic_with("compacted", 1, 1, &configs).await?;
    let mut last = BTreeMap::new();
    for round in 0..8 {
        // Each round has a producer id of its own.
        let client = client(&kafka.bootstrap(), &[])?;
        for key in 0..5 {
            let (key, value) = (format!("key {key}"), format!("{round} of {key}"));
            let offset = send(&client, "compacted", &key, &value).await?;
            last.insert(key, (offset, value));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    wait_until("an empty batch", Duration::from_secs(60), async || {
        let batches = kafka.dump(1, "compacted").await?;
        let empty = batches.iter().filter(|batch| batch.values.is_empty()).count();
        ensure!(empty >= 3, "{empty} of {} batches are empty", batches.len());
        Ok(())
    })
    .await?;
    let client = client(&kafka.bootstrap(), &[])?;
    let consumer = client.consumer(&ConsumerConfig::default());
    let (all, end) = read_on(&consumer, ("compacted", 0), Held::default()).await?;
    ensure!(end.offset == 40 && all.len() < 40, "{} records before {end:?}", all.len());
    ensure!(all.is_sorted_by(|(one, _), (next, _)| one < next), "{all:?}");
    for kept in last.values() {
        ensure!(all.contains(kept), "{kept:?} is not in {all:?}");
    }
    for offset in 0..=40 {
        let (from, _) = read_on(&consumer, ("compacted", 0), Held { offset, epoch: None }).await?;
        let expected = all.iter().filter(|(at, _)| *at >= offset);
        ensure!(from.iter().eq(expected), "from {offset}: {from:?}");
    }
    Ok(())
}

/// The only replica in sync goes away, and the other one becomes the leader without what it missed.
async fn truncated(version: KafkaVersion) -> anyhow::Result<()> {
    let mut kafka = Kafka::start(version, 3).await?;
    let configs = [("unclean.leader.election.enable", "true"), ("min.insync.replicas", "1")];
    kafka.create_topic_with("unclean", 1, 2, &configs).await?;
    kafka.wait_for_replicas("both replicas", |found| found.in_sync.len() == 2).await?;
    let by_both = client(&kafka.bootstrap(), &[])?;
    for number in 0..10 {
        send(&by_both, "unclean", "", &format!("first {number}")).await?;
    }
    let client = client(&kafka.bootstrap(), &[("enable.idempotence", "false"), ("acks", "1")])?;
    let consumer = client.consumer(&ConsumerConfig::default());
    let found = kafka.replicas_of("unclean").await?.remove(0);
    let leader = found.leader.context("no leader")?;
    let other = found.in_sync.iter().copied().find(|id| *id != leader).context("one replica")?;
    kafka.stop_broker(other).await?;
    kafka.wait_for_replicas("one replica", |found| found.in_sync == [leader]).await?;
    for number in 0..10 {
        send(&client, "unclean", "", &format!("lost {number}")).await?;
    }
    let (read, held) = read_on(&consumer, ("unclean", 0), Held::default()).await?;
    ensure!(read.len() == 20 && held.epoch.is_some(), "{held:?}");
    let ends = consumer.offsets_with_epochs(&[("unclean", 0)], At::Latest, WITHIN).await;
    ensure!(ends == [Ok((20, held.epoch))], "{ends:?}");
    kafka.kill_broker(leader)?;
    kafka.start_broker(other).await?;
    kafka.wait_for_replicas("an unclean election", |found| found.leader == Some(other)).await?;
    for number in 0..15 {
        send(&client, "unclean", "", &format!("other {number}")).await?;
    }
    let told = fetch(&consumer, ("unclean", 0), held, WITHIN).await;
    let Err(ReadError::Truncated { to: 10, epoch }) = told else {
        anyhow::bail!("at {held:?} it is told {told:?}")
    };
    let (others, _) = read_on(&consumer, ("unclean", 0), Held { offset: 10, epoch }).await?;
    let expected: Vec<_> = (0..15).map(|it| (10 + it, format!("other {it}"))).collect();
    ensure!(others == expected, "{others:?}");
    Ok(())
}

/// All records of three partitions, as they come, until nothing more is said to come.
async fn follow(
    consumer: Consumer,
    mut is_over: tokio::sync::watch::Receiver<bool>,
) -> anyhow::Result<Vec<(i32, i64, String)>> {
    let (mut held, mut read) = ([Held::default(); 3], Vec::new());
    loop {
        let was_over = *is_over.borrow_and_update();
        let position = |(partition, held): (i32, &Held)| {
            Position::new("bounced", partition, held.offset).epoch(held.epoch)
        };
        let positions: Vec<_> = (0..).zip(&held).map(position).collect();
        let answers = consumer.fetch_from(&positions, MIB, Duration::from_millis(500)).await;
        let mut is_at_end = true;
        for ((partition, held), answer) in (0..).zip(&mut held).zip(answers) {
            let fetched = match answer {
                Ok(fetched) => fetched,
                Err(ReadError::Unavailable(_)) => {
                    is_at_end = false;
                    continue;
                }
                Err(error) => anyhow::bail!("{partition} at {held:?}: {error}"),
            };
            is_at_end &= fetched.next_offset == fetched.log_end;
            *held = Held { offset: fetched.next_offset, epoch: fetched.epoch };
            let records = fetched.records.iter();
            read.extend(records.map(|it| (partition, it.offset, text(it.value.as_deref()))));
        }
        if was_over && is_at_end {
            return Ok(read);
        }
    }
}

async fn bounced(version: KafkaVersion) -> anyhow::Result<()> {
    const RECORDS: u64 = 20_000;
    let mut kafka = Kafka::start(version, 3).await?;
    kafka.create_topics(&["bounced"], 3, 3, &REPLICATED).await?;
    let client = client(&kafka.bootstrap(), &[])?;
    let topic = "bounced".to_owned();
    let patience = |_| Duration::from_secs(120);
    let plan = Plan { topic, partition: None, records: RECORDS, patience };
    let running = plan.start(&client);
    let (over, is_over) = tokio::sync::watch::channel(false);
    let reader = tokio::spawn(follow(client.consumer(&ConsumerConfig::default()), is_over));
    for (turn, fault) in
        [BrokerFault::Bounce, BrokerFault::Kill, BrokerFault::Freeze].into_iter().enumerate()
    {
        running.release(RECORDS * (turn as u64 + 1) / 4);
        running.until_written(200).await?;
        strike(&mut kafka, fault, ("bounced", i32::try_from(turn)?)).await?;
    }
    running.finish().await?;
    over.send(true)?;
    let read = reader.await??;
    let mut written = Vec::new();
    for record in read_all(&kafka.bootstrap(), "bounced").await? {
        written.push((record.partition, record.offset, text(record.value.as_deref())));
    }
    ensure!(written.len() as u64 >= RECORDS, "{} records", written.len());
    for partition in 0..3 {
        let of = |all: &[(i32, i64, String)]| {
            all.iter().filter(|it| it.0 == partition).cloned().collect::<Vec<_>>()
        };
        let (read, written) = (of(&read), of(&written));
        let differs = read.iter().zip(&written).find(|(read, written)| read != written);
        ensure!(
            read == written,
            "{partition}: {} read, {} written; {differs:?}",
            read.len(),
            written.len()
        );
    }
    Ok(())
}

on_both_versions! {
    records_of_every_codec_are_read: super::every_codec;
    a_compacted_topic_is_read_to_its_end: super::compacted;
    an_unclean_election_is_told: super::truncated;
    each_record_is_read_once_while_leaders_are_bounced: super::bounced;
}
