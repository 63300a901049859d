//! Batches against brokers in memory.

use http_body_util::BodyExt as _;
use kafka_client::fake_broker::{Fault, METADATA, PRODUCE, When};
use kafka_upstream_core::record::Record;
use kafka_upstream_core::registry::SchemaIdPlace;

use super::*;
use crate::encoding::Encoder;
use crate::queued::tests::Parts;
use crate::registry::Rule;
use crate::registry::fixture::FakeRegistry;
use crate::registry::registries::Registries;

const PROFILE: [u8; 32] = [7; 32];

fn frame(sequence: u64, delivery: Delivery, budget_ms: u32, value: &str) -> Vec<u8> {
    let head =
        Head { profile: PROFILE, vm: [1; 16], sequence, delivery, budget_ms, settled_below: 0 };
    let record = Record {
        topic: "orders",
        partition: Some(0),
        timestamp_ms: 5,
        key: None,
        value: Some(value.as_bytes()),
        headers: Vec::new(),
    };
    let record = wire::encode_record(&record).unwrap();
    wire::encode_frame(&head, std::iter::once(record.as_slice())).unwrap()
}

fn parts(properties: &[(&str, &str)]) -> Parts {
    let parts = Parts::new(properties);
    parts.bridge.profiles.put(PROFILE, &parts.pipeline);
    parts
}

async fn send(parts: &Parts, frame: &[u8]) -> (u16, Bytes) {
    let request = Request::post("/v1/produce")
        .header(header::CONTENT_TYPE, wire::BATCH_TYPE)
        .body(Body::from(frame.to_vec()));
    let reply = produce(State(parts.bridge.clone()), request.unwrap()).await;
    let status = reply.status().as_u16();
    (status, reply.into_body().collect().await.unwrap().to_bytes())
}

/// As a filter does in memory mode: the same batch, until the bridge gives outcomes.
async fn send_until_settled(parts: &Parts, frame: &[u8]) -> (usize, Vec<Outcome>) {
    for attempt in 1..1000 {
        match send(parts, frame).await {
            (200, body) => return (attempt, wire::decode_outcomes(&body).unwrap()),
            (504, body) => assert!(body.starts_with(br#"{"code":"in_progress""#), "{body:?}"),
            (status, body) => panic!("{status} {body:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no outcomes")
}

fn is_written(outcomes: &[Outcome]) -> bool {
    outcomes.iter().all(|outcome| matches!(outcome, Outcome::Written { .. }))
}

fn kongs() -> [(&'static str, &'static str); 2] {
    [("retries", "2"), ("request.timeout.ms", "2000")]
}

#[tokio::test(start_paused = true)]
async fn what_is_in_doubt_in_memory_mode_is_resolved_under_the_same_identity() {
    for seconds in [16, 120, 3600] {
        let parts = parts(&kongs());
        parts.kafka.arm(PRODUCE, When::Nth(1), Fault::CloseAfter);
        let frame = frame(1, Delivery::Memory, 10_000, "once");
        let sending = send_until_settled(&parts, &frame);
        let outage = async {
            while parts.written().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            parts.kafka.kill(1);
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            parts.kafka.restart(1);
        };
        let ((attempts, outcomes), ()) = tokio::join!(sending, outage);
        assert!(attempts > 1 && is_written(&outcomes), "{attempts} {outcomes:?}");
        assert_eq!(parts.written(), ["once"], "after {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn what_never_left_the_bridge_in_its_budget_is_not_written_in_memory_mode() {
    let parts = parts(&kongs());
    parts.kafka.kill(1);
    let (status, body) = send(&parts, &frame(1, Delivery::Memory, 2000, "never")).await;
    let outcomes = wire::decode_outcomes(&body).unwrap();
    assert_eq!(status, 200);
    assert!(matches!(outcomes[..], [Outcome::NotWritten(_)]), "{outcomes:?}");
    let failing = parts.bridge.metrics.failing.json();
    assert_eq!(failing[0]["topic"], "orders");
}

#[tokio::test(start_paused = true)]
async fn a_batch_under_way_in_memory_mode_is_told_as_failing_within_a_minute() {
    let parts = parts(&kongs());
    let (first, second) = (frame(1, Delivery::Memory, 10_000, "a"), 600_000);
    assert!(is_written(&send_until_settled(&parts, &first).await.1));
    parts.kafka.kill(1);
    let second = frame(2, Delivery::Memory, second, "b");
    let patience = Duration::from_secs(60);
    assert!(tokio::time::timeout(patience, send(&parts, &second)).await.is_err());
    assert_eq!(parts.bridge.metrics.failing.json()[0]["topic"], "orders");
    parts.kafka.restart(1);
    assert!(is_written(&send_until_settled(&parts, &second).await.1));
    assert_eq!(parts.written(), ["a", "b"]);
    assert!(parts.bridge.metrics.failing.json().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_sent_again_within_an_hour_is_written_once() {
    let parts = parts(&kongs());
    let frame = frame(1, Delivery::Acked, 3_600_000, "once");
    let (_, first) = send(&parts, &frame).await;
    for seconds in [61, 3000] {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        assert_eq!(send(&parts, &frame).await, (200, first.clone()));
    }
    assert_eq!(parts.written(), ["once"]);
}

#[tokio::test(start_paused = true)]
async fn other_records_under_the_same_number_are_unknown_and_not_written() {
    let parts = parts(&kongs());
    assert_eq!(send(&parts, &frame(1, Delivery::Acked, 5000, "one")).await.0, 200);
    let (status, body) = send(&parts, &frame(1, Delivery::Acked, 5000, "other")).await;
    assert_eq!(status, 500);
    assert!(body.starts_with(br#"{"code":"batch_conflict""#), "{body:?}");
    assert_eq!(parts.written(), ["one"]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_whose_first_is_cut_off_before_it_is_enqueued_takes_its_place() {
    let parts = parts(&kongs());
    parts.kafka.arm(METADATA, When::Nth(1), Fault::CloseBefore);
    parts.kafka.kill(1);
    let frame = frame(1, Delivery::Acked, 60_000, "once");
    let first = async {
        let cut_off = tokio::time::timeout(Duration::from_secs(5), send(&parts, &frame));
        assert!(cut_off.await.is_err());
        parts.kafka.restart(1);
    };
    let second = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        send(&parts, &frame).await
    };
    let ((), (status, body)) = tokio::join!(first, second);
    assert_eq!(status, 200);
    assert!(is_written(&wire::decode_outcomes(&body).unwrap()));
    assert_eq!(parts.written(), ["once"]);
}

/// What a record that was not written tells its client, and after how many seconds.
async fn told(parts: &Parts, sequence: u64) -> (Code, bool, u64) {
    let started = Instant::now();
    let (status, body) = send(parts, &frame(sequence, Delivery::Acked, 10_000, "a")).await;
    assert_eq!(status, 200);
    let seconds = started.elapsed().as_secs();
    match &*wire::decode_outcomes(&body).unwrap() {
        [Outcome::NotWritten(reason)] => (reason.code, false, seconds),
        [Outcome::Unknown(reason)] => (reason.code, true, seconds),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_away_is_named_and_waited_for_2_s() {
    let parts = parts(&kongs());
    parts.kafka.kill(1);
    assert_eq!(told(&parts, 1).await, (Code::KafkaUnreachable, false, 10));
    assert_eq!(told(&parts, 2).await, (Code::KafkaUnreachable, false, 2));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(told(&parts, 3).await, (Code::KafkaUnreachable, false, 2));
    let back = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        parts.kafka.restart(1);
    };
    let frame = frame(4, Delivery::Acked, 10_000, "b");
    let ((_, body), ()) = tokio::join!(send(&parts, &frame), back);
    assert!(is_written(&wire::decode_outcomes(&body).unwrap()), "it came back in time");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_freezes_is_named_and_waited_for_2_s() {
    let parts = parts(&kongs());
    let first = frame(1, Delivery::Acked, 10_000, "before");
    assert!(is_written(&wire::decode_outcomes(&send(&parts, &first).await.1).unwrap()));
    for api in [METADATA, PRODUCE] {
        parts.kafka.arm(api, When::PerMille(1000), Fault::HalfOpen);
    }
    assert_eq!(told(&parts, 2).await, (Code::KafkaUnreachable, true, 10));
    assert_eq!(told(&parts, 3).await.2, 2);
    parts.kafka.disarm();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let last = frame(4, Delivery::Acked, 10_000, "after");
    assert!(is_written(&wire::decode_outcomes(&send(&parts, &last).await.1).unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_partition_without_a_leader_is_named() {
    let parts = parts(&kongs());
    parts.kafka.lead("orders", 0, None);
    assert_eq!(told(&parts, 1).await, (Code::NoLeader, false, 10));
    assert_eq!(told(&parts, 2).await, (Code::NoLeader, false, 10), "the cluster answers");
    parts.kafka.kill(1);
    assert_eq!(told(&parts, 3).await.0, Code::KafkaUnreachable, "that is old when nobody answers");
}

#[tokio::test]
async fn what_does_not_fit_its_schema_is_refused_before_it_is_queued() {
    let fake = FakeRegistry::with_orders().await;
    let subject = r#"{"subject_name":"orders-value","schema_version":"latest"}"#;
    let rule = Rule {
        topics: None,
        connection: fake.connection(),
        key: None,
        value: Some(serde_json::from_str(subject).unwrap()),
        place: SchemaIdPlace::Prefix,
    };
    let registries = Registries::new(&Default::default(), &Default::default());
    let encoder = Encoder::new(std::slice::from_ref(&rule), &registries);
    let parts = Parts::with(&[], encoder);
    parts.bridge.profiles.put(PROFILE, &parts.pipeline);
    let outcome = async |sequence, value| {
        let (status, body) = send(&parts, &frame(sequence, Delivery::Queued, 10_000, value)).await;
        assert_eq!(status, 200);
        wire::decode_outcomes(&body).unwrap().remove(0)
    };
    assert_eq!(outcome(1, r#"{"id":1}"#).await, Outcome::Queued);
    let Outcome::NotWritten(reason) = outcome(2, "{}").await else { panic!("it does not fit") };
    assert_eq!(reason.code, Code::SchemaMismatch);
    // What is queued is not encoded again, by whatever version comes next.
    fake.answer_all(Some((404, r#"{"error_code":40401}"#)));
    parts.bridge.queued.drain(Instant::now() + Duration::from_secs(10)).await;
    assert_eq!(parts.written(), ["\0\0\0\0\x07{\"id\":1}"]);
}
