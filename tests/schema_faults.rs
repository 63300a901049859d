//! A registry that answers with anything but a schema: each record is refused as specified, other routes go
//! on, and all is well by itself once the registry is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::ensure;
use harness::bridge::{Bridge, Settings};
use harness::http::{Request, Response};
use harness::kafka::{Kafka, KafkaVersion};
use harness::process::wait_until;
use harness::reader::read_all;
use kafka_upstream_tests::fake_server::{self, FakeServer};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What every subject has once its fault is over.
const SCHEMA: &str = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"long"}]}"#;

const UNAVAILABLE: (u16, &str) = (503, "registry_unavailable");
const REFUSED: (u16, &str) = (500, "registry_refused");

/// The subjects, by what the registry does about each, and what a record gets.
const FAULTS: [(&str, (u16, &str)); 13] = [
    ("slow", UNAVAILABLE),
    ("closed", UNAVAILABLE),
    ("500", UNAVAILABLE),
    ("429", UNAVAILABLE),
    ("503-large", UNAVAILABLE),
    ("garbage", UNAVAILABLE),
    ("endless", REFUSED),
    ("large", REFUSED),
    ("cyclic", REFUSED),
    ("unparseable", REFUSED),
    ("401", REFUSED),
    ("404", REFUSED),
    ("302", REFUSED),
];

/// How many wait at once for what the slow registry says of one subject.
const WAITING: usize = 300;

/// Longest time until a record without a schema is written beside them.
const UNHARMED: Duration = Duration::from_secs(3);

/// Without a record that waits: how long a subject's failure may be remembered, and then some.
const RECOVERY: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_of_a_registry_is_told_and_harms_no_other_route() -> anyhow::Result<()> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    let topics = FAULTS.map(|(fault, _)| fault);
    kafka.create_topics(&topics, 1, 1, &[]).await?;
    kafka.create_topics(&["plain", "well"], 1, 1, &[]).await?;
    let is_well = Arc::new(AtomicBool::new(false));
    let registry = registry(&is_well).await?;
    let section = |topic: &&str| {
        format!(
            "[schemas.{topic}]\nregistry = 'main'\ntopics = ['{topic}']\nvalue_schema = {{ \
             subject_name = '{topic}', schema_version = 'latest', payload_encoding = 'simple_json' }}\n"
        )
    };
    let sections: String = topics.iter().chain(&["well"]).map(section).collect();
    let sections = format!("[registries.main]\nurl = 'http://{}'\n{sections}", registry.address());
    let bridge = Bridge::start(Settings::to(kafka.bootstrap()).line(&sections)).await?;
    let port = bridge.port();

    ensure!(send(port, "well").await?.status == 200);
    let mut waiting = JoinSet::new();
    for _ in 0..WAITING {
        waiting.spawn(send(port, "slow"));
    }
    for (fault, expected) in FAULTS {
        is_answered(&send(port, fault).await?, expected, fault)?;
        for unharmed in ["plain", "well"] {
            let reply = tokio::time::timeout(UNHARMED, send(port, unharmed)).await??;
            ensure!(reply.status == 200, "{unharmed} beside {fault}: {}", reply.text());
        }
    }
    for reply in waiting.join_all().await {
        is_answered(&reply?, UNAVAILABLE, "slow")?;
    }
    let resident = bridge.metric("process_resident_memory_bytes", "").await?;
    ensure!(resident < 300e6, "{resident} bytes");

    is_well.store(true, Relaxed);
    for fault in topics {
        wait_until("recovery", RECOVERY, async || {
            let reply = send(port, fault).await?;
            ensure!(reply.status == 200, "{fault}: {}", reply.text());
            Ok(())
        })
        .await?;
        let written = read_all(&kafka.bootstrap(), fault).await?.len();
        ensure!(written == 1, "{fault}: {written} records, one was answered 200");
    }
    Ok(())
}

async fn send(port: u16, topic: &str) -> anyhow::Result<Response> {
    let path = format!("/v1/clusters/default/topics/{topic}");
    Request::post(&path, r#"{"id":1}"#).send(port).await
}

fn is_answered(reply: &Response, (status, code): (u16, &str), fault: &str) -> anyhow::Result<()> {
    let told = (reply.status, reply.header("kafka-error"));
    ensure!(told == (status, Some(code)), "{fault}: {told:?} {}", reply.text());
    let advised = reply.header("retry-after").is_some();
    ensure!(advised == (status == 503), "{fault}: retry-after {advised}");
    Ok(())
}

/// Has a fault for each subject that is named so, until all is well.
async fn registry(is_well: &Arc<AtomicBool>) -> anyhow::Result<FakeServer> {
    let is_well = Arc::clone(is_well);
    FakeServer::start(move |stream| play(stream, Arc::clone(&is_well))).await
}

async fn play(mut stream: TcpStream, is_well: Arc<AtomicBool>) -> anyhow::Result<()> {
    let target = fake_server::target(&mut stream).await?;
    let subject = target.split('/').nth(2).unwrap_or_default();
    let subject = if is_well.load(Relaxed) { "well" } else { subject };
    let schema = |schema: &str, references: Value| {
        let answer = json!({ "version": 1, "id": 1, "schema": schema, "references": references });
        ("200", answer.to_string())
    };
    let (status, body) = match subject {
        "slow" => std::future::pending().await,
        "closed" => return Ok(()),
        "endless" => return endless(stream).await,
        "503-large" => ("503", " ".repeat(5 << 20)),
        "garbage" => ("200", "<html>".to_owned()),
        "large" => schema(&format!("{SCHEMA}{}", " ".repeat(5 << 20)), json!([])),
        "unparseable" => schema(r#"{"type":"nothing"}"#, json!([])),
        "cyclic" => schema(SCHEMA, json!([{ "name": "R", "subject": "cyclic", "version": 1 }])),
        "well" => schema(SCHEMA, json!([])),
        status => (status, r#"{"message":"hunter2"}"#.to_owned()),
    };
    fake_server::answer(&mut stream, status, &body).await
}

/// A body in chunks without an end.
async fn endless(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.write_all(b"HTTP/1.1 200 -\r\ntransfer-encoding: chunked\r\n\r\n").await?;
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    loop {
        stream.write_all(chunk.as_bytes()).await?;
    }
}
