//! Batches whose records fit their schemas, or do not.

use std::time::Duration;

use kafka_client::fake_broker::{FakeCluster, FakeSettings};
use kafka_client::{Config, HttpsTrust};
use serde_json::json;

use super::*;
use crate::batches;
use crate::pipeline::{Limits, Pipeline};
use crate::registry::connection::Connection;
use crate::registry::fixture::FakeRegistry;

fn subject(name: &str) -> Option<Subject> {
    let subject = json!({ "subject_name": name, "schema_version": "latest" });
    Some(serde_json::from_value(subject).unwrap())
}

fn rule(fake: &FakeRegistry, key: Option<Subject>, value: Option<Subject>) -> Rule {
    let (connection, place) = (fake.connection(), SchemaIdPlace::Prefix);
    Rule { topics: None, connection, key, value, place }
}

fn encoder(rule: Rule) -> Encoder {
    Encoder::new(&[rule], &Registries::new(&Default::default(), &Default::default())).unwrap()
}

fn record<'a>(key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Record<'a> {
    Record { topic: "orders", partition: None, timestamp_ms: 5, key, value, headers: Vec::new() }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn reason(outcome: &Outcome) -> (Code, &str) {
    let reason = outcome.reason().unwrap();
    (reason.code, &reason.detail)
}

#[tokio::test]
async fn one_record_that_does_not_fit_hurts_no_other() {
    let fake = FakeRegistry::with_orders().await;
    let kafka = FakeCluster::new(FakeSettings::default());
    kafka.create_topic("orders", &[1]);
    let properties = [("bootstrap.servers", &*kafka.bootstrap())];
    let config = Config::from_properties(properties).unwrap();
    let producer = config.producer.clone();
    let encoder = encoder(rule(&fake, None, subject("orders-value")));
    let pipeline = Pipeline::new("default", kafka.client(config), &producer, Some(encoder));
    let values = [
        Some(&br#"{"id":1}"#[..]),
        Some(br#"{"name":"secret"}"#),
        None,
        Some(b"no JSON: secret"),
        Some(br#"{"id":2}"#),
    ];
    let records = values.map(|value| record(None, value));
    let limits = Limits { waiting: soon(), delivery: soon() };
    let outcomes = batches::enqueue(&pipeline, &records, limits).await.outcomes().await;
    let is_written = outcomes.iter().map(|outcome| matches!(outcome, Outcome::Written { .. }));
    assert_eq!(is_written.collect::<Vec<_>>(), [true, false, true, false, true], "{outcomes:?}");
    for position in [1, 3] {
        let (code, detail) = reason(&outcomes[position]);
        assert_eq!(code, Code::SchemaMismatch);
        assert!(detail.starts_with("the value does not fit orders-value version 1: $"), "{detail}");
        assert!(!detail.contains("secret"), "{detail}");
    }
    let log = kafka.log("orders", 0);
    let values: Vec<_> =
        log.iter().map(|record| record.value.as_deref().map(<[u8]>::to_vec)).collect();
    let framed = |json: &[u8]| Some([b"\0\0\0\0\x07", json].concat());
    assert_eq!(values, [framed(br#"{"id":1}"#), None, framed(br#"{"id":2}"#)]);
}

#[tokio::test]
async fn headers_name_the_schemas_where_that_is_asked_for() {
    let fake = FakeRegistry::start().await;
    let text = r#"{"type":"string"}"#;
    let guid = "0123abcd-4567-89ab-cdef-00112233ffee";
    fake.schema("k", 1, &json!({ "schema": text, "schemaType": "JSON", "id": 3 }));
    fake.schema("v", 1, &json!({ "schema": text, "schemaType": "JSON", "id": 4, "guid": guid }));
    let place = SchemaIdPlace::Header;
    let encoder = encoder(Rule { place, ..rule(&fake, subject("k"), subject("v")) });
    let forged: Vec<(&[u8], Option<&[u8]>)> =
        vec![(b"a", Some(b"1")), (b"__value_schema_id", Some(b"forged"))];
    let records = [Record { headers: forged, ..record(Some(b"me"), Some(br#""x""#)) }];
    let encoded = encoder.encode(&records, soon()).await;
    let records = encoded.records(&records);
    let [Record { key, value, headers, .. }] = &records[..] else { panic!("one record") };
    assert_eq!((*key, *value), (Some(&br#""me""#[..]), Some(&br#""x""#[..])));
    let value_id = b"\x01\x01\x23\xab\xcd\x45\x67\x89\xab\xcd\xef\x00\x11\x22\x33\xff\xee";
    let expected: [(&[u8], Option<&[u8]>); 3] = [
        (b"a", Some(b"1")),
        (b"__key_schema_id", Some(b"\0\0\0\0\x03")),
        (b"__value_schema_id", Some(value_id)),
    ];
    assert_eq!(headers[..], expected);
}

#[tokio::test]
async fn a_key_is_json_or_else_a_text() {
    let fake = FakeRegistry::start().await;
    for (subject, kind) in [("text", "string"), ("number", "integer")] {
        let schema = json!({ "type": kind }).to_string();
        fake.schema(subject, 1, &json!({ "schema": schema, "schemaType": "JSON", "id": 1 }));
    }
    for (subject_name, key, encoded) in [
        ("text", "me", Some(r#""me""#)),
        ("text", r#""me""#, Some(r#""me""#)),
        ("text", "5", Some(r#""5""#)),
        ("number", "5", Some("5")),
        ("number", "me", None),
    ] {
        let encoder = encoder(rule(&fake, subject(subject_name), None));
        let records = [record(Some(key.as_bytes()), Some(b"as it is"))];
        let result = encoder.encode(&records, soon()).await;
        let records = result.records(&records);
        let found = records.first().map(|record| record.key.unwrap()[5..].to_vec());
        assert_eq!(found, encoded.map(|it| it.as_bytes().to_vec()), "{subject_name} {key}");
        assert!(records.iter().all(|record| record.value == Some(b"as it is")));
    }
}

#[tokio::test]
async fn without_its_schema_a_record_is_not_written() {
    let fake = FakeRegistry::with_orders().await;
    let records = [record(None, Some(br#"{"id":1}"#))];
    let outcome = async |rule: Rule, until| {
        let encoded = encoder(rule).encode(&records, until).await;
        assert!(encoded.records(&records).is_empty());
        encoded.outcomes(Vec::new()).remove(0)
    };
    let unknown = outcome(rule(&fake, None, subject("missing")), soon()).await;
    assert_eq!(reason(&unknown).0, Code::RegistryRefused, "{unknown:?}");
    fake.answer_all(Some((503, "")));
    let away = outcome(rule(&fake, None, subject("orders-value")), soon()).await;
    assert_eq!(reason(&away).0, Code::RegistryUnavailable, "{away:?}");
    // One that takes the question and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let confluent = registry::Confluent { url: Some(url), ..Default::default() };
    let connection = Connection::new(&confluent, HttpsTrust::System);
    let rule = Rule { connection, ..rule(&fake, None, subject("orders-value")) };
    let late = outcome(rule, Instant::now() + Duration::from_millis(50)).await;
    let late = reason(&late);
    assert_eq!(late.0, Code::RegistryUnavailable);
    assert!(late.1.ends_with("it did not answer in time"), "{late:?}");
}

#[tokio::test]
async fn other_topics_have_no_schema() {
    let fake = FakeRegistry::start().await;
    let topics = Some(vec!["other".to_owned()]);
    let encoder = encoder(Rule { topics, ..rule(&fake, None, subject("orders-value")) });
    let records = [record(Some(b"k"), Some(b"as it is"))];
    let encoded = encoder.encode(&records, soon()).await;
    assert_eq!(encoded.records(&records), records);
    assert!(fake.heads().is_empty());
}
