//! The bridge by itself: its routes, what it refuses, and how it ends.

use std::time::Duration;

use harness::bridge::{Bridge, Settings};
use harness::http::{Request, Response};
use harness::kafka::{Kafka, KafkaVersion};
use harness::reader::read_all;
use kafka_upstream_core::config::Settings as Plugin;
use kafka_upstream_core::outcome::Outcome;
use kafka_upstream_core::profile;
use kafka_upstream_core::record::Record;
use kafka_upstream_core::wire::{self, Delivery, Head};
use serde_json::json;

struct Parts {
    bridge: Bridge,
    kafka: Kafka,
    profile: Vec<u8>,
}

impl Parts {
    async fn start() -> anyhow::Result<Self> {
        Self::start_on(Kafka::pooled(KafkaVersion::V4_3).await?).await
    }

    /// On a Kafka that the test may stop.
    async fn start_alone() -> anyhow::Result<Self> {
        Self::start_on(Kafka::start(KafkaVersion::V4_3, 1).await?).await
    }

    async fn start_on(kafka: Kafka) -> anyhow::Result<Self> {
        kafka.create_topic("orders", 1).await?;
        let bridge = Bridge::start(Settings::to(kafka.bootstrap())).await?;
        let plugin = Plugin::parse(br#"{"bridge":"b","topic":"orders"}"#)?;
        Ok(Self { bridge, kafka, profile: plugin.profile.to_json()? })
    }

    async fn register(&self) -> anyhow::Result<Response> {
        let path = format!("/v1/profiles/{}", profile::hex(&profile::id(&self.profile)));
        self.put(&path, &self.profile).await
    }

    async fn put(&self, path: &str, body: &[u8]) -> anyhow::Result<Response> {
        let request = Request::post(path, body.to_vec()).method("PUT");
        request.send(self.bridge.port()).await
    }

    async fn produce(&self, frame: &[u8]) -> anyhow::Result<Response> {
        let request =
            Request::post("/v1/produce", frame.to_vec()).header("content-type", wire::BATCH_TYPE);
        request.send(self.bridge.port()).await
    }

    fn frame(&self, sequence: u64, values: &[&str]) -> anyhow::Result<Vec<u8>> {
        let head = Head {
            profile: profile::id(&self.profile),
            vm: [7; 16],
            sequence,
            delivery: Delivery::Acked,
            budget_ms: 10_000,
            settled_below: 0,
        };
        let encode = |value: &&str| {
            wire::encode_record(&Record {
                topic: "orders",
                partition: Some(0),
                timestamp_ms: 1_700_000_000_000,
                key: Some(b"key"),
                value: Some(value.as_bytes()),
                headers: vec![(b"h", Some(b"1")), (b"h", None)],
            })
        };
        let records = values.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        Ok(wire::encode_frame(&head, records.iter().map(Vec::as_slice))?)
    }

    async fn values(&self) -> anyhow::Result<Vec<String>> {
        let records = read_all(&self.kafka.bootstrap(), "orders").await?;
        let text = |value: Option<Vec<u8>>| String::from_utf8(value.unwrap_or_default());
        Ok(records.into_iter().map(|record| text(record.value)).collect::<Result<_, _>>()?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_cut_at_every_byte_is_refused_and_nothing_is_written() -> anyhow::Result<()> {
    let parts = Parts::start().await?;
    assert_eq!(parts.register().await?.status, 200);
    let frame = parts.frame(1, &["one", "two"])?;
    for end in 0..frame.len() {
        let reply = parts.produce(&frame[..end]).await?;
        assert_eq!((reply.status, &reply.json()?["code"]), (400, &json!("bad_frame")), "{end}");
        assert_eq!(reply.header(wire::MARKER), Some(wire::VERSION));
    }
    let longer = [frame.as_slice(), b"x"].concat();
    assert_eq!(parts.produce(&longer).await?.status, 400);
    assert_eq!(parts.values().await?, [] as [&str; 0]);

    let reply = parts.produce(&frame).await?;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some(wire::OUTCOMES_TYPE)));
    let written = |offset| Outcome::Written { partition: 0, offset: Some(offset) };
    assert_eq!(wire::decode_outcomes(&reply.body)?, [written(0), written(1)]);
    let record = &read_all(&parts.kafka.bootstrap(), "orders").await?[0];
    assert_eq!(record.key.as_deref(), Some(&b"key"[..]));
    assert_eq!(record.timestamp_ms, 1_700_000_000_000);
    assert_eq!(record.headers, [("h".to_owned(), Some(b"1".to_vec())), ("h".to_owned(), None)]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_sent_twice_is_written_once_and_answered_alike() -> anyhow::Result<()> {
    let parts = Parts::start().await?;
    let frame = parts.frame(1, &["one"])?;
    let unknown = parts.produce(&frame).await?;
    assert_eq!((unknown.status, &unknown.json()?["code"]), (404, &json!("unknown_profile")));
    assert_eq!(parts.register().await?.status, 200);
    let (first, second) = tokio::try_join!(parts.produce(&frame), parts.produce(&frame))?;
    let third = parts.produce(&frame).await?;
    assert_eq!((first.status, &first.body), (200, &second.body));
    assert_eq!(first.body, third.body);
    assert_eq!(parts.produce(&parts.frame(2, &["two"])?).await?.status, 200);
    assert_eq!(parts.values().await?, ["one", "two"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_is_checked_before_it_is_registered() -> anyhow::Result<()> {
    let parts = Parts::start().await?;
    let put = async |document: &str, hash: Option<&str>| -> anyhow::Result<(u16, String)> {
        let own = profile::hex(&profile::id(document.as_bytes()));
        let path = format!("/v1/profiles/{}", hash.unwrap_or(&own));
        let reply = parts.put(&path, document.as_bytes()).await?;
        assert_eq!(reply.header(wire::MARKER), Some(wire::VERSION));
        Ok((reply.status, reply.json()?["error"].as_str().unwrap_or_default().to_owned()))
    };
    let file = parts.bridge.config_path();
    let place = |text: &str| format!("{text} to {})", file.display());
    let valid = String::from_utf8(parts.profile.clone())?;
    let (status, error) = put(&valid, Some(&"0".repeat(64))).await?;
    assert_eq!((status, &*error), (422, "the path is not the SHA-256 of the body"));
    let (status, error) = put("{", None).await?;
    assert!(status == 422 && error.contains("EOF"), "{error}");
    let (status, error) = put(&valid.replace("null", "\"other\""), None).await?;
    let refused =
        place("cluster: `other` is not in the bridge's configuration (add clusters.other");
    assert_eq!((status, error), (422, refused));
    let inline = valid.replace("[]", "[\"10.1.2.3:9092\"]");
    let (status, error) = put(&inline, None).await?;
    let refused = "bootstrap_servers: `10.1.2.3:9092` is neither loopback nor in \
        inline_bootstrap_servers (add inline_bootstrap_servers";
    let refused = &*place(refused);
    assert_eq!((status, &*error), (422, refused));
    for page in ["/readyz", "/v1/status"] {
        let told = parts.bridge.get(page).await?.json()?["refused_profiles"].clone();
        let reasons = told.as_array().into_iter().flatten().map(|one| one["reason"].as_str());
        assert!(reasons.clone().any(|reason| reason == Some(refused)), "{page}: {told}");
    }
    let loopback = valid.replace("[]", &format!("[\"{}\"]", parts.kafka.bootstrap()));
    assert_eq!(put(&loopback, None).await?.0, 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_that_nobody_uses_make_room_for_new_ones() -> anyhow::Result<()> {
    let parts = Parts::start().await?;
    assert_eq!(parts.register().await?.status, 200);
    let document = String::from_utf8(parts.profile.clone())?;
    for linger in 1..=300 {
        let other = document.replace("{}", &format!("{{\"linger.ms\":\"{linger}\"}}"));
        let path = format!("/v1/profiles/{}", profile::hex(&profile::id(other.as_bytes())));
        let reply = parts.put(&path, other.as_bytes()).await?;
        assert_eq!(reply.status, 200, "{linger}: {}", reply.text());
    }
    let frame = parts.frame(1, &["one"])?;
    assert_eq!(parts.produce(&frame).await?.status, 404, "the oldest is forgotten");
    assert_eq!(parts.register().await?.status, 200);
    assert_eq!(parts.produce(&frame).await?.status, 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_do_not_come_stop_nobody_else() -> anyhow::Result<()> {
    use std::io::{Read as _, Write as _};
    let parts = Parts::start().await?;
    let head = format!(
        "POST /v1/produce HTTP/1.1\r\nhost: b\r\ncontent-type: {}\r\ncontent-length: 16777216\r\n\r\n",
        wire::BATCH_TYPE
    );
    let mut stalled = Vec::new();
    for _ in 0..32 {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", parts.bridge.port()))?;
        stream.write_all(head.as_bytes())?;
        stalled.push(stream);
    }
    assert_eq!(parts.register().await?.status, 200);
    assert_eq!(parts.produce(&parts.frame(1, &["one"])?).await?.status, 200);
    for mut stream in stalled {
        let mut start = [0; 12];
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.read_exact(&mut start)?;
        assert_eq!(&start, b"HTTP/1.1 408");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_route_writes_one_record_without_a_filter() -> anyhow::Result<()> {
    let parts = Parts::start().await?;
    let path = "/v1/clusters/default/topics/orders";
    let request = Request::post(path, "value")
        .header("kafka-key", "k")
        .header("kafka-partition", "0")
        .header("kafka-header-trace", "t");
    let reply = request.send(parts.bridge.port()).await?;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("kafka-offset"), Some("0"));
    let log = parts.bridge.process().log_tail();
    assert!(log.contains("event=started"), "{log}");
    // A file gets no colours, and a normal start warns of nothing.
    assert!(!log.contains('\u{1b}') && !log.contains("WARN"), "{log}");
    let record = &read_all(&parts.kafka.bootstrap(), "orders").await?[0];
    assert_eq!(record.key.as_deref(), Some(&b"k"[..]));
    assert_eq!(record.value.as_deref(), Some(&b"value"[..]));
    assert_eq!(record.header("trace").as_deref(), Some("t"));

    let refused = async |path: &str, partition: &str| -> anyhow::Result<(u16, String)> {
        let request = Request::post(path, "value").header("kafka-partition", partition);
        let reply = request.send(parts.bridge.port()).await?;
        Ok((reply.status, reply.text()))
    };
    assert_eq!(refused(path, "x").await?.0, 400);
    assert_eq!(refused(path, "7").await?.0, 502);
    assert_eq!(refused("/v1/clusters/other/topics/orders", "0").await?.0, 404);
    let (status, text) = refused("/v1/clusters/default/topics/none", "0").await?;
    assert_eq!(status, 502, "{text}");
    assert_eq!(parts.values().await?.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cluster_the_bridge_is_ready_for_filters_that_name_their_own()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("bridge.sock");
    let mut command = std::process::Command::new(xtask::build::bridge()?);
    command.arg("--listen").arg(format!("unix:{}", socket.display()));
    let log = directory.path().join("log");
    let mut bridge = harness::process::Process::spawn("host-bridge", command, &log)?;
    let ready = async || Request::get("/readyz").send(socket.as_path()).await;
    let reply = bridge.wait_ready("to answer", Duration::from_secs(15), ready).await?;
    let note = "no cluster is configured: only filters with bootstrap_servers are served";
    let body = json!({ "ready": true, "clusters": {}, "note": note });
    assert_eq!((reply.status, reply.json()?), (200, body));
    bridge.kill9()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_follows_kafka_and_health_does_not() -> anyhow::Result<()> {
    let mut parts = Parts::start_alone().await?;
    let ready = parts.bridge.get("/readyz").await?;
    assert_eq!(
        (ready.status, ready.json()?),
        (200, json!({"ready": true, "clusters": {"default": "ready"}}))
    );
    parts.kafka.kill_broker(1)?;
    let down = parts.bridge.get("/readyz").await?;
    assert_eq!((down.status, &down.json()?["ready"]), (503, &json!(false)));
    assert_ne!(down.json()?["clusters"]["default"], json!("ready"));
    assert_eq!(parts.bridge.get("/healthz").await?.status, 200);
    assert!(parts.bridge.metrics().await?.ends_with("# EOF\n"));
    let nowhere = parts.bridge.get("/nowhere").await?;
    assert_eq!((nowhere.status, nowhere.header(wire::MARKER)), (404, Some("1")));
    assert_eq!(parts.bridge.get("/v1/produce").await?.status, 405);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_termination_answers_what_is_under_way_and_then_ends() -> anyhow::Result<()> {
    let mut parts = Parts::start_alone().await?;
    parts.register().await?;
    assert_eq!(parts.produce(&parts.frame(1, &["first"])?).await?.status, 200);
    parts.kafka.freeze_broker(1)?;
    let frame = parts.frame(2, &["under way"])?;
    let port = parts.bridge.port();
    let waiting = tokio::spawn(
        Request::post("/v1/produce", frame).header("content-type", wire::BATCH_TYPE).send(port),
    );
    harness::process::wait_until("a buffered record", Duration::from_secs(10), async || {
        let buffered = parts.bridge.metric("host_bridge_kafka_buffered_bytes", "").await?;
        anyhow::ensure!(buffered > 0.0, "nothing is buffered");
        Ok(())
    })
    .await?;
    parts.bridge.process().terminate();
    parts.kafka.thaw_broker(1)?;
    let reply = waiting.await??;
    assert_eq!(reply.status, 200);
    let outcomes = wire::decode_outcomes(&reply.body)?;
    assert_eq!(outcomes, [Outcome::Written { partition: 0, offset: Some(1) }]);
    assert!(parts.bridge.stop().await?.success());
    assert!(!parts.bridge.socket().exists(), "the socket's file is removed");
    assert_eq!(parts.values().await?, ["first", "under way"]);
    Ok(())
}
