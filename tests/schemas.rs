//! Records that fit their schemas, and those that do not, with a real registry: through the filter in
//! Envoy and by REST, and while the registry is away.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::bridge::{Bridge, Settings};
use harness::envoy::{Envoy, EnvoyConfig, Listener};
use harness::http::{Request, Response};
use harness::kafka::{Kafka, KafkaVersion};
use harness::load::{Limit, Load, Requests};
use harness::process::wait_until;
use harness::reader::read_all;
use harness::record::ReadRecord;
use harness::registry::SchemaRegistry;
use harness::stack;
use kafka_upstream_tests::fake_server::FakeServer;
use serde_json::{Value, json};
use xtask::build;

use super::schema_clients;

const ORDER: &str = r#"{"type":"record","name":"Order","fields":[
    {"name":"id","type":"long"},{"name":"note","type":["null","string"],"default":null}]}"#;

/// A later version of the order.
const PRICED: &str = r#"{"type":"record","name":"Order","fields":[
    {"name":"id","type":"long"},{"name":"note","type":["null","string"],"default":null},
    {"name":"price","type":"double","default":0}]}"#;

struct Parts {
    envoy: Envoy,
    bridge: Bridge,
    kafka: Kafka,
    registry: SchemaRegistry,
    guids: FakeServer,
    id: u32,
}

impl Parts {
    async fn start() -> anyhow::Result<Self> {
        let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
        let registry = SchemaRegistry::start().await?;
        let id = registry.register("orders-value", "AVRO", ORDER).await?;
        let guids = schema_clients::registry_of_guids().await?;
        for topic in
            ["rest", "plain", "acked", "memory", "evolving"].iter().chain(&schema_clients::TOPICS)
        {
            kafka.create_topic(topic, 1).await?;
        }
        let section = format!(
            "[registries.main]\nurl = \"{}\"\nttl = 1\n[schemas.rest]\nregistry = \"main\"\n\
             topics = [\"rest\"]\nvalue_schema = {{ subject_name = \"orders-value\", \
             schema_version = \"latest\", payload_encoding = \"simple_json\" }}\n\
             [schemas.evolving]\nregistry = \"main\"\ntopics = [\"evolving\"]\n\
             value_schema = {{ subject_name = \"evolving-value\", schema_version = \"latest\", \
             payload_encoding = \"simple_json\" }}\n{}",
            registry.url(),
            schema_clients::sections(&guids)
        );
        let bridge = Bridge::start(Settings::to(kafka.bootstrap()).line(&section)).await?;
        let confluent = |place: &str| {
            json!({ "confluent": {
                "url": registry.url(), "ttl": 1, "schema_id": place,
                "value_schema": { "subject_name": "orders-value", "schema_version": "latest" },
            } })
        };
        let listener = |topic: &str, place: &str, is_async: bool| {
            let more = json!({
                "message_format": "body", "producer_async": is_async,
                "schema_registry": confluent(place),
            });
            Listener::filter(topic, stack::plugin(topic, &more))
        };
        let config = EnvoyConfig::new(build::filter()?)
            .bridge(&bridge)
            .listener(listener("acked", "header", false))
            .listener(listener("memory", "prefix", true));
        Ok(Self { envoy: Envoy::start(config).await?, bridge, kafka, registry, guids, id })
    }

    async fn rest(&self, topic: &str, body: &str) -> anyhow::Result<Response> {
        let path = format!("/v1/clusters/default/topics/{topic}");
        Request::post(&path, body.to_owned()).send(self.bridge.port()).await
    }

    async fn filter(&self, listener: &str, body: &str) -> anyhow::Result<Response> {
        let request =
            Request::post("/", body.to_owned()).header("content-type", "application/json");
        request.send(self.envoy.port(listener)?).await
    }

    /// Through each way in.
    async fn send_all(&self, body: &str) -> anyhow::Result<Vec<Response>> {
        Ok(vec![
            self.rest("rest", body).await?,
            self.filter("acked", body).await?,
            self.filter("memory", body).await?,
        ])
    }

    async fn first(&self, topic: &str) -> anyhow::Result<ReadRecord> {
        let records = read_all(&self.kafka.bootstrap(), topic).await?;
        records.into_iter().next().with_context(|| format!("{topic} is empty"))
    }

    async fn count(&self) -> anyhow::Result<usize> {
        let mut count = 0;
        for topic in ["rest", "acked", "memory"] {
            count += read_all(&self.kafka.bootstrap(), topic).await?.len();
        }
        Ok(count)
    }

    async fn wait_for(&self, count: usize) -> anyhow::Result<()> {
        wait_until("records", Duration::from_secs(20), async || {
            let now = self.count().await?;
            ensure!(now == count, "{now} of {count}");
            Ok(())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_have_the_schemas_of_their_registry_or_are_refused() -> anyhow::Result<()> {
    let mut parts = Parts::start().await?;
    what_fits_is_written_as_its_schema_says(&parts).await?;
    what_does_not_fit_is_told_and_not_written(&parts).await?;
    other_topics_are_as_before(&parts).await?;
    a_new_version_is_taken_under_load(&parts).await?;
    let Parts { bridge, kafka, registry, guids, .. } = &parts;
    schema_clients::clients_decode_what_was_sent(bridge, kafka, registry, guids).await?;
    schema_clients::what_does_not_fit_is_refused(bridge, kafka).await?;
    without_the_registry_the_last_schema_serves(&mut parts).await?;
    a_bridge_that_starts_without_it_waits_for_nobody_else(&mut parts).await
}

async fn what_fits_is_written_as_its_schema_says(parts: &Parts) -> anyhow::Result<()> {
    for reply in parts.send_all(r#"{"id":1}"#).await? {
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    parts.wait_for(3).await?;
    let prefix = [&[0][..], &parts.id.to_be_bytes()].concat();
    // The id as a zigzag varint, and the first branch of the union.
    let avro = [2, 0];
    for topic in ["rest", "memory"] {
        let record = parts.first(topic).await?;
        assert_eq!(record.value.as_deref(), Some(&[&prefix[..], &avro].concat()[..]), "{topic}");
    }
    let record = parts.first("acked").await?;
    assert_eq!(record.value.as_deref(), Some(&avro[..]));
    let header = record.headers.iter().find(|(name, _)| name == "__value_schema_id");
    assert_eq!(header.and_then(|(_, value)| value.as_deref()), Some(&prefix[..]));
    Ok(())
}

async fn what_does_not_fit_is_told_and_not_written(parts: &Parts) -> anyhow::Result<()> {
    for body in [r#"{"id":"hunter2"}"#, "{}", "hunter2", r#"{"id":1,"note":5}"#] {
        for reply in parts.send_all(body).await? {
            let told: Value = reply.json()?;
            assert_eq!(reply.status, 422, "{body}: {told}");
            assert_eq!(reply.header("kafka-error"), Some("schema_mismatch"));
            let error = told.get("error").and_then(Value::as_str).unwrap_or_default();
            let start = "the value does not fit orders-value version 1: $";
            assert!(error.starts_with(start), "{body}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
    assert_eq!(parts.count().await?, 3);
    let bridge = std::fs::read_to_string(parts.bridge.process().log())?;
    for log in [parts.envoy.log(), bridge] {
        assert!(!log.contains("hunter2"), "{log}");
    }
    Ok(())
}

async fn other_topics_are_as_before(parts: &Parts) -> anyhow::Result<()> {
    let reply = parts.rest("plain", "no JSON").await?;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let record = parts.first("plain").await?;
    assert_eq!(record.value.as_deref(), Some(&b"no JSON"[..]));
    Ok(())
}

/// No record is refused, and soon each has the new version.
async fn a_new_version_is_taken_under_load(parts: &Parts) -> anyhow::Result<()> {
    const REQUESTS: usize = 500;
    let registry = &parts.registry;
    let first = registry.register("evolving-value", "AVRO", ORDER).await?;
    let load = async || {
        let path = "/v1/clusters/default/topics/evolving";
        let requests = Requests::post(path, "application/json", |_| br#"{"id":1}"#.to_vec());
        let limit = Limit::Requests(REQUESTS as u64);
        let load = Load::new(parts.bridge.port(), requests).connections(8).limit(limit);
        let report = load.run().await?;
        ensure!(report.count(200) == report.requests(), "{:?}", report.counts());
        Ok(())
    };
    let (_, second) =
        tokio::try_join!(load(), registry.register("evolving-value", "AVRO", PRICED))?;
    let prefix = |id: u32| [&[0][..], &id.to_be_bytes()].concat();
    let has = |record: &ReadRecord, id| {
        record.value.as_ref().is_some_and(|value| value.starts_with(&prefix(id)))
    };
    wait_until("the new version", Duration::from_secs(20), async || {
        load().await?;
        let records = read_all(&parts.kafka.bootstrap(), "evolving").await?;
        assert!(records.iter().all(|record| has(record, first) || has(record, second)));
        let last = records.iter().rev().take(REQUESTS);
        ensure!(last.clone().all(|record| has(record, second)), "not yet");
        Ok(())
    })
    .await
}

async fn without_the_registry_the_last_schema_serves(parts: &mut Parts) -> anyhow::Result<()> {
    parts.registry.stop().await?;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for reply in parts.send_all(r#"{"id":2}"#).await? {
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    for reply in parts.send_all("{}").await? {
        assert_eq!(reply.status, 422, "{}", reply.text());
    }
    parts.wait_for(6).await?;
    let ready = parts.bridge.get("/readyz").await?;
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("the schema registry is not available"), "{}", ready.text());
    assert!(parts.bridge.metric("host_bridge_schema_registry_stale_total", "main").await? > 0.0);
    Ok(())
}

async fn a_bridge_that_starts_without_it_waits_for_nobody_else(
    parts: &mut Parts,
) -> anyhow::Result<()> {
    parts.bridge.stop().await?;
    parts.bridge.restart().await?;
    for reply in parts.send_all(r#"{"id":3}"#).await? {
        assert_eq!(reply.status, 503, "{}", reply.text());
        assert_eq!(reply.header("kafka-error"), Some("registry_unavailable"));
        assert!(reply.header("retry-after").is_some());
    }
    assert_eq!(parts.rest("plain", "x").await?.status, 200);
    parts.registry.restart().await?;
    // It has forgotten its schemas, and says so: only an operator can help.
    wait_until("the registry", Duration::from_secs(20), async || {
        let reply = parts.rest("rest", r#"{"id":3}"#).await?;
        anyhow::ensure!(reply.status == 500, "{}", reply.status);
        assert_eq!(reply.header("kafka-error"), Some("registry_refused"));
        Ok(())
    })
    .await?;
    parts.id = parts.registry.register("orders-value", "AVRO", ORDER).await?;
    wait_until("schemas", Duration::from_secs(20), async || {
        for reply in parts.send_all(r#"{"id":3}"#).await? {
            anyhow::ensure!(reply.status == 200, "{}", reply.text());
        }
        Ok(())
    })
    .await
}
