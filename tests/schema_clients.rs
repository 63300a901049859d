//! What is written by schemas, decoded by Confluent's client for Python: to what was sent.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use harness::bridge::Bridge;
use harness::http::Request;
use harness::kafka::Kafka;
use harness::reader::read_all;
use harness::registry::SchemaRegistry;
use kafka_upstream_tests::fake_server::{self, FakeServer};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use xtask::tools;

const LINE: &str = r#"{"type":"record","name":"Line","namespace":"com.acme","fields":[
    {"name":"sku","type":"string"},{"name":"count","type":"int","default":1}]}"#;

/// Every type of Avro.
const AVRO: &str = r#"{"type":"record","name":"Everything","namespace":"com.acme","fields":[
    {"name":"flag","type":"boolean"},
    {"name":"small","type":"int"},
    {"name":"large","type":"long"},
    {"name":"ratio","type":"float"},
    {"name":"exact","type":"double"},
    {"name":"data","type":"bytes"},
    {"name":"digest","type":{"type":"fixed","name":"Digest","size":4}},
    {"name":"color","type":{"type":"enum","name":"Color","symbols":["RED","GREEN"]}},
    {"name":"counts","type":{"type":"map","values":"long"}},
    {"name":"choices","type":{"type":"array",
        "items":["null","boolean","int","long","double","string","Line"]}},
    {"name":"lines","type":{"type":"array","items":"com.acme.Line"}},
    {"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":30,"scale":4}},
    {"name":"price","type":{"type":"fixed","name":"Price","size":8,
        "logicalType":"decimal","precision":10,"scale":2}},
    {"name":"uuid","type":{"type":"string","logicalType":"uuid"}},
    {"name":"day","type":{"type":"int","logicalType":"date"}},
    {"name":"millis","type":{"type":"int","logicalType":"time-millis"}},
    {"name":"micros","type":{"type":"long","logicalType":"time-micros"}},
    {"name":"instant","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"moment","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"local","type":{"type":"long","logicalType":"local-timestamp-micros"}},
    {"name":"parent","type":["null","Everything"],"default":null},
    {"name":"unset","type":{"type":"array","items":"string"},"default":["a","b"]}]}"#;

const KEY: &str = r#"{"type":"record","name":"Key","fields":[{"name":"id","type":"long"}]}"#;

const JSON_SCHEMA: &str = r#"{"type":"object","required":["id"],"properties":{
    "id":{"type":"integer"},"line":{"$ref":"line.json"}}}"#;

const JSON_LINE: &str = r#"{"type":"object","properties":{"sku":{"type":"string"}}}"#;

const PROTOBUF: &str = r#"syntax = "proto3";
    package com.acme;
    message Order {
      int64 id = 1;
      repeated Line order_lines = 2;
      map<string, sint64> counts = 3;
      repeated double ratios = 4;
      message Line {
        string sku = 1;
        bytes payload = 2;
      }
    }"#;

const GUID: &str = "0123abcd-4567-89ab-cdef-00112233ffee";

/// The topics, each with one partition.
pub(crate) const TOPICS: [&str; 5] =
    ["avro", "avro-header", "avro-guid", "json-schema", "protobuf"];

/// A registry whose schemas have GUIDs, which Apicurio lacks.
pub(crate) async fn registry_of_guids() -> anyhow::Result<FakeServer> {
    let schema = json!({ "subject": "line", "version": 1, "id": 7, "guid": GUID, "schema": LINE });
    let schema = Arc::new(schema.to_string());
    FakeServer::start(move |stream| answer(stream, Arc::clone(&schema))).await
}

async fn answer(mut stream: TcpStream, schema: Arc<String>) -> anyhow::Result<()> {
    let path = fake_server::target(&mut stream).await?;
    let path = path.split('?').next().unwrap_or_default();
    let is_known =
        path == "/subjects/line/versions/latest" || path == format!("/schemas/guids/{GUID}");
    let (status, body) = if is_known { ("200", schema.as_str()) } else { ("404", "{}") };
    fake_server::answer(&mut stream, status, body).await
}

/// The sections of the bridge's configuration; the registry `main` is in another one.
pub(crate) fn sections(guids: &FakeServer) -> String {
    let of = |part: &str, subject: &str, version: &str| {
        format!(
            "{part}_schema = {{ subject_name = '{subject}', schema_version = {version}, \
             payload_encoding = 'simple_json' }}\n"
        )
    };
    let section = |topic: &str, registry: &str, lines: &[&str]| {
        let lines = lines.concat();
        format!("[schemas.{topic}]\nregistry = '{registry}'\ntopics = ['{topic}']\n{lines}")
    };
    let (value, header) = (|subject| of("value", subject, "'latest'"), "schema_id = 'header'\n");
    [
        format!("[registries.guids]\nurl = 'http://{}'\n", guids.address()),
        section("avro", "main", &[&value("avro-value"), &of("key", "avro-key", "1")]),
        section("avro-header", "main", &[header, &value("avro-value")]),
        section("avro-guid", "guids", &[header, &value("line")]),
        section("json-schema", "main", &[&of("value", "json-schema-value", "1")]),
        section("protobuf", "main", &[&of("value", "protobuf-value", "1")]),
    ]
    .concat()
}

/// What is sent, and read again.
fn documents() -> [(&'static str, Value); 5] {
    // The client takes payloads of five bytes and less for none, wherever the id is.
    let line = json!({ "sku": "A-1001", "count": 1 });
    let everything = json!({
        "flag": true,
        "small": -2_147_483_648_i64,
        "large": 9_007_199_254_740_993_i64,
        "ratio": 0.25,
        "exact": 0.1,
        "data": "AP8=",
        "digest": "AAECAw==",
        "color": "GREEN",
        "counts": { "ä": 1, "b": -9_223_372_036_854_775_808_i64 },
        "choices": [null, true, 5, 9_223_372_036_854_775_807_i64, 0.5, "text", line],
        "lines": [line],
        "amount": "-12345678901234567890.1250",
        "price": "0.07",
        "uuid": "6f9619ff-8b86-d011-b42d-00c04fc964ff",
        "day": "2026-11-30",
        "millis": "12:30:00.500000",
        "micros": "12:30:00.000001",
        "instant": "2026-11-30T12:30:00.123000+00:00",
        "moment": "1969-12-31T23:59:59.999999+00:00",
        "local": "2026-11-30T12:30:00.000001",
        "parent": null,
        "unset": ["a", "b"],
    });
    let message = json!({
        "id": "9007199254740993",
        "orderLines": [{ "sku": "A-1", "payload": "AP8=" }, { "sku": "", "payload": "" }],
        "counts": { "a": "-3" },
        "ratios": [0.1, 1e300],
    });
    [
        ("avro", everything.clone()),
        ("avro-header", everything),
        ("avro-guid", line),
        ("json-schema", json!({ "id": 9_007_199_254_740_993_i64, "line": { "sku": "A-1" } })),
        ("protobuf", message),
    ]
}

pub(crate) async fn clients_decode_what_was_sent(
    bridge: &Bridge,
    kafka: &Kafka,
    registry: &SchemaRegistry,
    guids: &FakeServer,
) -> anyhow::Result<()> {
    registry.register("line", "AVRO", LINE).await?;
    registry.register("json-line", "JSON", JSON_LINE).await?;
    let refers =
        |name: &str, subject: &str| json!([{ "name": name, "subject": subject, "version": 1 }]);
    let with = async |subject, kind, schema, references| {
        registry.register_with(subject, kind, schema, references).await.map(drop)
    };
    with("avro-value", "AVRO", AVRO, refers("com.acme.Line", "line")).await?;
    with("json-schema-value", "JSON", JSON_SCHEMA, refers("line.json", "json-line")).await?;
    registry.register("avro-key", "AVRO", KEY).await?;
    registry.register("protobuf-value", "PROTOBUF", PROTOBUF).await?;
    for (topic, mut sent) in documents() {
        // The schema's default.
        sent.as_object_mut().and_then(|members| members.remove("unset"));
        let path = format!("/v1/clusters/default/topics/{topic}");
        let mut request = Request::post(&path, sent.to_string());
        if topic == "avro" {
            request = request.header("kafka-key", r#"{"id":9007199254740993}"#);
        }
        let reply = request.send(bridge.port()).await?;
        ensure!(reply.status == 200, "{topic}: {}", reply.text());
    }
    let guids = format!("http://{}", guids.address());
    let decoded = decoded(&[kafka.bootstrap(), registry.url(), guids]).await?;
    for (line, (topic, sent)) in decoded.lines().zip(documents()) {
        let key =
            if topic == "avro" { json!({ "id": 9_007_199_254_740_993_i64 }) } else { Value::Null };
        assert_eq!(serde_json::from_str::<Value>(line)?, json!([topic, key, sent]));
    }
    assert_eq!(decoded.lines().count(), TOPICS.len());
    Ok(())
}

/// The refusal names the place, and quotes no value.
pub(crate) async fn what_does_not_fit_is_refused(
    bridge: &Bridge,
    kafka: &Kafka,
) -> anyhow::Result<()> {
    const LINES: &str = r#"{"orderLines":[{"sku":"A"},{"payload":"hunter2!"}]}"#;
    for (topic, part, document, place) in [
        ("avro", "key", r#"{"id":"hunter2"}"#, "$.id"),
        ("json-schema", "value", r#"{"id":"hunter2"}"#, "$.id"),
        ("json-schema", "value", r#"{"hunter2":1}"#, "$"),
        ("json-schema", "value", r#"{"id":1,"line":{"sku":["hunter2"]}}"#, "$.line.sku"),
        ("protobuf", "value", r#"{"id":"hunter2"}"#, "$.id"),
        ("protobuf", "value", LINES, "$.orderLines[1].payload"),
        ("protobuf", "value", r#"{"counts":{"a":0.5}}"#, "$.counts"),
    ] {
        let path = format!("/v1/clusters/default/topics/{topic}");
        let request = match part {
            "key" => Request::post(&path, "{}").header("kafka-key", document),
            _ => Request::post(&path, document),
        };
        let reply = request.send(bridge.port()).await?;
        let told: Value = reply.json()?;
        let error = told.get("error").and_then(Value::as_str).unwrap_or_default();
        assert_eq!((reply.status, reply.header("kafka-error")), (422, Some("schema_mismatch")));
        let start = format!("the {part} does not fit {topic}-{part} version 1: {place}");
        assert!(error.starts_with(&start) && !error.contains("hunter2"), "{document}: {error}");
        let written = read_all(&kafka.bootstrap(), topic).await?.len();
        assert_eq!(written, 1, "{topic}");
    }
    let log = std::fs::read_to_string(bridge.process().log())?;
    assert!(!log.contains("hunter2"), "{log}");
    Ok(())
}

/// What Confluent's client prints.
async fn decoded(arguments: &[String]) -> anyhow::Result<String> {
    let packages = spawn_blocking(tools::confluent_kafka).await??;
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", packages).args(["-W", "ignore"]);
    python.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python/schema_clients.py"));
    python.args(arguments);
    let output = spawn_blocking(move || python.output()).await?.context("python3")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
