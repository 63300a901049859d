//! What kafka-client reads by offset from Kafka: what it wrote itself, and what Java's client wrote in
//! transactions.

#![expect(clippy::indexing_slicing, reason = "what was asked for is answered in its order")]

use std::time::Duration;

use anyhow::{Context, ensure};
use harness::kafka::{Kafka, KafkaVersion};
use kafka_client::{
    At, Consumer, ConsumerConfig, Fetched, IsolationLevel, Outcome, ReadError, Record,
};
use kafka_upstream_tests::on_both_versions;
use kafka_upstream_tests::produce::client;
use kafka_upstream_tests::transactions;

const WITHIN: Duration = Duration::from_secs(20);
const TIME: i64 = 1_700_000_000_000;

/// Records in each of three partitions.
const RECORDS: i64 = 500;

/// Everything of a partition from an offset on, fetch by fetch, up to the log end.
async fn read_on(
    consumer: &Consumer,
    (topic, partition): (&str, i32),
    mut offset: i64,
    max_bytes: usize,
) -> anyhow::Result<Vec<(i64, String)>> {
    let mut read = Vec::new();
    loop {
        let mut fetched =
            consumer.fetch(&[(topic, partition, offset)], max_bytes, Duration::ZERO).await;
        let Fetched { records, next_offset, log_end, .. } = fetched.remove(0)?;
        for record in records {
            let value = String::from_utf8(record.value.context("no value")?.to_vec())?;
            read.push((record.offset, value));
        }
        ensure!(next_offset > offset || offset >= log_end, "it stands still at {offset}");
        if next_offset >= log_end {
            return Ok(read);
        }
        offset = next_offset;
    }
}

async fn own_records(version: KafkaVersion) -> anyhow::Result<()> {
    let kafka = Kafka::pooled(version).await?;
    kafka.create_topic("own", 3).await?;
    kafka.create_topic("empty", 1).await?;
    let codec = [("compression.type", "zstd")];
    let client = client(&kafka.bootstrap(), &codec)?;
    let producer = client.producer();
    let mut written = Vec::new();
    let mut sends = Vec::new();
    for number in 0..3 * RECORDS {
        let producer = producer.clone();
        sends.push(tokio::spawn(async move {
            let (value, partition) = (format!("value {number}"), Some((number % 3) as i32));
            let timestamp_ms = TIME + number;
            let record = Record::new(value.as_bytes());
            let record = Record { partition, timestamp_ms, ..record };
            (producer.send("own", record, WITHIN).await, value)
        }));
    }
    for send in sends {
        let (outcome, value) = send.await?;
        let Outcome::Written { partition, offset: Some(offset), .. } = outcome else {
            anyhow::bail!("{value}: {outcome:?}")
        };
        written.push((partition, offset, value));
    }
    written.sort();

    let consumer = client.consumer(&ConsumerConfig::default());
    let listed = consumer.partitions("own", WITHIN).await?;
    ensure!(listed.id.is_some() && listed.leaders == [Some(1); 3], "{listed:?}");
    for partition in 0..3 {
        let own = written.iter().filter(|(index, ..)| *index == partition);
        let own: Vec<_> = own.map(|(_, offset, value)| (*offset, value.clone())).collect();
        for (from, max_bytes) in [(0, 1 << 20), (RECORDS / 2 + 1, 1 << 20), (3, 5000)] {
            let read = read_on(&consumer, ("own", partition), from, max_bytes).await?;
            ensure!(read == own[usize::try_from(from)?..], "partition {partition} from {from}");
        }
    }
    let all = [("own", 0), ("own", 2), ("empty", 0)];
    let offsets = async |at| consumer.offsets(&all, at, WITHIN).await;
    assert_eq!(offsets(At::Earliest).await, [Ok(0), Ok(0), Ok(0)]);
    assert_eq!(offsets(At::Latest).await, [Ok(RECORDS), Ok(RECORDS), Ok(0)]);
    assert_eq!(offsets(At::Time(TIME + 3 * RECORDS)).await, [Ok(RECORDS), Ok(RECORDS), Ok(0)]);
    let beyond = [("own", 0, RECORDS + 1), ("own", 1, RECORDS), ("own", 7, 0), ("empty", 0, 0)];
    let fetched = consumer.fetch(&beyond, 1 << 20, Duration::from_secs(1)).await;
    let out_of_range = ReadError::OutOfRange { log_start: 0, log_end: RECORDS };
    ensure!(fetched[0] == Err(out_of_range), "{:?}", fetched[0]);
    ensure!(matches!(&fetched[2], Err(ReadError::Refused(_))), "{:?}", fetched[2]);
    for at_end in [&fetched[1], &fetched[3]] {
        ensure!(at_end.as_ref().is_ok_and(|it| it.records.is_empty()), "{at_end:?}");
    }
    Ok(())
}

async fn by_isolation_level(version: KafkaVersion) -> anyhow::Result<()> {
    let kafka = Kafka::start(version, 1).await?;
    transactions::write(&kafka).await?;

    let client = client(&kafka.bootstrap(), &[])?;
    let at = |level| client.consumer(&ConsumerConfig::default().isolation(level));
    let (all, stable) = (at(IsolationLevel::ReadUncommitted), at(IsolationLevel::ReadCommitted));
    let values = async |consumer: &Consumer, from| {
        let read = read_on(consumer, ("bank", 0), from, 1 << 20).await?;
        anyhow::Ok(read.into_iter().map(|(_, value)| value).collect::<Vec<_>>())
    };
    let written = [
        "aborted-1",
        "aborted-2",
        "aborted-3",
        "committed-1",
        "committed-2",
        "aborted-4",
        "committed-3",
        "open-1",
        "open-2",
    ];
    assert_eq!(values(&all, 0).await?, written);
    assert_eq!(values(&stable, 0).await?, ["committed-1", "committed-2", "committed-3"]);
    assert_eq!(values(&stable, 1).await?, ["committed-1", "committed-2", "committed-3"]);
    assert_eq!(values(&stable, 5).await?, ["committed-2", "committed-3"]);
    let end = async |consumer: &Consumer, at| {
        consumer.offsets(&[("bank", 0)], at, WITHIN).await.remove(0)
    };
    // Four markers are in the log, and two records of a transaction that is open.
    assert_eq!(end(&all, At::Latest).await, Ok(13));
    assert_eq!(end(&stable, At::Latest).await, Ok(11));
    assert_eq!(end(&stable, At::Time(i64::MAX)).await, Ok(11));
    Ok(())
}

on_both_versions! {
    what_the_producer_wrote_is_read_back: super::own_records;
    transactions_are_read_by_isolation_level: super::by_isolation_level;
}
