//! What a field says is what happens: the fields of the configuration that no other test shows.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::bridge::{Bridge, Settings};
use harness::envoy::{Envoy, EnvoyConfig, Listener};
use harness::http::{Request, Response};
use harness::kafka::{Kafka, KafkaVersion};
use harness::ports;
use harness::process::wait_until;
use kafka_upstream_tests::{Gateway, acked, configuration, record_of, text};
use serde_json::{Value, json};
use xtask::build;

/// The longest flush there is: within a test only a full batch goes out.
const NEVER: u64 = 3_600_000;

/// Fields by the listener, which is the topic too; nothing listens on the port.
fn listeners(closed: u16) -> Vec<(&'static str, Value)> {
    let memory = |fields: Value| {
        let mut memory = json!({ "producer_async": true, "producer_async_flush_timeout": NEVER });
        if let (Some(memory), Value::Object(fields)) = (memory.as_object_mut(), fields) {
            memory.extend(fields);
        }
        memory
    };
    let told = |field: &str, value: Value| {
        acked(&json!({ "error_handling": { "return_error_message": true }, field: value }))
    };
    vec![
        (
            "token",
            acked(&json!({
                "bridge": "watched", "bridge_authority": "bridge.internal", "bridge_token": "s3cret",
            })),
        ),
        ("bare", acked(&json!({ "bridge": "watched" }))),
        ("acked", json!({ "host": "envoy", "delivery": "acked", "max_body_bytes": 5 })),
        ("queued", memory(json!({ "delivery": "memory", "new_kafka_async_producer": true }))),
        ("cluster", acked(&json!({ "cluster": "second" }))),
        ("murmur2", acked(&json!({ "key_query_arg": "key" }))),
        ("crc32", acked(&json!({ "key_query_arg": "key", "partitioner": "consistent_random" }))),
        (
            "headers",
            acked(&json!({ "headers": {
                "forward_http_headers_as_record_headers": false, "forward_all_by_default": true,
            } })),
        ),
        ("linger", acked(&json!({ "linger": 300 }))),
        ("count", memory(json!({ "producer_request_limits_messages_per_request": 3 }))),
        ("bytes", memory(json!({ "producer_request_limits_bytes_per_request": 1000 }))),
        ("full", memory(json!({ "producer_async_buffering_limits_bytes_in_memory": 2000 }))),
        (
            "patient",
            acked(&json!({
                "bootstrap_servers": [{ "host": "127.0.0.1", "port": closed }],
                "producer_request_retries_backoff_timeout": 2000, "delivery_timeout": 3000,
            })),
        ),
        (
            "slow",
            acked(&json!({
                "producer_request_timeout": 4000, "producer_request_retries_max_attempts": 0,
                "delivery_timeout": 30_000,
            })),
        ),
        (
            "sasl",
            told(
                "authentication",
                json!({ "mechanism": "OAUTHBEARER", "oauthbearer": {
                "token_endpoint_url": "https://idp.example/t", "client_id": "c", "client_secret": "s",
            } }),
            ),
        ),
        ("tls", told("security", json!({ "ssl": true }))),
        (
            "certificate",
            acked(&json!({
                "error_handling": { "return_error_message": true },
                "bootstrap_servers": [{ "host": "127.0.0.1", "port": closed }],
                "security": { "ssl": true, "certificate_id": "c" },
            })),
        ),
        (
            "registry",
            told(
                "schema_registry",
                json!({ "confluent": {
                "url": "http://r", "value_schema": { "subject_name": "s", "schema_version": 1 },
            } }),
            ),
        ),
    ]
}

/// Hands on what names the bridge and shows the token, and nothing else.
fn watched(port: u16) -> Listener {
    let exact =
        |name: &str, value: &str| json!({ "name": name, "string_match": { "exact": value } });
    let named = json!({ "prefix": "/", "headers": [
        exact(":authority", "bridge.internal"), exact("authorization", "Bearer s3cret"),
    ] });
    Listener::plain("watched").on_port(port).routes(json!([
        { "match": named, "route": { "cluster": "host_bridge_tcp" } },
        { "match": { "prefix": "/" }, "direct_response": { "status": 401 } },
    ]))
}

async fn start(kafka: Kafka, listeners: &[(&str, Value)]) -> anyhow::Result<Gateway> {
    let second =
        format!("[clusters.second]\nacks = 0\nbootstrap.servers = \"{}\"", kafka.bootstrap());
    let bridge = Bridge::start(Settings::to(kafka.bootstrap()).line(&second)).await?;
    let port = ports::free()?;
    let mut config = EnvoyConfig::new(build::filter()?)
        .bridge(&bridge)
        .cluster("watched", port)
        .listener(watched(port));
    for (name, fields) in listeners {
        kafka.create_topic(name, 3).await?;
        config = config.listener(Listener::filter(name, configuration(name, fields)));
    }
    Ok(Gateway { envoy: Envoy::start(config).await?, bridge, kafka })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_field_does_what_it_says() -> anyhow::Result<()> {
    let kafka = Kafka::start(KafkaVersion::V4_3, 1).await?;
    let mut gateway = start(kafka, &listeners(ports::free()?)).await?;
    the_bridge_is_called_by_its_name_with_its_token(&gateway).await?;
    delivery_and_the_largest_body_hold_by_their_names(&gateway).await?;
    a_cluster_is_chosen_by_its_name(&gateway).await?;
    a_partitioner_gives_a_key_its_partition(&gateway).await?;
    no_header_becomes_one_of_the_record_when_none_shall(&gateway).await?;
    a_batch_goes_out_when_it_is_full(&gateway).await?;
    what_the_bridge_cannot_do_is_refused_by_its_field(&gateway).await?;
    what_failed_is_tried_again_after_the_configured_time(&gateway).await?;
    a_silent_broker_has_the_configured_time(&mut gateway).await
}

async fn the_bridge_is_called_by_its_name_with_its_token(gateway: &Gateway) -> anyhow::Result<()> {
    let reply = gateway.send("token", text("x")).await?;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let reply = gateway.send("bare", text("x")).await?;
    assert_eq!((reply.status, reply.header("kafka-error")), (504, Some("bad_reply")));
    Ok(())
}

async fn delivery_and_the_largest_body_hold_by_their_names(
    gateway: &Gateway,
) -> anyhow::Result<()> {
    let place = |reply: &Response| reply.header("kafka-offset").is_some();
    let reply = gateway.send("acked", text("12345")).await?;
    assert_eq!((reply.status, place(&reply)), (200, true), "{}", reply.text());
    let reply = gateway.send("acked", text("123456")).await?;
    assert_eq!((reply.status, reply.header("kafka-error")), (413, Some("body_too_large")));
    let reply = gateway.send("queued", text("12345")).await?;
    assert_eq!((reply.status, place(&reply)), (200, false), "{}", reply.text());
    assert_eq!(gateway.records("queued").await?.len(), 0, "it waits for its batch");
    Ok(())
}

async fn a_cluster_is_chosen_by_its_name(gateway: &Gateway) -> anyhow::Result<()> {
    let reply = gateway.send("cluster", text("x")).await?;
    assert_eq!((reply.status, reply.header("kafka-offset")), (200, None), "of its acks=0");
    let name = "host_bridge_kafka_produce_requests_total";
    let requests = gateway.bridge.metric(name, r#"cluster="second""#).await?;
    assert!((requests - 1.0).abs() < 0.1, "{requests}");
    Ok(())
}

/// What Java's clients and librdkafka make of a key with three partitions.
async fn a_partitioner_gives_a_key_its_partition(gateway: &Gateway) -> anyhow::Result<()> {
    for (listener, key, partition) in [
        ("murmur2", "foobar", "0"),
        ("murmur2", "a", "1"),
        ("crc32", "foobar", "2"),
        ("crc32", "a", "0"),
    ] {
        let request = Request::post(&format!("/?key={key}"), "x");
        let reply = gateway.send(listener, request).await?;
        let place = reply.header("kafka-partition");
        assert_eq!((reply.status, place), (200, Some(partition)), "{listener} {key}");
    }
    Ok(())
}

async fn no_header_becomes_one_of_the_record_when_none_shall(
    gateway: &Gateway,
) -> anyhow::Result<()> {
    let reply = gateway.send("headers", text("x").header("x-tag", "1")).await?;
    let records = gateway.records("headers").await?;
    assert_eq!(record_of(&records, &reply, "headers")?.headers, []);
    Ok(())
}

async fn a_batch_goes_out_when_it_is_full(gateway: &Gateway) -> anyhow::Result<()> {
    let body = "a".repeat(600);
    // The second record of `bytes` makes a batch full, and does not fit into it.
    for (listener, sent, batch) in [("count", 3, 3), ("bytes", 2, 1)] {
        for number in 1..=sent {
            let before = gateway.records(listener).await?.len();
            assert_eq!(before, 0, "{listener} {number}: it waits for its batch");
            assert_eq!(gateway.send(listener, text(&body)).await?.status, 200);
        }
        wait_until("the batch", Duration::from_secs(10), async || {
            let written = gateway.records(listener).await?.len();
            ensure!(written == batch, "{written} of {listener} are written");
            Ok(())
        })
        .await?;
    }
    // A record is some bytes larger than its body: three fit, four do not.
    for status in [200, 200, 200, 503] {
        let reply = gateway.send("full", text(&body)).await?;
        assert_eq!(reply.status, status, "{}", reply.text());
        let code = (status == 503).then_some("queue_full");
        assert_eq!(reply.header("kafka-error"), code);
    }
    let start = Instant::now();
    assert_eq!(gateway.send("linger", text("x")).await?.status, 200);
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    Ok(())
}

/// What this bridge does not serve, or is not configured for, has been handed on to it.
async fn what_the_bridge_cannot_do_is_refused_by_its_field(
    gateway: &Gateway,
) -> anyhow::Result<()> {
    for (listener, refused) in [
        ("sasl", "is neither loopback nor in inline_token_endpoints"),
        ("registry", "`http://r` is neither loopback nor in inline_schema_registries"),
        ("tls", "security.ssl: the bridge's cluster `default` is configured without TLS"),
        ("certificate", "security.certificate_id: `c` is not in the bridge's `certificates`"),
    ] {
        let reply = gateway.send(listener, text("x")).await?;
        assert_eq!((reply.status, reply.header("kafka-error")), (500, Some("profile_refused")));
        assert!(reply.text().contains(refused), "{}", reply.text());
    }
    Ok(())
}

/// 0, 1.6 to 2.4 s, and later: by default there would be five attempts in 3 s at least.
async fn what_failed_is_tried_again_after_the_configured_time(
    gateway: &Gateway,
) -> anyhow::Result<()> {
    let reply = gateway.send("patient", text("x")).await?;
    assert_eq!(reply.status, 503, "{}", reply.text());
    let name = "host_bridge_kafka_metadata_failures_total";
    let failures = gateway.bridge.metric(name, r#"cluster="inline""#).await?;
    assert!((1.0..=3.0).contains(&failures), "{failures}");
    Ok(())
}

/// Without the two limits the request would time out after 2 s and be sent again for 30 s.
async fn a_silent_broker_has_the_configured_time(gateway: &mut Gateway) -> anyhow::Result<()> {
    gateway.wait_for_success("slow", "before").await?;
    gateway.kafka.freeze_broker(1)?;
    let start = Instant::now();
    let reply = gateway.send("slow", text("silence")).await;
    let took = start.elapsed();
    gateway.kafka.thaw_broker(1)?;
    assert_eq!(reply?.status, 504);
    assert!((4..25).contains(&took.as_secs()), "{took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_closes_probes_and_opens_as_configured() -> anyhow::Result<()> {
    let gated = json!({
        "producer_async_flush_timeout": 10, "producer_async_health_gating": true,
        "producer_async_health_failure_threshold": 5, "producer_async_health_probe_interval": 700,
        "producer_async_health_recovery_threshold": 4,
    });
    let mut gateway = start(Kafka::pooled(KafkaVersion::V4_3).await?, &[("gated", gated)]).await?;
    assert_eq!(gateway.send("gated", text("before")).await?.status, 200);
    gateway.wait_until_empty().await?;
    gateway.bridge.kill9()?;
    let before = gateway.gauge("callouts").await?;
    assert_eq!(gateway.send("gated", text("kept")).await?.status, 200);
    let closed = async || {
        let reply = gateway.send("gated", text("more")).await?;
        ensure!(reply.header("kafka-error") == Some("delivery_failing"), "{}", reply.status);
        Ok(())
    };
    wait_until("a closed gate", Duration::from_secs(20), closed).await?;
    let failed = gateway.gauge("callouts").await? - before;
    assert!(failed >= 5, "it closed after {failed}");

    let start = Instant::now();
    wait_until("two probes", Duration::from_secs(20), async || {
        let probes = gateway.gauge("callouts").await? - before - failed;
        ensure!(probes >= 2, "{probes} probes");
        Ok(())
    })
    .await?;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());

    gateway.bridge.restart().await?;
    gateway.wait_until_empty().await?;
    // What was queued went out in two batches at most: one request at a time proves the rest.
    let mut probes = 0;
    loop {
        gateway.wait_for_success("gated", "probe").await?;
        match gateway.send("gated", text("next")).await?.status {
            503 => probes += 1,
            status => break assert_eq!(status, 200),
        }
        ensure!(probes < 10, "the gate stays closed");
    }
    assert!(probes >= 1, "the gate opened at once");
    gateway.wait_until_empty().await?;
    gateway.records("gated").await?.first().context("nothing is written")?;
    Ok(())
}
