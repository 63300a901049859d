//! Writes librdkafka's batches, one file a codec, for `kafka-client/tests/golden`.
//!
//! Kafka leaves the compressed bytes of a producer as they are, so they are taken from its log:
//! `cargo run -p kafka-upstream-bench --features librdkafka --example librdkafka_batches kafka-client/tests/golden`

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::kafka::{Kafka, KafkaVersion};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

/// Longest wait for all acknowledgements.
const FLUSH: Duration = Duration::from_secs(30);

/// Records of a batch: more than two LZ4 blocks of 64 KiB. Without compression, few.
const CODECS: [(&str, i64); 5] =
    [("none", 3), ("gzip", 300), ("snappy", 300), ("lz4", 300), ("zstd", 300)];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).context("name the folder for the batches")?;
    let kafka = Kafka::start(KafkaVersion::V4_3, 1).await?;
    for (codec, records) in CODECS {
        kafka.create_topic(codec, 1).await?;
        let bootstrap = kafka.bootstrap();
        tokio::task::spawn_blocking(move || produce(&bootstrap, codec, records)).await??;
        let log = format!("1/data/{codec}-0/00000000000000000000.log");
        let batch = fs::read(kafka.dir().join(log))?;
        let length = batch.get(8..12).context("an empty log")?.try_into()?;
        let bytes = usize::try_from(u32::from_be_bytes(length))? + 12;
        ensure!(bytes == batch.len(), "{codec}: more than one batch");
        let file = Path::new(&folder).join(format!("librdkafka-{codec}.bin"));
        fs::write(&file, batch)?;
        println!("{}: {bytes} bytes", file.display());
    }
    Ok(())
}

/// The records of `Generate.java`.
fn produce(bootstrap: &str, codec: &str, records: i64) -> anyhow::Result<()> {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("compression.codec", codec)
        .set("linger.ms", "1000")
        .create()?;
    for number in 0..records {
        let key = format!("key-{number}");
        let value = format!("record {number}, ").repeat(usize::try_from(number % 80)?);
        let mut record =
            BaseRecord::<str, str>::to(codec).timestamp(1_700_000_000_000 + number * 7);
        if number % 3 != 0 {
            record = record.key(&key);
        }
        if number % 7 != 3 {
            record = record.payload(&value);
        }
        if number % 5 == 0 {
            let header = |value| Header { key: "tag", value };
            let headers = OwnedHeaders::new().insert(header(Some("one")));
            record = record.headers(headers.insert(header(None)));
        }
        producer.send(record).map_err(|(error, _)| error)?;
    }
    Ok(producer.flush(FLUSH)?)
}
