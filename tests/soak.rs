//! Everything that goes wrong at the same time: what each client was told, against what Kafka holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use harness::bridge::{Bridge, Settings};
use harness::envoy::{Envoy, EnvoyConfig, Listener};
use harness::http::Request;
use harness::kafka::{Kafka, KafkaVersion};
use harness::load::{Ending, Limit, Load, Report, Requests};
use harness::process::wait_until;
use kafka_upstream_tests::cluster::{BrokerFault, REPLICATED, strike, whole};
use kafka_upstream_tests::forwarder::Forwarder;
use kafka_upstream_tests::{Gateway, acked, bodies, configuration, text, unfinished_http_2};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use xtask::build;

/// How long the load goes on; `SOAK_SECONDS` sets another time.
const SECONDS: u64 = 40;
/// Requests of a round of load.
const ROUND: u64 = 2000;
/// Clients of each filter.
const CLIENTS: usize = 16;
/// Clients that send a byte at a time, and as many that announce a body and are late.
const SLOW: usize = 30;

/// The topic of each filter, and that of every third request, which is missing until the end where it
/// is another one.
const TOPICS: [(&str, &str); 4] =
    [("acked", "acked"), ("memory", "memory"), ("mixed", "missing"), ("queued", "absent")];

/// What became of each body.
type Ledger = Vec<(String, Ending)>;

fn settings(topic: &str, missing: &str) -> Value {
    let fields = json!({ "producer_request_acks": -1, "topics_query_arg": "topic",
        "allowed_topics": BTreeSet::from([topic, missing]), "producer_async_flush_timeout": 50,
        "delivery_timeout": 5000 });
    if ["acked", "mixed"].contains(&topic) { acked(&fields) } else { fields }
}

/// Three brokers, which the bridge first asks through an address that stays.
async fn start() -> anyhow::Result<(Gateway, Forwarder)> {
    let kafka = Kafka::start(KafkaVersion::V4_3, 3).await?;
    let forwarder = Forwarder::to(&kafka.address(1)?).await?;
    let bridge = Settings::to(forwarder.address()).property("enable.idempotence", "true");
    let bridge = Bridge::start(bridge).await?;
    let mut config = EnvoyConfig::new(build::filter()?).concurrency(1).bridge(&bridge);
    for (topic, missing) in TOPICS {
        kafka.create_topic_with(topic, 3, 3, &REPLICATED).await?;
        let configuration = configuration(topic, &settings(topic, missing));
        config = config.listener(Listener::filter(topic, configuration).vm_id("one"));
    }
    Ok((Gateway { envoy: Envoy::start(config).await?, bridge, kafka }, forwarder))
}

/// Numbered requests; every third goes to another topic.
fn numbered(topic: &'static str, missing: &'static str) -> Requests {
    Requests::raw(move |number, out| {
        let topic_of = if number % 3 == 0 { missing } else { topic };
        let body = format!("{topic} {number}");
        let head = format!(
            "POST /?topic={topic_of} HTTP/1.1\r\nhost: h\r\ncontent-type: text/plain\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        out.extend_from_slice(head.as_bytes());
    })
}

async fn load(
    port: u16,
    (topic, missing): (&'static str, &'static str),
    last: Arc<AtomicBool>,
) -> anyhow::Result<Ledger> {
    let mut reports: Vec<Report> = Vec::new();
    while !last.load(Relaxed) {
        let first = reports.len() as u64 * ROUND;
        let load = Load::new(port, numbered(topic, missing)).first(first).connections(CLIENTS);
        reports.push(load.limit(Limit::Requests(ROUND)).run().await?);
    }
    let endings = reports.iter().flat_map(Report::endings);
    Ok(endings.map(|(number, ending)| (format!("{topic} {number}"), ending)).collect())
}

/// A client that sends a byte at a time, over 7 s at most.
async fn slow_client(port: u16, client: usize, last: Arc<AtomicBool>) -> anyhow::Result<Ledger> {
    let mut ledger = Ledger::new();
    while !last.load(Relaxed) {
        let body = format!("slow {client} {}", ledger.len());
        let bytes = body.bytes().map(|byte| Bytes::from(vec![byte])).collect::<Vec<_>>();
        let pause = Duration::from_millis(7000 / bytes.len() as u64 * (client as u64 % 4 + 1) / 4);
        let request = text("").header("content-length", body.len().to_string());
        let reply = request.pieces(bytes, pause).send(port).await?;
        ledger.push((body, Ending::Status(reply.status)));
    }
    Ok(ledger)
}

/// A client that announces a body and is gone for longer than it has; its answer is there then.
async fn late_client(port: u16, client: usize, last: Arc<AtomicBool>) -> anyhow::Result<Ledger> {
    let mut ledger = Ledger::new();
    while !last.load(Relaxed) {
        let body = format!("late {client} {}", ledger.len());
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let head = format!("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        sleep(Duration::from_secs(6)).await;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        let status = str::from_utf8(&answer)?.split(' ').nth(1).context("no status")?;
        ledger.push((body, Ending::Status(status.parse()?)));
    }
    Ok(ledger)
}

/// Connections of HTTP/2 requests that never end, longer than they may.
async fn unfinished(port: u16, last: Arc<AtomicBool>) -> anyhow::Result<Ledger> {
    while !last.load(Relaxed) {
        let mut client = TcpStream::connect(("127.0.0.1", port)).await?;
        client.write_all(&unfinished_http_2(300)).await?;
        sleep(Duration::from_secs(7)).await;
    }
    Ok(Ledger::new())
}

/// One fault after the other, until the time is over and each has been there.
async fn faults(kafka: &mut Kafka, forwarder: &Forwarder, end: Instant) -> anyhow::Result<usize> {
    let mut faults = 0;
    while Instant::now() < end || faults < 4 {
        match faults % 4 {
            0 => bounce_leader(kafka, forwarder, BrokerFault::Bounce).await?,
            1 => {
                for id in 1..=3 {
                    forwarder.lead_to(kafka.address(id % 3 + 1)?)?;
                    kafka.move_broker(id).await?;
                    whole(kafka).await?;
                }
                forwarder.lead_to(kafka.address(1)?)?;
            }
            2 => bounce_leader(kafka, forwarder, BrokerFault::Kill).await?,
            _ => bounce_leader(kafka, forwarder, BrokerFault::Freeze).await?,
        }
        faults += 1;
    }
    Ok(faults)
}

async fn bounce_leader(
    kafka: &mut Kafka,
    forwarder: &Forwarder,
    fault: BrokerFault,
) -> anyhow::Result<()> {
    let victim = kafka.leader_of("acked", 0).await?;
    forwarder.lead_to(kafka.address(victim % 3 + 1)?)?;
    strike(kafka, fault, ("acked", 0)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_each_client_is_told_is_true_while_everything_fails() -> anyhow::Result<()> {
    let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let (mut gateway, forwarder) = start().await?;
    for (topic, _) in TOPICS {
        gateway.wait_for_success(topic, "first").await?;
    }
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS));
    let last = Arc::new(AtomicBool::new(false));
    let mut running: Vec<JoinHandle<anyhow::Result<Ledger>>> = Vec::new();
    for (topic, missing) in TOPICS {
        let port = gateway.envoy.port(topic)?;
        running.push(tokio::spawn(load(port, (topic, missing), last.clone())));
    }
    let port = gateway.envoy.port("acked")?;
    running.extend((0..SLOW).map(|client| tokio::spawn(slow_client(port, client, last.clone()))));
    running.extend((0..SLOW).map(|client| tokio::spawn(late_client(port, client, last.clone()))));
    running.push(tokio::spawn(unfinished(port, last.clone())));
    let struck = faults(&mut gateway.kafka, &forwarder, end).await?;
    last.store(true, Relaxed);
    let mut ledger = Ledger::new();
    for client in running {
        ledger.extend(client.await??);
    }
    for (_, missing) in TOPICS.iter().skip(2) {
        gateway.kafka.create_topic_with(missing, 3, 3, &REPLICATED).await?;
    }
    for (topic, missing) in TOPICS.iter().skip(2) {
        mended(&gateway, topic, missing).await?;
    }
    gateway.wait_until_empty().await?;
    let topics: BTreeSet<&str> =
        TOPICS.iter().flat_map(|(topic, other)| [*topic, *other]).collect();
    let mut written = HashMap::new();
    for topic in topics {
        for (body, copies) in bodies(&gateway.records(topic).await?)? {
            *written.entry(body).or_insert(0) += copies;
        }
    }
    judge(&ledger, &written, struck)
}

/// Waits until a topic that was missing is written to.
async fn mended(gateway: &Gateway, listener: &str, topic: &str) -> anyhow::Result<()> {
    let port = gateway.envoy.port(listener)?;
    wait_until("a topic that is there", Duration::from_secs(60), async || {
        let request = Request::post(&format!("/?topic={topic}"), "mended");
        let reply = request.header("content-type", "text/plain").send(port).await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        Ok(())
    })
    .await
}

fn judge(ledger: &Ledger, written: &HashMap<String, usize>, struck: usize) -> anyhow::Result<()> {
    let mut counts = BTreeMap::<(&str, Ending), usize>::new();
    for (body, ending) in ledger {
        let copies = written.get(body).copied().unwrap_or_default();
        let is_true = match ending {
            Ending::Status(200) => copies == 1,
            Ending::Status(503 | 502 | 408) => copies == 0,
            Ending::Status(504) => copies <= 1,
            _ => false,
        };
        ensure!(is_true, "{body} ended as {ending:?}, and is there {copies} times");
        let filter = body.split(' ').next().context("an empty body")?;
        *counts.entry((filter, *ending)).or_default() += 1;
    }
    println!("{struck} faults; {} requests: {counts:?}", ledger.len());
    for filter in ["acked", "memory", "mixed", "queued", "slow"] {
        let sent = counts.get(&(filter, Ending::Status(200))).copied().unwrap_or_default();
        ensure!(sent > 20, "{filter}: {sent} requests were answered 200: {counts:?}");
    }
    let late = counts.iter().filter(|((filter, _), _)| *filter == "late");
    ensure!(late.clone().all(|((_, end), _)| *end == Ending::Status(408)), "{counts:?}");
    ensure!(late.count() == 1, "{counts:?}");
    Ok(())
}
