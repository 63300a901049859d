//! What kafka-client tells of records while partitions lose their replicas, their logs or their
//! sequences.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::kafka::{DumpedBatch, Kafka, KafkaVersion};
use kafka_client::{Client, Outcome};
use kafka_upstream_tests::cluster::{REPLICATED, whole, without};
use kafka_upstream_tests::judge::judge_topic;
use kafka_upstream_tests::on_both_versions;
use kafka_upstream_tests::produce::{Plan, Running, SentRecord, client};
use tokio::time::Instant;
use tokio::try_join;

/// Records of each producer.
const RECORDS: u64 = 20_000;

/// Longer than any fault here.
const PATIENT: Duration = Duration::from_secs(120);

/// How long a client asks for a topic that no broker knows.
const UNKNOWN: Duration = Duration::from_secs(5);

fn start(
    client: &Client,
    topic: &str,
    partition: Option<i32>,
    patience: fn(u64) -> Duration,
) -> Running {
    let plan = Plan { topic: topic.to_owned(), partition, records: RECORDS, patience };
    let running = plan.start(client);
    running.release(RECORDS / 4);
    running
}

/// A topic is deleted and made again, once after the client has given up on it and once before. The
/// topic beside it notices nothing.
async fn recreated(version: KafkaVersion) -> anyhow::Result<()> {
    let kafka = Kafka::start(version, 3).await?;
    kafka.create_topics(&["again", "beside"], 3, 3, &REPLICATED).await?;
    let client = client(&kafka.bootstrap(), &[])?;
    let again = start(&client, "again", None, |_| PATIENT);
    let beside = start(&client, "beside", None, |_| PATIENT);
    for round in 2..4 {
        try_join!(again.until_written(2000), beside.until_written(2000))?;
        kafka.delete_topic("again").await?;
        kafka.wait_until_unknown("again").await?;
        if round == 2 {
            again.until_failed(1).await?;
        }
        kafka.create_topics(&["again"], 3, 3, &REPLICATED).await?;
        again.release(RECORDS * round / 4);
        beside.release(RECORDS * round / 4);
    }
    again.until_written(100).await?;
    let works = Instant::now();
    let (again, told_beside) = (again.finish().await?, beside.finish().await?);
    let beside = judge_topic(&kafka, "beside", &told_beside).await?;
    beside.is_exact()?;
    assert_eq!(beside.written as u64, RECORDS);
    assert!(beside.slowest < UNKNOWN, "it waited with the other: {beside}");
    let verdict = judge_topic(&kafka, "again", &again).await?;
    verdict.is_honest()?;
    assert_eq!(verdict.duplicates, 0);
    let late: Vec<_> = again.iter().filter(|told| told.sent > works).collect();
    assert!(late.len() as u64 >= RECORDS / 4, "{} are late", late.len());
    let other = late.iter().find(|told| !told.is_written());
    assert!(other.is_none(), "the topic is back: {other:?}");
    let lost = verdict.missing.iter().find(|told| told.sent > works);
    assert!(lost.is_none(), "told as written: {lost:?}");
    Ok(())
}

/// Two of three replicas are down: nobody is told that anything is written, and who waits is
/// served when they are back.
async fn too_few(version: KafkaVersion) -> anyhow::Result<()> {
    let mut kafka = Kafka::start_voting(version, 3, 1, &[]).await?;
    kafka.create_topics(&["patient", "hurried"], 3, 3, &REPLICATED).await?;
    let client = client(&kafka.bootstrap(), &[("request.timeout.ms", "2000")])?;
    let patient = start(&client, "patient", None, |_| PATIENT);
    let hurried = start(&client, "hurried", None, |_| Duration::from_millis(1500));
    try_join!(patient.until_written(1000), hurried.until_written(1000))?;
    kafka.kill_broker(2)?;
    kafka.kill_broker(3)?;
    kafka.wait_for_replicas("one replica", |found| found.in_sync == [1]).await?;
    let alone = Instant::now();
    patient.release(RECORDS / 2);
    hurried.release(RECORDS / 2);
    hurried.until_failed(3000).await?;
    let back = Instant::now();
    kafka.spawn_broker(2)?;
    kafka.spawn_broker(3)?;
    kafka.wait_for(2).await?;
    kafka.wait_for(3).await?;
    whole(&kafka).await?;
    try_join!(hurried.until_written(10), patient.until_written(10))?;
    let (patient, hurried) = (patient.finish().await?, hurried.finish().await?);
    let verdict = judge_topic(&kafka, "patient", &patient).await?;
    verdict.is_exact()?;
    assert_eq!(verdict.written as u64, RECORDS, "{verdict}");
    judge_topic(&kafka, "hurried", &hurried).await?.is_exact()?;
    let early = |told: &&SentRecord| told.is_written() && (alone..back).contains(&told.settled);
    let early = hurried.iter().chain(&patient).find(early);
    assert!(early.is_none(), "told as written by one replica: {early:?}");
    let is_refused = |told: &&SentRecord| {
        matches!(&told.outcome, Outcome::NotWritten(reason)
            if reason.chain().contains("NOT_ENOUGH_REPLICAS"))
    };
    let refused = hurried.iter().filter(is_refused).count();
    assert!(refused > 500, "{refused} are told why");
    Ok(())
}

/// The sequences of one partition become void, because a batch of it expires in flight to a silent
/// leader: it goes on in the next epoch, and another partition of the same id in the old one.
async fn epochs_apart(version: KafkaVersion) -> anyhow::Result<()> {
    let mut kafka = Kafka::start(version, 3).await?;
    kafka.create_topics(&["one", "other"], 3, 3, &REPLICATED).await?;
    let victim = kafka.leader_of("one", 0).await?;
    let replicas = kafka.replicas_of("other").await?;
    let spared = replicas.iter().find(|found| found.leader.is_some_and(|id| id != victim));
    let spared = spared.context("one broker leads everything")?.partition;
    let client = client(&kafka.bootstrap(), &[("request.timeout.ms", "1000")])?;
    let one = start(&client, "one", Some(0), |_| Duration::from_millis(1000));
    let other = start(&client, "other", Some(spared), |_| PATIENT);
    try_join!(one.until_written(500), other.until_written(500))?;
    one.release(RECORDS / 2);
    kafka.freeze_broker(victim)?;
    without(&kafka, victim).await?;
    one.release(RECORDS * 3 / 4);
    one.until_written(10).await?;
    kafka.thaw_broker(victim)?;
    whole(&kafka).await?;
    let (one, other) = (one.finish().await?, other.finish().await?);
    let verdict = judge_topic(&kafka, "one", &one).await?;
    verdict.is_exact()?;
    assert!(verdict.unknown > 0, "nothing was in doubt: {verdict}");
    let verdict = judge_topic(&kafka, "other", &other).await?;
    verdict.is_exact()?;
    assert_eq!(verdict.written as u64, RECORDS, "{verdict}");
    let (one, other) = (kafka.dump(victim, "one").await?, kafka.dump(victim, "other").await?);
    let epochs: BTreeSet<_> = one.iter().map(|batch| batch.producer_epoch).collect();
    assert!(epochs.contains(&0) && epochs.len() > 1, "{epochs:?}");
    assert!(other.iter().all(|batch| batch.producer_epoch == 0));
    let ids: BTreeSet<_> = one.iter().chain(&other).map(|batch| batch.producer_id).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    is_in_sequence(&one)?;
    is_in_sequence(&other)
}

/// Each epoch begins at 0, none comes back, and within one nothing is left out.
fn is_in_sequence(batches: &[DumpedBatch]) -> anyhow::Result<()> {
    let mut expected = (0, 0);
    for batch in batches {
        if batch.producer_epoch > expected.0 {
            expected = (batch.producer_epoch, 0);
        }
        ensure!((batch.producer_epoch, batch.base_sequence) == expected, "{batch:?}, {expected:?}");
        expected.1 += i32::try_from(batch.values.len())?;
    }
    Ok(())
}

on_both_versions! {
    a_topic_made_again_is_written_again: super::recreated;
    without_enough_replicas_nothing_is_told_as_written: super::too_few;
    partitions_of_one_producer_id_are_on_epochs_of_their_own: super::epochs_apart;
}
