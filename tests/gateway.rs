//! What is Envoy's own: its limits, its options, and what the filter makes of them.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::ensure;
use harness::bridge::{Bridge, Settings};
use harness::envoy::{Envoy, EnvoyConfig, Listener};
use harness::http::Request;
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use harness::process::wait_until;
use kafka_upstream_tests::relay::{Does, Ending, Relay};
use kafka_upstream_tests::{Gateway, acked, bodies, configuration, text};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use xtask::build;

const BUFFER_BYTES: u32 = 65_536;

/// What the tests here use besides a gateway: relays by the listener that they serve.
type Relays = BTreeMap<&'static str, Relay>;

async fn start() -> anyhow::Result<(Gateway, Relays)> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    let bridge = Bridge::start(Settings::to(kafka.bootstrap())).await?;
    let mut config = EnvoyConfig::new(build::filter()?).bridge(&bridge);
    config = config.cluster("nobody", ports::free()?);
    let mut relays = Relays::new();
    for name in ["no-option", "bytes"] {
        let relay = Relay::start(&bridge).await?;
        config = config.cluster(name, relay.port());
        relays.insert(name, relay);
    }
    let listener = |name: &str, fields: Value| {
        Listener::filter(name, configuration(name, &fields)).vm_id("gateway")
    };
    let behind = json!([{ "match": { "prefix": "/" },
        "direct_response": { "status": 200, "body": { "inline_string": "behind" } } }]);
    let elsewhere = |host| acked(&json!({ "host": host, "bridge": "127.0.0.1:9280" }));
    let tap = |memory| json!({ "mode": "tap", "bridge": "nobody", "producer_async": memory });
    let go_on = || acked(&json!({ "allow_on_headers_stop_iteration": false }));
    let no_option = acked(&json!({ "bridge": "no-option", "delivery_timeout": 1000 }));
    let by_bytes = json!({
        "bridge": "bytes", "producer_async_flush_timeout": 10,
        "producer_async_buffering_limits_bytes_in_memory": 20_000,
    });
    let listeners = [
        listener("limited", acked(&json!({}))).buffer_limit_bytes(BUFFER_BYTES),
        listener("no-option", no_option).without_stop_iteration(),
        listener("go-on", go_on()),
        listener("go-on-nowhere", go_on()).to_cluster("nobody"),
        listener("go-on-elsewhere", go_on()).routes(behind.clone()),
        listener("bytes", by_bytes),
        listener("auto", acked(&json!({ "host": "auto" }))),
        listener("wasmx", elsewhere("wasmx")),
        listener("apisix", elsewhere("apisix")),
        listener("tap-acked", tap(false)).routes(behind.clone()),
        listener("tap-memory", tap(true)).routes(behind),
    ];
    for listener in listeners {
        config = config.listener(listener);
    }
    let topics = ["limited", "no-option", "bytes", "auto"];
    for topic in topics.into_iter().chain(["go-on", "go-on-nowhere", "go-on-elsewhere"]) {
        kafka.create_topic(topic, 1).await?;
    }
    Ok((Gateway { envoy: Envoy::start(config).await?, bridge, kafka }, relays))
}

#[tokio::test(flavor = "multi_thread")]
async fn envoys_own_ways_make_no_false_answer() -> anyhow::Result<()> {
    let (gateway, relays) = start().await?;
    envoys_buffer_limit_is_its_own(&gateway).await?;
    without_its_option_envoy_is_found_out(&gateway, &relays["no-option"]).await?;
    headers_that_go_on_make_nobodys_answer(&gateway).await?;
    a_host_is_detected_and_a_wrong_name_is_refused(&gateway).await?;
    too_many_headers_are_envoys_to_refuse(&gateway).await?;
    a_queue_that_is_full_by_bytes_refuses_and_drops_nothing(&gateway, &relays["bytes"]).await?;
    // Last: what it queues stays.
    a_tap_with_its_bridge_down_does_one_of_both(&gateway).await
}

/// Envoy's limit below the filter's: its last byte passes, one more is Envoy's own 413.
async fn envoys_buffer_limit_is_its_own(gateway: &Gateway) -> anyhow::Result<()> {
    let limit = BUFFER_BYTES as usize;
    for (size, status) in [(limit - 1, 200), (limit, 200), (limit + 1, 413)] {
        let reply = gateway.send("limited", text(&"x".repeat(size))).await?;
        assert_eq!(reply.status, status, "{size} bytes: {}", reply.text());
        assert_eq!(reply.header("kafka-error"), None, "{size} bytes: the filter's");
    }
    assert_eq!(gateway.records("limited").await?.len(), 2);
    gateway.wait_until_empty().await
}

/// Without `allow_on_headers_stop_iteration` the body never comes while the headers are held.
async fn without_its_option_envoy_is_found_out(
    gateway: &Gateway,
    relay: &Relay,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let reply = gateway.send("no-option", text("abc")).await?;
    assert_eq!((reply.status, reply.header("kafka-error")), (500, Some("host_mismatch")));
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(gateway.envoy.log().contains("allow_on_headers_stop_iteration"));
    assert_eq!(relay.requests(), 0, "no callout");
    assert_eq!(gateway.send("no-option", Request::get("/")).await?.status, 200, "has no body");
    gateway.wait_until_empty().await
}

/// Without the option, and with a configuration that says so: what stands behind the filter, a bridge
/// that holds, nobody, or a route of its own, answers no client.
async fn headers_that_go_on_make_nobodys_answer(gateway: &Gateway) -> anyhow::Result<()> {
    let held = gateway.bridge.metric("host_bridge_bypassed_total", "").await?;
    for request in [text("one"), text("two").http2(), Request::get("/")] {
        let reply = gateway.send("go-on", request).await?;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    assert_eq!(gateway.records("go-on").await?.len(), 3);
    assert_eq!(gateway.bridge.metric("host_bridge_bypassed_total", "").await?, held);
    // Envoy's own 503 comes while the batch is in flight, and waits for its outcome.
    let reply = gateway.send("go-on-nowhere", text("abc")).await?;
    assert_eq!(reply.status, 200, "{}", reply.text());
    for (name, status, code) in
        [("go-on-nowhere", 503, "bridge_unreachable"), ("go-on-elsewhere", 500, "host_mismatch")]
    {
        let mut client = TcpStream::connect(("127.0.0.1", gateway.envoy.port(name)?)).await?;
        client.write_all(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\na").await?;
        let mut reply = String::new();
        let mut lines = BufReader::new(client).lines();
        while let Some(line) = lines.next_line().await?.filter(|line| !line.is_empty()) {
            reply += &line;
        }
        let told = reply.contains(&format!("HTTP/1.1 {status}")) && reply.contains(code);
        assert!(told, "{name}: {reply}");
    }
    assert!(gateway.envoy.log().contains("event=answered_behind"));
    assert_eq!(gateway.records("go-on-nowhere").await?.len(), 1);
    assert_eq!(gateway.records("go-on-elsewhere").await?.len(), 0);
    gateway.wait_until_empty().await
}

async fn a_host_is_detected_and_a_wrong_name_is_refused(gateway: &Gateway) -> anyhow::Result<()> {
    assert_eq!(gateway.send("auto", text("abc")).await?.status, 200);
    for told in ["wasmx", "apisix"] {
        for _ in 0..2 {
            let reply = gateway.send(told, text("abc")).await?;
            assert_eq!((reply.status, reply.header("kafka-error")), (500, Some("host_mismatch")));
        }
        let line = format!("event=host_mismatch host={told} found=envoy effect=500");
        assert_eq!(gateway.envoy.log().matches(&line).count(), 1, "{line}");
    }
    Ok(())
}

async fn too_many_headers_are_envoys_to_refuse(gateway: &Gateway) -> anyhow::Result<()> {
    let many = |count| {
        (0..count).fold(text("abc"), |request, n| request.header(&format!("x-{n}"), [0xe9, 0xff]))
    };
    assert_eq!(gateway.send("auto", many(80)).await?.status, 200);
    assert_eq!(gateway.send("auto", many(101)).await?.status, 431);
    assert_eq!(gateway.records("auto").await?.len(), 2);
    Ok(())
}

async fn a_tap_with_its_bridge_down_does_one_of_both(gateway: &Gateway) -> anyhow::Result<()> {
    let passed = gateway.send("tap-memory", text("abc")).await?;
    assert_eq!((passed.status, &*passed.text()), (200, "behind"));
    let refused = gateway.send("tap-acked", text("abc")).await?;
    let told = (refused.status, refused.header("kafka-error"));
    assert_eq!(told, (503, Some("bridge_unreachable")));
    Ok(())
}

async fn a_queue_that_is_full_by_bytes_refuses_and_drops_nothing(
    gateway: &Gateway,
    relay: &Relay,
) -> anyhow::Result<()> {
    relay.always(&[Does::Ends(Ending::Closed)]);
    let (mut kept, mut refused) = (HashSet::new(), 0);
    for number in 0..50 {
        let body = format!("{number:01000}");
        let reply = gateway.send("bytes", text(&body)).await?;
        match (reply.status, reply.header("kafka-error"), reply.header("retry-after")) {
            (200, None, None) => drop(kept.insert(body)),
            (503, Some("queue_full"), Some("1")) => refused += 1,
            other => anyhow::bail!("{other:?}"),
        }
    }
    assert!((15..20).contains(&kept.len()) && refused > 30, "{} kept", kept.len());
    relay.always(&[]);
    wait_until("all records", Duration::from_secs(30), async || {
        let written = bodies(&gateway.records("bytes").await?)?;
        ensure!(written.len() == kept.len(), "{} of {} are written", written.len(), kept.len());
        ensure!(written.iter().all(|(body, times)| *times == 1 && kept.contains(body)));
        Ok(())
    })
    .await
}
