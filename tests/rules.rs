//! Which requests are captured and what becomes of them: rules, taps, gates, and what is counted.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::bridge::{Bridge, Settings};
use harness::envoy::{Envoy, EnvoyConfig, Listener};
use harness::http::Request;
use harness::kafka::{Kafka, KafkaVersion};
use harness::process::wait_until;
use kafka_upstream_tests::{Gateway, bodies, configuration, text};
use serde_json::{Value, json};
use xtask::build;

/// What stands behind a tap: the bridge's own API, whose records show what came through.
const BEHIND: &str = "/v1/clusters/default/topics/behind";

fn listener(name: &str, fields: &Value) -> Listener {
    Listener::filter(name, configuration(name, fields))
}

async fn start() -> anyhow::Result<Gateway> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    for topic in ["rest", "orders", "copies", "behind", "quick", "gated", "kept", "inline"] {
        kafka.create_topic(topic, 1).await?;
    }
    let bridge = Bridge::start(Settings::to(kafka.bootstrap())).await?;
    let (host, port) = kafka.bootstrap().split_once(':').map_or_else(
        || (String::new(), 0),
        |(host, port)| (host.to_owned(), port.parse::<u16>().unwrap_or_default()),
    );
    let rules = json!({ "producer_async": false, "topic": "rest", "match": [
        { "path": "/orders", "methods": ["POST"], "config": { "topic": "orders" } },
        { "path_regex": "/v[0-9]+/x", "hosts": ["*.example.com"], "config": {
            "success_response": { "status": 202, "content_type": "text/plain", "body": "taken" } } },
        { "path_prefix": "/rest/" },
    ] });
    let tap = json!({ "mode": "tap", "topic": "copies", "producer_async": false });
    let quick = json!({ "mode": "tap", "producer_async_flush_timeout": 10, "max_body_bytes": 10 });
    let gated = json!({
        "producer_async_flush_timeout": 10, "producer_async_health_gating": true,
        "producer_async_health_failure_threshold": 1, "producer_async_health_probe_interval": 200,
    });
    let refused = json!({
        "producer_async": false, "topic": "rest",
        "schema_registry": { "confluent": { "url": "http://registry", "value_schema":
            { "subject_name": "orders", "schema_version": "latest" } } },
        "error_handling": { "return_error_message": true },
    });
    let inline = json!({
        "producer_async": false, "cluster_name": "mine", "timeout": 3000, "keepalive": 5000,
        "keepalive_enabled": true, "bootstrap_servers": [{ "host": host, "port": port }],
    });
    let behind = json!([{ "match": { "prefix": "/" },
        "direct_response": { "status": 200, "body": { "inline_string": "behind" } } }]);
    let config = EnvoyConfig::new(build::filter()?)
        .bridge(&bridge)
        .listener(listener("rules", &rules).routes(behind))
        .listener(listener("tap", &tap).to_cluster("host_bridge_tcp"))
        .listener(listener("quick", &quick).to_cluster("host_bridge_tcp"))
        .listener(listener("gated", &gated))
        .listener(listener("refused", &refused))
        .listener(listener("kept", &json!({ "producer_async_flush_timeout": 2000 })))
        .listener(listener("inline", &inline));
    Ok(Gateway { envoy: Envoy::start(config).await?, bridge, kafka })
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_taps_and_gates_keep_their_word_and_are_counted() -> anyhow::Result<()> {
    let mut gateway = start().await?;
    the_first_rule_that_fits_counts_and_the_rest_passes(&gateway).await?;
    a_tapped_request_goes_on_untouched_once_its_copy_is_written(&gateway).await?;
    what_the_bridge_cannot_do_is_refused_by_its_field(&gateway).await?;
    statistics_tell_outcomes_sizes_and_latency(&gateway).await?;
    without_a_bridge_each_mode_does_what_it_says(&mut gateway).await?;
    a_drained_gateway_can_be_stopped_without_a_loss(&mut gateway).await
}

async fn the_first_rule_that_fits_counts_and_the_rest_passes(
    gateway: &Gateway,
) -> anyhow::Result<()> {
    let post = |target: &str| Request::post(target, "x").header("content-type", "text/plain");
    let order = gateway.send("rules", post("/orders?a=1")).await?;
    assert_eq!((order.status, order.header("kafka-topic")), (200, Some("orders")));
    let rest = gateway.send("rules", post("/rest/a")).await?;
    assert_eq!((rest.status, rest.header("kafka-topic")), (200, Some("rest")));
    let taken = gateway.send("rules", post("/v12/x").header("host", "api.example.com:80")).await?;
    assert_eq!((taken.status, &*taken.text()), (202, "taken"));
    assert_eq!(taken.header("content-type"), Some("text/plain"));
    for passing in [Request::get("/orders"), post("/v12/x"), post("/v12/xy"), post("/rest")] {
        let reply = gateway.send("rules", passing).await?;
        assert_eq!((reply.status, &*reply.text()), (200, "behind"));
    }
    let inline = gateway.send("inline", text("x")).await?;
    assert_eq!((inline.status, inline.header("kafka-topic")), (200, Some("inline")));
    assert_eq!(gateway.records("orders").await?.len(), 1);
    assert_eq!(gateway.records("rest").await?.len(), 2);
    Ok(())
}

async fn a_tapped_request_goes_on_untouched_once_its_copy_is_written(
    gateway: &Gateway,
) -> anyhow::Result<()> {
    let mut sent = 0;
    for listener in ["tap", "quick"] {
        for body in ["", "one", "0123456789"] {
            let request = || Request::post(BEHIND, body).header("content-type", "text/plain");
            for request in [request(), request().http2()] {
                let reply = gateway.send(listener, request).await?;
                assert_eq!(reply.status, 200, "{listener} {body:?}: {}", reply.text());
                assert_eq!(reply.header("kafka-topic"), Some("behind"));
                sent += 1;
            }
        }
        let pieces = vec!["01234".into(), "56789".into()];
        let slow = Request::post(BEHIND, "").pieces(pieces, Duration::from_millis(20));
        let slow = slow.header("content-length", "10").header("content-type", "text/plain");
        let reply = gateway.send(listener, slow).await?;
        assert_eq!(reply.status, 200, "{listener} in pieces: {}", reply.text());
        sent += 1;
        let get = gateway.send(listener, Request::get("/healthz")).await?;
        assert_eq!((get.status, get.json()?), (200, json!({ "alive": true })));
    }
    gateway.wait_until_empty().await?;
    let behind = gateway.records("behind").await?;
    assert_eq!(behind.len(), sent);
    let long = behind.iter().filter(|record| record.value.as_deref() == Some(b"0123456789"));
    assert_eq!(long.count(), 6, "bodies come through as they are");
    for (topic, copies) in [("copies", 8), ("quick", 8)] {
        assert_eq!(gateway.records(topic).await?.len(), copies, "{topic}");
    }
    let large = Request::post(BEHIND, "0123456789a").header("content-type", "text/plain");
    let reply = gateway.send("quick", large).await?;
    assert_eq!(reply.status, 200, "a copy that is too large stops nothing: {}", reply.text());
    gateway.wait_until_empty().await?;
    assert_eq!(gateway.records("quick").await?.len(), 8);
    Ok(())
}

async fn what_the_bridge_cannot_do_is_refused_by_its_field(
    gateway: &Gateway,
) -> anyhow::Result<()> {
    let reply = gateway.send("refused", text("x")).await?;
    assert_eq!((reply.status, reply.header("kafka-error")), (500, Some("profile_refused")));
    assert!(
        reply
            .text()
            .contains("`http://registry` is neither loopback nor in inline_schema_registries"),
        "{}",
        reply.text()
    );
    Ok(())
}

async fn statistics_tell_outcomes_sizes_and_latency(gateway: &Gateway) -> anyhow::Result<()> {
    wait_until("statistics", Duration::from_secs(20), async || {
        let text = gateway.envoy.admin_get("/stats/prometheus").await?;
        for wanted in [
            "kafka_upstream_requests{outcome=\"passed\"} 4",
            "kafka_upstream_requests{outcome=\"profile_refused\"} 1",
            "kafka_upstream_requests{outcome=\"body_too_large\"} 1",
            "kafka_upstream_requests{outcome=\"sent\"} 20",
            "kafka_upstream_batch_records_count",
            "kafka_upstream_callout_ms_count",
            "kafka_upstream_queue_bytes",
            "kafka_upstream_resends",
            "kafka_upstream_records_dropped",
            "kafka_upstream_client_gone",
        ] {
            ensure!(text.contains(wanted), "no {wanted} in\n{}", ours(&text));
        }
        Ok(())
    })
    .await
}

fn ours(text: &str) -> String {
    let lines = text.lines().filter(|line| line.contains("kafka_upstream"));
    lines.filter(|line| !line.contains("_bucket")).collect::<Vec<_>>().join("\n")
}

async fn without_a_bridge_each_mode_does_what_it_says(gateway: &mut Gateway) -> anyhow::Result<()> {
    let before = gateway.send("gated", text("before")).await?;
    assert_eq!(before.status, 200);
    gateway.wait_until_empty().await?;
    gateway.bridge.kill9()?;
    let tapped = gateway.send("tap", Request::post(BEHIND, "lost")).await?;
    assert_eq!((tapped.status, tapped.header("kafka-error")), (503, Some("bridge_unreachable")));
    // Each 200 is a promise; the failing batch behind it closes the gate.
    let mut kept = vec!["before".to_owned()];
    let closed = loop {
        ensure!(kept.len() < 10_000, "the gate stays open");
        let body = format!("kept {}", kept.len());
        let reply = gateway.send("gated", text(&body)).await?;
        match reply.status {
            200 => kept.push(body),
            _ => break reply,
        }
    };
    assert_eq!((closed.status, closed.header("kafka-error")), (503, Some("delivery_failing")));
    gateway.bridge.restart().await?;
    gateway.wait_for_success("gated", "after").await?;
    // The gauges follow with the next tick, so they may not know of it yet.
    let written = wait_until("the last record", Duration::from_secs(30), async || {
        let written = bodies(&gateway.records("gated").await?)?;
        ensure!(written.contains_key("after"), "{written:?}");
        Ok(written)
    })
    .await?;
    assert!(kept.iter().all(|body| written.contains_key(body)), "{kept:?}: {written:?}");
    assert_eq!(written.len(), kept.len() + 1, "{kept:?}: {written:?}");
    let behind = gateway.records("behind").await?;
    assert!(!behind.iter().any(|record| record.value.as_deref() == Some(b"lost")));
    Ok(())
}

/// What docs/operating.md says to do before Envoy is stopped.
async fn a_drained_gateway_can_be_stopped_without_a_loss(
    gateway: &mut Gateway,
) -> anyhow::Result<()> {
    for number in 0..20 {
        let reply = gateway.send("kept", text(&number.to_string())).await?;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let drain = Request::post("/drain_listeners?graceful&skip_exit", "");
    let drained = drain.send(gateway.envoy.admin_port()).await?;
    assert_eq!(drained.status, 200, "{}", drained.text());
    gateway.wait_until_empty().await?;
    gateway.envoy.stop().await.context("Envoy does not stop")?;
    assert_eq!(bodies(&gateway.records("kept").await?)?.len(), 20);
    Ok(())
}
