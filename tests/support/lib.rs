//! A gateway on real parts, and the ledger of what clients were told against what Kafka holds.

pub mod clients;
pub mod cluster;
pub mod fake_server;
pub mod feeds_envoy;
pub mod followers;
pub mod forwarder;
pub mod generate;
pub mod issuer;
pub mod judge;
pub mod keys;
pub mod listeners;
pub mod msk;
pub mod oidc;
pub mod produce;
pub mod relay;
pub mod secured_cluster;
pub mod transactions;

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::bridge::{Bridge, Settings};
use harness::envoy::{Envoy, EnvoyConfig, Listener};
use harness::http::{Request, Response};
use harness::kafka::{Kafka, KafkaVersion};
use harness::process::wait_until;
use harness::reader::read_all;
use harness::record::ReadRecord;
use serde_json::{Value, json};
use xtask::build;

/// Envoy with the filter, a bridge, and Kafka; each listener has a topic of its own name.
pub struct Gateway {
    /// Envoy. Declared first: it ends first.
    pub envoy: Envoy,
    /// The bridge.
    pub bridge: Bridge,
    /// Kafka.
    pub kafka: Kafka,
}

impl Gateway {
    /// Starts everything on Kafka 4.3: one broker, and a listener for each configuration.
    /// `bridge` and `topic` are added to each.
    ///
    /// # Errors
    /// When a part does not start; its log's end is shown.
    pub async fn start(listeners: &[(&str, Value)]) -> anyhow::Result<Self> {
        Self::start_on(KafkaVersion::V4_3, 1, listeners).await
    }

    /// As `start`, on a version of Kafka, with a number of Envoy's workers.
    ///
    /// # Errors
    /// As `start`.
    pub async fn start_on(
        version: KafkaVersion,
        workers: u32,
        listeners: &[(&str, Value)],
    ) -> anyhow::Result<Self> {
        Self::start_large(Kafka::pooled(version).await?, workers, listeners).await
    }

    /// As `start`, on a Kafka that no other test uses: for those that stop it.
    ///
    /// # Errors
    /// As `start`.
    pub async fn start_alone(listeners: &[(&str, Value)]) -> anyhow::Result<Self> {
        Self::start_large(Kafka::start(KafkaVersion::V4_3, 1).await?, 1, listeners).await
    }

    async fn start_large(
        kafka: Kafka,
        workers: u32,
        listeners: &[(&str, Value)],
    ) -> anyhow::Result<Self> {
        let large = [("max.message.bytes", "16777216")];
        Self::start_with(kafka, workers, (1, &large), listeners).await
    }

    /// As `start`, on a Kafka that runs, with the replication factor and configs of its topics.
    ///
    /// # Errors
    /// As `start`.
    pub async fn start_with(
        kafka: Kafka,
        workers: u32,
        (replicas, configs): (i32, &[(&str, &str)]),
        listeners: &[(&str, Value)],
    ) -> anyhow::Result<Self> {
        let settings = Settings::to(kafka.bootstrap()).property("max.request.size", "16777216");
        let bridge = Bridge::start(settings).await?;
        let mut config = EnvoyConfig::new(build::filter()?).concurrency(workers).bridge(&bridge);
        for (topic, fields) in listeners {
            kafka.create_topic_with(topic, 3, replicas, configs).await?;
            config = config.listener(Listener::filter(topic, configuration(topic, fields)));
        }
        Ok(Self { envoy: Envoy::start(config).await?, bridge, kafka })
    }

    /// Sends a request to the listener of a topic.
    ///
    /// # Errors
    /// When there is no whole reply.
    pub async fn send(&self, topic: &str, request: Request) -> anyhow::Result<Response> {
        request.send(self.envoy.port(topic)?).await
    }

    /// Everything that Kafka holds of a topic.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub async fn records(&self, topic: &str) -> anyhow::Result<Vec<ReadRecord>> {
        read_all(&self.kafka.bootstrap(), topic).await
    }

    /// Waits until a request is answered 200, as after a fault.
    ///
    /// # Errors
    /// When that takes more than 30 s.
    pub async fn wait_for_success(&self, topic: &str, body: &'static str) -> anyhow::Result<()> {
        wait_until("a 200", Duration::from_secs(30), async || {
            let reply = self.send(topic, text(body)).await?;
            ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
            Ok(())
        })
        .await
    }

    /// Waits until the filters hold no record, stream or batch; then nothing can leak.
    ///
    /// # Errors
    /// When something is left after 30 s; the gauges are shown.
    pub async fn wait_until_empty(&self) -> anyhow::Result<()> {
        wait_until("empty filters", Duration::from_secs(30), async || {
            for name in [
                "queue_records",
                "queue_bytes",
                "batches_in_flight",
                "topics_failing",
                "streams_waiting",
            ] {
                let gauge = self.gauge(name).await?;
                ensure!(gauge == 0, "{name} is {gauge}");
            }
            // Gauges follow with the next tick, counters at once.
            let queued = self.gauge("requests.outcome.sent").await?;
            let mut settled = 0;
            for name in ["records_written", "records_not_written", "records_unknown"] {
                settled += self.gauge(name).await?;
            }
            ensure!(settled >= queued, "{settled} of {queued} queued records are settled");
            Ok(())
        })
        .await
    }

    /// One of the filter's statistics, without its prefix.
    ///
    /// # Errors
    /// When Envoy does not answer.
    pub async fn gauge(&self, name: &str) -> anyhow::Result<u64> {
        self.envoy.stat(&format!("wasmcustom.kafka_upstream_{name}")).await
    }
}

/// A plugin configuration for the listener of a topic.
#[must_use]
pub fn configuration(topic: &str, fields: &Value) -> Value {
    let mut config = json!({ "bridge": "host_bridge", "topic": topic });
    if let (Some(config), Some(fields)) = (config.as_object_mut(), fields.as_object()) {
        config.extend(fields.clone());
    }
    config
}

/// Fields with those of `acked` mode added.
#[must_use]
pub fn acked(fields: &Value) -> Value {
    let mut acked = json!({ "producer_async": false });
    if let (Some(acked), Some(fields)) = (acked.as_object_mut(), fields.as_object()) {
        acked.extend(fields.clone());
    }
    acked
}

/// A POST of plain text.
#[must_use]
pub fn text(body: &str) -> Request {
    Request::post("/", body.to_owned()).header("content-type", "text/plain")
}

/// The record at the place that a reply names.
///
/// # Errors
/// When the reply names no place, or Kafka has nothing there.
pub fn record_of<'a>(
    records: &'a [ReadRecord],
    reply: &Response,
    topic: &str,
) -> anyhow::Result<&'a ReadRecord> {
    ensure!(reply.header("kafka-topic") == Some(topic), "another topic: {:?}", reply.headers);
    let number = |name: &str| -> anyhow::Result<i64> {
        Ok(reply.header(name).with_context(|| format!("no {name}"))?.parse()?)
    };
    let (partition, offset) = (number("kafka-partition")?, number("kafka-offset")?);
    let place =
        |record: &&ReadRecord| i64::from(record.partition) == partition && record.offset == offset;
    records.iter().find(place).with_context(|| format!("nothing at {partition}/{offset}"))
}

/// How often each text body is in Kafka, from the messages of `forward_body` alone.
///
/// # Errors
/// When a record is not such a message.
pub fn bodies(records: &[ReadRecord]) -> anyhow::Result<HashMap<String, usize>> {
    let mut bodies = HashMap::with_capacity(records.len());
    for record in records {
        let message = record.json()?;
        let body = message.get("body").and_then(Value::as_str).context("no body")?;
        *bodies.entry(body.to_owned()).or_default() += 1;
    }
    Ok(bodies)
}

/// HTTP/2's preface, empty settings, and POST requests without an end (RFC 9113, 3.4 and 6.2).
#[must_use]
pub fn unfinished_http_2(count: u32) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // :method POST, :scheme http, :path / and :authority h (RFC 7541, appendix A).
    let block = [0x83, 0x86, 0x84, 0x41, 1, b'h'];
    for stream in (0..count).map(|number| 2 * number + 1) {
        bytes.extend([0, 0, block.len() as u8, 1, 4]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(block);
    }
    bytes
}
