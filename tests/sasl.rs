//! Clients that must say who they are: real brokers, each mechanism, right and wrong.

use std::time::{Duration, Instant};

use anyhow::ensure;
use kafka_upstream_tests::{Gateway, text};
use serde_json::{Value, json};
use xtask::bridge::{Bridge, Settings};
use xtask::http::Request;
use xtask::kafka::{Kafka, KafkaVersion, Setup};
use xtask::process::wait_until;
use xtask::reader::read_all;

/// A password that every quoting on the way must leave alone.
const PASSWORD: &str = r#"p "4s\s=wo,rd';"#;

/// A broker whose listener `SASL` has these mechanisms; `alice` is known to each.
async fn secured(version: KafkaVersion, more: &[(&str, &str)]) -> anyhow::Result<Kafka> {
    let quoted = PASSWORD.replace('\\', r"\\").replace('"', "\\\"");
    // Another level of escapes: that of a Java properties file.
    let quoted = quoted.replace('\\', r"\\");
    let plain = format!(
        "org.apache.kafka.common.security.plain.PlainLoginModule required user_alice=\"{quoted}\";"
    );
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let mut properties = vec![
        ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"),
        ("listener.name.sasl.plain.sasl.jaas.config", plain.as_str()),
        ("listener.name.sasl.scram-sha-256.sasl.jaas.config", scram),
        ("listener.name.sasl.scram-sha-512.sasl.jaas.config", scram),
    ];
    properties.extend(more);
    let setup = Setup {
        properties: &properties,
        listeners: &[("SASL", "SASL_PLAINTEXT")],
        scram: &[("bob", "bobs-secret")],
        ..Setup::default()
    };
    Kafka::start_setup(version, 1, 1, setup).await
}

/// A plugin configuration that names the listener and says who it is.
fn filter(kafka: &Kafka, mechanism: &str, user: &str, password: &str) -> anyhow::Result<Value> {
    let address = kafka.bootstrap_at("SASL")?;
    let port: u16 = address.rsplit(':').next().unwrap_or_default().parse()?;
    Ok(json!({
        "producer_async": false,
        "delivery_timeout": 3000,
        "error_handling": { "return_error_message": true },
        "bootstrap_servers": [{ "host": "127.0.0.1", "port": port }],
        "authentication": { "mechanism": mechanism, "user": user, "password": password },
    }))
}

async fn through_a_filter(version: KafkaVersion) -> anyhow::Result<()> {
    let kafka = secured(version, &[]).await?;
    let listeners = [
        ("plain", filter(&kafka, "PLAIN", "alice", PASSWORD)?),
        ("scram256", filter(&kafka, "SCRAM-SHA-256", "bob", "bobs-secret")?),
        ("scram512", filter(&kafka, "SCRAM-SHA-512", "bob", "bobs-secret")?),
        ("plain-wrong", filter(&kafka, "PLAIN", "alice", "hunter2")?),
        ("scram256-wrong", filter(&kafka, "SCRAM-SHA-256", "bob", "hunter2")?),
        ("scram512-unknown", filter(&kafka, "SCRAM-SHA-512", "eve", "hunter2")?),
    ];
    let gateway = Gateway::start_with(kafka, 1, (1, &[]), &listeners).await?;
    for topic in ["plain", "scram256", "scram512"] {
        let reply = gateway.send(topic, text(topic)).await?;
        ensure!(reply.status == 200, "{topic}: {} {}", reply.status, reply.text());
        ensure!(gateway.records(topic).await?.len() == 1, "{topic} is not written");
    }
    for (topic, mechanism) in [
        ("plain-wrong", "PLAIN"),
        ("scram256-wrong", "SCRAM-SHA-256"),
        ("scram512-unknown", "SCRAM-SHA-512"),
    ] {
        let reply = gateway.send(topic, text(topic)).await?;
        ensure!(reply.status == 503, "{topic}: {} {}", reply.status, reply.text());
        let (told, step) = (reply.text(), format!("SASL credential: refused for {mechanism}"));
        for part in [&*step, "SASL_AUTHENTICATION_FAILED (58)", "check sasl.username"] {
            ensure!(told.contains(part), "{topic}: no `{part}` in {told}");
        }
        ensure!(!told.contains("hunter2"), "a secret is told");
    }
    let log =
        std::fs::read_to_string(gateway.bridge.config_path().with_file_name("host-bridge.log"))?;
    ensure!(!log.contains("hunter2") && !log.contains("bobs-secret"), "a secret is in the log");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_says_who_it_is_to_kafka_4_1() -> anyhow::Result<()> {
    through_a_filter(KafkaVersion::V4_1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_says_who_it_is_to_kafka_3_9() -> anyhow::Result<()> {
    through_a_filter(KafkaVersion::V3_9).await
}

/// A bridge whose cluster is the listener, with these properties.
async fn bridge(kafka: &Kafka, properties: &[(&str, &str)]) -> anyhow::Result<Bridge> {
    let settings = Settings::to(kafka.bootstrap_at("SASL")?);
    let settings = settings.property("security.protocol", "SASL_PLAINTEXT");
    let set = |settings: Settings, (key, value): &(&str, &str)| settings.property(key, value);
    Bridge::start(properties.iter().fold(settings, set)).await
}

async fn readiness(bridge: &Bridge) -> anyhow::Result<(u16, String)> {
    let reply = bridge.get("/readyz").await?;
    Ok((reply.status, reply.text()))
}

async fn produce(bridge: &Bridge, topic: &str) -> anyhow::Result<(u16, String)> {
    let path = format!("/v1/clusters/default/topics/{topic}");
    let reply = Request::post(&path, "x".to_owned()).send(bridge.port()).await?;
    Ok((reply.status, reply.text()))
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_says_which_step_failed() -> anyhow::Result<()> {
    let kafka = secured(KafkaVersion::V4_1, &[("sasl.enabled.mechanisms", "PLAIN")]).await?;
    kafka.create_topic("t", 1).await?;
    let alice = ("sasl.username", "alice");

    let right = [("sasl.mechanism", "PLAIN"), alice, ("sasl.password", PASSWORD)];
    let right = bridge(&kafka, &right).await?;
    ensure!(readiness(&right).await?.0 == 200);
    ensure!(produce(&right, "t").await?.0 == 200);

    let wrong = [("sasl.mechanism", "PLAIN"), alice, ("sasl.password", "hunter2")];
    let (status, told) = readiness(&bridge(&kafka, &wrong).await?).await?;
    ensure!(status == 503 && told.contains("SASL credential: refused for PLAIN"), "{told}");

    let missing = [("sasl.mechanism", "SCRAM-SHA-256"), alice, ("sasl.password", "x")];
    let (status, told) = readiness(&bridge(&kafka, &missing).await?).await?;
    let lacks = "this listener has no SCRAM-SHA-256, it has PLAIN; set sasl.mechanism";
    ensure!(status == 503 && told.contains(lacks), "{told}");

    let plaintext = Settings::to(kafka.bootstrap()).property("security.protocol", "SASL_PLAINTEXT");
    let plaintext =
        plaintext.property("sasl.mechanism", "PLAIN").property("sasl.username", "alice");
    let plaintext = Bridge::start(plaintext.property("sasl.password", PASSWORD)).await?;
    let (status, told) = readiness(&plaintext).await?;
    ensure!(status == 503 && told.contains("set security.protocol to PLAINTEXT or SSL"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_in_a_file_changes_without_a_restart() -> anyhow::Result<()> {
    let kafka = secured(KafkaVersion::V4_1, &[]).await?;
    let file = kafka.dir().join("password");
    std::fs::write(&file, "old\n")?;
    let path = file.to_str().unwrap_or_default();
    let bob = [("sasl.mechanism", "SCRAM-SHA-512"), ("sasl.username", "bob")];
    let bridge = bridge(&kafka, &[bob[0], bob[1], ("sasl.password.file", path)]).await?;
    ensure!(readiness(&bridge).await?.0 == 503);
    std::fs::write(&file, "bobs-secret\n")?;
    wait_until("readiness", Duration::from_secs(30), async || {
        let (status, told) = readiness(&bridge).await?;
        ensure!(status == 200, "{told}");
        Ok(())
    })
    .await
}

/// For so many seconds as `REAUTHENTICATION_SECONDS` says.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_3_s_is_renewed_under_load_without_a_gap() -> anyhow::Result<()> {
    let kafka = secured(KafkaVersion::V4_1, &[("connections.max.reauth.ms", "3000")]).await?;
    kafka.create_topic("t", 3).await?;
    let bob = [("sasl.mechanism", "SCRAM-SHA-256"), ("sasl.username", "bob")];
    let bridge = bridge(&kafka, &[bob[0], bob[1], ("sasl.password", "bobs-secret")]).await?;
    let metric = async |name: &str| bridge.metric(&format!("host_bridge_kafka_{name}"), "").await;
    wait_until("a first record", Duration::from_secs(20), async || {
        let (status, told) = produce(&bridge, "t").await?;
        ensure!(status == 200, "{told}");
        Ok(())
    })
    .await?;
    let opened = metric("connections_opened_total").await?;
    let seconds = std::env::var("REAUTHENTICATION_SECONDS");
    let seconds = seconds.map_or(Ok(15), |seconds| seconds.parse())?;
    let (end, mut sent) = (Instant::now() + Duration::from_secs(seconds), 0);
    while Instant::now() < end {
        let sending = (0..8).map(|_| produce(&bridge, "t"));
        for reply in futures_util::future::join_all(sending).await {
            let (status, told) = reply?;
            ensure!(status == 200, "after {sent}: {told}");
            sent += 1;
        }
    }
    ensure!(sent > 200, "only {sent} were sent");
    ensure!(metric("connections_opened_total").await? == opened, "a connection was replaced");
    ensure!(metric("batches_resent_total").await? == 0.0, "a batch was sent again");
    let held = read_all(&kafka.bootstrap(), "t").await?.len();
    ensure!(held == sent + 1, "{held} are written, {sent} and the first were sent");
    Ok(())
}
