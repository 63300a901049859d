//! The ledger on three brokers: what was told of each record while leaders failed, against the log.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use harness::kafka::{Kafka, KafkaVersion};
use harness::load::{Ending, Limit, Load, Report, Requests};
use harness::process::wait_until;
use kafka_client::Outcome;
use kafka_upstream_tests::cluster::{BrokerFault, REPLICATED, strike};
use kafka_upstream_tests::judge::{Verdict, judge_topic};
use kafka_upstream_tests::produce::{Plan, Running, SentRecord, client};
use kafka_upstream_tests::{Gateway, bodies, on_both_versions};
use serde_json::json;

/// Records of each producer; `CLUSTER_RECORDS` sets another number.
const RECORDS: u64 = 40_000;

fn records() -> u64 {
    let requested = std::env::var("CLUSTER_RECORDS").ok();
    requested.and_then(|count| count.parse().ok()).unwrap_or(RECORDS)
}

const PARTITIONS: i32 = 6;
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const FAULTS: [BrokerFault; 5] = [
    BrokerFault::Kill,
    BrokerFault::Freeze,
    BrokerFault::Bounce,
    BrokerFault::Freeze,
    BrokerFault::Kill,
];

/// Requests of one round through the gateway.
const ROUND: u64 = 2000;

/// One record in ten is in a hurry: its deadline passes while a broker is away, and with it that of
/// the batch it is in.
fn patience(number: u64) -> Duration {
    Duration::from_millis(if number / 1000 % 10 == 9 { 1500 } else { 60_000 })
}

/// A topic and a producer for each `acks` and codec, each with a client of its own.
async fn start_ten(kafka: &Kafka) -> anyhow::Result<Vec<(String, Running)>> {
    let kinds =
        ["1", "all"].map(|acks| CODECS.map(|codec| (format!("{acks}-{codec}"), acks, codec)));
    let topics: Vec<_> = kinds.as_flattened().iter().map(|(topic, ..)| topic.as_str()).collect();
    kafka.create_topics(&topics, PARTITIONS, 3, &REPLICATED).await?;
    let mut producers = Vec::new();
    for (topic, acks, codec) in kinds.into_iter().flatten() {
        let properties = [
            ("acks", acks),
            ("compression.type", codec),
            // A silent broker is given up before the fault is over, but after a busy one.
            ("request.timeout.ms", "2000"),
            // Partitions that are added are used soon.
            ("metadata.max.age.ms", "2000"),
        ];
        let client = client(&kafka.bootstrap(), &properties)?;
        let plan = Plan { topic: topic.clone(), partition: None, records: records(), patience };
        producers.push((topic, plan.start(&client)));
    }
    Ok(producers)
}

async fn ledger(version: KafkaVersion) -> anyhow::Result<()> {
    let mut kafka = Kafka::start(version, 3).await?;
    let producers = start_ten(&kafka).await?;
    let topics: Vec<_> = producers.iter().map(|(topic, _)| topic.as_str()).collect();
    for (round, fault) in (0..).zip(FAULTS) {
        for (_, producer) in &producers {
            producer.release(records() * (u64::try_from(round)? + 1) / 6);
        }
        for (_, producer) in &producers {
            producer.until_written(500).await?;
        }
        strike(&mut kafka, fault, ("all-none", round)).await?;
        if round == 2 {
            kafka.add_partitions(&topics, PARTITIONS + 2).await?;
        }
    }
    for (topic, producer) in producers {
        let told = producer.finish().await?;
        ensure!(told.len() as u64 == records(), "{} are told", told.len());
        let verdict = judge_topic(&kafka, &topic, &told).await?;
        assert!(verdict.written > told.len() * 7 / 10, "{topic}: {verdict}");
        let is_added = |told: &SentRecord| place(told).is_some_and(|(at, _)| at >= PARTITIONS);
        assert!(told.iter().any(is_added), "{topic}: the added partitions are not used");
        if topic.starts_with("all") {
            verdict.is_exact().context(topic)?;
        } else {
            verdict.is_honest().context(topic.clone())?;
            assert_lost_with_leaders(&kafka, &topic, &verdict).await?;
        }
    }
    Ok(())
}

fn place(told: &SentRecord) -> Option<(i32, i64)> {
    match told.outcome {
        Outcome::Written { partition, offset, .. } => Some((partition, offset?)),
        _ => None,
    }
}

/// With acks=1 a leader acknowledges alone. What its followers have not fetched when another takes
/// over is cut off its log: also when it shuts down gracefully, and also what it acknowledges when it
/// wakes up and does not know yet that it was replaced. No client can help that. So a missing record
/// must be at or behind the offset from which on a later leader wrote.
async fn assert_lost_with_leaders(
    kafka: &Kafka,
    topic: &str,
    verdict: &Verdict,
) -> anyhow::Result<()> {
    assert!(verdict.missing.len() < verdict.written / 5, "{topic}: {verdict}");
    let mut taken_over = HashMap::new();
    for missing in &verdict.missing {
        let (partition, offset) = place(missing).context("no place")?;
        let start = match taken_over.entry(partition) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(unknown) => {
                let leader = kafka.leader_of(topic, partition).await?;
                let epochs = kafka.leader_epochs(leader, topic, partition)?;
                let second = epochs.get(1).with_context(|| format!("one leader: {missing:?}"))?;
                *unknown.insert(second.1)
            }
        };
        ensure!(start <= offset, "{topic}: {missing:?}, but no other leader wrote before {start}");
    }
    Ok(())
}

/// Sends numbered requests, round after round, until it is told that this one is the last.
async fn rounds(port: u16, last: Arc<AtomicBool>) -> anyhow::Result<Vec<Report>> {
    let mut reports = Vec::new();
    loop {
        let is_last = last.load(Relaxed);
        let requests = Requests::post("/", "text/plain", |number| number.to_string().into());
        let first = reports.len() as u64 * ROUND;
        let load = Load::new(port, requests).first(first).connections(64);
        reports.push(load.limit(Limit::Requests(ROUND)).run().await?);
        if is_last {
            return Ok(reports);
        }
    }
}

/// The whole way: the leader is killed while clients are answered.
async fn gateway(version: KafkaVersion) -> anyhow::Result<()> {
    let acked =
        json!({ "producer_async": false, "producer_request_acks": -1, "delivery_timeout": 8000 });
    let kafka = Kafka::start(version, 3).await?;
    let mut gateway = Gateway::start_with(kafka, 1, (3, &REPLICATED), &[("orders", acked)]).await?;
    let last = Arc::new(AtomicBool::new(false));
    let running = tokio::spawn(rounds(gateway.envoy.port("orders")?, last.clone()));
    wait_until("some answers", Duration::from_secs(60), async || {
        let written = gateway.gauge("records_written").await?;
        ensure!(written > 1000, "{written} are written");
        Ok(())
    })
    .await?;
    strike(&mut gateway.kafka, BrokerFault::Kill, ("orders", 0)).await?;
    last.store(true, Relaxed);
    let reports = running.await??;
    gateway.wait_until_empty().await?;
    let written = bodies(&gateway.records("orders").await?)?;
    let mut answered = 0;
    for (number, ending) in reports.iter().flat_map(Report::endings) {
        let copies = written.get(&number.to_string()).copied().unwrap_or(0);
        match ending {
            Ending::Status(200) => assert_eq!(copies, 1, "{number} was answered 200"),
            Ending::Status(503) => assert_eq!(copies, 0, "{number} was answered 503"),
            Ending::Status(504) => assert!(copies <= 1, "{number} was answered 504"),
            other => bail!("{number} ended as {other:?}"),
        }
        answered += u64::from(ending == Ending::Status(200));
    }
    let sent = reports.len() as u64 * ROUND;
    println!(
        "{version:?} gateway: {answered} of {sent} answered 200, {} in the log",
        written.len()
    );
    assert!(answered > sent * 9 / 10);
    Ok(())
}

on_both_versions! {
    no_outcome_is_false_while_leaders_fail: super::ledger;
    a_200_is_in_the_log_though_the_leader_was_killed: super::gateway;
}
