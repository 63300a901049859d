//! Clients that must say who they are: real brokers, each mechanism, right and wrong.

use std::time::{Duration, Instant};

use anyhow::ensure;
use harness::bridge::{Bridge, Settings};
use harness::http::Request;
use harness::kafka::{Kafka, KafkaVersion, Setup};
use harness::process::wait_until;
use harness::reader::read_all;

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
async fn a_password_in_a_file_changes_without_a_restart() -> anyhow::Result<()> {
    let kafka = secured(KafkaVersion::V4_3, &[]).await?;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_changes_under_load_fails_no_send() -> anyhow::Result<()> {
    let kafka = secured(KafkaVersion::V4_3, &[("connections.max.reauth.ms", "3000")]).await?;
    kafka.create_topic("t", 3).await?;
    let file = kafka.dir().join("password");
    std::fs::write(&file, "bobs-secret\n")?;
    let path = file.to_str().unwrap_or_default();
    let bob = [("sasl.mechanism", "SCRAM-SHA-256"), ("sasl.username", "bob")];
    let bridge = bridge(&kafka, &[bob[0], bob[1], ("sasl.password.file", path)]).await?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (stopped, port) = (stopped.clone(), bridge.port());
        senders.spawn(async move {
            let mut sent = 0;
            while !*stopped.borrow() {
                let request = Request::post("/v1/clusters/default/topics/t", "x".to_owned());
                let reply = request.send(port).await?;
                ensure!(reply.status == 200, "after {sent}: {} {}", reply.status, reply.text());
                sent += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            anyhow::Ok(sent)
        });
    }
    let metric = async |name: &str, label: &str| {
        bridge.metric(&format!("host_bridge_kafka_{name}"), label).await
    };
    let refused = async || {
        wait_until("a refusal", Duration::from_secs(20), async || {
            let refused = metric("faults", "stage=\"credential\"").await?;
            ensure!(refused > 0.0, "the password is still good");
            Ok(())
        })
        .await
    };
    // Whoever was not answered 200 ends the test with what it was answered.
    let grow = async |senders: &mut tokio::task::JoinSet<anyhow::Result<usize>>| {
        let least = metric("batches_sent_total", "").await? + 50.0;
        let grown = wait_until("more records", Duration::from_secs(40), async || {
            let now = metric("batches_sent_total", "").await?;
            ensure!(now >= least, "{now} batches, not {least}");
            Ok(())
        });
        tokio::select! {
            grown = grown => grown,
            Some(ended) = senders.join_next() => Err(anyhow::anyhow!("{:?}", ended)),
        }
    };
    grow(&mut senders).await?;
    // The broker first: sessions that end are refused until the file says the same.
    kafka.change_password("bob", "new-secret").await?;
    refused().await?;
    std::fs::write(&file, "new-secret\n")?;
    grow(&mut senders).await?;
    // The file first: sessions that end are refused until the broker knows the same.
    std::fs::write(&file, "third-secret\n")?;
    refused().await?;
    kafka.change_password("bob", "third-secret").await?;
    grow(&mut senders).await?;
    wait_until("readiness", Duration::from_secs(20), async || {
        let (status, told) = readiness(&bridge).await?;
        ensure!(status == 200, "{told}");
        Ok(())
    })
    .await?;
    stop.send_replace(true);
    let mut sent = 0;
    while let Some(sender) = senders.join_next().await {
        sent += sender??;
    }
    let held = read_all(&kafka.bootstrap(), "t").await?.len();
    ensure!(held == sent, "{held} are written, {sent} were answered 200");
    Ok(())
}

/// For so many seconds as `REAUTHENTICATION_SECONDS` says.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_3_s_is_renewed_under_load_without_a_gap() -> anyhow::Result<()> {
    let kafka = secured(KafkaVersion::V4_3, &[("connections.max.reauth.ms", "3000")]).await?;
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
