//! Records that Confluent's own serializers wrote, by the schemas of a real registry: read by pages through
//! Envoy, as events, over a WebSocket and by a webhook, also while the registry is away.

use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::Router;
use eventsource_stream::Eventsource as _;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use harness::bridge::{Bridge, Settings};
use harness::http::{Request, Response};
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use harness::process::wait_until;
use harness::reader::read_all;
use harness::registry::SchemaRegistry;
use kafka_client::{Outcome, Record};
use kafka_upstream_tests::feeds_envoy;
use kafka_upstream_tests::produce::client;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use xtask::{paths, tools};

const SOON: Duration = Duration::from_secs(20);

struct Parts {
    bridge: Bridge,
    kafka: Kafka,
    registry: SchemaRegistry,
    port: u16,
    /// The bodies that the webhook has sent.
    sent: Arc<Mutex<Vec<String>>>,
}

impl Parts {
    async fn start() -> anyhow::Result<Self> {
        let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
        let registry = SchemaRegistry::start().await?;
        for topic in ["typed", "dead"] {
            kafka.create_topic(topic, 1).await?;
        }
        let (port, sent) = (ports::free()?, Arc::default());
        let feed = "topics = ['typed']\nauto_offset_reset = 'earliest'\nschema_registry = 'main'\n\
                    deserializer = 'schema-registry'\nkey_deserializer = 'schema-registry'";
        let section = format!(
            "[registries.main]\nurl = '{}'\n[feeds]\nlisten = ['127.0.0.1:{port}']\n\
             [feeds.typed]\n{feed}\nentrypoints = ['get', 'sse', 'websocket']\n\
             [feeds.strict]\n{feed}\non_decode_error = 'dlq'\ndlq_topic = 'dead'\n\
             [webhooks.hook]\nfeed = 'typed'\nurl = '{}'\n",
            registry.url(),
            receiver(&sent).await?
        );
        let bridge = Bridge::start(Settings::to(kafka.bootstrap()).line(&section)).await?;
        Ok(Self { bridge, kafka, registry, port, sent })
    }

    /// Runs a program of the tests, and gives the lines that it prints.
    async fn python(
        &self,
        program: &str,
        tool: fn() -> anyhow::Result<std::path::PathBuf>,
        arguments: &[&str],
    ) -> anyhow::Result<Vec<String>> {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", spawn_blocking(tool).await??);
        command.arg(paths::workspace().join("tests/python").join(program)).args(arguments);
        let output = spawn_blocking(move || command.output()).await??;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program}: {errors}");
        Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
    }

    async fn page(&self, query: &str) -> anyhow::Result<Response> {
        Request::get(&format!("/v1/feeds/{query}")).send(self.port).await
    }

    /// The data of a feed's events.
    async fn events(&self, query: &str) -> anyhow::Result<BoxStream<'static, String>> {
        let opened = Request::get(&format!("/v1/feeds/{query}")).open(self.port).await?;
        let chunks = stream::try_unfold(opened, async |mut opened| {
            anyhow::Ok(opened.chunk().await?.map(|chunk| (chunk, opened)))
        });
        let records = chunks.eventsource().filter_map(async |event| {
            event.ok().filter(|event| event.event == "message").map(|event| event.data)
        });
        Ok(records.boxed())
    }

    async fn write(&self, value: &[u8]) -> anyhow::Result<()> {
        let producer = client(&self.kafka.bootstrap(), &[])?.producer();
        let outcome = producer.send("typed", Record::new(value), SOON).await;
        ensure!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
        Ok(())
    }

    /// Waits until the webhook has sent this.
    async fn has_sent(&self, part: &str) -> anyhow::Result<()> {
        wait_until("the webhook", SOON, async || {
            let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
            ensure!(sent.iter().any(|body| body.contains(part)), "{part}: {sent:?}");
            Ok(())
        })
        .await
    }
}

/// Takes each request; gives where it is.
async fn receiver(sent: &Arc<Mutex<Vec<String>>>) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let sent = Arc::clone(sent);
    let take = move |body: String| async move {
        sent.lock().unwrap_or_else(PoisonError::into_inner).push(body);
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(take)).await });
    Ok(url)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_confluents_serializers_wrote_is_read_as_exact_json() -> anyhow::Result<()> {
    let parts = Parts::start().await?;
    let (bootstrap, registry) = (parts.kafka.bootstrap(), parts.registry.url());
    let arguments = [&*bootstrap, &*registry, "typed"];
    let told = parts.python("schema_writers.py", tools::confluent_kafka, &arguments).await?;
    ensure!(told.len() == 3, "{told:?}");
    each_way_gives_what_was_written(&parts, &told).await?;
    in_a_terminal_there_is_the_same(&parts, &told).await?;
    a_registry_that_does_not_answer_holds_up_readers(&parts).await?;
    what_has_no_schema_is_an_error(&parts).await
}

async fn each_way_gives_what_was_written(parts: &Parts, told: &[String]) -> anyhow::Result<()> {
    let envoy = feeds_envoy::start(&[parts.port], None).await?;
    let path = "/v1/feeds/typed?from=earliest&min=3";
    let page = Request::get(path).send(envoy.port("feeds")?).await?.text();
    let events = parts.events("typed/events?from=earliest").await?;
    let events: Vec<_> = timeout(SOON, events.take(told.len()).collect()).await?;
    let url = format!("ws://127.0.0.1:{}/v1/feeds/typed/socket?from=earliest", parts.port);
    let count = told.len().to_string();
    let arguments = [&*url, &*count];
    let frames = parts.python("schema_socket.py", tools::websockets, &arguments).await?;
    ensure!(frames == told, "{frames:?}");
    for (number, (json, event)) in told.iter().zip(events).enumerate() {
        ensure!(event == *json, "{event}");
        let content = format!("\"content\":{json},");
        ensure!(page.contains(&content), "{content} is not in {page}");
        ensure!(page.contains(&format!("\"key\":{number}}}")), "key {number} is not in {page}");
        parts.has_sent(&content).await?;
    }
    Ok(())
}

async fn in_a_terminal_there_is_the_same(parts: &Parts, told: &[String]) -> anyhow::Result<()> {
    let mut tail = Command::new(parts.bridge.binary());
    tail.args(["tail", "typed", "--from", "earliest", "--limit", "3", "--format", "value"]);
    tail.arg("--config").arg(parts.bridge.config_path());
    let output = spawn_blocking(move || tail.output()).await??;
    let lines = String::from_utf8(output.stdout)?;
    ensure!(lines.lines().eq(told), "{lines} {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

async fn a_registry_that_does_not_answer_holds_up_readers(parts: &Parts) -> anyhow::Result<()> {
    let id = parts.registry.register("late", "AVRO", "\"string\"").await?;
    parts.registry.freeze();
    parts.write(&[&[0][..], &id.to_be_bytes(), b"\x08late"].concat()).await?;
    let before = parts.page("typed?from=earliest&min=4&timeout=200").await?;
    let begins = before.text().matches("\"content\":").count();
    ensure!((before.status, begins) == (200, 3), "{}", before.text());
    let page = before.json()?;
    let cursor = page.pointer("/pagination/nextCursor").and_then(|it| it.as_str());
    let cursor = cursor.context("nextCursor")?;
    let next = format!("typed?cursor={cursor}&timeout=200");
    let mut events = parts.events(&format!("typed/events?cursor={cursor}")).await?;
    let held = parts.page(&next).await?;
    ensure!(held.status == 503, "{} {}", held.status, held.text());
    ensure!(held.text().contains("registry_unavailable"), "{}", held.text());
    ensure!(held.header("retry-after").is_some(), "no retry-after");
    parts.registry.thaw();
    wait_until("the record", SOON, async || {
        let page = parts.page(&next).await?.text();
        ensure!(page.contains("\"content\":\"late\""), "{page}");
        Ok(())
    })
    .await?;
    ensure!(timeout(SOON, events.next()).await?.as_deref() == Some("\"late\""), "another event");
    parts.has_sent("\"content\":\"late\"").await
}

async fn what_has_no_schema_is_an_error(parts: &Parts) -> anyhow::Result<()> {
    parts.write(b"no schema").await?;
    let page = parts.page("typed?from=earliest&min=5").await?.text();
    let error = "\"content\":\"bm8gc2NoZW1h\",\"contentEncoding\":\"base64\"";
    ensure!(page.contains(error) && page.contains("\"error\":\"decode_error\""), "{page}");
    let page = parts.page("strict?from=earliest&min=4").await?.text();
    ensure!(!page.contains("\"error\":\""), "{page}");
    wait_until("the dead letter", SOON, async || {
        let dead = read_all(&parts.kafka.bootstrap(), "dead").await?;
        let values: Vec<_> = dead.iter().map(|record| record.value.as_deref()).collect();
        ensure!(values == [Some(&b"no schema"[..])], "{values:?}");
        Ok(())
    })
    .await?;
    let log = std::fs::read_to_string(parts.bridge.process().log())?;
    ensure!(!log.contains("no schema"), "payloads are not logged");
    Ok(())
}
