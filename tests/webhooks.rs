//! Webhooks on real Kafka: receivers that fail for a time or for good, those of other webhooks beside them,
//! and bridges that are restarted and share partitions.

#![expect(clippy::indexing_slicing, reason = "what is missing in an answer fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use harness::bridge::{Bridge, Settings};
use harness::http::Request;
use harness::kafka::{Kafka, KafkaVersion};
use kafka_client::{Client, Outcome, Record};
use kafka_upstream_tests::on_both_versions;
use kafka_upstream_tests::produce::client;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use xtask::tools;

const WITHIN: Duration = Duration::from_secs(30);
const PARTITIONS: i32 = 4;
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A request as it came, and its answer.
#[derive(Clone)]
struct Received {
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
    status: u16,
}

impl Received {
    fn place(&self) -> anyhow::Result<(i32, i64)> {
        let header = |name: &str| self.headers.get(name).context("a header is missing");
        Ok((header("kafka-partition")?.parse()?, header("kafka-offset")?.parse()?))
    }

    fn content(&self) -> anyhow::Result<String> {
        let item: Value = serde_json::from_str(&self.body)?;
        Ok(item["content"].as_str().context("no content")?.to_owned())
    }
}

/// Answers 503 while it is down, else 400 to what is bad, and 503 twice to each of its paths first.
#[derive(Clone, Default)]
struct Receiver {
    received: Arc<Mutex<Vec<Received>>>,
    is_down: Arc<Mutex<bool>>,
}

impl Receiver {
    /// Starts it; says where it is.
    async fn start(&self) -> anyhow::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let own = self.clone();
        let take = move |uri: axum::http::Uri, headers: HeaderMap, body: Bytes| async move {
            own.take(uri.path(), &headers, &body)
        };
        let routes = Router::new().fallback(take);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(url)
    }

    fn take(&self, path: &str, headers: &HeaderMap, body: &Bytes) -> StatusCode {
        let text = |value: &axum::http::HeaderValue| value.to_str().unwrap_or("?").to_owned();
        let headers = headers.iter().map(|(name, value)| (name.to_string(), text(value)));
        let body = String::from_utf8_lossy(body).into_owned();
        let mut received = lock(&self.received);
        let before = received.iter().filter(|it| it.path == path).count();
        let status = match *lock(&self.is_down) {
            true => 503,
            false if before < 2 => 503,
            false if body.contains("\"content\":\"bad\"") => 400,
            false => 200,
        };
        let (path, headers) = (path.to_owned(), headers.collect());
        received.push(Received { path, headers, body, status });
        StatusCode::from_u16(status).unwrap_or_default()
    }

    fn of(&self, path: &str) -> Vec<Received> {
        lock(&self.received).iter().filter(|it| it.path == path).cloned().collect()
    }

    /// The places of what was delivered, each as often as it was.
    fn delivered(&self, path: &str) -> anyhow::Result<Vec<(i32, i64)>> {
        let delivered = self.of(path).into_iter().filter(|it| it.status == 200);
        delivered.map(|it| it.place()).collect()
    }

    /// Waits until it has refused so many more requests.
    async fn refuses(&self, path: &str, count: usize) -> anyhow::Result<()> {
        let refused = || self.of(path).iter().filter(|it| it.status == 503).count();
        let (started, before) = (Instant::now(), refused());
        while refused() < before + count {
            ensure!(started.elapsed() < WITHIN, "{} of {count} at {path}", refused() - before);
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits until so many different records were delivered.
    async fn has(&self, path: &str, count: usize) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let places: BTreeSet<_> = self.delivered(path)?.into_iter().collect();
            if places.len() >= count {
                return Ok(());
            }
            ensure!(started.elapsed() < WITHIN, "{} of {count} at {path}", places.len());
            sleep(Duration::from_millis(20)).await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bridge with a webhook that has a dead-letter topic, and one that has none.
async fn bridge(kafka: &Kafka, url: &str) -> anyhow::Result<Bridge> {
    let feed = "topics = ['orders']\nentrypoints = ['webhook']\nauto_offset_reset = 'earliest'";
    let retry = "retry = { initial_ms = 20, max_ms = 100 }";
    let settings = Settings::to(kafka.bootstrap())
        .line(&format!("[feeds.orders]\n{feed}\ndlq_topic = 'dead'\n[feeds.strict]\n{feed}"))
        .line(&format!("[webhooks.hook]\nfeed = 'orders'\nurl = '{url}/hook'\n{retry}"))
        .line(&format!("secrets = ['{SECRET}']"))
        .line(&format!("[webhooks.strict]\nfeed = 'strict'\nurl = '{url}/strict'\n{retry}"));
    Bridge::start(settings).await
}

async fn write(client: &Client, partition: i32, values: &[&str]) -> anyhow::Result<()> {
    let producer = client.producer();
    for value in values {
        let record = Record { partition: Some(partition), ..Record::new(value.as_bytes()) };
        let outcome = producer.send("orders", record, WITHIN).await;
        ensure!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
    }
    Ok(())
}

async fn ask(bridge: &Bridge, request: Request) -> anyhow::Result<Value> {
    let response = request.send(bridge.port()).await?;
    ensure!(response.status == 200, "{response:?}");
    Ok(serde_json::from_slice(&response.body)?)
}

/// What the bridge says of a partition of a webhook, if it has it.
async fn state(bridge: &Bridge, webhook: &str, partition: i32) -> anyhow::Result<Value> {
    let all = ask(bridge, Request::get("/v1/webhooks")).await?;
    let all = all["webhooks"].as_array().context("no webhooks")?;
    let found = all.iter().find(|it| it["name"] == webhook).context("no such webhook")?;
    let partitions = found["partitions"].as_array().context("no partitions")?;
    let found = partitions.iter().find(|it| it["partition"] == partition);
    Ok(found.cloned().unwrap_or_default())
}

async fn is_in_state(
    bridge: &Bridge,
    (webhook, partition): (&str, i32),
    expected: &str,
) -> anyhow::Result<Value> {
    let started = Instant::now();
    loop {
        let state = state(bridge, webhook, partition).await?;
        if state["state"] == expected {
            return Ok(state);
        }
        ensure!(started.elapsed() < WITHIN, "{state}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Signatures are those of Standard Webhooks, by its own libraries.
async fn verify(requests: &[Received]) -> anyhow::Result<()> {
    let lines = requests.iter().map(|it| json!({ "headers": it.headers, "body": it.body }));
    let lines: String = lines.map(|line| format!("{line}\n")).collect();
    let packages = spawn_blocking(tools::standard_webhooks).await??;
    let of_node = spawn_blocking(tools::standard_webhooks_of_node).await??;
    for (program, script, path, packages) in [
        ("python3", "python/webhooks.py", "PYTHONPATH", packages),
        ("node", "javascript/webhooks.js", "NODE_PATH", of_node),
    ] {
        let mut command = Command::new(program);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script)).arg(SECRET);
        command.env(path, packages).stdin(Stdio::piped()).stdout(Stdio::piped());
        let lines = lines.clone();
        let output = spawn_blocking(move || {
            let mut running = command.spawn()?;
            let mut stdin = running.stdin.take().context("no stdin")?;
            std::io::Write::write_all(&mut stdin, lines.as_bytes())?;
            drop(stdin);
            anyhow::Ok(running.wait_with_output()?)
        });
        let output = output.await??;
        let count = String::from_utf8(output.stdout)?;
        let is_all = count.trim() == requests.len().to_string();
        ensure!(output.status.success() && is_all, "{program}: {count}");
    }
    Ok(())
}

async fn case_19(version: KafkaVersion) -> anyhow::Result<()> {
    let kafka = Kafka::pooled(version).await?;
    kafka.create_topic("orders", PARTITIONS).await?;
    kafka.create_topic("dead", 1).await?;
    let client = client(&kafka.bootstrap(), &[])?;
    let receiver = Receiver::default();
    let url = receiver.start().await?;
    // 503, 503, 200.
    write(&client, 0, &["0"]).await?;
    let mut first = bridge(&kafka, &url).await?;
    receiver.has("/hook", 1).await?;
    let attempts = receiver.of("/hook");
    let statuses: Vec<_> = attempts.iter().map(|it| it.status).collect();
    ensure!(statuses == [503, 503, 200], "{statuses:?}");
    let of_all = |name: &str| attempts.iter().map(|it| &it.headers[name]).collect::<BTreeSet<_>>();
    ensure!(of_all("webhook-id").len() == 1 && of_all("webhook-id") == of_all("idempotency-key"));
    ensure!(of_all("kafka-upstream-attempt").len() == 3);
    // 400 with a dead-letter topic, and without.
    receiver.has("/strict", 1).await?;
    write(&client, 0, &["bad", "2"]).await?;
    receiver.has("/hook", 2).await?;
    let dead = client.consumer(&kafka_client::ConsumerConfig::default());
    let dead = dead.fetch(&[("dead", 0, 0)], 1 << 20, WITHIN).await.remove(0)?.records;
    let header = |name: &str| {
        let name = format!("kafka-upstream-dlq-{name}");
        let found = dead[0].headers.iter().find(|(own, _)| *own == name.as_bytes());
        found.and_then(|(_, value)| value).map(|it| String::from_utf8_lossy(&it).into_owned())
    };
    ensure!(dead.len() == 1 && dead[0].value.as_deref() == Some(b"bad"), "{dead:?}");
    let expected = [("reason", "undelivered"), ("offset", "1"), ("attempts", "1")];
    for (name, value) in expected {
        ensure!(header(name).as_deref() == Some(value), "{name}: {:?}", header(name));
    }
    let stopped = is_in_state(&first, ("strict", 0), "stopped").await?;
    let reason = "orders-0, offset 1: it answered 400 Bad Request";
    ensure!(stopped["reason"] == reason, "{stopped}");
    let ready = ask(&first, Request::get("/readyz")).await?;
    ensure!(ready["halted_webhooks"][0]["webhook"] == "strict", "{ready}");
    // Down for a time, and the bridge is restarted meanwhile; then two share the partitions.
    *lock(&receiver.is_down) = true;
    for partition in 0..PARTITIONS {
        write(&client, partition, &["a", "b", "c"]).await?;
    }
    receiver.refuses("/hook", 20).await?;
    ensure!(first.stop().await?.success());
    first.restart().await?;
    let second = bridge(&kafka, &url).await?;
    receiver.refuses("/hook", 20).await?;
    *lock(&receiver.is_down) = false;
    let expected = 2 + 3 * usize::try_from(PARTITIONS)?;
    receiver.has("/hook", expected).await?;
    let shared = async {
        loop {
            let mut has = [0, 0];
            for (bridge, has) in [&first, &second].into_iter().zip(&mut has) {
                for partition in 0..PARTITIONS {
                    *has += i32::from(!state(bridge, "hook", partition).await?.is_null());
                }
            }
            if has == [2, 2] {
                return anyhow::Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), shared).await.context("not shared")??;
    for partition in 0..PARTITIONS {
        write(&client, partition, &["d"]).await?;
    }
    receiver.has("/hook", expected + 4).await?;
    ensure!(first.stop().await?.success());
    write(&client, 3, &["e"]).await?;
    receiver.has("/hook", expected + 5).await?;
    in_order(&receiver)?;
    verify(&receiver.of("/hook")).await?;
    // Who has the partition after all of that does not go on either, until an operator says so.
    is_in_state(&second, ("strict", 0), "stopped").await?;
    ensure!(receiver.delivered("/strict")?.iter().all(|place| *place != (0, 2)));
    ask(&second, Request::new("POST", "/v1/webhooks/strict/resume")).await?;
    let started = Instant::now();
    let bad = || receiver.of("/strict").iter().filter(|it| it.status == 400).count();
    while bad() < 2 {
        ensure!(started.elapsed() < WITHIN, "it was not sent again");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Each partition's records came in order, repeated ones by the same id.
fn in_order(receiver: &Receiver) -> anyhow::Result<()> {
    let mut ids = BTreeMap::<(i32, i64), String>::new();
    for request in receiver.of("/hook") {
        let (place, id) = (request.place()?, request.headers["webhook-id"].clone());
        ensure!(ids.entry(place).or_insert_with(|| id.clone()) == &id, "{place:?}: another id");
    }
    let distinct: BTreeSet<_> = ids.values().collect();
    ensure!(distinct.len() == ids.len(), "two records with one id");
    for partition in 0..PARTITIONS {
        let mut seen = Vec::new();
        for (_, offset) in receiver.delivered("/hook")?.iter().filter(|(of, _)| *of == partition) {
            if !seen.contains(offset) {
                ensure!(seen.last().is_none_or(|last| last < offset), "{partition}: {seen:?}");
                seen.push(*offset);
            }
        }
    }
    let contents = receiver.of("/hook").into_iter().filter(|it| it.status == 200);
    let contents: BTreeSet<_> = contents.map(|it| it.content()).collect::<anyhow::Result<_>>()?;
    ensure!(contents == ["0", "2", "a", "b", "c", "d", "e"].map(str::to_owned).into());
    Ok(())
}

/// Receivers that are of no use, by path, and how often each was asked.
async fn bad_receivers() -> anyhow::Result<(String, Arc<Mutex<BTreeMap<String, usize>>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let asked = Arc::<Mutex<BTreeMap<String, usize>>>::default();
    let (counts, large) = (Arc::clone(&asked), Bytes::from(vec![b'x'; 100 << 20]));
    let answer = move |uri: axum::http::Uri| async move {
        let path = uri.path().to_owned();
        *lock(&counts).entry(path.clone()).or_default() += 1;
        match &*path {
            "/never" => std::future::pending().await,
            "/slow" => sleep(Duration::from_secs(2)).await,
            "/busy" => return (StatusCode::SERVICE_UNAVAILABLE, Bytes::new()),
            _ => return (StatusCode::OK, large),
        }
        (StatusCode::OK, Bytes::new())
    };
    let routes = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok((url, asked))
}

const BAD: [&str; 4] = ["never", "slow", "busy", "large"];

/// How long a receiver's records take, once its webhook has begun.
async fn pace(client: &Client, receiver: &Receiver) -> anyhow::Result<Duration> {
    let before = receiver.delivered("/good")?.len();
    write(client, 0, &["0"]).await?;
    receiver.has("/good", before + 1).await?;
    let (started, values) = (Instant::now(), ["v"; 100]);
    for partition in 0..PARTITIONS {
        write(client, partition, &values).await?;
    }
    receiver.has("/good", before + 1 + values.len() * usize::try_from(PARTITIONS)?).await?;
    Ok(started.elapsed())
}

async fn case_beside(version: KafkaVersion) -> anyhow::Result<()> {
    let kafka = Kafka::pooled(version).await?;
    kafka.create_topic("orders", PARTITIONS).await?;
    let client = client(&kafka.bootstrap(), &[])?;
    let good = Receiver::default();
    let (url, (bad, asked)) = (good.start().await?, bad_receivers().await?);
    let feed = "topics = ['orders']\nentrypoints = ['webhook']\nauto_offset_reset = 'earliest'";
    let hook = |name: &str, url: &str| {
        let retry = "timeout_ms = 60000\nretry = { initial_ms = 20, max_ms = 100 }";
        format!("[webhooks.{name}]\nfeed = 'orders'\nurl = '{url}/{name}'\n{retry}")
    };
    let settings = || {
        let settings = Settings::to(kafka.bootstrap()).line(&format!("[feeds.orders]\n{feed}"));
        settings.line(&hook("good", &url))
    };
    let mut bridge = Bridge::start(settings()).await?;
    let alone = pace(&client, &good).await?;
    ensure!(bridge.stop().await?.success());
    let settings = BAD.iter().fold(settings(), |all, name| all.line(&hook(name, &bad)));
    // Nobody listens there.
    let _bridge = Bridge::start(settings.line(&hook("dead", "http://127.0.0.1:1"))).await?;
    let beside = pace(&client, &good).await?;
    // One that waited for `never` would wait for `timeout_ms`.
    ensure!(beside < alone * 3 + Duration::from_secs(20), "{beside:?}, and {alone:?} alone");
    let asked = lock(&asked).clone();
    ensure!(BAD.iter().all(|name| asked.contains_key(&format!("/{name}"))), "{asked:?}");
    Ok(())
}

on_both_versions! {
    a_receiver_that_is_of_no_use_holds_up_no_other: super::case_beside;
    receivers_fail_and_bridges_come_and_go_and_each_record_comes_in_order: super::case_19;
}
