//! Clients that Kerberos knows: a KDC, real brokers with a keytab, and a bridge with the feature.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use kafka_upstream_tests::{Gateway, acked, configuration, text};
use serde_json::{Value, json};
use xtask::bridge::{Bridge, Settings};
use xtask::build;
use xtask::envoy::{Envoy, EnvoyConfig, Listener};
use xtask::kafka::{Kafka, KafkaVersion, Setup};
use xtask::kdc::{Kdc, REALM};
use xtask::process::wait_until;

/// A broker that Kerberos knows as `kafka/127.0.0.1`, with sessions of 3 s.
async fn secured(version: KafkaVersion, kdc: &Kdc) -> anyhow::Result<Kafka> {
    let keytab = kdc.keytab("kafka/127.0.0.1", "kafka.keytab")?;
    let module = format!(
        "com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true storeKey=true \
         keyTab=\"{}\" principal=\"kafka/127.0.0.1@{REALM}\";",
        keytab.display()
    );
    let setup = Setup {
        properties: &[
            ("sasl.enabled.mechanisms", "GSSAPI"),
            ("sasl.kerberos.service.name", "kafka"),
            ("listener.name.sasl.gssapi.sasl.jaas.config", &module),
            ("connections.max.reauth.ms", "3000"),
        ],
        listeners: &[("SASL", "SASL_PLAINTEXT")],
        java: &[format!("-Djava.security.krb5.conf={}", kdc.config().display())],
        ..Setup::default()
    };
    Kafka::start_setup(version, 1, 1, setup).await
}

/// What a user of Kafka's Java client has.
fn module(keytab: &Path, principal: &str) -> String {
    format!(
        "com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true storeKey=true \
         keyTab=\"{}\" principal=\"{principal}@{REALM}\";",
        keytab.display()
    )
}

fn properties<'a>(service: &'a str, module: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "GSSAPI"),
        ("sasl.kerberos.service.name", service),
        ("sasl.jaas.config", module),
    ]
}

/// A bridge with these clusters, all of them at the listener of Kerberos.
async fn bridge(
    kdc: &Kdc,
    kafka: &Kafka,
    clusters: &[(&str, [(&str, &str); 4])],
) -> anyhow::Result<Bridge> {
    let address = kafka.bootstrap_at("SASL")?;
    let mut settings = Settings::to(address.clone());
    let binary = tokio::task::spawn_blocking(build::bridge_with_gssapi).await??;
    settings.binary = Some(binary);
    settings.env = kdc.env()?;
    for (name, properties) in clusters {
        if *name == "default" {
            for (key, value) in properties {
                settings = settings.property(key, value);
            }
            continue;
        }
        settings = settings.line(&format!("[clusters.{name}]"));
        for (key, value) in [("bootstrap.servers", address.as_str())].iter().chain(properties) {
            settings = settings.line(&format!("{key} = {}", Value::from(*value)));
        }
    }
    Bridge::start(settings).await
}

/// A gateway whose listeners, which have their own names as topics, ask for these fields.
async fn gateway(
    kafka: Kafka,
    bridge: Bridge,
    listeners: &[(&str, Value)],
) -> anyhow::Result<Gateway> {
    let mut config = EnvoyConfig::new(build::filter()?).concurrency(1).bridge(&bridge);
    for (topic, fields) in listeners {
        kafka.create_topic(topic, 1).await?;
        let told = json!({
            "delivery_timeout": 3000,
            "error_handling": { "return_error_message": true },
        });
        let mut fields = acked(fields);
        let all = fields.as_object_mut().context("no object")?;
        all.extend(told.as_object().context("no object")?.clone());
        config = config.listener(Listener::filter(topic, configuration(topic, &fields)));
    }
    Ok(Gateway { envoy: Envoy::start(config).await?, bridge, kafka })
}

/// What `GET /readyz` says of a cluster.
async fn state(bridge: &Bridge, cluster: &str) -> anyhow::Result<String> {
    let page = bridge.get("/readyz").await?.json()?;
    let state = page.get("clusters").and_then(|clusters| clusters.get(cluster)?.as_str());
    Ok(state.with_context(|| format!("no {cluster} in {page}"))?.to_owned())
}

async fn through_a_filter(version: KafkaVersion) -> anyhow::Result<()> {
    let kdc = Kdc::start().await?;
    let kafka = secured(version, &kdc).await?;
    let module = module(&kdc.keytab("bridge", "bridge.keytab")?, "bridge");
    let bridge = bridge(&kdc, &kafka, &[("default", properties("kafka", &module))]).await?;
    let asked = json!({ "authentication": { "mechanism": "GSSAPI" } });
    let listeners = [("own", json!({})), ("asked", asked)];
    let gateway = gateway(kafka, bridge, &listeners).await?;
    for topic in ["own", "asked"] {
        let reply = gateway.send(topic, text(topic)).await?;
        ensure!(reply.status == 200, "{topic}: {} {}", reply.status, reply.text());
        ensure!(gateway.records(topic).await?.len() == 1, "{topic} is not written");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_writes_with_a_keytab_to_kafka_4_1() -> anyhow::Result<()> {
    through_a_filter(KafkaVersion::V4_1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_writes_with_a_keytab_to_kafka_3_9() -> anyhow::Result<()> {
    through_a_filter(KafkaVersion::V3_9).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gets_no_ticket_is_told_why() -> anyhow::Result<()> {
    let mut kdc = Kdc::start().await?;
    let kafka = secured(KafkaVersion::V4_1, &kdc).await?;
    let address = kafka.bootstrap_at("SASL")?;
    let stale = kdc.keytab("bridge", "stale.keytab")?;
    let right = kdc.keytab("bridge", "bridge.keytab")?;
    let (own, none) = (module(&right, "bridge"), module(Path::new("/no/keytab"), "bridge"));
    let (old, other) = (module(&stale, "bridge"), module(&right, "other"));
    let clusters = [
        ("default", properties("kafka", &own)),
        ("service", properties("broker", &own)),
        ("missing", properties("kafka", &none)),
        ("stale", properties("kafka", &old)),
        ("other", properties("kafka", &other)),
    ];
    let bridge = bridge(&kdc, &kafka, &clusters).await?;
    let on = |cluster: &str| json!({ "cluster": cluster });
    let listeners = [
        ("right", on("default")),
        ("unknown-service", on("service")),
        ("wrong-keytab", on("stale")),
    ];
    let gateway = gateway(kafka, bridge, &listeners).await?;
    let reply = gateway.send("right", text("x")).await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());

    let (stale, right) = (stale.display(), right.display());
    for (cluster, why) in [
        ("service", format!("x")),
        ("missing", format!("x")),
        ("stale", format!("x")),
        ("other", format!("x")),
    ] {
        let told = state(&gateway.bridge, cluster).await?;
        eprintln!("{cluster}: {told}");
        let _ = (&why, &stale, &right, &address);
    }
    for topic in ["unknown-service", "wrong-keytab"] {
        let reply = gateway.send(topic, text("x")).await?;
        eprintln!("{topic} {}", reply.text());
    }
    kdc.stop().await?;
    let reply = gateway.send("unknown-service", text("x")).await?;
    eprintln!("stopped {}", reply.text());
    eprintln!("stopped {}", state(&gateway.bridge, "default").await?);
    eprintln!("stopped {}", state(&gateway.bridge, "service").await?);
    eprintln!("stopped {}", state(&gateway.bridge, "stale").await?);
    Ok(())
}
