//! What the bridge writes in each codec is read by Java's consumer, kcat and the harness, byte for byte.

use std::fs;

use anyhow::Context;
use harness::bridge::{Bridge, Settings};
use harness::http::Request;
use harness::kafka::{Kafka, KafkaVersion};
use harness::reader::read_all;
use harness::record::ReadRecord;
use kafka_upstream_core::config::Settings as Plugin;
use kafka_upstream_core::profile;
use kafka_upstream_core::record::Record;
use kafka_upstream_core::wire::{self, Delivery, Head};
use serde_json::json;

/// In the order of their bits in a batch's attributes.
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

const TIME: i64 = 1_700_000_000_000;

/// Missing, empty and binary fields, repeated headers, and a value of several blocks of each codec.
fn records() -> Vec<ReadRecord> {
    let all: Vec<u8> = (0..=255).collect();
    let long = "text that shrinks; ".repeat(15_000).into_bytes();
    let header = |name: &str, value: Option<&[u8]>| (name.to_owned(), value.map(<[u8]>::to_vec));
    let headers = vec![
        header("twice", Some(b"one")),
        header("other", Some(b"\xff\xfe\x80")),
        header("twice", None),
        header("twice", Some(b"")),
        header("schlüssel", Some("ü".as_bytes())),
    ];
    let fields = [
        (None, None, Vec::new()),
        (Some(Vec::new()), Some(Vec::new()), Vec::new()),
        (Some(all.clone()), Some(all.repeat(9)), headers),
        (Some(b"deleted".to_vec()), None, vec![header("why", Some(b"x"))]),
        (None, Some(long), Vec::new()),
    ];
    (0..)
        .zip(fields)
        .map(|(offset, (key, value, headers))| {
            let timestamp_ms = TIME + offset;
            ReadRecord { partition: 0, offset, timestamp_ms, key, value, headers }
        })
        .collect()
}

async fn produce(
    bridge: &Bridge,
    codec: &str,
    sequence: u64,
    records: &[ReadRecord],
) -> anyhow::Result<()> {
    let fields = json!({ "bridge": "b", "topic": codec, "compression_type": codec, "linger": 100 });
    let document = Plugin::parse(fields.to_string().as_bytes())?.profile.to_json()?;
    let id = profile::id(&document);
    let path = format!("/v1/profiles/{}", profile::hex(&id));
    let registered =
        Request::post(path.as_str(), document).method("PUT").send(bridge.port()).await?;
    assert_eq!(registered.status, 200, "{}", registered.text());
    let delivery = Delivery::Acked;
    let (vm, budget_ms, settled_below) = ([7; 16], 20_000, 0);
    let head = Head { profile: id, vm, sequence, delivery, budget_ms, settled_below };
    let mut encoded = Vec::new();
    for record in records {
        let headers = record.headers.iter();
        encoded.push(wire::encode_record(&Record {
            topic: codec,
            partition: Some(0),
            timestamp_ms: record.timestamp_ms,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: headers.map(|(name, value)| (name.as_bytes(), value.as_deref())).collect(),
        })?);
    }
    let frame = wire::encode_frame(&head, encoded.iter().map(Vec::as_slice))?;
    let request = Request::post("/v1/produce", frame).header("content-type", wire::BATCH_TYPE);
    let reply = request.send(bridge.port()).await?;
    assert_eq!(reply.status, 200, "{codec}: {}", reply.text());
    Ok(())
}

/// The codecs of the batches in the log, from their attributes.
fn codecs_in_log(kafka: &Kafka, topic: &str) -> anyhow::Result<Vec<u8>> {
    let log = fs::read(kafka.dir().join(format!("1/data/{topic}-0/00000000000000000000.log")))?;
    let (mut rest, mut codecs) = (&log[..], Vec::new());
    while let Some(length) = rest.get(8..12) {
        let bytes = usize::try_from(u32::from_be_bytes(length.try_into()?))? + 12;
        codecs.push(rest.get(22).context("a batch without attributes")? & 7);
        rest = rest.get(bytes..).context("a batch that is cut")?;
    }
    Ok(codecs)
}

#[tokio::test(flavor = "multi_thread")]
async fn java_kcat_and_the_harness_read_the_same_records_in_each_codec() -> anyhow::Result<()> {
    each_codec_is_read_alike(KafkaVersion::V4_3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readers_of_kafka_3_9_do_too() -> anyhow::Result<()> {
    each_codec_is_read_alike(KafkaVersion::V3_9).await
}

async fn each_codec_is_read_alike(version: KafkaVersion) -> anyhow::Result<()> {
    let kafka = Kafka::pooled(version).await?;
    let bridge = Bridge::start(Settings::to(kafka.bootstrap())).await?;
    let sent = records();
    for (bits, codec) in (0u8..).zip(CODECS) {
        kafka.create_topic(codec, 1).await?;
        produce(&bridge, codec, bits.into(), &sent).await?;
        assert_eq!(codecs_in_log(&kafka, codec)?, [bits], "{codec}");
        assert!(read_all(&kafka.bootstrap(), codec).await? == sent, "{codec}, the harness");
        let kcat = kafka.read_with_kcat(codec, sent.len()).await?;
        assert!(kcat == sent, "{codec}, kcat: {kcat:?}");
        let java = kafka.read_with_java(codec, sent.len()).await?;
        assert!(java == sent, "{codec}, Java: {java:?}");
    }
    Ok(())
}
