//! The ledger: what clients were told, against what Kafka holds, record by record.

use std::collections::HashSet;
use std::time::Duration;

use harness::load::{Ending, HangUp, Limit, Load, Report, Requests};
use kafka_upstream_tests::{Gateway, bodies};
use serde_json::{Value, json};

const REQUESTS: u64 = 100_000;
/// Rounds of clients that hang up, and the requests of each: 100,000 in all.
const ROUNDS: u64 = 8;
const ROUND: u64 = 12_500;
/// Rounds that find how many requests there are at a time, at most.
const WARM: usize = 3;
/// Growth a request from which on it is a leak: an empty hash map takes more than that, and each
/// round of it another page of memory. Single rounds may find a new peak of requests at a time.
const LEAK_BYTES: u64 = 8;

/// Requests whose body is their number.
fn numbered() -> Requests {
    Requests::post("/", "text/plain", |number| number.to_string().into())
}

fn told(report: &Report, ending: Ending) -> HashSet<String> {
    let same = report.endings().filter(|(_, end)| *end == ending);
    same.map(|(number, _)| number.to_string()).collect()
}

async fn a_hundred_thousand(mode: Value) -> anyhow::Result<()> {
    let gateway = Gateway::start(&[("ledger", mode)]).await?;
    let load = Load::new(gateway.envoy.port("ledger")?, numbered());
    let report = load.connections(128).limit(Limit::Requests(REQUESTS)).run().await?;
    gateway.wait_until_empty().await?;
    assert_eq!(report.count(200), REQUESTS, "{:?}", report.counts());
    let written = bodies(&gateway.records("ledger").await?)?;
    let twice: Vec<_> = written.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "written twice: {twice:?}");
    let written: HashSet<_> = written.into_keys().collect();
    assert!(written == told(&report, Ending::Status(200)), "{} are written", written.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_acked_mode_kafka_holds_exactly_what_was_answered_200() -> anyhow::Result<()> {
    a_hundred_thousand(json!({ "producer_async": false })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn in_memory_mode_kafka_holds_exactly_what_was_answered_200() -> anyhow::Result<()> {
    a_hundred_thousand(json!({ "producer_async": true })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_callout_a_request_kafka_holds_exactly_what_was_answered_200() -> anyhow::Result<()>
{
    a_hundred_thousand(json!({ "producer_async": false, "group_commit": false })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_takes_nobodys_answer_and_leaves_nothing_behind() -> anyhow::Result<()> {
    let grouped = ("grouped", json!({ "producer_async": false }));
    let single = ("single", json!({ "producer_async": false, "group_commit": false }));
    let fields = json!({ "producer_async": false, "allow_on_headers_stop_iteration": false });
    a_third_hangs_up(1, &[grouped]).await?;
    a_third_hangs_up(2, &[("headers-go-on", fields), single]).await
}

/// A thousand clients, a third of which leave while they wait.
async fn a_third_hangs_up(workers: u32, modes: &[(&str, Value)]) -> anyhow::Result<()> {
    let gateway = Gateway::start_on(harness::kafka::KafkaVersion::V4_3, workers, modes).await?;
    for (topic, _) in modes {
        let mut memory = Vec::new();
        let mut answered = HashSet::new();
        let mut places = Vec::new();
        for round in 0..ROUNDS {
            let load = Load::new(gateway.envoy.port(topic)?, numbered())
                .first(round * ROUND)
                .connections(1000)
                .limit(Limit::Requests(ROUND))
                .hang_up(HangUp { fraction: 0.33, within: Duration::from_millis(20) });
            let report = load.run().await?;
            gateway.wait_until_empty().await?;
            let counts = report.counts();
            let expected = |end: &Ending| matches!(end, Ending::Status(200) | Ending::HungUp);
            assert!(counts.keys().all(expected), "{counts:?}");
            assert!(report.count(200) > ROUND / 2, "{counts:?}");
            answered.extend(told(&report, Ending::Status(200)));
            places.extend(report.placements().iter().map(|(number, place)| (*number, *place)));
            memory.push(gateway.gauge("memory_bytes").await?);
        }
        let records = gateway.records(topic).await?;
        let written = bodies(&records)?;
        assert!(written.values().all(|times| *times == 1), "something is written twice");
        assert!(answered.iter().all(|body| written.contains_key(body)), "a 200 is missing");
        // Each answer names the place of the client's own record, so no answer went astray.
        let mut at = std::collections::HashMap::new();
        for record in &records {
            let body =
                record.json()?.get("body").and_then(Value::as_str).unwrap_or_default().to_owned();
            at.insert((record.partition, record.offset), body);
        }
        assert_eq!(places.len(), answered.len());
        for (number, place) in places {
            let found = at.get(&(place.partition, place.offset));
            assert_eq!(found, Some(&number.to_string()), "{place:?}");
        }
        let later = memory.iter().skip(WARM);
        let pairs = later.zip(memory.iter().skip(WARM - 1));
        let growth: Vec<u64> = pairs.map(|(now, before)| now.saturating_sub(*before)).collect();
        assert!(growth.contains(&0), "the VM grows with every round: {memory:?}");
        let bound = 2 * LEAK_BYTES * growth.len() as u64 * ROUND;
        assert!(growth.iter().sum::<u64>() < bound, "the VM grows: {memory:?}");
    }
    assert!(gateway.gauge("client_gone").await? > 0, "nobody hung up in time");
    Ok(())
}
