//! Kafka or the bridge is down, silent, or killed: never a false 200, and work goes on afterwards.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::ensure;
use harness::load::{Ending, Limit, Load, Requests};
use harness::process::wait_until;
use kafka_upstream_tests::{Gateway, bodies, text};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn without_kafka_there_is_a_503_or_504_and_a_503_is_never_written() -> anyhow::Result<()> {
    let acked = json!({ "producer_async": false, "delivery_timeout": 2000 });
    let mut gateway = Gateway::start_alone(&[("orders", acked)]).await?;
    gateway.wait_for_success("orders", "before").await?;
    gateway.kafka.kill_broker(1)?;
    let mut refused = Vec::new();
    for body in ["down 1", "down 2", "down 3"] {
        let reply = gateway.send("orders", text(body)).await?;
        assert!(matches!(reply.status, 503 | 504), "{} {}", reply.status, reply.text());
        assert!(reply.header("kafka-error").is_some());
        assert_eq!(reply.header("retry-after").is_some(), reply.status == 503);
        if reply.status == 503 {
            refused.push(body);
        }
    }
    assert!(!refused.is_empty(), "the broker is away, so at least one is refused");
    gateway.kafka.start_broker(1).await?;
    gateway.wait_for_success("orders", "after").await?;
    gateway.wait_until_empty().await?;
    let written = bodies(&gateway.records("orders").await?)?;
    assert!(refused.iter().all(|body| !written.contains_key(*body)), "{written:?}");
    assert!(written.contains_key("before") && written.contains_key("after"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_kafka_gives_a_504_in_time() -> anyhow::Result<()> {
    let acked = json!({ "producer_async": false, "delivery_timeout": 1500 });
    let mut gateway = Gateway::start_alone(&[("orders", acked)]).await?;
    gateway.wait_for_success("orders", "before").await?;
    gateway.kafka.freeze_broker(1)?;
    let start = std::time::Instant::now();
    let reply = gateway.send("orders", text("silence")).await?;
    let took = start.elapsed();
    gateway.kafka.thaw_broker(1)?;
    assert_eq!(reply.status, 504, "{}", reply.text());
    assert_eq!(reply.json()?["error"], "the message may have been written");
    assert!(took < Duration::from_secs(10), "{took:?}");
    gateway.wait_for_success("orders", "after").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_topic_is_a_502() -> anyhow::Result<()> {
    let acked =
        json!({ "producer_async": false, "error_handling": { "return_error_message": true } });
    let gateway = Gateway::start(&[("orders", acked)]).await?;
    gateway.kafka.delete_topic("orders").await?;
    let reply = gateway.send("orders", text("lost")).await?;
    assert_eq!((reply.status, reply.header("kafka-error")), (502, Some("unknown_topic")));
    assert_eq!(
        reply.json()?,
        json!({ "message": "Bad Gateway", "error": "the topic does not exist" })
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_is_down_is_a_503_and_a_restarted_one_is_registered_again()
-> anyhow::Result<()> {
    let mut gateway = Gateway::start(&[("orders", json!({ "producer_async": false }))]).await?;
    gateway.wait_for_success("orders", "before").await?;
    for round in 0..3 {
        gateway.bridge.kill9()?;
        let reply = gateway.send("orders", text("down")).await?;
        assert_eq!(reply.status, 503, "{round}: {}", reply.text());
        assert_eq!(reply.header("kafka-error"), Some("bridge_unreachable"));
        assert_eq!(reply.header("retry-after"), Some("1"));
        gateway.bridge.restart().await?;
        let reply = gateway.send("orders", text("up")).await?;
        assert_eq!(reply.status, 200, "{round}: {}", reply.text());
    }
    let written = bodies(&gateway.records("orders").await?)?;
    assert_eq!(written.get("up"), Some(&3));
    assert_eq!(written.get("down"), None);
    Ok(())
}

/// The bridge is killed again and again under load; what is answered 503 is absent, and what is answered 200
/// is there.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_false_while_the_bridge_is_killed_under_load() -> anyhow::Result<()> {
    let mut gateway = Gateway::start(&[("orders", json!({ "producer_async": false }))]).await?;
    let requests = Requests::post("/", "text/plain", |number| number.to_string().into());
    let load = Load::new(gateway.envoy.port("orders")?, requests)
        .connections(64)
        .limit(Limit::Duration(Duration::from_secs(12)));
    let running = tokio::spawn(load.run());
    for _ in 0..5 {
        let before = gateway.gauge("records_written").await?;
        wait_until("some records", Duration::from_secs(20), async || {
            let written = gateway.gauge("records_written").await?;
            ensure!(written > before + 500, "{written} are written, {before} before");
            Ok(())
        })
        .await?;
        gateway.bridge.kill9()?;
        gateway.bridge.restart().await?;
    }
    let report = running.await??;
    gateway.wait_until_empty().await?;
    let written = bodies(&gateway.records("orders").await?)?;
    for (number, ending) in report.endings() {
        let there = written.contains_key(&number.to_string());
        match ending {
            Ending::Status(200) => assert!(there, "{number} was answered 200"),
            Ending::Status(503) => assert!(!there, "{number} was answered 503"),
            Ending::Status(504) => {}
            other => panic!("{number} ended as {other:?}"),
        }
    }
    assert!(report.count(200) > 2500, "{:?}", report.counts());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_mode_keeps_every_200_while_kafka_is_down_and_then_says_503() -> anyhow::Result<()> {
    let memory = json!({
        "producer_async": true,
        "producer_async_flush_timeout": 100,
        "producer_async_buffering_limits_messages_in_memory": 500,
        "delivery_timeout": 2000,
    });
    let mut gateway = Gateway::start_alone(&[("orders", memory)]).await?;
    gateway.kafka.kill_broker(1)?;
    let (mut kept, mut refused) = (HashSet::new(), 0);
    for number in 0..600 {
        let body = number.to_string();
        let reply = gateway.send("orders", text(&body)).await?;
        match reply.status {
            200 => {
                kept.insert(body);
            }
            503 => {
                assert_eq!(reply.header("kafka-error"), Some("queue_full"));
                refused += 1;
            }
            other => panic!("{other} {}", reply.text()),
        }
    }
    assert_eq!((kept.len(), refused), (500, 100));
    gateway.bridge.kill9()?;
    gateway.kafka.start_broker(1).await?;
    gateway.bridge.restart().await?;
    gateway.wait_until_empty().await?;
    let written = bodies(&gateway.records("orders").await?)?;
    assert!(written.keys().cloned().collect::<HashSet<_>>() == kept, "{} written", written.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_mode_writes_once_what_a_silent_kafka_left_in_doubt() -> anyhow::Result<()> {
    let memory = json!({
        "producer_async": true,
        "producer_request_acks": -1,
        "producer_async_flush_timeout": 100,
        "delivery_timeout": 2000,
    });
    let mut gateway = Gateway::start_alone(&[("orders", memory)]).await?;
    gateway.wait_for_success("orders", "before").await?;
    gateway.wait_until_empty().await?;
    gateway.kafka.freeze_broker(1)?;
    for number in 0..5 {
        let reply = gateway.send("orders", text(&number.to_string())).await?;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    // The filter asks again and again for what the bridge is still at.
    wait_until("doubt", Duration::from_secs(30), async || {
        let name = "host_bridge_batches_refused_total";
        let asked = gateway.bridge.metric(name, "status=\"504\"").await?;
        ensure!(asked >= 3.0, "{asked} times");
        Ok(())
    })
    .await?;
    gateway.kafka.thaw_broker(1)?;
    gateway.wait_until_empty().await?;
    let mut written = bodies(&gateway.records("orders").await?)?;
    assert!(written.remove("before").is_some());
    assert_eq!(written.len(), 5, "{written:?}");
    assert!(written.values().all(|times| *times == 1), "{written:?}");
    Ok(())
}

/// Nobody waits out a long `delivery_timeout` for a cluster that is known to be away.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_known_to_be_away_costs_a_request_2_s_of_its_20() -> anyhow::Result<()> {
    let acked = json!({ "producer_async": false, "delivery_timeout": 20_000 });
    let mut gateway = Gateway::start_alone(&[("orders", acked)]).await?;
    gateway.wait_for_success("orders", "before").await?;
    gateway.kafka.kill_broker(1)?;
    // The first ones may wait for as long as the cluster has not been away for 5 s, and what was
    // handed over when the broker was killed may be written.
    let mut refused = Vec::new();
    for number in 0.. {
        ensure!(number < 20, "no reply comes early");
        let (start, body) = (std::time::Instant::now(), format!("down {number}"));
        let reply = gateway.send("orders", text(&body)).await?;
        let took = start.elapsed();
        println!("{body}: {} {:?} in {took:?}", reply.status, reply.header("kafka-error"));
        if reply.status != 503 {
            ensure!(reply.status == 504, "{} {}", reply.status, reply.text());
            continue;
        }
        refused.push(body);
        if reply.header("kafka-error") == Some("kafka_unreachable") && took < Duration::from_secs(5)
        {
            break;
        }
    }
    gateway.kafka.start_broker(1).await?;
    gateway.wait_for_success("orders", "after").await?;
    gateway.wait_until_empty().await?;
    let written = bodies(&gateway.records("orders").await?)?;
    let false_503 = refused.iter().filter(|body| written.contains_key(*body)).count();
    assert_eq!(false_503, 0, "{refused:?} were answered 503, but there are {written:?}");
    Ok(())
}
