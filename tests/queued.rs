//! The queue that the bridge keeps for filters without a tick, and its listeners under strangers.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::ensure;
use harness::bridge::{Bridge, Settings};
use harness::http::Request;
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use harness::process::wait_until;
use harness::reader::read_all;
use kafka_upstream_core::config::Settings as Plugin;
use kafka_upstream_core::outcome::{Code, Outcome};
use kafka_upstream_core::profile;
use kafka_upstream_core::record::Record;
use kafka_upstream_core::wire::{self, Delivery, Head};

struct Parts {
    bridge: Bridge,
    kafka: Kafka,
    profile: [u8; 32],
}

impl Parts {
    async fn start() -> anyhow::Result<Self> {
        let kafka = Kafka::start(KafkaVersion::V4_3, 1).await?;
        kafka.create_topic("orders", 3).await?;
        let bridge = Bridge::start(Settings::to(kafka.bootstrap()).property("acks", "all")).await?;
        let plugin = Plugin::parse(br#"{"bridge":"b","topic":"orders"}"#)?;
        let document = plugin.profile.to_json()?;
        let profile = profile::id(&document);
        let path = format!("/v1/profiles/{}", profile::hex(&profile));
        let reply = Request::post(&path, document).method("PUT").send(bridge.port()).await?;
        ensure!(reply.status == 200, "{}", reply.text());
        Ok(Self { bridge, kafka, profile })
    }

    /// Hands over a batch of so many records of one key; the outcomes.
    async fn queue(&self, sequence: u64, key: &str, values: &[String]) -> anyhow::Result<Outcomes> {
        let head = Head {
            profile: self.profile,
            vm: [7; 16],
            sequence,
            delivery: Delivery::Queued,
            budget_ms: 10_000,
            settled_below: 0,
        };
        let encode = |value: &String| {
            wire::encode_record(&Record {
                topic: "orders",
                partition: None,
                timestamp_ms: 1_700_000_000_000,
                key: Some(key.as_bytes()),
                value: Some(value.as_bytes()),
                headers: Vec::new(),
            })
        };
        let records = values.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let frame = wire::encode_frame(&head, records.iter().map(Vec::as_slice))?;
        let request = Request::post("/v1/produce", frame).header("content-type", wire::BATCH_TYPE);
        let reply = request.send(self.bridge.port()).await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        Ok(wire::decode_outcomes(&reply.body)?)
    }

    async fn queued(&self) -> anyhow::Result<f64> {
        self.bridge.metric("host_bridge_queued_records", "").await
    }

    /// Each key's values in the order of their offsets.
    async fn by_key(&self) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
        let mut by_key = BTreeMap::<String, Vec<String>>::new();
        let mut records = read_all(&self.kafka.bootstrap(), "orders").await?;
        records.sort_by_key(|record| (record.partition, record.offset));
        for record in records {
            let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap_or_default());
            by_key.entry(text(record.key)?).or_default().push(text(record.value)?);
        }
        Ok(by_key)
    }
}

type Outcomes = Vec<Outcome>;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_while_kafka_is_down_is_there_once_and_in_order() -> anyhow::Result<()> {
    let mut parts = Parts::start().await?;
    let mut expected = BTreeMap::<String, Vec<String>>::new();
    for sequence in 0..200 {
        match sequence {
            20 => parts.kafka.kill_broker(1)?,
            150 => parts.kafka.start_broker(1).await?,
            _ => {}
        }
        let key = format!("k{}", sequence % 5);
        let values: Vec<_> = (0..10).map(|n| format!("{sequence} {n}")).collect();
        // Also as a filter that lost the reply sends it again.
        for _ in 0..=sequence % 2 {
            let outcomes = parts.queue(sequence, &key, &values).await?;
            assert_eq!(outcomes, vec![Outcome::Queued; 10]);
        }
        expected.entry(key).or_default().extend(values);
    }
    // A termination empties the queue.
    let queued = parts.queued().await?;
    assert!(parts.bridge.stop().await?.success());
    let log = parts.bridge.process().log_tail();
    assert!(!log.contains("queued_records_lost"), "{queued} were queued: {log}");
    assert_eq!(parts.by_key().await?, expected);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_so_and_holds_no_more_memory_than_it_counts() -> anyhow::Result<()> {
    let mut parts = Parts::start().await?;
    parts.kafka.kill_broker(1)?;
    let before = parts.bridge.process().rss_bytes()?;
    let mut sequence = 0;
    let full = loop {
        sequence += 1;
        let values: Vec<_> =
            (0..5).map(|n| format!("{sequence} {n} {}", "x".repeat(500))).collect();
        match parts.queue(sequence, "k", &values).await?.swap_remove(0) {
            Outcome::Queued => {}
            other => break other,
        }
    };
    assert!(matches!(full, Outcome::NotWritten(reason) if reason.code == Code::QueueFull));
    assert_eq!(parts.queued().await?, 50_000.0);
    let counted = parts.bridge.metric("host_bridge_queued_bytes", "").await?;
    let held = parts.bridge.process().rss_bytes()? - before;
    println!("queued {counted} B, memory grew by {held} B");
    assert!(held < 100_000_000, "{held} bytes for {counted}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_slips_past_a_filter_is_told_so_on_every_path() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let tokens = directory.path().join("tokens");
    std::fs::write(&tokens, "secret\n")?;
    let settings =
        Settings::to("127.0.0.1:1").line(&format!("token_file = '{}'", tokens.display()));
    let bridge = Bridge::start(settings).await?;
    let paths = ["/v1/bypassed", "/v1/bypassed/", "/v1/bypassed/17/lines?a=b", "/v1/bypassed17"];
    for path in paths {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let reply = Request::post(path, "x").method(method).send(bridge.port()).await?;
            assert_eq!(reply.status, 504, "{method} {path}: {}", reply.text());
        }
    }
    assert_eq!(Request::get("/v1/other").send(bridge.port()).await?.status, 401);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_at_the_tls_port_keep_no_gateway_out() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let files = ["tls.crt", "tls.key"].map(|name| directory.path().join(name));
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    std::fs::write(&files[0], own.cert.pem())?;
    std::fs::write(&files[1], own.signing_key.serialize_pem())?;
    let port = ports::free()?;
    let mut settings = Settings::to("127.0.0.1:1").line(&format!(
        "[tls]\ncertificate_file = '{}'\nkey_file = '{}'",
        files[0].display(),
        files[1].display()
    ));
    settings.listen = vec![format!("tls:127.0.0.1:{port}")];
    let bridge = Bridge::start(settings).await?;
    let mut strangers = Vec::new();
    // Nothing, another protocol, and half of a handshake.
    for hello in [&b""[..], b"GET /healthz HTTP/1.1\r\nhost: b\r\n\r\n", b"\x16\x03\x01\x02\x00"] {
        for _ in 0..300 {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.write_all(hello)?;
            strangers.push(stream);
        }
    }
    let alive = Request::get("/healthz").timeout(Duration::from_secs(2));
    assert_eq!(alive.send(bridge.socket().as_path()).await?.status, 200);
    // Their sockets are closed although they are still there.
    wait_until("closed strangers", Duration::from_secs(20), async || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", bridge.process().id()))?.count();
        ensure!(open < 100, "{open} descriptors are open");
        Ok(())
    })
    .await?;
    drop(strangers);
    Ok(())
}
