//! What clients see while the filter's VM ends by a fault, and while its configuration changes under
//! load: never a 200 for what is not in Kafka.

#![expect(clippy::indexing_slicing, reason = "a configuration of ours has what is looked for")]

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use anyhow::ensure;
use harness::bridge::{Bridge, Settings};
use harness::envoy::{Envoy, EnvoyConfig, Listener};
use harness::kafka::{Kafka, KafkaVersion};
use harness::load::{Ending, Limit, Load, Requests};
use harness::ports;
use harness::process::wait_until;
use harness::reader::read_all;
use kafka_upstream_tests::listeners::Watched;
use kafka_upstream_tests::{bodies, configuration, text};
use serde_json::{Value, json};
use xtask::build;

/// Everything a topic holds, by body; each must be there once.
async fn written(kafka: &Kafka, topic: &str) -> anyhow::Result<HashSet<String>> {
    let bodies = bodies(&read_all(&kafka.bootstrap(), topic).await?)?;
    let twice: Vec<_> = bodies.iter().filter(|(_, times)| **times > 1).collect();
    ensure!(twice.is_empty(), "written twice: {twice:?}");
    Ok(bodies.into_keys().collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_ends_by_a_fault_gives_no_false_200_and_a_new_one_serves_on() -> anyhow::Result<()>
{
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    let bridge = Bridge::start(Settings::to(kafka.bootstrap())).await?;
    let mut config = EnvoyConfig::new(build::filter_with_trap()?).bridge(&bridge);
    let policies = [
        ("FAIL_RELOAD", true),
        ("FAIL_CLOSED", true),
        ("FAIL_OPEN", true),
        ("FAIL_OPEN", false),
        ("FAIL_RELOAD", false),
    ]
    .map(|(policy, stops)| (policy, stops, format!("{policy}-{stops}")));
    for (policy, stops, topic) in &policies {
        kafka.create_topic(topic, 1).await?;
        let fields = json!({
            "producer_async": false, "delivery_timeout": 2000,
            "allow_on_headers_stop_iteration": stops,
        });
        let listener = Listener::filter(topic, configuration(topic, &fields));
        let listener = listener.failure_policy(policy).stream_idle_timeout_s(3);
        config = config.listener(listener);
    }
    let envoy = Envoy::start(config).await?;
    for (policy, _, topic) in &policies {
        let port = envoy.port(topic)?;
        assert_eq!(text("before").send(port).await?.status, 200);
        // All that are paused in the VM when its callout is answered hang until the stream's limit.
        let mut asking = tokio::task::JoinSet::new();
        for number in 0..20 {
            let request = text(&number.to_string());
            let request = if number == 10 { request.header("x-trap", "1") } else { request };
            asking.spawn(async move { (number, request.send(port).await) });
        }
        let mut told = BTreeMap::<u16, Vec<i32>>::new();
        for (number, reply) in asking.join_all().await {
            let reply = reply?;
            // Envoy answers for a filter that is gone: such a 503 promises nothing.
            let is_envoys = reply.header("kafka-error").is_none();
            ensure!(reply.status != 503 || is_envoys, "{number}: {}", reply.text());
            told.entry(reply.status).or_default().push(number);
        }
        println!("{topic}: {told:?}");
        assert!(told.keys().all(|status| [200, 503, 504].contains(status)), "{told:?}");
        assert!(told.iter().any(|(status, _)| *status != 200), "nobody was in the VM: {told:?}");
        let held = written(&kafka, topic).await?;
        for number in told.get(&200).into_iter().flatten() {
            assert!(held.contains(&number.to_string()), "{number} has a false 200: {told:?}");
        }
        let again = async || {
            let reply = text("after").send(port).await?;
            ensure!(reply.status == 200, "{}", reply.status);
            Ok(())
        };
        match *policy {
            "FAIL_RELOAD" => wait_until("a new VM", Duration::from_secs(20), again).await?,
            // What follows passes by the filter, to a route that never answers 200.
            "FAIL_OPEN" => {
                let reply = text("after").send(port).await?;
                assert!(reply.status == 504 && reply.text().contains("bypassed"));
            }
            // Closed for good, which is why the configuration that is shipped reloads.
            _ => assert_eq!(text("after").send(port).await?.status, 503),
        }
    }
    Ok(())
}

/// Changes the filter's configuration five times while 32 clients send; returns what they saw.
async fn reconfigured(
    mode: &str,
    fields: Value,
    workers: u32,
) -> anyhow::Result<BTreeMap<Ending, u64>> {
    let kafka = Kafka::pooled(KafkaVersion::V4_3).await?;
    kafka.create_topic("orders", 1).await?;
    let bridge = Bridge::start(Settings::to(kafka.bootstrap())).await?;
    let port = ports::free()?;
    let config = |version: u32| {
        let mut fields = fields.clone();
        fields["max_body_bytes"] = json!(1_000_000 + version);
        let listener = Listener::filter("orders", configuration("orders", &fields)).on_port(port);
        EnvoyConfig::new(build::filter()?).bridge(&bridge).listener(listener).json()
    };
    let first = config(0)?;
    let arguments = ["--concurrency", &workers.to_string(), "--drain-time-s", "1"];
    let (watched, envoy) = Watched::start(&first, ("orders", port), &arguments).await?;
    wait_until("the listener", Duration::from_secs(20), async || {
        let reply = text("first").send(port).await?;
        ensure!(reply.status == 200, "{}", reply.status);
        Ok(())
    })
    .await?;

    let requests = Requests::post("/", "text/plain", |number| number.to_string().into());
    let load = Load::new(port, requests).connections(32);
    let load = load.limit(Limit::Duration(Duration::from_secs(10)));
    let load = tokio::spawn(load.run());
    for version in 1..=5 {
        watched.publish(version, &config(version)?)?;
        wait_until("the new configuration", Duration::from_secs(20), async || {
            let begun = envoy.stat("listener_manager.lds.update_success").await?;
            ensure!(begun > u64::from(version), "{begun} updates");
            Ok(())
        })
        .await?;
        wait_until("the end of the old one", Duration::from_secs(20), async || {
            let draining = envoy.stat("listener_manager.total_filter_chains_draining").await?;
            ensure!(draining == 0, "{draining} are draining");
            Ok(())
        })
        .await?;
    }
    let report = load.await??;
    wait_until("empty filters", Duration::from_secs(30), async || {
        let left = envoy.stat("wasmcustom.kafka_upstream_queue_records").await?;
        ensure!(left == 0, "{left} records are left");
        Ok(())
    })
    .await?;
    let held = written(&kafka, "orders").await?;
    let mut missing = report.endings().filter(|(number, ending)| {
        *ending == Ending::Status(200) && !held.contains(&number.to_string())
    });
    ensure!(missing.next().is_none(), "{mode}: a 200 is missing: {:?}", report.counts());
    Ok(report.counts())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_changes_under_load_takes_no_200_back() -> anyhow::Result<()> {
    for (mode, fields, workers) in [
        ("acked", json!({ "producer_async": false }), 1),
        ("acked", json!({ "producer_async": false, "allow_on_headers_stop_iteration": false }), 2),
        ("memory", json!({ "producer_async_flush_timeout": 500 }), 2),
    ] {
        let counts = reconfigured(mode, fields, workers).await?;
        println!("{mode}, {workers} workers: {counts:?}");
        let fair = |ending: &Ending| {
            matches!(ending, Ending::Status(200 | 503 | 504) | Ending::NotSent | Ending::Broken)
        };
        assert!(counts.keys().all(fair), "{counts:?}");
        assert!(counts.get(&Ending::Status(200)).is_some_and(|count| *count > 1000), "{counts:?}");
    }
    Ok(())
}
