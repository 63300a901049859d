//! Each codec, from `compression_type` into Kafka's log and back, judged by Kafka and by the harness's reader.

use kafka_upstream_tests::{Gateway, record_of, text};
use serde_json::json;

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// Text of one line that shrinks, and differs by its number.
fn line(number: usize, bytes: usize) -> String {
    format!("line {number} of some text; ").repeat(bytes / 20).chars().take(bytes).collect()
}

fn message(body: &str) -> String {
    format!(r#"{{"body_args":{{}},"body":"{body}"}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_codec_is_in_the_log_and_every_value_comes_back() -> anyhow::Result<()> {
    let fields = |codec| json!({ "producer_async": false, "compression_type": codec });
    let listeners: Vec<_> = CODECS.map(|codec| (codec, fields(codec))).to_vec();
    let gateway = Gateway::start(&listeners).await?;
    // One Snappy block, several blocks of each codec, and a batch of gzip that leaves the IO task.
    let bodies: Vec<_> =
        [2_000, 40_000, 300_000].iter().enumerate().map(|(n, bytes)| line(n, *bytes)).collect();
    for codec in CODECS {
        let mut replies = Vec::new();
        for body in &bodies {
            let reply = gateway.send(codec, text(body)).await?;
            assert_eq!(reply.status, 200, "{codec}: {}", reply.text());
            replies.push(reply);
        }
        let records = gateway.records(codec).await?;
        assert_eq!(records.len(), bodies.len(), "{codec}");
        for (body, reply) in bodies.iter().zip(&replies) {
            let record = record_of(&records, reply, codec)?;
            assert!(record.value.as_deref() == Some(message(body).as_bytes()), "{codec}");
        }
        let batches = gateway.kafka.dump(1, codec).await?;
        assert_eq!(batches.len(), bodies.len(), "{codec}");
        for batch in batches {
            assert_eq!(batch.codec, codec);
            let [value] = &batch.values[..] else {
                panic!("{codec}: {} records", batch.values.len())
            };
            assert!(bodies.iter().any(|body| *value == message(body)), "{codec}");
            assert_eq!(batch.bytes < value.len() / 5, codec != "none", "{codec}: {}", batch.bytes);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_records_share_a_batch_and_a_small_one_is_left_as_it_is() -> anyhow::Result<()> {
    let fields = |codec| {
        json!({
            "producer_async": true, "producer_async_flush_timeout": 300, "linger": 300,
            "compression_type": codec,
        })
    };
    let listeners: Vec<_> = CODECS.map(|codec| (codec, fields(codec))).to_vec();
    let gateway = Gateway::start(&listeners).await?;
    for codec in &CODECS[1..] {
        let sent: Vec<_> = (0..50).map(|number| line(number, 500)).collect();
        for body in &sent {
            assert_eq!(gateway.send(codec, text(body)).await?.status, 200);
        }
        gateway.wait_until_empty().await?;
        assert_eq!(gateway.send(codec, text("x")).await?.status, 200);
        gateway.wait_until_empty().await?;
        let mut expected: Vec<_> = sent.iter().map(|body| message(body)).collect();
        expected.push(message("x"));
        let (small, large): (Vec<_>, Vec<_>) =
            gateway.kafka.dump(1, codec).await?.into_iter().partition(|b| b.bytes < 120);
        assert!(small.iter().all(|batch| batch.codec == "none"), "{codec}: {small:?}");
        assert!(large.iter().all(|batch| batch.codec == *codec), "{codec}: {large:?}");
        assert!((1..20).contains(&large.len()), "{codec}: {} batches", large.len());
        let values = |batches: Vec<harness::kafka::DumpedBatch>| -> Vec<String> {
            batches.into_iter().flat_map(|batch| batch.values).collect()
        };
        let mut dumped = [values(large), values(small)].concat();
        dumped.sort();
        expected.sort();
        assert!(dumped == expected, "{codec}");
        let records = gateway.records(codec).await?;
        let mut read: Vec<_> = records.into_iter().filter_map(|record| record.value).collect();
        read.sort();
        assert!(read.iter().eq(expected.iter().map(String::as_bytes)), "{codec}");
    }
    Ok(())
}
