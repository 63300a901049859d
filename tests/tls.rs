//! A gateway that reaches Kafka by TLS: certificates by name, and certificates that rotate.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use harness::bridge::{Bridge, Settings};
use harness::envoy::{Envoy, EnvoyConfig, Listener};
use harness::http::Request;
use harness::kafka::{Kafka, KafkaVersion, Setup};
use harness::process::wait_until;
use harness::reader::read_all;
use kafka_upstream_tests::keys::{Authority, LEGACY, PASSWORD};
use kafka_upstream_tests::{configuration, text};
use serde_json::json;
use xtask::build;

/// A broker that wants client certificates, and those who may and who may not.
struct Parties {
    kafka: Kafka,
    /// Its listener for TLS.
    secure: String,
    right: Authority,
    wrong: Authority,
}

async fn start(version: KafkaVersion) -> anyhow::Result<Parties> {
    let (right, wrong) = tokio::task::spawn_blocking(authorities).await??;
    let properties = right.listener("secure", "required")?;
    let properties: Vec<_> = properties.iter().map(|(name, value)| (&**name, &**value)).collect();
    let listeners = &[("SECURE", "SSL")];
    let setup = Setup { properties: &properties, listeners, ..Setup::default() };
    let kafka = Kafka::start_setup(version, 1, 1, setup).await?;
    let secure = kafka.bootstrap_at("SECURE")?;
    Ok(Parties { kafka, secure, right, wrong })
}

fn authorities() -> anyhow::Result<(Authority, Authority)> {
    let (right, wrong) = (Authority::new()?, Authority::new()?);
    right.issue("broker", "ip:127.0.0.1")?;
    right.issue("client", "dns:client")?;
    wrong.issue("client", "dns:client")?;
    right.trust("trust.p12", &[])?;
    right.convert("client", "client-legacy.p12", LEGACY)?;
    Ok((right, wrong))
}

impl Parties {
    /// A cluster of the bridge's configuration by TLS; `more` is added.
    fn cluster(&self, name: &str, trust: &str, key: &str, more: &str) -> anyhow::Result<String> {
        let bootstrap = &self.secure;
        let (trust, key) = (self.right.path(trust)?, self.right.path(key)?);
        Ok(format!(
            "[clusters.{name}]\nbootstrap.servers = '{bootstrap}'\nsecurity.protocol = 'SSL'\n\
             ssl.truststore.location = '{trust}'\nssl.truststore.password = '{PASSWORD}'\n\
             ssl.keystore.location = '{key}'\nssl.keystore.password = '{PASSWORD}'\n{more}\n"
        ))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_takes_a_certificate_that_the_bridge_has_under_a_name() -> anyhow::Result<()> {
    let parties = start(KafkaVersion::V4_3).await?;
    let secure = &parties.secure;
    let password = parties.right.path("password")?;
    fs::write(&password, format!("{PASSWORD}\n"))?;
    let own = format!(
        "inline_bootstrap_servers = ['{secure}']\n[certificates.mine]\n\
         ssl.keystore.location = '{}'\nssl.keystore.password.file = '{password}'\n\
         [inline]\nssl.truststore.location = '{}'\n",
        parties.right.path("client.p12")?,
        parties.right.path("ca.pem")?,
    );
    let cluster = parties.cluster("modern", "trust.p12", "client.p12", "")?;
    let settings = Settings::to(parties.kafka.bootstrap()).line(&own).line(&cluster);
    let bridge = Bridge::start(settings).await?;
    let (host, port) = secure.split_once(':').context("HOST:PORT")?;
    let inline = |certificate: &str| {
        json!({ "producer_async": false,
            "security": { "ssl": true, "certificate_id": certificate },
            "error_handling": { "return_error_message": true },
            "bootstrap_servers": [{ "host": host, "port": port.parse::<u16>().unwrap_or(0) }] })
    };
    let mut config = EnvoyConfig::new(build::filter()?).bridge(&bridge);
    parties.kafka.create_topic("inline", 1).await?;
    for certificate in ["mine", "another"] {
        let fields = configuration("inline", &inline(certificate));
        config = config.listener(Listener::filter(certificate, fields));
    }
    let envoy = Envoy::start(config).await?;
    let reply = text("by TLS").send(envoy.port("mine")?).await?;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(read_all(&parties.kafka.bootstrap(), "inline").await?.len(), 1);
    let reply = text("x").send(envoy.port("another")?).await?;
    assert_eq!(reply.status, 500);
    assert!(reply.text().contains("security.certificate_id: `another` is not"), "{}", reply.text());
    assert_eq!(bridge.get("/readyz").await?.status, 200);
    for (label, least) in [("client", 28.0), ("truststore", 28.0)] {
        let sample = format!("cluster=\"modern\",certificate=\"{label}\"");
        let days = bridge.metric("host_bridge_kafka_certificate_days_left", &sample).await?;
        assert!((least..30.0).contains(&days), "{label}: {days} days");
    }
    let missing = "[certificates.gone]\nssl.keystore.location = '/no/such/file'\n";
    let refused = Bridge::start(Settings::to(parties.kafka.bootstrap()).line(missing)).await;
    let refused = format!("{:#}", refused.err().context("it started")?);
    let wanted = "certificates.gone: `ssl.keystore.location`: /no/such/file: No such file";
    assert!(refused.contains(wanted), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_certificates_lose_no_record() -> anyhow::Result<()> {
    let parties = start(KafkaVersion::V4_3).await?;
    parties.kafka.create_topic("load", 3).await?;
    let store = parties.right.path("rotating.p12")?;
    let publish = |authority: &Authority, name: &str| -> anyhow::Result<()> {
        fs::copy(authority.path(name)?, format!("{store}.new"))?;
        Ok(fs::rename(format!("{store}.new"), &store)?)
    };
    publish(&parties.right, "client.p12")?;
    let cluster = parties.cluster("load", "trust.p12", "rotating.p12", "acks = 'all'")?;
    let bridge = Bridge::start(Settings::to(parties.kafka.bootstrap()).line(&cluster)).await?;
    let port = bridge.port();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..4 {
        let stopped = stopped.clone();
        senders.spawn(async move {
            // About as many as a test can read back in a moment.
            let mut pace = tokio::time::interval(Duration::from_millis(20));
            let mut sent = 0;
            while !*stopped.borrow() {
                let request =
                    Request::post("/v1/clusters/load/topics/load", format!("{sender} {sent}"));
                let reply = request.send(port).await?;
                anyhow::ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
                sent += 1;
                pace.tick().await;
            }
            Ok(sent)
        });
    }
    let metric = async |name: &str| {
        bridge.metric(&format!("host_bridge_kafka_{name}"), "cluster=\"load\"").await
    };
    let reaches = async |name: &'static str, least: f64| {
        wait_until(name, Duration::from_secs(40), async || {
            let now = metric(name).await?;
            anyhow::ensure!(now >= least, "{name} is {now}, not {least}");
            Ok(())
        })
        .await
    };
    let grow =
        async || reaches("batches_sent_total", metric("batches_sent_total").await? + 50.0).await;
    grow().await?;
    let opened = metric("connections_opened_total").await?;
    let failures = metric("connect_failures_total").await?;
    let loads = metric("tls_loads_total").await?;

    // Noticed by itself: a store that is none, and what was read before stays.
    publish(&parties.right, "ca.pem")?;
    reaches("tls_load_failures_total", 1.0).await?;
    grow().await?;
    // On request: a certificate that the broker refuses. What is connected serves on.
    publish(&parties.wrong, "client.p12")?;
    bridge.process().hangup();
    reaches("connect_failures_total", failures + 2.0).await?;
    grow().await?;
    assert!((metric("connections_opened_total").await? - opened).abs() < 1e-9);
    // On request: a good one, on new connections.
    publish(&parties.right, "client-legacy.p12")?;
    bridge.process().hangup();
    reaches("tls_loads_total", loads + 2.0).await?;
    reaches("connections_opened_total", opened + 1.0).await?;
    grow().await?;

    stop.send_replace(true);
    let mut sent = 0;
    while let Some(sender) = senders.join_next().await {
        sent += sender??;
    }
    let written = read_all(&parties.kafka.bootstrap(), "load").await?;
    assert_eq!(written.len(), sent, "each of the records once");
    Ok(())
}
