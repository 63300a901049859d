//! APISIX's pubsub protocol, spoken by clients that others wrote: at a bridge, through Envoy and nginx.

#![expect(clippy::indexing_slicing, reason = "what is missing in an answer fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::bridge::{Bridge, Settings};
use harness::kafka::{Kafka, KafkaVersion, Setup};
use harness::ports;
use kafka_client::{Outcome, Record};
use kafka_upstream_tests::feeds_envoy;
use kafka_upstream_tests::on_both_versions;
use kafka_upstream_tests::produce::client;
use kafka_upstream_tests::transactions;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use xtask::{paths, tools};

const WITHIN: Duration = Duration::from_secs(30);

/// A client in Python, and `pubsub.proto` compiled for it.
struct Client {
    packages: PathBuf,
    compiled: PathBuf,
    dir: tempfile::TempDir,
}

impl Client {
    async fn new() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let compiled = dir.path().join("pubsub.pb");
        let mut compiler = protox::Compiler::new([paths::workspace().join("apisix")])?;
        compiler.open_file("pubsub.proto")?;
        fs::write(&compiled, compiler.encode_file_descriptor_set())?;
        let packages = spawn_blocking(tools::pubsub_client).await??;
        Ok(Self { packages, compiled, dir })
    }

    /// The replies to commands, sent one after the other on a connection.
    async fn ask(&self, port: u16, commands: &[Value]) -> anyhow::Result<Vec<Value>> {
        let lines: String = commands.iter().map(|command| format!("{command}\n")).collect();
        let asked = self.dir.path().join("commands");
        fs::write(&asked, lines)?;
        let mut python = Command::new("python3");
        python.stdin(fs::File::open(asked)?).env("PYTHONPATH", &self.packages);
        python.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python/pubsub.py"));
        python.arg(&self.compiled).arg(format!("ws://127.0.0.1:{port}/v1/feeds/pubsub/pubsub"));
        let output = spawn_blocking(move || python.output()).await??;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let replies = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
        let replies = replies.collect::<Result<Vec<Value>, _>>()?;
        ensure!(replies.len() == commands.len(), "{replies:?}");
        Ok(replies)
    }
}

fn list(topic: &str, timestamp: i64) -> Value {
    let command = json!({ "topic": topic, "partition": 0, "timestamp": timestamp });
    json!({ "sequence": 1, "cmd_kafka_list_offset": command })
}

fn fetch(topic: &str, offset: i64) -> Value {
    let command = json!({ "topic": topic, "partition": 0, "offset": offset });
    json!({ "sequence": i64::MAX, "cmd_kafka_fetch": command })
}

/// A bridge with the feed `pubsub`, and where it is read.
async fn bridge(kafka: &Kafka) -> anyhow::Result<(Bridge, u16)> {
    bridge_to(Settings::to(kafka.bootstrap())).await
}

async fn bridge_to(settings: Settings) -> anyhow::Result<(Bridge, u16)> {
    let port = ports::free()?;
    let feed = "[feeds.pubsub]\ntopics = ['test-consumer', 'bank', 'nothing']\n\
                entrypoints = ['pubsub']";
    let feeds = format!("[feeds]\nlisten = ['127.0.0.1:{port}']");
    Ok((Bridge::start(settings.line(&feeds).line(feed)).await?, port))
}

/// Writes values to partition 0 of the topic, with a compression.
async fn write(
    kafka: &Kafka,
    compression: &str,
    values: impl Iterator<Item = Vec<u8>>,
) -> anyhow::Result<()> {
    let properties = [("compression.type", compression), ("max.request.size", "4000000")];
    let producer = client(&kafka.bootstrap(), &properties)?.producer();
    for value in values {
        let record = Record { partition: Some(0), key: Some(b"key"), ..Record::new(&value) };
        let outcome = producer.send("test-consumer", record, WITHIN).await;
        ensure!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
    }
    Ok(())
}

/// Offsets and values of a reply's records.
fn messages(reply: &Value) -> anyhow::Result<Vec<(i64, Vec<u8>)>> {
    let messages = reply["kafka_fetch_resp"]["messages"].as_array();
    let messages = messages.with_context(|| reply.to_string())?;
    let message = |message: &Value| {
        assert_eq!(message["key"], STANDARD.encode("key"));
        let offset = message["offset"].as_str().context("offset")?.parse()?;
        anyhow::Ok((offset, STANDARD.decode(message["value"].as_str().context("value")?)?))
    };
    messages.iter().map(message).collect()
}

/// The session that APISIX documents, and what its server cannot do.
async fn session(version: KafkaVersion) -> anyhow::Result<()> {
    let kafka = Kafka::start(version, 1).await?;
    let large = [("max.message.bytes", "4000000")];
    kafka.create_topic_with("test-consumer", 3, 1, &large).await?;
    let (_bridge, port) = bridge(&kafka).await?;
    let client = Client::new().await?;
    write(&kafka, "none", (1..=30).map(|number| format!("testmsg{number}").into_bytes())).await?;
    let replies = client
        .ask(
            port,
            &[
                json!({ "sequence": 0, "cmd_ping": { "state": STANDARD.encode("test") } }),
                json!({ "sequence": 2, "cmd_empty": {} }),
                list("test-consumer", -2),
                list("test-consumer", -1),
                list("test-consumer", 9_999_999_999_999),
                list("test-consumer", 1_500_000_000_000),
                list("secret", -1),
                list("nothing", -1),
                fetch("test-consumer", 14),
                fetch("test-consumer", 30),
                fetch("test-consumer", 999),
            ],
        )
        .await?;
    assert_eq!(replies[0]["pong_resp"]["state"], STANDARD.encode("test"));
    assert_eq!(replies[1]["error_resp"], json!({ "code": 0, "message": "unknown command" }));
    for (reply, offset) in replies[2..6].iter().zip(["0", "30", "-1", "0"]) {
        assert_eq!(
            *reply,
            json!({ "sequence": "1", "kafka_list_offset_resp": { "offset": offset } })
        );
    }
    let failed = |reply: &Value| reply["error_resp"]["message"].as_str().map(str::to_owned);
    let expected = "failed to list offset, topic: secret, partition: 0, err: \
                    TOPIC_AUTHORIZATION_FAILED";
    assert_eq!(failed(&replies[6]).as_deref(), Some(expected));
    let expected = "failed to list offset, topic: nothing, partition: 0, err: not found topic";
    assert_eq!(failed(&replies[7]).as_deref(), Some(expected));
    assert_eq!(replies[8]["sequence"], i64::MAX.to_string());
    let fetched = messages(&replies[8])?;
    assert_eq!((fetched.len(), &fetched[0]), (16, &(14, b"testmsg15".to_vec())));
    assert_eq!(messages(&replies[9])?, []);
    let expected = "failed to fetch message, topic: test-consumer, partition: 0, err: \
                    OFFSET_OUT_OF_RANGE";
    assert_eq!(failed(&replies[10]).as_deref(), Some(expected));

    // 5 MiB that compress badly, a record of 3 MiB, and each compression.
    let value = |number: usize, length: usize| {
        let mut noise = number as u64 + 1;
        let byte = |_| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (noise >> 56) as u8
        };
        (0..length).map(byte).collect::<Vec<_>>()
    };
    let mut written = Vec::new();
    for compression in ["gzip", "snappy", "lz4", "zstd"] {
        let values: Vec<_> = (0..130).map(|number| value(written.len() + number, 10_240)).collect();
        write(&kafka, compression, values.iter().cloned()).await?;
        written.extend(values);
    }
    written.push(value(0, 3 << 20));
    write(&kafka, "none", written.last().cloned().into_iter()).await?;
    let mut read = Vec::new();
    let mut largest = 0;
    loop {
        let next = 30 + i64::try_from(read.len())?;
        let replies = client.ask(port, &[fetch("test-consumer", next)]).await?;
        let fetched = messages(&replies[0])?;
        let Some((first, _)) = fetched.first() else { break };
        assert_eq!(*first, next);
        largest = largest.max(fetched.iter().map(|(_, value)| value.len()).sum());
        read.extend(fetched.into_iter().map(|(_, value)| value));
    }
    assert_eq!(largest, 3 << 20);
    ensure!(read == written, "{} of {} records, or others", read.len(), written.len());

    let envoy = feeds_envoy::start(&[port], None).await?;
    let replies = client.ask(envoy.port("feeds")?, &[fetch("test-consumer", 29)]).await?;
    assert_eq!(messages(&replies[0])?[0], (29, b"testmsg30".to_vec()));
    Ok(())
}

/// Records of aborted transactions and control records are passed over, up to the last stable offset.
async fn aborted(version: KafkaVersion) -> anyhow::Result<()> {
    let kafka = Kafka::start(version, 1).await?;
    transactions::write(&kafka).await?;
    let (_bridge, port) = bridge(&kafka).await?;
    let commands = [0, 8, 10, 11].map(|offset| fetch("bank", offset));
    let replies = Client::new().await?.ask(port, &commands).await?;
    let values = |reply: &Value| {
        let messages = reply["kafka_fetch_resp"]["messages"].as_array().cloned();
        let values = messages.unwrap_or_default().into_iter().map(|message| {
            let value = STANDARD.decode(message["value"].as_str().unwrap_or_default());
            String::from_utf8(value.unwrap_or_default()).unwrap_or_default()
        });
        values.collect::<Vec<_>>()
    };
    assert_eq!(values(&replies[0]), ["committed-1", "committed-2", "committed-3"]);
    assert_eq!(values(&replies[1]), ["committed-3"]);
    // Only a marker, and what is not stable, is behind it.
    assert_eq!((values(&replies[2]), values(&replies[3])), (vec![], vec![]), "{replies:?}");
    Ok(())
}

/// What is wrong with the way to the brokers is named.
#[tokio::test(flavor = "multi_thread")]
async fn the_stage_that_fails_is_named() -> anyhow::Result<()> {
    let client = Client::new().await?;
    let asked = async |settings: Settings| {
        let (_bridge, port) = bridge_to(settings).await?;
        let replies = client.ask(port, &[list("bank", -1)]).await?;
        let message = replies[0]["error_resp"]["message"].as_str().map(str::to_owned);
        let message = message.with_context(|| replies[0].to_string())?;
        let (_, why) = message.split_once("err: ").context("err")?;
        anyhow::Ok(why.to_owned())
    };
    let nobody = format!("127.0.0.1:{}", ports::free()?);
    assert_eq!(asked(Settings::to(nobody)).await?, "BROKER_NOT_AVAILABLE");
    let plain =
        "org.apache.kafka.common.security.plain.PlainLoginModule required user_a=\"right\";";
    let setup = Setup {
        properties: &[
            ("sasl.enabled.mechanisms", "PLAIN"),
            ("listener.name.sasl.plain.sasl.jaas.config", plain),
        ],
        listeners: &[("SASL", "SASL_PLAINTEXT")],
        ..Setup::default()
    };
    let kafka = Kafka::start_setup(KafkaVersion::V4_3, 1, 1, setup).await?;
    let wrong = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "a"),
        ("sasl.password", "wrong"),
    ];
    let settings =
        wrong.iter().fold(Settings::to(kafka.bootstrap_at("SASL")?), |it, (key, value)| {
            it.property(key, value)
        });
    assert_eq!(asked(settings).await?, "SASL_AUTHENTICATION_FAILED");
    let tls = Settings::to(kafka.bootstrap()).property("security.protocol", "SSL");
    assert_eq!(asked(tls).await?, "TLS_HANDSHAKE_FAILED");
    Ok(())
}

on_both_versions! {
    a_session_as_apisix_documents_it: super::session;
    transactions_that_were_aborted_are_passed_over: super::aborted;
}
